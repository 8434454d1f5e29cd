//! Goal: what the supervisor relies on in ractor stays true when ractor is updated.
//!
//! Method: one small thread-local actor that fails in each way; what its parent and its callers then see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::sync::{Arc, Mutex};

use ractor::thread_local::{ThreadLocalActor, ThreadLocalActorSpawner};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};

#[derive(Debug, thiserror::Error)]
#[error("a typed error")]
struct Typed;

#[derive(Debug)]
enum Msg {
    Fail,
    Panic,
    Ask(#[allow(dead_code)] RpcReplyPort<()>), // never answered
}

#[derive(Default)]
struct Child;

impl ThreadLocalActor for Child {
    type Msg = Msg;
    type State = Dropped;
    type Arguments = (bool, Arc<Mutex<Vec<String>>>);

    async fn pre_start(&self, _: ActorRef<Msg>, (fails, log): Self::Arguments) -> Result<Dropped, ActorProcessingErr> {
        if fails { Err(Typed.into()) } else { Ok(Dropped(log)) }
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, _: &mut Dropped) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Fail => Err(Typed.into()),
            Msg::Panic => panic!("a panic"),
            Msg::Ask(_) => Ok(()),
        }
    }
}

struct Dropped(Arc<Mutex<Vec<String>>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("state dropped".to_owned());
    }
}

struct Parent;

impl Actor for Parent {
    type Msg = ();
    type State = Arc<Mutex<Vec<String>>>;
    type Arguments = Arc<Mutex<Vec<String>>>;

    async fn pre_start(&self, _: ActorRef<()>, log: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
        Ok(log)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        log: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let line = match event {
            SupervisionEvent::ActorFailed(_, error) => format!("failed, typed: {}", error.downcast_ref::<Typed>().is_some()),
            SupervisionEvent::ActorTerminated(_, _, reason) => format!("terminated: {reason:?}"),
            _ => return Ok(()),
        };
        log.lock().unwrap().push(line);
        Ok(())
    }
}

type Log = Arc<Mutex<Vec<String>>>;

async fn family() -> (ActorRef<()>, ActorRef<Msg>, tokio::task::JoinHandle<()>, Log) {
    let log = Log::default();
    let (parent, _) = Actor::spawn(None, Parent, log.clone()).await.unwrap();
    let (child, join) = Child::spawn_linked(None, (false, log.clone()), parent.get_cell(), ThreadLocalActorSpawner::new()).await.unwrap();
    (parent, child, join, log)
}

async fn told(log: &Log, event: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !log.lock().unwrap().iter().any(|line| line == event) {
        assert!(tokio::time::Instant::now() < deadline, "{event} not in {:?}", log.lock().unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_error_keeps_its_type_a_panic_has_none_and_a_kill_is_no_failure() {
    for (message, event) in
        [(Some(Msg::Fail), "failed, typed: true"), (Some(Msg::Panic), "failed, typed: false"), (None, "terminated: Some(\"killed\")")]
    {
        let (_parent, child, join, log) = family().await;
        match message {
            Some(message) => child.cast(message).unwrap(),
            None => child.get_cell().kill(),
        }
        told(&log, event).await;
        // Once the join handle returns, the state is gone: the file, the connection, the lock.
        join.await.unwrap();
        assert!(log.lock().unwrap().contains(&"state dropped".to_owned()));
        assert!(child.cast(Msg::Fail).is_err(), "a dead actor takes no message");
    }
}

#[tokio::test]
async fn what_waits_in_a_dead_actors_mailbox_is_dropped() {
    let (_parent, child, join, _) = family().await;
    child.cast(Msg::Panic).unwrap();
    let asked = ractor::call!(child, Msg::Ask);
    assert!(asked.is_err(), "the reply port is dropped, so the caller does not hang");
    join.await.unwrap();
}

#[tokio::test]
async fn a_failed_pre_start_reaches_the_spawner_only() {
    let log = Log::default();
    let (parent, _) = Actor::spawn(None, Parent, log.clone()).await.unwrap();
    let (_, starting) = Child::spawn_linked_instant(None, (true, log.clone()), parent.get_cell(), ThreadLocalActorSpawner::new()).unwrap();
    let mut error = starting.await.unwrap().unwrap_err();
    let typed = loop {
        // Wrapped once for each layer that it comes through.
        let SpawnErr::StartupFailed(inner) = error else { panic!("{error}") };
        match inner.downcast::<SpawnErr>() {
            Ok(inner) => error = *inner,
            Err(other) => break other.downcast_ref::<Typed>().is_some(),
        }
    };
    assert!(typed);
    assert_eq!(log.lock().unwrap().len(), 0, "the parent is not told");
}
