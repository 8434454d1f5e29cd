//! What LedgerActor has for SqliteActor: groups that are durable. They go in one message, once someone waits for their rows,
//! once they are worth a transaction, or after a moment: a transaction writes whole pages, be it for one row or for a
//! hundred, and to wake a thread costs more than to seal an event.

use ractor::ActorRef;

use super::ledger::LedgerMsg;
use super::shared::Shared;
use super::sqlite::SqliteMsg;
use crate::Group;

/// So many rows are worth a transaction: past that each costs little less. As many as a group has at most.
const DELAYED_EVENTS_MAX: u64 = 4096;

/// The way to SqliteActor, under a credit of bytes.
#[derive(Debug)]
pub(crate) struct ToMirror {
    me: ActorRef<LedgerMsg>,
    sqlite: Option<ActorRef<SqliteMsg>>,
    /// In the ledger's order, each behind the one before.
    unsent: Vec<Group>,
    /// Bytes of what is unsent, and of what was sent and has not come back.
    credit_used: usize,
    /// It reads the ledger's file, and has not caught up yet.
    behind: bool,
    /// A Send is timed.
    timed: bool,
}

impl ToMirror {
    pub(crate) fn new(me: ActorRef<LedgerMsg>) -> ToMirror {
        ToMirror { me, sqlite: None, unsent: Vec::new(), credit_used: 0, behind: false, timed: false }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.sqlite.is_some()
    }

    /// Its actor has gone, or is not to be relied upon: its successor reads the file.
    pub(crate) fn unlink(&mut self) {
        self.sqlite = None;
        self.unsent.clear();
    }

    pub(crate) fn link(&mut self, sqlite: ActorRef<SqliteMsg>) {
        self.sqlite = Some(sqlite);
        self.unsent.clear();
        (self.credit_used, self.behind) = (0, false);
    }

    /// Takes a durable group; where there is no credit for it, tells SqliteActor once that there is more to read.
    pub(crate) fn push(&mut self, shared: &Shared, group: Group, awaited: bool) {
        if self.sqlite.is_none() {
            return;
        }
        let bytes = group.bytes.len();
        if self.behind || self.credit_used + bytes > shared.options.mirror_queue_bytes_max {
            self.send();
            self.tell_behind();
            return;
        }
        self.credit_used += bytes;
        self.unsent.push(group);
        let first = self.unsent.first().map_or(0, |group| group.first.get());
        let events = self.unsent.last().map_or(0, |group| group.last.seq.get() + 1).saturating_sub(first);
        let delay = shared.options.mirror_delay;
        if awaited || delay.is_zero() || events >= DELAYED_EVENTS_MAX || shared.mirrored.receiver_count() > 0 {
            self.send();
        } else if !self.timed {
            self.timed = true;
            self.me.send_after(delay, || LedgerMsg::SendRows);
        }
    }

    /// The time is over.
    pub(crate) fn time_is_over(&mut self) {
        self.timed = false;
        self.send();
    }

    /// Sends what is unsent.
    pub(crate) fn send(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let groups = std::mem::take(&mut self.unsent);
        let bytes: usize = groups.iter().map(|group| group.bytes.len()).sum();
        if self.sqlite.as_ref().is_none_or(|sqlite| sqlite.cast(SqliteMsg::Commit(groups)).is_err()) {
            // It is stopping.
            self.credit_used -= bytes;
        }
    }

    /// So many bytes have come back, and whether it has nothing more to read; answers whether it had been told to.
    pub(crate) fn given_back(&mut self, credit: usize, caught_up: bool) -> bool {
        self.credit_used = self.credit_used.saturating_sub(credit);
        caught_up && std::mem::take(&mut self.behind)
    }

    pub(crate) fn tell_behind(&mut self) {
        if let Some(sqlite) = &self.sqlite
            && !self.behind
        {
            self.behind = sqlite.cast(SqliteMsg::Behind).is_ok();
        }
    }
}
