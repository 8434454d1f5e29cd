//! Streaming reads of the ledger, without the lock, also beside a live writer.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::recovery::{self, Mark, Watermark};
use super::segment::{self, LineReader, RawLine, Segment, Span};
use super::{LedgerError, LineFault, Manifest, Refusal, Storage};
use crate::event::{Event, Seq, line};
use crate::options::Options;

/// Reads a store's ledger. Needs no lock and writes nothing.
#[derive(Clone, Debug)]
pub struct LedgerReader {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    manifest: Manifest,
    line_bytes_max: usize,
}

/// A line, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLine<'a> {
    /// First seq of the segment that holds it.
    pub segment: Seq,
    /// Its place there, and its bytes.
    pub raw: RawLine<'a>,
    /// Whether the segment was the last one when it was read, and plain.
    pub active: bool,
    /// Whether it was read from the segment's compressed form.
    pub compressed: bool,
}

impl LedgerLine<'_> {
    /// What is wrong with it; where bytes of it could not be decompressed, that is.
    pub(crate) fn fault(&self, fault: impl Into<LineFault>) -> LineFault {
        segment::fault(self.compressed, self.raw.bytes, fault)
    }
}

/// How large a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerSize {
    /// Its segments.
    pub segments: u64,
    /// How many of them are compressed.
    pub compressed: u64,
    /// Bytes of its lines.
    pub plain_bytes: u64,
    /// Bytes of its files.
    pub stored_bytes: u64,
}

impl LedgerReader {
    /// Opens the ledger of the store in this directory.
    ///
    /// # Errors
    /// [`LedgerError::NoStore`] where there is none, [`Refusal::NoManifest`] where there are only segments, or what
    /// [`Manifest::load`] says.
    pub fn open(dir: &Path, options: &Options) -> Result<LedgerReader, LedgerError> {
        if dir.exists() && !dir.is_dir() {
            return Err(LedgerError::NotADirectory { path: dir.to_owned() });
        }
        let storage = options.storage.as_ref();
        let Some(manifest) = Manifest::load(storage, dir)? else {
            return Err(match segment::list(storage, dir)?.is_empty() {
                true => LedgerError::NoStore { path: dir.to_owned() },
                false => Box::new(Refusal::NoManifest { path: Manifest::path(dir) }).into(),
            });
        };
        Ok(LedgerReader::of(dir, manifest, options))
    }

