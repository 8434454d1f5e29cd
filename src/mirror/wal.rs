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

use super::MirrorError;
use crate::options::Options;

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

/// A try waits for readers as long as SQLite waits for any lock here; where they are slower, the next one twice as long, up to
/// two seconds: queries that take longer are rare, and this thread is the mirror's writer.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// After a try that failed, so many times its wait goes by before the next: beside a reader that never ends the writer
/// works on for four fifths of the time.
const PAUSE_FACTOR: u32 = 4;

#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    #[cfg(unix)]
    shm: PathBuf,
    /// Which file it was when the mirror was opened, and which its shared memory.
    #[cfg(unix)]
    inodes: [super::FileId; 2],
    held: Option<WalHeld>,
    next_try: Option<Instant>,
    /// What waited long enough last, or is to be tried next.
    wait: Duration,
}

impl Wal {
    /// The WAL of an open mirror.
    pub(super) fn of(mirror: &Path) -> Result<Wal, MirrorError> {
        // SQLite has it beside the file itself, also where that is reached by a symlink.
        let mirror = std::fs::canonicalize(mirror).unwrap_or_else(|_| mirror.to_owned());
        let path = super::wal_path(&mirror);
        #[cfg(unix)]
        let shm = super::with_suffix(&mirror, "-shm");
        Ok(Wal {
            #[cfg(unix)]
            inodes: [super::inode(&path)?, super::inode(&shm)?],
            #[cfg(unix)]
            shm,
            path,
            held: None,
            next_try: None,
            wait: Duration::ZERO,
        })
    }

    /// Which of its files has been removed or replaced since: a new connection would not see what this one writes.
    #[cfg(unix)]
    pub(super) fn gone(&self) -> Result<Option<PathBuf>, MirrorError> {
        for (path, was) in [&self.path, &self.shm].into_iter().zip(self.inodes) {
            if was.is_some() && super::inode(path)? != was {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    pub(super) fn held(&self) -> Option<&WalHeld> {
        self.held.as_ref()
    }

    /// Has it emptied where it is too long. Never fails: what was committed is committed.
    pub(super) fn see_to(&mut self, conn: &Connection, options: &Options) {
        let bytes = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if bytes <= options.mirror_wal_bytes_max {
            (self.held, self.next_try) = (None, None);
            return;
        }
        if self.next_try.is_some_and(|at| Instant::now() < at) {
            if let Some(held) = &mut self.held {
                held.bytes = bytes;
            }
            return;
        }
        self.wait = self.wait.max(options.mirror_busy_timeout);
        let emptied = conn.busy_timeout(self.wait).and_then(|()| {
            let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            conn.busy_timeout(options.mirror_busy_timeout).and(busy)
        });
        let reason = match emptied {
            Ok(0) => {
                (self.held, self.next_try, self.wait) = (None, None, self.wait / 2);
                return;
            }
            Ok(_) => "a reader holds it; end that reader's transaction".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(bytes, %reason, "the mirror's WAL can't be emptied");
        self.held = Some(WalHeld { bytes, reason });
        self.next_try = Some(Instant::now() + self.wait * PAUSE_FACTOR);
        self.wait = (self.wait * 2).min(WAIT_MAX.max(options.mirror_busy_timeout));
    }
}
