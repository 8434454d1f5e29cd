//! Where callers put their appends for LedgerActor: it takes all that are there at once, by one message, since a message of
//! its own for each costs as much as to seal an event. While it is about to look by itself it is not even told.
//!
//! Bounded by the appends' permits. What a LedgerActor that has ended has not taken the supervisor keeps for its successor;
//! where there is to be none, it refuses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::ActorRef;

use super::ledger::LedgerMsg;
use super::message::Append;

#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Something is in the queue. To look at without the lock.
    posted: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// The LedgerActor that takes appends right now.
    owner: Option<ActorRef<LedgerMsg>>,
    /// It looks by itself just now, and need not be told.
    watched: bool,
    appends: Vec<Append>,
}

/// The owner's look at what is posted; while it lasts nobody tells it.
pub(crate) struct Watch<'i>(&'i Inbox);

impl Watch<'_> {
    /// Whether something is there.
    pub(crate) fn posted(&self) -> bool {
        self.0.posted.load(Ordering::Acquire)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.watched = false;
        // Posted at the last moment, or its owner panics: whoever comes next does not find it empty, and tells nobody.
        if !queue.appends.is_empty()
            && let Some(owner) = &queue.owner
        {
            let _ = owner.cast(LedgerMsg::Drain);
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The LedgerActor that takes appends right now.
    pub(crate) fn owner(&self) -> Option<ActorRef<LedgerMsg>> {
        self.lock().owner.clone()
    }

    /// Puts an append in. Gives it back where nobody takes any just now, with all that nobody will come to take.
    pub(crate) fn post(&self, append: Append) -> Result<(), Vec<Append>> {
        let owner = {
            let mut queue = self.lock();
            let Some(owner) = &queue.owner else { return Err(vec![append]) };
            // Whoever finds it empty says that it no longer is.
            let owner = (queue.appends.is_empty() && !queue.watched).then(|| owner.clone());
            queue.appends.push(append);
            self.posted.store(true, Ordering::Release);
            owner
        };
        match owner {
            Some(owner) if owner.cast(LedgerMsg::Drain).is_err() => Err(self.take_all()),
            _ => Ok(()),
        }
    }

    /// Who takes appends from now on; nobody, while LedgerActor is away: then what is there is the supervisor's to take.
    pub(crate) fn publish(&self, owner: Option<ActorRef<LedgerMsg>>) {
        self.lock().owner = owner;
    }

    /// Begins a look at what is posted.
    pub(crate) fn watch(&self) -> Watch<'_> {
        self.lock().watched = true;
        Watch(self)
    }

    /// Exchanges what is there for an empty list.
    pub(crate) fn take(&self, empty: &mut Vec<Append>) {
        let mut queue = self.lock();
        self.posted.store(false, Ordering::Release);
        std::mem::swap(&mut queue.appends, empty);
    }

    /// All that is there.
    pub(crate) fn take_all(&self) -> Vec<Append> {
        let mut all = Vec::new();
        self.take(&mut all);
        all
    }
}
