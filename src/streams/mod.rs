//! Streams: the events of one session, read a page at a time, forwards and backwards; and the list of sessions.
//!
//! Called by entities, by the handle, and by programs. Writes nothing into the ledger or the mirror.
//!
//! - `query` what to read, and a page of it · `reader` [`StreamReader`] · `rows` of the mirror · `scan` the ledger's lines, for what
//!   the mirror has not got, or has wrong · `error`
//! - `sessions` [`SessionIndex`], the list of sessions
//!
//! A page costs what it has and nothing that grows with the store: rows come by the index over stream and position, and lines of
//! the ledger are read only behind the mirror's watermark, and in place of rows that are wrong. Without a mirror that can be read, lines
//! have to be looked through from the ledger's beginning.

mod error;
mod query;
mod reader;
mod rows;
mod scan;
mod sessions;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

pub use error::{RowFault, StreamError};
pub use query::{Direction, StreamPage, StreamQuery};
pub use reader::StreamReader;
pub use sessions::{
    SessionIndex, SessionSummary, SessionsCursor, SessionsCursorError, SessionsError, SessionsOrder, SessionsPage, SessionsQuery,
};
