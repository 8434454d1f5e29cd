//! Cortex ledgers, as `crtx-ledger` 0.1 writes them: what a row means, and whether it continues the chain. Called by the
//! reader, which has the whole file checked before its first draft, and each row again as it becomes one. Does no I/O.
//!
//! | of the row | recorded as |
//! |---|---|
//! | `id`, `trace_id` | the same: both have the form of ours |
//! | `event_type` | the same, `cortex.event.<name>.v<n>` |
//! | `source` | the same: its six kinds are ours |
//! | `observed_at` | the same moment, cut to microseconds |
//! | `session_id`, `domain_tags` | the same, behind the two tags of every import |
//! | all of it, `recorded_at`, hashes and `signature` too | the payload: the line's own bytes |
//!
//! A row is refused that `crtx-ledger` could not read, whose schema version its audit does not know (1 and 2 are known),
//! whose payload hash or event hash is wrong, or that does not link to the row before it. Two things differ from what that
//! crate reads: ids must be spelt as it writes them, and `source` must be an object; but a type may also be one that is none
//! of its ten, as long as it has their form.
//!
//! That chain covers payloads and their order. It does not cover ids, types, sources, times and tags; once adopted, ours
//! covers them all. Signatures are kept, not checked: no key is in the file.
//!
//! What a header can't hold stays in the payload alone: tags that are empty, longer than 128 bytes, past the 61st, or look
//! like those of an import; a session id that is empty or longer than 512 bytes; a time outside the years 0 to 9999.
//!
//! Where secrets are taken out of rows, they are taken out of what headers have of them too: these can't be erased.

use std::borrow::Cow;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::canonical::{self, shortened, text_of};
use super::error::ChainFault;
use super::facts::{self, Facts};
use super::identity::is_import_tag;
use super::object::Object;
use crate::event::line::{TAG_BYTES_MAX, TAGS_MAX};
use crate::event::{Draft, EventId, EventType, Payload, Source, Timestamp, TraceId};
use crate::redact::{Redactor, redact_text};

/// Tags that an import adds to a row at most: transcript, format, that its id is a repeated one, that it is redacted.
const OWN_TAGS_MAX: usize = 4;

/// Whether a line is a row of a Cortex ledger.
pub(crate) fn recognises(line: &Object<'_>) -> bool {
    line.text("event_type").is_some_and(|name| name.starts_with("cortex.event.")) && line.has("payload_hash") && line.has("event_hash")
}

/// Which ledger it is, told from its first row.
pub(crate) fn identity(line: &Object<'_>) -> Option<String> {
    line.text("id")
}

/// A row that continues its chain.
#[derive(Debug)]
pub(crate) struct Row {
    pub id: EventId,
    pub trace: Option<TraceId>,
    pub tags: Vec<String>,
    pub facts: Facts,
    /// How much of it a header can't hold.
    pub left_out: u64,
    pub is_signed: bool,
}

/// A chain, as far as it was followed.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The event hash of its last row.
    pub head: Option<String>,
    /// Its rows.
    pub rows: u64,
}

impl Chain {
    /// Checks that this line is a row that continues the chain, and goes on to it. `recorded`: what takes secrets out, and the
    /// line as it left it.
    pub fn follow(&mut self, line: &str, recorded: Option<(&dyn Redactor, &str)>) -> Result<Row, ChainFault> {
        let fields = Object::parse(line).ok_or_else(|| not_a_row("it is no JSON object"))?;
        for (_, value) in fields.fields().filter(|(key, _)| *key != "payload") {
            canonical::check_readable(value)?;
        }
        let row = Row::of(&fields, recorded)?;
        let (payload_hash, event_hash) = (text(&fields, "payload_hash")?, text(&fields, "event_hash")?);
        let prev = optional(&fields, "prev_event_hash", |json| Ok(text_of(json)?.into_owned()))?;
        if let Err(expected) = canonical::check_payload(required(&fields, "payload")?, &payload_hash)? {
            return Err(ChainFault::Payload { found: shortened(&payload_hash), expected });
        }
        let expected = canonical::event_hash(prev.as_deref(), &payload_hash);
        if event_hash != expected {
            return Err(ChainFault::Event { found: shortened(&event_hash), expected });
        }
        if prev != self.head {
            return Err(ChainFault::Link { found: prev.as_deref().map(shortened), expected: self.head.clone() });
        }
        self.head = Some(expected);
        self.rows += 1;
        Ok(row)
    }
}

impl Row {
    fn of(fields: &Object<'_>, recorded: Option<(&dyn Redactor, &str)>) -> Result<Row, ChainFault> {
        let schema_version = required(fields, "schema_version")?;
        if !matches!(schema_version, "1" | "2") {
            return Err(not_a_row(&format!("its schema_version is {}, and only 1 and 2 are known", shortened(schema_version))));
        }
        moment(&text(fields, "recorded_at")?)?;
        let observed_at = moment(&text(fields, "observed_at")?)?;
        let said = Said::of(fields)?;
        let said = match recorded {
            // A redactor may leave less of a row than makes one.
            Some((redactor, row)) => Object::parse(row).and_then(|row| Said::of(&row).ok()).unwrap_or(said).without_secrets(redactor),
            None => said,
        };
        let mut facts = Facts::new(event_type(&text(fields, "event_type")?)?, said.source);
        facts.observed_at = observed_at;
        let has_session = said.session.is_some();
        facts.session = said.session.and_then(facts::session);
        let (tags, tags_left_out) = fitting(said.tags);
        let left_out = tags_left_out + u64::from(has_session && facts.session.is_none()) + u64::from(observed_at.is_none());
        Ok(Row {
            id: id(&text(fields, "id")?)?,
            trace: optional(fields, "trace_id", |json| id(&text_of(json)?))?,
            tags,
            facts,
            left_out,
            is_signed: optional(fields, "signature", signature)?.is_some(),
        })
    }
}

