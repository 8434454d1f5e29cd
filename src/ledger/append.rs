//! What goes into an append and what comes out of it.

use serde::Serialize;

#[cfg(feature = "actors")]
use crate::event::EventRecord;
use crate::event::{Draft, Event, EventHash, EventId, Seq, Timestamp};

/// The last event of a ledger, or its genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its seq; 0 where there is no event yet.
    pub seq: Seq,
    /// Its hash; the genesis hash where there is no event yet.
    pub event_hash: EventHash,
}

/// What an append expects of the ledger; a mismatch is an error that names both, and nothing is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// The draft's stream has no event yet.
    NoStream,
    /// The last event of the draft's stream has this session_seq.
    SessionSeq(u64),
    /// The ledger's last event has this hash.
    Head(EventHash),
}

/// Conditions of a batch: on the head, and on any number of streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    pub(crate) head: Option<EventHash>,
    pub(crate) sessions: Vec<(String, u64)>,
}

impl Conditions {
    /// No conditions.
    pub fn none() -> Conditions {
        Conditions::default()
    }

    /// The ledger's last event must have this hash.
    pub fn head(mut self, hash: EventHash) -> Conditions {
        self.head = Some(hash);
        self
    }

    /// The last event of this stream must have this session_seq; 0: the stream has no event yet. It is the position before the batch,
    /// also where the batch appends to the stream itself. A stream that is named twice must be at both positions.
    pub fn session(mut self, session_id: impl Into<String>, session_seq: u64) -> Conditions {
        self.sessions.push((session_id.into(), session_seq));
        self
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.head.is_none() && self.sessions.is_empty()
    }

    /// What `expect` means for this draft; nothing where it needs a stream and the draft has none.
    pub(crate) fn for_draft(draft: &Draft, expect: &Expect) -> Option<Conditions> {
        let stream = |session_seq| Some(Conditions::none().session(draft.session_id()?, session_seq));
        match expect {
            Expect::Any => Some(Conditions::none()),
            Expect::NoStream => stream(0),
            Expect::SessionSeq(session_seq) => stream(*session_seq),
            Expect::Head(hash) => Some(Conditions::none().head(*hash)),
        }
    }
}

/// How far an event had come in the mirror when it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorAck {
    /// The caller asked for the ledger's acknowledgement alone.
    NotAwaited,
    /// Its row is committed.
    Mirrored,
    /// Its row was not committed within the deadline. It is durable in the ledger, and the mirror will follow.
    MirrorBehind,
}

/// The acknowledgement of an append: the event is durable in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Receipt {
    /// Position in the ledger.
    pub seq: Seq,
    /// Identity.
    pub id: EventId,
    /// Hash over the event and everything before it.
    pub event_hash: EventHash,
    /// Position in its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_seq: Option<u64>,
    /// When the ledger sealed it.
    pub recorded_at: Timestamp,
    /// Whether the ledger had it already: this is the first receipt again.
    pub duplicate: bool,
    /// How far it had come in the mirror.
    pub mirror: MirrorAck,
}

impl Receipt {
    /// The receipt of an event that is recorded already.
    #[cfg(feature = "actors")]
    pub(crate) fn again(event: &EventRecord) -> Receipt {
        Receipt {
            seq: event.seq,
            id: event.id,
            event_hash: event.event_hash,
            session_seq: event.session_seq,
            recorded_at: event.recorded_at,
            duplicate: true,
            mirror: MirrorAck::NotAwaited,
        }
    }

    pub(crate) fn of(event: &Event<'_>) -> Receipt {
        Receipt {
            seq: event.seq,
            id: event.id,
            event_hash: event.event_hash,
            session_seq: event.session_seq(),
            recorded_at: event.recorded_at,
            duplicate: false,
            mirror: MirrorAck::NotAwaited,
        }
    }
}
