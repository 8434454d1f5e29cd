//! Goal: however entities end, nobody hangs and nobody is told what is not so: closed while a command waits for the store, under a store
//! that is closed, poisoned or opened again, with their supervisor, or with the runtime that they were begun on.
//!
//! Method: a real store whose fsync is held or fails, a mirror that is locked at its bound, handles that outlive what they hang on. Each
//! wait has a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::time::Duration;

use common::watched::Watched;
use counterfoil::actors::Ledger;
use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::*;
use entity_support::*;

/// What it comes to, within a minute.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_an_unknown_outcome_whatever_its_repetition_says() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = common::options();
    let watched = Watched::under(&mut store);
    let ledger = Ledger::open_with(temp.path(), store).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    watched.hold(true);
    let sent = {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.send_keyed("a", "k", deposit(10)).await })
    };
    until("a held fsync", || watched.is_waiting()).await;
    // As where the parent of `entities_linked` is stopped: the repetition by the key finds nobody.
    accounts.actor("a").unwrap().try_get_supervisor().unwrap().kill();
    let error = soon(sent).await.unwrap().unwrap_err();
    watched.hold(false);
    assert!(error.is_outcome_unknown() && error.is_retryable(), "{error}");
    until("it is recorded", || ledger.status().durable.seq == Seq::new(2)).await;
    soon(accounts.close()).await;
    let others = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    assert!(others.send_keyed("a", "k", deposit(10)).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_not_wait_for_ever_for_a_command_that_does() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = ledger_options();
    options.store.unmirrored_events_max = 4;
    options.store.group_events_max = 4;
    options.close_deadline = Duration::from_millis(200);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let locked = rusqlite::Connection::open(temp.path().join("mirror.sqlite3")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sending = {
        let accounts = accounts.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                accounts.send("a", deposit(1)).await?;
            }
            Ok::<_, EntityError<Refused>>(())
        })
    };
    until("as many wait for the mirror as may", || ledger.status().durable.seq >= Seq::new(4)).await;
    soon(accounts.close()).await;
    assert!(soon(sending).await.unwrap().is_err());
    soon(ledger.close()).await.unwrap();
}

#[tokio::test]
async fn a_handle_of_a_store_that_was_closed_has_nothing_to_say_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    ledger.close().await.unwrap();
    let again = open(temp.path()).await;
    let others = again.entities(Account, EntityOptions::default()).await.unwrap();
    others.send("a", deposit(10)).await.unwrap();
    // Neither the state of old, nor a refusal that rests on it, nor that there is nothing to do.
    assert!(matches!(accounts.read("a", |state| state.cents).await, Err(EntityError::Append(AppendError::Closed))));
    for command in [Do::Withdraw { cents: 5 }, Do::Nothing] {
        assert!(matches!(accounts.send("a", command).await, Err(EntityError::Append(AppendError::Closed))));
    }
    assert_eq!(others.read("a", |state| state.cents).await.unwrap(), 11);
    soon(accounts.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_store_is_told_of() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = common::options();
    let switches = common::disk::faulty(&mut store);
    let ledger = Ledger::open_with(temp.path(), store).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    switches.fail(common::disk::Op::Sync, std::io::ErrorKind::Other);
    let first = soon(accounts.send_keyed("a", "k", deposit(1))).await.unwrap_err();
    assert!(first.is_outcome_unknown(), "{first}");
    until("poisoned", || matches!(ledger.status().phase, actors::Phase::Poisoned { .. })).await;
    let then = soon(accounts.send_keyed("a", "k", deposit(1))).await.unwrap_err();
    assert!(matches!(then, EntityError::Append(AppendError::Ledger(LedgerError::Poisoned { .. }))), "{then}");
    soon(accounts.close()).await;
    let _ = ledger.close().await;
}

#[test]
fn they_end_with_the_runtime_that_they_were_begun_on() {
    let temp = tempfile::tempdir().unwrap();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let ledger = second.block_on(open(temp.path()));
    let accounts = first.block_on(ledger.entities(Account, EntityOptions::default())).unwrap();
    first.block_on(accounts.send("a", deposit(1))).unwrap();
    assert_eq!(second.block_on(accounts.send("a", deposit(1))).unwrap().position, 2);
    drop(first);
    second.block_on(async {
        for stream in ["a", "new"] {
            assert!(soon(accounts.send_keyed(stream, "k", deposit(1))).await.is_err());
        }
        let others = ledger.entities(Account, EntityOptions::default()).await.unwrap();
        assert_eq!(others.send("a", deposit(1)).await.unwrap().position, 3);
        soon(accounts.close()).await;
        soon(others.close()).await;
        ledger.close().await.unwrap();
    });
}
