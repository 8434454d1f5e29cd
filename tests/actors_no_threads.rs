//! Goal: a process that may have no more threads goes on appending: what needs a thread of its own is refused with the reason,
//! and works once there are threads again.
//!
//! Method: the process's own address space is limited (`prlimit`), and threads are started until there can be none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(all(feature = "actors", target_os = "linux"))]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, park};

use common::*;
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;

/// Limits the address space of this process, or no longer.
fn limit(bytes: &str) -> bool {
    let pid = std::process::id().to_string();
    match Command::new("prlimit").args(["--pid", &pid, &format!("--as={bytes}:")]).status() {
        Ok(status) => status.success(),
        Err(_) => false,
    }
}

/// Bytes of the address space in use.
fn in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap() << 10
}

/// Takes all threads that there are.
struct Taken {
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Taken {
    fn all() -> Taken {
        let done = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let next = || {
            let done = done.clone();
            let wait = move || {
                while !done.load(Ordering::SeqCst) {
                    park();
                }
            };
            Builder::new().spawn(wait)
        };
        while let Ok(thread) = next() {
            threads.push(thread);
            assert!(threads.len() < 1000, "the limit holds");
        }
        Taken { done, threads }
    }

    fn release(self) {
        self.done.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    }
}

fn is_no_thread<T>(answer: Result<T, Error>) {
    match answer {
        Err(Error::Ledger(LedgerError::Io { action: "starting a thread for", .. })) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("there was a thread"),
    }
}

#[tokio::test]
async fn the_store_goes_on_without() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    disk::without_sync(&mut options);
    let ledger = Ledger::open_with(&dir, LedgerOptions::from(options)).await.unwrap();
    for n in 0..40 {
        ledger.append(note(&format!("event {n}"))).await.unwrap();
    }
    // Less than a thread's stack is left.
    if !limit(&(in_use() + (3 << 19)).to_string()) {
        return skipped("the store goes on without threads", "there is no prlimit here");
    }
    let taken = Taken::all();
    is_no_thread(ledger.compress(Sealed::AllBut(0)).await);
    is_no_thread(ledger.verify().await);
    is_no_thread(ledger.parity(ParityKind::Quick).await);
    let receipt = ledger.append(note("without")).await.unwrap();
    assert_eq!(receipt.seq.get(), 41);
    taken.release();
    assert!(limit("unlimited"));
    assert!(!ledger.compress(Sealed::AllBut(0)).await.unwrap().is_empty());
    assert!(ledger.verify().await.unwrap().is_clean());
    finish(ledger, &dir, 41).await;
}
