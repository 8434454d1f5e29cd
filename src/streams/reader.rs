//! [`StreamReader`].

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde_json::value::RawValue;

use super::StreamError;
use super::query::{Direction, StreamPage, StreamQuery};
use super::rows::{self, Filling, RowsError};
use super::scan::{self, scan};
use crate::Error;
use crate::event::{Event, EventHash, EventId, EventRecord, Seq};
use crate::ledger::place::{blob_path, read_blob};
use crate::ledger::{LedgerLine, LedgerReader, LineFault, Watermark};
use crate::mirror::{MirrorError, MirrorReader};
use crate::options::Options;

/// Reads streams of a store: from the mirror as far as it goes, and from the ledger's lines behind that. Needs no lock, and sees every
/// event that is acknowledged, though the mirror is missing, behind, locked, broken or being made anew. The mirror is kept open, so keep
/// the reader; where its file is replaced, it is opened anew.
///
/// Each event that is handed out is right by its own hash and its payload's. Where a row of the page is not, or is missing between others,
/// the page is read from the ledger's lines, and a `tracing` warning names the row: an error only where those can't give the page either.
/// It names both then, and says whether a repair can bring back what is wrong; where only what the mirror has not got yet is wrong, it
/// names the ledger alone. What the mirror says it has, up to its watermark, is taken as that else: where somebody has deleted a stream's
/// last rows, or an index has lost them, the stream ends earlier, and an id whose row is gone is not found. Whether rows are missing, and
/// whether an event is the one that the whole ledger vouches for, is for [`crate::verify`] and [`crate::parity_full`].
///
/// What it costs: a page of rows, by the index, however large the store and the stream are; and, for what the mirror has not got yet, the
/// ledger's lines from the mirror's watermark on. Without a mirror that can be read (it is missing, locked, broken) that is every line of
/// the ledger up to a full page; the memory is a page all the same, and a page that goes on where the last one ended, forwards, goes on in
/// the lines too. Backwards each page looks through the lines anew, from the ledger's first one up to where it begins. A page with a wrong
/// row costs, forwards, the lines from its segment's beginning on, and may then be shorter than was asked for; backwards, and to find an
/// event by an id, as much as without a mirror at most. Where the mirror lacks a stream's last rows and is behind, the lines from the first
/// one on are read, forwards once for all pages.
///
/// ```
/// use counterfoil::{Draft, EventType, Options, Seq, Source, Store, StreamQuery, StreamReader};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// let options = Options::default();
/// let (mut store, _) = Store::open(&path, &options)?;
/// for n in 1..=5 {
///     store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).session("s-1").payload(&n)?)?;
/// }
/// let mut reader = StreamReader::open(&path, &options)?;
/// let page = reader.page(&StreamQuery::new("s-1").backwards().events_max(2), Seq::MAX)?;
/// assert_eq!(page.events.iter().map(|event| event.session_seq).collect::<Vec<_>>(), [Some(5), Some(4)]);
/// assert_eq!((page.next, page.last), (Some(3), 5));
/// assert_eq!(reader.events(StreamQuery::new("s-1").from(2), Seq::MAX).count(), 4);
/// # store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StreamReader {
    ledger: LedgerReader,
    busy_timeout: Duration,
    pub(super) mirror: Option<MirrorReader>,
    /// The mirror's watermark, as it was seen last: it never goes back.
    seen: Seq,
    resume: Option<Resume>,
}

/// Where to go on in the lines, so that those before need not be looked through: where a forward read of them ended, or a place that the
/// mirror tells.
#[derive(Clone, Debug)]
struct Resume {
    session_id: String,
    /// The next position: the lines before have all that come before it, and not this one.
    position: u64,
    /// The line behind which it is to be looked for.
    after: Watermark,
}

/// Lines that are looked through behind the wrong row for which lines are read, at most: 4 MiB, as many as a page has where nothing is
/// said. Where the stream's next events are far away, their rows are the shorter way.
const BEHIND_WRONG_BYTES: usize = 4 << 20;

