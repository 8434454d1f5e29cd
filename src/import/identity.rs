//! Which transcript a file is, and the ids of its events. Called by the reader. Pure but for the look ahead.
//!
//! A transcript's identity never depends on the folder that the file lies in, and doesn't change when the file
//! grows:
//!
//! | format | identity | where |
//! |---|---|---|
//! | claude-code | the first `sessionId`, with `/` and the `agentId` behind it in a sub-agent's file | else the file's stem |
//! | codex | the first `session_meta`'s id | else the file's stem |
//! | openhands | the first event's id | else the file's stem |
//! | cortex | the id of the first row | else the file's stem |
//! | swe-agent | the file's stem and BLAKE3 of the first step's payload | |
//! | jsonl | the file's stem and BLAKE3 of the first line that is not blank (of its first MiB, trimmed) | the stem |
//!
//! "First" looks at [`IDENTITY_LINES_MAX`] lines. Limits that follow:
//! - A Claude Code file that was imported before it named its session is a new transcript once it does, unless its
//!   stem is its session id (as Claude Code has it).
//! - A Claude Code file that begins with lines copied from another session, under that one's id, is taken for it.
//! - Other JSONL and trajectories name no transcript. Many begin alike, so the file's name (not its folder) tells them
//!   apart, and a file that is renamed is a new transcript.
//!
//! Where there is a redactor, the bytes that ids and identities are made of are the redacted ones, whether they are recorded
//! so or not: a hash of the others would confirm a guess at what was replaced.
//!
//! Nothing is lost where two files are one transcript: lines that both have are recorded once, all others too. But
//! they are exported as one file, which is not exact.

use std::borrow::Cow;
use std::path::Path;

use super::error::ImportError;
use super::facts;
use super::format::{Format, look_ahead};
use super::object::Object;
use super::{TAG_LAYOUT, TAG_REPEATED_ID, TAG_SKIPPED, claude_code, codex, cortex, openhands, scan};
use crate::event::{EventId, Timestamp};
use crate::redact::{Redactor, redact_text};

/// Lines that are looked at for a transcript's identity. 256: Claude Code writes a few snapshots before its session id.
const IDENTITY_LINES_MAX: u64 = 256;
/// Bytes of a first line that make the identity of a JSONL file. 1 MiB: enough to tell two apart.
const FIRST_LINE_BYTES_MAX: usize = 1 << 20;

const ID_CONTEXT: &str = "counterfoil 2026-11-24 import id v1";
const TRANSCRIPT_CONTEXT: &str = "counterfoil 2026-11-24 import transcript v1";

/// Which transcript it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub format: Format,
    /// Its name in the format's own terms, or a hash.
    pub text: String,
    /// The stream of lines that name none.
    pub session: Option<String>,
}

/// What an id is derived for. Each kind is a space of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// The n-th occurrence, from 0, of a line.
    Line(u64),
    /// A record of a skipped line.
    Skipped,
    /// A layout note.
    Layout,
}

impl Identity {
    /// The identity of a JSONL transcript.
    pub fn of_file(path: &Path, format: Format, redactor: Option<&dyn Redactor>) -> Result<Identity, ImportError> {
        let found = look_ahead(path, IDENTITY_LINES_MAX, |raw| {
            let core = without_secrets(raw.parts().core, redactor);
            if format == Format::Jsonl {
                return Some(named_by(&stem_of(path, redactor), core.get(..FIRST_LINE_BYTES_MAX).unwrap_or(&core)));
            }
            let line = Object::parse(std::str::from_utf8(&core).ok()?)?;
            match format {
                Format::ClaudeCode => claude_code::identity(&line),
                Format::Codex => codex::identity(&line).map(|id| (id.clone(), id)),
                // A row that names no session belongs to none.
                Format::Cortex => cortex::identity(&line).map(|id| (id, String::new())),
                _ => openhands::identity(&line).map(|id| (id.clone(), id)),
            }
        })?;
        let (text, session) = found.unwrap_or_else(|| {
            let stem = stem_of(path, redactor);
            (stem.clone(), stem)
        });
        Ok(Identity { format, text, session: facts::session(session) })
    }

    /// The identity of a trajectory with this first step.
    pub fn of_steps(path: &Path, first: Option<&str>, redactor: Option<&dyn Redactor>) -> Identity {
        let (text, session) = named_by(&stem_of(path, redactor), first.unwrap_or_default().as_bytes());
        Identity { format: Format::SweAgent, session: facts::session(session), text }
    }

    /// `transcript:<16 hex>`: what all its drafts are tagged with.
    pub fn tag(&self) -> String {
        transcript_tag(self.format.name(), &self.text)
    }

