//! The ledger: append-only JSONL segments, the source of truth.
//!
//! Called by the store (synchronous) and by LedgerActor. Knows nothing of SQLite: what it must look up outside
//! its own memory it asks for through [`Lookup`], which the mirror implements. All file I/O goes through
//! [`storage::Storage`].
//!
//! - `storage` the seam to the disk, `memory_storage` a disk for tests · `claim` the first part of every open: `lock` one writer, `manifest` ledger.json
//! - `zst` what is in a compressed segment · `compress` sealed segments into that form and back
//! - `segment` names and lines of files · `reader` streaming reads beside a live writer
//! - `stream` the same, decoded on other threads · `place` whether a line is right where it stands (`positions` of streams) · `tail`, `recovery` what open does after a crash
//! - `dry_run` what recovery would do, without doing it
//! - `notes` files of signed notes, whose last one is evidence of what was durable
//! - `erase` payloads out of sealed segments, blobs and torn/ · `edit` a file written anew · `needles` looked for in what is torn
//! - `memory` ids and streams not mirrored yet · `keys` who may sign · `signing` what a group is to have signed, `signers` the threads that do it
//! - `writer` seal, group, rotate · `flight` write, fsync · `room` space ahead

mod append;
mod claim;
pub(crate) mod compress;
mod dry_run;
mod edit;
pub(crate) mod erase;
mod error;
mod flight;
mod keys;
pub(crate) mod lock;
mod manifest;
mod memory;
mod memory_storage;
mod needles;
pub(crate) mod notes;
pub(crate) mod place;
pub(crate) mod positions;
mod reader;
pub(crate) mod recovery;
mod room;
mod sealed;
pub(crate) mod segment;
mod signers;
mod signing;
pub mod storage;
pub(crate) mod stream;
pub(crate) mod tail;
mod writer;
pub(crate) mod zst;

pub use append::{Conditions, Expect, Head, MirrorAck, Receipt};
pub use claim::{Claim, claim};
pub use compress::{Reformed, Sealed, compress, decompress};
pub(crate) use dry_run::DryRun;
pub use erase::TornErased;
pub use error::{AppendError, LedgerError, LineFault, io_advice};
pub use flight::Flight;
pub use lock::{StoreLock, writer_of};
pub use manifest::{FORMAT_VERSION, Manifest};
pub(crate) use memory::NoMirror;
pub use memory::{Lookup, LookupError, Stored};
pub use memory_storage::MemoryStorage;
pub(crate) use needles::Needles;
pub use reader::{LedgerLine, LedgerReader, LedgerSize, Lines};
pub use recovery::{RecoveryReport, Refusal, Torn, Watermark};
pub use sealed::SealedEnds;
pub use segment::{RawLine, Segment};
pub use signing::NotSigned;
pub use storage::{FileIdentity, FsStorage, Storage, StorageFile, StorageLock};
#[doc(hidden)]
pub use stream::Plan;
pub use writer::{Group, Stage, Staged, Writer};
