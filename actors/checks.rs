//! Which checks are under way, and which wait: one at a time of those that read much, so that callers can't start any number of
//! them, and one at a time of those that look at the watermark only. The supervisor holds it.

use std::collections::VecDeque;
use std::sync::Arc;

use ractor::{ActorId, RpcReplyPort};

use crate::{Error, ParityKind, ParityReport, VerifyReport};

/// A check, and who waits for its report. Nobody: the timer or an option asked for it.
#[derive(Debug)]
pub(crate) enum Check {
    Parity { kind: ParityKind, replies: Vec<RpcReplyPort<Result<ParityReport, Error>>> },
    Verify(Vec<RpcReplyPort<Result<Arc<VerifyReport>, Error>>>),
}

impl Default for Check {
    fn default() -> Check {
        Check::unasked(ParityKind::Quick)
    }
}

impl Check {
    pub(crate) fn parity(kind: ParityKind, reply: RpcReplyPort<Result<ParityReport, Error>>) -> Check {
        Check::Parity { kind, replies: vec![reply] }
    }

    pub(crate) fn verify(reply: RpcReplyPort<Result<Arc<VerifyReport>, Error>>) -> Check {
        Check::Verify(vec![reply])
    }

    /// A comparison that nobody waits for.
    pub(crate) fn unasked(kind: ParityKind) -> Check {
        Check::Parity { kind, replies: Vec::new() }
    }

    /// Tells who waits for it why it could not be begun.
    pub(crate) fn refuse(self, why: &dyn Fn() -> Error) {
        match self {
            Check::Parity { replies, .. } => replies.into_iter().for_each(|reply| drop(reply.send(Err(why())))),
            Check::Verify(replies) => replies.into_iter().for_each(|reply| drop(reply.send(Err(why())))),
        }
    }

    fn is_quick(&self) -> bool {
        matches!(self, Check::Parity { kind: ParityKind::Quick, .. })
    }

    /// Lets who waits for the other wait for this one, where they ask for the same; else gives it back.
    fn join(&mut self, other: Check) -> Option<Check> {
        match (self, other) {
            (Check::Parity { kind, replies }, Check::Parity { kind: same, replies: more }) if *kind == same => {
                replies.extend(more);
                None
            }
            (Check::Verify(replies), Check::Verify(more)) => {
                replies.extend(more);
                None
            }
            (_, other) => Some(other),
        }
    }
}

#[derive(Default)]
pub(crate) struct Checks {
    quick: Lane,
    deep: Lane,
}

/// At most as many wait as there are kinds: others join them.
#[derive(Default)]
struct Lane {
    running: Option<ActorId>,
    waiting: VecDeque<Check>,
}

impl Checks {
    /// Takes a check in: it joins one of its kind that has not begun yet.
    pub(crate) fn ask(&mut self, check: Check) {
        let lane = if check.is_quick() { &mut self.quick } else { &mut self.deep };
        let unjoined = lane.waiting.iter_mut().try_fold(check, |check, waiting| waiting.join(check).ok_or(()));
        lane.waiting.extend(unjoined.ok());
    }

    /// Starts what can be started: `spawn` answers the actor, or nothing where there could be none.
    pub(crate) fn start(&mut self, mut spawn: impl FnMut(Check) -> Option<ActorId>) {
        for lane in [&mut self.quick, &mut self.deep] {
            while lane.running.is_none()
                && let Some(check) = lane.waiting.pop_front()
            {
                lane.running = spawn(check);
            }
        }
    }

    /// Takes note that an actor has ended; answers whether it was one of these.
    pub(crate) fn ended(&mut self, actor: ActorId) -> bool {
        let lanes = [&mut self.quick, &mut self.deep];
        lanes.into_iter().any(|lane| lane.running.take_if(|running| *running == actor).is_some())
    }

    /// Whether one is under way that reads much.
    pub(crate) fn is_deep_running(&self) -> bool {
        self.deep.running.is_some()
    }

    /// Nothing that waits will be started any more: who waits for it is told so by its reply's end.
    pub(crate) fn forget(&mut self) {
        self.quick.waiting.clear();
        self.deep.waiting.clear();
    }
}
