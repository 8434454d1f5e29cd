//! Whether sealed segments meet end to end: what open asks of them, in O(segments).
//!
//! Both ends of each are read, once. What was read is kept in the mirror with what tells that a file is the one that it was
//! (device, inode, length, times of its last change), so that the next open looks at the file's name and asks the system for
//! these alone. What is kept can only save reads: where with it anything does not fit, all is read, and only that refuses. Rot in
//! place that leaves a file's length and times as they were is what `verify` is for.

use std::collections::HashMap;

use super::recovery::{Context, Refusal, open};
use super::segment::{self, LineReader, Segment};
use super::{FileIdentity, Head, LedgerError, LineFault, Lookup};
use crate::event::{EventHash, Seq, line};

/// How a sealed segment begins and ends, and what its file was when that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedEnds {
    /// Its first seq.
    pub first: Seq,
    /// What its first event links to.
    pub prev: EventHash,
    /// Its last event.
    pub end: Head,
    /// Its file.
    pub file: FileIdentity,
}

/// So few are read each time: that costs some 0.1 ms, and to keep them a transaction of the mirror.
const KEPT_AT_LEAST: usize = 8;

/// Checks that sealed segments meet end to end. Answers where the last one ends, and the ends that are worth being kept, where
/// more of them had to be read than is to be each time.
pub(super) fn check(
    cx: &Context<'_>,
    sealed: &[Segment],
    genesis: Head,
    lookup: &mut dyn Lookup,
) -> Result<(Head, Vec<SealedEnds>), LedgerError> {
    let known = if sealed.len() < KEPT_AT_LEAST { Vec::new() } else { lookup.sealed_ends() };
    let known: HashMap<Seq, SealedEnds> = known.into_iter().map(|ends| (ends.first, ends)).collect();
    let met = match meet(cx, sealed, genesis, &known) {
        Err(_) if !known.is_empty() => meet(cx, sealed, genesis, &HashMap::new()),
        met => met,
    };
    let (end, mut read) = met?;
    if read.len() < KEPT_AT_LEAST {
        read.clear();
    }
    Ok((end, read))
}

fn meet(
    cx: &Context<'_>,
    sealed: &[Segment],
    genesis: Head,
    known: &HashMap<Seq, SealedEnds>,
) -> Result<(Head, Vec<SealedEnds>), LedgerError> {
    let is_kept = sealed.len() >= KEPT_AT_LEAST;
    let (mut end, mut read, mut now) = (genesis, Vec::new(), None);
    for (n, segment) in sealed.iter().enumerate() {
        // Asked before it is read: what is changed from now on shows.
        let file = if is_kept { cx.storage.identity(&segment.path).ok().flatten() } else { None };
        let fits = |ends: &&SealedEnds| Some(ends.file) == file && ends.first == end.seq.next() && ends.prev == end.event_hash;
        // The last one is read in any case: what stands behind it is judged by its end.
        let is_last = n + 1 == sealed.len();
        if let Some(ends) = known.get(&segment.first).filter(fits).filter(|_| !is_last) {
            end = ends.end;
            continue;
        }
        let prev = end.event_hash;
        let is_settled = |file: &FileIdentity| file.is_settled(*now.get_or_insert_with(|| cx.options.clock.now()));
        let file = file.filter(is_settled);
        end = last_behind(cx, segment, end)?;
        if let Some(file) = file {
            read.push(SealedEnds { first: segment.first, prev, end, file });
        }
    }
    Ok((end, read))
}

/// The last event of a segment that begins right behind this one.
fn last_behind(cx: &Context<'_>, segment: &Segment, before: Head) -> Result<Head, LedgerError> {
    let refuse = |reason: String| -> LedgerError { Box::new(Refusal::SegmentsDoNotMeet { path: segment.path.clone(), reason }).into() };
    let reading = || LedgerError::io("reading", &segment.path);
    let fault = |bytes: &[u8], error| segment::fault(segment.is_compressed(), bytes, error);
    let mut file = open(cx, segment)?;
    let last = segment::last_line(file.as_mut(), cx.line_bytes_max).map_err(reading())?;
    let len = file.len().map_err(reading())?;
    let mut reader = LineReader::new(file, 0, cx.line_bytes_max);
    let first = reader.next().map_err(reading())?;
    let first = first.map(|raw| line::decode(raw.bytes).map(|e| (e.seq, e.prev_event_hash)).map_err(|e| fault(raw.bytes, e)));
    let last_end = last.as_ref().map_or(0, |(at, bytes)| at + bytes.len() as u64);
    let last = last.map(|(_, bytes)| {
        let last = line::decode(&bytes).map(|e| (Head { seq: e.seq, event_hash: e.event_hash }, e.batch));
        last.map_err(|e| fault(&bytes, e))
    });
    let next = before.seq.next();
    match (first, last) {
        (Some(Ok((seq, _))), Some(Ok(_))) if seq != segment.first || seq != next => {
            Err(refuse(format!("it begins with seq {seq}, but seq {next} belongs there")))
        }
        (Some(Ok((seq, prev))), Some(Ok(_))) if prev != before.event_hash => {
            Err(refuse(format!("seq {seq} does not link to the segment before it")))
        }
        (Some(Ok(_)), Some(Ok((last, _)))) if last_end == len => {
            Err(refuse(format!("its last line, seq {}, is damaged: {}", last.seq, LineFault::Unterminated)))
        }
        (Some(Ok(_)), Some(Ok((last, batch)))) if batch.is_some_and(|(i, n)| i < n) => {
            Err(refuse(format!("its last line, seq {}, is not the last of its batch", last.seq)))
        }
        (Some(Ok(_)), Some(Ok((last, _)))) => Ok(last),
        (Some(Err(error)), _) => Err(refuse(format!("its first line, where seq {next} belongs, is damaged: {error}"))),
        (_, Some(Err(error))) => Err(refuse(format!("its last line (up to byte {last_end}) is damaged: {error}"))),
        _ => Err(refuse("it is empty".to_owned())),
    }
}
