//! A compressed segment: zstd frames, and behind them a table of where they are, so that a line can be read without
//! those before it. `zstdcat` gives the segment's bytes: the table is a frame that it skips (zstd's "seekable format").
//!
//! Called by whoever opens a segment ([`Zst`]) and by whoever writes one ([`encode`]). It trusts nothing that the file says:
//! memory is bounded whatever sizes stand in it, and bytes that can't be had stand as [`LOST`], which no line contains, so
//! that damage shows where it is: in the lines that it hits.

use std::fmt;
use std::io;

use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::storage::{StorageFile, read_range};

/// Stands for each byte that can't be had. UTF-8 has no such byte.
pub(crate) const LOST: u8 = 0xff;

/// Bytes of the first and the last frame. 8 KiB: every open reads the first and the last line of each segment.
const EDGE_BYTES: u64 = 8 << 10;
/// Bytes of a frame. 256 KiB: what a reader asks for at a time; larger ones compress hardly better.
const FRAME_BYTES: u64 = 256 << 10;
/// zstd's own default: some 600 MB/s, and the disk is slower.
const LEVEL: i32 = 3;
/// A frame that refers back further than 8 MiB (2^23, what RFC 8878 asks of a decoder) is not decoded: that bounds the memory.
const WINDOW_LOG_MAX: u32 = 23;
/// Compressed bytes that are read at a time: a frame of our own, and what it may have grown by.
const INPUT_BYTES: u64 = FRAME_BYTES + (4 << 10);
/// The most bytes of lines that a compressed segment may have: 16 GiB, hundreds of times the default. It bounds for how long a
/// small file that holds more, or says so, can keep a reader busy.
const PLAIN_BYTES_MAX: u64 = 16 << 30;
/// A byte of a frame can't stand for more: the smallest block has 4 bytes, and the largest holds 128 KiB.
const RATIO_MAX: u64 = 32 << 10;
/// Frames that a table may have: a million of 256 KiB. More are read without it, one after the other.
const FRAMES_MAX: u64 = 1 << 20;

const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
const TABLE_MAGIC: u32 = 0x8f92_eab1;
const HEADER_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;

/// Which side of a copy has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Copy,
}

/// Writes the compressed form of a file into an empty one; answers how long that is. `stop` is asked before each frame.
pub(crate) fn encode(from: &mut dyn StorageFile, to: &mut dyn StorageFile, stop: &dyn Fn() -> bool) -> Result<u64, (Side, io::Error)> {
    let source = |error| (Side::Source, error);
    let copy = |error| (Side::Copy, error);
    let len = from.len().map_err(source)?;
    if len > PLAIN_BYTES_MAX {
        return Err(source(io::Error::other("it is longer than the 16 GiB that may be compressed")));
    }
    let mut compressor = Compressor::new(LEVEL).map_err(copy)?;
    compressor.include_checksum(true).map_err(copy)?;
    let (mut at, mut written) = (0, 0);
    let mut table = Vec::new();
    while at < len {
        if stop() {
            return Err(copy(io::ErrorKind::Interrupted.into()));
        }
        let plain = read_range(from, at, frame_end(at, len)).map_err(source)?;
        if plain.is_empty() {
            return Err(source(io::ErrorKind::UnexpectedEof.into()));
        }
        let frame = compressor.compress(&plain).map_err(copy)?;
        to.write_at(&frame, written).map_err(copy)?;
        for bytes in [frame.len(), plain.len()] {
            table.extend_from_slice(&(bytes as u32).to_le_bytes()); // a frame has 256 KiB at most
        }
        (at, written) = (at + plain.len() as u64, written + frame.len() as u64);
    }
    let table = table_frame(&table);
    to.write_at(&table, written).map_err(copy)?;
    Ok(written + table.len() as u64)
}

/// The frame that holds the table, of its entries.
fn table_frame(entries: &[u8]) -> Vec<u8> {
    // PLAIN_BYTES_MAX bounds them far below 4 GiB.
    let (frames, table_bytes) = ((entries.len() / 8) as u32, (entries.len() as u64 + FOOTER_BYTES) as u32);
    let mut skippable = Vec::new();
    skippable.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
    skippable.extend_from_slice(&table_bytes.to_le_bytes());
    skippable.extend_from_slice(entries);
    skippable.extend_from_slice(&frames.to_le_bytes());
    skippable.push(0); // no checksums in the table: each frame has its own
    skippable.extend_from_slice(&TABLE_MAGIC.to_le_bytes());
    skippable
}

/// Where the frame that begins here ends.
fn frame_end(at: u64, len: u64) -> u64 {
    let last = len.saturating_sub(EDGE_BYTES);
    match at {
        0 => EDGE_BYTES.min(len),
        _ if at < last => last.min(at + FRAME_BYTES),
        _ => len,
    }
}

