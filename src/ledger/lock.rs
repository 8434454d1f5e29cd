//! One writer: the lock of a store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::LedgerError;
use super::storage::{self, Storage, StorageLock};
use crate::options::Options;

/// The lock of a store, held until it is dropped. Readers need none.
#[derive(Debug)]
pub struct StoreLock {
    dir: PathBuf,
    _lock: Box<dyn StorageLock>,
}

/// How often a waiting writer looks again.
const POLL: Duration = Duration::from_millis(5);
/// How long it looks at least: a reader that asks whether a writer is at work holds the lock itself for a moment.
const GRACE: Duration = Duration::from_millis(15);

impl StoreLock {
    /// Takes the lock of the store in this directory, waiting for another writer at most so long.
    ///
    /// # Errors
    /// [`LedgerError::Locked`] naming the holder, or [`LedgerError::Io`].
    pub fn acquire(storage: &dyn Storage, dir: &Path, wait: Duration) -> Result<StoreLock, LedgerError> {
        check_links(dir)?;
        let path = dir.join("LOCK");
        let deadline = Instant::now() + wait.max(GRACE);
        loop {
            if let Some(mut lock) = storage.try_lock(&path).map_err(LedgerError::io("locking", &path))? {
                // For people only: on a full disk the lock is held all the same.
                if let Err(error) = lock.write_text(&format!("{}\n", std::process::id())) {
                    tracing::debug!(%error, "the lock does not say whose it is");
                }
                return Ok(StoreLock { dir: dir.to_owned(), _lock: lock });
            }
            if Instant::now() >= deadline {
                return Err(LedgerError::Locked { path: dir.to_owned(), holder: holder(storage, &path) });
            }
            std::thread::sleep(POLL);
        }
    }

    /// The store that it locks.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Who writes to the store in this directory right now, as far as LOCK says (`process 1234`); nothing where nobody
/// does. Takes no lock for longer than the look takes.
pub fn writer_of(dir: &Path, options: &Options) -> Option<String> {
    let storage = options.storage.as_ref();
    is_held(storage, dir).then(|| holder(storage, &dir.join("LOCK")))
}

/// Whether some process writes to the store right now.
pub(crate) fn is_held(storage: &dyn Storage, dir: &Path) -> bool {
    let path = dir.join("LOCK");
    // Looked for first: where there is none, taking it would make one.
    storage.open_read(&path).is_ok() && matches!(storage.try_lock(&path), Ok(None))
}

/// What a store writes to by its name in the store's directory.
const WRITTEN: [&str; 10] = [
    "LOCK",
    "segments",
    "tmp",
    "torn",
    "blobs",
    "checkpoints",
    "mirror.sqlite3",
    "mirror.sqlite3-wal",
    "mirror.sqlite3-shm",
    "mirror.sqlite3-journal",
];

/// Nothing is written (or removed) through a symbolic link inside a store: who can place one there would have files
/// elsewhere overwritten. The store's directory itself may be reached by one.
fn check_links(dir: &Path) -> Result<(), LedgerError> {
    match WRITTEN.iter().map(|name| dir.join(name)).find(|path| path.is_symlink()) {
        Some(path) => Err(LedgerError::SymbolicLink { path }),
        None => Ok(()),
    }
}

/// Bytes of a LOCK that are looked at; a process's number has ten digits at most.
const HOLDER_BYTES_MAX: u64 = 64;

fn holder(storage: &dyn Storage, path: &Path) -> String {
    let text = storage.open_read(path).and_then(|mut file| storage::read_range(file.as_mut(), 0, HOLDER_BYTES_MAX)).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim().parse::<u32>() {
        Ok(pid) if pid == std::process::id() => format!("this process ({pid})"),
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    }
}
