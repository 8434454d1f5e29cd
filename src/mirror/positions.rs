//! Positions of streams that are too many for memory, in a temporary database that SQLite removes by itself. It is no part of
//! the mirror: checks of the ledger use it, and the ledger knows no database.

use std::io;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::positions::{Position, Positions, SessionKey, Spill};

/// Positions, at most `max` of them in memory.
pub(crate) fn bounded_positions(max: usize) -> Positions {
    Positions::spilling(Box::new(TemporaryPositions(None)), max)
}

/// The database, once there is something to keep.
#[derive(Debug)]
struct TemporaryPositions(Option<Connection>);

impl TemporaryPositions {
    fn open() -> rusqlite::Result<Connection> {
        // No name: a file of its own under the system's temporary directory, gone when it is closed.
        let conn = Connection::open("")?;
        conn.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4096; PRAGMA locking_mode = EXCLUSIVE;
             CREATE TABLE positions (high INTEGER, low INTEGER, last INTEGER NOT NULL, lost INTEGER NOT NULL, PRIMARY KEY (high, low)) WITHOUT ROWID;",
        )?;
        Ok(conn)
    }
}

/// The halves of a key, as SQLite's integers.
fn halves(SessionKey(key): SessionKey) -> (i64, i64) {
    (((key >> 64) as u64).cast_signed(), (key as u64).cast_signed())
}

impl Spill for TemporaryPositions {
    fn find(&mut self, key: SessionKey) -> io::Result<Option<Position>> {
        let Some(conn) = &self.0 else {
            return Ok(None);
        };
        let (high, low) = halves(key);
        conn.prepare_cached("SELECT last, lost FROM positions WHERE high = ?1 AND low = ?2")
            .and_then(|mut statement| {
                statement.query_row([high, low], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))).optional()
            })
            .map_err(io::Error::other)
    }

    fn keep(&mut self, positions: &[(SessionKey, Position)]) -> io::Result<()> {
        let conn = match &mut self.0 {
            Some(conn) => conn,
            none => none.insert(TemporaryPositions::open().map_err(io::Error::other)?),
        };
        let write = |conn: &mut Connection| {
            let transaction = conn.transaction()?;
            let mut insert = transaction.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3, ?4)")?;
            for (key, (last, lost)) in positions {
                let (high, low) = halves(*key);
                insert.execute(params![high, low, last.cast_signed(), lost])?;
            }
            drop(insert);
            transaction.commit()
        };
        write(conn).map_err(io::Error::other)
    }
}
