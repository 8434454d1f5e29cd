//! Snapshots of entities' states: a SQLite file of their own, `entities.sqlite3`, beside the mirror. Derived: whoever removes it
//! has streams folded from their start again.
//!
//! Called by the entities' actors, by `crate::erase`, which removes it, and by programs without actors that fold entities
//! themselves. Nothing in it is believed: each row has a hash over all that it says and the ledger that it is of, and one that
//! does not fit is dropped. So a commit is not fsynced, and a file that is damaged, of another shape or another ledger's is begun
//! anew.
//!
//! **Erasure.** A state may have what an erased payload said, so the file is removed whenever an erasure is carried out, once
//! rows and lines are without the payload. A state may be kept only through a [`Snapshots`] that was opened *before* the first
//! event of the state was read, and no other: then either nothing that was read had an erased payload, or the file that the
//! state goes to is gone. [`Snapshots::is_in_place`] says when they have to be opened again, and load and save ask it too; what was
//! folded until then is not kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::event::{EventHash, LedgerId, Seq};
use crate::ledger::io_advice;
use crate::ledger::storage::private;
use crate::mirror::{MirrorFault, MirrorReader, SQLITE_VERSION_MIN, fault_of};

/// Bytes of the largest state that is kept. 16 MiB, as the longest line: reading more would take longer than folding what made it.
pub const STATE_BYTES_MAX: usize = 16 << 20;

/// `PRAGMA user_version` of a file that this code writes.
const SCHEMA_VERSION: i64 = 1;

/// `PRAGMA application_id`: "Cfoe".
const APPLICATION_ID: i64 = 0x4366_6f65;

/// The WAL goes back to this size once it has been copied into the database, so that one burst of large states doesn't stay on disk.
const WAL_BYTES_MAX: i64 = 16 << 20;

/// How often one that waits for the file to be begun looks again.
const POLL: Duration = Duration::from_millis(2);

const TABLES: [&str; 2] = [
    "CREATE TABLE snapshots (
  session_id TEXT NOT NULL,
  entity TEXT NOT NULL,
  type_name TEXT NOT NULL,
  state_version INTEGER NOT NULL,
  session_seq INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  event_hash BLOB NOT NULL,
  state_hash BLOB NOT NULL,
  state TEXT NOT NULL,
  PRIMARY KEY (session_id, entity)
)",
    "CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  ledger_id TEXT NOT NULL,
  erased_through INTEGER NOT NULL
)",
];

const CONTEXT: &str = "counterfoil 2026-11-29 entity snapshot v1";

/// What SQLite keeps beside the file, and the file, in the order in which they are removed: a connection that comes between takes
/// the old file for what it is, and sees that it is gone; a WAL without a database is no danger, SQLite removes it.
const SUFFIXES: [&str; 4] = ["-journal", "-wal", "-shm", ""];

/// Where the snapshots of a store are.
pub(crate) fn snapshots_path(dir: &Path) -> PathBuf {
    dir.join("entities.sqlite3")
}

/// The state of an entity at a place of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Which kind of entity it is.
    pub entity: String,
    /// [`std::any::type_name`] of its code. Another type of the same name must not take the state for its own: whoever loads it compares.
    pub type_name: String,
    /// Of the state's shape.
    pub state_version: u32,
    /// The stream.
    pub session_id: String,
    /// The last event that is folded into it, by its position in the stream.
    pub session_seq: u64,
    /// The same, by its place in the ledger.
    pub seq: Seq,
    /// Its hash: where the event at `seq` has another one, this is no state of the stream.
    pub event_hash: EventHash,
    /// The state, as JSON.
    pub state: String,
}

impl Snapshot {
    /// Over all that it says, and the ledger.
    fn hash(&self, ledger_id: LedgerId) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for text in [&*ledger_id.to_string(), &self.entity, &self.type_name, &self.session_id, &self.state] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        for number in [u64::from(self.state_version), self.session_seq, self.seq.get()] {
            hasher.update(&number.to_le_bytes());
        }
        *hasher.update(self.event_hash.as_bytes()).finalize().as_bytes()
    }
}

