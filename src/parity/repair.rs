//! Repair: an operator's decision which leg is right. Never called by recovery.
//!
//! From the ledger: rows that differ are derived anew, once the whole chain has been verified. From the mirror:
//! lost lines and whole lost segments are written back, byte for byte, each checked at its place in the chain.
//! Nothing is deleted but erased payloads: what is replaced goes to torn/, or to a copy of the mirror beside it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::check;
use crate::derived;
use crate::erase::{self, Erased, add_names};
use crate::event::erasure::ErasurePayload;
use crate::event::{Body, Event, Seq, line};
use crate::failpoint;
use crate::ledger::compress;
use crate::ledger::erase::{Name, Names, each_erasure, name_of};
use crate::ledger::place::Expected;
use crate::ledger::positions::POSITIONS_MAX;
use crate::ledger::segment::{self, LineReader};
use crate::ledger::storage::{StorageFile, each_piece, read_range};
use crate::ledger::stream::Plan;
use crate::ledger::tail;
use crate::ledger::{Head, LedgerError, LedgerReader, Manifest, Segment, StoreLock, Watermark};
use crate::mirror::{
    Mirror, MirrorError, MirrorFault, MirrorReader, Row, RowError, SELECT, bounded_positions, create_private, free_aside, mirror_path,
    set_aside,
};
use crate::options::Options;
use crate::verify::verify;

/// Why a repair was refused. Nothing was changed, unless it is an I/O error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The ledger can't be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The mirror can't be read or written.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The ledger itself is damaged, so rows must not be derived from it.
    #[error(
        "the ledger has {failures} wrong lines, so the mirror can't be derived from it; run `counterfoil verify` to see them, then `counterfoil repair --from mirror`"
    )]
    LedgerDamaged {
        /// How many lines are wrong.
        failures: u64,
    },
    /// Neither leg has a right line for this seq.
    #[error("neither the ledger nor the mirror has a right line for seq {seq} ({reason}); restore the store from a backup")]
    Unrecoverable {
        /// The seq.
        seq: Seq,
        /// What is wrong with what they have.
        reason: String,
    },
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// Rows that were written or written anew.
    pub rows_written: u64,
    /// Rows that were removed, since the ledger has no such event. They are in the copy that was set aside.
    pub rows_removed: u64,
    /// Segments that were written or written anew.
    pub segments_written: Vec<PathBuf>,
    /// Lines that came from the mirror.
    pub lines_restored: u64,
    /// Where what was replaced is now, unless `erased` says that it is removed.
    pub set_aside: Vec<PathBuf>,
    /// Whether ledger.json was written back.
    pub manifest_restored: bool,
    /// What was erased, since an erasure is recorded that was not carried out in what the repair found.
    #[serde(skip_serializing_if = "Erased::is_nothing")]
    pub erased: Erased,
}

