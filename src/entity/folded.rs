//! Folding a stream, event by event: state at a position, and the event at which it can go no further. No I/O.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Codec, CodecError, Entity};
use crate::event::{EventHash, EventId, EventRecord, Seq};
use crate::ledger::Receipt;

/// Characters that are kept of what a panic says: enough for an `assert_eq!` of two lines, and no more than a log can take, since a
/// poison event is told with every command that comes.
const MESSAGE_CHARS_MAX: usize = 2000;

/// State at a position of a stream.
///
/// After a [`PoisonEvent`] it must not be used any more: the state may have been changed by half.
pub struct Folded<E: Entity> {
    /// What the events up to here add up to.
    pub state: E::State,
    /// `session_seq` of the last event that was folded; 0 before the first.
    pub position: u64,
    /// Its seq; [`Seq::ZERO`] before the first.
    pub seq: Seq,
    /// Its event hash, by which a snapshot is held against the ledger; all zeros before the first.
    pub event_hash: EventHash,
}

/// Why a stream can't be folded on: which event it was, and what is wrong with it. It is the same however often it is tried, until
/// the entity's code is another.
#[derive(Clone, Debug, thiserror::Error)]
#[error("event {session_seq} of stream `{session_id}` (seq {seq}, {id}, `{event_type}`) can't be folded: {problem}")]
#[non_exhaustive]
pub struct PoisonEvent {
    /// The stream.
    pub session_id: String,
    /// The event's position there.
    pub session_seq: u64,
    /// Its position in the ledger.
    pub seq: Seq,
    /// Its identity.
    pub id: EventId,
    /// The type that it was recorded with.
    pub event_type: String,
    /// What is wrong.
    #[source]
    pub problem: PoisonProblem,
}

/// What makes an event one that can't be folded.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoisonProblem {
    /// It is none of the entity's events, or its payload none of its type.
    #[error(transparent)]
    Undecodable(CodecError),
    /// Its payload was erased, and the entity has no answer to that.
    #[error("its payload was erased; have `Entity::apply_erased` apply what is known without it")]
    Erased,
    /// The entity's code panicked over it.
    #[error("`{part}` panicked: {message}; mend it so that it takes every event that has happened")]
    Panicked {
        /// What panicked: `apply`, `apply_erased`, `passes_over`, or `decode` for upcasts and `Deserialize`.
        part: &'static str,
        /// What the panic said.
        message: String,
    },
    /// It is not the one after the last that was folded.
    #[error("event {expected} of its stream should come here; run `counterfoil verify` and `counterfoil parity --full` on the store")]
    Gap {
        /// The position that should come.
        expected: u64,
    },
}

impl<E: Entity> Default for Folded<E> {
    fn default() -> Self {
        Folded { state: E::State::default(), position: 0, seq: Seq::ZERO, event_hash: EventHash::from_bytes([0; 32]) }
    }
}

impl<E: Entity> fmt::Debug for Folded<E> {
    /// Where it is. What the state is, only the entity can show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(E::NAME).field("position", &self.position).field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl<E: Entity> Folded<E> {
    /// Folds a recorded event, with its payload; without where that is erased.
    ///
    /// # Errors
    /// [`PoisonEvent`] where it can't be folded. Then this must not be used any more.
    pub fn absorb(&mut self, entity: &E, codec: &Codec<E>, event: &EventRecord, payload: Option<&str>) -> Result<(), PoisonEvent> {
        let at = event.session_seq.unwrap_or_default();
        self.step(entity, codec, at, event, payload).map_err(|problem| PoisonEvent {
            session_id: event.session_id.clone().unwrap_or_default(),
            session_seq: at,
            seq: event.seq,
            id: event.id,
            event_type: event.event_type.clone(),
            problem,
        })?;
        (self.position, self.seq, self.event_hash) = (at, event.seq, event.event_hash);
        Ok(())
    }

    fn step(&mut self, entity: &E, codec: &Codec<E>, at: u64, event: &EventRecord, payload: Option<&str>) -> Result<(), PoisonProblem> {
        self.is_next(at)?;
        let event_type = event.event_type.as_str();
        if caught("passes_over", || entity.passes_over(event_type))? {
            return Ok(());
        }
        let Some(payload) = payload else {
            let is_applied = caught("apply_erased", || entity.apply_erased(&mut self.state, event))?;
            return if is_applied { Ok(()) } else { Err(PoisonProblem::Erased) };
        };
        let event = caught("decode", || codec.decode(event_type, payload))?.map_err(PoisonProblem::Undecodable)?;
        let state = &mut self.state;
        // The event is moved there, and so dropped there too.
        caught("apply", move || entity.apply(state, &event))
    }

    /// Folds an event that was appended just now: as [`Codec::read_back`] gave it, of this type, in this stream.
    ///
    /// # Errors
    /// As [`Folded::absorb`].
    pub fn appended(
        &mut self,
        entity: &E,
        session_id: &str,
        event_type: &str,
        event: &E::Event,
        receipt: &Receipt,
    ) -> Result<(), PoisonEvent> {
        let at = receipt.session_seq.unwrap_or_default();
        let step = self.is_next(at).and_then(|()| caught("apply", || entity.apply(&mut self.state, event)));
        step.map_err(|problem| PoisonEvent {
            session_id: session_id.to_owned(),
            session_seq: at,
            seq: receipt.seq,
            id: receipt.id,
            event_type: event_type.to_owned(),
            problem,
        })?;
        (self.position, self.seq, self.event_hash) = (at, receipt.seq, receipt.event_hash);
        Ok(())
    }

    fn is_next(&self, at: u64) -> Result<(), PoisonProblem> {
        let expected = self.position + 1;
        if at == expected { Ok(()) } else { Err(PoisonProblem::Gap { expected }) }
    }
}

/// Runs code of the entity's. What it leaves half done is not used any more after a panic.
fn caught<T>(part: &'static str, run: impl FnOnce() -> T) -> Result<T, PoisonProblem> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| PoisonProblem::Panicked { part, message: message(panic.as_ref()) })
}

/// What a panic said, as far as the bound goes.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").chars().take(MESSAGE_CHARS_MAX).collect()
}
