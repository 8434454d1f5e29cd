//! Whether the mirror's indexes have what its rows have: an id that its index has lost would be recorded twice.
//!
//! SQLite's own check holds one read transaction for its whole length, and the WAL grows meanwhile. So in a large mirror each
//! index is read in its order, a window at a time, and what it has is summed up as the rows are, in a keyed hash: equal sums
//! are equal sets. Where they differ, SQLite says what is wrong.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use crate::ledger::stream::Plan;
use crate::mirror::{KeptRow, MirrorReader};

/// Whether SQLite's check of the indexes takes long enough to be done another way.
pub(super) fn is_large(conn: &Connection) -> rusqlite::Result<bool> {
    const LARGE_BYTES: i64 = 16 << 20;
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok(pragma("page_count")?.saturating_mul(pragma("page_size")?) > LARGE_BYTES)
}

/// An index: its name, its text, and the number behind that in its key, by their place in the row.
struct Index {
    name: &'static str,
    text: (&'static str, usize),
    number: Option<(&'static str, usize)>,
}

const INDEXES: [Index; 5] = [
    Index { name: "sqlite_autoindex_events_1", text: ("id", 1), number: None },
    Index { name: "events_by_session", text: ("session_id", 8), number: Some(("session_seq", 9)) },
    Index { name: "events_by_trace", text: ("trace_id", 7), number: None },
    Index { name: "events_by_type", text: ("event_type", 6), number: None },
    Index { name: "events_by_time", text: ("observed_at", 3), number: None },
];

/// Entries of a window: less than a millisecond.
const ENTRIES_MAX: usize = 2048;

/// The key of the sums: this check's own, so that nobody can make two sets that meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct SumKey([u64; 2]);

impl SumKey {
    pub(super) fn new() -> SumKey {
        SumKey([RandomState::new().hash_one(0), RandomState::new().hash_one(1)])
    }

    fn hash(&self, text: &[u8], number: i64, seq: i64) -> u64 {
        let SumKey([start, factor]) = self;
        let step = |hash: u64, word: u64| {
            let product = u128::from(hash ^ word).wrapping_mul(u128::from(factor | 1));
            (product as u64) ^ ((product >> 64) as u64)
        };
        let (words, rest) = text.as_chunks::<8>();
        let hash = words.iter().fold(*start, |hash, word| step(hash, u64::from_le_bytes(*word)));
        let hash = rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte)));
        [text.len() as u64, number.cast_unsigned(), seq.cast_unsigned()].into_iter().fold(hash, step)
    }
}

/// What the indexes have, or should have: entries, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums([(u64, u64); INDEXES.len()]);

impl Sums {
    fn add(&mut self, at: usize, hash: u64) {
        if let Some((count, sum)) = self.0.get_mut(at) {
            (*count, *sum) = (*count + 1, sum.wrapping_add(hash));
        }
    }

    /// Adds what the indexes must have of a row. Values that no row of an event has are left out: the sums differ then.
    pub(super) fn add_row(&mut self, row: KeptRow<'_>, key: &SumKey) {
        let values = row.values();
        for (at, index) in INDEXES.iter().enumerate() {
            let number = match index.number.map(|(_, column)| values.get(column)) {
                None => Some(0),
                Some(Some(ValueRef::Integer(number))) => Some(*number),
                Some(_) => None,
            };
            if let (Some(ValueRef::Text(text)), Some(number)) = (values.get(index.text.1), number) {
                self.add(at, key.hash(text, number, row.seq));
            }
        }
    }
}

/// An entry of an index, in the index's order.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    text: String,
    number: i64,
    seq: i64,
}

/// An index that is being read.
struct Reading<'c> {
    /// How it begins.
    first: Statement<'c>,
    /// What follows an entry: what has its text and number too, what has its text, the rest.
    following: [Statement<'c>; 3],
    /// The last entry that was read.
    last: Option<Entry>,
}

