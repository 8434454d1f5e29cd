//! SupervisorActor: holds the lock, spawns and restarts the children, publishes who takes appends, and is the
//! stable address of a store. It never does I/O and never awaits a child inside a handler: a task does, and casts
//! the answer back.
//!
//! ```text
//! start   LedgerActor (recovers) ──► ParityActor (replays) ──► SqliteActor ──► appends are let in
//! a panic of LedgerActor   wait for its thread, back off, respawn; SqliteActor stays
//! a panic of SqliteActor   wait for its thread, back off, replay, respawn; appends go on meanwhile
//! an Err of LedgerActor    poisoned: nothing is respawned, the parent is told
//! ```

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ractor::thread_local::ThreadLocalActor;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, MessagingErr, RpcReplyPort, SupervisionEvent};
use tokio::sync::oneshot;

use super::checkpoint::{CheckpointMsg, Signer};
use super::checks::{Check, Checks};
use super::children::{Child, StartError, close_children, no_thread, spawn, spawner};
use super::compress::{CompressActor, CompressMsg};
use super::handle::{Children, CloseReport};
use super::ledger::{LedgerActor, LedgerMsg, MirrorLink};
use super::message::{Append, Message};
use super::parity::{Doubt, ParityActor, ParityMsg, ParityTask};
use super::shared::{MirrorHealth, Phase, Shared};
use super::side::Side;
use super::sqlite::{SqliteActor, SqliteMsg};
use crate::checkpoint::Signed;
use crate::mirror::Checked;
use crate::{
    AppendError, Erased, Error, LedgerError, Manifest, MirrorFault, ParityKind, Reformed, ReplayError, ReplayReport, Sealed, Seq, StoreLock,
};

/// Why a child ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Exit {
    #[error("poisoned by an I/O error: {cause}")]
    Poisoned { cause: String },
    #[error("{reason}")]
    MirrorBroken { reason: String },
    #[error("{reason}")]
    MirrorDisagrees { reason: String },
}

/// What the supervisor handles. Callers can make the first only, through [`Append::into_message`].
#[derive(Debug)]
pub(crate) enum Inner {
    /// Route an append to the LedgerActor that takes them now.
    Append(Append),
    /// A child was spawned, or not.
    LedgerSpawned(Result<Child<LedgerMsg>, StartError>),
    SqliteSpawned(Result<Child<SqliteMsg>, StartError>),
    ParitySpawned(Result<Child<ParityMsg>, StartError>),
    /// A child has ended, and its thread has let go of everything.
    Gone(Role, Option<Exit>, String),
    /// Back-off is over.
    Respawn(Role),
    /// ParityActor has opened the mirror, which is at this seq.
    Replaying {
        through: Seq,
    },
    /// ParityActor has replayed.
    Replayed(Result<ReplayReport, ReplayError>),
    /// LedgerActor can't read the mirror.
    MirrorUnreadable {
        doubt: Doubt,
        reason: String,
    },
    /// Someone waits for the mirror's acknowledgement.
    WatchDeadlines,
    /// A deadline is over.
    DeadlineOver,
    /// Compare both legs, or verify the ledger.
    Check(Check),
    /// What a check found right, to be kept in the mirror.
    Checked(Vec<Checked>),
    /// The timer's checks.
    Interval,
    /// Compress these segments.
    Compress(Sealed, RpcReplyPort<Result<Vec<Reformed>, Error>>),
    /// See that sealed segments are compressed, and checkpoints signed, as the options say.
    SeeToSides,
    /// Sign a checkpoint now.
    Checkpoint(RpcReplyPort<Result<Signed, Error>>),
    /// Carry out the erasures that are recorded.
    Erase(RpcReplyPort<Erased>),
    /// Which actors there are.
    Children(RpcReplyPort<Children>),
    /// Flush, catch up, release the lock, end.
    Close(Option<RpcReplyPort<CloseReport>>),
    /// The children have closed.
    ChildrenClosed(CloseReport),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ledger,
    Sqlite,
    Parity,
}

/// What every child is given.
#[derive(Clone)]
pub(crate) struct Context {
    pub dir: PathBuf,
    pub manifest: Manifest,
    pub shared: Arc<Shared>,
    pub supervisor: ActorRef<Message>,
    /// The store's lock, held for as long as an actor that writes lives.
    _lock: Option<Arc<StoreLock>>,
}

