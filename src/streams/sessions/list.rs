//! A page of the list, by the index of its order.

use rusqlite::{Connection, Row};

use super::SessionsError;
use super::file::IndexFile;
use super::query::{Place, SessionSummary, SessionsCursor, SessionsOrder, SessionsPage, SessionsQuery};
use crate::event::{Seq, Timestamp};

/// Types that are named of a session: past that they tell nothing.
const TYPES_MAX: i64 = 64;

const TYPES: &str = "SELECT event_type, events FROM session_types WHERE number = ?1 ORDER BY events DESC, event_type LIMIT ?2";

/// What a page is asked for with: the place that it begins behind, and how many it is to have.
fn sql(order: SessionsOrder) -> String {
    let by = match order {
        SessionsOrder::Last => "INDEXED BY sessions_by_last WHERE last_seq < ?1 ORDER BY last_seq DESC",
        SessionsOrder::First => "INDEXED BY sessions_by_first WHERE first_seq < ?1 ORDER BY first_seq DESC",
        SessionsOrder::Id => "WHERE session_id > ?1 ORDER BY session_id",
    };
    format!(
        "SELECT number, session_id, events, bytes, first_seq, last_seq, first_observed_us, last_observed_us, last_recorded_us
         FROM sessions {by} LIMIT ?2"
    )
}

pub(super) fn page(file: &mut IndexFile, query: &SessionsQuery) -> Result<SessionsPage, SessionsError> {
    let path = file.path().to_owned();
    read(file.conn(), query).map_err(|source| SessionsError::Sqlite { action: "reading", path, source })
}

fn read(conn: &mut Connection, query: &SessionsQuery) -> rusqlite::Result<SessionsPage> {
    // All of it as it was at one moment.
    let conn = conn.transaction()?;
    let as_of: i64 = conn.query_row("SELECT coalesce(max(seq), 0) FROM counted_through", [], |row| row.get(0))?;
    // One more than is asked for tells whether there are more.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX - 1) + 1;
    let mut all = conn.prepare_cached(&sql(query.order))?;
    let mut rows = match query.after.as_ref().map(|cursor| &cursor.0) {
        Some(Place::Last(seq) | Place::First(seq)) => all.query((seq.get().cast_signed(), limit))?,
        Some(Place::Id(id)) => all.query((id, limit))?,
        None if query.order == SessionsOrder::Id => all.query(("", limit))?,
        None => all.query((i64::MAX, limit))?,
    };
    let mut types = conn.prepare_cached(TYPES)?;
    let (mut sessions, mut more) = (Vec::new(), false);
    while let Some(row) = rows.next()? {
        more = sessions.len() == query.limit;
        if more {
            break;
        }
        let count = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()));
        let types = types.query_map((row.get::<_, i64>(0)?, TYPES_MAX), count)?.collect::<rusqlite::Result<_>>()?;
        sessions.push(summary(row, types)?);
    }
    let next = sessions.last().filter(|_| more).map(|last: &SessionSummary| match query.order {
        SessionsOrder::Last => SessionsCursor(Place::Last(last.last_seq)),
        SessionsOrder::First => SessionsCursor(Place::First(last.first_seq)),
        SessionsOrder::Id => SessionsCursor(Place::Id(last.session_id.clone())),
    });
    Ok(SessionsPage { sessions, next, as_of: Seq::new(as_of.cast_unsigned()) })
}

fn summary(row: &Row<'_>, types: Vec<(String, u64)>) -> rusqlite::Result<SessionSummary> {
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let time = |at| row.get(at).map(Timestamp::from_micros);
    Ok(SessionSummary {
        session_id: row.get(1)?,
        events: number(2)?,
        bytes: number(3)?,
        first_seq: Seq::new(number(4)?),
        last_seq: Seq::new(number(5)?),
        first_observed_at: time(6)?,
        last_observed_at: time(7)?,
        last_recorded_at: time(8)?,
        types,
    })
}
