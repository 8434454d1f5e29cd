//! Goal: import reports each file, adds nothing twice, goes on past a file that fails, and export --original gives the
//! files back. Method: small transcripts, runs, bytes compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;

use cli_support::*;
use serde_json::Value;

#[test]
fn import_twice_and_export() {
    let temp = tempfile::tempdir().unwrap();
    let (store, out) = (temp.path().join("store"), temp.path().join("out"));
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transcripts");
    let first = run(&store, &["import", fixtures]);
    assert_eq!(first.code, 0, "{first:?}");
    snapshot!("cli_import", first.out.replace(fixtures, "<fixtures>"));
    let again = run(&store, &["import", fixtures, "--json"]).fine();
    let total: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!((total["total"]["appended"].as_u64(), total["total"]["notes"].as_u64()), (Some(0), Some(0)), "{total}");
    assert_eq!(total["total"]["files_failed"], 0);
    run(&store, &["export", "--original", out.to_str().unwrap()]).fine();
    for entry in fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            assert_eq!(fs::read(&path).unwrap(), fs::read(out.join(path.file_name().unwrap())).unwrap(), "{path:?}");
        }
    }
    assert!(common::parity(&store).is_consistent());
}

#[test]
fn a_bad_line_stops_its_file_only() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let folder = temp.path().canonicalize().unwrap().join("transcripts");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.jsonl"), "{\"n\":1}\n{\"n\":\n{\"n\":3}\n").unwrap();
    fs::write(folder.join("b.jsonl"), "{\"n\":4}\n").unwrap();
    let shown = |run: &Run| run.out.replace(&folder.display().to_string(), "<folder>");
    let run_folder = |args: &[&str]| run(&store, &[&["import", folder.to_str().unwrap(), "/nonexistent"], args].concat());
    let failed = run_folder(&[]);
    assert_eq!(failed.code, 4, "{failed:?}");
    snapshot!("cli_import_bad_line", shown(&failed));
    let skipped = run(&store, &["import", folder.to_str().unwrap(), "--skip-bad"]);
    assert_eq!(skipped.code, 0, "{skipped:?}");
    snapshot!("cli_import_skip_bad", shown(&skipped));
    let all = run(&store, &["query", "--json", "SELECT count(*) AS n FROM events WHERE payload LIKE '{\"n\"%'"]).fine();
    assert_eq!(all.trim(), "[{\"n\":3}]");
}

#[test]
fn ctrl_c_closes_the_store_and_reports() {
    let temp = tempfile::tempdir().unwrap();
    let (store, transcript) = (temp.path().join("store"), temp.path().join("long.jsonl"));
    let lines: String = (0..400_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    fs::write(&transcript, lines).unwrap();
    let mut import = Running(command(&store, &["import", transcript.to_str().unwrap(), "--json"]).spawn().unwrap());
    let segment = store.join("segments/00000000000000000001.jsonl");
    until("some events are there", || fs::read(&segment).is_ok_and(|bytes| memchr::memmem::find(&bytes, b"\n{\"seq\":500,").is_some()));
    let killed = std::process::Command::new("kill").args(["-INT", &import.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut import.0.stdout.take().unwrap(), &mut out).unwrap();
    assert_eq!(import.0.wait().unwrap().code(), Some(4));
    let total: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(total["total"]["interrupted"], true);
    let parity = common::parity(&store);
    assert!(parity.is_consistent(), "{parity}");
    assert_eq!(total["total"]["appended"], parity.jsonl_event_count);
    assert_eq!(total["total"]["mirrored_through"], parity.jsonl_event_count);
    assert!(parity.jsonl_event_count < 400_000);
}

#[cfg(target_os = "linux")]
#[test]
fn odd_names_are_told_and_steer_no_terminal() {
    use std::os::unix::ffi::OsStrExt;
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let folder = temp.path().join("transcripts");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"no\xffutf.jsonl")), "{\"n\":1}\n").unwrap();
    fs::write(folder.join("a\n\x1b[31m.jsonl"), "{\"n\":2}\n").unwrap();
    let json = run(&store, &["--json", "import", folder.to_str().unwrap()]).fine();
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3, "{json}");
    assert_eq!((&rows[0]["appended"], &rows[1]["appended"], &rows[2]["total"]["appended"]), (&1.into(), &1.into(), &2.into()));
    let told = run(&store, &["import", folder.to_str().unwrap()]).fine();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(!told.contains('\x1b'), "{told}");
}

#[test]
fn a_mirror_that_cant_be_written_holds_nothing_up() {
    let (_temp, store) = sample();
    let transcript = store.join("../new.jsonl");
    fs::write(&transcript, "{\"n\":1}\n").unwrap();
    let other = counterfoil::rusqlite::Connection::open(store.join("mirror.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let import = run(&store, &["import", transcript.to_str().unwrap()]);
    assert_eq!(import.code, 4, "{import:?}");
    assert!(import.out.contains("1 appended") && import.err.contains("the mirror is behind: "), "{import:?}");
    let append = run(&store, &["append", "1"]);
    assert_eq!((append.code, append.err.matches("the mirror is behind: ").count()), (0, 1), "{append:?}");
    other.execute_batch("ROLLBACK").unwrap();
    run(&store, &["append", "2"]).fine();
    assert!(common::parity(&store).is_consistent());
}
