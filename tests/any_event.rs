//! Goal: any draft whatever goes to its line and back, and through the mirror, to the same bytes; and no bytes whatever
//! make the decoder panic, or pass for a line that they are not.
//!
//! Method: proptest over strings with controls, quotes and all of Unicode, payloads with odd white space, escapes and
//! numbers; lines mutated at random. The seed is fixed; COUNTERFOIL_ANY_EVENT_ROUNDS says how many drafts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::cell::RefCell;

use common::*;
use counterfoil::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

/// Text of 1 to 40 characters, as bad as it gets.
fn text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        '"', '\\', '\u{0}', '\u{1}', '\u{8}', '\t', '\n', '\u{c}', '\r', '\u{1f}', '\u{7f}', '\u{2028}', '\u{feff}', '/', ',', '{',
    ]);
    prop::collection::vec(prop_oneof![odd, any::<char>(), prop::char::range('a', 'z')], 1..40).prop_map(|chars| chars.into_iter().collect())
}

fn space() -> impl Strategy<Value = String> {
    "[ \t\n\r]{0,3}"
}

/// JSON text, with the white space and the spellings that JSON allows.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("\"\\ud800\\u00e9\\/\"".to_owned()),
        Just("\"{\\\"seq\\\":1,\\\"event_hash\\\":\\\"\"".to_owned()),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        string.clone(),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        let item = (space(), inner, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}")).boxed();
        prop_oneof![
            prop::collection::vec(item.clone(), 1..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((string.clone(), item), 1..5).prop_map(|items| {
                let items: Vec<String> = items.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", items.join(","))
            }),
        ]
    })
}

fn draft() -> impl Strategy<Value = Draft> {
    let source = prop_oneof![
        Just(Source::User),
        Just(Source::Runtime),
        Just(Source::ExternalOutcome),
        Just(Source::ManualCorrection),
        text().prop_map(Source::tool),
        text().prop_map(Source::child_agent),
        Just(Source::tool("")),
    ];
    let event_type = "[a-z][a-z0-9_]{0,20}(\\.[a-z][a-z0-9_]{0,20}){0,3}\\.v[1-9][0-9]{0,3}".prop_map(|name| EventType::new(name).unwrap());
    let head = (event_type, source, prop::option::of(any::<i64>()), prop::option::of(any::<u128>()), prop::option::of(any::<u128>()));
    let rest = (prop::option::of(text()), prop::collection::vec(text(), 0..5), space(), json(), space());
    (head, rest).prop_map(|((event_type, source, at, trace, cause), (session, tags, before, json, after))| {
        let mut draft = Draft::new(event_type, source).payload_json(format!("{before}{json}{after}")).unwrap();
        if let Some(at) = at {
            draft = draft.observed_at(Timestamp::from_micros(at));
        }
        if let Some(trace) = trace {
            draft = draft.trace(TraceId::from_u128(trace));
        }
        if let Some(cause) = cause {
            draft = draft.caused_by(EventId::from_u128(cause));
        }
        if let Some(session) = session {
            draft = draft.session(session);
        }
        // A character has four bytes at most, so 32 of them fit a tag.
        tags.into_iter().fold(draft, |draft, tag| draft.tag(tag.chars().take(32).collect::<String>()))
    })
}

