//! A line: encoding and decoding, byte for byte as FORMAT.md's section "A line".
//!
//! The decoder takes only what the encoder writes: keys in their order, no white space, canonical escapes.
//! So a header that decodes also encodes back to its own bytes.

use std::borrow::Cow;
use std::fmt;

use super::ids::parse_hex32;
use super::payload;
use super::{Body, Event, EventHash, EventId, EventType, PayloadHash, Seq, Timestamp, TraceId};
use crate::chain;

/// The only event schema so far.
pub(crate) const SCHEMA_VERSION: u16 = 1;
pub(crate) const SESSION_ID_BYTES_MAX: usize = 512;
pub(crate) const TAGS_MAX: usize = 64;
pub(crate) const TAG_BYTES_MAX: usize = 128;

/// Appends a header string: only `"`, `\` and control characters are escaped.
pub(crate) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain_from = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        out.push(b'\\');
        match byte {
            b'"' | b'\\' => out.push(*byte),
            0x08 => out.push(b'b'),
            b'\t' => out.push(b't'),
            b'\n' => out.push(b'n'),
            0x0c => out.push(b'f'),
            b'\r' => out.push(b'r'),
            control => {
                out.extend_from_slice(b"u00");
                super::ids::push_hex(&[*control], out);
            }
        }
    }
    out.extend_from_slice(bytes.get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends the JSON array of these strings.
pub(crate) fn push_strings<S: AsRef<str>>(texts: &[S], out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, text) in texts.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(text.as_ref(), out);
    }
    out.push(b']');
}

fn push_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut from = digits.len();
    let mut rest = number;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        from -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends the bytes that the event hash covers: everything up to, not including, `,"event_hash":"`.
pub(crate) fn push_material(event: &Event<'_>, out: &mut Vec<u8>) {
    let key = |out: &mut Vec<u8>, name: &str| out.extend_from_slice(name.as_bytes());
    key(out, "{\"seq\":");
    push_number(event.seq.get(), out);
    key(out, ",\"id\":\"");
    event.id.push_to(out);
    key(out, "\",\"schema_version\":");
    push_number(event.schema_version.into(), out);
    key(out, ",\"observed_at\":\"");
    event.observed_at.push_to(out);
    key(out, "\",\"recorded_at\":\"");
    event.recorded_at.push_to(out);
    key(out, "\",\"source\":");
    out.extend_from_slice(event.source_json.as_bytes());
    key(out, ",\"event_type\":\"");
    out.extend_from_slice(event.event_type.as_bytes());
    out.push(b'"');
    if let Some(trace_id) = event.trace_id {
        key(out, ",\"trace_id\":\"");
        trace_id.push_to(out);
        out.push(b'"');
    }
    if let Some((session_id, session_seq)) = &event.session {
        key(out, ",\"session_id\":");
        push_string(session_id, out);
        key(out, ",\"session_seq\":");
        push_number(*session_seq, out);
    }
    if let Some(causation_id) = event.causation_id {
        key(out, ",\"causation_id\":\"");
        causation_id.push_to(out);
        out.push(b'"');
    }
    for (name, json) in [(",\"domain_tags\":", event.domain_tags_json), (",\"attachments\":", event.attachments_json)] {
        if let Some(json) = json {
            key(out, name);
            out.extend_from_slice(json.as_bytes());
        }
    }
    key(out, ",\"group_seq\":");
    push_number(event.group_seq.get(), out);
    if let Some((i, n)) = event.batch {
        key(out, ",\"batch\":[");
        push_number(i.into(), out);
        out.push(b',');
        push_number(n.into(), out);
        out.push(b']');
    }
    if let Some(signed_by) = event.signed_by {
        key(out, ",\"signed_by\":\"");
        out.extend_from_slice(signed_by.as_bytes());
        out.push(b'"');
    }
    if let Some(policy) = event.policy_json {
        key(out, ",\"policy\":");
        out.extend_from_slice(policy.as_bytes());
    }
    key(out, ",\"payload_hash\":\"");
    event.payload_hash.push_to(out);
    key(out, "\",\"prev_event_hash\":\"");
    event.prev_event_hash.push_to(out);
    out.push(b'"');
}