/// Derives the mirror anew where it differs from the ledger. Takes the lock.
///
/// # Errors
/// [`RepairError::LedgerDamaged`] where the chain does not verify; else what the legs say.
pub fn repair_from_ledger(dir: &Path, options: &Options, progress: &mut dyn FnMut(u64)) -> Result<RepairReport, RepairError> {
    let reader = LedgerReader::open(dir, options)?;
    let _lock = StoreLock::acquire(options.storage.as_ref(), dir, options.lock_wait)?;
    let verified = verify(&reader, &mut |_| ())?;
    let torn_tail_only = verified.failures_count == 1
        && verified
            .failures
            .iter()
            .all(|failure| failure.seq > verified.head.seq && failure.path == segment_of(&reader, verified.head.seq));
    if !verified.is_clean() && !torn_tail_only {
        return Err(RepairError::LedgerDamaged { failures: verified.failures_count });
    }
    let mut report = RepairReport::default();
    if verified.erasures_count > 0 {
        // The form of a segment that does not count may be an older one.
        compress::settle_doubles(dir, options)?;
    }
    let (mut mirror, aside) = Mirror::open_or_set_aside(dir, reader.manifest(), options)?;
    report.set_aside.extend(aside);
    // First: what is derived, and copied aside, is to have no payload that is to be erased.
    report.erased = erase::finish_by_ledger(&reader, &mut mirror, verified.head.seq, options);
    let compare = || check::full_or_unread(&reader, options, Some(verified.head.seq), &Plan::default(), &mut |_| ());
    let (mut found, mut unread) = compare()?;
    if unread.as_ref().is_some_and(MirrorError::may_be_unread) {
        (found, unread) = compare()?;
    }
    let read = unread.map_or_else(|| mirror.check_indexes(), Err);
    if let Err(error) = read {
        // What could not be read just now may be well.
        if error.fault() != MirrorFault::Broken {
            return Err(error.into());
        }
        drop(mirror);
        report.set_aside.push(set_aside(dir)?);
        mirror = Mirror::open(dir, reader.manifest(), options)?;
    }
    mirror.lift_guard()?;
    let (_, last_row) = mirror.count()?;
    let stray = last_row > verified.head.seq || mirror.watermark().seq > verified.head.seq || mirror.has_stray_rows()?;
    if stray || found.mismatched_count > 0 {
        report.set_aside.push(mirror.copy_aside()?);
    }
    // Before the first row is changed, and after the last one: it may end in between.
    derived::forget_sessions(dir);
    if stray {
        report.rows_removed = mirror.remove_stray_rows(verified.head.seq)?;
    }
    mirror.at(failpoint::REPAIR_DERIVE)?;
    derive_rows(&reader, &mut mirror, verified.head, &mut report, progress)?;
    if report.rows_written + report.rows_removed > 0 {
        derived::forget_sessions(dir);
    }
    mirror.take_creation_from(reader.manifest())?;
    if verified.erasures_count > 0 {
        report.erased.add(erase::finish_by_ledger(&reader, &mut mirror, verified.head.seq, options));
        // Rows that were replaced may have held a payload that the erasure did not find in them.
        if report.rows_written + report.rows_removed > 0 && !mirror.forget_old_pages()? {
            report.erased.unfinished =
                Some("a reader holds the mirror's WAL, which may hold erased payloads; end it, and repair again".to_owned());
        }
    }
    report.set_aside.retain(|aside| !report.erased.has_removed(aside));
    Ok(report)
}

fn segment_of(reader: &LedgerReader, seq: Seq) -> PathBuf {
    let segments = reader.segments().unwrap_or_default();
    segments.into_iter().rev().find(|segment| segment.first <= seq.next()).map(|segment| segment.path).unwrap_or_default()
}

/// Rows of one transaction at most.
const BATCH_EVENTS_MAX: u64 = 4096;

fn derive_rows(
    reader: &LedgerReader,
    mirror: &mut Mirror,
    head: Head,
    report: &mut RepairReport,
    progress: &mut dyn FnMut(u64),
) -> Result<(), RepairError> {
    let mut lines = reader.lines_from(Seq::FIRST)?;
    let mut mark = Watermark { seq: Seq::ZERO, event_hash: reader.manifest().genesis(), segment: Seq::FIRST, offset: 0 };
    let mut done = Seq::ZERO;
    while done < head.seq {
        let mut batch = mirror.begin()?;
        batch.rewind(mark);
        if done == Seq::ZERO {
            batch.forget_segments()?;
        }
        for _ in 0..BATCH_EVENTS_MAX {
            if done >= head.seq {
                break;
            }
            let Some(found) = lines.next_raw()? else {
                break;
            };
            let event = line::decode(found.raw.bytes).map_err(|source| MirrorError::Line { first: done.next(), source })?;
            let (segment, offset) = (found.segment, found.raw.offset);
            match batch.insert(&event, segment, offset) {
                Ok(crate::mirror::Insertion::AlreadyPresent) => {}
                Ok(crate::mirror::Insertion::Inserted) => report.rows_written += 1,
                Err(MirrorError::Conflict { .. } | MirrorError::DuplicateId { .. }) => {
                    batch.remove(event.seq)?;
                    batch.remove_id(event.id)?;
                    batch.insert(&event, segment, offset)?;
                    report.rows_written += 1;
                }
                Err(error) => return Err(error.into()),
            }
            done = event.seq;
        }
        mark = batch.commit()?;
        mirror.see_to_wal();
        progress(done.get());
    }
    if head.seq == Seq::ZERO {
        let mut batch = mirror.begin()?;
        batch.rewind(mark);
        batch.forget_segments()?;
        batch.commit()?;
    }
    Ok(())
}

