//! Goal: beside a writer that appends all the time, a check of any length never keeps the mirror's WAL from being emptied for
//! longer than a window of rows takes; what it says is what was there when it began. A mirror that is replaced under a check
//! makes it begin anew, or say that it could not be done: never differences that are none. And an entry that an index has lost is
//! found all the same.
//!
//! Method: the writer is inside the check: whenever that tells its progress, events are appended and SQLite is asked to empty the
//! WAL, which it can't while a read transaction that began before is under way: the one that would have to end it is waiting here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::*;
use counterfoil::*;
use rusqlite::Connection;

const EVENTS: u64 = 14_000;

/// A store with so many events, in some segments.
fn store_of(events: u64) -> (tempfile::TempDir, std::path::PathBuf, Options, Store) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    options.segment_bytes_max = 8 << 20;
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 0..events / 500 {
        append(&mut store, n * 500, 500);
    }
    (temp, dir, options, store)
}

/// One whose mirror has more than the 16 MiB that are checked in one go.
fn large() -> (tempfile::TempDir, std::path::PathBuf, Options, Store) {
    let (temp, dir, options, store) = store_of(EVENTS);
    assert!(std::fs::metadata(mirror_path(&dir)).unwrap().len() + wal(&dir) > 17 << 20);
    (temp, dir, options, store)
}

fn append(store: &mut Store, from: u64, events: u64) {
    let text = "x".repeat(900);
    let drafts = (from..from + events).map(|n| note(&format!("{n} {text}")).session(format!("s-{}", n % 20))).collect();
    store.append_batch(drafts, &Conditions::none()).unwrap();
}

fn wal(dir: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", mirror_path(dir).display())).map_or(0, |meta| meta.len())
}

/// Empties the WAL; false where a reader keeps it.
fn empty(conn: &Connection) -> bool {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap() == 0
}

type Check = fn(&LedgerReader, &Options, Option<Seq>, &mut dyn FnMut(u64)) -> Result<ParityReport, LedgerError>;

/// The full check, with threads and without, and the incremental one.
const CHECKS: [(&str, Check); 3] = [
    ("full", parity_full),
    ("full, on one thread", |reader, options, through, progress| {
        parity_full_by(reader, options, through, &Plan { threads: 0, ..Plan::default() }, progress)
    }),
    ("incremental", |reader, options, through, progress| parity_incremental(reader, options, through, usize::MAX, progress)),
];

#[test]
fn the_wal_can_be_emptied_all_the_time() {
    let (_temp, dir, options, mut store) = large();
    let conn = Connection::open(mirror_path(&dir)).unwrap();
    // A window that is just being read is waited for.
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    let mut next = EVENTS;
    for (name, check) in CHECKS {
        for bounded in [true, false] {
            let reader = LedgerReader::open(&dir, &options).unwrap();
            let (begun, mut emptied, mut grown) = (next, 0, 0);
            let mut progress = |_| {
                append(&mut store, next, 20);
                next += 20;
                grown += u64::from(wal(&dir) > 0);
                assert!(empty(&conn), "{name}: the WAL is held after {emptied} times");
                emptied += 1;
            };
            let report = check(&reader, &options, bounded.then(|| Seq::new(begun)), &mut progress).unwrap();
            assert!(emptied > 30 && grown == emptied, "{name}: {emptied}, {grown}");
            // Rows of lines that came meanwhile are none of its business.
            assert_eq!(report.sqlite_event_count, begun, "{name}: {report}");
            assert_eq!((report.mismatched_count, report.findings_count, report.missing_in_jsonl.count), (0, 0, 0), "{name}: {report}");
            assert_eq!(report.missing_in_sqlite.ranges.first().map_or(begun, |range| range.first.get() - 1), begun, "{name}: {report}");
            assert!(report.is_consistent() || !bounded, "{name}: {report}");
            eprintln!("{name}: the WAL was emptied {emptied} times beside {} rows", report.sqlite_event_count);
        }
    }
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_mirror_that_is_replaced() {
    let (_temp, dir, options, store) = store_of(3_000);
    store.close().unwrap();
    let replace = |to_seq: u64| {
        set_aside(&dir).unwrap();
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let (mut mirror, _) = Mirror::open_or_set_aside(&dir, reader.manifest(), &options).unwrap();
        Replay::from_watermark(&reader, &mirror, Seq::new(to_seq)).unwrap().run(&mut mirror, &mut |_| ()).unwrap();
    };
    for (name, check) in CHECKS {
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let mut calls = 0;
        let once = &mut |_| {
            calls += 1;
            if calls == 5 {
                replace(3_000);
            }
        };
        let report = check(&reader, &options, None, once).unwrap();
        assert!(report.is_consistent() && report.sqlite_event_count == 3_000, "{name}: {report}");
        let mut calls = 0;
        let error = check(&reader, &options, None, &mut |_| {
            calls += 1;
            if calls % 5 == 0 {
                replace(3_000);
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("check again"), "{name}: {error}");
    }
}

#[test]
fn an_index_of_a_large_mirror() {
    let (_temp, dir, options, store) = large();
    store.close().unwrap();
    let whole = std::fs::read(mirror_path(&dir)).unwrap();
    let conn = Connection::open(mirror_path(&dir)).unwrap();
    let text = |column: &str| -> String {
        conn.query_row(&format!("SELECT {column} FROM events WHERE seq = ?1"), [(EVENTS / 2) as i64], |row| row.get(0)).unwrap()
    };
    let texts = [text("id"), text("observed_at")];
    drop(conn);
    let mut damaged = 0;
    for text in &texts {
        for at in memchr::memmem::find_iter(&whole, text.as_bytes()).take(6) {
            let mut bytes = whole.clone();
            bytes[at + text.len() - 2] ^= 1;
            std::fs::write(mirror_path(&dir), &bytes).unwrap();
            for (name, check) in CHECKS.into_iter().take(2) {
                let report = check(&LedgerReader::open(&dir, &options).unwrap(), &options, None, &mut |_| ()).unwrap();
                // Bytes that a page has left behind are nobody's.
                let sqlite: String =
                    Connection::open(mirror_path(&dir)).unwrap().query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).unwrap();
                assert!(!report.is_consistent() || sqlite == "ok", "{name}: {text} at {at}: {sqlite}");
                damaged += u64::from(matches!(report.findings[..], [Finding::DamagedMirror { .. }]));
            }
        }
    }
    assert!(damaged >= 4, "{damaged}");
}
