//! LedgerActor: seals, groups, writes, fsyncs, acknowledges.
//!
//! ```text
//! Append ──► stage ──► open group ──(Flush, cast to itself behind what is in the mailbox)──► write, fdatasync
//!                                      ──► durable head ──► receipts ──► the outbox, for SqliteActor (under a byte credit)
//! ```
//!
//! Groups form by themselves: every append that is in the mailbox when the flush is cast joins the group. A lone
//! append is written at once, on this thread; where many are on their way, the flusher's thread writes, one group at a time,
//! and the next is sealed meanwhile (`gather` decides). The only actor that writes to the ledger; it never writes to the mirror.

mod signing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::covering::Covering;
use super::flusher::Flusher;
use super::gather::{self, Gather, Verdict};
use super::message::{Append, Durability};
use super::parity::Doubt;
use super::sqlite::SqliteMsg;
use super::supervisor::{Context, Exit, Inner};
use super::to_mirror::ToMirror;
use super::waiting::{self, Waiting};
use crate::canary::{self, Canary};
use crate::{
    AppendError, Flight, Group, Head, LedgerError, LookupError, MirrorError, MirrorFault, MirrorReader, Seq, Stage, Staged, Writer,
    failpoint,
};

/// What LedgerActor knows of the mirror, by the supervisor.
#[derive(Debug)]
pub(crate) enum MirrorLink {
    /// It has everything up to this seq, and this actor commits to it.
    Ready { sqlite: ActorRef<SqliteMsg>, through: Seq },
    /// Its actor has gone; a replay will come.
    Gone,
    /// A replay has begun at this seq.
    Replaying { through: Seq },
    /// It disagrees with the ledger and will not come back.
    Failed { reason: String },
}

#[derive(Debug)]
pub(crate) enum LedgerMsg {
    /// Seal and group; answered once the group is durable.
    Append(Append),
    /// The same with all that is in the inbox.
    Drain,
    /// Write the open group.
    Flush,
    /// The flusher has a flight that has landed.
    Landed,
    /// Rows up to this seq are committed; so many bytes of credit come back; whether nothing more is known to lack; and the
    /// emptied buffers of the groups.
    Mirrored { through: Seq, credit: usize, caught_up: bool, buffers: Vec<Vec<u8>> },
    /// The mirror has changed.
    Mirror(MirrorLink),
    /// Answered with the position of the last event of this stream, those counted that are not durable yet; not at all where that can't
    /// be told just now.
    Position { session_id: Arc<str>, reply: oneshot::Sender<u64> },
    /// Try again to open the mirror to read.
    LookAgain,
    /// Flush, trim, answer with the head; refuse appends from then on.
    Close(RpcReplyPort<Result<Head, String>>),
}

pub(crate) struct LedgerState {
    writer: Writer,
    lookup: Option<MirrorReader>,
    /// Whether the mirror covers what the writer has forgotten.
    covered: bool,
    failed: Option<String>,
    /// Appends of the open group.
    waiting: Vec<Waiting>,
    /// How often what signs had been exchanged when that was last looked at.
    signer_changes: u64,
    /// Appends of the group in flight.
    flying: Vec<Waiting>,
    gather: Gather,
    flusher: Option<Flusher>,
    flush_cast: bool,
    look_cast: bool,
    /// Appends that were taken from the inbox.
    posted: Vec<Append>,
    /// Appends that must wait for the mirror. Bounded by their permits.
    deferred: VecDeque<Append>,
    to_mirror: ToMirror,
    closing: bool,
    /// Dropped last, behind the flusher and the writer: it holds the store's lock.
    context: Context,
}

/// How often a mirror that can't be opened to read is tried again while appends wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(crate) struct LedgerActor;

type Me = ActorRef<LedgerMsg>;

impl ThreadLocalActor for LedgerActor {
    type Msg = LedgerMsg;
    type State = LedgerState;
    type Arguments = Context;

