//! States that wait to be kept: one of each stream, the newest. No I/O; the desk does that.

use std::collections::{HashMap, VecDeque};

use super::Keep;
use crate::entity::STATE_BYTES_MAX;

/// Bytes of states that wait, together; one that would be past it is lost, since the next one comes by itself. Four of the largest.
const BYTES_MAX: usize = 4 * STATE_BYTES_MAX;

/// How many may wait, likewise: 4,096, some megabytes of them where they are small, and a second's work.
const STATES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Waiting {
    by_stream: HashMap<String, Keep>,
    /// The streams of `by_stream`, the one that waits for longest in front.
    order: VecDeque<String>,
    bytes: usize,
    /// The thread is told of it, and has not looked yet.
    pub is_told: bool,
}

impl Waiting {
    /// Answers whether the thread has to be told.
    pub(super) fn put(&mut self, keep: Keep) -> bool {
        let session_id = keep.snapshot.session_id.clone();
        let bytes = keep.snapshot.state.len();
        let older = self.by_stream.get(&session_id).map(|older| older.snapshot.state.len());
        if self.by_stream.len() >= STATES_MAX && older.is_none() || self.bytes - older.unwrap_or_default() + bytes > BYTES_MAX {
            tracing::debug!(bytes, "too much waits to be kept; a snapshot is left out");
            return false;
        }
        self.bytes = self.bytes - older.unwrap_or_default() + bytes;
        if older.is_none() {
            self.order.push_back(session_id.clone());
        }
        self.by_stream.insert(session_id, keep);
        !std::mem::replace(&mut self.is_told, true)
    }

    /// One that was taken, and could not be kept just now. A newer one stays.
    pub(super) fn put_back(&mut self, keep: Keep) {
        if !self.by_stream.contains_key(&keep.snapshot.session_id) {
            let was_told = self.is_told;
            self.put(keep);
            self.is_told = was_told;
        }
    }

    pub(super) fn take(&mut self, session_id: &str) -> Option<Keep> {
        let keep = self.by_stream.remove(session_id)?;
        self.bytes -= keep.snapshot.state.len();
        self.order.retain(|waits| waits != session_id);
        Some(keep)
    }

    /// The one that waits for longest.
    pub(super) fn next(&mut self) -> Option<Keep> {
        let session_id = self.order.pop_front()?;
        self.take(&session_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_stream.is_empty()
    }
}
