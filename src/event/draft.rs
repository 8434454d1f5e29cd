//! Drafts: what a caller wants recorded.

use std::sync::Arc;

use serde::Serialize;

use super::line::{self, SESSION_ID_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX};
use super::{Event, EventId, EventType, Payload, PayloadError, PayloadHash, Source, Timestamp, TraceId};
use crate::attest::{Signature, Signer};
use crate::policy::{Authorisation, Decision};
use crate::redact::{Redactor, Replaced};

/// An event before it is sealed.
///
/// ```
/// use counterfoil::{Draft, EventType, Source};
/// let draft = Draft::new(EventType::TOOL_CALL, Source::tool("bash"))
///     .session("s-1")
///     .payload(&serde_json::json!({"command": "ls"}))?;
/// # Ok::<(), counterfoil::DraftError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    id: Option<EventId>,
    observed_at: Option<Timestamp>,
    source: Source<'static>,
    event_type: EventType,
    trace_id: Option<TraceId>,
    session_id: Option<String>,
    causation_id: Option<EventId>,
    domain_tags: Vec<String>,
    payload: Payload,
    signer: Option<Signer>,
    brought: Option<Box<Brought>>,
}

/// What the caller has to say to the store's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    pub decision: Option<Decision>,
    pub authorisation: Option<Authorisation>,
}

/// Bounds that a draft is checked against, and what redacts it on that occasion.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the longest line; a payload that would make it longer is refused.
    pub line_bytes_max: usize,
    /// What takes out of its payload what must not be recorded.
    pub redactor: Option<Arc<dyn Redactor>>,
}

/// Why a draft can't be recorded. Nothing has been written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The payload is no JSON.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A redactor of the caller's own made something else of the payload than JSON.
    #[error("the redactor made no JSON of the payload: {0}; mend the redactor")]
    Redactor(#[source] PayloadError),
    /// The event type does not have its form.
    #[error(transparent)]
    EventType(#[from] super::EventTypeError),
    /// The session id is empty or too long.
    #[error("the session id has {bytes} bytes, but must have 1 to {SESSION_ID_BYTES_MAX}; shorten it, or leave it out")]
    SessionId {
        /// Bytes it has.
        bytes: usize,
    },
    /// A tag is empty or too long.
    #[error("tag {index} has {bytes} bytes, but must have 1 to {TAG_BYTES_MAX}; shorten it")]
    Tag {
        /// Which tag, from 0.
        index: usize,
        /// Bytes it has.
        bytes: usize,
    },
    /// There are too many tags.
    #[error("{count} tags, but at most {TAGS_MAX} are allowed; put the others into the payload")]
    Tags {
        /// How many there are.
        count: usize,
    },
    /// The line would be too long.
    #[error(
        "the line would have {bytes} bytes, but at most {max} are allowed; split the payload, or store it elsewhere and record its hash"
    )]
    LineTooLong {
        /// Bytes it would have.
        bytes: usize,
        /// The bound, `line_bytes_max`.
        max: usize,
    },
}

/// Digest over what makes two drafts with one id the same: source, event_type, trace_id, session_id,
/// causation_id, domain_tags, attachments and payload_hash. What the ledger assigns is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentDigest([u8; 16]);

impl ContentDigest {
    /// The digest of a sealed event.
    pub fn of(event: &Event<'_>) -> ContentDigest {
        ContentDigest::new(
            event.source_json,
            event.event_type,
            event.trace_id,
            event.session_id(),
            event.causation_id,
            event.domain_tags_json,
            event.attachments_json,
            event.payload_hash,
        )
    }

