//! Segments: their names, their list, and the lines in one of them.

use std::io;
use std::path::{Path, PathBuf};

use super::storage::StorageFile;
use super::zst::{self, Zst};
use super::{LedgerError, LineFault, Storage};
use crate::event::Seq;

/// A file of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Seq of its first event: its name.
    pub first: Seq,
    /// The file.
    pub path: PathBuf,
}

/// The directory that holds a store's segments.
pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// The file of the segment that begins with this seq.
pub(crate) fn segment_path(dir: &Path, first: Seq) -> PathBuf {
    segments_dir(dir).join(format!("{:020}.jsonl", first.get()))
}

/// The file of the compressed form of that segment.
pub(crate) fn compressed_path(dir: &Path, first: Seq) -> PathBuf {
    segments_dir(dir).join(format!("{:020}.jsonl.zst", first.get()))
}

impl Segment {
    /// The segment that begins with this seq, in one form or the other.
    pub(crate) fn named(dir: &Path, first: Seq, compressed: bool) -> Segment {
        let path = if compressed { compressed_path(dir, first) } else { segment_path(dir, first) };
        Segment { first, path }
    }

    /// Whether it is the compressed form. That is always sealed.
    pub fn is_compressed(&self) -> bool {
        self.path.as_os_str().as_encoded_bytes().ends_with(b".zst")
    }

    /// The same segment in the other form.
    pub(crate) fn other_form(&self) -> Segment {
        let path = if self.is_compressed() { self.path.with_extension("") } else { self.path.with_extension("jsonl.zst") };
        Segment { first: self.first, path }
    }

    /// Opens it to read what its lines are, whatever its form.
    pub(crate) fn open(&self, storage: &dyn Storage) -> io::Result<Box<dyn StorageFile>> {
        self.clone().open_present(storage)
    }

    /// The same; then it is the form that was opened: it may have got the other one since it was listed.
    pub(crate) fn open_present(&mut self, storage: &dyn Storage) -> io::Result<Box<dyn StorageFile>> {
        let file = self.open_file(storage)?;
        if self.is_compressed() { Ok(Box::new(Zst::open(file)?)) } else { Ok(file) }
    }

    /// The file itself.
    fn open_file(&mut self, storage: &dyn Storage) -> io::Result<Box<dyn StorageFile>> {
        // The new form has its name before the old one goes; it may go back, and forth, between two looks.
        for _ in 0..FORMS_LOOKED_FOR {
            match storage.open_read(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => *self = self.other_form(),
                found => return found,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Bytes of its lines, and of its file, in the form that it has just now.
    pub(crate) fn lengths(&mut self, storage: &dyn Storage) -> io::Result<(u64, u64)> {
        let file = self.open_file(storage)?;
        let stored = file.len()?;
        Ok((if self.is_compressed() { Zst::open(file)?.len()? } else { stored }, stored))
    }
}

/// The fault of a line; where bytes of it could not be decompressed, that is what is wrong.
pub(crate) fn fault(compressed: bool, bytes: &[u8], fault: impl Into<LineFault>) -> LineFault {
    let is_lost = compressed && memchr::memchr(zst::LOST, bytes).is_some();
    if is_lost { LineFault::Compressed } else { fault.into() }
}

/// How often a segment is looked for, in one form and in the other. 8: a change of forms takes several fsyncs, and one has to come
/// between any two looks.
const FORMS_LOOKED_FOR: usize = 8;

/// Names in a directory past which a listing may take more than one system call: then a file that gets another name
/// meanwhile may show under neither.
const LISTED_AT_ONCE: usize = 256;

/// All files that are segments, in order, the compressed form before the plain one.
fn files(storage: &dyn Storage, dir: &Path) -> Result<Vec<Segment>, LedgerError> {
    let segments = segments_dir(dir);
    let names = match storage.list(&segments) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LedgerError::io("listing", &segments)(error)),
    };
    let first = |name: &str| {
        let digits = name.strip_suffix(".zst").unwrap_or(name).strip_suffix(".jsonl")?;
        (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten().map(Seq::new)
    };
    let mut list: Vec<Segment> = names.iter().filter_map(|name| Some(Segment { first: first(name)?, path: segments.join(name) })).collect();
    list.sort_by_key(|segment| (segment.first, !segment.is_compressed()));
    Ok(list)
}

/// The segments of a store, in order. Other files in the directory are left alone. Where both forms of a segment are
/// there, the plain one counts.
pub(crate) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<Segment>, LedgerError> {
    let mut list = files(storage, dir)?;
    while list.len() > LISTED_AT_ONCE {
        let again = files(storage, dir)?;
        let firsts = |list: &[Segment]| list.iter().map(|segment| segment.first).collect::<Vec<_>>();
        let mut seen = firsts(&list);
        seen.dedup();
        let mut seen_again = firsts(&again);
        seen_again.dedup();
        list = again;
        if seen == seen_again {
            break;
        }
    }
    // Of each seq the last one, which is the plain one.
    let mut one_each: Vec<Segment> = Vec::with_capacity(list.len());
    for segment in list {
        match one_each.last_mut().filter(|before| before.first == segment.first) {
            Some(before) => *before = segment,
            None => one_each.push(segment),
        }
    }
    Ok(one_each)
}

/// Compressed forms that stand beside the plain form of the same segment: a crash has left them, or a person.
pub(crate) fn doubles(storage: &dyn Storage, dir: &Path) -> Result<Vec<Segment>, LedgerError> {
    let list = files(storage, dir)?;
    let is_double = |pair: &[Segment]| matches!(pair, [one, other] if one.first == other.first);
    Ok(list.windows(2).filter(|pair| is_double(pair)).filter_map(|pair| pair.first().cloned()).collect())
}

/// A run of bytes of a segment between two LFs.
#[derive(Clone, Copy, Debug)]
pub struct RawLine<'a> {
    /// Offset of its first byte in the segment.
    pub offset: u64,
    /// Its bytes without LF; cut where it is longer than the reader's bound.
    pub bytes: &'a [u8],
    /// Its true length, without LF.
    pub len: u64,
    /// Whether it ends in LF (else in the end of the file).
    pub terminated: bool,
}

impl RawLine<'_> {
    /// The seq that the line states, without looking at the rest of it.
    pub(crate) fn stated_seq(&self) -> Option<Seq> {
        let digits = self.bytes.strip_prefix(b"{\"seq\":")?;
        let end = memchr::memchr(b',', digits)?;
        std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok().map(Seq::new)
    }

