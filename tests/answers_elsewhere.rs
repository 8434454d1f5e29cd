//! Goal: appends are answered though the runtime that the store was opened on stands still, where their callers are on another.
//! Method: a current-thread runtime that nobody drives once the store is open.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::time::Duration;

use common::{note, options, parity};
use counterfoil::actors::{Durability, Ledger};
use counterfoil::{Expect, MirrorAck};

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
