//! Event-sourced actors: entities that live on the ledger, one live entity a stream.
//!
//! ```text
//!   Entities (the handle) ── table: who lives ──► EntityActor of "s-1": fold, decide, append, apply, answer
//!                                │               EntityActor of "s-2"
//!          RegistryActor supervises them,        …    each folds its stream when it is first asked
//!          lets go of idle ones, restarts none        │
//!                                                desk: a thread that reads streams and keeps snapshots
//! ```
//!
//! What an entity is, how its events are written and read, and how it is tested without any of this: [`crate::entity`].
//!
//! - An entity's state is a fold of what is recorded, always: events are applied once they are acknowledged, as they read back.
//! - Each append names the position that the decision was made at; where the stream has moved on, what came is read and the command is
//!   decided again, a bounded number of times. So whoever else appends to the stream, no decision rests on a state that was not.
//! - A command with a key is recorded once, in any life of the process: its first event's id is made of stream and key.
//! - A stream that can't be folded stops its entity, names the event, and is not tried again by itself.
//! - Snapshots are derived: kept in `entities.sqlite3`, dropped where state or stream are others, and never needed.
//!
//! - `entities` the handle · `kind` the table · `registry` the supervisor · `actor` the entity · `held` its state · `stream` what is done with
//!   it · `desk` the thread that reads · `claims` one live entity a stream · `options` · `error`

mod actor;
mod claims;
mod desk;
mod entities;
mod error;
mod held;
mod kind;
mod options;
mod registry;
mod stream;

pub(crate) use claims::Claims;
pub use entities::{Entities, Outcome};
pub use error::EntityError;
pub use options::EntityOptions;
