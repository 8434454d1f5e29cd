//! Goal: no bit of the ledger can change unseen. `verify` reports every single flipped bit.
//!
//! Method: a store of a few events in several segments (sessions, tags, a trace, a cause, a batch, escapes) is flipped bit by bit, and verified each time. Signatures are not among them: nothing signs yet, and verify
//! checks the form of a signature only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::*;
use counterfoil::*;

#[test]
fn flipped_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &small_segments()).unwrap();
    let mut drafts = drafts();
    store.append(drafts.remove(0)).unwrap();
    store.append_batch(drafts.drain(..2).collect(), &Conditions::none()).unwrap();
    store.append(drafts.remove(0)).unwrap();
    store.close().unwrap();
    assert_eq!(segment_paths(&dir).len(), 2);
    let (flips, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Two halves at once, each in a copy of its own.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let copy = temp.path().join(format!("copy-{half}"));
            copy_dir(&dir, &copy);
            let (flips, missed) = (&flips, &missed);
            scope.spawn(move || {
                for path in segment_paths(&copy) {
                    let original = fs::read(&path).unwrap();
                    for at in (half..original.len()).step_by(2) {
                        for bit in 0..8 {
                            let mut bytes = original.clone();
                            bytes[at] ^= 1 << bit;
                            fs::write(&path, &bytes).unwrap();
                            flips.fetch_add(1, Relaxed);
                            let report = verified(&copy);
                            if report.is_clean() || report.failures[0].path != path {
                                eprintln!("missed: {} byte {at} bit {bit}: {report}", path.display());
                                missed.fetch_add(1, Relaxed);
                            }
                        }
                    }
                    fs::write(&path, &original).unwrap();
                }
                assert!(verified(&copy).is_clean());
            });
        }
    });
    let bits = ledger_bytes(&dir).len() * 8;
    eprintln!("{} bits of {bits} flipped, {} missed", flips.load(Relaxed), missed.load(Relaxed));
    assert_eq!((flips.into_inner(), missed.into_inner()), (bits, 0));
}

#[test]
fn a_last_line_that_says_seq_0_is_reported() {
    // '8' and '0' are one bit apart, and there is no seq 0: it must not be skipped as a line before the first.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    for draft in drafts().into_iter().take(8) {
        store.append(draft).unwrap();
    }
    store.close().unwrap();
    let path = &segment_paths(&dir)[0];
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"{\"seq\":8,").unwrap() + 7;
    bytes[at] ^= 8;
    assert_eq!(bytes[at], b'0');
    fs::write(path, bytes).unwrap();
    let report = verified(&dir);
    assert_eq!((report.events, report.failures_count), (7, 1), "{report}");
    assert!(!parity(&dir).is_consistent());
}
