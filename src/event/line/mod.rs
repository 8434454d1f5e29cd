//! A line: encoding and decoding, byte for byte as FORMAT.md's section "A line".
//!
//! The decoder takes only what the encoder writes: keys in their order, no white space, canonical escapes.
//! So a header that decodes also encodes back to its own bytes.

mod cursor;
mod decode;
mod encode;

pub use decode::decode;
pub(crate) use decode::{decode_again, decode_text, decode_unhashed};
pub use encode::encode;
pub(crate) use encode::{push_string, push_strings, seal};

use super::EventHash;

/// The only event schema so far.
pub(crate) const SCHEMA_VERSION: u16 = 1;
pub(crate) const SESSION_ID_BYTES_MAX: usize = 512;
pub(crate) const TAGS_MAX: usize = 64;
pub(crate) const TAG_BYTES_MAX: usize = 128;

/// What is wrong with a line, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (byte {offset} of the line)")]
pub struct LineError {
    /// Offset from the line's first byte.
    pub offset: usize,
    /// What is wrong there.
    pub problem: LineProblem,
}

/// What can be wrong with a line by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Something else stands where the format has this text.
    #[error("expected `{0}`")]
    Expected(&'static str),
    /// The value of this key does not have its form.
    #[error("the value of `{0}` does not have its form")]
    Value(&'static str),
    /// The payload is no JSON, or not as the format writes it.
    #[error("the payload is not JSON as the format writes it")]
    Payload,
    /// Something follows the line's closing brace.
    #[error("bytes after the end of the line's object")]
    Trailing,
    /// The event hash does not fit the line's own bytes.
    #[error("event_hash does not fit the line: it says {stated}, the bytes give {computed}")]
    EventHash {
        /// What the line says.
        stated: EventHash,
        /// What its bytes give.
        computed: EventHash,
    },
}
