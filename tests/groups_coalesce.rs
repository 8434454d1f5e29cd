//! Goal: groups that wait for the mirror together are committed together, in order, and everyone who waits for a row is
//! answered exactly as if each group had been committed alone, whatever fails: none before its row is committed, none late.
//!
//! Method: a failpoint holds SqliteActor at the beginning of a transaction until so many groups wait, each with a caller
//! behind it; then it is let go, without a fault, with a failing or panicking actor, or with a row in the way of one group.
//! What is answered, how many transactions there were, and both legs are looked at. COUNTERFOIL_COALESCE_ROUNDS makes the
//! seeded mixture of batches and single events longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Random, campaign, checked, finish, note, until};
use counterfoil::actors::{AppendReply, Durability, Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;
use tokio::task::JoinHandle;

/// Groups that wait together.
const GROUPS: u64 = 40;

/// Holds SqliteActor where a transaction begins, counts transactions, and fails once where it is told to.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    held: AtomicBool,
    committed: AtomicU64,
    fault: Mutex<Option<(&'static str, bool)>>,
}

impl Gate {
    fn options(self: &Arc<Gate>) -> LedgerOptions {
        let mut options = LedgerOptions::default();
        options.mirrored_deadline = Duration::from_secs(60);
        let gate = self.clone();
        options.store.failpoint = Some(Arc::new(move |point| gate.pass(point)));
        options
    }

    fn pass(&self, point: &'static str) -> io::Result<()> {
        if point == failpoint::MIRROR_BEGIN {
            let mut closed = self.closed.lock().unwrap();
            self.held.store(*closed, SeqCst);
            while *closed {
                closed = self.opened.wait(closed).unwrap();
            }
        } else if point == failpoint::MIRROR_COMMITTED {
            self.committed.fetch_add(1, SeqCst);
        }
        let closed = *self.closed.lock().unwrap();
        // Let go of before it panics.
        let fault = self.fault.lock().unwrap().take_if(|(at, _)| *at == point && !closed);
        match fault {
            Some((_, true)) => panic!("injected at {point}"),
            Some((_, false)) => Err(io::Error::other(format!("injected at {point}"))),
            None => Ok(()),
        }
    }

    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.held.store(false, SeqCst);
        self.opened.notify_all();
    }
}

/// Appends that wait for their rows, each in a group of its own, while the gate holds the first of them.
async fn waiting_groups(gate: &Arc<Gate>, ledger: &Ledger, groups: impl Iterator<Item = Vec<Draft>>) -> Vec<JoinHandle<AppendReply>> {
    gate.close();
    let mut waiting = Vec::new();
    for drafts in groups {
        let (before, events) = (ledger.status().durable.seq.get(), drafts.len() as u64);
        let drafts = drafts.into_iter().map(checked).collect();
        waiting.push(tokio::spawn(ledger.submit(drafts, Conditions::none(), Durability::Mirrored).await.unwrap()));
        until("a group of its own", || ledger.status().durable.seq.get() == before + events).await;
        until("the gate", || gate.held.load(SeqCst)).await;
    }
    waiting
}

fn singles(from: u64) -> impl Iterator<Item = Vec<Draft>> {
    (from..from + GROUPS).map(|n| vec![note(&format!("event {n}")).session("s").id(common::id(n))])
}

