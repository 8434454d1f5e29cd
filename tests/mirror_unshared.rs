//! Goal: an event is recorded once also where the mirror's shared memory could not be made when the store was opened: what
//! can then be read of the mirror is as of that moment, and must not be asked for ids and streams later.
//!
//! Method: a socket, which can't be opened as a file, stands where SQLite keeps its shared memory; the store is opened, the
//! socket goes, the mirror catches up, and what was recorded since is submitted again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::time::Duration;

use common::{finish, id, note, until};
use counterfoil::actors::{Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_meanwhile_is_recorded_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.mirror_busy_timeout = Duration::from_millis(10);
    let draft = |n: u64| note(&format!("event {n}")).session("s").id(id(n));
    let ledger = Ledger::open_with(temp.path(), options.clone()).await.unwrap();
    for n in 1..=3 {
        ledger.append(draft(n)).await.unwrap();
    }
    ledger.close().await.unwrap();
    let shared = format!("{}-shm", mirror_path(temp.path()).display());
    assert!(!std::path::Path::new(&shared).exists());
    let in_its_place = std::os::unix::net::UnixListener::bind(&shared).unwrap();
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    until("word of it", || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. })).await;
    // LedgerActor has heard of the mirror before it takes this one, which needs no lookup.
    assert_eq!(ledger.append(note("fresh")).await.unwrap().seq.get(), 4);
    // New ids in a stream that has to be looked up: they wait, or are recorded, and each once.
    let waiting: Vec<_> = (4..=6)
        .map(|n| {
            let (ledger, draft) = (ledger.clone(), draft(n));
            tokio::spawn(async move { ledger.append(draft).await.unwrap() })
        })
        .collect();
    drop(in_its_place);
    std::fs::remove_file(&shared).unwrap();
    for task in waiting {
        let receipt = tokio::time::timeout(Duration::from_secs(60), task).await.expect("it heals").unwrap();
        assert!(!receipt.duplicate, "{receipt:?}");
    }
    // All is mirrored and forgotten; what comes now is looked up.
    until("Live", || ledger.status().mirror == MirrorHealth::Live && ledger.status().mirrored_through.get() == 7).await;
    ledger.append(draft(7)).await.unwrap();
    ledger.mirrored(Seq::new(8)).await.unwrap();
    for n in 1..=7 {
        let again = ledger.append(draft(n)).await.unwrap();
        assert!(again.duplicate, "event {n} is recorded twice: {again:?}");
    }
    finish(ledger, temp.path(), 8).await;
}
