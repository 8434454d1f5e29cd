//! The ledger's lines, read, decoded and hashed on other threads, and handed over in order.
//!
//! Called by verify, parity and replay. A thread cuts the ledger into chunks of lines; workers decode them (form, event
//! hash and payload hash are a line's own affair); whether each line is right at its place is for the caller, in order.
//! Memory is bounded by the chunks that are under way, of which one may have a long line. A ledger of one chunk is read on the caller's own thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use super::place::Standing;
use super::positions::POSITIONS_MAX;
use super::segment::{self, RawLine, Segment};
use super::{LedgerError, LineFault, Lines};
use crate::event::{LineError, Seq, line};
use crate::keys::KnownKeys;

/// How a check goes about its work. Not part of the promise: for tests, which want small ones.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Plan {
    /// Threads that decode; with 0 all is done on the caller's.
    pub threads: usize,
    /// Bytes of a chunk: 512 KiB, less than a millisecond of work, and a few of them are under way.
    pub chunk_bytes: usize,
    /// Positions of streams that are kept in memory.
    pub positions_max: usize,
    /// What signatures are checked with; without it they are not.
    pub keys: Option<Arc<KnownKeys>>,
    /// Once it is set, the check ends with an error.
    pub cancelled: Option<Arc<AtomicBool>>,
}

impl Plan {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }
}

/// The error of a check that was cancelled.
pub(crate) fn cancelled() -> LedgerError {
    let source = io::Error::new(io::ErrorKind::Interrupted, "the check was cancelled");
    LedgerError::Io { action: "reading", path: "segments".into(), source }
}

/// More threads would wait for the one that reads, and for the one that checks.
const THREADS_MAX: usize = 4;
/// A chunk with more bytes than this has a long line (one may have 16 MiB). It is the last of its threads, and none are started
/// behind it, so that there are never two of them on the way. Twice a chunk where that is more.
const LONG_BYTES: usize = 1 << 20;
/// Lines of a chunk at most: what is known of a line takes 200 bytes.
const CHUNK_LINES_MAX: usize = 2048;

impl Default for Plan {
    fn default() -> Plan {
        // Asked once: the system looks it up in files.
        static PROCESSORS: OnceLock<usize> = OnceLock::new();
        let threads = *PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX));
        let threads = if threads > 1 { threads } else { 0 };
        Plan { threads, chunk_bytes: 512 << 10, positions_max: POSITIONS_MAX, keys: None, cancelled: None }
    }
}

/// A line, where it is, and what it says by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLine<'a> {
    /// First seq of the segment that holds it.
    pub segment: Seq,
    /// Whether that is compressed.
    pub compressed: bool,
    pub raw: RawLine<'a>,
    /// Whether the segment was the last one when it was read.
    pub active: bool,
    pub decoded: &'a Result<Standing, LineError>,
}

impl StreamLine<'_> {
    /// The file that it is in, of the store in this directory.
    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        Segment::named(dir, self.segment, self.compressed).path
    }

    /// The same fault; where bytes of it could not be decompressed, that is what is wrong.
    pub(crate) fn fault(&self, fault: impl Into<LineFault>) -> LineFault {
        segment::fault(self.compressed, self.raw.bytes, fault)
    }
}

#[derive(Debug)]
struct ChunkLine {
    segment: Seq,
    compressed: bool,
    active: bool,
    offset: u64,
    len: u64,
    terminated: bool,
    from: usize,
    to: usize,
}

/// Why a chunk ends where it does.
#[derive(Debug, Default)]
enum Stop {
    /// It is full, and there is more.
    #[default]
    Full,
    /// Here is a line that must not be read past unasked.
    Pause,
    /// There is nothing more just now.
    End,
    Failed(LedgerError),
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    lines: Vec<ChunkLine>,
    decoded: Vec<Result<Standing, LineError>>,
    stop: Stop,
    /// With the last chunk the cursor comes back.
    cursor: Option<Lines>,
}

impl Chunk {
    fn fill(&mut self, cursor: &mut Lines, through: Seq, plan: &Plan) {
        self.lines.clear();
        self.decoded.clear();
        self.bytes.clear();
        self.bytes.shrink_to(plan.chunk_bytes * 2); // a line may have been far longer
        self.stop = self.take_lines(cursor, through, plan);
    }

