//! Goal: a command with a key takes effect once, in any life of the process, and the same key gets the first answer again: from memory,
//! from the mirror, from the ledger's tail, and after everything derived (mirror, snapshots, list of sessions) is gone and made anew.
//! The key stands in the events.
//!
//! Method: keys that are sent again while the entity lives, after it was let go of, killed, forgotten by its memory of 256, and in
//! a store whose derived files were removed; a first answer is compared field by field.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::fs;

use counterfoil::actors::entity::{Entities, EntityError, EntityOptions, Outcome};
use counterfoil::entity::{Codec, Entity, command_id, command_tag};
use counterfoil::*;
use entity_support::*;

/// The same command again gets the same events and receipts, marked duplicate.
async fn is_the_first(accounts: &Entities<Account>, key: &str, command: Do, first: &Outcome<Moved>) {
    let again = accounts.send_keyed("a", key, command).await.unwrap();
    assert!(again.duplicate && again.receipts.iter().all(|receipt| receipt.duplicate));
    let plain = |outcome: &Outcome<Moved>| {
        let receipts = outcome.receipts.iter().map(|r| (r.seq, r.id, r.event_hash, r.session_seq, r.recorded_at)).collect::<Vec<_>>();
        (outcome.events.clone(), receipts, outcome.position)
    };
    assert_eq!(plain(&again), plain(first));
}

fn remove_derived(dir: &std::path::Path) {
    let mut removed = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains(".sqlite3") {
            fs::remove_file(path).unwrap();
            removed += 1;
        }
    }
    assert!(removed >= 2, "the mirror and the snapshots were there");
}

#[tokio::test]
async fn the_same_key_gets_the_first_answer_in_every_life() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let options = snapshots_every(100);
    let accounts = ledger.entities(Account, options.clone()).await.unwrap();
    let first = accounts.send_keyed("a", "pay-in", deposit(50)).await.unwrap();
    let batch = accounts.send_keyed("a", "swap", Do::Exchange { cents: 50 }).await.unwrap();
    assert_eq!((first.duplicate, batch.duplicate, batch.events.len()), (false, false, 2));
    // At once; that the state would now decide otherwise, or that the command is another, makes no difference.
    is_the_first(&accounts, "pay-in", deposit(50), &first).await;
    is_the_first(&accounts, "pay-in", Do::Withdraw { cents: 1_000_000 }, &first).await;
    is_the_first(&accounts, "swap", Do::Exchange { cents: 50 }, &batch).await;
    // When it was let go of, and when its actor was killed.
    accounts.passivate("a");
    is_the_first(&accounts, "swap", Do::Exchange { cents: 50 }, &batch).await;
    accounts.actor("a").unwrap().kill();
    is_the_first(&accounts, "pay-in", deposit(50), &first).await;
    // When its memory has forgotten it, by snapshot or by what has come since.
    for n in 0..600 {
        accounts.send_keyed("a", format!("k-{n}"), deposit(1)).await.unwrap();
    }
    is_the_first(&accounts, "swap", Do::Exchange { cents: 50 }, &batch).await;
    accounts.passivate("a");
    is_the_first(&accounts, "pay-in", deposit(50), &first).await;
    // Whatever `decide` would make of it by now.
    for command in [Do::Withdraw { cents: 1_000_000 }, Do::Nothing, Do::Panic, Do::Exchange { cents: 1 }] {
        is_the_first(&accounts, "pay-in", command, &first).await;
    }
    accounts.close().await;
    ledger.close().await.unwrap();
    // When everything that is derived is gone.
    remove_derived(temp.path());
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, options).await.unwrap();
    is_the_first(&accounts, "swap", Do::Exchange { cents: 50 }, &batch).await;
    is_the_first(&accounts, "pay-in", deposit(50), &first).await;
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 650);
    assert_eq!(balance_by_hand(temp.path(), "a"), 650);
    // Another stream's key of that name is another key.
    assert!(!accounts.send_keyed("b", "pay-in", deposit(1)).await.unwrap().duplicate);
}

#[tokio::test]
async fn the_key_stands_in_the_events() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send_keyed("a", "pay-in", deposit(50)).await.unwrap();
    let outcome = accounts.send_keyed("a", "swap", Do::Exchange { cents: 50 }).await.unwrap();
    assert_eq!(outcome.receipts[0].id, command_id("a", "swap"));
    let page = ledger.stream_page(StreamQuery::new("a")).await.unwrap();
    let tags: Vec<_> = page.events.iter().map(|event| event.domain_tags.clone()).collect();
    assert_eq!(tags, [[command_tag("pay-in")], [command_tag("swap")], [command_tag("swap")]]);
}

