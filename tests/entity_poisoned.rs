//! Goal: an event that can't be folded stops its entity, and each command is told which event that is, without a new attempt each time;
//! other streams go on. A decision that panics is answered, and harms nobody.
//!
//! Method: events that `apply` panics on, that no variant fits, and whose payload was erased; attempts are counted by the reads of the
//! entity (each attempt applies the events before the poisonous one).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::*;
use entity_support::*;

fn poison<E: std::fmt::Display>(error: EntityError<E>) -> String {
    match error {
        EntityError::Poisoned(poison) => poison.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_poison_event_stops_its_entity_and_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    options.poisoned_max = 2;
    let accounts = ledger.entities(Account, options).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let actor = accounts.actor("a").unwrap();
    // The command that causes it is told so; its event is recorded.
    let first = poison(accounts.send("a", Do::Poison).await.unwrap_err());
    let id = accounts.poisoned()[0].id.to_string();
    insta::assert_snapshot!(first.replace(&id, "[id]"), @"event 2 of stream `a` (seq 2, [id], `poisoned.v1`) can't be folded: `apply` panicked: nobody knows what this event does; mend it so that it takes every event that has happened");
    until("the actor has ended", || actor.get_status() == ractor::ActorStatus::Stopped).await;
    assert!(accounts.live().is_empty() && accounts.actor("a").is_none());
    for _ in 0..3 {
        assert_eq!(poison(accounts.send("a", deposit(1)).await.unwrap_err()), first);
        assert_eq!(poison(accounts.read("a", |state| state.cents).await.unwrap_err()), first);
        assert!(accounts.live().is_empty(), "nothing is tried again");
    }
    assert_eq!(accounts.poisoned().len(), 1);
    assert_eq!(accounts.poisoned()[0].seq, Seq::new(2));
    // Others go on.
    accounts.send("b", deposit(2)).await.unwrap();
    // Asked to, it tries again: once.
    assert!(accounts.forget_poison("a") && !accounts.forget_poison("a"));
    assert_eq!(poison(accounts.send("a", deposit(1)).await.unwrap_err()), first);
    // Only so many are remembered; the one that was found first goes first.
    for stream in ["c", "d"] {
        poison(accounts.send(stream, Do::Poison).await.unwrap_err());
    }
    let remembered: Vec<_> = accounts.poisoned().into_iter().map(|poison| poison.session_id).collect();
    assert_eq!(remembered, ["c", "d"]);
}

#[tokio::test]
async fn commands_that_wait_behind_a_poison_event_are_answered_too() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let commands = (0..20).map(|n| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.send("a", if n == 5 { Do::Poison } else { deposit(1) }).await })
    });
    let mut answers = Vec::new();
    for command in commands.collect::<Vec<_>>() {
        answers.push(command.await.unwrap());
    }
    assert!(answers[..5].iter().all(Result::is_ok));
    assert!(answers[5..].iter().all(|answer| matches!(answer, Err(EntityError::Poisoned(_)))));
}

#[tokio::test]
async fn events_of_others_that_do_not_fit_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let event = |session: &str, event_type: &str| Draft::new(event_type.parse().unwrap(), Source::User).session(session).id(common::id(7));
    ledger.append(event("unknown", "unheard_of.v1")).await.unwrap();
    insta::assert_snapshot!(poison(accounts.send("unknown", deposit(1)).await.unwrap_err()), @"event 1 of stream `unknown` (seq 1, evt_00000J6HB70000000000000007, `unheard_of.v1`) can't be folded: `account` has no event `unheard_of.v1`; give its events a variant of that name, register an upcast, or have `Entity::passes_over` say that it is none of its own");
    ledger.append(event("misshaped", "withdrawn.v1").id(common::id(8)).payload("much").unwrap()).await.unwrap();
    insta::assert_snapshot!(poison(accounts.send("misshaped", deposit(1)).await.unwrap_err()), @r#"event 1 of stream `misshaped` (seq 2, evt_00000J6HB70000000000000008, `withdrawn.v1`) can't be folded: the payload is none of `withdrawn.v1`: invalid type: string "much", expected struct variant Moved::Withdrawn at line 1 column 6; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast"#);
    // Also while it lives: an event that is not its own comes in between.
    accounts.send("live", deposit(1)).await.unwrap();
    ledger.append(event("live", "unheard_of.v1").id(common::id(9))).await.unwrap();
    assert!(poison(accounts.send("live", deposit(1)).await.unwrap_err()).starts_with("event 2 of stream `live` (seq 4, "));
    let page = ledger.stream_page(StreamQuery::new("live")).await.unwrap();
    assert_eq!(page.last, 2, "the command left nothing behind");
}

#[tokio::test]
async fn a_decision_that_panics_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let actor = accounts.actor("a").unwrap();
    for _ in 0..3 {
        let panicked = accounts.send_keyed("a", "k", Do::Panic).await.unwrap_err();
        assert_eq!(
            panicked.to_string(),
            "`decide` of the entity of `a` has panicked at position 1: this command panics; mend it, and send the command again"
        );
        accounts.send("b", deposit(1)).await.unwrap();
        assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 1);
    }
    assert_eq!(accounts.actor("a").unwrap().get_id(), actor.get_id(), "nobody was restarted");
    assert!(!accounts.send_keyed("a", "k", deposit(1)).await.unwrap().duplicate);
}

#[tokio::test]
async fn a_look_that_panics_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let panicked = accounts.read("a", |state| assert_eq!(state.cents, 2, "not two")).await.unwrap_err();
    assert!(matches!(&panicked, EntityError::Panicked { position: 1, message, .. } if message.contains("not two")), "{panicked}");
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 1);
}
