//! Committing rows: a group with its watermark in one transaction, or one event in the caller's.

use std::str::Utf8Error;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use super::fields::Fields;
use super::row::{Row, borrowed, values};
use super::{Mirror, MirrorError, SELECT};
use crate::event::{Event, EventId, LedgerId, LineError, LineProblem, Seq, line};
use crate::failpoint;
use crate::ledger::{Group, Watermark};

/// What inserting an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The row was written.
    Inserted,
    /// The very row was there.
    AlreadyPresent,
}

const INSERT: &str = "INSERT INTO events VALUES \
     (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)";

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn insert(conn: &Connection, event: &Event<'_>) -> rusqlite::Result<()> {
    conn.prepare_cached(INSERT)?.execute(params_from_iter(values(event))).map(|_| ())
}

/// The insertion of one row after another.
struct Inserter<'c> {
    statement: CachedStatement<'c>,
    /// Parameters that have a value, a bit each: a statement keeps what it was given, and most columns of most rows are NULL.
    bound: u32,
}

impl<'c> Inserter<'c> {
    fn new(conn: &'c Connection) -> rusqlite::Result<Inserter<'c>> {
        // One that comes from the cache has no values.
        Ok(Inserter { statement: conn.prepare_cached(INSERT)?, bound: 0 })
    }

    fn insert(&mut self, values: &[ToSqlOutput<'_>; 24]) -> rusqlite::Result<()> {
        for (at, value) in values.iter().enumerate() {
            let bit = 1 << at;
            if !matches!(value, ToSqlOutput::Borrowed(ValueRef::Null)) {
                self.bound |= bit;
            } else if self.bound & bit == 0 {
                continue;
            } else {
                self.bound &= !bit;
            }
            self.statement.raw_bind_parameter(at + 1, value)?;
        }
        self.statement.raw_execute().map(|_| ())
    }
}

fn same(one: &[ToSqlOutput<'_>], other: &[ToSqlOutput<'_>]) -> bool {
    one.iter().map(borrowed).eq(other.iter().map(borrowed))
}

/// Inserts one event, inside whatever transaction the connection is in. The watermark stays where it is.
///
/// # Errors
/// [`MirrorError::Conflict`] where a row with its seq or id differs in anything: nothing of it is written, and the
/// caller should roll back. [`MirrorError::DuplicateId`] where the id stands at another seq. [`MirrorError::Sqlite`].
pub fn insert_event(conn: &Connection, event: &Event<'_>) -> Result<Insertion, MirrorError> {
    inserted(conn, insert(conn, event), event)
}

/// Whether the mirror that this connection writes to is that of this ledger.
pub(crate) fn of_ledger(conn: &Connection, ledger_id: LedgerId) -> Result<(), MirrorError> {
    let path = || conn.path().unwrap_or_default().into();
    let found: rusqlite::Result<String> = conn.query_row("SELECT ledger_id FROM mirrored_through", [], |row| row.get(0));
    let found = found.map_err(|source| MirrorError::Sqlite { action: "reading", path: path(), source })?;
    if found == ledger_id.to_string() {
        return Ok(());
    }
    Err(MirrorError::OtherLedger { path: path(), found, expected: ledger_id.to_string() })
}

/// What an insertion of this event means that ended so.
fn inserted(conn: &Connection, ended: rusqlite::Result<()>, event: &Event<'_>) -> Result<Insertion, MirrorError> {
    let path = || conn.path().unwrap_or_default().into();
    let sqlite = |source| MirrorError::Sqlite { action: "writing to", path: path(), source };
    match ended {
        Ok(()) => Ok(Insertion::Inserted),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            let mut there = Vec::new();
            let found = conn
                .prepare_cached(&format!("{SELECT} WHERE seq = ?1"))
                .and_then(|mut by_seq| {
                    by_seq
                        .query_row([signed(event.seq.get())], |row| {
                            let row = Row(row);
                            let hash = row.event_hash().map_or("an unreadable hash".to_owned(), |hash| hash.to_string());
                            let hash = format!("{hash} and differs in {}", row.differing(event).join(", "));
                            Ok((row.encode(&mut there).is_ok(), hash))
                        })
                        .optional()
                })
                .map_err(sqlite)?;
            let mut ours = Vec::new();
            line::encode(event, &mut ours);
            match found {
                Some((true, _)) if there == ours => Ok(Insertion::AlreadyPresent),
                Some((_, row)) => Err(MirrorError::Conflict { path: path(), seq: event.seq, id: event.id, ledger: event.event_hash, row }),
                None => {
                    let first = seq_of_id(conn, event).map_err(sqlite)?;
                    Err(MirrorError::DuplicateId { id: event.id, first, second: event.seq })
                }
            }
        }
        Err(error) => Err(sqlite(error)),
    }
}

fn seq_of_id(conn: &Connection, event: &Event<'_>) -> rusqlite::Result<Seq> {
    let seq: Option<i64> =
        conn.prepare_cached("SELECT seq FROM events WHERE id = ?1")?.query_row([event.id.to_string()], |row| row.get(0)).optional()?;
    Ok(Seq::new(u64::try_from(seq.unwrap_or(0)).unwrap_or(0)))
}

/// One transaction of the mirror: rows, then the watermark behind them.
pub(crate) struct Batch<'m> {
    inserter: Inserter<'m>,
    transaction: Transaction<'m>,
    path: &'m std::path::Path,
    options: &'m crate::options::Options,
    watermark: &'m mut Watermark,
    next: Watermark,
    /// First and last seq that the watermark moves over, a segment each.
    segments: Vec<(Seq, Seq)>,
}

