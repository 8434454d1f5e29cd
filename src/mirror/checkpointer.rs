//! Copies the WAL into the database on a thread of its own, with a connection of its own, so that commits don't wait for it.
//!
//! ```text
//! writer:  commit … commit (grown) ─► commit … commit ─► the rest, a few pages ─► commit (begins the WAL anew)
//! thread:                       copies, syncs ───────► hands over
//! ```
//!
//! SQLite begins the WAL anew at the first commit that finds all of it copied. Beside a busy writer the thread is always a
//! commit or two behind, so it hands over once little is left and the database is synced, and the writer copies that little.
//! Errors are only logged: what is not copied now is copied later, or by the writer when the WAL reaches its bound.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{FileId, inode};

/// Passes that follow each other at once before the thread hands over. Six: SQLite syncs the database only in a pass that
/// no commit came into, and each pass is shorter than the one before; where six were not enough, the writer is to wait.
const PASSES_MAX: u32 = 6;
/// After an error the next pass waits.
const PAUSE: Duration = Duration::from_millis(200);

/// The thread. Dropping it waits for the pass that it is in.
#[derive(Debug)]
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    pages_min: u32,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Held for a pass: SQLite lets no two checkpoints run at once, and makes none of them wait.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct State {
    commits: u64,
    /// Pages in the WAL after the last commit.
    pages: u32,
    /// It is to be copied when it has so many.
    wanted: u32,
    /// The thread has done its part, and the writer is to do the rest.
    handed_over: bool,
    stop: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies what it can without waiting for anyone.
fn pass(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl Checkpointer {
    /// Starts the thread for the mirror at this path, which is that file. It copies a WAL of so many pages, and again each
    /// time that it has grown by as many.
    pub(super) fn start(path: &Path, file: FileId, pages_min: u32) -> std::io::Result<Checkpointer> {
        let state = State { commits: 0, pages: 0, wanted: pages_min, handed_over: false, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), turn: Mutex::new(()) });
        let work = Work { path: path.to_owned(), file, pages_min, shared: shared.clone() };
        let thread = std::thread::Builder::new().name("counterfoil-wal".to_owned()).spawn(move || work.run())?;
        Ok(Checkpointer { shared, pages_min, thread: Some(thread) })
    }

    /// Tells it of a commit on this connection, behind which the WAL has so many pages, and copies the rest where the thread
    /// has handed over.
    pub(super) fn committed(&self, conn: &Connection, pages: u32) {
        let mut state = lock(&self.shared.state);
        let begun_anew = pages < state.pages;
        (state.pages, state.commits) = (pages, state.commits + 1);
        if begun_anew {
            (state.wanted, state.handed_over) = (self.pages_min, false);
        }
        if state.handed_over {
            drop(state);
            if let Err(error) = self.pause_and(|| pass(conn)) {
                tracing::debug!(actor = "wal", %error, "the rest of the WAL could not be copied");
            }
            state = lock(&self.shared.state);
            // If a reader keeps it from being begun anew, it grows on.
            (state.wanted, state.handed_over) = (pages.saturating_add(self.pages_min), false);
        }
        if state.pages >= state.wanted {
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Does it between two passes of the thread.
    pub(super) fn pause_and<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = lock(&self.shared.turn);
        work()
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

struct Work {
    path: PathBuf,
    file: FileId,
    pages_min: u32,
    shared: Arc<Shared>,
}

impl Work {
    fn run(self) {
        let mut conn = None;
        while self.wait() {
            if let Err(error) = self.copy(&mut conn) {
                tracing::debug!(actor = "wal", %error, "the WAL could not be copied");
                conn = None;
                let mut state = lock(&self.shared.state);
                state.wanted = state.pages.saturating_add(self.pages_min);
                let _ = self.shared.changed.wait_timeout_while(state, PAUSE, |state| !state.stop);
            }
        }
    }

    /// Waits until there is something to copy; false where it is to end.
    fn wait(&self) -> bool {
        let state = lock(&self.shared.state);
        let idle = |state: &mut State| !state.stop && (state.handed_over || state.pages < state.wanted);
        !self.shared.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Passes, until one that no commit came into.
    fn copy(&self, conn: &mut Option<Connection>) -> rusqlite::Result<()> {
        for number in 1..=PASSES_MAX {
            let commits = lock(&self.shared.state).commits;
            let turn = lock(&self.shared.turn);
            if conn.is_none() {
                *conn = Some(self.open()?);
            }
            conn.as_ref().map_or(Ok(()), pass)?;
            drop(turn);
            let mut state = lock(&self.shared.state);
            if state.commits == commits || number == PASSES_MAX {
                state.handed_over = true;
            }
            if state.handed_over || state.stop {
                break;
            }
        }
        Ok(())
    }

    /// A connection to the mirror's file, and no other that has come to its place.
    fn open(&self) -> rusqlite::Result<Connection> {
        let same = || inode(&self.path).is_ok_and(|file| file == self.file);
        let gone = || rusqlite::Error::InvalidPath(self.path.clone());
        if !same() {
            return Err(gone());
        }
        let conn = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // As at the writer's: the WAL is on the disk before what it says is in the database.
        conn.pragma_update(None, "synchronous", "NORMAL")?;
        if same() { Ok(conn) } else { Err(gone()) }
    }
}
