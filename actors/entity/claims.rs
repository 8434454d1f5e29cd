//! Who lives on which stream: at most one entity of a stream in the process, whichever registry it belongs to.
//!
//! Held by the store's shared part, since every handle of a store in this process has the same. That two entities of one stream
//! could never record against each other is not this module's doing: each append names the position that it expects.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The claims of a store.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<HashMap<Arc<str>, Owner>>,
    freed: Notify,
}

/// A registry, and what its entities are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub registry: u64,
    pub name: &'static str,
}

/// The right to be the one entity of a stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    session_id: Arc<str>,
}

impl Claims {
    /// Takes the stream; waits where a predecessor of the same registry is about to let go of it.
    ///
    /// # Errors
    /// Who else has it.
    pub(crate) async fn take(self: &Arc<Claims>, session_id: &Arc<str>, owner: Owner) -> Result<Claim, Owner> {
        loop {
            // Before it is looked at, so that no freeing in between is missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            match self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(session_id.clone()) {
                Entry::Vacant(free) => {
                    free.insert(owner);
                    return Ok(Claim { claims: self.clone(), session_id: session_id.clone() });
                }
                Entry::Occupied(held) if held.get().registry != owner.registry => return Err(*held.get()),
                Entry::Occupied(_) => {}
            }
            freed.await;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session_id);
        self.claims.freed.notify_waiters();
    }
}
