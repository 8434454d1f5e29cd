//! Whether a line is right at its place: the one check that recovery, verify, replay and repair share.

use std::io;
use std::path::{Path, PathBuf};

use super::positions::{Positions, SessionKey};
use super::storage::{self, Storage};
use super::{Head, LedgerError, LineFault};
use crate::event::{Body, Event, EventHash, EventId, EventType, PayloadHash, Seq};
use crate::keys::Signed;

/// Looks up the position of a stream before the first event that a check has seen.
pub(crate) type SessionBase<'a> = dyn FnMut(&str) -> Option<u64> + 'a;

/// What an event says of its own place, and whether its inline payload is right: all that a check in order needs.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub seq: Seq,
    pub id: EventId,
    pub prev_event_hash: EventHash,
    pub event_hash: EventHash,
    pub group_seq: Seq,
    pub batch: Option<(u32, u32)>,
    pub session: Option<(SessionKey, u64)>,
    pub payload_is_right: bool,
    /// Its signature, as far as it was looked at.
    pub signed: Signed,
    /// Nothing of it lies outside its line, and it says nothing of other lines.
    pub is_plain: bool,
}

impl Standing {
    pub(crate) fn of(event: &Event<'_>) -> Standing {
        let is_inline = matches!(event.body, Body::Inline(_));
        Standing {
            seq: event.seq,
            id: event.id,
            prev_event_hash: event.prev_event_hash,
            event_hash: event.event_hash,
            group_seq: event.group_seq,
            batch: event.batch,
            session: event.session.as_ref().map(|(session_id, seq)| (SessionKey::of(session_id), *seq)),
            payload_is_right: event.payload_is_right() != Some(false),
            signed: Signed::unchecked(event),
            is_plain: is_inline && event.attachments_json.is_none() && !event.event_type.starts_with(EventType::RESERVED),
        }
    }
}

/// What belongs next in the ledger.
#[derive(Debug)]
pub(crate) struct Expected {
    head: Head,
    group: Option<Seq>,
    batch: Option<(u32, u32)>,
    sessions: Positions,
    /// Lines that were lost so far.
    lost: u32,
    link_unknown: bool,
}

impl Expected {
    /// What belongs after this head.
    pub(crate) fn after(head: Head) -> Expected {
        Expected::keeping(head, Positions::in_memory())
    }

    /// The same, with the positions of streams kept there.
    pub(crate) fn keeping(head: Head, sessions: Positions) -> Expected {
        Expected { head, group: None, batch: None, sessions, lost: 0, link_unknown: false }
    }

    /// The same, where the head is an event of this group and batch; [`Seq::ZERO`] where a segment begins, and so a group.
    pub(crate) fn within(mut self, group: Seq, batch: Option<(u32, u32)>) -> Expected {
        (self.group, self.batch) = (Some(group), batch);
        self
    }

    /// The last event that was right, or that was stepped over.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Whether nothing is known of the line before the next one.
    pub(crate) fn is_link_unknown(&self) -> bool {
        self.link_unknown
    }

    /// The batch that the last event belongs to, where events of it are still to come.
    pub(crate) fn open_batch(&self) -> Option<(u32, u32)> {
        self.batch.filter(|(i, n)| i < n)
    }

    /// Checks seq and link, position in the stream, and the inline payload; steps over the event where all is right, and
    /// else answers what is wrong. `base` knows streams from before the first event seen; where it knows nothing, the
    /// first position counts.
    ///
    /// # Errors
    /// [`LedgerError::Io`] where a position is not in memory and can't be read.
    pub(crate) fn check(&mut self, event: &Event<'_>, base: &mut SessionBase<'_>) -> Result<Option<LineFault>, LedgerError> {
        self.check_standing(&Standing::of(event), &mut || base(event.session_id()?))
    }

    /// The same.
    pub(crate) fn check_standing(
        &mut self,
        event: &Standing,
        base: &mut dyn FnMut() -> Option<u64>,
    ) -> Result<Option<LineFault>, LedgerError> {
        if event.seq != self.head.seq.next() {
            return Ok(Some(LineFault::Seq { expected: self.head.seq.next(), found: event.seq }));
        }
        if !self.link_unknown && event.prev_event_hash != self.head.event_hash {
            return Ok(Some(LineFault::Link { expected: self.head.event_hash, found: event.prev_event_hash }));
        }
        if let Some((key, found)) = event.session {
            // A stream that is seen for the first time may have begun in a line that was lost.
            let known = self.sessions.get(key)?.or_else(|| Some((base()?, 0)));
            if let Some((last, lost)) = known {
                // Lines that were lost since may have been of this stream.
                let fits = if lost == self.lost { found == last + 1 } else { found > last };
                if !fits {
                    return Ok(Some(LineFault::SessionSeq { expected: last + 1, found }));
                }
            }
        }
        if !event.payload_is_right {
            return Ok(Some(LineFault::Payload));
        }
        self.step_over(event)?;
        Ok(None)
    }

