//! The codec: what turns an entity's events into drafts, and records back into events. Pure; it knows no ledger.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::tagged::{self, Tagged, Unread};
use super::upcasts::Table;
use super::{Entity, command_id, command_tag};
use crate::event::{Draft, EventType, EventTypeError, Payload, Source};

/// Bytes of the longest [`Entity::NAME`]: that of the longest event type, so that it fits where such a name does.
const NAME_BYTES_MAX: usize = EventType::BYTES_MAX;

/// What turns events into drafts and records into events. Made once for an entity, and shared.
pub struct Codec<E: Entity> {
    upcasts: Table,
    entity: PhantomData<fn() -> E>,
}

/// Why an event can't be recorded, or a record not be read as an event.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The entity's name can't stand in a snapshot.
    #[error("`{name}` is no name of an entity: `Entity::NAME` must have 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name {
        /// The name.
        name: &'static str,
    },
    /// An upcast starts from, or leads to, what is no event type.
    #[error("an upcast of the entity names no event type: {0}")]
    UpcastType(#[source] EventTypeError),
    /// Two upcasts start from one type.
    #[error("two upcasts start from `{from}`; leave one of them in `Entity::upcasts`")]
    UpcastTwice {
        /// The type.
        from: &'static str,
    },
    /// Upcasts lead round in a circle.
    #[error("the upcasts that begin with `{from}` lead round in a circle; each must lead to a newer type")]
    UpcastCycle {
        /// A type from which the circle is reached.
        from: &'static str,
    },
    /// serde can't serialise the event.
    #[error("the event could not be turned into JSON: {0}; maps need strings for keys")]
    Serialize(#[source] Arc<serde_json::Error>),
    /// The event is not serialised as a type and a payload.
    #[error(
        "events must be a type and a payload, and these are not: {0}; derive Serialize and Deserialize on their enum, with \
         `#[serde(tag = \"event_type\", content = \"payload\")]`"
    )]
    Shape(#[source] Arc<serde_json::Error>),
    /// The variant's name is no event type, or one that only the ledger writes.
    #[error("the event's variant has no name that can be recorded: {0}; rename it as in `#[serde(rename = \"deposited.v1\")]`")]
    EventType(#[source] EventTypeError),
    /// The event has a type that reading would take for an old one.
    #[error("`{event_type}` is upcast to `{to}` when it is read, so it must not be written any more; decide on `{to}` instead")]
    Outdated {
        /// The type.
        event_type: String,
        /// The type that its upcast leads to.
        to: &'static str,
    },
    /// What was written can't be read again, so it must not be recorded.
    #[error("the event was not recorded, since it could not be read again (JSON has no NaN and no infinity, for one): {problem}")]
    ReadBack {
        /// The type.
        event_type: String,
        /// Why not.
        #[source]
        problem: Box<CodecError>,
    },
    /// What was written would be passed over when it is read.
    #[error("`{event_type}` is passed over when it is read, so it can't be recorded; take it out of `Entity::passes_over`")]
    PassedOver {
        /// The type.
        event_type: String,
    },
    /// An upcast could make nothing of a payload.
    #[error("the upcast from `{from}` to `{to}` failed: {reason}; let it take every payload that was recorded as `{from}`")]
    Upcast {
        /// The type that it starts from.
        from: &'static str,
        /// The type that it leads to.
        to: &'static str,
        /// What it answered.
        reason: String,
    },
    /// A payload has an integer that an upcast could not hand on unchanged.
    #[error("the upcast from `{from}` would change the number {number}, which 64 bits don't hold; give `{from}` a variant instead")]
    UpcastNumber {
        /// The type that it starts from.
        from: &'static str,
        /// The number, its first 80 digits.
        number: String,
    },
    /// The entity has no event of this type.
    #[error(
        "`{entity}` has no event `{event_type}`; give its events a variant of that name, register an upcast, or have \
         `Entity::passes_over` say that it is none of its own"
    )]
    UnknownType {
        /// The entity's name.
        entity: &'static str,
        /// The type, after all upcasts.
        event_type: String,
    },
    /// The payload is none of its type.
    #[error(
        "the payload is none of `{event_type}`: {problem}; let the variant take it (`#[serde(default)]` for fields that came later), or \
         give what has changed a new version and an upcast"
    )]
    Payload {
        /// The type, after all upcasts.
        event_type: String,
        /// What serde says.
        #[source]
        problem: Arc<serde_json::Error>,
    },
}

impl CodecError {
    pub(super) fn payload(event_type: &str, problem: serde_json::Error) -> CodecError {
        CodecError::Payload { event_type: event_type.to_owned(), problem: Arc::new(problem) }
    }
}

impl<E: Entity> fmt::Debug for Codec<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").field("entity", &E::NAME).finish_non_exhaustive()
    }
}

