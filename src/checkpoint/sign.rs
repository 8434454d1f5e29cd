//! Signing: the tree is grown by the new events, held against every checkpoint that is known, signed, stored, and handed on.
//!
//! Called by the command and by CheckpointActor, under the store's lock; only up to a durable head. It never signs what
//! contradicts a checkpoint that the store or a readable anchor has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::anchor::Anchor;
use super::calls::{Calls, Missed};
use super::handing::Anchors;
use super::nodes::{self, Gathered, Grown, Leaves};
use super::tree::{Edge, leaf_hash, nodes_of, part_hash};
use super::{CheckpointError, tree_path};
use crate::attest::{AttestError, Signature, Signer};
use crate::event::Seq;
use crate::failpoint;
use crate::ledger::stream::Plan;
use crate::ledger::{Head, LedgerError, LedgerReader, Manifest, notes};
use crate::note::{self, Checkpoint, Note, SignatureFault, TreeHash};
use crate::options::Options;

/// What signing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signed {
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// Whether it is new: else there was no new event.
    pub is_new: bool,
    /// Whether neither the store nor an anchor that can say had one before: then nothing was held against the ledger. In a store
    /// that is not new, its checkpoints were lost or taken away.
    pub is_first: bool,
    /// Which anchors have it, and why the others have not.
    pub anchors: Vec<Anchoring>,
}

/// Whether an anchor has the newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Anchoring {
    /// Which anchor.
    pub anchor: String,
    /// The size of the newest checkpoint that it has taken from this process, or is known to have.
    pub size: u64,
    /// Why it has not taken the newest one.
    pub error: Option<String>,
}

/// Signs checkpoints of a store. The caller holds the store's lock while it signs; handing on needs none.
pub struct Checkpointer {
    dir: PathBuf,
    reader: LedgerReader,
    options: Options,
    plan: Plan,
    origin: String,
    signer: Signer,
    signatures: Calls<Result<Signature, AttestError>>,
    anchors: Anchors,
    /// The tree, once it was looked at; nothing after an error, so that the next time begins with what is on the disk.
    grown: Option<State>,
}

struct State {
    edge: Edge,
    leaves: Leaves,
    last: Option<Checkpoint>,
    /// Nobody who can say had a checkpoint before.
    is_first: bool,
    /// Checkpoints that the tree has not reached yet.
    ahead: Vec<Known>,
}

/// A checkpoint that was signed before, and who has it.
struct Known {
    size: u64,
    root: TreeHash,
    by: String,
}

impl Known {
    fn of(checkpoint: &Checkpoint, by: String) -> Known {
        Known { size: checkpoint.size(), root: checkpoint.root(), by }
    }

    fn check(&self, found: TreeHash) -> Result<(), CheckpointError> {
        if found == self.root {
            return Ok(());
        }
        Err(CheckpointError::Diverged { size: self.size, root: self.root, found, known_by: self.by.clone() })
    }

    fn shorter(&self, size: u64) -> CheckpointError {
        CheckpointError::Shorter { size, known: self.size, root: self.root, known_by: self.by.clone() }
    }
}

impl Checkpointer {
    /// A signer of checkpoints for the store in this directory. Reads nothing yet.
    pub fn new(dir: &Path, manifest: &Manifest, options: &Options, signer: impl Into<Signer>, anchors: Vec<Arc<dyn Anchor>>) -> Self {
        Checkpointer {
            dir: dir.to_owned(),
            reader: LedgerReader::of(dir, manifest.clone(), options),
            options: options.clone(),
            plan: Plan::default(),
            origin: note::origin(manifest.ledger_id),
            signer: signer.into(),
            signatures: Calls::new(),
            anchors: Anchors::new(dir, anchors),
            grown: None,
        }
    }

    /// Reads on this thread alone, and ends with an error once that is set.
    #[cfg(feature = "actors")]
    pub(crate) fn beside_appends(mut self, cancelled: Arc<std::sync::atomic::AtomicBool>) -> Checkpointer {
        self.plan = Plan { threads: 0, cancelled: Some(cancelled), ..Plan::default() };
        self
    }

