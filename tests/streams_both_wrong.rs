//! Goal: where rows are wrong and lines are too, the error says what is so: that no repair brings an event back only where neither of the two
//! has it; else how both are mended; and nothing of the mirror where only the ledger is wrong.
//!
//! Method: rows and lines of one segment are edited by hand, and the repairs that the error names are run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{note, portable};
use counterfoil::*;

/// 30 events of one stream in one segment, of which the mirror has not got the last `behind`.
fn filled(behind: u64) -> (tempfile::TempDir, PathBuf, Options) {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let draft = |n: u64| note(&format!("event {n}")).id(common::id(n)).session("s-1");
    for n in 1..=30 - behind {
        store.append(draft(n)).unwrap();
    }
    store.close().unwrap();
    if behind > 0 {
        common::unmirrored_groups(&dir, &options, vec![(31 - behind..=30).map(draft).collect()]);
    }
    (temp, dir, options)
}

fn damage_line(dir: &Path, n: u64) {
    let path = &common::segment_paths(dir)[0];
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace(&format!("\"event {n}\""), &format!("\"Event {n}\""))).unwrap();
}

fn damage_rows(dir: &Path, sql: &str) {
    assert!(common::by_hand(dir).execute(sql, []).unwrap() > 0, "{sql}");
}

fn error(dir: &Path, options: &Options) -> Error {
    StreamReader::open(dir, options).unwrap().page(&StreamQuery::new("s-1"), Seq::MAX).unwrap_err()
}

#[test]
fn an_event_that_either_has_is_brought_back_as_the_error_says() {
    for row in ["UPDATE events SET payload = '1' WHERE seq = 4", "DELETE FROM events WHERE seq = 4"] {
        let (_temp, dir, options) = filled(0);
        damage_line(&dir, 2);
        damage_rows(&dir, row);
        let error = error(&dir, &options);
        assert!(matches!(&error, Error::Stream(StreamError::Both { is_same: false, .. })), "{row}: {error}");
        let text = portable(error, &dir);
        assert!(text.contains("the mirror is wrong elsewhere: <store>/mirror.sqlite3: ") && !text.contains("backup"), "{text}");
        assert!(text.contains("run `counterfoil repair --from mirror`, then `counterfoil repair --from ledger`"), "{text}");
        assert_eq!(repair_from_mirror(&dir, &options, &mut |_| ()).unwrap().lines_restored, 1, "{row}");
        repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
        let page = StreamReader::open(&dir, &options).unwrap().page(&StreamQuery::new("s-1"), Seq::MAX).unwrap();
        assert!(page.events.len() == 30 && common::parity(&dir).is_consistent(), "{row}");
    }
}

#[test]
fn an_event_that_neither_has_is_not_brought_back() {
    for rows in [
        "UPDATE events SET payload = '1' WHERE seq = 4",
        "DELETE FROM events WHERE seq = 4",
        // Its row is not the first one that is wrong.
        "UPDATE events SET payload = '1' WHERE seq IN (3, 4)",
    ] {
        let (_temp, dir, options) = filled(0);
        damage_line(&dir, 4);
        damage_rows(&dir, rows);
        let error = error(&dir, &options);
        assert!(matches!(&error, Error::Stream(StreamError::Both { is_same: true, .. })), "{rows}: {error}");
        assert!(error.to_string().ends_with("no repair brings back what is wrong in both: restore that from a backup"), "{error}");
        let _ = repair_from_mirror(&dir, &options, &mut |_| ());
        let _ = repair_from_ledger(&dir, &options, &mut |_| ());
        assert!(!common::parity(&dir).is_consistent(), "{rows}");
    }
}

/// Rewrites the ledger's lines from the seq on, which the mirror has not got, at these positions of the stream; all else fits.
fn at_positions(dir: &Path, from: u64, positions: &[u64]) {
    let path = &common::segment_paths(dir)[0];
    let text = fs::read_to_string(path).unwrap();
    let (mut new, mut prev) = (Vec::new(), None);
    for line in text.lines() {
        let mut event = line::decode(line.as_bytes()).unwrap();
        if let Some(position) = event.seq.get().checked_sub(from).and_then(|n| positions.get(n as usize)) {
            event.session.as_mut().unwrap().1 = *position;
            event.prev_event_hash = prev.unwrap();
            common::rehash(&mut event);
        }
        prev = Some(event.event_hash);
        line::encode(&event, &mut new);
        new.push(b'\n');
    }
    fs::write(path, new).unwrap();
}

#[test]
fn of_a_mirror_that_is_right_nothing_is_said() {
    for (positions, found) in [([28, 28, 29], 28), ([28, 30, 31], 30), ([27, 28, 29], 27), ([29, 30, 31], 29)] {
        let (_temp, dir, options) = filled(3);
        at_positions(&dir, 28, &positions);
        let error = error(&dir, &options);
        let Error::Stream(StreamError::Position { path, found: Some((at, _)), .. }) = &error else { panic!("{positions:?}: {error}") };
        assert!(*path == common::segment_paths(&dir)[0] && *at == found, "{positions:?}: {error}");
    }
    // Where it lacks rows as well, it is not right.
    let (_temp, dir, options) = filled(3);
    at_positions(&dir, 28, &[28, 28, 29]);
    damage_rows(&dir, "DELETE FROM events WHERE seq = 27");
    let error = error(&dir, &options);
    assert!(matches!(error, Error::Stream(StreamError::Both { is_same: false, .. })), "{error}");
}
