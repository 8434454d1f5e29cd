//! Who gives answers: the thread that has them, or, where they are many, a task on the runtime that all of their callers are on. To
//! wake a task from another thread costs more than to seal an event, and the actors have the next group to see to. A runtime that
//! stands still, or ends, holds up nobody but its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, Id};

use super::message::Reply;

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

/// The runtime that all of these callers are on, where there is such a one.
pub(crate) fn all_on<'r>(replies: impl Iterator<Item = &'r Reply>) -> Option<Id> {
    let mut runtimes = replies.map(Reply::runtime);
    let first = runtimes.next()?;
    first.filter(|_| runtimes.all(|runtime| runtime == first))
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

    /// Gives so many answers, to callers who are all on this runtime, or on several.
    pub(crate) fn give(&self, number: usize, callers: Option<Id>, give: impl FnOnce() + Send + 'static) {
        if number < HANDED_OVER_MIN || self.unstarted.load(Ordering::Acquire) >= UNSTARTED_MAX {
            return give();
        }
        let runtime = self.runtime().clone();
        if callers != Some(runtime.id()) {
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
