//! Goal: whatever actor is made to panic or to fail, under load of 64 concurrent appenders and many times: every
//! append ends in a receipt or a typed error, and every receipt's event is in both legs afterwards, once.
//!
//! Method: a failpoint at each step of each actor panics, or fails, at every n-th call. Half of the appends bring
//! an id of their own, half wait for the mirror. Afterwards the store is opened without faults and read line by line.
//! COUNTERFOIL_FAULT_ROUNDS makes the campaign longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use counterfoil::actors::{Durability, Ledger, LedgerOptions, Phase};
use counterfoil::*;

const APPENDERS: u64 = 64;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Panic,
    Fail(io::ErrorKind),
}

/// Strikes at every `every`-th call of the point, `times` times at most; answers how often it has struck.
fn strike(options: &mut LedgerOptions, faults: &[(&'static str, Fault, u64, u64)]) -> Arc<AtomicU64> {
    let struck = Arc::new(AtomicU64::new(0));
    let faults: Vec<_> = faults.iter().map(|fault| (*fault, AtomicU64::new(0), AtomicU64::new(0))).collect();
    let count = struck.clone();
    options.store.failpoint = Some(Arc::new(move |point| {
        for ((at, fault, every, times), calls, done) in &faults {
            if *at != point || (calls.fetch_add(1, Ordering::SeqCst) + 1) % every != 0 || done.load(Ordering::SeqCst) >= *times {
                continue;
            }
            done.fetch_add(1, Ordering::SeqCst);
            count.fetch_add(1, Ordering::SeqCst);
            match fault {
                Fault::Panic => panic!("injected at {point}"),
                Fault::Fail(kind) => return Err(io::Error::new(*kind, format!("injected at {point}"))),
            }
        }
        Ok(())
    }));
    struck
}

fn rounds() -> u64 {
    common::campaign("COUNTERFOIL_FAULT_ROUNDS", 1)
}

/// Injected panics would fill the output.
fn hush() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("injected at") {
            before(info);
        }
    }));
}

struct Outcome {
    receipts: Vec<Receipt>,
    errors: Vec<AppendError>,
}

async fn load(ledger: &Ledger, round: u64, events: u64) -> Outcome {
    let tasks: Vec<_> = (0..APPENDERS)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut outcome = Outcome { receipts: Vec::new(), errors: Vec::new() };
                for n in 0..events {
                    let mut draft = common::note(&format!("{round}/{task}/{n}")).session(format!("s-{round}-{task}"));
                    if n % 2 == 0 {
                        draft = draft.id(common::id(round << 40 | task << 20 | n));
                    }
                    let durability = if n % 4 == 1 { Durability::Mirrored } else { Durability::Ledger };
                    match ledger.append_with(draft, Expect::Any, durability).await {
                        Ok(receipt) => outcome.receipts.push(receipt),
                        Err(error) => outcome.errors.push(error),
                    }
                }
                outcome
            })
        })
        .collect();
    let mut all = Outcome { receipts: Vec::new(), errors: Vec::new() };
    for task in tasks {
        let outcome = task.await.unwrap();
        all.receipts.extend(outcome.receipts);
        all.errors.extend(outcome.errors);
    }
    all
}

/// Opens without faults, and checks that both legs agree and have every receipt's event, once.
async fn check(dir: &Path, outcome: &Outcome) {
    Ledger::open(dir).await.unwrap().close().await.unwrap();
    let verified = common::verified(dir);
    assert!(verified.is_clean(), "{verified}");
    let parity = common::parity(dir);
    assert!(parity.is_consistent(), "{parity}");
    let mut seqs: HashMap<EventId, Seq> = HashMap::new();
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    while let Some((_, event)) = lines.next_event().unwrap() {
        assert!(seqs.insert(event.id, event.seq).is_none(), "{} is there twice", event.id);
    }
    for receipt in &outcome.receipts {
        assert_eq!(seqs.get(&receipt.id), Some(&receipt.seq), "acknowledged, but not there");
    }
    let submitted = outcome.receipts.len() + outcome.errors.len();
    assert!(seqs.len() <= submitted, "{} events of {submitted} appends", seqs.len());
}

