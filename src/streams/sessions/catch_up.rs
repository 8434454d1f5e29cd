//! Rows of the mirror, counted into the list of sessions, in bounded transactions; and payloads that are erased, taken out of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::SessionsError;
use super::file::IndexFile;
use crate::Error;
use crate::event::erasure::is_never_erased;
use crate::event::{LedgerId, PayloadHash, Seq, Timestamp};
use crate::ledger::Watermark;
use crate::mirror::{MirrorError, MirrorReader, each_mirrored_erasure};

/// Rows of one transaction: some 50 ms of work, after which others get the lock.
const ROWS: i64 = 10_000;

/// Bytes of an event's payload, wherever it is. `octet_length` reads no payload that lies on pages of its own.
const BYTES: &str = "coalesce(octet_length(payload), blob ->> '$.bytes', 0)";

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    /// Another one is needed.
    More,
    /// The list has all that the mirror has.
    Up,
    /// The list's file is not the one at its path any more.
    Replaced,
}

/// Up to which event is counted, of which mirror.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    seq: i64,
    event_hash: Vec<u8>,
    file: (i64, i64),
}

/// What rows add to a session.
struct Added {
    events: i64,
    bytes: i64,
    first_seq: i64,
    last_seq: i64,
    first: Timestamp,
    last: Timestamp,
    recorded: Timestamp,
    types: BTreeMap<String, i64>,
}

/// Errors of the two databases, told apart.
struct Sides<'s> {
    index: &'s Path,
    mirror: &'s Path,
}

impl Sides<'_> {
    fn index<T>(&self, done: rusqlite::Result<T>) -> Result<T, Error> {
        done.map_err(|source| SessionsError::Sqlite { action: "writing", path: self.index.to_owned(), source }.into())
    }

    fn mirror<T>(&self, done: rusqlite::Result<T>) -> Result<T, Error> {
        done.map_err(|source| MirrorError::Sqlite { action: "reading", path: self.mirror.to_owned(), source }.into())
    }
}

/// Counts what the mirror has got since, at most so much as one transaction is to have.
pub(super) fn step(file: &mut IndexFile, reader: &MirrorReader, ledger_id: LedgerId) -> Result<Caught, Error> {
    let path = file.path().to_owned();
    let sides = Sides { index: &path, mirror: reader.path() };
    let mirror = sides.mirror(reader.connection().unchecked_transaction())?;
    let mark = reader.watermark_since(ledger_id, Seq::ZERO)?;
    // Most often there is nothing to do, and nobody is kept waiting for it.
    let counted = sides.index(counted(file.conn()))?;
    let is_up = counted.as_ref().is_some_and(|counted| counted.seq == number(mark.seq));
    if is_up && sides.mirror(fits(&mirror, counted.as_ref(), reader, mark))? && sides.index(named(file.conn()))?.is_empty() {
        return Ok(if file.is_in_place() { Caught::Up } else { Caught::Replaced });
    }
    drop(mirror);

    if !file.is_in_place() {
        return Ok(Caught::Replaced);
    }
    let index = sides.index(file.conn().transaction_with_behavior(TransactionBehavior::Immediate))?;
    // Looked at again: another one may have counted meanwhile.
    let mirror = sides.mirror(reader.connection().unchecked_transaction())?;
    let mark = reader.watermark_since(ledger_id, Seq::ZERO)?;
    let counted = sides.index(self::counted(&index))?;
    let from = match counted {
        Some(counted) if sides.mirror(fits(&mirror, Some(&counted), reader, mark))? => counted.seq,
        _ => {
            sides.index(
                index.execute_batch("DELETE FROM sessions; DELETE FROM session_types; DELETE FROM named; DELETE FROM counted_through"),
            )?;
            0
        }
    };
    let (added, end, rows) = count(&mirror, &sides, from, mark.seq)?;
    sides.index(add(&index, added))?;
    recount(&index, &mirror, &sides, Seq::new(from.cast_unsigned()), end)?;
    sides.index(keep(&index, &mirror, reader, end))?;
    sides.index(index.commit())?;
    Ok(if rows < ROWS { Caught::Up } else { Caught::More })
}

