//! What can go wrong with checkpoints and proofs.

use std::path::PathBuf;

use crate::attest::KeyId;
use crate::event::{EventHash, Seq};
use crate::ledger::LedgerError;
use crate::note::{NoteError, SignatureFault, TreeHash};

/// Why no checkpoint was signed, or no proof made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The ledger or a file of checkpoints can't be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// There is nothing to sign.
    #[error("the ledger has no event yet, so there is nothing to sign; append some")]
    Empty,
    /// The actors were given no key for checkpoints.
    #[error("this store was opened without a signer of checkpoints; set `LedgerOptions::checkpoint`, or use `counterfoil checkpoint`")]
    NoSigner,
    /// The actor that signs has ended before it answered.
    #[error("the actor that signs checkpoints has ended before it answered; ask again")]
    Unanswered,
    /// The signer did not sign.
    #[error("{key_id} has not signed the checkpoint: {reason}; see to the signer, and sign again")]
    Signer {
        /// Its key.
        key_id: KeyId,
        /// What it said.
        reason: String,
    },
    /// The ledger is shorter than a checkpoint that was signed before.
    #[error(
        "the ledger has {size} events, but {known_by} has a checkpoint of {known} with root {root}: events that were signed are gone, \
         so nothing more is signed; restore the segments from a backup. Where no key of yours has signed that checkpoint \
         (`counterfoil verify --anchor` with --key says so), move the file that has it aside"
    )]
    Shorter {
        /// How many events it has.
        size: u64,
        /// How many it had.
        known: u64,
        /// The root at that size.
        root: TreeHash,
        /// Who has that checkpoint.
        known_by: String,
    },
    /// The ledger has another history than a checkpoint that was signed before.
    #[error(
        "the first {size} events of the ledger have root {found}, but {known_by} has a checkpoint of as many with root {root}: the ledger \
         was rewritten, so nothing more is signed; restore the segments that were signed from a backup. Where no key of yours has signed \
         that checkpoint (`counterfoil verify --anchor` with --key says so), move the file that has it aside"
    )]
    Diverged {
        /// At which size.
        size: u64,
        /// The root that was signed.
        root: TreeHash,
        /// The root that the ledger has.
        found: TreeHash,
        /// Who has that checkpoint.
        known_by: String,
    },
    /// The file of the store does not end in the event that was made durable.
    #[error("seq {seq} of the ledger's file is {found}, but {durable} was made durable: the file was changed; run `counterfoil verify`")]
    OtherHead {
        /// The event.
        seq: Seq,
        /// What the file has.
        found: EventHash,
        /// What was written.
        durable: EventHash,
    },
    /// The store's own last checkpoint is not what it says.
    #[error("{path}: {reason}; so nothing more is signed: restore that file from a backup")]
    OwnCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The event that is to be proved is in no checkpoint.
    #[error("no checkpoint of this store covers seq {seq}; sign one with `counterfoil checkpoint`")]
    NotCovered {
        /// The event.
        seq: u64,
    },
    /// There is no checkpoint of that size.
    #[error("the store has no checkpoint of {size} events; leave out --size to take the newest, or name one that is in {path}")]
    NoSuchSize {
        /// That was asked for.
        size: u64,
        /// Where they are.
        path: PathBuf,
    },
    /// A proof from a size that is not below that of the checkpoint.
    #[error("no proof leads from {from} events to {size}: name a size from 1 up to that of the checkpoint")]
    NoSuchStep {
        /// From.
        from: u64,
        /// To.
        size: u64,
    },
    /// The ledger is not what was signed.
    #[error(
        "the first {size} events of the ledger are not those that the checkpoint was signed over; run `counterfoil verify --anchor` with it"
    )]
    NotSigned {
        /// The checkpoint's size.
        size: u64,
    },
}

impl CheckpointError {
    /// Whether the ledger contradicts what was signed: no retry helps, a person has to look.
    pub fn is_inconsistent(&self) -> bool {
        use CheckpointError as E;
        matches!(self, E::Shorter { .. } | E::Diverged { .. } | E::OtherHead { .. } | E::OwnCheckpoint { .. } | E::NotSigned { .. })
    }
}

/// Why an anchor has not taken a checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("{anchor}: {reason}")]
pub struct AnchorError {
    /// Which anchor.
    pub anchor: String,
    /// What went wrong, and what to do.
    pub reason: String,
}

/// Why a text is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// It has not the form.
    #[error("{0}; `counterfoil prove` writes proofs")]
    Malformed(&'static str),
    /// The checkpoint in it is none.
    #[error("the checkpoint in it is none: {0}; `counterfoil prove` writes proofs")]
    Checkpoint(#[from] NoteError),
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofFault {
    /// The checkpoint in it is not signed by a key that was given.
    #[error("the checkpoint of {size} events: {fault}")]
    Signature {
        /// Its size.
        size: u64,
        /// What is wrong.
        fault: SignatureFault,
    },
    /// The checkpoint that it is to be held against is another ledger's.
    #[error("the proof is about {found}, and the checkpoint about {expected}")]
    Origin {
        /// The ledger of the checkpoint.
        expected: String,
        /// The ledger of the proof.
        found: String,
    },
    /// The checkpoint that it is to be held against is of another size.
    #[error("the proof needs the checkpoint of {expected} events, and the one that was given has {found}")]
    Size {
        /// What it needs.
        expected: u64,
        /// What was given.
        found: u64,
    },
    /// The checkpoint that it is to be held against has another root.
    #[error("there are two checkpoints of {size} events with different roots: one of them is of a ledger that was rewritten")]
    TwoRoots {
        /// Their size.
        size: u64,
    },
    /// A proof of consistency is held against nothing.
    #[error("it leads from {old} events on, so it needs the checkpoint of as many; give it with --checkpoint")]
    NeedsOld {
        /// Its size.
        old: u64,
    },
    /// It is about another event.
    #[error("the proof is about event_hash {found}, and the event has {expected}")]
    OtherEvent {
        /// The event's.
        expected: EventHash,
        /// The proof's.
        found: EventHash,
    },
    /// The hashes do not lead to the root.
    #[error("its hashes do not lead to the root that was signed")]
    Hashes,
}
