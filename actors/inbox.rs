//! Where callers put their appends for LedgerActor: it takes all that are there at once, by one message, since a message of
//! its own for each costs as much as to seal an event.
//!
//! Bounded by the appends' permits. What a LedgerActor that has ended has not taken the supervisor keeps for its successor;
//! where there is to be none, it refuses it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::ActorRef;

use super::ledger::LedgerMsg;
use super::message::Append;

#[derive(Default)]
pub(crate) struct Inbox(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// The LedgerActor that takes appends right now.
    owner: Option<ActorRef<LedgerMsg>>,
    appends: Vec<Append>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            let owner = queue.appends.is_empty().then(|| owner.clone());
            queue.appends.push(append);
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

    /// Exchanges what is there for an empty list.
    pub(crate) fn take(&self, empty: &mut Vec<Append>) {
        std::mem::swap(&mut self.lock().appends, empty);
    }

    /// All that is there.
    pub(crate) fn take_all(&self) -> Vec<Append> {
        std::mem::take(&mut self.lock().appends)
    }
}
