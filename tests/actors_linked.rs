//! Goal: a runtime can hold the store under its own supervisor and talk to it in messages only: an append message
//! can't be made without a permit, goes to an address that survives restarts, and is always answered; the parent is
//! told when the store is poisoned. Closing with appends queued loses none of them.
//!
//! Method: a parent actor that records its supervision events; children are killed; failpoints poison.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::until;
use counterfoil::actors::{Durability, Ledger, LedgerOptions, Phase};
use counterfoil::*;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = Arc<Mutex<Vec<String>>>;
    type Arguments = Arc<Mutex<Vec<String>>>;

    async fn pre_start(&self, _: ActorRef<()>, told: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
        Ok(told)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        told: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => told.lock().unwrap().push(format!("failed: {error}")),
            SupervisionEvent::ActorTerminated(..) => told.lock().unwrap().push("ended".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

async fn by_message(ledger: &Ledger, draft: Draft) -> Result<Vec<Receipt>, AppendError> {
    let append = ledger.reserve(vec![ledger.check(draft)?]).await?.durability(Durability::Mirrored);
    ractor::call!(ledger.address(), |reply| append.into_message(reply)).expect("an answer always comes")
}

#[tokio::test]
async fn messages_to_a_stable_address_under_a_parent() {
    let temp = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (parent, _) = Actor::spawn(None, Parent, told.clone()).await.unwrap();
    let mut options = LedgerOptions::default();
    (options.restarts_max, options.mirrored_deadline) = (1_000, Duration::from_secs(60));
    let ledger = Ledger::open_linked(temp.path(), options, parent.get_cell()).await.unwrap();
    assert_eq!(parent.get_cell().get_children().len(), 1, "the supervisor is the parent's child");
    let mut expected = 0;
    for round in 0..5 {
        for kill in 0..2 {
            let children = ledger.children().await.unwrap();
            let victim = if kill == 0 { children.ledger } else { children.sqlite };
            if let Some(victim) = victim {
                victim.kill();
            }
            // An answer that was lost with the killed actor may be repeated, by id.
            let draft = common::note(&format!("{round} {kill}")).id(common::id(round * 2 + kill));
            let receipt = loop {
                match by_message(&ledger, draft.clone()).await {
                    Ok(mut receipts) => break receipts.pop().unwrap(),
                    Err(AppendError::OutcomeUnknown { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            expected += 1;
            assert_eq!((receipt.seq.get(), receipt.mirror), (expected, MirrorAck::Mirrored));
        }
    }
    until("restarts", || ledger.status().restarts > 0).await;
    ledger.close().await.unwrap();
    until("the end", || told.lock().unwrap().contains(&"ended".to_owned())).await;
    assert!(common::parity(temp.path()).is_consistent());
}

#[tokio::test]
async fn poison_is_told_upward_and_answered_from_then_on() {
    let temp = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (parent, _) = Actor::spawn(None, Parent, told.clone()).await.unwrap();
    let mut options = LedgerOptions::default();
    options.store.failpoint = Some(Arc::new(|point| match point {
        failpoint::LEDGER_SYNC => Err(io::Error::other("the disk is gone")),
        _ => Ok(()),
    }));
    let ledger = Ledger::open_linked(temp.path(), options, parent.get_cell()).await.unwrap();
    let first = ledger.append(common::note("x").id(common::id(1))).await.unwrap_err();
    let AppendError::OutcomeUnknown { drafts } = first else { panic!("{first}") };
    assert_eq!(drafts[0].given_id(), Some(common::id(1)));
    until("poison", || matches!(ledger.status().phase, Phase::Poisoned { .. })).await;
    for _ in 0..3 {
        let error = Error::from(ledger.append(common::note("y")).await.unwrap_err());
        assert!(error.is_poisoned(), "{error}");
    }
    until("word upward", || told.lock().unwrap().iter().any(|event| event.contains("the disk is gone"))).await;
    assert_eq!(ledger.status().restarts, 0, "nothing is respawned");
    assert!(ledger.close().await.is_err());
    // A fresh open settles it, and the draft is recorded once.
    let ledger = Ledger::open(temp.path()).await.unwrap();
    let receipt = ledger.append(drafts[0].clone()).await.unwrap();
    assert_eq!(receipt.seq.get(), 1);
    ledger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_with_appends_queued_loses_none() {
    for round in 0..10 {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(temp.path()).await.unwrap();
        let mut pending = Vec::new();
        for n in 0..500 {
            let draft = ledger.check(common::note(&n.to_string()).session("s")).unwrap();
            pending.push(ledger.submit(vec![draft], Conditions::none(), Durability::Ledger).await.unwrap());
            if n == 50 * round {
                tokio::task::yield_now().await;
            }
        }
        let closing = tokio::spawn(ledger.close());
        let mut recorded = 0;
        for answer in pending {
            match answer.await {
                Ok(receipts) => {
                    recorded += 1;
                    assert_eq!(receipts[0].seq.get(), recorded, "in the order of submission");
                }
                Err(AppendError::Closed | AppendError::OutcomeUnknown { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let report = closing.await.unwrap().unwrap();
        assert_eq!(recorded, 500, "all were queued before the close");
        assert_eq!((report.head.seq.get(), report.mirrored_through.get()), (500, 500));
        assert!(common::parity(temp.path()).is_consistent());
    }
}

#[tokio::test]
async fn permits_bound_what_is_in_flight_and_come_back() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.group_events_max = 4;
    options.inflight_events_max = 4;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(ledger.reserve(vec![ledger.check(common::note(&n.to_string())).unwrap()]).await.unwrap());
    }
    assert_eq!(ledger.status().in_flight, 4);
    let busy = ledger.try_append(common::note("x")).await.unwrap_err();
    assert!(matches!(busy, AppendError::Busy), "{busy}");
    held.pop();
    ledger.try_append(common::note("x")).await.unwrap();
    drop(held);
    assert_eq!(ledger.status().in_flight, 0);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn a_handle_that_is_dropped_closes_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(temp.path()).await.unwrap();
    ledger.append(common::note("x")).await.unwrap();
    drop(ledger);
    let mut options = Options::default();
    options.lock_wait = Duration::from_secs(20);
    let again = Ledger::open_with(temp.path(), options).await.unwrap();
    assert_eq!(again.status().durable.seq.get(), 1);
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_killed_leaves_nobody_waiting() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.mirror_busy_timeout = Duration::from_millis(5);
    options.mirrored_deadline = Duration::from_secs(3600);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append(common::note("first")).await.unwrap();
    ledger.mirrored(Seq::new(1)).await.unwrap();
    let other = rusqlite::Connection::open(mirror_path(temp.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One waits for its row, one for a seq, and then nobody is left who could commit it.
    let (one, two) = (ledger.clone(), ledger.clone());
    let row = tokio::spawn(async move { one.append_with(common::note("x"), Expect::Any, Durability::Mirrored).await });
    let seq = tokio::spawn(async move { two.mirrored(Seq::new(2)).await });
    until("the line", || ledger.status().durable.seq.get() == 2).await;
    ledger.address().get_cell().kill();
    let answered = row.await.unwrap();
    assert!(
        matches!(&answered, Ok(receipt) if receipt.mirror == MirrorAck::MirrorBehind)
            || matches!(answered, Err(AppendError::OutcomeUnknown { .. })),
        "{answered:?}"
    );
    assert!(seq.await.unwrap().is_err());
    let refused = ledger.append(common::note("y")).await.unwrap_err();
    assert!(matches!(refused, AppendError::Stopped { .. }), "{refused}");
    assert!(ledger.close().await.is_err());
    other.execute_batch("ROLLBACK").unwrap();
    let mut options = Options::default();
    options.lock_wait = Duration::from_secs(20);
    let again = Ledger::open_with(temp.path(), options).await.unwrap();
    assert_eq!(again.status().durable.seq.get(), 2);
    again.close().await.unwrap();
    assert!(common::parity(temp.path()).is_consistent());
}
