//! The mirror's side of a comparison: its rows in order, read a window at a time, on a thread of its own where there may be one.
//!
//! No read transaction lasts longer than a window, so that the mirror's WAL can be emptied beside a check. What a check looks
//! at is what was there when it began, all the same: rows only come behind the last one, and what is written anew ends it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::indexes::{SumKey, Sums};
use crate::event::{LedgerId, Seq};
use crate::ledger::stream::Plan;
use crate::ledger::{LedgerError, LedgerReader, Watermark};
use crate::mirror::{KeptRow, MirrorError, MirrorReader, SELECT, Window, mirror_path};

/// What the mirror had when the check began.
#[derive(Debug)]
pub(super) struct Begun {
    ledger_id: LedgerId,
    /// Its watermark, where that can be read.
    pub mark: Option<Watermark>,
    /// The seq of its last row. Rows behind that came later.
    last: i64,
    /// Its segments.
    pub segments: Result<Vec<(Seq, Seq)>, MirrorError>,
}

impl Begun {
    pub(super) fn of(mirror: &MirrorReader, reader: &LedgerReader) -> Result<Begun, rusqlite::Error> {
        let ledger_id = reader.manifest().ledger_id;
        let snapshot = mirror.connection().unchecked_transaction()?;
        let mark = mirror.watermark(ledger_id).ok();
        snapshot.prepare(SELECT)?;
        // Where that can't be read, reading the rows tells why.
        let last = snapshot.query_row("SELECT max(seq) FROM events", [], |row| row.get::<_, Option<i64>>(0));
        let last = last.map_or(i64::MAX, |last| last.unwrap_or(i64::MIN));
        Ok(Begun { ledger_id, mark, last, segments: mirror.segments() })
    }

    /// How far it mirrored the ledger.
    pub(super) fn mirrored(&self) -> Seq {
        self.mark.map_or(Seq::ZERO, |mark| mark.seq)
    }

    /// How far it does by now.
    ///
    /// # Errors
    /// [`MirrorError::Gone`] where what was read before is not what is there now.
    pub(super) fn mirrored_now(&self, mirror: &MirrorReader) -> Result<Seq, MirrorError> {
        self.since().now(mirror)
    }

    /// The seq of its last row up to this one.
    pub(super) fn last_of(&self, through: Seq) -> i64 {
        i64::try_from(through.get()).unwrap_or(i64::MAX).min(self.last)
    }

    fn since(&self) -> Since {
        Since { ledger_id: self.ledger_id, mark: self.mark.map(|mark| mark.seq) }
    }
}

/// What must not be taken back meanwhile.
#[derive(Clone, Copy, Debug)]
struct Since {
    ledger_id: LedgerId,
    mark: Option<Seq>,
}

impl Since {
    fn now(&self, mirror: &MirrorReader) -> Result<Seq, MirrorError> {
        // One that can't be read is no reason not to look at the rows.
        self.mark.map_or(Ok(Seq::ZERO), |mark| mirror.watermark_since(self.ledger_id, mark).map(|mark| mark.seq))
    }
}

/// A window, and how far the mirror mirrored the ledger after it was read.
#[derive(Debug, Default)]
struct Read {
    window: Window,
    mirrored: Seq,
    /// There is none behind it.
    is_last: bool,
    /// What the indexes must have of these rows and of all before them.
    sums: Sums,
}

/// Windows that follow each other.
#[derive(Clone, Debug)]
struct Cursor {
    /// Nothing where there is no more.
    next: Option<i64>,
    through: i64,
    since: Since,
    /// Where what the indexes must have is summed up, and that so far.
    sums: Option<(SumKey, Sums)>,
}

impl Cursor {
    fn read(&mut self, mirror: &MirrorReader, read: &mut Read) -> Result<(), MirrorError> {
        let Some(from) = self.next.filter(|from| *from <= self.through) else {
            self.next = None;
            *read = Read { is_last: true, sums: self.summed(), ..Read::default() };
            return Ok(());
        };
        self.next = mirror.sqlite("reading", read.window.read(mirror.connection(), from, self.through))?;
        read.mirrored = self.since.now(mirror)?;
        if let Some((key, sums)) = &mut self.sums {
            read.window.rows().for_each(|row| sums.add_row(row, key));
        }
        (read.is_last, read.sums) = (self.next.is_none(), self.summed());
        Ok(())
    }

    fn summed(&self) -> Sums {
        self.sums.map(|(_, sums)| sums).unwrap_or_default()
    }
}

/// The rows of these seqs, in order.
pub(super) struct RowSide<'m> {
    source: Source<'m>,
    read: Read,
    /// The row that it is at; in front of it where there is none.
    at: Option<usize>,
}

enum Source<'m> {
    Here(&'m MirrorReader, Cursor),
    There(Beside),
}

/// So many rows are worth a thread and a connection.
const BESIDE_ROWS_MIN: i64 = 5_000;

