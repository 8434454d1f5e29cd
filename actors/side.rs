//! Children that work beside the others: CompressActor and CheckpointActor. The store goes on without one that has ended, and
//! the supervisor starts it again after a while.

use std::io;
use std::time::{Duration, Instant};

use ractor::concurrency::JoinHandle;
use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorId, ActorRef, SpawnErr};

use super::children::spawner;
use super::message::Message;
use super::supervisor::Context;

/// The longest that is waited before something is tried again, however often it has failed.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// How long to wait after the nth failure in a row: twice as long each time, up to an hour.
pub(crate) fn backed_off(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(12)).min(BACKOFF_MAX.max(first))
}

/// The one that there is, if one was needed.
pub(crate) struct Side<A: ThreadLocalActor> {
    running: Option<Running<A::Msg>>,
    /// How often it has ended by itself, or could not be started, without having worked for a while in between.
    ends: u32,
    /// When it was started.
    started: Option<Instant>,
}

struct Running<M> {
    actor: ActorRef<M>,
    starting: JoinHandle<Result<JoinHandle<()>, SpawnErr>>,
}

impl<A: ThreadLocalActor> Default for Side<A> {
    fn default() -> Side<A> {
        Side { running: None, ends: 0, started: None }
    }
}

impl<A: ThreadLocalActor<Arguments = Context>> Side<A> {
    /// Spawns it where it is not there, and casts; gives the message back where there is no thread for it.
    pub fn cast(&mut self, me: &ActorRef<Message>, context: &Context, message: A::Msg) -> Result<(), (A::Msg, io::Error)> {
        if self.running.is_none() {
            let spawner = match spawner() {
                Ok(spawner) => spawner,
                Err(error) => {
                    tracing::warn!(actor = "supervisor", %error, "no thread could be started for an actor that works beside the others");
                    return Err((message, error));
                }
            };
            let spawned = A::spawn_linked_instant(None, context.clone(), me.get_cell(), spawner);
            self.running = spawned.ok().map(|(actor, starting)| Running { actor, starting });
            self.started = Some(Instant::now());
        }
        // A reply that is dropped tells its caller that it has ended.
        if let Some(running) = &self.running {
            let _ = running.actor.cast(message);
        }
        Ok(())
    }

    /// How long to wait before it is started by itself again.
    pub fn back_off(&mut self, first: Duration) -> Duration {
        // One that has worked for longer than it was waited for is well, and has ended once.
        let worked = self.started.take().map_or(Duration::ZERO, |started| started.elapsed());
        if worked > backed_off(first, self.ends) {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        backed_off(first, self.ends)
    }

    pub fn is_there(&self) -> bool {
        self.running.is_some()
    }

    /// Takes note that it has ended by itself; answers whether it was this one.
    pub fn ended(&mut self, id: ActorId) -> bool {
        let is_it = self.running.as_ref().is_some_and(|running| running.actor.get_id() == id);
        if is_it {
            self.running = None;
        }
        is_it
    }

    /// The actor, while it is there.
    pub fn actor(&self) -> Option<&ActorRef<A::Msg>> {
        self.running.as_ref().map(|running| &running.actor)
    }

    /// Stops it and awaits its thread's letting go: until then it holds the store's lock.
    pub async fn end(self) {
        if let Some(Running { actor, starting }) = self.running {
            actor.get_cell().stop(None);
            if let Ok(Ok(thread)) = starting.await {
                let _ = thread.await;
            }
        }
    }
}
