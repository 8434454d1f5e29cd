//! Goal: an open store verifies and compares itself when asked: one check that reads much at a time, however many ask; its progress
//! can be watched; a close does not wait for it and ends it. The timer finds a row that differs by itself.
//!
//! Method: stores with actors, whose sealed lines or rows are damaged under them; a disk whose reads of a segment wait at a gate, so
//! that a check is under way for as long as the test likes; and as many callers as there are seats in a hall.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::*;
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;

/// A store of 12 events in several segments, closed, and options to open it with.
fn closed() -> (tempfile::TempDir, PathBuf, LedgerOptions) {
    let (temp, dir, options) = unsynced_store();
    let mut options = LedgerOptions::from(options);
    options.parity_interval = Duration::ZERO;
    (temp, dir, options)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn the_ledger_verifies_itself() {
    let (_temp, dir, options) = closed();
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    assert!(ledger.status().last_verify.is_none(), "not unasked");
    let report = ledger.verify().await.unwrap();
    assert!(report.is_clean() && report.events == 12, "{report}");
    let status = ledger.status();
    assert_eq!((status.last_verify.as_ref(), status.check), (Some(&report), None));
    serde_json::to_value(&status).unwrap();
    flip(&segment_paths(&dir)[0], 400);
    let report = ledger.verify().await.unwrap();
    assert!(!report.is_clean(), "{report}");
    assert!(!ledger.status().last_verify.unwrap().is_clean());
    ledger.append(note("appends go on")).await.unwrap();
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn it_verifies_itself_after_an_open_that_was_told_so() {
    let (_temp, dir, mut options) = closed();
    options.verify_after_open = true;
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    until("the verification", || ledger.status().last_verify.is_some()).await;
    assert!(ledger.status().last_verify.unwrap().is_clean());
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_timer_finds_a_row_that_differs() {
    let (_temp, dir, mut options) = closed();
    options.parity_interval = Duration::from_millis(5);
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET payload = '0' WHERE seq = 2", []).unwrap();
    drop(conn);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let finds = || ledger.status().last_content_parity.is_some_and(|report| report.mismatched_count == 1);
    until("the timer's finding", finds).await;
    assert_eq!(ledger.parity(ParityKind::Incremental).await.unwrap().mismatched[0].seq.get(), 2);
    ledger.close().await.unwrap();
}

/// A row, made unlike its line.
fn change_row(dir: &Path, seq: u64) {
    let conn = common::by_hand(dir);
    assert_eq!(conn.execute("UPDATE events SET payload = '0' WHERE seq = ?1", [seq.cast_signed()]).unwrap(), 1);
}

#[tokio::test]
async fn the_timer_gets_past_what_is_wrong() {
    let (_temp, dir, mut options) = closed();
    options.parity_interval = Duration::from_millis(5);
    options.parity_segments_max = 1;
    let second: u64 = segment_paths(&dir)[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    change_row(&dir, 1);
    change_row(&dir, second);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    for seq in [1, second, 1] {
        let finds = || ledger.status().last_content_parity.is_some_and(|report| report.mismatched.iter().any(|row| row.seq.get() == seq));
        until("the timer's finding", finds).await;
    }
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_was_found_wrong_is_not_forgotten_over_what_is_left_out() {
    let (_temp, dir, mut options) = closed();
    options.parity_interval = Duration::from_millis(5);
    let mut ahead = Options::default();
    ahead.clock = Arc::new(Ahead);
    let reader = LedgerReader::open(&dir, &ahead).unwrap();
    assert!(parity_incremental(&reader, &ahead, None, usize::MAX, &mut |_| ()).unwrap().is_consistent());
    change_row(&dir, 1);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    assert_eq!(ledger.parity(ParityKind::Full).await.unwrap().mismatched_count, 1);
    let looked = || ledger.status().last_parity.is_some_and(|report| report.kind == ParityKind::Incremental && report.is_consistent());
    until("a look of the timer that leaves it out", looked).await;
    assert_eq!(ledger.status().last_content_parity.unwrap().mismatched_count, 1);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_an_open_store_found_right_is_kept() {
    let (_temp, dir, mut options) = closed();
    options.store.clock = Arc::new(Ahead);
    options.store.storage = Arc::new(FsStorage); // which says which file it is
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let first = ledger.parity(ParityKind::Incremental).await.unwrap();
    assert_eq!((first.jsonl_event_count, first.skipped_count), (12, 0), "{first}");
    // It is kept behind the report's back, by the mirror's own actor.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while ledger.parity(ParityKind::Incremental).await.unwrap().skipped_count < 12 {
        assert!(std::time::Instant::now() < deadline, "nothing is kept");
    }
    ledger.close().await.unwrap();
}

/// A clock that is an hour ahead: files are settled at once.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + 3_600_000_000)
    }
}

#[tokio::test]
async fn a_check_that_cannot_be_done_is_in_the_status() {
    let (_temp, dir, mut options) = closed();
    options.parity_interval = Duration::from_millis(5);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let first = &segment_paths(&dir)[0];
    let kept = first.with_extension("kept");
    fs::rename(first, &kept).unwrap();
    fs::create_dir(first).unwrap(); // it can be opened, but not read
    until("the timer's error", || ledger.status().failed_checks.contains_key("parity, incremental")).await;
    let failed = ledger.verify().await.unwrap_err().to_string();
    let (one, other) = tokio::join!(ledger.verify(), ledger.verify());
    assert_eq!([one.unwrap_err().to_string(), other.unwrap_err().to_string()], [failed.clone(), failed.clone()]);
    assert_eq!(ledger.status().failed_checks["verify"], failed);
    fs::remove_dir(first).unwrap();
    fs::rename(&kept, first).unwrap();
    assert!(ledger.verify().await.unwrap().is_clean());
    until("the timer's look", || ledger.status().failed_checks.is_empty()).await;
    ledger.close().await.unwrap();
}

/// A disk whose reads of the first segment wait while the gate is shut, and are counted.
#[derive(Debug, Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    reading: AtomicUsize,
    reading_most: AtomicUsize,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn read(&self, file: &mut dyn StorageFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reading_most.fetch_max(self.reading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let shut = self.shut.lock().unwrap();
        drop(self.opened.wait_while(shut, |shut| *shut).unwrap());
        let read = file.read_at(buffer, offset);
        self.reading.fetch_sub(1, Ordering::SeqCst);
        read
    }
}

#[derive(Debug)]
struct Gated(Arc<dyn Storage>, Arc<Gate>);

impl Storage for Gated {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = self.0.open_read(path)?;
        if !path.ends_with("segments/00000000000000000001.jsonl") {
            return Ok(file);
        }
        let gate = self.1.clone();
        let read = move |file: &mut dyn StorageFile, buffer: &mut [u8], offset| gate.read(file, buffer, offset);
        Ok(Box::new(common::opened::Through(file, read)))
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.0.open_write(path)
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.0.create_new(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.0.try_lock(path)
    }
}

fn gated(options: &mut LedgerOptions) -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    options.store.storage = Arc::new(Gated(options.store.storage.clone(), gate.clone()));
    gate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_one_check_runs_at_a_time() {
    const CALLERS: usize = 300;
    let (_temp, dir, mut options) = closed();
    let gate = gated(&mut options);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    gate.set(true);
    gate.reading_most.store(0, Ordering::SeqCst);
    let calls: Vec<_> = (0..CALLERS)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => ledger.verify().await.map(|report| report.is_clean()),
                    1 => ledger.parity(ParityKind::Full).await.map(|report| report.is_consistent()),
                    _ => ledger.parity(ParityKind::Incremental).await.map(|report| report.is_consistent()),
                }
            })
        })
        .collect();
    // Appends go on, and so the supervisor has had all requests by the time that it answers.
    ledger.append(note("meanwhile")).await.unwrap();
    ledger.children().await.unwrap();
    until("a check that waits", || gate.reading.load(Ordering::SeqCst) > 0).await;
    gate.set(false);
    for call in calls {
        assert!(call.await.unwrap().unwrap());
    }
    assert_eq!(gate.reading_most.load(Ordering::SeqCst), 1, "checks at a time");
    ledger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_does_not_wait_for_a_check() {
    let (_temp, dir, mut options) = closed();
    let gate = gated(&mut options);
    let again = options.clone();
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    gate.set(true);
    let calls = [0, 1].map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.verify().await })
    });
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.parity(ParityKind::Full).await }
    });
    ledger.children().await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(60), ledger.clone().close()).await;
    assert_eq!(closed.expect("close does not wait").unwrap().head.seq.get(), 12);
    gate.set(false);
    for call in calls {
        // It was under way, waited behind that, or came too late: it is told, in any case.
        let told = call.await.unwrap().unwrap_err();
        assert!(matches!(told, Error::Append(AppendError::Closed)), "{told}");
    }
    assert!(waiting.await.unwrap().is_err());
    let ledger = Ledger::open_with(&dir, again).await.unwrap();
    assert!(ledger.verify().await.unwrap().is_clean());
    ledger.close().await.unwrap();
}
