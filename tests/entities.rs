//! Goal: an entity's commands are decided on the fold of its stream, and what they cause is recorded as a whole before it is applied and
//! answered; the state is the same after the entity, its registry, or the store has come back.
//!
//! Method: an account on a real store, compared with a fold of the ledger's lines that knows nothing of entities.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::time::Duration;

use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::actors::{Durability, Ledger};
use counterfoil::*;
use entity_support::*;

#[tokio::test]
async fn commands_are_decided_recorded_applied_and_answered() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let outcome = accounts.send("a", deposit(70)).await.unwrap();
    assert_eq!((outcome.position, outcome.duplicate, outcome.receipts[0].session_seq), (1, false, Some(1)));
    assert_eq!(outcome.events, [Moved::Deposited { cents: 70, memo: "cash".to_owned() }]);
    // A batch of two, all or nothing.
    let outcome = accounts.send("a", Do::Exchange { cents: 20 }).await.unwrap();
    assert_eq!((outcome.events.len(), outcome.position), (2, 3));
    // A refusal records nothing, and neither does what leads to nothing.
    let refused = accounts.send("a", Do::Withdraw { cents: 100 }).await.unwrap_err();
    assert!(matches!(&refused, EntityError::Rejected(Refused::Short { cents: 70 })), "{refused}");
    assert!(refused.is_rejected() && !refused.is_retryable());
    let nothing = accounts.send("a", Do::Nothing).await.unwrap();
    assert_eq!((nothing.events.len(), nothing.receipts.len(), nothing.position), (0, 0, 3));
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 70);
    // Another stream is another account, one without events the default.
    accounts.send("b", deposit(1)).await.unwrap();
    assert_eq!(accounts.read("c", Clone::clone).await.unwrap(), Balance::default());
    assert_eq!((accounts.position("a").await.unwrap(), accounts.position("c").await.unwrap()), (3, 0));
    let mut live = accounts.live();
    live.sort();
    assert_eq!(live, ["a".into(), "b".into(), "c".into()]);
    accounts.close().await;
    ledger.close().await.unwrap();
    assert_eq!((balance_by_hand(temp.path(), "a"), balance_by_hand(temp.path(), "b")), (70, 1));
    assert!(common::parity(temp.path()).is_consistent());
}

#[tokio::test]
async fn the_state_comes_back_with_the_entity_the_registry_and_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for life in 1..=3 {
        let ledger = open(temp.path()).await;
        for registry in 1..=2 {
            let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
            for cents in [5 * life, 7 * registry] {
                assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), expected);
                accounts.send("a", deposit(cents)).await.unwrap();
                expected += cents;
                assert!(accounts.passivate("a") && !accounts.passivate("a"));
            }
            accounts.close().await;
        }
        ledger.close().await.unwrap();
    }
    assert_eq!(balance_by_hand(temp.path(), "a"), expected);
}

#[tokio::test]
async fn what_others_have_put_into_the_stream_is_upcast_or_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let old = |cents: i64| Draft::new("deposited.v1".parse().unwrap(), Source::User).session("a").payload(&cents).unwrap();
    ledger.append(old(100)).await.unwrap();
    ledger.append(common::note("no event of an account").session("a")).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    // While it lives, too: the next decision finds the stream elsewhere, and reads what has come.
    ledger.append(old(1000)).await.unwrap();
    ledger.append(common::note("no event of an account").session("a")).await.unwrap();
    let outcome = accounts.send("a", Do::Withdraw { cents: 1101 }).await.unwrap();
    assert_eq!(outcome.position, 6);
    let state = accounts.read("a", Clone::clone).await.unwrap();
    assert_eq!((state.cents, state.moved["from v1"], state.moved["cash"]), (0, 2, 1));
}

#[tokio::test]
async fn rows_can_be_awaited_and_dropped_handles_end() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    options.durability = Durability::Mirrored;
    let accounts = ledger.entities(Account, options).await.unwrap();
    let outcome = accounts.send("a", deposit(1)).await.unwrap();
    assert_eq!(outcome.receipts[0].mirror, MirrorAck::Mirrored);
    let (clone, actor) = (accounts.clone(), accounts.actor("a").unwrap());
    drop(accounts);
    assert_eq!(clone.read("a", |state| state.cents).await.unwrap(), 1);
    drop(clone);
    until("the entity has ended", || actor.get_status() == ractor::ActorStatus::Stopped).await;
    ledger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_rows_hold_up_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = ledger_options();
    store.mirrored_deadline = Duration::from_millis(300);
    let ledger = Ledger::open_with(temp.path(), store).await.unwrap();
    let mut options = EntityOptions::default();
    options.durability = Durability::Mirrored;
    let accounts = ledger.entities(Account, options).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let locked = rusqlite::Connection::open(temp.path().join("mirror.sqlite3")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = accounts.send_keyed("a", "k", deposit(1));
    // The other one is decided and recorded while the first one still waits for its row.
    let look = async {
        loop {
            let cents = accounts.read("a", |state| state.cents).await.unwrap();
            if cents == 3 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let (first, second, ()) = tokio::join!(first, accounts.send("a", deposit(1)), look);
    assert_eq!((first.unwrap().receipts[0].mirror, second.unwrap().receipts[0].mirror), (MirrorAck::MirrorBehind, MirrorAck::MirrorBehind));
    let again = accounts.send_keyed("a", "k", deposit(1)).await.unwrap();
    assert_eq!((again.duplicate, again.receipts[0].mirror), (true, MirrorAck::MirrorBehind));
    drop(locked);
    ledger.mirrored(ledger.status().durable.seq).await.unwrap();
    let again = accounts.send_keyed("a", "k", deposit(1)).await.unwrap();
    assert_eq!(again.receipts[0].mirror, MirrorAck::Mirrored);
}

#[tokio::test]
async fn who_holds_a_closed_handle_is_told_so() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let clone = accounts.clone();
    accounts.close().await;
    assert!(matches!(clone.send("a", deposit(1)).await, Err(EntityError::Closed)));
    clone.close().await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    ledger.close().await.unwrap();
    let closed = accounts.send("a", deposit(1)).await.unwrap_err();
    assert!(matches!(closed, EntityError::Append(AppendError::Closed)), "{closed}");
}
