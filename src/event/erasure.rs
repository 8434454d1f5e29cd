//! The payload of `counterfoil.erasure.v1`: which events lose theirs, why, and who asked for it.
//!
//! Written by whoever erases; read by verify, and by whoever carries an erasure out. Does no I/O.

use serde::{Deserialize, Serialize};

use super::{Event, EventId, EventType, Payload, PayloadError, PayloadHash, Seq};

/// The type of events that name erased ones.
pub(crate) const ERASURE: &str = "counterfoil.erasure.v1";

/// Bytes of the longest reason. 256: a ticket and a sentence; an erasure names its reason once an event.
pub(crate) const REASON_BYTES_MAX: usize = 256;
/// Bytes of the longest text that says who asked.
pub(crate) const BY_BYTES_MAX: usize = 256;
/// Events that one erasure event names at most: some 400 KB with the longest reasons, which every reader takes in one piece.
pub(crate) const NAMED_MAX: usize = 1000;

/// An event, as an erasure names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub seq: Seq,
    /// Always written; a payload that lacks it was not written by this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    pub payload_hash: PayloadHash,
    #[serde(default)]
    pub reason: String,
}

/// The payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErasurePayload {
    pub erased: Vec<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl ErasurePayload {
    /// What an event names; nothing where it is no erasure, or not one that can be read.
    pub(crate) fn of(event: &Event<'_>) -> Option<ErasurePayload> {
        if event.event_type != ERASURE || event.payload_is_right() == Some(false) {
            return None;
        }
        let mut payload: ErasurePayload = serde_json::from_str(event.payload()?).ok()?;
        // It names what came before it, and nothing else.
        payload.erased.retain(|named| named.seq < event.seq);
        Some(payload)
    }

    pub(crate) fn to_payload(&self) -> Result<Payload, PayloadError> {
        Payload::from_serialize(self)
    }
}

/// Whether events of this type keep their payload whatever is asked for: the ledger's own.
pub(crate) fn is_never_erased(event_type: &str) -> bool {
    event_type.starts_with(EventType::RESERVED)
}
