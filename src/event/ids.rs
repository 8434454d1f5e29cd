//! Newtypes for positions, identities and hashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Position of an event in the ledger: 1 for the first, dense, below 2⁶³.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Seq = Seq(0);
    /// The seq of the first event of any ledger.
    pub const FIRST: Seq = Seq(1);
    /// The highest seq that the format allows.
    pub const MAX: Seq = Seq((1 << 63) - 1);

    /// The seq with this number; what lies above [`Seq::MAX`] is cut to it.
    pub const fn new(number: u64) -> Seq {
        if number > Seq::MAX.0 { Seq::MAX } else { Seq(number) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seq after this one.
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The seq before this one, [`Seq::ZERO`] staying where it is.
    pub const fn previous(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no id or hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    text: String,
    expected: &'static str,
}

impl IdError {
    pub(crate) fn new(text: &str, expected: &'static str) -> IdError {
        IdError { text: text.chars().take(80).collect(), expected }
    }
}

fn parse_base32(text: &str, prefix: &str, expected: &'static str) -> Result<u128, IdError> {
    let digits = text.strip_prefix(prefix).ok_or_else(|| IdError::new(text, expected))?;
    let number = ulid::Ulid::from_string(digits).map_err(|_| IdError::new(text, expected))?;
    let mut canonical = [0; ulid::ULID_LEN];
    // Only the canonical spelling counts: upper case, no look-alike letters, no overflow.
    if number.array_to_str(&mut canonical) == digits { Ok(number.0) } else { Err(IdError::new(text, expected)) }
}

/// Debug and serde by the type's text form.
macro_rules! as_text {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use as_text;

macro_rules! base32_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Bytes of its text form.
            pub const TEXT_BYTES: usize = $prefix.len() + ulid::ULID_LEN;

            /// From its 128 bits: by convention 48 bits of milliseconds since 1970, then 80 random ones.
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits.
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// Appends its text form.
            pub fn push_to(self, out: &mut Vec<u8>) {
                let mut digits = [0; ulid::ULID_LEN];
                out.extend_from_slice($prefix.as_bytes());
                out.extend_from_slice(ulid::Ulid(self.0).array_to_str(&mut digits).as_bytes());
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; ulid::ULID_LEN];
                f.pad(&format!(concat!($prefix, "{}"), ulid::Ulid(self.0).array_to_str(&mut digits)))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_base32(text, $prefix, $expected).map(Self)
            }
        }

        as_text!($name);
    };
}

base32_id!(
    /// Identity of an event and its idempotency key: `evt_` and 26 digits of Crockford base32, as a
    /// [ULID](https://github.com/ulid/spec) has them.
    EventId, "evt_", "an event id (`evt_` and 26 upper-case Crockford base32 digits)"
);
base32_id!(
    /// The trace that an event belongs to: `trc_` and 26 digits of Crockford base32.
    TraceId, "trc_", "a trace id (`trc_` and 26 upper-case Crockford base32 digits)"
);
base32_id!(
    /// Identity of a ledger: `ldg_` and 26 digits of Crockford base32. Its genesis hash follows from it.
    LedgerId, "ldg_", "a ledger id (`ldg_` and 26 upper-case Crockford base32 digits)"
);

fn hex_digit(nibble: u8) -> u8 {
    nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
}

/// Appends lower-case hex.
pub(crate) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
}

/// The same of 32 bytes at once: half of a line's digits are hashes.
fn hex32(bytes: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
    }
    text
}

/// Reads exactly 32 bytes of lower-case hex. Without a branch a digit, so that it takes many at once.
pub(crate) fn parse_hex32(text: &[u8]) -> Option<[u8; 32]> {
    fn nibble(digit: u8) -> (u8, bool) {
        let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
        (if number < 10 { number } else { letter.wrapping_add(10) }, (number >= 10) & (letter >= 6))
    }
    let text: &[u8; 64] = text.try_into().ok()?;
    let (mut bytes, mut wrong) = ([0; 32], false);
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        let ((high, no_high), (low, no_low)) = (nibble(*high), nibble(*low));
        *byte = high << 4 | low & 15;
        wrong |= no_high | no_low;
    }
    (!wrong).then_some(bytes)
}

macro_rules! hash32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Appends its text form, 64 lower-case hex digits.
            pub fn push_to(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&hex32(&self.0));
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(std::str::from_utf8(&hex32(&self.0)).unwrap_or_default())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex32(text.as_bytes()).map(Self).ok_or_else(|| IdError::new(text, "a hash (64 lower-case hex digits)"))
            }
        }

        as_text!($name);
    };
}

hash32!(
    /// BLAKE3 in derive-key mode over a line up to its hash: it covers every header field and, through
    /// `prev_event_hash`, all events before it.
    EventHash
);
hash32!(
    /// BLAKE3 of a payload's exact bytes: what `b3sum` prints for them.
    PayloadHash
);
