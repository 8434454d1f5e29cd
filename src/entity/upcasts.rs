//! Upcasts: functions that bring recorded events of older types to those of today. Called by the codec when it reads; what is
//! recorded never changes.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use super::CodecError;
use crate::event::EventType;

type Function = Box<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;

/// Functions by the type that they start from. A chain `v1 → v2 → v3` is followed by itself.
///
/// ```
/// use counterfoil::entity::Upcasts;
/// let upcasts = Upcasts::none().upcast("tool_call.v1", "tool_call.v2", |mut payload| {
///     let call = payload.as_object_mut().ok_or("no object")?;
///     call.insert("timeout_s".into(), 60.into());
///     Ok(payload)
/// });
/// ```
#[derive(Default)]
pub struct Upcasts(Vec<Upcast>);

struct Upcast {
    from: &'static str,
    to: &'static str,
    function: Function,
}

impl Upcasts {
    /// No function: every event is read as it was recorded.
    pub fn none() -> Upcasts {
        Upcasts(Vec::new())
    }

    /// Adds a function that makes an event of the type `to` out of the payload of one of the type `from`. It must be pure. What it
    /// can't make anything of it answers with the reason; the entity can't be opened then, and the error names the event.
    ///
    /// The payload comes as [`Value`], which has integers of 64 bits and `f64`. A payload with an integer beyond that is refused
    /// rather than handed over changed.
    ///
    /// Two functions for one type, and functions that lead round in a circle, are refused by [`Codec::new`](super::Codec::new).
    pub fn upcast(
        mut self,
        from: &'static str,
        to: &'static str,
        function: impl Fn(Value) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Upcasts {
        self.0.push(Upcast { from, to, function: Box::new(function) });
        self
    }
}

impl fmt::Debug for Upcasts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|upcast| (upcast.from, upcast.to))).finish()
    }
}

/// The functions, checked: one for a type, and no circle.
pub(super) struct Table(HashMap<&'static str, Upcast>);

impl Table {
    pub(super) fn new(upcasts: Upcasts) -> Result<Table, CodecError> {
        let mut table = HashMap::with_capacity(upcasts.0.len());
        for upcast in upcasts.0 {
            for name in [upcast.from, upcast.to] {
                EventType::new(name).map_err(CodecError::UpcastType)?;
            }
            let from = upcast.from;
            if table.insert(from, upcast).is_some() {
                return Err(CodecError::UpcastTwice { from });
            }
        }
        for start in table.values() {
            // A chain without a circle passes each type once.
            let (mut at, mut steps) = (start.to, 1);
            while let Some(next) = table.get(at) {
                (at, steps) = (next.to, steps + 1);
                if steps > table.len() {
                    return Err(CodecError::UpcastCycle { from: start.from });
                }
            }
        }
        Ok(Table(table))
    }

    /// Where the function that starts from this type leads.
    pub(super) fn leads_from(&self, event_type: &str) -> Option<&'static str> {
        self.0.get(event_type).map(|upcast| upcast.to)
    }

    /// The type and payload at the end of the chain that starts here; nothing where none does.
    pub(super) fn follow(&self, event_type: &str, payload: &str) -> Result<Option<(&'static str, String)>, CodecError> {
        let Some(mut upcast) = self.0.get(event_type) else { return Ok(None) };
        if let Some(number) = beyond_64_bits(payload) {
            return Err(CodecError::UpcastNumber { from: upcast.from, number: number.chars().take(80).collect() });
        }
        let mut value: Value = serde_json::from_str(payload).map_err(|error| CodecError::payload(event_type, error))?;
        loop {
            let failed = |reason| CodecError::Upcast { from: upcast.from, to: upcast.to, reason };
            value = (upcast.function)(value).map_err(failed)?;
            match self.0.get(upcast.to) {
                Some(next) => upcast = next,
                None => return Ok(Some((upcast.to, value.to_string()))),
            }
        }
    }
}

