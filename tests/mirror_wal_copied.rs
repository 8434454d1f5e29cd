//! Goal: the mirror's WAL is copied into the database beside the commits, by a thread of the mirror's own: it stays short
//! however much is written, the thread ends with the mirror, and neither a kill nor a mirror that is taken away under it
//! costs a row.
//!
//! Method: small bounds, so that the thread is always at work. Its traces are looked for on the disk: the length of the WAL
//! and of the database, and the WAL that only the last connection removes. A process is killed at seeded moments;
//! COUNTERFOIL_WAL_KILL_ROUNDS makes that longer.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod crash_support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use counterfoil::actors::{Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;
use crash_support::common::{Random, campaign, disk, finish, note, open_is_clean, until};
use crash_support::{again, command, role};

fn wal(dir: &Path) -> PathBuf {
    format!("{}-wal", mirror_path(dir).display()).into()
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn batch(events: u64) -> Vec<Draft> {
    (0..events).map(|n| note(&"x".repeat(800)).session(format!("s-{}", n % 20))).collect()
}

#[test]
fn stays_short_and_reaches_the_database() {
    const BOUND: u64 = 4 << 20;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = Options::default();
    options.mirror_wal_bytes_max = BOUND;
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let (mut longest, mut events) = (0, 0);
    let begun = bytes(&mirror_path(&dir));
    while bytes(&wal(&dir)) < BOUND / 2 && bytes(&mirror_path(&dir)) == begun {
        store.append_batch(batch(100), &Conditions::none()).unwrap();
        events += 100;
    }
    assert!(bytes(&wal(&dir)) <= BOUND, "the writer copies nothing yet");
    let deadline = Instant::now() + Duration::from_secs(60);
    while bytes(&mirror_path(&dir)) == begun {
        assert!(Instant::now() < deadline, "the thread copies nothing");
        std::thread::yield_now();
    }
    while events < 8_000 {
        store.append_batch(batch(200), &Conditions::none()).unwrap();
        events += 200;
        longest = longest.max(bytes(&wal(&dir)));
    }
    let database = bytes(&mirror_path(&dir));
    eprintln!("{events} events: the WAL had at most {} KiB, the database has {} KiB", longest >> 10, database >> 10);
    // A transaction may come on top of the bound.
    assert!(longest < BOUND + (2 << 20), "{longest}");
    assert!(database > 6 << 20, "only {database} bytes are copied");
    drop(store);
    assert!(!wal(&dir).exists(), "the mirror's connection was the last one, so the thread has ended");
    open_is_clean(&dir, &options);
}

/// What the process that is killed does: appends, and says how far it is.
fn work(dir: &Path) {
    let (mut store, _) = Store::open(dir, &tiny()).unwrap();
    loop {
        let receipts = store.append_batch(batch(20), &Conditions::none()).unwrap();
        println!("\nthrough {}", receipts.last().unwrap().seq);
    }
}

/// Options with which the thread copies after each commit or two.
fn tiny() -> Options {
    let mut options = Options::default();
    options.mirror_wal_bytes_max = 512 << 10;
    options
}

#[test]
fn killed_while_it_is_copied() {
    if let Some(dir) = role() {
        return work(Path::new(&dir));
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    for seed in 0..campaign("COUNTERFOIL_WAL_KILL_ROUNDS", 5) {
        let mut child = command(&again("killed_while_it_is_copied", dir.to_str().unwrap())).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let through = lines.filter_map(|line| line.strip_prefix("through ")?.parse().ok());
        let said: Vec<u64> = through.take(1 + Random::new(seed).below(40) as usize).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        let last = *said.last().unwrap_or_else(|| panic!("seed {seed}: it said nothing"));
        let report = open_is_clean(&dir, &tiny());
        assert!(report.recovery.head.seq.get() >= last, "seed {seed}: {last} was acknowledged");
        assert!(report.mirror_set_aside.is_none(), "seed {seed}: the mirror is well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_away_while_it_is_copied() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store = tiny();
    // A file of the new mirror may be set aside with the old one's.
    options.restarts_max = 1000;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let mut events = 0;
    for round in 1..=5 {
        for _ in 0..10 {
            ledger.append_batch(batch(20)).await.unwrap();
            events += 20;
        }
        set_aside(temp.path()).unwrap();
        ledger.append_batch(batch(20)).await.unwrap();
        events += 20;
        until("a mirror that is whole", || {
            let status = ledger.status();
            status.restarts >= round && status.mirror == MirrorHealth::Live && status.mirrored_through.get() == events
        })
        .await;
    }
    finish(ledger, temp.path(), events).await;
}
