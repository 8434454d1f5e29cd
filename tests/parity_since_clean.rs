//! Goal: the incremental check reads what is new or changed since a check that found all equal, and nothing else; what it reads it
//! judges as the full check does; and what it can't see is what its page says.
//!
//! Method: a store of several segments is checked by a clock that is ahead of its files' times, added to, changed, and checked
//! again: the report says how much was read. From seeds, damage in the ledger and in rows is put into copies of a checked store, whose
//! files are others: the incremental check finds what the full one does. COUNTERFOIL_INCREMENTAL_ROUNDS sets the number of those.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(unix)]

mod common;

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use common::*;
use counterfoil::*;

/// A clock that is so many seconds ahead: a file that was changed a moment ago is read again the next time.
#[derive(Clone, Copy)]
struct Ahead(i64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + self.0 * 1_000_000)
    }
}

fn check_at(dir: &Path, clock: Ahead, sealed_max: usize) -> ParityReport {
    let mut options = Options::default();
    options.clock = Arc::new(clock);
    parity_incremental(&LedgerReader::open(dir, &options).unwrap(), &options, None, sealed_max, &mut |_| ()).unwrap()
}

fn check(dir: &Path, sealed_max: usize) -> ParityReport {
    check_at(dir, Ahead(3600), sealed_max)
}

fn clean(dir: &Path) -> (u64, u64) {
    let report = check(dir, usize::MAX);
    assert!(report.is_consistent(), "{report}");
    (report.jsonl_event_count, report.skipped_count)
}

fn append(dir: &Path, options: &Options, texts: &[&str]) {
    let (mut store, _) = Store::open(dir, options).unwrap();
    for text in texts {
        store.append(note(text).session("s-1")).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn what_is_new_or_changed_is_read() {
    let (_temp, dir, options) = unsynced_store();
    let segments = segment_paths(&dir).len();
    assert!(segments >= 3, "{segments} segments");
    // Files that were changed a moment ago are read again, but for the active segment.
    let report = check_at(&dir, Ahead(0), usize::MAX);
    assert_eq!((report.jsonl_event_count, report.skipped_count), (12, 0), "{report}");
    let (read, skipped) = clean(&dir);
    assert!(read > 0 && skipped > 0 && read + skipped == 12, "{read} read");
    assert_eq!(clean(&dir), (0, 12), "nothing is new");
    append(&dir, &options, &["a", "b"]);
    let (read, skipped) = clean(&dir);
    assert!(read >= 2 && read + skipped == 14, "{read} read");
    assert_eq!(clean(&dir), (0, 14));
    // A sealed segment whose times have changed is read, and no other.
    let first = &segment_paths(&dir)[0];
    File::options().write(true).open(first).unwrap().set_times(FileTimes::new().set_modified(SystemTime::now())).unwrap();
    let (read, skipped) = clean(&dir);
    assert!(read > 0 && read < 7 && read + skipped == 14, "{read} read");
    // The mirror made anew has no memory of it.
    set_aside(&dir).unwrap();
    append(&dir, &options, &["c"]);
    assert_eq!(clean(&dir), (15, 0));
}

#[test]
fn a_few_segments_at_a_time() {
    let (_temp, dir, _) = unsynced_store();
    let sealed = segment_paths(&dir).len() - 1;
    let mut read = 0;
    for round in 0..=sealed {
        let report = check(&dir, 1);
        assert!(report.is_consistent(), "{report}");
        assert_eq!(report.jsonl_event_count + report.skipped_count, 12, "round {round}");
        assert!(report.jsonl_event_count > 0 || round == sealed, "round {round} reads one more segment");
        read += report.jsonl_event_count;
    }
    assert_eq!(read, 12, "each event was read once");
}

#[test]
fn damage_is_found_as_by_the_full_check() {
    let (temp, whole, options) = unsynced_store();
    clean(&whole);
    let mut random = Random::new(7);
    let (mut found, mut unseen) = (0, 0);
    for round in 0..campaign("COUNTERFOIL_INCREMENTAL_ROUNDS", 40) {
        let dir = temp.path().join(format!("copy-{round}"));
        // A copy has files of its own, so nothing of what was checked holds for it.
        copy_dir(&whole, &dir);
        let paths = segment_paths(&dir);
        match random.below(4) {
            0 => append(&dir, &options, &["new"]),
            1 | 2 => {
                let path = &paths[random.below(paths.len() as u64) as usize];
                let mut bytes = fs::read(path).unwrap();
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
                fs::write(path, bytes).unwrap();
            }
            _ => {
                let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
                let seq = 1 + random.below(12) as i64;
                let sql = ["DELETE FROM events WHERE seq = ?1", "UPDATE events SET payload = '0' WHERE seq = ?1"][random.below(2) as usize];
                conn.execute(sql, [seq]).unwrap();
            }
        }
        let (one, full) = (check(&dir, usize::MAX), parity(&dir));
        assert_eq!(one.is_consistent(), full.is_consistent(), "round {round}: {one}{full}");
        assert_eq!(one.missing_in_sqlite, full.missing_in_sqlite, "round {round}");
        assert_eq!(one.mismatched, full.mismatched, "round {round}");
        if full.is_consistent() {
            unseen += 1
        } else {
            found += 1
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("{found} damaged, found by both; {unseen} whole");
    assert!(found > 10);
}

#[test]
fn a_row_that_was_found_right_is_left_to_the_full_check() {
    // What the page says that it does not see; and a new line that does not fit what was left out is found.
    let (_temp, dir, options) = unsynced_store();
    clean(&dir);
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    conn.execute("UPDATE events SET payload = '0' WHERE seq = 2", []).unwrap();
    assert_eq!(clean(&dir), (0, 12));
    let full = parity(&dir);
    assert_eq!(full.mismatched_count, 1, "{full}");
    conn.execute("DELETE FROM events WHERE seq = 12", []).unwrap();
    drop(conn);
    append(&dir, &options, &["x"]); // its watermark's row is gone: the mirror is set aside and made anew
    assert!(clean(&dir).0 >= 13);
}

#[test]
fn it_writes_nothing_where_something_is_wrong() {
    let (_temp, dir, _) = unsynced_store();
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    conn.execute("DELETE FROM events WHERE seq = 3", []).unwrap();
    let report = check(&dir, usize::MAX);
    assert_eq!((report.missing_in_sqlite.count, report.skipped_count), (1, 0), "{report}");
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'checked'", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 0);
}