/// Writes back what the ledger has lost and the mirror still has. Takes the lock.
///
/// # Errors
/// [`RepairError::Unrecoverable`] where neither leg has a right line; else what the legs say.
pub fn repair_from_mirror(dir: &Path, options: &Options, progress: &mut dyn FnMut(u64)) -> Result<RepairReport, RepairError> {
    if !dir.is_dir() {
        return Err(LedgerError::NoStore { path: dir.to_owned() }.into());
    }
    let storage = options.storage.as_ref();
    let _lock = StoreLock::acquire(storage, dir, options.lock_wait)?;
    let mirror = MirrorReader::open_any(dir, options.mirror_busy_timeout)?;
    let mut report = RepairReport::default();
    let manifest = mirror.manifest()?;
    let manifest_path = Manifest::path(dir);
    let mut differs = false;
    match Manifest::load(storage, dir)? {
        Some(there) if there.ledger_id != manifest.ledger_id => {
            mirror.watermark(there.ledger_id)?;
        }
        Some(there) => differs = there != manifest,
        None => report.manifest_restored = true,
    }
    report.manifest_restored |= differs;
    let segments_dir = segment::segments_dir(dir);
    storage.create_dir(&segments_dir).map_err(LedgerError::io("creating", &segments_dir))?;
    storage.sync_dir(dir).map_err(LedgerError::io("syncing", dir))?;
    let names = erased_names(dir, options, &manifest, &mirror)?;
    if !names.is_empty() {
        compress::settle_doubles(dir, options)?;
    }
    let mut repair = FromMirror {
        dir,
        options,
        mirror: &mirror,
        names: &names,
        named: Names::new(),
        erased: Vec::new(),
        expected: Expected::keeping(Head { seq: Seq::ZERO, event_hash: manifest.genesis() }, bounded_positions(POSITIONS_MAX)),
        report,
    };
    let known = mirror.segments()?;
    // A file that begins within a segment that the mirror knows, or whose lines are others than its name says, was
    // renamed or copied there: it is no segment.
    let (mut strays, mut there) = (Vec::new(), Vec::new());
    for file in segment::list(storage, dir)? {
        let is_known = known.iter().any(|(first, _)| *first == file.first);
        let is_within = known.iter().any(|(first, last)| *first < file.first && file.first <= *last);
        let lines = if is_known || is_within { HashMap::new() } else { repair.candidates(Some(&file))?.by_seq };
        let is_stray = is_within || (!lines.is_empty() && !lines.contains_key(&file.first) && lines.keys().all(|seq| *seq < file.first));
        if is_stray { strays.push(file) } else { there.push(file) }
    }
    let mirrored = known.iter().map(|(_, last)| *last).max().unwrap_or(Seq::ZERO);
    for stray in &strays {
        if repair.candidates(Some(stray))?.by_seq.keys().any(|seq| *seq > mirrored) {
            let reason = format!("the mirror has no row, but {} does: it is not named after its first seq", stray.path.display());
            return Err(RepairError::Unrecoverable { seq: mirrored.next(), reason });
        }
    }
    // Of a segment that the mirror does not know yet, every line has to come from its own file.
    let unknown =
        there.iter().filter(|file| !known.iter().any(|(first, _)| *first == file.first)).map(|file| (file.first, file.first.previous()));
    let mut all: Vec<(Seq, Seq)> = known.iter().copied().chain(unknown).collect();
    all.sort_unstable();
    // Nothing is replaced before everything is known to be right.
    let mut rebuilt = Vec::new();
    for (n, (first, last)) in all.iter().enumerate() {
        let file = there.iter().find(|file| file.first == *first);
        rebuilt.extend(repair.rebuild(file, (*first, *last), all.get(n + 1).map(|(first, _)| *first))?);
        progress(repair.expected.head().seq.get());
    }
    repair.check_last_batch(mirrored)?;
    repair.check_erased()?;
    if differs {
        repair.keep_damaged(&manifest_path, Seq::ZERO)?;
    }
    if repair.report.manifest_restored {
        manifest.create(storage, dir)?;
    }
    rebuilt.into_iter().try_for_each(|segment| repair.put_in_place(segment))?;
    for stray in &strays {
        repair.keep_damaged(&stray.path, stray.first)?;
        options.at(failpoint::REPAIR_STRAY).map_err(LedgerError::io("removing", &stray.path))?;
        storage.remove(&stray.path).map_err(LedgerError::io("removing", &stray.path))?;
    }
    if !strays.is_empty() {
        storage.sync_dir(&segments_dir).map_err(LedgerError::io("syncing", &segments_dir))?;
    }
    let mut report = repair.report;
    report.erased = erase::forget_torn(dir, options, &names)?;
    report.set_aside.retain(|aside| !report.erased.has_removed(aside));
    Ok(report)
}

