//! Goal: a long Cortex ledger takes no more memory to be checked and read than a short one.
//!
//! Method: this process reads ledgers to their end, and asks Linux how far its memory rose above what it was. One test in this
//! file, so that nothing else runs beside it. COUNTERFOIL_MEMORY_EVENTS sets the number of rows: what is kept of each shows with
//! a million of them; that the file is not kept shows with fewer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(target_os = "linux")]

mod common;
mod cortex_support;

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use common::campaign;
use cortex_support::*;
use counterfoil::import::TranscriptReader;

/// A line of /proc/self/status, in KiB.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn it_does_not_grow_with_the_ledger() {
    // Above the 8 MiB that SQLite may take for the ids, and what a line and the buffers need.
    const KIB_MAX: u64 = 14 << 10;
    let rows_max = campaign("COUNTERFOIL_MEMORY_EVENTS", 25_000);
    let temp = tempfile::tempdir().unwrap();
    for count in [rows_max / 10, rows_max] {
        let path = temp.path().join("events.jsonl");
        let mut file = BufWriter::new(File::create(&path).unwrap());
        write_rows((0..count).map(event), |row| writeln!(file, "{row}").unwrap());
        file.flush().unwrap();
        let bytes = fs::metadata(&path).unwrap().len();
        // 5: the peak becomes what it is now.
        if fs::write("/proc/self/clear_refs", "5").is_err() {
            return common::skipped("the memory of a long Cortex ledger", "/proc/self/clear_refs can't be written");
        }
        let before = status("VmRSS:");
        let mut reader = TranscriptReader::open(&path, &Default::default()).unwrap();
        let mut drafts = 0;
        while reader.next().unwrap().is_some() {
            drafts += 1;
        }
        assert_eq!(drafts, count + 1);
        let rose = status("VmHWM:").saturating_sub(before);
        eprintln!("{count} rows, {} KiB: {rose} KiB more than before", bytes >> 10);
        assert!(rose < KIB_MAX, "{rose} KiB");
        assert!(bytes >> 10 > KIB_MAX || count < rows_max, "the file is longer than that");
    }
}
