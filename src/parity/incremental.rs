//! The incremental check: reads what is new or changed since a check that found all equal, byte for byte as the full one does.
//!
//! A sealed segment that was read whole and found right, with its rows, is left out as long as its file is the one it was (device,
//! inode, length, times of its last change) and it still stands in the same place of the chain. The active segment is read from
//! behind the last line that was found right. So it does not see rot in place that leaves a file's length and times as they were, a
//! change of rows that were found right, nor what was changed in the part of the active segment that was read: for that there are
//! `verify` and the full check, which leave nothing out.

use std::collections::BTreeMap;
use std::io;

use super::check::{Failure, LedgerSide, Place, Until, cancel_with, check_mark, check_segments_and_creation, compare_rows, open};
use super::report::{Finding, ParityKind, ParityReport};
use super::rows::{BEGUN_MAX, Begun, RowSide, is_replaced, replaced};
use crate::event::{Seq, Timestamp};
use crate::ledger::stream::{self, Plan};
use crate::ledger::{FileIdentity, Head, LedgerError, LedgerReader, Lines, Segment, Watermark, segment};
use crate::mirror::{Checked, MirrorError, MirrorReader, keep_checked};
use crate::options::Options;

/// Rows without a line that are looked up in one read transaction.
const SEQS_MAX: usize = 4096;

/// Compares what is new or changed since it was found equal. Of sealed segments at most `sealed_max` are read, the oldest first;
/// the rest is left for later. The first check reads everything. It does not see rot in place that leaves a file's length and
/// times as they were, nor a change of what was found right: of rows, or of the part of the active segment that was read.
/// [`verify`](crate::verify()) and [`parity_full`](crate::parity_full) leave nothing out. `through` and `progress` are as with the
/// full check.
///
/// What was found right is kept in the mirror, for which the store's lock is taken for a moment. Where that is held (by a
/// writer, or by the caller's own open store), or the mirror can't be written just now, nothing is kept, and is read again.
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read. What is wrong with the mirror is in the report.
pub fn incremental(
    reader: &LedgerReader,
    options: &Options,
    through: Option<Seq>,
    sealed_max: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<ParityReport, LedgerError> {
    let part = Part { through: through.unwrap_or(Seq::MAX), sealed_max, behind: Seq::ZERO };
    let done = incremental_by(reader, options, part, &Plan::default(), progress)?;
    if let Some(kept) = done.to_keep
        && let Err(error) = keep_checked(reader, options.mirror_busy_timeout, &kept)
    {
        tracing::debug!(%error, "what was checked is not kept; it will be read again");
    }
    Ok(done.report)
}

/// What of the ledger is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub through: Seq,
    /// Sealed segments that are read at most, of those behind `behind`.
    pub sealed_max: usize,
    pub behind: Seq,
}

/// What came of it.
pub(crate) struct Done {
    pub report: ParityReport,
    /// What was found right, where that is more than the mirror has of it.
    pub to_keep: Option<Vec<Checked>>,
    /// The last sealed segment that was read, where there may be more behind it that were left out; else zero.
    #[cfg_attr(not(feature = "actors"), expect(dead_code))]
    pub behind: Seq,
}

