//! Entities: state that is folded from the events of a stream, without actors.
//!
//! - `snapshots` of their states: derived, so that a stream need not be folded from its start.

mod snapshots;

pub use snapshots::{STATE_BYTES_MAX, Snapshot, SnapshotError, Snapshots};
pub(crate) use snapshots::{are_begun_after, note_erased, snapshots_path};