async fn all_mirrored(waiting: Vec<JoinHandle<AppendReply>>, mut seq: u64) -> u64 {
    for task in waiting {
        for receipt in tokio::time::timeout(Duration::from_secs(60), task).await.expect("an answer").unwrap().unwrap() {
            seq += 1;
            assert_eq!((receipt.seq.get(), receipt.mirror, receipt.duplicate), (seq, MirrorAck::Mirrored, false));
        }
    }
    seq
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_transaction() {
    let (temp, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let ledger = Ledger::open_with(temp.path(), gate.options()).await.unwrap();
    let waiting = waiting_groups(&gate, &ledger, singles(0)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()) && ledger.status().mirrored_through == Seq::ZERO, "no row is committed");
    assert_eq!(ledger.status().groups, GROUPS);
    let before = gate.committed.load(SeqCst);
    gate.open();
    let events = all_mirrored(waiting, 0).await;
    // The one that was held, and all others.
    assert_eq!(gate.committed.load(SeqCst) - before, 2, "transactions of {GROUPS} groups");
    finish(ledger, temp.path(), events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("injected at") {
            before(info);
        }
    }));
    let points =
        [failpoint::ACTOR_SQLITE_COMMIT, failpoint::MIRROR_COMMIT, failpoint::ACTOR_SQLITE_COMMITTED, failpoint::ACTOR_SQLITE_ANSWERED];
    for (point, panics) in points.into_iter().flat_map(|point| [(point, true), (point, false)]) {
        let (temp, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
        let ledger = Ledger::open_with(temp.path(), gate.options()).await.unwrap();
        let waiting = waiting_groups(&gate, &ledger, singles(0)).await;
        *gate.fault.lock().unwrap() = Some((point, panics));
        gate.open();
        let events = all_mirrored(waiting, 0).await;
        assert!(gate.fault.lock().unwrap().is_none(), "{point} was not reached");
        // It goes on as before.
        let waiting = waiting_groups(&gate, &ledger, singles(events)).await;
        gate.open();
        let events = all_mirrored(waiting, events).await;
        eprintln!("{point}, {}: {} restarts", if panics { "panics" } else { "fails" }, ledger.status().restarts);
        finish(ledger, temp.path(), events).await;
    }
}

/// A row that no line of the ledger has.
fn put_in_the_way(dir: &Path, seq: u64) {
    let conn = rusqlite::Connection::open(mirror_path(dir)).unwrap();
    let sql = "INSERT INTO events SELECT ?1, 'evt_0000000000000000000000000Z', schema_version, observed_at, recorded_at, source, event_type, \
               trace_id, NULL, NULL, causation_id, domain_tags, attachments, group_seq, batch, signed_by, policy, payload_hash, \
               prev_event_hash, event_hash, signature, payload, blob, erased FROM events WHERE seq = 1";
    assert_eq!(conn.execute(sql, [seq as i64]).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_holds_up_none_before_it() {
    const REFUSED: u64 = 23;
    let (temp, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let ledger = Ledger::open_with(temp.path(), gate.options()).await.unwrap();
    let first = ledger.append_with(note("first"), Expect::Any, Durability::Mirrored).await.unwrap();
    assert_eq!((first.seq.get(), first.mirror), (1, MirrorAck::Mirrored));
    let waiting = waiting_groups(&gate, &ledger, singles(1)).await;
    put_in_the_way(temp.path(), REFUSED);
    gate.open();
    for task in waiting {
        let receipt = tokio::time::timeout(Duration::from_secs(60), task).await.expect("an answer").unwrap().unwrap().remove(0);
        let expected = if receipt.seq.get() < REFUSED { MirrorAck::Mirrored } else { MirrorAck::MirrorBehind };
        assert_eq!(receipt.mirror, expected, "seq {}", receipt.seq);
    }
    until("word of it", || matches!(ledger.status().mirror, MirrorHealth::Failed { .. })).await;
    assert_eq!(ledger.status().mirrored_through.get(), REFUSED - 1);
    drop(ledger);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_mixture() {
    let (temp, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let mut options = gate.options();
    // Some wait in the mailbox, and some are read from the file.
    options.mirror_queue_bytes_max = 24 << 10;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let mut events = 0;
    for seed in 0..campaign("COUNTERFOIL_COALESCE_ROUNDS", 6) {
        eprintln!("seed {seed}");
        let mut random = Random::new(seed);
        let groups: Vec<Vec<Draft>> = (0..1 + random.below(GROUPS))
            .map(|_| {
                let size = if random.chance(3) { 1 + random.below(20) } else { 1 };
                let draft = |random: &mut Random| note(&"x".repeat(random.below(400) as usize)).session(format!("s-{}", random.below(5)));
                (0..size).map(|_| draft(&mut random)).collect()
            })
            .collect();
        let waiting = waiting_groups(&gate, &ledger, groups.into_iter()).await;
        gate.open();
        events = all_mirrored(waiting, events).await;
    }
    finish(ledger, temp.path(), events).await;
}
