//! A difference that is none: an erasure that is being carried out has reached one leg and not the other. Called by the checks,
//! for events whose line and row differ in their payload alone.

use std::cell::RefCell;

use rusqlite::Connection;

use crate::erase::add_names;
use crate::event::{Event, Seq};
use crate::ledger::erase::{Names, name_of};
use crate::ledger::{LedgerReader, lock};
use crate::mirror::{Row, SELECT, each_mirrored_erasure, last_erasure};

/// What the erasures up to one name, once that was asked.
#[derive(Default)]
pub(super) struct Named(RefCell<Option<(Seq, Names)>>);

impl Named {
    /// Whether the event is equal by now, since it was erased after it was read; or will be, since a writer is at work and an
    /// erasure names it.
    pub(super) fn is_being_erased(&self, conn: &Connection, reader: &LedgerReader, event: &Event<'_>) -> bool {
        let Ok(Some(line)) = reader.line(event.seq) else { return false };
        let row = conn.prepare_cached(&format!("{SELECT} WHERE seq = ?1")).and_then(|mut by_seq| {
            let mut encoded = Vec::new();
            by_seq.query_row([event.seq.get().cast_signed()], |row| Ok(Row(row).encode(&mut encoded).is_ok().then_some(encoded)))
        });
        let Ok(Some(row)) = row else { return false };
        if row == line && line.ends_with(b",\"erased\":true}") {
            return true;
        }
        lock::is_held(reader.storage(), reader.dir()) && self.has(conn, event)
    }

    /// Whether an erasure names this event. It has a row before it is carried out, but for one that an open finishes.
    fn has(&self, conn: &Connection, event: &Event<'_>) -> bool {
        let mut named = self.0.borrow_mut();
        let last = last_erasure(conn).unwrap_or_default();
        if named.as_ref().is_none_or(|(of, _)| *of != last) {
            let mut names = Names::new();
            let mirrored = each_mirrored_erasure(conn, Seq::ZERO, &mut |_, payload| {
                add_names(payload, &mut names);
                true
            });
            if mirrored.is_err() {
                return false;
            }
            *named = Some((last, names));
        }
        named.as_ref().is_some_and(|(_, names)| name_of(names, event).is_some())
    }
}
