//! [`Ledger`], the handle that callers hold.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorRef, RpcReplyPort};
use serde::Serialize;
use tokio::sync::oneshot;

use super::LedgerOptions;
use super::checks::Check;
use super::ledger::LedgerMsg;
use super::message::{Append, AppendReply, Durability, Message, Reply};
use super::parity::Doubt;
use super::shared::{Phase, Shared, Status};
use super::supervisor::{Inner, SupervisorActor, SupervisorArgs};
use crate::attest::Signer;
use crate::checkpoint::{CheckpointError, Signed};
use crate::erase::plan;
use crate::keys::KeyChange;
use crate::store::{FoundMirror, Prepared, prepare};
use crate::{
    AppendError, CheckedDraft, Conditions, Draft, EraseReport, Erased, Erasure, Error, EventHash, EventId, Expect, Head, LedgerError,
    LedgerReader, Manifest, MirrorReader, ParityKind, ParityReport, Receipt, Reformed, SchemaMigration, Sealed, Seq, Table, VerifyReport,
};

/// A store that is open, run by supervised actors. Cheap to clone; every clone is the same store.
///
/// When the last clone is dropped without [`Ledger::close`], the store closes by itself in the background, as long
/// as the runtime lives.
#[derive(Clone)]
pub struct Ledger {
    pub(super) inner: Arc<Handle>,
}

pub(super) struct Handle {
    pub(super) dir: PathBuf,
    manifest: Manifest,
    pub(super) shared: Arc<Shared>,
    supervisor: ActorRef<Message>,
}

/// What closing did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CloseReport {
    /// The last event of the ledger.
    pub head: Head,
    /// The last event whose row is committed.
    pub mirrored_through: Seq,
    /// Why the ledger could not be closed in order, if so: what was queued may not be recorded. The next open settles it.
    pub ledger_error: Option<String>,
    /// Why the mirror is behind, if it is. The next open catches up.
    pub mirror_error: Option<String>,
}

/// The actors of a store, as they are just now. To watch, or to kill in a test; they come back by themselves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Children {
    /// LedgerActor.
    pub ledger: Option<ActorCell>,
    /// SqliteActor.
    pub sqlite: Option<ActorCell>,
    /// The ParityActor that replays, while it does.
    pub parity: Option<ActorCell>,
}