/// What an erasure names that one leg or the other has: neither may bring its payload back.
fn erased_names(dir: &Path, options: &Options, manifest: &Manifest, mirror: &MirrorReader) -> Result<Names, RepairError> {
    let mut names = Names::new();
    mirror.each_erasure(Seq::ZERO, &mut |_, payload| {
        add_names(payload, &mut names);
        true
    })?;
    let mut lines = LedgerReader::of(dir, manifest.clone(), options).lines_from(Seq::FIRST)?;
    each_erasure(&mut lines, &mut |_, payload| add_names(payload, &mut names))?;
    Ok(names)
}

struct FromMirror<'a> {
    dir: &'a Path,
    options: &'a Options,
    mirror: &'a MirrorReader,
    /// What has been erased, as one leg or the other says.
    names: &'a Names,
    /// What the ledger will say of that, as far as it is put together.
    named: Names,
    /// Events that have lost their payload since one leg had it.
    erased: Vec<(Seq, Name)>,
    expected: Expected,
    report: RepairReport,
}

/// A segment's file, and the lines of it that are right by their own hash, by seq.
#[derive(Default)]
struct Candidates {
    file: Option<Box<dyn StorageFile>>,
    by_seq: HashMap<Seq, Vec<Found>>,
}

/// A line of a segment's file.
struct Found {
    offset: u64,
    len: u64,
    seq: Seq,
    group_seq: Seq,
}

/// A segment that was written anew, and is still under tmp/.
struct Rebuilt {
    first: Seq,
    tmp: PathBuf,
    path: PathBuf,
    /// The file that it replaces, which may be compressed.
    replaces: Option<Segment>,
}

