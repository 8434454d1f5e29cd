//! Readers of a store that stay open between two calls of the handle: to open one costs more than most pages do.
//!
//! Called by `streams`; emptied by the supervisor. An idle one holds no read transaction, so that the mirror's WAL can be emptied beside
//! it; and once the store closes none is kept: SQLite removes the WAL with the last connection, which is to be the writer's.

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
    /// Closes those that are idle; from now on none is kept. Closes a few files at most, at once: there may be no thread to be had for it.
    pub(crate) fn close(&self) {
        self.streams.close();
        self.sessions.close();
    }
}

/// Some that are idle, the last one that was used on top.
pub(crate) struct Idle<T> {
    /// Nothing once none is kept any more.
    kept: Mutex<Option<Vec<T>>>,
    max: usize,
}

impl<T> Idle<T> {
    fn new(max: usize) -> Idle<T> {
        Idle { kept: Mutex::new(Some(Vec::new())), max }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is idle, or that is opened.
    ///
    /// # Errors
    /// What `open` says.
    pub(crate) fn take(&self, open: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let kept = self.lock().as_mut().and_then(Vec::pop);
        kept.map_or_else(open, Ok)
    }

    /// Keeps it, where there is room and the store is not closing. Not for one that has failed.
    pub(crate) fn give_back(&self, one: T) {
        // What is not kept is dropped once others may go on.
        let _left = match self.lock().as_mut() {
            Some(kept) if kept.len() < self.max => {
                kept.push(one);
                None
            }
            _ => Some(one),
        };
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
        let mut one = self.take(open)?;
        let done = read(&mut one)?;
        self.give_back(one);
        Ok(done)
    }

    fn close(&self) {
        let kept = self.lock().take();
        drop(kept);
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
        let at_once: Vec<u32> = (0..4).map(|_| idle.take(&open).unwrap()).collect();
        assert_eq!(at_once, [1, 2, 3, 4]);
        at_once.into_iter().for_each(|one| idle.give_back(one));
        assert_eq!((0..3).map(|_| idle.take(&open).unwrap()).collect::<Vec<_>>(), [2, 1, 5]);
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
