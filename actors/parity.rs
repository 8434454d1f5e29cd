//! ParityActor: a short life with one task, on a thread of its own. It replays into the mirror what is missing
//! (before SqliteActor starts), or compares both legs, tells the result and ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::checks::Check;
use super::shared::{CheckProgress, MirrorHealth};
use super::supervisor::{Context, Inner};
use crate::erase::finish;
use crate::parity::{Done, Part, incremental_by};
use crate::{
    Error, LedgerError, LedgerReader, Mirror, MirrorError, MirrorFault, ParityKind, ParityReport, Plan, Replay, ReplayError, ReplayReport,
    ReplayStep, Seq, VerifyReport, parity_full_by, parity_quick, set_aside, verify_by,
};

/// What is held against the mirror's file before a replay: what is broken may lie where a replay does not look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Nothing: SQLite has checked it a moment ago.
    #[default]
    None,
    /// SQLite has not checked it, as far as it does that at an open.
    Unchecked,
    /// It could not be read: all of it is checked first.
    Unread,
    /// It was found damaged: it is set aside.
    Broken,
}

pub(crate) enum ParityTask {
    /// Bring the mirror up to the durable head. The only writer of the mirror while it runs.
    Replay(Doubt),
    /// Compare or verify, answer the callers where there are some, and keep the report for the status.
    Check(Check),
}

#[derive(Debug)]
pub(crate) enum ParityMsg {
    /// One bounded step.
    Step,
}

pub(crate) struct ParityState {
    task: ParityTask,
    replaying: Option<(Mirror, Replay)>,
    /// Whether it was found damaged, and may just not have been read well: it has been begun again, with a check of all of it.
    is_doubted: bool,
    /// Times that a broken mirror was set aside: a disk that breaks each new one must not be tried for ever.
    set_aside: u32,
    started: Instant,
    /// Dropped last, behind the mirror: it holds the store's lock.
    context: Context,
}

const SET_ASIDE_MAX: u32 = 3;

#[derive(Default)]
pub(crate) struct ParityActor;

impl ThreadLocalActor for ParityActor {
    type Msg = ParityMsg;
    type State = ParityState;
    type Arguments = (Context, ParityTask);

    async fn pre_start(&self, _: ActorRef<ParityMsg>, (context, task): (Context, ParityTask)) -> Result<ParityState, ActorProcessingErr> {
        Ok(ParityState { context, task, replaying: None, is_doubted: false, set_aside: 0, started: Instant::now() })
    }

    async fn post_start(&self, me: ActorRef<ParityMsg>, _: &mut ParityState) -> Result<(), ActorProcessingErr> {
        let _ = me.cast(ParityMsg::Step);
        Ok(())
    }

    async fn handle(&self, me: ActorRef<ParityMsg>, message: ParityMsg, state: &mut ParityState) -> Result<(), ActorProcessingErr> {
        match message {
            ParityMsg::Step => match &mut state.task {
                ParityTask::Replay(doubt) => {
                    let doubt = std::mem::take(doubt);
                    state.replay(&me, doubt);
                }
                ParityTask::Check(check) => {
                    match std::mem::take(check) {
                        Check::Parity { kind, replies } => state.compare(kind, replies).await,
                        Check::Verify(replies) => state.verify(replies),
                    }
                    me.stop(None);
                }
            },
        }
        Ok(())
    }
}