    async fn pre_start(&self, _: Me, context: Context) -> Result<LedgerState, ActorProcessingErr> {
        LedgerState::open(context).map_err(ActorProcessingErr::from)
    }

    async fn handle(&self, me: Me, message: LedgerMsg, state: &mut LedgerState) -> Result<(), ActorProcessingErr> {
        match message {
            LedgerMsg::Append(append) => state.append(append).and_then(|()| state.see_to_group(&me)),
            LedgerMsg::Drain => state.drain(&me),
            LedgerMsg::Flush => {
                state.flush_cast = false;
                state.flush_when_due(&me)
            }
            LedgerMsg::Landed => state.landed(&me),
            LedgerMsg::Mirrored { through, credit, caught_up, buffers } => {
                buffers.into_iter().for_each(|buffer| state.writer.reuse(buffer));
                state.mirrored(&me, through, credit, caught_up)
            }
            LedgerMsg::Mirror(link) => state.mirror(&me, link),
            LedgerMsg::Position { session_id, reply } => {
                state.position(&session_id, reply);
                Ok(())
            }
            LedgerMsg::LookAgain => {
                state.look_cast = false;
                let through = *state.context.shared.mirrored.borrow();
                state.look(through);
                state.stage_deferred(&me)
            }
            // Appends whose word of it is behind this one came first.
            LedgerMsg::Close(reply) => state.take_posted(&me).and_then(|()| state.close(reply)),
        }
        .map_err(ActorProcessingErr::from)
    }

    async fn post_stop(&self, _: Me, state: &mut LedgerState) -> Result<(), ActorProcessingErr> {
        state.flush().map_err(ActorProcessingErr::from)
    }
}

impl LedgerState {
    fn open(context: Context) -> Result<LedgerState, crate::Error> {
        let options = &context.shared.options.store;
        let reader = MirrorReader::open(&context.dir, context.manifest.ledger_id, options.mirror_busy_timeout);
        let reader = reader.and_then(|reader| reader.proven_watermark(context.manifest.ledger_id).map(|_| reader));
        let mut lookup = match reader {
            Ok(reader) => Some(reader),
            // What can be read later tells what was durable, so recovery must not go on without it.
            Err(error) if error.fault() == MirrorFault::Passing => return Err(error.into()),
            Err(MirrorError::Future { path, found, known }) => return Err(MirrorError::Future { path, found, known }.into()),
            Err(_) => None,
        };
        // SqliteActor may be committing meanwhile: watermark and streams must be of one moment.
        let watermark = lookup.as_ref().map(|reader| reader.begin_snapshot(context.manifest.ledger_id)).transpose()?;
        let mut none = crate::ledger::NoMirror { total: 0 };
        let (mut writer, recovery) = match &mut lookup {
            Some(reader) => Writer::open(&context.dir, &context.manifest, watermark, reader, options)?,
            None => Writer::open(&context.dir, &context.manifest, None, &mut none, options)?,
        };
        if let Some(Err(error)) = lookup.as_ref().map(MirrorReader::end_snapshot) {
            // Something of it could not be read meanwhile. Its replay comes next, and looks into that.
            let doubt = Inner::MirrorUnreadable { doubt: Doubt::Unread, reason: error.to_string() };
            let _ = context.supervisor.cast(doubt.into());
            lookup = None;
        }
        tracing::info!(
            actor = "ledger",
            seq = writer.head().seq.get(),
            torn_bytes = recovery.torn.as_ref().map_or(0, |torn| torn.bytes),
            rewritten_bytes = recovery.rewritten_bytes,
            "recovered"
        );
        // One that sees nothing of what is committed later is good for recovery only.
        lookup = lookup.filter(|reader| !reader.is_frozen());
        let covered = lookup.is_some() && watermark.map_or(Seq::ZERO, |mark| mark.seq) >= writer.floor();
        context.shared.durable.send_replace(writer.head());
        context.shared.put_sealed_ends(writer.take_sealed_ends());
        context.shared.live.send_modify(|live| live.recovery = Some(recovery));
        let shared = context.shared.clone();
        Ok(LedgerState {
            context,
            writer,
            lookup,
            covered,
            failed: None,
            waiting: Vec::new(),
            // As none ever is, so that the first append looks.
            signer_changes: u64::MAX,
            flying: Vec::new(),
            gather: Gather::new(),
            flusher: None,
            flush_cast: false,
            look_cast: false,
            posted: Vec::new(),
            deferred: VecDeque::new(),
            to_mirror: ToMirror::new(shared),
            closing: false,
        })
    }

