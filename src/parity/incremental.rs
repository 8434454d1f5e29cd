//! The incremental check: reads what is new or changed since a check that found all equal, byte for byte as the full one does.
//!
//! A sealed segment that was read whole and found right, with its rows, is left out as long as its file is the one it was (device,
//! inode, length, times of its last change) and it still stands in the same place of the chain. The active segment is read from
//! behind the last line that was found right. So it does not see rot in place that leaves a file's length and times as they were, a
//! change of rows that were found right, nor what was changed in the part of the active segment that was read: for that there are
//! `verify` and the full check, which leave nothing out.

use std::collections::BTreeMap;
use std::io;

use super::check::{Failure, LedgerSide, cancel_with, check_mark, check_segments_and_creation, compare_rows, open};
use super::report::{Finding, ParityKind, ParityReport};
use crate::event::Seq;
use crate::ledger::stream::{self, Plan};
use crate::ledger::{FileIdentity, Head, LedgerError, LedgerReader, Lines, Segment, Watermark, segment};
use crate::mirror::{Checked, MirrorError, MirrorReader, keep_checked};
use crate::options::Options;

/// A file that was changed so lately may be changed again without its times showing it.
const SETTLED_AFTER_US: i64 = 2_000_000;

/// Compares what is new or changed since the last check that found all equal, and keeps in the mirror what it found right (where
/// that can be written just now). Of sealed segments at most `sealed_max` are read, the oldest first; the rest is left for later.
/// The first check reads everything. It does not see rot in place that leaves a file's length and times as they were, nor a
/// change of what was found right: of rows, or of the part of the active segment that was read. [`verify`](crate::verify()) and
/// [`parity_full`](crate::parity_full) leave nothing out. `through` and `progress` are as with the full check.
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
    incremental_by(reader, options, through, sealed_max, &Plan::default(), progress)
}

/// The same by a plan.
pub(crate) fn incremental_by(
    reader: &LedgerReader,
    options: &Options,
    through: Option<Seq>,
    sealed_max: usize,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<ParityReport, LedgerError> {
    let mut report = ParityReport::new(ParityKind::Incremental);
    let Ok(mut mirror) = open(reader, options, &mut report, reader.head()?.seq) else {
        return Ok(report);
    };
    cancel_with(&mut mirror, plan);
    let known = mirror.checked();
    let mut check = Incremental {
        reader,
        mirror: &mirror,
        plan,
        through: through.unwrap_or(Seq::MAX),
        known: &known,
        now_us: options.clock.now().as_micros(),
        left: sealed_max,
        head: Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() },
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
    let Incremental { kept, mut report, .. } = check;
    if plan.is_cancelled() {
        return Err(stream::cancelled());
    }
    if let Some(unread) = unread {
        report.find(Finding::UnreadableMirror { reason: unread.to_string() });
    }
    let is_news = kept.iter().any(|checked| known.get(&checked.first) != Some(checked));
    if report.is_consistent() && is_news && !mirror.is_frozen() {
        drop(mirror);
        if let Err(error) = keep_checked(reader.dir(), options.mirror_busy_timeout, &kept) {
            tracing::debug!(%error, "what was checked is not kept; it will be read again");
        }
    }
    Ok(report)
}

struct Incremental<'c> {
    reader: &'c LedgerReader,
    mirror: &'c MirrorReader,
    plan: &'c Plan,
    through: Seq,
    /// What was found right before.
    known: &'c BTreeMap<Seq, Checked>,
    /// When it began.
    now_us: i64,
    /// Sealed segments that may still be read.
    left: usize,
    /// The last event of what stands before the next segment.
    head: Head,
    /// First and last mirrored seq of the ledger's segments.
    segments: Vec<(Seq, Seq)>,
    kept: Vec<Checked>,
    report: ParityReport,
}