/// Why a snapshot could not be read or kept. Nothing is lost: the stream can be folded instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// SQLite said no.
    #[error("{action} the entities' snapshots {path}: {source}; try again, or do without: streams are folded from their start")]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// Their file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk said no.
    #[error("{action} {path}: {source}; {advice}", advice = io_advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// It is a symbolic link. Nothing was written.
    #[error("{path} is a symbolic link, and nothing inside a store is written through one; remove it: snapshots are derived")]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// Their file was removed or replaced while it was open: an erasure does that, and a file that is found damaged is removed.
    /// Nothing was read or written.
    #[error(
        "the entities' snapshots {path} were removed or replaced while they were open, as an erasure does it; open them again, then fold the stream `{session_id}` anew and keep that state"
    )]
    Gone {
        /// Their file.
        path: PathBuf,
        /// The stream whose state was meant.
        session_id: String,
    },
    /// The state is larger than [`STATE_BYTES_MAX`].
    #[error(
        "the state of {entity} `{session_id}` at {session_seq} has {bytes} bytes, and a snapshot at most {bytes_max}; keep less in the state, or do without snapshots of it: its stream is folded from the start"
    )]
    TooLarge {
        /// Which kind of entity it is.
        entity: String,
        /// The stream.
        session_id: String,
        /// The position that it is the state at.
        session_seq: u64,
        /// Bytes of the state.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// This SQLite can lose data.
    #[error("SQLite {found} can lose a WAL (fixed in 3.51.3); build counterfoil with rusqlite's bundled SQLite")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
}

/// Why a file is of no use. It is removed, and begun anew.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is of another shape, or of a version that this code doesn't know")]
    Shape,
    #[error("it belongs to ledger {0}")]
    OtherLedger(String),
}

/// What opening once can end in.
enum Opening {
    Failed(SnapshotError),
    Unusable(Unusable),
}

impl From<SnapshotError> for Opening {
    fn from(error: SnapshotError) -> Opening {
        Opening::Failed(error)
    }
}

/// The snapshots of a store, open. Several may have them open, in one process or in many.
#[derive(Debug)]
pub struct Snapshots {
    conn: Connection,
    dir: PathBuf,
    path: PathBuf,
    ledger_id: LedgerId,
    busy_timeout: Duration,
    /// Which files they are: the database, and its WAL.
    files: [FileId; 2],
}