/// Appends what follows the hashed bytes, without LF.
pub(crate) fn push_rest(event: &Event<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(chain::HASH_MARK);
    event.event_hash.push_to(out);
    out.push(b'"');
    if let Some(signature) = event.signature {
        out.extend_from_slice(b",\"signature\":\"");
        out.extend_from_slice(signature.as_bytes());
        out.push(b'"');
    }
    match event.body {
        Body::Inline(payload) => {
            out.extend_from_slice(b",\"payload\":");
            out.extend_from_slice(payload.as_bytes());
        }
        Body::Blob { bytes } => {
            out.extend_from_slice(b",\"blob\":{\"bytes\":");
            push_number(bytes, out);
            out.push(b'}');
        }
        Body::Erased => out.extend_from_slice(b",\"erased\":true"),
    }
    out.push(b'}');
}

/// Appends an event's line, without LF, with the event hash that the event has (right or not).
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    push_material(event, out);
    push_rest(event, out);
}

/// Seals: computes the event hash over the header, puts it into the event, and appends the line without LF.
pub(crate) fn seal(event: &mut Event<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    push_material(event, out);
    event.event_hash = chain::event_hash(out.get(start..).unwrap_or_default());
    push_rest(event, out);
}

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

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

type Parsed<T> = Result<T, LineError>;

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn error<T>(&self, problem: LineProblem) -> Parsed<T> {
        Err(LineError { offset: self.at, problem })
    }

    fn skip(&mut self, literal: &str) -> bool {
        let found = self.rest().as_bytes().starts_with(literal.as_bytes());
        if found {
            self.at += literal.len();
        }
        found
    }

    fn expect(&mut self, literal: &'static str) -> Parsed<()> {
        if self.skip(literal) { Ok(()) } else { self.error(LineProblem::Expected(literal)) }
    }

    /// The next `count` bytes, which must not cut a character.
    fn take(&mut self, count: usize, key: &'static str) -> Parsed<&'a str> {
        match self.rest().get(..count) {
            Some(text) => {
                self.at += count;
                Ok(text)
            }
            None => self.error(LineProblem::Value(key)),
        }
    }

    fn number(&mut self, key: &'static str, min: u64, max: u64) -> Parsed<u64> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        let canonical = !text.is_empty() && (text == "0" || !text.starts_with('0'));
        match text.parse::<u64>() {
            Ok(number) if canonical && (min..=max).contains(&number) => {
                self.at += digits;
                Ok(number)
            }
            _ => self.error(LineProblem::Value(key)),
        }
    }

    fn parse<T>(&mut self, bytes: usize, key: &'static str, parse: impl FnOnce(&'a str) -> Option<T>) -> Parsed<T> {
        let from = self.at;
        let text = self.take(bytes, key)?;
        parse(text).ok_or(LineError { offset: from, problem: LineProblem::Value(key) })
    }

    fn hash(&mut self, key: &'static str) -> Parsed<[u8; 32]> {
        self.parse(64, key, |text| parse_hex32(text.as_bytes()))
    }

    fn event_id(&mut self, key: &'static str) -> Parsed<EventId> {
        self.parse(EventId::TEXT_BYTES, key, |text| text.parse().ok())
    }

    fn timestamp(&mut self, key: &'static str) -> Parsed<Timestamp> {
        self.parse(Timestamp::TEXT_BYTES, key, |text| Timestamp::parse_exact(text.as_bytes()))
    }

    /// A header string with canonical escapes, decoded.
    fn string(&mut self, key: &'static str) -> Parsed<Cow<'a, str>> {
        if !self.skip("\"") {
            return self.error(LineProblem::Value(key));
        }
        let mut decoded: Option<String> = None;
        loop {
            let plain = self.rest().bytes().take_while(|b| *b >= 0x20 && *b != b'"' && *b != b'\\').count();
            let text = self.take(plain, key)?;
            if let Some(decoded) = &mut decoded {
                decoded.push_str(text);
            }
            if self.skip("\"") {
                return Ok(decoded.map_or(Cow::Borrowed(text), Cow::Owned));
            }
            let escaped = self.escape(key)?;
            decoded.get_or_insert_with(|| text.to_owned()).push(escaped);
        }
    }

    fn escape(&mut self, key: &'static str) -> Parsed<char> {
        let from = self.at;
        let found = match self.rest().as_bytes() {
            [b'\\', b'u', b'0', b'0', high, low, ..] => {
                let digit = |d: &u8| (d.is_ascii_digit() || (b'a'..=b'f').contains(d)).then(|| (*d as char).to_digit(16)).flatten();
                digit(high).zip(digit(low)).and_then(|(high, low)| {
                    let code = (high << 4 | low) as u8;
                    (code < 0x20 && ![0x08, b'\t', b'\n', 0x0c, b'\r'].contains(&code)).then_some((code as char, 6))
                })
            }
            [b'\\', short, ..] => match short {
                b'"' | b'\\' => Some((*short as char, 2)),
                b'b' => Some(('\u{8}', 2)),
                b't' => Some(('\t', 2)),
                b'n' => Some(('\n', 2)),
                b'f' => Some(('\u{c}', 2)),
                b'r' => Some(('\r', 2)),
                _ => None,
            },
            _ => None,
        };
        match found {
            Some((c, bytes)) => {
                self.at = from + bytes;
                Ok(c)
            }
            None => self.error(LineProblem::Value(key)),
        }
    }

    /// What `parse` consumes, as raw text.
    fn raw(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<()>) -> Parsed<&'a str> {
        let from = self.at;
        parse(self)?;
        Ok(self.text.get(from..self.at).unwrap_or_default())
    }

    /// `[item,item,…]` with 1 to `max` items.
    fn array(&mut self, key: &'static str, max: usize, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect("[")?;
        for _ in 0..max {
            item(self)?;
            if self.skip("]") {
                return Ok(());
            }
            self.expect(",")?;
        }
        self.error(LineProblem::Value(key))
    }

    fn bounded_string(&mut self, key: &'static str, bytes_max: usize) -> Parsed<Cow<'a, str>> {
        let from = self.at;
        let text = self.string(key)?;
        if (1..=bytes_max).contains(&text.len()) { Ok(text) } else { Err(LineError { offset: from, problem: LineProblem::Value(key) }) }
    }

    fn source(&mut self) -> Parsed<()> {
        const KEY: &str = "source";
        self.expect("{\"type\":\"")?;
        for (literal, named) in [
            ("user\"", None),
            ("runtime\"", None),
            ("external_outcome\"", None),
            ("manual_correction\"", None),
            ("child_agent\"", Some(",\"model\":")),
            ("tool\"", Some(",\"name\":")),
        ] {
            if self.skip(literal) {
                if let Some(name) = named {
                    self.expect(name)?;
                    self.string(KEY)?;
                }
                return self.expect("}");
            }
        }
        self.error(LineProblem::Value(KEY))
    }

    fn attachment(&mut self) -> Parsed<()> {
        self.expect("{\"hash\":\"")?;
        self.hash("attachments")?;
        self.expect("\",\"bytes\":")?;
        self.number("attachments", 0, u64::MAX)?;
        self.expect(",\"media_type\":")?;
        self.string("attachments")?;
        self.expect("}")
    }

    fn policy(&mut self) -> Parsed<()> {
        const KEY: &str = "policy";
        self.expect("{\"outcome\":\"")?;
        if !self.skip("warn\"") && !self.skip("break_glass\"") {
            return self.error(LineProblem::Value(KEY));
        }
        self.expect(",\"rules\":")?;
        if !self.skip("[]") {
            self.array(KEY, 1024, |cursor| {
                cursor.expect("{\"id\":")?;
                cursor.string(KEY)?;
                cursor.expect(",\"outcome\":\"")?;
                if !["allow\"", "warn\"", "break_glass\"", "quarantine\"", "reject\""].iter().any(|word| cursor.skip(word)) {
                    return cursor.error(LineProblem::Value(KEY));
                }
                cursor.expect(",\"reason\":")?;
                cursor.string(KEY)?;
                cursor.expect("}")
            })?;
        }
        if self.skip(",\"authorisation\":") {
            self.object_without_space(KEY)?;
        }
        self.expect("}")
    }

    /// Any JSON object that is written without white space between tokens and can't be taken for the hash mark.
    fn object_without_space(&mut self, key: &'static str) -> Parsed<()> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<&serde_json::value::RawValue>();
        match values.next() {
            Some(Ok(value))
                if value.get().starts_with('{')
                    && !value.get().contains(",\"event_hash\":\"")
                    && payload::minify(value.get()) == value.get() =>
            {
                self.at += value.get().len();
                Ok(())
            }
            _ => self.error(LineProblem::Value(key)),
        }
    }
}

