//! Who gives answers: the thread that has them, or, where they are many, a task on the runtime that all of their callers are on. To
//! wake a task from another thread costs more than to seal an event, and the actors have the next group to see to. A runtime that
//! stands still, or ends, holds up nobody but its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, Id};

/// So many are handed over. Fewer are answered sooner here.
const HANDED_OVER_MIN: usize = 8;

/// Tasks that may wait to be run. Four: one is run before the next is ready, unless that runtime is blocked.
const UNSTARTED_MAX: usize = 4;

pub(crate) struct Answers {
    /// That the last append came from.
    runtime: Mutex<Handle>,
    unstarted: Arc<AtomicUsize>,
}

/// Answers that are to be given: by the task that they were handed to, or, where that is dropped instead, by who drops it.
struct Unstarted<F: FnOnce()> {
    number: Arc<AtomicUsize>,
    give: Option<F>,
}

impl<F: FnOnce()> Drop for Unstarted<F> {
    fn drop(&mut self) {
        self.number.fetch_sub(1, Ordering::Release);
        if let Some(give) = self.give.take() {
            give();
        }
    }
}

impl Answers {
    /// Of a store that is opened by this task.
    pub(crate) fn here() -> Answers {
        Answers { runtime: Mutex::new(Handle::current()), unstarted: Arc::default() }
    }

    fn runtime(&self) -> MutexGuard<'_, Handle> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An append comes from this task; answers where it is.
    pub(crate) fn caller_is_here(&self) -> Option<Id> {
        let here = Handle::try_current().ok()?;
        let (id, mut runtime) = (here.id(), self.runtime());
        if runtime.id() != id {
            *runtime = here;
        }
        Some(id)
    }

    /// Gives answers to callers who are on these runtimes.
    pub(crate) fn give(&self, callers: &[Option<Id>], give: impl FnOnce() + Send + 'static) {
        if callers.len() < HANDED_OVER_MIN || self.unstarted.load(Ordering::Acquire) >= UNSTARTED_MAX {
            return give();
        }
        let runtime = self.runtime().clone();
        let id = runtime.id();
        if callers.iter().any(|caller| *caller != Some(id)) {
            return give();
        }
        self.unstarted.fetch_add(1, Ordering::AcqRel);
        let unstarted = Unstarted { number: self.unstarted.clone(), give: Some(give) };
        runtime.spawn(async move { drop(unstarted) });
    }

    /// Lets other tasks run until what was handed over is run, unless that runtime is blocked.
    pub(crate) async fn started(&self) {
        for _ in 0..1000 {
            if self.unstarted.load(Ordering::Acquire) == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}