#[tokio::test]
async fn what_left_nothing_behind_is_decided_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let refused = accounts.send_keyed("a", "pay-out", Do::Withdraw { cents: 5 }).await.unwrap_err();
    assert!(refused.is_rejected());
    assert!(accounts.send_keyed("a", "pay-in", Do::Nothing).await.unwrap().events.is_empty());
    assert!(!accounts.send_keyed("a", "pay-in", deposit(5)).await.unwrap().duplicate);
    assert!(!accounts.send_keyed("a", "pay-out", Do::Withdraw { cents: 5 }).await.unwrap().duplicate);
    // Now it has, although the same command would be refused.
    assert!(accounts.send_keyed("a", "pay-out", Do::Withdraw { cents: 5 }).await.unwrap().duplicate);
    for key in ["", &"k".repeat(121)] {
        let error = accounts.send_keyed("a", key, deposit(1)).await.unwrap_err();
        assert!(matches!(error, EntityError::Key(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_send_the_same_key_at_once_get_one_answer() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let senders: Vec<_> = (0..64)
        .map(|n| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                if n % 8 == 7 {
                    // Its actor dies under them, whatever it is doing.
                    accounts.actor("a").inspect(|actor| actor.kill());
                }
                accounts.send_keyed("a", format!("k-{}", n % 4), deposit(10)).await.unwrap()
            })
        })
        .collect();
    let mut firsts = std::collections::BTreeSet::new();
    for sender in senders {
        firsts.insert(sender.await.unwrap().receipts[0].seq);
    }
    assert_eq!(firsts.len(), 4);
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 40);
    assert_eq!(balance_by_hand(temp.path(), "a"), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_answer_was_lost_while_the_handle_was_closed_may_be_recorded_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    let disk = common::watched::Watched::under(&mut options);
    let ledger = counterfoil::actors::Ledger::open_with(temp.path(), options).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    disk.hold(true);
    let sender = accounts.clone();
    let sent = tokio::spawn(async move { sender.send_keyed("a", "k", deposit(5)).await });
    until("the append is written", || disk.is_waiting()).await;
    let (actor, clone) = (accounts.actor("a").unwrap(), accounts.clone());
    let closing = tokio::spawn(clone.close());
    until("it is closed for new ones", || accounts.live().is_empty()).await;
    actor.kill();
    let error = sent.await.unwrap().unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    disk.hold(false);
    closing.await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send_keyed("a", "k", deposit(5)).await.unwrap();
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 6);
}

#[tokio::test]
async fn a_batch_over_two_streams_has_a_key_in_each() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let codec = Codec::new(&Account).unwrap();
    let event = Moved::Deposited { cents: 5, memo: "both".to_owned() };
    let draft = |stream| codec.draft(&Account, stream, Some("k"), true, &event).unwrap();
    ledger.append_batch(vec![draft("a"), draft("b")]).await.unwrap();
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(77)).await.unwrap();
    for stream in ["a", "b"] {
        // Although it would be refused now; and what stands behind it in the stream is none of its answer.
        let answer = accounts.send_keyed(stream, "k", Do::Withdraw { cents: 1000 }).await.unwrap();
        assert!(answer.duplicate);
        assert_eq!((answer.events, answer.position), (vec![event.clone()], 1));
    }
}

#[tokio::test]
async fn an_event_of_another_stream_is_nobodys_first_answer() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, snapshots_every(1)).await.unwrap();
    accounts.send("a", deposit(7)).await.unwrap();
    ledger.append(common::note("x").session("b").id(command_id("a", "k"))).await.unwrap();
    ledger.mirrored(Seq::new(2)).await.unwrap();
    accounts.passivate("a");
    let error = accounts.send_keyed("a", "k", deposit(9)).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(balance_by_hand(temp.path(), "a"), 7);
}

/// An account that knows withdrawals no more, and gives its events ids.
struct DepositsAlone;

impl Entity for DepositsAlone {
    type State = Balance;
    type Command = Do;
    type Event = Moved;
    type Error = Refused;
    const NAME: &'static str = "deposits alone";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &Balance, command: &Do) -> Result<Vec<Moved>, Refused> {
        Account.decide(state, command)
    }

    fn apply(&self, state: &mut Balance, event: &Moved) {
        Account.apply(state, event);
    }

    fn passes_over(&self, event_type: &str) -> bool {
        event_type == "withdrawn.v1"
    }

    fn draft(&self, _: &Moved, draft: Draft) -> Draft {
        draft.id(common::id(1))
    }
}

#[tokio::test]
async fn what_is_passed_over_by_now_is_left_out_of_the_first_answer() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    accounts.send("a", deposit(10)).await.unwrap();
    accounts.send_keyed("a", "k", Do::Exchange { cents: 4 }).await.unwrap();
    accounts.close().await;
    let others = ledger.entities(DepositsAlone, EntityOptions::default()).await.unwrap();
    assert_eq!(others.read("a", |state| state.cents).await.unwrap(), 14);
    let answer = others.send_keyed("a", "k", Do::Nothing).await.unwrap();
    assert!(answer.duplicate && answer.events.len() == 1 && answer.receipts.len() == 2);
    // Ids that the entity gives are undone: each of these is a deposit of its own.
    for position in 4..=5 {
        assert_eq!(others.send("a", deposit(1)).await.unwrap().position, position);
    }
}
