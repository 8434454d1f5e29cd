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
//!
//! - here: what it is told, and staging · `groups` are written, and acknowledged · `link` to the mirror, where ids and positions are
//!   looked up · `signing`

mod groups;
mod link;
mod signing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::thread_local::ThreadLocalActor;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::covering::Covering;
use super::flusher::Flusher;
use super::gather::{self, Gather};
use super::message::{Append, Durability};
use super::parity::Doubt;
use super::sqlite::SqliteMsg;
use super::supervisor::{Context, Exit, Inner};
use super::to_mirror::ToMirror;
use super::waiting::Waiting;
use crate::{AppendError, Head, LedgerError, LookupError, MirrorError, MirrorFault, MirrorReader, Seq, Stage, Staged, Writer, failpoint};

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

    fn close(&mut self, reply: RpcReplyPort<Result<Head, String>>) -> Result<(), Exit> {
        self.closing = true;
        self.deferred.drain(..).for_each(|append| append.reply.send(Err(AppendError::Closed)));
        self.flush()?;
        let trimmed = self.writer.trim().map_err(|error| error.to_string());
        let _ = reply.send(trimmed.map(|()| self.writer.head()));
        Ok(())
    }
}
