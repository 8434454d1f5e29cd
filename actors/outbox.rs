//! Where LedgerActor leaves groups that are durable for SqliteActor, which takes all that are there in one transaction: at once
//! where someone waits for their rows, else once they are worth one, or after `mirror_delay`. A transaction writes whole pages,
//! be it for one row or for a hundred, and to wake a thread for each group costs more than to seal an event.
//!
//! Bounded by LedgerActor's credit. SqliteActor has the clock, since its thread is the one that has nothing else to do; and what is
//! left here by a LedgerActor that has ended is committed all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ractor::ActorRef;

use super::sqlite::SqliteMsg;
use crate::Group;

/// So many rows, or bytes, are worth a transaction: past that each costs little less. As many as a group has at most.
const EVENTS_WORTH: u64 = 4096;
const BYTES_WORTH: usize = 4 << 20;

#[derive(Default)]
pub(crate) struct Outbox(Mutex<Left>);

#[derive(Default)]
struct Left {
    /// Who takes them right now.
    sqlite: Option<ActorRef<SqliteMsg>>,
    /// In the ledger's order.
    groups: Vec<Group>,
    events: u64,
    bytes: usize,
    /// It has been told to take them at once.
    hurried: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody takes groups just now, or somebody else from now on: who comes anew reads what is here from the file.
    pub(crate) fn publish(&self, sqlite: Option<ActorRef<SqliteMsg>>) {
        *self.lock() = Left { sqlite, ..Left::default() };
    }

    /// Leaves a group, and tells SqliteActor what it has to be told of it. `awaited` is asked under the same lock as `hurry` takes:
    /// who begins to wait meanwhile is seen by it, or finds the group.
    pub(crate) fn leave(&self, group: Group, awaited: impl FnOnce() -> bool) {
        let mut left = self.lock();
        let is_first = left.groups.is_empty();
        left.events += group.last.seq.get() + 1 - group.first.get();
        left.bytes += group.bytes.len();
        left.groups.push(group);
        let at_once = awaited() || left.events >= EVENTS_WORTH || left.bytes >= BYTES_WORTH;
        let message = match left.hurried {
            false if at_once => SqliteMsg::Apply,
            false if is_first => SqliteMsg::Left,
            _ => return,
        };
        left.hurried = at_once;
        left.tell(message);
    }

    /// Someone waits for the rows of what is here.
    pub(crate) fn hurry(&self) {
        let mut left = self.lock();
        if !left.groups.is_empty() && !left.hurried {
            left.hurried = true;
            left.tell(SqliteMsg::Apply);
        }
    }

    /// All that is here.
    pub(crate) fn take(&self) -> Vec<Group> {
        let mut left = self.lock();
        let sqlite = left.sqlite.take();
        std::mem::replace(&mut *left, Left { sqlite, ..Left::default() }).groups
    }
}

impl Left {
    fn tell(&self, message: SqliteMsg) {
        // Refused only where it is stopping: then its successor reads the file.
        let _ = self.sqlite.as_ref().map(|sqlite| sqlite.cast(message));
    }
}
