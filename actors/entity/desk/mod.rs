//! The desk: one thread that reads streams and keeps snapshots for the entities of a registry, so that neither blocks the runtime, and
//! files and statements stay open. It also reads their states out of snapshots, and writes the large ones into them.
//!
//! Work is handed over as closures, and each entity waits for what it has handed over, which bounds the queue. A closure that panics
//! loses its own answer and nothing else. States to be kept wait beside the queue, one of each stream, the newest; reads go first, and
//! where one can't be kept just now it waits or is lost: nothing waits for it.

mod waiting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use self::waiting::Waiting;
use crate::actors::Ledger;
use crate::actors::shared::Erasures;
use crate::entity::{Snapshot, SnapshotError, Snapshots};
use crate::{AppendError, Error, EventId, EventRecord, Lookup, MirrorError, MirrorReader, Options, Seq, StreamQuery, StreamReader};

/// Reads that go before a state that waits to be kept. 64: some 50 ms of them, so that one is kept though reads never end.
const READS_FIRST_MAX: usize = 64;

/// How long nothing is kept where somebody has the file locked. 100 ms: whoever writes a row has it for less.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// How long the file is not opened again where that has failed: it may have waited for a lock, and reads wait for that.
const OPEN_PAUSE: Duration = Duration::from_secs(1);

enum Work {
    Do(Box<dyn FnOnce(&mut Desk) + Send>),
    /// A state waits to be kept. One of these is in the queue at most.
    Keep,
    End,
}

/// What the thread has open.
pub(crate) struct Desk {
    ledger: Ledger,
    reader: Option<StreamReader>,
    mirror: Option<MirrorReader>,
    snapshots: Option<Snapshots>,
    /// How often snapshots were opened: the number of the file that is open, if one is.
    opened: u64,
    /// Not before then is opening them tried again.
    open_after: Option<Instant>,
    waiting: Arc<Mutex<Waiting>>,
    /// Somebody has the file locked: not before then is anything kept.
    keep_after: Option<Instant>,
    /// Reads since a state was kept.
    reads: usize,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct DeskRef {
    work: mpsc::Sender<Work>,
    waiting: Arc<Mutex<Waiting>>,
}

/// A state to be kept, and when it was folded.
pub(crate) struct Keep {
    pub snapshot: Snapshot,
    /// Erasures as they were when its fold began.
    pub erasures: Erasures,
    /// The snapshots' file that was open then.
    pub file: u64,
}

/// What a fold begins with.
#[derive(Default)]
pub(crate) struct Opening {
    pub snapshot: Option<Snapshot>,
    /// The number of the snapshots' file that is open, and may take what is folded from here; nothing where none is.
    pub file: Option<u64>,
}

/// Resolves when the thread has ended and let go of its files.
pub(crate) type DeskEnd = oneshot::Receiver<()>;

/// A page of a stream, with the payloads.
pub(crate) struct Page {
    pub events: Vec<(EventRecord, Option<Box<RawValue>>)>,
    pub next: Option<u64>,
}

impl DeskRef {
    /// Starts the thread.
    pub(crate) fn start(ledger: Ledger) -> std::io::Result<(DeskRef, DeskEnd)> {
        let (work, to_do) = mpsc::channel::<Work>();
        let (ended, end) = oneshot::channel::<()>();
        let waiting = Arc::<Mutex<Waiting>>::default();
        let mut desk = Desk {
            ledger,
            reader: None,
            mirror: None,
            snapshots: None,
            opened: 0,
            open_after: None,
            waiting: waiting.clone(),
            keep_after: None,
            reads: 0,
        };
        std::thread::Builder::new().name("counterfoil-entities".to_owned()).spawn(move || {
            desk.work(&to_do);
            drop(desk);
            drop(ended);
        })?;
        Ok((DeskRef { work, waiting }, end))
    }

