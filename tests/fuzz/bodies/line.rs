//! The line decoder: what decodes encodes to the same bytes, and any other JSON parser reads the same from it.

use counterfoil::{Body, ContentDigest, Event, chain, line};

const MARK: &[u8] = b",\"event_hash\":\"";

pub fn run(data: &[u8]) {
    check(data);
    // A hash that fits is nothing that bytes come upon by chance.
    if let Some(resealed) = reseal(data) {
        check(&resealed);
    }
}

/// The line with the event hash that fits its bytes.
pub fn reseal(line: &[u8]) -> Option<Vec<u8>> {
    let material = chain::material(line)?;
    let from = material.len() + MARK.len();
    let mut resealed = line.to_vec();
    resealed.get_mut(from..from + 64)?.copy_from_slice(chain::event_hash(material).to_string().as_bytes());
    Some(resealed)
}

fn check(data: &[u8]) {
    let event = match line::decode(data) {
        Ok(event) => event,
        Err(error) => {
            assert!(error.offset <= data.len(), "{error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut again = Vec::new();
    line::encode(&event, &mut again);
    assert_eq!(again, data, "it encodes to other bytes");
    assert_eq!(chain::event_hash(chain::material(data).unwrap_or_default()), event.event_hash);
    assert!(!data.contains(&b'\n'));
    let _ = ContentDigest::of(&event);
    let record = serde_json::to_string(&event.to_record()).expect("a record is JSON");
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(&record).is_ok());
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(data) {
        reads_alike(&event, &object);
    }
    // The bytes of a second line behind it are no part of it.
    for rest in [&b"\n"[..], b"}", b" ", b",", b"\0", data] {
        assert!(line::decode(&[data, rest].concat()).is_err());
    }
}

fn reads_alike(event: &Event<'_>, object: &serde_json::Map<String, serde_json::Value>) {
    let text = |key: &str| object.get(key).and_then(|value| value.as_str());
    let number = |key: &str| object.get(key).and_then(|value| value.as_u64());
    assert_eq!(number("seq"), Some(event.seq.get()));
    assert_eq!(text("id"), Some(event.id.to_string().as_str()));
    assert_eq!(text("event_type"), Some(event.event_type));
    assert_eq!(text("session_id"), event.session_id());
    assert_eq!(number("session_seq"), event.session_seq());
    assert_eq!(number("group_seq"), Some(event.group_seq.get()));
    assert_eq!(text("observed_at"), Some(event.observed_at.to_string().as_str()));
    assert_eq!(text("event_hash"), Some(event.event_hash.to_string().as_str()));
    let source = object.get("source").expect("a source");
    assert_eq!(source["type"].as_str(), Some(event.source().kind()));
    assert_eq!(source.get("name").or(source.get("model")).and_then(|name| name.as_str()), event.source().name());
    let tags: Vec<&str> =
        object.get("domain_tags").and_then(|tags| tags.as_array()).into_iter().flatten().filter_map(|tag| tag.as_str()).collect();
    assert_eq!(tags, event.domain_tags());
    let bodies = ["payload", "blob", "erased"].map(|key| object.contains_key(key));
    assert_eq!(bodies, [matches!(event.body, Body::Inline(_)), matches!(event.body, Body::Blob { .. }), event.body == Body::Erased]);
}
