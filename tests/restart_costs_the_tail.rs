//! Goal: opening a clean store costs what its tail costs, not what it holds: the same reads of the ledger at many events as at
//! few, and a few small reads a sealed segment. The manifest is read once, and once more where the store must exist.
//!
//! Method: a disk that counts what is opened and read. Stores of a size, and of twenty times that, in as many segments; and one of
//! 140 segments. COUNTERFOIL_RESTART_EVENTS sets the larger size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use common::*;
use counterfoil::*;

/// What was asked of the disk.
#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    manifests: AtomicU64,
    reads: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct CountingFile(Box<dyn StorageFile>, Arc<Counts>);

fn counted(counts: &Arc<Counts>, path: &Path, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
    counts.opened.fetch_add(1, SeqCst);
    counts.manifests.fetch_add(u64::from(path.ends_with("ledger.json")), SeqCst);
    Box::new(CountingFile(file, counts.clone()))
}

impl StorageFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, offset)?;
        self.1.reads.fetch_add(1, SeqCst);
        self.1.bytes.fetch_add(read as u64, SeqCst);
        Ok(read)
    }
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(offset, bytes)
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A closed store of so many events in sessions, in segments of so many bytes.
fn filled_with(dir: &Path, events: u64, segment_bytes_max: u64) -> Options {
    let mut options = options();
    options.segment_bytes_max = segment_bytes_max;
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(dir, &options).unwrap();
    for group in 0..events / 50 {
        let draft = |n: u64| note("twenty bytes or more of text").session(format!("s-{:05}", (group * 50 + n) % 97));
        store.append_batch((0..50).map(draft).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    options
}

/// What an open asks of the disk that holds the ledger.
fn opened(dir: &Path, options: &Options) -> (OpenReport, [u64; 4]) {
    let counts = Arc::new(Counts::default());
    let mut options = options.clone();
    let counting = counts.clone();
    options.storage = Arc::new(opened::Opened(move |path: &Path, file| counted(&counting, path, file)));
    let (store, report) = Store::open(dir, &options).unwrap();
    let asked = [&counts.opened, &counts.manifests, &counts.reads, &counts.bytes].map(|count| count.load(SeqCst));
    store.close().unwrap();
    (report, asked)
}

#[test]
fn the_same_at_many_events_as_at_few() {
    let events = campaign("COUNTERFOIL_RESTART_EVENTS", 10_000).max(1000) / 1000 * 1000;
    let temp = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (name, events) in [("small", events / 20), ("large", events)] {
        let dir = temp.path().join(name);
        let options = filled_with(&dir, events, 64 << 20);
        let (report, asked) = opened(&dir, &options);
        assert_eq!((report.recovery.head.seq.get(), report.replay.replayed), (events, 0));
        assert_eq!(report.recovery.rewritten_bytes, 0);
        eprintln!("{events} events: {} files opened, {} of them the manifest; {} reads, {} bytes", asked[0], asked[1], asked[2], asked[3]);
        all.push(asked);
    }
    assert_eq!(all[0][..3], all[1][..3], "files and reads");
    assert!(all[1][3] <= all[0][3] + 256, "a seq has a few more digits, no more");
    assert!(all[1][3] < 32 << 10);
    assert_eq!(all[1][1], 1, "the manifest is read once");
}

#[test]
fn a_few_small_reads_a_sealed_segment() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled_with(&dir, 7000, 4 << 10);
    let segments = segment_paths(&dir).len() as u64;
    assert!(segments >= 140, "{segments} segments");
    let (report, [files, _, reads, bytes]) = opened(&dir, &options);
    assert_eq!(report.replay.replayed, 0);
    eprintln!("{segments} segments: {files} files opened, {reads} reads, {bytes} bytes");
    assert!(files <= segments + 10 && reads <= 3 * segments + 20 && bytes <= segments * (9 << 10) + (32 << 10));
}

#[test]
fn the_mirrors_hint_is_only_a_hint() {
    // Where it does not hold, the segment is scanned, and all is as it was.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled_with(&dir, 500, 64 << 20);
    let (_, right) = opened(&dir, &options);
    let conn = common::by_hand(&dir);
    for wrong in [1i64, 777, 1 << 40] {
        conn.execute("UPDATE mirrored_through SET byte_offset = ?1", [wrong]).unwrap();
        let (report, scanned) = opened(&dir, &options);
        assert_eq!((report.recovery.head.seq.get(), report.replay.replayed, report.recovery.torn), (500, 0, None));
        assert!(scanned[3] > right[3], "it was scanned");
    }
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    assert_eq!(store.append(note("next").session("s-00000")).unwrap().seq.get(), 501);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}
