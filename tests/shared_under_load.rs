//! Goal: what the handle and the actors share outside messages (permits, the published refs, the durable head, the mirror's
//! watermark, those who wait for it) is right at any interleaving: every append that is waited for is answered, none
//! twice, an append that is given up leaves nothing behind, the heads only go forward, and all permits come back.
//!
//! Method: seeded tasks on several threads append, try, give up, ask and kill actors, all at once, with bounds so small that
//! all of them are met; others watch the status all the time. COUNTERFOIL_LOAD_ROUNDS says how many seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::{Random, campaign, id};
use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::*;

const TASKS: u64 = 48;
const STEPS: u64 = 30;

#[derive(Default)]
struct Tally {
    acknowledged: Vec<Receipt>,
    busy: u64,
    given_up: u64,
    behind: u64,
}

fn options(random: &mut Random) -> LedgerOptions {
    let mut options = LedgerOptions::default();
    options.store.group_events_max = 8;
    options.store.segment_bytes_max = 20_000;
    options.inflight_events_max = 8;
    options.inflight_bytes_max = 20_000;
    options.mirror_queue_bytes_max = 5_000;
    options.mirrored_waiters_max = [1, 4, 1 << 16][random.below(3) as usize];
    options.mirrored_deadline = [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(60)][random.below(3) as usize];
    (options.restarts_max, options.restart_backoff_max, options.retries_max) = (100_000, Duration::from_millis(2), 10_000);
    options
}

/// A number of its own for each append.
fn draft(seed: u64, task: u64, step: u64, random: &mut Random) -> Draft {
    let draft = common::note(&"x".repeat(random.below(600) as usize)).session(format!("s-{}", task % 5));
    if random.chance(2) { draft.id(id(seed << 40 | task << 20 | step)) } else { draft }
}

async fn act(ledger: &Ledger, seed: u64, task: u64) -> Tally {
    let mut random = Random::new(seed << 8 | task);
    let mut tally = Tally::default();
    for step in 0..STEPS {
        let draft = draft(seed, task, step, &mut random);
        let durability = if random.chance(2) { Durability::Mirrored } else { Durability::Ledger };
        match random.below(12) {
            0 | 1 => match ledger.try_append(draft).await {
                Ok(receipt) => tally.acknowledged.push(receipt),
                Err(AppendError::Busy | AppendError::Rebuilding { .. } | AppendError::OutcomeUnknown { .. }) => tally.busy += 1,
                Err(error) => panic!("{error}"),
            },
            2 | 3 => {
                // Given up after a few polls: before it has its permit, before it is written, or after.
                let append = ledger.append_with(draft, Expect::Any, durability);
                let polls = random.below(4);
                let done = tokio::select! {
                    biased;
                    done = append => Some(done.unwrap()),
                    () = yield_times(polls) => None,
                };
                tally.given_up += u64::from(done.is_none());
                tally.acknowledged.extend(done);
            }
            4 if random.chance(4) => {
                let children = ledger.children().await.unwrap();
                let child = if random.chance(2) { children.ledger } else { children.sqlite };
                if let Some(child) = child {
                    child.kill();
                }
            }
            5 => {
                let batch = vec![common::note("a"), common::note("b")];
                tally.acknowledged.extend(ledger.append_batch_with(batch, Conditions::none(), durability).await.unwrap());
            }
            _ => {
                let receipt = ledger.append_with(draft, Expect::Any, durability).await.unwrap();
                tally.behind += u64::from(receipt.mirror == MirrorAck::MirrorBehind);
                assert_eq!(receipt.mirror == MirrorAck::NotAwaited, durability == Durability::Ledger);
                tally.acknowledged.push(receipt);
            }
        }
    }
    tally
}

async fn yield_times(times: u64) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Looks at the status until it is told to stop; answers how often it has looked.
fn watch(ledger: Ledger, stop: Arc<AtomicBool>, seen: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut durable = Seq::ZERO;
        while !stop.load(SeqCst) {
            let status = ledger.status();
            assert!(status.durable.seq >= durable, "the durable head went back from {durable} to {}", status.durable.seq);
            assert!(status.mirrored_through <= status.durable.seq, "the mirror is ahead: {status:?}");
            assert!(status.in_flight <= 8, "{} in flight", status.in_flight);
            durable = status.durable.seq;
            seen.fetch_add(1, SeqCst);
            std::thread::yield_now();
        }
    })
}

async fn round(seed: u64) -> Tally {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options(&mut Random::new(seed))).await.unwrap();
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = watch(ledger.clone(), stop.clone(), seen.clone());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move { act(&ledger, seed, task).await })
        })
        .collect();
    let mut total = Tally::default();
    for task in tasks {
        let tally = task.await.unwrap();
        total.acknowledged.extend(tally.acknowledged);
        total.busy += tally.busy;
        total.given_up += tally.given_up;
        total.behind += tally.behind;
    }
    // Who was killed last is known to be gone once its successor has done something; and it may answer once, from what it was at.
    for _ in 0..2 {
        let last = ledger.append(common::note("last")).await.unwrap();
        ledger.mirrored(last.seq).await.unwrap();
        total.acknowledged.push(last);
    }
    // What was given up may still be on its way; then all permits are back.
    common::until("an empty flight", || ledger.status().in_flight == 0).await;
    stop.store(true, SeqCst);
    watcher.join().unwrap();
    assert!(seen.load(SeqCst) > 0);
    let report = ledger.close().await.unwrap();
    assert_eq!((report.mirrored_through, report.ledger_error, report.mirror_error), (report.head.seq, None, None));

    let mut there = HashMap::new();
    let mut lines = LedgerReader::open(temp.path(), &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    while let Some((_, event)) = lines.next_event().unwrap() {
        assert!(there.insert(event.id, event.seq).is_none(), "{} is there twice", event.id);
    }
    let mut answered = HashMap::new();
    for receipt in &total.acknowledged {
        assert_eq!(there.get(&receipt.id), Some(&receipt.seq));
        assert!(answered.insert(receipt.id, ()).is_none(), "{} was given out twice", receipt.id);
    }
    assert!(there.len() as u64 <= total.acknowledged.len() as u64 + total.given_up + total.busy);
    assert!(common::verified(temp.path()).is_clean());
    assert!(common::parity(temp.path()).is_consistent());
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_shared_is_right_at_any_interleaving() {
    let mut total = Tally::default();
    let rounds = campaign("COUNTERFOIL_LOAD_ROUNDS", 12);
    for seed in 0..rounds {
        eprintln!("seed {seed}");
        let tally = round(seed).await;
        total.acknowledged.extend(tally.acknowledged);
        total.busy += tally.busy;
        total.given_up += tally.given_up;
        total.behind += tally.behind;
    }
    let acknowledged = total.acknowledged.len();
    eprintln!("{rounds} rounds: {acknowledged} acknowledged, {} busy, {} given up, {} behind", total.busy, total.given_up, total.behind);
    assert!(total.busy > 0 && total.given_up > 0 && total.behind > 0, "a bound was not met");
}
