//! Goal: at most one live entity a stream in the process; idle ones are let go of without losing a command; as many live, and as many
//! commands wait, as the options say.
//!
//! Method: an entity whose state counts, process-wide, how many of it there are at once; commands from many tasks while it is let go of and
//! killed under them; two registries that want the same stream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::entity::Entity;
use entity_support::*;
use serde::{Deserialize, Serialize};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A state that is counted while it exists: one that a decision or an application is under way with.
#[derive(Serialize, Deserialize)]
struct Counted(u64);

impl Default for Counted {
    fn default() -> Counted {
        assert_eq!(LIVE.fetch_add(1, Ordering::SeqCst), 0, "two of one stream live at once");
        Counted(0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Counter;

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Event {
    #[serde(rename = "counted.v1")]
    Counted,
}

impl Entity for Counter {
    type State = Counted;
    type Command = ();
    type Event = Event;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "counter";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, _: &Counted, (): &()) -> Result<Vec<Event>, Self::Error> {
        Ok(vec![Event::Counted])
    }

    fn apply(&self, state: &mut Counted, _: &Event) {
        state.0 += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lives_whatever_becomes_of_it_and_no_command_is_lost() {
    const SENDERS: u64 = 8;
    const EACH: u64 = 60;
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let counters = ledger.entities(Counter, snapshots_every(0)).await.unwrap();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let counters = counters.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    counters.send_keyed("a", format!("{sender}-{n}"), ()).await.unwrap();
                    match (sender + n) % 7 {
                        0 => drop(counters.passivate("a")),
                        1 if n % 5 == 0 => drop(counters.actor("a").inspect(|actor| actor.kill())),
                        _ => {}
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(counters.read("a", |state| state.0).await.unwrap(), SENDERS * EACH);
}

#[tokio::test]
async fn a_stream_is_one_registrys_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let first = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let second = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    first.send("a", deposit(1)).await.unwrap();
    let taken = second.send("a", deposit(1)).await.unwrap_err();
    insta::assert_snapshot!(taken, @"stream `a` has a live entity of `account` in this process; send commands for it there, or let that one go first");
    second.send("b", deposit(1)).await.unwrap();
    let actor = first.actor("a").unwrap();
    first.passivate("a");
    until("the first one has let go", || actor.get_status() == ractor::ActorStatus::Stopped).await;
    assert_eq!(second.send("a", deposit(1)).await.unwrap().position, 2);
}

#[tokio::test]
async fn one_that_waits_for_its_predecessor_is_not_kept_out_by_another_registry() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let first = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let second = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    first.send("a", deposit(1)).await.unwrap();
    let (theirs, ours) = tokio::join!(second.send("a", deposit(1)), async {
        first.passivate("a");
        first.send("a", deposit(1)).await
    });
    assert!(ours.is_ok() || theirs.is_ok(), "nobody has it");
    for refused in [theirs, ours].into_iter().filter_map(Result::err) {
        assert!(matches!(refused, EntityError::Taken { .. }) && refused.is_retryable(), "{refused}");
    }
}

#[tokio::test]
async fn idle_ones_are_let_go_of() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    options.passivate_after = Duration::from_millis(1);
    let accounts = ledger.entities(Account, options).await.unwrap();
    for stream in ["a", "b"] {
        accounts.send(stream, deposit(1)).await.unwrap();
    }
    until("both were let go of", || accounts.live().is_empty()).await;
    assert_eq!(accounts.send("a", Do::Withdraw { cents: 1 }).await.unwrap().position, 2);
}

#[tokio::test]
async fn only_so_many_live_and_the_longest_idle_goes_first() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    options.entities_max = 2;
    let accounts = ledger.entities(Account, options).await.unwrap();
    for stream in ["a", "b", "a", "c"] {
        accounts.send(stream, deposit(1)).await.unwrap();
    }
    let mut live = accounts.live();
    live.sort();
    assert_eq!(live, ["a".into(), "c".into()]);
    for n in 0..100 {
        accounts.send(format!("s-{n}"), deposit(1)).await.unwrap();
        assert!(accounts.live().len() <= 2);
    }
    // All at once: the answer to those for whom there is no room says so, and none of the others is lost.
    let sent = (0..10).map(|n| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.send(format!("t-{n}"), deposit(1)).await })
    });
    let mut refused = 0;
    for sent in sent.collect::<Vec<_>>() {
        match sent.await.unwrap() {
            Ok(outcome) => assert_eq!(outcome.position, 1),
            Err(error) => {
                assert!(matches!(error, EntityError::TooMany { max: 2 }) && error.is_retryable(), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 8);
}

#[tokio::test]
async fn only_so_many_commands_wait_and_each_has_its_turn() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = EntityOptions::default();
    options.waiting_max = 2;
    let accounts = ledger.entities(Account, options).await.unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let sent = (0..50).map(|_| {
        let (accounts, answered) = (accounts.clone(), answered.clone());
        tokio::spawn(async move {
            let position = accounts.send("a", deposit(1)).await.unwrap().position;
            // In the order in which they were sent.
            assert_eq!(answered.fetch_add(1, Ordering::SeqCst) as u64 + 1, position);
        })
    });
    for sent in sent.collect::<Vec<_>>() {
        sent.await.unwrap();
    }
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 50);
}