    /// Ends no more before its time.
    #[cfg(feature = "actors")]
    pub(crate) fn uncancelled(mut self) -> Checkpointer {
        self.plan.cancelled = None;
        self.grown = None;
        self
    }

    /// Signs a checkpoint of the ledger as far as this event, which must be durable, stores it durably, and hands it to the
    /// anchors. Where the last checkpoint covers it already, only anchors that lack that one are tried again. An anchor that fails
    /// is told of in the answer: the checkpoint is signed all the same, and the anchor gets the next one, which covers more.
    ///
    /// # Errors
    /// [`CheckpointError`]; [`CheckpointError::is_inconsistent`] where the ledger contradicts what was signed before.
    pub fn sign(&mut self, durable: Head) -> Result<Signed, CheckpointError> {
        let signed = self.sign_and_store(durable)?;
        Ok(Signed { anchors: self.hand_on()?, ..signed })
    }

    /// The same without the anchors, of which the answer says what was known before: [`Checkpointer::hand_on`] sees to them, and may
    /// do so without the store's lock.
    ///
    /// # Errors
    /// As [`Checkpointer::sign`].
    pub fn sign_and_store(&mut self, durable: Head) -> Result<Signed, CheckpointError> {
        if durable.seq == Seq::ZERO {
            return Err(CheckpointError::Empty);
        }
        self.check(durable)?;
        let Some(state) = self.grown.take() else { return Err(CheckpointError::Empty) };
        let is_first = state.is_first;
        let (state, checkpoint, is_new) = self.grow_and_sign(state, durable)?;
        self.grown = Some(State { last: Some(checkpoint.clone()), is_first: false, ..state });
        Ok(Signed { checkpoint, is_new, is_first, anchors: self.anchorings() })
    }

    /// Hands the newest checkpoint that is known to the anchors that lack it: all at once, each within its deadline.
    ///
    /// # Errors
    /// None of an anchor's: those are in the answer.
    pub fn hand_on(&mut self) -> Result<Vec<Anchoring>, LedgerError> {
        if let Some(last) = self.grown.as_ref().and_then(|state| state.last.as_ref()) {
            self.anchors.hand_on(last, self.plan.cancelled.as_deref());
            self.options.at(failpoint::CHECKPOINT_ANCHORED).map_err(LedgerError::io("handing on a checkpoint of", &self.dir))?;
        }
        Ok(self.anchorings())
    }

    /// Holds the ledger, as far as this durable event, against what was signed before, where that was not done yet. Answers with
    /// the last checkpoint.
    ///
    /// # Errors
    /// As [`Checkpointer::sign`].
    pub fn check(&mut self, durable: Head) -> Result<Option<&Checkpoint>, CheckpointError> {
        if self.grown.is_none() {
            self.grown = Some(self.begin(durable)?);
        }
        Ok(self.grown.as_ref().and_then(|state| state.last.as_ref()))
    }

    /// Whether an anchor is not known to have the newest checkpoint that there is. One that can't say what it has is given it anew by
    /// each process.
    pub fn has_unanchored(&self) -> bool {
        let newest = self.grown.as_ref().and_then(|state| state.last.as_ref()).map_or(0, Checkpoint::size);
        self.anchors.lack(newest)
    }

    /// Which anchors have what.
    pub fn anchorings(&self) -> Vec<Anchoring> {
        self.anchors.anchorings()
    }

    fn cancelled(&self) -> Option<Arc<AtomicBool>> {
        self.plan.cancelled.clone()
    }

    fn grow_and_sign(&mut self, mut state: State, durable: Head) -> Result<(State, Checkpoint, bool), CheckpointError> {
        if let Some(known) = state.ahead.iter().find(|known| known.size > durable.seq.get()) {
            return Err(known.shorter(durable.seq.get()));
        }
        let mut gathered = Gathered::default();
        self.grow(&mut state, durable.seq.get(), &mut gathered)?;
        let found = state.leaves.head().map_or(self.reader.manifest().genesis(), |head| head.event_hash);
        if found != durable.event_hash {
            return Err(CheckpointError::OtherHead { seq: durable.seq, found, durable: durable.event_hash });
        }
        if let Some(last) = state.last.take().filter(|last| last.size() == durable.seq.get()) {
            return Ok((state, last, false));
        }
        gathered.write(self.options.storage.as_ref(), &self.dir, true)?;
        let checkpoint = self.signed(state.edge.size(), state.edge.root())?;
        self.store(&checkpoint)?;
        tracing::info!(size = checkpoint.size(), root = %checkpoint.root(), "signed a checkpoint");
        Ok((state, checkpoint, true))
    }

