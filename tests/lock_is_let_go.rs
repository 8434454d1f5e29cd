//! Goal: a store that was closed can be opened again at once, also in a program that starts other programs: between its
//! fork and its exec a child holds a copy of every open file, LOCK among them.
//!
//! Method: one thread starts programs without a pause, another takes the lock and lets it go, and never may find it held.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use counterfoil::{FsStorage, StoreLock};

#[test]
#[cfg(unix)]
fn while_programs_are_started() {
    let temp = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut started = 0;
            while !done.load(Relaxed) {
                // A program that is not there still forks.
                let _ = Command::new("true").current_dir("/").status();
                started += 1;
            }
            started
        });
        let mut rounds = 0;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while rounds < 1000 {
                rounds += 1;
                drop(StoreLock::acquire(&FsStorage, temp.path(), Duration::ZERO).unwrap());
            }
        }));
        done.store(true, Relaxed);
        eprintln!("{rounds} rounds while {} programs were started", starter.join().unwrap());
        outcome.unwrap();
    });
}