impl Row {
    /// The draft that it becomes, under this id, and behind the tags of the import.
    pub fn draft(self, id: EventId, own_tags: &[&str], payload: Payload) -> Draft {
        let Row { trace, tags, facts, .. } = self;
        let mut draft = Draft::new(facts.event_type, facts.source).id(id).with_payload(payload);
        for tag in own_tags.iter().copied().chain(tags.iter().map(String::as_str)) {
            draft = draft.tag(tag);
        }
        if let Some(at) = facts.observed_at {
            draft = draft.observed_at(at);
        }
        if let Some(trace) = trace {
            draft = draft.trace(trace);
        }
        match facts.session {
            Some(session) => draft.session(session),
            None => draft,
        }
    }
}

/// The texts of a row that its header is to have.
#[derive(Debug)]
struct Said {
    source: Source<'static>,
    session: Option<String>,
    tags: Vec<String>,
}

impl Said {
    fn of(fields: &Object<'_>) -> Result<Said, ChainFault> {
        let tags = serde_json::from_str(required(fields, "domain_tags")?);
        Ok(Said {
            source: source(fields)?,
            session: optional(fields, "session_id", |json| Ok(text_of(json)?.into_owned()))?,
            tags: tags.map_err(|error| not_a_row(&format!("`domain_tags`: {error}")))?,
        })
    }

    /// A row has been redacted as a whole; a text by itself is what stands in a header.
    fn without_secrets(self, redactor: &dyn Redactor) -> Said {
        let clean = |text: String| redact_text(redactor, &text).map_or(text, |redacted| redacted.json);
        let source = match self.source {
            Source::ChildAgent { model } => Source::child_agent(clean(model.into_owned())),
            Source::Tool { name } => Source::tool(clean(name.into_owned())),
            other => other,
        };
        Said { source, session: self.session.map(clean), tags: self.tags.into_iter().map(clean).collect() }
    }
}

fn not_a_row(reason: &str) -> ChainFault {
    ChainFault::NotARow(reason.to_owned())
}

/// A field that may be there once.
fn field<'a>(fields: &Object<'a>, key: &str) -> Result<Option<&'a str>, ChainFault> {
    let mut found = fields.fields().filter(|(name, _)| *name == key).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (value, None) => Ok(value),
        _ => Err(not_a_row(&format!("`{key}` is there twice"))),
    }
}

fn required<'a>(fields: &Object<'a>, key: &str) -> Result<&'a str, ChainFault> {
    field(fields, key)?.ok_or_else(|| not_a_row(&format!("it has no `{key}`")))
}

fn text<'a>(fields: &Object<'a>, key: &str) -> Result<Cow<'a, str>, ChainFault> {
    let json = required(fields, key)?;
    if !json.starts_with('"') {
        return Err(not_a_row(&format!("`{key}` is no text")));
    }
    text_of(json)
}

/// A field that may be missing, or null.
fn optional<'a, T>(fields: &Object<'a>, key: &str, read: impl FnOnce(&'a str) -> Result<T, ChainFault>) -> Result<Option<T>, ChainFault> {
    field(fields, key)?.filter(|json| *json != "null").map(read).transpose()
}

fn id<I: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<I, ChainFault> {
    text.parse().map_err(|error: I::Err| not_a_row(&error.to_string()))
}

fn event_type(name: &str) -> Result<EventType, ChainFault> {
    let wrong = || not_a_row(&format!("`{}` is no event type of Cortex", shortened(name)));
    if !name.starts_with("cortex.event.") {
        return Err(wrong());
    }
    EventType::new(name).map_err(|_| wrong())
}

fn source(fields: &Object<'_>) -> Result<Source<'static>, ChainFault> {
    let source = Object::parse(required(fields, "source")?).ok_or_else(|| not_a_row("`source` is no object"))?;
    let kind = text(&source, "type")?;
    match kind.as_ref() {
        "user" => Ok(Source::User),
        "child_agent" => Ok(Source::child_agent(text(&source, "model")?)),
        "tool" => Ok(Source::tool(text(&source, "name")?)),
        "runtime" => Ok(Source::Runtime),
        "external_outcome" => Ok(Source::ExternalOutcome),
        "manual_correction" => Ok(Source::ManualCorrection),
        other => Err(not_a_row(&format!("`{}` is no source of Cortex", shortened(other)))),
    }
}

/// The moment, where it lies in the years that a header can tell.
fn moment(text: &str) -> Result<Option<Timestamp>, ChainFault> {
    let moment = text.parse::<DateTime<Utc>>().map_err(|error| not_a_row(&format!("`{}` is no time: {error}", shortened(text))))?;
    let cut = Timestamp::from(moment);
    Ok((cut.as_micros() == moment.timestamp_micros()).then_some(cut))
}

/// The tags that a header can hold, and how many it can't.
fn fitting(given: Vec<String>) -> (Vec<String>, u64) {
    let count = given.len();
    let fits = |tag: &String| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !is_import_tag(tag);
    let tags: Vec<String> = given.into_iter().filter(fits).take(TAGS_MAX - OWN_TAGS_MAX).collect();
    let left_out = (count - tags.len()) as u64;
    (tags, left_out)
}

fn signature(json: &str) -> Result<(), ChainFault> {
    let signature = Object::parse(json).ok_or_else(|| not_a_row("`signature` is no object"))?;
    let version = required(&signature, "schema_version")?;
    if version.parse::<u16>().is_err() {
        return Err(not_a_row("`schema_version` of the signature is no small number"));
    }
    text(&signature, "key_id")?;
    text(&signature, "bytes")?;
    moment(&text(&signature, "signed_at")?).map(drop)
}
