//! Adopting a Cortex ledger as a whole: the check that comes before the first draft, and the comparison with what was
//! adopted before. Called by the reader. Reads, and never writes.
//!
//! Memory does not grow with the file: which ids were there is kept in a temporary database that SQLite removes by itself.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::TAG_LAYOUT;
use super::canonical::shortened;
use super::cortex::{Chain, Row};
use super::error::{BadLine, ChainFault, Difference, ImportError};
use super::layout::{CortexHead, LayoutNote};
use super::object::Object;
use super::reader::{Settings, redact};
use super::scan::{self, RawLine, Scanner};
use crate::event::{EventId, EventType, Limits, Payload, Seq};
use crate::ledger::LedgerReader;
use crate::redact::Redactor;

/// Bytes that a header may have beside the row that is its payload; see [`Settings::line_bytes_max`].
const HEADER_BYTES: usize = 64 << 10;

/// A Cortex ledger whose chain has been followed to its end.
#[derive(Debug)]
pub(crate) struct Adoption {
    /// What will be noted of it.
    pub head: Option<CortexHead>,
    /// Its bytes when it was checked. What is written behind them meanwhile is left for the next import.
    pub bytes: u64,
    /// BLAKE3 of these bytes.
    pub blake3: blake3::Hash,
    ids: SeenIds,
    /// Checked once more, as the rows become drafts.
    chain: Chain,
}

impl Adoption {
    /// Follows the chain of a whole file, and leaves the file at its beginning.
    pub fn check(path: &Path, file: &File, own_tags: &[&str], settings: &Settings) -> Result<Adoption, ImportError> {
        let (reading, failed) = (|| ImportError::io("reading", path), |error| ImportError::io("comparing the ids of", path)(error));
        let mut rewound = file.try_clone().map_err(reading())?;
        let mut scanner = Scanner::new(file.try_clone().map_err(reading())?, u64::MAX, settings.line_bytes_max);
        let (mut chain, mut ids) = (Chain::default(), SeenIds::open().map_err(failed)?);
        let (mut signed, mut left_out, mut repeated_ids) = (0, 0, 0);
        while let Some(line) = scanner.next().map_err(reading())? {
            let broken = |fault| ImportError::BrokenChain { path: path.to_owned(), line: line.number, fault };
            let Some(record) = record(&line, settings).map_err(broken)? else { continue };
            let redacted = settings.redacts().and_then(|redactor| redact(Some(redactor), record));
            let recorded = redacted.as_ref().map_or(record, |redacted| redacted.json.as_str());
            let row = chain.follow(record, settings.redacts().map(|redactor| (redactor, recorded))).map_err(broken)?;
            let is_repeated = !ids.insert(row.id, line.number).map_err(failed)?;
            (signed, left_out, repeated_ids) =
                (signed + u64::from(row.is_signed), left_out + row.left_out, repeated_ids + u64::from(is_repeated));
            // So that no row is found to be too long once others are recorded.
            let limits = Limits { line_bytes_max: settings.line_bytes_max.saturating_add(HEADER_BYTES), redactor: None };
            let id = row.id;
            let draft = row.draft(id, own_tags, Payload::from_valid(record.to_owned()));
            draft.check(&limits).map_err(|error| broken(ChainFault::Draft(error)))?;
        }
        rewound.rewind().map_err(reading())?;
        let rows = chain.rows;
        let head =
            chain.head.map(|head| CortexHead { head, rows, signed, repeated_ids, left_out, original_bytes: None, original_blake3: None });
        Ok(Adoption { head, bytes: scanner.bytes(), blake3: scanner.hash(), ids, chain: Chain::default() })
    }

    /// The row that this line is, checked again, and whether a line before it has its id. `recorded`: see [`Chain::follow`].
    pub fn row(
        &mut self,
        path: &Path,
        line: &RawLine<'_>,
        record: &str,
        recorded: Option<(&dyn Redactor, &str)>,
    ) -> Result<(Row, bool), ImportError> {
        let changed = || ImportError::Changed { path: path.to_owned(), line: line.number };
        let row = self.chain.follow(record, recorded).map_err(|_| changed())?;
        let repeats = self.head.as_ref().is_some_and(|head| head.repeated_ids > 0);
        let first = if repeats { self.ids.first_line(row.id).map_err(ImportError::io("comparing the ids of", path))? } else { None };
        Ok((row, first.is_some_and(|first| first < line.number)))
    }

    /// Whether what was read in the end is what was checked.
    pub fn is_whole(&self, scanner: &Scanner) -> bool {
        scanner.bytes() == self.bytes && scanner.hash() == self.blake3
    }

    /// Compares it with what was adopted under this tag before, and with all other ids.
    pub fn compare(&self, path: &Path, tag: &str, ledger: &LedgerReader) -> Result<(), ImportError> {
        let Some((seq, note)) = self.look_through(path, tag, ledger)? else { return Ok(()) };
        let Some(adopted) = note.cortex else { return Ok(()) };
        let rows = self.head.as_ref().map_or(0, |head| head.rows);
        let different = |difference| Err(ImportError::NotAsAdopted { path: path.to_owned(), seq, difference });
        if rows < adopted.rows {
            return different(Difference::Shortened { rows, adopted: adopted.rows });
        }
        let (bytes, blake3) = (adopted.original_bytes.unwrap_or(note.bytes), adopted.original_blake3.unwrap_or(note.blake3));
        if hash_of_beginning(path, bytes)?.to_hex().as_str() == blake3 {
            return Ok(());
        }
        let found = event_hash_at(path, adopted.rows)?;
        if found == adopted.head {
            return different(Difference::Bytes { rows: adopted.rows });
        }
        different(Difference::Head { row: adopted.rows, found, adopted: adopted.head })
    }

