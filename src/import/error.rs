//! What can go wrong with a transcript. No I/O of its own.

use std::io;
use std::path::{Path, PathBuf};

use crate::event::{DraftError, EventId, Seq};
use crate::ledger::LedgerError;

/// Why a transcript can't be imported, or not be written back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The disk said no.
    #[error("{action} {path}: {source}; {advice}", advice = crate::ledger::io_advice(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// A line can't be recorded. What came before it was yielded.
    #[error("{path}, line {line}: {reason}; mend the line, or import with --skip-bad to note it and go on")]
    BadLine {
        /// The transcript.
        path: PathBuf,
        /// Number of the line (of the step, in a trajectory), from 1.
        line: u64,
        /// What is wrong with it.
        reason: BadLine,
    },
    /// The path is no regular file.
    #[error("{path} is not a regular file; name a transcript, or a folder that holds some")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is no SWE-agent trajectory, and was to be read as one.
    #[error(
        "{path}, line {line}: no trajectory: {reason}; a trajectory is one JSON object with a `trajectory` array; try another --format"
    )]
    NotATrajectory {
        /// The file.
        path: PathBuf,
        /// Line at which that showed, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// A trajectory is read whole, and this one is too large for that.
    #[error("{path} has {bytes} bytes, but a trajectory may have at most {max}; split it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        bytes: u64,
        /// Bytes it may have.
        max: u64,
    },
    /// The chain of a Cortex ledger is broken. The whole file is looked at before the first draft: nothing of it is
    /// recorded.
    #[error("{path}, line {line}: {fault}; nothing of the file was recorded; restore it from a copy that verifies, and import that")]
    BrokenChain {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: ChainFault,
    },
    /// A Cortex ledger does not begin with what was adopted of it before. Nothing of it is recorded.
    #[error(
        "{path} is not the ledger that was adopted up to seq {seq}: {difference}; nothing of the file was recorded; \
         `counterfoil export --original DIR` writes what was adopted, to compare"
    )]
    NotAsAdopted {
        /// The file.
        path: PathBuf,
        /// Where the note of that adoption stands.
        seq: Seq,
        /// What is different.
        difference: Difference,
    },
    /// The id of a row is recorded already, but not as a row of this ledger. Nothing of it is recorded.
    #[error(
        "{path}, line {line}: {id} is already recorded as seq {seq}, and not as a row of this ledger; nothing of the file was recorded; \
         adopt it into a store of its own"
    )]
    IdTaken {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// The id.
        id: EventId,
        /// Where it stands.
        seq: Seq,
    },
    /// A Cortex ledger became another one between its check and its import.
    #[error("{path}, line {line}: it was changed while it was read; import it again when nobody rewrites it")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The line at which that showed, from 1.
        line: u64,
    },
    /// The file to export to is there already, with other content (or is no regular file).
    #[error("{path} is already there and is not the same; move it away, or export to another folder")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ImportError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImportError {
        let path = path.to_owned();
        move |source| ImportError::Io { action, path, source }
    }

    /// Whether it is about one bad line, which `skip_bad` would have passed over.
    pub fn is_bad_line(&self) -> bool {
        matches!(self, ImportError::BadLine { .. })
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadLine {
    /// It is longer than `line_bytes_max`.
    #[error("it has {bytes} bytes, but at most {max} are read")]
    TooLong {
        /// Bytes it has.
        bytes: u64,
        /// Bytes it may have.
        max: usize,
    },
    /// It begins with U+FEFF.
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    /// It holds NUL bytes, as files do that lost a write.
    #[error("it holds {count} NUL bytes, the first at byte {at}")]
    Nul {
        /// Where the first one is, from 0.
        at: usize,
        /// How many there are.
        count: usize,
    },
    /// It is not UTF-8.
    #[error("it is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where, from 0.
        at: usize,
    },
    /// It ends within a value.
    #[error("it is incomplete: it ends within a JSON value")]
    Incomplete,
    /// A second value follows the first one.
    #[error("a second value begins at byte {at}: records fused into one line, or bytes after the record")]
    Fused {
        /// Where, from 0.
        at: usize,
    },
    /// It is no JSON.
    #[error("it is not valid JSON: {0}")]
    NotJson(String),
}

impl BadLine {
    /// The same of these bytes, a line without its secrets, which has so many bytes in all.
    pub(crate) fn of(self, core: &[u8], bytes: u64) -> BadLine {
        match self {
            BadLine::TooLong { max, .. } => BadLine::TooLong { bytes, max },
            // What was no text has become one, with a character that stands for what was none.
            BadLine::NotUtf8 { at } => BadLine::NotUtf8 { at: memchr::memmem::find(core, "\u{fffd}".as_bytes()).unwrap_or(at) },
            other => super::scan::check(core).err().unwrap_or(other),
        }
    }
}

/// What is wrong with a row of a Cortex ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// The line is no record.
    #[error(transparent)]
    Line(#[from] BadLine),
    /// The record is none that `crtx-ledger` writes, or could read.
    #[error("it is no row of a Cortex ledger: {0}")]
    NotARow(String),
    /// The payload was changed, or its hash was.
    #[error("payload_hash is {found}, but the payload has {expected}")]
    Payload {
        /// What the row says.
        found: String,
        /// What its payload has.
        expected: String,
    },
    /// The event hash does not follow from the row's two others.
    #[error("event_hash is {found}, but prev_event_hash and payload_hash make {expected}")]
    Event {
        /// What the row says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The row does not continue the one before it: a row is missing, moved or added, or the chain forks here.
    #[error(
        "prev_event_hash is {}, but the row before has {}: a row is missing, added or moved here, or the chain forks",
        or_none(found),
        or_none(expected)
    )]
    Link {
        /// What the row says.
        found: Option<String>,
        /// The event hash of the row before it.
        expected: Option<String>,
    },
    /// The row can't be recorded.
    #[error(transparent)]
    Draft(#[from] DraftError),
}

fn or_none(hash: &Option<String>) -> &str {
    hash.as_deref().unwrap_or("null")
}

/// How a Cortex ledger differs from what was adopted of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// It has fewer rows.
    #[error("it has {rows} rows, but {adopted} were adopted: it was shortened")]
    Shortened {
        /// Rows it has.
        rows: u64,
        /// Rows that were adopted.
        adopted: u64,
    },
    /// Its chain is another one.
    #[error("its row {row} has the event hash {found}, but {adopted} was adopted there: it was rewritten")]
    Head {
        /// The last row that was adopted, from 1.
        row: u64,
        /// The event hash that it has.
        found: String,
        /// The one that it had.
        adopted: String,
    },
    /// Its chain is the same, and its bytes are others.
    #[error(
        "the chain of its first {rows} rows is the same, but not their bytes: what the chain does not cover was changed \
         (an id, a type, a source, a time, tags, a signature, or white space)"
    )]
    Bytes {
        /// How many rows were adopted.
        rows: u64,
    },
}

/// A text that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no transcript format; write claude-code, codex, openhands, swe-agent, cortex or jsonl")]
pub struct FormatError(pub(crate) String);
