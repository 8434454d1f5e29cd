//! Committing rows: a group with its watermark in one transaction, or one event in the caller's.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use super::row::{Row, values};
use super::{Mirror, MirrorError, SELECT};
use crate::event::{Event, line};
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

/// Inserts one event, inside whatever transaction the connection is in. The watermark stays where it is.
///
/// # Errors
/// [`MirrorError::Conflict`] where a row with its seq or id differs in anything: nothing of it is written, and the
/// caller should roll back. [`MirrorError::DuplicateId`] where the id stands at another seq. [`MirrorError::Sqlite`].
pub fn insert_event(conn: &Connection, event: &Event<'_>) -> Result<Insertion, MirrorError> {
    let path = || conn.path().unwrap_or_default().into();
    let sqlite = |source| MirrorError::Sqlite { action: "writing to", path: path(), source };
    match insert(conn, event) {
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

fn seq_of_id(conn: &Connection, event: &Event<'_>) -> rusqlite::Result<crate::event::Seq> {
    let seq: Option<i64> =
        conn.prepare_cached("SELECT seq FROM events WHERE id = ?1")?.query_row([event.id.to_string()], |row| row.get(0)).optional()?;
    Ok(crate::event::Seq::new(u64::try_from(seq.unwrap_or(0)).unwrap_or(0)))
}

/// One transaction of the mirror: rows, then the watermark behind them.
pub(crate) struct Batch<'m> {
    transaction: Transaction<'m>,
    path: &'m std::path::Path,
    options: &'m crate::options::Options,
    watermark: &'m mut Watermark,
    next: Watermark,
    /// First and last seq that the watermark moves over, a segment each.
    segments: Vec<(crate::event::Seq, crate::event::Seq)>,
}

impl Batch<'_> {
    /// Inserts an event whose line begins at an offset of a segment. Where it is the one behind the watermark, the
    /// watermark will move over it.
    pub(crate) fn insert(&mut self, event: &Event<'_>, segment: crate::event::Seq, offset: u64) -> Result<Insertion, MirrorError> {
        let insertion = insert_event(&self.transaction, event)?;
        self.advance(event, segment, offset);
        Ok(insertion)
    }

    /// Moves the watermark over an event whose row is there.
    pub(crate) fn advance(&mut self, event: &Event<'_>, segment: crate::event::Seq, offset: u64) {
        if event.seq == self.next.seq.next() {
            self.next = Watermark { seq: event.seq, event_hash: event.event_hash, segment, offset };
            match self.segments.last_mut() {
                Some((first, last)) if *first == segment => *last = event.seq,
                _ => self.segments.push((segment, event.seq)),
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
    pub(crate) fn remove(&self, seq: crate::event::Seq) -> Result<(), MirrorError> {
        self.sqlite("repairing", self.transaction.execute("DELETE FROM events WHERE seq = ?1", [signed(seq.get())])).map(|_| ())
    }

    /// Removes the row with this id, which stands at a seq where it does not belong.
    pub(crate) fn remove_id(&self, id: crate::event::EventId) -> Result<(), MirrorError> {
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
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|source| MirrorError::Sqlite {
            action: "beginning to write to",
            path: self.path.clone(),
            source,
        })?;
        Ok(Batch {
            transaction,
            path: &self.path,
            options: &self.options,
            next: self.watermark,
            watermark: &mut self.watermark,
            segments: Vec::new(),
        })
    }

    /// Commits a group's rows and the watermark behind them in one transaction. Events that are there already, as
    /// they are, count as committed.
    ///
    /// # Errors
    /// [`MirrorError::Gap`] where the group does not follow the watermark; else what [`insert_event`] says. Nothing of
    /// the group stays.
    pub fn apply(&mut self, group: &Group) -> Result<Watermark, MirrorError> {
        let watermark = self.watermark.seq;
        if group.first > watermark.next() {
            return Err(MirrorError::Gap { path: self.path.clone(), watermark, first: group.first });
        }
        let mut batch = self.begin()?;
        let mut offset = group.offset;
        for bytes in group.bytes.split_inclusive(|b| *b == b'\n') {
            let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            let event = line::decode_unhashed(text).map_err(|source| MirrorError::Line { first: group.first, source })?;
            if event.seq > watermark {
                batch.insert(&event, group.segment, offset)?;
            }
            offset += bytes.len() as u64;
        }
        let mark = batch.commit()?;
        self.see_to_wal();
        Ok(mark)
    }
}
