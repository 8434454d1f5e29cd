//! An event ledger for agent runtimes: fsynced JSONL that anyone can grep, mirrored into SQLite that anyone can query.
//!
//! TODO

pub mod chain;
mod error;
mod event;
pub mod import;
mod ledger;
mod mirror;
mod options;
mod parity;
mod store;
mod verify;

#[cfg(feature = "actors")]
#[path = "../actors/mod.rs"]
pub mod actors;

pub use error::Error;
pub use event::{
    Body, CheckedDraft, ContentDigest, Draft, DraftError, Event, EventHash, EventId, EventRecord, EventType, EventTypeError, IdError,
    LedgerId, Limits, LineError, LineProblem, Payload, PayloadError, PayloadHash, Seq, Source, Timestamp, TimestampError, TraceId, line,
};
pub use ledger::{
    AppendError, Conditions, Expect, FORMAT_VERSION, FsStorage, Group, Head, LedgerError, LedgerLine, LedgerReader, LineFault, Lines,
    Lookup, LookupError, Manifest, MirrorAck, RawLine, Receipt, RecoveryReport, Refusal, Segment, Stage, Staged, Storage, StorageFile,
    StorageLock, StoreLock, Stored, Torn, Watermark, Writer, writer_of,
};
pub use mirror::{
    Insertion, Mirror, MirrorError, MirrorFault, MirrorReader, QueryError, SCHEMA_VERSION, Table, insert_event, mirror_path, set_aside,
};
pub use options::{Clock, Ids, Options, RandomIds, SystemClock};
pub use parity::{
    Finding, Mismatch, ParityKind, ParityReport, RepairError, RepairReport, Replay, ReplayError, ReplayReport, ReplayStep, SeqRange,
    SeqRanges, full as parity_full, quick as parity_quick, repair_from_ledger, repair_from_mirror,
};
pub use rusqlite;
pub use store::{FullReplay, OpenReport, Store, forecast, replay_store};
pub use verify::{Failure, Unfinished, VerifyReport, verify};
