//! Readers of a store that stay open between two calls of the handle: to open one costs more than most pages do.
//!
//! Called by `streams`; emptied by the supervisor and by SqliteActor. An idle one holds no read transaction, so that the mirror's WAL can be
//! emptied beside it. It holds the mirror's file, though, and with it what was erased meanwhile where that is no longer the mirror: so those
//! that were opened before the mirror was, or before an erasure was carried out, are not kept. Once the store closes none is: SQLite removes
//! the WAL with the last connection, which is to be the writer's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, SessionIndex, StreamReader};

/// Readers of streams that are kept. Four: as many calls as have their pages read at one moment where nobody tries hard. Each has three
/// files open, and up to 2 MB of the mirror in SQLite's cache.
const STREAM_READERS_MAX: usize = 4;
/// Lists of sessions that are kept. One: they are looked at by people, and take turns where they are brought up to date.
const SESSION_INDEXES_MAX: usize = 1;

/// What is open and idle of a store.
pub(crate) struct Readers {
    pub(crate) streams: Idle<StreamReader>,
    pub(crate) sessions: Idle<SessionIndex>,
}

impl Default for Readers {
    fn default() -> Readers {
        Readers { streams: Idle::new(STREAM_READERS_MAX), sessions: Idle::new(SESSION_INDEXES_MAX) }
    }
}

impl Readers {
    /// Closes those that are idle, and keeps none of those that are in use now; later ones are kept again. At once, as [`Readers::close`].
    pub(crate) fn forget(&self) {
        self.streams.forget();
        self.sessions.forget();
    }

    /// Closes those that are idle; from now on none is kept. Closes a few files at most, at once: there may be no thread to be had for it.
    pub(crate) fn close(&self) {
        self.streams.close();
        self.sessions.close();
    }
}

/// Some that are idle, the last one that was used on top.
pub(crate) struct Idle<T> {
    kept: Mutex<Kept<T>>,
    max: usize,
}

struct Kept<T> {
    /// Nothing once none is kept any more.
    idle: Option<Vec<T>>,
    /// How often they were forgotten.
    forgotten: u64,
}

/// One that is in use.
pub(crate) struct Taken<T> {
    pub(crate) one: T,
    /// How often the others had been forgotten before it was opened.
    forgotten: u64,
}

impl<T> Idle<T> {
    fn new(max: usize) -> Idle<T> {
        Idle { kept: Mutex::new(Kept { idle: Some(Vec::new()), forgotten: 0 }), max }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is idle, or that is opened.
    ///
    /// # Errors
    /// What `open` says.
    pub(crate) fn take(&self, open: impl FnOnce() -> Result<T, Error>) -> Result<Taken<T>, Error> {
        let (idle, forgotten) = {
            let mut kept = self.lock();
            (kept.idle.as_mut().and_then(Vec::pop), kept.forgotten)
        };
        Ok(Taken { one: idle.map_or_else(open, Ok)?, forgotten })
    }

    /// Whether it may be used on: it was opened since the others were forgotten.
    pub(crate) fn is_current(&self, taken: &Taken<T>) -> bool {
        self.lock().forgotten == taken.forgotten
    }

    /// Keeps it, where there is room, it was not to be forgotten meanwhile, and the store is not closing. Not for one that has failed.
    pub(crate) fn give_back(&self, taken: Taken<T>) {
        let mut kept = self.lock();
        let is_current = kept.forgotten == taken.forgotten;
        // What is not kept is dropped once others may go on.
        let _left = match kept.idle.as_mut() {
            Some(idle) if is_current && idle.len() < self.max => {
                idle.push(taken.one);
                None
            }
            _ => Some(taken.one),
        };
        drop(kept);
    }

    /// Does something with one, and keeps it where that went well.
    ///
    /// # Errors
    /// What `open` or `read` says.
    pub(crate) fn with<R>(
        &self,
        open: impl FnOnce() -> Result<T, Error>,
        read: impl FnOnce(&mut T) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut taken = self.take(open)?;
        let done = read(&mut taken.one)?;
        self.give_back(taken);
        Ok(done)
    }

    fn forget(&self) {
        let idle = {
            let mut kept = self.lock();
            kept.forgotten += 1;
            kept.idle.as_mut().map(std::mem::take)
        };
        drop(idle);
    }

    fn close(&self) {
        let idle = self.lock().idle.take();
        drop(idle);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // a test
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::AppendError;

    /// Numbers them as they are opened.
    fn opening(opened: &Cell<u32>) -> impl Fn() -> Result<u32, Error> {
        || {
            opened.set(opened.get() + 1);
            Ok(opened.get())
        }
    }

    #[test]
    fn one_is_opened_where_none_is_idle_and_not_more_are_kept_than_the_bound() {
        let (idle, opened) = (Idle::new(2), Cell::new(0));
        let open = opening(&opened);
        for _ in 0..3 {
            assert_eq!(idle.with(&open, |one| Ok(*one)).unwrap(), 1);
        }
        let at_once: Vec<Taken<u32>> = (0..4).map(|_| idle.take(&open).unwrap()).collect();
        assert_eq!(at_once.iter().map(|taken| taken.one).collect::<Vec<_>>(), [1, 2, 3, 4]);
        at_once.into_iter().for_each(|taken| idle.give_back(taken));
        assert_eq!((0..3).map(|_| idle.take(&open).unwrap().one).collect::<Vec<_>>(), [2, 1, 5]);
    }

    #[test]
    fn those_that_are_forgotten_are_closed_and_those_in_use_are_not_kept() {
        let (idle, opened) = (Idle::new(2), Cell::new(0));
        let open = opening(&opened);
        let (one, in_use) = (idle.take(&open).unwrap(), idle.take(&open).unwrap());
        idle.give_back(one);
        idle.forget();
        assert!(!idle.is_current(&in_use));
        idle.give_back(in_use);
        // The third one is opened, and kept again.
        for _ in 0..2 {
            let third = idle.take(&open).unwrap();
            assert!(third.one == 3 && idle.is_current(&third));
            idle.give_back(third);
        }
        // One that is opened while they are forgotten may have the old file.
        let one = idle.take(|| Ok(4)).unwrap();
        idle.give_back(one);
        idle.forget();
        let meanwhile = idle.take(|| {
            idle.forget();
            open()
        });
        idle.give_back(meanwhile.unwrap());
        assert_eq!(idle.with(&open, |one| Ok(*one)).unwrap(), 5);
    }

    #[test]
    fn none_is_kept_that_failed_nor_once_it_is_closed() {
        let (idle, opened) = (Idle::new(2), Cell::new(0));
        let open = opening(&opened);
        assert!(idle.with(&open, |_| Err::<(), _>(AppendError::Closed.into())).is_err());
        assert_eq!(idle.with(&open, |one| Ok(*one)).unwrap(), 2, "the first one has failed");
        let in_use = idle.take(&open).unwrap();
        idle.close();
        idle.give_back(in_use);
        assert_eq!(idle.with(&open, |one| Ok(*one)).unwrap(), 3, "opened anew");
        assert_eq!(idle.with(&open, |one| Ok(*one)).unwrap(), 4, "and not kept");
    }
}
