//! Reading lines.

use std::borrow::Cow;

use super::super::{Body, Event, EventHash, EventType, PayloadHash, Seq, TraceId, payload};
use super::cursor::{Cursor, Parsed};
use super::{LineError, LineProblem, SCHEMA_VERSION, SESSION_ID_BYTES_MAX, TAG_BYTES_MAX, TAGS_MAX};
use crate::chain;

/// Decodes a line (without its LF), borrowing from it, and checks that its event hash fits its own bytes.
///
/// What this checks makes a line *right by its own hash*; whether it is right at its place (seq, link,
/// session_seq) and whether its payload's hash is right is for the caller: see [`Event::payload_is_right`].
///
/// # Errors
/// [`LineError`] with the first thing that is wrong and its offset in the line. Never panics, whatever the bytes.
pub fn decode(line: &[u8]) -> Result<Event<'_>, LineError> {
    decode_text(text(line)?)
}

/// The same, of bytes that are known to be text.
pub(crate) fn decode_text(line: &str) -> Result<Event<'_>, LineError> {
    let (event, material_end) = parse(line, payload::is_normal)?;
    let material = line.as_bytes().get(..material_end).unwrap_or_default();
    let computed = chain::event_hash(material);
    if computed != event.event_hash {
        return Err(LineError { offset: material.len(), problem: LineProblem::EventHash { stated: event.event_hash, computed } });
    }
    Ok(event)
}

/// Decodes a line without looking at its hash.
pub(crate) fn decode_unhashed(line: &[u8]) -> Result<Event<'_>, LineError> {
    parse(text(line)?, payload::is_normal).map(|(event, _)| event)
}

/// Decodes a line that has been decoded before: its payload is not read again.
pub(crate) fn decode_again(line: &[u8]) -> Result<Event<'_>, LineError> {
    parse(text(line)?, |_| true).map(|(event, _)| event)
}

fn text(line: &[u8]) -> Result<&str, LineError> {
    std::str::from_utf8(line).map_err(|e| LineError { offset: e.valid_up_to(), problem: LineProblem::NotUtf8 })
}

/// The event, and where the bytes end that its hash covers.
fn parse(text: &str, is_payload: fn(&str) -> bool) -> Result<(Event<'_>, usize), LineError> {
    let mut c = Cursor { text, at: 0 };
    c.expect("{\"seq\":")?;
    let seq = Seq::new(c.number("seq", 1, Seq::MAX.get())?);
    c.expect(",\"id\":\"")?;
    let id = c.event_id("id")?;
    c.expect("\",\"schema_version\":")?;
    let schema_version = SCHEMA_VERSION;
    c.number("schema_version", SCHEMA_VERSION.into(), SCHEMA_VERSION.into())?;
    c.expect(",\"observed_at\":\"")?;
    let observed_at = c.timestamp("observed_at")?;
    c.expect("\",\"recorded_at\":\"")?;
    let recorded_at = c.timestamp("recorded_at")?;
    c.expect("\",\"source\":")?;
    let source_json = c.raw(Cursor::source)?;
    c.expect(",\"event_type\":\"")?;
    let bytes = memchr::memchr(b'"', c.rest().as_bytes()).unwrap_or(c.rest().len());
    let event_type = c.parse(bytes, "event_type", |text| EventType::is_well_formed(text).then_some(text))?;
    c.expect("\"")?;
    let trace_id = c.optional(",\"trace_id\":\"", |c| {
        let trace_id = c.parse(TraceId::TEXT_BYTES, "trace_id", |text| text.parse().ok())?;
        c.expect("\"").map(|()| trace_id)
    })?;
    let session = c.optional(",\"session_id\":", session)?;
    let causation_id = c.optional(",\"causation_id\":\"", |c| {
        let causation_id = c.event_id("causation_id")?;
        c.expect("\"").map(|()| causation_id)
    })?;
    let domain_tags_json = c.optional(",\"domain_tags\":", |c| c.raw(tags))?;
    let attachments_json = c.optional(",\"attachments\":", |c| c.raw(|c| c.array("attachments", usize::MAX, Cursor::attachment)))?;
    c.expect(",\"group_seq\":")?;
    let group_seq = Seq::new(c.number("group_seq", 1, seq.get())?);
    let batch = c.optional(",\"batch\":[", batch)?;
    let signed_by = c.optional(",\"signed_by\":\"", signed_by)?;
    let policy_json = c.optional(",\"policy\":", |c| c.raw(Cursor::policy))?;
    c.expect(",\"payload_hash\":\"")?;
    let payload_hash = PayloadHash::from_bytes(c.hash("payload_hash")?);
    c.expect("\",\"prev_event_hash\":\"")?;
    let prev_event_hash = EventHash::from_bytes(c.hash("prev_event_hash")?);
    // The hash mark can't stand earlier: see [`chain::HASH_MARK`].
    let material_end = c.at + 1;
    c.expect("\",\"event_hash\":\"")?;
    let event_hash = EventHash::from_bytes(c.hash("event_hash")?);
    c.expect("\"")?;
    let signature = signature(&mut c, signed_by.is_some())?;
    let body = body(&mut c, is_payload)?;
    let event = Event {
        seq,
        id,
        schema_version,
        observed_at,
        recorded_at,
        source_json,
        event_type,
        trace_id,
        session,
        causation_id,
        domain_tags_json,
        attachments_json,
        group_seq,
        batch,
        signed_by,
        policy_json,
        payload_hash,
        prev_event_hash,
        event_hash,
        signature,
        body,
    };
    Ok((event, material_end))
}

