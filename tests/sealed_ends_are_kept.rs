//! Goal: an open reads the ends of sealed segments once, and the next one, but for the last segment's, asks only whether their files
//! are those that they were; and what was kept lets nothing through: whatever is done to a segment's file, open says what it says of a store of which nothing
//! was kept. What is kept can be wrong or gone, and nothing is refused for it.
//!
//! Method: stores of a dozen segments and more, with a clock at which their files have long settled, and a disk that counts what is
//! opened. Each damage is done to two of them, with the table and without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::*;
use counterfoil::*;

/// A time at which no file was changed lately.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        "2036-01-01T00:00:00.000000Z".parse().unwrap()
    }
}

/// A closed store of some 20 segments.
fn filled(dir: &Path) -> Options {
    let mut options = small_segments();
    options.clock = Arc::new(Later);
    let (mut store, _) = Store::open(dir, &options).unwrap();
    for n in 0..80 {
        store.append(note(&format!("event {n} of some length")).session(format!("s-{}", n % 3))).unwrap();
    }
    store.close().unwrap();
    assert!(segment_paths(dir).len() > 12);
    options
}

/// Opens and closes the store; answers how many segments were opened to be read.
fn opened(dir: &Path, options: &Options) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let (counting, mut options) = (count.clone(), options.clone());
    options.storage = Arc::new(common::opened::Opened(move |path: &Path, file| -> Box<dyn StorageFile> {
        counting.fetch_add(usize::from(path.parent().is_some_and(|dir| dir.ends_with("segments"))), SeqCst);
        file
    }));
    let (store, report) = Store::open(dir, &options).unwrap();
    assert_eq!((report.recovery.head.seq.get(), report.replay.replayed, report.recovery.torn), (80, 0, None));
    store.close().unwrap();
    count.load(SeqCst)
}

/// What an open says, on which nothing depends but the ledger: the store's own path left out.
fn said(dir: &Path, options: &Options) -> String {
    match Store::open(dir, options) {
        Ok((store, report)) => {
            store.close().unwrap();
            format!("{:?}", report.recovery)
        }
        Err(error) => error.to_string(),
    }
    .replace(&dir.display().to_string(), "<store>")
}

fn sql(dir: &Path, sql: &str) -> usize {
    rusqlite::Connection::open(mirror_path(dir)).unwrap().execute(sql, []).unwrap()
}

fn kept(dir: &Path) -> i64 {
    let conn = rusqlite::Connection::open(mirror_path(dir)).unwrap();
    conn.query_row("SELECT count(*) FROM sealed_ends", [], |row| row.get(0)).unwrap()
}

#[test]
fn they_are_read_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled(&dir);
    let sealed = segment_paths(&dir).len() - 1;
    let first = opened(&dir, &options);
    assert_eq!(kept(&dir), sealed as i64);
    let second = opened(&dir, &options);
    eprintln!("{sealed} sealed segments; the first open opens {first}, the second {second}");
    assert_eq!(first - second, sealed - 1, "the last one is read each time");
    // One that is touched is read again, and no other.
    let path = &segment_paths(&dir)[3];
    fs::write(path, fs::read(path).unwrap()).unwrap();
    assert_eq!(opened(&dir, &options), second + 1);
    // Compressed ones are other files.
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let compressed = store.compress(&Sealed::AllBut(0)).unwrap();
    assert_eq!(compressed.len(), sealed);
    store.close().unwrap();
    assert!(opened(&dir, &options) > sealed);
    assert!(opened(&dir, &options) <= second + 1);
}

#[test]
fn the_actors_keep_them_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = counterfoil::actors::Ledger::open_with(&dir, options.clone()).await.unwrap();
        ledger.close().await.unwrap();
    });
    assert_eq!(kept(&dir), segment_paths(&dir).len() as i64 - 1);
    assert!(opened(&dir, &options) < 8);
}

