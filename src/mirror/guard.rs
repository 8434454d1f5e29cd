//! Rows are derived, and the writer answers by them which ids and positions are taken. Who opens the mirror with another program, to
//! look or to tidy up, is kept from deleting or changing them by accident, and told what to do in place of it.
//!
//! Against purpose it is no guard: a trigger can be dropped. Parity and verify are for that.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// A row is never deleted, and never changed but by an erasure and by a repair, which lift this. Insertions meet no trigger.
pub(super) const TRIGGERS: &str = "
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events BEGIN
  SELECT RAISE(ABORT, 'this is the mirror of a Counterfoil ledger, and its rows are not deleted: to take data out, run `counterfoil erase`; \
to have the mirror made anew, remove the file while nobody writes');
END;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events BEGIN
  SELECT RAISE(ABORT, 'this is the mirror of a Counterfoil ledger, and its rows are not changed: append an event that says what is right, \
and keep what is yours in a database of its own');
END;
";

/// Lets this connection delete and change rows, or no more. What it has prepared is prepared anew when it is used next.
pub(super) fn lift(conn: &Connection, lifted: bool) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, !lifted).map(|_| ())
}