    fn fail(&self, point: &'static str) -> Result<(), Exit> {
        self.context.shared.options.store.at(point).map_err(|error| Exit::Poisoned { cause: error.to_string() })
    }

    fn drain(&mut self, me: &Me) -> Result<(), Exit> {
        self.take_posted(me)?;
        self.see_to_group(me)
    }

    /// Stages all that is in the inbox.
    fn take_posted(&mut self, me: &Me) -> Result<(), Exit> {
        let mut posted = std::mem::take(&mut self.posted);
        self.context.shared.inbox.take(&mut posted);
        for append in posted.drain(..) {
            self.append(append)?;
            // The disk first: it would be idle while the others are sealed.
            if self.writer.in_flight().is_some() && self.waiting.len() >= gather::half(self.on_their_way()) {
                self.take_landed(me)?;
            }
        }
        self.posted = posted;
        Ok(())
    }

    fn append(&mut self, append: Append) -> Result<(), Exit> {
        self.fail(failpoint::ACTOR_LEDGER_APPEND)?;
        if self.closing {
            append.reply.send(Err(AppendError::Closed));
            return Ok(());
        }
        if !self.deferred.is_empty()
            && append.patient
            && self.writer.unmirrored() >= self.context.shared.options.store.unmirrored_events_max
        {
            // Others have waited longer for the same.
            self.deferred.push_back(append);
            return Ok(());
        }
        let deferred = self.stage(append)?;
        self.deferred.extend(deferred);
        Ok(())
    }

    fn see_to_group(&mut self, me: &Me) -> Result<(), Exit> {
        self.see_to_look(me);
        self.see_to_flush(me)
    }

    /// Stages an append; gives it back where it has to wait for the mirror.
    fn stage(&mut self, append: Append) -> Result<Option<Append>, Exit> {
        if let Some(seq) = append.seal_through {
            self.flush()?;
            match self.writer.seal_through(seq) {
                Ok(()) => {}
                Err(LedgerError::Poisoned { cause }) => return Err(self.poisoned(cause)),
                Err(error) => {
                    append.reply.send(Err(error.into()));
                    return Ok(None);
                }
            }
        }
        let mut staged = self.try_stage(&append);
        // What was refused because of events that are being signed may be right once it is known which of them there are.
        let is_early = self.writer.is_signing() && staged.as_ref().is_err_and(AppendError::rests_on_others);
        if is_early || matches!(staged, Ok(Stage::GroupFull)) {
            self.flush()?;
            staged = self.try_stage(&append);
        }
        match staged {
            Ok(Stage::Staged(Staged { receipts, durable: false })) => {
                let waiting = Waiting::new(append, receipts, self.writer.is_signing());
                // Duplicates may be of events that are in flight already.
                match self.writer.in_flight() {
                    Some(flying) if waiting.receipts.iter().all(|receipt| receipt.seq <= flying.seq) => self.flying.push(waiting),
                    _ => self.waiting.push(waiting),
                }
            }
            Ok(Stage::Staged(Staged { receipts, durable: true })) => {
                if append.durability == Durability::Mirrored {
                    self.context.shared.outbox.hurry();
                }
                self.answer(vec![Waiting::new(append, receipts, false)]);
            }
            Ok(Stage::GroupFull) => append.reply.send(Err(AppendError::Busy)),
            Err(error @ (AppendError::Rebuilding { .. } | AppendError::MirrorTooFarBehind { .. })) => match &self.failed {
                Some(reason) => append.reply.send(Err(AppendError::Stopped { reason: reason.clone() })),
                None if append.patient => return Ok(Some(append)),
                None => append.reply.send(Err(error)),
            },
            Err(error) => append.reply.send(Err(error)),
        }
        Ok(None)
    }

