//! Goal: a look at a state leaves nothing open: where its actor is killed before it comes to that, the next one is asked; where they all are,
//! the error says that nothing was done.
//!
//! Method: a look that waits behind a command whose fsync is held, while their actor is killed; an entity that kills its own actor each time
//! that its stream is folded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::{Entities, EntityError, EntityOptions};
use counterfoil::entity::Entity;
use entity_support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_in_a_killed_actor_is_answered_by_the_next() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = common::options();
    let watched = common::watched::Watched::under(&mut store);
    let ledger = Ledger::open_with(temp.path(), store).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    watched.hold(true);
    let sender = accounts.clone();
    let sent = tokio::spawn(async move { sender.send("a", deposit(10)).await });
    until("a held fsync", || watched.is_waiting()).await;
    let looked = Arc::new(AtomicUsize::new(0));
    let looking = looked.clone();
    let mut look = std::pin::pin!(accounts.read("a", move |state| (state.cents, looking.fetch_add(1, Ordering::SeqCst))));
    let mut position = std::pin::pin!(accounts.position("a"));
    for _ in 0..2 {
        tokio::select! {
            biased;
            _ = &mut look => panic!("a command is before it"),
            _ = &mut position => panic!("a command is before it"),
            () = std::future::ready(()) => {}
        }
    }
    accounts.actor("a").unwrap().kill();
    assert!(sent.await.unwrap().unwrap_err().is_outcome_unknown());
    watched.hold(false);
    // What was appended may be durable by then.
    let (cents, looked_before) = look.await.unwrap();
    assert!([1, 11].contains(&cents) && looked_before == 0 && looked.load(Ordering::SeqCst) == 1, "{cents}");
    assert!([1, 2].contains(&position.await.unwrap()));
}

/// Counts; and kills its own actor over each event, while it is told to.
#[derive(Default)]
struct Suicidal {
    is_armed: Arc<AtomicBool>,
    own: Arc<OnceLock<Entities<Suicidal>>>,
}

impl Entity for Suicidal {
    type State = Balance;
    type Command = Do;
    type Event = Moved;
    type Error = Refused;
    const NAME: &'static str = "suicidal";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &Balance, command: &Do) -> Result<Vec<Moved>, Refused> {
        Account.decide(state, command)
    }

    fn apply(&self, state: &mut Balance, event: &Moved) {
        Account.apply(state, event);
        if self.is_armed.load(Ordering::SeqCst) {
            self.own.get().unwrap().actor("a").unwrap().kill();
        }
    }
}

#[tokio::test]
async fn where_each_actor_is_killed_nothing_was_done() {
    const EVENTS: u64 = 20;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    // The kill is seen between pages.
    options.page_events_max = 1;
    let (is_armed, own) = <(Arc<AtomicBool>, Arc<OnceLock<_>>)>::default();
    let entity = Suicidal { is_armed: is_armed.clone(), own: own.clone() };
    let accounts = ledger.entities(entity, options).await.unwrap();
    own.set(accounts.clone()).unwrap();
    for _ in 0..EVENTS {
        accounts.send("a", deposit(1)).await.unwrap();
    }
    accounts.passivate("a");
    is_armed.store(true, Ordering::SeqCst);
    let looked = Arc::new(AtomicUsize::new(0));
    let looking = looked.clone();
    let error = accounts.read("a", move |_| looking.fetch_add(1, Ordering::SeqCst)).await.unwrap_err();
    assert!(matches!(error, EntityError::Unanswered { .. }) && error.is_retryable() && !error.is_outcome_unknown(), "{error}");
    insta::assert_snapshot!(error, @"the entity of `a` has ended each time before it could be looked at; nothing was done, so look again");
    assert_eq!(looked.load(Ordering::SeqCst), 0);
    is_armed.store(false, Ordering::SeqCst);
    assert_eq!(accounts.position("a").await.unwrap(), EVENTS);
    // With nobody to ask there is nothing to try again.
    accounts.actor("a").unwrap().try_get_supervisor().unwrap().kill();
    assert!(matches!(accounts.position("a").await, Err(EntityError::Closed)));
}
