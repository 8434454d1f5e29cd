//! Erasure on the mirror's side: rows lose their payload, then every page is written anew, then the WAL is emptied, so that no
//! byte of a payload stays in the files. Called by `crate::erase`. And what is known of erasures that are done, so that open
//! need not look again.
//!
//! `secure_delete` overwrites what a row has lost, but not what SQLite has left behind where it once moved rows from page to
//! page (`rebuildPage` in its source), nor pages that became free without it. `VACUUM` leaves neither. It costs what the mirror is
//! large, once an erasure.
//!
//! The tables are made by the first erasure. They are no part of the schema that a version number stands for.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, params};

use super::row::Row;
use super::{Mirror, MirrorError, MirrorReader, SELECT, guard};
use crate::event::erasure::{ERASURE, ErasurePayload};
use crate::event::{Event, Seq};
use crate::failpoint;
use crate::ledger::erase::Names;
use crate::ledger::{FileIdentity, Lookup};

const CREATE: &str = "
CREATE TABLE IF NOT EXISTS erasures_done (
  one INTEGER PRIMARY KEY CHECK (one = 1), through_seq INTEGER NOT NULL, pending INTEGER NOT NULL);
INSERT OR IGNORE INTO erasures_done VALUES (1, 0, 0);
CREATE TABLE IF NOT EXISTS erasure_files (
  name TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
  changed_ns INTEGER NOT NULL) WITHOUT ROWID;";

/// What is known of erasures that are done.
#[derive(Debug, Default)]
pub(crate) struct ErasuresDone {
    /// Those up to this erasure event are.
    pub through: Seq,
    /// Rows are erased, and copies of their payloads may still be in the mirror's files.
    pub pending: bool,
    /// Files that were looked through, as they were then.
    pub files: HashMap<String, FileIdentity>,
}

fn done(conn: &Connection) -> rusqlite::Result<ErasuresDone> {
    let there = conn.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'erasure_files'", [], |_| Ok(())).optional()?;
    if there.is_none() {
        return Ok(ErasuresDone::default());
    }
    let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let (through, pending) = conn
        .query_row("SELECT through_seq, pending FROM erasures_done", [], |row| Ok((Seq::new(number(row, 0)?), row.get(1)?)))
        .optional()?
        .unwrap_or_default();
    let mut all = conn.prepare("SELECT name, device, inode, bytes, modified_ns, changed_ns FROM erasure_files")?;
    let files = all.query_map([], |row| {
        let (device, inode, bytes) = (number(row, 1)?, number(row, 2)?, number(row, 3)?);
        Ok((row.get(0)?, FileIdentity { device, inode, bytes, modified_ns: row.get(4)?, changed_ns: row.get(5)? }))
    })?;
    Ok(ErasuresDone { through, pending, files: files.collect::<Result<_, _>>()? })
}

/// Hands over the erasures behind this seq that have a row, in order, until `found` answers false. A row that makes no event says
/// nothing.
pub(crate) fn each_mirrored_erasure(conn: &Connection, behind: Seq, found: &mut FoundErasure<'_>) -> rusqlite::Result<()> {
    static SQL: LazyLock<String> = LazyLock::new(|| format!("{SELECT} WHERE event_type = ?1 AND seq > ?2 ORDER BY seq"));
    let mut all = conn.prepare_cached(&SQL)?;
    let mut rows = all.query(params![ERASURE, behind.get().cast_signed()])?;
    while let Some(row) = rows.next()? {
        if let Ok(event) = Row(row).event()
            && let Some(payload) = ErasurePayload::of(&event)
            && !found(&event, payload)
        {
            break;
        }
    }
    Ok(())
}

/// The last erasure that has a row.
pub(crate) fn last_erasure(conn: &Connection) -> rusqlite::Result<Seq> {
    let mut last = conn.prepare_cached("SELECT max(seq) FROM events WHERE event_type = ?1")?;
    Ok(Seq::new(last.query_row([ERASURE], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0).cast_unsigned()))
}

/// Takes an erasure and what it names, and answers whether it wants the next one.
pub(crate) type FoundErasure<'f> = dyn FnMut(&Event<'_>, ErasurePayload) -> bool + 'f;

