//! The one error that the store and the handle give.

use crate::checkpoint::CheckpointError;
use crate::erase::EraseError;
use crate::event::DraftError;
use crate::ledger::{AppendError, LedgerError};
use crate::mirror::{MirrorError, QueryError};
use crate::parity::{RepairError, ReplayError};
use crate::streams::{SessionsError, StreamError};

/// Anything that can go wrong with a store. Its text ends with what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A draft is out of bounds.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// An append was refused.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The ledger can't be opened, read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The mirror can't be opened, read or written.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A query was refused.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A replay ended early.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A repair was refused.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Nothing was erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// No checkpoint was signed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Events of a stream can't be handed out.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Sessions can't be listed.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
}

impl Error {
    fn ledger(&self) -> Option<&LedgerError> {
        match self {
            Error::Ledger(error)
            | Error::Append(AppendError::Ledger(error))
            | Error::Replay(ReplayError::Ledger(error))
            | Error::Repair(RepairError::Ledger(error))
            | Error::Erase(EraseError::Ledger(error))
            | Error::Checkpoint(CheckpointError::Ledger(error)) => Some(error),
            Error::Stream(StreamError::Both { ledger, .. }) => ledger.ledger(),
            _ => None,
        }
    }

    /// Whether another writer holds the store.
    pub fn is_locked(&self) -> bool {
        matches!(self.ledger(), Some(LedgerError::Locked { .. }))
    }

    /// Whether recovery refused to guess.
    pub fn is_refused(&self) -> bool {
        matches!(self.ledger(), Some(LedgerError::Refused(_)))
    }

    /// Whether an I/O error has poisoned the writer.
    pub fn is_poisoned(&self) -> bool {
        matches!(self.ledger(), Some(LedgerError::Poisoned { .. }))
    }

    /// Whether an id was given to other content before.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Append(AppendError::Conflict { .. } | AppendError::BatchConflict { .. }))
    }

    /// Whether the store's policy, or what it knows of keys, refused the append.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Append(AppendError::Policy(_) | AppendError::Key(_)))
    }

    /// Whether the same append, tried again later, can succeed.
    pub fn is_retryable(&self) -> bool {
        let wait = matches!(
            self,
            Error::Append(
                AppendError::Busy
                    | AppendError::Rebuilding { .. }
                    | AppendError::MirrorTooFarBehind { .. }
                    | AppendError::OutcomeUnknown { .. }
            )
        );
        wait || matches!(self.ledger(), Some(LedgerError::DiskFull { .. }))
    }
}