impl Ledger {
    /// Opens the store in this directory, creating it where there is none, and recovers whatever a crash has left.
    /// Works on any tokio runtime, a current-thread one too.
    ///
    /// # Errors
    /// [`Error`]: another writer holds it, recovery refuses to guess, the disk says no.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Ledger, Error> {
        Ledger::open_with(dir, LedgerOptions::default()).await
    }

    /// Opens it with options.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open_with(dir: impl AsRef<Path>, options: impl Into<LedgerOptions>) -> Result<Ledger, Error> {
        Ledger::start(dir.as_ref(), options.into(), None).await
    }

    /// Opens it with its supervisor linked under an actor of the caller's own, which is told when the store is poisoned
    /// or has given up (as [`ractor::SupervisionEvent::ActorFailed`]) and when it ends.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open_linked(dir: impl AsRef<Path>, options: impl Into<LedgerOptions>, supervisor: ActorCell) -> Result<Ledger, Error> {
        Ledger::start(dir.as_ref(), options.into(), Some(supervisor)).await
    }

    async fn start(dir: &Path, options: LedgerOptions, parent: Option<ActorCell>) -> Result<Ledger, Error> {
        let (dir, store) = (dir.to_owned(), options.store.clone());
        let at = dir.clone();
        let looked = move || {
            let Prepared { lock, manifest, mirror, .. } = prepare(&at, &store)?;
            // The mirror is closed again at once: from now on it belongs to its actors.
            let doubt = match mirror {
                FoundMirror::Well(_) => Doubt::None,
                FoundMirror::Missing | FoundMirror::Blocked(_) => Doubt::Unchecked,
                FoundMirror::Broken(_) => Doubt::Broken,
            };
            Ok((lock, manifest, doubt))
        };
        let (lock, manifest, doubt) = blocking(looked).await?;
        let genesis = Head { seq: Seq::ZERO, event_hash: manifest.genesis() };
        let shared = Arc::new(Shared::new(manifest.ledger_id, genesis, options));
        let (ready, opened) = oneshot::channel();
        let args = SupervisorArgs { dir: dir.clone(), manifest: manifest.clone(), shared: shared.clone(), lock, doubt, ready };
        let spawned = match parent {
            Some(parent) => SupervisorActor::spawn_linked(None, SupervisorActor, args, parent).await,
            None => SupervisorActor::spawn(None, SupervisorActor, args).await,
        };
        let (supervisor, join) = spawned.map_err(|error| stopped(error.to_string()))?;
        let ledger = Ledger { inner: Arc::new(Handle { dir, manifest, shared, supervisor }) };
        match opened.await {
            Ok(Ok(())) => Ok(ledger),
            Ok(Err(error)) => {
                // The lock is free again when this returns.
                let _ = join.await;
                Err(error)
            }
            Err(_) => Err(stopped("the supervisor ended while it was opening the store".to_owned())),
        }
    }

    /// Appends an event; returns once it is durable in the ledger. Waits, in turn, where too much is on its way.
    /// Dropping the future before that leaves the event either recorded or not, never half.
    ///
    /// # Errors
    /// [`AppendError`]. Where the answer was lost with a dying actor, the append is repeated by its id, which records
    /// it once; where that does not help, [`AppendError::OutcomeUnknown`] gives the draft back with its id.
    pub async fn append(&self, draft: Draft) -> Result<Receipt, AppendError> {
        self.append_with(draft, Expect::Any, Durability::Ledger).await
    }

    /// Appends an event where the ledger is as the caller expects; returns once `durability` is reached.
    ///
    /// # Errors
    /// As [`Ledger::append`]; a mismatch names what was expected and what is.
    pub async fn append_with(&self, draft: Draft, expect: Expect, durability: Durability) -> Result<Receipt, AppendError> {
        let conditions = Conditions::for_draft(&draft, &expect).ok_or(AppendError::NoSession)?;
        one(self.append_batch_with(vec![draft], conditions, durability).await)
    }

    /// Appends `counterfoil.schema_migration.v1` where the ledger's head is the expected one; returns once `durability` is
    /// reached. The same migration on the same head is recorded once. To insert its row inside a transaction of the
    /// caller's own takes a store without actors: [`Store::begin_schema_migration`](crate::Store::begin_schema_migration).
    ///
    /// # Errors
    /// [`AppendError::WrongHead`] with both heads: nothing is written. Else as [`Ledger::append`].
    pub async fn append_schema_migration(
        &self,
        expected_head: EventHash,
        migration: &SchemaMigration,
        durability: Durability,
    ) -> Result<Receipt, AppendError> {
        let draft = migration.draft(expected_head, &self.inner.shared.options.store.limits())?;
        one(self.submit(vec![draft], Conditions::none().head(expected_head), durability).await?.await)
    }

    /// Appends an event only if there is room for it right now: never waits for other appends' room, nor for the
    /// mirror. (It does wait for the fsync: that is what the receipt means.)
    ///
    /// # Errors
    /// [`AppendError::Busy`], [`AppendError::Rebuilding`], [`AppendError::MirrorTooFarBehind`]; else as [`Ledger::append`].
    pub async fn try_append(&self, draft: Draft) -> Result<Receipt, AppendError> {
        let (drafts, fresh) = self.identify(vec![self.check(draft)?]);
        let permit = self.inner.shared.permits.try_acquire(1, bytes_of(&drafts)).map_err(|error| self.or_refusal(error))?;
        let append = Append { fresh, patient: false, ..Append::new(drafts.clone(), permit) };
        let reply = self.send(append).await;
        one(reply.map_err(|error| with_drafts(error, &drafts)))
    }

    /// What signs from now on what brings no signer of its own, as behind a rotation; with None nothing does. Appends that are under
    /// way may still be signed as before.
    pub fn sign_with(&self, signer: Option<Signer>) {
        self.inner.shared.sign_with(signer);
    }

    /// Records a change to the ledger's keys, signed with this one.
    ///
    /// # Errors
    /// As [`Ledger::append`]; [`AppendError::Key`] where the change does not follow from the keys that the ledger has.
    pub async fn change_key(&self, change: &KeyChange, signer: impl Into<Signer>) -> Result<Receipt, AppendError> {
        self.append(change.draft()?.sign_with(signer)).await
    }

    /// Appends a batch: all of it or none, across any crash; returns once it is durable in the ledger.
    ///
    /// # Errors
    /// As [`Ledger::append`]; [`AppendError::BatchTooLarge`] where it does not fit one group.
    pub async fn append_batch(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, AppendError> {
        self.append_batch_with(drafts, Conditions::none(), Durability::Ledger).await
    }

    /// Appends a batch under conditions; returns once `durability` is reached.
    ///
    /// # Errors
    /// As [`Ledger::append_batch`].
    pub async fn append_batch_with(
        &self,
        drafts: Vec<Draft>,
        conditions: Conditions,
        durability: Durability,
    ) -> Result<Vec<Receipt>, AppendError> {
        let checked = drafts.into_iter().map(|draft| self.check(draft)).collect::<Result<Vec<_>, _>>()?;
        self.submit(checked, conditions, durability).await?.await
    }

    /// Sends an append and returns at once with what will be its answer: appends that one task submits in turn are
    /// recorded in that order, without a wait for each one's fsync; but for one that has to wait for the mirror, or that
    /// is repeated since its answer was lost with a dying actor: others may come before it. Waits only for room.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub async fn submit(
        &self,
        drafts: Vec<CheckedDraft>,
        conditions: Conditions,
        durability: Durability,
    ) -> Result<impl Future<Output = AppendReply> + Send + 'static, AppendError> {
        let (drafts, fresh) = self.identify(drafts);
        let first = self.reserve_shared(drafts.clone()).await?;
        let append = Append { fresh, ..first }.conditions(conditions.clone()).durability(durability);
        let first = self.post(append);
        let ledger = self.clone();
        Ok(async move {
            let mut reply = ledger.answer(first).await;
            let mut retries = 0;
            while matches!(reply, Err(AppendError::OutcomeUnknown { .. })) && retries < ledger.inner.shared.options.retries_max {
                retries += 1;
                if !ledger.wait_until_running().await {
                    break;
                }
                // What is recorded already is found by its id, before any condition, so repeating is safe.
                let Ok(append) = ledger.reserve_shared(drafts.clone()).await else { break };
                reply = match ledger.send(append.conditions(conditions.clone()).durability(durability)).await {
                    // That the repetition was refused says nothing of the first try.
                    Err(AppendError::Closed | AppendError::Stopped { .. } | AppendError::Ledger(LedgerError::Poisoned { .. })) => break,
                    Ok(receipts) => Ok(receipts.into_iter().map(|r| Receipt { duplicate: r.duplicate && !fresh, ..r }).collect()),
                    reply => reply,
                };
            }
            reply.map_err(|error| with_drafts(error, &drafts))
        })
    }

    /// Checks a draft against this store's bounds, and hashes its payload.
    ///
    /// # Errors
    /// [`AppendError::Draft`].
    pub fn check(&self, draft: Draft) -> Result<CheckedDraft, AppendError> {
        Ok(draft.check(&self.inner.shared.options.store.limits())?)
    }

    /// Waits for room for these drafts and makes an append message of them, to be sent to [`Ledger::address`].
    ///
    /// # Errors
    /// [`AppendError::TooLargeForFlight`]; [`AppendError::Closed`].
    pub async fn reserve(&self, drafts: Vec<CheckedDraft>) -> Result<Append, AppendError> {
        self.reserve_shared(Arc::new(drafts)).await
    }

    async fn reserve_shared(&self, drafts: Arc<Vec<CheckedDraft>>) -> Result<Append, AppendError> {
        let permit = self.inner.shared.permits.acquire(drafts.len(), bytes_of(&drafts)).await;
        Ok(Append::new(drafts, permit.map_err(|error| self.or_refusal(error))?))
    }

    fn or_refusal(&self, error: AppendError) -> AppendError {
        match error {
            AppendError::Closed => self.inner.shared.refusal().unwrap_or(error),
            error => error,
        }
    }

    /// Gives ids to drafts that have none; answers whether all were given here.
    fn identify(&self, mut drafts: Vec<CheckedDraft>) -> (Arc<Vec<CheckedDraft>>, bool) {
        let store = &self.inner.shared.options.store;
        let mut fresh = true;
        for draft in &mut drafts {
            if draft.id().is_some() {
                fresh = false;
            } else {
                draft.set_id(EventId::from_u128(store.ids.next(store.clock.now())));
            }
        }
        (Arc::new(drafts), fresh)
    }

    /// Sends an append on the shortest way there is.
    fn post(&self, mut append: Append) -> oneshot::Receiver<AppendReply> {
        let (reply, answer) = oneshot::channel();
        append.reply = Reply::to(RpcReplyPort::from(reply), self.inner.shared.answers.caller_is_here());
        for undelivered in self.inner.shared.inbox.post(append).err().into_iter().flatten() {
            // Refused only where the supervisor has ended; the message's reply says so when it is dropped.
            let _ = self.inner.supervisor.cast(Inner::Append(undelivered).into());
        }
        answer
    }

    async fn send(&self, append: Append) -> AppendReply {
        let answer = self.post(append);
        self.answer(answer).await
    }

    async fn answer(&self, answer: oneshot::Receiver<AppendReply>) -> AppendReply {
        answer.await.unwrap_or(Err(AppendError::OutcomeUnknown { drafts: Vec::new() }))
    }

    /// Position of the last event of a stream, 0 where it has none: of every event that is durable, and of some that will be. None where
    /// that can't be told just now.
    pub(crate) async fn stream_position(&self, session_id: Arc<str>) -> Option<u64> {
        let (reply, position) = oneshot::channel();
        self.inner.shared.inbox.owner()?.cast(LedgerMsg::Position { session_id, reply }).ok()?;
        position.await.ok()
    }

    /// Waits until appends are taken again; false where they never will be.
    async fn wait_until_running(&self) -> bool {
        let mut live = self.inner.shared.live.subscribe();
        let settled = live.wait_for(|live| live.phase != Phase::Starting).await;
        settled.is_ok_and(|live| live.phase == Phase::Running)
    }

    /// Waits until the row of this seq is committed in the mirror.
    ///
    /// # Errors
    /// [`AppendError::Closed`] or why else that will not happen.
    pub async fn mirrored(&self, seq: Seq) -> Result<(), AppendError> {
        let (mut mirrored, mut live) = (self.inner.shared.mirrored.subscribe(), self.inner.shared.live.subscribe());
        loop {
            if *mirrored.borrow_and_update() >= seq {
                return Ok(());
            }
            // What is left there later is not kept waiting, since someone has subscribed.
            self.inner.shared.outbox.hurry();
            // Marked as seen before it is looked at, so that no change falls in between.
            live.mark_unchanged();
            if let Some(refusal) = self.inner.shared.refusal() {
                return Err(refusal);
            }
            if let super::MirrorHealth::Failed { reason } = &live.borrow().mirror {
                return Err(AppendError::Stopped { reason: reason.clone() });
            }
            tokio::select! {
                changed = mirrored.changed() => changed.map_err(|_| AppendError::Closed)?,
                changed = live.changed() => changed.map_err(|_| AppendError::Closed)?,
            }
        }
    }

    /// Compares both legs: `Quick` in O(1), `Full` byte for byte, `Incremental` likewise what is new or changed since the last
    /// time; up to what was durable when it was asked for, or later. Comparisons that read much take turns as with
    /// [`Ledger::verify`].
    ///
    /// # Errors
    /// [`Error`] where the ledger can't be read. Differences are in the report.
    pub async fn parity(&self, kind: ParityKind) -> Result<ParityReport, Error> {
        let report = ractor::call!(self.inner.supervisor, |reply| Inner::Check(Check::parity(kind, reply)).into());
        report.map_err(|_| Error::Append(self.inner.shared.refusal().unwrap_or(AppendError::Closed)))?
    }

    /// Verifies the whole ledger, up to what is durable when it begins, on threads of its own. How far it is stands in
    /// [`Status::check`], and its report also in [`Status::last_verify`]. One check that reads much is under way at a time:
    /// who asks for what is about to begin gets the same report, and others wait their turn. Closing cancels it.
    ///
    /// # Errors
    /// [`Error`] where the ledger can't be read, or the store is closed meanwhile. What is wrong with lines is in the report.
    pub async fn verify(&self) -> Result<Arc<VerifyReport>, Error> {
        let report = ractor::call!(self.inner.supervisor, |reply| Inner::Check(Check::verify(reply)).into());
        report.map_err(|_| Error::Append(self.inner.shared.refusal().unwrap_or(AppendError::Closed)))?
    }

    /// Signs a checkpoint now, and hands it to the anchors, as [`LedgerOptions::checkpoint`] says.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]. An anchor that fails is no error: it is in the answer, and gets the next one.
    pub async fn checkpoint(&self) -> Result<Signed, Error> {
        if self.inner.shared.options.checkpoint.is_none() {
            return Err(CheckpointError::NoSigner.into());
        }
        let signed = ractor::call!(self.inner.supervisor, |reply| Inner::Checkpoint(reply).into());
        signed.map_err(|_| self.inner.shared.refusal().map_or(CheckpointError::Unanswered.into(), Error::Append))?
    }

    /// Compresses sealed segments, beside the appends; answers with those that it was done to. Readers take both forms.
    /// `LedgerOptions::compress_sealed` does it by itself.
    ///
    /// # Errors
    /// [`Error`], as [`crate::compress()`] without the lock; segments that were done before stay compressed.
    pub async fn compress(&self, which: Sealed) -> Result<Vec<Reformed>, Error> {
        let compressed = ractor::call!(self.inner.supervisor, |reply| Inner::Compress(which, reply).into());
        compressed.map_err(|_| match self.inner.shared.refusal() {
            Some(refusal) => Error::Append(refusal),
            // It panicked, or was killed; the store goes on.
            None => Error::Ledger(LedgerError::Io {
                action: "compressing in",
                path: self.inner.dir.clone(),
                source: std::io::Error::other("the actor that did it has ended; segments that were done stay so"),
            }),
        })?
    }

    /// Erases payloads in ledger, blobs, torn/, mirror and snapshots of entities, for good, beside the appends: records it, then
    /// carries it out. The events stay, with their hashes. Rows wait while it is carried out (as long as it takes to write the mirror and the segments
    /// concerned anew), and `Durability::Mirrored` with them. Where it can't be carried out as a whole just now (`unfinished` in the
    /// report says why), the next call or the next open does the rest.
    ///
    /// # Errors
    /// [`Error::Erase`] where it is refused; [`Error::Append`] where it could not be recorded: where that is
    /// [`AppendError::OutcomeUnknown`], erase again.
    pub async fn erase(&self, erasure: Erasure) -> Result<EraseReport, Error> {
        let shared = &self.inner.shared;
        let head = shared.durable.borrow().seq;
        self.mirrored(head).await?;
        let (reader, options, dry_run) = (self.reader()?, shared.options.store.clone(), erasure.dry_run);
        let planned = self.read(move |mirror| Ok(plan(&reader, mirror, head, &erasure, &options)?));
        let (mut report, drafts, last) = planned.await?;
        if dry_run {
            return Ok(report);
        }
        if let Some(last) = last {
            let checked = drafts.into_iter().map(|draft| self.check(draft)).collect::<Result<Vec<_>, _>>()?;
            let (drafts, fresh) = self.identify(checked);
            let append = Append { fresh, seal_through: Some(last), ..self.reserve_shared(drafts).await? };
            report.recorded = self.send(append).await?.iter().map(|receipt| receipt.seq).collect();
            shared.count_erasure();
        }
        report.done = ractor::call!(self.inner.supervisor, |reply| Inner::Erase(reply).into())
            .unwrap_or_else(|_| Erased::left("the mirror's actor has ended, or is not there yet; its restart or the next open does it"));
        Ok(report)
    }

    /// The store at a glance. Costs nothing.
    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// Runs a query on the mirror, off the async threads, on a read-only connection of its own.
    ///
    /// # Errors
    /// [`Error::Query`] with what SQLite said; [`Error::Mirror`].
    pub async fn query(&self, sql: impl Into<String>) -> Result<Table, Error> {
        let sql = sql.into();
        self.read(move |mirror| Ok(mirror.query(&sql, &[])?)).await
    }

    /// Runs anything that reads the mirror, off the async threads, on a read-only connection of its own.
    ///
    /// # Errors
    /// What `read` says; [`Error::Mirror`] where the mirror can't be opened.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut MirrorReader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (dir, ledger_id) = (self.inner.dir.clone(), self.inner.manifest.ledger_id);
        let timeout = self.inner.shared.options.store.mirror_busy_timeout;
        blocking(move || read(&mut MirrorReader::open(&dir, ledger_id, timeout)?)).await
    }

    /// A reader of the ledger's lines. Reading blocks, so do it off the async threads.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub fn reader(&self) -> Result<LedgerReader, Error> {
        Ok(LedgerReader::open(&self.inner.dir, &self.inner.shared.options.store)?)
    }

    /// The store's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The supervisor: a stable address for append messages, which survives restarts of the actors behind it.
    pub fn address(&self) -> ActorRef<Message> {
        self.inner.supervisor.clone()
    }

    /// The actors as they are just now.
    ///
    /// # Errors
    /// [`AppendError::Closed`].
    pub async fn children(&self) -> Result<Children, AppendError> {
        ractor::call!(self.inner.supervisor, |reply| Inner::Children(reply).into()).map_err(|_| AppendError::Closed)
    }

    /// Closes the store: what is queued is written and answered, the mirror catches up, the lock is released. The
    /// store can be opened again as soon as this returns.
    ///
    /// # Errors
    /// [`AppendError`] where it was closed, poisoned or stopped before; the lock is released all the same.
    pub async fn close(self) -> Result<CloseReport, AppendError> {
        let before = self.inner.shared.refusal();
        let report = ractor::call!(self.inner.supervisor, |reply| Inner::Close(Some(reply)).into());
        self.inner.shared.answers.started().await;
        match (before, report) {
            (Some(refusal), _) => Err(refusal),
            (None, Ok(report)) => match self.inner.shared.refusal() {
                // It may have been poisoned, or have given up, while it was closing.
                None | Some(AppendError::Closed) => Ok(report),
                Some(refusal) => Err(refusal),
            },
            (None, Err(_)) => Err(self.inner.shared.refusal().unwrap_or(AppendError::Closed)),
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("dir", &self.inner.dir).field("status", &self.status()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.supervisor.cast(Inner::Close(None).into());
    }
}

fn bytes_of(drafts: &[CheckedDraft]) -> usize {
    drafts.iter().map(CheckedDraft::line_bytes_max).sum()
}

fn one(reply: AppendReply) -> Result<Receipt, AppendError> {
    reply?.pop().ok_or(AppendError::EmptyBatch)
}

/// Gives the drafts back with an answer that leaves their fate open.
fn with_drafts(error: AppendError, drafts: &[CheckedDraft]) -> AppendError {
    match error {
        AppendError::OutcomeUnknown { .. } => {
            AppendError::OutcomeUnknown { drafts: drafts.iter().map(|draft| draft.draft().clone()).collect() }
        }
        error => error,
    }
}

fn stopped(reason: String) -> Error {
    AppendError::Stopped { reason }.into()
}

/// Runs blocking work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(stopped(error.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test
mod tests {
    use super::super::shared::Erasures;
    use super::*;
    use crate::{Erase, EventType, Source};

    #[tokio::test]
    async fn an_erasure_is_counted_when_it_is_recorded_and_when_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).await.unwrap();
        let receipt = ledger.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).payload("x").unwrap()).await.unwrap();
        let erasure = Erasure::new(Erase::Ids(vec![receipt.id]), "a test");
        ledger.erase(erasure.clone().dry_run()).await.unwrap();
        assert_eq!(ledger.shared().erasures(), Erasures { counted: 0, is_settled: true });
        ledger.erase(erasure.clone()).await.unwrap();
        assert_eq!(ledger.shared().erasures(), Erasures { counted: 2, is_settled: true });
        // There is nothing left to do.
        ledger.erase(erasure).await.unwrap();
        assert_eq!(ledger.shared().erasures(), Erasures { counted: 2, is_settled: true });
        ledger.close().await.unwrap();
    }
}
