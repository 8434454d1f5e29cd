//! Goal: the format's test vectors, which other code than ours has written from FORMAT.md, are read, verified,
//! mirrored and written byte for byte. They are a fixture of format version 1 and are kept for ever.
//!
//! Method: `tests/vectors/store-v1` is copied to a temporary folder and opened; `drafts.json` goes through the
//! encoder; rows are encoded back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use counterfoil::*;
use serde_json::Value;

fn vector_lines() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir("tests/vectors/store-v1/segments").unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    names
        .iter()
        .flat_map(|path| fs::read_to_string(path).unwrap().split('\n').map(str::to_owned).collect::<Vec<_>>())
        .filter(|l| !l.is_empty())
        .collect()
}

fn copy(dir: &Path) {
    common::copy_dir(Path::new("tests/vectors/store-v1"), dir);
}

#[test]
fn every_line_decodes_and_encodes_back() {
    let lines = vector_lines();
    assert_eq!(lines.len(), 10);
    for text in &lines {
        let event = line::decode(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
        let mut again = Vec::new();
        line::encode(&event, &mut again);
        assert_eq!(std::str::from_utf8(&again).unwrap(), text);
        assert_ne!(event.payload_is_right(), Some(false));
    }
}

#[test]
fn drafts_come_out_of_the_encoder_byte_for_byte() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use ed25519_dalek::{Signer, SigningKey};
    let file: Value = serde_json::from_str(&fs::read_to_string("tests/vectors/drafts.json").unwrap()).unwrap();
    let ledger_id: LedgerId = file["ledger_id"].as_str().unwrap().parse().unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut prev = chain::genesis(ledger_id);
    for (index, (draft, expected)) in file["drafts"].as_array().unwrap().iter().zip(vector_lines()).enumerate() {
        let payload = Payload::from_json(draft["payload_given"].as_str().unwrap()).unwrap();
        assert_eq!(payload.as_str(), draft["payload"].as_str().unwrap());
        // The structure that drafts.json gives, as the canonical text of the format.
        let text = |key: &str| draft.get(key).map(|value| canonical(key, value));
        let (source, tags, attachments, policy) = (text("source").unwrap(), text("domain_tags"), text("attachments"), text("policy"));
        let parsed = |key: &str| draft.get(key).and_then(Value::as_str);
        let mut event = line::decode(expected.as_bytes()).unwrap();
        // Everything that the line says is replaced by what drafts.json says.
        event.seq = Seq::new(index as u64 + 1);
        event.id = parsed("id").unwrap().parse().unwrap();
        event.observed_at = parsed("observed_at").unwrap().parse().unwrap();
        event.recorded_at = parsed("recorded_at").unwrap().parse().unwrap();
        event.source_json = &source;
        event.event_type = parsed("event_type").unwrap();
        event.trace_id = parsed("trace_id").map(|id| id.parse().unwrap());
        event.session = parsed("session_id").map(|id| (id.into(), draft["session_seq"].as_u64().unwrap()));
        event.causation_id = parsed("causation_id").map(|id| id.parse().unwrap());
        event.domain_tags_json = tags.as_deref();
        event.attachments_json = attachments.as_deref();
        event.group_seq = Seq::new(draft["group_seq"].as_u64().unwrap());
        event.batch = draft.get("batch").map(|b| (b[0].as_u64().unwrap() as u32, b[1].as_u64().unwrap() as u32));
        event.signed_by = parsed("signed_by");
        event.policy_json = policy.as_deref();
        event.payload_hash = payload.hash();
        event.prev_event_hash = prev;
        event.event_hash = EventHash::from_bytes([0; 32]);
        let mut bytes = Vec::new();
        line::encode(&event, &mut bytes);
        event.event_hash = chain::event_hash(chain::material(&bytes).unwrap());
        let signature =
            event.signed_by.map(|_| BASE64_URL_SAFE_NO_PAD.encode(key.sign(&chain::signing_input(ledger_id, event.event_hash)).to_bytes()));
        event.signature = signature.as_deref();
        event.body = if draft.get("erased").is_some() {
            Body::Erased
        } else if draft.get("out_of_line").is_some() {
            Body::Blob { bytes: payload.as_str().len() as u64 }
        } else {
            Body::Inline(payload.as_str())
        };
        bytes.clear();
        line::encode(&event, &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        prev = event.event_hash;
    }
}

/// The canonical text of a structured header value, keys in the format's order.
fn canonical(key: &str, value: &Value) -> String {
    let order: &[&str] = match key {
        "source" => &["type", "model", "name"],
        "attachments" => &["hash", "bytes", "media_type"],
        "policy" => &["outcome", "rules"],
        "rules" => &["id", "outcome", "reason"],
        _ => &[],
    };
    match value {
        Value::Object(map) => {
            let inside: Vec<String> = order.iter().filter_map(|k| Some(format!("\"{k}\":{}", canonical(k, map.get(*k)?)))).collect();
            assert_eq!(inside.len(), map.len(), "{key}");
            format!("{{{}}}", inside.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(|item| canonical(key, item)).collect::<Vec<_>>().join(",")),
        other => serde_json::to_string(other).unwrap(),
    }
}

#[test]
fn the_store_verifies_mirrors_and_encodes_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    copy(&dir);
    let reader = LedgerReader::open(&dir, &Options::default()).unwrap();
    let report = verify(&reader, &mut |_| ()).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.events, report.erased, report.signed, report.segments), (10, 1, 1, 3));

    let (store, opened) = Store::open(&dir, &Options::default()).unwrap();
    assert_eq!(opened.replay.replayed, 10);
    store.close().unwrap();
    let parity = parity_full(&reader, &Options::default(), None, &mut |_| ()).unwrap();
    assert!(parity.is_consistent(), "{parity}");
    assert_eq!((parity.jsonl_event_count, parity.sqlite_event_count), (10, 10));

    // The rows alone give the very files back.
    fs::remove_dir_all(dir.join("segments")).unwrap();
    let repaired = repair_from_mirror(&dir, &Options::default(), &mut |_| ()).unwrap();
    assert_eq!(repaired.lines_restored, 10);
    for name in ["00000000000000000001.jsonl", "00000000000000000007.jsonl", "00000000000000000010.jsonl"] {
        let original = fs::read(Path::new("tests/vectors/store-v1/segments").join(name)).unwrap();
        assert!(fs::read(dir.join("segments").join(name)).unwrap() == original, "{name}");
    }
}