/// The same by a plan, of a part. Only reads.
pub(crate) fn incremental_by(
    reader: &LedgerReader,
    options: &Options,
    part: Part,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<Done, LedgerError> {
    let head = match reader.head() {
        // What is damaged is told by the comparison, and by no error.
        Err(LedgerError::Damaged { .. }) => Seq::ZERO,
        head => head?.seq,
    };
    for _ in 0..BEGUN_MAX {
        let mut report = ParityReport::new(ParityKind::Incremental);
        let Ok(mut mirror) = open(reader, options, &mut report, head) else {
            return Ok(Done { report, to_keep: None, behind: Seq::ZERO });
        };
        cancel_with(&mut mirror, plan);
        let (now, known) = (options.clock.now(), mirror.checked());
        if let Some(done) = begin(reader, &mirror, (part, now, &known), plan, report, progress)? {
            return Ok(done);
        }
    }
    Err(replaced(reader))
}

/// Does it with this mirror; nothing where that was replaced meanwhile.
fn begin(
    reader: &LedgerReader,
    mirror: &MirrorReader,
    (part, now, known): (Part, Timestamp, &BTreeMap<Seq, Checked>),
    plan: &Plan,
    report: ParityReport,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Done>, LedgerError> {
    let genesis = Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() };
    let mut check = Incremental {
        reader,
        mirror,
        plan,
        through: part.through,
        known,
        now,
        left: part.sealed_max,
        behind: part.behind,
        last: Seq::ZERO,
        place: Place::after(genesis, plan),
        rows_through: None,
        begins_later: false,
        segments: Vec::new(),
        kept: Vec::new(),
        report,
    };
    let unread = match check.run(progress) {
        Ok(()) => None,
        Err(Failure::Ledger(error)) => return Err(error),
        Err(Failure::Sqlite(source)) => Some(MirrorError::Sqlite { action: "reading", path: mirror.path().to_owned(), source }),
        Err(Failure::Mirror(error)) => Some(error),
    };
    let Incremental { kept, mut report, left, last, .. } = check;
    if plan.is_cancelled() {
        return Err(stream::cancelled());
    }
    if unread.as_ref().is_some_and(is_replaced) {
        return Ok(None);
    }
    let is_read = unread.is_none();
    if let Some(unread) = unread {
        report.find(Finding::UnreadableMirror { reason: unread.to_string() });
    }
    let is_news = kept.iter().any(|checked| known.get(&checked.first) != Some(checked));
    let to_keep = Some(kept).filter(|_| is_news && is_read && !mirror.is_frozen());
    Ok(Some(Done { report, to_keep, behind: if left == 0 { last } else { Seq::ZERO } }))
}

struct Incremental<'c> {
    reader: &'c LedgerReader,
    mirror: &'c MirrorReader,
    plan: &'c Plan,
    through: Seq,
    /// What was found right before.
    known: &'c BTreeMap<Seq, Checked>,
    /// When it began.
    now: Timestamp,
    /// Sealed segments that may still be read.
    left: usize,
    /// Those up to this one are not read.
    behind: Seq,
    /// The last one that was read.
    last: Seq,
    /// What belongs next. It knows streams and damage from as far back as nothing was left out.
    place: Place,
    /// Rows up to here were compared or left out; nothing at the beginning.
    rows_through: Option<Seq>,
    /// The first rows were left out, and with them those before them, of which there should be none.
    begins_later: bool,
    /// First and last mirrored seq of the ledger's segments.
    segments: Vec<(Seq, Seq)>,
    kept: Vec<Checked>,
    report: ParityReport,
}

