//! Goal: segments get their other form under the eyes of readers and beside appends, and nobody notices: every reader gives
//! every line, in order; appends go on; the store closes and opens at once whatever the compressor was doing.
//!
//! Method: threads that read, follow and verify while one compresses and decompresses over and over; the actors with a policy
//! and on request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use counterfoil::*;

/// Reads the whole ledger once, as far as it goes.
fn count(dir: &Path) -> u64 {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut seq = 0;
    while let Some((_, event)) = lines.next_event().unwrap_or_else(|error| panic!("behind seq {seq}: {error}")) {
        assert_eq!(event.seq.get(), seq + 1, "each line, once");
        seq += 1;
    }
    seq
}

#[test]
fn readers_across_the_swap() {
    let (_temp, dir, mut options) = unsynced_store();
    options.lock_wait = std::time::Duration::from_secs(20);
    let done = AtomicBool::new(false);
    let busy = || !done.load(Ordering::SeqCst);
    let reads = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reads = 0;
            while busy() || reads == 0 {
                assert_eq!(count(&dir), 12);
                reads += 1;
            }
            reads
        });
        let verifying = scope.spawn(|| {
            while busy() {
                let report = verified(&dir);
                assert!(report.is_clean() && report.events == 12, "{report}");
                let reader = LedgerReader::open(&dir, &Options::default()).unwrap();
                assert!((1..=12).all(|seq| reader.line(Seq::new(seq)).unwrap().is_some()));
                assert_eq!(reader.head().unwrap().seq.get(), 12);
                assert!(reader.size().unwrap().segments >= 4);
            }
        });
        for _ in 0..campaign("COUNTERFOIL_SWAP_ROUNDS", 60) {
            compress(&dir, &options, &Sealed::AllBut(0), &mut |_| ()).unwrap();
            decompress(&dir, &options, &Sealed::AllBut(0), &mut |_| ()).unwrap();
            if reading.is_finished() || verifying.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::SeqCst);
        verifying.join().unwrap();
        reading.join().unwrap()
    });
    eprintln!("{reads} reads of the whole ledger meanwhile");
    open_is_clean(&dir, &options);
}

#[cfg(feature = "actors")]
mod with_actors {
    use counterfoil::actors::{Ledger, LedgerOptions};

    use super::*;

    fn options() -> LedgerOptions {
        let mut store = small_segments();
        store.segment_bytes_max = 6000;
        disk::without_sync(&mut store);
        LedgerOptions::from(store)
    }

    /// How many segments are plain, and how many compressed.
    fn forms(dir: &Path) -> (usize, usize) {
        let names = std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
        let (compressed, plain): (Vec<_>, Vec<_>) = names.partition(|name| name.extension().is_some_and(|form| form == "zst"));
        (plain.len(), compressed.len())
    }

    #[tokio::test]
    async fn the_policy_compresses_beside_appends() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut with = options();
        with.compress_sealed = Some(2);
        let ledger = Ledger::open_with(&dir, with.clone()).await.unwrap();
        let follower = std::thread::spawn({
            let dir = dir.clone();
            move || {
                let mut lines = LedgerReader::open(&dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
                let mut seq = 0;
                while seq < 400 {
                    match lines.next_event().unwrap() {
                        Some((_, event)) => {
                            seq += 1;
                            assert_eq!(event.seq.get(), seq);
                        }
                        None => std::thread::yield_now(),
                    }
                }
            }
        });
        for n in 0..400 {
            ledger.append(note(&format!("event {n}"))).await.unwrap();
        }
        follower.join().unwrap();
        until("all but two sealed segments and the active one compressed", || forms(&dir).0 <= 3).await;
        assert!(forms(&dir).1 > 5, "{:?}", forms(&dir));
        finish(ledger, &dir, 400).await;
        assert_eq!(forms(&dir).0, 3);
        let ledger = Ledger::open_with(&dir, with).await.unwrap();
        assert_eq!(ledger.append(note("next")).await.unwrap().seq.get(), 401);
        finish(ledger, &dir, 401).await;
    }

    #[tokio::test]
    async fn on_request_and_while_it_closes() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let ledger = Ledger::open_with(&dir, options()).await.unwrap();
        for n in 0..200 {
            ledger.append(note(&format!("event {n}"))).await.unwrap();
        }
        let done = ledger.compress(Sealed::Holding(vec![Seq::FIRST])).await.unwrap();
        assert_eq!((done.len(), forms(&dir).1), (1, 1));
        let error = ledger.compress(Sealed::Holding(vec![Seq::new(200)])).await.unwrap_err();
        assert!(matches!(error, Error::Ledger(LedgerError::Active { .. })), "{error}");
        // A close does not wait for a backlog, and the lock is free when it returns.
        let (compressing, closing) = (ledger.clone(), ledger.clone());
        let (compressed, closed) = tokio::join!(compressing.compress(Sealed::AllBut(0)), closing.close());
        closed.unwrap();
        match compressed {
            Ok(done) => assert!(!done.is_empty()),
            Err(error) => assert!(matches!(error, Error::Append(AppendError::Closed)), "{error}"),
        }
        let (store, _) = Store::open(&dir, &small_segments()).unwrap();
        store.close().unwrap();
        assert!(verified(&dir).is_clean() && parity(&dir).is_consistent());
        let error = ledger.compress(Sealed::AllBut(0)).await.unwrap_err();
        assert!(matches!(error, Error::Append(AppendError::Closed)), "{error}");
    }

    #[tokio::test]
    async fn damage_is_left_as_it_is_and_the_rest_compressed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let ledger = Ledger::open_with(&dir, options()).await.unwrap();
        for n in 0..100 {
            ledger.append(note(&format!("event {n}"))).await.unwrap();
        }
        ledger.close().await.unwrap();
        let path = segment_paths(&dir)[1].clone();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let mut with = options();
        with.compress_sealed = Some(0);
        let ledger = Ledger::open_with(&dir, with).await.unwrap();
        until("all but the damaged and the active segment compressed", || forms(&dir).0 == 2).await;
        ledger.append(note("more")).await.unwrap();
        ledger.close().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(files(&dir.join("tmp")).is_empty());
        repair_from_mirror(&dir, &small_segments(), &mut |_| ()).unwrap();
        assert!(verified(&dir).is_clean());
    }

    #[tokio::test]
    async fn one_that_cannot_be_read_does_not_stop_those_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut with = options();
        let disk = disk::faulty(&mut with.store);
        with.compress_sealed = Some(0);
        let ledger = Ledger::open_with(&dir, with).await.unwrap();
        *disk.unreadable.lock().unwrap() = "00000000000000000001.jsonl".to_owned();
        for n in 0..100 {
            ledger.append(note(&format!("event {n}"))).await.unwrap();
        }
        until("all but the unreadable and the active segment compressed", || forms(&dir).1 > 3 && forms(&dir).0 == 2).await;
        let error = ledger.compress(Sealed::AllBut(0)).await.unwrap_err();
        assert!(error.to_string().starts_with("reading "), "the source is named: {error}");
        disk.unreadable.lock().unwrap().clear();
        assert_eq!(ledger.compress(Sealed::AllBut(0)).await.unwrap().len(), 1);
        finish(ledger, &dir, 100).await;
    }
}
