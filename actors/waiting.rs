//! Appends whose group is not durable yet, and how they are answered once it is.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorRef;

use super::answers::all_on;
use super::message::{Append, Durability, Message, Reply};
use super::permits::Permit;
use super::shared::Shared;
use super::supervisor::Inner;
use crate::{CheckedDraft, Conditions, LedgerError, MirrorAck, Receipt, Seq};

/// An append that is sealed.
pub(crate) struct Waiting {
    pub receipts: Vec<Receipt>,
    pub durability: Durability,
    pub permit: Permit,
    pub reply: Reply,
    /// What it takes to seal it once more: where its group is being signed, one before it may be left out.
    pub again: Option<Again>,
}

/// An append as it came, but for what [`Waiting`] has of it.
pub(crate) struct Again {
    pub drafts: Arc<Vec<CheckedDraft>>,
    pub conditions: Conditions,
    pub fresh: bool,
    pub patient: bool,
    pub seal_through: Option<Seq>,
}

impl Waiting {
    /// Of an append that is sealed.
    pub(crate) fn new(append: Append, receipts: Vec<Receipt>, is_signing: bool) -> Waiting {
        let Append { drafts, conditions, durability, fresh, patient, permit, reply, seal_through } = append;
        let again = is_signing.then_some(Again { drafts, conditions, fresh, patient, seal_through });
        Waiting { receipts, durability, permit, reply, again }
    }

    /// The append that it was; nothing where that was not kept.
    pub(crate) fn into_append(self) -> Option<Append> {
        let Waiting { durability, permit, reply, again, .. } = self;
        let Again { drafts, conditions, fresh, patient, seal_through } = again?;
        Some(Append { drafts, conditions, durability, fresh, patient, permit, reply, seal_through })
    }
}

/// Answers appends whose events are durable; those that ask for the mirror are answered once it has them.
pub(crate) fn answer(shared: &Arc<Shared>, supervisor: &ActorRef<Message>, waiting: Vec<Waiting>) {
    // Permits by this thread, so that those who wait for one wake in their order, wherever the answers are given.
    let sealed = waiting.into_iter().map(|Waiting { receipts, durability, permit, reply, .. }| {
        drop(permit);
        (receipts, durability, reply)
    });
    let sealed: Vec<_> = sealed.collect();
    let callers = all_on(sealed.iter().map(|(_, _, reply)| reply));
    let (answering, supervisor) = (shared.clone(), supervisor.clone());
    shared.answers.give(sealed.len(), callers, move || answer_here(&answering, &supervisor, sealed));
}

fn answer_here(shared: &Shared, supervisor: &ActorRef<Message>, sealed: Vec<(Vec<Receipt>, Durability, Reply)>) {
    let mut for_mirror = Vec::new();
    let mirrored = *shared.mirrored.borrow();
    for (mut receipts, durability, reply) in sealed {
        let last = receipts.iter().map(|receipt| receipt.seq).max().unwrap_or_default();
        match durability {
            Durability::Ledger => reply.send(Ok(receipts)),
            Durability::Mirrored if last <= mirrored => {
                receipts.iter_mut().for_each(|receipt| receipt.mirror = MirrorAck::Mirrored);
                reply.send(Ok(receipts));
            }
            Durability::Mirrored => for_mirror.push((last, receipts, reply)),
        }
    }
    if !for_mirror.is_empty() {
        if shared.waiters.push(for_mirror, Instant::now() + shared.options.mirrored_deadline) {
            let _ = supervisor.cast(Inner::WatchDeadlines.into());
        }
        // The commit may have come in between.
        shared.waiters.answer_through(*shared.mirrored.borrow(), &shared.answers);
    }
}

/// The same error for each of several waiters.
pub(crate) fn again(error: &LedgerError) -> LedgerError {
    match error {
        LedgerError::DiskFull { path } => LedgerError::DiskFull { path: path.clone() },
        LedgerError::Io { action, path, source } => {
            LedgerError::Io { action, path: path.clone(), source: std::io::Error::new(source.kind(), source.to_string()) }
        }
        other => LedgerError::Poisoned { cause: other.to_string() },
    }
}