#[test]
fn what_changed_lately_is_not_kept() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = filled(&dir);
    // The system's own clock: the files are as new as they are.
    options.clock = Options::default().clock;
    let (store, _) = Store::open(&dir, &options).unwrap();
    store.close().unwrap();
    let tables = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    let tables = tables.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'sealed_ends'", [], |row| row.get::<_, i64>(0)).unwrap();
    // On a machine that took more than two seconds for this there is something to keep.
    let oldest = segment_paths(&dir).iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).min().unwrap();
    assert!(tables == 0 || oldest.elapsed().unwrap().as_secs() >= 2);
}

/// What is done to a store's segments.
type Damage = fn(&[PathBuf]);

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let times = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    // The time of its last change of content can be set back by anyone.
    fs::File::options().write(true).open(path).unwrap().set_modified(times.modified().unwrap()).unwrap();
}

const DAMAGES: [(&str, Damage); 9] = [
    ("cut at a line's end", |paths| {
        change(&paths[5], |bytes| {
            let end = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
            bytes.truncate(end + 1);
        });
    }),
    ("cut within a line", |paths| change(&paths[5], |bytes| bytes.truncate(bytes.len() - 7))),
    ("without its last LF", |paths| change(&paths[5], |bytes| bytes.truncate(bytes.len() - 1))),
    ("empty", |paths| change(&paths[5], Vec::clear)),
    ("a bit of its first line", |paths| change(&paths[5], |bytes| bytes[40] ^= 1)),
    ("a bit of its last line", |paths| {
        change(&paths[5], |bytes| {
            let at = bytes.len() - 40;
            bytes[at] ^= 1;
        });
    }),
    ("another in its place", |paths| {
        fs::copy(&paths[6], &paths[5]).unwrap();
    }),
    ("gone", |paths| fs::remove_file(&paths[5]).unwrap()),
    ("two that changed names", |paths| {
        let aside = paths[5].with_extension("aside");
        fs::rename(&paths[5], &aside).unwrap();
        fs::rename(&paths[6], &paths[5]).unwrap();
        fs::rename(&aside, &paths[6]).unwrap();
    }),
];

#[test]
fn what_is_refused_without_them_is_refused_with_them() {
    let temp = tempfile::tempdir().unwrap();
    for (name, damage) in DAMAGES {
        let dirs = ["with", "without"].map(|kind| temp.path().join(format!("{kind} {name}")));
        let options = dirs.each_ref().map(|dir| filled(dir));
        let said = [0, 1].map(|n| {
            opened(&dirs[n], &options[n]);
            assert!(kept(&dirs[n]) > 10);
            if n == 1 {
                sql(&dirs[n], "DROP TABLE sealed_ends");
            }
            damage(&segment_paths(&dirs[n]));
            said(&dirs[n], &options[n])
        });
        // Ledgers of their own, so other hashes.
        assert_eq!(said[0].replace(|c: char| c.is_ascii_hexdigit(), ""), said[1].replace(|c: char| c.is_ascii_hexdigit(), ""), "{name}");
        assert!(said[0].contains("a segment is missing or damaged"), "{name}: {}", said[0]);
    }
}

#[test]
fn nothing_is_refused_for_what_was_kept() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled(&dir);
    for wrong in [
        "UPDATE sealed_ends SET event_hash = zeroblob(32)",
        "UPDATE sealed_ends SET event_hash = zeroblob(32) WHERE first_seq = (SELECT max(first_seq) FROM sealed_ends)",
        "UPDATE sealed_ends SET prev_event_hash = zeroblob(32)",
        "UPDATE sealed_ends SET last_seq = last_seq - 1",
        "UPDATE sealed_ends SET last_seq = -1, first_seq = -first_seq",
        "UPDATE sealed_ends SET event_hash = 'text', inode = 'x'",
        "UPDATE sealed_ends SET bytes = bytes + 1",
        "DELETE FROM sealed_ends",
        "DROP TABLE sealed_ends",
        "ALTER TABLE sealed_ends DROP COLUMN inode",
    ] {
        opened(&dir, &options);
        sql(&dir, wrong);
        let (store, report) = Store::open(&dir, &options).unwrap_or_else(|error| panic!("{wrong}: {error}"));
        assert_eq!((report.recovery.head.seq.get(), report.mirror_set_aside), (80, None), "{wrong}");
        store.close().unwrap();
    }
    assert!(parity(&dir).is_consistent());
}
