//! Event-sourced entities: state that is a fold of one stream, and commands that add events to it.

mod codec;
mod command;
mod folded;
pub mod kit;
#[cfg(feature = "actors")]
mod live;
#[cfg(feature = "actors")]
mod recent;
mod snapshots;
mod tagged;
mod upcasts;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use codec::{Codec, CodecError};
pub use command::{KEY_BYTES_MAX, KeyError, check_key, command_id, command_tag};
pub use folded::{Folded, PoisonEvent, PoisonProblem};
pub use snapshots::{STATE_BYTES_MAX, Snapshot, SnapshotError, Snapshots};
pub(crate) use snapshots::{are_begun_after, note_erased, snapshots_path};
pub use upcasts::Upcasts;
#[cfg(feature = "actors")]
pub(crate) use {folded::message as panic_message, live::Live};

use crate::event::{Draft, EventRecord};

/// A kind of entity: what its commands decide, and what its events do to its state.
///
/// One stream (a `session_id`) is one entity of this kind. `self` holds what all of them share (prices, limits, a clock that
/// commands are stamped with before they are sent), never the state of one of them.
pub trait Entity: Send + Sync + 'static {
    /// What the events add up to. Written to snapshots with serde, so whatever `decide` and `apply` look at must survive that: a
    /// field with `#[serde(skip)]` does not.
    type State: Default + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What an entity can be asked. Moments, random numbers and the like are part of it, not something that `decide` looks up.
    type Command: Send + Sync + 'static;

    /// What can have happened: an enum with
    /// `#[derive(Serialize, Deserialize)] #[serde(tag = "event_type", content = "payload")]`, each variant with the event type
    /// that it is recorded as: `#[serde(rename = "deposited.v1")]`.
    type Event: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Why a command is refused.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Name of this kind of entity: in snapshots and logs. 1 to 128 bytes, no control characters.
    const NAME: &'static str;

    /// Version of what snapshots hold. A snapshot of another version is dropped, and the entity read from its events again. Raise it
    /// when the shape of `State` changes, and when `apply` makes something else of the same events.
    const STATE_VERSION: u32;

    /// What the command leads to: events, none where there is nothing to do, or a refusal. Pure: the same state and command give the
    /// same answer, since it is asked again where another writer was faster.
    ///
    /// # Errors
    /// The entity's own, and then nothing is recorded.
    fn decide(&self, state: &Self::State, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// What the event does to the state. Pure and total: the event has happened, so it can't be refused any more. A panic here stops
    /// the entity, and the error names the event.
    fn apply(&self, state: &mut Self::State, event: &Self::Event);

    /// Functions that bring older versions of events to today's.
    fn upcasts(&self) -> Upcasts {
        Upcasts::none()
    }

    /// Says more of an event's draft: source, further tags, trace, cause. Its stream, its type, its payload and what the key of its
    /// command needs are set already, and stay whatever is done to them here.
    fn draft(&self, event: &Self::Event, draft: Draft) -> Draft {
        let _ = event;
        draft
    }

    /// Whether events of this type stand in the stream and are none of this entity's: they are passed over. Types that the ledger
    /// itself writes (`counterfoil.`) are passed over without asking.
    fn passes_over(&self, event_type: &str) -> bool {
        let _ = event_type;
        false
    }

    /// What to do with an event whose payload was erased: apply what is known of it without, and answer true. By default the entity
    /// can't be opened then, and the error names the event.
    fn apply_erased(&self, state: &mut Self::State, event: &EventRecord) -> bool {
        let _ = (state, event);
        false
    }
}
