//! The WAL of the mirror: kept from growing without end, and watched.
//!
//! SQLite begins a WAL anew only at a moment when no reader uses it. Readers that overlap leave no such moment, so past a
//! bound the writer makes one: it has the WAL emptied, for which readers that come meanwhile need not wait. A single
//! reader that never ends can't be helped; it is told of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;

/// A WAL that has grown past its bound and could not be emptied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WalHeld {
    /// How long it is.
    pub bytes: u64,
    /// What keeps it from being emptied.
    pub reason: String,
}

impl fmt::Display for WalHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mirror's WAL has {} MiB and grows: {}", self.bytes >> 20, self.reason)
    }
}

/// Waits between tries to empty it, doubling: each try can cost the writer its busy timeout.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// Which file it was when the mirror was opened, and which its shared memory.
    #[cfg(unix)]
    inodes: [super::FileId; 2],
    held: Option<WalHeld>,
    next_try: Option<Instant>,
    retry: Duration,
}

impl Wal {
    /// The WAL of an open mirror.
    pub(super) fn of(mirror: &Path) -> Wal {
        // SQLite has it beside the file itself, also where that is reached by a symlink.
        let mirror = std::fs::canonicalize(mirror).unwrap_or_else(|_| mirror.to_owned());
        let path = super::wal_path(&mirror);
        Wal {
            #[cfg(unix)]
            inodes: [&path, &super::with_suffix(&mirror, "-shm")].map(|path| super::inode(path)),
            path,
            held: None,
            next_try: None,
            retry: RETRY_MIN,
        }
    }

    /// Which of its files has been removed or replaced since: a new connection would not see what this one writes.
    #[cfg(unix)]
    pub(super) fn gone(&self) -> Option<PathBuf> {
        let shm = PathBuf::from(self.path.as_os_str().to_string_lossy().strip_suffix("-wal")?.to_owned() + "-shm");
        [self.path.clone(), shm]
            .into_iter()
            .zip(self.inodes)
            .find(|(path, was)| was.is_some() && super::inode(path) != *was)
            .map(|(path, _)| path)
    }

    pub(super) fn held(&self) -> Option<&WalHeld> {
        self.held.as_ref()
    }

    /// Has it emptied where it is too long. Never fails: what was committed is committed.
    pub(super) fn see_to(&mut self, conn: &Connection, bytes_max: u64) {
        let bytes = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if bytes <= bytes_max {
            (self.held, self.next_try, self.retry) = (None, None, RETRY_MIN);
            return;
        }
        let now = Instant::now();
        if self.next_try.is_some_and(|at| now < at) {
            if let Some(held) = &mut self.held {
                held.bytes = bytes;
            }
            return;
        }
        let reason = match conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) {
            Ok(0) => {
                (self.held, self.next_try, self.retry) = (None, None, RETRY_MIN);
                return;
            }
            Ok(_) => "a reader holds it; end that reader's transaction".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(bytes, %reason, "the mirror's WAL can't be emptied");
        self.held = Some(WalHeld { bytes, reason });
        self.next_try = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}
