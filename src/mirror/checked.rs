//! What an incremental check has found right, so that it need not be read again: kept in the mirror, since it says something of
//! its rows too, and goes with them where the file is set aside or replaced by an older copy.
//!
//! The table is made by the first check that has something to keep, and is nobody else's: without it all is read. It is no part
//! of the schema that a version number stands for.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior, params};

use super::{MirrorError, MirrorReader, mirror_path, schema};
use crate::event::{EventHash, LedgerId, Seq};
use crate::ledger::{FileIdentity, Head, LedgerReader};

/// A segment that was read and found right, and its rows equal: whole where it was sealed, else up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub first: Seq,
    /// The hash that its first event links to.
    pub prev: EventHash,
    pub end: Head,
    /// Where the line of `end` begins.
    pub offset: u64,
    pub sealed: bool,
    pub file: FileIdentity,
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS checked (
  first_seq INTEGER PRIMARY KEY, prev_event_hash BLOB NOT NULL, last_seq INTEGER NOT NULL, event_hash BLOB NOT NULL,
  byte_offset INTEGER NOT NULL, sealed INTEGER NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL,
  bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL)";

fn read(row: &Row<'_>) -> rusqlite::Result<Checked> {
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let hash = |at| row.get(at).map(EventHash::from_bytes);
    Ok(Checked {
        first: Seq::new(number(0)?),
        prev: hash(1)?,
        end: Head { seq: Seq::new(number(2)?), event_hash: hash(3)? },
        offset: number(4)?,
        sealed: row.get(5)?,
        file: FileIdentity { device: number(6)?, inode: number(7)?, bytes: number(8)?, modified_ns: row.get(9)?, changed_ns: row.get(10)? },
    })
}

/// Segments of which it is read what was found right: 64 TiB of ledger. The file is the user's, and may hold anything.
pub(super) const READ_MAX: i64 = 1 << 20;

impl MirrorReader {
    /// What was found right before, by first seq. Nothing where that can't be read.
    pub(crate) fn checked(&self) -> BTreeMap<Seq, Checked> {
        let sql =
            "SELECT first_seq, prev_event_hash, last_seq, event_hash, byte_offset, sealed, device, inode, bytes, modified_ns, changed_ns
                   FROM checked WHERE first_seq > 0 AND last_seq >= first_seq AND byte_offset >= 0 ORDER BY first_seq LIMIT ?1";
        let all = self.connection().prepare(sql).and_then(|mut all| all.query_map([READ_MAX], read)?.collect());
        let all: Vec<Checked> = all.unwrap_or_default();
        all.into_iter().map(|checked| (checked.first, checked)).collect()
    }
}

/// Keeps what was found right, in place of what was kept before, where nobody else writes to the store. It may fail: then it is
/// read again the next time.
pub(crate) fn keep_checked(reader: &LedgerReader, busy_timeout: Duration, checked: &[Checked]) -> Result<(), MirrorError> {
    let path = mirror_path(reader.dir());
    super::check_links(&path)?;
    let lock = reader.dir().join("LOCK");
    let refused = |source| MirrorError::Io { action: "keeping what was checked in", path: path.clone(), source };
    if lock.is_symlink() {
        return Err(refused(std::io::ErrorKind::InvalidInput.into()));
    }
    let _lock = reader.storage().try_lock(&lock).map_err(refused)?.ok_or_else(|| refused(std::io::ErrorKind::WouldBlock.into()))?;
    let sqlite = |source| MirrorError::Sqlite { action: "keeping what was checked in", path: path.clone(), source };
    // Without the flag that would have it created.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
    let prepare = |conn: &Connection| {
        conn.busy_timeout(busy_timeout)?;
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        conn.pragma_update(None, "trusted_schema", false)?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)
    };
    prepare(&conn).map_err(sqlite)?;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    if schema::check_known(&transaction, &path)? == 0 {
        return Err(MirrorError::Missing { path });
    }
    write(&transaction, &path, reader.manifest().ledger_id, checked)?;
    transaction.commit().map_err(sqlite)
}

/// Keeps it in this mirror, which knows all of these events.
fn write(transaction: &Connection, path: &Path, ledger_id: LedgerId, checked: &[Checked]) -> Result<(), MirrorError> {
    let mark = schema::watermark(transaction, path, ledger_id)?;
    if checked.iter().any(|checked| checked.end.seq > mark.seq) {
        // It is another one than was checked.
        return Err(MirrorError::Gone { path: path.to_owned() });
    }
    let write = || {
        transaction.execute_batch(CREATE)?;
        transaction.execute("DELETE FROM checked", [])?;
        let mut insert = transaction.prepare("INSERT INTO checked VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
        for Checked { first, prev, end, offset, sealed, file } in checked {
            let [first, last] = [first, &end.seq].map(|seq| seq.get().cast_signed());
            let [offset, device, inode, bytes] = [*offset, file.device, file.inode, file.bytes].map(u64::cast_signed);
            let (prev, hash) = (prev.as_bytes(), end.event_hash.as_bytes());
            insert.execute(params![first, prev, last, hash, offset, sealed, device, inode, bytes, file.modified_ns, file.changed_ns])?;
        }
        Ok(())
    };
    write().map_err(|source| MirrorError::Sqlite { action: "keeping what was checked in", path: path.to_owned(), source })
}

#[cfg(feature = "actors")]
impl super::Mirror {
    /// Keeps what a check found right, in place of what was kept before.
    pub(crate) fn keep_checked(&mut self, checked: &[Checked]) -> Result<(), MirrorError> {
        let (path, ledger_id) = (self.path.clone(), self.ledger_id);
        self.transaction(|transaction| write(transaction, &path, ledger_id, checked))
    }
}