    /// The same, of a store whose manifest has been read.
    pub(crate) fn of(dir: &Path, manifest: Manifest, options: &Options) -> LedgerReader {
        LedgerReader { storage: options.storage.clone(), dir: dir.to_owned(), manifest, line_bytes_max: options.line_bytes_max }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    /// Its segments, in order; the last one is active.
    ///
    /// # Errors
    /// [`LedgerError`] where they can't be listed.
    pub fn segments(&self) -> Result<Vec<Segment>, LedgerError> {
        segment::list(self.storage.as_ref(), &self.dir)
    }

    /// Bytes of the lines of all segments: what a check has before it.
    ///
    /// # Errors
    /// [`LedgerError`] where they can't be listed or opened.
    pub fn bytes(&self) -> Result<u64, LedgerError> {
        let bytes = |segment: &Segment| -> Result<u64, LedgerError> {
            let file = segment.open(self.storage()).map_err(LedgerError::io("opening", &segment.path))?;
            file.len().map_err(LedgerError::io("reading", &segment.path))
        };
        self.segments()?.iter().map(bytes).sum()
    }

    /// How large it is. Reads no lines.
    ///
    /// # Errors
    /// [`LedgerError`] where a segment can't be opened.
    pub fn size(&self) -> Result<LedgerSize, LedgerError> {
        let mut size = LedgerSize::default();
        for mut segment in self.segments()? {
            let (plain, stored) = segment.lengths(self.storage()).map_err(LedgerError::io("opening", &segment.path))?;
            size.plain_bytes += plain;
            size.stored_bytes += stored;
            size.segments += 1;
            size.compressed += u64::from(segment.is_compressed());
        }
        Ok(size)
    }

    /// Lines from this seq on, without reading the segments before it.
    ///
    /// # Errors
    /// [`LedgerError`] where the segments can't be listed.
    pub fn lines_from(&self, seq: Seq) -> Result<Lines, LedgerError> {
        let segments = self.segments()?;
        let holder = segments.iter().rposition(|segment| segment.first <= seq).unwrap_or(0);
        // From the first line on nothing is skipped: a damaged line may state seq 0.
        let from = if seq <= Seq::FIRST { Seq::ZERO } else { seq };
        Ok(self.lines(segments.into_iter().skip(holder).collect(), from))
    }

    /// Lines from an offset of a segment on.
    pub(crate) fn lines_at(&self, first: Seq, offset: u64) -> Result<Lines, LedgerError> {
        let segments = self.segments()?;
        let mut lines = self.lines(segments.into_iter().filter(|segment| segment.first >= first).collect(), Seq::ZERO);
        lines.first_offset = offset;
        Ok(lines)
    }

    /// Lines of this sealed segment, and no others.
    pub(crate) fn lines_of(&self, segment: &Segment) -> Lines {
        let mut lines = self.lines(VecDeque::from([segment.clone()]), Seq::ZERO);
        lines.only = true;
        lines
    }

    /// The line at a watermark, and lines from the one behind it on.
    pub(crate) fn lines_after(&self, mark: &Watermark) -> Result<Option<(Mark, Lines)>, LedgerError> {
        let segments = self.segments()?;
        let Some(holder) = segments.iter().rposition(|segment| segment.first <= mark.seq) else {
            return Ok(None);
        };
        let Some(segment) = segments.get(holder) else {
            return Ok(None);
        };
        let Some((found, segment, reader)) = recovery::find_mark(self.storage.as_ref(), segment, mark, self.line_bytes_max)? else {
            return Ok(None);
        };
        let mut lines = self.lines(segments.into_iter().skip(holder + 1).collect(), Seq::ZERO);
        (lines.last_end, lines.current) = (found.end, Some((segment, reader)));
        Ok(Some((found, lines)))
    }

    fn lines(&self, queue: VecDeque<Segment>, from: Seq) -> Lines {
        Lines { reader: self.clone(), queue, current: None, from, first_offset: 0, last_end: 0, only: false }
    }

    /// The last valid event of the ledger: its seq and hash, or the genesis. Reads the end of the last segment only,
    /// unless that is empty or torn.
    ///
    /// # Errors
    /// [`LedgerError`] where it can't be read.
    pub fn head(&self) -> Result<super::Head, LedgerError> {
        let genesis = super::Head { seq: Seq::ZERO, event_hash: self.manifest.genesis() };
        for segment in self.segments()?.iter().rev() {
            if let Some(head) = self.end_of(segment)? {
                return Ok(head);
            }
            let mut lines = self.lines_at(segment.first, 0)?;
            let mut head = None;
            while let Some((_, event)) = lines.next_event()? {
                head = Some(super::Head { seq: event.seq, event_hash: event.event_hash });
            }
            if let Some(head) = head {
                return Ok(head);
            }
        }
        Ok(genesis)
    }

    /// The last event of a segment; nothing where its last line is not right by its own hash.
    pub(crate) fn end_of(&self, segment: &Segment) -> Result<Option<super::Head>, LedgerError> {
        let mut file = segment.open(self.storage()).map_err(LedgerError::io("opening", &segment.path))?;
        let last = segment::last_line(file.as_mut(), self.line_bytes_max).map_err(LedgerError::io("reading", &segment.path))?;
        let event = last.as_ref().and_then(|(_, bytes)| line::decode(bytes).ok());
        Ok(event.map(|event| super::Head { seq: event.seq, event_hash: event.event_hash }))
    }

    /// The line of this seq, without its LF.
    ///
    /// # Errors
    /// [`LedgerError`] where the ledger can't be read.
    pub fn line(&self, seq: Seq) -> Result<Option<Vec<u8>>, LedgerError> {
        let mut lines = self.lines_from(seq)?;
        match lines.next_event()? {
            Some((line, event)) if event.seq == seq => Ok(Some(line.raw.bytes.to_vec())),
            _ => Ok(None),
        }
    }
}

/// A cursor over the ledger's lines. At the end it can be asked again: a writer may have added some.
#[derive(Debug)]
pub struct Lines {
    reader: LedgerReader,
    queue: VecDeque<Segment>,
    current: Option<(Segment, LineReader)>,
    from: Seq,
    first_offset: u64,
    last_end: u64,
    /// It ends with the segments that it was given, which are sealed.
    only: bool,
}

impl Lines {
    /// The next line that is not blank, right or not. An unfinished line at the end of the last segment counts too.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn next_raw(&mut self) -> Result<Option<LedgerLine<'_>>, LedgerError> {
        Ok(self.advance()?.and_then(|span| self.line(span)))
    }