impl Snapshots {
    /// Opens the snapshots in a store's directory, creating them where there are none. A file that is damaged, of another shape
    /// or another ledger's is removed, with a warning in the log, and begun anew.
    ///
    /// # Errors
    /// [`SnapshotError`]: the disk, a lock that is not let go within `busy_timeout`, a symbolic link.
    ///
    /// ```
    /// use std::time::Duration;
    /// use counterfoil::entity::{Snapshot, Snapshots};
    /// use counterfoil::{Draft, EventType, Options, Source, Store};
    /// # let dir = tempfile::tempdir()?;
    /// let (mut store, _) = Store::open(dir.path(), &Options::default())?;
    /// // Before anything of the stream is read: see what is said of erasure above.
    /// let mut snapshots = Snapshots::open(dir.path(), store.manifest().ledger_id, Duration::from_millis(250))?;
    /// let receipt = store.append(Draft::new(EventType::USER_MESSAGE, Source::User).session("s-1").payload("hello")?)?;
    /// let snapshot = Snapshot {
    ///     entity: "words".to_owned(),
    ///     type_name: "my_program::Words".to_owned(),
    ///     state_version: 1,
    ///     session_id: "s-1".to_owned(),
    ///     session_seq: 1,
    ///     seq: receipt.seq,
    ///     event_hash: receipt.event_hash,
    ///     state: r#"{"words":1}"#.to_owned(),
    /// };
    /// snapshots.save(&snapshot)?;
    /// assert_eq!(snapshots.load("words", 1, "s-1")?, Some(snapshot));
    /// assert_eq!(snapshots.load("words", 2, "s-1")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(dir: &Path, ledger_id: LedgerId, busy_timeout: Duration) -> Result<Snapshots, SnapshotError> {
        let path = snapshots_path(dir);
        let why = match Snapshots::open_patiently(dir, ledger_id, busy_timeout) {
            Ok(snapshots) => return Ok(snapshots),
            Err(Opening::Unusable(why)) => why.to_string(),
            Err(Opening::Failed(error)) if error.is_broken() => error.to_string(),
            Err(Opening::Failed(error)) => return Err(error),
        };
        tracing::warn!(path = %path.display(), why, "the entities' snapshots are of no use, and begun anew");
        Snapshots::remove(dir).map_err(|source| SnapshotError::Io { action: "removing", path: path.clone(), source })?;
        Snapshots::open_patiently(dir, ledger_id, busy_timeout).map_err(|opening| match opening {
            Opening::Failed(error) => error,
            Opening::Unusable(why) => SnapshotError::Io { action: "beginning anew", path, source: io::Error::other(why) },
        })
    }

    /// Where several begin the file at once, SQLite says to all but one that it is locked, without waiting as it does otherwise.
    fn open_patiently(dir: &Path, ledger_id: LedgerId, busy_timeout: Duration) -> Result<Snapshots, Opening> {
        let deadline = Instant::now() + busy_timeout;
        loop {
            match Snapshots::open_once(dir, ledger_id, busy_timeout) {
                Err(Opening::Failed(error)) if error.is_busy() && Instant::now() < deadline => std::thread::sleep(POLL),
                opened => return opened,
            }
        }
    }

    fn open_once(dir: &Path, ledger_id: LedgerId, busy_timeout: Duration) -> Result<Snapshots, Opening> {
        let path = snapshots_path(dir);
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(SnapshotError::OldSqlite { found: rusqlite::version() }.into());
        }
        if let Some(path) = SUFFIXES.iter().map(|suffix| beside(&path, suffix)).find(|path| path.is_symlink()) {
            return Err(SnapshotError::SymbolicLink { path }.into());
        }
        let io = |action| {
            let path = path.clone();
            move |source| SnapshotError::Io { action, path, source }
        };
        let is_new = create(&path).map_err(io("creating"))?;
        // Before it is opened: where it is replaced meanwhile, that shows as a replacement.
        let file = file_id(&path).map_err(io("looking at"))?;
        let opening = |source| SnapshotError::Sqlite { action: "opening", path: path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&path, flags).map_err(opening)?;
        conn.busy_timeout(busy_timeout).map_err(opening)?;
        let erased = if is_new { erased_through(dir, busy_timeout) } else { Seq::ZERO };
        prepare(&mut conn, ledger_id, erased).map_err(opening)??;
        let wal = file_id(&beside(&path, "-wal")).map_err(io("looking at the WAL of"))?;
        Ok(Snapshots { conn, dir: dir.to_owned(), path, ledger_id, busy_timeout, files: [file, wal] })
    }

    /// The last state that was kept of an entity. One of another version, or that is not as it was kept, is dropped, and there is
    /// none. Whether the event at its `seq` has its `event_hash` the caller checks: the ledger may be another one by now.
    ///
    /// # Errors
    /// [`SnapshotError::Gone`], [`SnapshotError::Sqlite`].
    pub fn load(&mut self, entity: &str, state_version: u32, session_id: &str) -> Result<Option<Snapshot>, SnapshotError> {
        self.check_in_place(session_id)?;
        match self.load_once(entity, state_version, session_id) {
            Err(error) if error.is_broken() => self.forget(&error).map(|()| None),
            loaded => loaded,
        }
    }

    fn load_once(&mut self, entity: &str, state_version: u32, session_id: &str) -> Result<Option<Snapshot>, SnapshotError> {
        let read = || {
            let mut select = self.conn.prepare_cached(
                "SELECT state_version, session_seq, seq, event_hash, state_hash, state, type_name FROM snapshots WHERE session_id = ?1 AND entity = ?2",
            )?;
            select.query_row([session_id, entity], |row| Ok(self.of_row(row, entity, session_id))).optional()
        };
        let Some(found) = read().map_err(self.sqlite("reading"))? else {
            return Ok(None);
        };
        match &found {
            Some(snapshot) if snapshot.state_version == state_version => return Ok(found),
            Some(snapshot) => {
                let (found, asked) = (snapshot.state_version, state_version);
                tracing::info!(entity, session_id, found, asked, "a snapshot has another version of the state, and is dropped");
            }
            None => tracing::warn!(path = %self.path.display(), entity, session_id, "a snapshot is not as it was kept, and is dropped"),
        }
        let dropped = self.at_once(|snapshots| snapshots.delete(entity, session_id));
        // What can't be dropped just now is not believed the next time either.
        match dropped {
            Err(error) if error.is_broken() => Err(error),
            _ => Ok(None),
        }
    }

    fn delete(&self, entity: &str, session_id: &str) -> Result<usize, SnapshotError> {
        let delete = || {
            let mut delete = self.conn.prepare_cached("DELETE FROM snapshots WHERE session_id = ?1 AND entity = ?2")?;
            delete.execute([session_id, entity])
        };
        delete().map_err(self.sqlite("dropping a row of"))
    }

    /// What a row says, where it is as it was kept.
    fn of_row(&self, row: &rusqlite::Row<'_>, entity: &str, session_id: &str) -> Option<Snapshot> {
        let bytes = |at| row.get_ref(at).ok().and_then(|value| <[u8; 32]>::try_from(value.as_blob().ok()?).ok());
        let state = match row.get_ref(5).ok()? {
            ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
            _ => return None,
        };
        let snapshot = Snapshot {
            entity: entity.to_owned(),
            type_name: row.get(6).ok()?,
            state_version: row.get(0).ok()?,
            session_id: session_id.to_owned(),
            session_seq: row.get::<_, i64>(1).ok()?.cast_unsigned(),
            seq: Seq::new(row.get::<_, i64>(2).ok()?.cast_unsigned()),
            event_hash: EventHash::from_bytes(bytes(3)?),
            state,
        };
        (snapshot.hash(self.ledger_id) == bytes(4)?).then_some(snapshot)
    }

    /// Keeps a state, in place of the one that is kept of the same entity. A newer one of the same version stays.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`], [`SnapshotError::Gone`], [`SnapshotError::Sqlite`]; the one that was kept before stays then.
    pub fn save(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let bytes = snapshot.state.len();
        if bytes > STATE_BYTES_MAX {
            let Snapshot { entity, session_id, session_seq, .. } = snapshot.clone();
            return Err(SnapshotError::TooLarge { entity, session_id, session_seq, bytes, bytes_max: STATE_BYTES_MAX });
        }
        self.check_in_place(&snapshot.session_id)?;
        match self.save_once(snapshot) {
            Err(error) if error.is_broken() => self.forget(&error),
            saved => saved,
        }
    }

    fn save_once(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let write = || {
            let mut upsert = self.conn.prepare_cached(
                "INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (session_id, entity) DO UPDATE SET
                   type_name = excluded.type_name, state_version = excluded.state_version, session_seq = excluded.session_seq, seq = excluded.seq,
                   event_hash = excluded.event_hash, state_hash = excluded.state_hash, state = excluded.state
                 WHERE excluded.type_name <> snapshots.type_name OR excluded.state_version <> snapshots.state_version
                   OR excluded.session_seq >= snapshots.session_seq",
            )?;
            upsert.execute(params![
                snapshot.session_id,
                snapshot.entity,
                snapshot.type_name,
                snapshot.state_version,
                snapshot.session_seq.cast_signed(),
                snapshot.seq.get().cast_signed(),
                snapshot.event_hash.as_bytes(),
                snapshot.hash(self.ledger_id),
                snapshot.state,
            ])
        };
        write().map(drop).map_err(self.sqlite("writing to"))
    }

    /// Drops what is kept of a stream, of every kind of entity.
    ///
    /// # Errors
    /// [`SnapshotError::Gone`], [`SnapshotError::Sqlite`].
    pub fn drop_stream(&mut self, session_id: &str) -> Result<(), SnapshotError> {
        self.check_in_place(session_id)?;
        let dropped = self.conn.execute("DELETE FROM snapshots WHERE session_id = ?1", [session_id]);
        match dropped.map(drop).map_err(self.sqlite("dropping rows of")) {
            Err(error) if error.is_broken() => self.forget(&error),
            dropped => dropped,
        }
    }

    /// Whether its file is still the one at its path. Where it is not, what is kept here is lost, as it is meant to be, and whoever
    /// keeps snapshots opens them again, and then folds anew. What can't be told just now is a no.
    pub fn is_in_place(&self) -> bool {
        let now = [file_id(&self.path), file_id(&beside(&self.path, "-wal"))];
        now.iter().zip(&self.files).all(|(now, was)| now.as_ref().is_ok_and(|now| now == was))
    }

    /// Removes the snapshots of a store, durably. They may be open: what is written to them then is gone.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(dir: &Path) -> io::Result<()> {
        let path = snapshots_path(dir);
        let mut is_removed = false;
        for suffix in SUFFIXES {
            match fs::remove_file(beside(&path, suffix)) {
                Ok(()) => is_removed = true,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        if is_removed { sync_dir(dir) } else { Ok(()) }
    }

    /// [`Snapshots::save`], without waiting where somebody has the file locked.
    #[cfg(feature = "actors")]
    pub(crate) fn save_at_once(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.at_once(|snapshots| snapshots.save(snapshot))
    }

    /// [`Snapshots::drop_stream`], likewise.
    #[cfg(feature = "actors")]
    pub(crate) fn drop_stream_at_once(&mut self, session_id: &str) -> Result<(), SnapshotError> {
        self.at_once(|snapshots| snapshots.drop_stream(session_id))
    }

    fn at_once<T>(&mut self, run: impl FnOnce(&mut Snapshots) -> Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        self.conn.busy_timeout(Duration::ZERO).map_err(self.sqlite("setting up"))?;
        let done = run(self);
        self.conn.busy_timeout(self.busy_timeout).map_err(self.sqlite("setting up"))?;
        done
    }

    fn check_in_place(&self, session_id: &str) -> Result<(), SnapshotError> {
        if self.is_in_place() {
            return Ok(());
        }
        Err(SnapshotError::Gone { path: self.path.clone(), session_id: session_id.to_owned() })
    }

    /// Removes a file that is of no use. It is not begun anew here: what was read before there was a new one must not come into it.
    fn forget(&self, error: &SnapshotError) -> Result<(), SnapshotError> {
        tracing::warn!(path = %self.path.display(), %error, "the entities' snapshots are of no use, and removed");
        if self.is_in_place() {
            Snapshots::remove(&self.dir).map_err(|source| SnapshotError::Io { action: "removing", path: self.path.clone(), source })?;
        }
        Ok(())
    }

    fn sqlite(&self, action: &'static str) -> impl FnOnce(rusqlite::Error) -> SnapshotError + use<> {
        let path = self.path.clone();
        move |source| SnapshotError::Sqlite { action, path, source }
    }
}

