//! Goal: a walk through a stream, page after page, ends, has each event once, and reads the ledger's lines once, not once a page, though the
//! mirror is behind and lacks the stream's last rows.
//!
//! Method: rows are deleted by hand from a mirror that lacks the ledger's last events too; the bytes that are read of segments are counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use common::note;
use common::opened::counting;
use counterfoil::*;

/// A store whose events are of these streams, and then `tail` of them that the mirror has not got.
fn filled(events: &[Draft], tail: Vec<Draft>) -> (tempfile::TempDir, PathBuf, Options) {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.segment_bytes_max = 1 << 20;
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for drafts in events.chunks(300) {
        store.append_batch(drafts.to_vec(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    common::unmirrored_groups(&dir, &options, vec![tail]);
    (temp, dir, options)
}

/// Positions of the stream from `from` on, and how often the ledger was read for them, in bytes. Each page gets on.
fn walk(dir: &Path, options: &Options, (from, events_max): (u64, usize), through: Seq) -> (Vec<u64>, f64) {
    let whole = LedgerReader::open(dir, options).unwrap().bytes().unwrap();
    let (counted, bytes) = counting(options);
    let mut reader = StreamReader::open(dir, &counted).unwrap();
    let (mut got, mut at) = (Vec::new(), from);
    loop {
        let page = reader.page(&StreamQuery::new("s-1").from(at).events_max(events_max), through).unwrap();
        got.extend(page.events.iter().filter_map(|event| event.session_seq));
        let Some(next) = page.next else {
            return (got, bytes.load(SeqCst) as f64 / whole as f64);
        };
        assert!(next > at, "from {at} of {events_max} events it gets nowhere");
        at = next;
    }
}

#[test]
fn events_that_are_far_apart_are_reached() {
    let long = "x".repeat(100_000);
    let draft = |n: u64| note(&long).session(if matches!(n, 1 | 2 | 100) { "s-1" } else { "s-2" });
    let tail = vec![note("event 4").session("s-1"), note("event 5").session("s-1")];
    let (_temp, dir, options) = filled(&(1..=120).map(draft).collect::<Vec<_>>(), tail);
    common::by_hand(&dir).execute("DELETE FROM events WHERE session_id = 's-1' AND session_seq > 1", []).unwrap();
    for from in 1..=5 {
        for events_max in 1..=6 {
            for (through, last) in [(Seq::new(122), 5), (Seq::MAX, 5), (Seq::new(121), 4)] {
                let (got, times) = walk(&dir, &options, (from, events_max), through);
                assert_eq!(got, (from..=last).collect::<Vec<_>>(), "from {from} of {events_max} events through {through}");
                assert!(times < 3.0, "from {from} of {events_max} events the ledger was read {times} times");
            }
        }
    }
}

#[test]
fn many_pages_cost_the_lines_once() {
    let draft = |_| note(&"x".repeat(400)).session("s-1");
    // The stream goes on at the end of a long tail, which is not to be looked through for each page either.
    let mut tail: Vec<_> = (0..600).map(|_| note(&"x".repeat(400)).session("s-2")).collect();
    tail.push(note("the last one").session("s-1"));
    let (_temp, dir, options) = filled(&(0..2_400).map(draft).collect::<Vec<_>>(), tail);
    common::by_hand(&dir).execute("DELETE FROM events WHERE session_seq > 10", []).unwrap();
    for from in [1, 11, 1_200] {
        let (got, times) = walk(&dir, &options, (from, 10), Seq::new(3_001));
        assert_eq!(got, (from..=2_401).collect::<Vec<_>>(), "from {from}");
        // They are read ahead of, 64 KiB at a time, and a page has a tenth of that.
        assert!(times < 16.0, "from {from} the ledger was read {times} times");
    }
}

#[test]
fn lines_that_were_read_for_one_row_are_not_read_again_for_those_that_are_missing() {
    let draft = |_| note(&"x".repeat(400)).session("s-1");
    let (_temp, dir, options) = filled(&(0..2_400).map(draft).collect::<Vec<_>>(), vec![note("the last one").session("s-1")]);
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET payload = '1' WHERE session_seq = 2310", []).unwrap();
    conn.execute("DELETE FROM events WHERE session_seq = 2400", []).unwrap();
    let (got, times) = walk(&dir, &options, (2_300, 60), Seq::new(2_401));
    assert_eq!(got, (2_300..=2_401).collect::<Vec<_>>());
    assert!(times < 1.0, "the ledger was read {times} times");
}
