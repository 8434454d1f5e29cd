//! Goal: the hand-off to the flusher's thread breaks no promise. One group is in flight at a time, and nothing of the next is
//! written before its fsync has returned; no write outlives a LedgerActor that was killed; a failed fsync on that thread
//! poisons, and everyone is answered; a panic there restarts the actor, and nothing acknowledged is lost.
//!
//! Method: more appenders than are waited for, so that groups overlap, on a disk that watches the order of writes and
//! fsyncs; by seed the actor is killed, or an fsync fails or panics. COUNTERFOIL_FLUSHER_ROUNDS says how many seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::watched::Watched;
use common::{Random, campaign, id};
use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::*;

const TASKS: u64 = 160;
const APPENDS: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    Kills,
    Fails,
    Panics,
}

/// Appends, some twice, until all are there or the store is poisoned; answers what was acknowledged.
async fn appender(ledger: Ledger, seed: u64, task: u64) -> Vec<Receipt> {
    let mut random = Random::new(seed << 10 | task);
    let mut receipts = Vec::new();
    for step in 0..APPENDS {
        let draft = common::note(&"x".repeat(random.below(900) as usize)).session(format!("s-{}", task % 7)).id(id(task << 8 | step));
        let durability = if random.chance(4) { Durability::Mirrored } else { Durability::Ledger };
        let twice = random.chance(8);
        let (first, again) = tokio::join!(ledger.append_with(draft.clone(), Expect::Any, durability), async {
            if twice { Some(ledger.append(draft.clone()).await) } else { None }
        });
        match (first, again) {
            (Ok(first), again) => {
                if let Some(Ok(again)) = again {
                    assert_eq!((again.seq, again.event_hash), (first.seq, first.event_hash));
                }
                receipts.push(first);
            }
            (
                Err(AppendError::OutcomeUnknown { .. } | AppendError::Stopped { .. } | AppendError::Ledger(LedgerError::Poisoned { .. })),
                _,
            ) => {
                break;
            }
            (Err(error), _) => panic!("{error}"),
        }
    }
    receipts
}

async fn round(seed: u64, trouble: Trouble) -> (u64, u64) {
    let temp = tempfile::tempdir().unwrap();
    let mut random = Random::new(seed);
    let mut options = LedgerOptions::default();
    (options.restarts_max, options.restart_backoff_max, options.retries_max) = (100_000, Duration::from_millis(2), 10_000);
    options.store.segment_bytes_max = [20_000, 200_000, 64 << 20][random.below(3) as usize];
    options.store.preallocate = random.chance(2);
    // A group of so many bytes is handed over at once, whoever else may come.
    options.group_bytes_target = 2000;
    let watched = Watched::under(&mut options.store);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    match trouble {
        Trouble::Fails | Trouble::Panics => watched.fail(random.below(4), trouble == Trouble::Panics),
        Trouble::None | Trouble::Kills => {}
    }
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(appender(ledger.clone(), seed, task))).collect();
    if trouble == Trouble::Kills {
        for _ in 0..3 {
            let groups = ledger.status().groups + random.below(4);
            common::until("groups", || ledger.status().groups > groups || tasks.iter().all(|task| task.is_finished())).await;
            if let Some(actor) = ledger.children().await.unwrap().ledger {
                actor.kill();
            }
        }
    }
    let mut receipts = Vec::new();
    for task in tasks {
        receipts.extend(task.await.unwrap());
    }
    finished(ledger, temp.path(), trouble, &watched, &receipts).await;
    let seen = watched.seen();
    assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
    (seen.own, seen.flusher)
}

async fn finished(ledger: Ledger, dir: &std::path::Path, trouble: Trouble, watched: &Arc<Watched>, receipts: &[Receipt]) {
    if trouble == Trouble::Fails {
        assert!(matches!(ledger.append(common::note("late")).await, Err(AppendError::Ledger(LedgerError::Poisoned { .. }))));
        assert!(matches!(ledger.close().await, Err(AppendError::Ledger(LedgerError::Poisoned { .. }))));
        assert!((receipts.len() as u64) < TASKS * APPENDS);
    } else {
        assert_eq!(receipts.len() as u64, TASKS * APPENDS);
        // Who was killed last is known to be gone once its successor has done something.
        for _ in 0..2 {
            ledger.append(common::note("last")).await.unwrap();
        }
        let restarts = ledger.status().restarts;
        assert_eq!(restarts > 0, trouble != Trouble::None, "{restarts} restarts");
        let report = ledger.close().await.unwrap();
        assert_eq!((report.ledger_error, report.mirror_error), (None, None));
    }
    assert!(!watched.is_waiting());
    // A fresh open, on a plain disk, settles what was unknown.
    let (store, _) = Store::open(dir, &Options::default()).unwrap();
    store.close().unwrap();
    assert!(common::verified(dir).is_clean());
    assert!(common::parity(dir).is_consistent());
    let mut there = HashSet::new();
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    while let Some((_, event)) = lines.next_event().unwrap() {
        assert!(there.insert((event.id, event.event_hash)));
    }
    for receipt in receipts {
        assert!(there.contains(&(receipt.id, receipt.event_hash)), "seq {} was acknowledged and is lost", receipt.seq);
    }
}

/// An actor that has the store below it, and ends with it.
struct Parent;

impl ractor::Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();
    async fn pre_start(&self, _: ractor::ActorRef<()>, (): ()) -> Result<(), ractor::ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_lock_is_held_until_the_last_write_has_ended() {
    let temp = tempfile::tempdir().unwrap();
    let (parent, _) = ractor::Actor::spawn(None, Parent, ()).await.unwrap();
    let mut options = LedgerOptions::default();
    options.group_bytes_target = 2000;
    let watched = Watched::under(&mut options.store);
    let ledger = Ledger::open_linked(temp.path(), options, parent.get_cell()).await.unwrap();
    watched.hold_flusher(true);
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(appender(ledger.clone(), 1, task))).collect();
    common::until("a write that the flusher is at", || watched.is_waiting()).await;
    parent.kill();
    common::until("the end of the supervisor", || ledger.address().get_status() == ractor::ActorStatus::Stopped).await;
    for task in tasks {
        assert!((task.await.unwrap().len() as u64) < APPENDS);
    }
    // Nobody is left who would answer, and a write is still under way.
    let open = || Store::open(temp.path(), &Options::default());
    for _ in 0..20 {
        assert!(matches!(open(), Err(Error::Ledger(LedgerError::Locked { .. }))), "the lock is free while a write is under way");
        tokio::task::yield_now().await;
    }
    watched.hold_flusher(false);
    common::until("the lock", || !matches!(open(), Err(Error::Ledger(LedgerError::Locked { .. })))).await;
    assert!(common::verified(temp.path()).is_clean());
    assert!(watched.seen().wrong.is_empty(), "{:#?}", watched.seen().wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_hand_off_breaks_no_promise() {
    let rounds = campaign("COUNTERFOIL_FLUSHER_ROUNDS", 8);
    let (mut own, mut flusher) = (0, 0);
    for seed in 0..rounds {
        let trouble = [Trouble::None, Trouble::Kills, Trouble::Fails, Trouble::Panics][seed as usize % 4];
        eprintln!("seed {seed}: {trouble:?}");
        let (by_itself, by_flusher) = round(seed, trouble).await;
        (own, flusher) = (own + by_itself, flusher + by_flusher);
    }
    eprintln!("{rounds} rounds: {own} fsyncs by LedgerActor, {flusher} by its flusher");
    assert!(flusher > rounds, "the flusher had nothing to do");
}
