//! What the writer remembers of events that are not mirrored yet, and of streams.

use std::collections::{HashMap, HashSet, VecDeque};

use super::recovery::TailEvent;
use super::{Head, SealedEnds};
use crate::event::{Event, EventId, Seq};
use crate::keys::KeyEvent;

/// An event that the ledger has, as idempotency needs it.
#[derive(Clone, Debug)]
pub struct Stored(pub(crate) TailEvent);

impl Stored {
    /// What a mirror answers of this event.
    pub fn of(event: &Event<'_>) -> Stored {
        Stored(TailEvent::of(event))
    }

    /// Its position in this stream, where it is one of its events.
    #[cfg(feature = "actors")]
    pub(crate) fn position_in(&self, session_id: &str) -> Option<u64> {
        self.0.receipt.session_seq.filter(|_| self.0.session_id.as_deref() == Some(session_id))
    }
}

/// Looks things up in the mirror. It need not know events that the writer still remembers.
pub trait Lookup {
    /// The event with this id.
    ///
    /// # Errors
    /// [`LookupError`].
    fn by_id(&mut self, id: EventId) -> Result<Option<Stored>, LookupError>;
    /// The position of the last event of a stream.
    ///
    /// # Errors
    /// [`LookupError`].
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError>;
    /// The highest id there is.
    ///
    /// # Errors
    /// [`LookupError`].
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError>;
    /// Changes to the keys of the ledger up to this seq, in order.
    ///
    /// # Errors
    /// [`LookupError`].
    fn key_events(&mut self, through: Seq) -> Result<Vec<KeyEvent>, LookupError>;
    /// Sealed segments whose ends were read before, by first seq. It saves reads, so it may know nothing.
    fn sealed_ends(&mut self) -> Vec<SealedEnds> {
        Vec::new()
    }
}

/// Why something could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The mirror does not cover what the writer has forgotten.
    #[error("the mirror is being rebuilt ({done} of {total} events)")]
    Rebuilding {
        /// Events that are mirrored.
        done: u64,
        /// Events in the ledger.
        total: u64,
    },
    /// The mirror could not be read just now.
    #[error("the mirror can't be read: {0}")]
    Failed(String),
    /// The mirror is damaged where the answer is.
    #[error("the mirror is damaged: {0}")]
    Broken(String),
}

/// There is no mirror (yet).
pub(crate) struct NoMirror {
    /// Events in the ledger, for the report.
    pub total: u64,
}

impl Lookup for NoMirror {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        self.session_seq("").map(|_| None)
    }
    fn session_seq(&mut self, _: &str) -> Result<Option<u64>, LookupError> {
        Err(LookupError::Rebuilding { done: 0, total: self.total })
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Err(LookupError::Rebuilding { done: 0, total: self.total })
    }
    fn key_events(&mut self, _: Seq) -> Result<Vec<KeyEvent>, LookupError> {
        Err(LookupError::Rebuilding { done: 0, total: self.total })
    }
}

/// Streams whose position is kept although all their events are mirrored. 65,536 of them are some 10 MB; while more
/// streams than that wait for the mirror, up to twice as many are kept as do.
const SESSIONS_CACHED_MAX: usize = 1 << 16;
/// Room for so many events is kept when there are fewer, some MB: a mirror that lags for a moment is an everyday matter.
const ROOM_KEPT: usize = 1 << 14;

/// Events above the floor, staged ones among them, by id, and positions of streams.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// In order and without gaps: the first is the one above the floor.
    events: VecDeque<TailEvent>,
    by_id: HashMap<EventId, Seq>,
    sessions: HashMap<Box<str>, u64>,
    /// Streams that were kept when some were last forgotten: those of events that are not mirrored.
    sessions_needed: usize,
    floor: Seq,
}

impl Memory {
    pub(crate) fn new(floor: Seq, tail: Vec<TailEvent>) -> Memory {
        let mut memory = Memory { floor, ..Memory::default() };
        for event in tail {
            memory.remember(event);
        }
        memory
    }

    /// All events above this one are remembered.
    pub(crate) fn floor(&self) -> Seq {
        self.floor
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// The last event that is remembered.
    pub(crate) fn last(&self) -> Option<Head> {
        self.events.back().map(|event| Head { seq: event.receipt.seq, event_hash: event.receipt.event_hash })
    }

    pub(crate) fn by_id(&self, id: EventId) -> Option<&TailEvent> {
        let above = self.by_id.get(&id)?.get().checked_sub(self.events.front()?.receipt.seq.get())?;
        self.events.get(usize::try_from(above).ok()?)
    }

    pub(crate) fn session_seq(&self, session_id: &str) -> Option<u64> {
        self.sessions.get(session_id).copied()
    }

    pub(crate) fn learn_session(&mut self, session_id: &str, session_seq: u64) {
        // Looking for what can be forgotten costs as much as there is, so there must be as much again since.
        if self.sessions.len() >= SESSIONS_CACHED_MAX.max(2 * self.sessions_needed) {
            self.forget_sessions();
        }
        self.sessions.insert(session_id.into(), session_seq);
    }

    pub(crate) fn remember(&mut self, event: TailEvent) {
        if let (Some(session_id), Some(session_seq)) = (&event.session_id, event.receipt.session_seq) {
            match self.sessions.get_mut(session_id) {
                Some(last) => *last = session_seq,
                None => self.learn_session(session_id, session_seq),
            }
        }
        self.by_id.insert(event.receipt.id, event.receipt.seq);
        self.events.push_back(event);
    }

    /// Forgets events that are mirrored; the streams they belong to stay known.
    pub(crate) fn mirrored_through(&mut self, seq: Seq) {
        while let Some(event) = self.events.front().filter(|event| event.receipt.seq <= seq) {
            self.by_id.remove(&event.receipt.id);
            self.events.pop_front();
        }
        self.floor = self.floor.max(seq);
        // A mirror that stood still once left room for all that waited, 70 MB. Giving it back costs as much as was forgotten since.
        if self.events.capacity() > ROOM_KEPT.max(8 * self.events.len()) {
            let room = ROOM_KEPT.max(2 * self.events.len());
            self.events.shrink_to(room);
            self.by_id.shrink_to(room);
        }
    }

    /// Takes back the events above this one: they were not written. Their streams are where they were before.
    pub(crate) fn forget_above(&mut self, seq: Seq) {
        while let Some(event) = self.events.back().filter(|event| event.receipt.seq > seq) {
            self.by_id.remove(&event.receipt.id);
            if let (Some(session_id), Some(session_seq)) = (&event.session_id, event.receipt.session_seq)
                && let Some(last) = self.sessions.get_mut(session_id)
            {
                *last = session_seq - 1;
            }
            self.events.pop_back();
        }
    }

    /// Keeps only streams that the mirror may not know.
    fn forget_sessions(&mut self) {
        let unmirrored: HashSet<&str> = self.events.iter().filter_map(|event| event.session_id.as_deref()).collect();
        self.sessions.retain(|session_id, _| unmirrored.contains(session_id.as_ref()));
        self.sessions_needed = self.sessions.len();
    }
}
