//! Parity: are both legs equal, by content and in both directions; and what makes them equal again.
//!
//! - `report` what a check found · `check` quick and full · `incremental` what is new or changed · `indexes` SQLite's own check beside it
//! - `erasing` differences that are none, since an erasure is under way
//! - `replay` ledger → mirror, what is missing · `repair` an operator's decision, in either direction
//!
//! Called by the store, ParityActor and the CLI. A check only reads, but for what `incremental` found right: that is kept in the
//! mirror, under the store's lock, or by SqliteActor where the store is open.

mod check;
mod erasing;
mod incremental;
mod indexes;
mod repair;
mod replay;
mod report;
mod rows;

pub use check::{full, full_by, quick};
pub use incremental::incremental;
#[cfg(feature = "actors")]
pub(crate) use incremental::{Done, Part, incremental_by};
pub use repair::{RepairError, RepairReport, repair_from_ledger, repair_from_mirror};
pub use replay::{Replay, ReplayError, ReplayReport, ReplayStep};
pub use report::{Finding, Mismatch, ParityKind, ParityReport, SeqRange, SeqRanges};
