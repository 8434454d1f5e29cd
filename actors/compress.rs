//! CompressActor: gives sealed segments their compressed form, beside the appends and on a thread of its own; on request,
//! and by `LedgerOptions::compress_sealed`. One segment a message, so that a request need not wait for a policy's backlog. It
//! rests as long as it works, touches nothing that LedgerActor does, and stops at the next frame when the store closes.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use ractor::concurrency::JoinHandle;
use ractor::thread_local::{ThreadLocalActor, ThreadLocalActorSpawner};
use ractor::{ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};

use super::message::Message;
use super::supervisor::Context;
use crate::ledger::compress::{Form, give_other_form, next_to_compress, reform};
use crate::{AppendError, Error, LedgerError, Reformed, Sealed, Seq};

/// How often it looks whether a segment was sealed: listing a directory each second costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits after the disk has said no.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest rest after a frame. A frame is some milliseconds of work, where the disk is not slow.
const REST_MAX: Duration = Duration::from_millis(50);

pub(crate) enum CompressMsg {
    /// Compress the next segment that the policy means, and look again.
    Look,
    /// Compress these.
    Run(Sealed, RpcReplyPort<Result<Vec<Reformed>, Error>>),
}

pub(crate) struct CompressState {
    context: Context,
    /// Segments with a wrong line: they stay as they are, and are not read again each second.
    damaged: HashSet<Seq>,
}

#[derive(Default)]
pub(crate) struct CompressActor;

impl ThreadLocalActor for CompressActor {
    type Msg = CompressMsg;
    type State = CompressState;
    type Arguments = Context;

    async fn pre_start(&self, _: ActorRef<CompressMsg>, context: Context) -> Result<CompressState, ActorProcessingErr> {
        Ok(CompressState { context, damaged: HashSet::new() })
    }

    async fn handle(&self, me: ActorRef<CompressMsg>, message: CompressMsg, state: &mut CompressState) -> Result<(), ActorProcessingErr> {
        match message {
            CompressMsg::Look => match state.look() {
                Some(Duration::ZERO) => drop(me.cast(CompressMsg::Look)),
                Some(after) => drop(me.send_after(after, || CompressMsg::Look)),
                None => {}
            },
            CompressMsg::Run(which, reply) => {
                let _ = reply.send(state.run(&which));
            }
        }
        Ok(())
    }
}

impl CompressState {
    /// Answers when to look again.
    fn look(&mut self) -> Option<Duration> {
        let shared = &self.context.shared;
        let (keep, options) = (shared.options.compress_sealed?, &shared.options.store);
        if shared.refusal().is_some() {
            return None;
        }
        let worked = Cell::new(Instant::now());
        let stop = || {
            std::thread::sleep(worked.get().elapsed().min(REST_MAX));
            worked.set(Instant::now());
            shared.refusal().is_some()
        };
        let mut first = None;
        let compressed = next_to_compress(&self.context.dir, options, keep, &self.damaged).and_then(|next| match next {
            Some((segment, end)) => {
                first = Some(segment.first);
                give_other_form(&self.context.dir, options, &segment, end, &stop)
            }
            None => Ok(None),
        });
        match (compressed, first) {
            (Ok(Some(_)), _) => Some(Duration::ZERO),
            (Ok(None), _) => Some(LOOK_EVERY),
            (Err(error @ LedgerError::Damaged { .. }), Some(first)) => {
                tracing::error!(actor = "compress", segment = first.get(), %error, "a sealed segment is damaged; it stays as it is");
                self.damaged.insert(first);
                Some(Duration::ZERO)
            }
            (Err(error), _) => {
                tracing::warn!(actor = "compress", %error, "a sealed segment could not be compressed; trying again in a minute");
                Some(RETRY_AFTER)
            }
        }
    }

    fn run(&self, which: &Sealed) -> Result<Vec<Reformed>, Error> {
        let (shared, mut done) = (&self.context.shared, Vec::new());
        let stop = || shared.refusal().is_some();
        reform(&self.context.dir, &shared.options.store, which, Form::Compressed, &stop, &mut |reformed| done.push(reformed))?;
        match shared.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(done),
        }
    }
}

/// The CompressActor that there is, if one was needed.
#[derive(Default)]
pub(crate) struct Compressor(Option<Running>);

struct Running {
    actor: ActorRef<CompressMsg>,
    starting: JoinHandle<Result<JoinHandle<()>, SpawnErr>>,
}

impl Compressor {
    /// Spawns it where it is not there, and casts.
    pub fn cast(&mut self, me: &ActorRef<Message>, context: &Context, message: CompressMsg) {
        if self.0.is_none() {
            let spawned = CompressActor::spawn_linked_instant(None, context.clone(), me.get_cell(), ThreadLocalActorSpawner::new());
            self.0 = spawned.ok().map(|(actor, starting)| Running { actor, starting });
        }
        match (&self.0, message) {
            (Some(running), message) => drop(running.actor.cast(message)),
            (None, CompressMsg::Run(_, reply)) => {
                let reason = "no thread could be started for it".to_owned();
                let _ = reply.send(Err(AppendError::Stopped { reason }.into()));
            }
            (None, CompressMsg::Look) => {}
        }
    }

    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Takes note that it has ended by itself; answers whether it was this one.
    pub fn ended(&mut self, id: ActorId) -> bool {
        let is_it = self.0.as_ref().is_some_and(|running| running.actor.get_id() == id);
        if is_it {
            self.0 = None;
        }
        is_it
    }

    /// Stops it and awaits its thread's letting go: until then it holds the store's lock.
    pub async fn end(self) {
        if let Some(Running { actor, starting }) = self.0 {
            actor.get_cell().stop(None);
            if let Ok(Ok(thread)) = starting.await {
                let _ = thread.await;
            }
        }
    }
}
