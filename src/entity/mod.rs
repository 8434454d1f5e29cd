//! Event-sourced entities: state that is a fold of one stream, and commands that add events to it.
//!
//! This is the half without actors: what an entity is ([`Entity`]), how its events are recorded and read ([`Codec`], [`Upcasts`]), how
//! a stream is folded ([`fold`], [`Folded`]), where states are kept so that not every event is read again ([`Snapshots`]), and a test
//! kit ([`kit`]). Called by the actors that keep entities alive, by synchronous programs, and by tests. It never appends, and knows no
//! clock: a state depends on the entity and its events alone.
//!
//! # An entity
//! A bank account. Its first release recorded whole euros; since then amounts are cents, and events of the first release are upcast
//! when they are read.
//!
//! ```
//! use counterfoil::entity::kit::Kit;
//! use counterfoil::entity::{Entity, Upcasts};
//! use serde::{Deserialize, Serialize};
//!
//! struct Account {
//!     overdraft_cents: u64,
//! }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct State {
//!     cents: i64,
//! }
//!
//! enum Command {
//!     Deposit { cents: u32 },
//!     Withdraw { cents: u32 },
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! #[serde(tag = "event_type", content = "payload")]
//! enum Event {
//!     #[serde(rename = "deposited.v2")]
//!     Deposited { cents: u32 },
//!     #[serde(rename = "withdrawn.v1")]
//!     Withdrawn { cents: u32 },
//! }
//!
//! #[derive(Debug, PartialEq, thiserror::Error)]
//! #[error("the account has {cents} cents; withdraw less")]
//! struct Overdrawn {
//!     cents: i64,
//! }
//!
//! impl Entity for Account {
//!     type State = State;
//!     type Command = Command;
//!     type Event = Event;
//!     type Error = Overdrawn;
//!     const NAME: &'static str = "account";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn decide(&self, state: &State, command: &Command) -> Result<Vec<Event>, Overdrawn> {
//!         match *command {
//!             Command::Deposit { cents } => Ok(vec![Event::Deposited { cents }]),
//!             Command::Withdraw { cents } if state.cents + self.overdraft_cents as i64 >= i64::from(cents) => {
//!                 Ok(vec![Event::Withdrawn { cents }])
//!             }
//!             Command::Withdraw { .. } => Err(Overdrawn { cents: state.cents }),
//!         }
//!     }
//!
//!     fn apply(&self, state: &mut State, event: &Event) {
//!         match *event {
//!             Event::Deposited { cents } => state.cents += i64::from(cents),
//!             Event::Withdrawn { cents } => state.cents -= i64::from(cents),
//!         }
//!     }
//!
//!     fn upcasts(&self) -> Upcasts {
//!         Upcasts::none().upcast("deposited.v1", "deposited.v2", |payload| {
//!             let euros = payload["euros"].as_u64().ok_or("`euros` is no number")?;
//!             Ok(serde_json::json!({ "cents": euros * 100 }))
//!         })
//!     }
//! }
//!
//! // Tested without actors and without a disk.
//! Kit::of(Account { overdraft_cents: 0 })
//!     .given_json(&[("deposited.v1", r#"{"euros":3}"#)])
//!     .when(Command::Withdraw { cents: 250 })
//!     .then([Event::Withdrawn { cents: 250 }])
//!     .when(Command::Withdraw { cents: 100 })
//!     .then_error_eq(Overdrawn { cents: 50 })
//!     .then_state(|state| state.cents == 50);
//!
//! // And on a ledger, by a synchronous program.
//! use counterfoil::entity::{Codec, fold};
//! use counterfoil::{Conditions, Options, Seq, Store, StreamReader};
//! # let temp = tempfile::tempdir()?;
//! # let dir = temp.path().join("store");
//! # let options = Options::default();
//! let account = Account { overdraft_cents: 0 };
//! let (mut store, _) = Store::open(&dir, &options)?;
//! let (mut reader, codec) = (StreamReader::open(&dir, &options)?, Codec::new(&account)?);
//!
//! let folded = fold(&account, &mut reader, "account-7", Seq::MAX)?;
//! let mut drafts = Vec::new();
//! for event in account.decide(&folded.state, &Command::Deposit { cents: 500 })? {
//!     drafts.push(codec.draft(&account, "account-7", Some("transfer-1"), drafts.is_empty(), &event)?);
//! }
//! store.append_batch(drafts, &Conditions::none().session("account-7", folded.position))?;
//! assert_eq!(fold(&account, &mut reader, "account-7", Seq::MAX)?.state.cents, 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How events are recorded
//! serde's adjacently tagged enums are an event's type and its payload: `Event::Withdrawn` above is recorded with the `event_type`
//! `withdrawn.v1` and the payload `{"cents":250}`. So entities' events are events like any other: found by type in SQL, with `jq`, and
//! by programs that know nothing of the entity. A variant without fields has the payload `null`.
//!
//! What changes with time:
//! - A field is added: `#[serde(default)]`.
//! - A payload changes otherwise: a new version of the type, and an [upcast](Upcasts::upcast) from the old one.
//! - An event is not written any more: its variant stays, or an upcast leads from it to another.
//! - `State` or `apply` changes: raise [`Entity::STATE_VERSION`].
//!
//! # When an event can't be read
//! An entity is the fold of *all* its events, so one that can't be read or applied is no gap to be jumped over: the stream ends there in a
//! [`PoisonEvent`], which names the event and what to do. What must not be part of the entity, [`Entity::passes_over`] says; what was
//! erased, [`Entity::apply_erased`] answers for. To keep such an event from being recorded at all, whoever appends asks
//! [`Codec::read_back`] first.
//!
//! Panics are caught where the program unwinds; with `panic = "abort"` one in an entity's code ends the program, as it does anywhere.

mod codec;
mod command;
mod fold;
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
pub use fold::{EntityReadError, fold};
pub use folded::{Folded, PoisonEvent, PoisonProblem};
pub use snapshots::{STATE_BYTES_MAX, Snapshot, SnapshotError, Snapshots};
pub(crate) use snapshots::{are_begun_after, note_erased, snapshots_path};
pub use upcasts::Upcasts;
#[cfg(feature = "actors")]
pub(crate) use {folded::message as panic_message, live::Live, live::NoSnapshot};

use crate::event::{Draft, EventRecord};

/// A kind of entity: what its commands decide, and what its events do to its state.
///
/// One stream (a `session_id`) is one entity of this kind. `self` holds what all of them share (prices, limits, a clock that
/// commands are stamped with before they are sent), never the state of one of them.
pub trait Entity: Send + Sync + 'static {
    /// What the events add up to. Written to snapshots with serde, so whatever `decide` and `apply` look at must survive that: a
    /// field with `#[serde(skip)]` does not. Dropping it must not panic: where it does, that is told in the log. Large
    /// states are written, and all are read back, on a thread that has no async runtime, and may be dropped there.
    type State: Default + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What an entity can be asked. Moments, random numbers and the like are part of it, not something that `decide` looks up.
    type Command: Send + Sync + 'static;

    /// What can have happened: an enum with
    /// `#[derive(Serialize, Deserialize)] #[serde(tag = "event_type", content = "payload")]`, each variant with the event type
    /// that it is recorded as: `#[serde(rename = "deposited.v1")]`.
    type Event: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Why a command is refused.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Name of this kind of entity: in snapshots and logs. 1 to 128 bytes, no control characters. A stream has one snapshot of a name:
    /// one that another type of the same name has left is dropped, as after the type or its module was renamed, and two such types
    /// on one stream take each other's away.
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

    /// Whether events of this type stand in the stream and are none of this entity's: they are passed over.
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
