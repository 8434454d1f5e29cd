//! Erasure: payloads are forgotten in ledger, blobs, torn/ and mirror, and the chain stays whole. What was folded from them goes too:
//! snapshots of entities are removed.
//!
//! Called by the store, by every open, by replay and by repair, with the lock held. What is to be erased is what a
//! `counterfoil.erasure.v1` event names, and nothing else: `plan` says what such an event will name, [`Store::erase`] records it,
//! and [`finish`] carries out what is recorded and not done. So a crash leaves an erasure that has not begun, or one that the next
//! open completes.
//!
//! [`Store::erase`]: crate::Store::erase

mod plan;
mod report;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

pub(crate) use plan::plan;
pub use plan::{Erase, EraseError, Erasure};
pub use report::{EraseReport, Erased, ErasedEvent, RecordedErasure};

use crate::entity::{Snapshots, are_begun_after, note_erased, snapshots_path};
use crate::event::erasure::ErasurePayload;
use crate::event::{Event, PayloadHash, Seq};
use crate::failpoint;
use crate::ledger::compress::settle_doubles;
use crate::ledger::erase::{self as leg, Copies, Name, Names, Said};
use crate::ledger::{FileIdentity, FsStorage, LedgerError, LedgerReader, Needles, Segment, Storage, io_advice};
use crate::mirror::{Aside, Mirror, MirrorError, MirrorFault, MirrorReader, asides};
use crate::options::Options;

/// Adds what an erasure names.
pub(crate) fn add_names(payload: ErasurePayload, names: &mut Names) {
    let named = payload.erased.into_iter().filter(|named| named.seq > Seq::ZERO);
    for named in named {
        let (name, all) = (Name { id: named.id, payload_hash: named.payload_hash }, names.entry(named.seq).or_default());
        if !all.contains(&name) {
            all.push(name);
        }
    }
}

/// Why an erasure could not be carried out just now.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(
        "removing the entities' snapshots {path}, which may have the payloads: {source}; {advice}, then open the store again or erase again",
        advice = io_advice(source)
    )]
    Snapshots { path: PathBuf, source: std::io::Error },
    #[error("a reader holds the mirror's WAL, which still has the payloads; end it, and open the store again or erase again")]
    WalHeld,
    #[error(
        "{0}; to write the mirror anew takes its size once more in the folder for temporary files (SQLITE_TMPDIR, else /var/tmp) and once more in its WAL beside it; then open the store again or erase again"
    )]
    NoRoom(MirrorError),
    #[error("seq {0} stands in the active segment; it is erased at an open after that is sealed")]
    Active(Seq),
}

impl Unfinished {
    /// The folder that lacks room may be another one than the mirror's.
    fn of_vacuum(error: MirrorError) -> Unfinished {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
        let code = match &error {
            MirrorError::Sqlite { source, .. } => source.sqlite_error_code(),
            _ => None,
        };
        match code {
            Some(DiskFull | CannotOpen | SystemIoFailure) => Unfinished::NoRoom(error),
            _ => Unfinished::Mirror(error),
        }
    }
}

/// Carries out the erasures that are recorded, up to this head, and not done. Never fails: what could not be done is in the
/// answer, and is done by the next call. The mirror may be behind the head.
pub(crate) fn finish(reader: &LedgerReader, mirror: &mut Mirror, head: Seq, options: &Options) -> Erased {
    carry_out(reader, mirror, head, options, false)
}

/// The same, where the mirror is not believed: all of the ledger is read for what it records.
pub(crate) fn finish_by_ledger(reader: &LedgerReader, mirror: &mut Mirror, head: Seq, options: &Options) -> Erased {
    carry_out(reader, mirror, head, options, true)
}

fn carry_out(reader: &LedgerReader, mirror: &mut Mirror, head: Seq, options: &Options, by_ledger: bool) -> Erased {
    let mut work = Work {
        reader,
        mirror,
        options,
        by_ledger,
        active: None,
        blocked: None,
        all: Names::new(),
        asides: HashSet::new(),
        done: Erased::default(),
    };
    if let Err(error) = work.run(head) {
        tracing::warn!(%error, "an erasure is recorded, and not carried out as a whole");
        work.done.unfinished = Some(error.to_string());
    }
    work.done
}

