//! A row, back to the event and the exact line that it was made from.

use std::borrow::Cow;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};

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

    /// Names of the columns in which the row differs from what this event's row must be.
    pub(crate) fn differing(&self, event: &Event<'_>) -> Vec<&'static str> {
        differing((0..COLUMNS.len()).map(|at| self.0.get_ref(at).ok()), event)
    }
}

/// What is to be bound, as it is read back.
pub(super) fn borrowed<'v>(value: &'v ToSqlOutput<'_>) -> ValueRef<'v> {
    match value {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => value.into(),
        _ => ValueRef::Null,
    }
}

/// Names of the columns whose values, where they can be read, are not those of this event's row.
pub(super) fn differing<'v>(found: impl Iterator<Item = Option<ValueRef<'v>>>, event: &Event<'_>) -> Vec<&'static str> {
    let expected = values(event);
    let pairs = COLUMNS.iter().zip(found.zip(&expected));
    pairs.filter(|(_, (found, expected))| *found != Some(borrowed(expected))).map(|(name, _)| *name).collect()
}

/// The values of an event's row, in the order of [`COLUMNS`].
pub(super) fn values<'e>(event: &'e Event<'_>) -> [ToSqlOutput<'e>; 24] {
    use ToSqlOutput::{Borrowed, Owned};
    let text = |text: &'e str| Borrowed(ValueRef::Text(text.as_bytes()));
    let blob = |bytes: &'e [u8; 32]| Borrowed(ValueRef::Blob(bytes));
    let number = |number: u64| Borrowed(ValueRef::Integer(i64::try_from(number).unwrap_or(i64::MAX)));
    let owned = |text: String| Owned(Value::Text(text));
    let null = Borrowed(ValueRef::Null);
    let or_null = |value: Option<ToSqlOutput<'e>>| value.unwrap_or(Borrowed(ValueRef::Null));
    let (payload, out_of_line, erased) = match event.body {
        Body::Inline(json) => (text(json), null.clone(), null),
        Body::Blob { bytes } => (null.clone(), owned(format!("{{\"bytes\":{bytes}}}")), null),
        Body::Erased => (null.clone(), null, number(1)),
    };
    [
        number(event.seq.get()),
        owned(event.id.to_string()),
        number(event.schema_version.into()),
        owned(event.observed_at.to_string()),
        owned(event.recorded_at.to_string()),
        text(event.source_json),
        text(event.event_type),
        or_null(event.trace_id.map(|id| owned(id.to_string()))),
        or_null(event.session_id().map(text)),
        or_null(event.session_seq().map(number)),
        or_null(event.causation_id.map(|id| owned(id.to_string()))),
        or_null(event.domain_tags_json.map(text)),
        or_null(event.attachments_json.map(text)),
        number(event.group_seq.get()),
        or_null(event.batch.map(|(i, n)| owned(format!("[{i},{n}]")))),
        or_null(event.signed_by.map(text)),
        or_null(event.policy_json.map(text)),
        blob(event.payload_hash.as_bytes()),
        blob(event.prev_event_hash.as_bytes()),
        blob(event.event_hash.as_bytes()),
        or_null(event.signature.map(text)),
        payload,
        out_of_line,
        erased,
    ]
}
