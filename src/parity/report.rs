//! What a parity check found.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::event::{EventHash, EventId, Seq, Timestamp};

/// How far a check looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParityKind {
    /// The watermark against the head: O(1).
    Quick,
    /// What is new or changed since a check that found all equal.
    Incremental,
    /// Every line against every row.
    Full,
}

/// Seqs from `first` to `last`, both counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
}

/// Ranges that a report lists at most; the count goes on. A report must be readable, whatever the damage.
const RANGES_LISTED_MAX: usize = 100;
/// Mismatches and findings that a report lists at most.
const LISTED_MAX: usize = 100;

/// A set of seqs, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeqRanges {
    /// How many seqs there are.
    pub count: u64,
    /// The first hundred ranges of them.
    pub ranges: Vec<SeqRange>,
}

impl SeqRanges {
    /// Adds a range behind all others.
    pub(crate) fn push(&mut self, first: Seq, last: Seq) {
        if last < first {
            return;
        }
        self.count += last.get() - first.get() + 1;
        let listed = self.ranges.len();
        match self.ranges.last_mut() {
            Some(range) if range.last.next() == first => range.last = last,
            _ if listed < RANGES_LISTED_MAX => self.ranges.push(SeqRange { first, last }),
            _ => {}
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for SeqRanges {
    /// `none`, or `12 (seq 3, 5 to 15)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(f, "{} (seq ", self.count)?;
        let mut listed = 0;
        for (i, range) in self.ranges.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            listed += range.last.get() - range.first.get() + 1;
            if range.first == range.last {
                write!(f, "{comma}{}", range.first)?
            } else {
                write!(f, "{comma}{} to {}", range.first, range.last)?
            }
        }
        if listed < self.count { write!(f, " and {} more)", self.count - listed) } else { f.write_str(")") }
    }
}

/// An event whose line and row differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Where it stands.
    pub seq: Seq,
    /// Its id, by the ledger.
    pub id: EventId,
    /// Its event hash, by the ledger.
    pub ledger_hash: EventHash,
    /// Its event hash, by the row, as far as it can be read.
    pub row_hash: Option<EventHash>,
    /// Columns that differ.
    pub columns: Vec<&'static str>,
}

/// Something that a check found besides missing and differing events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// There are no segments, though the mirror has events.
    MissingLedger {
        /// Where they were looked for.
        path: PathBuf,
    },
    /// There is no mirror.
    MissingMirror {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The mirror can't be read.
    UnreadableMirror {
        /// Why.
        reason: String,
    },
    /// The mirror can be read, but SQLite finds its file damaged: an index does not fit its table, say.
    DamagedMirror {
        /// What SQLite says.
        reason: String,
    },
    /// A line of the ledger is damaged, or does not link to the one before it.
    BrokenChain {
        /// The segment.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What belongs there.
        seq: Seq,
        /// What is wrong.
        reason: String,
    },
    /// An id stands in the ledger twice.
    DuplicateId {
        /// The id.
        id: EventId,
        /// Where it stands first.
        first: Seq,
        /// Where it stands again.
        second: Seq,
    },
    /// The mirror's watermark is not what its rows or the ledger say.
    WrongWatermark {
        /// What is wrong.
        reason: String,
    },
    /// A row whose seq no event can have.
    StrayRow {
        /// Its seq.
        seq: i64,
    },
    /// A stream's position in a line is not the one that follows the rows before it: a row is wrong, or the line is.
    OtherPosition {
        /// The line.
        seq: Seq,
        /// The stream's last position before it, by the rows.
        rows: u64,
        /// The position in the line.
        found: u64,
    },
    /// The mirror's list of segments, by which a repair would name their files, is not what the ledger has.
    WrongSegments {
        /// What is wrong.
        reason: String,
    },
    /// ledger.json and the mirror disagree on when the store was created. Nothing else depends on it.
    OtherCreation {
        /// What ledger.json says.
        ledger: Timestamp,
        /// What the mirror says.
        mirror: Timestamp,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::MissingLedger { path } => {
                write!(f, "the ledger {} is missing: run `counterfoil repair --from mirror`", path.display())
            }
            Finding::MissingMirror { path } => write!(f, "the mirror {} is missing: run `counterfoil replay`", path.display()),
            Finding::UnreadableMirror { reason } => write!(f, "the mirror can't be read: {reason}"),
            Finding::DamagedMirror { reason } => {
                write!(f, "the mirror's file is damaged: {reason}: run `counterfoil repair --from ledger`")
            }
            Finding::BrokenChain { path, offset, seq, reason } => {
                write!(
                    f,
                    "the chain is broken at seq {seq} ({}, byte {offset}): {reason}: run `counterfoil repair --from mirror`",
                    path.display()
                )
            }
            Finding::DuplicateId { id, first, second } => {
                write!(f, "the ledger has {id} twice, as seq {first} and as seq {second}: restore the ledger from a backup")
            }
            Finding::WrongWatermark { reason } => {
                write!(f, "the mirror's watermark is wrong: {reason}: run `counterfoil repair --from ledger`")
            }
            Finding::WrongSegments { reason } => {
                write!(f, "the mirror's list of segments is wrong: {reason}: run `counterfoil repair --from ledger`")
            }
            Finding::OtherPosition { seq, rows, found } => {
                write!(
                    f,
                    "seq {seq} has session_seq {found}, and the rows before it say that its session was at {rows}: \
                     run `counterfoil verify`, and where it finds every line right, `counterfoil repair --from ledger`"
                )
            }
            Finding::OtherCreation { ledger, mirror } => {
                write!(
                    f,
                    "ledger.json says that the store was created {ledger}, the mirror says {mirror}: run `counterfoil repair --from mirror`, \
                     or `--from ledger` where ledger.json is right"
                )
            }
            Finding::StrayRow { seq } => {
                write!(f, "the mirror has a row with seq {seq}, which no event can have: run `counterfoil repair --from ledger`")
            }
        }
    }
}