/// Decodes a line (without its LF), borrowing from it, and checks that its event hash fits its own bytes.
///
/// What this checks makes a line *right by its own hash*; whether it is right at its place (seq, link,
/// session_seq) and whether its payload's hash is right is for the caller: see [`Event::payload_is_right`].
///
/// # Errors
/// [`LineError`] with the first thing that is wrong and its offset in the line. Never panics, whatever the bytes.
pub fn decode(line: &[u8]) -> Result<Event<'_>, LineError> {
    let event = decode_unhashed(line)?;
    let material = chain::material(line).unwrap_or_default();
    let computed = chain::event_hash(material);
    if computed != event.event_hash {
        return Err(LineError { offset: material.len(), problem: LineProblem::EventHash { stated: event.event_hash, computed } });
    }
    Ok(event)
}

/// Decodes a line without looking at its hash.
pub(crate) fn decode_unhashed(line: &[u8]) -> Result<Event<'_>, LineError> {
    let text = std::str::from_utf8(line).map_err(|e| LineError { offset: e.valid_up_to(), problem: LineProblem::NotUtf8 })?;
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
    let bytes = c.rest().bytes().take_while(|b| *b != b'"').count();
    let event_type = c.parse(bytes, "event_type", |text| EventType::is_well_formed(text).then_some(text))?;
    c.expect("\"")?;
    let trace_id = if c.skip(",\"trace_id\":\"") {
        let trace_id = c.parse(TraceId::TEXT_BYTES, "trace_id", |text| text.parse().ok())?;
        c.expect("\"")?;
        Some(trace_id)
    } else {
        None
    };
    let session = if c.skip(",\"session_id\":") {
        let session_id = c.bounded_string("session_id", SESSION_ID_BYTES_MAX)?;
        c.expect(",\"session_seq\":")?;
        Some((session_id, c.number("session_seq", 1, Seq::MAX.get())?))
    } else {
        None
    };
    let causation_id = if c.skip(",\"causation_id\":\"") {
        let causation_id = c.event_id("causation_id")?;
        c.expect("\"")?;
        Some(causation_id)
    } else {
        None
    };
    let domain_tags_json = if c.skip(",\"domain_tags\":") {
        Some(c.raw(|c| c.array("domain_tags", TAGS_MAX, |c| c.bounded_string("domain_tags", TAG_BYTES_MAX).map(|_| ())))?)
    } else {
        None
    };
    let attachments_json =
        if c.skip(",\"attachments\":") { Some(c.raw(|c| c.array("attachments", usize::MAX, Cursor::attachment))?) } else { None };
    c.expect(",\"group_seq\":")?;
    let group_seq = Seq::new(c.number("group_seq", 1, seq.get())?);
    let batch = if c.skip(",\"batch\":[") {
        let from = c.at;
        let i = c.number("batch", 1, u32::MAX.into())?;
        c.expect(",")?;
        let n = c.number("batch", 2, u32::MAX.into())?;
        c.expect("]")?;
        if i > n {
            return Err(LineError { offset: from, problem: LineProblem::Value("batch") });
        }
        Some((i as u32, n as u32))
    } else {
        None
    };
    let signed_by = if c.skip(",\"signed_by\":\"") {
        let key = c.parse(36, "signed_by", |text| {
            let hex = text.strip_prefix("key_")?;
            hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)).then_some(text)
        })?;
        c.expect("\"")?;
        Some(key)
    } else {
        None
    };
    let policy_json = if c.skip(",\"policy\":") { Some(c.raw(Cursor::policy)?) } else { None };
    c.expect(",\"payload_hash\":\"")?;
    let payload_hash = PayloadHash::from_bytes(c.hash("payload_hash")?);
    c.expect("\",\"prev_event_hash\":\"")?;
    let prev_event_hash = EventHash::from_bytes(c.hash("prev_event_hash")?);
    c.expect("\",\"event_hash\":\"")?;
    let event_hash = EventHash::from_bytes(c.hash("event_hash")?);
    c.expect("\"")?;
    let signature = signature(&mut c, signed_by.is_some())?;
    let body = body(&mut c)?;
    Ok(Event {
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
    })
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

fn body<'a>(c: &mut Cursor<'a>) -> Parsed<Body<'a>> {
    if c.skip(",\"payload\":") {
        let Some(json) = c.rest().strip_suffix('}') else {
            return c.error(LineProblem::Expected("}"));
        };
        return if payload::is_normal(json) { Ok(Body::Inline(json)) } else { c.error(LineProblem::Payload) };
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

impl fmt::Display for Event<'_> {
    /// Its line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        encode(self, &mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}