fn session<'a>(c: &mut Cursor<'a>) -> Parsed<(Cow<'a, str>, u64)> {
    let session_id = c.bounded_string("session_id", SESSION_ID_BYTES_MAX)?;
    c.expect(",\"session_seq\":")?;
    Ok((session_id, c.number("session_seq", 1, Seq::MAX.get())?))
}

fn tags(c: &mut Cursor<'_>) -> Parsed<()> {
    c.array("domain_tags", TAGS_MAX, |c| c.bounded_string("domain_tags", TAG_BYTES_MAX).map(|_| ()))
}

fn batch(c: &mut Cursor<'_>) -> Parsed<(u32, u32)> {
    let from = c.at;
    let i = c.number("batch", 1, u32::MAX.into())?;
    c.expect(",")?;
    let n = c.number("batch", 2, u32::MAX.into())?;
    c.expect("]")?;
    if i > n {
        return Err(LineError { offset: from, problem: LineProblem::Value("batch") });
    }
    Ok((i as u32, n as u32))
}

fn signed_by<'a>(c: &mut Cursor<'a>) -> Parsed<&'a str> {
    let key = c.parse(36, "signed_by", |text| {
        let hex = text.strip_prefix("key_")?;
        hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)).then_some(text)
    })?;
    c.expect("\"").map(|()| key)
}

fn signature<'a>(c: &mut Cursor<'a>, signed: bool) -> Parsed<Option<&'a str>> {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    if !c.skip(",\"signature\":\"") {
        return if signed { c.error(LineProblem::Expected(",\"signature\":\"")) } else { Ok(None) };
    }
    if !signed {
        return c.error(LineProblem::Value("signed_by"));
    }
    // 64 bytes are 86 digits; the engine refuses bits behind the last byte, so each signature has one text.
    let text = c.parse(86, "signature", |text| BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 64).then_some(text))?;
    c.expect("\"")?;
    Ok(Some(text))
}

fn body<'a>(c: &mut Cursor<'a>, is_payload: fn(&str) -> bool) -> Parsed<Body<'a>> {
    if c.skip(",\"payload\":") {
        let Some(json) = c.rest().strip_suffix('}') else {
            return c.error(LineProblem::Expected("}"));
        };
        return if is_payload(json) { Ok(Body::Inline(json)) } else { c.error(LineProblem::Payload) };
    }
    let body = if c.skip(",\"blob\":{\"bytes\":") {
        let bytes = c.number("blob", 0, u64::MAX)?;
        c.expect("}")?;
        Body::Blob { bytes }
    } else {
        c.expect(",\"erased\":true")?;
        Body::Erased
    };
    c.expect("}")?;
    if c.rest().is_empty() { Ok(body) } else { c.error(LineProblem::Trailing) }
}
