//! Goal: a state, a command or an event that panics when it is dropped harms nobody else: entities live on, commands that wait beside it are
//! answered, and the program is not aborted, though such commands come from several callers.
//!
//! Method: states that panic once they are told to, in each way in which an entity lets go of one: passivated, crowded out, idle, killed,
//! closed, folded anew, stopped by a poison event, lost to a panic of `decide`; commands and events that do so too, with others behind them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::{Entities, EntityError, EntityOptions};
use counterfoil::entity::Entity;
use counterfoil::*;
use entity_support::*;
use serde::{Deserialize, Serialize};

/// What is dropped with a panic once it is fragile.
#[derive(Default, Serialize, Deserialize)]
struct Glass {
    is_fragile: bool,
}

impl Drop for Glass {
    fn drop(&mut self) {
        assert!(!self.is_fragile, "glass breaks");
    }
}

fn glass(is_fragile: bool) -> Glass {
    Glass { is_fragile }
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    added: u64,
    glass: Glass,
}

enum Command {
    Add,
    /// The state is fragile from then on.
    Harden,
    /// The command is.
    Fragile(Glass),
    /// Its event is.
    FragileEvent,
    Panic,
    Poison,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Event {
    #[serde(rename = "added.v1")]
    Added { glass: Glass },
    #[serde(rename = "hardened.v1")]
    Hardened,
    #[serde(rename = "poisoned.v1")]
    Poisoned,
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

struct Brittle;

impl Entity for Brittle {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Error = Refused;
    const NAME: &'static str = "brittle";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, _: &State, command: &Command) -> Result<Vec<Event>, Refused> {
        match command {
            Command::Add => Ok(vec![Event::Added { glass: glass(false) }]),
            Command::Fragile(Glass { is_fragile }) => {
                assert!(is_fragile);
                Ok(vec![Event::Added { glass: glass(false) }])
            }
            Command::FragileEvent => Ok(vec![Event::Added { glass: glass(true) }]),
            Command::Harden => Ok(vec![Event::Hardened]),
            Command::Panic => panic!("this command panics"),
            Command::Poison => Ok(vec![Event::Poisoned]),
        }
    }

    fn apply(&self, state: &mut State, event: &Event) {
        match event {
            Event::Added { .. } => state.added += 1,
            Event::Hardened => state.glass.is_fragile = true,
            Event::Poisoned => panic!("nobody knows what this event does"),
        }
    }

    fn apply_erased(&self, _: &mut State, _: &EventRecord) -> bool {
        true
    }
}

async fn brittle(ledger: &Ledger, change: impl FnOnce(&mut EntityOptions)) -> Entities<Brittle> {
    let mut options = EntityOptions::default();
    change(&mut options);
    ledger.entities(Brittle, options).await.unwrap()
}

/// Sends these at once, in order, and waits for all of their answers.
async fn at_once(entities: &Entities<Brittle>, commands: Vec<Command>) -> Vec<Result<u64, EntityError<Refused>>> {
    let sent = commands.into_iter().map(|command| {
        let entities = entities.clone();
        tokio::spawn(async move { entities.send("a", command).await.map(|outcome| outcome.position) })
    });
    let mut answers = Vec::new();
    for sent in sent.collect::<Vec<_>>() {
        answers.push(sent.await.unwrap_or(Err(EntityError::Closed)));
    }
    answers
}

async fn added(entities: &Entities<Brittle>, stream: &str) -> u64 {
    entities.read(stream, |state| state.added).await.unwrap()
}

/// What is told as an error, with the thread that tells it: each test has its own.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(std::thread::ThreadId, String)>>>);

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| text += &format!("{field}={value:?} "));
        self.0.lock().unwrap().push((std::thread::current().id(), text));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn it_is_told_in_the_log() {
    let told = Told::default();
    tracing::subscriber::set_global_default(told.clone()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |_| ()).await;
    entities.send("a", Command::Harden).await.unwrap();
    entities.passivate("a");
    let here = std::thread::current().id();
    let has = |text: &str| {
        let told = told.0.lock().unwrap();
        told.iter().any(|(thread, told)| *thread == here && told.contains("entity=\"brittle\"") && told.contains(text))
    };
    until("it is told", || has("dropping the state of an entity has panicked")).await;
    assert!(!has("glass"), "what the panic says may quote a payload");
}

#[tokio::test]
async fn one_that_is_let_go_of() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |options| options.entities_max = 3).await;
    entities.send("other", Command::Add).await.unwrap();
    let lives_on = async |actor: ractor::ActorCell| {
        until("it has ended", || actor.get_status() == ractor::ActorStatus::Stopped).await;
        // Those that know nothing of it, and it itself.
        entities.send("other", Command::Add).await.unwrap();
        entities.send("a", Command::Add).await.unwrap();
    };
    entities.send("a", Command::Harden).await.unwrap();
    let actor = entities.actor("a").unwrap();
    entities.passivate("a");
    lives_on(actor).await;
    let actor = entities.actor("a").unwrap();
    actor.kill();
    lives_on(actor).await;
    // Crowded out.
    let actor = entities.actor("a").unwrap();
    for stream in ["other", "b", "c"] {
        entities.send(stream, Command::Add).await.unwrap();
    }
    lives_on(actor).await;
    assert_eq!((added(&entities, "a").await, added(&entities, "other").await), (3, 5));
    tokio::time::timeout(Duration::from_secs(60), entities.close()).await.expect("it hangs");
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn idle_ones_are_let_go_of() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |options| options.passivate_after = Duration::from_millis(1)).await;
    for _ in 0..2 {
        for stream in ["a", "b"] {
            entities.send(stream, Command::Harden).await.unwrap();
        }
        until("both are let go of", || entities.live().is_empty()).await;
    }
    assert_eq!(added(&entities, "a").await, 0);
}

