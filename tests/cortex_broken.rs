//! Goal: a Cortex ledger whose chain is broken in any way is refused as a whole, the message names the line, and no draft comes
//! out of it; whatever a file holds, nothing panics; and what that crate has written is never taken for broken.
//!
//! Method: ledgers are edited in each way there is; every byte of a small one is changed and the verdict compared with that of
//! `crtx-ledger` itself; hostile values are put into rows; and rows with random payloads are sealed by that crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;
mod cortex_support;

use std::collections::BTreeSet;
use std::fs;

use common::*;
use cortex_support::*;
use counterfoil::import::{ChainFault, Format, ImportError, Settings, TranscriptReader, detect};
use counterfoil::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What is said of this file, and at which line.
fn fault(bytes: &[u8]) -> (u64, ChainFault) {
    match drafts_of(bytes) {
        Err(ImportError::BrokenChain { line, fault, .. }) => (line, fault),
        Err(error) => panic!("{error}"),
        Ok(drafts) => panic!("{} drafts", drafts.len()),
    }
}

fn told(rows: &[impl AsRef<str>]) -> String {
    let (line, fault) = fault(text_of(rows).as_bytes());
    format!("line {line}: {fault}")
}

#[test]
fn each_way_to_break_it_names_the_line_and_writes_nothing() {
    let whole = rows((0..6).map(event));
    let edited = |from: &str, to: &str| {
        let mut rows = whole.clone();
        assert!(rows[2].contains(from), "{}", rows[2]);
        rows[2] = rows[2].replace(from, to);
        rows
    };
    let mut said = Vec::new();
    let mut say = |what: &str, rows: &[String]| said.push(format!("{what}\n  {}", told(rows)));
    let value: Value = serde_json::from_str(&whole[2]).unwrap();
    let hash = |key: &str| value[key].as_str().unwrap().to_owned();
    let other = "0".repeat(64);

    say("payload edited", &edited("just a text", "just another"));
    say("payload_hash edited", &edited(&hash("payload_hash"), &other));
    say("event_hash edited", &edited(&hash("event_hash"), &other));
    say("prev_event_hash edited", &edited(&hash("prev_event_hash"), &other));
    let sealed = cortex_ledger::payload_hash(&json!("just another"));
    let mut resealed = edited("just a text", "just another");
    resealed[2] = resealed[2].replace(&hash("payload_hash"), &sealed);
    say("payload and payload_hash edited", &resealed);
    let new = cortex_ledger::event_hash(Some(&hash("prev_event_hash")), &sealed);
    resealed[2] = resealed[2].replace(&hash("event_hash"), &new);
    say("payload and both hashes edited", &resealed);
    say("row dropped", &[&whole[..2], &whole[3..]].concat());
    say("first row dropped", &whole[1..]);
    let mut moved = whole.clone();
    moved.swap(2, 3);
    say("rows in another order", &moved);
    say("row repeated", &[&whole[..3], &whole[2..]].concat());
    let fork = rows((0..4).map(|number| if number == 3 { event(33) } else { event(number) }));
    say("fork", &[&whole[..], &fork[3..]].concat());
    say("another ledger behind it", &[&whole[..], &rows((10..12).map(event))[..]].concat());
    say("schema version unknown", &edited("\"schema_version\":2", "\"schema_version\":3"));
    say("event type unknown", &edited("cortex.event.tool_call.v1", "tool_call.v1"));
    say("source unknown", &edited("{\"type\":\"tool\"", "{\"type\":\"tools\""));
    say("id of another form", &edited("\"id\":\"evt_", "\"id\":\"mem_"));
    say("no time", &edited("2026-05-04T", "2026-05-34T"));
    say("field missing", &edited("\"domain_tags\"", "\"tags\""));
    say("field twice", &edited("\"domain_tags\"", "\"id\":\"evt_00000000000000000000001002\",\"domain_tags\""));
    say("not JSON", &edited("\"payload\":", "\"payload\""));
    snapshots(|| insta::assert_snapshot!("cortex_broken", said.join("\n")));

    // Cut anywhere in the last line it is broken there; cut at its end it is whole.
    let text = text_of(&whole);
    let last = text_of(&whole[..5]).len();
    for end in last + 1..text.len() - 1 {
        let (line, _) = fault(&text.as_bytes()[..end]);
        assert_eq!(line, 6, "cut at {end}");
    }
    for end in [last - 1, last, text.len() - 1] {
        assert!(drafts_of(&text.as_bytes()[..end]).is_ok(), "cut at {end}");
    }
}