#[test]
fn goes_to_its_line_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    let store = RefCell::new(Store::open(&dir, &options).unwrap().0);
    let cases = campaign("COUNTERFOIL_ANY_EVENT_ROUNDS", 256) as u32;
    runner(cases)
        .run(&draft(), |draft| {
            let checked = checked(draft.clone());
            let mut store = store.borrow_mut();
            let receipt = store.append(draft.clone()).unwrap();
            let line = store.reader().unwrap().line(receipt.seq).unwrap().expect("the line is there");
            prop_assert!(!line.contains(&b'\n') && line.len() < checked.line_bytes_max());
            let event = line::decode(&line).unwrap();
            let mut again = Vec::new();
            line::encode(&event, &mut again);
            prop_assert_eq!(&again, &line);
            prop_assert_eq!(event.payload(), Some(draft.payload_bytes()));
            prop_assert_eq!(event.payload_is_right(), Some(true));
            prop_assert_eq!(event.session_id(), draft.session_id());
            prop_assert_eq!(ContentDigest::of(&event), checked.content());
            // A line is JSON that any other reader understands alike (but for what JSON leaves open: lone surrogates and huge numbers).
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&line) {
                prop_assert_eq!(value.get("session_id").and_then(|id| id.as_str()), draft.session_id());
                prop_assert_eq!(value["domain_tags"].as_array().map_or(0, Vec::len), event.domain_tags().len());
                prop_assert_eq!(value["source"]["type"].as_str(), Some(event.source().kind()));
            }
            Ok(())
        })
        .unwrap();
    store.into_inner().close().unwrap();
    // And every row encodes to its line.
    let report = open_is_clean(&dir, &options);
    assert_eq!(report.recovery.head.seq.get(), u64::from(cases));
    // So the lines come back from the rows alone, byte for byte.
    let lines = segments(&dir);
    std::fs::remove_dir_all(dir.join("segments")).unwrap();
    let repaired = repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!(repaired.lines_restored, u64::from(cases));
    assert!(segments(&dir) == lines);
    open_is_clean(&dir, &options);
}

#[test]
fn the_headers_bound_holds_at_its_worst() {
    let worst = Draft::new(EventType::new(format!("{}.v1", "a".repeat(125))).unwrap(), Source::tool("\u{1}".repeat(300)))
        .id(EventId::from_u128(u128::MAX))
        .trace(TraceId::from_u128(u128::MAX))
        .caused_by(EventId::from_u128(u128::MAX))
        .session("\u{1}".repeat(512));
    let worst = (0..64).fold(worst, |draft, _| draft.tag("\u{1f}".repeat(128)));
    let checked = checked(worst.clone());
    let temp = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(temp.path(), &options()).unwrap();
    let receipts = store.append_batch(vec![worst, note("x")], &Conditions::none()).unwrap();
    let line = store.reader().unwrap().line(receipts[0].seq).unwrap().unwrap();
    let numbers = 4 * 20 + 2 * 10; // seq, session_seq, group_seq, batch at their longest
    assert!(line.len() + 1 + numbers <= checked.line_bytes_max(), "{} of {}", line.len(), checked.line_bytes_max());
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut lines = Vec::new();
    for name in ["00000000000000000001", "00000000000000000007", "00000000000000000010"] {
        let text = std::fs::read(format!("tests/vectors/store-v1/segments/{name}.jsonl")).unwrap();
        lines.extend(text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    let right = |bytes: &[u8]| line::decode(bytes).is_ok_and(|event| event.payload_is_right() != Some(false));
    let mutation = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..6u8);
    runner(4000)
        .run(&(prop::sample::select(lines.clone()), mutation, prop::sample::select(lines)), |(line, (a, b, c, byte, kind), other)| {
            let (from, to) = (a.index(line.len()).min(b.index(line.len())), a.index(line.len()).max(b.index(line.len())));
            let at = c.index(other.len());
            let mutated = match kind {
                0 => [&line[..from], &[byte], &line[from + 1..]].concat(),
                1 => [&line[..from], &line[to..]].concat(),
                2 => [&line[..to], &line[from..]].concat(),
                3 => [&line[..from], &[byte], &line[from..]].concat(),
                4 => [&line[..from], &other[at..]].concat(),
                _ => [&line[..from], "\u{e9}".as_bytes(), &line[to..]].concat(),
            };
            prop_assert!(
                mutated == line || mutated == other || !right(&mutated) || signature_only(&line, &mutated),
                "{}",
                String::from_utf8_lossy(&mutated)
            );
            Ok(())
        })
        .unwrap();
    runner(2000)
        .run(&prop::collection::vec(any::<u8>(), 0..200), |bytes| {
            prop_assert!(line::decode(&bytes).is_err());
            Ok(())
        })
        .unwrap();
}

/// What no hash of the line covers: the signature's text, and whether (and how) an erased or out-of-line payload is gone.
fn signature_only(line: &[u8], mutated: &[u8]) -> bool {
    let (Ok(was), Ok(is)) = (line::decode(line), line::decode(mutated)) else { return false };
    was.event_hash == is.event_hash && (was.signature != is.signature || was.body != is.body && !matches!(is.body, Body::Inline(_)))
}