impl FromMirror<'_> {
    /// Writes the segment from `first` to `last` anew under tmp/, with what its file holds beyond that and the mirror
    /// lacks. Nothing where the file is right as it is.
    fn rebuild(
        &mut self,
        file: Option<&Segment>,
        (first, last): (Seq, Seq),
        next_first: Option<Seq>,
    ) -> Result<Option<Rebuilt>, RepairError> {
        let storage = self.options.storage.as_ref();
        let path = segment::segment_path(self.dir, first);
        let options = self.options;
        let reached = |point| options.at(point).map_err(LedgerError::io("repairing", &path));
        reached(failpoint::REPAIR_SEGMENT)?;
        let mut candidates = self.candidates(file)?;
        let tmp_dir = self.dir.join("tmp");
        let tmp = tmp_dir.join(format!("{:020}.jsonl", first.get()));
        storage.create_dir(&tmp_dir).map_err(LedgerError::io("creating", &tmp_dir))?;
        match storage.remove(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LedgerError::io("removing", &tmp)(error).into());
            }
            _ => {}
        }
        let mut out = storage.create_new(&tmp).map_err(LedgerError::io("creating", &tmp))?;
        let (mut at, mut changed, mut next) = (0u64, false, first);
        let mut line_bytes = Vec::new();
        loop {
            match self.take_from_ledger(&path, &mut candidates, next, &mut line_bytes)? {
                Some(offset) => changed |= self.without_erased(&mut line_bytes) | (offset != at),
                None if next > last => {
                    self.check_rest(&candidates, next, next_first)?;
                    break;
                }
                None => {
                    self.take_from_mirror(next, &mut line_bytes)?;
                    self.without_erased(&mut line_bytes);
                    self.report.lines_restored += 1;
                    changed = true;
                }
            }
            line_bytes.push(b'\n');
            out.write_at(&line_bytes, at).map_err(LedgerError::io("writing", &tmp))?;
            at += line_bytes.len() as u64;
            next = next.next();
            if next_first == Some(next) {
                break;
            }
        }
        let there = match &candidates.file {
            Some(file) => Some(file.len().map_err(LedgerError::io("reading", &path))?),
            None => None,
        };
        if !changed && there == Some(at) {
            storage.remove(&tmp).map_err(LedgerError::io("removing", &tmp))?;
            return Ok(None);
        }
        reached(failpoint::REPAIR_SYNC)?;
        out.sync_data().map_err(LedgerError::io("syncing", &tmp))?;
        Ok(Some(Rebuilt { first, tmp, path, replaces: file.filter(|_| there.is_some()).cloned() }))
    }

    /// Leaves the payload out of a line that is to be written, where that of its event has been erased; answers whether it did.
    fn without_erased(&mut self, line: &mut Vec<u8>) -> bool {
        let Ok(event) = line::decode_again(line) else { return false };
        if let Some(payload) = ErasurePayload::of(&event) {
            add_names(payload, &mut self.named);
        }
        let Some(name) = name_of(self.names, &event).filter(|_| event.body != Body::Erased) else { return false };
        self.erased.push((event.seq, name));
        let mut erased = Vec::new();
        line::encode(&Event { body: Body::Erased, ..event }, &mut erased);
        *line = erased;
        true
    }

    /// Nothing is erased that the ledger itself will not say: a row may be wrong.
    fn check_erased(&self) -> Result<(), RepairError> {
        match self.erased.iter().find(|(seq, name)| !self.named.get(seq).is_some_and(|all| all.contains(name))) {
            Some((seq, _)) => {
                let reason = "an erasure that names it is in the mirror, and not in the ledger as it would be put together".to_owned();
                Err(RepairError::Unrecoverable { seq: *seq, reason })
            }
            None => Ok(()),
        }
    }

    /// Renames a rebuilt segment to its place; the file that it replaces is kept in torn/.
    fn put_in_place(&mut self, Rebuilt { first, tmp, path, replaces }: Rebuilt) -> Result<(), RepairError> {
        let storage = self.options.storage.as_ref();
        let reached = |point| self.options.at(point).map_err(LedgerError::io("repairing", &path));
        reached(failpoint::REPAIR_KEEP)?;
        if let Some(replaced) = &replaces {
            self.keep_damaged(&replaced.path, first)?;
        }
        let segments = segment::segments_dir(self.dir);
        reached(failpoint::REPAIR_RENAME)?;
        storage.rename(&tmp, &path).map_err(LedgerError::io("renaming", &tmp))?;
        reached(failpoint::REPAIR_RENAMED)?;
        storage.sync_dir(&segments).map_err(LedgerError::io("syncing", &segments))?;
        if let Some(Segment { path: other, .. }) = replaces.filter(|replaced| replaced.path != path) {
            storage.remove(&other).map_err(LedgerError::io("removing", &other))?;
            storage.sync_dir(&segments).map_err(LedgerError::io("syncing", &segments))?;
        }
        self.report.segments_written.push(path);
        Ok(())
    }

    /// What the file holds behind the last line that fits may be left out (and kept in torn/) only where recovery
    /// would cut it too. Where a later group stands behind it, events are lost that nobody has.
    fn check_rest(&self, candidates: &Candidates, next: Seq, next_first: Option<Seq>) -> Result<(), RepairError> {
        let in_file = candidates.by_seq.values().flatten().find(|found| found.group_seq > next).map(|found| found.seq);
        match in_file.or(next_first) {
            Some(later) => {
                let reason = format!("the mirror has no row, though seq {later} of a later group stands behind it");
                Err(RepairError::Unrecoverable { seq: next, reason })
            }
            None => Ok(()),
        }
    }

    /// A batch that ends in the middle is cut by recovery, unless the mirror has a part of it: then the rest was durable too.
    fn check_last_batch(&self, mirrored: Seq) -> Result<(), RepairError> {
        let next = self.expected.head().seq.next();
        match self.expected.open_batch() {
            Some((i, n)) if next.get().saturating_sub(i.into()) <= mirrored.get() => {
                let reason = format!("it is number {} of a batch of {n} whose beginning the mirror has", i + 1);
                Err(RepairError::Unrecoverable { seq: next, reason })
            }
            _ => Ok(()),
        }
    }

    fn candidates(&self, file: Option<&Segment>) -> Result<Candidates, LedgerError> {
        let Some(segment) = file else { return Ok(Candidates::default()) };
        let path = &segment.path;
        let open = || segment.open(self.options.storage.as_ref());
        let mut candidates = match open() {
            Ok(file) => Candidates { file: Some(file), by_seq: HashMap::new() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Candidates::default());
            }
            Err(error) => return Err(LedgerError::io("opening", path)(error)),
        };
        let mut reader = LineReader::new(open().map_err(LedgerError::io("opening", path))?, 0, self.options.line_bytes_max);
        while let Some(raw) = reader.next().map_err(LedgerError::io("reading", path))? {
            if let Some((before, event)) = tail::right_by_its_own_hash(raw.bytes)
                && event.payload_is_right() != Some(false)
            {
                candidates.by_seq.entry(event.seq).or_default().push(Found {
                    offset: raw.offset + before as u64,
                    len: raw.len - before as u64,
                    seq: event.seq,
                    group_seq: event.group_seq,
                });
            }
        }
        Ok(candidates)
    }

    /// Takes the ledger's own line for this seq, where it is right at its place; answers where it begins.
    fn take_from_ledger(
        &mut self,
        path: &Path,
        candidates: &mut Candidates,
        seq: Seq,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, LedgerError> {
        let (Some(file), Some(places)) = (&mut candidates.file, candidates.by_seq.get(&seq)) else {
            return Ok(None);
        };
        for Found { offset, len, .. } in places {
            *out = read_range(file.as_mut(), *offset, offset + len).map_err(LedgerError::io("reading", path))?;
            if let Ok(event) = line::decode(out)
                && !self.is_taken_away(&event)
                && self.expected.check(&event, &mut |_| Some(0))?.is_none()
            {
                return Ok(Some(*offset));
            }
        }
        Ok(None)
    }

    /// Whether the line lacks a payload that no erasure names and that the mirror still has: it is as damaged as a changed one.
    fn is_taken_away(&self, event: &Event<'_>) -> bool {
        if event.body != Body::Erased || name_of(self.names, event).is_some() {
            return false;
        }
        let mut line = Vec::new();
        if !matches!(self.encoded(event.seq, &mut line), Ok(Some(Ok(())))) {
            return false;
        }
        line::decode(&line)
            .is_ok_and(|row| row.event_hash == event.event_hash && row.body != Body::Erased && row.payload_is_right() != Some(false))
    }

    /// The line that the mirror's row encodes to, where there is one; or what is wrong with it.
    fn encoded(&self, seq: Seq, out: &mut Vec<u8>) -> Result<Option<Result<(), RowError>>, MirrorError> {
        out.clear();
        self.mirror.sqlite(
            "reading",
            self.mirror.connection().prepare_cached(&format!("{SELECT} WHERE seq = ?1")).and_then(|mut by_seq| {
                let mut rows = by_seq.query([i64::try_from(seq.get()).unwrap_or(i64::MAX)])?;
                Ok(rows.next()?.map(|row| Row(row).encode(out)))
            }),
        )
    }

    /// Takes the line that the mirror's row encodes to, where it is right at its place.
    fn take_from_mirror(&mut self, seq: Seq, out: &mut Vec<u8>) -> Result<(), RepairError> {
        let unrecoverable = |reason: String| RepairError::Unrecoverable { seq, reason };
        match self.encoded(seq, out)? {
            None => return Err(unrecoverable("the mirror has no row".to_owned())),
            Some(Err(error)) => return Err(unrecoverable(format!("the mirror's row: {error}"))),
            Some(Ok(())) => {}
        }
        let event: Event<'_> = line::decode(out).map_err(|error| unrecoverable(format!("the mirror's row: {error}")))?;
        match self.expected.check(&event, &mut |_| Some(0))? {
            None => Ok(()),
            Some(fault) => Err(unrecoverable(format!("the mirror's row: {fault}"))),
        }
    }

    /// Copies the damaged file to torn/ before it is replaced or removed.
    fn keep_damaged(&mut self, path: &Path, first: Seq) -> Result<(), LedgerError> {
        let storage = self.options.storage.as_ref();
        let torn = self.dir.join("torn");
        storage.create_dir(&torn).map_err(LedgerError::io("creating", &torn))?;
        let taken = storage.list(&torn).map_err(LedgerError::io("listing", &torn))?;
        let form = if path.extension().is_some_and(|extension| extension == "zst") { ".zst" } else { "" };
        let name =
            (1u32..).map(|n| format!("{:020}.damaged-{n}{form}", first.get())).find(|name| !taken.contains(name)).unwrap_or_default();
        let saved = torn.join(name);
        // The segment's own name stays valid until the repaired file is renamed over it.
        let mut from = storage.open_read(path).map_err(LedgerError::io("opening", path))?;
        let mut to = storage.create_new(&saved).map_err(LedgerError::io("creating", &saved))?;
        let len = from.len().map_err(LedgerError::io("reading", path))?;
        each_piece(from.as_mut(), 0, len, |_, at, bytes| to.write_at(bytes, at)).map_err(LedgerError::io("copying to", &saved))?;
        to.sync_data().map_err(LedgerError::io("syncing", &saved))?;
        storage.sync_dir(&torn).map_err(LedgerError::io("syncing", &torn))?;
        storage.sync_dir(self.dir).map_err(LedgerError::io("syncing", self.dir))?;
        self.report.set_aside.push(saved);
        Ok(())
    }
}