/// Why a read failed: the mirror can't be read, or is wrong there, and the ledger may do; or something that stays.
enum Failed {
    Mirror(MirrorError),
    Wrong(StreamError),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Failed {
        match error.into() {
            Error::Mirror(error) => Failed::Mirror(error),
            error => Failed::Other(error),
        }
    }
}

/// What a page is read from.
struct Sources<'r> {
    ledger: &'r LedgerReader,
    mirror: Option<&'r MirrorReader>,
    /// The position of the wrong row for which lines are read, and the seq up to which that mirror says that the ledger goes.
    wrong: Option<u64>,
    known: Seq,
    seen: &'r mut Seq,
    /// Up to where lines were right.
    right: &'r mut Seq,
    resume: &'r mut Option<Resume>,
}

impl StreamReader {
    /// Opens the streams of the store in this directory. That its mirror can't be opened is no error.
    ///
    /// # Errors
    /// [`Error::Ledger`], as [`LedgerReader::open`].
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<StreamReader, Error> {
        let ledger = LedgerReader::open(dir.as_ref(), options)?;
        Ok(StreamReader { ledger, busy_timeout: options.mirror_busy_timeout, mirror: None, seen: Seq::ZERO, resume: None })
    }

    /// A page of a stream, of events whose seq is not beyond `through`: the durable head for those who know it, [`Seq::MAX`] else.
    /// With that, events may be among them that are written and not fsynced yet, and that a crash may still take back.
    ///
    /// # Errors
    /// [`Error::Ledger`] where lines are needed and can't be read; [`Error::Stream`] where they are not right; either as
    /// [`StreamError::Both`] where they were needed since the mirror's rows are not.
    pub fn page(&mut self, query: &StreamQuery, through: Seq) -> Result<StreamPage, Error> {
        self.reading(|sources| match query.direction() {
            Direction::Forwards => sources.forwards(query, through),
            Direction::Backwards => sources.backwards(query, through),
        })
    }

