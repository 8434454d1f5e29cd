//! Handing checkpoints on to anchors, and asking them what they have: all of them at once, each within its deadline. One that hangs,
//! fails or panics costs the others nothing.
//!
//! Called by [`super::Checkpointer`]. Signs nothing, and needs no lock of the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::anchor::Anchor;
use super::calls::Calls;
use super::{AnchorError, Anchoring};
use crate::ledger::{FsStorage, Storage, notes};
use crate::note::Checkpoint;

/// The anchors of a store.
pub(super) struct Anchors {
    dir: PathBuf,
    all: Vec<Anchored>,
}

struct Anchored {
    anchor: Arc<dyn Anchor>,
    name: String,
    size: u64,
    error: Option<String>,
    calls: Calls<Answer>,
}

/// What a call has come to.
enum Answer {
    Last(Result<Option<Checkpoint>, AnchorError>),
    Taken(u64, Result<(), AnchorError>),
}

impl Anchored {
    fn new(anchor: Arc<dyn Anchor>) -> Anchored {
        let name = catch_unwind(AssertUnwindSafe(|| anchor.name())).unwrap_or_else(|_| "an anchor whose name can't be told".to_owned());
        Anchored { anchor, name, size: 0, error: None, calls: Calls::new() }
    }

    /// Begins a call, once an earlier one has come back.
    fn start(&mut self, cancelled: Option<&AtomicBool>, call: impl FnOnce(&dyn Anchor) -> Answer + Send + 'static) {
        if self.calls.is_pending() {
            self.finish(cancelled);
        }
        let (anchor, deadline) = (self.anchor.clone(), self.anchor.answers_within());
        if let Err(missed) = self.calls.start(deadline, move || call(anchor.as_ref())) {
            self.failed(missed.to_string());
        }
    }

    /// Waits for what the call comes to; answers with the checkpoint that it was asked for.
    fn finish(&mut self, cancelled: Option<&AtomicBool>) -> Option<Checkpoint> {
        match self.calls.wait(cancelled)? {
            Ok(Answer::Last(Ok(last))) => {
                self.size = last.as_ref().map_or(self.size, Checkpoint::size);
                return last;
            }
            Ok(Answer::Taken(size, Ok(()))) => (self.size, self.error) = (self.size.max(size), None),
            Ok(Answer::Last(Err(error)) | Answer::Taken(_, Err(error))) => self.failed(error.reason),
            Err(missed) => self.failed(missed.to_string()),
        }
        None
    }

    fn failed(&mut self, reason: String) {
        tracing::warn!(anchor = self.name, reason, "an anchor has not taken a checkpoint, or can't say what it has");
        self.error = Some(reason);
    }
}

impl Anchors {
    pub(super) fn new(dir: &Path, anchors: Vec<Arc<dyn Anchor>>) -> Anchors {
        Anchors { dir: dir.to_owned(), all: anchors.into_iter().map(Anchored::new).collect() }
    }

    /// What they have, where they can say.
    pub(super) fn last(&mut self, origin: &str, cancelled: Option<&AtomicBool>) -> Vec<(String, Checkpoint)> {
        for anchored in &mut self.all {
            let (origin, dir) = (origin.to_owned(), self.dir.clone());
            anchored.start(cancelled, move |anchor| Answer::Last(outside(anchor, &dir).and_then(|()| anchor.last(&origin))));
        }
        self.all.iter_mut().filter_map(|anchored| Some((anchored.name.clone(), anchored.finish(cancelled)?))).collect()
    }

    /// Hands it to those that lack it. Of those that an anchor has missed only the newest is left for it: that covers them.
    pub(super) fn hand_on(&mut self, checkpoint: &Checkpoint, cancelled: Option<&AtomicBool>) {
        let lacks = |anchored: &Anchored| anchored.error.is_some() || anchored.size < checkpoint.size();
        for anchored in self.all.iter_mut().filter(|anchored| lacks(anchored)) {
            let (given, dir) = (checkpoint.clone(), self.dir.clone());
            anchored
                .start(cancelled, move |anchor| Answer::Taken(given.size(), outside(anchor, &dir).and_then(|()| anchor.publish(&given))));
        }
        self.all.iter_mut().for_each(|anchored| drop(anchored.finish(cancelled)));
    }

    /// Whether one of them is not known to have the checkpoint of this size.
    pub(super) fn lack(&self, size: u64) -> bool {
        self.all.iter().any(|anchored| anchored.error.is_some() || anchored.size < size)
    }

    pub(super) fn anchorings(&self) -> Vec<Anchoring> {
        let of = |anchored: &Anchored| Anchoring { anchor: anchored.name.clone(), size: anchored.size, error: anchored.error.clone() };
        self.all.iter().map(of).collect()
    }
}

/// Whether an anchor lies outside of the store: who can rewrite the store could rewrite it too, and signed.txt would get notes twice.
fn outside(anchor: &dyn Anchor, dir: &Path) -> Result<(), AnchorError> {
    let Some(file) = anchor.file() else { return Ok(()) };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [parent.canonicalize(), file.canonicalize()];
    let same = |path: &Path| FsStorage.identity(path).ok().flatten().map(|found| (found.device, found.inode));
    let is_inside = dir.canonicalize().is_ok_and(|dir| places.iter().flatten().any(|place| place.starts_with(&dir)));
    let is_own = same(file).is_some_and(|found| same(&notes::signed_path(dir)) == Some(found));
    if is_inside || is_own {
        let reason = "it is inside the store, where it proves nothing: name a place outside, that others can read".to_owned();
        return Err(AnchorError { anchor: anchor.name(), reason });
    }
    Ok(())
}
