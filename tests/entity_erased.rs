//! Goal: when a payload of an entity's stream is erased, no snapshot and no live state keeps it: the file of snapshots goes, live entities
//! are folded anew, and none of what they held before is written to a snapshot after. An entity that has an answer to erased events goes
//! on; one that has none is stopped, and the event is named.
//!
//! Method: memos that are secret, in states of live entities whose snapshots are taken at each event; all files are searched, before and
//! after, while commands go on beside the erasure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use counterfoil::actors::entity::EntityError;
use counterfoil::entity::Entity;
use counterfoil::*;
use entity_support::*;

const SECRET: &str = "the-memo-that-nobody-may-read";

/// An account that takes erased deposits for what they are: deposits of nothing.
struct Forgetful;

impl Entity for Forgetful {
    type State = Balance;
    type Command = Do;
    type Event = Moved;
    type Error = Refused;
    const NAME: &'static str = "forgetful";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &Balance, command: &Do) -> Result<Vec<Moved>, Refused> {
        Account.decide(state, command)
    }

    fn apply(&self, state: &mut Balance, event: &Moved) {
        Account.apply(state, event);
    }

    fn apply_erased(&self, state: &mut Balance, event: &EventRecord) -> bool {
        *state.moved.entry(format!("erased {}", event.event_type)).or_default() += 1;
        true
    }
}

fn secret() -> Do {
    Do::Deposit { cents: 5, memo: SECRET.to_owned() }
}

/// Names of the files of the store that have the secret in them.
fn files_with_it(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_it(&path));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_and_no_live_state_keeps_it() {
    let temp = tempfile::tempdir().unwrap();
    // Readers that are in the way of the erasure's end may not be scheduled for a while.
    let mut options = ledger_options();
    options.store.mirror_busy_timeout = std::time::Duration::from_secs(10);
    let ledger = actors::Ledger::open_with(temp.path(), options).await.unwrap();
    let accounts = ledger.entities(Forgetful, snapshots_every(1)).await.unwrap();
    let outcome = accounts.send_keyed("a", "k", secret()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    accounts.send("b", secret()).await.unwrap();
    until("the snapshot is there", || files_with_it(temp.path()).iter().any(|name| name.starts_with("entities.sqlite3"))).await;
    let ended = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = ["a", "b"]
        .map(|stream| {
            let (accounts, ended) = (accounts.clone(), ended.clone());
            tokio::spawn(async move {
                let mut sent = 0;
                while !ended.load(Ordering::Relaxed) {
                    accounts.send(stream, deposit(1)).await.unwrap();
                    sent += 1;
                }
                sent
            })
        })
        .into();
    let erased = ledger.erase(Erasure::new(Erase::Seqs([1, 3].map(|seq| Seq::new(seq)..=Seq::new(seq)).into()), "asked to")).await.unwrap();
    assert!(erased.done.unfinished.is_none(), "{erased:?}");
    // Snapshots go on being taken, of states that were folded since.
    for _ in 0..20 {
        accounts.send("a", deposit(1)).await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for busy in busy {
        sent.push(busy.await.unwrap());
    }
    let state = accounts.read("a", Clone::clone).await.unwrap();
    assert_eq!((state.cents, state.moved.get(SECRET), state.moved["erased deposited.v2"]), (21 + sent[0], None, 1));
    // The same key still gets its answer, without what was erased.
    let again = accounts.send_keyed("a", "k", secret()).await.unwrap();
    assert!(again.duplicate && again.events.is_empty() && again.receipts[0].seq == outcome.receipts[0].seq);
    accounts.close().await;
    assert_eq!(files_with_it(temp.path()), Vec::<String>::new());
    ledger.close().await.unwrap();
    assert_eq!(files_with_it(temp.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_snapshots_could_not_be_removed_at_first() {
    let temp = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let (mut options, failing) = (ledger_options(), fails.clone());
    options.store.failpoint = Some(Arc::new(move |point| match point == failpoint::ERASE_SNAPSHOTS && failing.load(Ordering::SeqCst) {
        true => Err(std::io::Error::other("not now")),
        false => Ok(()),
    }));
    let ledger = actors::Ledger::open_with(temp.path(), options).await.unwrap();
    let accounts = ledger.entities(Forgetful, snapshots_every(2)).await.unwrap();
    let has_it = async || accounts.read("a", |state| state.moved.contains_key(SECRET)).await.unwrap();
    accounts.send("a", secret()).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    until("the snapshot is there", || files_with_it(temp.path()).iter().any(|name| name.starts_with("entities.sqlite3"))).await;
    let erasure = || Erasure::new(Erase::Seqs(vec![Seq::new(1)..=Seq::new(1)]), "asked to");
    assert!(ledger.erase(erasure()).await.unwrap().done.unfinished.is_some());
    // The old snapshot is still there, and is not read; nor is one kept.
    assert!(!has_it().await);
    accounts.passivate("a");
    assert!(!has_it().await);
    fails.store(false, Ordering::SeqCst);
    assert_eq!(ledger.erase(erasure()).await.unwrap().done.unfinished, None);
    assert_eq!(files_with_it(temp.path()), Vec::<String>::new());
    assert!(!has_it().await);
    for _ in 0..4 {
        accounts.send("a", deposit(1)).await.unwrap();
    }
    accounts.close().await;
    assert!(temp.path().join("entities.sqlite3").exists(), "snapshots are kept again");
    ledger.close().await.unwrap();
    assert_eq!(files_with_it(temp.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_to_be_kept_while_the_store_is_opened_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Forgetful, snapshots_every(1)).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    until("the file is there", || temp.path().join("entities.sqlite3-wal").exists()).await;
    let locked = rusqlite::Connection::open(temp.path().join("entities.sqlite3")).unwrap();
    locked.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    accounts.send("a", secret()).await.unwrap();
    ledger.close().await.unwrap();
    // By actors that know nothing of those entities.
    let again = open(temp.path()).await;
    let report = again.erase(Erasure::new(Erase::Seqs(vec![Seq::new(2)..=Seq::new(2)]), "asked to")).await.unwrap();
    assert_eq!(report.done.unfinished, None);
    drop(locked);
    accounts.close().await;
    assert_eq!(files_with_it(temp.path()), Vec::<String>::new());
    again.close().await.unwrap();
}

#[tokio::test]
async fn one_that_has_no_answer_to_it_is_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, snapshots_every(1)).await.unwrap();
    accounts.send("a", secret()).await.unwrap();
    accounts.send("b", deposit(1)).await.unwrap();
    ledger.erase(Erasure::new(Erase::Seqs(vec![Seq::new(1)..=Seq::new(1)]), "asked to")).await.unwrap();
    let error = accounts.send("a", deposit(1)).await.unwrap_err();
    let EntityError::Poisoned(poison) = error else { panic!("{error}") };
    assert_eq!((poison.seq, poison.session_seq), (Seq::new(1), 1));
    assert!(poison.to_string().ends_with("its payload was erased; have `Entity::apply_erased` apply what is known without it"), "{poison}");
    accounts.send("b", deposit(1)).await.unwrap();
}
