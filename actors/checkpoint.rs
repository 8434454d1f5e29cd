//! CheckpointActor: signs how far the ledger is, every so many events and every so often, and hands that to the anchors, on a
//! thread of its own. It reads up to the durable head only, and nothing waits for it but a close. Once the ledger contradicts what
//! was signed before, it signs nothing more: that is in the handle's status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::Serialize;

use super::shared::{Phase, Shared};
use super::side::{Side, backed_off};
use super::supervisor::Context;
use crate::attest;
use crate::checkpoint::{Anchor, Anchoring, CheckpointError, Checkpointer, Signed, TreeHash};
use crate::{Error, Head, Timestamp};

/// How often it looks how far the ledger is. Five times a second costs nothing, and a thread that is woken by each group would.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it waits after the signer, the disk or an anchor has said no, the first time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How checkpoints are signed beside the appends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointOptions {
    /// Whose signature they have.
    pub attestor: attest::Signer,
    /// Events after which one is signed, however short the time. 10,000: signing costs nothing beside so many appends. It is looked
    /// five times a second, so there may be more.
    pub every_events: u64,
    /// The time after which one is signed, where there was any event. A minute: with the anchors' own delay, that is how long an
    /// event can be rewritten unseen. Never below a fifth of a second.
    pub every: Duration,
    /// Whether a last one is signed on close, and handed to anchors that lack it. One that is slow or hangs then keeps the close waiting,
    /// up to its deadline ([`ANCHOR_DEADLINE`](crate::checkpoint::ANCHOR_DEADLINE)), as the signer does up to `sign_deadline`.
    pub at_close: bool,
    /// The places outside the store that each is handed to.
    pub anchors: Vec<Arc<dyn Anchor>>,
}

impl CheckpointOptions {
    /// Signed by this attestor, with no anchors.
    pub fn new(attestor: impl Into<attest::Signer>) -> CheckpointOptions {
        CheckpointOptions {
            attestor: attestor.into(),
            every_events: 10_000,
            every: Duration::from_secs(60),
            at_close: true,
            anchors: Vec::new(),
        }
    }

    /// Handed to this place too.
    pub fn anchor(mut self, anchor: impl Anchor + 'static) -> CheckpointOptions {
        self.anchors.push(Arc::new(anchor));
        self
    }
}

/// How checkpoints are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointStatus {
    /// Events that the last one covers: those behind it can still be rewritten unseen.
    pub size: u64,
    /// Its root.
    pub root: Option<TreeHash>,
    /// When it was signed, by this process.
    pub signed_at: Option<Timestamp>,
    /// Which anchors have what.
    pub anchors: Vec<Anchoring>,
    /// Why the last try failed. It is tried again.
    pub failed: Option<String>,
    /// Why nothing more is signed: the ledger contradicts what was signed before.
    pub refused: Option<String>,
}

pub(crate) enum CheckpointMsg {
    /// See whether one is due, and look again.
    Look,
    /// Sign one now.
    Run(RpcReplyPort<Result<Signed, Error>>),
    /// The ledger is closed: sign a last one, as the options say.
    Close(RpcReplyPort<()>),
}

/// The one that there is, if checkpoints are asked for.
pub(crate) type Signer = Side<CheckpointActor>;

impl Signer {
    /// Lets it sign a last one, and ends it.
    pub async fn close(self) {
        if let Some(actor) = self.actor() {
            let _ = ractor::call!(actor, CheckpointMsg::Close);
        }
        self.end().await;
    }
}

pub(crate) struct CheckpointState {
    context: Context,
    signer: Option<Checkpointer>,
    /// The last one that was signed, or the start.
    signed: Instant,
    /// Events up to this one were there before that: what of them no checkpoint covers has waited long enough.
    waited: u64,
    /// Tries to sign that failed in a row, and when the last one did.
    failed: (u32, Instant),
    /// The same of handing on: an anchor that fails holds up no signing.
    unanchored: (u32, Instant),
}

#[derive(Default)]
pub(crate) struct CheckpointActor;

impl ThreadLocalActor for CheckpointActor {
    type Msg = CheckpointMsg;
    type State = CheckpointState;
    type Arguments = Context;

    async fn pre_start(&self, _: ActorRef<CheckpointMsg>, context: Context) -> Result<CheckpointState, ActorProcessingErr> {
        let signer = context.shared.options.checkpoint.as_ref().map(|options| {
            let (attestor, anchors) = (options.attestor.clone(), options.anchors.clone());
            let signer = Checkpointer::new(&context.dir, &context.manifest, &context.shared.options.store, attestor, anchors);
            signer.beside_appends(context.shared.checks_cancelled.clone())
        });
        let now = Instant::now();
        let waited = context.shared.checkpoints_wait_from();
        Ok(CheckpointState { context, signer, signed: now, waited, failed: (0, now), unanchored: (0, now) })
    }

    async fn handle(
        &self,
        me: ActorRef<CheckpointMsg>,
        message: CheckpointMsg,
        state: &mut CheckpointState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CheckpointMsg::Look => {
                if state.look() {
                    me.send_after(LOOK_EVERY, || CheckpointMsg::Look);
                }
            }
            CheckpointMsg::Run(reply) => {
                let _ = reply.send(state.sign().map_err(Error::from));
            }
            CheckpointMsg::Close(reply) => {
                state.close();
                let _ = reply.send(());
            }
        }
        Ok(())
    }
}

