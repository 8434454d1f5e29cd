//! LedgerActor's side of the way to SqliteActor: groups go by the outbox, under a credit of bytes. Where that is used up,
//! SqliteActor is told once that there is more to read in the ledger's file.

use std::sync::Arc;

use ractor::ActorRef;

use super::shared::Shared;
use super::sqlite::SqliteMsg;
use crate::Group;

pub(crate) struct ToMirror {
    shared: Arc<Shared>,
    sqlite: Option<ActorRef<SqliteMsg>>,
    /// Bytes of groups that were left for it and have not come back.
    credit_used: usize,
    /// It reads the ledger's file, and has not caught up yet.
    behind: bool,
}

impl ToMirror {
    pub(crate) fn new(shared: Arc<Shared>) -> ToMirror {
        ToMirror { shared, sqlite: None, credit_used: 0, behind: false }
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.sqlite.is_some()
    }

    /// Its actor has gone, or is not to be relied upon: its successor reads the file.
    pub(crate) fn unlink(&mut self) {
        self.shared.outbox.publish(None);
        self.sqlite = None;
    }

    pub(crate) fn link(&mut self, sqlite: ActorRef<SqliteMsg>) {
        self.shared.outbox.publish(Some(sqlite.clone()));
        self.sqlite = Some(sqlite);
        (self.credit_used, self.behind) = (0, false);
    }

    /// Takes a durable group.
    pub(crate) fn push(&mut self, group: Group, awaited: bool) {
        if self.sqlite.is_none() {
            return;
        }
        let (bytes, options) = (group.bytes.len(), &self.shared.options);
        if self.behind || self.credit_used + bytes > options.mirror_queue_bytes_max {
            self.tell_behind();
            return;
        }
        self.credit_used += bytes;
        let at_once = || awaited || options.mirror_delay.is_zero() || self.shared.mirrored.receiver_count() > 0;
        self.shared.outbox.leave(group, at_once);
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
