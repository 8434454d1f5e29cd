//! Goal: doctor names what is wrong with a store and the command that mends it; running this very command mends it, and
//! doctor itself changes nothing. Method: stores broken in each way, the command taken from the report and run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cli_support::*;

/// Every file and its bytes, but for what SQLite makes beside a database that is read.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else if !path.to_string_lossy().ends_with("-shm") && !path.to_string_lossy().ends_with("-wal") {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Breaks a sample store, lets doctor look, runs the first command that it gives, until all is well.
fn mends(name: &str, break_it: impl Fn(&Path), command: &str, restores_bytes: bool) {
    let (_temp, store) = sample();
    let whole = common::ledger_bytes(&store);
    break_it(&store);
    let before = contents(&store);
    let report = run(&store, &["doctor"]);
    assert_eq!(report.code, 1, "{name}: {report:?}");
    assert_eq!(contents(&store), before, "{name}: doctor changed something");
    let shown: String = report
        .shown(&store)
        .lines()
        .filter(|line| !line.contains("  disk ") && !line.contains("  sqlite "))
        .map(|line| format!("{line}\n"))
        .collect();
    snapshot!(format!("cli_doctor_{name}"), shown);
    let advised: Vec<_> = report.out.lines().filter_map(|line| line.trim().strip_prefix("run: ")).collect();
    assert!(advised.first().is_some_and(|first| first.ends_with(command)), "{name}: {advised:?}");
    for line in &advised {
        let mended = run_line(line);
        assert!([0, 1].contains(&mended.code), "{name}: {line}: {mended:?}");
    }
    let report = run(&store, &["doctor"]);
    assert_eq!(report.code, 0, "{name}: {report:?}");
    assert!(common::parity(&store).is_consistent() && common::verified(&store).is_clean(), "{name}");
    run(&store, &["append", "\"goes on\""]).fine();
    if restores_bytes {
        assert!(common::ledger_bytes(&store).starts_with(&whole), "{name}: the ledger's bytes are back");
    }
}

#[test]
fn missing_mirror() {
    mends("missing_mirror", remove_mirror, "replay", true);
}

#[test]
fn corrupt_mirror() {
    mends("corrupt_mirror", |store| fs::write(store.join("mirror.sqlite3"), vec![b'x'; 40_000]).unwrap(), "replay", true);
}

#[test]
fn mirror_of_another_ledger() {
    let (_other_temp, other) = sample();
    let options = counterfoil::Options::default();
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = counterfoil::Store::open(temp.path(), &options).unwrap();
    store.close().unwrap();
    drop(other);
    mends_without_snapshot(|store| {
        remove_mirror(store);
        fs::copy(temp.path().join("mirror.sqlite3"), store.join("mirror.sqlite3")).unwrap();
    });
}

#[test]
fn only_the_mirror_is_left() {
    let break_it = |store: &Path| {
        fs::remove_file(store.join("ledger.json")).unwrap();
        fs::remove_dir_all(store.join("segments")).unwrap();
    };
    mends("only_the_mirror_is_left", break_it, "repair --from mirror", true);
}

/// A store of its own, with some events.
fn other_store() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("other");
    run(&store, &["append", "1", "2", "3"]).fine();
    (temp, store)
}

#[test]
fn ledger_json_of_another_ledger() {
    let (_temp, other) = other_store();
    mends_without_snapshot(|store| {
        fs::copy(other.join("ledger.json"), store.join("ledger.json")).unwrap();
    });
}

#[test]
fn segment_of_another_ledger() {
    let (_temp, other) = other_store();
    mends_without_snapshot(|store| {
        fs::copy(&segments(&other)[0], &segments(store)[0]).unwrap();
    });
}

#[test]
fn nothing_is_advised_that_would_be_refused() {
    let (_temp, store) = sample();
    let path = &segments(&store)[1];
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replacen("\"seq\":", "\"sEq\":", 1)).unwrap();
    remove_mirror(&store);
    let report = run(&store, &["doctor"]);
    assert_eq!((report.code, report.out.matches("run: ").count()), (1, 0), "{report:?}");
    snapshot!(
        "cli_doctor_nobody_can_help",
        report
            .shown(&store)
            .lines()
            .filter(|line| !line.contains("  disk ") && !line.contains("  sqlite "))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    );
}

