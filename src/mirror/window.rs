//! Rows, copied out of the mirror a window at a time: while they are compared no read transaction is held, and so the WAL can be
//! emptied beside a check, however long that takes.

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::fields::Fields;
use super::row::{COLUMNS, SELECT, borrowed, differing, values};
use crate::event::{Event, EventHash, Seq, line};

/// Rows of a window at most: about a millisecond of reading.
const ROWS_MAX: usize = 512;
/// Bytes of a window at most, but for its last row.
const BYTES_MAX: usize = 512 << 10;

/// Rows that follow each other, as they were at one moment.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The values of all rows; see [`push`].
    bytes: Vec<u8>,
    /// The seq of each row, which may be any number, and where its values end.
    rows: Vec<(i64, usize)>,
}

/// Appends a value: its type, and, where it is not NULL, its length and its bytes. Equal bytes are equal values.
fn push(value: ValueRef<'_>, out: &mut Vec<u8>) {
    let number;
    let (kind, bytes): (u8, &[u8]) = match value {
        ValueRef::Null => return out.push(0),
        ValueRef::Integer(n) => {
            number = n.to_le_bytes();
            (1, &number)
        }
        ValueRef::Real(n) => {
            number = n.to_bits().to_le_bytes();
            (2, &number)
        }
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The first of these values, and the rest.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = match bytes.first()? {
        0 => 1,
        _ => 9 + usize::try_from(u64::from_le_bytes(bytes.get(1..9)?.try_into().ok()?)).ok()?,
    };
    bytes.split_at_checked(len)
}

/// The value of these bytes.
fn read(value: &[u8]) -> ValueRef<'_> {
    let bytes = value.get(9..).unwrap_or_default();
    let number = || i64::from_le_bytes(bytes.try_into().unwrap_or_default());
    match value.first() {
        Some(1) => ValueRef::Integer(number()),
        Some(2) => ValueRef::Real(f64::from_bits(number().cast_unsigned())),
        Some(3) => ValueRef::Text(bytes),
        Some(4) => ValueRef::Blob(bytes),
        _ => ValueRef::Null,
    }
}

fn push_all(values: &[ToSqlOutput<'_>], out: &mut Vec<u8>) {
    out.clear();
    for value in values {
        push(borrowed(value), out);
    }
}

impl Window {
    /// Reads rows from this seq on; answers the seq behind them, where there may be more.
    pub(crate) fn read(&mut self, conn: &Connection, from: i64, through: i64) -> rusqlite::Result<Option<i64>> {
        self.rows.clear();
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_MAX * 2); // a row may have been far longer
        let mut statement = conn.prepare_cached(&format!("{SELECT} WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"))?;
        let mut rows = statement.query((from, through, ROWS_MAX as i64))?;
        let mut next = Some(from);
        while self.bytes.len() < BYTES_MAX && self.rows.len() < ROWS_MAX {
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            let seq: i64 = row.get(0)?;
            for at in 0..COLUMNS.len() {
                push(row.get_ref(at)?, &mut self.bytes);
            }
            self.rows.push((seq, self.bytes.len()));
            next = next.and_then(|next| seq.checked_add(1).map(|seq| seq.max(next)));
        }
        // A file that is damaged may go in circles.
        if next == Some(from) { Err(rusqlite::Error::QueryReturnedNoRows) } else { Ok(next) }
    }

    /// All its rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = KeptRow<'_>> {
        (0..self.rows.len()).filter_map(|at| self.row(at))
    }

    /// The row at this place of the window.
    pub(crate) fn row(&self, at: usize) -> Option<KeptRow<'_>> {
        let (seq, to) = *self.rows.get(at)?;
        let from = at.checked_sub(1).and_then(|before| self.rows.get(before)).map_or(0, |(_, to)| *to);
        Some(KeptRow { seq, values: self.bytes.get(from..to)? })
    }
}

/// A row of a window.
#[derive(Clone, Copy)]
pub(crate) struct KeptRow<'w> {
    /// Its seq, which may be any number.
    pub(crate) seq: i64,
    values: &'w [u8],
}

impl<'w> KeptRow<'w> {
    /// Whether it is the row of this line, which is right; `scratch` is room for its values.
    pub(crate) fn is_of(&self, line: &[u8], scratch: &mut Vec<u8>) -> bool {
        match std::str::from_utf8(line).ok().and_then(Fields::of) {
            Some(fields) => push_all(&fields.values(), scratch),
            None => match line::decode_again(line) {
                Ok(event) => push_all(&values(&event), scratch),
                Err(_) => return false,
            },
        }
        self.values == scratch.as_slice()
    }

    /// Names of the columns in which it differs from what this event's row must be.
    pub(crate) fn differing(&self, event: &Event<'_>) -> Vec<&'static str> {
        differing(self.values().into_iter().map(Some), event)
    }

    /// Its values, in the order of [`COLUMNS`].
    pub(crate) fn values(&self) -> [ValueRef<'w>; COLUMNS.len()] {
        let mut rest = self.values;
        COLUMNS.map(|_| {
            let (value, behind) = split(rest).unwrap_or_default();
            rest = behind;
            read(value)
        })
    }

    /// The event hash, as far as it can be read.
    pub(crate) fn event_hash(&self) -> Option<EventHash> {
        let at = COLUMNS.iter().position(|name| *name == "event_hash")?;
        self.values().get(at)?.as_blob().ok()?.try_into().ok().map(EventHash::from_bytes)
    }

    /// The seq, where it is one that an event can have.
    pub(crate) fn event_seq(&self) -> Option<Seq> {
        u64::try_from(self.seq).ok().filter(|seq| *seq > 0).map(Seq::new)
    }
}
