//! An event type and a payload as the one value that serde's adjacently tagged enums are, and back. Called by the codec.
//!
//! Reading feeds the two texts to serde as they are: the payload is parsed once, straight into the event, so that integers of any
//! size, floats and raw JSON come out as they were put in. No `serde_json::Value` is made.

use std::borrow::Cow;
use std::cell::Cell;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

/// Name of the tag: what the events' enum has as `tag`.
const TAG: &str = "event_type";
/// Name of the content: what it has as `content`.
const CONTENT: &str = "payload";

/// What a serialised event must be. A unit variant has no content.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tagged<'a> {
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
}

/// Why two texts make no event.
pub(super) enum Unread {
    /// The events' type is no adjacently tagged enum: it never asked for the tag.
    Shape(serde_json::Error),
    /// The events' enum has no variant of this name.
    Type,
    /// The variant does not take this payload.
    Payload(serde_json::Error),
}

/// Makes an event out of its type and the JSON of its payload.
pub(super) fn read<T: DeserializeOwned>(event_type: &str, payload: &str) -> Result<T, Unread> {
    let tag = Cell::new(Tag::Unasked);
    let parts = Parts { event_type, payload, next: TAG, tag: &tag };
    T::deserialize(parts).map_err(|error| match tag.get() {
        Tag::Unasked => Unread::Shape(error),
        Tag::Refused => Unread::Type,
        Tag::Taken => Unread::Payload(error),
    })
}

/// What became of the tag.
#[derive(Clone, Copy)]
enum Tag {
    Unasked,
    Refused,
    Taken,
}

struct Parts<'a> {
    event_type: &'a str,
    payload: &'a str,
    /// The key whose turn it is; empty when both were taken.
    next: &'static str,
    tag: &'a Cell<Tag>,
}

impl<'de> Deserializer<'de> for Parts<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Parts<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        if self.next.is_empty() {
            return Ok(None);
        }
        seed.deserialize(StrDeserializer::<Self::Error>::new(self.next)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        if self.next == TAG {
            self.next = CONTENT;
            let value = seed.deserialize(StrDeserializer::<Self::Error>::new(self.event_type));
            self.tag.set(if value.is_ok() { Tag::Taken } else { Tag::Refused });
            return value;
        }
        self.next = "";
        let mut json = serde_json::Deserializer::from_str(self.payload);
        let value = seed.deserialize(&mut json)?;
        json.end()?;
        Ok(value)
    }
}