    /// The next event. Nothing where the bytes that follow are not (yet) a line that is right by its own hash, or are
    /// the end of the ledger: the cursor stays there, and can be asked again. So damage ends the stream too; that is
    /// for verify and parity to tell.
    ///
    /// # Errors
    /// [`LedgerError::Damaged`] where a line of a sealed segment is not right by its own hash; [`LedgerError::Io`].
    pub fn next_event(&mut self) -> Result<Option<(LedgerLine<'_>, Event<'_>)>, LedgerError> {
        let Some(span) = self.advance()? else {
            return Ok(None);
        };
        let problem = match self.line(span) {
            Some(found) if !found.raw.terminated => Some((found.active, found.raw.offset, found.fault(LineFault::Unterminated))),
            Some(found) => line::decode(found.raw.bytes).err().map(|error| (found.active, found.raw.offset, found.fault(error))),
            None => None,
        };
        if let Some((active, offset, reason)) = problem {
            if active {
                self.last_end = offset;
                self.rewind();
                return Ok(None);
            }
            let path = self.current.as_ref().map(|(segment, _)| segment.path.clone()).unwrap_or_default();
            return Err(LedgerError::Damaged { path, offset, reason });
        }
        Ok(self.line(span).and_then(|found| Some((found, line::decode(found.raw.bytes).ok()?))))
    }

    /// Reads afresh what stands behind the last line that ended in LF.
    pub(crate) fn forget_ahead(&mut self) {
        self.rewind();
    }

    fn rewind(&mut self) {
        if let Some((_, lines)) = &mut self.current {
            lines.rewind(self.last_end);
        }
    }

    fn line(&self, span: Span) -> Option<LedgerLine<'_>> {
        let (segment, lines) = self.current.as_ref()?;
        let compressed = segment.is_compressed();
        Some(LedgerLine {
            segment: segment.first,
            raw: lines.line(span),
            active: self.queue.is_empty() && !compressed && !self.only,
            compressed,
        })
    }

    fn advance(&mut self) -> Result<Option<Span>, LedgerError> {
        loop {
            if let Some((segment, lines)) = &mut self.current {
                while let Some(span) = lines.advance().map_err(LedgerError::io("reading", &segment.path))? {
                    let found = lines.line(span);
                    if found.terminated {
                        self.last_end = found.end();
                    }
                    if self.from == Seq::ZERO || found.stated_seq().is_none_or(|seq| seq >= self.from) {
                        return Ok(Some(span));
                    }
                }
                if self.queue.is_empty() && self.only {
                    return Ok(None);
                }
                if self.queue.is_empty() {
                    let first = segment.first;
                    let later = self.reader.segments()?.into_iter().filter(|segment| segment.first > first).collect::<VecDeque<_>>();
                    if later.is_empty() {
                        // Blank fill may be overwritten: look again from behind the last line.
                        self.rewind();
                        return Ok(None);
                    }
                    // The writer may have finished this segment after its end was seen: drain it once more.
                    self.queue = later;
                    self.rewind();
                    continue;
                }
            } else if self.queue.is_empty() {
                self.queue = self.reader.segments()?.into();
                if self.queue.is_empty() {
                    return Ok(None);
                }
            }
            let Some(mut segment) = self.queue.pop_front() else {
                return Ok(None);
            };
            let file = segment.open_present(self.reader.storage()).map_err(LedgerError::io("opening", &segment.path))?;
            let offset = std::mem::take(&mut self.first_offset);
            self.last_end = offset;
            self.current = Some((segment, LineReader::new(file, offset, self.reader.line_bytes_max)));
        }
    }
}