impl ParityState {
    fn replay(&mut self, me: &ActorRef<ParityMsg>, doubt: Doubt) {
        let stepped = match doubt {
            Doubt::Broken => self.set_aside("it was found damaged"),
            Doubt::None | Doubt::Unchecked | Doubt::Unread => self.step(doubt),
        };
        let done = match stepped {
            Ok((ReplayStep::More, _)) => {
                let _ = me.cast(ParityMsg::Step);
                return;
            }
            Ok((ReplayStep::Done, report)) => Ok(report),
            // SQLite tells a read that failed as damage.
            Err(ReplayError::Mirror(error)) if error.may_be_unread() && !self.is_doubted => {
                tracing::warn!(actor = "parity", %error, "looking again whether the mirror is damaged");
                (self.is_doubted, self.replaying, self.task) = (true, None, ParityTask::Replay(Doubt::Unread));
                let _ = me.cast(ParityMsg::Step);
                return;
            }
            Err(ReplayError::Mirror(error)) if error.fault() == MirrorFault::Broken && self.set_aside < SET_ASIDE_MAX => {
                match self.set_aside(&error.to_string()) {
                    Ok(_) => {
                        let _ = me.cast(ParityMsg::Step);
                        return;
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Ok(report) = &done {
            let elapsed = self.started.elapsed();
            tracing::info!(
                actor = "parity",
                replayed = report.replayed,
                seq = report.through.get(),
                ?elapsed,
                "the mirror has what the ledger has"
            );
        }
        self.replaying = None;
        let _ = self.context.supervisor.cast(Inner::Replayed(done).into());
        me.stop(None);
    }

    fn set_aside(&mut self, reason: &str) -> Result<(ReplayStep, ReplayReport), ReplayError> {
        self.set_aside += 1;
        self.replaying = None;
        let aside = set_aside(&self.context.dir)?;
        tracing::warn!(actor = "parity", %reason, aside = %aside.display(), "set the mirror aside; rebuilding it");
        self.context.shared.live.send_modify(|live| live.mirror_set_aside = Some(aside));
        Ok((ReplayStep::More, ReplayReport::default()))
    }

    fn step(&mut self, doubt: Doubt) -> Result<(ReplayStep, ReplayReport), ReplayError> {
        let shared = &self.context.shared;
        let store = &shared.options.store;
        let failed = |source| MirrorError::Io { action: "replaying into", path: crate::mirror_path(&self.context.dir), source };
        store.at(crate::failpoint::ACTOR_PARITY_STEP).map_err(failed)?;
        let durable = shared.durable.borrow().seq;
        let (mirror, replay) = match &mut self.replaying {
            Some(replaying) => replaying,
            none => {
                let checked = doubt == Doubt::None && self.set_aside == 0;
                let mut mirror = Mirror::open_again(&self.context.dir, &self.context.manifest, store, checked, true)?;
                mirror.keep_sealed_ends(&shared.take_sealed_ends());
                if doubt == Doubt::Unread {
                    mirror.check_indexes()?;
                }
                let through = mirror.watermark().seq;
                let _ = self.context.supervisor.cast(Inner::Replaying { through }.into());
                let reader = LedgerReader::open(&self.context.dir, store)?;
                // First: what is replayed is to have no payload that is to be erased.
                let (reshaping, erasing) = (shared.reshaping(), shared.erasing());
                let erased = finish(&reader, &mut mirror, durable, store);
                // The mirror may be a new one; they have the old one open, and in it what is erased.
                shared.readers.forget();
                erasing.ended(&erased);
                drop(reshaping);
                if !erased.is_nothing() && erased.unfinished.is_none() {
                    tracing::info!(actor = "parity", rows = erased.rows, segments = erased.segments.len(), "an erasure was carried out");
                }
                shared.live.send_if_modified(|live| live.mirror_set_aside.take_if(|aside| erased.has_removed(aside)).is_some());
                let replay = Replay::from_watermark(&reader, &mirror, durable)?;
                none.insert((mirror, replay))
            }
        };
        mirror.check_in_place()?;
        replay.extend(durable);
        let step = replay.step(mirror)?;
        let through = mirror.watermark().seq;
        shared.mirrored_through(through);
        shared.set_mirror(MirrorHealth::Rebuilding { done: through.get(), total: durable.get() });
        Ok((step, replay.report()))
    }

    async fn compare(&self, kind: ParityKind, replies: Vec<RpcReplyPort<Result<ParityReport, Error>>>) {
        let shared = &self.context.shared;
        let is_asked = !replies.is_empty();
        let durable = shared.durable.borrow().seq;
        if is_asked {
            // What was durable when it was asked for is what is compared; lag is no difference.
            let mut mirrored = shared.mirrored.subscribe();
            let _ = tokio::time::timeout(shared.options.close_deadline, mirrored.wait_for(|seq| *seq >= durable)).await;
        }
        // The timer looks at what both have, on this thread alone.
        let through = if is_asked { durable } else { durable.min(*shared.mirrored.borrow()) };
        let sealed_max = if is_asked { usize::MAX } else { shared.options.parity_segments_max };
        let plan = self.plan(is_asked);
        let store = &shared.options.store;
        let mut progress = |done| shared.set_check(Some(CheckProgress { check: "parity", done, total: through.get() }));
        let compared = LedgerReader::open(&self.context.dir, store).and_then(|reader| match kind {
            ParityKind::Quick => parity_quick(&reader, store),
            ParityKind::Incremental => {
                // Where the timer was last: what it can't keep must not keep it from the rest.
                let behind = if is_asked { Seq::ZERO } else { Seq::new(shared.parity_behind.load(Ordering::Relaxed)) };
                let part = Part { through, sealed_max, behind };
                incremental_by(&reader, store, part, &plan, &mut progress).map(|Done { report, to_keep, behind }| {
                    if !is_asked {
                        shared.parity_behind.store(behind.get(), Ordering::Relaxed);
                    }
                    if let Some(checked) = to_keep {
                        let _ = self.context.supervisor.cast(Inner::Checked(checked).into());
                    }
                    report
                })
            }
            ParityKind::Full => parity_full_by(&reader, store, Some(through), &plan, &mut progress),
        });
        if kind != ParityKind::Quick {
            shared.set_check(None);
        }
        if let Ok(report) = &compared {
            if !report.is_consistent() && kind != ParityKind::Quick {
                tracing::warn!(actor = "parity", seq = through.get(), mismatched = report.mismatched_count, "the legs are not equal");
            }
            shared.live.send_modify(|live| {
                live.last_parity = Some(report.clone());
                // One that left something out does not say that what was found wrong there is right by now.
                let is_found = live.last_content_parity.as_ref().is_some_and(|last| !last.is_consistent());
                if kind != ParityKind::Quick && !(is_found && report.is_consistent() && report.skipped_count > 0) {
                    live.last_content_parity = Some(report.clone());
                }
            });
        }
        let check = match kind {
            ParityKind::Quick => "parity, quick",
            ParityKind::Incremental => "parity, incremental",
            ParityKind::Full => "parity, full",
        };
        self.answer(check, replies, compared);
    }

    fn verify(&self, replies: Vec<RpcReplyPort<Result<Arc<VerifyReport>, Error>>>) {
        let shared = &self.context.shared;
        let through = shared.durable.borrow().seq;
        let verified = LedgerReader::open(&self.context.dir, &shared.options.store).and_then(|reader| {
            let total = reader.bytes()?;
            let mut progress = |done| shared.set_check(Some(CheckProgress { check: "verify", done, total }));
            verify_by(&reader, Some(through), &self.plan(!replies.is_empty()), &mut progress).map(Arc::new)
        });
        shared.set_check(None);
        if let Ok(report) = &verified {
            if !report.is_clean() {
                tracing::error!(actor = "parity", failures = report.failures_count, "the ledger is damaged; run `counterfoil verify`");
            }
            shared.live.send_modify(|live| live.last_verify = Some(report.clone()));
        }
        self.answer("verify", replies, verified);
    }

    /// What nobody waits for takes one thread, and leaves the rest to the program.
    fn plan(&self, is_asked: bool) -> Plan {
        let plan = Plan { cancelled: Some(self.context.shared.checks_cancelled.clone()), ..Plan::default() };
        if is_asked { plan } else { Plan { threads: 0, ..plan } }
    }

    /// Gives all who asked the same answer; an error is in the status too, since maybe nobody did.
    fn answer<T: Clone>(&self, check: &'static str, replies: Vec<RpcReplyPort<Result<T, Error>>>, answer: Result<T, LedgerError>) {
        let shared = &self.context.shared;
        let refusal = shared.refusal();
        if refusal.is_none() {
            // Else it was cancelled, or its files are nobody's any more.
            let failed = answer.as_ref().err().map(ToString::to_string);
            if let Some(error) = &failed {
                tracing::warn!(actor = "parity", check, %error, "a check could not be done");
            }
            shared.live.send_if_modified(|live| match failed {
                Some(error) => live.failed_checks.insert(check, error.clone()) != Some(error),
                None => live.failed_checks.remove(check).is_some(),
            });
        }
        let mut replies = replies;
        let last = replies.pop();
        let told = |error: LedgerError| shared.refusal().map_or_else(|| error.into(), Error::from);
        for reply in replies {
            let _ = reply.send(answer.as_ref().map(Clone::clone).map_err(|error| told(again(error))));
        }
        if let Some(last) = last {
            let _ = last.send(answer.map_err(told));
        }
    }
}

/// The same error once more.
fn again(error: &LedgerError) -> LedgerError {
    match error {
        LedgerError::Io { action, path, source } => {
            LedgerError::Io { action, path: path.clone(), source: io::Error::new(source.kind(), source.to_string()) }
        }
        LedgerError::NoStore { path } => LedgerError::NoStore { path: path.clone() },
        other => LedgerError::Io { action: "checking", path: "segments".into(), source: io::Error::other(other.to_string()) },
    }
}
