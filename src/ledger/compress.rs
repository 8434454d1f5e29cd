//! Gives sealed segments their compressed form, and back. Called by the CLI, the store and CompressActor, with the store's
//! lock held; never touches the active segment, so appends go on meanwhile.
//!
//! Crash-safe at each step: the new form is written under tmp/, fsynced, read back and compared byte for byte, and its lines
//! are checked; only then does it get its name, and only once that is durable does the old form go. Where a crash leaves both,
//! the plain one counts, and the next open sees to the other ([`settle_doubles`]).

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::place::{Expected, Standing};
use super::segment::{self, LineReader, Segment};
use super::storage::{self, Storage, StorageFile};
use super::zst::{self, Side, Zst};
use super::{Head, LedgerError, LedgerReader, LineFault, StoreLock};
use crate::event::{Seq, line};
use crate::failpoint;
use crate::options::Options;

/// How often `stop` is asked where lines are checked: as often as where they are compressed, by frames.
const STOP_BYTES: u64 = 256 << 10;

const READING: &str = "reading";

/// Which sealed segments are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// All but the newest so many.
    AllBut(usize),
    /// Those that hold these events.
    Holding(Vec<Seq>),
}

/// A segment that has got its other form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reformed {
    /// Its file now.
    pub path: PathBuf,
    /// Bytes of its lines.
    pub plain_bytes: u64,
    /// Bytes of the file.
    pub stored_bytes: u64,
}

/// The form that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Compressed,
}

/// Compresses sealed segments: `NAME.jsonl` becomes `NAME.jsonl.zst`, the same bytes inside. Takes the lock. `done` is
/// called after each one. One that another program has compressed is compressed again, so that a line can be read without all of
/// it; others that are compressed already are left as they are.
///
/// # Errors
/// [`LedgerError::Locked`]; [`LedgerError::Damaged`] where a line is not right: then its segment stays as it is;
/// [`LedgerError::Active`] and [`LedgerError::NoSegment`]; [`LedgerError::Io`].
pub fn compress(dir: &Path, options: &Options, which: &Sealed, done: &mut dyn FnMut(&Reformed)) -> Result<Vec<Reformed>, LedgerError> {
    locked(dir, options, which, Form::Compressed, done)
}

/// Gives compressed segments their plain form back. Takes the lock.
///
/// # Errors
/// As [`compress`].
pub fn decompress(dir: &Path, options: &Options, which: &Sealed, done: &mut dyn FnMut(&Reformed)) -> Result<Vec<Reformed>, LedgerError> {
    locked(dir, options, which, Form::Plain, done)
}

fn locked(
    dir: &Path,
    options: &Options,
    which: &Sealed,
    form: Form,
    done: &mut dyn FnMut(&Reformed),
) -> Result<Vec<Reformed>, LedgerError> {
    LedgerReader::open(dir, options)?;
    let _lock = StoreLock::acquire(options.storage.as_ref(), dir, options.lock_wait)?;
    let mut all = Vec::new();
    reform(dir, options, which, form, &|| false, &mut |reformed| {
        done(&reformed);
        all.push(reformed);
    })?;
    Ok(all)
}

/// The same with the lock held by the caller, until `stop` says so.
pub(crate) fn reform(
    dir: &Path,
    options: &Options,
    which: &Sealed,
    form: Form,
    stop: &dyn Fn() -> bool,
    done: &mut dyn FnMut(Reformed),
) -> Result<(), LedgerError> {
    for (segment, end) in to_reform(dir, options, which)? {
        if stop() {
            break;
        }
        if let Some(reformed) = reform_one(dir, options, &segment, end, form, stop)? {
            done(reformed);
        }
    }
    Ok(())
}

/// The segments that are meant, each in one form, and each with the seq behind its end.
pub(crate) fn to_reform(dir: &Path, options: &Options, which: &Sealed) -> Result<Vec<(Segment, Seq)>, LedgerError> {
    settle_doubles(dir, options)?;
    chosen(dir, options, which)
}