impl MirrorReader {
    /// Whether an erasure that has a row is not known to be carried out as a whole: payloads that it names may still be in a file of
    /// the store. The next open does the rest, where nothing is in its way. While a writer erases it is so too.
    ///
    /// # Errors
    /// [`MirrorError::Sqlite`].
    pub fn erasure_is_unfinished(&self) -> Result<bool, MirrorError> {
        let ErasuresDone { through, mut pending, .. } = self.sqlite("reading", done(&self.conn))?;
        self.each_erasure(through, &mut |_, payload| {
            pending |= !payload.erased.is_empty();
            !pending
        })?;
        Ok(pending)
    }

    /// The erasures up to this event are known to be carried out.
    pub(crate) fn erasures_done_through(&self) -> Result<Seq, MirrorError> {
        Ok(self.sqlite("reading", done(&self.conn))?.through)
    }

    /// Hands over the erasures behind this seq, in order.
    pub(crate) fn each_erasure(&self, behind: Seq, found: &mut FoundErasure<'_>) -> Result<(), MirrorError> {
        self.sqlite("reading", each_mirrored_erasure(&self.conn, behind, found))
    }
}

impl Mirror {
    /// What it knows of erasures that are done.
    pub(crate) fn erasures_done(&self) -> Result<ErasuresDone, MirrorError> {
        self.sqlite("reading", done(&self.conn))
    }

    /// Where erasures stand behind this seq, by its rows. What they name the ledger says: rows may be wrong.
    pub(crate) fn erasures(&self, behind: Seq) -> Result<BTreeSet<Seq>, MirrorError> {
        let read = || {
            let mut all = self.conn.prepare_cached("SELECT seq FROM events WHERE event_type = ?1 AND seq > ?2")?;
            let seq = |row: &rusqlite::Row<'_>| Ok(Seq::new(row.get::<_, i64>(0)?.cast_unsigned()));
            all.query_map(params![ERASURE, behind.get().cast_signed()], seq)?.collect()
        };
        self.sqlite("reading", read())
    }

    /// Takes the payloads out of the rows of these events, in one transaction; answers of how many. Copies of them may then still
    /// be in the mirror's files.
    pub(crate) fn erase_rows(&mut self, names: &Names) -> Result<u64, MirrorError> {
        let set = |on: bool| {
            move |mirror: &Mirror| {
                let set = mirror.conn.pragma_update(None, "secure_delete", on);
                mirror.sqlite("preparing", set.and_then(|()| guard::lift(&mirror.conn, on)))
            }
        };
        set(true)(self)?;
        let erased = self.erase_rows_in_transaction(names);
        set(false)(self)?;
        erased
    }

    fn erase_rows_in_transaction(&mut self, names: &Names) -> Result<u64, MirrorError> {
        self.at(failpoint::ERASE_ROWS)?;
        let (path, options) = (self.path.clone(), self.options.clone());
        let at = |point| options.at(point).map_err(|source| MirrorError::Io { action: "erasing in", path: path.clone(), source });
        let sqlite = |source| MirrorError::Sqlite { action: "erasing in", path: path.clone(), source };
        let rows = self.transaction(|transaction| {
            let write = || {
                transaction.execute_batch(CREATE)?;
                let mut rows = 0;
                let mut update = transaction.prepare(
                    "UPDATE events SET payload = NULL, blob = NULL, erased = 1
                     WHERE seq = ?1 AND payload_hash = ?2 AND id = coalesce(?3, id) AND erased IS NULL AND event_type NOT LIKE 'counterfoil.%'",
                )?;
                for (seq, name) in names.iter().flat_map(|(seq, all)| all.iter().map(move |name| (seq, name))) {
                    let id = name.id.map(|id| id.to_string());
                    rows += update.execute(params![seq.get().cast_signed(), name.payload_hash.as_bytes(), id])?;
                }
                if rows > 0 {
                    transaction.execute("UPDATE erasures_done SET pending = 1", [])?;
                }
                Ok(rows as u64)
            };
            let rows = write().map_err(sqlite)?;
            at(failpoint::ERASE_ROWS_COMMIT).map(|()| rows)
        })?;
        Ok(rows)
    }