    fn take_lines(&mut self, cursor: &mut Lines, through: Seq, plan: &Plan) -> Stop {
        while self.bytes.len() < plan.chunk_bytes && self.lines.len() < CHUNK_LINES_MAX {
            let found = match cursor.next_raw() {
                Ok(Some(found)) => found,
                Ok(None) => return Stop::End,
                Err(error) => return Stop::Failed(error),
            };
            let (raw, active, compressed, from) = (found.raw, found.active, found.compressed, self.bytes.len());
            let (offset, len, terminated) = (raw.offset, raw.len, raw.terminated);
            let is_last = through < Seq::MAX && raw.stated_seq().is_some_and(|seq| seq >= through);
            self.bytes.extend_from_slice(raw.bytes);
            let to = self.bytes.len();
            self.lines.push(ChunkLine { segment: found.segment, compressed, active, offset, len, terminated, from, to });
            if active && !terminated {
                return Stop::Pause;
            }
            if is_last {
                // What follows may be written to just now: it is read afresh when it is asked for. A sealed segment's last line
                // without its LF would be read once more.
                if terminated {
                    cursor.forget_ahead();
                }
                return Stop::Pause;
            }
        }
        Stop::Full
    }

    /// Whether there may be more behind it, and threads for it: a few long lines would take a store's worth of memory.
    fn may_run_ahead(&self, plan: &Plan) -> bool {
        matches!(self.stop, Stop::Full) && self.bytes.len() <= LONG_BYTES.max(plan.chunk_bytes.saturating_mul(2))
    }

    fn decode(&mut self, plan: &Plan) {
        let bytes = |line: &ChunkLine| self.bytes.get(line.from..line.to).unwrap_or_default();
        let standing = |line: &ChunkLine| {
            line::decode(bytes(line)).map(|event| match &plan.keys {
                Some(keys) => Standing { signed: keys.check(&event), ..Standing::of(&event) },
                None => Standing::of(&event),
            })
        };
        self.decoded.extend(self.lines.iter().map(standing));
    }
}

/// A cursor over decoded lines. As with [`Lines`], it can be asked again at the end.
#[derive(Debug)]
pub(crate) struct Stream {
    plan: Plan,
    source: Source,
    chunk: Chunk,
    /// Lines of the chunk that were handed over.
    taken: usize,
    through: Seq,
}

#[derive(Debug)]
enum Source {
    Here(Box<Lines>),
    There(Threads),
    /// A thread has ended that should not have.
    Lost,
}

impl Stream {
    /// Lines from where the cursor is. Nothing is read ahead of the line that states the seq `through`.
    pub(crate) fn new(cursor: Lines, through: Seq, plan: Plan) -> Stream {
        Stream { plan, source: Source::Here(Box::new(cursor)), chunk: Chunk::default(), taken: 0, through }
    }

    /// Lets it read ahead as far as this seq.
    pub(crate) fn extend(&mut self, through: Seq) {
        self.through = self.through.max(through);
    }

    /// Steps to the next line that is not blank, right or not; false where there is none (yet).
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub(crate) fn advance(&mut self) -> Result<bool, LedgerError> {
        loop {
            if self.taken < self.chunk.lines.len() {
                self.taken += 1;
                return Ok(true);
            }
            if self.plan.is_cancelled() {
                return Err(cancelled());
            }
            match std::mem::take(&mut self.chunk.stop) {
                Stop::Failed(error) => return Err(error),
                // Asked again, it looks again.
                Stop::End => return Ok(false),
                Stop::Full | Stop::Pause => self.refill()?,
            }
        }
    }