    /// The note of the most rows that were adopted under this tag. An error where an event that is none of them has the id of
    /// a row.
    fn look_through(&self, path: &Path, tag: &str, ledger: &LedgerReader) -> Result<Option<(Seq, LayoutNote)>, ImportError> {
        let tag_json = format!("\"{tag}\"");
        let tag_finder = memchr::memmem::Finder::new(&tag_json);
        let mut found: Option<(Seq, LayoutNote)> = None;
        let mut lines = ledger.lines_from(Seq::FIRST)?;
        while let Some((line, event)) = lines.next_event()? {
            let tags = tag_finder.find(line.raw.bytes).map(|_| event.domain_tags()).unwrap_or_default();
            if !tags.iter().any(|one| one == tag) {
                let taken = self.ids.first_line(event.id).map_err(ImportError::io("comparing the ids of", path))?;
                if let Some(line) = taken {
                    return Err(ImportError::IdTaken { path: path.to_owned(), line, id: event.id, seq: event.seq });
                }
                continue;
            }
            if event.event_type != EventType::SYSTEM_NOTE.as_str() || !tags.iter().any(|one| one == TAG_LAYOUT) {
                continue;
            }
            let Some(note) = event.payload().and_then(LayoutNote::from_payload) else { continue };
            let rows = |note: &LayoutNote| note.cortex.as_ref().map(|cortex| cortex.rows);
            if rows(&note) > found.as_ref().and_then(|(_, note)| rows(note)) {
                found = Some((event.seq, LayoutNote { layout: Vec::new(), ..note }));
            }
        }
        Ok(found)
    }
}

/// The record of a line; nothing where it is blank.
fn record<'a>(line: &RawLine<'a>, settings: &Settings) -> Result<Option<&'a str>, ChainFault> {
    if line.len > line.bytes.len() as u64 {
        return Err(BadLine::TooLong { bytes: line.len, max: settings.line_bytes_max }.into());
    }
    let core = line.parts().core;
    if core.is_empty() { Ok(None) } else { Ok(Some(scan::check(core)?)) }
}

fn hash_of_beginning(path: &Path, bytes: u64) -> Result<blake3::Hash, ImportError> {
    let (file, _) = scan::open(path)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(bytes)).map_err(ImportError::io("reading", path))?;
    Ok(hasher.finalize())
}

/// What a row says is its event hash, for a message.
fn event_hash_at(path: &Path, row: u64) -> Result<String, ImportError> {
    let (file, _) = scan::open(path)?;
    let mut scanner = Scanner::new(file, u64::MAX, super::format::AHEAD_LINE_BYTES_MAX);
    let mut rows = 0;
    while let Some(line) = scanner.next().map_err(ImportError::io("reading", path))? {
        let core = line.parts().core;
        rows += u64::from(!core.is_empty());
        if rows == row {
            let fields = std::str::from_utf8(core).ok().and_then(Object::parse);
            return Ok(fields.and_then(|fields| fields.text("event_hash")).map(|hash| shortened(&hash)).unwrap_or_default());
        }
    }
    Ok(String::new())
}

/// Which ids were there, and in which line first.
#[derive(Debug)]
struct SeenIds {
    conn: Connection,
    min: EventId,
    max: EventId,
}

impl SeenIds {
    fn open() -> io::Result<SeenIds> {
        // No name: a file of its own under the system's temporary directory, once it is too large for the cache.
        let open = || {
            let conn = Connection::open("")?;
            conn.execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -8192; PRAGMA locking_mode = EXCLUSIVE;
                 CREATE TABLE ids (high INTEGER, low INTEGER, line INTEGER NOT NULL, PRIMARY KEY (high, low)) WITHOUT ROWID;
                 BEGIN",
            )?;
            Ok(conn)
        };
        let conn = open().map_err(io::Error::other::<rusqlite::Error>)?;
        Ok(SeenIds { conn, min: EventId::from_u128(u128::MAX), max: EventId::from_u128(0) })
    }

    /// Whether the id is new.
    fn insert(&mut self, id: EventId, line: u64) -> io::Result<bool> {
        (self.min, self.max) = (self.min.min(id), self.max.max(id));
        let (high, low) = halves(id);
        let inserted = self
            .conn
            .prepare_cached("INSERT OR IGNORE INTO ids VALUES (?1, ?2, ?3)")
            .and_then(|mut insert| insert.execute(params![high, low, line.cast_signed()]));
        inserted.map(|rows| rows > 0).map_err(io::Error::other)
    }

    /// The first line with that id.
    fn first_line(&self, id: EventId) -> io::Result<Option<u64>> {
        // Ids begin with a time, so that those of most other events are told by that alone.
        if id < self.min || id > self.max {
            return Ok(None);
        }
        let (high, low) = halves(id);
        let first = self
            .conn
            .prepare_cached("SELECT line FROM ids WHERE high = ?1 AND low = ?2")
            .and_then(|mut find| find.query_row([high, low], |row| row.get::<_, i64>(0)).optional());
        Ok(first.map_err(io::Error::other)?.map(i64::cast_unsigned))
    }
}

fn halves(id: EventId) -> (i64, i64) {
    let id = id.as_u128();
    (((id >> 64) as u64).cast_signed(), (id as u64).cast_signed())
}
