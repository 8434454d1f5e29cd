//! The quick and the full check. Both only read, need no lock, and run beside a live writer.

use std::sync::atomic::Ordering;

use super::erasing::Named;
use super::indexes::{SumKey, SumsBeside, is_large, sums};
use super::report::{Finding, Mismatch, ParityKind, ParityReport};
use super::rows::{BEGUN_MAX, Begun, RowSide, is_replaced, replaced, session_seq};
use crate::event::{Event, Seq, line};
use crate::ledger::place::{Expected, Standing, check_blob};
use crate::ledger::stream::{self, Plan, Stream};
use crate::ledger::{Head, LedgerError, LedgerReader, LineFault, Lines, segment};
use crate::mirror::{MirrorError, MirrorReader, Row, bounded_positions, index_check};
use crate::options::Options;

/// Compares the mirror's watermark with the ledger's head, in O(1).
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read. What is wrong with the mirror is in the report.
pub fn quick(reader: &LedgerReader, options: &Options) -> Result<ParityReport, LedgerError> {
    let mut report = ParityReport::new(ParityKind::Quick);
    let head = reader.head()?;
    report.jsonl_event_count = head.seq.get();
    let Ok(mirror) = open(reader, options, &mut report, head.seq) else {
        return Ok(report);
    };
    let mark = match mirror.watermark(reader.manifest().ledger_id) {
        Ok(mark) => mark,
        Err(error) => {
            report.find(Finding::UnreadableMirror { reason: error.to_string() });
            return Ok(report);
        }
    };
    // The mirror comes after the ledger, so where it is ahead of the head just read, the ledger has grown since.
    let head = if mark.seq > head.seq { reader.head()? } else { head };
    report.jsonl_event_count = head.seq.get();
    report.mirrored_through = mark.seq;
    report.sqlite_event_count = mark.seq.get();
    if reader.segments()?.is_empty() && mark.seq > Seq::ZERO {
        report.find(Finding::MissingLedger { path: segment::segments_dir(reader.dir()) });
    }
    report.missing_in_sqlite.push(mark.seq.next(), head.seq);
    report.missing_in_jsonl.push(head.seq.next(), mark.seq);
    if mark.seq > Seq::ZERO && mark.seq <= head.seq {
        // Its offset is a hint: in a segment that something was erased from, the line stands elsewhere.
        match reader.lines_after(&mark)? {
            Some((found, _)) if found.event_hash != mark.event_hash => {
                let (seq, id, ledger_hash) = (mark.seq, found.id, found.event_hash);
                report.mismatch(Mismatch { seq, id, ledger_hash, row_hash: Some(mark.event_hash), columns: vec!["event_hash"] });
            }
            Some(_) => {}
            None => report.find(Finding::WrongWatermark { reason: format!("seq {} is not where it says", mark.seq) }),
        }
    }
    Ok(report)
}

/// Opens the mirror to read; where that fails, why is in the report, and with it what SQLite said.
pub(super) fn open(
    reader: &LedgerReader,
    options: &Options,
    report: &mut ParityReport,
    head: Seq,
) -> Result<MirrorReader, Option<MirrorError>> {
    match MirrorReader::open(reader.dir(), reader.manifest().ledger_id, options.mirror_busy_timeout) {
        Ok(mirror) => Ok(mirror),
        Err(MirrorError::Missing { path }) => {
            report.missing_in_sqlite.push(Seq::FIRST, head);
            report.find(Finding::MissingMirror { path });
            Err(None)
        }
        Err(error) => {
            report.missing_in_sqlite.push(Seq::FIRST, head);
            report.find(Finding::UnreadableMirror { reason: error.to_string() });
            Err(Some(error))
        }
    }
}

/// How many events lie between two calls of `progress`.
const PROGRESS_EVENTS: u64 = 256;

/// Compares every line with every row, byte for byte and in both directions, in constant memory. The ledger is read and
/// decoded on other threads. `through` bounds the check where a writer is at work: to a seq that is durable, since a line behind
/// that may be half written and is not looked at twice. `progress` is called with the number of events that are done, now and
/// then and at the end.
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read. What is wrong with the mirror is in the report.
pub fn full(
    reader: &LedgerReader,
    options: &Options,
    through: Option<Seq>,
    progress: &mut dyn FnMut(u64),
) -> Result<ParityReport, LedgerError> {
    full_by(reader, options, through, &Plan::default(), progress)
}

