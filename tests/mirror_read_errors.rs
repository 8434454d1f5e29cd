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

use common::{copy_dir, open_is_clean, skipped};
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
