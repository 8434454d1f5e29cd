//! Who lives on which stream: at most one entity of a stream in the process, whichever registry it belongs to.
//!
//! Held by the store's shared part, since every handle of a store in this process has the same. That two entities of one stream
//! could never record against each other is not this module's doing: each append names the position that it expects.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The claims of a store.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    lines: Mutex<HashMap<Arc<str>, Line>>,
    freed: Notify,
}

/// Who wants a stream.
#[derive(Debug, Default)]
struct Line {
    /// Who has it, and by which turn.
    holder: Option<(u64, Owner)>,
    /// The turns that there are, in order, each with its registry.
    turns: VecDeque<(u64, u64)>,
    next: u64,
}

/// A registry, and what its entities are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub registry: u64,
    pub name: &'static str,
}

/// The turn of an entity that was spawned for a stream: once it is taken, the right to be the one entity, until this is dropped.
///
/// Turns of one registry are taken in the order in which they were given. Each predecessor is about to end, the last one is not: one
/// that had to wait behind its own successor would wait, with the commands that it was sent, for as long as that lives.
#[derive(Debug)]
pub(crate) struct Turn {
    claims: Arc<Claims>,
    session_id: Arc<str>,
    number: u64,
    owner: Owner,
}

impl Claims {
    fn lines(&self) -> MutexGuard<'_, HashMap<Arc<str>, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the next turn on this stream.
    pub(crate) fn turn(self: &Arc<Claims>, session_id: &Arc<str>, owner: Owner) -> Turn {
        let mut lines = self.lines();
        let line = lines.entry(session_id.clone()).or_default();
        let number = line.next;
        line.next += 1;
        line.turns.push_back((number, owner.registry));
        Turn { claims: self.clone(), session_id: session_id.clone(), number, owner }
    }
}

impl Turn {
    /// Takes the stream; waits where a predecessor of the same registry is about to let go of it.
    ///
    /// # Errors
    /// Who else has it.
    pub(crate) async fn take(&self) -> Result<(), Owner> {
        loop {
            // Before it is looked at, so that no freeing in between is missed.
            let mut freed = std::pin::pin!(self.claims.freed.notified());
            freed.as_mut().enable();
            if let Some(taken) = self.try_take() {
                return taken;
            }
            freed.await;
        }
    }

    fn try_take(&self) -> Option<Result<(), Owner>> {
        let mut lines = self.claims.lines();
        let line = lines.get_mut(&self.session_id)?;
        match line.holder {
            Some((number, _)) if number == self.number => return Some(Ok(())),
            Some((_, other)) if other.registry != self.owner.registry => return Some(Err(other)),
            _ => {}
        }
        let first = line.turns.iter().find(|(_, registry)| *registry == self.owner.registry);
        first.filter(|(number, _)| *number == self.number)?;
        line.holder = Some((self.number, self.owner));
        Some(Ok(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.claims.lines();
        if let Some(line) = lines.get_mut(&self.session_id) {
            line.turns.retain(|(number, _)| *number != self.number);
            line.holder.take_if(|(number, _)| *number == self.number);
            if line.turns.is_empty() {
                lines.remove(&self.session_id);
            }
        }
        drop(lines);
        self.claims.freed.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)] // a test
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_a_registry_are_taken_in_order() {
        let (claims, session_id) = (Arc::new(Claims::default()), Arc::<str>::from("s"));
        let [ours, others] = [(1, "ours"), (2, "others")].map(|(registry, name)| Owner { registry, name });
        let [first, second, third] = [ours, ours, ours].map(|owner| claims.turn(&session_id, owner));
        let other = claims.turn(&session_id, others);
        // Whoever asks first.
        assert!(third.try_take().is_none() && second.try_take().is_none());
        assert_eq!((first.take().await, first.take().await, other.take().await), (Ok(()), Ok(()), Err(ours)));
        drop(first);
        assert!(third.try_take().is_none());
        // One that has never taken it is no longer in the way either.
        drop(second);
        assert_eq!(third.take().await, Ok(()));
        drop(third);
        assert_eq!(other.take().await, Ok(()));
        assert_eq!(claims.turn(&session_id, ours).take().await, Err(others));
        drop(other);
        assert!(claims.lines().is_empty());
    }
}
