//! SqliteActor: commits rows and moves the watermark.
//!
//! ```text
//! outbox ──(Apply, at once, or Due, a moment after the first was left)──► queue ──► BEGIN, rows, watermark, COMMIT
//!                         ──► answers who waits ──► Mirrored to LedgerActor (credit and buffers back)
//! Behind ──► Step, cast to itself: replays from the ledger's file up to the durable head, a bounded step a message
//! ```
//!
//! Groups that came while a transaction was under way are committed in one: the more it lags, the less an event costs.
//! Where a commit fails for a reason that passes, the group is dropped and read from the file later: the ledger has
//! it. The only actor that writes to the mirror while it lives; it never writes to the ledger.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::ledger::LedgerMsg;
use super::parity::Doubt;
use super::shared::MirrorHealth;
use super::supervisor::{Context, Exit};
use crate::erase::finish;
use crate::failpoint;
use crate::mirror::{Checked, FileId};
use crate::{Erased, Group, LedgerReader, Mirror, MirrorError, MirrorFault, Replay, ReplayError, ReplayStep, Seq};

#[derive(Debug)]
pub(crate) enum SqliteMsg {
    /// The LedgerActor that commits here from now on.
    Serve(ActorRef<LedgerMsg>),
    /// Groups are in the outbox, and their rows may wait for a moment.
    Left,
    /// The moment is over.
    Due,
    /// Commit what is in the outbox.
    Apply,
    /// The ledger has more than was sent: read it from the file.
    Behind,
    /// One step of reading.
    Step,
    /// Keep what a check found right.
    Checked(Vec<Checked>),
    /// Look again at a WAL that could not be emptied.
    Wal,
    /// Carry out the erasures that are recorded; answer what was done.
    Erase(RpcReplyPort<Erased>),
    /// Catch up, empty the WAL, answer with the watermark.
    Close(RpcReplyPort<Result<Seq, String>>),
}

pub(crate) struct SqliteState {
    reader: LedgerReader,
    mirror: Option<Mirror>,
    /// What is held against the mirror's file, and is to be looked into when it is opened.
    doubt: Doubt,
    replay: Option<Replay>,
    ledger: Option<ActorRef<LedgerMsg>>,
    /// Groups that are to be committed. Bounded by LedgerActor's credit.
    queue: VecDeque<Group>,
    /// An Apply is cast.
    applying: bool,
    /// A Due is timed.
    waiting: bool,
    /// A step is cast or timed.
    stepping: bool,
    backoff: Duration,
    /// A mirror that was closed, to be opened again: how far it was, and which file.
    left: Option<(Seq, FileId)>,
    /// A look at the WAL is timed.
    watching_wal: bool,
    /// Dropped last, behind the mirror: it holds the store's lock.
    context: Context,
}

/// Events and bytes of groups that are committed in one transaction (one group may have more): some 20 ms of work, so that
/// those who wait for the first of them don't wait for long, and a group's worth, past which an event gets little cheaper.
const TRANSACTION_EVENTS_MAX: u64 = 4096;
const TRANSACTION_BYTES_MAX: usize = 4 << 20;

/// So many times as much while nobody waits for rows. Four: ids in random order change a page each, so that the more of them go
/// into a transaction, the fewer pages are written.
const UNAWAITED_FACTOR: u8 = 4;

/// How often a WAL that could not be emptied is looked at while nothing is committed.
const WAL_LOOK: Duration = Duration::from_secs(1);

/// Waits between tries of a mirror that can't be written: from the first to the last, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct SqliteActor;

type Me = ActorRef<SqliteMsg>;

impl ThreadLocalActor for SqliteActor {
    type Msg = SqliteMsg;
    type State = SqliteState;
    type Arguments = (Context, Doubt);

    async fn pre_start(&self, _: Me, (context, doubt): (Context, Doubt)) -> Result<SqliteState, ActorProcessingErr> {
        let reader = LedgerReader::open(&context.dir, &context.shared.options.store)?;
        Ok(SqliteState {
            context,
            reader,
            mirror: None,
            doubt,
            replay: None,
            ledger: None,
            queue: VecDeque::new(),
            applying: false,
            waiting: false,
            stepping: false,
            backoff: BACKOFF_MIN,
            left: None,
            watching_wal: false,
        })
    }

    async fn post_start(&self, me: Me, state: &mut SqliteState) -> Result<(), ActorProcessingErr> {
        state.see_to_step(&me);
        Ok(())
    }

