//! The actors: a supervised tree over the synchronous core, and the handle that callers hold.
//!
//! ```text
//!              the embedding runtime's own tree (optional parent)
//!                              │ link
//!              SupervisorActor: holds the lock, spawns, restarts, publishes the current refs; never does I/O
//!        ┌────────────────┼─────────────────┐
//!   LedgerActor ──────► SqliteActor     ParityActor: at start, after every SqliteActor restart, on demand, on a timer
//!   seal, group,        commit rows,    replays what is missing, reports, ends
//!   write, fsync, ack   move watermark
//!                                       CompressActor, where it is asked for: compresses sealed segments
//!                                       CheckpointActor, likewise: signs how far the ledger is, for anchors elsewhere
//! ```
//!
//! - `handle` [`Ledger`], what callers hold (`streams`: what it reads of streams) · `message` the append message · `inbox` on its way · `permits` what bounds that
//! - `supervisor` (with `children`), `ledger` (with `gather`, `flusher`, `waiting`, `covering`, `to_mirror`), `outbox` between it and `sqlite`,
//!   `parity` (with `checks`: which of them look, and in which turn), `compress` and `checkpoint` (by `side`) the actors · `shared` what they share outside
//!   messages · `answers` who gives them · `options`
//! - `streams` reading them (`readers`: what is kept open for that) · [`entity`] event-sourced actors on top of all this: a tree of their own
//!
//! Each actor's `handle` is one match with a function an arm; what it does is in the core, which needs no actor to
//! be tested. LedgerActor, SqliteActor and ParityActor do blocking I/O, so each has an OS thread of its own.

mod answers;
mod checkpoint;
mod checks;
mod children;
mod compress;
mod covering;
pub mod entity;
mod flusher;
mod gather;
mod handle;
mod inbox;
mod ledger;
mod message;
mod options;
mod outbox;
mod parity;
mod permits;
mod readers;
mod shared;
mod side;
mod sqlite;
mod streams;
mod supervisor;
mod to_mirror;
mod waiting;

pub use checkpoint::{CheckpointOptions, CheckpointStatus};
pub use futures_core::stream::BoxStream;
pub use handle::{Children, CloseReport, Ledger};
pub use message::{Append, AppendReply, Durability, Message};
pub use options::LedgerOptions;
pub use permits::Permit;
pub use shared::{CheckProgress, MirrorHealth, Phase, Status};
