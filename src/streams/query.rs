//! What to read of a stream, and a page of it. No I/O.

use crate::event::EventRecord;

/// Events of a page where the caller says nothing: a few screens of a transcript, some hundred KB.
const EVENTS: usize = 256;
/// Events of the largest page. 4,096, as many as the largest group: past that a page costs memory and gains no speed.
const EVENTS_MAX: usize = 4096;
/// Bytes of a page's lines where the caller says nothing. 4 MiB, so that a page of large tool results stays small too.
const BYTES: usize = 4 << 20;

/// Which way a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From older events to newer ones.
    Forwards,
    /// From newer events to older ones.
    Backwards,
}

/// What to read of a stream.
///
/// ```
/// use counterfoil::StreamQuery;
/// let all = StreamQuery::new("s-1");
/// let the_last_ten = StreamQuery::new("s-1").backwards().events_max(10);
/// let from_the_middle = StreamQuery::new("s-1").from(5_000);
/// # let _ = (all, the_last_ten, from_the_middle);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamQuery {
    session_id: String,
    from: Option<u64>,
    direction: Direction,
    events_max: usize,
    bytes_max: usize,
}

impl StreamQuery {
    /// The stream of this session, forwards, from its first event on.
    pub fn new(session_id: impl Into<String>) -> StreamQuery {
        StreamQuery { session_id: session_id.into(), from: None, direction: Direction::Forwards, events_max: EVENTS, bytes_max: BYTES }
    }

    /// From the event at this position (its session_seq) on, that one included. A position that the stream does not have yet gives
    /// nothing forwards, and all of the stream backwards.
    pub fn from(mut self, position: u64) -> StreamQuery {
        self.from = Some(position);
        self
    }

    /// From newer events to older ones: from the stream's end, unless [`StreamQuery::from`] says otherwise.
    pub fn backwards(mut self) -> StreamQuery {
        self.direction = Direction::Backwards;
        self
    }

    /// Events of a page at most: 256 where nothing is said, never more than 4,096 nor less than one.
    pub fn events_max(mut self, events: usize) -> StreamQuery {
        self.events_max = events.clamp(1, EVENTS_MAX);
        self
    }

    /// Bytes of a page's lines at most: 4 MiB where nothing is said. One event always fits, however long it is.
    pub fn bytes_max(mut self, bytes: usize) -> StreamQuery {
        self.bytes_max = bytes;
        self
    }

    /// The stream.
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Which way it is read.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The first position that is asked for: an end of the stream where nothing was said.
    pub(super) fn first(&self) -> u64 {
        match self.direction {
            Direction::Forwards => self.from.unwrap_or(1).max(1),
            Direction::Backwards => self.from.unwrap_or(u64::MAX),
        }
    }

    /// Whether a page with so many events, whose lines have so many bytes, takes no more where `bytes` are to be added.
    pub(super) fn is_full(&self, events: usize, held: usize, bytes: usize) -> bool {
        events > 0 && (events >= self.events_max || held.saturating_add(bytes) > self.bytes_max)
    }
}

/// Some events of a stream, in the order that was asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamPage {
    /// The events. Before the end, too, they may be fewer than were asked for, where their lines are long or had to be looked for: `next`
    /// tells whether there may be more.
    pub events: Vec<EventRecord>,
    /// The position to go on from, in the same direction; None at the end of what there is that way. Forwards, the page that is
    /// read from there may be empty.
    pub next: Option<u64>,
    /// The stream's last position, as far as this page has seen the stream: all of it where `next` is None, or backwards from the
    /// end. 0 where no event was seen.
    pub last: u64,
}