    #[allow(clippy::too_many_arguments)] // private, and each is one field of the format
    fn new(
        source: &str,
        event_type: &str,
        trace_id: Option<TraceId>,
        session_id: Option<&str>,
        causation_id: Option<EventId>,
        tags: Option<&str>,
        attachments: Option<&str>,
        payload_hash: PayloadHash,
    ) -> ContentDigest {
        let texts = [Some(source), Some(event_type), session_id, tags, attachments];
        let mut bytes = Vec::with_capacity(texts.iter().flatten().map(|text| text.len()).sum::<usize>() + 5 * 8 + 2 * 17 + 32);
        for text in texts {
            // Length first, so that no two lists of fields run together; no text has this length.
            bytes.extend_from_slice(&text.map_or(u64::MAX, |t| t.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
        for bits in [trace_id.map(TraceId::as_u128), causation_id.map(EventId::as_u128)] {
            bytes.push(u8::from(bits.is_some()));
            bytes.extend_from_slice(&bits.unwrap_or_default().to_le_bytes());
        }
        bytes.extend_from_slice(payload_hash.as_bytes());
        let hash = blake3::hash(&bytes);
        let mut digest = [0; 16];
        digest.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        ContentDigest(digest)
    }
}

impl Draft {
    /// A draft with this type and source, whose payload is `null` until it is given one.
    pub fn new(event_type: EventType, source: Source<'static>) -> Draft {
        Draft {
            id: None,
            observed_at: None,
            source,
            event_type,
            trace_id: None,
            session_id: None,
            causation_id: None,
            domain_tags: Vec::new(),
            payload: Payload::null(),
            signer: None,
            brought: None,
        }
    }

    /// Who or what it comes from, instead of the source that it has: for drafts that another has begun, as in
    /// [`Entity::draft`](crate::entity::Entity::draft).
    pub fn by(mut self, source: Source<'static>) -> Draft {
        self.source = source;
        self
    }

    /// Gives it an identity of the caller's own: appending it twice then records it once.
    pub fn id(mut self, id: EventId) -> Draft {
        self.id = Some(id);
        self
    }

    /// When it happened; else the moment at which it is sealed.
    pub fn observed_at(mut self, at: impl Into<Timestamp>) -> Draft {
        self.observed_at = Some(at.into());
        self
    }

    /// The stream it belongs to: 1 to 512 bytes, checked by [`Draft::check`].
    pub fn session(mut self, session_id: impl Into<String>) -> Draft {
        self.session_id = Some(session_id.into());
        self
    }

    /// The trace it belongs to.
    pub fn trace(mut self, trace_id: TraceId) -> Draft {
        self.trace_id = Some(trace_id);
        self
    }

    /// The event that caused it.
    pub fn caused_by(mut self, causation_id: EventId) -> Draft {
        self.causation_id = Some(causation_id);
        self
    }

    /// Adds a free label: 1 to 128 bytes, at most 64 of them, checked by [`Draft::check`].
    pub fn tag(mut self, tag: impl Into<String>) -> Draft {
        self.domain_tags.push(tag.into());
        self
    }

    /// Sets the payload from anything that serde can serialise.
    ///
    /// # Errors
    /// [`DraftError::Payload`] where it can't be serialised.
    pub fn payload(mut self, value: &(impl Serialize + ?Sized)) -> Result<Draft, DraftError> {
        self.payload = Payload::from_serialize(value)?;
        Ok(self)
    }

    /// Sets the payload from JSON text, which is kept byte for byte; see [`Payload`].
    ///
    /// # Errors
    /// [`DraftError::Payload`] where it is not one JSON value.
    pub fn payload_json(mut self, json: impl Into<String>) -> Result<Draft, DraftError> {
        self.payload = Payload::from_json(json)?;
        Ok(self)
    }

    /// Sets a payload that was made before.
    pub fn with_payload(mut self, payload: Payload) -> Draft {
        self.payload = payload;
        self
    }

    /// The same with this id, or with none.
    pub(crate) fn with_id(mut self, id: Option<EventId>) -> Draft {
        self.id = id;
        self
    }

    /// The same with another type and payload.
    pub(crate) fn recording(mut self, event_type: EventType, payload: Payload) -> Draft {
        (self.event_type, self.payload) = (event_type, payload);
        self
    }

    /// Has it signed with this key, rather than with that of the store ([`Options::attestor`](crate::Options::attestor)). A
    /// signature that fails, or comes too late, leaves the event out.
    pub fn sign_with(mut self, signer: impl Into<Signer>) -> Draft {
        self.signer = Some(signer.into());
        self
    }

    /// What it is to be signed with, if it was given that.
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Brings a decision that the caller has come to: its votes are counted with those of the store's gates, and can satisfy a rule
    /// that the store requires. It can't weaken what the store says.
    pub fn decided(mut self, decision: Decision) -> Draft {
        self.brought.get_or_insert_default().decision = Some(decision);
        self
    }

    /// Brings an authorisation to break the glass, should a rule block it that allows that.
    pub fn authorised(mut self, authorisation: Authorisation) -> Draft {
        self.brought.get_or_insert_default().authorisation = Some(authorisation);
        self
    }

    pub(crate) fn brought(&self) -> Option<&Brought> {
        self.brought.as_deref()
    }

    /// The identity it was given.
    pub fn given_id(&self) -> Option<EventId> {
        self.id
    }

    /// The stream it belongs to.
    pub fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source<'static> {
        &self.source
    }

    /// Its type.
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// Its free labels.
    pub fn tags(&self) -> &[String] {
        &self.domain_tags
    }

    /// Its payload's bytes.
    pub fn payload_bytes(&self) -> &str {
        self.payload.as_str()
    }

    /// The draft with a redacted payload, and what was replaced in it.
    ///
    /// # Errors
    /// [`DraftError::Redactor`] where the redactor breaks its contract: then nothing may be recorded.
    pub fn redact(mut self, redactor: &dyn Redactor) -> Result<(Draft, Vec<Replaced>), DraftError> {
        let Some(redacted) = redactor.redact(self.payload.as_str()) else { return Ok((self, Vec::new())) };
        self.payload = Payload::from_json(redacted.json).map_err(DraftError::Redactor)?;
        Ok((self, redacted.replaced))
    }

    /// Checks it, redacts its payload where the limits say so, and computes what does not depend on its place in the ledger.
    /// Costs the hash of its payload, so callers do it on their own thread, not on the writer's.
    ///
    /// # Errors
    /// [`DraftError`] naming what is out of bounds.
    pub fn check(mut self, limits: &Limits) -> Result<CheckedDraft, DraftError> {
        if let Some(session_id) = &self.session_id
            && !(1..=SESSION_ID_BYTES_MAX).contains(&session_id.len())
        {
            return Err(DraftError::SessionId { bytes: session_id.len() });
        }
        if self.domain_tags.len() > TAGS_MAX {
            return Err(DraftError::Tags { count: self.domain_tags.len() });
        }
        if let Some((index, tag)) = self.domain_tags.iter().enumerate().find(|(_, tag)| !(1..=TAG_BYTES_MAX).contains(&tag.len())) {
            return Err(DraftError::Tag { index, bytes: tag.len() });
        }
        let mut json = Vec::new();
        self.source.push_json(&mut json);
        let source_json = String::from_utf8(json).unwrap_or_default();
        let domain_tags_json = (!self.domain_tags.is_empty()).then(|| {
            let mut json = Vec::new();
            line::push_strings(&self.domain_tags, &mut json);
            String::from_utf8(json).unwrap_or_default()
        });
        let mut replaced = Vec::new();
        // What the ledger itself records stays as it is: a change to keys with another text in it would be none.
        if let Some(redactor) = limits.redactor.as_ref().filter(|_| !self.event_type.is_reserved()) {
            (self, replaced) = self.redact(redactor.as_ref())?;
        }
        let payload_hash = self.payload.hash();
        let content = ContentDigest::new(
            &source_json,
            self.event_type.as_str(),
            self.trace_id,
            self.session_id.as_deref(),
            self.causation_id,
            domain_tags_json.as_deref(),
            None,
            payload_hash,
        );
        let checked = CheckedDraft { draft: self, source_json, domain_tags_json, payload_hash, content, replaced };
        let bytes = checked.line_bytes_max();
        if bytes > limits.line_bytes_max {
            return Err(DraftError::LineTooLong { bytes, max: limits.line_bytes_max });
        }
        Ok(checked)
    }
}

/// A draft that is known to be recordable, with its payload's hash.
#[derive(Clone, Debug)]
pub struct CheckedDraft {
    draft: Draft,
    source_json: String,
    domain_tags_json: Option<String>,
    payload_hash: PayloadHash,
    content: ContentDigest,
    replaced: Vec<Replaced>,
}

/// Bytes of a header's keys, numbers, ids, times, hashes, key id and signature at their longest.
const HEADER_BYTES_MAX: usize = 1056;

impl CheckedDraft {
    /// The draft.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The draft, back.
    pub fn into_draft(self) -> Draft {
        self.draft
    }

    /// The identity it was given.
    pub fn id(&self) -> Option<EventId> {
        self.draft.id
    }

    /// Gives it an identity where it has none.
    #[cfg(feature = "actors")]
    pub(crate) fn set_id(&mut self, id: EventId) {
        self.draft.id = Some(id);
    }

    /// The moment it was given.
    pub fn observed_at(&self) -> Option<Timestamp> {
        self.draft.observed_at
    }

    /// The stream it belongs to.
    pub fn session_id(&self) -> Option<&str> {
        self.draft.session_id.as_deref()
    }

    /// What was replaced in its payload when it was checked, by rule.
    pub fn replaced(&self) -> &[Replaced] {
        &self.replaced
    }

    /// The hash of its payload.
    pub fn payload_hash(&self) -> PayloadHash {
        self.payload_hash
    }

    /// What makes it the same as another draft with its id.
    pub fn content(&self) -> ContentDigest {
        self.content
    }

    /// Bytes that its line has at most, LF included. Bounds count with this.
    pub fn line_bytes_max(&self) -> usize {
        // A control character takes six bytes when escaped, so a session id may grow sixfold.
        HEADER_BYTES_MAX
            + self.source_json.len()
            + self.draft.session_id.as_ref().map_or(0, |id| 6 * id.len())
            + self.domain_tags_json.as_ref().map_or(0, String::len)
            + self.draft.payload.as_str().len()
    }

    /// The event that it becomes at this place; its event hash is set by sealing.
    pub(crate) fn place<'a>(&'a self, place: &Place<'a>) -> Event<'a> {
        Event {
            seq: place.seq,
            id: place.id,
            schema_version: line::SCHEMA_VERSION,
            observed_at: self.draft.observed_at.unwrap_or(place.recorded_at),
            recorded_at: place.recorded_at,
            source_json: &self.source_json,
            event_type: self.draft.event_type.as_str(),
            trace_id: self.draft.trace_id,
            session: self.draft.session_id.as_deref().zip(place.session_seq).map(|(id, seq)| (id.into(), seq)),
            causation_id: self.draft.causation_id,
            domain_tags_json: self.domain_tags_json.as_deref(),
            attachments_json: None,
            group_seq: place.group_seq,
            batch: place.batch,
            signed_by: place.signed_by,
            policy_json: place.policy,
            payload_hash: self.payload_hash,
            prev_event_hash: place.prev,
            event_hash: place.prev,
            signature: place.signed_by.map(|_| UNSIGNED),
            body: super::Body::Inline(self.draft.payload.as_str()),
        }
    }
}

/// What stands in a line until its signature is there.
pub(crate) const UNSIGNED: &str = {
    const DIGITS: [u8; Signature::TEXT_BYTES] = [b'A'; Signature::TEXT_BYTES];
    match std::str::from_utf8(&DIGITS) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// What the ledger assigns when it seals a draft.
pub(crate) struct Place<'a> {
    pub seq: super::Seq,
    pub id: EventId,
    pub recorded_at: Timestamp,
    pub session_seq: Option<u64>,
    pub group_seq: super::Seq,
    pub batch: Option<(u32, u32)>,
    pub prev: super::EventHash,
    /// The key that will sign it.
    pub signed_by: Option<&'a str>,
    /// What the store's policy has to say of it.
    pub policy: Option<&'a str>,
}