pub(crate) struct SupervisorArgs {
    pub dir: PathBuf,
    pub manifest: Manifest,
    pub shared: Arc<Shared>,
    pub lock: StoreLock,
    /// What is held against the mirror's file from the start.
    pub doubt: Doubt,
    /// Answered once appends are let in, or with why not.
    pub ready: oneshot::Sender<Result<(), Error>>,
}

pub(crate) struct SupervisorState {
    shared: Arc<Shared>,
    /// Gone once the lock is released.
    context: Option<Context>,
    ready: Option<oneshot::Sender<Result<(), Error>>>,
    ledger: Option<Child<LedgerMsg>>,
    sqlite: Option<Child<SqliteMsg>>,
    /// The ParityActor that replays. Those that check are in `checks`.
    parity: Option<Child<ParityMsg>>,
    compressor: Side<CompressActor>,
    signer: Signer,
    replayed: Option<Result<ReplayReport, ReplayError>>,
    /// Checks that wait or are under way.
    checks: Checks,
    /// The first replay was begun: from then on the mirror's side goes on by itself.
    replay_begun: bool,
    /// What is held against the mirror's file, and no replay has looked into yet.
    doubt: Doubt,
    /// Children that have ended, by id: an end can come before the word that they have started.
    exits: HashMap<ActorId, (Option<Exit>, String)>,
    /// Appends that came while no LedgerActor was there. Bounded by their permits.
    pending: VecDeque<Append>,
    restarts: VecDeque<Instant>,
    /// Closing, and who waits for it.
    closing: Option<Vec<RpcReplyPort<CloseReport>>>,
    /// The children have been asked to close.
    closing_children: bool,
}

#[derive(Default)]
pub(crate) struct SupervisorActor;

type Me = ActorRef<Message>;

impl Actor for SupervisorActor {
    type Msg = Message;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(&self, me: Me, args: SupervisorArgs) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArgs { dir, manifest, shared, lock, doubt, ready } = args;
        let context = Context { dir, manifest, shared: shared.clone(), supervisor: me, _lock: Some(Arc::new(lock)) };
        Ok(SupervisorState {
            shared,
            context: Some(context),
            ready: Some(ready),
            ledger: None,
            sqlite: None,
            parity: None,
            compressor: Side::default(),
            signer: Signer::default(),
            replayed: None,
            checks: Checks::default(),
            replay_begun: false,
            doubt,
            exits: HashMap::new(),
            pending: VecDeque::new(),
            restarts: VecDeque::new(),
            closing: None,
            closing_children: false,
        })
    }

    async fn post_start(&self, me: Me, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        state.spawn_ledger(&me);
        let interval = state.shared.options.parity_interval;
        if !interval.is_zero() {
            me.send_interval(interval, || Inner::Interval.into());
        }
        Ok(())
    }

    async fn handle(&self, me: Me, Message(message): Message, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        match message {
            Inner::Append(append) => state.append(append),
            Inner::LedgerSpawned(child) => state.ledger_spawned(&me, child),
            Inner::SqliteSpawned(child) => state.sqlite_spawned(&me, child),
            Inner::ParitySpawned(child) => state.parity_spawned(&me, child),
            Inner::Gone(role, exit, reason) => state.gone(&me, role, exit, reason),
            Inner::Respawn(role) => state.respawn(&me, role),
            Inner::Replaying { through } => state.tell_ledger(MirrorLink::Replaying { through }),
            Inner::Replayed(result) => state.replayed = Some(result),
            Inner::MirrorUnreadable { doubt, reason } => state.mirror_unreadable(doubt, &reason),
            Inner::WatchDeadlines | Inner::DeadlineOver => state.watch_deadlines(&me),
            Inner::Check(check) => state.check(&me, check),
            Inner::Checked(checked) => {
                if let Some(sqlite) = &state.sqlite {
                    let _ = sqlite.actor.cast(SqliteMsg::Checked(checked));
                }
            }
            Inner::Interval => [Check::unasked(ParityKind::Quick), Check::unasked(ParityKind::Incremental)]
                .into_iter()
                .for_each(|check| state.check(&me, check)),
            Inner::Compress(which, reply) => state.compress(&me, CompressMsg::Run(which, reply)),
            Inner::SeeToSides => state.see_to_sides(&me),
            Inner::Checkpoint(reply) => state.checkpoint(&me, CheckpointMsg::Run(reply)),
            Inner::Erase(reply) => {
                // Where there is none, the reply is dropped, which tells its caller that it is left to do.
                if let Some(sqlite) = &state.sqlite {
                    let _ = sqlite.actor.cast(SqliteMsg::Erase(reply));
                }
            }
            Inner::Children(reply) => state.children(reply),
            Inner::Close(reply) => state.close(&me, reply),
            Inner::ChildrenClosed(report) => state.children_closed(&me, report),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(&self, me: Me, event: SupervisionEvent, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(who, _) | SupervisionEvent::ActorTerminated(who, _, _) = &event
            && state.checks.ended(who.get_id())
        {
            if !state.checks.is_deep_running() {
                // One that ended before its end has left its progress.
                state.shared.set_check(None);
            }
            state.start_checks(&me);
            return Ok(());
        }
        // The event is dropped here, and the child's join handle awaited, before anything is respawned.
        if let SupervisionEvent::ActorFailed(who, _) | SupervisionEvent::ActorTerminated(who, ..) = &event
            && let Some(after) = state.side_ended(who.get_id())
        {
            me.send_after(after, || Inner::SeeToSides.into());
            return Ok(());
        }
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                let exit = error.downcast_ref::<Exit>().cloned();
                state.exits.insert(who.get_id(), (exit, error.to_string()));
            }
            SupervisionEvent::ActorTerminated(who, _, reason) => {
                state.exits.insert(who.get_id(), (None, reason.unwrap_or_else(|| "stopped".to_owned())));
            }
            _ => {}
        }
        state.check_exits(&me);
        Ok(())
    }

    async fn post_stop(&self, _: Me, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        // A parent is given the state, and may keep it.
        state.tell_all();
        Ok(())
    }
}

