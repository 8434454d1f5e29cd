//! Signing: the tree is grown by the new events, held against every checkpoint that is known, signed, stored, and handed on.
//!
//! Called by the command and by CheckpointActor, under the store's lock; only up to a durable head. It never signs what
//! contradicts a checkpoint that the store or a readable anchor has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::anchor::Anchor;
use super::nodes::{self, Gathered, Grown, Leaves};
use super::tree::{Edge, leaf_hash, nodes_of, part_hash};
use super::{CheckpointError, tree_path};
use crate::attest::{AttestError, Attestor};
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

/// Signs checkpoints of a store. The caller holds the store's lock for as long as this lives.
pub struct Checkpointer {
    dir: PathBuf,
    reader: LedgerReader,
    options: Options,
    plan: Plan,
    origin: String,
    attestor: Arc<dyn Attestor>,
    anchors: Vec<Anchored>,
    /// The tree, once it was looked at; nothing after an error, so that the next time begins with what is on the disk.
    grown: Option<State>,
}

struct Anchored {
    anchor: Arc<dyn Anchor>,
    size: u64,
    error: Option<String>,
}

struct State {
    edge: Edge,
    leaves: Leaves,
    last: Option<Checkpoint>,
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
    pub fn new(dir: &Path, manifest: &Manifest, options: &Options, attestor: Arc<dyn Attestor>, anchors: Vec<Arc<dyn Anchor>>) -> Self {
        Checkpointer {
            dir: dir.to_owned(),
            reader: LedgerReader::of(dir, manifest.clone(), options),
            options: options.clone(),
            plan: Plan::default(),
            origin: note::origin(manifest.ledger_id),
            attestor,
            anchors: anchors.into_iter().map(|anchor| Anchored { anchor, size: 0, error: None }).collect(),
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
        if durable.seq == Seq::ZERO {
            return Err(CheckpointError::Empty);
        }
        self.check(durable)?;
        let Some(state) = self.grown.take() else { return Err(CheckpointError::Empty) };
        let (state, checkpoint, is_new) = self.grow_and_sign(state, durable)?;
        self.grown = Some(State { last: Some(checkpoint.clone()), ..state });
        self.hand_on(&checkpoint)?;
        let anchors = self.anchorings();
        Ok(Signed { checkpoint, is_new, anchors })
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

    /// Whether an anchor is known to lack the newest checkpoint that there is.
    pub fn has_unanchored(&self) -> bool {
        let newest = self.grown.as_ref().and_then(|state| state.last.as_ref()).map_or(0, Checkpoint::size);
        self.anchors.iter().any(|anchored| anchored.error.is_some() || (1..newest).contains(&anchored.size))
    }

    /// Which anchors have what.
    pub fn anchorings(&self) -> Vec<Anchoring> {
        let of = |anchored: &Anchored| Anchoring { anchor: anchored.anchor.name(), size: anchored.size, error: anchored.error.clone() };
        self.anchors.iter().map(of).collect()
    }

    fn grow_and_sign(&self, mut state: State, durable: Head) -> Result<(State, Checkpoint, bool), CheckpointError> {
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
            && last.verify(&[self.attestor.public_key()]) == Err(SignatureFault::Wrong)
        {
            return Err(own(format!("its checkpoint of {} events does not have the signature of its key", last.size())));
        }
        let size = end.last.as_ref().map_or(0, Checkpoint::size);
        let (mut below, mut ahead) = (Vec::new(), Vec::new());
        for known in end.last.iter().map(|last| Known::of(last, path.display().to_string())).chain(self.anchored()) {
            if known.size > durable.seq.get() {
                return Err(known.shorter(durable.seq.get()));
            }
            if known.size <= size { below.push(known) } else { ahead.push(known) }
        }
        let Grown { edge, leaves, .. } = self.grown_to(size, end.last.as_ref().map(Checkpoint::root))?;
        for known in below {
            let found = if known.size == edge.size() { Some(edge.root()) } else { self.root_at(known.size, known.root)? };
            known.check(found.ok_or_else(|| known.shorter(edge.size()))?)?;
        }
        Ok(State { edge, leaves, last: end.last, ahead })
    }

    /// What the anchors have, where they can say.
    fn anchored(&mut self) -> Vec<Known> {
        let mut known = Vec::new();
        for Anchored { anchor, size, error } in &mut self.anchors {
            match anchor.last(&self.origin) {
                Ok(Some(last)) => {
                    *size = last.size();
                    known.push(Known::of(&last, anchor.name()));
                }
                Ok(None) => {}
                Err(failed) => *error = Some(failed.reason),
            }
        }
        known
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
        let mut state = State { edge: Edge::default(), leaves, last: None, ahead: Vec::new() };
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

    fn signed(&self, size: u64, root: TreeHash) -> Result<Checkpoint, CheckpointError> {
        let (text, key) = (Checkpoint::text_of(&self.origin, size, root), self.attestor.public_key());
        let failed = |reason| CheckpointError::Signer { key_id: key.key_id(), reason };
        let signature = self.attestor.sign(text.as_bytes()).map_err(|error| {
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

    /// Hands it to the anchors that lack it. Of those that an anchor has missed only the newest is left for it: that covers them.
    fn hand_on(&mut self, checkpoint: &Checkpoint) -> Result<(), LedgerError> {
        for Anchored { anchor, size, error } in &mut self.anchors {
            if *size >= checkpoint.size() && error.is_none() {
                continue;
            }
            match anchor.publish(checkpoint) {
                Ok(()) => (*size, *error) = (checkpoint.size(), None),
                Err(failed) => {
                    tracing::warn!(
                        anchor = failed.anchor,
                        reason = failed.reason,
                        size = checkpoint.size(),
                        "an anchor has not taken a checkpoint"
                    );
                    *error = Some(failed.reason);
                }
            }
        }
        self.options.at(failpoint::CHECKPOINT_ANCHORED).map_err(LedgerError::io("handing on a checkpoint of", &self.dir))
    }
}
