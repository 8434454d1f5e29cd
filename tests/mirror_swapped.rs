//! Goal: at whatever step of whatever actor the mirror's file is taken away, or an older copy of it put in its place, a key gets the
//! receipt that it got first, a stream's position is given once, and both legs are equal afterwards.
//!
//! Method: a failpoint swaps the file at the k-th hit of each step of opening, replaying and committing, on the actor's own thread, and
//! once more some hits later; meanwhile keys that are recorded are appended again, and new events in the same stream. A step that nothing hits fails the
//! test. COUNTERFOIL_SWAP_HITS says how many hits of each step are tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(feature = "actors", unix))]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{finish, note};
use counterfoil::actors::{Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;

/// Events in the store, of which the older copy of the mirror has half, and the mirror all but the last ones.
const EVENTS: u64 = 24;
const LAST: u64 = 4;
/// Events that come while the file is swapped.
const NEW: u64 = 12;
/// Hits of a step that are tried, spread over those that a run without swaps has.
const HITS: u64 = 8;

const STEPS: [&str; 8] = [
    failpoint::ACTOR_LEDGER_APPEND,
    failpoint::ACTOR_LEDGER_SYNCED,
    failpoint::ACTOR_LEDGER_SEND,
    failpoint::ACTOR_PARITY_STEP,
    failpoint::REPLAY_STEP,
    failpoint::ACTOR_SQLITE_COMMIT,
    failpoint::ACTOR_SQLITE_COMMITTED,
    failpoint::ACTOR_SQLITE_ANSWERED,
];
/// These lie in transactions too, of whoever writes to the mirror.
const TRANSACTIONS: [&str; 3] = [failpoint::MIRROR_BEGIN, failpoint::MIRROR_COMMIT, failpoint::MIRROR_COMMITTED];

fn key(n: u64) -> Draft {
    note(&format!("event {n}")).session("s").id(common::id(n))
}

/// A store whose mirror lacks the last events, and an older copy of the mirror.
fn prepared(root: &Path) -> (PathBuf, PathBuf) {
    let (dir, older, level) = (root.join("store"), root.join("older.sqlite3"), root.join("level.sqlite3"));
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    for (from, to, copy) in [(0, EVENTS / 2, Some(&older)), (EVENTS / 2, EVENTS - LAST, Some(&level)), (EVENTS - LAST, EVENTS, None)] {
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        for n in from..to {
            store.append(key(n)).unwrap();
        }
        store.close().unwrap();
        if let Some(copy) = copy {
            fs::copy(mirror_path(&dir), copy).unwrap();
        }
    }
    fs::copy(level, mirror_path(&dir)).unwrap();
    (dir, older)
}

/// Takes the mirror away, and puts this file in its place, if any.
fn swap(dir: &Path, with: Option<&Path>) {
    let mirror = mirror_path(dir);
    let staged = with.map(|file| {
        let staged = dir.with_extension("staged");
        fs::copy(file, &staged).unwrap();
        staged
    });
    for suffix in ["-wal", "-shm", ""] {
        let _ = fs::remove_file(format!("{}{suffix}", mirror.display()));
    }
    if let Some(staged) = staged {
        fs::rename(staged, mirror).unwrap();
    }
}

fn options(failpoint: impl Fn(&'static str) + Send + Sync + 'static) -> LedgerOptions {
    let mut options = LedgerOptions::default();
    common::disk::without_sync(&mut options.store);
    (options.restarts_max, options.restart_backoff_max) = (100, Duration::from_millis(1));
    options.store.failpoint = Some(Arc::new(move |point| {
        failpoint(point);
        Ok(())
    }));
    options
}

/// Keys again, and new events, half of them at once and half one after the other.
async fn load(ledger: &Ledger) {
    let again: Vec<_> = (0..EVENTS)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { (n, ledger.append(key(n)).await.unwrap()) })
        })
        .collect();
    let new: Vec<_> = (0..NEW / 2)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(key(EVENTS + n)).await.unwrap() })
        })
        .collect();
    let mut positions: Vec<u64> = (1..=EVENTS).collect();
    for n in NEW / 2..NEW {
        positions.extend(ledger.append(key(EVENTS + n)).await.unwrap().session_seq);
        let old = ledger.append(key(n)).await.unwrap();
        assert!(old.duplicate && old.seq.get() == n + 1, "key {n}: {old:?}");
    }
    for task in again {
        let (n, receipt) = task.await.unwrap();
        assert!(receipt.duplicate && receipt.seq.get() == n + 1, "key {n}: {receipt:?}");
    }
    for task in new {
        let receipt = task.await.unwrap();
        assert!(!receipt.duplicate);
        positions.extend(receipt.session_seq);
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=EVENTS + NEW).collect::<Vec<_>>());
}

/// How often each step is hit where nothing is swapped.
async fn hits(from: &Path) -> BTreeMap<&'static str, u64> {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    common::copy_dir(from, &dir);
    let hits: Arc<std::sync::Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
    let count = hits.clone();
    let ledger = Ledger::open_with(&dir, options(move |point| *count.lock().unwrap().entry(point).or_default() += 1)).await.unwrap();
    common::until("Live", || ledger.status().mirror == MirrorHealth::Live).await;
    load(&ledger).await;
    finish(ledger, &dir, EVENTS + NEW).await;
    let hits = hits.lock().unwrap();
    hits.clone()
}

async fn swapped_at(from: &Path, step: &'static str, hit: u64, with: Option<&Path>) -> u64 {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    common::copy_dir(from, &dir);
    let (seen, swaps) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let (place, file, count) = (dir.clone(), with.map(Path::to_owned), swaps.clone());
    let opened = Ledger::open_with(
        &dir,
        options(move |point| {
            let hits = if point == step { seen.fetch_add(1, SeqCst) + 1 } else { 0 };
            if hits == hit || hits == hit + 3 {
                count.fetch_add(1, SeqCst);
                swap(&place, file.as_deref());
            }
        }),
    );
    let ledger = opened.await.unwrap();
    load(&ledger).await;
    // Where it was taken away behind the last commit, nobody has looked since.
    ledger.close().await.unwrap();
    common::open_is_clean(&dir, &Options::default());
    swaps.load(SeqCst)
}

async fn swapped_at_every(steps: &[&'static str]) {
    let root = tempfile::tempdir().unwrap();
    let (dir, older) = prepared(root.path());
    let hits = hits(&dir).await;
    let mut swaps = 0;
    for step in steps {
        let times = hits.get(step).copied().unwrap_or(0);
        assert!(times > 0, "nothing hits {step}");
        let apart = times.div_ceil(common::campaign("COUNTERFOIL_SWAP_HITS", HITS));
        for hit in (1..=times).step_by(apart as usize) {
            for with in [None, Some(older.as_path())] {
                swaps += swapped_at(&dir, step, hit, with).await;
            }
        }
    }
    eprintln!("swapped {swaps} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_step_of_an_actor() {
    swapped_at_every(&STEPS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_step_of_a_transaction() {
    swapped_at_every(&TRANSACTIONS).await;
}
