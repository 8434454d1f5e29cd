//! What can be wrong with a stream that is read.

use std::path::PathBuf;

use crate::Error;
use crate::event::{EventId, LineError, Seq};
use crate::ledger::LineFault;

/// Why events of a stream can't be handed out. Nothing that is not right by its own hash ever is. What is wrong with the mirror's rows
/// alone is no error, but a warning: the ledger's lines are read then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A row of the mirror is not an event that was recorded.
    #[error(
        "{path}: the row of seq {seq}{place} is wrong: {reason}; run `counterfoil parity --full` to see all differences, then \
         `counterfoil repair --from ledger`", place = place(.session_id.as_deref(), *.session_seq)
    )]
    Row {
        /// The mirror.
        path: PathBuf,
        /// The row's seq, which may be any number.
        seq: i64,
        /// The stream that was read, if one was.
        session_id: Option<String>,
        /// The position there that was wanted.
        session_seq: Option<u64>,
        /// What is wrong.
        #[source]
        reason: RowFault,
    },
    /// Events of a stream do not follow each other.
    #[error(
        "{path}: stream `{session_id}` lacks event {expected}{instead}; run `counterfoil parity --full` to see all differences, then \
         `counterfoil repair --from ledger`; where the ledger itself lacks it, `counterfoil verify` says so",
        instead = found.map(|(at, seq)| format!(" and has event {at} (seq {seq}) in its place")).unwrap_or_default()
    )]
    Position {
        /// The mirror, or a segment of the ledger.
        path: PathBuf,
        /// The stream.
        session_id: String,
        /// The position that is missing.
        expected: u64,
        /// What stands there: its position, 0 where it is of no stream, and its seq.
        found: Option<(u64, Seq)>,
    },
    /// The ledger has not got the event up to which the mirror says that it mirrors.
    #[error(
        "{path} mirrors the ledger up to seq {seq}, and the ledger has no such event; run `counterfoil parity --full` to see which of the \
         two is wrong, then `counterfoil repair`"
    )]
    NotInLedger {
        /// The mirror.
        path: PathBuf,
        /// Its watermark.
        seq: Seq,
    },
    /// The ledger ends before an event that is durable.
    #[error("the ledger {path} ends at seq {end}, before seq {through}; run `counterfoil verify` to see what is damaged or missing")]
    Short {
        /// The store.
        path: PathBuf,
        /// The last event that can be read.
        end: Seq,
        /// Up to which it was to be read.
        through: Seq,
    },
    /// The mirror's rows are wrong, and the ledger's lines can't give what was asked for either.
    #[error("{ledger}; the mirror is wrong {}", as_well(mirror, *is_same))]
    Both {
        /// What is wrong with the ledger's lines: that comes first.
        #[source]
        ledger: Box<Error>,
        /// What is wrong with the mirror's rows.
        mirror: Box<StreamError>,
        /// Whether the mirror has not got the event either that the ledger's lines can't give: no repair brings that back. Else what is
        /// right in one of the two can be brought back from there.
        is_same: bool,
    },
    /// A payload that is kept out of line can't be had.
    #[error(
        "{path}, the payload of seq {seq} ({id}): {reason}; run `counterfoil verify` to see all damage, and restore the file from a backup"
    )]
    Payload {
        /// The blob, or the store.
        path: PathBuf,
        /// The event.
        seq: Seq,
        /// Its id.
        id: EventId,
        /// What is wrong.
        #[source]
        reason: LineFault,
    },
}

impl StreamError {
    /// The position in the stream that could not be had, where it is one.
    pub(super) fn position(&self) -> Option<u64> {
        match self {
            StreamError::Row { session_seq, .. } => *session_seq,
            StreamError::Position { expected, .. } => Some(*expected),
            _ => None,
        }
    }
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// A column has a value that no line can have.
    #[error("column {0} has a value that no line can have")]
    Column(&'static str),
    /// The line that it makes is not right by its own hash.
    #[error("its line is not right: {0}")]
    Line(#[from] LineError),
    /// Its payload is not the one that was hashed.
    #[error("the payload does not fit payload_hash")]
    Payload,
    /// It is another event than the index says.
    #[error("it is another event than the index says")]
    Index,
}

fn as_well(mirror: &StreamError, is_same: bool) -> String {
    if is_same {
        format!("there as well: {mirror}; no repair brings back what is wrong in both: restore that from a backup")
    } else {
        format!(
            "elsewhere: {mirror}; run `counterfoil repair --from mirror`, then `counterfoil repair --from ledger`: what is right in one of \
             the two is brought back"
        )
    }
}

fn place(session_id: Option<&str>, session_seq: Option<u64>) -> String {
    match (session_id, session_seq) {
        (Some(id), Some(at)) => format!(", event {at} of stream `{id}`,"),
        (Some(id), None) => format!(", of stream `{id}`,"),
        (None, _) => String::new(),
    }
}