    /// Writes every page anew, and empties the WAL; false where a reader holds on to what was there before.
    pub(crate) fn forget_old_pages(&mut self) -> Result<bool, MirrorError> {
        self.at(failpoint::ERASE_VACUUM)?;
        self.execute("writing anew", "VACUUM", &[])?;
        self.at(failpoint::ERASE_WAL)?;
        let emptied = self.wal.pause_and(|| self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)));
        Ok(self.sqlite("checkpointing", emptied)? == 0)
    }

    /// Notes that the erasures up to this event are done, and which files were looked through.
    pub(crate) fn keep_erasures_done(&mut self, through: Seq, files: &[(String, FileIdentity)]) -> Result<(), MirrorError> {
        self.at(failpoint::ERASE_DONE)?;
        let path = self.path.clone();
        self.transaction(|transaction| {
            let write = || {
                transaction.execute_batch(CREATE)?;
                transaction.execute("UPDATE erasures_done SET through_seq = ?1, pending = 0", [through.get().cast_signed()])?;
                transaction.execute("DELETE FROM erasure_files", [])?;
                let mut insert = transaction.prepare("INSERT OR REPLACE INTO erasure_files VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                for (name, file) in files {
                    let [device, inode, bytes] = [file.device, file.inode, file.bytes].map(u64::cast_signed);
                    insert.execute(params![name, device, inode, bytes, file.modified_ns, file.changed_ns])?;
                }
                Ok(())
            };
            write().map_err(|source| MirrorError::Sqlite { action: "noting erasures in", path: path.clone(), source })
        })
    }
}

/// What an erasure is to name is looked up in rows.
pub(crate) trait Rows: Lookup {
    /// How far they go.
    fn mirrored(&self) -> Result<Seq, MirrorError>;
    /// The seqs of a stream's events, as many as are asked for at most.
    fn seqs_of_session(&self, session_id: &str, max: usize) -> Result<Vec<Seq>, MirrorError>;
    /// The events of this type that have both tags, with their payloads, where they have one.
    fn tagged(&self, event_type: &str, tags: [&str; 2]) -> Result<Vec<(Seq, String)>, MirrorError>;
}

fn tagged(conn: &Connection, event_type: &str, tags: [&str; 2]) -> rusqlite::Result<Vec<(Seq, String)>> {
    let mut all = conn.prepare_cached(
        "SELECT seq, payload FROM events
         WHERE event_type = ?1 AND instr(domain_tags, ?2) > 0 AND instr(domain_tags, ?3) > 0 AND typeof(payload) = 'text' ORDER BY seq",
    )?;
    let [one, other] = tags.map(|tag| format!("\"{tag}\""));
    all.query_map(params![event_type, one, other], |row| Ok((Seq::new(row.get::<_, i64>(0)?.cast_unsigned()), row.get(1)?)))?.collect()
}

fn seqs_of_session(conn: &Connection, session_id: &str, max: usize) -> rusqlite::Result<Vec<Seq>> {
    let mut all = conn.prepare("SELECT seq FROM events WHERE session_id = ?1 LIMIT ?2")?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    all.query_map(params![session_id, max], |row| Ok(Seq::new(row.get::<_, i64>(0)?.cast_unsigned())))?.collect()
}

impl Rows for Mirror {
    fn mirrored(&self) -> Result<Seq, MirrorError> {
        Ok(self.watermark.seq)
    }

    fn seqs_of_session(&self, session_id: &str, max: usize) -> Result<Vec<Seq>, MirrorError> {
        self.sqlite("reading", seqs_of_session(&self.conn, session_id, max))
    }

    fn tagged(&self, event_type: &str, tags: [&str; 2]) -> Result<Vec<(Seq, String)>, MirrorError> {
        self.sqlite("reading", tagged(&self.conn, event_type, tags))
    }
}

impl Rows for MirrorReader {
    fn mirrored(&self) -> Result<Seq, MirrorError> {
        Ok(self.watermark(self.manifest()?.ledger_id)?.seq)
    }

    fn seqs_of_session(&self, session_id: &str, max: usize) -> Result<Vec<Seq>, MirrorError> {
        self.sqlite("reading", seqs_of_session(&self.conn, session_id, max))
    }

    fn tagged(&self, event_type: &str, tags: [&str; 2]) -> Result<Vec<(Seq, String)>, MirrorError> {
        self.sqlite("reading", tagged(&self.conn, event_type, tags))
    }
}
