//! What can go wrong with the mirror.

use std::path::PathBuf;

use crate::event::{EventHash, EventId, LineError, Seq};
use crate::ledger::io_advice;

/// Why the mirror can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// SQLite said no.
    #[error("{action} the mirror {path}: {source}; {advice}", advice = sqlite_advice(source))]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// The mirror.
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
    /// There is no mirror.
    #[error("the mirror {path} is missing; the next open rebuilds it, and so does `counterfoil replay`")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Its file was removed or replaced while it was open.
    #[error("the mirror {path} was removed or replaced while it was open; it will be rebuilt")]
    Gone {
        /// Its path.
        path: PathBuf,
    },
    /// It is a symbolic link. Nothing was written.
    #[error(
        "{path} is a symbolic link, and nothing inside a store is written through one; put what it points to in its place, or remove it: the mirror can be rebuilt"
    )]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "the mirror {path} has schema version {found}, and this counterfoil knows {known}; use a newer counterfoil, or move the file away: it can be rebuilt"
    )]
    Future {
        /// The mirror.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// What this code knows.
        known: i64,
    },
    /// It is a database, but not a mirror.
    #[error("{path} is not a counterfoil mirror; move the file away: the mirror can be rebuilt")]
    NotAMirror {
        /// The file.
        path: PathBuf,
    },
    /// It mirrors another ledger.
    #[error("the mirror {path} belongs to ledger {found}, not to {expected}; move it away: the right one can be rebuilt")]
    OtherLedger {
        /// The mirror.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// SQLite found its file damaged.
    #[error("the mirror {path} is corrupt: {reason}; the next open sets it aside and rebuilds it")]
    Corrupt {
        /// The mirror.
        path: PathBuf,
        /// What SQLite's check said.
        reason: String,
    },
    /// A row with this seq or id is there and differs: nothing was written.
    #[error(
        "the mirror {path} has another event at seq {seq} or under {id}: the ledger has hash {ledger}, the row {row}; nothing was written; \
         run `counterfoil parity --full` to see all differences, then `counterfoil repair --from ledger`"
    )]
    Conflict {
        /// The mirror.
        path: PathBuf,
        /// The event's seq.
        seq: Seq,
        /// Its id.
        id: EventId,
        /// Its hash.
        ledger: EventHash,
        /// The row's hash, as far as it can be read, and the columns that differ.
        row: String,
    },
    /// The id stands at another seq already: twice in the ledger, or in a row that was moved.
    #[error(
        "{id} is seq {second} in the ledger, but the mirror has it as seq {first}; run `counterfoil parity --full`: where it says that the \
         ledger has the id twice, restore the ledger from a backup, else run `counterfoil repair --from ledger`"
    )]
    DuplicateId {
        /// The id.
        id: EventId,
        /// Where the mirror has it.
        first: Seq,
        /// Where the ledger has it (again).
        second: Seq,
    },
    /// A group that does not follow the watermark.
    #[error("the mirror {path} is at seq {watermark}, so seq {first} can't follow; replay what is between")]
    Gap {
        /// The mirror.
        path: PathBuf,
        /// How far it mirrors.
        watermark: Seq,
        /// The first seq of the group.
        first: Seq,
    },
    /// A line of a group does not decode.
    #[error("a line of the group at seq {first} does not decode: {source}; run `counterfoil verify`")]
    Line {
        /// The first seq of the group.
        first: Seq,
        /// What is wrong.
        #[source]
        source: LineError,
    },
    /// This SQLite can lose data.
    #[error("SQLite {found} can lose a WAL (fixed in 3.51.3); build counterfoil with rusqlite's bundled SQLite")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
}

/// What a [`MirrorError`] means for whoever writes the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorFault {
    /// It will pass: locked, full, read-only, out of reach. Try again.
    Passing,
    /// The file is of no use: set it aside and rebuild.
    Broken,
    /// The two legs disagree, or the code is too old: a person has to decide.
    Disagrees,
}

impl MirrorError {
    /// What it means for whoever writes the mirror.
    pub fn fault(&self) -> MirrorFault {
        match self {
            MirrorError::Sqlite { source, .. } => fault_of(source),
            MirrorError::Io { .. } => MirrorFault::Passing,
            MirrorError::Missing { .. }
            | MirrorError::Gone { .. }
            | MirrorError::NotAMirror { .. }
            | MirrorError::OtherLedger { .. }
            | MirrorError::Corrupt { .. } => MirrorFault::Broken,
            MirrorError::Future { .. }
            | MirrorError::SymbolicLink { .. }
            | MirrorError::Conflict { .. }
            | MirrorError::DuplicateId { .. }
            | MirrorError::Gap { .. }
            | MirrorError::Line { .. }
            | MirrorError::OldSqlite { .. } => MirrorFault::Disagrees,
        }
    }
}

pub(crate) fn fault_of(error: &rusqlite::Error) -> MirrorFault {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => MirrorFault::Broken,
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SchemaChanged,
        ) => MirrorFault::Passing,
        // A missing table or column, a value of another type: the database is not what it was made as.
        _ => MirrorFault::Broken,
    }
}

/// What a person can do about an error of SQLite's.
fn sqlite_advice(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "try again once whatever holds it open has let go",
        Some(ErrorCode::DiskFull) => "free some space and try again",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "give this user write access to it and to its folder"
        }
        _ if fault_of(error) == MirrorFault::Broken => {
            "the next open for writing sets it aside and rebuilds it, or run `counterfoil repair --from ledger`"
        }
        _ => "try again, and check the disk (`counterfoil doctor`)",
    }
}

impl MirrorError {
    /// Whether a read that failed is told like this too.
    pub(crate) fn may_be_unread(&self) -> bool {
        let MirrorError::Sqlite { source, .. } = self else { return false };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
    }

    /// Whether someone else holds a lock: this connection is well, and can be used again.
    #[cfg(feature = "actors")]
    pub(crate) fn is_busy(&self) -> bool {
        use rusqlite::ErrorCode;
        let MirrorError::Sqlite { source, .. } = self else { return false };
        matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }
}

/// Whether SQLite could not write what it needs to read with.
pub(crate) fn is_unwritable(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}