    /// Whether it is all NUL: space that was laid out and not written to. What is longer than the reader's bound is not
    /// known to the end, and so not taken for fill.
    pub fn is_fill(&self) -> bool {
        self.len == self.bytes.len() as u64 && self.bytes.iter().all(|byte| *byte == 0)
    }

    /// Offset of the byte after it and its LF.
    pub fn end(&self) -> u64 {
        self.offset + self.len + u64::from(self.terminated)
    }
}

/// Where a line is in the reader's buffer and in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from: usize,
    to: usize,
    offset: u64,
    len: u64,
    terminated: bool,
}

/// Reads a segment line by line, in constant memory, while another process may be writing to it.
#[derive(Debug)]
pub(crate) struct LineReader {
    file: Box<dyn StorageFile>,
    buffer: Vec<u8>,
    /// Of the buffer: where the next line begins, and where the bytes end.
    start: usize,
    end: usize,
    /// Of the file: where the next line begins.
    offset: u64,
    /// How much the next read asks for.
    ask_bytes: usize,
    line_bytes_max: usize,
    /// Where blank lines were found to begin that reach to the end of the file, and where that was.
    blank_end: Option<(u64, u64)>,
}

/// The first read is small, since many readers want one line; later ones grow up to this.
const READ_BYTES_MAX: usize = 256 << 10;
const READ_BYTES_FIRST: usize = 4 << 10;

impl LineReader {
    pub(crate) fn new(file: Box<dyn StorageFile>, offset: u64, line_bytes_max: usize) -> LineReader {
        LineReader { file, buffer: Vec::new(), start: 0, end: 0, offset, ask_bytes: READ_BYTES_FIRST, line_bytes_max, blank_end: None }
    }

    /// Offset of the next line.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes back to an offset, to read again what may have been written since.
    pub(crate) fn rewind(&mut self, offset: u64) {
        (self.start, self.end, self.offset) = (0, 0, offset);
    }

