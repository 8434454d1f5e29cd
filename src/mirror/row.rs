//! A row, back to the event and the exact line that it was made from.

use std::borrow::Cow;

use rusqlite::types::ValueRef;

use crate::event::{Body, Event, EventHash, PayloadHash, Seq, line};

/// Selects every column of `events`, in the order that [`Row`] reads them; add a WHERE and an ORDER BY.
pub(crate) const SELECT: &str = "SELECT seq, id, schema_version, observed_at, recorded_at, source, event_type, trace_id, session_id, \
     session_seq, causation_id, domain_tags, attachments, group_seq, batch, signed_by, policy, payload_hash, \
     prev_event_hash, event_hash, signature, payload, blob, erased FROM events";

/// Names of the columns, in the same order.
pub(crate) const COLUMNS: [&str; 24] = [
    "seq",
    "id",
    "schema_version",
    "observed_at",
    "recorded_at",
    "source",
    "event_type",
    "trace_id",
    "session_id",
    "session_seq",
    "causation_id",
    "domain_tags",
    "attachments",
    "group_seq",
    "batch",
    "signed_by",
    "policy",
    "payload_hash",
    "prev_event_hash",
    "event_hash",
    "signature",
    "payload",
    "blob",
    "erased",
];

/// A column whose value can't stand in a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} has a value that no line can have")]
pub struct RowError {
    pub(crate) column: &'static str,
}

/// A row that was selected with [`SELECT`].
pub(crate) struct Row<'r, 's>(pub &'r rusqlite::Row<'s>);

impl<'r> Row<'r, '_> {
    fn get<T>(&self, at: usize, read: impl FnOnce(ValueRef<'r>) -> Option<T>) -> Result<T, RowError> {
        let column = COLUMNS.get(at).copied().unwrap_or("?");
        let value = self.0.get_ref(at).map_err(|_| RowError { column })?;
        read(value).ok_or(RowError { column })
    }

    fn text(&self, at: usize) -> Result<&'r str, RowError> {
        self.get(at, |value| value.as_str().ok())
    }

    fn optional<T>(&self, at: usize, read: impl FnOnce(ValueRef<'r>) -> Option<T>) -> Result<Option<T>, RowError> {
        self.get(at, |value| match value {
            ValueRef::Null => Some(None),
            value => read(value).map(Some),
        })
    }

    fn optional_text(&self, at: usize) -> Result<Option<&'r str>, RowError> {
        self.optional(at, |value| value.as_str().ok())
    }

    fn parsed<T: std::str::FromStr>(&self, at: usize) -> Result<T, RowError> {
        self.get(at, |value| value.as_str().ok()?.parse().ok())
    }

    fn optional_parsed<T: std::str::FromStr>(&self, at: usize) -> Result<Option<T>, RowError> {
        self.optional(at, |value| value.as_str().ok()?.parse().ok())
    }

    fn number(&self, at: usize) -> Result<u64, RowError> {
        self.get(at, |value| u64::try_from(value.as_i64().ok()?).ok())
    }

    fn hash(&self, at: usize) -> Result<[u8; 32], RowError> {
        self.get(at, |value| value.as_blob().ok()?.try_into().ok())
    }

    /// The seq.
    pub(crate) fn seq(&self) -> Result<Seq, RowError> {
        self.number(0).map(Seq::new)
    }

    /// The event hash, as far as it can be read.
    pub(crate) fn event_hash(&self) -> Option<EventHash> {
        self.hash(19).ok().map(EventHash::from_bytes)
    }

    /// The event. Its texts are taken as they are; whether they make a right line, decoding the encoded line tells.
    pub(crate) fn event(&self) -> Result<Event<'r>, RowError> {
        let session_seq = self.optional(9, |value| u64::try_from(value.as_i64().ok()?).ok())?;
        let session = match (self.optional_text(8)?, session_seq) {
            (Some(id), Some(seq)) => Some((Cow::Borrowed(id), seq)),
            (None, None) => None,
            _ => {
                return Err(RowError { column: "session_seq" });
            }
        };
        let batch = self.optional(14, |value| {
            let (i, n) = value.as_str().ok()?.strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
            let number = |digits: &str| digits.parse::<u32>().ok().filter(|n| n.to_string() == digits);
            Some((number(i)?, number(n)?))
        })?;
        let blob = self.optional(22, |value| {
            let digits = value.as_str().ok()?.strip_prefix("{\"bytes\":")?.strip_suffix('}')?;
            digits.parse::<u64>().ok().filter(|n| n.to_string() == digits)
        })?;
        let erased = self.optional(23, |value| (value.as_i64().ok()? == 1).then_some(()))?;
        let body = match (self.optional_text(21)?, blob, erased) {
            (Some(json), None, None) => Body::Inline(json),
            (None, Some(bytes), None) => Body::Blob { bytes },
            (None, None, Some(())) => Body::Erased,
            (_, None, None) => return Err(RowError { column: "payload" }),
            (_, Some(_), _) => return Err(RowError { column: "blob" }),
            (_, _, Some(())) => return Err(RowError { column: "erased" }),
        };
        Ok(Event {
            seq: self.seq()?,
            id: self.parsed(1)?,
            schema_version: self.number(2).ok().and_then(|n| u16::try_from(n).ok()).ok_or(RowError { column: "schema_version" })?,
            observed_at: self.parsed(3)?,
            recorded_at: self.parsed(4)?,
            source_json: self.text(5)?,
            event_type: self.text(6)?,
            trace_id: self.optional_parsed(7)?,
            session,
            causation_id: self.optional_parsed(10)?,
            domain_tags_json: self.optional_text(11)?,
            attachments_json: self.optional_text(12)?,
            group_seq: self.number(13).map(Seq::new)?,
            batch,
            signed_by: self.optional_text(15)?,
            policy_json: self.optional_text(16)?,
            payload_hash: PayloadHash::from_bytes(self.hash(17)?),
            prev_event_hash: EventHash::from_bytes(self.hash(18)?),
            event_hash: EventHash::from_bytes(self.hash(19)?),
            signature: self.optional_text(20)?,
            body,
        })
    }

    /// Appends the row's exact line, without LF.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        line::encode(&self.event()?, out);
        Ok(())
    }
}