    /// The events of a stream, a page at a time as they are asked for. Ends with the first error.
    ///
    /// # Errors
    /// As [`StreamReader::page`].
    pub fn events(&mut self, query: StreamQuery, through: Seq) -> impl Iterator<Item = Result<EventRecord, Error>> {
        let (mut next, mut page) = (Some(query), Vec::new().into_iter());
        std::iter::from_fn(move || {
            loop {
                if let Some(event) = page.next() {
                    return Some(Ok(event));
                }
                let query = next.take()?;
                match self.page(&query, through) {
                    Ok(StreamPage { events, next: position, .. }) => {
                        page = events.into_iter();
                        next = position.map(|position| query.from(position));
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// An event by its id, where its seq is not beyond `through`; see [`StreamReader::page`]. An id that no event has costs a look
    /// into the index, and the lines that the mirror has not got. Where its row is wrong, its line is read; where it is not at the seq
    /// that the row has, all lines are looked through.
    ///
    /// # Errors
    /// As [`StreamReader::page`].
    pub fn find(&mut self, id: EventId, through: Seq) -> Result<Option<EventRecord>, Error> {
        self.reading(|sources| sources.find(id, through))
    }

    /// The payload's exact JSON, read from blobs/ where it is out of line; None where it is erased.
    ///
    /// # Errors
    /// [`StreamError::Payload`] where the blob is missing, or is not the one that was hashed; [`Error::Ledger`].
    pub fn payload(&self, event: &EventRecord) -> Result<Option<Box<RawValue>>, Error> {
        if event.erased || event.payload.is_some() {
            return Ok(event.payload.clone());
        }
        let wrong = |reason| {
            let path = blob_path(self.ledger.dir(), event.payload_hash);
            Error::from(StreamError::Payload { path, seq: event.seq, id: event.id, reason })
        };
        let Some(bytes) = event.blob_bytes else {
            return Err(wrong(LineFault::Payload));
        };
        match read_blob(self.ledger.storage(), self.ledger.dir(), event.payload_hash, bytes)? {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| wrong(LineFault::Payload))?;
                RawValue::from_string(text).map(Some).map_err(|_| wrong(LineFault::Payload))
            }
            // It may have been erased since the event was read.
            Err(_) if self.is_erased_by_now(event) => Ok(None),
            Err(reason) => Err(wrong(reason)),
        }
    }

    fn is_erased_by_now(&self, event: &EventRecord) -> bool {
        let is_it = |erased: bool, hash: EventHash| erased && hash == event.event_hash;
        let row = self.mirror.as_ref().and_then(|mirror| rows::by_seq(mirror.connection(), mirror.path(), event.seq).ok()).flatten();
        if row.is_some_and(|row| is_it(row.erased, row.event_hash)) {
            return true;
        }
        // The mirror may have been replaced since it was opened.
        let line = self.ledger.line(event.seq).ok().flatten();
        let line = line.as_deref().and_then(|line| crate::event::line::decode(line).ok());
        line.is_some_and(|line| is_it(line.to_record().erased, line.event_hash))
    }

    /// Reads, from the mirror too where that can be read. It is opened anew once where it has been replaced.
    fn reading<T>(&mut self, mut read: impl FnMut(&mut Sources<'_>) -> Result<T, Failed>) -> Result<T, Error> {
        // One that is taken for a file that nobody writes to sees nothing of what is committed later.
        if self.mirror.as_ref().is_some_and(MirrorReader::is_frozen) {
            self.mirror = None;
        }
        for is_last in [false, true] {
            let StreamReader { ledger, busy_timeout, mirror, seen, resume } = self;
            if mirror.is_none() {
                *seen = Seq::ZERO;
                *mirror = MirrorReader::open(ledger.dir(), ledger.manifest().ledger_id, *busy_timeout).map_err(log).ok();
            }
            let mut right = Seq::ZERO;
            let (mirror_now, right) = (mirror.as_ref(), &mut right);
            match read(&mut Sources { ledger, mirror: mirror_now, wrong: None, known: Seq::ZERO, seen, right, resume }) {
                Ok(read) => return Ok(read),
                Err(Failed::Wrong(error)) => return self.reading_lines(Some(error), read),
                // What is behind the mirror does not follow what it has: it lacks rows at its end, unless the ledger is wrong there.
                Err(Failed::Other(Error::Stream(StreamError::Position { session_id, expected, .. }))) if mirror.is_some() => {
                    let path = crate::mirror::mirror_path(ledger.dir());
                    return self.reading_lines(Some(StreamError::Position { path, session_id, expected, found: None }), read);
                }
                Err(Failed::Other(error)) => return Err(error),
                Err(Failed::Mirror(error)) => {
                    *mirror = None;
                    let may_be_better = matches!(error, MirrorError::Gone { .. }) || error.may_be_unread();
                    log(error);
                    if is_last || !may_be_better {
                        break;
                    }
                }
            }
        }
        self.reading_lines(None, read)
    }

    /// Reads from the ledger's lines, the mirror being of no use, or wrong there. The next read tries it again.
    fn reading_lines<T>(
        &mut self,
        wrong: Option<StreamError>,
        mut read: impl FnMut(&mut Sources<'_>) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let StreamReader { ledger, mirror, seen, resume, .. } = self;
        let position = wrong.as_ref().and_then(StreamError::position);
        let known = if wrong.is_some() { *seen } else { Seq::ZERO };
        let mut right = Seq::ZERO;
        let mut read = |resume: &mut _| {
            read(&mut Sources { ledger, mirror: None, wrong: position, known, seen: &mut *seen, right: &mut right, resume })
        };
        let is_resumed = resume.is_some();
        let done = match read(resume) {
            // What the mirror says of where to begin is wrong as well.
            Err(Failed::Other(Error::Stream(StreamError::NotInLedger { .. }))) if is_resumed => {
                *resume = None;
                read(resume)
            }
            done => done,
        };
        let error = match done {
            Ok(read) => {
                if let Some(error) = &wrong {
                    tracing::warn!(%error, "a row of the mirror is wrong; the ledger's lines are read in its place");
                }
                return Ok(read);
            }
            Err(Failed::Mirror(error)) => error.into(),
            Err(Failed::Wrong(error)) => error.into(),
            Err(Failed::Other(error)) => error,
        };
        Err(match wrong {
            Some(wrong) if !is_behind_the_mirror(&error, &wrong, known) => {
                let is_same = is_wrong_in_both(&error, &wrong, mirror.as_ref(), (right.next(), known));
                StreamError::Both { ledger: Box::new(error), mirror: Box::new(wrong), is_same }.into()
            }
            _ => error,
        })
    }
}

/// Whether the lines go wrong where they do beside the mirror's rows too, behind all that it mirrors: nothing speaks against it then.
fn is_behind_the_mirror(ledger: &Error, mirror: &StreamError, known: Seq) -> bool {
    matches!(ledger, Error::Stream(StreamError::Position { expected, found: Some((_, seq)), .. })
        if *seq > known && matches!(mirror, StreamError::Position { expected: of_mirror, .. } if of_mirror == expected))
}

/// Whether the mirror, which mirrors the ledger up to `known`, has not got the event either that the ledger's lines can't give: the one
/// at `seq`, behind the last line that was right.
fn is_wrong_in_both(ledger: &Error, wrong: &StreamError, mirror: Option<&MirrorReader>, (seq, known): (Seq, Seq)) -> bool {
    if let Error::Stream(StreamError::Position { expected, .. }) = ledger {
        return wrong.position() == Some(*expected);
    }
    let has_it = |mirror: &MirrorReader| matches!(rows::by_seq(mirror.connection(), mirror.path(), seq), Ok(Some(_)));
    seq <= known && !mirror.is_some_and(has_it)
}

fn log(error: MirrorError) {
    tracing::debug!(%error, "reading the ledger's lines in place of the mirror's rows");
}

impl Sources<'_> {
    /// Runs this in one read transaction of the mirror, with the mirror's watermark. Nothing where there is no mirror.
    fn mirrored<T>(
        &mut self,
        read: impl FnOnce(&rusqlite::Connection, &Path, Watermark) -> Result<T, RowsError>,
    ) -> Result<Option<T>, Failed> {
        let Some(mirror) = self.mirror else {
            return Ok(None);
        };
        let sqlite = |source| Failed::Mirror(MirrorError::Sqlite { action: "reading", path: mirror.path().to_owned(), source });
        let transaction = mirror.connection().unchecked_transaction().map_err(sqlite)?;
        let mark = mirror.watermark_since(self.ledger.manifest().ledger_id, *self.seen)?;
        *self.seen = mark.seq;
        let read = read(&transaction, mirror.path(), mark).map_err(|error| match error {
            RowsError::Sqlite(source) => sqlite(source),
            RowsError::Wrong(error) => Failed::Wrong(error),
        })?;
        Ok(Some(read))
    }

    fn forwards(&mut self, query: &StreamQuery, through: Seq) -> Result<StreamPage, Failed> {
        let (mut page, first) = (Filling::default(), query.first());
        let mut before = None;
        let mirrored = self.mirrored(|conn, path, mark| {
            let bound = mark.seq.min(through);
            let last = rows::last_position(conn, query.session_id(), bound)?;
            rows::read(conn, path, query, (first, last), bound, &mut page)
                .inspect_err(|_| before = place_before(conn, path, query, bound, &page))?;
            Ok((mark, last))
        });
        if let (Err(Failed::Wrong(_)), Some(after)) = (&mirrored, before) {
            self.begin_at(query, after)?;
        }
        let (mark, last) = mirrored?.unwrap_or((scan::beginning(self.ledger), 0));
        let at = first.saturating_add(page.events.len() as u64);
        let is_full = query.is_full(page.events.len(), page.bytes, 0);
        if at <= last || is_full || mark.seq >= through {
            let next = (at <= last || mark.seq < through).then_some(at);
            return Ok(StreamPage { events: page.events, next, last });
        }
        self.forwards_in_lines(query, through, page, (mark, last))
    }

    /// Has the lines of a page, whose rows are wrong, looked for from this place on, which the mirror tells, rather than from the first one.
    fn begin_at(&mut self, query: &StreamQuery, mut after: Watermark) -> Result<(), Error> {
        match self.ledger.segments()?.iter().rfind(|segment| segment.first <= after.seq) {
            Some(segment) => after.segment = segment.first,
            None => return Ok(()),
        }
        let is_near = |resume: &Resume| {
            resume.session_id == query.session_id() && resume.position <= query.first() && resume.after.segment == after.segment
        };
        // Where lines were read before of that segment, it is not looked through from its beginning once more.
        if !self.resume.as_ref().is_some_and(is_near) {
            *self.resume = Some(Resume { session_id: query.session_id().to_owned(), position: query.first(), after });
        }
        Ok(())
    }

    /// Fills a page up with events that the mirror, which has the stream up to a position, has not got.
    fn forwards_in_lines(
        &mut self,
        query: &StreamQuery,
        through: Seq,
        mut page: Filling,
        (mark, mirrored): (Watermark, u64),
    ) -> Result<StreamPage, Failed> {
        let mut at = query.first().saturating_add(page.events.len() as u64);
        let is_of_use = |resume: &Resume| {
            // It is further than the mirror, or it knows of a position that the mirror, which lacks rows at its end, does not.
            resume.session_id == query.session_id()
                && resume.position <= at
                && resume.after.seq <= through
                && (resume.after.seq > mark.seq || resume.position - 1 > mirrored)
        };
        // One that is of no use here may be of use to a read without the mirror, which may follow.
        let (after, mut last) = match self.resume.take_if(|resume| is_of_use(resume)) {
            Some(resume) => (resume.after, resume.position - 1),
            None => (mark, mirrored),
        };
        // A page that begins behind the wrong position gets to its own first event all the same, or else it would give nothing.
        let wrong = self.wrong.map(|wrong| wrong.max(query.first()));
        let (mut before, mut next, mut behind) = (after, None, 0);
        let known = self.known.max(mark.seq);
        scan(self.ledger, after, (through, known), self.right, |line, event, place| {
            if let Some(position) = position(self.ledger, query, line, event, last)? {
                last = position;
                if position >= at {
                    scan::check_payload(self.ledger, line, event)?;
                    if !page.push(query, event, line.raw.bytes.len()) {
                        next = Some(position);
                        return Ok(ControlFlow::Break(()));
                    }
                    at = position + 1;
                }
            }
            before = place;
            if wrong.is_some_and(|wrong| at > wrong) {
                behind += line.raw.bytes.len();
            }
            if query.is_full(page.events.len(), page.bytes, 0) || behind > BEHIND_WRONG_BYTES {
                next = Some(at);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        *self.resume = next.map(|position| Resume { session_id: query.session_id().to_owned(), position, after: before });
        Ok(StreamPage { events: page.events, next, last })
    }

    fn backwards(&mut self, query: &StreamQuery, through: Seq) -> Result<StreamPage, Failed> {
        let (mut page, first) = (Filling::default(), query.first());
        let mirrored = self.mirrored(|conn, path, mark| {
            let bound = mark.seq.min(through);
            let last = rows::last_position(conn, query.session_id(), bound)?;
            let is_enough = first <= last || mark.seq >= through;
            if is_enough {
                rows::read(conn, path, query, (1, first.min(last)), bound, &mut page)?;
            }
            Ok((mark, last, is_enough))
        })?;
        let (mark, mirrored, is_enough) = mirrored.unwrap_or((scan::beginning(self.ledger), 0, false));
        let mut last = mirrored;
        if !is_enough {
            let mut newest = Newest::default();
            scan(self.ledger, mark, (through, self.known), self.right, |line, event, _| {
                if let Some(position) = position(self.ledger, query, line, event, last)? {
                    last = position;
                    if position > first {
                        return Ok(ControlFlow::Break(()));
                    }
                    scan::check_payload(self.ledger, line, event)?;
                    newest.push(query, event, line.raw.bytes.len());
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let left_out = newest.left_out;
            page = newest.into_page();
            if !left_out && mirrored > 0 {
                // Rows stay: what was in the mirror at its watermark is there at a later one.
                self.mirrored(|conn, path, _| rows::read(conn, path, query, (1, first.min(mirrored)), mark.seq, &mut page))?;
            }
        }
        let oldest = page.events.last().and_then(|event| event.session_seq);
        let next = oldest.filter(|oldest| *oldest > 1).map(|oldest| oldest - 1);
        Ok(StreamPage { events: page.events, next, last })
    }

    fn find(&mut self, id: EventId, through: Seq) -> Result<Option<EventRecord>, Failed> {
        let mirrored = self.mirrored(|conn, path, mark| Ok((rows::by_id(conn, path, id, mark.seq.min(through))?, mark)));
        if let Err(Failed::Wrong(StreamError::Row { seq, .. })) = &mirrored
            && let Some(found) = self.line_of(id, *seq, through)
        {
            tracing::warn!(seq, id = %id, "a row of the mirror is wrong; the ledger's line is read in its place");
            return Ok(Some(found));
        }
        let (mut found, mark) = mirrored?.unwrap_or((None, scan::beginning(self.ledger)));
        if found.is_none() {
            scan(self.ledger, mark, (through, self.known), self.right, |line, event, _| {
                if event.id != id {
                    return Ok(ControlFlow::Continue(()));
                }
                scan::check_payload(self.ledger, line, event)?;
                found = Some(event.to_record());
                Ok(ControlFlow::Break(()))
            })?;
        }
        Ok(found)
    }

    /// The event with this id, where it is in the line of this seq, which may be any number, and is not beyond `through`.
    fn line_of(&self, id: EventId, seq: i64, through: Seq) -> Option<EventRecord> {
        let seq = Seq::new(u64::try_from(seq).ok().filter(|seq| *seq > 0)?);
        let line = self.ledger.line(seq).ok().flatten().filter(|_| seq <= through)?;
        let event = crate::event::line::decode(&line).ok()?;
        (event.id == id && event.payload_is_right() != Some(false)).then(|| event.to_record())
    }
}

/// The place in the ledger before the first event of a forward page, of which these rows are right: where they are, or the row before
/// them is.
fn place_before(conn: &rusqlite::Connection, path: &Path, query: &StreamQuery, bound: Seq, page: &Filling) -> Option<Watermark> {
    // Where it is in its segment the mirror does not say.
    let place = |seq, event_hash| Watermark { seq, event_hash, segment: Seq::FIRST, offset: 0 };
    if let Some(event) = page.events.first() {
        return Some(place(Seq::new(event.seq.get().checked_sub(1)?), event.prev_event_hash));
    }
    let (mut row, before) = (Filling::default(), query.first().checked_sub(1).filter(|before| *before > 0)?);
    rows::read(conn, path, query, (before, before), bound, &mut row).ok()?;
    row.events.first().map(|event| place(event.seq, event.event_hash))
}

/// The position of a line's event in the stream that is read, which follows `last`; None where it is of another stream, or none.
fn position(
    ledger: &LedgerReader,
    query: &StreamQuery,
    line: &LedgerLine<'_>,
    event: &Event<'_>,
    last: u64,
) -> Result<Option<u64>, StreamError> {
    if event.session_id() != Some(query.session_id()) {
        return Ok(None);
    }
    let found = event.session_seq().unwrap_or(0);
    if found == last + 1 {
        return Ok(Some(found));
    }
    Err(StreamError::Position {
        path: scan::segment_of(ledger, line),
        session_id: query.session_id().to_owned(),
        expected: last + 1,
        found: Some((found, event.seq)),
    })
}

/// The newest events of what has been read, as many as a page holds.
#[derive(Default)]
struct Newest {
    events: VecDeque<(EventRecord, usize)>,
    bytes: usize,
    left_out: bool,
}

impl Newest {
    fn push(&mut self, query: &StreamQuery, event: &Event<'_>, bytes: usize) {
        while query.is_full(self.events.len(), self.bytes, bytes) {
            let Some((_, bytes)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            self.left_out = true;
        }
        self.bytes += bytes;
        self.events.push_back((event.to_record(), bytes));
    }

    fn into_page(self) -> Filling {
        Filling { events: self.events.into_iter().rev().map(|(event, _)| event).collect(), bytes: self.bytes, is_full: self.left_out }
    }
}