impl Batch<'_> {
    /// Inserts an event whose line begins at an offset of a segment. Where it is the one behind the watermark, the
    /// watermark will move over it.
    pub(crate) fn insert(&mut self, event: &Event<'_>, segment: Seq, offset: u64) -> Result<Insertion, MirrorError> {
        let ended = self.inserter.insert(&values(event));
        let insertion = inserted(&self.transaction, ended, event)?;
        self.advance(Watermark { seq: event.seq, event_hash: event.event_hash, segment, offset });
        Ok(insertion)
    }

    /// The same, of a line that is known to be right: this process has sealed it, or has checked it. It is not checked
    /// again; `from` is the seq of the first one that is wanted: those before it are there already.
    pub(crate) fn insert_line(&mut self, line: &str, from: Seq, segment: Seq, offset: u64) -> Result<Insertion, MirrorError> {
        let decoded = || line::decode_unhashed(line.as_bytes()).map_err(|source| MirrorError::Line { first: from, source });
        let Some(fields) = Fields::of(line) else {
            let event = decoded()?;
            return if event.seq >= from { self.insert(&event, segment, offset) } else { Ok(Insertion::AlreadyPresent) };
        };
        if fields.seq < from {
            return Ok(Insertion::AlreadyPresent);
        }
        let row = fields.values();
        debug_assert!(decoded().is_ok_and(|event| same(&values(&event), &row)), "{line}");
        let insertion = match self.inserter.insert(&row) {
            Ok(()) => Insertion::Inserted,
            ended => inserted(&self.transaction, ended, &decoded()?)?,
        };
        self.advance(Watermark { seq: fields.seq, event_hash: fields.event_hash(), segment, offset });
        Ok(insertion)
    }

    /// Moves the watermark over an event whose row is there.
    fn advance(&mut self, mark: Watermark) {
        if mark.seq == self.next.seq.next() {
            self.next = mark;
            match self.segments.last_mut() {
                Some((first, last)) if *first == mark.segment => *last = mark.seq,
                _ => self.segments.push((mark.segment, mark.seq)),
            }
        }
    }

    /// Moves the watermark back (or forth), for a repair that goes over all rows.
    pub(crate) fn rewind(&mut self, mark: Watermark) {
        self.next = mark;
        self.segments.clear();
    }

    /// The list of segments is derived anew with the rows.
    pub(crate) fn forget_segments(&self) -> Result<(), MirrorError> {
        self.sqlite("repairing", self.transaction.execute("DELETE FROM segments", [])).map(|_| ())
    }

    /// Removes the row with this seq, to write it anew.
    pub(crate) fn remove(&self, seq: Seq) -> Result<(), MirrorError> {
        self.sqlite("repairing", self.transaction.execute("DELETE FROM events WHERE seq = ?1", [signed(seq.get())])).map(|_| ())
    }

    /// Removes the row with this id, which stands at a seq where it does not belong.
    pub(crate) fn remove_id(&self, id: EventId) -> Result<(), MirrorError> {
        self.sqlite("repairing", self.transaction.execute("DELETE FROM events WHERE id = ?1", [id.to_string()])).map(|_| ())
    }

    fn sqlite<T>(&self, action: &'static str, result: rusqlite::Result<T>) -> Result<T, MirrorError> {
        result.map_err(|source| MirrorError::Sqlite { action, path: self.path.to_owned(), source })
    }

    /// Commits rows and watermark.
    pub(crate) fn commit(self) -> Result<Watermark, MirrorError> {
        let (next, path, options) = (self.next, self.path, self.options);
        let at = |point| options.at(point).map_err(|source| MirrorError::Io { action: "writing to", path: path.to_owned(), source });
        // A repair that goes over all rows ends where the watermark was, and yet derives the segments anew.
        if next != *self.watermark || !self.segments.is_empty() {
            let write = || {
                self.transaction
                    .prepare_cached("UPDATE mirrored_through SET seq = ?1, event_hash = ?2, segment = ?3, byte_offset = ?4")?
                    .execute(params![signed(next.seq.get()), next.event_hash.as_bytes(), signed(next.segment.get()), signed(next.offset)])?;
                let mut upsert = self.transaction.prepare_cached(
                    "INSERT INTO segments VALUES (?1, ?2) ON CONFLICT (first_seq) DO UPDATE SET last_seq = excluded.last_seq",
                )?;
                self.segments.iter().try_for_each(|(first, last)| upsert.execute([signed(first.get()), signed(last.get())]).map(|_| ()))
            };
            self.sqlite("moving the watermark of", write())?;
        }
        at(failpoint::MIRROR_COMMIT)?;
        let committed = self.transaction.commit();
        committed.map_err(|source| MirrorError::Sqlite { action: "committing to", path: path.to_owned(), source })?;
        let told = at(failpoint::MIRROR_COMMITTED);
        *self.watermark = next;
        told?;
        Ok(next)
    }
}

