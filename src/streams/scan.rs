//! The ledger's lines, looked through from a known place on: for what the mirror has not got.

use std::ops::ControlFlow;

use super::StreamError;
use crate::Error;
use crate::event::{Event, Seq};
use crate::ledger::{LedgerError, LedgerLine, LedgerReader, LineFault, Segment, Watermark};

/// The place before the first line.
pub(super) fn beginning(ledger: &LedgerReader) -> Watermark {
    Watermark { seq: Seq::ZERO, event_hash: ledger.manifest().genesis(), segment: Seq::FIRST, offset: 0 }
}

/// Hands over the events behind `after`, up to `through`, until `each` has enough; with each its line and its place. They follow each
/// other by seq and hash. `right` is moved along with them: where this fails, to the last one that nothing was wrong with.
///
/// # Errors
/// [`StreamError::NotInLedger`] where `after` is not in the ledger; [`StreamError::Short`] where the ledger ends before `through`, or,
/// where that is [`Seq::MAX`], before `known`, which it is said to have; [`LedgerError`]; what `each` says.
pub(super) fn scan(
    ledger: &LedgerReader,
    after: Watermark,
    (through, known): (Seq, Seq),
    right: &mut Seq,
    mut each: impl FnMut(&LedgerLine<'_>, &Event<'_>, Watermark) -> Result<ControlFlow<()>, Error>,
) -> Result<(), Error> {
    if after.seq >= through {
        return Ok(());
    }
    let mut lines = match after.seq {
        Seq::ZERO => ledger.lines_from(Seq::FIRST)?,
        seq => match ledger.lines_after(&after)? {
            Some((found, lines)) if found.event_hash == after.event_hash => lines,
            _ => return Err(StreamError::NotInLedger { path: crate::mirror::mirror_path(ledger.dir()), seq }.into()),
        },
    };
    let mut end = after;
    *right = end.seq;
    while let Some((line, event)) = lines.next_event()? {
        let fault = if event.seq != end.seq.next() {
            Some(LineFault::Seq { expected: end.seq.next(), found: event.seq })
        } else if event.prev_event_hash != end.event_hash {
            Some(LineFault::Link { expected: end.event_hash, found: event.prev_event_hash })
        } else {
            None
        };
        match fault {
            // What a crash has left there is for recovery: the ledger ends before it.
            Some(_) if line.active => break,
            Some(fault) => return Err(damaged(ledger, &line, fault)),
            None if event.seq > through => return Ok(()),
            None => {}
        }
        end = Watermark { seq: event.seq, event_hash: event.event_hash, segment: line.segment, offset: line.raw.offset };
        if each(&line, &event, end)?.is_break() || end.seq == through {
            return Ok(());
        }
        *right = end.seq;
    }
    let through = if through == Seq::MAX { known } else { through };
    if end.seq < through { Err(StreamError::Short { path: ledger.dir().to_owned(), end: end.seq, through }.into()) } else { Ok(()) }
}

/// An error where the payload of an event that is to be handed out is not the one that was hashed.
pub(super) fn check_payload(ledger: &LedgerReader, line: &LedgerLine<'_>, event: &Event<'_>) -> Result<(), Error> {
    if event.payload_is_right() == Some(false) { Err(damaged(ledger, line, LineFault::Payload)) } else { Ok(()) }
}

/// The file that a line was read from.
pub(super) fn segment_of(ledger: &LedgerReader, line: &LedgerLine<'_>) -> std::path::PathBuf {
    Segment::named(ledger.dir(), line.segment, line.compressed).path
}

fn damaged(ledger: &LedgerReader, line: &LedgerLine<'_>, fault: LineFault) -> Error {
    LedgerError::Damaged { path: segment_of(ledger, line), offset: line.raw.offset, reason: line.fault(fault) }.into()
}
