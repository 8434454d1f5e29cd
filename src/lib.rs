//! An event ledger for agent runtimes: fsynced JSONL that anyone can grep, mirrored into SQLite that anyone can query.
//!
//! # Guarantees
//! - A [`Receipt`] means that the event's line is fsynced. Its row follows, or is awaited with `Durability::Mirrored`.
//! - The same [`EventId`] with the same content is recorded once, however often it is appended.
//! - A batch is recorded as a whole or not at all, across any crash.
//! - After a crash, open brings both sides to the same events by itself, or refuses with the place and the command
//!   that helps; it never guesses. What it cuts off it keeps.
//! - The state of an [`entity`] is a fold of its stream; a command with a key takes effect once, in any life of the process.
//! - [`verify`] finds every flipped bit of a ledger; [`parity_full`] every difference between a line and its row.
//!
//! # With actors (feature `actors`, on by default)
#![cfg_attr(
    feature = "actors",
    doc = r#"
```
use counterfoil::actors::Ledger;
use counterfoil::{Draft, EventType, Source};

# #[tokio::main]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
# let dir = tempfile::tempdir()?;
# let path = dir.path();
let ledger = Ledger::open(path).await?;
let draft = Draft::new(EventType::USER_MESSAGE, Source::User).session("s-1").payload("mend the build")?;
let receipt = ledger.append(draft).await?;
assert_eq!((receipt.seq.get(), receipt.session_seq), (1, Some(1)));
ledger.close().await?;
# Ok(())
# }
```
"#
)]
//!
//! [`actors`] has the handle, and the actors for those who hold a supervision tree of their own.
//!
//! # Without (`default-features = false`)
//! [`Store`] is the same ledger and mirror for synchronous programs: no tokio, no ractor.
//!
//! # Parts
//! - [`Draft`], [`Event`], [`mod@line`]: what is recorded, and the line that holds it; [`format`](mod@format) is the
//!   normative page about bytes on disk.
//! - [`Writer`], [`LedgerReader`]: the ledger. [`Mirror`], [`MirrorReader`]: the mirror.
//! - [`StreamReader`]: the events of one session, a page at a time, whatever state the mirror is in. [`SessionIndex`]: the list of sessions.
//! - [`Replay`], [`parity_quick`], [`parity_full`], [`repair_from_ledger`], [`repair_from_mirror`], [`verify`]: what keeps
//!   and makes them equal.
//! - [`mod@embedding`]: how to put a ledger into a program, and what to do with each error.
//! - [`mod@durability`]: what survives which fault, how that was tested, and what is not covered.
//! - [`policy`]: who may append what. [`attest`], [`keys`]: who signs, and who may. [`checkpoint`]: what others can hold against the
//!   ledger later. [`Erasure`]: what is forgotten. [`mod@threats`]: what all of that is good for, and what not.
//! - [`entity`]: event-sourced entities, whose state is a fold of their stream; with a test kit.
//! - [`mod@import`]: transcripts of agents. [`Redactor`], [`Secrets`]: what must not be recorded, replaced before hashing.
//! - [`Options`]: every bound, with its reason. [`Error`]: what can go wrong, and what to do next.
//!
//! # Features
//! - `actors` (default): [`actors`], with tokio and ractor.
//! - `cli` (default): the `counterfoil` command. A library that embeds this crate turns it off:
//!   `default-features = false, features = ["actors"]`.

pub mod attest;
mod canary;
pub mod chain;
pub mod checkpoint;
mod derived;
pub mod entity;
mod erase;
mod error;
mod event;
#[doc(hidden)]
pub mod failpoint;
pub mod import;
pub mod keys;
mod ledger;
mod migration;
mod mirror;
pub mod note;
mod options;
mod parity;
pub mod policy;
mod redact;
mod store;
mod streams;
mod verify;

#[cfg(feature = "actors")]
#[path = "../actors/mod.rs"]
pub mod actors;

pub use erase::{Erase, EraseError, EraseReport, Erased, ErasedEvent, Erasure, RecordedErasure, erasure_of};
pub use error::Error;
pub use event::{
    Body, CheckedDraft, ContentDigest, Draft, DraftError, Event, EventHash, EventId, EventRecord, EventType, EventTypeError, IdError,
    LedgerId, Limits, LineError, LineProblem, Payload, PayloadError, PayloadHash, Seq, Source, Timestamp, TimestampError, TraceId, line,
};
pub use ledger::{
    AppendError, Claim, Conditions, Expect, FORMAT_VERSION, FileIdentity, Flight, FsStorage, Group, Head, LedgerError, LedgerLine,
    LedgerReader, LedgerSize, LineFault, Lines, Lookup, LookupError, Manifest, MemoryStorage, MirrorAck, NotSigned, RawLine, Receipt,
    RecoveryReport, Reformed, Refusal, Sealed, SealedEnds, Segment, Stage, Staged, Storage, StorageFile, StorageLock, StoreLock, Stored,
    Torn, TornErased, Watermark, Writer, claim, compress, decompress, io_advice, writer_of,
};
pub use migration::{Boundary, SchemaMigration};
pub use mirror::{
    Insertion, Mirror, MirrorError, MirrorFault, MirrorReader, QueryError, SCHEMA_VERSION, Table, WalHeld, insert_event, mirror_path,
    set_aside,
};
pub use options::{Clock, Ids, Options, RandomIds, SystemClock};
pub use parity::{
    Finding, Mismatch, ParityKind, ParityReport, RepairError, RepairReport, Replay, ReplayError, ReplayReport, ReplayStep, SeqRange,
    SeqRanges, full as parity_full, incremental as parity_incremental, quick as parity_quick, repair_from_ledger, repair_from_mirror,
};
pub use redact::{Redacted, Redactor, Replaced, Secrets, mark};
pub use rusqlite;
pub use store::{FullReplay, OpenReport, Store, erase, forecast, replay_store};
pub use streams::{
    Direction, RowFault, SessionIndex, SessionSummary, SessionsCursor, SessionsCursorError, SessionsError, SessionsOrder, SessionsPage,
    SessionsQuery, StreamError, StreamPage, StreamQuery, StreamReader,
};
pub use verify::{Failure, KeyUse, SignatureReport, SignatureRules, Unfinished, VerifyReport, verify, verify_signed};
#[doc(hidden)]
pub use {ledger::Plan, parity::full_by as parity_full_by, verify::verify_by};

/// The bytes on disk, format version 1: the normative page.
#[doc = include_str!("format.md")]
pub mod format {}

/// What is promised under which fault, and how it was tested.
#[doc = include_str!("durability.md")]
pub mod durability {}

/// Who could do what to a ledger, what finds it, and what nothing finds.
#[doc = include_str!("threats.md")]
pub mod threats {}

/// For authors of agent runtimes: supervision, errors, durability, shutdown, tests, other actors or none.
#[cfg_attr(feature = "actors", doc = "")]
#[cfg_attr(feature = "actors", doc = include_str!("embedding.md"))]
pub mod embedding {}

/// Compiles and runs the examples of the README.
#[cfg(all(doctest, feature = "actors"))]
#[doc = include_str!("../README.md")]
struct Readme;
