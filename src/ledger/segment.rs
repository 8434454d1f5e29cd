//! Segments: their names, their list, and the lines in one of them.

use std::io;
use std::path::{Path, PathBuf};

use super::storage::StorageFile;
use super::{LedgerError, Storage};
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

/// The segments of a store, in order. Other files in the directory are left alone.
pub(crate) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<Segment>, LedgerError> {
    let segments = segments_dir(dir);
    let names = match storage.list(&segments) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LedgerError::io("listing", &segments)(error)),
    };
    let number = |name: &str, suffix: &str| {
        let digits = name.strip_suffix(suffix)?;
        (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten().map(Seq::new)
    };
    let mut list: Vec<Segment> =
        names.iter().filter_map(|name| Some(Segment { first: number(name, ".jsonl")?, path: segments.join(name) })).collect();
    list.sort_by_key(|segment| segment.first);
    for name in &names {
        // Where both forms exist, the plain one counts.
        if let Some(first) = number(name, ".jsonl.zst")
            && !list.iter().any(|segment| segment.first == first)
        {
            return Err(LedgerError::Compressed { path: segments.join(name) });
        }
    }
    Ok(list)
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
}

/// The first read is small, since many readers want one line; later ones grow up to this.
const READ_BYTES_MAX: usize = 256 << 10;
const READ_BYTES_FIRST: usize = 4 << 10;

impl LineReader {
    pub(crate) fn new(file: Box<dyn StorageFile>, offset: u64, line_bytes_max: usize) -> LineReader {
        LineReader { file, buffer: Vec::new(), start: 0, end: 0, offset, ask_bytes: READ_BYTES_FIRST, line_bytes_max }
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
        let (mut searched, mut dropped) = (0usize, 0u64);
        let (bytes, len, terminated) = loop {
            let found = self.buffer.get(self.start + searched..self.end).and_then(|fresh| memchr::memchr(b'\n', fresh));
            if let Some(at) = found {
                let len = searched + at;
                if len == 0 && dropped == 0 {
                    self.start += 1;
                    self.offset += 1;
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