    /// The line that it has stepped to; nothing before the first.
    pub(crate) fn current(&self) -> Option<StreamLine<'_>> {
        let at = self.taken.checked_sub(1)?;
        let (line, decoded) = (self.chunk.lines.get(at)?, self.chunk.decoded.get(at)?);
        let bytes = self.chunk.bytes.get(line.from..line.to).unwrap_or_default();
        let raw = RawLine { offset: line.offset, bytes, len: line.len, terminated: line.terminated };
        Some(StreamLine { segment: line.segment, compressed: line.compressed, raw, active: line.active, decoded })
    }

    fn refill(&mut self) -> Result<(), LedgerError> {
        self.taken = 0;
        match &mut self.source {
            Source::Here(cursor) => {
                self.chunk.fill(cursor, self.through, &self.plan);
                self.chunk.decode(&self.plan);
                if self.chunk.may_run_ahead(&self.plan) && self.plan.threads > 0 {
                    self.source = match std::mem::replace(&mut self.source, Source::Lost) {
                        Source::Here(cursor) => Threads::start(*cursor, self.through, &self.plan),
                        other => other,
                    };
                }
                Ok(())
            }
            Source::There(threads) => {
                if !threads.next(&mut self.chunk) {
                    (self.chunk, self.source) = (Chunk::default(), Source::Lost);
                    return Err(lost());
                }
                if let Some(cursor) = self.chunk.cursor.take() {
                    self.source = Source::Here(Box::new(cursor));
                }
                Ok(())
            }
            Source::Lost => Err(lost()),
        }
    }
}

fn lost() -> LedgerError {
    let source = io::Error::other("a thread that reads the ledger has ended");
    LedgerError::Io { action: "reading", path: "segments".into(), source }
}

/// The threads, joined when this is dropped.
#[derive(Debug)]
struct Threads {
    /// From each worker, in turn.
    decoded: Vec<Receiver<Chunk>>,
    turn: usize,
    /// Chunks to be filled again.
    spent: Sender<Chunk>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them; where the system has no thread to give, the cursor stays here.
    fn start(cursor: Lines, through: Seq, plan: &Plan) -> Source {
        let (spent, to_fill) = channel();
        let mut threads = Threads { decoded: Vec::new(), turn: 0, spent, handles: Vec::new() };
        let mut to_workers = Vec::new();
        for _ in 0..plan.threads {
            let (to_worker, to_decode) = sync_channel::<Chunk>(1);
            let (to_caller, decoded) = sync_channel::<Chunk>(1);
            let plan = plan.clone();
            match spawn(move || work(&to_decode, &to_caller, &plan)) {
                Ok(handle) => threads.handles.push(handle),
                Err(_) => return Source::Here(Box::new(cursor)),
            }
            threads.decoded.push(decoded);
            to_workers.push(to_worker);
        }
        // The cursor goes by a channel, so that it is still here where there is no thread for it.
        let (start, started) = sync_channel::<Lines>(1);
        let plan = plan.clone();
        let reading = spawn(move || {
            if let Ok(cursor) = started.recv() {
                read(cursor, through, &plan, &to_fill, &to_workers);
            }
        });
        match reading {
            Ok(handle) => threads.handles.push(handle),
            Err(_) => return Source::Here(Box::new(cursor)),
        }
        match start.send(cursor) {
            Ok(()) => Source::There(threads),
            Err(back) => Source::Here(Box::new(back.0)),
        }
    }

    /// Exchanges a chunk that is done with for the next one; false where none comes.
    fn next(&mut self, chunk: &mut Chunk) -> bool {
        let Some(Ok(next)) = self.decoded.get(self.turn).map(Receiver::recv) else {
            return false;
        };
        self.turn = (self.turn + 1) % self.decoded.len();
        let _ = self.spent.send(std::mem::replace(chunk, next));
        true
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // They end when nobody takes what they have.
        self.decoded.clear();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("counterfoil-lines".to_owned()).spawn(work)
}

fn read(mut cursor: Lines, through: Seq, plan: &Plan, to_fill: &Receiver<Chunk>, to_workers: &[SyncSender<Chunk>]) {
    for to_worker in to_workers.iter().cycle() {
        let mut chunk = to_fill.try_recv().unwrap_or_default();
        chunk.fill(&mut cursor, through, plan);
        if !chunk.may_run_ahead(plan) {
            chunk.cursor = Some(cursor);
            let _ = to_worker.send(chunk);
            return;
        }
        if to_worker.send(chunk).is_err() {
            return;
        }
    }
}

fn work(to_decode: &Receiver<Chunk>, to_caller: &SyncSender<Chunk>, plan: &Plan) {
    while let Ok(mut chunk) = to_decode.recv() {
        chunk.decode(plan);
        if to_caller.send(chunk).is_err() {
            return;
        }
    }
}