/// The erasure that names this event, as the mirror has it.
///
/// # Errors
/// [`MirrorError`] where the mirror can't be read.
pub fn erasure_of(mirror: &MirrorReader, seq: Seq) -> Result<Option<RecordedErasure>, MirrorError> {
    let mut recorded = None;
    mirror.each_erasure(seq, &mut |event, payload| {
        if payload.erased.iter().any(|named| named.seq == seq) {
            recorded = Some(RecordedErasure::of(event, &payload, Some(seq)));
        }
        recorded.is_none()
    })?;
    Ok(recorded)
}

/// Takes copies of these events out of torn/, where a repair has put what it replaced.
///
/// # Errors
/// [`LedgerError`].
pub(crate) fn forget_torn(dir: &Path, options: &Options, names: &Names) -> Result<Erased, LedgerError> {
    let mut done = Erased::default();
    let (segments, _) = leg::by_segment(options.storage.as_ref(), dir, names)?;
    let segments: Vec<Seq> = segments.into_iter().map(|(segment, _)| segment.first).collect();
    let (said, needles) = (Said::of(names.values().flatten()), Needles::new());
    for path in if names.is_empty() { Vec::new() } else { leg::torn_files(options.storage.as_ref(), dir)? } {
        done.note_torn(leg::erase_in_torn(dir, options, &path, &Copies { said: &said, needles: &needles, segments: &segments })?);
    }
    Ok(done)
}

struct Work<'w> {
    reader: &'w LedgerReader,
    mirror: &'w mut Mirror,
    options: &'w Options,
    /// What the mirror says is not believed.
    by_ledger: bool,
    /// An event that is to be erased, and stands in the active segment.
    active: Option<Seq>,
    /// What was wrong with the first segment that could not be written anew.
    blocked: Option<Unfinished>,
    /// All that is to have no payload, as far as it is looked for.
    all: Names,
    /// Mirrors set aside that are done.
    asides: HashSet<PathBuf>,
    done: Erased,
}