/// What a parity check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ParityReport {
    /// How far it looked.
    pub kind: ParityKind,
    /// Right events in the ledger (quick: its last seq; incremental: of those that were read).
    pub jsonl_event_count: u64,
    /// Rows in the mirror (quick: its watermark; incremental: of those that were read).
    pub sqlite_event_count: u64,
    /// Events that an incremental check did not read: an earlier one found them right, and their files are as they were then,
    /// or it was told to leave them for later.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped_count: u64,
    /// Events of those that were read whose payload is erased.
    #[serde(skip_serializing_if = "is_zero")]
    pub erased_count: u64,
    /// Events that an erasure names which is being carried out just now: it has reached one leg and not the other.
    #[serde(skip_serializing_if = "is_zero")]
    pub being_erased_count: u64,
    /// Last seq that the mirror says it has.
    pub mirrored_through: Seq,
    /// Events of the ledger that the mirror lacks.
    pub missing_in_sqlite: SeqRanges,
    /// Rows of the mirror that the ledger lacks.
    pub missing_in_jsonl: SeqRanges,
    /// How many events differ.
    pub mismatched_count: u64,
    /// The first hundred of them.
    pub mismatched: Vec<Mismatch>,
    /// How many other findings there are.
    pub findings_count: u64,
    /// The first hundred of them.
    pub findings: Vec<Finding>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ParityReport {
    pub(crate) fn new(kind: ParityKind) -> ParityReport {
        ParityReport {
            kind,
            jsonl_event_count: 0,
            sqlite_event_count: 0,
            skipped_count: 0,
            erased_count: 0,
            being_erased_count: 0,
            mirrored_through: Seq::ZERO,
            missing_in_sqlite: SeqRanges::default(),
            missing_in_jsonl: SeqRanges::default(),
            mismatched_count: 0,
            mismatched: Vec::new(),
            findings_count: 0,
            findings: Vec::new(),
        }
    }

    /// Whether both legs are equal, as far as the check looked.
    pub fn is_consistent(&self) -> bool {
        self.wrong_count() == 0
    }

    /// Whether the legs differ where they should be equal. Rows that are still to come are no difference.
    pub fn is_mismatched(&self) -> bool {
        let is_behind = self.missing_in_sqlite.ranges.first().is_none_or(|range| range.first > self.mirrored_through);
        !is_behind || !self.missing_in_jsonl.is_empty() || self.mismatched_count > 0 || self.findings_count > 0
    }

    /// How much is wrong.
    pub(crate) fn wrong_count(&self) -> u64 {
        self.missing_in_sqlite.count + self.missing_in_jsonl.count + self.mismatched_count + self.findings_count
    }

    pub(crate) fn mismatch(&mut self, mismatch: Mismatch) {
        self.mismatched_count += 1;
        if self.mismatched.len() < LISTED_MAX {
            self.mismatched.push(mismatch);
        }
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.findings_count += 1;
        if self.findings.len() < LISTED_MAX {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for ParityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ParityKind::Quick => "quick",
            ParityKind::Incremental => "since the last clean check",
            ParityKind::Full => "full",
        };
        writeln!(f, "parity ({kind}): {}", if self.is_consistent() { "consistent" } else { "NOT consistent" })?;
        writeln!(f, "  events in the ledger   {}", self.jsonl_event_count)?;
        writeln!(f, "  rows in the mirror     {}", self.sqlite_event_count)?;
        if self.skipped_count > 0 {
            writeln!(f, "  not read again         {}", self.skipped_count)?;
        }
        if self.erased_count > 0 {
            writeln!(f, "  erased                 {}", self.erased_count)?;
        }
        if self.being_erased_count > 0 {
            writeln!(f, "  being erased just now  {}", self.being_erased_count)?;
        }
        writeln!(f, "  missing in the mirror  {}", self.missing_in_sqlite)?;
        writeln!(f, "  missing in the ledger  {}", self.missing_in_jsonl)?;
        writeln!(f, "  mismatched             {}", self.mismatched_count)?;
        for mismatch in &self.mismatched {
            let row = mismatch.row_hash.map_or("unreadable".to_owned(), |hash| hash.to_string());
            writeln!(f, "    seq {} {} differs in {}", mismatch.seq, mismatch.id, mismatch.columns.join(", "))?;
            writeln!(f, "      ledger {}", mismatch.ledger_hash)?;
            writeln!(f, "      row    {row}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  ! {finding}")?;
        }
        let unlisted = self.findings_count - self.findings.len() as u64 + self.mismatched_count - self.mismatched.len() as u64;
        if unlisted > 0 {
            writeln!(f, "  and {unlisted} more")?;
        }
        if !self.missing_in_sqlite.is_empty() {
            writeln!(f, "  run `counterfoil replay` to bring the mirror up to the ledger")?;
        }
        if !self.missing_in_jsonl.is_empty() {
            writeln!(f, "  run `counterfoil repair --from mirror` to bring back what the ledger has lost")?;
        }
        if self.mismatched_count > 0 {
            writeln!(f, "  run `counterfoil repair --from ledger` to derive the rows that differ anew")?;
        }
        Ok(())
    }
}
