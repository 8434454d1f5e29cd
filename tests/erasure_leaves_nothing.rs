//! Goal: once an event is erased, no file of the store has anything of its payload: no segment, plain or compressed, no torn bytes,
//! no page of the mirror or of its WAL, no mirror that was set aside, no blob, no snapshot of an entity. What has nothing to do with it stays as it was.
//!
//! Method: a store with words that nothing else has, put into each of these places; every file is searched for them, byte for byte,
//! in each form that JSON allows, and decompressed. The search finds them before, in each of the places.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::files;
use common::secrets::{self, SECRET, SESSION, check_erased, secrets_in};
use counterfoil::*;

#[test]
fn of_all_secrets() {
    let (_temp, dir, options) = secrets::store();
    let found: Vec<String> = secrets_in(&dir).iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    for place in [
        "mirror.sqlite3",
        "entities.sqlite3",
        "entities.sqlite3-wal",
        "aside-1",
        "02-0-0.torn",
        "03-99-0.torn",
        "03-99-1.torn",
        "damaged-1",
        "damaged-2.zst",
        ".jsonl",
        ".jsonl.zst",
    ] {
        assert!(found.iter().any(|path| path.ends_with(place)), "{place}: {found:?}");
    }
    let before = secrets::lines(&dir);
    let kept = fs::read(dir.join("torn/00000000000000000002-0-1.torn")).unwrap();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let report = store.erase(&Erasure::new(secrets::all(), "a test").by("its author")).unwrap();
    assert_eq!((report.events, report.already_erased, report.recorded.len()), (SECRET.len() as u64, 0, 1));
    assert_eq!((report.done.rows, report.done.missing_count, &report.done.unfinished), (SECRET.len() as u64, 0, &None), "{report:?}");
    // With the store open: the WAL is there.
    check_erased(&dir, &before, "open");
    store.append(common::note("it goes on")).unwrap();
    store.close().unwrap();
    check_erased(&dir, &before, "closed");

    // What was no copy of them is as it was, and what was removed is said.
    assert_eq!(fs::read(dir.join("torn/00000000000000000002-0-1.torn")).unwrap(), kept);
    assert!(dir.join("mirror.sqlite3.aside-2").exists() && dir.join("mirror.sqlite3.aside-1").exists());
    let damaged = fs::read_to_string(dir.join("torn/00000000000000000001.damaged-1")).unwrap();
    assert_eq!(damaged.lines().count(), 4, "seq 3 and 4 are gone, the others stay");
    let names: Vec<_> = report.done.torn.iter().map(|torn| (torn.path.file_name().unwrap().to_str().unwrap(), torn.removed)).collect();
    assert_eq!(
        names,
        [
            ("00000000000000000001.damaged-1", false),
            ("00000000000000000001.damaged-2.zst", false),
            ("00000000000000000002-0-0.torn", false),
            ("00000000000000000003-99-0.torn", true),
            ("00000000000000000003-99-1.torn", true),
            ("00000000000000000003.damaged-3.zst", true),
        ]
    );
    assert_eq!(
        (&report.done.mirrors_rewritten[..], &report.done.mirrors_removed[..]),
        (&[dir.join("mirror.sqlite3.aside-1")][..], &[][..])
    );
    assert!(files(&dir.join("tmp")).is_empty());
}

#[test]
fn one_after_the_other() {
    // Rows move from page to page with each erasure, and leave nothing behind.
    let (_temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    for seq in SECRET {
        let seq = Seq::new(seq);
        erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![seq..=seq]), "a test")).unwrap();
        assert!(common::verified(&dir).is_clean() && common::parity(&dir).is_consistent(), "{seq}");
    }
    check_erased(&dir, &before, "one after the other");
}

#[test]
fn of_a_mirror_where_rows_were_moved() {
    // Many rows of all sizes, deleted and written again in another order: pages are split and joined, and become free.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = common::options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let word = secrets::WORDS[0];
    for n in 0..200 {
        let text = if n % 3 == 0 { format!("{word}{n} ").repeat(1 + n * 2) } else { "nothing ".repeat(1 + n) };
        store.append(common::note(&text)).unwrap();
    }
    store.close().unwrap();
    let conn = common::by_hand(&dir);
    conn.execute_batch(
        "CREATE TEMP TABLE kept AS SELECT * FROM events; DELETE FROM events WHERE seq % 7 != 0 AND seq < 190;
         INSERT OR IGNORE INTO events SELECT * FROM kept ORDER BY seq * 37 % 201",
    )
    .unwrap();
    drop(conn);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in (0..200u64).filter(|n| n % 3 == 0) {
        if n % 2 == 0 {
            store.erase(&Erasure::new(Erase::Seqs(vec![Seq::new(n + 1)..=Seq::new(n + 1)]), "a test")).unwrap();
        }
    }
    let rest = (0..200u64).filter(|n| n % 6 == 3).map(|n| Seq::new(n + 1)..=Seq::new(n + 1)).collect();
    store.erase(&Erasure::new(Erase::Seqs(rest), "a test")).unwrap();
    assert_eq!(secrets_in(&dir), Vec::<PathBuf>::new());
    store.close().unwrap();
    assert_eq!(secrets_in(&dir), Vec::<PathBuf>::new());
    assert!(common::verified(&dir).is_clean() && common::parity(&dir).is_consistent());
}

#[test]
fn of_a_session() {
    let (_temp, dir, options) = secrets::store();
    let report = erase(&dir, &options, &Erasure::new(Erase::Session(SESSION.to_owned()), "a test")).unwrap();
    assert_eq!(report.listed.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), [3, 4, 18]);
    // The other secrets are still there.
    assert!(secrets_in(&dir).iter().all(|path| path.starts_with("segments")
        || path == Path::new("mirror.sqlite3")
        || path == Path::new("mirror.sqlite3.aside-1")
        || path.ends_with("00000000000000000003-99-1.torn")));
    assert!(common::verified(&dir).is_clean() && common::parity(&dir).is_consistent());
}

#[test]
fn of_what_stands_behind_the_header_of_another() {
    let (_temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    // Zeros over the end of a line and the beginning of the next: what is left is one piece, whose header is that of the first. And
    // the same without them.
    let (first, secret) = (&before[&2], &before[&4]);
    let pieces = [[&first[..300], &vec![0; 900], &secret[600..]].concat(), [&first[..300], &secret[600..]].concat()];
    for (n, piece) in pieces.iter().enumerate() {
        fs::write(dir.join(format!("torn/00000000000000000003.damaged-{}", n + 7)), [piece, &b"\n"[..]].concat()).unwrap();
    }
    // What is right stays, also where another event has the same payload.
    let twin = [&before[&13][..], b"\n", &before[&2], b"\n"].concat();
    fs::write(dir.join("torn/00000000000000000003.damaged-9"), &twin).unwrap();
    let one = |seq: u64| Erasure::new(Erase::Seqs(vec![Seq::new(seq)..=Seq::new(seq)]), "a test");
    erase(&dir, &options, &one(21)).unwrap();
    assert!(fs::read(dir.join("torn/00000000000000000003.damaged-9")).unwrap() == twin);
    erase(&dir, &options, &one(4)).unwrap();
    for n in [7, 8] {
        assert!(!dir.join(format!("torn/00000000000000000003.damaged-{n}")).exists(), "{n}");
    }
    erase(&dir, &options, &secrets::erasure()).unwrap();
    check_erased(&dir, &before, "behind another's header");
    assert!(fs::read(dir.join("torn/00000000000000000003.damaged-9")).unwrap() == twin[before[&13].len() + 1..]);
}
