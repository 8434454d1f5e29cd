//! What the actors and the handle share outside messages: small, named, and each behind one lock or channel.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;

use super::LedgerOptions;
use super::answers::{Answers, all_on};
use super::checkpoint::CheckpointStatus;
use super::entity::Claims;
use super::inbox::Inbox;
use super::message::Reply;
use super::outbox::Outbox;
use super::permits::Permits;
use super::readers::Readers;
use crate::attest::Signer;
use crate::{
    AppendError, Erased, Head, LedgerId, MirrorAck, ParityReport, Receipt, RecoveryReport, SealedEnds, Seq, VerifyReport, WalHeld,
};

/// Where a store's actors are in their life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Opening: recovering the ledger, replaying into the mirror.
    Starting,
    /// Appends are taken.
    Running,
    /// `close` was called.
    Closing,
    /// All is written and the lock is released.
    Closed,
    /// An I/O error has made what is on disk unknowable; only a fresh open helps.
    Poisoned {
        /// The error.
        cause: String,
    },
    /// The supervisor gave up.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// How the mirror is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mirror", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MirrorHealth {
    /// It takes each group as it comes.
    Live,
    /// It reads from the ledger what it lacks.
    CatchingUp,
    /// It can't be written just now, and is tried again: locked, read-only, on a full disk.
    Blocked {
        /// What SQLite says.
        reason: String,
    },
    /// It is being replayed before its actor starts.
    Rebuilding {
        /// Events that it has.
        done: u64,
        /// Events that it is to have.
        total: u64,
    },
    /// It disagrees with the ledger; a person has to decide.
    Failed {
        /// What was found, and what to do.
        reason: String,
    },
}

/// A store at a glance.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The ledger's identity.
    pub ledger_id: LedgerId,
    /// Where the actors are in their life.
    #[serde(flatten)]
    pub phase: Phase,
    /// The last event that an fsync covers.
    pub durable: Head,
    /// The last event whose row is committed.
    pub mirrored_through: Seq,
    /// How the mirror is.
    #[serde(flatten)]
    pub mirror: MirrorHealth,
    /// The mirror's WAL has grown past its bound and can't be emptied: how long it is, and why.
    pub mirror_wal_held: Option<WalHeld>,
    /// Events on their way to the ledger's acknowledgement.
    pub in_flight: usize,
    /// Groups that were written since the store was opened.
    pub groups: u64,
    /// Events that were written since the store was opened.
    pub events: u64,
    /// Restarts of actors since the store was opened.
    pub restarts: u64,
    /// What the last comparison of both legs found.
    pub last_parity: Option<ParityReport>,
    /// What the last comparison by content found, of what it looked at: the timer's look at what is new only. What was found
    /// wrong stands until a comparison that leaves nothing out finds all equal.
    pub last_content_parity: Option<ParityReport>,
    /// What the last verification found.
    #[serde(serialize_with = "as_report")]
    pub last_verify: Option<Arc<VerifyReport>>,
    /// Checks that could not be done to their end when they were tried last, and why.
    pub failed_checks: BTreeMap<&'static str, String>,
    /// The check that is under way, if one is that reads more than the watermark.
    pub check: Option<CheckProgress>,
    /// What recovery did with the ledger when it was opened, or when LedgerActor last came back.
    pub recovery: Option<RecoveryReport>,
    /// Where the mirror that was of no use is now, if one was set aside since (or when) the store was opened.
    pub mirror_set_aside: Option<PathBuf>,
    /// How checkpoints are, once they were looked at; nothing where none are asked for.
    pub checkpoint: Option<CheckpointStatus>,
}