impl Drop for SupervisorState {
    /// A kill (as when its parent ends) and a panic come by here alone.
    fn drop(&mut self) {
        self.tell_all();
    }
}

impl SupervisorState {
    /// However it ends: whoever waits for it is told.
    fn tell_all(&self) {
        if matches!(self.shared.phase(), Phase::Starting | Phase::Running | Phase::Closing) {
            self.shared.set_phase(Phase::Stopped { reason: "its supervisor was stopped from outside".to_owned() });
        }
        self.shared.refuse_posted();
        self.shared.checks_cancelled.store(true, Ordering::Relaxed);
        self.shared.permits.close();
        self.shared.waiters.give_up();
        self.shared.readers.close();
    }

    // ---- appends -------------------------------------------------------------------------------------------

    fn append(&mut self, append: Append) {
        if let Some(refusal) = self.shared.refusal() {
            return append.reply.send(Err(refusal));
        }
        let undelivered = match self.shared.inbox.owner() {
            Some(ledger) => match ledger.cast(LedgerMsg::Append(append)) {
                // It is on its way out, and the word of that is on its way here.
                Err(MessagingErr::SendErr(LedgerMsg::Append(append))) => append,
                _ => return,
            },
            None => append,
        };
        if undelivered.patient {
            self.pending.push_back(undelivered);
        } else {
            undelivered.reply.send(Err(AppendError::Busy));
        }
    }