    /// The next line that is not blank. Nothing at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        Ok(self.advance()?.map(|span| self.line(span)))
    }

    /// The line of a span that [`LineReader::advance`] has just given.
    pub(crate) fn line(&self, span: Span) -> RawLine<'_> {
        let bytes = self.buffer.get(span.from..span.to).unwrap_or_default();
        RawLine { offset: span.offset, bytes, len: span.len, terminated: span.terminated }
    }

    /// Steps over the next line that is not blank, and says where it is. Nothing at the end of the file.
    pub(crate) fn advance(&mut self) -> io::Result<Option<Span>> {
        let begin = self.offset;
        if self.is_blank_still()? {
            return Ok(None);
        }
        loop {
            match self.step(begin)? {
                // Blank lines were read, and then what a writer had meanwhile written over them and on: a line's end, taken for a line.
                Some(span) if begin < span.offset && !self.is_blank_at(begin)? => self.rewind(begin),
                span => return Ok(span),
            }
        }
    }

    fn step(&mut self, begin: u64) -> io::Result<Option<Span>> {
        let (mut searched, mut dropped) = (0usize, 0u64);
        let (bytes, len, terminated) = loop {
            let found = self.buffer.get(self.start + searched..self.end).and_then(|fresh| memchr::memchr(b'\n', fresh));
            if let Some(at) = found {
                let len = searched + at;
                if len == 0 && dropped == 0 {
                    let blank = count_blank(self.buffer.get(self.start..self.end).unwrap_or_default());
                    self.start += blank;
                    self.offset += blank as u64;
                    continue;
                }
                break (len, len as u64 + dropped, true);
            }
            searched = self.end - self.start;
            if searched > self.line_bytes_max {
                // Longer than any line may be: what is over the bound is counted, not kept.
                let keep = self.line_bytes_max;
                dropped += (searched - keep) as u64;
                self.end = self.start + keep;
                searched = keep;
            }
            if self.fill(dropped)? == 0 {
                if searched == 0 && dropped == 0 {
                    self.blank_end = (begin < self.offset).then_some((begin, self.offset));
                    return Ok(None);
                }
                break (searched, searched as u64 + dropped, false);
            }
        };
        let (from, to, offset) = (self.start, self.start + bytes, self.offset);
        self.start = to + usize::from(terminated);
        self.offset += len + u64::from(terminated);
        Ok(Some(Span { from, to, offset, len, terminated }))
    }

    /// Whether the blank lines that reached to the end of the file are still there: a writer writes over them from their
    /// beginning on, so they need not be read again.
    fn is_blank_still(&mut self) -> io::Result<bool> {
        let Some((begin, end)) = self.blank_end.take().filter(|(begin, _)| *begin == self.offset && self.start == self.end) else {
            return Ok(false);
        };
        let is_still = self.is_blank_at(begin)? && self.file.len()? == end;
        if is_still {
            (self.blank_end, self.offset) = (Some((begin, end)), end);
        }
        Ok(is_still)
    }

    fn is_blank_at(&mut self, offset: u64) -> io::Result<bool> {
        let mut first = [0];
        Ok(self.file.read_at(&mut first, offset)? == 1 && first == *b"\n")
    }

    fn fill(&mut self, dropped: u64) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == 0 && self.buffer.len() < self.ask_bytes {
            self.buffer = vec![0; self.ask_bytes]; // memory that comes zeroed costs nothing to zero
        } else if self.buffer.len() < self.end + self.ask_bytes {
            self.buffer.resize(self.end + self.ask_bytes, 0);
        }
        self.ask_bytes = (self.ask_bytes * 4).min(READ_BYTES_MAX);
        let at = self.offset + self.end as u64 + dropped;
        let read = self.file.read_at(self.buffer.get_mut(self.end..).unwrap_or_default(), at)?;
        self.end += read;
        Ok(read)
    }
}

/// How many LFs these bytes begin with.
fn count_blank(bytes: &[u8]) -> usize {
    const RUN: [u8; 64] = [b'\n'; 64];
    let runs = bytes.chunks_exact(RUN.len()).take_while(|run| *run == RUN).count() * RUN.len();
    runs + bytes.get(runs..).unwrap_or_default().iter().take_while(|byte| **byte == b'\n').count()
}

/// The last line of a segment that is not blank, read from its end. Nothing where there is none.
pub(crate) fn last_line(file: &mut dyn StorageFile, line_bytes_max: usize) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut tail: Vec<u8> = Vec::new();
    let mut from = file.len()?;
    let mut step = 4 << 10;
    loop {
        let content = tail.iter().rposition(|b| *b != b'\n').map_or(0, |at| at + 1);
        tail.truncate(content);
        if let Some(at) = tail.iter().rposition(|b| *b == b'\n') {
            return Ok(Some((from + at as u64 + 1, tail.split_off(at + 1))));
        }
        if from == 0 || tail.len() > line_bytes_max {
            return Ok((!tail.is_empty()).then_some((from, tail)));
        }
        let next = from.saturating_sub(step);
        let mut bytes = super::storage::read_range(file, next, from)?;
        bytes.append(&mut tail);
        (tail, from) = (bytes, next);
        step = (step * 4).min(4 << 20);
    }
}