impl CheckpointState {
    fn shared(&self) -> &Shared {
        &self.context.shared
    }

    /// Signs where that is due; answers whether to look again.
    fn look(&mut self) -> bool {
        let shared = self.context.shared.clone();
        let Some(options) = &shared.options.checkpoint else { return false };
        let (status, durable) = (shared.checkpoint_status(), *shared.durable.borrow());
        if shared.refusal().is_some() || status.as_ref().is_some_and(|status| status.refused.is_some()) {
            return false;
        }
        if is_resting(self.failed, options.every) {
            return true;
        }
        let Some(status) = status else {
            self.begin(durable);
            return true;
        };
        let new = durable.seq.get().saturating_sub(status.size);
        let is_due = new >= options.every_events.max(1)
            || (new > 0 && self.signed.elapsed() >= options.every)
            || (status.size < self.waited && self.waited <= durable.seq.get());
        let unanchored = self.signer.as_ref().is_some_and(Checkpointer::has_unanchored);
        if is_due {
            let _ = self.sign();
        } else if unanchored && !is_resting(self.unanchored, options.every) {
            let _ = self.hand_on(durable);
        }
        true
    }

    /// Looks at what was signed before.
    fn begin(&mut self, durable: Head) {
        let Some(signer) = &mut self.signer else { return };
        let checked = signer.check(durable).map(|last| last.map(|last| (last.size(), last.root())));
        let anchors = signer.anchorings();
        match checked {
            Ok(last) => self.shared().set_checkpoint(|status| {
                (status.size, status.root) = last.map_or((0, None), |(size, root)| (size, Some(root)));
                status.anchors = anchors;
            }),
            Err(error) => self.failed(&error),
        }
    }

    fn sign(&mut self) -> Result<Signed, CheckpointError> {
        let durable = *self.shared().durable.borrow();
        let Some(signer) = &mut self.signer else { return Err(CheckpointError::NoSigner) };
        match signer.sign_and_store(durable) {
            Ok(signed) => {
                (self.failed.0, self.signed, self.waited) = (0, Instant::now(), 0);
                let now = self.shared().options.store.clock.now();
                // Before an anchor is asked, which may take its time.
                self.shared().set_checkpoint(|status| {
                    (status.size, status.root) = (signed.checkpoint.size(), Some(signed.checkpoint.root()));
                    status.signed_at = if signed.is_new { Some(now) } else { status.signed_at };
                    status.failed = None;
                });
                Ok(Signed { anchors: self.hand_on(durable)?, ..signed })
            }
            // There is nothing to sign yet.
            Err(CheckpointError::Empty) => Err(CheckpointError::Empty),
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Hands the newest one to the anchors that lack it.
    fn hand_on(&mut self, durable: Head) -> Result<Vec<Anchoring>, CheckpointError> {
        let Some(signer) = &mut self.signer else { return Err(CheckpointError::NoSigner) };
        let handed = signer.check(durable).map(drop).and_then(|()| Ok(signer.hand_on()?));
        match &handed {
            Ok(anchors) => {
                let all_have_it = anchors.iter().all(|anchor| anchor.error.is_none());
                self.unanchored = if all_have_it { (0, Instant::now()) } else { (self.unanchored.0.saturating_add(1), Instant::now()) };
                self.shared().set_checkpoint(|status| status.anchors.clone_from(anchors));
            }
            Err(error) => self.failed(error),
        }
        handed
    }

    fn failed(&mut self, error: &CheckpointError) {
        self.failed = (self.failed.0.saturating_add(1), Instant::now());
        let is_inconsistent = error.is_inconsistent();
        match is_inconsistent {
            true => tracing::error!(actor = "checkpoint", %error, "nothing more is signed"),
            false => tracing::warn!(actor = "checkpoint", %error, "no checkpoint could be signed; trying again"),
        }
        self.shared().set_checkpoint(|status| {
            *(if is_inconsistent { &mut status.refused } else { &mut status.failed }) = Some(error.to_string());
        });
    }

    fn close(&mut self) {
        let shared = self.context.shared.clone();
        let at_close = shared.options.checkpoint.as_ref().is_some_and(|options| options.at_close);
        let status = shared.checkpoint_status().unwrap_or_default();
        let has_new = shared.durable.borrow().seq.get() > status.size;
        let has_unanchored = self.signer.as_ref().is_some_and(Checkpointer::has_unanchored);
        if at_close && (has_new || has_unanchored) && status.refused.is_none() && shared.phase() == Phase::Closing {
            self.signer = self.signer.take().map(Checkpointer::uncancelled);
            let _ = self.sign();
        }
    }
}

/// Whether what failed so often, and then, is not yet to be tried again. It never rests longer than checkpoints are apart: that is how
/// long an event can be rewritten unseen.
fn is_resting((times, at): (u32, Instant), every: Duration) -> bool {
    times > 0 && at.elapsed() < backed_off(RETRY_AFTER, times).min(every.max(RETRY_AFTER))
}
