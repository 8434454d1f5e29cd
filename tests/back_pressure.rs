//! Goal: with producers faster than the disk, what is in memory stays within its bounds, waiting is fair, `Busy` is prompt,
//! and an append that is given up while it waits leaves nothing behind.
//!
//! Method: a disk whose fsync is held until the test lets it go, so that nothing depends on time; thousands of appends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::Arc;

use common::watched::Watched;
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;

const IN_FLIGHT: usize = 16;

async fn slow() -> (tempfile::TempDir, Arc<Watched>, Ledger) {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.group_events_max = IN_FLIGHT;
    options.inflight_events_max = IN_FLIGHT;
    let watched = Watched::under(&mut options.store);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    watched.hold(true);
    (temp, watched, ledger)
}

fn texts(dir: &std::path::Path) -> Vec<String> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut texts = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        texts.push(event.payload().unwrap().trim_matches('"').to_owned());
    }
    texts
}

/// Spawns appends in this order: each has asked for its permit before the next does.
async fn spawn_in_order(ledger: &Ledger, count: usize) -> Vec<tokio::task::JoinHandle<Result<Receipt, AppendError>>> {
    let mut tasks = Vec::new();
    for n in 0..count {
        let ledger = ledger.clone();
        let (asked, has_asked) = tokio::sync::oneshot::channel();
        tasks.push(tokio::spawn(async move {
            let mut append = std::pin::pin!(ledger.append(common::note(&n.to_string())));
            let first = std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx))).await;
            let _ = asked.send(());
            match first {
                std::task::Poll::Ready(done) => done,
                std::task::Poll::Pending => append.await,
            }
        }));
        has_asked.await.unwrap();
    }
    tasks
}

#[tokio::test]
async fn a_flood_waits_in_turn_and_memory_stays_bounded() {
    let (temp, watched, ledger) = slow().await;
    let tasks = spawn_in_order(&ledger, 3000).await;
    common::until("a held fsync", || watched.is_waiting()).await;
    assert_eq!(ledger.status().in_flight, IN_FLIGHT);
    watched.hold(false);
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.push(task.await.unwrap().unwrap().seq);
    }
    assert!(seqs.is_sorted(), "one that asked later came first");
    assert_eq!(ledger.status().in_flight, 0);
    ledger.close().await.unwrap();
    let expected: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    assert_eq!(texts(temp.path()), expected);
}

#[tokio::test]
async fn busy_is_said_while_the_disk_is_stuck() {
    let (_temp, watched, ledger) = slow().await;
    let tasks = spawn_in_order(&ledger, IN_FLIGHT).await;
    common::until("a held fsync", || watched.is_waiting()).await;
    for _ in 0..1000 {
        // Answered though no fsync returns.
        assert!(matches!(ledger.try_append(common::note("now or never")).await, Err(AppendError::Busy)));
    }
    assert!(watched.is_waiting());
    watched.hold(false);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(ledger.try_append(common::note("now")).await.is_ok());
    let report = ledger.close().await.unwrap();
    assert_eq!(report.head.seq.get(), IN_FLIGHT as u64 + 1);
}

#[tokio::test]
async fn what_is_given_up_while_it_waits_leaves_nothing_behind() {
    let (temp, watched, ledger) = slow().await;
    let tasks = spawn_in_order(&ledger, 500).await;
    common::until("a held fsync", || watched.is_waiting()).await;
    // The first sixteen have their permits and are with the actor; of the others every second one is given up.
    let given_up = |n: usize| n >= IN_FLIGHT && n % 2 == 1;
    for (n, task) in tasks.iter().enumerate() {
        if given_up(n) {
            task.abort();
        }
    }
    watched.hold(false);
    for (n, task) in tasks.into_iter().enumerate() {
        match task.await {
            Ok(done) => assert!(done.is_ok()),
            Err(error) => assert!(error.is_cancelled() && given_up(n)),
        }
    }
    assert_eq!(ledger.status().in_flight, 0, "a permit was lost");
    ledger.close().await.unwrap();
    // Room that is given up is passed on in turn, but by another thread than room that comes back with an answer.
    let mut there: Vec<usize> = texts(temp.path()).iter().map(|text| text.parse().unwrap()).collect();
    there.sort_unstable();
    assert_eq!(there, (0..500).filter(|n| !given_up(*n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_is_not_overtaken_for_ever() {
    let (temp, watched, ledger) = slow().await;
    let mut tasks = spawn_in_order(&ledger, IN_FLIGHT).await;
    let batch = {
        let ledger = ledger.clone();
        let drafts = (0..IN_FLIGHT).map(|_| common::note("batch")).collect();
        let mut append = Box::pin(async move { ledger.append_batch(drafts).await });
        // It asks for sixteen permits now; single ones that come later wait behind it.
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx).is_pending())).await);
        tokio::spawn(append)
    };
    tasks.extend(spawn_in_order(&ledger, 200).await);
    watched.hold(false);
    let receipts = batch.await.unwrap().unwrap();
    assert_eq!(receipts[0].seq.get(), IN_FLIGHT as u64 + 1);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    ledger.close().await.unwrap();
    assert!(common::verified(temp.path()).is_clean());
}
