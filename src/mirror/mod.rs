//! The mirror: the ledger's events as rows of a SQLite database, derived and always rebuildable.
//!
//! Called by the store, replay, repair and SqliteActor. Never writes to the ledger.
//!
//! - `schema` tables, settings, migrations · `row` a row back to its exact line
//! - `apply` rows and watermark in one transaction · `fields` of a line that is right · `lookup` ids and streams for the writer
//! - `checked` segments that were found right · `ends` of sealed segments, for open · `positions` a temporary database for checks ·
//!   `query` read-only SQL for people · `window` rows for a check, copied out
//! - `guard` against rows that are deleted or changed by hand
//! - `erase` payloads out of rows, pages and the WAL, and what is known of erasures that are done
//! - `wal` kept short · `checkpointer` a thread that copies it into the database · `error`

mod apply;
mod aside;
mod checked;
mod checkpointer;
mod ends;
mod erase;
mod error;
mod fields;
mod guard;
mod lookup;
mod positions;
mod query;
mod row;
mod schema;
mod wal;
mod window;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

pub(crate) use apply::of_ledger;
pub use apply::{Insertion, insert_event};
pub(crate) use aside::{Aside, asides};
pub(crate) use checked::{Checked, keep_checked};
pub(crate) use erase::{Rows, each_mirrored_erasure, last_erasure};
pub use error::{MirrorError, MirrorFault};
pub(crate) use error::{fault_of, is_unwritable};
pub(crate) use positions::bounded_positions;
pub use query::{QueryError, Table};
pub(crate) use row::{Row, RowError, SELECT};
pub use schema::SCHEMA_VERSION;
pub(crate) use schema::index_check;
pub use wal::WalHeld;
pub(crate) use window::{KeptRow, Window};

use crate::event::{LedgerId, Seq};
use crate::failpoint;
use crate::ledger::storage::private;
use crate::ledger::{Manifest, Watermark};
use crate::options::Options;

/// The mirror's file in a store.
pub fn mirror_path(dir: &Path) -> PathBuf {
    dir.join("mirror.sqlite3")
}

/// How often something is read before what SQLite says of it counts: it tells a read that failed as damage (`unixRead` turns
/// EIO into SQLITE_IOERR_CORRUPTFS, and the virtual machine that into SQLITE_CORRUPT), and one that failed once may well go
/// well the next time.
const READS: u32 = 3;

/// Does it again where SQLite says that the file is damaged.
pub(crate) fn read_again<T>(read: impl Fn() -> Result<T, MirrorError>) -> Result<T, MirrorError> {
    for _ in 1..READS {
        match read() {
            Err(error) if error.may_be_unread() => {}
            done => return done,
        }
    }
    read()
}

/// Whether there is such a file. What can't be told just now is not a no.
pub(crate) fn is_there(path: &Path) -> std::io::Result<bool> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The mirror, open to write. One per store, under its lock.
#[derive(Debug)]
pub struct Mirror {
    /// Dropped before the connection: SQLite removes the WAL with the last one that is open, and that is to be this one.
    wal: wal::Wal,
    conn: Connection,
    path: PathBuf,
    ledger_id: LedgerId,
    watermark: Watermark,
    options: Options,
    #[cfg(unix)]
    inode: FileId,
}

/// The mirror, open to read. Needs no lock, and sees what is committed.
#[derive(Debug)]
pub struct MirrorReader {
    conn: Connection,
    path: PathBuf,
    /// It takes the file for one that nobody writes to, and sees nothing of what is committed later.
    is_frozen: bool,
    busy_timeout: Duration,
    /// Which file it is.
    file: FileId,
}

impl Mirror {
    /// Opens the mirror of this ledger, creating it where it is missing.
    ///
    /// # Errors
    /// [`MirrorError`]; [`MirrorError::fault`] says whether it has to be set aside, or will pass.
    pub fn open(dir: &Path, manifest: &Manifest, options: &Options) -> Result<Mirror, MirrorError> {
        Mirror::open_as(dir, manifest, options, true, true)
    }

    /// The same, where it is there.
    pub(crate) fn open_existing(dir: &Path, manifest: &Manifest, options: &Options) -> Result<Mirror, MirrorError> {
        Mirror::open_as(dir, manifest, options, true, false)
    }

