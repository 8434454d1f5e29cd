//! Goal: segments rotate without a seam, reading may begin at any seq, and a reader beside a live writer sees whole
//! lines only, and all of them.
//!
//! Method: stores with segments of every small size are read from every seq; a reader and a writer take turns in one
//! thread, also at a line that is written in pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;

use common::*;
use counterfoil::*;

fn read(lines: &mut Lines) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((line, event)) = lines.next_event().unwrap() {
        all.push((event.seq.get(), line.raw.bytes.to_vec()));
    }
    all
}

#[test]
fn from_any_seq_it_is_the_full_scans_suffix() {
    for (segment_bytes_max, segments) in [(1, 10), (600, 10), (1300, 6), (1900, 5), (1 << 20, 1)] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut options = options();
        options.segment_bytes_max = segment_bytes_max;
        disk::without_sync(&mut options);
        filled(&dir, &options);
        // A batch of three lies in one segment, however small that should be.
        assert_eq!(segment_paths(&dir).len(), segments, "{segment_bytes_max}");
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let all = read(&mut reader.lines_from(Seq::FIRST).unwrap());
        assert_eq!(all.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
        let joined: Vec<u8> = all.iter().flat_map(|(_, bytes)| [bytes, &b"\n"[..]].concat()).collect();
        assert_eq!(joined, ledger_bytes(&dir), "the segments in order are the ledger");
        for seq in 0..=14 {
            assert_eq!(read(&mut reader.lines_from(Seq::new(seq)).unwrap()), all[(seq as usize).clamp(1, 13) - 1..], "from {seq}");
            assert_eq!(reader.line(Seq::new(seq)).unwrap(), all.iter().find(|(at, _)| *at == seq).map(|(_, bytes)| bytes.clone()));
        }
        // What lies before is not read: it may even be damaged.
        if segments > 3 {
            let first = &segment_paths(&dir)[0];
            fs::write(first, "damaged").unwrap();
            assert_eq!(read(&mut reader.lines_from(Seq::new(9)).unwrap()), all[8..]);
            assert!(matches!(reader.lines_from(Seq::FIRST).unwrap().next_event(), Err(LedgerError::Damaged { offset: 0, .. })));
        }
    }
}

#[test]
fn beside_a_live_writer() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let mut lines = reader.lines_from(Seq::FIRST).unwrap();
    assert_eq!(read(&mut lines), []);
    let mut seen = 0;
    for round in 0..20 {
        for n in 0..round % 4 {
            store.append(note(&"x".repeat(n * 100)).session("s")).unwrap();
        }
        let found: Vec<u64> = read(&mut lines).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(found, (seen + 1..=store.head().seq.get()).collect::<Vec<_>>());
        seen = store.head().seq.get();
        assert_eq!(reader.head().unwrap(), store.head());
        assert_eq!(read(&mut lines), [], "and again nothing");
    }
    assert!(segment_paths(&dir).len() > 5 && seen == 30);
    // While the writer lives its reserved space and unfinished bytes are no damage.
    assert!(verified(&dir).is_clean());
    drop(store);
}

#[test]
fn a_line_in_pieces_is_not_yielded_before_its_end() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    filled(&dir, &options);
    let path = &segment_paths(&dir)[0];
    let whole = fs::read(path).unwrap();
    let end_of = |n: usize| whole.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(n).unwrap().0 + 1;
    fs::write(path, &whole[..end_of(8)]).unwrap();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let mut lines = reader.lines_from(Seq::new(8)).unwrap();
    assert_eq!(read(&mut lines).len(), 2);
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    for (n, piece) in whole[end_of(8)..].chunks(97).enumerate() {
        let held = StoreLock::acquire(&FsStorage, &dir, std::time::Duration::ZERO).unwrap();
        file.write_all(piece).unwrap();
        let now = fs::metadata(path).unwrap().len() as usize;
        let expected: Vec<u64> =
            (10..=12).filter(|seq| end_of(*seq as usize - 1) <= now && end_of(*seq as usize - 1) > now - piece.len()).collect();
        let found: Vec<u64> = read(&mut lines).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(found, expected, "after piece {n}");
        let report = verified(&dir);
        assert!(report.is_clean(), "a writer is at it: {report}");
        assert_eq!(report.unfinished.is_some(), whole[now - 1] != b'\n', "piece {n}");
        drop(held);
    }
    assert_eq!(fs::read(path).unwrap(), whole);
    // Without a writer an unfinished line is a finding.
    file.write_all(b"{\"seq\":13,").unwrap();
    let report = verified(&dir);
    assert_eq!((report.failures_count, report.events), (1, 12), "{report}");
    assert_eq!(read(&mut reader.lines_from(Seq::FIRST).unwrap()).len(), 12);
}

#[test]
fn fill_at_the_end_means_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    filled(&dir, &options);
    let path = &segment_paths(&dir)[0];
    let whole = fs::read(path).unwrap();
    for fill in [vec![b'\n'; 3000], vec![0; 70_000]] {
        fs::write(path, [&whole[..], &fill].concat()).unwrap();
        let reader = LedgerReader::open(&dir, &options).unwrap();
        assert_eq!(read(&mut reader.lines_from(Seq::FIRST).unwrap()).len(), 12);
        assert_eq!(reader.head().unwrap().seq.get(), 12);
        assert!(parity_quick(&reader, &options).unwrap().is_consistent());
        let report = parity(&dir);
        assert!(report.is_consistent(), "{report}");
        let report = verified(&dir);
        assert!(report.is_clean(), "{report}");
        assert_eq!(open_is_clean(&dir, &options).recovery.torn, None);
        assert_eq!(fs::read(path).unwrap(), whole, "the next writer cuts it");
    }
}

#[test]
fn fill_at_the_end_is_read_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    let disk = disk::faulty(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    (1..=4).for_each(|n| drop(store.append(note(&format!("event {n}"))).unwrap()));
    store.close().unwrap();
    let path = &segment_paths(&dir)[0];
    let whole = fs::read(path).unwrap();
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    // What a writer that preallocates leaves: fill behind the last line, over which it writes the next one.
    let fill = 1 << 20;
    let show = |lines: usize, fill: usize| fs::write(path, [&whole[..ends[lines - 1]], &b"\n".repeat(fill)[..]].concat()).unwrap();
    show(1, fill);
    let mut lines = LedgerReader::open(&dir, &options).unwrap().lines_from(Seq::FIRST).unwrap();
    assert_eq!(read(&mut lines).len(), 1);
    for (known, fill) in [(1, fill), (2, fill - 100), (3, fill + 100), (3, 0), (4, 1), (4, fill)] {
        show(known, fill);
        let found: Vec<u64> = read(&mut lines).into_iter().map(|(seq, _)| seq).collect();
        assert!(found.iter().all(|seq| *seq == known as u64), "{found:?}");
        let before = disk.read.load(std::sync::atomic::Ordering::SeqCst);
        (0..10).for_each(|_| assert!(read(&mut lines).is_empty()));
        let again = disk.read.load(std::sync::atomic::Ordering::SeqCst) - before;
        assert!(again <= 10, "ten looks at the same fill read {again} bytes");
    }
    // Blank lines that no writer leaves hide nothing.
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"no line\n").unwrap();
    assert!(lines.next_raw().unwrap().is_some_and(|line| line.raw.bytes == b"no line" && line.raw.offset > fill as u64));
}