#[test]
fn nothing_of_a_broken_one_reaches_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, path) = (temp.path().join("store"), ledger(temp.path(), 6));
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    adopt(&mut store, &path).unwrap();
    append(&path, (6..9).map(event), 0);
    let text = fs::read_to_string(&path).unwrap();
    let before = state(&store, &dir);
    fs::write(&path, text.replace("just a text", "just another")).unwrap();
    let error = adopt(&mut store, &path).unwrap_err().to_string().replace(&path.display().to_string(), "<ledger>");
    insta::assert_snapshot!(error, @"<ledger>, line 3: payload_hash is a97676613c6c00b8097626a28c5b3005c02f5bd6b8ffd022f2d0c3c4eba81a6e, but the payload has 0313f2df5bbf24903a7b5e005f190f2bce36c42e8f711237e5321736ed832929; nothing of the file was recorded; restore it from a copy that verifies, and import that");
    // Not even where bad lines of other formats would be passed over.
    let skipping = Settings { skip_bad: true, ..Settings::default() };
    assert!(matches!(TranscriptReader::open(&path, &skipping), Err(ImportError::BrokenChain { line: 3, .. })));
    assert_eq!(state(&store, &dir), before);
}

/// Whether what keeps `crtx-ledger` from taking it is an event type that is none of its ten.
fn knows_no_such_type(report: &Result<cortex_ledger::audit::Report, cortex_ledger::JsonlError>) -> bool {
    matches!(report, Err(error) if error.to_string().contains("unknown variant `cortex.event."))
}

/// Reasons for which a row is refused that `crtx-ledger` itself would take, see the head of src/import/cortex.rs.
fn is_stricter(fault: &ChainFault) -> bool {
    let text = fault.to_string();
    matches!(fault, ChainFault::NotARow(_)) && (text.contains("is not an event id") || text.contains("is not a trace id"))
}

#[test]
fn every_byte_of_a_small_one_changed_and_the_verdict_compared() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("events.jsonl");
    append(&path, [event(1), event(0)], 2);
    let whole = fs::read(&path).unwrap();
    let settings = Settings { format: Some(Format::Cortex), ..Settings::default() };
    let (mut both, mut stricter, mut looser) = ([0u64; 2], BTreeSet::new(), 0);
    for at in 0..whole.len() {
        for byte in [whole[at] ^ 1, whole[at] ^ 0x20, b'"'] {
            let mut changed = whole.clone();
            changed[at] = byte;
            fs::write(&path, &changed).unwrap();
            let report = cortex_ledger::verify_chain(&path);
            let theirs = report.as_ref().is_ok_and(|report| report.ok());
            let ours = TranscriptReader::open(&path, &settings);
            both[usize::from(theirs)] += 1;
            match (ours, theirs) {
                (Ok(_), true) | (Err(ImportError::BrokenChain { .. }), false) => {}
                (Err(ImportError::BrokenChain { fault, .. }), true) if is_stricter(&fault) => {
                    stricter.insert(fault.to_string());
                }
                (Ok(_), false) if knows_no_such_type(&report) => looser += 1,
                (ours, theirs) => {
                    panic!(
                        "byte {at} changed to {byte}: {:?}, and they say {theirs}: {report:?}",
                        ours.err().map(|error| error.to_string())
                    )
                }
            }
        }
    }
    eprintln!(
        "{} broken, {} whole by that crate's own verdict; taken besides: {looser}; refused besides: {}",
        both[0],
        both[1],
        stricter.len()
    );
    assert!(both[0] > 1000 && both[1] > 100 && !stricter.is_empty(), "{both:?}");
}

/// A row with this payload as JSON text, whose hashes fit what that crate would read of it.
fn row_with(payload: &str) -> String {
    let read: Value = serde_json::from_str(payload).unwrap_or(json!("unreadable"));
    let row = &rows([cortex_core::Event { payload: json!("PAYLOAD"), ..event(0) }])[0];
    let (before, after) = (cortex_ledger::payload_hash(&json!("PAYLOAD")), cortex_ledger::payload_hash(&read));
    let hash = cortex_ledger::event_hash(None, &after);
    row.replace(&cortex_ledger::event_hash(None, &before), &hash).replace(&before, &after).replace("\"PAYLOAD\"", payload)
}