    fn let_in(&mut self, me: &Me) {
        let Some(ledger) = &self.ledger else { return };
        if self.closing.is_none() {
            self.shared.set_phase(Phase::Running);
            self.shared.inbox.publish(Some(ledger.actor.clone()));
        }
        for append in self.pending.drain(..) {
            let _ = ledger.actor.cast(LedgerMsg::Append(append));
        }
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(Ok(()));
            if self.shared.options.verify_after_open {
                self.check(me, Check::Verify(Vec::new()));
            }
        }
        self.see_to_sides(me);
    }

    fn tell_ledger(&self, link: MirrorLink) {
        if let Some(ledger) = &self.ledger {
            let _ = ledger.actor.cast(LedgerMsg::Mirror(link));
        }
    }

    /// Joins both actors, once both are there.
    fn connect(&mut self) {
        let (Some(ledger), Some(sqlite)) = (&self.ledger, &self.sqlite) else { return };
        let through = *self.shared.mirrored.borrow();
        let _ = sqlite.actor.cast(SqliteMsg::Serve(ledger.actor.clone()));
        let _ = ledger.actor.cast(LedgerMsg::Mirror(MirrorLink::Ready { sqlite: sqlite.actor.clone(), through }));
    }

    // ---- spawning ------------------------------------------------------------------------------------------

    fn spawn_ledger(&self, me: &Me) {
        if let Some(context) = self.context.clone() {
            spawn::<LedgerActor>(me, context, Inner::LedgerSpawned);
        }
    }

    fn spawn_sqlite(&self, me: &Me) {
        if let Some(context) = self.context.clone() {
            // After a replay that went well there is nothing that an open would find.
            spawn::<SqliteActor>(me, (context, self.doubt), Inner::SqliteSpawned);
        }
    }

    fn spawn_replay(&mut self, me: &Me) {
        (self.replayed, self.replay_begun) = (None, true);
        if let Some(context) = self.context.clone() {
            let task = ParityTask::Replay(self.doubt);
            spawn::<ParityActor>(me, (context, task), Inner::ParitySpawned);
        }
    }

    fn ledger_spawned(&mut self, me: &Me, child: Result<Child<LedgerMsg>, StartError>) {
        match child {
            Ok(child) => {
                self.ledger = Some(child);
                if !self.replay_begun {
                    self.spawn_replay(me);
                } else if self.ready.is_none() || self.sqlite.is_some() || self.mirror_has_failed() {
                    self.connect();
                    self.let_in(me);
                }
                self.check_exits(me);
                self.close_when_possible(me);
            }
            // A mirror that can't be read just now passes; what recovery refuses it refuses again.
            Err(StartError::Store(Error::Mirror(error))) if self.ready.is_none() && error.fault() == MirrorFault::Passing => {
                self.restart(me, Role::Ledger, error.to_string());
            }
            Err(StartError::Store(error)) => self.give_up(me, error),
            Err(StartError::Other(reason)) => self.restart(me, Role::Ledger, reason),
        }
    }

    fn sqlite_spawned(&mut self, me: &Me, child: Result<Child<SqliteMsg>, StartError>) {
        match child {
            Ok(child) => {
                self.sqlite = Some(child);
                self.connect();
                if self.ready.is_some() {
                    self.let_in(me);
                }
                self.check_exits(me);
                self.close_when_possible(me);
            }
            Err(StartError::Store(error)) => self.restart(me, Role::Sqlite, error.to_string()),
            Err(StartError::Other(reason)) => self.restart(me, Role::Sqlite, reason),
        }
    }

    fn parity_spawned(&mut self, me: &Me, child: Result<Child<ParityMsg>, StartError>) {
        match child {
            Ok(child) => {
                self.parity = Some(child);
                self.check_exits(me);
            }
            Err(StartError::Store(error)) => self.restart(me, Role::Parity, error.to_string()),
            Err(StartError::Other(reason)) => self.restart(me, Role::Parity, reason),
        }
    }

    // ---- ends ----------------------------------------------------------------------------------------------

    /// Awaits, in a task, the thread of each child that has ended.
    fn check_exits(&mut self, me: &Me) {
        fn ended<M: Send + 'static>(me: &Me, exits: &mut HashMap<ActorId, (Option<Exit>, String)>, child: &mut Option<Child<M>>, role: Role)
        where
            ActorRef<M>: Clone,
        {
            let Some((exit, reason)) = child.as_ref().and_then(|child| exits.remove(&child.actor.get_id())) else { return };
            let join = child.take().and_then(|child| child.join);
            let me = me.clone();
            ractor::concurrency::spawn(async move {
                if let Some(join) = join {
                    let _ = join.await;
                }
                let _ = me.cast(Inner::Gone(role, exit, reason).into());
            });
        }
        let was = self.ledger.is_some();
        ended(me, &mut self.exits, &mut self.ledger, Role::Ledger);
        if was && self.ledger.is_none() {
            self.shared.inbox.publish(None);
            // What it has not taken waits for its successor.
            self.shared.inbox.take_all().into_iter().for_each(|append| self.append(append));
        }
        ended(me, &mut self.exits, &mut self.sqlite, Role::Sqlite);
        ended(me, &mut self.exits, &mut self.parity, Role::Parity);
        // Ends of children that never were.
        if self.ledger.is_some() && (self.sqlite.is_some() || self.mirror_has_failed()) && self.parity.is_none() {
            self.exits.clear();
        }
    }

    fn gone(&mut self, me: &Me, role: Role, exit: Option<Exit>, reason: String) {
        if self.closing_children {
            return;
        }
        match (role, exit) {
            (Role::Ledger, Some(exit)) => self.poisoned(me, exit),
            (Role::Ledger, None) => self.restart(me, Role::Ledger, reason),
            (Role::Sqlite, Some(Exit::MirrorDisagrees { reason })) => self.mirror_failed(me, reason),
            (Role::Sqlite, exit) => {
                let doubt = if let Some(Exit::MirrorBroken { .. }) = exit { Doubt::Broken } else { Doubt::Unchecked };
                self.doubt = self.doubt.max(doubt);
                // What was left for it is not its successor's: that reads the file.
                self.shared.outbox.publish(None);
                self.tell_ledger(MirrorLink::Gone);
                self.restart(me, Role::Parity, reason);
            }
            (Role::Parity, _) => self.replay_ended(me, reason),
        }
        self.close_when_possible(me);
    }

    fn replay_ended(&mut self, me: &Me, reason: String) {
        match self.replayed.take() {
            Some(Ok(_)) => {
                self.doubt = Doubt::None;
                self.spawn_sqlite(me);
            }
            // It can't be written just now. Its actor tries again; appends go on meanwhile.
            Some(Err(error)) if error.passes() && (self.ready.is_none() || matches!(error, ReplayError::Mirror(_))) => {
                self.shared.set_mirror(MirrorHealth::Blocked { reason: error.to_string() });
                self.spawn_sqlite(me);
            }
            Some(Err(error)) if self.ready.is_some() => self.give_up(me, error.into()),
            Some(Err(error)) => self.mirror_failed(me, error.to_string()),
            None => self.restart(me, Role::Parity, reason),
        }
    }

    fn restart(&mut self, me: &Me, role: Role, reason: String) {
        let options = &self.shared.options;
        let now = Instant::now();
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > options.restart_window) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= options.restarts_max {
            let reason = format!("{} restarts within {:?}, the last one since: {reason}", self.restarts.len(), options.restart_window);
            return self.give_up(me, AppendError::Stopped { reason }.into());
        }
        let backoff = Duration::from_millis(1 << self.restarts.len().min(16)).min(options.restart_backoff_max);
        self.restarts.push_back(now);
        self.shared.live.send_modify(|live| live.restarts += 1);
        tracing::warn!(actor = "supervisor", ?role, %reason, ?backoff, "restarting");
        me.send_after(backoff, move || Inner::Respawn(role).into());
    }

    fn respawn(&mut self, me: &Me, role: Role) {
        if self.closing_children || self.shared.refusal().is_some_and(|refusal| !matches!(refusal, AppendError::Closed)) {
            return;
        }
        match role {
            Role::Ledger => self.spawn_ledger(me),
            Role::Sqlite => self.spawn_sqlite(me),
            Role::Parity => self.spawn_replay(me),
        }
    }

    fn poisoned(&mut self, me: &Me, exit: Exit) {
        let cause = match &exit {
            Exit::Poisoned { cause } => cause.clone(),
            other => other.to_string(),
        };
        self.end(me, Phase::Poisoned { cause: cause.clone() }, Some(LedgerError::Poisoned { cause }.into()));
    }

    fn give_up(&mut self, me: &Me, error: Error) {
        self.end(me, Phase::Stopped { reason: error.to_string() }, Some(error));
    }

    /// Nothing is respawned any more; from now on every append is told why.
    fn end(&mut self, me: &Me, phase: Phase, error: Option<Error>) {
        tracing::error!(actor = "supervisor", ?phase, "stopped for good");
        self.shared.set_phase(phase);
        self.shared.refuse_posted();
        for append in self.pending.drain(..) {
            append.reply.send(Err(self.shared.refusal().unwrap_or(AppendError::Closed)));
        }
        let reason = error.as_ref().map_or_else(String::new, ToString::to_string);
        // It may live, and hold appends that wait for a mirror that will not come.
        self.tell_ledger(MirrorLink::Failed { reason: reason.clone() });
        if let (Some(ready), Some(error)) = (self.ready.take(), error) {
            let _ = ready.send(Err(error));
            return self.close(me, None);
        }
        // Upward, while this actor lives on to answer.
        me.get_cell().notify_supervisor(SupervisionEvent::ActorFailed(me.get_cell(), reason.into()));
        self.close_when_possible(me);
    }

    fn mirror_failed(&mut self, me: &Me, reason: String) {
        tracing::error!(actor = "supervisor", %reason, "the mirror disagrees with the ledger; appends go on without it");
        self.shared.set_mirror(MirrorHealth::Failed { reason: reason.clone() });
        self.shared.waiters.give_up();
        self.tell_ledger(MirrorLink::Failed { reason });
        if self.ready.is_some() {
            self.let_in(me);
        }
        self.close_when_possible(me);
    }

    fn mirror_unreadable(&mut self, doubt: Doubt, reason: &str) {
        tracing::warn!(actor = "supervisor", %reason, ?doubt, "the mirror can't be read; replaying it");
        self.doubt = self.doubt.max(doubt);
        // Its end sets off the replay, which sets the file aside where it is broken.
        match &self.sqlite {
            Some(sqlite) => sqlite.actor.get_cell().kill(),
            None => self.tell_ledger(MirrorLink::Gone),
        }
    }

    // ---- the rest ------------------------------------------------------------------------------------------

    /// Answers those whose deadline is over, and comes back for the next. There is one timer at a time.
    fn watch_deadlines(&self, me: &Me) {
        if let Some(next) = self.shared.waiters.expire(Instant::now()) {
            me.send_after(next.saturating_duration_since(Instant::now()), || Inner::DeadlineOver.into());
        }
    }

    fn check(&mut self, me: &Me, check: Check) {
        if self.closing.is_none() && self.ready.is_none() {
            self.checks.ask(check);
            self.start_checks(me);
        }
    }

    fn start_checks(&mut self, me: &Me) {
        let Some(context) = self.context.clone().filter(|_| self.closing.is_none()) else {
            return self.checks.forget();
        };
        self.checks.start(|check| {
            // It only reads, so it must not keep the lock from a close.
            let spawner = match spawner() {
                Ok(spawner) => spawner,
                Err(error) => {
                    tracing::warn!(actor = "supervisor", %error, "no thread could be started for a check");
                    check.refuse(&|| no_thread(&context.dir, &error));
                    return None;
                }
            };
            let args = (Context { _lock: None, ..context.clone() }, ParityTask::Check(check));
            let spawned = ParityActor::spawn_linked_instant(None, args, me.get_cell(), spawner);
            spawned.ok().map(|(actor, _)| actor.get_id())
        });
    }

    fn see_to_sides(&mut self, me: &Me) {
        if self.shared.options.compress_sealed.is_some() && !self.compressor.is_there() {
            self.compress(me, CompressMsg::Look);
        }
        if self.shared.options.checkpoint.is_some() && !self.signer.is_there() {
            self.checkpoint(me, CheckpointMsg::Look);
        }
    }

    /// Whether this was a child that works beside the others: when to see to it again.
    fn side_ended(&mut self, id: ActorId) -> Option<Duration> {
        let first = self.shared.options.restart_backoff_max;
        if self.compressor.ended(id) {
            tracing::warn!(actor = "supervisor", "CompressActor has ended");
            return Some(self.compressor.back_off(first));
        }
        if self.signer.ended(id) {
            tracing::warn!(actor = "supervisor", "CheckpointActor has ended");
            let after = self.signer.back_off(first);
            let failed = format!("the actor that signs checkpoints has ended by itself; it is started again in {} ms", after.as_millis());
            self.shared.set_checkpoint(|status| status.failed = Some(failed));
            return Some(after);
        }
        None
    }

    /// Whether children that work beside the others are given work.
    fn sides_may_work(&self) -> bool {
        self.closing.is_none() && self.ready.is_none() && self.shared.refusal().is_none()
    }

    fn compress(&mut self, me: &Me, message: CompressMsg) {
        let refusal = self.shared.refusal().unwrap_or(AppendError::Closed).into();
        let (message, error) = match &self.context {
            Some(context) if self.sides_may_work() => match self.compressor.cast(me, context, message) {
                Ok(()) => return,
                Err((message, error)) => {
                    me.send_after(self.compressor.back_off(self.shared.options.restart_backoff_max), || Inner::SeeToSides.into());
                    (message, no_thread(&context.dir, &error))
                }
            },
            _ => (message, refusal),
        };
        if let CompressMsg::Run(_, reply) = message {
            let _ = reply.send(Err(error));
        }
    }

    fn checkpoint(&mut self, me: &Me, message: CheckpointMsg) {
        let refusal = self.shared.refusal().unwrap_or(AppendError::Closed).into();
        let (message, error) = match &self.context {
            Some(context) if self.sides_may_work() => match self.signer.cast(me, context, message) {
                Ok(()) => return,
                Err((message, error)) => {
                    me.send_after(self.signer.back_off(self.shared.options.restart_backoff_max), || Inner::SeeToSides.into());
                    (message, no_thread(&context.dir, &error))
                }
            },
            _ => (message, refusal),
        };
        if let CheckpointMsg::Run(reply) = message {
            let _ = reply.send(Err(error));
        }
    }

    fn children(&self, reply: RpcReplyPort<Children>) {
        let _ = reply.send(Children {
            ledger: self.ledger.as_ref().map(|child| child.actor.get_cell()),
            sqlite: self.sqlite.as_ref().map(|child| child.actor.get_cell()),
            parity: self.parity.as_ref().map(|child| child.actor.get_cell()),
        });
    }

    // ---- closing -------------------------------------------------------------------------------------------

    fn close(&mut self, me: &Me, reply: Option<RpcReplyPort<CloseReport>>) {
        self.closing.get_or_insert_default().extend(reply);
        self.shared.checks_cancelled.store(true, Ordering::Relaxed);
        if self.shared.refusal().is_none() {
            self.shared.set_phase(Phase::Closing);
        }
        for append in self.pending.drain(..) {
            append.reply.send(Err(AppendError::Closed));
        }
        self.close_when_possible(me);
    }

    /// Closes the children once none of them is on its way up or down, or at once where no more are to come.
    fn close_when_possible(&mut self, me: &Me) {
        let ended = matches!(self.shared.phase(), Phase::Poisoned { .. } | Phase::Stopped { .. });
        let settled = self.ledger.is_some() && (self.sqlite.is_some() || self.mirror_has_failed()) && self.parity.is_none();
        if self.closing.is_none() || self.closing_children || !(settled || ended) {
            return;
        }
        self.closing_children = true;
        let (ledger, sqlite, parity) = (self.ledger.take(), self.sqlite.take(), self.parity.take());
        let (me, shared, compressor) = (me.clone(), self.shared.clone(), std::mem::take(&mut self.compressor));
        let signer = std::mem::take(&mut self.signer);
        ractor::concurrency::spawn(async move {
            // First: SQLite removes the WAL with the last connection, and that is to be the writer's.
            shared.readers.close();
            let (report, ()) = tokio::join!(close_children(ledger, sqlite, parity, &shared), compressor.end());
            // The ledger's last group is durable now.
            signer.close().await;
            let _ = me.cast(Inner::ChildrenClosed(report).into());
        });
    }

    fn mirror_has_failed(&self) -> bool {
        matches!(self.shared.live.borrow().mirror, MirrorHealth::Failed { .. })
    }

    fn children_closed(&mut self, me: &Me, report: CloseReport) {
        self.shared.inbox.publish(None);
        if self.shared.phase() == Phase::Closing {
            self.shared.set_phase(match &report.ledger_error {
                None => Phase::Closed,
                Some(reason) => Phase::Stopped { reason: reason.clone() },
            });
        }
        self.shared.refuse_posted();
        self.context = None;
        for reply in self.closing.take().into_iter().flatten() {
            let _ = reply.send(report.clone());
        }
        me.stop(None);
    }
}