impl<E: Entity> Codec<E> {
    /// The codec of this entity.
    ///
    /// # Errors
    /// [`CodecError::Name`] where the entity's name can't be used, [`CodecError::UpcastType`], [`CodecError::UpcastTwice`] and
    /// [`CodecError::UpcastCycle`] where its upcasts can't.
    pub fn new(entity: &E) -> Result<Codec<E>, CodecError> {
        if !(1..=NAME_BYTES_MAX).contains(&E::NAME.len()) || E::NAME.contains(char::is_control) {
            return Err(CodecError::Name { name: E::NAME });
        }
        Ok(Codec { upcasts: Table::new(entity.upcasts())?, entity: PhantomData })
    }

    /// What the event is recorded as.
    ///
    /// # Errors
    /// [`CodecError::Serialize`], [`CodecError::Shape`], [`CodecError::EventType`] where the events' enum is not derived as it must
    /// be, [`CodecError::Outdated`] where an upcast starts from the event's type.
    pub fn encode(&self, event: &E::Event) -> Result<(EventType, Payload), CodecError> {
        let json = serde_json::to_string(event).map_err(|error| CodecError::Serialize(Arc::new(error)))?;
        let tagged: Tagged<'_> = serde_json::from_str(&json).map_err(|error| CodecError::Shape(Arc::new(error)))?;
        let event_type = EventType::new(tagged.event_type.into_owned()).map_err(CodecError::EventType)?;
        if let Some(to) = self.upcasts.leads_from(event_type.as_str()) {
            return Err(CodecError::Outdated { event_type: event_type.as_str().to_owned(), to });
        }
        let payload = tagged.payload.map_or_else(Payload::null, |raw| Payload::from_valid(raw.get().to_owned()));
        Ok((event_type, payload))
    }

    /// The event that was recorded with this type and payload; upcasts come first. The payload's JSON goes straight into the event:
    /// integers of any size, floats and raw JSON are what they were.
    ///
    /// # Errors
    /// [`CodecError::Upcast`], [`CodecError::UpcastNumber`], [`CodecError::UnknownType`], [`CodecError::Payload`],
    /// [`CodecError::Shape`].
    ///
    /// # Panics
    /// Where an upcast or a `Deserialize` of the entity's does. [`Folded::absorb`](super::Folded::absorb) catches that.
    pub fn decode(&self, event_type: &str, payload: &str) -> Result<E::Event, CodecError> {
        let upcast = self.upcasts.follow(event_type, payload)?;
        let (event_type, payload) = upcast.as_ref().map_or((event_type, payload), |(name, payload)| (*name, payload.as_str()));
        tagged::read(event_type, payload).map_err(|unread| match unread {
            Unread::Shape(error) => CodecError::Shape(Arc::new(error)),
            Unread::Type => CodecError::UnknownType { entity: E::NAME, event_type: event_type.to_owned() },
            Unread::Payload(error) => CodecError::payload(event_type, error),
        })
    }

    /// The draft of an event that a command causes in this stream. What [`Entity::draft`] does to its id, its stream, its type, its payload
    /// and the tag of the command's key is undone. The first event of a command with a key must be given [`command_id`] besides: `is_first`.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn draft(&self, entity: &E, session_id: &str, key: Option<&str>, is_first: bool, event: &E::Event) -> Result<Draft, CodecError> {
        let (event_type, payload) = self.encode(event)?;
        let tag = key.map(command_tag);
        let draft = Draft::new(event_type.clone(), Source::Runtime).session(session_id).with_payload(payload.clone());
        let draft = match &tag {
            Some(tag) => draft.tag(tag),
            None => draft,
        };
        let mut draft = entity.draft(event, draft).session(session_id).recording(event_type, payload);
        if let Some(tag) = tag.filter(|tag| !draft.tags().contains(tag)) {
            draft = draft.tag(tag);
        }
        // An id that another event has would be taken for a repetition of that one.
        Ok(draft.with_id(key.filter(|_| is_first).map(|key| command_id(session_id, key))))
    }

    /// The event as it will be read once this draft is recorded. Whoever applies *that* one, and not the event that was encoded, has
    /// the state that a fold of the stream gives, whatever serde, [`Entity::draft`] and a redactor made of the event. Hand it the
    /// draft after [`Draft::redact`].
    ///
    /// # Errors
    /// [`CodecError::ReadBack`] and [`CodecError::PassedOver`] where a fold could not read it, or would not: it must not be recorded.
    ///
    /// # Panics
    /// As [`Codec::decode`].
    pub fn read_back(&self, entity: &E, draft: &Draft) -> Result<E::Event, CodecError> {
        let event_type = draft.event_type().as_str();
        if entity.passes_over(event_type) {
            return Err(CodecError::PassedOver { event_type: event_type.to_owned() });
        }
        self.decode(event_type, draft.payload_bytes())
            .map_err(|problem| CodecError::ReadBack { event_type: event_type.to_owned(), problem: Box::new(problem) })
    }
}