impl Drop for Snapshots {
    /// Empties the WAL, where nobody uses it. That is not left to closing, which would remove the WAL by its name: SQLite looks
    /// first whether the file is still in its place, but it may be replaced right then.
    fn drop(&mut self) {
        let emptied = self.conn.busy_timeout(Duration::ZERO);
        let emptied = emptied.and_then(|()| self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = emptied {
            tracing::debug!(%error, "the WAL of the entities' snapshots stays as it is");
        }
    }
}

impl SnapshotError {
    /// Whether somebody else holds a lock.
    pub(crate) fn is_busy(&self) -> bool {
        let SnapshotError::Sqlite { source, .. } = self else { return false };
        matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// Whether the file is of no use.
    fn is_broken(&self) -> bool {
        matches!(self, SnapshotError::Sqlite { source, .. } if fault_of(source) == MirrorFault::Broken)
    }
}

/// Sets the connection up, creates the tables where the file is empty, and looks whether they are what they should be.
fn prepare(conn: &mut Connection, ledger_id: LedgerId, erased: Seq) -> rusqlite::Result<Result<(), Opening>> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    let _: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    // What a power cut tears is found by its hash, and derived again.
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    // A state that is dropped or replaced is overwritten.
    conn.pragma_update(None, "secure_delete", true)?;
    // Where nothing is to be written, nobody's lock is waited for.
    let is_begun = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))? > 0;
    let behavior = if is_begun { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = conn.transaction_with_behavior(behavior)?;
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let shape = {
        let mut all = transaction.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
        all.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?
    };
    if shape.is_empty() && pragma("user_version")? == 0 {
        TABLES.iter().try_for_each(|table| transaction.execute_batch(table))?;
        transaction.execute("INSERT INTO meta VALUES (1, ?1, ?2)", params![ledger_id.to_string(), erased.get().cast_signed()])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    } else if shape != TABLES || pragma("user_version")? != SCHEMA_VERSION || pragma("application_id")? != APPLICATION_ID {
        return Ok(Err(Opening::Unusable(Unusable::Shape)));
    } else {
        let found: Option<String> = transaction.query_row("SELECT ledger_id FROM meta", [], |row| row.get(0)).optional()?;
        let expected = ledger_id.to_string();
        if found.as_ref() != Some(&expected) {
            return Ok(Err(Opening::Unusable(Unusable::OtherLedger(found.unwrap_or_default()))));
        }
    }
    transaction.commit()?;
    Ok(Ok(()))
}

