//! Goal: an erasure takes the snapshots of entities with it, which may have what erased payloads said: wherever it is carried out, and
//! before it counts as done. What was folded before can't be kept afterwards, an older copy that is put back is removed, and what
//! was kept since stays.
//!
//! Method: stores with a snapshot that has a secret; erased by the store, by the next open, by a replay, a repair and by the actors, also
//! where removing fails at first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::secrets::{self, WORDS, secrets_in};
use common::{note, options};
use counterfoil::entity::{SnapshotError, Snapshots};
use counterfoil::*;

const FILE: &str = "entities.sqlite3";

/// A closed store with a secret in the last of three events, and in a snapshot.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    for text in ["one", "two", WORDS[0]] {
        store.append(note(text).session("s-1")).unwrap();
    }
    store.close().unwrap();
    secret_snapshot(&dir);
    (temp, dir)
}

fn secret_snapshot(dir: &Path) {
    secrets::snapshot(dir, &format!("\"{}\"", WORDS[0]), 3);
    assert!(secrets_in(dir).iter().any(|path| path.ends_with(FILE)));
}

fn erasure() -> Erasure {
    Erasure::new(Erase::Seqs(vec![Seq::new(3)..=Seq::new(3)]), "a test")
}

fn open(dir: &Path) -> Snapshots {
    let ledger_id = LedgerReader::open(dir, &Options::default()).unwrap().manifest().ledger_id;
    Snapshots::open(dir, ledger_id, Duration::from_secs(5)).unwrap()
}

/// Options under which a step of the erasure fails.
fn failing_at(at: &'static str) -> Options {
    let mut options = options();
    options.failpoint = Some(Arc::new(move |point| match point == at {
        true => Err(std::io::Error::other("stopped here")),
        false => Ok(()),
    }));
    options
}

fn nothing_is_left(dir: &Path, what: &str) {
    assert_eq!(secrets_in(dir), Vec::<PathBuf>::new(), "{what}");
    assert!(common::verified(dir).is_clean() && common::parity(dir).is_consistent(), "{what}");
}

#[test]
fn by_the_store_while_they_are_open() {
    let (_temp, dir) = filled();
    let mut snapshots = open(&dir);
    let old = snapshots.load("a test", 1, secrets::SESSION).unwrap().unwrap();
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    assert!(snapshots.is_in_place(), "nothing is to be erased yet");
    assert_eq!(store.erase(&erasure()).unwrap().done.unfinished, None);
    nothing_is_left(&dir, "erased");
    // What was folded before goes nowhere, though the connection is still open.
    assert!(!snapshots.is_in_place());
    assert!(matches!(snapshots.save(&old), Err(SnapshotError::Gone { .. })));
    nothing_is_left(&dir, "kept what was folded before");
    store.close().unwrap();
}

#[test]
fn where_it_could_not_be_removed_the_next_open_does_it() {
    let (_temp, dir) = filled();
    let (mut store, _) = Store::open(&dir, &failing_at(failpoint::ERASE_SNAPSHOTS)).unwrap();
    let unfinished = store.erase(&erasure()).unwrap().done.unfinished.unwrap();
    assert!(unfinished.contains("entities' snapshots") && unfinished.contains(FILE) && unfinished.contains("again"), "{unfinished}");
    assert!(dir.join(FILE).exists());
    store.close().unwrap();
    let (store, report) = Store::open(&dir, &options()).unwrap();
    assert_eq!(report.erased.unfinished, None);
    nothing_is_left(&dir, "opened");
    store.close().unwrap();
}

#[test]
fn by_whoever_finishes_what_is_recorded() {
    type Finish = fn(&Path);
    let finishers: [(&str, Finish); 4] = [
        ("open", |dir| drop(Store::open(dir, &options()).unwrap())),
        ("replay", |dir| drop(replay_store(dir, &options(), &mut |_, _| ()).unwrap())),
        ("repair from the ledger", |dir| drop(repair_from_ledger(dir, &options(), &mut |_| ()).unwrap())),
        ("erase again", |dir| drop(erase(dir, &options(), &erasure()).unwrap())),
    ];
    for (what, finish) in finishers {
        let (_temp, dir) = filled();
        assert!(erase(&dir, &failing_at(failpoint::ERASE_RECORDED), &erasure()).is_err());
        assert!(secrets_in(&dir).iter().any(|path| path.ends_with(FILE)), "{what}");
        finish(&dir);
        nothing_is_left(&dir, what);
    }
}

#[test]
fn what_was_kept_since_stays_and_an_older_copy_does_not() {
    let (_temp, dir) = filled();
    let old = fs::read(dir.join(FILE)).unwrap();
    erase(&dir, &options(), &erasure()).unwrap();
    let (name, clean) = ("a test", "\"nothing\"");
    secrets::snapshot(&dir, clean, 3);
    let is_there = |what: &str| {
        drop(Store::open(&dir, &options()).unwrap());
        let loaded = open(&dir).load(name, 1, secrets::SESSION).unwrap();
        assert_eq!(loaded.map(|snapshot| snapshot.state).as_deref(), Some(clean), "{what}");
    };
    is_there("kept since");
    // New torn bytes are looked through; they are nothing that an entity is folded from.
    fs::create_dir_all(dir.join("torn")).unwrap();
    fs::write(dir.join("torn/00000000000000000001-0-0.torn"), "torn").unwrap();
    is_there("torn");

    // Somebody puts an older copy back.
    Snapshots::remove(&dir).unwrap();
    fs::write(dir.join(FILE), &old).unwrap();
    assert!(!secrets_in(&dir).is_empty());
    drop(Store::open(&dir, &options()).unwrap());
    nothing_is_left(&dir, "an older copy");
    assert!(!dir.join(FILE).exists());

    // Or nothing but its WAL, or what is no database.
    for (name, bytes) in [("entities.sqlite3-wal", WORDS[0].as_bytes()), (FILE, WORDS[0].as_bytes())] {
        fs::write(dir.join(name), bytes).unwrap();
        drop(Store::open(&dir, &options()).unwrap());
        nothing_is_left(&dir, name);
    }
}

#[test]
fn begun_while_it_is_carried_out() {
    // As a live entity does, once the file is gone and before all is done: the next open knows that it has nothing of it.
    let (_temp, dir) = filled();
    let mut with = options();
    let at = dir.clone();
    with.failpoint = Some(Arc::new(move |point| {
        if point == failpoint::ERASE_VACUUM {
            secrets::snapshot(&at, "\"nothing\"", 3);
        }
        Ok(())
    }));
    erase(&dir, &with, &erasure()).unwrap();
    nothing_is_left(&dir, "erased");
    drop(Store::open(&dir, &options()).unwrap());
    assert!(open(&dir).load("a test", 1, secrets::SESSION).unwrap().is_some());
}

#[cfg(feature = "actors")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_actors() {
    let (_temp, dir) = filled();
    let ledger = actors::Ledger::open_with(&dir, options()).await.unwrap();
    let snapshots = open(&dir);
    assert!(snapshots.is_in_place());
    let report = ledger.erase(erasure()).await.unwrap();
    assert_eq!(report.done.unfinished, None);
    assert!(!snapshots.is_in_place());
    nothing_is_left(&dir, "by the actors");
    ledger.close().await.unwrap();
}
