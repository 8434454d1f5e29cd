//! Goal: appends are answered though another runtime stands still: the one that the store was opened on, or one that an append came
//! from too. Method: a current-thread runtime that nobody drives, and an fsync that is held until all have asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::time::Duration;

use common::watched::Watched;
use common::{note, parity, until};
use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::{Conditions, Expect, MirrorAck};

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::from(common::options());
    options.mirrored_deadline = Duration::from_secs(60);
    options
}

#[test]
fn a_runtime_that_stands_still_holds_nobody_up() {
    let temp = tempfile::tempdir().unwrap();
    let still = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ledger = still.block_on(Ledger::open_with(temp.path(), options())).unwrap();
    let (callers, rounds) = (32, 20);
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    other.block_on(async {
        for durability in [Durability::Ledger, Durability::Mirrored] {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let ledger = ledger.clone();
                    tokio::spawn(async move {
                        for _ in 0..rounds {
                            let receipt = ledger.append_with(note("x"), Expect::Any, durability).await.unwrap();
                            assert!(durability == Durability::Ledger || receipt.mirror == MirrorAck::Mirrored, "{receipt:?}");
                        }
                    })
                })
                .collect();
            for task in tasks {
                tokio::time::timeout(Duration::from_secs(60), task).await.expect("an answer").unwrap();
            }
        }
    });
    still.block_on(ledger.close()).unwrap();
    assert_eq!(parity(temp.path()).jsonl_event_count, 2 * callers * rounds);
}

#[test]
fn nor_does_one_that_an_append_came_from_last() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    let watched = Watched::under(&mut options.store);
    let still = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ledger = other.block_on(Ledger::open_with(temp.path(), options)).unwrap();
    watched.hold(true);
    let append = || {
        let ledger = ledger.clone();
        other.spawn(async move { ledger.append_with(note("x"), Expect::Any, Durability::Mirrored).await.unwrap() })
    };
    let mut tasks = vec![append()];
    other.block_on(until("a held fsync", || watched.is_waiting()));
    tasks.extend((0..40).map(|_| append()));
    other.block_on(until("all to ask", || ledger.status().in_flight == 41));
    let draft = ledger.check(note("last")).unwrap();
    let last = still.block_on(ledger.submit(vec![draft], Conditions::none(), Durability::Ledger)).unwrap();
    watched.hold(false);
    for task in tasks {
        let receipt = other.block_on(async { tokio::time::timeout(Duration::from_secs(60), task).await }).expect("an answer").unwrap();
        assert_eq!(receipt.mirror, MirrorAck::Mirrored);
    }
    assert_eq!(still.block_on(last).unwrap().len(), 1);
    other.block_on(ledger.close()).unwrap();
}