    fn try_stage(&mut self, append: &Append) -> Result<Stage, AppendError> {
        self.writer.parity_is(self.parity_state());
        if self.context.shared.signer_changes.load(Ordering::Acquire) != self.signer_changes {
            self.see_to_signer();
        }
        let (done, total) = (self.context.shared.mirrored.borrow().get(), self.writer.head().seq.get());
        let mut lookup = Covering { reader: self.lookup.as_mut().filter(|_| self.covered), done, total };
        let staged = self.writer.stage(&append.drafts, &append.conditions, append.fresh, &mut lookup);
        if let Err(AppendError::Lookup(error)) = staged {
            // A replay looks into that; the append waits for it, or is told.
            tracing::warn!(actor = "ledger", %error, "looking up in the mirror");
            let doubt = if matches!(error, LookupError::Broken(_)) { Doubt::Broken } else { Doubt::Unread };
            (self.covered, self.lookup) = (false, None);
            self.to_mirror.unlink();
            let _ = self.context.supervisor.cast(Inner::MirrorUnreadable { doubt, reason: error.to_string() }.into());
            return Err(AppendError::Rebuilding { done: 0, total: self.writer.head().seq.get() });
        }
        staged
    }

    fn position(&mut self, session_id: &str, reply: oneshot::Sender<u64>) {
        let (done, total) = (self.context.shared.mirrored.borrow().get(), self.writer.head().seq.get());
        let mut lookup = Covering { reader: self.lookup.as_mut().filter(|_| self.covered), done, total };
        // Who asked reads the stream where this can't be told.
        if let Ok(position) = self.writer.session_seq(session_id, &mut lookup) {
            let _ = reply.send(position);
        }
    }

    /// Casts the flush behind what is in the mailbox, or writes at once where the group is large enough. While a group is in
    /// flight its landing sees to the next.
    fn see_to_flush(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.open_group().1 == 0 || self.writer.in_flight().is_some() {
            return Ok(());
        }
        if self.is_full() {
            return self.hand_over(me);
        }
        if !self.flush_cast {
            let linger = self.context.shared.options.linger;
            self.flush_cast = true;
            if !linger.is_zero() {
                me.send_after(linger, || LedgerMsg::Flush);
            } else if me.cast(LedgerMsg::Flush).is_err() {
                // A stopping actor refuses its own messages.
                self.flush_cast = false;
                return self.flush();
            }
        }
        Ok(())
    }

    /// Whether the open group is to be written though more could join.
    fn is_full(&self) -> bool {
        let ((bytes, events), options) = (self.writer.open_group(), &self.context.shared.options);
        bytes >= options.group_bytes_target || events >= options.store.group_events_max
    }

    /// Writes the open group, here or by the flusher; or looks again behind what comes meanwhile.
    fn flush_when_due(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.in_flight().is_some() || self.writer.open_group().1 == 0 {
            return self.stage_deferred(me);
        }
        match self.gathered(me)? {
            // What was gathered has been written, or is on its way.
            None => return self.stage_deferred(me),
            Some(Verdict::Wait(pause)) => {
                self.flush_cast = true;
                me.send_after(pause, || LedgerMsg::Flush);
                return Ok(());
            }
            Some(Verdict::Write) => self.flush()?,
            Some(Verdict::HandOver) => self.hand_over(me)?,
            Some(Verdict::Look) => {}
        }
        // A group that was dropped leaves room, and no word of the mirror's will come for it.
        self.stage_deferred(me)?;
        self.await_callers(me)
    }

