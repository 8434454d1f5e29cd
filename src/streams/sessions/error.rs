//! What can be wrong with the list of sessions.

use std::path::PathBuf;

use crate::event::Seq;
use crate::ledger::io_advice;
use crate::mirror::{MirrorFault, fault_of};

/// Why sessions can't be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionsError {
    /// SQLite said no.
    #[error("{action} the list of sessions {path}: {source}; {advice}", advice = advice(source))]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk said no.
    #[error("{action} {path}: {source}; {advice}", advice = io_advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: std::io::Error,
    },
    /// It is a symbolic link. Nothing was written.
    #[error("{path} is a symbolic link, and nothing inside a store is written through one; remove it: the list of sessions is made anew")]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// Others removed the file again and again.
    #[error("the list of sessions {path} was removed or replaced while it was read; list again")]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// A row has a time that is none.
    #[error(
        "{path}: the row of seq {seq} has a time that no event can have; run `counterfoil parity --full` to see all differences, then \
         `counterfoil repair --from ledger`"
    )]
    Time {
        /// The mirror.
        path: PathBuf,
        /// The row.
        seq: Seq,
    },
}

impl SessionsError {
    /// Whether the file is of no use, and is to be made anew.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, SessionsError::Sqlite { source, .. } if fault_of(source) == MirrorFault::Broken)
    }
}

impl SessionsError {
    /// Whether the file may have been removed while it was used: SQLite then misses it, or what it keeps beside it.
    pub(super) fn may_be_removed(&self) -> bool {
        use rusqlite::ErrorCode::SystemIoFailure;
        match self {
            SessionsError::Sqlite { source, .. } => source.sqlite_error_code() == Some(SystemIoFailure),
            error => matches!(error, SessionsError::Gone { .. }),
        }
    }
}

fn advice(source: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "try again once whatever holds it has let go",
        Some(ErrorCode::DiskFull) => "free some space and try again",
        _ => "remove the file and list again: it is made anew from the mirror",
    }
}
