//! The state of a live entity, held together with the turn to be the one of its stream, so that whoever has the state, be it the desk, keeps
//! others from the stream. And what keeps a panic of a user's values to where it happens.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::claims::Turn;
use crate::entity::{Entity, Live, NoSnapshot, Snapshot};

/// A state, where there is one, and the turn. Let go of in this order.
///
/// Dropping a state runs its user's code, which may panic: in the actor, in the registry that is told of its end, on the desk. None of
/// them is to end of it, and nothing else is to be dropped beside it while it unwinds.
pub(super) struct Held<E: Entity> {
    pub live: Option<Live<E>>,
    turn: Arc<Turn>,
}

impl<E: Entity> Held<E> {
    /// The turn alone.
    pub(super) fn nothing(turn: Turn) -> Held<E> {
        Held { live: None, turn: Arc::new(turn) }
    }

    /// The same turn, to have a state with elsewhere.
    pub(super) fn empty(&self) -> Held<E> {
        Held { live: None, turn: self.turn.clone() }
    }

    /// The state, to have it elsewhere.
    pub(super) fn take(&mut self) -> Held<E> {
        Held { live: self.live.take(), turn: self.turn.clone() }
    }

    pub(super) fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Takes what a snapshot has for the state; `file` is where the next one may go.
    ///
    /// # Errors
    /// Why it does not fit the state.
    pub(super) fn open(&mut self, snapshot: &Snapshot, file: Option<u64>) -> Result<(), String> {
        self.live = Some(Live::of_snapshot(snapshot, file)?);
        Ok(())
    }

    /// The state as it is written.
    ///
    /// # Errors
    /// Why it can't be, within so many bytes.
    pub(super) fn written(&mut self, session_id: &str, bytes_max: usize) -> Result<Snapshot, NoSnapshot> {
        let live = self.live.as_mut().ok_or_else(|| NoSnapshot::Problem("there is no state".to_owned()))?;
        live.snapshot(session_id, bytes_max)
    }

    /// Drops the state. That this panics is told, and nothing else comes of it.
    pub(super) fn let_go(&mut self) {
        drop_alone(self.live.take(), E::NAME, "the state");
    }
}

impl<E: Entity> Drop for Held<E> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A value of the user's that is dropped beside those of others, such as a command in a mailbox: that its `Drop` panics is told, and nothing
/// else comes of it. Two such panics at once would abort the process.
pub(super) struct Harmless<T> {
    /// There until it is dropped.
    value: Option<T>,
    entity: &'static str,
}

impl<T> Harmless<T> {
    pub(super) fn new(value: T, entity: &'static str) -> Harmless<T> {
        Harmless { value: Some(value), entity }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }
}

impl<T> Drop for Harmless<T> {
    fn drop(&mut self) {
        drop_alone(self.value.take(), self.entity, "a value");
    }
}

/// Drops a value of the user's, whose panic goes no further.
fn drop_alone<T>(value: T, entity: &'static str, what: &'static str) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        // What the panic says may quote a payload.
        tracing::error!(entity, "dropping {what} of an entity has panicked; mend its `Drop`");
    }
}

/// Runs this to its end, or to a panic, and what that says.
pub(super) async fn isolated<F: Future>(work: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