    /// Gathers appends for the open group, for as long as that is short; answers what to do with it then.
    fn gathered(&mut self, me: &Me) -> Result<Option<Verdict>, Exit> {
        let shared = self.context.shared.clone();
        let mut watch = None;
        loop {
            let verdict = self.gather.verdict(self.waiting.len(), self.on_their_way(), Instant::now());
            if verdict != Verdict::Look {
                return Ok(Some(verdict));
            }
            let watch = watch.get_or_insert_with(|| shared.inbox.watch());
            // The callers that are waited for may need this very core.
            std::thread::yield_now();
            if watch.posted() {
                self.take_posted(me)?;
                if self.writer.in_flight().is_some() || self.writer.open_group().1 == 0 {
                    return Ok(None);
                }
                if self.is_full() {
                    self.gather.written(self.waiting.len());
                    return Ok(Some(Verdict::HandOver));
                }
            }
        }
    }

    /// Callers that were answered are likely to come back at once: looks out for them a moment, before this thread sleeps,
    /// since to wake it takes longer. Only while they do come back.
    fn await_callers(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.in_flight().is_some() || self.writer.open_group().1 > 0 || !self.deferred.is_empty() {
            return Ok(());
        }
        let Some(until) = self.gather.look_out_until(Instant::now()) else { return Ok(()) };
        let shared = self.context.shared.clone();
        let watch = shared.inbox.watch();
        while !watch.posted() {
            if Instant::now() >= until {
                self.gather.came_back(false);
                return Ok(());
            }
            std::thread::yield_now();
        }
        self.gather.came_back(true);
        self.take_posted(me)?;
        self.see_to_group(me)
    }

    /// Appends that have a permit, but for those that wait for the mirror.
    fn on_their_way(&self) -> usize {
        self.context.shared.permits.appends().saturating_sub(self.deferred.len())
    }

    /// Writes all that is staged, on this thread, and waits for what is in flight.
    fn flush(&mut self) -> Result<(), Exit> {
        self.wait_for_flight()?;
        match self.depart()? {
            Some(flight) => self.fly_here(flight),
            None => Ok(()),
        }
    }

    /// Lets the flusher write the open group.
    fn hand_over(&mut self, me: &Me) -> Result<(), Exit> {
        let Some(flight) = self.depart()? else { return Ok(()) };
        if self.flusher.is_none() {
            match Flusher::start(me.clone()) {
                Ok(flusher) => self.flusher = Some(flusher),
                Err(error) => tracing::warn!(actor = "ledger", %error, "no thread to write on; writing on the actor's own"),
            }
        }
        let back = match &self.flusher {
            Some(flusher) => flusher.fly(flight).err(),
            None => Some(flight),
        };
        match back {
            None => Ok(()),
            Some(flight) => self.fly_here(flight),
        }
    }

    fn fly_here(&mut self, mut flight: Flight) -> Result<(), Exit> {
        flight.fly();
        self.land(flight)
    }

    /// Closes the open group, and with it the list of those who wait for it.
    fn depart(&mut self) -> Result<Option<Flight>, Exit> {
        self.sign()?;
        if canary::on(Canary::AcknowledgeFirst) {
            let waiting = std::mem::take(&mut self.waiting);
            self.answer(waiting);
        }
        match self.writer.depart() {
            Ok(None) => Ok(None),
            Ok(Some(flight)) => {
                self.flying.append(&mut self.waiting);
                Ok(Some(flight))
            }
            Err(LedgerError::Poisoned { cause }) => Err(self.poisoned(cause)),
            Err(error) => {
                tracing::warn!(actor = "ledger", %error, "the group was not written");
                for waiting in std::mem::take(&mut self.waiting) {
                    waiting.reply.send(Err(AppendError::Ledger(waiting::again(&error))));
                }
                Ok(None)
            }
        }
    }

    /// Takes what the flusher has written, and sees to the next group.
    fn landed(&mut self, me: &Me) -> Result<(), Exit> {
        self.take_landed(me)?;
        // As after a flush; this sees to the next group too.
        self.stage_deferred(me)
    }