fn mends_without_snapshot(break_it: impl Fn(&Path)) {
    let (_temp, store) = sample();
    break_it(&store);
    let report = run(&store, &["doctor"]);
    assert_eq!(report.code, 1, "{report:?}");
    let advised = report.out.lines().find_map(|line| line.trim().strip_prefix("run: ")).unwrap_or_else(|| panic!("{report:?}"));
    let mended = run_line(advised);
    assert_eq!(mended.code, 0, "{mended:?}");
    assert_eq!(run(&store, &["doctor"]).code, 0);
}

#[cfg(unix)]
#[test]
fn a_segment_that_cannot_be_opened_is_told() {
    let (_temp, store) = sample();
    let path = &segments(&store)[1];
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap(); // "too many levels of symbolic links", for root too
    let report = run(&store, &["doctor"]);
    assert_eq!(report.code, 1, "{report:?}");
    let told = |line: &str| line.trim_start().starts_with("WRONG") && line.contains(" verify ");
    assert!(report.out.lines().any(told), "{report:?}");
}

#[test]
fn missing_segment() {
    mends("missing_segment", |store| fs::remove_file(&segments(store)[1]).unwrap(), "repair --from mirror", true);
}

#[test]
fn all_segments_missing() {
    mends("all_segments_missing", |store| fs::remove_dir_all(store.join("segments")).unwrap(), "repair --from mirror", true);
}

#[test]
fn damaged_sealed_line() {
    mends(
        "damaged_sealed_line",
        |store| {
            let path = &segments(store)[1];
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replacen("it fails", "it fialS", 1)).unwrap();
        },
        "repair --from mirror",
        true,
    );
}

#[test]
fn torn_tail() {
    mends(
        "torn_tail",
        |store| {
            // A group that a crash left half written, behind what the mirror knows.
            let path = segments(store).pop().unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend_from_slice(b"{\"seq\":13,\"id\":\"evt_01M86");
            fs::write(&path, bytes).unwrap();
        },
        "replay",
        true,
    );
}

#[test]
fn truncated_ledger() {
    mends(
        "truncated_ledger",
        |store| {
            let path = segments(store).pop().unwrap();
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        },
        "repair --from mirror",
        true,
    );
}

#[test]
fn missing_manifest() {
    mends("missing_manifest", |store| fs::remove_file(store.join("ledger.json")).unwrap(), "repair --from mirror", true);
}

#[test]
fn damaged_manifest() {
    mends("damaged_manifest", |store| fs::write(store.join("ledger.json"), "{").unwrap(), "repair --from mirror", true);
}

#[test]
fn two_histories() {
    let temp = tempfile::tempdir().unwrap();
    let other = temp.path().join("store");
    fill(&other, "it FAILS");
    mends(
        "two_histories",
        |store| {
            // The mirror of a store that has the same ledger id and went another way.
            remove_mirror(store);
            fs::copy(other.join("mirror.sqlite3"), store.join("mirror.sqlite3")).unwrap();
        },
        "repair --from ledger",
        true,
    );
}

#[test]
fn edited_row() {
    mends(
        "edited_row",
        |store| {
            let mirror = common::by_hand(store);
            mirror.execute("UPDATE events SET payload = '{}' WHERE seq = 4", []).unwrap();
        },
        "repair --from ledger",
        true,
    );
}

#[test]
fn missing_row() {
    mends(
        "missing_row",
        |store| {
            let mirror = common::by_hand(store);
            mirror.execute("DELETE FROM events WHERE seq = 4", []).unwrap();
        },
        "replay",
        true,
    );
}

#[test]
fn no_store() {
    let temp = tempfile::tempdir().unwrap();
    for path in [temp.path().to_owned(), temp.path().join("nothing")] {
        let report = run(&path, &["doctor"]);
        assert_eq!(report.code, 1, "{report:?}");
        assert!(report.out.contains(" init"), "{report:?}");
    }
    assert!(fs::read_dir(temp.path()).unwrap().next().is_none(), "doctor created something");
}

#[test]
fn beyond_repair_is_said() {
    let (_temp, store) = sample();
    remove_mirror(&store);
    fs::remove_file(&segments(&store)[1]).unwrap();
    let report = run(&store, &["doctor"]);
    assert_eq!(report.code, 1);
    assert!(report.out.contains("restore the store from a backup"), "{report:?}");
    assert!(!report.out.contains("run: counterfoil --store") || !report.out.contains("repair --from mirror\n"), "{report:?}");
}
