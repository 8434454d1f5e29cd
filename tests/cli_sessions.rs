//! Goal: `sessions` and `stream` show sessions and their events a page at a time, and what they say to run next goes on where the page
//! ended, until all has been shown once, whether the mirror is there, behind or missing; and nothing that they say steers a terminal.
//! Method: a store with a known clock and known ids, snapshots; and the commands that are advised are run as a person would who
//! copied them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Runs a command as a person would who copied it; by a shell that has `$'…'`, where it needs that.
fn copied(line: &str) -> Run {
    if !line.contains("$'") {
        return run_line(line);
    }
    let line = line.replacen("counterfoil --store", &format!("{} --store", env!("CARGO_BIN_EXE_counterfoil")), 1);
    Run::of(Command::new("bash").args(["-c", &line]).output().unwrap())
}

/// Standard output of a command and of all that it says to run next.
fn followed(store: &Path, args: &[&str]) -> Vec<String> {
    let mut page = run(store, args);
    let mut all = Vec::new();
    loop {
        assert_eq!(page.code, 0, "{page:?}");
        all.push(page.out.clone());
        match advised(&page) {
            Some(next) => page = copied(&next),
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
            page = copied(&next);
            listed.extend(sessions(&page.out));
        }
        assert_eq!(listed, sessions(&all), "{order}");
        assert_eq!(listed.len(), 4);
    }
}

#[test]
fn a_stream_is_shown_though_a_row_is_wrong_and_the_log_names_it() {
    let (_temp, store) = many();
    let shown = run(&store, &["stream", "s-1", "--limit", "0"]).fine();
    common::by_hand(&store).execute("UPDATE events SET payload = '1' WHERE seq = 11", []).unwrap();
    assert_eq!(run(&store, &["stream", "s-1", "--limit", "0"]).fine(), shown);
    let mut logged = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    logged.env("COUNTERFOIL_LOG", "warn").arg("--store").arg(&store).args(["stream", "s-1", "--limit", "0"]);
    let logged = Run::of(logged.output().unwrap());
    assert_eq!((logged.code, &logged.out), (0, &shown));
    assert!(logged.err.contains("WARN") && logged.err.contains("the row of seq 11, event 5 of stream `s-1`, is wrong"), "{logged:?}");
    assert_eq!(logged.err.matches("WARN").count(), 1, "{logged:?}");
}

/// First words of what a command and all that it says to run next print.
fn positions(store: &Path, args: &[&str]) -> Vec<u64> {
    let pages = followed(store, args);
    pages.iter().flat_map(|page| page.lines()).map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn ids_that_would_steer_a_terminal_or_be_options_go_on_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().canonicalize().unwrap().join("store");
    let ids = ["a\u{1b}[31mred", "new\nline", "\u{202e}turned \\ 'round'\u{7f}1", "-dash", "--limit", "-it's\u{9b}7m", "z"];
    let (mut store, _) = Store::open(&dir, &common::options()).unwrap();
    for n in 0..5 {
        for id in ids {
            store.append(common::note(&n.to_string()).session(id)).unwrap();
        }
    }
    store.close().unwrap();
    let is_plain = |run: &Run| {
        let text = format!("{}{}", run.out, run.err);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
    };
    for id in ids {
        let args: &[&str] = &["stream", "--limit", "2", "--", id];
        let page = run(&dir, args);
        is_plain(&page);
        assert_eq!(page.err.lines().count(), 1, "{page:?}");
        assert_eq!(positions(&dir, args), [1, 2, 3, 4, 5], "{id:?}");
    }
    let (mut page, mut pages) = (run(&dir, &["sessions", "--order", "id", "--limit", "1"]), 1);
    while let Some(next) = advised(&page) {
        is_plain(&page);
        page = copied(&next);
        pages += 1;
    }
    assert_eq!((page.code, pages), (0, ids.len()), "{page:?}");
}

#[test]
fn nothing_is_hidden_where_the_mirror_is_missing_or_behind() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().canonicalize().unwrap().join("store");
    let options = common::options(); // ids go on where they were
    let older = |rows: u64| temp.path().join(format!("{rows}.sqlite3"));
    for rows in (0..=40u64).step_by(4) {
        let mut filling = Store::open(&store, &options).unwrap().0;
        for n in filling.head().seq.get()..rows {
            filling.append(common::note("x").session(["s-1", "s-2", "s-1", "s-3", "s-4"][(n % 5) as usize])).unwrap();
        }
        filling.close().unwrap();
        std::fs::copy(store.join("mirror.sqlite3"), older(rows)).unwrap();
    }
    let all: Vec<u64> = (1..=16).collect();
    let backwards: Vec<u64> = (1..=16).rev().collect();
    for rows in (0..=40).rev().step_by(4).map(Some).chain([None]) {
        remove_mirror(&store);
        if let Some(rows) = rows {
            std::fs::copy(older(rows), store.join("mirror.sqlite3")).unwrap();
        }
        for limit in ["1", "3", "4", "15", "16", "17"] {
            assert_eq!(positions(&store, &["stream", "s-1", "--limit", limit]), all, "{rows:?} rows, {limit}");
            assert_eq!(positions(&store, &["stream", "s-1", "--backwards", "--limit", limit]), backwards, "{rows:?} rows, {limit}");
        }
        // A page that is the last one says nothing.
        assert_eq!(run(&store, &["stream", "s-1", "--from", "15", "--limit", "2"]).err, "", "{rows:?} rows");
        let Some(rows) = rows else { continue };
        let listed = run(&store, &["sessions"]);
        assert_eq!(listed.code, 0, "{listed:?}");
        let told = format!("counterfoil: counted up to seq {rows} of 40, since the mirror is behind; the next append catches up, or run `");
        assert_eq!(listed.err.contains(&told), rows < 40, "{listed:?}");
    }
    // Without a mirror there is no list, and none is begun.
    std::fs::remove_file(store.join("sessions.sqlite3")).unwrap();
    assert_eq!(run(&store, &["sessions"]).code, 4);
    assert!(!store.join("sessions.sqlite3").exists());
    let none = run(&store, &["stream", "s-1", "--backwards", "--from", "0"]);
    assert_eq!(none.code, 2, "{none:?}");
}

#[test]
fn json_is_cut_where_that_was_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &common::options()).unwrap();
    for n in 0..1203u64 {
        store.append(common::note("x").session(format!("s-{n}"))).unwrap();
        if n < 70 {
            store.append(common::note("x").session("long")).unwrap();
        }
    }
    store.close().unwrap();
    let lines = |args: &[&str]| run(&dir, args).fine().lines().count();
    assert_eq!((lines(&["stream", "long", "--json"]), lines(&["stream", "long", "--json", "--limit", "3"])), (70, 3));
    assert_eq!(lines(&["stream", "long"]), 50);
    // A list that is longer than what is held at once is one document, and as many tables as it takes.
    let all: Value = serde_json::from_str(&run(&dir, &["sessions", "--json", "--limit", "0"]).fine()).unwrap();
    let ids: std::collections::BTreeSet<&str> =
        all["sessions"].as_array().unwrap().iter().map(|session| session["session_id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), &all["next"], all["as_of"].as_u64()), (1204, &Value::Null, Some(1273)));
    assert_eq!(lines(&["sessions", "--limit", "0"]), 1204 + 2 * 2);
    let empty = temp.path().join("empty");
    Store::open(&empty, &common::options()).unwrap().0.close().unwrap();
    assert_eq!(run(&empty, &["sessions", "--json"]).fine(), "{\"sessions\":[],\"next\":null,\"as_of\":0}\n");
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