    fn take_landed(&mut self, me: &Me) -> Result<(), Exit> {
        // Where someone has waited for it, it is not there any more.
        let landed = self.flusher.as_mut().filter(|_| self.writer.in_flight().is_some()).and_then(Flusher::landed);
        if let Some(flight) = landed {
            // Those who are about to be answered count: they come back.
            let known = self.on_their_way();
            let overlaps = gather::overlaps(known) && self.waiting.len() >= gather::half(known);
            let (group, waiting) = self.settle(flight)?;
            // The disk first; it would be idle while everyone is told.
            // But not where what is to be signed may take a while, or be cut, and another group be written first.
            let is_ready = overlaps && !self.writer.is_signing();
            let departed = if is_ready { self.hand_over(me) } else { Ok(()) };
            self.tell(group, waiting)?;
            departed?;
            if overlaps && !is_ready {
                self.hand_over(me)?;
            }
        }
        Ok(())
    }

    fn wait_for_flight(&mut self) -> Result<(), Exit> {
        if self.writer.in_flight().is_none() {
            return Ok(());
        }
        match self.flusher.as_mut().and_then(Flusher::wait) {
            Some(flight) => self.land(flight),
            None => Err(self.poisoned("the thread that writes has ended".to_owned())),
        }
    }

    fn land(&mut self, flight: Flight) -> Result<(), Exit> {
        let (group, waiting) = self.settle(flight)?;
        self.tell(group, waiting)
    }

    /// Takes it that a group is durable; answers who waits for it.
    fn settle(&mut self, flight: Flight) -> Result<(Group, Vec<Waiting>), Exit> {
        self.gather.took(flight.took());
        match self.writer.land(flight) {
            Ok(group) => Ok((group, std::mem::take(&mut self.flying))),
            Err(LedgerError::Poisoned { cause }) => Err(self.poisoned(cause)),
            Err(error) => Err(self.poisoned(error.to_string())),
        }
    }

    /// Tells everyone of a group that is durable.
    fn tell(&mut self, group: Group, waiting: Vec<Waiting>) -> Result<(), Exit> {
        self.fail(failpoint::ACTOR_LEDGER_SYNCED)?;
        self.context.shared.groups.fetch_add(1, Ordering::Relaxed);
        self.context.shared.events.fetch_add(group.last.seq.get() + 1 - group.first.get(), Ordering::Relaxed);
        self.context.shared.durable.send_replace(group.last);
        let awaited = waiting.iter().any(|waiting| waiting.durability == Durability::Mirrored) || !self.deferred.is_empty();
        self.answer(waiting);
        self.fail(failpoint::ACTOR_LEDGER_SEND)?;
        self.to_mirror.push(group, awaited);
        Ok(())
    }

    fn poisoned(&mut self, cause: String) -> Exit {
        // Dropping the waiting tells each that its outcome is unknown.
        self.flying.clear();
        self.waiting.clear();
        self.deferred.drain(..).for_each(|append| {
            append.reply.send(Err(AppendError::Ledger(LedgerError::Poisoned { cause: cause.clone() })));
        });
        Exit::Poisoned { cause }
    }

    fn answer(&self, waiting: Vec<Waiting>) {
        waiting::answer(&self.context.shared, &self.context.supervisor, waiting);
    }

    fn mirrored(&mut self, me: &Me, through: Seq, credit: usize, caught_up: bool) -> Result<(), Exit> {
        if !self.to_mirror.is_linked() {
            // A new SqliteActor can be quicker than the word of it: until then the reader here may be of a file that
            // is gone, which knows nothing of what would be forgotten.
            return Ok(());
        }
        self.covered &= self.is_covered(through);
        self.look(through);
        self.writer.mirrored_through(through);
        if self.to_mirror.given_back(credit, caught_up) && through < self.writer.head().seq {
            self.to_mirror.tell_behind();
        }
        self.stage_deferred(me)
    }

