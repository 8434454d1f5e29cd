//! Goal: `erase` says what it did and where, and what it refuses; `verify`, `show`, `parity` and `stats` show what was erased, by whom
//! and why.
//! Method: a store with a known clock and known ids, and what each command prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;
use std::path::Path;

use cli_support::*;
use counterfoil::rusqlite;

/// The erasure itself is recorded by the system's clock and with a random id, and so has a hash of its own each time.
fn stable(store: &Path, args: &[&str]) -> String {
    let shown = run(store, args).shown(store);
    let shown: Vec<&str> = shown.lines().map(|line| if line.starts_with("  head ") { "  head      <head>" } else { line }).collect();
    format!("$ counterfoil {}\n{}\n", args.join(" "), shown.join("\n"))
}

#[test]
fn it_says_what_it_did_and_others_show_it() {
    let (_temp, store) = sample();
    fs::copy(store.join("mirror.sqlite3"), store.join("mirror.sqlite3.aside-1")).unwrap();
    fs::create_dir(store.join("torn")).unwrap();
    let line = fs::read(&segments(&store)[0]).unwrap();
    fs::write(store.join("torn/00000000000000000001-0-0.torn"), &line[..line.len() - 40]).unwrap();
    let erase = ["erase", "--seq", "2", "--seq", "5-6", "--reason", "ticket 7", "--by", "the owner"];
    let mut shown = vec![stable(&store, &[&erase[..], &["--dry-run"]].concat()), stable(&store, &erase), stable(&store, &erase)];
    shown.extend([stable(&store, &["verify"]), stable(&store, &["parity", "--full"])]);
    snapshot!("cli_erase", shown.join("\n"));
    snapshot!("cli_erase_show", stable(&store, &["show", "5"]));
    let stats = run(&store, &["stats"]).fine();
    assert!(stats.lines().any(|line| line == "erased       3 events"), "{stats}");
    let verify: serde_json::Value = serde_json::from_str(&run(&store, &["verify", "--json"]).fine()).unwrap();
    assert_eq!(
        (&verify["erased"], &verify["erasures"][0]["by"], &verify["erasures"][0]["events"]),
        (&3.into(), &"the owner".into(), &3.into())
    );
    let doctor = run(&store, &["doctor"]).fine();
    assert!(doctor.contains("all is well"), "{doctor}");
}

#[test]
fn by_id_and_by_session_as_json() {
    let (_temp, store) = sample();
    let id = common::id(0);
    let listed = |args: &[&str]| -> serde_json::Value { serde_json::from_str(&run(&store, args).fine()).unwrap() };
    let first = listed(&["show", "1", "--json"])["id"].as_str().unwrap().to_owned();
    let report = listed(&["erase", "--id", &first, "--reason", "a test", "--json"]);
    assert_eq!((&report["events"], &report["listed"][0]["seq"], &report["done"]["rows"]), (&1.into(), &1.into(), &1.into()));
    let report = listed(&["erase", "--session", "s-2", "--reason", "a test", "--json", "--dry-run"]);
    assert_eq!((&report["dry_run"], report["listed"].as_array().unwrap().len()), (&true.into(), 4));
    let refused = [
        run(&store, &["erase", "--id", &id.to_string(), "--reason", "x"]),
        run(&store, &["erase", "--session", "nobody", "--reason", "x"]),
        run(&store, &["erase", "--seq", "99", "--reason", "x"]),
        run(&store, &["erase", "--seq", "13", "--reason", "x"]),
        run(&store, &["erase", "--seq", "1", "--reason", ""]),
        run(&store, &["erase", "--seq", "0", "--reason", "x"]),
        run(&store, &["erase", "--reason", "x"]),
        run(&store, &["erase", "--seq", "1"]),
    ];
    snapshot!("cli_erase_refused", refused.map(|run| run.shown(&store)).join("\n"));
}

#[test]
fn what_is_not_done_as_a_whole_is_told_until_it_is() {
    let (_temp, store) = sample();
    let mirror = store.join("mirror.sqlite3");
    let reader = rusqlite::Connection::open_with_flags(&mirror, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let erased = run(&store, &["erase", "--seq", "2", "--reason", "a test"]);
    let shown = erased.shown(&store);
    assert!(erased.code == 4 && shown.contains("! not done as a whole: a reader holds") && !shown.contains("every page"), "{shown}");
    let stats = run(&store, &["stats"]).fine();
    assert!(stats.contains("erased       1 event; an erasure is NOT DONE AS A WHOLE"), "{stats}");
    let stats: serde_json::Value = serde_json::from_str(&run(&store, &["stats", "--json"]).fine()).unwrap();
    assert_eq!(stats["mirror"]["erasure_unfinished"], true);
    let doctor = run(&store, &["doctor"]);
    let told = doctor.shown(&store);
    let told: Vec<&str> = told.lines().skip_while(|line| !line.contains("  erasure  ")).take(2).collect();
    assert_eq!(doctor.code, 1, "{told:?}");
    assert!(
        told[0].starts_with("  WRONG  erasure    an erasure is recorded and not done as a whole")
            && told[1].contains("counterfoil --store <store> replay"),
        "{told:?}"
    );
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    run(&store, &["replay"]).fine();
    assert!(run(&store, &["doctor"]).fine().contains("all is well"));
    assert!(run(&store, &["stats"]).fine().lines().any(|line| line == "erased       1 event"));
}

#[test]
fn copies_in_layout_notes_are_named_and_can_be_erased() {
    let (temp, store) = sample();
    let word = "xylophonist";
    let file = temp.path().join("s.jsonl");
    // White space that no payload has, and a line that is none.
    fs::write(&file, format!("{{\"a\":1}}\n{{\"a\":\r\"{word} 2\"}}\nno JSON, {word} 3\n")).unwrap();
    run(&store, &["import", "--format", "jsonl", "--skip-bad", file.to_str().unwrap()]);
    let plain = temp.path().join("plain.jsonl");
    fs::write(&plain, "{\"b\":1}\n{\"b\":2}\n").unwrap();
    run(&store, &["import", "--format", "jsonl", plain.to_str().unwrap()]).fine();
    let holds = || files(&store).iter().any(|bytes| memchr::memmem::find(bytes, word.as_bytes()).is_some());
    assert!(holds());
    let erase = |seqs: &str| run(&store, &["erase", "--seq", seqs, "--reason", "a test"]).fine();
    let told = erase("13-15");
    let told: Vec<&str> = told.lines().filter(|line| line.contains("layout note")).collect();
    assert_eq!(told, ["  ! a copy may be in seq 16, the layout note of the transcript: erase that too"]);
    assert!(holds());
    assert!(!erase("16").contains("layout note") && !holds());
    assert!(!erase("17-18").contains("layout note"), "that one has no bytes of lines");
}

/// What the files of a store hold.
fn files(dir: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![fs::read(path).unwrap()] }).collect()
}