/// Where a frame begins, in the file and in what it decodes to; for the last one, where it ends.
#[derive(Clone, Copy, Debug)]
struct Bound {
    stored: u64,
    plain: u64,
}

/// A compressed segment, read as if it were plain.
pub(crate) struct Zst {
    file: Box<dyn StorageFile>,
    decoder: Decoder<'static>,
    /// Bounds of the frames, one more than there are; without a table that can be trusted, those of the whole file.
    bounds: Vec<Bound>,
    has_table: bool,
    /// The frame that is being decoded, and what is known of its state.
    current: Option<usize>,
    state: State,
    /// Compressed bytes that were read, how many of them are used, and where the next ones are.
    input: Vec<u8>,
    used: usize,
    input_at: u64,
    /// What was decoded last, and where that belongs.
    output: Vec<u8>,
    output_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A frame begins, or has ended.
    Between,
    Within,
    /// Nothing more can be had of it.
    Damaged,
}

/// What a step of decoding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is output.
    More,
    /// The file ends.
    End,
    /// The frames are not where the table says.
    WrongTable,
}

impl Zst {
    pub(crate) fn open(mut file: Box<dyn StorageFile>) -> io::Result<Zst> {
        let stored = file.len()?;
        let table = read_table(file.as_mut(), stored)?;
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        let has_table = table.is_some();
        let mut zst = Zst {
            file,
            decoder,
            bounds: table.unwrap_or_default(),
            has_table,
            current: None,
            state: State::Between,
            input: Vec::new(),
            used: 0,
            input_at: 0,
            output: Vec::new(),
            output_at: 0,
        };
        if !has_table {
            zst.measure()?;
        }
        Ok(zst)
    }

    /// Finds out the length without the table, by decoding all of it: what another program compressed has none.
    fn measure(&mut self) -> io::Result<()> {
        self.has_table = false;
        self.bounds = vec![Bound { stored: 0, plain: 0 }, Bound { stored: self.file.len()?, plain: u64::MAX }];
        self.begin(0)?;
        while self.step()? == Step::More {}
        let plain = self.output_at;
        if let Some(end) = self.bounds.last_mut() {
            end.plain = plain;
        }
        self.begin(0)
    }

    fn bound(&self, index: usize) -> Bound {
        self.bounds.get(index).copied().unwrap_or(Bound { stored: 0, plain: 0 })
    }

    fn begin(&mut self, frame: usize) -> io::Result<()> {
        let Bound { stored, plain } = self.bound(frame);
        self.decoder.reinit()?;
        (self.current, self.state) = (Some(frame), State::Between);
        self.input.clear();
        self.output.clear();
        (self.used, self.input_at, self.output_at) = (0, stored, plain);
        Ok(())
    }

    /// Decodes the next bytes of the current frame: as many as a frame of our own has at most.
    fn step(&mut self) -> io::Result<Step> {
        let end = self.bound(self.current.map_or(0, |frame| frame + 1));
        self.output_at += self.output.len() as u64;
        if !self.has_table && self.output_at >= PLAIN_BYTES_MAX && self.state != State::Damaged {
            return self.damaged(0);
        }
        // Without a table each pass must take the same steps: where a damaged frame stops giving bytes depends on them.
        let left = if self.has_table { end.plain.saturating_sub(self.output_at) } else { u64::MAX };
        let wanted = usize::try_from(left.min(FRAME_BYTES)).unwrap_or(0);
        let is_last = left <= FRAME_BYTES;
        self.output.resize(wanted, 0);
        if self.state == State::Damaged {
            self.output.fill(LOST);
            return self.ended(if self.has_table { wanted } else { 0 });
        }
        let mut filled = 0;
        loop {
            if self.used == self.input.len() {
                let to = end.stored.min(self.input_at + INPUT_BYTES);
                self.input = read_range(self.file.as_mut(), self.input_at, to)?;
                (self.used, self.input_at) = (0, self.input_at + self.input.len() as u64);
            }
            let at_end = self.input.is_empty();
            if at_end && self.state == State::Between && !self.has_table {
                return self.ended(filled);
            }
            let (input, output) = (self.input.get(self.used..).unwrap_or_default(), self.output.get_mut(filled..).unwrap_or_default());
            let Ok(status) = self.decoder.run_on_buffers(input, output) else {
                return self.damaged(filled);
            };
            self.used += status.bytes_read;
            filled += status.bytes_written;
            let stuck = status.bytes_read == 0 && status.bytes_written == 0;
            self.state = if status.remaining == 0 && !stuck { State::Between } else { State::Within };
            match self.has_table {
                true if self.state == State::Between => {
                    // One frame, all of its bytes, and what the table says.
                    let consumed = self.used == self.input.len() && self.input_at == end.stored;
                    return if filled as u64 == left && consumed { self.ended(filled) } else { Ok(Step::WrongTable) };
                }
                true if stuck && is_last && filled == wanted => return Ok(Step::WrongTable),
                true if filled == wanted && !is_last => return self.ended(filled),
                false if filled == wanted => return self.ended(filled),
                _ if stuck && at_end => return self.damaged(filled),
                _ => {}
            }
        }
    }

