//! Goal: a large state keeps nobody else waiting: it is written to its snapshot, and read back from it, by the desk's thread. Meanwhile
//! commands of its own entity wait, and are decided on the right state; where its actor is killed, the snapshot is lost and nothing else.
//! A small one is written where its actor runs.
//!
//! Method: states that note which thread writes and reads them, and that can be held while they are written, on a runtime with one thread.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use counterfoil::actors::entity::{Entities, EntityError};
use counterfoil::entity::Entity;
use entity_support::*;
use serde::{Deserialize, Serialize};

/// Larger than what is written where an actor runs.
const LARGE: usize = 1 << 20;

/// What is seen of the states of a test, which is told by the thread that its runtime has.
#[derive(Default)]
struct Seen {
    written: Vec<String>,
    read: Vec<String>,
    is_held: bool,
    is_waiting: bool,
}

static SEEN: Mutex<Seen> = Mutex::new(Seen { written: Vec::new(), read: Vec::new(), is_held: false, is_waiting: false });
static CHANGED: Condvar = Condvar::new();
/// The tests share what is seen.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn here() -> String {
    std::thread::current().name().unwrap_or("none").to_owned()
}

#[derive(Default, Deserialize)]
#[serde(from = "(u64, String)")]
struct State {
    sum: u64,
    text: String,
}

impl From<(u64, String)> for State {
    fn from((sum, text): (u64, String)) -> State {
        SEEN.lock().unwrap().read.push(here());
        State { sum, text }
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seen = SEEN.lock().unwrap();
        if self.text.len() >= LARGE && seen.is_held {
            seen.is_waiting = true;
            let (held, timeout) = CHANGED.wait_timeout_while(seen, Duration::from_secs(20), |seen| seen.is_held).unwrap();
            assert!(!timeout.timed_out(), "it is written where it keeps others waiting");
            seen = held;
            seen.is_waiting = false;
        }
        seen.written.push(here());
        drop(seen);
        (self.sum, &self.text).serialize(to)
    }
}

struct Growing;

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Event {
    #[serde(rename = "added.v1")]
    Added { at: u64, bytes: usize },
}

impl Entity for Growing {
    type State = State;
    type Command = usize;
    type Event = Event;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "growing";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &State, bytes: &usize) -> Result<Vec<Event>, Self::Error> {
        Ok(vec![Event::Added { at: state.sum, bytes: *bytes }])
    }

    fn apply(&self, state: &mut State, event: &Event) {
        let Event::Added { at, bytes } = event;
        assert_eq!(*at, state.sum, "decided on another state");
        state.sum += 1;
        state.text.extend(std::iter::repeat_n('x', *bytes));
    }
}

async fn growing(ledger: &counterfoil::actors::Ledger) -> Entities<Growing> {
    *SEEN.lock().unwrap() = Seen::default();
    ledger.entities(Growing, snapshots_every(2)).await.unwrap()
}

fn hold(is_held: bool) {
    SEEN.lock().unwrap().is_held = is_held;
    CHANGED.notify_all();
}

fn is_waiting() -> bool {
    SEEN.lock().unwrap().is_waiting
}

/// Has a large state written to its snapshot, and held there, at position 4.
async fn being_written(entities: &Entities<Growing>) {
    for _ in 0..2 {
        entities.send("large", LARGE).await.unwrap();
    }
    // Behind its snapshot.
    assert_eq!(entities.position("large").await.unwrap(), 2);
    hold(true);
    for _ in 0..2 {
        // Answered before it is written.
        entities.send("large", 1).await.unwrap();
    }
    until("it is written", is_waiting).await;
}

async fn kill(entities: &Entities<Growing>) {
    let actor = entities.actor("large").unwrap();
    actor.kill();
    until("it has ended", || actor.get_status() == ractor::ActorStatus::Stopped).await;
}

const DESK: &str = "counterfoil-entities";

#[tokio::test]
async fn the_desk_writes_and_reads_large_ones_and_no_small_ones() {
    let _one = ONE_AT_A_TIME.lock().await;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = growing(&ledger).await;
    for _ in 0..6 {
        entities.send("small", 1).await.unwrap();
    }
    entities.passivate("small");
    assert_eq!(entities.read("small", |state| (state.sum, state.text.len())).await.unwrap(), (6, 6));
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    assert_eq!((seen.written, seen.read), (vec![here(); 3], vec![DESK.to_owned()]));
    for _ in 0..6 {
        entities.send("large", LARGE).await.unwrap();
    }
    entities.passivate("large");
    assert_eq!(entities.read("large", |state| (state.sum, state.text.len())).await.unwrap(), (6, 6 * LARGE));
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    // That the first one is large shows when it is begun.
    assert_eq!((seen.written, seen.read), ([vec![here()], vec![DESK.to_owned(); 3]].concat(), vec![DESK.to_owned()]));
}

#[tokio::test]
async fn while_one_is_written_others_go_on_and_its_own_commands_wait() {
    let _one = ONE_AT_A_TIME.lock().await;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = growing(&ledger).await;
    entities.send("other", 1).await.unwrap();
    being_written(&entities).await;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let entities = entities.clone();
            tokio::spawn(async move { entities.send("large", 1).await.unwrap().position })
        })
        .collect();
    for position in 2..10 {
        assert_eq!(entities.send("other", 1).await.unwrap().position, position);
    }
    assert!(is_waiting() && waiting.iter().all(|sent| !sent.is_finished()));
    hold(false);
    for (at, sent) in waiting.into_iter().enumerate() {
        assert_eq!(sent.await.unwrap(), at as u64 + 5);
    }
    assert_eq!(entities.read("large", |state| state.sum).await.unwrap(), 9);
}

#[tokio::test]
async fn where_its_actor_is_killed_the_snapshot_alone_is_lost() {
    let _one = ONE_AT_A_TIME.lock().await;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = growing(&ledger).await;
    being_written(&entities).await;
    let sender = entities.clone();
    let waiting = tokio::spawn(async move { sender.send_keyed("large", "k", 1).await.unwrap().position });
    tokio::task::yield_now().await;
    kill(&entities).await;
    // The state is the desk's still, so nobody else has one of this stream.
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    hold(false);
    assert_eq!(waiting.await.unwrap(), 5);
    assert_eq!(entities.read("large", |state| (state.sum, state.text.len())).await.unwrap(), (5, 2 * LARGE + 3));
    entities.close().await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn no_other_registry_has_its_stream_meanwhile() {
    let _one = ONE_AT_A_TIME.lock().await;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let entities = growing(&ledger).await;
    // It has a desk of its own.
    let others = ledger.entities(Growing, snapshots_every(2)).await.unwrap();
    being_written(&entities).await;
    kill(&entities).await;
    let taken = others.position("large").await;
    hold(false);
    assert!(matches!(taken, Err(EntityError::Taken { .. })), "{taken:?}");
    let position = loop {
        match others.position("large").await {
            Err(EntityError::Taken { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(position, 4);
}
