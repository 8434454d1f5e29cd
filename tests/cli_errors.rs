//! Goal: every error has its exit code and a text that says what to do next; nothing panics. Method: snapshots of each
//! error text, and odd input of all kinds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;
use std::os::unix::ffi::OsStrExt;

use cli_support::*;

#[test]
fn error_texts() {
    let (temp, store) = sample();
    let nothing = temp.path().canonicalize().unwrap().join("nothing");
    let file = segments(&store)[0].clone();
    for (name, store, args, code) in [
        ("cli_error_no_store", &nothing, &["tail"][..], 4),
        ("cli_error_not_a_folder", &file, &["verify"], 4),
        ("cli_error_payload", &store, &["append", "{nope}"], 2),
        ("cli_error_event_type", &store, &["append", "1", "--type", "Tool Call"], 2),
        ("cli_error_reserved_type", &store, &["append", "1", "--type", "counterfoil.erasure.v1"], 2),
        ("cli_error_id", &store, &["append", "1", "--id", "evt_1"], 2),
        ("cli_error_source", &store, &["append", "1", "--source", "tool"], 2),
        ("cli_error_time", &store, &["append", "1", "--observed-at", "yesterday"], 2),
        ("cli_error_session", &store, &["append", "1", "--session", ""], 2),
        ("cli_error_id_for_two", &store, &["append", "1", "2", "--id", "evt_00000000000000000000000000"], 2),
        ("cli_error_expect_for_two", &store, &["append", "1", "2", "--session", "s", "--expect-new-session"], 2),
        ("cli_error_wrong_session_seq", &store, &["append", "1", "--session", "s-1", "--expect-session-seq", "9"], 4),
        ("cli_error_show", &store, &["show", "99999999999999999999"], 2),
        ("cli_error_show_nothing", &store, &["show", "77"], 4),
        ("cli_error_sql", &store, &["query", "SELEC 1"], 2),
        ("cli_error_sql_writes", &store, &["query", "DELETE FROM events"], 2),
        ("cli_error_import_nothing", &store, &["import", "/nonexistent/x.jsonl"], 4),
        ("cli_error_demo_in_a_store", &nothing, &["demo", store.to_str().unwrap()], 4),
        ("cli_error_command", &store, &["nope"], 2),
        ("cli_error_json", &nothing, &["stats", "--json"], 4),
        ("cli_error_json_usage", &store, &["show", "--json"], 2),
    ] {
        let run = run(store, args);
        assert_eq!(run.code, code, "{name}: {run:?}");
        assert!(name.contains("import") || run.out.is_empty(), "{name}: {run:?}");
        snapshot!(name, run.shown(store).replace(&temp.path().canonicalize().unwrap().display().to_string(), "<temp>"));
    }
    assert!(!nothing.exists(), "reading creates nothing");
    assert!(common::parity(&store).is_consistent());
    assert_eq!(common::verified(&store).events, 12, "nothing was written");
}

#[test]
fn future_format_and_mirror_are_refused() {
    let (_temp, store) = sample();
    let manifest = fs::read_to_string(store.join("ledger.json")).unwrap();
    fs::write(store.join("ledger.json"), manifest.replace("\"format_version\":1", "\"format_version\":2")).unwrap();
    for args in [&["tail"][..], &["append", "1"], &["verify"]] {
        let run = run(&store, args);
        assert_eq!(run.code, 4);
        assert!(run.err.contains("use a newer counterfoil"), "{run:?}");
    }
    fs::write(store.join("ledger.json"), manifest).unwrap();
    let mirror = rusqlite_open(&store);
    mirror.pragma_update(None, "user_version", 99).unwrap();
    drop(mirror);
    for args in [&["query", "SELECT 1"][..], &["append", "1"], &["replay"]] {
        let run = run(&store, args);
        assert_eq!(run.code, 4);
        assert!(run.err.contains("use a newer counterfoil"), "{run:?}");
    }
}

fn rusqlite_open(store: &std::path::Path) -> counterfoil::rusqlite::Connection {
    counterfoil::rusqlite::Connection::open(store.join("mirror.sqlite3")).unwrap()
}

#[test]
fn odd_arguments_end_with_a_code_and_no_panic() {
    let (_temp, store) = sample();
    let long = "x".repeat(20_000);
    let deep = "[".repeat(50_000);
    for args in [
        &["tail", "-n", "18446744073709551615"][..],
        &["tail", "-n", "0"],
        &["export", "--from", "18446744073709551615"],
        &["export", "--from", "0", "--to", "0"],
        &["sessions", "--limit", "18446744073709551615"],
        &["query", "--limit", "18446744073709551615", "SELECT 1"],
        &["query", ""],
        &["query", "SELECT 1; DELETE FROM events"],
        &["query", "ATTACH '/tmp/x' AS x"],
        &["query", "PRAGMA journal_mode = DELETE"],
        &["query", "SELECT load_extension('x')"],
        &["query", "SELECT cast(x'ff' AS TEXT)"],
        &["show", &long],
        &["append", &deep],
        &["append", "1", "--session", &long],
        &["append", "1", "--tag", &long],
        &["append", "1", "--type", &long],
        &["append", "-1.5e400"],
        &["show", "-1"],
        &["import", ""],
        &["demo", ""],
        &["export", "--original", ""],
    ] {
        let run = run(&store, args);
        assert!([0, 2, 4].contains(&run.code), "{args:?}: {run:?}");
        assert!(!run.err.contains("panicked") && !run.err.contains("RUST_BACKTRACE"), "{args:?}: {run:?}");
        assert!(
            run.code == 0 || run.err.starts_with("counterfoil: ") || run.err.starts_with("error: ") || args[0] == "import",
            "{args:?}: {run:?}"
        );
    }
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    for command in ["show", "append", "query", "import", "nope"] {
        let run = Run::of(cli_support::command(&store, &[command]).arg(bytes).output().unwrap());
        assert!([2, 4].contains(&run.code), "{command}: {run:?}");
        assert!(!run.err.contains("panicked"), "{command}: {run:?}");
    }
}
