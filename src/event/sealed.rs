//! Sealed events: what a line of the ledger and a row of the mirror hold.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{EventHash, EventId, PayloadHash, Seq, Source, Timestamp, TraceId};
use crate::chain;

/// A sealed event. It borrows from the line (or row) that it was decoded from.
///
/// Values that have structure of their own (source, tags, attachments, policy) are kept as the JSON text that
/// the line has, so that an event costs no allocation and encodes back to its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Position in the ledger.
    pub seq: Seq,
    /// Identity and idempotency key.
    pub id: EventId,
    /// 1.
    pub schema_version: u16,
    /// When it happened, by whoever saw it.
    pub observed_at: Timestamp,
    /// When the ledger sealed it. Order is `seq`, never a clock.
    pub recorded_at: Timestamp,
    /// Where it came from, as canonical JSON; see [`Event::source`].
    pub source_json: &'a str,
    /// What kind of event it is.
    pub event_type: &'a str,
    /// The trace it belongs to.
    pub trace_id: Option<TraceId>,
    /// The stream it belongs to, and its position there (1 for the first, dense).
    pub session: Option<(Cow<'a, str>, u64)>,
    /// The event that caused it.
    pub causation_id: Option<EventId>,
    /// Free labels, as a JSON array of strings; see [`Event::domain_tags`].
    pub domain_tags_json: Option<&'a str>,
    /// Blobs that belong to it besides its payload, as a JSON array.
    pub attachments_json: Option<&'a str>,
    /// Seq of the first event that was written and fsynced together with this one.
    pub group_seq: Seq,
    /// `(i, n)`: the i-th of an atomic batch of n.
    pub batch: Option<(u32, u32)>,
    /// The key that signed it.
    pub signed_by: Option<&'a str>,
    /// The composed policy decision, as JSON, where it was `warn` or `break_glass`.
    pub policy_json: Option<&'a str>,
    /// BLAKE3 of the payload's exact bytes.
    pub payload_hash: PayloadHash,
    /// The event hash of the event before this one, or the genesis hash.
    pub prev_event_hash: EventHash,
    /// Hash over the whole header, and so over everything before it.
    pub event_hash: EventHash,
    /// Ed25519 signature, base64url.
    pub signature: Option<&'a str>,
    /// Where the payload is.
    pub body: Body<'a>,
}

/// Where an event's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// In the line: these exact bytes.
    Inline(&'a str),
    /// In blobs/, under payload_hash, with this many bytes.
    Blob {
        /// Bytes of the blob.
        bytes: u64,
    },
    /// Erased: the hash stays, the bytes are gone.
    Erased,
}

impl<'a> Event<'a> {
    /// Where it came from.
    pub fn source(&self) -> Source<'static> {
        // The decoder has checked the text, so the fallback is never seen.
        serde_json::from_str::<Source<'static>>(self.source_json).unwrap_or(Source::Runtime)
    }

    /// Its free labels.
    pub fn domain_tags(&self) -> Vec<String> {
        self.domain_tags_json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    /// The stream it belongs to.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|(id, _)| id.as_ref())
    }

    /// Its position in its stream.
    pub fn session_seq(&self) -> Option<u64> {
        self.session.as_ref().map(|(_, seq)| *seq)
    }

    /// The payload's bytes, where they are in the line.
    pub fn payload(&self) -> Option<&'a str> {
        match self.body {
            Body::Inline(json) => Some(json),
            Body::Blob { .. } | Body::Erased => None,
        }
    }

    /// Whether `payload_hash` is the hash of the inline payload. Nothing to say of a payload that is not inline.
    pub fn payload_is_right(&self) -> Option<bool> {
        self.payload().map(|json| chain::payload_hash(json.as_bytes()) == self.payload_hash)
    }

    /// The event as a record that serialises to readable JSON (not to the ledger's line; that is [`crate::event::line::encode`]).
    pub fn to_record(&self) -> EventRecord {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).ok();
        EventRecord {
            seq: self.seq,
            id: self.id,
            observed_at: self.observed_at,
            recorded_at: self.recorded_at,
            source: self.source(),
            event_type: self.event_type.to_owned(),
            trace_id: self.trace_id,
            session_id: self.session_id().map(str::to_owned),
            session_seq: self.session_seq(),
            causation_id: self.causation_id,
            domain_tags: self.domain_tags(),
            attachments: self.attachments_json.and_then(raw),
            group_seq: self.group_seq,
            batch: self.batch,
            signed_by: self.signed_by.map(str::to_owned),
            policy: self.policy_json.and_then(raw),
            payload_hash: self.payload_hash,
            prev_event_hash: self.prev_event_hash,
            event_hash: self.event_hash,
            signature: self.signature.map(str::to_owned),
            payload: self.payload().and_then(raw),
            blob_bytes: match self.body {
                Body::Blob { bytes } => Some(bytes),
                _ => None,
            },
            erased: self.body == Body::Erased,
        }
    }
}

/// An owned event, for programs that want fields rather than bytes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[allow(missing_docs)] // each field is documented at [`Event`]
pub struct EventRecord {
    pub seq: Seq,
    pub id: EventId,
    pub observed_at: Timestamp,
    pub recorded_at: Timestamp,
    pub source: Source<'static>,
    pub event_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<EventId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Box<RawValue>>,
    pub group_seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Box<RawValue>>,
    pub payload_hash: PayloadHash,
    pub prev_event_hash: EventHash,
    pub event_hash: EventHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}
