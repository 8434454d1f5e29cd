//! What can go wrong with the ledger, and with an append.

use std::io;
use std::path::{Path, PathBuf};

use super::memory::LookupError;
use super::recovery::Refusal;
use crate::attest::{AttestError, KeyId};
use crate::event::{DraftError, EventHash, EventId, LineError, Seq};
use crate::keys::KeyFault;
use crate::policy::PolicyError;

/// Why the ledger can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The disk said no.
    #[error("{action} {path}: {source}; {advice}", advice = io_advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// There is no store, and none was to be created.
    #[error("there is no store at {path}; create one with `counterfoil --store {path} init`, or name another with --store")]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The path is there, but no directory.
    #[error("{path} is not a directory; name the folder of a store")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Something inside the store that is written to is a symbolic link. Nothing was written.
    #[error(
        "{path} is a symbolic link, and nothing inside a store is written through one; put what it points to in its place, or remove it"
    )]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// Another process (or another part of this one) writes to the store.
    #[error(
        "{path} is being written by {holder}; close it there, or read without the lock (show, query, tail, verify and parity need none)"
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who: `process 1234`, as far as LOCK says.
        holder: String,
    },
    /// A group is out to be written, and must be brought back first.
    #[error("the group up to seq {seq} is in flight; call `Writer::land` with it first")]
    InFlight {
        /// Its last event.
        seq: Seq,
    },
    /// The open group has events that are to be signed yet.
    #[error("seq {seq} is not signed yet; call `Writer::sign` first")]
    NotSigned {
        /// The first of them.
        seq: Seq,
    },
    /// ledger.json is damaged, or not a counterfoil's.
    #[error("{path} is no ledger manifest: {reason}; move it away and run `counterfoil repair --from mirror`, or restore it from a backup")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store was written by a newer version.
    #[error("{path} has format_version {found}, and this counterfoil knows {known}; use a newer counterfoil")]
    FutureFormat {
        /// The manifest.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What this version knows.
        known: u64,
    },
    /// The segment is being appended to, so it can't be compressed.
    #[error("{path} is the active segment, which is never compressed; name sealed ones, or use `counterfoil compress --all`")]
    Active {
        /// The file.
        path: PathBuf,
    },
    /// No segment holds this event.
    #[error("no segment holds seq {seq}: the ledger ends at seq {head}; use `counterfoil compress --all`, or name a seq that is there")]
    NoSegment {
        /// The event.
        seq: Seq,
        /// The last one that is there.
        head: Seq,
    },
    /// What was written does not read back as what it was written from. Nothing was replaced.
    #[error("{path} does not read back as it was written; check the disk, and run `counterfoil doctor`")]
    ReadsBackWrong {
        /// The file.
        path: PathBuf,
    },
    /// Recovery refused to guess.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// A line that should be right is not.
    #[error("{path}, byte {offset}: {reason}; run `counterfoil verify` to see all damage, then `counterfoil repair --from mirror`")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What is wrong with it.
        reason: LineFault,
    },
    /// The disk is full. Nothing was written, and the writer is well: free some space and append again.
    #[error("the disk that holds {path} is full: nothing was written; free some space and append again")]
    DiskFull {
        /// The segment.
        path: PathBuf,
    },
    /// A write or fsync has failed before; what reached the disk is unknown until the store is opened afresh.
    #[error("this writer is poisoned by an I/O error ({cause}); close the store and open it again: recovery settles what was recorded")]
    Poisoned {
        /// The error that did it.
        cause: String,
    },
}

/// What a person can do about an I/O error.
pub fn io_advice(error: &io::Error) -> &'static str {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return "it is a symbolic link, which is not written through; put what it points to in its place";
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => "give this user access to it",
        io::ErrorKind::ReadOnlyFilesystem => "make its disk writable",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space and try again",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
        io::ErrorKind::InvalidInput => "put a regular file in its place",
        io::ErrorKind::WouldBlock => "raise the limit on threads, or end some",
        _ => "check the disk, and run `counterfoil doctor`",
    }
}

impl LedgerError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
        let path = path.to_owned();
        move |source| LedgerError::Io { action, path, source }
    }
}

/// What can be wrong with a line at its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineFault {
    /// It does not decode, or its hash does not fit its own bytes.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Bytes of it are in a part of a compressed segment that is damaged.
    #[error("it lies in a damaged part of a compressed segment")]
    Compressed,
    /// It does not end in LF.
    #[error("the line has no end")]
    Unterminated,
    /// Its seq is not the one that belongs here.
    #[error("seq {found} where {expected} belongs")]
    Seq {
        /// What belongs here.
        expected: Seq,
        /// What the line says.
        found: Seq,
    },
    /// It does not link to the line before it.
    #[error("prev_event_hash is {found}, but the event before it has {expected}")]
    Link {
        /// The hash of the event before it.
        expected: EventHash,
        /// What the line says.
        found: EventHash,
    },
    /// Its position in its stream is wrong.
    #[error("session_seq {found} where {expected} belongs")]
    SessionSeq {
        /// What belongs here.
        expected: u64,
        /// What the line says.
        found: u64,
    },
    /// Its payload is not the one that was hashed.
    #[error("the payload does not fit payload_hash")]
    Payload,
    /// Its payload is out of line, and the blob is missing or wrong.
    #[error("the blob {hash} is {what}")]
    Blob {
        /// Its name.
        hash: String,
        /// `missing`, `damaged`, `of another length`.
        what: &'static str,
    },
    /// Its payload is erased, but no erasure event names it.
    #[error("the payload is marked erased, but no counterfoil.erasure.v1 event names it")]
    NotErased,
    /// Its signature is not one of the key that it names.
    #[error("the signature is none of this event by {key_id}")]
    Signature {
        /// The key that it names.
        key_id: KeyId,
    },
    /// Its key may not sign here, or it changes keys as it may not.
    #[error("not signed as it may be: {0}")]
    Key(#[from] KeyFault),
    /// It is not signed, though it must be.
    #[error("the event is not signed")]
    NotSigned,
    /// Its group began before the one that it follows, or after itself.
    #[error("group_seq {found} does not fit the line before it")]
    Group {
        /// What the line says.
        found: Seq,
    },
    /// A batch is not whole, or its lines are not in a row.
    #[error("the line does not continue the batch before it")]
    Batch,
}