/// One of them; nothing where it has the form.
pub(crate) fn reform_one(
    dir: &Path,
    options: &Options,
    segment: &Segment,
    end: Seq,
    form: Form,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Reformed>, LedgerError> {
    match (segment.is_compressed(), form) {
        (false, Form::Plain) => Ok(None),
        (true, Form::Compressed) => add_table(dir, options, segment, end, stop),
        _ => give_other_form(dir, options, segment, end, stop),
    }
}

/// The oldest sealed segment that is plain, not among the newest so many and not to be left out; and the seq behind its end.
#[cfg(feature = "actors")]
pub(crate) fn next_to_compress(
    dir: &Path,
    options: &Options,
    keep: usize,
    leave: &dyn Fn(Seq) -> bool,
) -> Result<Option<(Segment, Seq)>, LedgerError> {
    let mut chosen = chosen(dir, options, &Sealed::AllBut(keep))?.into_iter();
    Ok(chosen.find(|(segment, _)| !segment.is_compressed() && !leave(segment.first)))
}

/// Whether it is this segment that could not be compressed, while another one may be.
#[cfg(feature = "actors")]
pub(crate) fn is_its_own(error: &LedgerError, segment: &Segment) -> bool {
    match error {
        LedgerError::Io { action, path, .. } => *action == READING && *path == segment.path,
        LedgerError::Damaged { .. } | LedgerError::ReadsBackWrong { .. } => true,
        _ => false,
    }
}

/// The segments that are meant, each with the seq behind its end, where that is known by the segment after it.
fn chosen(dir: &Path, options: &Options, which: &Sealed) -> Result<Vec<(Segment, Seq)>, LedgerError> {
    let list = segment::list(options.storage.as_ref(), dir)?;
    let nexts = list.iter().skip(1).map(|segment| segment.first);
    let mut sealed: Vec<(Segment, Seq)> = list.iter().cloned().zip(nexts).collect();
    let last = list.last().cloned();
    if let Some(last) = last.clone().filter(Segment::is_compressed) {
        sealed.push((last, Seq::MAX));
    }
    match which {
        Sealed::AllBut(keep) => {
            sealed.truncate(sealed.len().saturating_sub(*keep));
            Ok(sealed)
        }
        Sealed::Holding(seqs) => {
            let head = LedgerReader::open(dir, options)?.head()?.seq;
            if let Some(seq) = seqs.iter().copied().find(|seq| *seq > head || *seq == Seq::ZERO) {
                return Err(LedgerError::NoSegment { seq, head });
            }
            if let Some(active) = last.filter(|last| !last.is_compressed() && seqs.iter().any(|seq| *seq >= last.first)) {
                return Err(LedgerError::Active { path: active.path });
            }
            sealed.retain(|(segment, next)| seqs.iter().any(|seq| segment.first <= *seq && seq < next));
            Ok(sealed)
        }
    }
}

/// Gives a sealed segment its other form, and takes the old one away. Nothing where `stop` said so meanwhile.
///
/// # Errors
/// [`LedgerError::Damaged`], [`LedgerError::ReadsBackWrong`] and [`LedgerError::Io`]: the segment is as it was.
pub(crate) fn give_other_form(
    dir: &Path,
    options: &Options,
    segment: &Segment,
    next: Seq,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Reformed>, LedgerError> {
    give_form(dir, options, segment, segment.other_form(), next, stop)
}

/// Compresses a segment again that another program has compressed, so that a line can be read without all of it. It was
/// compressed as it was: where that can't be done, it stays so.
fn add_table(
    dir: &Path,
    options: &Options,
    segment: &Segment,
    next: Seq,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Reformed>, LedgerError> {
    let has_table = options.storage.open_read(&segment.path).and_then(|mut file| zst::has_table(file.as_mut()));
    if has_table.map_err(LedgerError::io(READING, &segment.path))? {
        return Ok(None);
    }
    match give_form(dir, options, segment, segment.clone(), next, stop) {
        Err(error @ LedgerError::Damaged { .. }) => {
            tracing::warn!(segment = segment.first.get(), %error, "a compressed segment is damaged; it stays as it is");
            Ok(None)
        }
        other => other,
    }
}

/// Replaces a segment's file by one in this form, which may be the form that it has.
fn give_form(
    dir: &Path,
    options: &Options,
    segment: &Segment,
    to: Segment,
    next: Seq,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Reformed>, LedgerError> {
    let storage = options.storage.as_ref();
    let tmp_dir = dir.join("tmp");
    let tmp = Segment { first: segment.first, path: tmp_dir.join(to.path.file_name().unwrap_or_default()) };
    let written = write_form(storage, options, segment, &tmp, stop)
        .map_err(|(side, error)| match (side, to.is_compressed()) {
            (Side::Source, _) => LedgerError::io(READING, &segment.path)(error),
            (Side::Copy, true) => LedgerError::io("compressing to", &tmp.path)(error),
            (Side::Copy, false) => LedgerError::io("decompressing to", &tmp.path)(error),
        })
        .and_then(|stored_bytes| Ok((stored_bytes, check_form(options, segment, &tmp, next, stop)?)));
    let (stored_bytes, plain_bytes) = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // Rubbish that the next open would remove.
            let _ = storage.remove(&tmp.path);
            return if stop() { Ok(None) } else { Err(error) };
        }
    };
    let swap = || {
        options.at(failpoint::COMPRESS_RENAME)?;
        storage.rename(&tmp.path, &to.path)?;
        options.at(failpoint::COMPRESS_RENAMED)?;
        storage.sync_dir(&segment::segments_dir(dir))?;
        if to.path == segment.path {
            return Ok(());
        }
        options.at(failpoint::COMPRESS_REMOVE)?;
        storage.remove(&segment.path)?;
        options.at(failpoint::COMPRESS_REMOVED)?;
        storage.sync_dir(&segment::segments_dir(dir))
    };
    swap().map_err(LedgerError::io("replacing", &segment.path))?;
    tracing::info!(segment = segment.first.get(), plain_bytes, stored_bytes, path = %to.path.display(), "a sealed segment has its other form");
    Ok(Some(Reformed { path: to.path, plain_bytes, stored_bytes }))
}

/// Writes the form that the name says, durably; answers its length.
fn write_form(
    storage: &dyn Storage,
    options: &Options,
    from: &Segment,
    to: &Segment,
    stop: &dyn Fn() -> bool,
) -> Result<u64, (Side, io::Error)> {
    let mut source = from.open(storage).map_err(|error| (Side::Source, error))?;
    let mut file = empty_file(storage, &to.path).map_err(|error| (Side::Copy, error))?;
    let len = if to.is_compressed() {
        zst::encode(source.as_mut(), file.as_mut(), stop)?
    } else {
        let mut side = Side::Source;
        let mut copy = || {
            let len = source.len()?;
            storage::each_piece(source.as_mut(), 0, len, |_, at, bytes| {
                side = Side::Copy;
                if stop() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                file.write_at(bytes, at)?;
                side = Side::Source;
                Ok(())
            })
        };
        copy().map_err(|error| (side, error))?
    };
    // What is compared is what the disk has.
    let synced = options.at(failpoint::COMPRESS_SYNC).and_then(|()| file.sync_data()).and_then(|()| file.forget_cached());
    synced.map(|()| len).map_err(|error| (Side::Copy, error))
}

pub(super) fn empty_file(storage: &dyn Storage, path: &Path) -> io::Result<Box<dyn StorageFile>> {
    storage.create_dir(path.parent().unwrap_or(Path::new(".")))?;
    match storage.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => storage.create_new(path),
    }
}

/// Checks that the new form reads back as the old one, and that its lines are right; answers how many bytes those are.
fn check_form(options: &Options, from: &Segment, to: &Segment, next: Seq, stop: &dyn Fn() -> bool) -> Result<u64, LedgerError> {
    let storage = options.storage.as_ref();
    let reading = || LedgerError::io(READING, &to.path);
    let mut old = from.open(storage).map_err(LedgerError::io(READING, &from.path))?;
    let mut new = to.open(storage).map_err(reading())?;
    if !is_same(old.as_mut(), new.as_mut(), stop).map_err(reading())? {
        return Err(LedgerError::ReadsBackWrong { path: to.path.clone() });
    }
    let damaged = |offset, reason| LedgerError::Damaged { path: from.path.clone(), offset, reason };
    check_lines(options, from, new, next, stop).map_err(|wrong| match wrong {
        Wrong::Io(error) => reading()(error),
        Wrong::Line(offset, reason) => damaged(offset, reason),
        Wrong::Other(error) => error,
    })
}

/// Why the lines of a segment are not right.
enum Wrong {
    Io(io::Error),
    Line(u64, LineFault),
    Other(LedgerError),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        Wrong::Io(error)
    }
}

