//! The desk: one thread that reads streams and keeps snapshots for the entities of a registry, so that neither blocks the runtime, and
//! files and statements stay open.
//!
//! Work is handed over as closures; each entity has at most one read and one snapshot under way, which bounds the queue. A closure that
//! panics loses its own answer and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::actors::Ledger;
use crate::entity::{Snapshot, Snapshots};
use crate::{Error, EventId, EventRecord, Lookup, MirrorError, MirrorReader, Options, Seq, StreamQuery, StreamReader};

/// Nothing ends the thread.
type Work = Option<Box<dyn FnOnce(&mut Desk) + Send>>;

/// What the thread has open.
pub(crate) struct Desk {
    ledger: Ledger,
    reader: Option<StreamReader>,
    mirror: Option<MirrorReader>,
    snapshots: Option<Snapshots>,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct DeskRef(mpsc::Sender<Work>);

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
        std::thread::Builder::new().name("counterfoil-entities".to_owned()).spawn(move || {
            let mut desk = Desk { ledger, reader: None, mirror: None, snapshots: None };
            while let Ok(Some(work)) = to_do.recv() {
                if catch_unwind(AssertUnwindSafe(|| work(&mut desk))).is_err() {
                    (desk.reader, desk.mirror, desk.snapshots) = (None, None, None);
                }
            }
            drop(desk);
            drop(ended);
        })?;
        Ok((DeskRef(work), end))
    }

    /// Has something done there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.cast(move |desk| {
            let _ = reply.send(work(desk));
        });
        match answer.await {
            Ok(done) => done,
            Err(_) => Err(lost()),
        }
    }

    /// The same, where nobody waits for it.
    pub(crate) fn cast(&self, work: impl FnOnce(&mut Desk) + Send + 'static) {
        // Where it has ended, what waits for the work is told so.
        let _ = self.0.send(Some(Box::new(work)));
    }

    /// Ends it, once it has done what it was given.
    pub(crate) fn close(&self) {
        let _ = self.0.send(None);
    }
}

fn lost() -> Error {
    let source = std::io::Error::other("the work has panicked; please report this as a bug");
    crate::LedgerError::Io { action: "reading for an entity in", path: "segments".into(), source }.into()
}

impl Desk {
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

    fn snapshots(&mut self) -> Option<&mut Snapshots> {
        let open = self.snapshots.take().filter(Snapshots::is_in_place);
        let open = open
            .map_or_else(|| Snapshots::open(self.ledger.dir(), self.ledger.manifest().ledger_id, self.options().mirror_busy_timeout), Ok);
        match open {
            Ok(open) => Some(self.snapshots.insert(open)),
            Err(error) => {
                tracing::warn!(%error, "snapshots of entities can't be had just now");
                None
            }
        }
    }

    /// The stream's snapshot, where it is one of this stream as it is. One that can't be had is as good as none.
    pub(crate) fn opening(&mut self, entity: &str, state_version: u32, session_id: &str) -> Option<Snapshot> {
        let snapshot = match self.snapshots()?.load(entity, state_version, session_id) {
            Ok(snapshot) => snapshot?,
            Err(error) => {
                tracing::warn!(%error, "a snapshot can't be read");
                self.snapshots = None;
                return None;
            }
        };
        let at = StreamQuery::new(session_id).from(snapshot.session_seq).events_max(1);
        let found = self.page(&at).ok()?.events.into_iter().next();
        if found.is_some_and(|(event, _)| event.session_seq == Some(snapshot.session_seq) && event.event_hash == snapshot.event_hash) {
            return Some(snapshot);
        }
        tracing::warn!(entity, seq = snapshot.seq.get(), "a snapshot is of another history than the stream's; it is dropped");
        self.drop_snapshot(session_id);
        None
    }

    /// Keeps a snapshot of a state that was folded while so many erasures had been recorded; one that may hold what was erased since is
    /// not kept.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot, erasures: u64) {
        let ledger = self.ledger.clone();
        let Some(snapshots) = self.snapshots() else { return };
        // The file is open by now: one that an erasure removes after this takes what is written here with it.
        if ledger.shared().erasures() != Some(erasures) {
            return;
        }
        if let Err(error) = snapshots.save(snapshot) {
            tracing::warn!(%error, "a snapshot could not be kept");
            self.snapshots = None;
        }
    }

    /// Removes the stream's snapshots, as of one that does not fit its stream.
    pub(crate) fn drop_snapshot(&mut self, session_id: &str) {
        let dropped = self.snapshots().map(|snapshots| snapshots.drop_stream(session_id));
        if let Some(Err(error)) = dropped {
            tracing::warn!(%error, "a snapshot could not be dropped");
        }
    }
}