fn as_report<S: serde::Serializer>(report: &Option<Arc<VerifyReport>>, to: S) -> Result<S::Ok, S::Error> {
    report.as_deref().serialize(to)
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckProgress {
    /// `verify`, whose work is counted in bytes, or `parity`, in events.
    pub check: &'static str,
    /// What is done.
    pub done: u64,
    /// What there is to do, as far as was known when it began.
    pub total: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub phase: Phase,
    pub mirror: MirrorHealth,
    pub mirror_wal_held: Option<WalHeld>,
    pub restarts: u64,
    pub last_parity: Option<ParityReport>,
    pub last_content_parity: Option<ParityReport>,
    pub last_verify: Option<Arc<VerifyReport>>,
    pub failed_checks: BTreeMap<&'static str, String>,
    pub recovery: Option<RecoveryReport>,
    pub mirror_set_aside: Option<PathBuf>,
}

/// Shared by the handle, the supervisor and its children.
pub(crate) struct Shared {
    pub ledger_id: LedgerId,
    pub options: LedgerOptions,
    /// What signs what brings no signer of its own, and how often that was exchanged.
    pub signer: Mutex<Option<Signer>>,
    pub signer_changes: AtomicU64,
    pub permits: Permits,
    /// The durable head: moved by LedgerActor after fsync, read by whoever reads the ledger's file.
    pub durable: watch::Sender<Head>,
    /// The mirror's watermark: moved by SqliteActor and ParityActor after COMMIT.
    pub mirrored: watch::Sender<Seq>,
    pub live: watch::Sender<Live>,
    /// Appends on their way to the LedgerActor that takes them right now.
    pub inbox: Inbox,
    /// Groups on their way to the SqliteActor that takes them right now.
    pub outbox: Outbox,
    pub waiters: MirrorWaiters,
    pub answers: Answers,
    /// What is kept open for the handle's reads.
    pub readers: Readers,
    pub groups: AtomicU64,
    pub events: AtomicU64,
    /// The check that is under way.
    pub check: Mutex<Option<CheckProgress>>,
    /// Checks end as soon as they look.
    pub checks_cancelled: Arc<AtomicBool>,
    /// The sealed segment that the timer's comparison has read last.
    pub parity_behind: AtomicU64,
    /// Which streams have a live entity.
    pub claims: Arc<Claims>,
    checkpoint: Mutex<Option<CheckpointStatus>>,
    /// What LedgerActor has read of sealed segments, until ParityActor keeps it in the mirror.
    sealed_ends: Mutex<Vec<SealedEnds>>,
    /// How often payloads were erased, or were about to be: what was folded from events before is to be folded anew.
    erasures: AtomicU64,
    /// Erasures that are carried out just now.
    erasing: AtomicU64,
    /// One is recorded, and not known to be carried out as a whole.
    erasure_is_unfinished: AtomicBool,
    /// Held by whoever gives sealed segments other files: one that compresses what another erases from would bring it back.
    reshaping: Mutex<()>,
    /// Held by whoever is the next one, so that one who does it again and again lets others in between.
    reshaping_next: Mutex<()>,
}

/// Erasures, as whoever folds events has to know of them: a state that was folded while they were others may have what is erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Erasures {
    /// How often payloads were erased, or to be erased.
    pub counted: u64,
    /// None is being carried out, or waits to be: until then a snapshot may have what lines have no more.
    pub is_settled: bool,
}

/// An erasure that is carried out. Where it does not say how it ended, something was done, and something is left.
pub(crate) struct Erasing<'s> {
    shared: &'s Shared,
    outdates_states: bool,
    is_unfinished: bool,
}

impl Erasing<'_> {
    /// It was carried out so far.
    pub(crate) fn ended(mut self, erased: &Erased) {
        self.outdates_states = erased.outdates_states || !erased.is_nothing();
        self.is_unfinished = erased.unfinished.is_some();
    }
}