/// Checks that the lines of a segment are right, and reach to the next one; answers how many bytes they are.
fn check_lines(options: &Options, from: &Segment, file: Box<dyn StorageFile>, next: Seq, stop: &dyn Fn() -> bool) -> Result<u64, Wrong> {
    let len = file.len()?;
    let mut lines = LineReader::new(file, 0, options.line_bytes_max);
    let mut expected: Option<Expected> = None;
    let mut ask_at = 0;
    while let Some(raw) = lines.next()? {
        if raw.offset >= ask_at {
            ask_at = raw.offset + STOP_BYTES;
            if stop() {
                return Err(Wrong::Io(io::ErrorKind::Interrupted.into()));
            }
        }
        let damaged = |reason| Wrong::Line(raw.offset, reason);
        let event = line::decode(raw.bytes).map_err(|error| damaged(segment::fault(from.is_compressed(), raw.bytes, error)))?;
        let before = Head { seq: from.first.previous(), event_hash: event.prev_event_hash };
        let expected = expected.get_or_insert_with(|| Expected::after(before).within(Seq::ZERO, None));
        let group = expected.check_group(&Standing::of(&event)).err();
        let wrong = expected.check(&event, &mut |_| None).map_err(Wrong::Other)?.or(group);
        if let Some(reason) = wrong.or_else(|| (!raw.terminated).then_some(LineFault::Unterminated)) {
            return Err(damaged(reason));
        }
    }
    let end = expected.as_ref().map_or(from.first.previous(), |expected| expected.head().seq).next();
    if end != next && next != Seq::MAX {
        return Err(Wrong::Line(len, LineFault::Seq { expected: end, found: next }));
    }
    if expected.is_none_or(|expected| expected.open_batch().is_some()) {
        return Err(Wrong::Line(len, LineFault::Batch));
    }
    Ok(len)
}

