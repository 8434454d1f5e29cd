//! Goal: beside a live writer verify does not take a line that is just being written for damage; and damage there stays damage.
//!
//! Method: a disk whose first reads of the active segment see its last line half written, with blank fill behind it, as a reader may
//! see one that a writer lays over fill; the writer is a store that is open. Then the same with a line that is really wrong, and with
//! no writer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use common::*;
use counterfoil::*;

/// Verifies while, for so many reads, bytes from an offset of the first segment on are seen as blank lines.
fn verified_early(dir: &Path, from: u64, reads: u64) -> VerifyReport {
    let mut options = Options::default();
    let reads = Arc::new(AtomicU64::new(reads));
    options.storage = Arc::new(common::opened::Opened(move |path: &Path, file| -> Box<dyn StorageFile> {
        if !path.ends_with("segments/00000000000000000001.jsonl") {
            return file;
        }
        let reads = reads.clone();
        Box::new(common::opened::Through(file, move |file: &mut dyn StorageFile, buffer: &mut [u8], offset: u64| {
            let read = file.read_at(buffer, offset)?;
            if reads.fetch_update(SeqCst, SeqCst, |reads| reads.checked_sub(1)).is_ok() {
                let blank = from.saturating_sub(offset).min(read as u64) as usize;
                buffer[blank..read].fill(b'\n');
            }
            Ok(read)
        }))
    }));
    verify(&LedgerReader::open(dir, &options).unwrap(), &mut |_| ()).unwrap()
}

#[test]
fn what_is_being_written_is_looked_at_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    for n in 0..5 {
        store.append(note(&format!("number {n}")).session("s-1")).unwrap();
    }
    let bytes = ledger_bytes(&dir);
    let last = bytes[..bytes.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() as u64 + 1;
    for from in [last + 1, last + 200, bytes.len() as u64 - 2] {
        for reads in 1..4 {
            let report = verified_early(&dir, from, reads);
            assert!(report.is_clean() && report.events == 5, "from {from}, {reads} reads: {report}");
        }
        // What stays as it is, is what it is.
        let report = verified_early(&dir, from, u64::MAX);
        assert_eq!((report.events, report.failures_count), (4, 1), "from {from}: {report}");
    }
    store.close().unwrap();
    let report = verified_early(&dir, last + 200, 1);
    assert_eq!((report.events, report.failures_count), (4, 1), "no writer: {report}");
}
