//! What an erasure did.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::event::erasure::ErasurePayload;
use crate::event::{Event, EventId, Seq, Source, Timestamp};
use crate::ledger::TornErased;

/// Events that a report lists at most; the counts go on.
const LISTED_MAX: usize = 1000;

/// What was carried out of erasures that are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Erased {
    /// Segments that were written anew.
    pub segments: Vec<PathBuf>,
    /// Blobs that nothing else uses, and that are removed.
    pub blobs: Vec<PathBuf>,
    /// Copies that were taken out of torn/.
    pub torn: Vec<TornErased>,
    /// Mirrors that had been set aside, and whose rows had the payloads: each of their pages is written anew, without.
    pub mirrors_rewritten: Vec<PathBuf>,
    /// Files of those that can't be read as a whole, so that nobody can tell what is in them: they are removed.
    pub mirrors_removed: Vec<PathBuf>,
    /// Rows of the mirror that lost their payload. After that each of its pages was written anew.
    pub rows: u64,
    /// How many events are named by an erasure and have no right line to erase. What is wrong there, `verify` says.
    pub missing_count: u64,
    /// The first thousand of them.
    pub missing: Vec<Seq>,
    /// Why it is not done as a whole; the next open does the rest.
    pub unfinished: Option<String>,
    /// States that were folded before may have payloads that are erased by now, also where nothing else had to be done.
    #[serde(skip)]
    pub(crate) outdates_states: bool,
}

impl Erased {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        *self == Erased { outdates_states: self.outdates_states, ..Erased::default() }
    }

    /// Nothing is done yet, since this is in the way.
    #[cfg(feature = "actors")]
    pub(crate) fn left(why: &str) -> Erased {
        Erased { unfinished: Some(why.to_owned()), ..Erased::default() }
    }

    pub(super) fn note_missing(&mut self, missing: &[Seq]) {
        self.missing_count += missing.len() as u64;
        self.missing.extend(missing.iter().take(LISTED_MAX.saturating_sub(self.missing.len())));
    }

    pub(super) fn note_torn(&mut self, torn: Option<TornErased>) {
        let Some(torn) = torn else { return };
        match self.torn.iter_mut().find(|one| one.path == torn.path) {
            Some(one) => (one.bytes, one.removed) = (one.bytes + torn.bytes, torn.removed),
            None => self.torn.push(torn),
        }
        self.torn.sort_by(|one, other| one.path.cmp(&other.path));
    }

    pub(super) fn note_rewritten(&mut self, path: PathBuf) {
        if !self.mirrors_rewritten.contains(&path) {
            self.mirrors_rewritten.push(path);
        }
    }

    /// Whether this file, kept a moment ago, is gone since it held an erased payload, or might have.
    pub(crate) fn has_removed(&self, path: &Path) -> bool {
        self.mirrors_removed.iter().any(|removed| removed == path) || self.torn.iter().any(|torn| torn.removed && torn.path == path)
    }

    /// Adds what was done later.
    pub(crate) fn add(&mut self, later: Erased) {
        self.segments.extend(later.segments);
        self.blobs.extend(later.blobs);
        later.torn.into_iter().for_each(|torn| self.note_torn(Some(torn)));
        later.mirrors_rewritten.into_iter().for_each(|path| self.note_rewritten(path));
        self.mirrors_removed.extend(later.mirrors_removed);
        self.rows += later.rows;
        let listed = later.missing.len() as u64;
        self.note_missing(&later.missing);
        self.missing_count += later.missing_count - listed;
        self.unfinished = later.unfinished;
        self.outdates_states |= later.outdates_states;
    }
}

/// An event that is erased, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErasedEvent {
    /// Where it stands.
    pub seq: Seq,
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// Bytes of the payload.
    pub payload_bytes: u64,
}

/// What was erased, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EraseReport {
    /// Nothing was done: this is what would be erased.
    pub dry_run: bool,
    /// How many events.
    pub events: u64,
    /// The first thousand of them.
    pub listed: Vec<ErasedEvent>,
    /// Events that were meant and had been erased before.
    pub already_erased: u64,
    /// Events in a range or a session that the ledger itself has written, which are never erased.
    #[serde(skip_serializing_if = "is_zero")]
    pub passed_over: u64,
    /// Layout notes of the transcripts that the events were imported from, which keep the bytes of some of their lines and are not
    /// erased with them: a copy may be there. They can be erased like other events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layout_notes: Vec<Seq>,
    /// The erasure events that record it; none where there was nothing to erase.
    pub recorded: Vec<Seq>,
    /// What was done.
    pub done: Erased,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl EraseReport {
    pub(super) fn new(dry_run: bool) -> EraseReport {
        EraseReport {
            dry_run,
            events: 0,
            listed: Vec::new(),
            already_erased: 0,
            passed_over: 0,
            layout_notes: Vec::new(),
            recorded: Vec::new(),
            done: Erased::default(),
        }
    }

    pub(super) fn list(&mut self, event: ErasedEvent) {
        self.events += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(event);
        }
    }
}

/// An erasure, as its event records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordedErasure {
    /// The event that records it.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// How many events it names.
    pub events: u64,
    /// Why.
    pub reason: String,
    /// Who asked for it, where that was said: free text of whoever erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What carried it out.
    pub source: Source<'static>,
    /// The key that signed the event, as the event says; nothing where nobody did. Whether it may, `verify --root` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

impl RecordedErasure {
    /// With the reason that it gives for this event; else for the first that it names.
    pub(crate) fn of(event: &Event<'_>, payload: &ErasurePayload, of: Option<Seq>) -> RecordedErasure {
        let named = payload.erased.iter().find(|named| of.is_none_or(|seq| named.seq == seq));
        RecordedErasure {
            seq: event.seq,
            recorded_at: event.recorded_at,
            events: payload.erased.len() as u64,
            reason: named.map(|named| named.reason.clone()).unwrap_or_default(),
            by: payload.by.clone(),
            source: event.source(),
            signed_by: event.signed_by.map(str::to_owned),
        }
    }
}

impl fmt::Display for RecordedErasure {
    /// `seq 9: 2 events, "a password" (by "the owner", manual_correction, signed by key_…)`, or `NOT SIGNED`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.events == 1 { "" } else { "s" };
        write!(f, "seq {}: {} event{plural}, {:?} (", self.seq, self.events, self.reason)?;
        if let Some(by) = &self.by {
            write!(f, "by {by:?}, ")?;
        }
        write!(f, "{}", self.source.kind())?;
        match &self.signed_by {
            Some(key) => write!(f, ", signed by {key})"),
            // Whoever can write to the store can erase, and name whom they like.
            None => write!(f, ", NOT SIGNED)"),
        }
    }
}
