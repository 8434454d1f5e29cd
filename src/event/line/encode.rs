//! Writing lines.

use std::fmt;

use super::super::{Body, Event, Timestamp};
use crate::chain;

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
                super::super::ids::push_hex(&[*control], out);
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
    let observed_at = out.len();
    event.observed_at.push_to(out);
    key(out, "\",\"recorded_at\":\"");
    if event.recorded_at == event.observed_at {
        out.extend_from_within(observed_at..observed_at + Timestamp::TEXT_BYTES);
    } else {
        event.recorded_at.push_to(out);
    }
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

/// Appends what follows the hashed bytes, without LF; answers where the signature begins, where there is one.
pub(crate) fn push_rest(event: &Event<'_>, out: &mut Vec<u8>) -> Option<usize> {
    out.extend_from_slice(chain::HASH_MARK);
    event.event_hash.push_to(out);
    out.push(b'"');
    let signature = event.signature.map(|signature| {
        out.extend_from_slice(b",\"signature\":\"");
        let at = out.len();
        out.extend_from_slice(signature.as_bytes());
        out.push(b'"');
        at
    });
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
    signature
}

/// Appends an event's line, without LF, with the event hash that the event has (right or not).
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    push_material(event, out);
    push_rest(event, out);
}

/// Seals: computes the event hash over the header, puts it into the event, and appends the line without LF. Answers where in
/// `out` its signature belongs, where it is to have one.
pub(crate) fn seal(event: &mut Event<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    push_material(event, out);
    event.event_hash = chain::event_hash(out.get(start..).unwrap_or_default());
    push_rest(event, out)
}

impl fmt::Display for Event<'_> {
    /// Its line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        encode(self, &mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}
