//! CompressActor: gives sealed segments their compressed form, beside the appends and on a thread of its own; on request,
//! and by `LedgerOptions::compress_sealed`. One segment a message, so that a request need not wait for a policy's backlog. It
//! rests as long as it works, touches nothing that LedgerActor does, and stops at the next frame when the store closes.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::side::backed_off;
use super::supervisor::Context;
use crate::ledger::compress::{Form, give_other_form, is_its_own, next_to_compress, reform_one, to_reform};
use crate::{Error, LedgerError, Reformed, Sealed, Seq};

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
    /// Segments that could not be compressed: they stay as they are, and the others come first.
    failed: HashMap<Seq, Failed>,
}

#[derive(Clone, Copy, Default)]
struct Failed {
    times: u32,
    /// When to try again; never where a line is wrong.
    again: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct CompressActor;

impl ThreadLocalActor for CompressActor {
    type Msg = CompressMsg;
    type State = CompressState;
    type Arguments = Context;

    async fn pre_start(&self, _: ActorRef<CompressMsg>, context: Context) -> Result<CompressState, ActorProcessingErr> {
        Ok(CompressState { context, failed: HashMap::new() })
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
        let now = Instant::now();
        let leave = |first: Seq| self.failed.get(&first).is_some_and(|failed| failed.again.is_none_or(|again| now < again));
        let mut tried = None;
        let reshaping = shared.reshaping();
        let compressed = next_to_compress(&self.context.dir, options, keep, &leave).and_then(|next| match next {
            Some((segment, end)) => {
                let compressed = give_other_form(&self.context.dir, options, &segment, end, &stop);
                tried = Some(segment);
                compressed
            }
            None => Ok(None),
        });
        drop(reshaping);
        match (compressed, tried) {
            (Ok(Some(_)), _) => Some(Duration::ZERO),
            (Ok(None), _) => Some(LOOK_EVERY),
            (Err(error), Some(segment)) if is_its_own(&error, &segment) => {
                self.failed(segment.first, &error);
                Some(Duration::ZERO)
            }
            (Err(error), _) => {
                tracing::warn!(actor = "compress", %error, "a sealed segment could not be compressed; trying again in a minute");
                Some(RETRY_AFTER)
            }
        }
    }

    /// Takes note that this segment could not be compressed, so that those after it can.
    fn failed(&mut self, first: Seq, error: &LedgerError) {
        let failed = self.failed.entry(first).or_default();
        failed.times += 1;
        if matches!(error, LedgerError::Damaged { .. }) {
            failed.again = None;
            tracing::error!(actor = "compress", segment = first.get(), %error, "a sealed segment is damaged; it stays as it is");
        } else {
            let after = backed_off(RETRY_AFTER, failed.times);
            failed.again = Some(Instant::now() + after);
            tracing::warn!(actor = "compress", segment = first.get(), %error, ?after, "a sealed segment could not be compressed; trying again later");
        }
    }

    fn run(&self, which: &Sealed) -> Result<Vec<Reformed>, Error> {
        let (shared, mut done) = (&self.context.shared, Vec::new());
        let stop = || shared.refusal().is_some();
        let (dir, options) = (&self.context.dir, &shared.options.store);
        let reshaping = shared.reshaping();
        let chosen = to_reform(dir, options, which)?;
        drop(reshaping);
        for (segment, end) in chosen {
            if stop() {
                break;
            }
            // Rows wait for an erasure, and an erasure for one segment.
            let _reshaping = shared.reshaping();
            done.extend(reform_one(dir, options, &segment, end, Form::Compressed, &stop)?);
        }
        match shared.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(done),
        }
    }
}