/// Names of the columns in which a row differs from the event of its line.
pub(crate) fn differing(line: &Event<'_>, row: &Event<'_>) -> Vec<&'static str> {
    let body = |event: &Event<'_>| match event.body {
        Body::Inline(_) => "payload",
        Body::Blob { .. } => "blob",
        Body::Erased => "erased",
    };
    [
        (line.seq != row.seq, "seq"),
        (line.id != row.id, "id"),
        (line.schema_version != row.schema_version, "schema_version"),
        (line.observed_at != row.observed_at, "observed_at"),
        (line.recorded_at != row.recorded_at, "recorded_at"),
        (line.source_json != row.source_json, "source"),
        (line.event_type != row.event_type, "event_type"),
        (line.trace_id != row.trace_id, "trace_id"),
        (line.session_id() != row.session_id(), "session_id"),
        (line.session_seq() != row.session_seq(), "session_seq"),
        (line.causation_id != row.causation_id, "causation_id"),
        (line.domain_tags_json != row.domain_tags_json, "domain_tags"),
        (line.attachments_json != row.attachments_json, "attachments"),
        (line.group_seq != row.group_seq, "group_seq"),
        (line.batch != row.batch, "batch"),
        (line.signed_by != row.signed_by, "signed_by"),
        (line.policy_json != row.policy_json, "policy"),
        (line.payload_hash != row.payload_hash, "payload_hash"),
        (line.prev_event_hash != row.prev_event_hash, "prev_event_hash"),
        (line.event_hash != row.event_hash, "event_hash"),
        (line.signature != row.signature, "signature"),
        (line.body != row.body, body(row)),
    ]
    .into_iter()
    .filter_map(|(differs, column)| differs.then_some(column))
    .collect()
}