/// The same by a plan: the report does not depend on it.
#[doc(hidden)]
pub fn full_by(
    reader: &LedgerReader,
    options: &Options,
    through: Option<Seq>,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<ParityReport, LedgerError> {
    full_or_unread(reader, options, through, plan, progress).map(|(report, _)| report)
}

/// The same, and what SQLite said where the mirror could not be read to its end: whether that will pass is for the caller.
pub(super) fn full_or_unread(
    reader: &LedgerReader,
    options: &Options,
    through: Option<Seq>,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<(ParityReport, Option<MirrorError>), LedgerError> {
    let through = through.unwrap_or(Seq::MAX);
    for _ in 0..BEGUN_MAX {
        let mut report = ParityReport::new(ParityKind::Full);
        let mut mirror = match open(reader, options, &mut report, Seq::ZERO) {
            Ok(mirror) => mirror,
            Err(unread) => return lines_only(reader, through, plan, report, progress).map(|report| (report, unread)),
        };
        cancel_with(&mut mirror, plan);
        let unread = match compare(reader, &mirror, through, plan, &mut report, progress) {
            Ok(()) => return Ok((report, None)),
            Err(Failure::Ledger(error)) => return Err(error),
            Err(Failure::Sqlite(source)) => MirrorError::Sqlite { action: "reading", path: mirror.path().to_owned(), source },
            Err(Failure::Mirror(error)) => error,
        };
        if plan.is_cancelled() {
            return Err(stream::cancelled());
        }
        if !is_replaced(&unread) {
            report.find(Finding::UnreadableMirror { reason: unread.to_string() });
            return Ok((report, Some(unread)));
        }
    }
    Err(replaced(reader))
}

/// What is wrong with the lines, where there are no rows to compare them with.
fn lines_only(
    reader: &LedgerReader,
    through: Seq,
    plan: &Plan,
    mut report: ParityReport,
    progress: &mut dyn FnMut(u64),
) -> Result<ParityReport, LedgerError> {
    let mut ledger = LedgerSide::new(reader, through, plan)?;
    while let Some(seq) = ledger.next(&mut report).map_err(Failure::of_ledger)? {
        report.missing_in_sqlite.push(seq, seq);
        if report.jsonl_event_count.is_multiple_of(PROGRESS_EVENTS) {
            progress(report.jsonl_event_count);
        }
    }
    Ok(report)
}

pub(super) enum Failure {
    Ledger(LedgerError),
    Mirror(MirrorError),
    Sqlite(rusqlite::Error),
}

impl Failure {
    /// The same, of a side that asks no rows.
    fn of_ledger(self) -> LedgerError {
        match self {
            Failure::Ledger(error) => error,
            Failure::Mirror(error) => LedgerError::Io { action: "reading", path: "segments".into(), source: std::io::Error::other(error) },
            Failure::Sqlite(error) => LedgerError::Io { action: "reading", path: "segments".into(), source: std::io::Error::other(error) },
        }
    }
}

impl From<MirrorError> for Failure {
    fn from(error: MirrorError) -> Failure {
        Failure::Mirror(error)
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Failure {
        Failure::Ledger(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

fn compare(
    reader: &LedgerReader,
    mirror: &MirrorReader,
    through: Seq,
    plan: &Plan,
    report: &mut ParityReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let begun = Begun::of(mirror, reader)?;
    report.mirrored_through = begun.mirrored();
    let rows = mirror.connection();
    let key = is_large(rows)?.then(SumKey::new);
    let last = begun.last_of(through);
    let beside = key.filter(|_| plan.threads > 0).and_then(|key| SumsBeside::begin(mirror, last, key, plan));
    let mut ledger = LedgerSide::new(reader, through, plan)?;
    let mut segments = Vec::new();
    let mut row_side = RowSide::new(mirror, &begun, (i64::MIN, through), key, plan);
    compare_rows(rows, &mut row_side, &mut ledger, &mut segments, report, progress)?;
    let must_have = row_side.sums();
    drop(row_side);
    if report.jsonl_event_count == 0 && report.sqlite_event_count > 0 && reader.segments()?.is_empty() {
        report.find(Finding::MissingLedger { path: segment::segments_dir(reader.dir()) });
    }
    if through == Seq::MAX {
        check_mark(reader, begun.mark, report);
    }
    let is_summed = match (key, beside.map(SumsBeside::end)) {
        (Some(_), Some(Ok(has))) => has == must_have,
        // It could not be done beside, for whatever reason.
        (Some(key), _) => sums(rows, last, &key, &|| plan.is_cancelled()).is_ok_and(|has| has == must_have),
        (None, _) => false,
    };
    let damage = if is_summed { None } else { index_check(rows)? };
    begun.mirrored_now(mirror)?;
    check_segments_and_creation(reader, mirror, begun, &segments, through, report)?;
    if let Some(reason) = damage {
        report.find(Finding::DamagedMirror { reason });
    }
    Ok(())
}

/// SQLite's own steps are not to hold up a check that was cancelled.
pub(super) fn cancel_with(mirror: &mut MirrorReader, plan: &Plan) {
    if let Some(cancelled) = plan.cancelled.clone() {
        mirror.stop_when(move || cancelled.load(Ordering::Relaxed));
    }
}

/// Compares the lines of one side with the rows of the other. Adds to `segments` what the ledger has of them. `conn` is the mirror's.
pub(super) fn compare_rows(
    conn: &rusqlite::Connection,
    rows: &mut RowSide<'_>,
    ledger: &mut LedgerSide<'_>,
    segments: &mut Vec<(Seq, Seq)>,
    report: &mut ParityReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let mirrored = report.mirrored_through;
    let mut scratch = Vec::new();
    let mut line_seq = ledger.next(report)?;
    let mut row_seq = next_row(rows, report)?;
    loop {
        if let Some(seq) = line_seq.filter(|seq| *seq <= mirrored) {
            match segments.last_mut() {
                Some((first, last)) if *first == ledger.segment() => *last = seq,
                _ => segments.push((ledger.segment(), seq)),
            }
        }
        match (line_seq, row_seq) {
            (None, None) => break,
            (Some(line), row) if row.is_none_or(|row| line < row) => {
                missing_row(conn, ledger, line, report)?;
                line_seq = ledger.next(report)?;
            }
            (line, Some(row)) if line.is_none_or(|line| row < line) => {
                if row > mirrored && row <= rows.mirrored() {
                    // Its line came after the ledger was read, and it with that.
                    report.sqlite_event_count -= 1;
                } else {
                    report.missing_in_jsonl.push(row, row);
                }
                row_seq = next_row(rows, report)?;
            }
            _ => {
                compare_row(conn, rows, ledger, &mut scratch, report);
                line_seq = ledger.next(report)?;
                row_seq = next_row(rows, report)?;
            }
        }
        if report.jsonl_event_count.is_multiple_of(PROGRESS_EVENTS) {
            progress(report.jsonl_event_count + report.skipped_count);
        }
    }
    progress(report.jsonl_event_count + report.skipped_count);
    Ok(())
}

/// The seq of the next row that may have one. Others go into the report.
fn next_row(rows: &mut RowSide<'_>, report: &mut ParityReport) -> Result<Option<Seq>, MirrorError> {
    while rows.advance()? {
        report.sqlite_event_count += 1;
        let Some(row) = rows.current() else { break };
        match row.event_seq() {
            None => report.find(Finding::StrayRow { seq: row.seq }),
            seq => return Ok(seq),
        }
    }
    Ok(None)
}

/// Compares a line and the row of the same seq.
fn compare_row(conn: &rusqlite::Connection, rows: &RowSide<'_>, ledger: &LedgerSide<'_>, scratch: &mut Vec<u8>, report: &mut ParityReport) {
    let Some(row) = rows.current().filter(|row| !row.is_of(ledger.line(), scratch)) else {
        return;
    };
    let Some(event) = ledger.event() else {
        return;
    };
    let columns = row.differing(&event);
    if columns.iter().all(|column| matches!(*column, "payload" | "blob" | "erased"))
        && ledger.named.is_being_erased(conn, &ledger.reader, &event)
    {
        report.being_erased_count += 1;
        return;
    }
    report.mismatch(Mismatch { seq: event.seq, id: event.id, ledger_hash: event.event_hash, row_hash: row.event_hash(), columns });
}

/// What the mirror knows besides events: the segments up to its watermark, and when the store was created.
pub(super) fn check_segments_and_creation(
    reader: &LedgerReader,
    mirror: &MirrorReader,
    begun: Begun,
    ledger: &[(Seq, Seq)],
    through: Seq,
    report: &mut ParityReport,
) -> Result<(), MirrorError> {
    let created_at = mirror.manifest()?.created_at;
    if created_at != reader.manifest().created_at {
        report.find(Finding::OtherCreation { ledger: reader.manifest().created_at, mirror: created_at });
    }
    // Where lines are missing or wrong, so are the segments that they would make.
    if !report.is_consistent() || through < report.mirrored_through {
        return Ok(());
    }
    let known = begun.segments?;
    if known != ledger {
        let wrong = known.iter().zip(ledger).find(|(known, ledger)| known != ledger);
        let reason = match wrong {
            Some(((first, last), (ledger_first, ledger_last))) => {
                format!("it has one from seq {first} to {last} where the ledger has one from {ledger_first} to {ledger_last}")
            }
            None => format!("it has {} where the ledger has {}", known.len(), ledger.len()),
        };
        report.find(Finding::WrongSegments { reason });
    }
    Ok(())
}

pub(super) fn check_mark(reader: &LedgerReader, mark: Option<crate::ledger::Watermark>, report: &mut ParityReport) {
    let wrong = match mark {
        None => Some("it can't be read".to_owned()),
        Some(mark) if mark.seq == Seq::ZERO => None,
        Some(mark) => match reader.line(mark.seq) {
            Ok(Some(bytes)) => line::decode(&bytes)
                .is_ok_and(|event| event.event_hash != mark.event_hash)
                .then(|| format!("its hash at seq {} is not the ledger's", mark.seq)),
            // A line that is missing or damaged has been told already, if there is a row for it.
            _ => report.is_consistent().then(|| format!("the ledger has no seq {}", mark.seq)),
        },
    };
    if let Some(reason) = wrong {
        report.find(Finding::WrongWatermark { reason });
    }
}

/// A line without a row: lost, or kept out since its id stands elsewhere.
fn missing_row(snapshot: &rusqlite::Connection, ledger: &LedgerSide<'_>, seq: Seq, report: &mut ParityReport) -> Result<(), Failure> {
    report.missing_in_sqlite.push(seq, seq);
    let Some(event) = ledger.event() else {
        return Ok(());
    };
    let mut by_id = snapshot.prepare_cached("SELECT seq FROM events WHERE id = ?1")?;
    let mut found = by_id.query([event.id.to_string()])?;
    if let Some(row) = found.next()?
        && let Ok(other) = Row(row).seq()
        && other < seq
        && let Some(bytes) = ledger.reader.line(other)?
        && line::decode(&bytes).is_ok_and(|first| first.id == event.id)
    {
        report.find(Finding::DuplicateId { id: event.id, first: other, second: seq });
    }
    Ok(())
}

/// The lines of the ledger, checked as a chain.
pub(super) struct LedgerSide<'s> {
    lines: Stream,
    place: Place,
    until: Until,
    reader: LedgerReader,
    /// The rows, which say where streams stand that began before the first line that was read.
    rows: Option<&'s rusqlite::Connection>,
    /// Where the last right line begins in its segment.
    right_at: Option<u64>,
    /// The last line was from behind its end.
    is_beyond: bool,
    /// What erasures name, where that was asked.
    pub(super) named: Named,
}

/// What belongs next, and where the reading that came to it began: nothing is known of streams from before.
pub(super) struct Place {
    pub expected: Expected,
    pub since: Seq,
}

impl Place {
    /// Behind this head.
    pub(super) fn after(head: Head, plan: &Plan) -> Place {
        Place { expected: Expected::keeping(head, bounded_positions(plan.positions_max)), since: head.seq }
    }
}

/// Where a side ends.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// With this seq, or where the ledger ends.
    Seq(Seq),
    /// With the cursor, whose lines are a sealed segment's: up to this seq. A line behind that is a wrong one.
    End(Seq),
}

impl<'s> LedgerSide<'s> {
    fn new(reader: &LedgerReader, through: Seq, plan: &Plan) -> Result<LedgerSide<'s>, LedgerError> {
        let genesis = Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() };
        Ok(LedgerSide::at(reader, reader.lines_from(Seq::FIRST)?, Place::after(genesis, plan), Until::Seq(through), plan))
    }

    /// Lines from where the cursor is, which is at this place.
    pub(super) fn at(reader: &LedgerReader, cursor: Lines, place: Place, until: Until, plan: &Plan) -> LedgerSide<'s> {
        let through = if let Until::Seq(through) = until { through } else { Seq::MAX };
        let lines = Stream::new(cursor, through, plan.clone());
        LedgerSide { lines, place, until, reader: reader.clone(), rows: None, right_at: None, is_beyond: false, named: Named::default() }
    }

    /// The same, where streams that began before its place stand as the rows say.
    pub(super) fn trusting(mut self, rows: &'s rusqlite::Connection) -> LedgerSide<'s> {
        self.rows = Some(rows).filter(|_| self.place.since > Seq::ZERO);
        self
    }

    /// The last event that was right.
    pub(super) fn head(&self) -> Head {
        self.place.expected.head()
    }

    /// What belongs behind what was read.
    pub(super) fn into_place(self) -> Place {
        self.place
    }

    /// The seq of the next right line. What is wrong with others goes into the report.
    fn next(&mut self, report: &mut ParityReport) -> Result<Option<Seq>, Failure> {
        let expected = &mut self.place.expected;
        let (Until::Seq(through) | Until::End(through)) = self.until;
        while expected.head().seq < through || matches!(self.until, Until::End(_)) {
            if !self.lines.advance()? {
                return Ok(None);
            }
            let Some(found) = self.lines.current() else {
                return Ok(None);
            };
            if !found.raw.terminated && found.active {
                // Unfinished: a writer is at it, or the next open cuts it. Verify tells which.
                return Ok(None);
            }
            let broken = |seq: Seq, fault: LineFault| Finding::BrokenChain {
                path: found.path(self.reader.dir()),
                offset: found.raw.offset,
                seq,
                reason: fault.to_string(),
            };
            let seq = expected.head().seq.next();
            let event = match found.decoded {
                Ok(event) => event,
                Err(error) => {
                    report.find(broken(seq, found.fault(error.clone())));
                    expected.lose_line();
                    continue;
                }
            };
            if event.seq > through && !found.active {
                // It has no place here, nor have those that follow it: one finding tells.
                if !std::mem::replace(&mut self.is_beyond, true) {
                    report.find(broken(seq, LineFault::Seq { expected: seq, found: event.seq }));
                }
                continue;
            }
            self.is_beyond = false;
            if event.seq > seq && event.seq <= through {
                report.find(broken(seq, LineFault::Seq { expected: seq, found: event.seq }));
                expected.lose_lines_before(event.seq);
            }
            let wrong = at_its_place(expected, event, Base::of(self.rows, self.place.since, found.raw.bytes), report)?;
            let wrong = match wrong {
                None if event.is_plain => None,
                None => match line::decode_again(found.raw.bytes) {
                    Ok(event) => check_blob(self.reader.storage(), self.reader.dir(), &event)?,
                    Err(error) => Some(error.into()),
                },
                fault => fault,
            };
            match wrong {
                None => {
                    report.jsonl_event_count += 1;
                    report.erased_count += u64::from(!event.is_plain && found.raw.bytes.ends_with(b",\"erased\":true}"));
                    self.right_at = Some(found.raw.offset);
                    return Ok(Some(event.seq));
                }
                Some(fault) => {
                    report.find(broken(event.seq, fault));
                    if event.seq >= seq {
                        expected.step_over(event)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// The line, without its LF.
    fn line(&self) -> &[u8] {
        self.lines.current().map_or(&[], |found| found.raw.bytes)
    }

    /// Where the last right line begins; nothing where there was none.
    pub(super) fn offset(&self) -> Option<u64> {
        self.right_at
    }

    /// First seq of the segment that the line is in, by the name of its file.
    fn segment(&self) -> Seq {
        self.lines.current().map_or(Seq::ZERO, |found| found.segment)
    }

    fn event(&self) -> Option<Event<'_>> {
        line::decode_again(self.line()).ok()
    }
}

/// What is wrong with an event at its place. A row that says otherwise of its stream goes into the report.
fn at_its_place(
    expected: &mut Expected,
    event: &Standing,
    mut base: Base<'_>,
    report: &mut ParityReport,
) -> Result<Option<LineFault>, Failure> {
    let wrong = expected.check_standing(event, &mut || base.position())?;
    if let Some(error) = base.failed {
        return Err(error.into());
    }
    match wrong {
        Some(LineFault::SessionSeq { expected: position, found }) if base.is_by_row => {
            // Nothing in the ledger says so: its lines are right as far as they were read.
            report.find(Finding::OtherPosition { seq: event.seq, rows: position - 1, found });
            expected.step_over(event)?;
            Ok((!event.payload_is_right).then_some(LineFault::Payload))
        }
        wrong => Ok(wrong),
    }
}

/// Where the stream of a line stood when the reading began.
struct Base<'b> {
    rows: Option<&'b rusqlite::Connection>,
    since: Seq,
    line: &'b [u8],
    /// A row was asked.
    is_by_row: bool,
    failed: Option<rusqlite::Error>,
}

impl<'b> Base<'b> {
    fn of(rows: Option<&'b rusqlite::Connection>, since: Seq, line: &'b [u8]) -> Base<'b> {
        Base { rows, since, line, is_by_row: false, failed: None }
    }

    fn position(&mut self) -> Option<u64> {
        let Some(rows) = self.rows else {
            return Some(0);
        };
        self.is_by_row = true;
        let event = line::decode_again(self.line).ok()?;
        match session_seq(rows, event.session_id()?, event.session_seq()?, self.since) {
            Ok(position) => u64::try_from(position).ok(),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }
}
