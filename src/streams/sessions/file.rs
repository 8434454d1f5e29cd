//! The file that holds the list of sessions, or a temporary database in place of one that can't be written.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::SessionsError;
use crate::derived;
use crate::mirror::{FileId, MirrorError, create_private, file_id, is_unwritable};

/// `PRAGMA application_id`: "Cfse".
const APPLICATION_ID: i64 = 0x4366_7365;
/// `PRAGMA user_version`. There are no migrations: another version is made anew.
const VERSION: i64 = 1;

/// How long another one that brings the list up to the mirror is waited for, a transaction of which takes a tenth of a second. 5 s: a
/// disk that is slow does not make listing fail.
const BUSY: Duration = Duration::from_secs(5);

/// How often it is opened again where others remove it meanwhile.
const TRIES: u32 = 3;

const CREATE: &str = "
CREATE TABLE sessions (
  number INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, events INTEGER NOT NULL, bytes INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL, first_observed_us INTEGER NOT NULL, last_observed_us INTEGER NOT NULL, last_recorded_us INTEGER NOT NULL);
CREATE INDEX sessions_by_first ON sessions (first_seq);
CREATE INDEX sessions_by_last ON sessions (last_seq);
CREATE TABLE session_types (
  number INTEGER NOT NULL, event_type TEXT NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (number, event_type)) WITHOUT ROWID;
CREATE TABLE named (seq INTEGER PRIMARY KEY);
CREATE TABLE counted_through (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, event_hash BLOB NOT NULL, device INTEGER NOT NULL, inode INTEGER NOT NULL);
";

/// The database.
#[derive(Debug)]
pub(in crate::streams) struct IndexFile {
    conn: Connection,
    path: PathBuf,
    /// Which file it is; None for a temporary database.
    file: Option<FileId>,
}

impl IndexFile {
    /// Opens the list of this store, creating it where it is missing, damaged or of another version.
    pub(super) fn open(dir: &Path) -> Result<IndexFile, SessionsError> {
        let path = derived::sessions_path(dir);
        for _ in 1..TRIES {
            match IndexFile::open_at(&path) {
                Err(error) if error.is_damage() => IndexFile::remove(&path, &error)?,
                Err(error) if error.may_be_removed() => {}
                opened => return opened,
            }
        }
        match IndexFile::open_at(&path) {
            Err(error) if error.may_be_removed() => IndexFile::temporary(),
            opened => opened,
        }
    }

    /// Removes it, since it is of no use.
    pub(super) fn remove(path: &Path, error: &SessionsError) -> Result<(), SessionsError> {
        tracing::info!(path = %path.display(), %error, "the list of sessions is made anew");
        derived::remove(path).map_err(|source| SessionsError::Io { action: "removing", path: path.to_owned(), source })
    }

    fn open_at(path: &Path) -> Result<IndexFile, SessionsError> {
        if let Some(link) = derived::files_of(path).find(|path| path.is_symlink()) {
            return Err(SessionsError::SymbolicLink { path: link });
        }
        let io = |action| move |error| SessionsError::Io { action, path: path.to_owned(), source: io_of(error) };
        match create_private(path) {
            Err(MirrorError::Io { source, .. }) if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                return IndexFile::temporary();
            }
            created => created.map_err(io("creating"))?,
        }
        // Before it is opened: where it is replaced meanwhile, that shows as a replacement.
        let file = file_id(path).map_err(io("looking at"))?;
        let sqlite = |source| SessionsError::Sqlite { action: "opening", path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).and_then(|mut conn| {
            let is_writable = !conn.is_readonly("main")?;
            if is_writable {
                prepare(&mut conn)?;
            }
            Ok(is_writable.then_some(conn))
        });
        if !matches!(opened, Ok(Some(_))) && file_id(path).is_ok_and(|now| now != file) {
            return Err(SessionsError::Gone { path: path.to_owned() });
        }
        match opened {
            Ok(Some(conn)) => Ok(IndexFile { conn, path: path.to_owned(), file: Some(file) }),
            Ok(None) => IndexFile::temporary(),
            Err(error) if is_unwritable(&error) => IndexFile::temporary(),
            Err(error) => Err(sqlite(error)),
        }
    }

    /// A database that SQLite removes by itself, in the system's folder for such.
    pub(super) fn temporary() -> Result<IndexFile, SessionsError> {
        let path = PathBuf::from("in a temporary file");
        let opened = Connection::open("").and_then(|mut conn| {
            prepare(&mut conn)?;
            Ok(conn)
        });
        let conn = opened.map_err(|source| SessionsError::Sqlite { action: "making", path: path.clone(), source })?;
        Ok(IndexFile { conn, path, file: None })
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its file is still the one at its path.
    pub(super) fn is_in_place(&self) -> bool {
        self.file.is_none_or(|file| file_id(&self.path).is_ok_and(|now| now == file))
    }

    /// The connection.
    pub(in crate::streams) fn conn(&mut self) -> &mut Connection {
        &mut self.conn
    }
}

fn io_of(error: MirrorError) -> std::io::Error {
    match error {
        MirrorError::Io { source, .. } => source,
        error => std::io::Error::other(error),
    }
}

/// Sets the connection up and makes the tables. A database that is something else is an error that says that it is damaged.
fn prepare(conn: &mut Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // No WAL: one of a file that was removed could be taken for the new one's.
    conn.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    let version = |conn: &Connection| -> rusqlite::Result<(i64, i64)> {
        let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok((pragma("application_id")?, pragma("user_version")?))
    };
    if version(conn)? == (APPLICATION_ID, VERSION) {
        return Ok(());
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match version(&transaction)? {
        (APPLICATION_ID, VERSION) => return Ok(()),
        (0, 0) => {}
        _ => return Err(rusqlite::Error::InvalidQuery),
    }
    // Fails where there are such tables.
    transaction.execute_batch(CREATE)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