impl<'m> RowSide<'m> {
    /// Of a check that began so. With a key it sums up what the indexes must have.
    pub(super) fn new(
        mirror: &'m MirrorReader,
        begun: &Begun,
        (from, through): (i64, Seq),
        key: Option<SumKey>,
        plan: &Plan,
    ) -> RowSide<'m> {
        let sums = key.map(|key| (key, Sums::default()));
        let cursor = Cursor { next: Some(from), through: begun.last_of(through), since: begun.since(), sums };
        let is_large = cursor.through.saturating_sub(from.max(0)) >= BESIDE_ROWS_MIN;
        let beside = if is_large && plan.threads > 0 { Beside::begin(mirror, cursor.clone(), plan) } else { None };
        let source = beside.map_or(Source::Here(mirror, cursor), Source::There);
        RowSide { source, read: Read::default(), at: None }
    }

    /// Steps to the next row; false where there is none.
    pub(super) fn advance(&mut self) -> Result<bool, MirrorError> {
        let mut at = self.at.map_or(0, |at| at + 1);
        while self.read.window.row(at).is_none() {
            if self.read.is_last {
                return Ok(false);
            }
            match &mut self.source {
                Source::Here(mirror, cursor) => cursor.read(mirror, &mut self.read)?,
                Source::There(beside) => beside.next(&mut self.read)?,
            }
            (at, self.at) = (0, None);
        }
        self.at = Some(at);
        Ok(true)
    }

    /// The row that it has stepped to.
    pub(super) fn current(&self) -> Option<KeptRow<'_>> {
        self.read.window.row(self.at?)
    }

    /// What the indexes must have of the rows that it has stepped over.
    pub(super) fn sums(&self) -> Sums {
        self.read.sums
    }

    /// How far the mirror mirrored the ledger after that was read.
    pub(super) fn mirrored(&self) -> Seq {
        self.read.mirrored
    }
}

/// A thread that reads ahead, with a connection of its own.
struct Beside {
    windows: Option<Receiver<Result<Read, MirrorError>>>,
    spent: Sender<Read>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Beside {
    /// Nothing where there is no thread or connection to be had.
    fn begin(mirror: &MirrorReader, mut cursor: Cursor, plan: &Plan) -> Option<Beside> {
        let mut beside = mirror.another().ok()?;
        let path = mirror.path().to_owned();
        if let Some(cancelled) = plan.cancelled.clone() {
            beside.stop_when(move || cancelled.load(Ordering::Relaxed));
        }
        let (spent, to_fill) = channel::<Read>();
        let (to_caller, windows) = sync_channel(1);
        let work = move || read_ahead(&beside, &mut cursor, &to_fill, &to_caller);
        let thread = thread::Builder::new().name("counterfoil-rows".to_owned()).spawn(work).ok()?;
        Some(Beside { windows: Some(windows), spent, thread: Some(thread), path })
    }

    /// Exchanges a window that is done with for the next one.
    fn next(&mut self, read: &mut Read) -> Result<(), MirrorError> {
        let Some(Ok(next)) = self.windows.as_ref().map(Receiver::recv) else {
            let source = std::io::Error::other("a thread that reads it has ended");
            return Err(MirrorError::Io { action: "reading", path: self.path.clone(), source });
        };
        let _ = self.spent.send(std::mem::replace(read, next?));
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It ends when nobody takes what it has.
        self.windows = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_ahead(mirror: &MirrorReader, cursor: &mut Cursor, to_fill: &Receiver<Read>, to_caller: &SyncSender<Result<Read, MirrorError>>) {
    while cursor.next.is_some() {
        let mut read = to_fill.try_recv().unwrap_or_default();
        let done = cursor.read(mirror, &mut read).map(|()| read);
        let has_failed = done.is_err();
        if to_caller.send(done).is_err() || has_failed {
            return;
        }
    }
}

/// How often a check is begun, where the mirror is replaced under it, or written anew.
pub(super) const BEGUN_MAX: usize = 3;

/// Whether a check has to be begun anew, since what it has read is not there any more.
pub(super) fn is_replaced(error: &MirrorError) -> bool {
    matches!(error, MirrorError::Gone { .. })
}

/// The error where that went on: it says nothing of either leg.
pub(super) fn replaced(reader: &LedgerReader) -> LedgerError {
    let source = std::io::Error::other("it was replaced, or written anew, each time that it was compared; check again");
    LedgerError::Io { action: "comparing", path: mirror_path(reader.dir()), source }
}

/// The position of a stream at this seq, by the rows; `next` is the one that a line behind that seq has.
pub(super) fn session_seq(rows: &rusqlite::Connection, session_id: &str, next: u64, at: Seq) -> rusqlite::Result<i64> {
    let (next, at) = (next.cast_signed(), at.get().cast_signed());
    let mut by_position = rows.prepare_cached("SELECT min(seq) FROM events WHERE session_id = ?1 AND session_seq = ?2")?;
    let mut seq_of = |position| by_position.query_row((session_id, position), |row| row.get::<_, Option<i64>>(0));
    // It is to be the one before, and then that row is there, and the next one is behind.
    if seq_of(next)?.is_none_or(|seq| seq > at) && (next == 1 || seq_of(next - 1)?.is_some_and(|seq| seq <= at)) {
        return Ok(next - 1);
    }
    // This goes over all that the stream has behind the seq.
    let mut last = rows.prepare_cached("SELECT max(session_seq) FROM events WHERE session_id = ?1 AND seq <= ?2")?;
    last.query_row((session_id, at), |row| row.get::<_, Option<i64>>(0)).map(Option::unwrap_or_default)
}