    async fn handle(&self, me: Me, message: SqliteMsg, state: &mut SqliteState) -> Result<(), ActorProcessingErr> {
        match message {
            SqliteMsg::Serve(ledger) => {
                state.ledger = Some(ledger);
                state.see_to_step(&me);
                Ok(())
            }
            SqliteMsg::Left => {
                if !state.waiting {
                    state.waiting = true;
                    me.send_after(state.context.shared.options.mirror_delay, || SqliteMsg::Due);
                }
                Ok(())
            }
            SqliteMsg::Due => {
                state.waiting = false;
                state.apply(&me)
            }
            SqliteMsg::Apply => {
                state.applying = false;
                state.apply(&me)
            }
            SqliteMsg::Behind => {
                state.see_to_step(&me);
                Ok(())
            }
            SqliteMsg::Step => {
                state.stepping = false;
                // What is at hand need not be read from the file.
                state.apply(&me).and_then(|()| state.step(&me))
            }
            SqliteMsg::Checked(checked) => {
                if let Some(mirror) = &mut state.mirror
                    && let Err(error) = mirror.keep_checked(&checked)
                {
                    tracing::debug!(actor = "sqlite", %error, "what was checked is not kept; it will be read again");
                }
                Ok(())
            }
            SqliteMsg::Wal => {
                state.watching_wal = false;
                if let Some(mirror) = &mut state.mirror {
                    mirror.see_to_wal();
                }
                state.watch_wal(&me);
                Ok(())
            }
            SqliteMsg::Erase(reply) => state.erase(&me, reply),
            SqliteMsg::Close(reply) => state.close(&me, reply),
        }
        .map_err(ActorProcessingErr::from)
    }
}

impl SqliteState {
    fn watermark(&self) -> Seq {
        self.mirror.as_ref().map_or(self.left.map_or(Seq::ZERO, |(seq, _)| seq), |mirror| mirror.watermark().seq)
    }

    fn durable(&self) -> Seq {
        self.context.shared.durable.borrow().seq
    }

    fn at(&self, point: &'static str) -> Result<(), MirrorError> {
        let path = crate::mirror_path(&self.context.dir);
        self.context.shared.options.store.at(point).map_err(|source| MirrorError::Io { action: "writing to", path, source })
    }

    fn see_to_step(&mut self, me: &Me) {
        if !self.stepping {
            // Refused only where this actor is stopping; its successor catches up.
            self.stepping = me.cast(SqliteMsg::Step).is_ok();
        }
    }

    /// Casts the next transaction behind what is in the mailbox.
    fn see_to_apply(&mut self, me: &Me) -> Result<(), Exit> {
        if self.queue.is_empty() || self.applying {
            return Ok(());
        }
        self.applying = me.cast(SqliteMsg::Apply).is_ok();
        // A stopping actor refuses its own messages.
        if self.applying { Ok(()) } else { self.apply(me) }
    }

    /// The first groups of the queue that follow each other, as many as one transaction takes.
    fn next_groups(&mut self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let shared = &self.context.shared;
        let unawaited = shared.waiters.is_empty() && shared.mirrored.receiver_count() == 0;
        let factor = if unawaited { UNAWAITED_FACTOR } else { 1 };
        let (events_max, bytes_max) = (TRANSACTION_EVENTS_MAX * u64::from(factor), TRANSACTION_BYTES_MAX * usize::from(factor));
        let (mut events, mut bytes) = (0, 0);
        while let Some(group) = self.queue.front() {
            events += group.last.seq.get() + 1 - group.first.get();
            bytes += group.bytes.len();
            let follows = groups.last().is_none_or(|last| last.last.seq.next() == group.first);
            if !groups.is_empty() && (!follows || events > events_max || bytes > bytes_max) {
                break;
            }
            groups.extend(self.queue.pop_front());
        }
        groups
    }

