//! Goal: verify and the full check need no more memory for a large store than for a small one, however many sessions it has.
//!
//! Method: the command runs over a store of many events, each of a session of its own, and over one of a tenth of them; its peak
//! (VmHWM) is read while it runs; and over one of lines as long as they may be. Linux only. COUNTERFOIL_MEMORY_EVENTS sets the number of events; with more than 50,000 the positions
//! of streams no longer fit in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(target_os = "linux", feature = "cli"))]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;
use counterfoil::*;

fn filled_with(dir: &Path, events: u64) {
    let mut options = options();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(dir, &options).unwrap();
    for group in 0..events / 1000 {
        let draft = |n: u64| note(&"text ".repeat(60)).session(format!("session-{}", group * 1000 + n));
        store.append_batch((0..1000).map(draft).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
}

/// The peak of memory of the command, in KiB. One that was over before it was looked at is run again.
fn peak(dir: &Path, arguments: &[&str]) -> u64 {
    (0..20).map(|_| peak_once(dir, arguments)).find(|peak| *peak > 1000).unwrap_or(0)
}

/// The same, as far as could be seen.
fn peak_once(dir: &Path, arguments: &[&str]) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.arg("--store").arg(dir).args(arguments).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        std::thread::yield_now();
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn the_same_for_many_events_and_sessions() {
    let events = campaign("COUNTERFOIL_MEMORY_EVENTS", 30_000).max(10_000) / 10_000 * 10_000;
    let temp = tempfile::tempdir().unwrap();
    for (arguments, max_kib) in [(["verify"].as_slice(), 32 << 10), (&["parity", "--full"], 64 << 10)] {
        let peaks = [("small", events / 10), ("large", events)].map(|(name, events)| {
            let dir = temp.path().join(name);
            if !dir.exists() {
                filled_with(&dir, events);
            }
            peak(&dir, arguments)
        });
        eprintln!("{arguments:?}: {} KiB for {} events, {} KiB for {events}", peaks[0], events / 10, peaks[1]);
        assert!(peaks[0] > 1000 && peaks[1] > 1000, "it was seen");
        assert!(peaks[1] < max_kib, "{} KiB", peaks[1]);
    }
}

#[test]
fn a_few_long_lines_are_not_all_in_memory_at_once() {
    const LONG: usize = 15 << 20;
    let temp = tempfile::tempdir().unwrap();
    let peaks = [("one", 1), ("many", 8)].map(|(name, lines)| {
        let dir = temp.path().join(name);
        let mut options = options();
        disk::without_sync(&mut options);
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        let text = "x".repeat(LONG);
        for _ in 0..lines {
            store.append(note(&text)).unwrap();
        }
        store.close().unwrap();
        let bytes: u64 = segment_paths(&dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(bytes > lines * LONG as u64, "they are in the ledger's lines");
        peak(&dir, &["verify"])
    });
    eprintln!("{} KiB for one line of {} MiB, {} KiB for eight", peaks[0], LONG >> 20, peaks[1]);
    assert!(peaks[1] < 64 << 10, "{} KiB", peaks[1]);
}