fn number(seq: Seq) -> i64 {
    seq.get().cast_signed()
}

fn file_of(reader: &MirrorReader) -> (i64, i64) {
    reader.file_id().map_or((0, 0), |(device, inode)| (device.cast_signed(), inode.cast_signed()))
}

fn counted(index: &Connection) -> rusqlite::Result<Option<Counted>> {
    let read = |row: &rusqlite::Row<'_>| Ok(Counted { seq: row.get(0)?, event_hash: row.get(1)?, file: (row.get(2)?, row.get(3)?) });
    index.query_row("SELECT seq, event_hash, device, inode FROM counted_through", [], read).optional()
}

/// Whether what is counted are rows of this mirror: its file is the same, and its row of that seq. The hash there stands for all before
/// it, and for the ledger.
fn fits(mirror: &Connection, counted: Option<&Counted>, reader: &MirrorReader, mark: Watermark) -> rusqlite::Result<bool> {
    match counted {
        Some(counted) if counted.seq <= number(mark.seq) && counted.file == file_of(reader) => {
            Ok(counted.seq == 0 || hash_of(mirror, counted.seq)?.as_ref() == Some(&counted.event_hash))
        }
        _ => Ok(false),
    }
}

fn hash_of(mirror: &Connection, seq: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    mirror.prepare_cached("SELECT event_hash FROM events WHERE seq = ?1")?.query_row([seq], |row| row.get(0)).optional()
}

/// Counts rows behind a seq, up to the mirror's watermark; answers what they add, the last of them, and how many there were.
fn count(mirror: &Connection, sides: &Sides<'_>, from: i64, through: Seq) -> Result<(HashMap<String, Added>, i64, i64), Error> {
    let sql = format!(
        "SELECT seq, session_id, event_type, observed_at, recorded_at, {BYTES} FROM events WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
    );
    let mut all = sides.mirror(mirror.prepare_cached(&sql))?;
    let mut rows = sides.mirror(all.query((from, number(through), ROWS)))?;
    let (mut added, mut end, mut count) = (HashMap::<String, Added>::new(), from, 0);
    while let Some(row) = sides.mirror(rows.next())? {
        end = sides.mirror(row.get(0))?;
        count += 1;
        let Some(session_id) = sides.mirror(row.get_ref(1).and_then(|id| Ok(id.as_str_or_null()?)))? else {
            continue;
        };
        let time = |at| {
            let time = row.get_ref(at).ok().and_then(|time| time.as_str().ok()?.parse::<Timestamp>().ok());
            time.ok_or_else(|| SessionsError::Time { path: sides.mirror.to_owned(), seq: Seq::new(end.cast_unsigned()) })
        };
        let (observed, recorded) = (time(3)?, time(4)?);
        if !added.contains_key(session_id) {
            let new = Added {
                events: 0,
                bytes: 0,
                first_seq: end,
                last_seq: end,
                first: observed,
                last: observed,
                recorded,
                types: BTreeMap::new(),
            };
            added.insert(session_id.to_owned(), new);
        }
        let Some(session) = added.get_mut(session_id) else {
            continue;
        };
        session.events += 1;
        session.bytes += sides.mirror(row.get::<_, i64>(5))?;
        session.last_seq = end;
        session.first = session.first.min(observed);
        session.last = session.last.max(observed);
        session.recorded = recorded;
        let event_type = sides.mirror(row.get_ref(2).and_then(|name| Ok(name.as_str()?)))?;
        match session.types.get_mut(event_type) {
            Some(events) => *events += 1,
            None => drop(session.types.insert(event_type.to_owned(), 1)),
        }
    }
    Ok((added, end, count))
}