    /// One transaction of what is queued, and what is in the outbox.
    fn apply(&mut self, me: &Me) -> Result<(), Exit> {
        self.queue.extend(self.context.shared.outbox.take());
        let groups = self.next_groups();
        let Some(last) = groups.last().map(|group| group.last.seq) else { return Ok(()) };
        let applied = self.at(failpoint::ACTOR_SQLITE_COMMIT).and_then(|()| self.try_apply(&groups));
        match applied {
            Ok(true) => {
                self.backoff = BACKOFF_MIN;
                tracing::trace!(actor = "sqlite", seq = last.get(), groups = groups.len(), "rows are committed");
                self.context.shared.mirrored_through(last);
                let told = self.at(failpoint::ACTOR_SQLITE_ANSWERED);
                self.report(groups, last == self.durable());
                self.watch_wal(me);
                told.or_else(|error| self.failed(me, &error))?;
            }
            Ok(false) => {
                self.report(groups, false);
                if self.watermark() < last {
                    self.see_to_step(me);
                }
            }
            Err(error) => {
                self.report(groups, false);
                self.failed(me, &error)?;
            }
        }
        self.see_to_apply(me)
    }

    /// Whether they were committed, rather than left to a replay: those that do not follow what is committed, and those
    /// that came while one is under way.
    fn try_apply(&mut self, groups: &[Group]) -> Result<bool, MirrorError> {
        let watermark = self.watermark();
        let known = groups.iter().take_while(|group| group.last.seq <= watermark).count();
        let groups = groups.get(known..).unwrap_or_default();
        let in_order = self.replay.is_none() && groups.first().is_some_and(|group| group.first == watermark.next());
        let Some(mirror) = self.mirror.as_mut().filter(|_| in_order) else {
            return Ok(false);
        };
        mirror.check_in_place()?;
        let mut applied = mirror.apply_all(groups);
        if groups.len() > 1 && applied.as_ref().is_err_and(|error| error.fault() == MirrorFault::Disagrees) {
            // Those before the one that is refused are committed, and answered.
            applied = groups.iter().try_fold(mirror.watermark(), |_, group| mirror.apply(group));
            self.context.shared.mirrored_through(mirror.watermark().seq);
        }
        applied?;
        self.at(failpoint::ACTOR_SQLITE_COMMITTED).map(|()| true)
    }

    /// Tells LedgerActor how far the rows are, and gives it back what the groups took: credit and buffers.
    fn report(&self, groups: Vec<Group>, caught_up: bool) {
        if let Some(ledger) = &self.ledger {
            let credit = groups.iter().map(|group| group.bytes.len()).sum();
            let buffers = groups
                .into_iter()
                .map(|mut group| {
                    group.bytes.clear();
                    group.bytes
                })
                .collect();
            let _ = ledger.cast(LedgerMsg::Mirrored { through: self.watermark(), credit, caught_up, buffers });
        }
    }

    /// Tells of a WAL that can't be emptied, and comes back to it: what holds it may let go when nothing is committed.
    fn watch_wal(&mut self, me: &Me) {
        let held = self.mirror.as_ref().and_then(Mirror::wal_held).cloned();
        if held.is_some() && !self.watching_wal {
            self.watching_wal = true;
            me.send_after(WAL_LOOK, || SqliteMsg::Wal);
        }
        self.context.shared.set_wal_held(held);
    }

    fn step(&mut self, me: &Me) -> Result<(), Exit> {
        let stepped = self.try_step();
        self.watch_wal(me);
        match stepped {
            Ok(ReplayStep::More) => {
                self.context.shared.mirrored_through(self.watermark());
                self.context.shared.set_mirror(MirrorHealth::CatchingUp);
                self.report(Vec::new(), false);
                self.see_to_step(me);
                Ok(())
            }
            Ok(ReplayStep::Done) => {
                (self.replay, self.backoff) = (None, BACKOFF_MIN);
                self.context.shared.mirrored_through(self.watermark());
                self.context.shared.set_mirror(MirrorHealth::Live);
                self.report(Vec::new(), true);
                Ok(())
            }
            Err(ReplayError::Mirror(error)) => self.failed(me, &error),
            Err(error) if error.passes() => {
                self.replay = None;
                self.blocked(me, error.to_string());
                Ok(())
            }
            Err(ReplayError::Ledger(error)) => Err(Exit::MirrorDisagrees { reason: error.to_string() }),
        }
    }