impl Incremental<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let snapshot = self.mirror.connection().unchecked_transaction()?;
        let mark = self.mirror.watermark(self.reader.manifest().ledger_id).ok();
        self.report.mirrored_through = mark.map_or(Seq::ZERO, |mark| mark.seq);
        let all = self.reader.segments()?;
        if all.is_empty() && self.report.mirrored_through > Seq::ZERO {
            self.report.find(Finding::MissingLedger { path: segment::segments_dir(self.reader.dir()) });
        }
        let through = self.through;
        for (n, segment) in all.iter().enumerate().filter(|(_, segment)| segment.first <= through) {
            let next = all.get(n + 1).map(|next| next.first);
            let file = self.identity(segment)?;
            if !self.skip(segment, next, file)? {
                self.compare(&snapshot, segment, next, file, progress)?;
            }
        }
        for seq in snapshot.prepare("SELECT seq FROM events WHERE seq < 1 LIMIT 100")?.query_map([], |row| row.get(0))? {
            self.report.find(Finding::StrayRow { seq: seq? });
        }
        if self.through == Seq::MAX {
            check_mark(self.reader, mark, &mut self.report);
        }
        check_segments_and_creation(self.reader, self.mirror, &self.segments, self.through, &mut self.report)?;
        Ok(())
    }

    fn identity(&self, segment: &Segment) -> Result<Option<FileIdentity>, LedgerError> {
        match self.reader.storage().identity(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(LedgerError::io("looking at", &segment.path)),
        }
    }

    /// What was found right of the segment, where it still stands at the same place of the chain.
    fn known(&self, segment: &Segment) -> Option<&Checked> {
        let at_its_place = |known: &&Checked| known.prev == self.head.event_hash && known.first == self.head.seq.next();
        self.known.get(&segment.first).filter(at_its_place)
    }

    /// Leaves a sealed segment out, where it was found right before or is left for later; answers whether it did.
    fn skip(&mut self, segment: &Segment, next: Option<Seq>, file: Option<FileIdentity>) -> Result<bool, LedgerError> {
        let Some(next) = next.filter(|next| next.previous() <= self.through) else {
            return Ok(false);
        };
        let known = self.known(segment).filter(|known| known.sealed && Some(known.file) == file && known.end.seq.next() == next);
        let end = match known.cloned() {
            Some(known) => {
                let end = known.end;
                self.kept.push(known);
                Some(end)
            }
            None if self.left == 0 => self.reader.end_of(segment)?.filter(|end| end.seq.next() == next),
            None => None,
        };
        let Some(end) = end else {
            self.left = self.left.saturating_sub(1);
            return Ok(false);
        };
        self.step_over(segment, end);
        Ok(true)
    }

    fn step_over(&mut self, segment: &Segment, end: Head) {
        self.report.skipped_count += end.seq.get().saturating_sub(self.head.seq.get());
        if segment.first <= self.report.mirrored_through {
            self.segments.push((segment.first, end.seq.min(self.report.mirrored_through)));
        }
        self.head = end;
    }

    fn compare(
        &mut self,
        snapshot: &rusqlite::Connection,
        segment: &Segment,
        next: Option<Seq>,
        file: Option<FileIdentity>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let before = self.head;
        let mut offset = 0;
        let known = self.known(segment).filter(|known| next.is_none() && file.is_some_and(|file| is_grown(&known.file, &file))).cloned();
        let cursor = match known.filter(|known| known.end.seq <= self.through).map(|known| self.behind(known)).transpose()?.flatten() {
            Some((known, cursor)) => {
                offset = known.offset;
                self.step_over(segment, known.end);
                cursor
            }
            None => self.reader.lines_at(segment.first, 0)?,
        };
        let through = next.map_or(self.through, |next| next.previous().min(self.through));
        let from = if self.head.seq == Seq::ZERO { i64::MIN } else { self.head.seq.next().get().cast_signed() };
        let mut ledger = LedgerSide::after(self.reader, cursor, self.head, through, self.plan).trusting(snapshot);
        compare_rows(snapshot, from, &mut ledger, &mut self.segments, &mut self.report, progress)?;
        let end = ledger.head();
        offset = ledger.offset().unwrap_or(offset);
        self.head = end;
        let is_whole = next.is_none_or(|next| end.seq.next() == next);
        if let Some(file) = file.filter(|file| next.is_none() || self.is_settled(file))
            && is_whole
            && end.seq >= segment.first
            && (next.is_none() || self.identity(segment)? == Some(file))
        {
            let sealed = next.is_some();
            self.kept.push(Checked { first: segment.first, prev: before.event_hash, end, offset, sealed, file });
        }
        Ok(())
    }

    fn is_settled(&self, file: &FileIdentity) -> bool {
        self.now_us.saturating_sub(file.modified_ns.max(file.changed_ns) / 1000) >= SETTLED_AFTER_US
    }

    /// Lines behind what was found right of the active segment.
    fn behind(&self, known: Checked) -> Result<Option<(Checked, Lines)>, LedgerError> {
        let Head { seq, event_hash } = known.end;
        let mark = Watermark { seq, event_hash, segment: known.first, offset: known.offset };
        let found = self.reader.lines_after(&mark)?;
        Ok(found.filter(|(line, _)| line.event_hash == event_hash && line.terminated).map(|(_, cursor)| (known, cursor)))
    }
}

/// Whether the active segment's file may be the one that it was, with more in it.
fn is_grown(then: &FileIdentity, now: &FileIdentity) -> bool {
    (then.device, then.inode) == (now.device, now.inode)
}