    /// Has something done there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.cast(move |desk| {
            // Whoever waited for it may have been killed.
            if !reply.is_closed() {
                let done = catch_unwind(AssertUnwindSafe(|| work(desk)));
                let _ = reply.send(done.unwrap_or_else(|_| {
                    desk.let_go();
                    Err(panicked())
                }));
            }
        });
        answer.await.unwrap_or_else(|_| Err(AppendError::Closed.into()))
    }

    /// The same, where nobody waits for it.
    pub(crate) fn cast(&self, work: impl FnOnce(&mut Desk) + Send + 'static) {
        // Where it has ended, what waits for the work is told so.
        let _ = self.work.send(Work::Do(Box::new(work)));
    }

    /// Has a state kept, some time. Where an older one of its stream still waits, this one takes its place.
    pub(crate) fn keep(&self, keep: Keep) {
        if lock(&self.waiting).put(keep) {
            let _ = self.work.send(Work::Keep);
        }
    }

    /// Ends it, once it has done what it was given.
    pub(crate) fn close(&self) {
        let _ = self.work.send(Work::End);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicked() -> Error {
    let source = std::io::Error::other("the work has panicked; please report this as a bug");
    crate::LedgerError::Io { action: "reading for an entity in", path: "segments".into(), source }.into()
}

impl Desk {
    fn work(&mut self, to_do: &mpsc::Receiver<Work>) {
        while let Some(work) = self.next(to_do) {
            let done = catch_unwind(AssertUnwindSafe(|| match work {
                Work::Do(work) => {
                    self.reads += 1;
                    work(self);
                }
                Work::Keep => self.keep_next(),
                Work::End => {}
            }));
            if done.is_err() {
                self.let_go();
            }
        }
        // What can't be kept now is lost.
        self.keep_after = None;
        while self.keep_after.is_none() && !lock(&self.waiting).is_empty() {
            if catch_unwind(AssertUnwindSafe(|| self.keep_next())).is_err() {
                self.let_go();
            }
        }
    }

    /// What is to be done next: what was handed over, and states to be kept once there is nothing.
    fn next(&mut self, to_do: &mpsc::Receiver<Work>) -> Option<Work> {
        loop {
            let work = if lock(&self.waiting).is_empty() {
                to_do.recv().ok()?
            } else {
                let pause = self.keep_after.map_or(Duration::ZERO, |after| after.saturating_duration_since(Instant::now()));
                if pause.is_zero() && self.reads >= READS_FIRST_MAX {
                    return Some(Work::Keep);
                }
                match to_do.recv_timeout(pause) {
                    Ok(work) => work,
                    Err(mpsc::RecvTimeoutError::Timeout) => return Some(Work::Keep),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                }
            };
            match work {
                Work::Do(_) => return Some(work),
                // It was only to be looked whether something waits.
                Work::Keep => lock(&self.waiting).is_told = false,
                Work::End => return None,
            }
        }
    }

    /// After a panic: what is open may be in any state.
    fn let_go(&mut self) {
        (self.reader, self.mirror, self.snapshots) = (None, None, None);
    }

    fn options(&self) -> &Options {
        &self.ledger.shared().options.store
    }

    /// A page of what is durable of a stream.
    pub(crate) fn page(&mut self, query: &StreamQuery) -> Result<Page, Error> {
        let through = self.ledger.shared().durable.borrow().seq;
        let reader = self.reader()?;
        let page = reader.page(query, through)?;
        let with_payload = |event: EventRecord| reader.payload(&event).map(|payload| (event, payload));
        Ok(Page { events: page.events.into_iter().map(with_payload).collect::<Result<_, _>>()?, next: page.next })
    }

    /// The position of the event with this id in the stream, where it is there. The mirror has what stands before its watermark; where
    /// that is not as far as `forgotten`, or the mirror can't be read just now, the ledger's lines are looked through.
    pub(crate) fn find(&mut self, session_id: &str, id: EventId, forgotten: Seq) -> Result<Option<u64>, Error> {
        match self.find_mirrored(session_id, id) {
            Ok((found, through)) if found.is_some() || through >= forgotten => return Ok(found),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "looking for a command in the ledger's lines, in place of the mirror's rows"),
        }
        let through = self.ledger.shared().durable.borrow().seq;
        let found = self.reader()?.find(id, through)?;
        Ok(found.filter(|event| event.session_id.as_deref() == Some(session_id)).and_then(|event| event.session_seq))
    }

    fn find_mirrored(&mut self, session_id: &str, id: EventId) -> Result<(Option<u64>, Seq), MirrorError> {
        let ledger_id = self.ledger.manifest().ledger_id;
        let mut mirror = match self.mirror.take() {
            // One that was replaced, or is being written anew, is opened again.
            Some(mirror) if mirror.watermark_since(ledger_id, Seq::ZERO).is_ok() => mirror,
            _ => MirrorReader::open(self.ledger.dir(), ledger_id, self.options().mirror_busy_timeout)?,
        };
        // First: rows up to it are there when the row is looked for.
        let through = mirror.watermark(ledger_id)?.seq;
        let found = mirror.by_id(id).map_err(|error| MirrorError::Io {
            action: "looking up a command in",
            path: mirror.path().to_owned(),
            source: std::io::Error::other(error),
        })?;
        self.mirror = Some(mirror);
        Ok((found.and_then(|stored| stored.position_in(session_id)), through))
    }

    fn reader(&mut self) -> Result<&mut StreamReader, Error> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => StreamReader::open(self.ledger.dir(), self.options())?,
        };
        Ok(self.reader.insert(reader))
    }

    /// The snapshots, open. A file that is another than before has another number.
    fn snapshots(&mut self) -> Option<&mut Snapshots> {
        if let Some(open) = self.snapshots.take().filter(Snapshots::is_in_place) {
            return Some(self.snapshots.insert(open));
        }
        if self.open_after.is_some_and(|after| Instant::now() < after) {
            return None;
        }
        match Snapshots::open(self.ledger.dir(), self.ledger.manifest().ledger_id, self.options().mirror_busy_timeout) {
            Ok(open) => {
                (self.open_after, self.opened) = (None, self.opened + 1);
                Some(self.snapshots.insert(open))
            }
            Err(error) => {
                tracing::warn!(%error, "snapshots of entities can't be had just now");
                self.open_after = Some(Instant::now() + OPEN_PAUSE);
                None
            }
        }
    }

    /// What a fold of the stream begins with: its snapshot, where it is one of this stream as it is. One that can't be had is as good as
    /// none. Nothing is read of the stream before this.
    pub(crate) fn opening(&mut self, entity: &str, state_version: u32, session_id: &str) -> Opening {
        if !self.ledger.shared().erasures().is_settled {
            // It may have what is erased. And a file that is open can't be removed everywhere.
            self.snapshots = None;
            return Opening::default();
        }
        let waits = lock(&self.waiting).take(session_id);
        if let Some(keep) = waits {
            self.keep(keep);
        }
        let Some(snapshots) = self.snapshots() else { return Opening::default() };
        let loaded = snapshots.load(entity, state_version, session_id);
        let file = Some(self.opened);
        let snapshot = match loaded {
            Ok(snapshot) => snapshot.filter(|snapshot| self.is_of_stream(snapshot)),
            Err(error) => {
                tracing::warn!(%error, "a snapshot can't be read");
                None
            }
        };
        Opening { snapshot, file }
    }

    fn is_of_stream(&mut self, snapshot: &Snapshot) -> bool {
        let at = StreamQuery::new(&*snapshot.session_id).from(snapshot.session_seq).events_max(1);
        let Ok(page) = self.page(&at) else { return false };
        let found = page.events.into_iter().next();
        if found.is_some_and(|(event, _)| event.session_seq == Some(snapshot.session_seq) && event.event_hash == snapshot.event_hash) {
            return true;
        }
        tracing::warn!(
            entity = snapshot.entity,
            seq = snapshot.seq.get(),
            "a snapshot is of another history than the stream's; it is dropped"
        );
        self.drop_snapshot(&snapshot.session_id);
        false
    }

    fn keep_next(&mut self) {
        self.reads = 0;
        let next = lock(&self.waiting).next();
        if let Some(keep) = next {
            self.keep(keep);
        }
    }

    /// Keeps a state, unless it may hold what was erased since its fold began. It goes into the file that was open then, and into no
    /// other: one that an erasure has removed since takes what is written to it with it.
    fn keep(&mut self, keep: Keep) {
        let shared = self.ledger.shared();
        let is_current = keep.erasures.is_settled && shared.erasures() == keep.erasures;
        // Where the store is closed it may be open again, and erased from, where this does not count it.
        if !is_current || keep.file != self.opened || shared.refusal().is_some() {
            return;
        }
        let Some(snapshots) = &mut self.snapshots else { return };
        match snapshots.save_at_once(&keep.snapshot) {
            Ok(()) => self.keep_after = None,
            Err(error) if error.is_busy() => {
                tracing::debug!(%error, "a snapshot waits");
                self.keep_after = Some(Instant::now() + LOCKED_PAUSE);
                lock(&self.waiting).put_back(keep);
            }
            Err(SnapshotError::Gone { .. }) => self.snapshots = None,
            Err(error) => tracing::warn!(%error, "a snapshot could not be kept"),
        }
    }

    /// Removes the stream's snapshots, as of one that does not fit its stream.
    pub(crate) fn drop_snapshot(&mut self, session_id: &str) {
        let dropped = self.snapshots.as_mut().map(|snapshots| snapshots.drop_stream_at_once(session_id));
        if let Some(Err(error)) = dropped {
            tracing::warn!(%error, "a snapshot could not be dropped");
        }
    }
}