    /// The tree as far as the last checkpoint.
    fn begin(&mut self, durable: Head) -> Result<State, CheckpointError> {
        let (storage, path) = (self.options.storage.clone(), notes::signed_path(&self.dir));
        self.prepare_dir()?;
        let end = notes::end_of(storage.as_ref(), &path, &self.origin).map_err(LedgerError::io("reading", &path))?.unwrap_or_default();
        let own = |reason: String| CheckpointError::OwnCheckpoint { path: path.clone(), reason };
        end.check(&self.origin).map_err(|error| own(error.to_string()))?;
        // By another key it can't be verified here: the key may have been rotated since.
        if let Some(last) = &end.last
            && last.verify(&[self.signer.public_key()]) == Err(SignatureFault::Wrong)
        {
            return Err(own(format!("its checkpoint of {} events does not have the signature of its key", last.size())));
        }
        notes::settle(storage.as_ref(), &path, &end).map_err(LedgerError::io("writing", &path))?;
        let size = end.last.as_ref().map_or(0, Checkpoint::size);
        let cancelled = self.cancelled();
        let anchored = self.anchors.last(&self.origin, cancelled.as_deref());
        let anchored = anchored.into_iter().map(|(anchor, last)| Known::of(&last, anchor));
        let (mut below, mut ahead) = (Vec::new(), Vec::new());
        for known in end.last.iter().map(|last| Known::of(last, path.display().to_string())).chain(anchored) {
            if known.size > durable.seq.get() {
                return Err(known.shorter(durable.seq.get()));
            }
            if known.size <= size { below.push(known) } else { ahead.push(known) }
        }
        let is_unknown = below.is_empty() && ahead.is_empty();
        let Grown { edge, leaves, .. } = self.grown_to(size, end.last.as_ref().map(Checkpoint::root))?;
        for known in below {
            let found = if known.size == edge.size() { Some(edge.root()) } else { self.root_at(known.size, known.root)? };
            known.check(found.ok_or_else(|| known.shorter(edge.size()))?)?;
        }
        let is_first = end.last.is_none() && is_unknown;
        if is_first {
            tracing::warn!(store = %self.dir.display(), "neither the store nor an anchor that can say has an earlier checkpoint");
        }
        Ok(State { edge, leaves, last: end.last, is_first, ahead })
    }

    /// The directory of checkpoints, by a durable name: a process before this one may have made it and been killed.
    fn prepare_dir(&self) -> Result<(), LedgerError> {
        let (storage, checkpoints) = (&self.options.storage, self.dir.join("checkpoints"));
        storage.create_dir(&checkpoints).map_err(LedgerError::io("creating", &checkpoints))?;
        storage.sync_dir(&self.dir).map_err(LedgerError::io("syncing", &self.dir))
    }

    /// The tree of so many events: by the file of its hashes where that leads to the root that was signed, else from all events.
    fn grown_to(&self, size: u64, root: Option<TreeHash>) -> Result<Grown, CheckpointError> {
        if size > 0
            && let Some(mut grown) = nodes::by_file(&self.reader, size, &self.plan)?
            && Some(grown.edge.root()) == root
        {
            grown.gathered.write(self.options.storage.as_ref(), &self.dir, false)?;
            return Ok(grown);
        }
        if size > 0 {
            tracing::warn!(path = %tree_path(&self.dir).display(), size, "the tree's hashes are missing or wrong; making them anew from the ledger");
        }
        let leaves = Leaves::from(&self.reader, Seq::FIRST, &self.plan)?;
        let mut state = State { edge: Edge::default(), leaves, last: None, is_first: false, ahead: Vec::new() };
        let mut gathered = Gathered::default();
        self.grow(&mut state, size, &mut gathered)?;
        gathered.write(self.options.storage.as_ref(), &self.dir, false)?;
        Ok(Grown { edge: state.edge, leaves: state.leaves, gathered })
    }