fn add(index: &Transaction<'_>, added: HashMap<String, Added>) -> rusqlite::Result<()> {
    let mut session = index.prepare_cached(
        "INSERT INTO sessions (session_id, events, bytes, first_seq, last_seq, first_observed_us, last_observed_us, last_recorded_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (session_id) DO UPDATE SET
           events = events + excluded.events, bytes = bytes + excluded.bytes, last_seq = excluded.last_seq,
           first_observed_us = min(first_observed_us, excluded.first_observed_us),
           last_observed_us = max(last_observed_us, excluded.last_observed_us), last_recorded_us = excluded.last_recorded_us
         RETURNING number",
    )?;
    let mut types = index.prepare_cached(
        "INSERT INTO session_types VALUES (?1, ?2, ?3) ON CONFLICT (number, event_type) DO UPDATE SET events = events + excluded.events",
    )?;
    // In the order of their first events, so that numbers are given in that order.
    let mut added: Vec<_> = added.into_iter().collect();
    added.sort_unstable_by_key(|(_, added)| added.first_seq);
    for (session_id, added) in added {
        let [first, last, recorded] = [added.first, added.last, added.recorded].map(Timestamp::as_micros);
        let values = params![session_id, added.events, added.bytes, added.first_seq, added.last_seq, first, last, recorded];
        let number: i64 = session.query_row(values, |row| row.get(0))?;
        for (event_type, events) in added.types {
            types.execute(params![number, event_type, events])?;
        }
    }
    Ok(())
}

/// Seqs of events that an erasure names, and whose payload the mirror still had.
fn named(index: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    index.prepare_cached("SELECT seq FROM named")?.query_map([], |row| row.get(0))?.collect()
}

/// Counts the bytes of streams again whose payloads were erased since they were counted. An erasure may be carried out long after it
/// was recorded, so what it names is remembered until it is.
fn recount(index: &Transaction<'_>, mirror: &Connection, sides: &Sides<'_>, behind: Seq, end: i64) -> Result<(), Error> {
    let remembered = sides.index(named(index))?;
    let mut names: Vec<(i64, Option<PayloadHash>)> = remembered.iter().map(|seq| (*seq, None)).collect();
    sides.mirror(each_mirrored_erasure(mirror, behind, &mut |event, payload| {
        let is_counted = number(event.seq) <= end;
        if is_counted {
            names.extend(payload.erased.iter().map(|named| (number(named.seq), Some(named.payload_hash))));
        }
        is_counted
    }))?;
    let mut sessions = BTreeSet::new();
    for (seq, hash) in names {
        let row = sides.mirror(named_row(mirror, seq))?;
        let Some((Some(session_id), event_type, payload_hash, is_erased)) = row else {
            continue;
        };
        if is_erased {
            sessions.insert(session_id);
            sides.index(index.execute("DELETE FROM named WHERE seq = ?1", [seq]))?;
        } else if hash.is_some_and(|hash| hash.as_bytes().as_slice() == payload_hash) && !is_never_erased(&event_type) {
            sides.index(index.execute("INSERT OR IGNORE INTO named VALUES (?1)", [seq]))?;
        }
    }
    let sum = format!("SELECT coalesce(sum({BYTES}), 0) FROM events INDEXED BY events_by_session WHERE session_id = ?1 AND seq <= ?2");
    for session_id in sessions {
        let bytes: i64 = sides.mirror(mirror.query_row(&sum, params![session_id, end], |row| row.get(0)))?;
        sides.index(index.execute("UPDATE sessions SET bytes = ?2 WHERE session_id = ?1", params![session_id, bytes]))?;
    }
    Ok(())
}

type NamedRow = (Option<String>, String, Vec<u8>, bool);

fn named_row(mirror: &Connection, seq: i64) -> rusqlite::Result<Option<NamedRow>> {
    mirror
        .prepare_cached("SELECT session_id, event_type, payload_hash, erased IS NOT NULL FROM events WHERE seq = ?1")?
        .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()
}

fn keep(index: &Transaction<'_>, mirror: &Connection, reader: &MirrorReader, end: i64) -> rusqlite::Result<()> {
    let hash = hash_of(mirror, end)?.unwrap_or_default();
    let (device, inode) = file_of(reader);
    let values = params![end, hash, device, inode];
    index.execute("INSERT OR REPLACE INTO counted_through VALUES (1, ?1, ?2, ?3, ?4)", values).map(drop)
}