async fn campaign(faults: &[(&'static str, Fault, u64, u64)]) -> (Outcome, u64) {
    hush();
    let mut all = Outcome { receipts: Vec::new(), errors: Vec::new() };
    let mut struck_in_all = 0;
    for round in 0..rounds() {
        let temp = tempfile::tempdir().unwrap();
        let mut options = LedgerOptions::default();
        options.restarts_max = 100_000;
        options.restart_backoff_max = Duration::from_millis(4);
        options.retries_max = 1_000;
        options.mirrored_deadline = Duration::from_secs(60);
        // Many transactions, so that the faults strike.
        options.mirror_delay = Duration::ZERO;
        let struck = strike(&mut options, faults);
        let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
        let outcome = load(&ledger, round, 20).await;
        ledger.close().await.ok();
        assert!(struck.load(Ordering::SeqCst) > 0, "no fault has struck: {faults:?}");
        struck_in_all += struck.load(Ordering::SeqCst);
        check(temp.path(), &outcome).await;
        assert_eq!((outcome.receipts.len() + outcome.errors.len()) as u64, APPENDERS * 20);
        all.receipts.extend(outcome.receipts);
        all.errors.extend(outcome.errors);
    }
    eprintln!("{faults:?}: {struck_in_all} faults, {} receipts, {} errors", all.receipts.len(), all.errors.len());
    (all, struck_in_all)
}

async fn every_append_gets_its_receipt(faults: &[(&'static str, Fault, u64, u64)]) {
    let (outcome, _) = campaign(faults).await;
    assert!(outcome.errors.is_empty(), "{}", outcome.errors[0]);
}

const FOR_EVER: u64 = u64::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn ledger_actor_panics_at_an_append() {
    every_append_gets_its_receipt(&[(failpoint::ACTOR_LEDGER_APPEND, Fault::Panic, 97, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_actor_panics_before_the_write() {
    every_append_gets_its_receipt(&[(failpoint::LEDGER_WRITE, Fault::Panic, 5, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_actor_panics_between_write_and_fsync() {
    every_append_gets_its_receipt(&[(failpoint::LEDGER_SYNC, Fault::Panic, 5, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_actor_panics_between_fsync_and_acknowledgement() {
    every_append_gets_its_receipt(&[(failpoint::ACTOR_LEDGER_SYNCED, Fault::Panic, 5, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_actor_panics_before_begin() {
    every_append_gets_its_receipt(&[(failpoint::MIRROR_BEGIN, Fault::Panic, 3, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_actor_panics_before_commit() {
    every_append_gets_its_receipt(&[(failpoint::MIRROR_COMMIT, Fault::Panic, 3, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_actor_panics_between_commit_and_acknowledgement() {
    every_append_gets_its_receipt(&[(failpoint::ACTOR_SQLITE_COMMITTED, Fault::Panic, 3, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_actor_fails_to_commit() {
    every_append_gets_its_receipt(&[(failpoint::MIRROR_COMMIT, Fault::Fail(io::ErrorKind::StorageFull), 2, FOR_EVER)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_actor_panics_and_fails_while_sqlite_actor_panics() {
    every_append_gets_its_receipt(&[
        (failpoint::ACTOR_SQLITE_COMMITTED, Fault::Panic, 4, FOR_EVER),
        (failpoint::ACTOR_PARITY_STEP, Fault::Panic, 2, FOR_EVER),
        (failpoint::ACTOR_PARITY_STEP, Fault::Fail(io::ErrorKind::PermissionDenied), 3, FOR_EVER),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_panic() {
    every_append_gets_its_receipt(&[
        (failpoint::ACTOR_LEDGER_APPEND, Fault::Panic, 151, FOR_EVER),
        (failpoint::LEDGER_SYNC, Fault::Panic, 11, FOR_EVER),
        (failpoint::MIRROR_COMMIT, Fault::Panic, 4, FOR_EVER),
        (failpoint::ACTOR_PARITY_STEP, Fault::Panic, 3, FOR_EVER),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_definite_no_and_the_writer_stays_well() {
    let (outcome, struck) = campaign(&[(failpoint::LEDGER_RESERVE, Fault::Fail(io::ErrorKind::StorageFull), 1, 3)]).await;
    assert!(struck > 0 && !outcome.errors.is_empty() && !outcome.receipts.is_empty());
    for error in &outcome.errors {
        assert!(matches!(error, AppendError::Ledger(LedgerError::DiskFull { .. })), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_or_fsync_poisons_and_everyone_is_told() {
    for point in [failpoint::LEDGER_WRITE, failpoint::LEDGER_SYNC] {
        let (outcome, _) = campaign(&[(point, Fault::Fail(io::ErrorKind::Other), 3, FOR_EVER)]).await;
        assert!(!outcome.errors.is_empty());
        let unknown = outcome.errors.iter().filter(|error| matches!(error, AppendError::OutcomeUnknown { .. })).count();
        for error in &outcome.errors {
            match error {
                AppendError::OutcomeUnknown { drafts } => assert!(drafts[0].given_id().is_some(), "the draft comes back with its id"),
                AppendError::Ledger(LedgerError::Poisoned { .. }) => {}
                other => panic!("{other}"),
            }
        }
        assert!(unknown > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_restarts_fail_upward() {
    hush();
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.restarts_max = 3;
    strike(&mut options, &[(failpoint::ACTOR_LEDGER_APPEND, Fault::Panic, 1, FOR_EVER)]);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let error = ledger.append(common::note("x")).await.unwrap_err();
    assert!(matches!(error, AppendError::OutcomeUnknown { .. } | AppendError::Stopped { .. }), "{error}");
    let error = ledger.append(common::note("x")).await.unwrap_err();
    assert!(matches!(error, AppendError::Stopped { .. }), "{error}");
    assert!(matches!(ledger.status().phase, Phase::Stopped { .. }));
    assert!(ledger.close().await.is_err());
    Ledger::open(temp.path()).await.unwrap().close().await.unwrap();
}
