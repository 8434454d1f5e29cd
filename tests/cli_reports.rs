//! Goal: each read command reports what the store holds, in words that stay as they are. Method: a store with a known
//! clock and known ids, snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;

/// Sizes of SQLite's files, free space and versions differ from machine to machine.
fn masked(text: &str) -> String {
    let mask = |line: &str| match line {
        _ if line.starts_with("mirror ") => "mirror       <sizes>".to_owned(),
        _ if line.contains("  disk  ") => "  ok     disk       <free>".to_owned(),
        _ if line.contains("  sqlite  ") => "  ok     sqlite     <version>".to_owned(),
        line => line.to_owned(),
    };
    text.lines().map(|line| mask(line) + "\n").collect()
}

#[test]
fn read_commands_report() {
    let (_temp, store) = sample();
    for (name, args) in [
        ("cli_export_session", &["export", "--session", "s-2", "--from", "8"][..]),
        ("cli_tail", &["tail", "-n", "5"]),
        ("cli_show", &["show", "6"]),
        ("cli_show_json", &["show", "6", "--json"]),
        ("cli_sessions", &["sessions"]),
        ("cli_sessions_json", &["sessions", "--json"]),
        ("cli_query", &["query", "SELECT seq, session_id, payload_hash, causation_id AS cause FROM events WHERE seq < 3"]),
        ("cli_query_json", &["query", "--json", "SELECT seq, seq, payload_hash, 1.5 AS r, NULL AS n FROM events WHERE seq < 3"]),
        ("cli_query_limit", &["query", "--limit", "2", "SELECT seq FROM events"]),
        ("cli_stats", &["stats"]),
        ("cli_verify", &["verify"]),
        ("cli_verify_json", &["verify", "--json"]),
        ("cli_parity", &["parity"]),
        ("cli_parity_full", &["parity", "--full"]),
        ("cli_parity_json", &["parity", "--full", "--json"]),
        ("cli_doctor", &["doctor"]),
    ] {
        let run = run(&store, args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        snapshot!(name, masked(&run.shown(&store)));
    }
}

#[test]
fn export_gives_the_ledgers_bytes() {
    let (_temp, store) = sample();
    assert!(segments(&store).len() > 2);
    let all = run(&store, &["export"]).fine();
    assert_eq!(all.as_bytes(), common::ledger_bytes(&store));
    let some = run(&store, &["export", "--from", "3", "--to", "5"]).fine();
    assert_eq!(some, all.split_inclusive('\n').skip(2).take(3).collect::<String>());
    assert_eq!(run(&store, &["tail", "-n", "3", "--json"]).fine(), all.split_inclusive('\n').skip(9).collect::<String>());
}

#[test]
fn show_finds_by_id_with_and_without_a_mirror() {
    let (_temp, store) = sample();
    let record: serde_json::Value = serde_json::from_str(&run(&store, &["show", "9", "--json"]).fine()).unwrap();
    let id = record["id"].as_str().unwrap();
    let by_mirror = run(&store, &["show", id]).fine();
    remove_mirror(&store);
    assert_eq!(run(&store, &["show", id]).fine(), by_mirror);
}

#[test]
fn nothing_steers_the_terminal() {
    let (_temp, store) = sample();
    for args in [&["tail"][..], &["show", "4"], &["query", "SELECT payload, char(27) FROM events"]] {
        let run = run(&store, args).fine();
        assert!(run.chars().all(|c| c == '\n' || !c.is_control()), "{args:?}: {run:?}");
    }
}