impl LineFault {
    /// Whether the line is what was written, and it is only a question of who signed it.
    pub(crate) fn is_of_signature(&self) -> bool {
        matches!(self, LineFault::Signature { .. } | LineFault::Key(_) | LineFault::NotSigned)
    }
}

/// Why an append was refused. Unless it says otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The draft is out of bounds.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The id is in the ledger with other content.
    #[error(
        "{id} is already in the ledger as seq {seq} with other content; give the new event an id of its own (`counterfoil show {seq}` shows the first)"
    )]
    Conflict {
        /// The id.
        id: EventId,
        /// Where it stands.
        seq: Seq,
    },
    /// Some events of a batch are in the ledger and others are not, or an id comes twice in it.
    #[error("the batch repeats {id}, but is not a repetition of one batch as a whole; append new events in a batch of their own")]
    BatchConflict {
        /// The first id that was found.
        id: EventId,
    },
    /// A batch without events.
    #[error("the batch is empty; give it at least one event")]
    EmptyBatch,
    /// A batch that does not fit one group.
    #[error(
        "the batch has {events} events and {bytes} bytes, but a batch must fit one group of {events_max} events and {bytes_max} bytes; split it"
    )]
    BatchTooLarge {
        /// Events it has.
        events: usize,
        /// Bytes it has at most.
        bytes: usize,
        /// `group_events_max`.
        events_max: usize,
        /// `group_bytes_max`.
        bytes_max: usize,
    },
    /// The stream is not where the caller expected it.
    #[error("stream `{session_id}` is at {actual}, not at {expected}; read what came in between, and decide again")]
    WrongSessionSeq {
        /// The stream.
        session_id: String,
        /// What the caller expected (0: no event yet).
        expected: u64,
        /// Where it is.
        actual: u64,
    },
    /// The ledger's head is not where the caller expected it.
    #[error("the ledger's head is {actual}, not {expected}; read what came in between, and decide again")]
    WrongHead {
        /// What the caller expected.
        expected: EventHash,
        /// Where it is.
        actual: EventHash,
    },
    /// A condition on a stream, but the draft belongs to none.
    #[error("a condition on a stream needs a draft with a session id; give the draft one, or drop the condition")]
    NoSession,
    /// The store's policy refuses it; the whole decision is in there.
    #[error(transparent)]
    Policy(#[from] Box<PolicyError>),
    /// The event could not be signed.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// A change to the keys that does not follow from those that the ledger has.
    #[error(transparent)]
    Key(#[from] KeyFault),
    /// The id or the stream can't be looked up while the mirror is being rebuilt.
    #[error("the mirror is being rebuilt ({done} of {total} events), and this append needs it; try again in a moment")]
    Rebuilding {
        /// Events that are mirrored.
        done: u64,
        /// Events in the ledger.
        total: u64,
    },
    /// More events wait for the mirror than may.
    #[error(
        "{waiting} events wait for the mirror, which is the most that may; append again when it has caught up (`counterfoil doctor` says what holds it)"
    )]
    MirrorTooFarBehind {
        /// How many wait.
        waiting: usize,
    },
    /// The id could not be looked up.
    #[error("looking up the event id: {0}; append again once that is mended (`counterfoil doctor` says how)")]
    Lookup(#[source] LookupError),
    /// As many appends are in flight as may.
    #[error("as many appends are in flight as may be; append again in a moment, or use `append`, which waits")]
    Busy,
    /// The append can never fit the bound on bytes in flight.
    #[error("the append has {bytes} bytes, and only {max} may be in flight; raise `inflight_bytes_max`, or split it")]
    TooLargeForFlight {
        /// Bytes it has at most.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The answer was lost: it may or may not be recorded.
    #[error("whether the append was recorded is unknown; append the same draft with the same id again: it is recorded once")]
    OutcomeUnknown {
        /// The drafts, with their ids, where they could be given back.
        drafts: Vec<crate::event::Draft>,
    },
    /// The store was closed.
    #[error("the store is closed; open it again")]
    Closed,
    /// The actors gave up.
    #[error("the store has stopped: {reason}; close it and open it again")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The ledger can't take it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[cfg(feature = "actors")]
impl AppendError {
    /// Whether it is what other events say that speaks against the append.
    pub(crate) fn rests_on_others(&self) -> bool {
        use AppendError::{BatchConflict, Conflict, Key, Policy, WrongHead, WrongSessionSeq};
        matches!(self, Conflict { .. } | BatchConflict { .. } | WrongHead { .. } | WrongSessionSeq { .. } | Key(_) | Policy(_))
    }
}