/// Whether nothing that these erasures name can have come into the file: it was begun once they were done, or there is none. So an
/// older copy that somebody has put back is none that is left there.
pub(crate) fn are_begun_after(dir: &Path, erased: Seq, busy_timeout: Duration) -> bool {
    let path = snapshots_path(dir);
    let is_there = |suffix: &&str| fs::symlink_metadata(beside(&path, suffix)).is_ok();
    if !SUFFIXES.iter().any(&is_there) {
        return true;
    }
    let read = || open_meta(&path, busy_timeout)?.query_row("SELECT erased_through FROM meta", [], |row| row.get::<_, i64>(0));
    !path.is_symlink() && is_there(&"") && read().is_ok_and(|through| Seq::new(through.cast_unsigned()) >= erased)
}

/// Takes note in a file that was begun while the erasures up to this one were carried out, and has nothing of them, that it was. Where
/// that fails the next open removes it once more.
pub(crate) fn note_erased(dir: &Path, erased: Seq, busy_timeout: Duration) {
    let path = snapshots_path(dir);
    if path.is_file() && !path.is_symlink() {
        let note = || open_meta(&path, busy_timeout)?.execute("UPDATE meta SET erased_through = ?1", [erased.get().cast_signed()]);
        if let Err(error) = note() {
            tracing::debug!(path = %path.display(), %error, "the entities' snapshots don't know of an erasure that is done");
        }
    }
}

fn open_meta(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(busy_timeout)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(conn)
}

/// Up to where erasures are done already that this file, which is being begun, has nothing of.
fn erased_through(dir: &Path, busy_timeout: Duration) -> Seq {
    let read = || MirrorReader::open_any(dir, busy_timeout)?.erasures_done_through();
    // Where that can't be told, the next open removes the file once more.
    read().unwrap_or(Seq::ZERO)
}

/// Creates the file where there is none, the owner's alone; answers whether it has.
fn create(path: &Path) -> io::Result<bool> {
    match private(fs::OpenOptions::new().write(true).create_new(true)).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Device and inode, where there is such a file and such numbers.
type FileId = Option<(u64, u64)>;

fn file_id(path: &Path) -> io::Result<FileId> {
    match fs::symlink_metadata(path) {
        #[cfg(unix)]
        Ok(meta) => Ok(Some((std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta)))),
        #[cfg(not(unix))]
        Ok(_) => Ok(Some((0, 0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