    fn damaged(&mut self, filled: usize) -> io::Result<Step> {
        tracing::warn!(frame = self.current, offset = self.output_at + filled as u64, "a frame of a compressed segment can't be decoded");
        self.state = State::Damaged;
        // Without a table nobody knows how much is lost: one byte says that something is.
        let lost = if self.has_table { self.output.len() } else { filled + 1 };
        self.output.resize(lost, LOST);
        if let Some(rest) = self.output.get_mut(filled..) {
            rest.fill(LOST);
        }
        self.ended(lost)
    }

    fn ended(&mut self, filled: usize) -> io::Result<Step> {
        self.output.truncate(filled);
        Ok(if filled == 0 { Step::End } else { Step::More })
    }
}

impl StorageFile for Zst {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bounds.last().map_or(0, |end| end.plain))
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            let known = offset.checked_sub(self.output_at).and_then(|from| self.output.get(usize::try_from(from).ok()?..));
            if let Some(bytes) = known.filter(|bytes| !bytes.is_empty()) {
                let count = bytes.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..count), bytes.get(..count)) {
                    to.copy_from_slice(from);
                }
                return Ok(count);
            }
            if offset >= self.bounds.last().map_or(0, |end| end.plain) {
                return Ok(0);
            }
            let frame = self.bounds.partition_point(|bound| bound.plain <= offset).saturating_sub(1);
            if self.current != Some(frame) || offset < self.output_at {
                self.begin(frame)?;
            }
            match self.step()? {
                Step::More => {}
                Step::End => return Ok(0),
                Step::WrongTable => self.measure()?,
            }
        }
    }

    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn reserve(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        self.file.forget_cached()
    }
}

impl fmt::Debug for Zst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zst").field("file", &self.file).field("frames", &self.bounds.len()).finish_non_exhaustive()
    }
}

/// Whether the file has a table of its frames. One that another program has compressed has none, and each open decodes all of it.
pub(crate) fn has_table(file: &mut dyn StorageFile) -> io::Result<bool> {
    let stored = file.len()?;
    Ok(read_table(file, stored)?.is_some())
}

/// The bounds of the frames, by the table at the end of the file; nothing where there is none that fits the file.
fn read_table(file: &mut dyn StorageFile, stored: u64) -> io::Result<Option<Vec<Bound>>> {
    let Some(footer_at) = stored.checked_sub(FOOTER_BYTES) else { return Ok(None) };
    // Most tables lie within the last bytes, and so cost one read.
    let mut tail_at = stored.saturating_sub(4 << 10);
    let mut tail = read_range(file, tail_at, stored)?;
    let word = |tail: &[u8], at: usize| tail.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let offset = |tail_at: u64, at: u64| usize::try_from(at - tail_at).unwrap_or(usize::MAX - 8);
    let footer = offset(tail_at, footer_at);
    let (Some(frames), Some(descriptor), Some(TABLE_MAGIC)) = (word(&tail, footer), tail.get(footer + 4), word(&tail, footer + 5)) else {
        return Ok(None);
    };
    let (frames, entry_bytes) = match descriptor {
        0 => (u64::from(frames), 8),
        0x80 => (u64::from(frames), 12),
        _ => return Ok(None),
    };
    let table_bytes = frames * entry_bytes + FOOTER_BYTES;
    let Some(header_at) = stored.checked_sub(table_bytes + HEADER_BYTES).filter(|_| frames <= FRAMES_MAX) else { return Ok(None) };
    if header_at < tail_at {
        tail = read_range(file, header_at, stored)?;
        tail_at = header_at;
    }
    let header = offset(tail_at, header_at);
    if word(&tail, header) != Some(SKIPPABLE_MAGIC) || word(&tail, header + 4).map(u64::from) != Some(table_bytes) {
        return Ok(None);
    }
    let mut at = Bound { stored: 0, plain: 0 };
    let mut bounds = vec![at];
    let entries = tail.get(header + HEADER_BYTES as usize..).unwrap_or_default().chunks_exact(entry_bytes as usize);
    for entry in entries.take(frames as usize) {
        // A frame that holds nothing would never be looked at; one that claims more than it can hold is a lie.
        let (Some(stored), Some(plain @ 1..)) = (word(entry, 0).map(u64::from), word(entry, 4).map(u64::from)) else { return Ok(None) };
        if plain > stored * RATIO_MAX {
            return Ok(None);
        }
        at = Bound { stored: at.stored + stored, plain: at.plain + plain };
        bounds.push(at);
    }
    let fits = at.stored == header_at && at.plain <= PLAIN_BYTES_MAX && bounds.len() as u64 == frames + 1;
    Ok(fits.then_some(bounds))
}
