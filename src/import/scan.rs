//! Lines of a file, split on LF alone, with bounded memory. Called by the reader and by detection. Never
//! interprets a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::Path;

use super::error::{BadLine, ImportError};

/// Bytes read at a time. 256 KiB: few system calls, little memory.
const BUFFER_BYTES: usize = 256 << 10;

/// Reads a file line by line.
#[derive(Debug)]
pub(crate) struct Scanner {
    input: BufReader<Take<File>>,
    bytes_max: usize,
    kept: Vec<u8>,
    hasher: blake3::Hasher,
    lines: u64,
    bytes: u64,
}

/// A line, without its LF.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawLine<'a> {
    /// From 1.
    pub number: u64,
    /// Its bytes; only the first ones where it is longer than the bound.
    pub bytes: &'a [u8],
    /// Bytes it has, all counted, LF not.
    pub len: u64,
    /// Whether LF ends it.
    pub terminated: bool,
}

/// Opens a regular file; never blocks on a pipe. Its length comes along.
pub(crate) fn open(path: &Path) -> Result<(File, u64), ImportError> {
    let metadata = std::fs::metadata(path).map_err(ImportError::io("opening", path))?;
    if !metadata.is_file() {
        return Err(ImportError::NotAFile { path: path.to_owned() });
    }
    let file = File::open(path).map_err(ImportError::io("opening", path))?;
    Ok((file, metadata.len()))
}

impl Scanner {
    /// Reads so many bytes of the file; of a longer line than this only the first bytes are kept.
    pub fn new(file: File, bytes: u64, bytes_max: usize) -> Scanner {
        Scanner {
            input: BufReader::with_capacity(BUFFER_BYTES, file.take(bytes)),
            bytes_max,
            kept: Vec::new(),
            hasher: blake3::Hasher::new(),
            lines: 0,
            bytes: 0,
        }
    }

    /// The next line; nothing at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.kept.clear();
        let (mut len, mut terminated) = (0u64, false);
        while !terminated {
            let refilled = self.input.buffer().is_empty();
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            if refilled {
                // All of it at once: several blocks are hashed side by side.
                self.hasher.update(chunk);
            }
            let end = memchr::memchr(b'\n', chunk);
            terminated = end.is_some();
            let line = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let used = line.len() + usize::from(terminated);
            let room = self.bytes_max.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(line.get(..line.len().min(room)).unwrap_or_default());
            len += line.len() as u64;
            self.bytes += used as u64;
            self.input.consume(used);
        }
        if len == 0 && !terminated {
            return Ok(None);
        }
        self.lines += 1;
        Ok(Some(RawLine { number: self.lines, bytes: &self.kept, len, terminated }))
    }

    /// Lines read so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3 of the file, once all of it is read.
    pub fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// A line in its parts: `lead`, `core`, `trail`, `end`, which are its bytes when put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// White space before the record; of a blank line, all of it.
    pub lead: &'a [u8],
    /// The record; empty where the line is blank.
    pub core: &'a [u8],
    /// White space after the record.
    pub trail: &'a [u8],
    /// LF, CRLF, or nothing.
    pub end: &'static str,
}

impl<'a> RawLine<'a> {
    /// Its parts. White space is what JSON allows: space, tab, CR.
    pub fn parts(&self) -> Parts<'a> {
        let (body, end) = match (self.terminated, self.bytes.strip_suffix(b"\r")) {
            (true, Some(body)) if self.len == self.bytes.len() as u64 => (body, "\r\n"),
            (true, _) => (self.bytes, "\n"),
            (false, _) => (self.bytes, ""),
        };
        let from = body.iter().position(|byte| !is_space(*byte)).unwrap_or(body.len());
        let to = body.iter().rposition(|byte| !is_space(*byte)).map_or(from, |last| last + 1);
        let part = |from: usize, to: usize| body.get(from..to).unwrap_or_default();
        Parts { lead: part(0, from), core: part(from, to), trail: part(to, body.len()), end }
    }
}

/// The record as text, where it is one JSON value.
pub(crate) fn check(core: &[u8]) -> Result<&str, BadLine> {
    if core.starts_with("\u{feff}".as_bytes()) {
        return Err(BadLine::ByteOrderMark);
    }
    if let Some(at) = memchr::memchr(0, core) {
        return Err(BadLine::Nul { at, count: memchr::memchr_iter(0, core).count() });
    }
    let text = std::str::from_utf8(core).map_err(|error| BadLine::NotUtf8 { at: error.valid_up_to() })?;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&serde_json::value::RawValue>();
    let first = values.next();
    let at = values.byte_offset();
    match first {
        // A value that ends where the text does is alone; the stream has no opinion on what may follow it.
        Some(Ok(_)) if at == text.len() => Ok(text),
        Some(Ok(_)) => {
            let rest = text.get(at..).unwrap_or_default();
            Err(BadLine::Fused { at: at + rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len() })
        }
        Some(Err(error)) if error.is_eof() => Err(BadLine::Incomplete),
        Some(Err(error)) => Err(not_json(text, &error)),
        None => Err(BadLine::Incomplete),
    }
}

/// The stream wants white space after numbers and literals; the whole-text parser says more precisely what is wrong.
fn not_json(text: &str, error: &serde_json::Error) -> BadLine {
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Err(error) if error.to_string().starts_with("trailing characters") => BadLine::Fused { at: error.column().saturating_sub(1) },
        Err(error) => BadLine::NotJson(error.to_string()),
        Ok(_) => BadLine::NotJson(error.to_string()),
    }
}
