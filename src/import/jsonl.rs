//! Any other JSONL: what a line means. Called by the reader, line by line. Pure.
//!
//! Nothing is known of it, so each line is a system_note from runtime; a time in `timestamp`, `ts` or `time` counts.

use super::facts::{self, Facts};
use super::object::Object;

/// What a line is recorded as.
pub(crate) fn read(line: &Object<'_>) -> Facts {
    let mut facts = Facts::note();
    facts.observed_at = ["timestamp", "ts", "time"].iter().find_map(|key| facts::time(line, key));
    facts
}