/// The first integer of this JSON that neither an `i64` nor a `u64` holds.
fn beyond_64_bits(json: &str) -> Option<&str> {
    let (mut rest, mut in_string) = (json, false);
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || (!in_string && (c == '-' || c.is_ascii_digit()))) {
        let (byte, from) = (rest.as_bytes().get(at).copied(), rest.get(at..).unwrap_or_default());
        let taken = match byte {
            Some(b'"') => {
                in_string = !in_string;
                1
            }
            // An escape: the byte behind it ends no string.
            Some(b'\\') => 1 + from.chars().nth(1).map_or(0, char::len_utf8),
            _ => {
                let end = from.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(from.len());
                let number = from.get(..end).unwrap_or_default();
                let is_integer = !number.contains(['.', 'e', 'E']);
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(number);
                }
                end
            }
        };
        rest = from.get(taken..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn add(key: &'static str) -> impl Fn(Value) -> Result<Value, String> + Send + Sync {
        move |mut value| {
            value.as_object_mut().ok_or("no object")?.insert(key.to_owned(), true.into());
            Ok(value)
        }
    }

    #[test]
    fn chains_are_followed() {
        let upcasts = Upcasts::none().upcast("a.v2", "a.v3", add("third")).upcast("a.v1", "a.v2", add("second"));
        assert_eq!(format!("{upcasts:?}"), r#"{"a.v2": "a.v3", "a.v1": "a.v2"}"#);
        let table = Table::new(upcasts).unwrap();
        let (name, payload) = table.follow("a.v1", "{\"n\":1.0}").unwrap().unwrap();
        assert_eq!((name, payload.parse::<Value>().unwrap()), ("a.v3", json!({"n": 1.0, "second": true, "third": true})));
        assert_eq!(table.follow("a.v2", "{}").unwrap().unwrap().1, r#"{"third":true}"#);
        assert!(table.follow("a.v3", "{}").unwrap().is_none());
        assert_eq!(table.leads_from("a.v2"), Some("a.v3"));
        assert!(
            matches!(table.follow("a.v1", "[]"), Err(CodecError::Upcast { from: "a.v1", to: "a.v2", reason }) if reason == "no object")
        );
    }

    #[test]
    fn circles_and_twins_are_refused() {
        let step = |upcasts: Upcasts, from, to| upcasts.upcast(from, to, Ok);
        let itself = step(Upcasts::none(), "a.v1", "a.v1");
        assert!(matches!(Table::new(itself), Err(CodecError::UpcastCycle { from: "a.v1" })));
        let circle = step(step(step(Upcasts::none(), "a.v1", "a.v2"), "a.v2", "a.v3"), "a.v3", "a.v2");
        assert!(matches!(Table::new(circle), Err(CodecError::UpcastCycle { .. })));
        let twins = step(step(Upcasts::none(), "a.v1", "a.v2"), "a.v1", "a.v3");
        assert!(matches!(Table::new(twins), Err(CodecError::UpcastTwice { from: "a.v1" })));
        let join = step(step(step(Upcasts::none(), "a.v1", "a.v3"), "a.v2", "a.v3"), "a.v3", "a.v4");
        assert!(Table::new(join).is_ok());
        for (from, to) in [("a", "a.v2"), ("a.v1", "A.v2"), ("counterfoil.a.v1", "a.v1")] {
            assert!(matches!(Table::new(step(Upcasts::none(), from, to)), Err(CodecError::UpcastType(_))), "{from} {to}");
        }
    }

    #[test]
    fn integers_that_a_value_would_change_are_found() {
        for fits in [
            r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":[0,-1],"d":1e400,"e":1.0}"#,
            r#"{"99999999999999999999":"99999999999999999999 \" 99999999999999999999 \\"}"#,
            r#""\\",1"#,
            "null",
            "é",
        ] {
            assert_eq!(beyond_64_bits(fits), None, "{fits}");
        }
        assert_eq!(beyond_64_bits(r#"{"a\\":18446744073709551616}"#), Some("18446744073709551616"));
        assert_eq!(beyond_64_bits("[1,-9223372036854775809]"), Some("-9223372036854775809"));
    }
}
