//! What the bytes behind the last valid line are: fill, a torn group, or something that a crash can't make.

use std::path::Path;

use super::segment::LineReader;
use super::{Head, LedgerError, LineFault, Refusal};
use crate::event::{Event, line};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing, or only LF or NUL.
    Clean,
    /// The last group, whose fsync may not have returned.
    Torn,
}

/// Classifies what the reader yields, given the last valid event before it.
pub(crate) fn classify(reader: &mut LineReader, path: &Path, valid: Head) -> Result<Tail, LedgerError> {
    let mut tail = Tail::Clean;
    let begin = reader.offset();
    while let Some(raw) = reader.next().map_err(LedgerError::io("reading", path))? {
        if raw.is_fill() {
            continue;
        }
        tail = Tail::Torn;
        let Some((_, event)) = right_by_its_own_hash(raw.bytes) else {
            continue;
        };
        let next = valid.seq.next();
        let path = path.to_owned();
        if event.group_seq > next {
            return Err(Box::new(Refusal::LaterGroup { path, offset: begin, seq: next, later: event.seq }).into());
        }
        let fault = if event.seq <= valid.seq {
            LineFault::Seq { expected: next, found: event.seq }
        } else if event.seq == next && event.prev_event_hash != valid.event_hash {
            LineFault::Link { expected: valid.event_hash, found: event.prev_event_hash }
        } else {
            continue;
        };
        return Err(Box::new(Refusal::Splice { path, offset: raw.offset, fault }).into());
    }
    Ok(tail)
}

/// The event in these bytes, also where zeros or the rest of a torn line stand before it; and where it begins.
pub(crate) fn right_by_its_own_hash(bytes: &[u8]) -> Option<(usize, Event<'_>)> {
    // Where bytes are no text, a line can only begin behind them. Found out once: a large payload may hold the same
    // beginning very many times.
    let text = bytes.utf8_chunks().last().filter(|chunk| chunk.invalid().is_empty())?.valid();
    let before = bytes.len() - text.len();
    // A payload may hold the same text, so every place counts.
    memchr::memmem::find_iter(text.as_bytes(), b"{\"seq\":").find_map(|at| Some((before + at, line::decode_text(text.get(at..)?).ok()?)))
}