    /// Whether its group and its batch continue what stands before it.
    pub(crate) fn check_group(&self, event: &Standing) -> Result<(), LineFault> {
        let begins = event.group_seq == event.seq;
        if !begins && self.group.is_some_and(|group| group != event.group_seq) {
            return Err(LineFault::Group { found: event.group_seq });
        }
        let continues = match (self.open_batch(), event.batch) {
            (Some((i, n)), found) => found == Some((i + 1, n)) && !begins,
            // The beginning of a batch may be what was lost.
            (None, Some((i, _))) => i == 1 || self.link_unknown,
            (None, None) => true,
        };
        if continues { Ok(()) } else { Err(LineFault::Batch) }
    }

    /// Takes it that the lines before this seq are lost, so that the line there is checked as far as it can be.
    pub(crate) fn lose_lines_before(&mut self, seq: Seq) {
        self.head.seq = seq.previous().previous();
        self.lose_line();
    }

    /// Takes this event as the last one, right or not.
    ///
    /// # Errors
    /// [`LedgerError::Io`] where positions are too many for memory and can't be written.
    pub(crate) fn step_over(&mut self, event: &Standing) -> Result<(), LedgerError> {
        self.head = Head { seq: event.seq, event_hash: event.event_hash };
        self.link_unknown = false;
        self.group = Some(event.group_seq);
        self.batch = event.batch;
        match event.session {
            Some((key, session_seq)) => self.sessions.set(key, (session_seq, self.lost)),
            None => Ok(()),
        }
    }

    /// Takes it that a line stood here which can't be read, so that what follows is checked as far as it can be.
    pub(crate) fn lose_line(&mut self) {
        self.head.seq = self.head.seq.next();
        self.link_unknown = true;
        self.lost += 1;
        (self.group, self.batch) = (None, None);
    }
}

/// The file of a blob.
pub(crate) fn blob_path(dir: &Path, hash: PayloadHash) -> PathBuf {
    let name = hash.to_string();
    dir.join("blobs").join(name.get(..2).unwrap_or_default()).join(&name)
}

/// What is wrong with an event's out-of-line payload, if anything: it must be there, with its hash and length.
///
/// # Errors
/// [`LedgerError::Io`] where that can't be told just now: a line whose blob can't be read is not a wrong line.
pub(crate) fn check_blob(storage: &dyn Storage, dir: &Path, event: &Event<'_>) -> Result<Option<LineFault>, LedgerError> {
    match event.body {
        Body::Blob { bytes } => check_blob_file(storage, dir, event.payload_hash, bytes),
        Body::Inline(_) | Body::Erased => Ok(None),
    }
}

/// What is wrong with a blob, if anything.
///
/// # Errors
/// As [`check_blob`].
pub(crate) fn check_blob_file(storage: &dyn Storage, dir: &Path, hash: PayloadHash, bytes: u64) -> Result<Option<LineFault>, LedgerError> {
    each_piece_of_blob(storage, dir, hash, bytes, |_| ())
}

/// The bytes of a blob, or what is wrong with it. No more are taken into memory than it is said to have.
///
/// # Errors
/// As [`check_blob`].
pub(crate) fn read_blob(
    storage: &dyn Storage,
    dir: &Path,
    hash: PayloadHash,
    bytes: u64,
) -> Result<Result<Vec<u8>, LineFault>, LedgerError> {
    let mut read = Vec::new();
    let wrong = each_piece_of_blob(storage, dir, hash, bytes, |piece| read.extend_from_slice(piece))?;
    Ok(wrong.map_or(Ok(read), Err))
}

/// Reads a blob that has its length; answers what is wrong with it once all has been handed over.
fn each_piece_of_blob(
    storage: &dyn Storage,
    dir: &Path,
    hash: PayloadHash,
    bytes: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<Option<LineFault>, LedgerError> {
    let fault = |what| Ok(Some(LineFault::Blob { hash: hash.to_string(), what }));
    let path = blob_path(dir, hash);
    let mut file = match storage.open_read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return fault("missing"),
        Err(error) => return Err(LedgerError::io("opening", &path)(error)),
    };
    let reading = || LedgerError::io("reading", &path);
    if file.len().map_err(reading())? != bytes {
        return fault("of another length");
    }
    let mut hasher = blake3::Hasher::new();
    let read = storage::each_piece(file.as_mut(), 0, bytes, |_, _, piece| {
        hasher.update(piece);
        each(piece);
        Ok(())
    });
    let is_right = read.map_err(reading())? == bytes && hasher.finalize() == *hash.as_bytes();
    if is_right { Ok(None) } else { fault("damaged") }
}
