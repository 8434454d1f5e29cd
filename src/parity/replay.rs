//! Replay: brings the mirror up to the ledger, in bounded transactions that keep rows and watermark together.
//!
//! Idempotent and resumable: stopped anywhere, it goes on from the watermark. It fails closed: a row that
//! conflicts ends it, and nothing of the transaction that met it stays. A writer: the caller holds the lock.

use serde::Serialize;

use crate::event::{Seq, line};
use crate::failpoint;
use crate::ledger::place::{Expected, check_blob};
use crate::ledger::stream::{Plan, Stream};
use crate::ledger::{Head, LedgerError, LedgerReader, LineFault, Lines, Lookup, segment};
use crate::mirror::{Insertion, Mirror, MirrorError, bounded_positions};

/// Lines of one step at most: some 30 ms of work, so that other messages interleave.
const STEP_EVENTS_MAX: usize = 4096;
/// Bytes of one step at most, so that long lines don't pile up in memory (one line may exceed it alone).
const STEP_BYTES_MAX: usize = 8 << 20;

/// Why a replay ended early. The transaction that met the cause was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The ledger can't be read, or a line below its head is wrong.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The mirror can't be written, or a row conflicts.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl ReplayError {
    /// Whether it may pass by itself: the mirror can't be written just now, or the ledger's file not read.
    #[cfg(feature = "actors")]
    pub(crate) fn passes(&self) -> bool {
        match self {
            ReplayError::Ledger(error) => matches!(error, LedgerError::Io { .. }),
            ReplayError::Mirror(error) => error.fault() == crate::mirror::MirrorFault::Passing,
        }
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Rows that were written.
    pub replayed: u64,
    /// Rows that were there already, as they should be.
    pub skipped_existing: u64,
    /// Last seq that was looked at.
    pub through: Seq,
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStep {
    /// Another step is needed.
    More,
    /// The mirror has everything up to where the replay was to go.
    Done,
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    reader: LedgerReader,
    lines: Stream,
    expected: Expected,
    /// Where it began: streams from before that are looked up in the mirror.
    start: Seq,
    through: Seq,
    report: ReplayReport,
    buffer: Vec<u8>,
}

struct Found {
    seq: Seq,
    segment: Seq,
    offset: u64,
    from: usize,
    to: usize,
}

impl Replay {
    /// Replays what lies behind the mirror's watermark, up to `through`. Costs what is missing, not what is there.
    ///
    /// # Errors
    /// [`ReplayError`]; among others where the ledger's line at the watermark is not the mirror's.
    pub fn from_watermark(reader: &LedgerReader, mirror: &Mirror, through: Seq) -> Result<Replay, ReplayError> {
        let mark = mirror.watermark();
        if mark.seq == Seq::ZERO {
            return Replay::from_start(reader, through);
        }
        let head = Head { seq: mark.seq, event_hash: mark.event_hash };
        if let Some((found, lines)) = reader.lines_after(&mark)? {
            if found.event_hash != mark.event_hash {
                return Err(MirrorError::Conflict {
                    path: mirror.path().to_owned(),
                    seq: mark.seq,
                    id: found.id,
                    ledger: found.event_hash,
                    row: format!("{} at its watermark", mark.event_hash),
                }
                .into());
            }
            return Ok(Replay::new(reader, lines, head, through));
        }
        let reason = LineFault::Seq { expected: mark.seq, found: reader.head()?.seq };
        Err(LedgerError::Damaged { path: segment::segment_path(reader.dir(), mark.segment), offset: mark.offset, reason }.into())
    }

    /// Replays from the first event on: finds holes below the watermark too, and compares every row that is there.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn from_start(reader: &LedgerReader, through: Seq) -> Result<Replay, ReplayError> {
        let genesis = Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() };
        Ok(Replay::new(reader, reader.lines_from(Seq::FIRST)?, genesis, through))
    }

    fn new(reader: &LedgerReader, lines: Lines, head: Head, through: Seq) -> Replay {
        let report = ReplayReport { through: head.seq, ..ReplayReport::default() };
        let plan = Plan::default();
        let expected = Expected::keeping(head, bounded_positions(plan.positions_max));
        let lines = Stream::new(lines, through, plan);
        Replay { reader: reader.clone(), lines, expected, start: head.seq, through, report, buffer: Vec::new() }
    }

    /// What it has done so far.
    pub fn report(&self) -> ReplayReport {
        self.report
    }

    /// Where it is to go.
    pub fn through(&self) -> Seq {
        self.through
    }

    /// Lets it go further: the ledger has grown.
    pub fn extend(&mut self, through: Seq) {
        self.through = self.through.max(through);
        self.lines.extend(through);
    }

    /// One bounded step, in one transaction.
    ///
    /// # Errors
    /// [`ReplayError`]; the replay must be made anew after one.
    pub fn step(&mut self, mirror: &mut Mirror) -> Result<ReplayStep, ReplayError> {
        let found = self.read(mirror)?;
        if found.is_empty() {
            return Ok(ReplayStep::Done);
        }
        mirror.at(failpoint::REPLAY_STEP)?;
        let mut report = self.report;
        let mut batch = mirror.begin()?;
        for Found { seq, segment, offset, from, to } in found {
            // It has been decoded, so it is text.
            let line = self.buffer.get(from..to).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
            match batch.insert_line(line, seq, segment, offset)? {
                Insertion::Inserted => report.replayed += 1,
                Insertion::AlreadyPresent => report.skipped_existing += 1,
            }
            report.through = seq;
        }
        batch.commit()?;
        mirror.see_to_wal();
        self.report = report;
        Ok(if self.report.through < self.through { ReplayStep::More } else { ReplayStep::Done })
    }

    /// Runs all steps that are left. `progress` is called with what has been done.
    ///
    /// # Errors
    /// As [`Replay::step`].
    pub fn run(mut self, mirror: &mut Mirror, progress: &mut dyn FnMut(ReplayReport)) -> Result<ReplayReport, ReplayError> {
        while self.step(mirror)? == ReplayStep::More {
            progress(self.report);
        }
        Ok(self.report)
    }

    /// Reads and checks the lines of one step.
    fn read(&mut self, mirror: &mut Mirror) -> Result<Vec<Found>, ReplayError> {
        self.buffer.clear();
        let mut list = Vec::new();
        while list.len() < STEP_EVENTS_MAX && self.buffer.len() < STEP_BYTES_MAX && self.expected.head().seq < self.through {
            let expected_seq = self.expected.head().seq.next();
            let Some(found) = (if self.lines.advance()? { self.lines.current() } else { None }) else {
                let reason = LineFault::Seq { expected: expected_seq, found: Seq::ZERO };
                let path = self.reader.segments()?.last().map(|segment| segment.path.clone()).unwrap_or_default();
                return Err(LedgerError::Damaged { path, offset: 0, reason }.into());
            };
            let (reader, bytes, start) = (&self.reader, found.raw.bytes, self.start);
            let wrong = match found.decoded {
                Err(error) => Some(error.clone().into()),
                Ok(event) => {
                    let session_id = || line::decode_again(bytes).ok()?.session_id().map(str::to_owned);
                    let mut base = || match start {
                        Seq::ZERO => Some(0),
                        _ => mirror.session_seq(&session_id()?).ok().map(Option::unwrap_or_default),
                    };
                    match self.expected.check_standing(event, &mut base)? {
                        None if event.is_plain => None,
                        None => match line::decode_again(bytes) {
                            Ok(event) => check_blob(reader.storage(), reader.dir(), &event)?,
                            Err(error) => Some(error.into()),
                        },
                        fault => fault,
                    }
                }
            };
            if let Some(reason) = wrong {
                let (path, reason) = (found.path(reader.dir()), found.fault(reason));
                return Err(LedgerError::Damaged { path, offset: found.raw.offset, reason }.into());
            }
            let from = self.buffer.len();
            self.buffer.extend_from_slice(bytes);
            list.push(Found { seq: expected_seq, segment: found.segment, offset: found.raw.offset, from, to: self.buffer.len() });
        }
        Ok(list)
    }
}
