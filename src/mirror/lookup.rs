//! Ids and streams, looked up for the writer.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension};

use super::error::fault_of;
use super::row::Row;
use super::{Mirror, MirrorError, MirrorFault, MirrorReader, SELECT, ends};
use crate::event::{EventId, Seq};
use crate::keys::{KEY_EVENTS, KeyEvent, KeyRing};
use crate::ledger::recovery::TailEvent;
use crate::ledger::{Lookup, LookupError, SealedEnds, Stored};

fn failed(error: rusqlite::Error) -> LookupError {
    match fault_of(&error) {
        MirrorFault::Broken => LookupError::Broken(error.to_string()),
        MirrorFault::Passing | MirrorFault::Disagrees => LookupError::Failed(error.to_string()),
    }
}

fn broken(error: impl std::fmt::Display) -> LookupError {
    LookupError::Broken(error.to_string())
}

fn by_id(conn: &Connection, id: EventId) -> Result<Option<Stored>, LookupError> {
    // A row beyond the watermark is no evidence of an event: the writer remembers what the mirror has not committed.
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{SELECT} WHERE id = ?1 AND seq <= (SELECT seq FROM mirrored_through)"));
    let mut statement = conn.prepare_cached(&SQL).map_err(failed)?;
    statement
        .query_row([id.to_string()], |row| Ok(Row(row).event().map(|event| Stored(TailEvent::of(&event)))))
        .optional()
        .map_err(failed)?
        .transpose()
        .map_err(broken)
}

fn session_seq(conn: &Connection, session_id: &str) -> Result<Option<u64>, LookupError> {
    let last: Option<i64> = conn
        .prepare_cached("SELECT max(session_seq) FROM events WHERE session_id = ?1 AND seq <= (SELECT seq FROM mirrored_through)")
        .and_then(|mut statement| statement.query_row([session_id], |row| row.get(0)))
        .map_err(failed)?;
    Ok(last.and_then(|last| u64::try_from(last).ok()))
}

fn id_max(conn: &Connection) -> Result<Option<EventId>, LookupError> {
    let last: Option<String> = conn.query_row("SELECT max(id) FROM events", [], |row| row.get(0)).map_err(failed)?;
    last.map(|id| id.parse().map_err(broken)).transpose()
}

/// Changes to keys that are read at most: as many keys as a ledger may have, each of which can come, go, and be revoked.
const KEY_EVENTS_MAX: usize = 3 * 4096;

fn key_events(conn: &Connection, through: Seq) -> Result<Vec<KeyEvent>, LookupError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let types = KEY_EVENTS.map(|name| format!("'{name}'")).join(",");
        format!("{SELECT} WHERE event_type IN ({types}) AND seq <= ?1 ORDER BY seq LIMIT {}", KEY_EVENTS_MAX + 1)
    });
    let mut statement = conn.prepare_cached(&SQL).map_err(failed)?;
    let mut rows = statement.query([through.get().cast_signed()]).map_err(failed)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        events.extend(KeyEvent::of(&Row(row).event().map_err(broken)?));
    }
    if events.len() > KEY_EVENTS_MAX { Err(broken(format!("more than {KEY_EVENTS_MAX} changes to keys"))) } else { Ok(events) }
}

macro_rules! lookup {
    ($on:ty) => {
        impl Lookup for $on {
            fn by_id(&mut self, id: EventId) -> Result<Option<Stored>, LookupError> {
                by_id(&self.conn, id)
            }
            fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
                session_seq(&self.conn, session_id)
            }
            fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
                id_max(&self.conn)
            }
            fn key_events(&mut self, through: Seq) -> Result<Vec<KeyEvent>, LookupError> {
                key_events(&self.conn, through)
            }
            fn sealed_ends(&mut self) -> Vec<SealedEnds> {
                ends::read(&self.conn)
            }
        }
    };
}

lookup!(Mirror);
lookup!(MirrorReader);

impl MirrorReader {
    /// Whether this file has all rows up to this one, as far as it can be read.
    #[cfg(feature = "actors")]
    pub(crate) fn has_through(&self, seq: Seq) -> bool {
        let found = self.conn.prepare_cached("SELECT seq FROM mirrored_through");
        let found = found.and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
        found.is_ok_and(|found| found >= seq.get().cast_signed())
    }

    /// The keys of the ledger, as its events say. That the events themselves are right is for verify.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn keys(&self) -> Result<KeyRing, MirrorError> {
        let reading =
            |error| MirrorError::Io { action: "reading the keys in", path: self.path().to_owned(), source: std::io::Error::other(error) };
        Ok(KeyRing::of(&key_events(&self.conn, Seq::MAX).map_err(reading)?))
    }
}