impl Mirror {
    /// Begins a transaction of rows and watermark.
    pub(crate) fn begin(&mut self) -> Result<Batch<'_>, MirrorError> {
        self.at(failpoint::MIRROR_BEGIN)?;
        let failed = |source| MirrorError::Sqlite { action: "beginning to write to", path: self.path.clone(), source };
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate).map_err(failed)?;
        Ok(Batch {
            inserter: Inserter::new(&self.conn).map_err(failed)?,
            transaction,
            path: &self.path,
            options: &self.options,
            next: self.watermark,
            watermark: &mut self.watermark,
            segments: Vec::new(),
        })
    }

    /// Commits a group's rows and the watermark behind them in one transaction. Events that are there already, as
    /// they are, count as committed. The lines are taken as the writer has sealed them; they are not checked again.
    ///
    /// # Errors
    /// [`MirrorError::Gap`] where the group does not follow the watermark; else what [`insert_event`] says. Nothing of
    /// the group stays.
    pub fn apply(&mut self, group: &Group) -> Result<Watermark, MirrorError> {
        self.apply_all(std::slice::from_ref(group))
    }

    /// The same with groups that follow each other, in one transaction.
    pub(crate) fn apply_all(&mut self, groups: &[Group]) -> Result<Watermark, MirrorError> {
        let from = self.watermark.seq.next();
        let mut next = from;
        for group in groups {
            if group.first > next {
                return Err(MirrorError::Gap { path: self.path.clone(), watermark: next.previous(), first: group.first });
            }
            next = next.max(group.last.seq.next());
        }
        let mut batch = self.begin()?;
        for group in groups {
            let not_text = |error: Utf8Error| LineError { offset: error.valid_up_to(), problem: LineProblem::NotUtf8 };
            let text = std::str::from_utf8(&group.bytes).map_err(not_text);
            let text = text.map_err(|source| MirrorError::Line { first: group.first, source })?;
            let mut offset = group.offset;
            for line in text.split_inclusive('\n') {
                batch.insert_line(line.strip_suffix('\n').unwrap_or(line), from, group.segment, offset)?;
                offset += line.len() as u64;
            }
        }
        let mark = batch.commit()?;
        self.see_to_wal();
        Ok(mark)
    }
}