#[test]
fn hostile_values_are_read_as_that_crate_reads_them_or_refused() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let deep_object = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let taken = [
        "123456789012345678901234567890",
        "-0",
        "-0.0",
        "[18446744073709551615,18446744073709551616,-9223372036854775808,-9223372036854775809]",
        "[1e3,1E3,1.50,1e+20,1e20,1e-400,100000000000000000000000,0.000001,1e-7]",
        "{\"b\":1,\"a\":2,\"b\":3,\"\\u0061\":4}",
        "{\"\\ud83d\\ude00\":\"\\u0000\\/\\b\",\"\u{e9}\":{\"z\":[],\"y\":{}}}",
        "{ \"spaced\" : [ 1 , 2 ] }",
        &nested(126),
        &deep_object(126),
    ];
    // With the feature raw_value, which our own use of serde_json turns on here, that crate could not read what it wrote.
    let magic = json!({"$serde_json::private::RawValue": "1", "$serde_json::private::Number": "2"});
    assert!(drafts_of(text_of(&rows([cortex_core::Event { payload: magic, ..event(0) }])).as_bytes()).is_ok());
    let refused = [
        "1e400",
        "[-1e999]",
        "{\"a\":1e400,\"a\":1}",
        "\"\\ud800\"",
        "{\"\\udc00\":1}",
        "{\"a\":\"\\ud800\",\"a\":1}",
        &nested(127),
        &deep_object(127),
        &nested(20_000),
        &deep_object(20_000),
        &("9".repeat(400)),
    ];
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("events.jsonl");
    for (payload, is_taken) in taken.into_iter().map(|payload| (payload, true)).chain(refused.into_iter().map(|payload| (payload, false))) {
        let text = row_with(payload) + "\n";
        let shown: String = payload.chars().take(60).collect();
        fs::write(&path, &text).unwrap();
        assert_eq!(cortex_ledger::verify_chain(&path).is_ok_and(|report| report.ok()), is_taken, "{shown}");
        match drafts_of(text.as_bytes()) {
            Ok(drafts) => assert!(is_taken && drafts[0].payload_bytes() == text.trim_end(), "{shown}"),
            Err(ImportError::BrokenChain { line: 1, fault, .. }) => {
                assert!(!is_taken && fault.to_string().len() < 300, "{shown}: {fault}");
            }
            Err(error) => panic!("{shown}: {error}"),
        }
    }
}

/// Values that stand where others belong.
#[test]
fn fields_of_another_kind_are_refused() {
    let keys = ["id", "schema_version", "observed_at", "recorded_at", "source", "event_type", "trace_id", "session_id", "domain_tags"];
    let keys = keys.iter().chain(&["payload_hash", "prev_event_hash", "event_hash", "signature", "payload"]);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let values = ["null", "1", "-1e999", "\"\"", "\"\\ud800\"", "[]", "{}", "[\"\\ud800\"]", "{\"type\":1}", "true", &deep];
    let row = &rows([event(1)])[0];
    let parsed: serde_json::Map<String, Value> = serde_json::from_str(row).unwrap();
    let mut taken = BTreeSet::new();
    for key in keys {
        for value in values {
            let mut fields: Vec<String> =
                parsed.iter().filter(|(name, _)| name != key).map(|(name, value)| format!("\"{name}\":{value}")).collect();
            fields.push(format!("\"{key}\":{value}"));
            match drafts_of(format!("{{{}}}\n", fields.join(",")).as_bytes()) {
                Ok(_) => drop(taken.insert(format!("{key}: {value}"))),
                Err(ImportError::BrokenChain { line: 1, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let expected = [
        "domain_tags: []",
        "prev_event_hash: null",
        "schema_version: 1",
        "session_id: \"\"",
        "session_id: null",
        "signature: null",
        "trace_id: null",
    ];
    assert_eq!(taken.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn rows_of_older_versions_whose_numbers_were_written_otherwise() {
    // serde_json wrote 1e20 where it now writes 1e+20; the hash is of what was written.
    let (row, hash) = (row_with("[1e+20]"), cortex_ledger::payload_hash(&json!([1e20])));
    assert!(row.contains(&hash));
    let before = blake3::hash(b"[1e20]").to_hex().to_string();
    let event_hash = |hash: &str| cortex_ledger::event_hash(None, hash);
    for written in ["[1e20]", "[1e+20]", "[100000000000000000000.0]"] {
        let older = row.replace(&event_hash(&hash), &event_hash(&before)).replace(&hash, &before).replace("[1e+20]", written);
        assert!(drafts_of(older.as_bytes()).is_ok(), "{written}");
        assert!(drafts_of(row.replace("[1e+20]", written).as_bytes()).is_ok(), "{written}");
        assert!(drafts_of(older.replace("[1", "[2").as_bytes()).is_err(), "{written}");
    }
}

#[test]
fn the_format_is_told_from_the_content() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(detect(&ledger(temp.path(), 2)).unwrap(), Format::Cortex);
    let path = temp.path().join("empty.jsonl");
    cortex_ledger::JsonlLog::open(&path).unwrap();
    assert!(drafts_of(&fs::read(&path).unwrap()).unwrap().is_empty());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: campaign("COUNTERFOIL_CASES", 256) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever its payloads are.
    #[test]
    fn what_that_crate_writes_is_whole(payloads in prop::collection::vec(value(), 1..5)) {
        let events = payloads.into_iter().zip(0..).map(|(payload, number)| cortex_core::Event { payload, ..event(number) });
        let rows = rows(events);
        let drafts = drafts_of(text_of(&rows).as_bytes());
        prop_assert!(drafts.is_ok(), "{}", drafts.unwrap_err());
        let drafts = drafts.unwrap();
        for (draft, row) in drafts.iter().zip(&rows) {
            prop_assert_eq!(draft.payload_bytes(), row);
        }
        prop_assert_eq!(drafts.len(), rows.len() + 1);
    }
}
