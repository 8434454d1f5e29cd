//! Who lives on which stream: at most one entity of a stream in the process, whichever registry it belongs to.
//!
//! Held by the store's shared part, since every handle of a store in this process has the same. That two entities of one stream
//! could never record against each other is not this module's doing: each append names the position that it expects.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The claims of a store: for each stream who has it, and who is to have it next.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    queues: Mutex<HashMap<Arc<str>, VecDeque<Waiting>>>,
    tickets: AtomicU64,
}

/// A registry, and what its entities are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub registry: u64,
    pub name: &'static str,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    owner: Owner,
    turn: Arc<Notify>,
}

/// A place in the queue for a stream. Whoever is in front is its one entity, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    session_id: Arc<str>,
    ticket: u64,
    owner: Owner,
    turn: Arc<Notify>,
}

impl Claims {
    /// Queues for the stream. To be called where the entity is spawned: one that was spawned later and came first would have to be let go of before
    /// the other could do what it was sent, and nobody would.
    pub(crate) fn queue(self: &Arc<Claims>, session_id: &Arc<str>, owner: Owner) -> Claim {
        let (ticket, turn) = (self.tickets.fetch_add(1, Ordering::Relaxed), Arc::new(Notify::new()));
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(session_id.clone()).or_default().push_back(Waiting { ticket, owner, turn: turn.clone() });
        Claim { claims: self.clone(), session_id: session_id.clone(), ticket, owner, turn }
    }
}

impl Claim {
    /// Waits until those before it have let go of the stream.
    ///
    /// # Errors
    /// Who has it, where that is another registry's: that one may have it for ever.
    pub(crate) async fn turn(&self) -> Result<(), Owner> {
        loop {
            {
                let queues = self.claims.queues.lock().unwrap_or_else(PoisonError::into_inner);
                let before = queues.get(&self.session_id).into_iter().flatten().take_while(|waiting| waiting.ticket != self.ticket);
                let mut before = before.map(|waiting| waiting.owner).peekable();
                if before.peek().is_none() {
                    return Ok(());
                }
                if let Some(other) = before.find(|owner| owner.registry != self.owner.registry) {
                    return Err(other);
                }
            }
            // Kept for it where it comes before this is awaited.
            self.turn.notified().await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut queues = self.claims.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(&self.session_id) else { return };
        queue.retain(|waiting| waiting.ticket != self.ticket);
        match queue.front() {
            Some(next) => next.turn.notify_one(),
            None => drop(queues.remove(&self.session_id)),
        }
    }
}
