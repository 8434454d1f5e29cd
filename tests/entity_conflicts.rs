//! Goal: whoever else appends to an entity's stream, no decision rests on a state that was not: the command is decided again on what has
//! come, a bounded number of times, and a refusal is no answer where it was given for a state that was overtaken.
//!
//! Method: another writer that appends to the stream in turn with the entity, and without a pause beside it; a decision that appends
//! by itself, so that each one is overtaken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::entity::Entity;
use counterfoil::*;
use entity_support::*;

fn outside(cents: i64) -> Draft {
    let payload = serde_json::json!({"cents": cents, "memo": "outside"});
    Draft::new("deposited.v2".parse().unwrap(), Source::User).session("a").payload(&payload).unwrap()
}

#[tokio::test]
async fn decisions_refusals_and_looks_see_what_others_have_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    for n in 1..=20 {
        ledger.append(outside(10)).await.unwrap();
        // All that there is: on the state before, it would be refused.
        let outcome = accounts.send("a", Do::Withdraw { cents: 10 }).await.unwrap();
        assert_eq!(outcome.position, 2 * n);
    }
    ledger.append(outside(3)).await.unwrap();
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 3);
    ledger.append(outside(3)).await.unwrap();
    let refused = accounts.send("a", Do::Withdraw { cents: 7 }).await.unwrap_err();
    assert!(matches!(refused, EntityError::Rejected(Refused::Short { cents: 6 })), "{refused}");
    ledger.append(outside(1)).await.unwrap();
    assert_eq!(accounts.send("a", Do::Nothing).await.unwrap().position, 43);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_another_writer_that_never_pauses_nothing_is_lost_or_done_twice() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let mut options = snapshots_every(16);
    options.redecisions_max = 10_000;
    let accounts = ledger.entities(Account, options).await.unwrap();
    let ended = AtomicBool::new(false);
    let other = async {
        let mut appended = 0;
        // So many that the commands must come in between, and not so many that this takes for ever where they hardly can.
        while !ended.load(Ordering::Relaxed) && appended < 500 {
            ledger.append(outside(1)).await.unwrap();
            appended += 1;
        }
        appended
    };
    let commands = async {
        for n in 0..40 {
            accounts.send_keyed("a", format!("k-{n}"), deposit(1000)).await.unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    };
    let (appended, ()) = tokio::join!(other, commands);
    assert!(appended > 10, "{appended}");
    let state = accounts.read("a", Clone::clone).await.unwrap();
    assert_eq!((state.moved["cash"], state.moved["outside"]), (40, appended as u64));
    assert_eq!((state.cents, balance_by_hand(temp.path(), "a")), (40_000 + appended, 40_000 + appended));
}

/// Whatever it decides, the stream has moved on before that can be appended.
struct Overtaken {
    ledger: Mutex<Option<(Ledger, tokio::runtime::Handle)>>,
    decided: AtomicUsize,
}

use counterfoil::actors::Ledger;

impl Entity for Overtaken {
    type State = u64;
    type Command = ();
    type Event = Moved;
    type Error = Refused;
    const NAME: &'static str = "overtaken";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, _: &u64, (): &()) -> Result<Vec<Moved>, Refused> {
        self.decided.fetch_add(1, Ordering::Relaxed);
        let (ledger, runtime) = self.ledger.lock().unwrap().clone().unwrap();
        let appending = runtime.spawn(async move { ledger.append(outside(1)).await.unwrap() });
        tokio::task::block_in_place(|| runtime.block_on(appending)).unwrap();
        Ok(vec![Moved::Withdrawn { cents: 1 }])
    }

    fn apply(&self, events: &mut u64, _: &Moved) {
        *events += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_always_overtaken_is_given_up() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let here = Mutex::new(Some((ledger.clone(), tokio::runtime::Handle::current())));
    let mut options = EntityOptions::default();
    options.redecisions_max = 3;
    let entities = ledger.entities(Overtaken { ledger: here, decided: AtomicUsize::new(0) }, options).await.unwrap();
    let contended = entities.send("a", ()).await.unwrap_err();
    assert!(matches!(contended, EntityError::Contended { attempts: 4, .. }) && contended.is_retryable(), "{contended}");
    assert_eq!(entities.entity().decided.load(Ordering::Relaxed), 4);
    // It has seen all that has come.
    assert_eq!(entities.read("a", |events| *events).await.unwrap(), 4);
    insta::assert_snapshot!(contended, @"stream `a` was appended to by others each of the 4 times that the command was decided; let this entity alone append to it, or send the command again");
    entities.entity().ledger.lock().unwrap().take();
}
