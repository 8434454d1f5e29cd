//! What an erasure is to name: the caller's choice, looked up and checked against the ledger's own lines. Changes nothing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::{EraseReport, ErasedEvent};
use crate::event::erasure::{BY_BYTES_MAX, ERASURE, ErasurePayload, NAMED_MAX, Named, REASON_BYTES_MAX, is_never_erased};
use crate::event::{Body, Draft, DraftError, Event, EventId, EventType, Seq, Source, line};
use crate::import::{LayoutNote, TAG_LAYOUT};
use crate::ledger::{LedgerError, LedgerLine, LedgerReader, LineFault, LookupError, segment};
use crate::mirror::{MirrorError, Rows};
use crate::options::Options;

/// Events that are erased at once at most: with the longest reasons their names just fit the largest group, and so one atomic
/// batch, which is what makes an erasure begin as a whole.
const EVENTS_MAX: usize = 1 << 16;

/// What an imported event's transcript is told by.
const TRANSCRIPT_TAG: &str = "transcript:";

/// Which events are erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erase {
    /// Those with these seqs. Of a range the ledger's own events (`counterfoil.*`) are passed over.
    Seqs(Vec<RangeInclusive<Seq>>),
    /// Those with these ids.
    Ids(Vec<EventId>),
    /// All that this session has by now.
    Session(String),
}

/// What is to be erased, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erasure {
    /// Which events.
    pub which: Erase,
    /// Why: 1 to 256 bytes. It is recorded, and stays.
    pub reason: String,
    /// Who asked for it: up to 256 bytes, which nobody checks. A signature says which key erased.
    pub by: Option<String>,
    /// What carries it out, as the erasure event's source.
    pub source: Source<'static>,
    /// Only say what would be erased.
    pub dry_run: bool,
}

impl Erasure {
    /// These events, for this reason; recorded with the source `manual_correction`.
    pub fn new(which: Erase, reason: impl Into<String>) -> Erasure {
        Erasure { which, reason: reason.into(), by: None, source: Source::ManualCorrection, dry_run: false }
    }

    /// Who asked for it.
    pub fn by(mut self, by: impl Into<String>) -> Erasure {
        self.by = Some(by.into());
        self
    }

    /// The source of the erasure event.
    pub fn source(mut self, source: Source<'static>) -> Erasure {
        self.source = source;
        self
    }

    /// Only say what would be erased.
    pub fn dry_run(mut self) -> Erasure {
        self.dry_run = true;
        self
    }
}

