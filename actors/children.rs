//! Children of the supervisor: how they are spawned, and how they are closed.

use std::io;
use std::path::Path;

use ractor::concurrency::JoinHandle;
use ractor::thread_local::{ThreadLocalActor, ThreadLocalActorSpawner};
use ractor::{ActorRef, SpawnErr};

use super::handle::CloseReport;
use super::ledger::LedgerMsg;
use super::message::Message;
use super::parity::ParityMsg;
use super::shared::Shared;
use super::sqlite::SqliteMsg;
use super::supervisor::Inner;
use crate::{Error, LedgerError};

/// A child that lives.
#[derive(Debug)]
pub(crate) struct Child<M: Send + 'static> {
    pub actor: ActorRef<M>,
    pub join: Option<JoinHandle<()>>,
}

/// Why a child did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Its `pre_start` said so.
    Store(Error),
    /// Anything else.
    Other(String),
}

/// A thread for an actor. ractor panics where there can be none, which would end the supervisor that asks, and the store.
pub(crate) fn spawner() -> io::Result<ThreadLocalActorSpawner> {
    // This one says so without a panic; another program may take the last one in between.
    std::thread::Builder::new().spawn(|| ())?.join().map_err(|_| io::Error::other("a thread has panicked"))?;
    std::panic::catch_unwind(ThreadLocalActorSpawner::new).map_err(|_| io::Error::other("no thread could be started"))
}

/// What a caller is told where there was no thread for what it asked: the store goes on without.
pub(crate) fn no_thread(dir: &Path, error: &io::Error) -> Error {
    let source = error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error);
    LedgerError::Io { action: "starting a thread for", path: dir.to_owned(), source }.into()
}

/// Spawns a child on a thread of its own, and casts to the supervisor what came of it.
pub(crate) fn spawn<A: ThreadLocalActor>(me: &ActorRef<Message>, args: A::Arguments, wrap: fn(Result<Child<A::Msg>, StartError>) -> Inner) {
    // No name: names are global to the process, and two stores may live in it.
    let spawned = spawner().map_err(|error| SpawnErr::StartupFailed(error.into()));
    let spawned = spawned.and_then(|spawner| A::spawn_linked_instant(None, args, me.get_cell(), spawner));
    let me = me.clone();
    ractor::concurrency::spawn(async move {
        let started = match spawned {
            Ok((actor, starting)) => match starting.await {
                Ok(Ok(join)) => Ok(Child { actor, join: Some(join) }),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(SpawnErr::StartupFailed(error.into())),
            },
            Err(error) => Err(error),
        };
        let child = started.map_err(start_error);
        let _ = me.cast(wrap(child).into());
    });
}

/// What `pre_start` said; ractor wraps it once for each layer that it comes through.
fn start_error(error: SpawnErr) -> StartError {
    match error {
        SpawnErr::StartupFailed(error) => match error.downcast::<SpawnErr>() {
            Ok(inner) => start_error(*inner),
            Err(error) => match error.downcast::<Error>() {
                Ok(error) => StartError::Store(*error),
                Err(error) => StartError::Other(error.to_string()),
            },
        },
        error => StartError::Other(error.to_string()),
    }
}

/// Lets the children write what they have, in the order that they need each other in, and awaits their threads.
pub(crate) async fn close_children(
    ledger: Option<Child<LedgerMsg>>,
    sqlite: Option<Child<SqliteMsg>>,
    parity: Option<Child<ParityMsg>>,
    shared: &Shared,
) -> CloseReport {
    let (mut ledger_error, mut mirror_error) = (None, None);
    if let Some(parity) = parity {
        end_child(parity).await;
    }
    if let Some(ledger) = ledger {
        match ractor::call!(ledger.actor, LedgerMsg::Close) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => ledger_error = Some(error),
            Err(error) => ledger_error = Some(format!("LedgerActor ended while it was closing: {error}")),
        }
        end_child(ledger).await;
    }
    if let Some(sqlite) = sqlite {
        match ractor::call!(sqlite.actor, SqliteMsg::Close) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => mirror_error = Some(error),
            Err(error) => mirror_error = Some(error.to_string()),
        }
        end_child(sqlite).await;
    }
    CloseReport { head: *shared.durable.borrow(), mirrored_through: *shared.mirrored.borrow(), ledger_error, mirror_error }
}

/// Stops a child and awaits its thread's letting go.
async fn end_child<M: Send + 'static>(child: Child<M>) {
    child.actor.get_cell().stop(None);
    if let Some(join) = child.join {
        let _ = join.await;
    }
}
