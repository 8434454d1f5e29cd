//! JSON objects, looked into without trusting them. Called by the formats.
//!
//! A transcript is written by others: a wanted field may be missing, of another type, there twice, or hold a lone
//! surrogate escape. None of that may stop an import, so every question here is answered by `None` instead of an
//! error. Never recurses, however deep the JSON nests.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of the longest text that is taken from a field. 1 KiB: names, ids and times are shorter; a message is
/// not what is looked for.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// The fields of a JSON object, in order, their values not looked into.
#[derive(Debug)]
pub(crate) struct Object<'a>(Vec<(Key<'a>, &'a RawValue)>);

/// The name of a field, borrowed where it has no escapes.
#[derive(Debug)]
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Key<'a>, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(name))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(name.to_owned()))
            }
        }
        from.deserialize_str(Name).map(Key)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object<'a>, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Key<'de>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        from.deserialize_map(Fields).map(Object)
    }
}

impl<'a> Object<'a> {
    /// The object that this text is.
    pub fn parse(json: &'a str) -> Option<Object<'a>> {
        if !json.trim_start().starts_with('{') {
            return None;
        }
        serde_json::from_str(json).ok()
    }

    /// The value of this field as text; the last one where there are several, as most parsers have it.
    pub fn raw(&self, key: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(name, _)| name.0 == key).map(|(_, value)| value.get())
    }

    /// All fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.0.as_ref(), value.get()))
    }

    /// Whether it has this field.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// A string, neither empty nor longer than [`TEXT_BYTES_MAX`].
    pub fn text(&self, key: &str) -> Option<String> {
        let raw = self.raw(key)?;
        if !raw.starts_with('"') || raw.len() > TEXT_BYTES_MAX {
            return None;
        }
        serde_json::from_str::<String>(raw).ok().filter(|text| !text.is_empty())
    }

    /// Whether the field is `true`.
    pub fn truth(&self, key: &str) -> bool {
        self.raw(key) == Some("true")
    }

    /// An object.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Object::parse(self.raw(key)?)
    }

    /// The objects of an array; other elements are passed over.
    pub fn objects(&self, key: &str) -> Vec<Object<'a>> {
        match self.raw(key) {
            Some(raw) if raw.starts_with('[') => {
                let values = serde_json::from_str::<Vec<&'a RawValue>>(raw).unwrap_or_default();
                values.into_iter().filter_map(|value| Object::parse(value.get())).collect()
            }
            _ => Vec::new(),
        }
    }
}
