//! The columns of a row as slices of the line itself. Called where a line is known to be right: this process has just
//! sealed it, or has just checked it.
//!
//! What the decoder makes of such a line would be written back to the very texts that it was made from. Lines of a kind
//! that is rare (attachments, a signature, a policy, no payload, escapes in a session id) are left to the decoder.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::event::{EventHash, EventId, Seq, Timestamp, TraceId, parse_hex32};

/// A key that stands behind something of unknown length. To prepare a search costs more than to find what is near.
struct Key(LazyLock<Finder<'static>>);

impl Key {
    const fn new(prepare: fn() -> Finder<'static>) -> Key {
        Key(LazyLock::new(prepare))
    }
}

static EVENT_TYPE: Key = Key::new(|| Finder::new(",\"event_type\":\""));
static SESSION_SEQ: Key = Key::new(|| Finder::new("\",\"session_seq\":"));
static GROUP_SEQ: Key = Key::new(|| Finder::new(",\"group_seq\":"));

/// Bytes of a hash's text.
const HASH_TEXT_BYTES: usize = 64;

pub(super) struct Fields<'l> {
    pub(super) seq: Seq,
    id: &'l str,
    observed_at: &'l str,
    recorded_at: &'l str,
    source: &'l str,
    event_type: &'l str,
    trace_id: Option<&'l str>,
    session: Option<(&'l str, u64)>,
    causation_id: Option<&'l str>,
    domain_tags: Option<&'l str>,
    group_seq: u64,
    batch: Option<&'l str>,
    payload_hash: [u8; 32],
    prev_event_hash: [u8; 32],
    event_hash: [u8; 32],
    payload: &'l str,
}

/// What is left of a line.
struct Rest<'l>(&'l str);

impl<'l> Rest<'l> {
    fn skip(&mut self, literal: &str) -> bool {
        let rest = self.0.strip_prefix(literal);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, literal: &str) -> Option<()> {
        self.skip(literal).then_some(())
    }

    fn take(&mut self, bytes: usize) -> Option<&'l str> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// What stands before a key. In a string a quote has a backslash before it, so no string can hold one.
    fn until(&mut self, key: &Key) -> Option<&'l str> {
        let taken = self.take(key.0.find(self.0.as_bytes())?)?;
        self.take(key.0.needle().len()).map(|_| taken)
    }

    /// What stands before a quote, in a text that has none.
    fn until_quote(&mut self) -> Option<&'l str> {
        let taken = self.take(memchr::memchr(b'"', self.0.as_bytes())?)?;
        self.take(1).map(|_| taken)
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        self.take(digits)?.parse().ok()
    }

    fn hash(&mut self) -> Option<[u8; 32]> {
        parse_hex32(self.take(HASH_TEXT_BYTES)?.as_bytes())
    }

    /// A text of this length and its closing quote, behind an opening.
    fn optional(&mut self, opening: &str, bytes: usize) -> Option<Option<&'l str>> {
        if !self.skip(opening) {
            return Some(None);
        }
        let text = self.take(bytes)?;
        self.expect("\"").map(|()| Some(text))
    }
}

impl<'l> Fields<'l> {
    /// Of a line that is right, without LF; nothing where the decoder has to look at it.
    pub(super) fn of(line: &'l str) -> Option<Fields<'l>> {
        let mut rest = Rest(line);
        rest.expect("{\"seq\":")?;
        let seq = Seq::new(rest.number()?);
        rest.expect(",\"id\":\"")?;
        let id = rest.take(EventId::TEXT_BYTES)?;
        rest.expect("\",\"schema_version\":1,\"observed_at\":\"")?;
        let observed_at = rest.take(Timestamp::TEXT_BYTES)?;
        rest.expect("\",\"recorded_at\":\"")?;
        let recorded_at = rest.take(Timestamp::TEXT_BYTES)?;
        rest.expect("\",\"source\":")?;
        let source = rest.until(&EVENT_TYPE)?;
        let event_type = rest.until_quote()?;
        let trace_id = rest.optional(",\"trace_id\":\"", TraceId::TEXT_BYTES)?;
        let session = match rest.skip(",\"session_id\":\"") {
            true => Some((rest.until(&SESSION_SEQ).filter(|id| !id.contains('\\'))?, rest.number()?)),
            false => None,
        };
        let causation_id = rest.optional(",\"causation_id\":\"", EventId::TEXT_BYTES)?;
        let domain_tags = match rest.skip(",\"domain_tags\":") {
            // Attachments would end otherwise.
            true => Some(rest.until(&GROUP_SEQ).filter(|tags| tags.ends_with("\"]"))?),
            false => rest.expect(",\"group_seq\":").map(|()| None)?,
        };
        let group_seq = rest.number()?;
        let batch = match rest.0.strip_prefix(",\"batch\":") {
            Some(batch) => {
                rest.0 = batch;
                Some(rest.take(batch.find(']')? + 1)?)
            }
            None => None,
        };
        rest.expect(",\"payload_hash\":\"")?;
        let payload_hash = rest.hash()?;
        rest.expect("\",\"prev_event_hash\":\"")?;
        let prev_event_hash = rest.hash()?;
        rest.expect("\",\"event_hash\":\"")?;
        let event_hash = rest.hash()?;
        rest.expect("\",\"payload\":")?;
        let payload = rest.0.strip_suffix('}')?;
        Some(Fields {
            seq,
            id,
            observed_at,
            recorded_at,
            source,
            event_type,
            trace_id,
            session,
            causation_id,
            domain_tags,
            group_seq,
            batch,
            payload_hash,
            prev_event_hash,
            event_hash,
            payload,
        })
    }

    pub(super) fn event_hash(&self) -> EventHash {
        EventHash::from_bytes(self.event_hash)
    }

    /// The values of the row, in the order of [`super::row::COLUMNS`].
    pub(super) fn values(&self) -> [ToSqlOutput<'_>; 24] {
        let number = |number: u64| ValueRef::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        let text = |text: &'l str| ValueRef::Text(text.as_bytes());
        let or_null = |optional: Option<&'l str>| optional.map_or(ValueRef::Null, text);
        [
            number(self.seq.get()),
            text(self.id),
            number(1),
            text(self.observed_at),
            text(self.recorded_at),
            text(self.source),
            text(self.event_type),
            or_null(self.trace_id),
            or_null(self.session.map(|(id, _)| id)),
            self.session.map_or(ValueRef::Null, |(_, seq)| number(seq)),
            or_null(self.causation_id),
            or_null(self.domain_tags),
            ValueRef::Null,
            number(self.group_seq),
            or_null(self.batch),
            ValueRef::Null,
            ValueRef::Null,
            ValueRef::Blob(&self.payload_hash),
            ValueRef::Blob(&self.prev_event_hash),
            ValueRef::Blob(&self.event_hash),
            ValueRef::Null,
            text(self.payload),
            ValueRef::Null,
            ValueRef::Null,
        ]
        .map(ToSqlOutput::Borrowed)
    }
}