impl Drop for Erasing<'_> {
    fn drop(&mut self) {
        if self.outdates_states {
            self.shared.erasures.fetch_add(1, Ordering::SeqCst);
        }
        self.shared.erasure_is_unfinished.store(self.is_unfinished, Ordering::SeqCst);
        self.shared.erasing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    /// What signs from now on; appends that are sent after this are signed so.
    pub(crate) fn sign_with(&self, signer: Option<Signer>) {
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = signer;
        self.signer_changes.fetch_add(1, Ordering::Release);
    }

    /// What signs now, and how often that was exchanged.
    pub(crate) fn signer(&self) -> (Option<Signer>, u64) {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        (signer.clone(), self.signer_changes.load(Ordering::Acquire))
    }

    pub(crate) fn new(ledger_id: LedgerId, head: Head, options: LedgerOptions) -> Shared {
        let live = Live {
            phase: Phase::Starting,
            mirror: MirrorHealth::CatchingUp,
            mirror_wal_held: None,
            restarts: 0,
            last_parity: None,
            last_content_parity: None,
            last_verify: None,
            failed_checks: BTreeMap::new(),
            recovery: None,
            mirror_set_aside: None,
        };
        Shared {
            ledger_id,
            permits: Permits::new(&options),
            durable: watch::Sender::new(head),
            mirrored: watch::Sender::new(Seq::ZERO),
            live: watch::Sender::new(live),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            waiters: MirrorWaiters::new(options.mirrored_waiters_max),
            answers: Answers::here(),
            readers: Readers::default(),
            groups: AtomicU64::new(0),
            events: AtomicU64::new(0),
            check: Mutex::new(None),
            checks_cancelled: Arc::default(),
            parity_behind: AtomicU64::new(0),
            claims: Arc::default(),
            checkpoint: Mutex::default(),
            sealed_ends: Mutex::default(),
            erasures: AtomicU64::new(0),
            erasing: AtomicU64::new(0),
            erasure_is_unfinished: AtomicBool::new(false),
            reshaping: Mutex::default(),
            signer: Mutex::new(options.store.attestor.clone()),
            signer_changes: AtomicU64::new(0),
            reshaping_next: Mutex::default(),
            options,
        }
    }

    /// Tells appends that nobody will take why that is.
    pub(crate) fn refuse_posted(&self) {
        self.inbox.publish(None);
        for append in self.inbox.take_all() {
            append.reply.send(Err(self.refusal().unwrap_or(AppendError::Closed)));
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.live.borrow().phase.clone()
    }

    pub(crate) fn set_check(&self, check: Option<CheckProgress>) {
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = check;
    }

    pub(crate) fn checkpoint_status(&self) -> Option<CheckpointStatus> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Events up to this one were there before the actor that signs checkpoints was, in this process or an earlier one.
    pub(crate) fn checkpoints_wait_from(&self) -> u64 {
        match self.checkpoint_status() {
            Some(_) => self.durable.borrow().seq.get(),
            None => self.live.borrow().recovery.as_ref().map_or(0, |recovery| recovery.head.seq.get()),
        }
    }

    pub(crate) fn set_checkpoint(&self, change: impl FnOnce(&mut CheckpointStatus)) {
        change(self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }

    /// Takes note that payloads are to be erased: recorded, and not carried out yet.
    pub(crate) fn count_erasure(&self) {
        self.erasure_is_unfinished.store(true, Ordering::SeqCst);
        self.erasures.fetch_add(1, Ordering::SeqCst);
    }

    /// Held while an erasure is carried out, until it is counted: who sees that none is, sees that one was. Two are carried out one
    /// after the other, and this is let go of before the next one begins: the last one says whether anything is left.
    pub(crate) fn erasing(&self) -> Erasing<'_> {
        self.erasing.fetch_add(1, Ordering::SeqCst);
        Erasing { shared: self, outdates_states: true, is_unfinished: true }
    }

    /// How often payloads were erased, and whether they are just now.
    pub(crate) fn erasures(&self) -> Erasures {
        // In this order: one that has ended before the first look is counted at the last one.
        let is_settled = self.erasing.load(Ordering::SeqCst) == 0 && !self.erasure_is_unfinished.load(Ordering::SeqCst);
        Erasures { counted: self.erasures.load(Ordering::SeqCst), is_settled }
    }

    pub(crate) fn put_sealed_ends(&self, ends: Vec<SealedEnds>) {
        *self.sealed_ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Waits until nobody else gives sealed segments other files, and keeps others from it.
    pub(crate) fn reshaping(&self) -> MutexGuard<'_, ()> {
        let _next = self.reshaping_next.lock().unwrap_or_else(PoisonError::into_inner);
        self.reshaping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_sealed_ends(&self) -> Vec<SealedEnds> {
        std::mem::take(&mut self.sealed_ends.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.live.send_if_modified(|live| {
            let changed = live.phase != phase;
            live.phase = phase;
            changed
        });
    }

    pub(crate) fn set_mirror(&self, mirror: MirrorHealth) {
        self.live.send_if_modified(|live| {
            let changed = live.mirror != mirror;
            live.mirror = mirror;
            changed
        });
    }

    pub(crate) fn set_wal_held(&self, held: Option<WalHeld>) {
        self.live.send_if_modified(|live| {
            let changed = live.mirror_wal_held != held;
            live.mirror_wal_held = held;
            changed
        });
    }

    /// Takes note that rows up to this seq are committed, and answers who waits for them.
    pub(crate) fn mirrored_through(&self, seq: Seq) {
        self.mirrored.send_if_modified(|mirrored| {
            let changed = *mirrored != seq;
            *mirrored = seq;
            changed
        });
        self.waiters.answer_through(seq, &self.answers);
    }

    pub(crate) fn status(&self) -> Status {
        let live = self.live.borrow().clone();
        // In this order, since the ledger is ahead: both move meanwhile.
        let mirrored_through = *self.mirrored.borrow();
        Status {
            ledger_id: self.ledger_id,
            phase: live.phase,
            durable: *self.durable.borrow(),
            mirrored_through,
            mirror: live.mirror,
            mirror_wal_held: live.mirror_wal_held,
            in_flight: self.permits.in_flight(),
            groups: self.groups.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            restarts: live.restarts,
            last_parity: live.last_parity,
            last_content_parity: live.last_content_parity,
            last_verify: live.last_verify,
            failed_checks: live.failed_checks,
            check: *self.check.lock().unwrap_or_else(PoisonError::into_inner),
            recovery: live.recovery,
            mirror_set_aside: live.mirror_set_aside,
            checkpoint: self.checkpoint_status(),
        }
    }

    /// Why no append can be taken in this phase.
    pub(crate) fn refusal(&self) -> Option<AppendError> {
        match self.phase() {
            Phase::Starting | Phase::Running => None,
            Phase::Closing | Phase::Closed => Some(AppendError::Closed),
            Phase::Poisoned { cause } => Some(AppendError::Ledger(crate::LedgerError::Poisoned { cause })),
            Phase::Stopped { reason } => Some(AppendError::Stopped { reason }),
        }
    }
}

/// Appends that are durable in the ledger and wait for their row. They outlive any actor.
pub(crate) struct MirrorWaiters {
    waiting: Mutex<Waiting>,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    by_seq: BTreeMap<(Seq, u64), Waiter>,
    number: u64,
    /// Someone sees to the deadlines.
    watched: bool,
    /// Nobody will answer any more: the mirror will not get there, or the supervisor has ended.
    given_up: bool,
}

struct Waiter {
    deadline: Instant,
    receipts: Vec<Receipt>,
    reply: Reply,
}

impl Waiter {
    fn answer(mut self, ack: MirrorAck) {
        for receipt in &mut self.receipts {
            receipt.mirror = ack;
        }
        self.reply.send(Ok(self.receipts));
    }
}

impl MirrorWaiters {
    fn new(max: usize) -> MirrorWaiters {
        MirrorWaiters { waiting: Mutex::default(), max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets appends wait until the mirror has this seq; where too many wait already, they get `MirrorBehind` at once.
    /// Answers whether someone must be told to see to the deadlines: one timer does for all.
    pub(crate) fn push(&self, appends: Vec<(Seq, Vec<Receipt>, Reply)>, deadline: Instant) -> bool {
        let mut too_many = Vec::new();
        let unwatched = {
            let mut waiting = self.lock();
            for (seq, receipts, reply) in appends {
                let waiter = Waiter { deadline, receipts, reply };
                if waiting.given_up || waiting.by_seq.len() >= self.max {
                    too_many.push(waiter);
                    continue;
                }
                waiting.number += 1;
                let key = (seq, waiting.number);
                waiting.by_seq.insert(key, waiter);
            }
            !waiting.by_seq.is_empty() && !std::mem::replace(&mut waiting.watched, true)
        };
        too_many.into_iter().for_each(|waiter| waiter.answer(MirrorAck::MirrorBehind));
        unwatched
    }

    /// Answers those who wait for this seq or one before it.
    pub(crate) fn answer_through(&self, seq: Seq, answers: &Answers) {
        let answered = {
            let mut waiting = self.lock();
            if waiting.by_seq.is_empty() {
                return;
            }
            let later = waiting.by_seq.split_off(&(seq.next(), 0));
            std::mem::replace(&mut waiting.by_seq, later)
        };
        let callers = all_on(answered.values().map(|waiter| &waiter.reply));
        answers.give(answered.len(), callers, || answered.into_values().for_each(|waiter| waiter.answer(MirrorAck::Mirrored)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().by_seq.is_empty()
    }

    /// Answers those whose deadline is over; says when the next one is.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut expired = Vec::new();
        let next = {
            let mut waiting = self.lock();
            let over: Vec<_> = waiting.by_seq.iter().filter(|(_, waiter)| waiter.deadline <= now).map(|(key, _)| *key).collect();
            expired.extend(over.into_iter().filter_map(|key| waiting.by_seq.remove(&key)));
            let next = waiting.by_seq.values().map(|waiter| waiter.deadline).min();
            waiting.watched = next.is_some();
            next
        };
        expired.into_iter().for_each(|waiter| waiter.answer(MirrorAck::MirrorBehind));
        next
    }

    /// Answers all, and who comes later at once: the mirror will not get there any more.
    pub(crate) fn give_up(&self) {
        let all = {
            let mut waiting = self.lock();
            waiting.given_up = true;
            std::mem::take(&mut waiting.by_seq)
        };
        all.into_values().for_each(|waiter| waiter.answer(MirrorAck::MirrorBehind));
    }
}