/// Why nothing was erased. Nothing was recorded, unless it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// There is no reason, or a long one.
    #[error("the reason has {bytes} bytes, but must have 1 to {REASON_BYTES_MAX}; say in a sentence why the events are erased")]
    Reason {
        /// Bytes it has.
        bytes: usize,
    },
    /// The text that says who asked is empty or long.
    #[error("who asked for it has {bytes} bytes, but must have 1 to {BY_BYTES_MAX}; shorten it, or leave it out")]
    By {
        /// Bytes it has.
        bytes: usize,
    },
    /// There is no such event.
    #[error("there is no seq {seq}: the ledger ends at seq {head}; nothing was erased; name events that are there")]
    UnknownSeq {
        /// The seq.
        seq: Seq,
        /// The last event.
        head: Seq,
    },
    /// There is no such event.
    #[error("there is no event {id}; nothing was erased; name events that are there (`counterfoil tail` shows the last ones)")]
    UnknownId {
        /// The id.
        id: EventId,
    },
    /// The session has no event.
    #[error("session `{session_id}` has no event; nothing was erased; `counterfoil sessions` lists the sessions")]
    UnknownSession {
        /// The session.
        session_id: String,
    },
    /// It is one of the ledger's own events.
    #[error("seq {seq} is a {event_type}, which the ledger itself has written and which is never erased; leave it out")]
    Reserved {
        /// The event.
        seq: Seq,
        /// Its type.
        event_type: String,
    },
    /// More than can be recorded as a whole.
    #[error(
        "{events} events or more, but {max} may be erased at once, so that all of them are or none; erase them in parts, by ranges of seqs"
    )]
    TooMany {
        /// How many were named.
        events: usize,
        /// The bound.
        max: usize,
    },
    /// The mirror, in which ids and sessions are looked up, is behind.
    #[error(
        "the mirror is at seq {mirrored} and the ledger at seq {head}, so what is to be erased can't be looked up; run `counterfoil replay`"
    )]
    MirrorBehind {
        /// How far it is.
        mirrored: Seq,
        /// The last event.
        head: Seq,
    },
    /// An id can't be looked up.
    #[error("looking up an event id: {0}; run `counterfoil doctor`")]
    Lookup(#[from] LookupError),
    /// The erasure event can't be recorded.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The ledger can't be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The mirror can't be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

/// Names the events that are to be erased, and the drafts that record it: none where there is nothing to erase.
pub(crate) fn plan(
    reader: &LedgerReader,
    rows: &mut dyn Rows,
    head: Seq,
    erasure: &Erasure,
    options: &Options,
) -> Result<(EraseReport, Vec<Draft>, Option<Seq>), EraseError> {
    let Erasure { reason, by, source, .. } = erasure;
    if !(1..=REASON_BYTES_MAX).contains(&reason.len()) {
        return Err(EraseError::Reason { bytes: reason.len() });
    }
    if let Some(by) = by.as_ref().filter(|by| !(1..=BY_BYTES_MAX).contains(&by.len())) {
        return Err(EraseError::By { bytes: by.len() });
    }
    let seqs = seqs(rows, head, &erasure.which)?;
    let one_by_one = one_by_one(&erasure.which, &seqs);
    let mut report = EraseReport::new(erasure.dry_run);
    let mut transcripts = BTreeSet::new();
    let named = named(reader, head, &seqs, &mut |event| {
        transcripts.extend(transcript_of(event));
        if is_never_erased(event.event_type) && !one_by_one.contains(&event.seq) {
            report.passed_over += 1;
            return Ok(None);
        }
        name(event, reason, &mut report)
    })?;
    report.layout_notes = layout_notes(rows, &transcripts, &seqs)?;
    let last = named.last().map(|named| named.seq);
    // Each entry of a payload has the reason once, and of the line other things are a small part.
    let entry_bytes = 200 + serde_json::to_string(reason).map_or(6 * reason.len(), |json| json.len());
    let many = (options.line_bytes_max.saturating_sub(8 << 10) / entry_bytes).clamp(1, NAMED_MAX);
    let draft = |some: &[Named]| -> Result<Draft, EraseError> {
        let payload = ErasurePayload { erased: some.to_vec(), by: by.clone() }.to_payload().map_err(DraftError::from)?;
        Ok(Draft::new(EventType::reserved(ERASURE), source.clone()).with_payload(payload))
    };
    let drafts: Vec<Draft> = named.chunks(many).map(draft).collect::<Result<_, _>>()?;
    let bytes: usize = named.len() * entry_bytes + drafts.len() * 2048;
    if bytes > options.group_bytes_max || drafts.len() > options.group_events_max {
        return Err(EraseError::TooMany { events: named.len(), max: options.group_bytes_max / (entry_bytes + 100) });
    }
    Ok((report, drafts, last))
}

/// The seqs that are meant.
fn seqs(rows: &mut dyn Rows, head: Seq, which: &Erase) -> Result<BTreeSet<Seq>, EraseError> {
    let too_many = |events| EraseError::TooMany { events, max: EVENTS_MAX };
    let mirrored = rows.mirrored()?;
    if mirrored < head && !matches!(which, Erase::Seqs(_)) {
        return Err(EraseError::MirrorBehind { mirrored, head });
    }
    let mut seqs = BTreeSet::new();
    match which {
        Erase::Seqs(ranges) => {
            for range in ranges {
                let (first, last) = (*range.start(), *range.end());
                if let Some(seq) = [first, last].into_iter().find(|seq| *seq == Seq::ZERO || *seq > head) {
                    return Err(EraseError::UnknownSeq { seq, head });
                }
                let many = usize::try_from(last.get().saturating_sub(first.get())).unwrap_or(usize::MAX);
                if many >= EVENTS_MAX || seqs.len() > EVENTS_MAX {
                    return Err(too_many(many.saturating_add(1).max(seqs.len())));
                }
                seqs.extend((first.get()..=last.get()).map(Seq::new));
            }
        }
        Erase::Ids(ids) => {
            for id in ids {
                let Some(found) = rows.by_id(*id)? else { return Err(EraseError::UnknownId { id: *id }) };
                seqs.insert(found.0.receipt.seq);
            }
        }
        Erase::Session(session_id) => {
            seqs.extend(rows.seqs_of_session(session_id, EVENTS_MAX + 1)?);
            if seqs.is_empty() {
                return Err(EraseError::UnknownSession { session_id: session_id.clone() });
            }
        }
    }
    if seqs.len() > EVENTS_MAX { Err(too_many(seqs.len())) } else { Ok(seqs) }
}

/// Those of them that still have a payload, as the ledger's lines have them.
fn named(
    reader: &LedgerReader,
    head: Seq,
    seqs: &BTreeSet<Seq>,
    name: &mut dyn FnMut(&Event<'_>) -> Result<Option<Named>, EraseError>,
) -> Result<Vec<Named>, EraseError> {
    let mut named = Vec::new();
    let mut nexts = reader.segments()?.into_iter().map(|segment| segment.first).skip(1);
    let mut wanted = seqs.iter().copied().peekable();
    while let Some(first) = wanted.peek().copied() {
        // Each segment that holds some is read once, from the first of them on.
        let end = nexts.find(|next| *next > first).unwrap_or(Seq::MAX);
        let mut lines = reader.lines_from(first)?;
        while let Some(seq) = wanted.next_if(|seq| *seq < end) {
            let found = loop {
                match lines.next_raw()? {
                    None => return Err(EraseError::UnknownSeq { seq, head }),
                    Some(found) if found.raw.stated_seq().is_some_and(|stated| stated < seq) => {}
                    Some(found) => break (found.segment, found.compressed, found.raw.offset, line_of(&found, seq)),
                }
            };
            let (segment, compressed, offset, line) = found;
            let path = segment::Segment::named(reader.dir(), segment, compressed).path;
            let line = line.map_err(|reason| LedgerError::Damaged { path, offset, reason })?;
            if let Ok(event) = line::decode_again(&line) {
                named.extend(name(&event)?);
            }
        }
    }
    Ok(named)
}

/// Those that are meant one by one: of a range or a session the ledger's own events are passed over.
fn one_by_one(which: &Erase, seqs: &BTreeSet<Seq>) -> BTreeSet<Seq> {
    match which {
        Erase::Seqs(ranges) => ranges.iter().filter(|range| range.start() == range.end()).map(|range| *range.start()).collect(),
        Erase::Ids(_) => seqs.clone(),
        Erase::Session(_) => BTreeSet::new(),
    }
}

/// The tag of the transcript that an event was imported from.
fn transcript_of(event: &Event<'_>) -> Option<String> {
    let tags: Vec<String> = serde_json::from_str(event.domain_tags_json.filter(|tags| tags.contains(TRANSCRIPT_TAG))?).ok()?;
    tags.into_iter().find(|tag| tag.starts_with(TRANSCRIPT_TAG))
}

/// Layout notes of these transcripts that have bytes of lines, but for those that are named themselves.
fn layout_notes(rows: &dyn Rows, transcripts: &BTreeSet<String>, named: &BTreeSet<Seq>) -> Result<Vec<Seq>, EraseError> {
    let mut notes = Vec::new();
    for transcript in transcripts {
        for (seq, payload) in rows.tagged(EventType::SYSTEM_NOTE.as_str(), [TAG_LAYOUT, transcript])? {
            let has_bytes = |note: LayoutNote| note.layout.iter().any(|run| run.raw.is_some() || run.base64.is_some());
            if !named.contains(&seq) && LayoutNote::from_payload(&payload).is_none_or(has_bytes) {
                notes.push(seq);
            }
        }
    }
    Ok(notes)
}

/// The line, where it is the right one.
fn line_of(found: &LedgerLine<'_>, seq: Seq) -> Result<Vec<u8>, LineFault> {
    let event = line::decode(found.raw.bytes).map_err(|error| found.fault(error))?;
    if event.seq == seq { Ok(found.raw.bytes.to_vec()) } else { Err(LineFault::Seq { expected: seq, found: event.seq }) }
}

fn name(event: &Event<'_>, reason: &str, report: &mut EraseReport) -> Result<Option<Named>, EraseError> {
    let payload_bytes = match event.body {
        Body::Erased => {
            report.already_erased += 1;
            return Ok(None);
        }
        Body::Inline(json) => json.len() as u64,
        Body::Blob { bytes } => bytes,
    };
    if is_never_erased(event.event_type) {
        return Err(EraseError::Reserved { seq: event.seq, event_type: event.event_type.to_owned() });
    }
    report.list(ErasedEvent { seq: event.seq, id: event.id, event_type: event.event_type.to_owned(), payload_bytes });
    Ok(Some(Named { seq: event.seq, id: Some(event.id), payload_hash: event.payload_hash, reason: reason.to_owned() }))
}
