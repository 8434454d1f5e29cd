//! Goal: `sessions` and `stream` show sessions and their events a page at a time, and what they say to run next goes on where the page
//! ended, until all has been shown once. Method: a store with a known clock and known ids, snapshots; and the commands that are
//! advised are run as a person would who copied them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::path::{Path, PathBuf};

use cli_support::*;
use counterfoil::*;
use serde_json::Value;

/// Sessions with names that a shell would take apart, and a payload out of line.
fn many() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().canonicalize().unwrap().join("store");
    let (mut store, _) = Store::open(&dir, &common::options()).unwrap();
    for n in 0..40u64 {
        let session = ["s-1", "it's $HOME", "s-1", "a b", "-x"][(n % 5) as usize];
        store.append(common::note(&"x".repeat(n as usize * 7)).session(session)).unwrap();
    }
    store.close().unwrap();
    (temp, dir)
}

/// The command that a note advises.
fn advised(run: &Run) -> Option<String> {
    let (_, rest) = run.err.split_once("the next ones: `")?;
    Some(rest.rsplit_once('`').unwrap().0.to_owned())
}

/// Standard output of a command and of all that it says to run next.
fn followed(store: &Path, args: &[&str]) -> Vec<String> {
    let mut page = run(store, args);
    let mut all = Vec::new();
    loop {
        assert_eq!(page.code, 0, "{page:?}");
        all.push(page.out.clone());
        match advised(&page) {
            Some(next) => page = run_line(&next),
            None => return all,
        }
        assert!(all.len() < 100);
    }
}

#[test]
fn pages_go_on_where_they_ended() {
    let (_temp, store) = many();
    let first_words = |pages: &[String]| -> Vec<String> {
        let lines = pages.iter().flat_map(|page| page.lines());
        lines.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect()
    };
    let expected: Vec<String> = (1..=16).map(|n| n.to_string()).collect();
    assert_eq!(first_words(&followed(&store, &["stream", "s-1", "--limit", "3"])), expected);
    let backwards: Vec<String> = expected.iter().rev().cloned().collect();
    assert_eq!(first_words(&followed(&store, &["stream", "s-1", "--backwards", "--limit", "3"])), backwards);
    assert_eq!(first_words(&followed(&store, &["stream", "it's $HOME", "--from", "4", "--limit", "2"])), expected[3..8]);
    assert_eq!(first_words(&[run(&store, &["stream", "s-1", "--limit", "0"]).fine()]), expected);
    for order in ["last", "first", "id"] {
        let all = run(&store, &["sessions", "--order", order, "--limit", "0"]).fine();
        let sessions = |text: &str| -> Vec<String> {
            text.lines().skip(2).map(|line| line.split("  ").map(str::trim).find(|part| !part.is_empty()).unwrap().to_owned()).collect()
        };
        let mut page = run(&store, &["sessions", "--order", order, "--limit", "1"]);
        let mut listed = sessions(&page.out);
        while let Some(next) = advised(&page) {
            page = run_line(&next);
            listed.extend(sessions(&page.out));
        }
        assert_eq!(listed, sessions(&all), "{order}");
        assert_eq!(listed.len(), 4);
    }
}

#[test]
fn json_says_where_to_go_on() {
    let (_temp, store) = many();
    let page: Value = serde_json::from_str(&run(&store, &["sessions", "--json", "--limit", "2"]).fine()).unwrap();
    assert_eq!((page["next"].as_str(), page["as_of"].as_u64()), (Some("last-39"), Some(40)));
    let rest: Value = serde_json::from_str(&run(&store, &["sessions", "--json", "--after", "last-39"]).fine()).unwrap();
    let ids = |page: &Value| -> Vec<String> {
        page["sessions"].as_array().unwrap().iter().map(|session| session["session_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((ids(&page), ids(&rest)), (vec!["-x".to_owned(), "a b".to_owned()], vec!["s-1".to_owned(), "it's $HOME".to_owned()]));
    assert_eq!(rest["next"], Value::Null);
    let bytes: usize = (0..40usize).filter(|n| n % 5 == 3).map(|n| n * 7 + 2).sum();
    assert_eq!(page["sessions"][1]["bytes"].as_u64(), Some(bytes as u64));
    let events = run(&store, &["stream", "s-1", "--json", "--backwards", "--limit", "2"]).fine();
    let positions: Vec<_> =
        events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["session_seq"].as_u64().unwrap()).collect();
    assert_eq!(positions, [16, 15]);
}

#[test]
fn what_people_see() {
    let (_temp, store) = sample();
    for (name, args) in [
        ("cli_stream", &["stream", "s-1", "--limit", "3"][..]),
        ("cli_stream_backwards", &["stream", "s-1", "--backwards", "--from", "2"]),
        ("cli_stream_unknown", &["stream", "s-3"]),
        ("cli_stream_beyond", &["stream", "s-1", "--from", "6"]),
        ("cli_sessions_limit", &["sessions", "--limit", "1"]),
        ("cli_sessions_bad_cursor", &["sessions", "--after", "nope"]),
        ("cli_sessions_other_order", &["sessions", "--order", "id", "--after", "last-7"]),
    ] {
        snapshot!(name, run(&store, args).shown(&store));
    }
    // The mirror may be gone for reading a session, not for listing them.
    let before = run(&store, &["stream", "s-2"]).fine();
    remove_mirror(&store);
    assert_eq!(run(&store, &["stream", "s-2"]).fine(), before);
    snapshot!("cli_sessions_no_mirror", run(&store, &["sessions"]).shown(&store));
}
