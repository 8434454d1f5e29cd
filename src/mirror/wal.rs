//! The WAL of the mirror: kept from growing without end, and watched.
//!
//! A thread of the mirror's own copies it into the database once it has grown; see [`super::checkpointer`].
//! SQLite begins a WAL anew only at a moment when no reader uses it. Readers that overlap leave no such moment, so past a
//! bound the writer makes one: it has the WAL emptied, for which readers that come meanwhile need not wait. A single
//! reader that never ends can't be helped; it is told of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;

use super::checkpointer::Checkpointer;
use super::{FileId, MirrorError};
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

/// A WAL of so many bytes is copied into the database, or of a quarter of its bound where that is less. 16 MiB: copied more
/// often, pages that each transaction changes would be written more often too.
const COPIED_BYTES_MIN: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Wal {
    mirror: PathBuf,
    file: FileId,
    /// Of the database, and of the WAL.
    page_bytes: u64,
    /// Pages that it had after the last commit, as SQLite told.
    pages: Arc<AtomicU32>,
    /// Started when it is needed for the first time: most mirrors are small, or open for a moment.
    checkpointer: Option<Checkpointer>,
    /// There was no thread to be had for it. Asked once.
    is_threadless: bool,
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
    pub(super) fn of(mirror: &Path, conn: &mut Connection, file: FileId) -> Result<Wal, MirrorError> {
        let pages = Arc::new(AtomicU32::new(0));
        let told = pages.clone();
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        // It takes the place of SQLite's own, which would have the commit wait until the WAL is copied.
        let hooked = conn.wal_hook(Some(hook)).and_then(|()| conn.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)));
        let page_bytes = hooked.map_err(|source| MirrorError::Sqlite { action: "preparing", path: mirror.to_owned(), source })?;
        let open_path = mirror.to_owned();
        // SQLite has it beside the file itself, also where that is reached by a symlink.
        let mirror = std::fs::canonicalize(mirror).unwrap_or_else(|_| mirror.to_owned());
        let path = super::wal_path(&mirror);
        #[cfg(unix)]
        let shm = super::with_suffix(&mirror, "-shm");
        Ok(Wal {
            mirror: open_path,
            file,
            page_bytes: u64::try_from(page_bytes).unwrap_or(0).max(512),
            pages,
            checkpointer: None,
            is_threadless: false,
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

    /// Does it while the thread does not copy it.
    pub(super) fn pause_and<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.checkpointer {
            Some(checkpointer) => checkpointer.pause_and(work),
            None => work(),
        }
    }

    /// Has the thread copy it where it has grown.
    fn copy(&mut self, conn: &Connection, options: &Options) {
        let pages = self.pages.load(Ordering::Relaxed);
        let bytes_min = COPIED_BYTES_MIN.min(options.mirror_wal_bytes_max / 4);
        let pages_min = u32::try_from(bytes_min / self.page_bytes).unwrap_or(u32::MAX);
        if self.checkpointer.is_none() && !self.is_threadless && pages >= pages_min {
            self.checkpointer = Checkpointer::start(&self.mirror, self.file, pages_min)
                .inspect_err(|error| tracing::warn!(%error, "no thread to copy the mirror's WAL; it is emptied by the writer"))
                .ok();
            self.is_threadless = self.checkpointer.is_none();
        }
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.committed(conn, pages);
        }
    }

    /// Has it copied where it has grown, and emptied where it is too long. Never fails: what was committed is committed.
    pub(super) fn see_to(&mut self, conn: &Connection, options: &Options) {
        self.copy(conn, options);
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
        let emptied = self.pause_and(|| {
            conn.busy_timeout(self.wait)?;
            let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            conn.busy_timeout(options.mirror_busy_timeout).and(busy)
        });
        let reason = match emptied {
            Ok(0) => {
                (self.held, self.next_try, self.wait) = (None, None, self.wait / 2);
                return;
            }
            Ok(_) => "a reader holds it; end that reader's transaction (`counterfoil doctor` is one, until it is done)".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(bytes, %reason, "the mirror's WAL can't be emptied");
        self.held = Some(WalHeld { bytes, reason });
        self.next_try = Some(Instant::now() + self.wait * PAUSE_FACTOR);
        self.wait = (self.wait * 2).min(WAIT_MAX.max(options.mirror_busy_timeout));
    }
}
