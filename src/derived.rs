//! Files of a store that are derived and no part of the format: their names, and how they go when what they were derived from was
//! put right.
//!
//! Called by repair and replay, which change rows that were there, and by `streams`, which keeps the list of sessions in one.

use std::io;
use std::path::{Path, PathBuf};

/// A database, and what SQLite keeps beside it, in the order in which they are removed. The database first: without its journal it
/// could be taken for a whole one in the middle of a transaction, while a journal without a database is dropped by SQLite. Whoever makes
/// the database anew in that very moment can lose its journal; it is derived, and made anew again where it does not fit.
const SUFFIXES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// The file of the list of sessions.
pub(crate) fn sessions_path(dir: &Path) -> PathBuf {
    dir.join("sessions.sqlite3")
}

/// The files of a database, the database first.
pub(crate) fn files_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    SUFFIXES.iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Removes a database that is derived, where it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for file in files_of(path) {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Has the list of sessions made anew, since rows that it was made from were changed.
pub(crate) fn forget_sessions(dir: &Path) {
    let path = sessions_path(dir);
    if let Err(error) = remove(&path) {
        tracing::warn!(path = %path.display(), %error, "the list of sessions may be that of rows which are no more; remove the file");
    }
}