#[tokio::test]
async fn one_that_is_folded_anew_with_commands_behind() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |_| ()).await;
    entities.send("erased", Command::Add).await.unwrap();
    entities.send("a", Command::Harden).await.unwrap();
    let actor = entities.actor("a").unwrap().get_id();
    ledger.erase(Erasure::new(Erase::Seqs(vec![Seq::new(1)..=Seq::new(1)]), "asked to")).await.unwrap();
    let answers = at_once(&entities, (0..10).map(|_| Command::Add).collect()).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let answers = at_once(&entities, vec![Command::Add, Command::Panic, Command::Add]).await;
    assert!(matches!(&answers[..], [Ok(_), Err(EntityError::Panicked { part: "decide", .. }), Ok(_)]), "{answers:?}");
    assert_eq!((added(&entities, "a").await, entities.actor("a").unwrap().get_id()), (12, actor));
    let answers = at_once(&entities, vec![Command::Poison, Command::Add]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(EntityError::Poisoned(_)))), "{answers:?}");
    entities.send("b", Command::Add).await.unwrap();
}

#[tokio::test]
async fn commands_and_events_with_others_behind() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |_| ()).await;
    entities.send("a", Command::Harden).await.unwrap();
    let actor = entities.actor("a").unwrap().get_id();
    let fragile = || Command::Fragile(glass(true));
    let answers = at_once(&entities, vec![Command::Add, fragile(), Command::Add, Command::FragileEvent, Command::Add]).await;
    assert!(answers[0].is_ok() && answers[2].is_ok() && answers[4].is_ok(), "{answers:?}");
    // Nobody hears of it: the command whose events are dropped by its entity.
    let mut unheard = Box::pin(entities.send("a", Command::FragileEvent));
    tokio::select! {
        biased;
        _ = &mut unheard => {}
        () = std::future::ready(()) => {}
    }
    drop(unheard);
    assert!(at_once(&entities, vec![Command::Add]).await[0].is_ok());
    assert_eq!(entities.actor("a").unwrap().get_id(), actor, "nobody was restarted");
}

#[tokio::test]
async fn commands_of_several_callers_that_are_dropped_with_a_mailbox() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = ledger_options();
    let watched = common::watched::Watched::under(&mut options.store);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let entities = brittle(&ledger, |_| ()).await;
    entities.send("a", Command::Add).await.unwrap();
    watched.hold(true);
    let sent = |key: &'static str| {
        let entities = entities.clone();
        tokio::spawn(async move { entities.send_keyed("a", key, Command::Add).await.unwrap().position })
    };
    let first = sent("k-1");
    until("a held fsync", || watched.is_waiting()).await;
    for _ in 0..2 {
        // Whoever has sent it has gone, so the mailbox has the last of it.
        let mut unheard = Box::pin(entities.send("a", Command::Fragile(glass(true))));
        tokio::select! {
            biased;
            _ = &mut unheard => panic!("it waits behind the first one"),
            () = std::future::ready(()) => {}
        }
        drop(unheard);
    }
    let behind = sent("k-2");
    tokio::task::yield_now().await;
    let actor = entities.actor("a").unwrap();
    actor.kill();
    until("it has ended", || actor.get_status() == ractor::ActorStatus::Stopped).await;
    watched.hold(false);
    let mut positions = [first.await.unwrap(), behind.await.unwrap()];
    positions.sort_unstable();
    assert_eq!((positions, added(&entities, "a").await), ([2, 3], 3));
    entities.close().await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn an_event_that_can_not_be_dropped_is_poison() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = brittle(&ledger, |_| ()).await;
    entities.send("a", Command::Add).await.unwrap();
    let fragile = serde_json::json!({ "glass": { "is_fragile": true } });
    let draft = Draft::new(EventType::new("added.v1").unwrap(), Source::User).session("a").payload(&fragile).unwrap();
    ledger.append(draft).await.unwrap();
    for _ in 0..2 {
        let read = entities.read("a", |state| state.added).await;
        assert!(matches!(&read, Err(EntityError::Poisoned(poison)) if poison.session_seq == 2), "{read:?}");
        let sent = entities.send("a", Command::Add).await;
        assert!(matches!(&sent, Err(EntityError::Poisoned(poison)) if poison.session_seq == 2), "{:?}", sent.err());
    }
    assert_eq!(entities.poisoned().len(), 1);
    entities.send("b", Command::Add).await.unwrap();
}
