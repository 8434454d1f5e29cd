//! Goal: whatever ends, and whenever, nobody is left waiting: the store's supervisor stopped or killed from outside,
//! an actor killed while the store is being opened, a batch that can never be taken, two closes at once.
//!
//! Method: failpoints hold an actor at a step while something else is ended; every wait has a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::until;
use counterfoil::actors::{Durability, Ledger, LedgerOptions, Phase};
use counterfoil::*;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// Options under which whoever comes to this point is held there, and says so, until it is let go.
fn held_at(point: &'static str) -> (LedgerOptions, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (hold, reached) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut options = LedgerOptions::default();
    let (held, seen) = (hold.clone(), reached.clone());
    options.store.failpoint = Some(Arc::new(move |at| {
        while at == point && held.load(Ordering::SeqCst) {
            seen.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }));
    (options, hold, reached)
}

/// The supervisor ends while LedgerActor is at an fsync, with someone waiting for the mirror.
async fn supervisor_ends(kill: bool) {
    let temp = tempfile::tempdir().unwrap();
    let (options, hold, reached) = held_at(failpoint::LEDGER_SYNC);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    hold.store(true, Ordering::SeqCst);
    let appending = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.append_with(common::note("x"), Expect::Any, Durability::Mirrored).await }
    });
    let mirrored = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.mirrored(Seq::FIRST).await }
    });
    until("the fsync", || reached.load(Ordering::SeqCst)).await;
    let supervisor = ledger.address().get_cell();
    if kill {
        supervisor.kill()
    } else {
        supervisor.stop(None)
    }
    until("the end", || supervisor.get_status() == ractor::ActorStatus::Stopped).await;
    hold.store(false, Ordering::SeqCst);
    match soon("the append", appending).await.unwrap() {
        Ok(receipt) => assert_eq!(receipt.mirror, MirrorAck::MirrorBehind),
        Err(AppendError::OutcomeUnknown { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let error = soon("mirrored", mirrored).await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Stopped { .. }), "{error}");
    let error = soon("a later append", ledger.append(common::note("y"))).await.unwrap_err();
    assert!(matches!(error, AppendError::Stopped { .. }), "{error}");
    assert!(matches!(ledger.status().phase, Phase::Stopped { .. }));
    assert!(soon("close", ledger.close()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_is_stopped() {
    supervisor_ends(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_is_killed() {
    supervisor_ends(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_what_every_clone_is_told_after_a_close_too() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.failpoint = Some(Arc::new(|point| match point {
        failpoint::LEDGER_SYNC => Err(std::io::Error::other("the disk is gone")),
        _ => Ok(()),
    }));
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append(common::note("x")).await.unwrap_err();
    until("poison", || matches!(ledger.status().phase, Phase::Poisoned { .. })).await;
    let clone = ledger.clone();
    ledger.close().await.unwrap_err();
    let supervisor = clone.address().get_cell();
    until("the end", || supervisor.get_status() == ractor::ActorStatus::Stopped).await;
    let error = Error::from(soon("an append", clone.append(common::note("y"))).await.unwrap_err());
    assert!(error.is_poisoned(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_what_may_ever_wait_for_the_mirror_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.store.unmirrored_events_max = 20;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let batch = |events: u64| (0..events).map(|n| common::note(&n.to_string())).collect::<Vec<_>>();
    let error = soon("the batch", ledger.append_batch(batch(21))).await.unwrap_err();
    assert!(matches!(error, AppendError::BatchTooLarge { events: 21, events_max: 20, .. }), "{error}");
    assert_eq!(soon("the batch", ledger.append_batch(batch(20))).await.unwrap().len(), 20);
    ledger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_closes_at_once() {
    for _ in 0..10 {
        let temp = tempfile::tempdir().unwrap();
        let (options, hold, reached) = held_at(failpoint::LEDGER_SYNC);
        let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
        hold.store(true, Ordering::SeqCst);
        let append = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.append(common::note("x")).await }
        });
        until("the fsync", || reached.load(Ordering::SeqCst)).await;
        let (first, second) = (ledger.clone(), ledger);
        let first = tokio::spawn(first.close());
        let second = tokio::spawn(second.close());
        tokio::time::sleep(Duration::from_millis(10)).await; // both have asked
        hold.store(false, Ordering::SeqCst);
        append.await.unwrap().unwrap();
        // Whoever is answered first: the lock is free by then.
        tokio::select! {
            biased;
            closed = first => { closed.unwrap().ok(); }
            closed = second => { closed.unwrap().ok(); }
        }
        Store::open(temp.path(), &Options::default()).expect("the lock is free once close returns").0.close().unwrap();
    }
}

struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<()>, _: SupervisionEvent, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_actor_is_killed_while_the_store_is_being_opened() {
    let temp = tempfile::tempdir().unwrap();
    common::filled(temp.path(), &common::options());
    let (mut options, hold, reached) = held_at(failpoint::ACTOR_PARITY_STEP);
    hold.store(true, Ordering::SeqCst);
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let held = options.store.failpoint.take().unwrap();
    let (now, seen) = (inside.clone(), most.clone());
    options.store.failpoint = Some(Arc::new(move |at| {
        let replaying = usize::from(at == failpoint::ACTOR_PARITY_STEP);
        seen.fetch_max(now.fetch_add(replaying, Ordering::SeqCst) + replaying, Ordering::SeqCst);
        let done = held(at);
        now.fetch_sub(replaying, Ordering::SeqCst);
        done
    }));
    let (parent, _) = Actor::spawn(None, Parent, ()).await.unwrap();
    let opening = tokio::spawn({
        let (dir, parent) = (temp.path().to_owned(), parent.get_cell());
        async move { Ledger::open_linked(dir, options, parent).await }
    });
    until("the replay", || reached.load(Ordering::SeqCst)).await;
    let supervisor = parent.get_cell().get_children().pop().unwrap();
    // LedgerActor was started first.
    let victim = supervisor.get_children().into_iter().min_by_key(|child| child.get_id().pid()).unwrap();
    victim.kill();
    until("its successor", || {
        let ids: Vec<_> = supervisor.get_children().iter().map(ractor::ActorCell::get_id).collect();
        ids.len() >= 2 && !ids.contains(&victim.get_id())
    })
    .await;
    // Time for a second replay to show, if there is one.
    tokio::time::sleep(Duration::from_millis(50)).await;
    hold.store(false, Ordering::SeqCst);
    let ledger = soon("open", opening).await.unwrap().unwrap();
    soon("an append", ledger.append_with(common::note("x"), Expect::Any, Durability::Mirrored)).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1, "one replay at a time writes to the mirror");
    until("one LedgerActor and one SqliteActor", || supervisor.get_children().len() == 2).await;
    soon("close", ledger.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_the_disk_refuses_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let mut options = LedgerOptions::default();
    let fails = failing.clone();
    options.store.failpoint = Some(Arc::new(move |at| match at {
        failpoint::LEDGER_SYNC if fails.load(Ordering::SeqCst) => Err(std::io::Error::other("the disk is gone")),
        _ => Ok(()),
    }));
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append(common::note("first")).await.unwrap();
    failing.store(true, Ordering::SeqCst);
    let draft = ledger.check(common::note("second")).unwrap();
    let pending = ledger.submit(vec![draft], Conditions::none(), Durability::Ledger).await.unwrap();
    // The close may come before the flush, or find the store poisoned: it is refused either way.
    assert!(soon("close", ledger.clone().close()).await.is_err());
    assert!(soon("the append", pending).await.is_err());
    drop(ledger);
    Ledger::open(temp.path()).await.unwrap().close().await.unwrap();
}

/// The mirror's actors fail until the supervisor gives up, while appends wait in LedgerActor for the mirror.
#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_for_the_mirror_when_the_store_gives_up() {
    let temp = tempfile::tempdir().unwrap();
    let (mut options, hold, reached) = held_at("actor.parity.step");
    let (held, broken) = (options.store.failpoint.take().unwrap(), Arc::new(AtomicBool::new(false)));
    let breaks = broken.clone();
    options.store.failpoint = Some(Arc::new(move |at| {
        held(at)?;
        assert!(at != "actor.parity.step" || !breaks.load(Ordering::SeqCst), "injected");
        Ok(())
    }));
    options.store.unmirrored_events_max = 2;
    options.restarts_max = 3;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    hold.store(true, Ordering::SeqCst);
    broken.store(true, Ordering::SeqCst);
    soon("children", ledger.children()).await.unwrap().sqlite.unwrap().kill();
    until("the replay", || reached.load(Ordering::SeqCst)).await;
    let appends: Vec<_> = (0..5)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(common::note(&format!("{n}"))).await })
        })
        .collect();
    // As many as may wait for the mirror are durable; the others wait in LedgerActor.
    until("two appends", || ledger.status().durable.seq.get() == 2 && ledger.status().in_flight == 3).await;
    hold.store(false, Ordering::SeqCst);
    let mut stopped = 0;
    for append in appends {
        match soon("an append", append).await.unwrap() {
            Ok(_) => {}
            Err(AppendError::Stopped { .. }) => stopped += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(stopped, 3);
    assert!(soon("close", ledger.close()).await.is_err());
    common::open_is_clean(temp.path(), &Options::default());
}
