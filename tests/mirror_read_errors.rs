//! Goal: a good mirror is not set aside because it could not be read, opened or looked at once.
//!
//! Method: strace makes each Nth call of a kind on the mirror's files fail with EIO, once in each thread (so it counts), while the
//! command opens a store and appends, or repairs the mirror from the ledger. Whatever the command says, the mirror is still in its
//! place, and the next open finds nothing to mend. (A file that can't be read three times over is another matter: where it came to
//! three faults, the mirror may be set aside.)

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{copy_dir, disk, note, open_is_clean, skipped, unmirrored_groups};
use counterfoil::*;

/// Runs the command with a fault at the nth call of each thread; answers how many there were, nothing where there is no strace.
fn with_fault(dir: &Path, trace: &Path, call: &str, nth: usize, arguments: &[&str]) -> Option<usize> {
    let mirror = mirror_path(dir);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(trace).arg("-e").arg(format!("trace={call}"));
    strace.arg("-e").arg(format!("inject={call}:error=EIO:when={nth}"));
    for suffix in ["", "-wal", "-shm"] {
        strace.arg("-P").arg(format!("{}{suffix}", mirror.display()));
    }
    strace.arg(env!("CARGO_BIN_EXE_counterfoil")).arg("--store").arg(dir).args(arguments);
    strace.output().ok()?;
    Some(fs::read_to_string(trace).ok()?.matches("INJECTED").count())
}

fn set_aside(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().contains(".aside-"))
}

#[test]
fn one_failed_call_is_not_a_broken_mirror() {
    let (temp, from, options) = common::store();
    let mut points = 0;
    for arguments in [&["repair", "--from", "ledger"][..], &["append", "1"]] {
        for call in ["pread64", "openat", "statx"] {
            for nth in 1.. {
                let dir = temp.path().join(format!("{points}-{call}"));
                copy_dir(&from, &dir);
                let faults = match with_fault(&dir, &temp.path().join("trace"), call, nth, arguments) {
                    None => return skipped("one_failed_call_is_not_a_broken_mirror", "there is no strace, or it may not trace"),
                    Some(0) => break,
                    Some(faults) => faults,
                };
                points += 1;
                assert!(faults >= 3 || !set_aside(&dir), "{arguments:?}: the mirror was set aside for {faults} of {call} number {nth}");
                let report = open_is_clean(&dir, &options);
                assert_eq!(report.mirror_set_aside, None, "{arguments:?}, {call} number {nth}");
                fs::remove_dir_all(&dir).unwrap();
            }
        }
    }
    eprintln!("{points} calls on the mirror's files failed once");
    assert!(points > 20, "only {points} calls were made to fail");
}

/// One that is too large to be checked at open is read for the first time when rows are replayed into it.
#[test]
fn one_failed_call_while_rows_are_replayed_is_not_a_broken_mirror() {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("from");
    let mut options = Options::default();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&from, &options).unwrap();
    let draft = |n: u64| note(&"x".repeat(2000)).session(format!("s-{n}"));
    for batch in 0..9 {
        store.append_batch((0..1000).map(|n| draft(batch * 1000 + n)).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    assert!(fs::metadata(mirror_path(&from)).unwrap().len() > 16 << 20, "it is checked at open");
    unmirrored_groups(&from, &options, vec![(0..50).map(|n| draft(n * 171)).collect()]);
    let (dir, mut points) = (temp.path().join("store"), 0);
    // The one replays without actors, the other with them. An erasure reads every page later on.
    for arguments in [&["erase", "--seq", "1", "--reason", "asked"][..], &["append", "1"]] {
        for nth in (1..100).step_by(3) {
            copy_dir(&from, &dir);
            let Some(faults) = with_fault(&dir, &temp.path().join("trace"), "pread64", nth, arguments) else {
                return skipped("one_failed_call_while_rows_are_replayed", "there is no strace, or it may not trace");
            };
            assert!(faults >= 3 || !set_aside(&dir), "{arguments:?}: the mirror was set aside for {faults} of pread64 number {nth}");
            fs::remove_dir_all(&dir).unwrap();
            if faults == 0 {
                break;
            }
            points += 1;
        }
    }
    eprintln!("{points} calls on the mirror's files failed once");
    assert!(points > 20, "only {points} calls were made to fail");
}