impl Incremental<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let begun = Begun::of(self.mirror, self.reader)?;
        self.report.mirrored_through = begun.mirrored();
        let all = self.reader.segments()?;
        if all.is_empty() && self.report.mirrored_through > Seq::ZERO {
            self.report.find(Finding::MissingLedger { path: segment::segments_dir(self.reader.dir()) });
        }
        let through = self.through;
        for (n, segment) in all.iter().enumerate().filter(|(_, segment)| segment.first <= through) {
            let next = all.get(n + 1).map(|next| next.first);
            let file = self.identity(segment)?;
            if !self.skip(segment, next, file)? {
                self.compare(&begun, segment, next, file, progress)?;
            }
        }
        self.rows_without_segment(&begun)?;
        if self.through == Seq::MAX {
            check_mark(self.reader, begun.mark, &mut self.report);
        }
        begun.mirrored_now(self.mirror)?;
        check_segments_and_creation(self.reader, self.mirror, begun, &self.segments, self.through, &mut self.report)?;
        Ok(())
    }

    /// The first seq whose row was not looked at yet.
    fn rows_from(&self) -> i64 {
        self.rows_through.map_or(i64::MIN, |through| i64::try_from(through.get() + 1).unwrap_or(i64::MAX))
    }

    /// Rows before and behind what the segments have.
    fn rows_without_segment(&mut self, begun: &Begun) -> Result<(), Failure> {
        let before = if self.begins_later { Seq::ZERO.get().cast_signed() } else { i64::MIN };
        let through = if self.rows_through < Some(self.through) { begun.last_of(self.through) } else { i64::MIN };
        for (from, through) in [(i64::MIN, before), (self.rows_from(), through)] {
            self.rows_without_line(begun, from, through)?;
        }
        Ok(())
    }

    fn rows_without_line(&mut self, begun: &Begun, mut from: i64, through: i64) -> Result<(), Failure> {
        let sql = "SELECT seq FROM events WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
        let mut some = self.mirror.connection().prepare(sql)?;
        loop {
            let rows: Vec<i64> = some.query_map([from, through, SEQS_MAX as i64], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let since = begun.mirrored_now(self.mirror)?;
            for row in &rows {
                let seq = Seq::new(row.cast_unsigned());
                match *row {
                    stray if stray < 1 => self.report.find(Finding::StrayRow { seq: stray }),
                    // Its line came after the ledger was looked at, and it with that.
                    _ if seq > begun.mirrored() && seq <= since => continue,
                    _ => self.report.missing_in_jsonl.push(seq, seq),
                }
                self.report.sqlite_event_count += 1;
            }
            match rows.last().filter(|last| **last >= from && rows.len() == SEQS_MAX).and_then(|last| last.checked_add(1)) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    fn identity(&self, segment: &Segment) -> Result<Option<FileIdentity>, LedgerError> {
        match self.reader.storage().identity(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(LedgerError::io("looking at", &segment.path)),
        }
    }

    /// What was found right of the segment, where it still stands at the same place of the chain.
    fn known(&self, segment: &Segment) -> Option<&Checked> {
        let head = self.place.expected.head();
        let at_its_place = |known: &&Checked| known.prev == head.event_hash && known.first == head.seq.next();
        self.known.get(&segment.first).filter(at_its_place).filter(|_| !self.place.expected.is_link_unknown())
    }

    /// Leaves a sealed segment out, where it was found right before or is left for later; answers whether it did.
    fn skip(&mut self, segment: &Segment, next: Option<Seq>, file: Option<FileIdentity>) -> Result<bool, LedgerError> {
        let Some(next) = next.filter(|next| next.previous() <= self.through) else {
            return Ok(false);
        };
        let known = self.known(segment).filter(|known| known.sealed && Some(known.file) == file && known.end.seq.next() == next);
        if let Some(known) = known.cloned() {
            self.step_over(segment, known.end);
            self.kept.push(known);
            return Ok(true);
        }
        if self.left > 0 && segment.first > self.behind {
            self.left -= 1;
            self.last = segment.first;
            return Ok(false);
        }
        match self.reader.end_of(segment)?.filter(|end| end.seq.next() == next) {
            Some(end) => self.step_over(segment, end),
            None => {
                // Its end is damaged: that is for the check that reads it. Here it is not known what the next one links to.
                self.step_over(segment, Head { seq: next.previous(), ..self.place.expected.head() });
                self.place.expected.lose_lines_before(next);
            }
        }
        Ok(true)
    }

    fn step_over(&mut self, segment: &Segment, end: Head) {
        let before = segment.first.previous().max(self.place.expected.head().seq);
        self.report.skipped_count += end.seq.get().saturating_sub(before.get());
        if segment.first <= self.report.mirrored_through {
            self.segments.push((segment.first, end.seq.min(self.report.mirrored_through)));
        }
        self.begins_later |= self.rows_through.is_none();
        self.rows_through = Some(end.seq);
        self.place = Place::after(end, self.plan);
    }

    fn compare(
        &mut self,
        begun: &Begun,
        segment: &Segment,
        next: Option<Seq>,
        file: Option<FileIdentity>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let prev = Some(self.place.expected.head().event_hash).filter(|_| !self.place.expected.is_link_unknown());
        let (wrong_before, mut offset) = (self.report.wrong_count(), 0);
        let sealed = next.is_some_and(|next| next.previous() <= self.through);
        let known = self.known(segment).filter(|known| next.is_none() && file.is_some_and(|file| is_grown(&known.file, &file))).cloned();
        let cursor = match known.filter(|known| known.end.seq <= self.through).map(|known| self.behind(known)).transpose()?.flatten() {
            Some((known, cursor)) => {
                offset = known.offset;
                self.step_over(segment, known.end);
                cursor
            }
            None if sealed => self.reader.lines_of(segment),
            None => self.reader.lines_at(segment.first, 0)?,
        };
        let through = next.map_or(self.through, |next| next.previous().min(self.through));
        let until = if sealed { Until::End(through) } else { Until::Seq(through) };
        let from = self.rows_from();
        let head = self.place.expected.head();
        let place = std::mem::replace(&mut self.place, Place::after(head, self.plan));
        let conn = self.mirror.connection();
        let mut ledger = LedgerSide::at(self.reader, cursor, place, until, self.plan).trusting(conn);
        let mut rows = RowSide::new(self.mirror, begun, (from, through), None, self.plan);
        compare_rows(conn, &mut rows, &mut ledger, &mut self.segments, &mut self.report, progress)?;
        let end = ledger.head();
        offset = ledger.offset().unwrap_or(offset);
        self.place = ledger.into_place();
        self.rows_through = Some(through);
        let is_whole = next.is_none_or(|next| end.seq.next() == next);
        if let Some(prev) = prev
            && let Some(file) = file.filter(|file| next.is_none() || file.is_settled(self.now))
            && is_whole
            && self.report.wrong_count() == wrong_before
            && end.seq >= segment.first
            && (next.is_none() || self.identity(segment)? == Some(file))
        {
            self.kept.push(Checked { first: segment.first, prev, end, offset, sealed: next.is_some(), file });
        }
        Ok(())
    }

    /// Lines behind what was found right of the active segment.
    fn behind(&self, known: Checked) -> Result<Option<(Checked, Lines)>, LedgerError> {
        let Head { seq, event_hash } = known.end;
        let mark = Watermark { seq, event_hash, segment: known.first, offset: known.offset };
        let found = match self.reader.lines_after(&mark) {
            // It is not where the mirror says: all of it is read, and what is wrong with the file shows then.
            Err(LedgerError::Io { .. }) => None,
            found => found?,
        };
        Ok(found.filter(|(line, _)| line.event_hash == event_hash && line.terminated).map(|(_, cursor)| (known, cursor)))
    }
}

/// Whether the active segment's file may be the one that it was, with more in it.
fn is_grown(then: &FileIdentity, now: &FileIdentity) -> bool {
    (then.device, then.inode) == (now.device, now.inode)
}