impl<'c> Reading<'c> {
    fn of(conn: &'c Connection, index: &Index) -> rusqlite::Result<Reading<'c>> {
        let (name, text) = (index.name, index.text.0);
        // An index without a number in its key has the seq behind the text: then the second statement finds nothing new.
        let number = index.number.map_or("seq", |(number, _)| number);
        let statement = |start: &str| {
            let what = format!("SELECT {text}, {number}, seq FROM events INDEXED BY {name}");
            conn.prepare(&format!("{what} WHERE {text} IS NOT NULL AND {start} ORDER BY {text}, {number}, seq LIMIT {ENTRIES_MAX}"))
        };
        let following = [
            statement(&format!("{text} = ?1 AND {number} = ?2 AND seq > ?3"))?,
            statement(&format!("{text} = ?1 AND {number} > ?2 AND ?3 = ?3"))?,
            statement(&format!("{text} > ?1 AND ?2 = ?2 AND ?3 = ?3"))?,
        ];
        Ok(Reading { first: statement("?1 = ?1 AND ?2 = ?2 AND ?3 = ?3")?, following, last: None })
    }

    /// Reads the next entries, in one read transaction; nothing where there are none. Entries that are not in order are an error.
    fn next(&mut self, add: &mut dyn FnMut(&Entry)) -> rusqlite::Result<Option<()>> {
        let Some(last) = &mut self.last else {
            let mut last = None;
            read(&mut self.first, &Entry::default(), &mut last, add)?;
            let is_some = last.is_some();
            self.last = last;
            return Ok(is_some.then_some(()));
        };
        for statement in &mut self.following {
            let (after, mut found) = (last.clone(), None);
            read(statement, &after, &mut found, add)?;
            if let Some(found) = found {
                if found <= after {
                    return Err(rusqlite::Error::QueryReturnedNoRows);
                }
                *last = found;
                return Ok(Some(()));
            }
        }
        Ok(None)
    }
}

/// Reads a window of entries behind one; `last` becomes the last of them.
fn read(statement: &mut Statement<'_>, after: &Entry, last: &mut Option<Entry>, add: &mut dyn FnMut(&Entry)) -> rusqlite::Result<()> {
    let mut rows = statement.query((&after.text, after.number, after.seq))?;
    while let Some(row) = rows.next()? {
        let (text, number, seq) = (row.get_ref(0)?.as_str()?, row.get(1)?, row.get(2)?);
        match last {
            Some(last) if (last.text.as_str(), last.number, last.seq) < (text, number, seq) => {
                last.text.clear();
                last.text.push_str(text);
                (last.number, last.seq) = (number, seq);
            }
            Some(_) => return Err(rusqlite::Error::QueryReturnedNoRows),
            None => *last = Some(Entry { text: text.to_owned(), number, seq }),
        }
        last.as_ref().into_iter().for_each(&mut *add);
    }
    Ok(())
}

/// Sums up the entries of all indexes up to this seq.
pub(super) fn sums(conn: &Connection, through: i64, key: &SumKey, is_over: &dyn Fn() -> bool) -> rusqlite::Result<Sums> {
    let mut sums = Sums::default();
    for (at, index) in INDEXES.iter().enumerate() {
        let mut reading = Reading::of(conn, index)?;
        let mut add = |entry: &Entry| {
            if entry.seq <= through {
                let number = if index.number.is_some() { entry.number } else { 0 };
                sums.add(at, key.hash(entry.text.as_bytes(), number, entry.seq));
            }
        };
        while reading.next(&mut add)?.is_some() {
            if is_over() {
                return Err(rusqlite::Error::QueryReturnedNoRows);
            }
        }
    }
    Ok(sums)
}

/// That on a thread and a connection of its own, beside the comparison.
pub(super) struct SumsBeside {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<rusqlite::Result<Sums>>>,
}

impl SumsBeside {
    /// Nothing where there is no thread or connection to be had.
    pub(super) fn begin(mirror: &MirrorReader, through: i64, key: SumKey, plan: &Plan) -> Option<SumsBeside> {
        let mut beside = mirror.another().ok()?;
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, cancelled) = (over.clone(), plan.cancelled.clone());
        beside.stop_when(move || is_over.load(Ordering::Relaxed) || cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)));
        let is_over = over.clone();
        let work = move || sums(beside.connection(), through, &key, &|| is_over.load(Ordering::Relaxed));
        let thread = thread::Builder::new().name("counterfoil-index".to_owned()).spawn(work).ok()?;
        Some(SumsBeside { over, thread: Some(thread) })
    }

    /// What it found.
    pub(super) fn end(mut self) -> rusqlite::Result<Sums> {
        let thread = self.thread.take().map(JoinHandle::join);
        thread.and_then(Result::ok).unwrap_or(Err(rusqlite::Error::InvalidQuery))
    }
}

impl Drop for SumsBeside {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
