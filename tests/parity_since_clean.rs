//! Goal: the incremental check reads what is new or changed since a check that found all equal, and nothing else; what it reads it
//! judges as the full check does; and what it can't see is what its page says.
//!
//! Method: a store of several segments is checked by a clock that is ahead of its files' times, added to, changed, and checked
//! again: the report says how much was read. From seeds, damage in the ledger and in rows is put into copies of a checked store, whose
//! files are others, and into sealed segments of stores that were checked, and into rows of segments that are read again: the
//! incremental check finds what the full one does. COUNTERFOIL_INCREMENTAL_ROUNDS sets the number of those.

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
    let report = check_at(&dir, Ahead(-3600), usize::MAX);
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

/// Another inode is another file, and so are other times of the last change.
fn touch(path: &Path) {
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(SystemTime::now())).unwrap();
}

/// Damages it in one way. Where it was checked, only what an incremental check looks at again.
fn damage(dir: &Path, options: &Options, random: &mut Random, checked: bool) {
    let mut paths = segment_paths(dir);
    paths.truncate(paths.len() - usize::from(checked));
    let path = &paths[random.below(paths.len() as u64) as usize];
    match random.below(5) {
        0 => {
            // Where there is damage already, it may be refused.
            if let Ok((mut store, _)) = Store::open(dir, options) {
                let _ = store.append(note("new").session("s-1"));
            }
        }
        1 | 2 => {
            let mut bytes = fs::read(path).unwrap();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            fs::write(path, bytes).unwrap();
        }
        3 => {
            // The last line: what follows it can't be held against it.
            let mut bytes = fs::read(path).unwrap();
            let end = bytes.trim_ascii_end().len();
            bytes[end - 2] ^= 1;
            fs::write(path, bytes).unwrap();
        }
        _ => {
            let conn = common::by_hand(dir);
            let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let sql = ["DELETE FROM events WHERE seq = ?1", "UPDATE events SET payload = '0' WHERE seq = ?1"][random.below(2) as usize];
            conn.execute(sql, [first.cast_signed()]).unwrap();
            touch(path);
        }
    }
}

#[test]
fn damage_is_found_as_by_the_full_check() {
    let (temp, whole, options) = unsynced_store();
    clean(&whole);
    let mut random = Random::new(7);
    let (mut found, mut unseen) = (0, 0);
    for round in 0..campaign("COUNTERFOIL_INCREMENTAL_ROUNDS", 80) {
        let dir = temp.path().join(format!("copy-{round}"));
        // A copy has files of its own, so nothing of what was checked holds for it.
        copy_dir(&whole, &dir);
        let checked = round % 2 == 1;
        if checked {
            clean(&dir);
        }
        for _ in 0..=random.below(2) {
            damage(&dir, &options, &mut random, checked);
        }
        let (one, full) = (check(&dir, usize::MAX), parity(&dir));
        let what = format!("round {round}: {one}{full}");
        assert_eq!(one.is_consistent(), full.is_consistent(), "{what}");
        assert_eq!(one.missing_in_sqlite, full.missing_in_sqlite, "{what}");
        assert_eq!(one.missing_in_jsonl, full.missing_in_jsonl, "{what}");
        assert_eq!(one.mismatched, full.mismatched, "{what}");
        assert_eq!(one.findings, full.findings, "{what}");
        if full.is_consistent() {
            unseen += 1
        } else {
            found += 1
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("{found} damaged, found by both; {unseen} whole");
    assert!(found > 20);
}

#[test]
fn a_row_that_was_found_right_is_left_to_the_full_check() {
    // What the page says that it does not see; and a new line that does not fit what was left out is found.
    let (_temp, dir, options) = unsynced_store();
    clean(&dir);
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET payload = '0' WHERE seq = 2", []).unwrap();
    assert_eq!(clean(&dir), (0, 12));
    let full = parity(&dir);
    assert_eq!(full.mismatched_count, 1, "{full}");
    conn.execute("DELETE FROM events WHERE seq = 12", []).unwrap();
    drop(conn);
    append(&dir, &options, &["x"]); // its watermark's row is gone: the mirror is set aside and made anew
    assert!(clean(&dir).0 >= 13);
}

/// First seqs of the segments that were found right.
fn kept(dir: &Path) -> Vec<i64> {
    let conn = common::by_hand(dir);
    let mut kept = conn.prepare("SELECT first_seq FROM checked ORDER BY first_seq").unwrap();
    kept.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn what_is_wrong_is_read_again_and_nothing_else() {
    let (_temp, dir, _) = unsynced_store();
    let firsts: Vec<i64> = segment_paths(&dir).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect();
    let conn = common::by_hand(&dir);
    conn.execute("DELETE FROM events WHERE seq = 1", []).unwrap();
    let report = check(&dir, usize::MAX);
    assert_eq!((report.missing_in_sqlite.count, report.skipped_count), (1, 0), "{report}");
    assert_eq!(kept(&dir), firsts[1..]);
    let again = check(&dir, usize::MAX);
    assert_eq!(again.missing_in_sqlite, report.missing_in_sqlite, "{again}");
    assert_eq!(again.jsonl_event_count, firsts[1].cast_unsigned() - 1, "{again}");
}

#[test]
fn a_wrong_row_of_what_was_left_out_is_not_held_against_the_line() {
    let (_temp, dir, options) = unsynced_store();
    append(&dir, &options, &["a"]);
    clean(&dir);
    let conn = common::by_hand(&dir);
    let sql = "UPDATE events SET session_seq = session_seq + 7 WHERE session_id = 's-1'";
    assert!(conn.execute(sql, []).unwrap() > 0);
    drop(conn);
    // The writer looks at the mirror for a stream's position too, so the line is made by one that has another copy of it.
    let other = dir.with_extension("other");
    copy_dir(&dir, &other);
    set_aside(&other).unwrap();
    append(&other, &options, &["b"]);
    let last = segment_paths(&other).pop().unwrap();
    fs::write(dir.join("segments").join(last.file_name().unwrap()), fs::read(&last).unwrap()).unwrap();
    let report = check(&dir, usize::MAX);
    let told = |finding: &Finding| matches!(finding, Finding::OtherPosition { .. });
    assert!(report.findings.iter().any(told), "{report}");
    assert!(report.findings.iter().all(|finding| !matches!(finding, Finding::BrokenChain { .. })), "{report}");
}

#[test]
fn beside_a_writer_nothing_is_kept() {
    let (_temp, dir, options) = unsynced_store();
    let (store, _) = Store::open(&dir, &options).unwrap();
    let report = check(&dir, usize::MAX);
    assert_eq!((report.is_consistent(), report.skipped_count), (true, 0), "{report}");
    let conn = common::by_hand(&dir);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'checked'", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 0);
    store.close().unwrap();
    assert_eq!(clean(&dir), (12, 0));
    assert_eq!(clean(&dir), (0, 12));
}
