//! Rows of a stream, by the mirror's index. Each that is handed out is right by its own hash.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Params};

use super::query::{Direction, StreamQuery};
use super::{RowFault, StreamError};
use crate::event::{Event, EventId, EventRecord, Seq, line};
use crate::mirror::{Row, SELECT};

/// The index is named, so that a mirror without it is told apart from one that is slow.
const BY_SESSION: &str = "INDEXED BY events_by_session WHERE session_id = ?1";

/// What can go wrong with rows: SQLite says no, or they are not right.
pub(super) enum RowsError {
    Sqlite(rusqlite::Error),
    Wrong(StreamError),
}

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> RowsError {
        RowsError::Sqlite(error)
    }
}

impl From<StreamError> for RowsError {
    fn from(error: StreamError) -> RowsError {
        RowsError::Wrong(error)
    }
}

/// The last position of a stream whose event is not beyond `bound`; 0 where there is none. Looks at one row of the index, and where
/// the stream goes on behind the bound at a few more, however many events it has there.
pub(super) fn last_position(conn: &Connection, session_id: &str, bound: Seq) -> rusqlite::Result<u64> {
    let sql = format!("SELECT session_seq, seq FROM events {BY_SESSION} AND session_seq <= ?2 ORDER BY session_seq DESC LIMIT 1");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut at_or_below = |position: i64| -> rusqlite::Result<Option<(i64, i64)>> {
        statement.query_row((session_id, position), |row| Ok((row.get(0)?, row.get(1)?))).optional()
    };
    let bound = bound.get().cast_signed();
    let Some((position, seq)) = at_or_below(i64::MAX)? else {
        return Ok(0);
    };
    if seq <= bound {
        return Ok(u64::try_from(position).unwrap_or(0));
    }
    // Events at `within` or before are not beyond the bound, those at `beyond` or later are. Positions of a damaged stream may lack.
    let (mut within, mut beyond) = (0, position);
    while within + 1 < beyond {
        let middle = within + (beyond - within) / 2;
        match at_or_below(middle)? {
            Some((position, seq)) if seq > bound => beyond = position,
            _ => within = middle,
        }
    }
    Ok(at_or_below(within)?.map_or(0, |(position, _)| u64::try_from(position).unwrap_or(0)))
}

/// Reads rows of the stream between these positions (of which the lowest is 1 or more) into the page, in the query's direction, until it
/// is full. None of them is beyond `bound`, or it is wrong: the positions were looked up by it.
pub(super) fn read(
    conn: &Connection,
    path: &Path,
    query: &StreamQuery,
    (lowest, highest): (u64, u64),
    bound: Seq,
    page: &mut Filling,
) -> Result<(), RowsError> {
    let order = match query.direction() {
        Direction::Forwards => "ASC",
        Direction::Backwards => "DESC",
    };
    let sql = format!("{SELECT} {BY_SESSION} AND session_seq BETWEEN ?2 AND ?3 ORDER BY session_seq {order}");
    let mut expected = match query.direction() {
        Direction::Forwards => lowest,
        Direction::Backwards => highest,
    };
    let column = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query((query.session_id(), column(lowest), column(highest)))?;
    let mut line = Vec::new();
    while (lowest..=highest).contains(&expected) && !query.is_full(page.events.len(), page.bytes, 0) {
        let wrong = |found| StreamError::Position { path: path.to_owned(), session_id: query.session_id().to_owned(), expected, found };
        let Some(row) = rows.next()? else {
            return Err(wrong(None).into());
        };
        let is_wrong = |reason| StreamError::Row {
            path: path.to_owned(),
            seq: row.get(0).unwrap_or(0),
            session_id: Some(query.session_id().to_owned()),
            session_seq: Some(expected),
            reason,
        };
        let (event, bytes) = checked(row, &mut line).map_err(is_wrong)?;
        let found = event.session_seq().unwrap_or(0);
        if event.session_id() != Some(query.session_id()) || found != expected {
            return Err(wrong(Some((found, event.seq))).into());
        }
        if event.seq > bound {
            return Err(is_wrong(RowFault::Index).into());
        }
        if !page.push(query, &event, bytes) {
            break;
        }
        expected = match query.direction() {
            Direction::Forwards => expected + 1,
            Direction::Backwards => expected - 1,
        };
    }
    Ok(())
}

/// The row of this event, where its seq is not beyond `bound`.
pub(super) fn by_id(conn: &Connection, path: &Path, id: EventId, bound: Seq) -> Result<Option<EventRecord>, RowsError> {
    let found = one(conn, path, "id = ?1", [id.to_string()])?;
    match found {
        Some(event) if event.id != id => {
            let seq = event.seq.get().cast_signed();
            Err(StreamError::Row { path: path.to_owned(), seq, session_id: None, session_seq: None, reason: RowFault::Index }.into())
        }
        found => Ok(found.filter(|event| event.seq <= bound)),
    }
}

/// The row of this seq.
pub(super) fn by_seq(conn: &Connection, path: &Path, seq: Seq) -> Result<Option<EventRecord>, RowsError> {
    one(conn, path, "seq = ?1", [seq.get().cast_signed()])
}

fn one(conn: &Connection, path: &Path, which: &str, params: impl Params) -> Result<Option<EventRecord>, RowsError> {
    let mut statement = conn.prepare_cached(&format!("{SELECT} WHERE {which}"))?;
    let mut rows = statement.query(params)?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut line = Vec::new();
    let checked = checked(row, &mut line).map_err(|reason| StreamError::Row {
        path: path.to_owned(),
        seq: row.get(0).unwrap_or(0),
        session_id: None,
        session_seq: None,
        reason,
    });
    Ok(Some(checked?.0.to_record()))
}

/// The event of a row, and the bytes of its line, once it has been encoded to that and the line has been found right.
fn checked<'l>(row: &rusqlite::Row<'_>, line: &'l mut Vec<u8>) -> Result<(Event<'l>, usize), RowFault> {
    line.clear();
    Row(row).encode(line).map_err(|error| RowFault::Column(error.column))?;
    let event = line::decode(line)?;
    if event.payload_is_right() == Some(false) { Err(RowFault::Payload) } else { Ok((event, line.len())) }
}

/// A page that is being filled, in the query's direction.
#[derive(Debug, Default)]
pub(super) struct Filling {
    pub events: Vec<EventRecord>,
    /// Bytes of their lines.
    pub bytes: usize,
    /// Whether one was left out for lack of room.
    pub is_full: bool,
}

impl Filling {
    /// Takes an event whose line has so many bytes, where there is room for it.
    pub(super) fn push(&mut self, query: &StreamQuery, event: &Event<'_>, bytes: usize) -> bool {
        self.is_full = query.is_full(self.events.len(), self.bytes, bytes);
        if !self.is_full {
            self.bytes += bytes;
            self.events.push(event.to_record());
        }
        !self.is_full
    }
}