    /// The same as [`Mirror::open`], where SQLite may have checked the file a moment ago, or it must be there.
    #[cfg(feature = "actors")]
    pub(crate) fn open_again(
        dir: &Path,
        manifest: &Manifest,
        options: &Options,
        checked: bool,
        create: bool,
    ) -> Result<Mirror, MirrorError> {
        Mirror::open_as(dir, manifest, options, !checked, create)
    }

    /// Which file it is.
    #[cfg(feature = "actors")]
    pub(crate) fn file_id(&self) -> FileId {
        #[cfg(unix)]
        let id = self.inode;
        #[cfg(not(unix))]
        let id = None;
        id
    }

    fn open_as(dir: &Path, manifest: &Manifest, options: &Options, check: bool, create: bool) -> Result<Mirror, MirrorError> {
        read_again(|| Mirror::open_once(dir, manifest, options, check, create))
    }

    fn open_once(dir: &Path, manifest: &Manifest, options: &Options, check: bool, create: bool) -> Result<Mirror, MirrorError> {
        let path = mirror_path(dir);
        check_version()?;
        check_links(&path)?;
        if create {
            create_private(&path)?;
        } else if !is_there(&path).map_err(|source| MirrorError::Io { action: "looking for", path: path.clone(), source })? {
            return Err(MirrorError::Missing { path });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opening = |source| MirrorError::Sqlite { action: "opening", path: path.clone(), source };
        let mut conn = Connection::open_with_flags(&path, flags).map_err(opening)?;
        conn.busy_timeout(options.mirror_busy_timeout).map_err(opening)?;
        let version = schema::check_known(&conn, &path)?;
        if !create && version == 0 {
            // A writer was stopped while it made it.
            return Err(MirrorError::Missing { path });
        }
        check_writable_format(&conn, &path)?;
        schema::prepare(&mut conn, &path, manifest, options.mirror_wal_bytes_max)?;
        let watermark = schema::watermark(&conn, &path, manifest.ledger_id)?;
        if check {
            schema::quick_check(&conn, &path)?;
        }
        schema::check_tables(&conn, &path)?;
        schema::check_watermark(&conn, &path, watermark)?;
        #[cfg(unix)]
        let inode = inode(&path)?;
        #[cfg(not(unix))]
        let inode = None;
        Ok(Mirror {
            wal: wal::Wal::of(&path, &mut conn, inode)?,
            conn,
            ledger_id: manifest.ledger_id,
            watermark,
            options: options.clone(),
            #[cfg(unix)]
            inode,
            path,
        })
    }

    /// Opens the mirror; where it is corrupt, or another ledger's, it is renamed aside and a new one begun.
    /// Answers where the old one is, if so.
    ///
    /// # Errors
    /// [`MirrorError`]: a newer database, or one that is locked or can't be written just now.
    pub fn open_or_set_aside(dir: &Path, manifest: &Manifest, options: &Options) -> Result<(Mirror, Option<PathBuf>), MirrorError> {
        match Mirror::open(dir, manifest, options) {
            Ok(mirror) => Ok((mirror, None)),
            Err(error) if error.fault() == MirrorFault::Broken => {
                let aside = set_aside_since(dir, &error)?;
                Ok((Mirror::open(dir, manifest, options)?, Some(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// How far it mirrors the ledger.
    pub fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger that it mirrors.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// Whether its file is still the one at its path, and the files that SQLite keeps beside it.
    ///
    /// # Errors
    /// [`MirrorError::Gone`] where one is not; [`MirrorError::Io`] where that can't be told just now.
    pub fn check_in_place(&self) -> Result<(), MirrorError> {
        #[cfg(unix)]
        if inode(&self.path)? != self.inode {
            return Err(MirrorError::Gone { path: self.path.clone() });
        } else if let Some(path) = self.wal.gone()? {
            return Err(MirrorError::Gone { path });
        }
        Ok(())
    }

    /// Has the WAL emptied where it is longer than `mirror_wal_bytes_max`. Called after each commit.
    pub(crate) fn see_to_wal(&mut self) {
        self.wal.see_to(&self.conn, &self.options);
    }

    /// What keeps the WAL from being emptied, where it has grown past its bound.
    pub fn wal_held(&self) -> Option<&WalHeld> {
        self.wal.held()
    }

    fn sqlite<T>(&self, action: &'static str, result: rusqlite::Result<T>) -> Result<T, MirrorError> {
        result.map_err(|source| MirrorError::Sqlite { action, path: self.path.clone(), source })
    }

    pub(crate) fn at(&self, point: &'static str) -> Result<(), MirrorError> {
        self.options.at(point).map_err(|source| MirrorError::Io { action: "writing to", path: self.path.clone(), source })
    }

    pub(crate) fn execute(&self, action: &'static str, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<usize, MirrorError> {
        self.sqlite(action, self.conn.execute(sql, params))
    }

    pub(crate) fn query_number(&self, sql: &str) -> Result<i64, MirrorError> {
        self.sqlite("reading", self.conn.query_row(sql, [], |row| row.get(0)))
    }

    /// Runs `work` inside one transaction of the mirror, which is committed where `work` answers `Ok` and rolled
    /// back where it does not. [`insert_event`] may be called inside; the watermark stays where it is. For a
    /// cutover: with the store's lock held and no actors running.
    ///
    /// # Errors
    /// What `work` says, or [`MirrorError::Sqlite`].
    pub fn transaction<T>(&mut self, work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, MirrorError>) -> Result<T, MirrorError> {
        let path = self.path.clone();
        let sqlite = |action| move |source| MirrorError::Sqlite { action, path: path.clone(), source };
        let transaction =
            self.conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sqlite.clone()("beginning"))?;
        let done = work(&transaction)?;
        transaction.commit().map_err(sqlite("committing"))?;
        self.see_to_wal();
        Ok(done)
    }

    /// Lets rows be removed, for a repair: they are kept from that else.
    pub(crate) fn lift_guard(&self) -> Result<(), MirrorError> {
        self.sqlite("preparing", guard::lift(&self.conn, true))
    }

    /// Whether each index fits its table. Reads all of the mirror.
    ///
    /// # Errors
    /// [`MirrorError::Corrupt`] where one does not; [`MirrorError::Sqlite`] where that can't be told just now.
    pub(crate) fn check_indexes(&self) -> Result<(), MirrorError> {
        match self.sqlite("checking", schema::index_check(&self.conn))? {
            None => Ok(()),
            Some(reason) => Err(MirrorError::Corrupt { path: self.path.clone(), reason }),
        }
    }

    /// Number of rows, and the highest seq among them.
    ///
    /// # Errors
    /// [`MirrorError::Sqlite`].
    pub fn count(&self) -> Result<(u64, Seq), MirrorError> {
        self.sqlite("counting", query::count(&self.conn))
    }

    /// Moves what is in the WAL into the database and empties the WAL, as far as readers allow. Called at close.
    ///
    /// # Errors
    /// [`MirrorError::Sqlite`].
    pub fn checkpoint(&self) -> Result<(), MirrorError> {
        self.at(failpoint::MIRROR_CHECKPOINT)?;
        let result = self.wal.pause_and(|| self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        self.sqlite("checkpointing", result)
    }
}

impl MirrorReader {
    /// Opens the mirror to read.
    ///
    /// # Errors
    /// [`MirrorError::Missing`] where there is none; [`MirrorError::Future`] where it is newer than this code;
    /// [`MirrorError::Sqlite`].
    pub fn open(dir: &Path, ledger_id: LedgerId, busy_timeout: Duration) -> Result<MirrorReader, MirrorError> {
        let reader = MirrorReader::open_any(dir, busy_timeout)?;
        reader.watermark(ledger_id)?;
        Ok(reader)
    }

    /// Opens the mirror to read, whatever ledger it mirrors.
    ///
    /// # Errors
    /// As [`MirrorReader::open`].
    pub fn open_any(dir: &Path, busy_timeout: Duration) -> Result<MirrorReader, MirrorError> {
        let path = mirror_path(dir);
        if !is_there(&path).map_err(|source| MirrorError::Io { action: "looking for", path: path.clone(), source })? {
            return Err(MirrorError::Missing { path });
        }
        // Before it is opened: where it is replaced meanwhile, that shows as a replacement.
        let file = inode(&path)?;
        let opening = |source| MirrorError::Sqlite { action: "opening", path: path.clone(), source };
        let probe = |conn: &Connection| {
            conn.busy_timeout(busy_timeout)?;
            conn.pragma_update(None, "query_only", true)?;
            conn.pragma_update(None, "trusted_schema", false)?;
            conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&path, flags).map_err(opening)?;
        let (conn, is_frozen) = match probe(&conn) {
            Ok(()) => (conn, false),
            Err(error) if error::is_unwritable(&error) && std::fs::metadata(wal_path(&path)).map_or(0, |meta| meta.len()) == 0 => {
                // In a directory that can't be written, SQLite can't make the shared memory that a WAL needs. No WAL
                // is there, or an empty one, so the file alone is the whole database.
                let uri = format!("file:{}?immutable=1", escape_uri(&path));
                let conn = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(opening)?;
                probe(&conn).map_err(opening)?;
                (conn, true)
            }
            Err(error) => return Err(opening(error)),
        };
        if schema::check_known(&conn, &path)? == 0 {
            // A writer is just making it, or was stopped while it did.
            return Err(MirrorError::Missing { path });
        }
        Ok(MirrorReader { conn, path, is_frozen, busy_timeout, file })
    }

    /// Whether it sees only what was committed when it was opened.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The manifest of the ledger that it mirrors, as it was when the mirror was made.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn manifest(&self) -> Result<Manifest, MirrorError> {
        schema::manifest(&self.conn, &self.path)
    }

    /// How far it mirrors the ledger.
    ///
    /// # Errors
    /// [`MirrorError`].
    pub fn watermark(&self, ledger_id: LedgerId) -> Result<Watermark, MirrorError> {
        schema::watermark(&self.conn, &self.path, ledger_id)
    }

    /// How far it mirrors the ledger by now, where that is at least as far as it was, and its file is still the one at its path.
    ///
    /// # Errors
    /// [`MirrorError::Gone`] where it is another one, or is being written anew.
    pub(crate) fn watermark_since(&self, ledger_id: LedgerId, since: Seq) -> Result<Watermark, MirrorError> {
        let mark = self.watermark(ledger_id)?;
        if mark.seq < since || inode(&self.path)? != self.file {
            return Err(MirrorError::Gone { path: self.path.clone() });
        }
        Ok(mark)
    }

    /// The same, where it is that of a row.
    pub(crate) fn proven_watermark(&self, ledger_id: LedgerId) -> Result<Watermark, MirrorError> {
        let mark = self.watermark(ledger_id)?;
        schema::check_watermark(&self.conn, &self.path, mark)?;
        Ok(mark)
    }

    /// Holds on to what is committed now, until [`MirrorReader::end_snapshot`]; answers the watermark of that moment.
    #[cfg(feature = "actors")]
    pub(crate) fn begin_snapshot(&self, ledger_id: LedgerId) -> Result<Watermark, MirrorError> {
        self.sqlite("reading", self.conn.execute_batch("BEGIN"))?;
        self.watermark(ledger_id)
    }

    /// Lets go of the snapshot.
    #[cfg(feature = "actors")]
    pub(crate) fn end_snapshot(&self) -> Result<(), MirrorError> {
        self.sqlite("reading", self.conn.execute_batch("COMMIT"))
    }

    /// Which file it is.
    pub(crate) fn file_id(&self) -> FileId {
        self.file
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more of the same file.
    pub(crate) fn another(&self) -> Result<MirrorReader, MirrorError> {
        let another = MirrorReader::open_any(self.path.parent().unwrap_or(Path::new(".")), self.busy_timeout)?;
        if another.file == self.file { Ok(another) } else { Err(MirrorError::Gone { path: self.path.clone() }) }
    }

    /// Ends what SQLite is doing once this answers true.
    pub(crate) fn stop_when(&mut self, is_over: impl FnMut() -> bool + Send + 'static) {
        const STEPS: i32 = 100_000; // less than a millisecond
        if let Err(error) = self.conn.progress_handler(STEPS, Some(is_over)) {
            tracing::debug!(%error, "this check can be cancelled between rows only");
        }
    }

    /// The connection, for tests that count its steps.
    #[cfg(test)]
    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// The connection, to read with. It is opened read-only.
    pub fn connection(&self) -> &Connection {
        &self.conn
    }

    pub(crate) fn sqlite<T>(&self, action: &'static str, result: rusqlite::Result<T>) -> Result<T, MirrorError> {
        result.map_err(|source| MirrorError::Sqlite { action, path: self.path.clone(), source })
    }

    /// Number of rows, and the highest seq among them.
    ///
    /// # Errors
    /// [`MirrorError::Sqlite`].
    pub fn count(&self) -> Result<(u64, Seq), MirrorError> {
        self.sqlite("counting", query::count(&self.conn))
    }
}

fn wal_path(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn escape_uri(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// What SQLite keeps beside the file, and the file, in the order in which they are renamed.
const SUFFIXES: [&str; 3] = ["-wal", "-shm", ""];

/// The next name that nothing has, not even a link that leads nowhere. Where setting aside was interrupted before, a part
/// of the old mirror has its name already.
pub(crate) fn free_aside(path: &Path) -> PathBuf {
    let is_free = |aside: &PathBuf| SUFFIXES.iter().all(|suffix| std::fs::symlink_metadata(with_suffix(aside, suffix)).is_err());
    (1u32..).map(|n| with_suffix(path, &format!(".aside-{n}"))).find(is_free).unwrap_or_default()
}

/// Renames the mirror and what belongs to it aside; answers its new name. Nothing is deleted.
///
/// # Errors
/// [`MirrorError::Io`].
pub fn set_aside(dir: &Path) -> Result<PathBuf, MirrorError> {
    let path = mirror_path(dir);
    let aside = free_aside(&path);
    for suffix in SUFFIXES {
        let from = with_suffix(&path, suffix);
        match std::fs::rename(&from, with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(MirrorError::Io { action: "renaming", path: from, source: error });
            }
            _ => {}
        }
    }
    Ok(aside)
}

/// The same, and says in the log why.
pub(crate) fn set_aside_since(dir: &Path, error: &MirrorError) -> Result<PathBuf, MirrorError> {
    let aside = set_aside(dir)?;
    tracing::warn!(mirror = %mirror_path(dir).display(), aside = %aside.display(), %error, "set the mirror aside; it will be rebuilt");
    Ok(aside)
}

/// SQLite versions from 3.7.0 to 3.51.2 can lose a WAL when it is reset at the wrong moment.
pub(crate) const SQLITE_VERSION_MIN: i32 = 3_051_003;

fn check_version() -> Result<(), MirrorError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(MirrorError::OldSqlite { found: rusqlite::version() });
    }
    Ok(())
}

/// Byte 18 of a database says which format a writer must know; SQLite opens one that it doesn't know read-only, and would
/// blame the permissions.
///
/// The file is looked at only where SQLite can't write it and this user could: closing a file gives up every lock that this
/// process holds on it, SQLite's too. Another program that came and went would then take itself for the last one that has
/// the mirror open, and remove the WAL that is being written.
fn check_writable_format(conn: &Connection, path: &Path) -> Result<(), MirrorError> {
    use std::io::Read;
    if !conn.is_readonly("main").unwrap_or(false) || !may_write(path) {
        return Ok(());
    }
    let mut header = [0; 19];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match header {
        [.., version] if read.is_ok() && version > 2 => Err(MirrorError::Corrupt {
            path: path.to_owned(),
            reason: format!("its header asks for write format {version}, and there is none"),
        }),
        _ => Ok(()),
    }
}

fn may_write(path: &Path) -> bool {
    #[cfg(unix)]
    return rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    #[cfg(not(unix))]
    return std::fs::metadata(path).is_ok_and(|meta| !meta.permissions().readonly());
}

/// SQLite would write through a symbolic link.
fn check_links(path: &Path) -> Result<(), MirrorError> {
    match ["", "-wal", "-shm", "-journal"].iter().map(|suffix| with_suffix(path, suffix)).find(|path| path.is_symlink()) {
        Some(path) => Err(MirrorError::SymbolicLink { path }),
        None => Ok(()),
    }
}

/// SQLite would create the file with the process's umask; events are nobody else's business.
pub(crate) fn create_private(path: &Path) -> Result<(), MirrorError> {
    let mut options = std::fs::OpenOptions::new();
    match private(options.write(true).create_new(true)).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(MirrorError::Io { action: "creating", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Device and inode of a file, where there are such.
pub(crate) type FileId = Option<(u64, u64)>;

/// Which file is at this path.
pub(crate) fn file_id(path: &Path) -> Result<FileId, MirrorError> {
    inode(path)
}

/// Nothing where there are no such numbers.
#[cfg(not(unix))]
fn inode(_: &Path) -> Result<FileId, MirrorError> {
    Ok(None)
}

/// Nothing where there is no such file.
#[cfg(unix)]
fn inode(path: &Path) -> Result<FileId, MirrorError> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(MirrorError::Io { action: "looking at", path: path.to_owned(), source }),
    }
}
