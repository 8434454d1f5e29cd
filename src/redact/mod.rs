//! Redaction before hashing: what must not be recorded is replaced by a mark while a draft is checked, so that hashes,
//! ids in conflict and duplicates all go by the redacted bytes, and the replaced ones never reach a disk.
//!
//! Called by [`Draft::check`](crate::Draft::check) where [`Options::redactor`](crate::Options) is set, and by the reader of
//! transcripts. Never logs what it replaces, never puts a hash or the length of it anywhere, does no I/O. (Whoever adopts a
//! Cortex ledger keeps the hashes that it came with, which do confirm a guess: see [`import`](crate::import).)
//!
//! # Limits
//! - Only payloads are looked at, and by an import the texts of headers that it takes from lines: keep secrets out of session
//!   ids, tags and names of your own.
//! - A shape that no rule knows stays: a password in prose, a key without a prefix, a secret that is encoded once more
//!   (base64 of base64), or one that is spread over several payloads. What must be safe is erased, or never handed over.
//! - Rules grow with versions of this crate, so a draft that is appended again under its id after an upgrade may have another
//!   content: the ledger answers `Conflict`, and what is recorded stays.
//!
//! # Files
//! - `rules` the shapes, as data · `secrets` finding them · `views` strings without their escapes · `pem` private keys ·
//!   `strings` putting marks into JSON

mod pem;
mod rules;
mod secrets;
mod strings;
mod views;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

pub use secrets::Secrets;

/// Takes out of payloads what must not be recorded.
///
/// What it answers must depend on the payload alone: the same draft, appended twice, must be the same both times. It must be
/// at peace with its own work: a redacted payload has nothing to redact.
///
/// ```
/// use std::sync::Arc;
/// use counterfoil::{Draft, EventType, Options, Secrets, Source, Store};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// let mut options = Options::default();
/// options.redactor = Some(Arc::new(Secrets::new()));
/// let (mut store, _) = Store::open(&path, &options)?;
/// let header = format!("Authorization: Bearer {}", ["0123456789", "abcdefghij"].concat());
/// let receipt = store.append(Draft::new(EventType::TOOL_CALL, Source::tool("curl")).payload(&header)?)?;
/// let line = store.reader()?.line(receipt.seq)?.ok_or("no line")?;
/// assert!(String::from_utf8(line)?.ends_with(r#""payload":"Authorization: Bearer [redacted:authorization]"}"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Redactor: Send + Sync {
    /// The payload (one JSON value) as it may be recorded, or nothing where it may be recorded as it is.
    fn redact(&self, payload: &str) -> Option<Redacted>;
}

/// A payload that was redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redacted {
    /// What is recorded in its place: one JSON value.
    pub json: String,
    /// What was replaced, by rule.
    pub replaced: Vec<Replaced>,
}

impl Redacted {
    /// This JSON, in which that was replaced.
    pub fn new(json: impl Into<String>, replaced: Vec<Replaced>) -> Redacted {
        Redacted { json: json.into(), replaced }
    }
}

/// How often a rule replaced something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Replaced {
    /// The rule's id, which is in the mark.
    pub rule: Cow<'static, str>,
    /// How often: marks that were written.
    pub count: u64,
}

impl Replaced {
    /// That many marks of this rule.
    pub fn new(rule: impl Into<Cow<'static, str>>, count: u64) -> Replaced {
        Replaced { rule: rule.into(), count }
    }
}

const MARK: &str = "[redacted:";
/// Bytes of the longest rule id in a mark that is recognised. 64: ids are short words.
const RULE_ID_BYTES_MAX: usize = 64;
/// Bytes of the longest mark.
const MARK_BYTES_MAX: usize = MARK.len() + RULE_ID_BYTES_MAX + 1;

/// What stands where something was replaced: `[redacted:<rule>]`. It tells nothing of what was there.
pub fn mark(rule: &str) -> String {
    format!("{MARK}{rule}]")
}

/// Whether this is one mark and nothing else.
fn is_mark(text: &str) -> bool {
    let id = text.strip_prefix(MARK).and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    (1..=RULE_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Text that need not be JSON, redacted as a payload that is a string would be.
pub(crate) fn redact_text(redactor: &dyn Redactor, text: &str) -> Option<Redacted> {
    let quoted = serde_json::to_string(text).ok()?;
    let redacted = redactor.redact(&quoted)?;
    // A redactor that makes no string of a string has redacted all of it.
    let json = serde_json::from_str::<String>(&redacted.json).unwrap_or_default();
    Some(Redacted { json, ..redacted })
}

impl fmt::Debug for dyn Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}
