//! Whether a line is right at its place: the one check that recovery, verify, replay and repair share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::storage::{self, Storage};
use super::{Head, LineFault};
use crate::chain;
use crate::event::{Body, Event, PayloadHash, Seq};

/// Looks up the position of a stream before the first event that a check has seen.
pub(crate) type SessionBase<'a> = dyn FnMut(&str) -> Option<u64> + 'a;

/// What belongs next in the ledger.
#[derive(Debug)]
pub(crate) struct Expected {
    head: Head,
    group: Option<Seq>,
    batch: Option<(u32, u32)>,
    sessions: HashMap<Box<str>, u64>,
}

impl Expected {
    /// What belongs after this head.
    pub(crate) fn after(head: Head) -> Expected {
        Expected { head, group: None, batch: None, sessions: HashMap::new() }
    }

    /// The last event that was right, or that was stepped over.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// The batch that the last event belongs to, where events of it are still to come.
    pub(crate) fn open_batch(&self) -> Option<(u32, u32)> {
        self.batch.filter(|(i, n)| i < n)
    }

    /// Checks seq and link, position in the stream, and the inline payload; steps over the event where all is right.
    /// `base` knows streams from before the first event seen; where it knows nothing, the first position counts.
    pub(crate) fn check(&mut self, event: &Event<'_>, base: &mut SessionBase<'_>) -> Result<(), LineFault> {
        if event.seq != self.head.seq.next() {
            return Err(LineFault::Seq { expected: self.head.seq.next(), found: event.seq });
        }
        if event.prev_event_hash != self.head.event_hash {
            return Err(LineFault::Link { expected: self.head.event_hash, found: event.prev_event_hash });
        }
        if let Some((session_id, found)) = &event.session {
            let known = self.sessions.get(session_id.as_ref()).copied().or_else(|| base(session_id));
            if let Some(expected) = known.map(|last| last + 1)
                && expected != *found
            {
                return Err(LineFault::SessionSeq { expected, found: *found });
            }
        }
        if event.payload_is_right() == Some(false) {
            return Err(LineFault::Payload);
        }
        self.step_over(event);
        Ok(())
    }

    /// Whether its group and its batch continue what stands before it.
    pub(crate) fn check_group(&self, event: &Event<'_>) -> Result<(), LineFault> {
        let begins = event.group_seq == event.seq;
        if !begins && self.group.is_some_and(|group| group != event.group_seq) {
            return Err(LineFault::Group { found: event.group_seq });
        }
        let continues = match (self.open_batch(), event.batch) {
            (Some((i, n)), found) => found == Some((i + 1, n)) && !begins,
            (None, Some((i, _))) => i == 1 || self.group.is_none(),
            (None, None) => true,
        };
        if continues { Ok(()) } else { Err(LineFault::Batch) }
    }

    /// Takes this event as the last one, right or not.
    pub(crate) fn step_over(&mut self, event: &Event<'_>) {
        self.head = Head { seq: event.seq, event_hash: event.event_hash };
        self.group = Some(event.group_seq);
        self.batch = event.batch;
        if let Some((session_id, session_seq)) = &event.session {
            match self.sessions.get_mut(session_id.as_ref()) {
                Some(last) => *last = *session_seq,
                None => {
                    self.sessions.insert(session_id.as_ref().into(), *session_seq);
                }
            }
        }
    }
}

/// The file of a blob.
pub(crate) fn blob_path(dir: &Path, hash: PayloadHash) -> PathBuf {
    let name = hash.to_string();
    dir.join("blobs").join(name.get(..2).unwrap_or_default()).join(&name)
}

/// Whether an event's out-of-line payload is there, with its hash and length.
pub(crate) fn check_blob(storage: &dyn Storage, dir: &Path, event: &Event<'_>) -> Result<(), LineFault> {
    let Body::Blob { bytes } = event.body else { return Ok(()) };
    let fault = |what| Err(LineFault::Blob { hash: event.payload_hash.to_string(), what });
    let Ok(mut file) = storage.open_read(&blob_path(dir, event.payload_hash)) else { return fault("missing") };
    if file.len().ok() != Some(bytes) {
        return fault("of another length");
    }
    match storage::read_all(file.as_mut()) {
        Ok(content) if chain::payload_hash(&content) == event.payload_hash => Ok(()),
        _ => fault("damaged"),
    }
}
