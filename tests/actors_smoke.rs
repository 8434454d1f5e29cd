//! Goal: the handle works as its docs say. Method: one store, many tasks, every call once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod common;

use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::*;

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::default();
    options.mirrored_deadline = std::time::Duration::from_secs(60);
    options
}

async fn session(ledger: &Ledger, name: String, events: u64) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for n in 0..events {
        let draft = Draft::new(EventType::TOOL_CALL, Source::tool("bash")).session(name.clone()).payload(&n).unwrap();
        receipts.push(ledger.append(draft).await.unwrap());
    }
    receipts
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_append_and_both_legs_agree() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move { session(&ledger, format!("s-{task}"), 20).await })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap().into_iter().map(|receipt| receipt.seq.get()));
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=64 * 20).collect::<Vec<_>>());
    ledger.mirrored(Seq::new(64 * 20)).await.unwrap();
    let parity = ledger.parity(ParityKind::Full).await.unwrap();
    assert!(parity.is_consistent(), "{parity}");
    assert_eq!(parity.jsonl_event_count, 64 * 20);
    let groups = ledger.status().groups;
    assert!(groups < 64 * 20, "appends of 64 tasks share fsyncs ({groups} groups)");
    let table = ledger.query("SELECT count(*) FROM events").await.unwrap();
    assert_eq!(table.rows[0][0], rusqlite::types::Value::Integer(64 * 20));
    let receipt = ledger.append_with(common::note("x"), Expect::Any, Durability::Mirrored).await.unwrap();
    assert_eq!(receipt.mirror, MirrorAck::Mirrored);
    let closed = ledger.close().await.unwrap();
    assert_eq!(closed.head.seq.get(), 64 * 20 + 1);
    assert_eq!(closed.mirrored_through.get(), 64 * 20 + 1);
    assert!(common::verified(temp.path()).is_clean());
    // The lock is free at once.
    let again = Ledger::open(temp.path()).await.unwrap();
    again.close().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_current_thread_runtime_and_two_stores_work() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (Ledger::open(one.path()).await.unwrap(), Ledger::open(two.path()).await.unwrap());
    let (x, y) = tokio::join!(session(&a, "s".into(), 10), session(&b, "s".into(), 10));
    assert_eq!((x.len(), y.len()), (10, 10));
    let locked = Ledger::open(one.path()).await.unwrap_err();
    assert!(locked.is_locked(), "{locked}");
    a.close().await.unwrap();
    b.close().await.unwrap();
}