impl Work<'_> {
    fn run(&mut self, head: Seq) -> Result<(), Unfinished> {
        let mut known = self.mirror.erasures_done()?;
        if self.by_ledger {
            (known.through, known.files) = (Seq::ZERO, HashMap::new());
        }
        let (through, names) = self.recorded(known.through, head)?;
        if through == Seq::ZERO {
            return Ok(());
        }
        // Of a segment that is there twice only one form is written anew: the other goes first, or to torn/.
        self.blocked = settle_doubles(self.reader.dir(), self.options).err().map(Unfinished::Ledger);
        let torn = leg::torn_files(self.options.storage.as_ref(), self.reader.dir())?;
        let asides = asides(self.reader.dir())?;
        let changed = self.changed(&known.files, &torn, &asides);
        let is_reread = !names.is_empty() || known.pending || changed.iter().any(|name| name.starts_with("segments/"));
        self.done.outdates_states = is_reread;
        if !is_reread && changed.is_empty() {
            return self.snapshots(false, known.through);
        }
        let mut all = names.clone();
        if !changed.is_empty() && known.through > Seq::ZERO {
            all.extend(self.recorded(Seq::ZERO, head)?.1);
        }
        self.all.clone_from(&all);
        self.legs(&names, &all, &changed)?;
        self.files(&changed, &all)?;
        let rows = self.mirror.erase_rows(&all)?;
        self.done.rows += rows;
        self.snapshots(is_reread || rows > 0, known.through)?;
        if (rows > 0 || known.pending) && !self.mirror.forget_old_pages().map_err(Unfinished::of_vacuum)? {
            return Err(Unfinished::WalHeld);
        }
        if let Some(error) = self.blocked.take().or(self.active.map(Unfinished::Active)) {
            return Err(error);
        }
        let files = self.identities(&known.files, &names)?;
        self.mirror.keep_erasures_done(through, &files)?;
        note_erased(self.reader.dir(), through, self.options.mirror_busy_timeout);
        Ok(())
    }

    /// Snapshots of entities may have what erased payloads said, and which do nobody can tell. Whoever folds an entity from now on
    /// finds no payload of them in rows and lines; and what was folded before is not kept, since its file is gone.
    fn snapshots(&mut self, have_payloads: bool, erased: Seq) -> Result<(), Unfinished> {
        let (dir, path) = (self.reader.dir(), snapshots_path(self.reader.dir()));
        if !have_payloads && are_begun_after(dir, erased, self.options.mirror_busy_timeout) {
            return Ok(());
        }
        self.done.outdates_states = true;
        let removed = self.options.at(failpoint::ERASE_SNAPSHOTS).and_then(|()| Snapshots::remove(dir));
        removed.map_err(|source| Unfinished::Snapshots { path, source })
    }

    /// What is recorded behind this seq, and where the last of it stands; the same seq where nothing is.
    fn recorded(&self, behind: Seq, head: Seq) -> Result<(Seq, Names), Unfinished> {
        let (mut through, mut names) = (behind, Names::new());
        let mut add = |event: &Event<'_>, payload| {
            if event.seq > behind && event.seq <= head {
                through = through.max(event.seq);
                add_names(payload, &mut names);
            }
        };
        let mark = self.mirror.watermark();
        if !self.by_ledger {
            leg::each_erasure_at(self.reader, &self.mirror.erasures(behind)?, &mut add)?;
        }
        // What the mirror lacks is in the ledger alone: its tail, or all of it where the mirror is new.
        let lines = match mark.seq {
            _ if self.by_ledger => Some(self.reader.lines_from(Seq::FIRST)?),
            seq if seq >= head => None,
            Seq::ZERO => Some(self.reader.lines_from(Seq::FIRST)?),
            _ => self.reader.lines_after(&mark)?.map(|(_, lines)| lines),
        };
        if let Some(mut lines) = lines {
            leg::each_erasure(&mut lines, &mut add)?;
        }
        Ok((through, names))
    }

    /// Names of files that are not what was looked through before: segments that held an erased event, and all that are in torn/ or
    /// set aside.
    fn changed(&self, known: &HashMap<String, FileIdentity>, torn: &[PathBuf], asides: &[Aside]) -> HashSet<String> {
        let dir = self.reader.dir();
        let segments = known.keys().filter(|name| name.starts_with("segments/")).cloned();
        let others = torn.iter().chain(asides.iter().flat_map(|aside| &aside.files)).map(|path| name_of(dir, path));
        let is_same = |name: &String| self.identity(name).is_some_and(|now| known.get(name) == Some(&now));
        segments.chain(others).filter(|name| !is_same(name)).collect()
    }

    /// What a file is now, by the name that it is kept under: that of a segment is the same in both of its forms.
    fn identity(&self, name: &str) -> Option<FileIdentity> {
        let dir = self.reader.dir();
        let storage = self.options.storage.as_ref();
        let of = |path: &Path| storage.identity(path).ok().flatten();
        if !name.starts_with("segments/") && !name.starts_with("torn/") {
            // SQLite's files do not pass by the ledger's disk.
            return FsStorage.identity(&dir.join(name)).ok().flatten();
        }
        let path = dir.join(name);
        of(&path).or_else(|| of(&path.with_extension("jsonl.zst")))
    }

    /// Segments that hold an event of `names`, or of `all` where they have changed; with copies of the events in other files, and
    /// their blobs.
    fn legs(&mut self, names: &Names, all: &Names, changed: &HashSet<String>) -> Result<(), Unfinished> {
        let (storage, dir) = (self.options.storage.as_ref(), self.reader.dir());
        let mut blobs = HashSet::new();
        let (segments, active) = leg::by_segment(storage, dir, all)?;
        self.active = active.filter(|seq| names.contains_key(seq));
        for (segment, held) in segments {
            let is_new = held.keys().any(|seq| names.contains_key(seq));
            if !is_new && !changed.contains(&segment_name(&segment)) {
                continue;
            }
            match self.segment(&segment, &held, is_new) {
                Ok(used) => blobs.extend(used),
                // The others need not wait for what is wrong with this one.
                Err(error) => drop(self.blocked.get_or_insert(error)),
            }
        }
        self.done.blobs.extend(leg::remove_unused_blobs(self.reader, self.options, blobs)?);
        Ok(())
    }

    /// One of them: copies of its events, then the segment itself. Answers the blobs that its events use, or used.
    fn segment(&mut self, segment: &Segment, held: &Names, is_new: bool) -> Result<HashSet<PayloadHash>, Unfinished> {
        let look = leg::look(self.options, segment, held)?;
        if look.is_needed() || is_new {
            self.copies(&Copies { said: &look.said, needles: &look.needles, segments: &[segment.first] })?;
        }
        if look.is_needed() {
            self.done.segments.push(look.erase(self.reader.dir(), self.options)?);
        }
        self.done.note_missing(&look.missing);
        Ok(look.blobs)
    }

    /// Copies in torn/, and in mirrors that were set aside.
    fn copies(&mut self, copies: &Copies<'_>) -> Result<(), Unfinished> {
        let (storage, dir) = (self.options.storage.as_ref(), self.reader.dir());
        for path in leg::torn_files(storage, dir)? {
            self.done.note_torn(leg::erase_in_torn(dir, self.options, &path, copies)?);
        }
        self.asides(copies)
    }

    fn asides(&mut self, copies: &Copies<'_>) -> Result<(), Unfinished> {
        let all = asides(self.reader.dir())?;
        if all.is_empty() {
            return Ok(());
        }
        let mut needles = copies.needles.clone();
        copies.said.add_to(&mut needles);
        for aside in all {
            let mut holds = false;
            for path in &aside.files {
                let reading = || LedgerError::io("reading", path);
                let mut file = FsStorage.open_read(path).map_err(reading())?;
                let len = file.len().map_err(reading())?;
                holds |= needles.are_in_file(file.as_mut(), 0, len).map_err(reading())?;
            }
            if holds && !self.asides.contains(&aside.path) {
                self.aside(aside)?;
            }
        }
        Ok(())
    }

    /// A mirror that was set aside and has rows of erased events: it may have others that nothing else has.
    fn aside(&mut self, aside: Aside) -> Result<(), Unfinished> {
        match aside.erase(&self.all, self.options) {
            Ok(rows) => {
                if rows > 0 {
                    tracing::info!(path = %aside.path.display(), rows, "erased payloads are gone from a mirror that was set aside");
                    self.done.note_rewritten(aside.path.clone());
                }
                self.asides.insert(aside.path);
                return Ok(());
            }
            Err(error) if error.fault() == MirrorFault::Passing => return Err(Unfinished::of_vacuum(error)),
            Err(error) => {
                tracing::warn!(path = %aside.path.display(), %error, "a mirror that was set aside may hold erased payloads, and can't be read; it is removed");
            }
        }
        let mut of_files = self.options.clone();
        of_files.storage = std::sync::Arc::new(FsStorage);
        for path in aside.files {
            leg::remove(&of_files, &path)?;
            self.done.mirrors_removed.push(path);
        }
        Ok(())
    }

    /// Files outside of the segments that came, or were changed, since they were looked through.
    fn files(&mut self, changed: &HashSet<String>, all: &Names) -> Result<(), Unfinished> {
        if changed.iter().any(|name| !name.starts_with("segments/")) {
            let (segments, _) = leg::by_segment(self.options.storage.as_ref(), self.reader.dir(), all)?;
            let segments: Vec<Seq> = segments.into_iter().map(|(segment, _)| segment.first).collect();
            self.copies(&Copies { said: &Said::of(all.values().flatten()), needles: &Needles::new(), segments: &segments })?;
        }
        Ok(())
    }

    /// The files that are known to hold nothing of erased events any more, as they are now.
    fn identities(&self, known: &HashMap<String, FileIdentity>, names: &Names) -> Result<Vec<(String, FileIdentity)>, Unfinished> {
        let (storage, dir) = (self.options.storage.as_ref(), self.reader.dir());
        let segments = leg::by_segment(storage, dir, names)?.0.into_iter().map(|(segment, _)| segment_name(&segment));
        let torn = leg::torn_files(storage, dir)?.into_iter().map(|path| name_of(dir, &path));
        let asides = asides(dir)?.into_iter().flat_map(|aside| aside.files).map(|path| name_of(dir, &path));
        let before = known.keys().filter(|name| name.starts_with("segments/")).cloned();
        let all: HashSet<String> = before.chain(segments).chain(torn).chain(asides).collect();
        Ok(all.into_iter().filter_map(|name| Some((name.clone(), self.identity(&name)?))).collect())
    }
}

fn segment_name(segment: &Segment) -> String {
    format!("segments/{:020}.jsonl", segment.first.get())
}

/// A file's name within the store.
fn name_of(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_folder_that_may_be_full() {
        let of = |code| {
            let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            Unfinished::of_vacuum(MirrorError::Sqlite { action: "writing anew", path: "mirror.sqlite3".into(), source }).to_string()
        };
        assert!(of(rusqlite::ffi::SQLITE_FULL).contains("SQLITE_TMPDIR"));
        assert!(!of(rusqlite::ffi::SQLITE_BUSY).contains("SQLITE_TMPDIR"));
    }
}