impl MirrorReader {
    /// The segments that it knows: first and last seq of each.
    pub(super) fn segments(&self) -> Result<Vec<(Seq, Seq)>, MirrorError> {
        let number = |n: i64| Seq::new(u64::try_from(n).unwrap_or(0));
        self.sqlite(
            "reading",
            self.connection()
                .prepare("SELECT first_seq, last_seq FROM segments ORDER BY first_seq")
                .and_then(|mut statement| statement.query_map([], |row| Ok((number(row.get(0)?), number(row.get(1)?))))?.collect()),
        )
    }
}

impl Mirror {
    /// Copies the mirror to a file beside it; answers which.
    fn copy_aside(&self) -> Result<PathBuf, MirrorError> {
        let path = mirror_path(self.path().parent().unwrap_or(Path::new(".")));
        let aside = free_aside(&path);
        // SQLite would create it for everyone to read, and through a link.
        create_private(&aside)?;
        self.execute("copying", "VACUUM INTO ?1", &[&aside.to_string_lossy()])?;
        Ok(aside)
    }

    fn has_stray_rows(&self) -> Result<bool, MirrorError> {
        self.query_number("SELECT count(*) FROM events WHERE seq < 1").map(|count| count > 0)
    }

    fn remove_stray_rows(&self, head: Seq) -> Result<u64, MirrorError> {
        let head = i64::try_from(head.get()).unwrap_or(i64::MAX);
        self.execute("repairing", "DELETE FROM events WHERE seq < 1 OR seq > ?1", &[&head]).map(|rows| rows as u64)
    }

    /// When the store was created.
    fn take_creation_from(&self, manifest: &Manifest) -> Result<(), MirrorError> {
        self.execute("repairing", "UPDATE mirrored_through SET created_at = ?1", &[&manifest.created_at.to_string()]).map(|_| ())
    }
}
