//! Payloads: any JSON, kept byte for byte.

use serde::Serialize;
use serde_json::value::RawValue;

use super::PayloadHash;
use crate::chain;

/// Why a payload can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The bytes are no JSON.
    #[error("the payload is not valid JSON: {0}; quote plain text as a JSON string")]
    NotJson(#[source] serde_json::Error),
    /// The value could not be turned into JSON.
    #[error("the payload could not be turned into JSON: {0}; give it as JSON text")]
    Serialize(#[source] serde_json::Error),
}

/// JSON that is recorded as it was given.
///
/// Two things alone are changed, both before hashing: white space around it is trimmed, and where it holds
/// LF or CR all white space between tokens is dropped. Numbers, key order, duplicate keys, escapes and lone
/// surrogate escapes stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(String);

impl Payload {
    /// From JSON text, kept byte for byte (but for white space, as above).
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] where it is not one JSON value. How deep it nests is not limited here: the
    /// check uses no stack.
    ///
    /// ```
    /// use counterfoil::Payload;
    /// assert_eq!(Payload::from_json("  {\"n\":1.0,\"n\":2} ")?.as_str(), "{\"n\":1.0,\"n\":2}");
    /// assert_eq!(Payload::from_json("{\n  \"a b\": 1\n}")?.as_str(), "{\"a b\":1}");
    /// assert!(Payload::from_json("{nope}").is_err());
    /// # Ok::<(), counterfoil::PayloadError>(())
    /// ```
    pub fn from_json(json: impl Into<String>) -> Result<Payload, PayloadError> {
        let mut json = json.into();
        check(&json).map_err(PayloadError::NotJson)?;
        if has_line_end(&json) {
            json = minify(&json);
        } else if json.starts_with(is_space) || json.ends_with(is_space) {
            json = json.trim_matches(is_space).to_owned();
        }
        Ok(Payload(json))
    }

    /// From anything that serde can serialise.
    ///
    /// # Errors
    /// [`PayloadError::Serialize`] where it can't (a map whose keys are no strings, say).
    pub fn from_serialize(value: &(impl Serialize + ?Sized)) -> Result<Payload, PayloadError> {
        // serde_json writes no white space between tokens, but a RawValue inside may bring its own.
        let json = serde_json::to_string(value).map_err(PayloadError::Serialize)?;
        Payload::from_json(json)
    }

    /// JSON `null`.
    pub fn null() -> Payload {
        Payload("null".to_owned())
    }

    /// The bytes that are recorded and hashed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// BLAKE3 of these bytes.
    pub fn hash(&self) -> PayloadHash {
        chain::payload_hash(self.0.as_bytes())
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn has_line_end(json: &str) -> bool {
    memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some()
}

fn check(json: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<&RawValue>(json).map(|_| ())
}

/// Drops all white space between tokens of valid JSON.
pub(crate) fn minify(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if !is_space(c) {
            in_string = c == '"';
            out.push(c);
        }
    }
    out
}

/// Whether these bytes of a line are a payload as the format wants it.
pub(crate) fn is_normal(json: &str) -> bool {
    !json.starts_with(is_space) && !json.ends_with(is_space) && !has_line_end(json) && check(json).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept() {
        for json in [
            r#"{"n":1.0,"big":123456789012345678901234567890,"e":1E400,"a":1,"a":2,"neg":-0}"#,
            "{\"s\":\"\\ud800 \u{2028} \\u00e9 é\"}",
            r#"{ "a" : [ 1 ] }"#,
            "null",
            "\"x\"",
        ] {
            assert_eq!(Payload::from_json(json).unwrap().as_str(), json);
        }
    }

    #[test]
    fn line_ends_make_it_minified_and_strings_stay() {
        let given = "\t{\r\n \"a \\\" b\" : [1, 2,\n 3], \"s\":\"two  spaces\\n\" } \n";
        assert_eq!(Payload::from_json(given).unwrap().as_str(), r#"{"a \" b":[1,2,3],"s":"two  spaces\n"}"#);
    }

    #[test]
    fn nesting_uses_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(Payload::from_json(deep.clone()).unwrap().as_str(), deep);
        for bad in ["", " ", "{", "01", "nul", "\"\n\"", "1 2", "'a'", "\u{feff}1", "NaN"] {
            assert!(Payload::from_json(bad).is_err(), "{bad:?}");
        }
    }
}
