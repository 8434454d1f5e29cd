//! The ends of sealed segments that an open has read, so that the next one need not read them again: kept in the mirror, as
//! `checked` is. It says nothing of rows. Recovery takes it for a hint, and reads all where anything does not fit.
//!
//! The table is made by the first open that has something to keep. It is no part of the schema that a version number stands for.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::Mirror;
use super::checked::READ_MAX;
use crate::event::{EventHash, Seq};
use crate::ledger::{FileIdentity, Head, SealedEnds};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS sealed_ends (
  first_seq INTEGER PRIMARY KEY, prev_event_hash BLOB NOT NULL, last_seq INTEGER NOT NULL, event_hash BLOB NOT NULL,
  device INTEGER NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL)";

/// What was read before. Nothing where that can't be read.
pub(super) fn read(conn: &Connection) -> Vec<SealedEnds> {
    let sql = "SELECT first_seq, prev_event_hash, last_seq, event_hash, device, inode, bytes, modified_ns, changed_ns
                   FROM sealed_ends ORDER BY first_seq LIMIT ?1";
    let all = conn.prepare(sql).and_then(|mut all| {
        let read = |row: &rusqlite::Row<'_>| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            let hash = |at| row.get(at).map(EventHash::from_bytes);
            Ok(SealedEnds {
                first: Seq::new(number(0)?),
                prev: hash(1)?,
                end: Head { seq: Seq::new(number(2)?), event_hash: hash(3)? },
                file: FileIdentity {
                    device: number(4)?,
                    inode: number(5)?,
                    bytes: number(6)?,
                    modified_ns: row.get(7)?,
                    changed_ns: row.get(8)?,
                },
            })
        };
        all.query_map([READ_MAX], read)?.collect()
    });
    all.unwrap_or_default()
}

impl Mirror {
    /// Keeps what was read. It may fail: then it is read again the next time. It waits for nobody: open does not either.
    pub(crate) fn keep_sealed_ends(&mut self, ends: &[SealedEnds]) {
        if ends.is_empty() {
            return;
        }
        let kept = self.conn.busy_timeout(Duration::ZERO).and_then(|()| write(&mut self.conn, ends));
        let kept = self.conn.busy_timeout(self.options.mirror_busy_timeout).and(kept);
        match kept {
            Ok(()) => self.see_to_wal(),
            Err(error) => tracing::debug!(%error, "the ends of sealed segments are not kept; they will be read again"),
        }
    }
}

fn write(conn: &mut Connection, ends: &[SealedEnds]) -> rusqlite::Result<()> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(CREATE)?;
    let mut insert = transaction.prepare("INSERT OR REPLACE INTO sealed_ends VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for SealedEnds { first, prev, end, file } in ends {
        let [first, last] = [first, &end.seq].map(|seq| seq.get().cast_signed());
        let [device, inode, bytes] = [file.device, file.inode, file.bytes].map(u64::cast_signed);
        let (prev, hash) = (prev.as_bytes(), end.event_hash.as_bytes());
        insert.execute(params![first, prev, last, hash, device, inode, bytes, file.modified_ns, file.changed_ns])?;
    }
    drop(insert);
    transaction.commit()
}
