//! Goal: append records what it is given, in order, once, and says so; what is wrong is refused and named. Method: runs
//! with arguments and with lines on standard input, the ledger read back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;
use serde_json::Value;

fn receipts(run: Run) -> Vec<Value> {
    run.fine().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn payloads(store: &std::path::Path) -> Vec<String> {
    let lines = run(store, &["export"]).fine();
    lines.lines().map(|line| line.split_once(",\"payload\":").unwrap().1.strip_suffix('}').unwrap().to_owned()).collect()
}

#[test]
fn arguments_become_events_with_all_that_was_said_of_them() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("new store");
    let args = [
        "append",
        "{\"n\": 1.0}",
        "-5",
        "--type",
        "acme.deploy.v2",
        "--source",
        "tool:ba\"sh",
        "--session",
        "s ü",
        "--trace",
        "trc_00000000000000000000000007",
        "--caused-by",
        "evt_00000000000000000000000009",
        "--tag",
        "a",
        "--tag",
        "b",
        "--observed-at",
        "2026-01-02T03:04:05+01:00",
        "--json",
    ];
    let receipts = receipts(run(&store, &args));
    assert_eq!(receipts.iter().map(|receipt| receipt["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    let event: Value = serde_json::from_str(&run(&store, &["show", "2", "--json"]).fine()).unwrap();
    assert_eq!(event["source"], serde_json::json!({"type": "tool", "name": "ba\"sh"}));
    assert_eq!(event["observed_at"], "2026-01-02T02:04:05.000000Z");
    assert_eq!((event["session_id"].as_str(), event["session_seq"].as_u64()), (Some("s ü"), Some(2)));
    assert_eq!(event["domain_tags"], serde_json::json!(["a", "b"]));
    assert_eq!(event["event_hash"], receipts[1]["event_hash"]);
    assert_eq!(payloads(&store), ["{\"n\": 1.0}", "-5"]);
}

#[test]
fn lines_become_events_in_order_and_a_bad_one_stops() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let input: String = (0..3000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let run = run_with_input(&store, &["append", "--session", "s", "--json"], input.as_bytes());
    assert_eq!(receipts(run).len(), 3000);
    assert_eq!(payloads(&store), (0..3000).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
    assert!(common::parity(&store).is_consistent());
    for (input, recorded, named) in [
        (&b"1\r\n\n  2  \nnope\n3\n"[..], 2, "line 4 of standard input: the payload is not valid JSON"),
        (b"1\n\"\xff\"\n", 1, "line 2 of standard input: it is not UTF-8 at byte 1"),
        (b"{\"a\":", 0, "line 1 of standard input"),
    ] {
        let before = payloads(&store).len();
        let run = run_with_input(&store, &["append", "-"], input);
        assert_eq!((run.code, run.out.lines().count()), (2, recorded), "{run:?}");
        assert!(run.err.contains(named) && run.err.contains("the lines before it are recorded"), "{run:?}");
        assert_eq!(payloads(&store).len(), before + recorded);
    }
    let long = [b"\"".as_slice(), &vec![b'x'; 17 << 20], b"\"\n"].concat();
    let run = run_with_input(&store, &["append"], &long);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.err.contains("line 1"), "{run:?}");
}

#[test]
fn a_bad_argument_means_that_nothing_is_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    assert_eq!(run(&store, &["append", "1", "nope"]).code, 2);
    assert_eq!(run(&store, &["append", "1", "--session", ""]).code, 2);
    assert!(!store.exists(), "not even a store");
}

#[test]
fn ids_conditions_and_batches() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let id = "evt_00000000000000000000000009";
    let first = receipts(run(&store, &["append", "1", "--id", id, "--json"]));
    let again = receipts(run(&store, &["append", "1", "--id", id, "--json", "--durability", "mirrored"]));
    assert_eq!((first[0]["duplicate"].as_bool(), again[0]["duplicate"].as_bool()), (Some(false), Some(true)));
    assert_eq!(again[0]["mirror"], "mirrored");
    let other = run(&store, &["append", "2", "--id", id]);
    assert_eq!(other.code, 4);
    assert!(other.err.contains("already in the ledger as seq 1 with other content"), "{other:?}");
    run(&store, &["append", "1", "--session", "s", "--expect-new-session"]).fine();
    run(&store, &["append", "2", "--session", "s", "--expect-session-seq", "1"]).fine();
    assert_eq!(run(&store, &["append", "2", "--session", "s", "--expect-session-seq", "1"]).code, 4);
    assert_eq!(run(&store, &["append", "2", "--session", "s", "--expect-new-session"]).code, 4);
    run_with_input(&store, &["append", "--atomic", "--session", "s", "--expect-session-seq", "2"], b"3\n4\n5\n").fine();
    let event: Value = serde_json::from_str(&run(&store, &["show", "5", "--json"]).fine()).unwrap();
    assert_eq!(event["batch"], serde_json::json!([2, 3]));
    let refused = run_with_input(&store, &["append", "--atomic"], b"6\nnope\n");
    assert_eq!((refused.code, refused.err.contains("nothing was recorded")), (2, true), "{refused:?}");
    assert_eq!(payloads(&store), ["1", "1", "2", "3", "4", "5"]);
}