    /// `format:<format>`, the other tag.
    pub fn format_tag(&self) -> String {
        format!("{FORMAT_TAG}{}", self.format)
    }

    /// What makes the ids of its events.
    pub fn ids(&self) -> Ids {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        for part in [self.format.name().as_bytes(), self.text.as_bytes()] {
            push(&mut hasher, part);
        }
        Ids(hasher)
    }
}

/// Makes the ids of a transcript's events: 48 bits of time, then 80 bits of a hash over everything else. Every part of the
/// hash's input is preceded by its length or has a fixed one, so that no two inputs run together.
#[derive(Clone, Debug)]
pub(crate) struct Ids(blake3::Hasher);

impl Ids {
    /// The hash of these bytes, for which kind they are to become.
    pub fn hash(&self, bytes: &[u8]) -> Hashed {
        let mut hasher = self.0.clone();
        push(&mut hasher, bytes);
        Hashed(hasher)
    }
}

/// Bytes that are to have an id.
#[derive(Clone, Debug)]
pub(crate) struct Hashed(blake3::Hasher);

impl Hashed {
    /// The 80 bits of the id that tell nothing of the time.
    pub fn bits(&self, kind: Kind) -> u128 {
        let (kind, occurrence) = match kind {
            Kind::Line(occurrence) => (0u8, occurrence),
            Kind::Skipped => (1, 0),
            Kind::Layout => (2, 0),
        };
        let mut hasher = self.0.clone();
        hasher.update(&occurrence.to_le_bytes());
        hasher.update(&[kind]);
        let mut low = [0; 16];
        hasher.finalize_xof().fill(&mut low);
        u128::from_le_bytes(low) >> 48
    }

    /// The id.
    pub fn id(&self, time: Option<Timestamp>, kind: Kind) -> EventId {
        with_time(self.bits(kind), time)
    }
}

/// The id with these 80 bits.
pub(crate) fn with_time(bits: u128, time: Option<Timestamp>) -> EventId {
    let millis = time.map_or(0, Timestamp::id_millis);
    EventId::from_u128(u128::from(millis) << 80 | bits)
}

/// A line as a redactor leaves it.
fn without_secrets<'a>(core: &'a [u8], redactor: Option<&dyn Redactor>) -> Cow<'a, [u8]> {
    let redacted = redactor.and_then(|redactor| match scan::check(core) {
        Ok(json) => redactor.redact(json),
        Err(_) => redact_text(redactor, &String::from_utf8_lossy(core)),
    });
    redacted.map_or(Cow::Borrowed(core), |redacted| Cow::Owned(redacted.json.into_bytes()))
}

fn stem_of(path: &Path, redactor: Option<&dyn Redactor>) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    redactor.and_then(|redactor| redact_text(redactor, &stem)).map_or_else(|| stem.into_owned(), |redacted| redacted.json)
}

/// Identity and stream of a transcript that names neither: by its file's stem and how it begins.
fn named_by(stem: &str, beginning: &[u8]) -> (String, String) {
    let hash = blake3::hash(beginning).to_hex();
    (format!("{stem}/{hash}"), format!("{stem}-{}", hash.get(..8).unwrap_or_default()))
}

const TRANSCRIPT_TAG: &str = "transcript:";
const FORMAT_TAG: &str = "format:";
const OWN_TAGS: [&str; 3] = [TAG_LAYOUT, TAG_SKIPPED, TAG_REPEATED_ID];

/// The tag of the transcript with this format and identity.
pub(crate) fn transcript_tag(format: &str, identity: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(TRANSCRIPT_CONTEXT);
    push(&mut hasher, format.as_bytes());
    push(&mut hasher, identity.as_bytes());
    let hex = hasher.finalize().to_hex();
    format!("{TRANSCRIPT_TAG}{}", hex.get(..16).unwrap_or_default())
}

/// The 16 hex digits of a transcript's tag, where it is one.
pub(crate) fn transcript_of_tag(tag: &str) -> Option<&str> {
    tag.strip_prefix(TRANSCRIPT_TAG).filter(|hex| hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// Whether a tag says something of an import, so that nothing else may be called so.
pub(crate) fn is_import_tag(tag: &str) -> bool {
    tag.starts_with(TRANSCRIPT_TAG) || tag.starts_with(FORMAT_TAG) || OWN_TAGS.contains(&tag)
}

/// The format that a tag names.
pub(crate) fn format_of_tag(tag: &str) -> Option<Format> {
    tag.strip_prefix(FORMAT_TAG)?.parse().ok()
}

fn push(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}