    fn try_step(&mut self) -> Result<ReplayStep, ReplayError> {
        let durable = self.durable();
        let mirror = match &mut self.mirror {
            Some(mirror) => mirror,
            none => {
                let Context { dir, manifest, shared, .. } = &self.context;
                let mirror = Mirror::open_again(dir, manifest, &shared.options.store, self.doubt == Doubt::None, self.left.is_none())?;
                if self.left.is_some_and(|(seq, file)| file != mirror.file_id() || mirror.watermark().seq < seq) {
                    // LedgerActor looks up in the one that was there.
                    return Err(MirrorError::Gone { path: mirror.path().to_owned() }.into());
                }
                if self.doubt >= Doubt::Unread {
                    // The replay that was to do it could not.
                    mirror.check_indexes()?;
                }
                self.doubt = Doubt::None;
                // It may be a new one; they have the old one open.
                shared.readers.forget();
                none.insert(mirror)
            }
        };
        mirror.check_in_place()?;
        let replay = match &mut self.replay {
            Some(replay) => replay,
            none => none.insert(Replay::from_watermark(&self.reader, mirror, durable)?),
        };
        replay.extend(durable);
        replay.step(mirror)
    }

    fn failed(&mut self, me: &Me, error: &MirrorError) -> Result<(), Exit> {
        // What the replay has read is ahead of what was committed.
        self.replay = None;
        match error.fault() {
            MirrorFault::Passing => {
                self.close_mirror_unless_busy(error);
                self.blocked(me, error.to_string());
                Ok(())
            }
            MirrorFault::Broken => Err(Exit::MirrorBroken { reason: error.to_string() }),
            MirrorFault::Disagrees => Err(Exit::MirrorDisagrees { reason: error.to_string() }),
        }
    }

    /// A connection to a file that could not be written stays read-only, say, when that has passed: a new one is opened.
    fn close_mirror_unless_busy(&mut self, error: &MirrorError) {
        if !error.is_busy() {
            if let Some(mirror) = self.mirror.take() {
                self.left = Some((mirror.watermark().seq, mirror.file_id()));
            }
            self.doubt = self.doubt.max(Doubt::Unchecked);
        }
    }

    fn blocked(&mut self, me: &Me, reason: String) {
        tracing::warn!(actor = "sqlite", seq = self.watermark().get(), %reason, "the mirror can't be written just now");
        self.context.shared.set_mirror(MirrorHealth::Blocked { reason });
        if !self.stepping {
            self.stepping = true;
            me.send_after(self.backoff, || SqliteMsg::Step);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Segments are written anew on this thread too: rows wait meanwhile, and appends do not.
    fn erase(&mut self, me: &Me, reply: RpcReplyPort<Erased>) -> Result<(), Exit> {
        self.apply(me)?;
        // It may have opened a segment that is about to be replaced, and would read on in the old file.
        self.replay = None;
        let durable = self.durable();
        let shared = self.context.shared.clone();
        let reached = self.at(failpoint::ACTOR_SQLITE_ERASE);
        let erasing = shared.erasing();
        let reshaping = shared.reshaping();
        let erased = match &mut self.mirror {
            _ if reached.is_err() => Erased::left("it was stopped"),
            Some(mirror) if mirror.check_in_place().is_ok() => finish(&self.reader, mirror, durable, &shared.options.store),
            _ => Erased::left("the mirror can't be written just now; erase again once it is, or open the store again"),
        };
        // The file that they have open may have been replaced, and hold what is erased here.
        shared.readers.forget();
        erasing.ended(&erased);
        drop(reshaping);
        self.watch_wal(me);
        let _ = reply.send(erased);
        self.see_to_step(me);
        Ok(())
    }

    fn close(&mut self, me: &Me, reply: RpcReplyPort<Result<Seq, String>>) -> Result<(), Exit> {
        loop {
            self.apply(me)?;
            if self.queue.is_empty() {
                break;
            }
        }
        let deadline = Instant::now() + self.context.shared.options.close_deadline;
        let mut backoff = BACKOFF_MIN;
        let caught_up = loop {
            match self.try_step() {
                Ok(ReplayStep::Done) => break Ok(self.watermark()),
                Ok(ReplayStep::More) => {}
                Err(error) if error.passes() && Instant::now() < deadline => {
                    self.replay = None;
                    if let ReplayError::Mirror(error) = &error {
                        self.close_mirror_unless_busy(error);
                    }
                    // This thread is this actor's own, and nothing else is left for it to do.
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(error) => break Err(error.to_string()),
            }
        };
        self.replay = None;
        self.context.shared.mirrored_through(self.watermark());
        if let Some(mirror) = &self.mirror
            && let Err(error) = mirror.checkpoint()
        {
            tracing::debug!(actor = "sqlite", %error, "the WAL stays");
        }
        let _ = reply.send(caught_up);
        Ok(())
    }
}
