//! Who gives answers: the thread that has them, or, where they are many, a task on the runtime that appends came from last. To
//! wake a task from another thread costs more than to seal an event, and the actors have the next group to see to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

/// So many are handed over. Fewer are answered sooner here.
const HANDED_OVER_MIN: usize = 8;

/// Tasks that may wait to be run. Four: one is run before the next is ready, unless that runtime is blocked.
const UNSTARTED_MAX: usize = 4;

pub(crate) struct Answers {
    /// Of the last append: one that was not blocked a moment ago, as the one that the store was opened on may be.
    runtime: Mutex<Handle>,
    unstarted: Arc<AtomicUsize>,
}

/// One of those that are not run yet; also where the runtime drops it.
struct Unstarted(Arc<AtomicUsize>);

impl Drop for Unstarted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Answers {
    /// On this task's runtime, until appends come from another one.
    pub(crate) fn here() -> Answers {
        Answers { runtime: Mutex::new(Handle::current()), unstarted: Arc::default() }
    }

    /// An append comes from this task.
    pub(crate) fn callers_are_here(&self) {
        if let Ok(here) = Handle::try_current() {
            let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
            if runtime.id() != here.id() {
                *runtime = here;
            }
        }
    }

    /// Gives so many answers. Where the runtime ends before that is done, each says so as it is dropped.
    pub(crate) fn give(&self, number: usize, give: impl FnOnce() + Send + 'static) {
        if number < HANDED_OVER_MIN || self.unstarted.load(Ordering::Acquire) >= UNSTARTED_MAX {
            return give();
        }
        self.unstarted.fetch_add(1, Ordering::AcqRel);
        let unstarted = Unstarted(self.unstarted.clone());
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runtime.spawn(async move {
            drop(unstarted);
            give();
        });
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