    fn mirror(&mut self, me: &Me, link: MirrorLink) -> Result<(), Exit> {
        match link {
            MirrorLink::Gone => self.to_mirror.unlink(),
            MirrorLink::Replaying { through } => {
                self.to_mirror.unlink();
                self.covered &= through >= self.writer.floor();
            }
            MirrorLink::Failed { reason } => {
                self.to_mirror.unlink();
                self.failed = Some(reason);
            }
            MirrorLink::Ready { sqlite, through } => {
                self.lookup = None;
                let is_missing = self.open_lookup();
                self.writer.mirrored_through(through);
                // Its actor may have committed more than it has told yet.
                self.covered = self.is_covered(self.writer.floor());
                if is_missing {
                    // The supervisor is told; another one comes.
                    return self.stage_deferred(me);
                }
                self.to_mirror.link(sqlite);
                // Where it is not of use yet, the answer to this is when to try again.
                if through < self.writer.head().seq || !self.covered {
                    self.to_mirror.tell_behind();
                }
            }
        }
        self.stage_deferred(me)
    }

    /// Sees to a reader, where the mirror covers what the writer has forgotten.
    fn look(&mut self, through: Seq) {
        if self.to_mirror.is_linked() && !self.covered && through >= self.writer.floor() {
            // It may be open, and of a file that is gone.
            self.lookup = None;
            self.open_lookup();
            self.covered = self.is_covered(through);
        }
    }

    /// Whether the file that is open here has all rows up to this one. What its actor has told may be of another file, which is gone.
    fn is_covered(&self, through: Seq) -> bool {
        self.lookup.as_ref().is_some_and(|reader| reader.has_through(through))
    }

    /// Opens a reader where there is none; answers whether the file is missing, of which the supervisor is told then.
    fn open_lookup(&mut self) -> bool {
        if self.lookup.is_none() {
            let (dir, timeout) = (&self.context.dir, self.context.shared.options.store.mirror_busy_timeout);
            match MirrorReader::open(dir, self.context.manifest.ledger_id, timeout) {
                Ok(reader) if !reader.is_frozen() => self.lookup = Some(reader),
                Ok(_) => tracing::warn!(actor = "ledger", "the mirror can be read only as if nobody wrote to it"),
                Err(error @ MirrorError::Missing { .. }) => {
                    // SqliteActor may have nothing to write, and so never see that what it has open is no longer there.
                    self.to_mirror.unlink();
                    let doubt = Inner::MirrorUnreadable { doubt: Doubt::Unchecked, reason: error.to_string() };
                    let _ = self.context.supervisor.cast(doubt.into());
                    return true;
                }
                Err(error) => tracing::warn!(actor = "ledger", %error, "the mirror can't be read just now"),
            }
        }
        false
    }

    /// Tries those again that wait for the mirror, in their order, until one has to wait on.
    fn stage_deferred(&mut self, me: &Me) -> Result<(), Exit> {
        for _ in 0..self.deferred.len() {
            let Some(append) = self.deferred.pop_front() else { break };
            if let Some(append) = self.stage(append)? {
                self.deferred.push_front(append);
                break;
            }
        }
        self.see_to_look(me);
        self.see_to_flush(me)
    }

    /// Where appends wait for the mirror its rows are not to wait. Where it could not be opened to read, SqliteActor may have
    /// nothing more to say, so nobody else would remind this actor to try again.
    fn see_to_look(&mut self, me: &Me) {
        if !self.deferred.is_empty() {
            self.context.shared.outbox.hurry();
        }
        if self.lookup.is_none() && self.to_mirror.is_linked() && !self.deferred.is_empty() && !self.look_cast {
            self.look_cast = true;
            me.send_after(LOOK_AGAIN, || LedgerMsg::LookAgain);
        }
    }

    fn close(&mut self, reply: RpcReplyPort<Result<Head, String>>) -> Result<(), Exit> {
        self.closing = true;
        self.deferred.drain(..).for_each(|append| append.reply.send(Err(AppendError::Closed)));
        self.flush()?;
        let trimmed = self.writer.trim().map_err(|error| error.to_string());
        let _ = reply.send(trimmed.map(|()| self.writer.head()));
        Ok(())
    }
}
