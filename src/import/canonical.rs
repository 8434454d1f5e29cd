//! The hashes of a Cortex ledger, as `crtx-ledger` 0.1 makes them. Called by `cortex`, row by row. Pure.
//!
//! - payload hash: BLAKE3 of the payload as JSON without white space, keys sorted by their bytes at every depth;
//! - event hash: BLAKE3 of the byte 0x01, the length of the previous hash's hex as u64 (little endian), that hex, the
//!   length of the payload hash's hex likewise, that hex. The first row has no previous hash: length 0.
//!
//! Invariant: nothing here depends on how other crates of a build have serde_json read numbers. What it accepts is what
//! serde_json 1 reads by default, which is what that crate uses: 127 levels, numbers that fit an f64, strings without
//! lone surrogates, and of a repeated key the last one. One thing is different: numbers are read exactly here. By default
//! serde_json reads one in six of random f64s a little off, and that crate then takes rows for broken that it wrote itself.

use std::borrow::Cow;

use super::error::ChainFault;
use super::object::Object;

/// Levels of arrays and objects in a row, itself counted: serde_json's own bound, so that crate could read no more. It
/// also bounds the stack that this takes.
pub(crate) const LEVELS_MAX: usize = 127;
/// Bytes that are gathered before they are hashed. 64 KiB: large enough to be hashed fast.
const GATHERED_BYTES: usize = 64 << 10;

/// How a number is written before it is hashed. What that crate has written is hashed as it stands, in every version; but
/// where another tool has written the row anew, the number counts, in the form of the crate that read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    /// As the row has them.
    AsWritten,
    /// As serde_json writes them today: `1e+20`.
    Today,
    /// As serde_json wrote them before 1.0.149: `1e20`.
    Before,
}

/// Whether a payload, which lies one level deep in its row, has this hash; if not, the hash it has.
pub(crate) fn check_payload(json: &str, hash: &str) -> Result<Result<(), String>, ChainFault> {
    let of = |numbers| Canonical::hash(json, numbers).map(|hash| hash.to_hex().to_string());
    let found = of(Numbers::AsWritten)?;
    if found == hash || of(Numbers::Today)? == hash || of(Numbers::Before)? == hash {
        return Ok(Ok(()));
    }
    Ok(Err(found))
}

/// The event hash of a row.
pub(crate) fn event_hash(prev: Option<&str>, payload_hash: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]);
    for part in [prev.unwrap_or_default(), payload_hash] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Whether that crate could read a value that lies one level deep in its row.
pub(crate) fn check_readable(json: &str) -> Result<(), ChainFault> {
    Canonical::hash(json, Numbers::AsWritten).map(drop)
}

struct Canonical {
    gathered: Vec<u8>,
    hasher: blake3::Hasher,
    numbers: Numbers,
}

impl Canonical {
    fn hash(json: &str, numbers: Numbers) -> Result<blake3::Hash, ChainFault> {
        let mut canonical = Canonical { gathered: Vec::new(), hasher: blake3::Hasher::new(), numbers };
        canonical.value(json, LEVELS_MAX - 1)?;
        canonical.hasher.update(&canonical.gathered);
        Ok(canonical.hasher.finalize())
    }

    fn push(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHERED_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
    }

    /// One value of valid JSON, with this many levels left.
    fn value(&mut self, json: &str, levels: usize) -> Result<(), ChainFault> {
        match json.as_bytes().first() {
            Some(b'{') => self.object(json, levels.checked_sub(1).ok_or_else(too_deep)?),
            Some(b'[') => self.array(json, levels.checked_sub(1).ok_or_else(too_deep)?),
            Some(b'"') => self.string(&text_of(json)?),
            Some(b'-' | b'0'..=b'9') => self.number(json),
            // null, true, false
            _ => {
                self.push(json.as_bytes());
                Ok(())
            }
        }
    }

    fn object(&mut self, json: &str, levels: usize) -> Result<(), ChainFault> {
        let object = Object::parse(json).ok_or_else(|| ChainFault::NotARow("it has a key that is no text".to_owned()))?;
        let mut fields: Vec<(&str, &str)> = object.fields().collect();
        // Stable, so that of a repeated key the last one stays last; it is the one that counts.
        fields.sort_by_key(|(key, _)| *key);
        self.push(b"{");
        let mut fields = fields.into_iter().peekable();
        let mut is_first = true;
        while let Some((key, value)) = fields.next() {
            if fields.peek().is_some_and(|(next, _)| *next == key) {
                check_again(value, levels)?;
                continue;
            }
            if !std::mem::take(&mut is_first) {
                self.push(b",");
            }
            self.string(key)?;
            self.push(b":");
            self.value(value, levels)?;
        }
        self.push(b"}");
        Ok(())
    }

    fn array(&mut self, json: &str, levels: usize) -> Result<(), ChainFault> {
        let values: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).map_err(unreadable)?;
        self.push(b"[");
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.push(b",");
            }
            self.value(value.get(), levels)?;
        }
        self.push(b"]");
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), ChainFault> {
        self.push(serde_json::to_string(text).map_err(unreadable)?.as_bytes());
        Ok(())
    }

    fn number(&mut self, json: &str) -> Result<(), ChainFault> {
        // Minus zero is no integer to serde_json.
        let is_integer = json != "-0" && (json.parse::<u64>().is_ok() || json.parse::<i64>().is_ok());
        let float = json.parse::<f64>().ok().filter(|number| number.is_finite());
        let Some(float) = float else {
            return Err(ChainFault::NotARow(format!("the number {} is out of range", shortened(json))));
        };
        if is_integer || self.numbers == Numbers::AsWritten {
            self.push(json.as_bytes());
            return Ok(());
        }
        let mut written = serde_json::to_string(&float).map_err(unreadable)?;
        if self.numbers == Numbers::Before {
            written = written.replace("e+", "e");
        }
        self.push(written.as_bytes());
        Ok(())
    }
}

/// A value that does not count must be readable all the same.
fn check_again(json: &str, levels: usize) -> Result<(), ChainFault> {
    let mut canonical = Canonical { gathered: Vec::new(), hasher: blake3::Hasher::new(), numbers: Numbers::AsWritten };
    canonical.value(json, levels)
}

/// The text of a JSON string.
pub(crate) fn text_of(json: &str) -> Result<Cow<'_, str>, ChainFault> {
    match json.as_bytes() {
        // Nothing to unescape, so that large texts are not copied.
        [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => {
            Ok(Cow::Borrowed(json.get(1..json.len() - 1).unwrap_or_default()))
        }
        _ => serde_json::from_str::<String>(json).map(Cow::Owned).map_err(unreadable),
    }
}

fn too_deep() -> ChainFault {
    ChainFault::NotARow(format!("it nests deeper than {LEVELS_MAX} levels"))
}

fn unreadable(error: serde_json::Error) -> ChainFault {
    ChainFault::NotARow(error.to_string())
}

/// The beginning of a text that others have written, for a message.
pub(crate) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