    /// Adds events up to this size.
    fn grow(&self, state: &mut State, size: u64, gathered: &mut Gathered) -> Result<(), CheckpointError> {
        state.leaves.extend(Seq::new(size));
        while state.edge.size() < size {
            let Some(event) = state.leaves.next()? else {
                let path = self.dir.join("segments");
                let source = std::io::Error::new(
                    std::io::ErrorKind::UnexpectedEof,
                    format!("the ledger ends at seq {}, before seq {size}", state.edge.size()),
                );
                return Err(LedgerError::Io { action: "reading", path, source }.into());
            };
            state.edge.push_leaf(leaf_hash(event.event_hash.as_bytes()), &mut |node, hash| gathered.take(node, hash));
            if gathered.is_full() {
                gathered.write(self.options.storage.as_ref(), &self.dir, false)?;
            }
            if !state.ahead.is_empty() {
                let (size, root) = (state.edge.size(), state.edge.root());
                state.ahead.iter().filter(|known| known.size == size).try_for_each(|known| known.check(root))?;
                state.ahead.retain(|known| known.size > size);
            }
        }
        Ok(())
    }

    /// The root of the first events; from all of them where the file of hashes does not lead to this one.
    fn root_at(&self, size: u64, root: TreeHash) -> Result<Option<TreeHash>, LedgerError> {
        let part = nodes_of(0, size);
        let by = |use_file| {
            let found = nodes::hashes(&self.reader, &part.iter().copied().collect(), use_file, &self.plan)?;
            Ok(part_hash(&part, &|node| found.get(&node).copied()))
        };
        match by(true)? {
            Some(found) if found == root => Ok(Some(found)),
            _ => by(false),
        }
    }

    fn signed(&mut self, size: u64, root: TreeHash) -> Result<Checkpoint, CheckpointError> {
        let (text, key) = (Checkpoint::text_of(&self.origin, size, root), self.signer.public_key());
        let failed = |reason| CheckpointError::Signer { key_id: key.key_id(), reason };
        let signature = self.signature(&text).map_err(|missed| failed(missed.to_string()))?.map_err(|error| {
            failed(match error {
                AttestError::Failed { reason, .. } => reason,
                AttestError::Deadline { deadline_ms, .. } => format!("no answer within {deadline_ms} ms"),
                error => error.to_string(),
            })
        })?;
        if !key.verify(text.as_bytes(), &signature) {
            return Err(failed("its signature does not verify: it has another key than it says".to_owned()));
        }
        Checkpoint::from_note(Note::signed(text, &self.origin, key, &signature)).map_err(|error| failed(error.to_string()))
    }

    /// Asks the signer: one that may wait for something on a thread of its own.
    fn signature(&mut self, text: &str) -> Result<Result<Signature, AttestError>, Missed> {
        let (attestor, text) = (self.signer.attestor().clone(), text.to_owned());
        let sign = move || attestor.sign(text.as_bytes());
        if self.signer.is_local() {
            return catch_unwind(AssertUnwindSafe(sign)).map_err(|_| Missed::Panicked);
        }
        // What an earlier call has come to is a signature of something else.
        match self.signatures.wait(self.plan.cancelled.as_deref()) {
            Some(Err(missed @ (Missed::Late(_) | Missed::Stuck))) => return Err(missed),
            _ => self.signatures.start(self.options.sign_deadline, sign)?,
        }
        self.signatures.wait(self.plan.cancelled.as_deref()).unwrap_or(Err(Missed::Panicked))
    }

    /// Makes it durable in the store, before anybody is given it.
    fn store(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (storage, path) = (self.options.storage.as_ref(), notes::signed_path(&self.dir));
        let write = || {
            self.options.at(failpoint::CHECKPOINT_WRITE)?;
            notes::append(storage, &path, checkpoint, || self.options.at(failpoint::CHECKPOINT_SYNC))?;
            self.options.at(failpoint::CHECKPOINT_SYNCED)
        };
        write().map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => CheckpointError::OwnCheckpoint { path: path.clone(), reason: error.to_string() },
            _ => LedgerError::io("writing", &path)(error).into(),
        })
    }
}