pub(super) fn is_same(one: &mut dyn StorageFile, other: &mut dyn StorageFile, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let (len, mut same) = (one.len()?, true);
    if other.len()? != len {
        return Ok(false);
    }
    let read = storage::each_piece(one, 0, len, |_, at, bytes| {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        same = same && storage::read_range(other, at, at + bytes.len() as u64)? == bytes;
        Ok(())
    })?;
    Ok(same && read == len)
}

/// Sees to compressed forms that stand beside the plain form of the same segment: the plain one counts. What a crash has left
/// has the same lines, and goes. Where the plain one is no more than the beginning of a right compressed one, as `zstd -d` leaves
/// it when it is interrupted, it is the plain one that is kept in torn/; else the other one is, for it may be the better one.
pub(crate) fn settle_doubles(dir: &Path, options: &Options) -> Result<(), LedgerError> {
    let storage = options.storage.as_ref();
    let doubles = segment::doubles(storage, dir)?;
    if doubles.is_empty() {
        return Ok(());
    }
    let firsts: Vec<Seq> = segment::list(storage, dir)?.iter().map(|segment| segment.first).collect();
    let segments = segment::segments_dir(dir);
    let sync = || storage.sync_dir(&segments).map_err(LedgerError::io("syncing", &segments));
    // The plain form may have got its name just before a kill: nothing goes before that is durable.
    sync()?;
    for double in &doubles {
        let next = firsts.iter().copied().find(|first| *first > double.first);
        settle(dir, options, double, next).map_err(LedgerError::io("seeing to the second form", &double.path))?;
    }
    sync()
}

fn settle(dir: &Path, options: &Options, double: &Segment, next: Option<Seq>) -> io::Result<()> {
    let storage = options.storage.as_ref();
    let plain_form = double.other_form();
    let mut plain = storage.open_read(&plain_form.path)?;
    let other = storage.open_read(&double.path).and_then(Zst::open);
    let same = other.and_then(|mut other| is_same(plain.as_mut(), &mut other, &|| false));
    if same.is_err() {
        // A compressed one that can't be read is no reason not to open; the plain one, which counts, must be readable.
        let len = plain.len()?;
        storage::each_piece(plain.as_mut(), 0, len, |_, _, _| Ok(()))?;
    }
    if let Ok(true) = same {
        plain.sync_data()?;
        return storage.remove(&double.path);
    }
    if let (Ok(false), Some(next)) = (&same, next)
        && is_beginning_of(plain.as_mut(), options, double, next)
    {
        storage.open_read(&double.path)?.sync_data()?;
        let kept = keep_in_torn(dir, storage, &plain_form, "jsonl")?;
        tracing::warn!(segment = %plain_form.path.display(), kept, "a plain segment was the beginning of the compressed one beside it, which is right and whole; it is kept in torn/");
        return Ok(());
    }
    let error = same.err().map(|error| error.to_string());
    let kept = keep_in_torn(dir, storage, double, "zst")?;
    tracing::warn!(segment = %double.path.display(), kept, error, "a compressed segment is not the same as the plain one, which counts; it is kept in torn/");
    Ok(())
}

/// Whether the plain form is shorter than the compressed one, the same as far as it goes, and the latter's lines are right and
/// reach to the next segment.
fn is_beginning_of(plain: &mut dyn StorageFile, options: &Options, whole: &Segment, next: Seq) -> bool {
    let storage = options.storage.as_ref();
    let mut look = || -> Result<bool, Wrong> {
        let (mut file, len) = (Zst::open(storage.open_read(&whole.path)?)?, plain.len()?);
        let mut same = len < file.len()?;
        storage::each_piece(plain, 0, len, |_, at, bytes| {
            same = same && storage::read_range(&mut file, at, at + bytes.len() as u64)? == bytes;
            Ok(())
        })?;
        Ok(same && check_lines(options, whole, Box::new(file), next, &|| false).is_ok())
    };
    look().unwrap_or(false)
}

/// Moves a form of a segment to torn/; answers its name there.
fn keep_in_torn(dir: &Path, storage: &dyn Storage, form: &Segment, extension: &str) -> io::Result<String> {
    let torn = dir.join("torn");
    storage.create_dir(&torn)?;
    let taken = storage.list(&torn)?;
    let name = |n| format!("{:020}.other-{n}.{extension}", form.first.get());
    let kept = (1u32..).map(name).find(|name| !taken.contains(name)).unwrap_or_default();
    storage.rename(&form.path, &torn.join(&kept))?;
    storage.sync_dir(&torn)?;
    storage.sync_dir(dir)?;
    Ok(kept)
}
