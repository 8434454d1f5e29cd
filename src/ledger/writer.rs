//! The writer: seals drafts into an open group, writes the group, makes it durable, rotates segments.
//!
//! Called by the store and by LedgerActor, which hold the store's lock. A group that could not be written
//! definitely is dropped as if it had never been staged; one whose fate is unknown poisons the writer.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::recovery::{self, Active, Context, TailEvent};
use super::segment::{self, Segment};
use super::{AppendError, Conditions, Head, LedgerError, Lookup, LookupError, Manifest, Receipt, RecoveryReport, Stored, Watermark};
use crate::canary::{self, Canary};
use crate::event::{CheckedDraft, EventId, Place, Seq, line};
use crate::failpoint;
use crate::options::Options;

/// Space that is reserved ahead of the writes. 1 MiB: rare enough to cost nothing, small enough to waste nothing.
const RESERVE_BYTES: u64 = 1 << 20;

/// Appends to a store's ledger. One per store, under its lock.
pub struct Writer {
    options: Options,
    dir: PathBuf,
    head: Head,
    active: Option<Active>,
    reserved_to: u64,
    can_reserve: bool,
    group: OpenGroup,
    memory: Memory,
    id_max: Option<EventId>,
    poisoned: Option<String>,
}

#[derive(Default)]
struct OpenGroup {
    bytes: Vec<u8>,
    events: Vec<TailEvent>,
    by_id: HashMap<EventId, usize>,
    sessions: HashMap<Box<str>, u64>,
}

/// A group that is durable: what the mirror is to commit.
#[derive(Clone, Debug)]
pub struct Group {
    /// First seq of the segment that holds it.
    pub segment: Seq,
    /// Where its first line begins there.
    pub offset: u64,
    /// Its first seq.
    pub first: Seq,
    /// Its last event.
    pub last: Head,
    /// Its lines, each with LF.
    pub bytes: Vec<u8>,
}

/// What became of drafts that were staged.
#[derive(Debug)]
pub enum Stage {
    /// They are sealed, or known already.
    Staged(Staged),
    /// They don't fit into the open group: flush it and stage them again.
    GroupFull,
}

/// Receipts of staged drafts.
#[derive(Debug)]
pub struct Staged {
    /// One receipt a draft. They may be given out once the events are durable.
    pub receipts: Vec<Receipt>,
    /// Whether the events are durable already (duplicates of durable ones), else once the group is.
    pub durable: bool,
}

impl Writer {
    /// Recovers the ledger and opens it to append. The caller holds the store's lock for as long as the writer lives.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] where recovery would have to guess; [`LedgerError::Io`].
    pub fn open(
        dir: &Path,
        manifest: &Manifest,
        watermark: Option<Watermark>,
        lookup: &mut dyn Lookup,
        options: &Options,
    ) -> Result<(Writer, RecoveryReport), LedgerError> {
        let context =
            Context { options, storage: options.storage.as_ref(), dir, manifest, line_bytes_max: options.line_bytes_max, watermark };
        let recovered = recovery::recover(&context, lookup)?;
        recovery::sync_names(&context, recovered.active.is_some() || recovered.head.seq > Seq::ZERO)?;
        // Ids below the highest one are looked up; where the mirror can't say which that is, all are: it may have to be
        // replayed yet, and knows nothing of what lies between its watermark and the floor.
        let covered = watermark.map_or(Seq::ZERO, |mark| mark.seq) >= recovered.floor;
        let id_max = match lookup.id_max() {
            _ if recovered.floor == Seq::ZERO => recovered.id_max,
            Ok(mirrored) if covered => mirrored.max(recovered.id_max),
            _ => Some(EventId::from_u128(u128::MAX)),
        };
        let writer = Writer {
            options: options.clone(),
            dir: dir.to_owned(),
            head: recovered.head,
            active: recovered.active,
            reserved_to: 0,
            can_reserve: true,
            group: OpenGroup::default(),
            memory: Memory::new(recovered.floor, recovered.tail),
            id_max,
            poisoned: None,
        };
        Ok((writer, recovered.report))
    }

    /// The durable head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Events that wait for the mirror.
    pub fn unmirrored(&self) -> usize {
        self.memory.len() + self.group.events.len()
    }

    /// Every event above this seq is remembered; a lookup in the mirror must cover those up to it.
    pub fn floor(&self) -> Seq {
        self.memory.floor()
    }

    /// Bytes and events of the open group.
    pub fn open_group(&self) -> (usize, usize) {
        (self.group.bytes.len(), self.group.events.len())
    }

    /// Takes note that the mirror has all events up to this one.
    pub fn mirrored_through(&mut self, seq: Seq) {
        self.memory.mirrored_through(seq.min(self.head.seq));
    }

    /// Seals drafts into the open group; more than one make an atomic batch. Ids come first, then conditions.
    /// `fresh` says that their ids were just made and can't be known.
    ///
    /// # Errors
    /// [`AppendError`]; the open group is as it was.
    pub fn stage(
        &mut self,
        drafts: &[CheckedDraft],
        conditions: &Conditions,
        fresh: bool,
        lookup: &mut dyn Lookup,
    ) -> Result<Stage, AppendError> {
        self.check_well()?;
        let bytes = drafts.iter().map(CheckedDraft::line_bytes_max).sum::<usize>();
        // A batch that is larger than what may wait for the mirror would wait for ever.
        let events_max = self.options.group_events_max.min(self.options.unmirrored_events_max);
        let bytes_max = self.options.group_bytes_max;
        match drafts.len() {
            0 => return Err(AppendError::EmptyBatch),
            events if events > events_max || bytes > bytes_max => {
                return Err(AppendError::BatchTooLarge { events, bytes, events_max, bytes_max });
            }
            _ => {}
        }
        if !fresh && let Some(staged) = self.find_duplicates(drafts, lookup)? {
            return Ok(Stage::Staged(staged));
        }
        self.check_conditions(conditions, lookup)?;
        let waiting = self.unmirrored();
        if waiting + drafts.len() > self.options.unmirrored_events_max {
            return Err(AppendError::MirrorTooFarBehind { waiting });
        }
        if !self.group.events.is_empty()
            && (self.group.bytes.len() + bytes > bytes_max || self.group.events.len() + drafts.len() > events_max)
        {
            return Ok(Stage::GroupFull);
        }
        let mut positions = Vec::with_capacity(drafts.len());
        let mut in_batch: HashMap<&str, u64> = HashMap::new();
        for draft in drafts {
            positions.push(match draft.session_id() {
                None => None,
                Some(session_id) => {
                    let last = match in_batch.get(session_id) {
                        Some(last) => *last,
                        None => self.session_seq(session_id, lookup)?,
                    };
                    in_batch.insert(session_id, last + 1);
                    Some(last + 1)
                }
            });
        }
        Ok(Stage::Staged(self.seal(drafts, positions)))
    }

    fn seal(&mut self, drafts: &[CheckedDraft], positions: Vec<Option<u64>>) -> Staged {
        let group_seq = self.head.seq.next();
        let recorded_at = self.options.clock.now();
        let mut receipts = Vec::with_capacity(drafts.len());
        for (index, (draft, session_seq)) in drafts.iter().zip(positions).enumerate() {
            let last = self.last_staged();
            let id = draft.id().unwrap_or_else(|| EventId::from_u128(self.options.ids.next(recorded_at)));
            let batch = (drafts.len() > 1).then(|| (index as u32 + 1, drafts.len() as u32));
            let place = Place { seq: last.seq.next(), id, recorded_at, session_seq, group_seq, batch, prev: last.event_hash };
            let mut event = draft.place(&place);
            line::seal(&mut event, &mut self.group.bytes);
            self.group.bytes.push(b'\n');
            let remembered = TailEvent::of(&event);
            receipts.push(remembered.receipt.clone());
            if let (Some(session_id), Some(session_seq)) = (draft.session_id(), session_seq) {
                self.group.sessions.insert(session_id.into(), session_seq);
            }
            self.group.by_id.insert(id, self.group.events.len());
            self.group.events.push(remembered);
        }
        Staged { receipts, durable: false }
    }

    fn last_staged(&self) -> Head {
        self.group.events.last().map_or(self.head, |event| Head { seq: event.receipt.seq, event_hash: event.receipt.event_hash })
    }

    /// Receipts where the drafts are in the ledger or the open group already.
    fn find_duplicates(&self, drafts: &[CheckedDraft], lookup: &mut dyn Lookup) -> Result<Option<Staged>, AppendError> {
        let mut found: Vec<(TailEvent, bool)> = Vec::new();
        let mut first_found = None;
        let mut seen = std::collections::HashSet::new();
        for draft in drafts {
            let Some(id) = draft.id() else { continue };
            if !seen.insert(id) {
                return Err(AppendError::BatchConflict { id });
            }
            if let Some((event, durable)) = self.find(id, lookup)? {
                first_found.get_or_insert(id);
                let same = event.content == draft.content() && draft.observed_at().is_none_or(|at| at == event.observed_at);
                if !same {
                    return Err(AppendError::Conflict { id, seq: event.receipt.seq });
                }
                found.push((event, durable));
            }
        }
        let Some(id) = first_found else {
            return Ok(None);
        };
        let one_batch = found.len() == drafts.len()
            && (drafts.len() == 1
                || found.iter().enumerate().all(|(index, (event, _))| {
                    let first = found.first().map_or(Seq::ZERO, |(event, _)| event.receipt.seq);
                    event.batch == Some((index as u32 + 1, drafts.len() as u32)) && event.receipt.seq.get() == first.get() + index as u64
                }));
        if !one_batch {
            return Err(AppendError::BatchConflict { id });
        }
        let durable = found.iter().all(|(_, durable)| *durable);
        let receipts = found.into_iter().map(|(event, _)| Receipt { duplicate: true, ..event.receipt }).collect();
        Ok(Some(Staged { receipts, durable }))
    }

    /// The event with this id, and whether it is durable.
    fn find(&self, id: EventId, lookup: &mut dyn Lookup) -> Result<Option<(TailEvent, bool)>, AppendError> {
        if let Some(event) = self.group.by_id.get(&id).and_then(|index| self.group.events.get(*index)) {
            return Ok(Some((event.clone(), false)));
        }
        if let Some(event) = self.memory.by_id(id) {
            return Ok(Some((event.clone(), true)));
        }
        if self.floor() == Seq::ZERO || self.id_max.is_none_or(|max| id > max) {
            return Ok(None);
        }
        Ok(lookup.by_id(id)?.map(|Stored(event)| (event, true)))
    }

    fn check_conditions(&mut self, conditions: &Conditions, lookup: &mut dyn Lookup) -> Result<(), AppendError> {
        if let Some(expected) = conditions.head {
            let actual = self.last_staged().event_hash;
            if actual != expected {
                return Err(AppendError::WrongHead { expected, actual });
            }
        }
        for (session_id, expected) in &conditions.sessions {
            let actual = self.session_seq(session_id, lookup)?;
            if actual != *expected {
                return Err(AppendError::WrongSessionSeq { session_id: session_id.clone(), expected: *expected, actual });
            }
        }
        Ok(())
    }

    /// Position of the last event of a stream, staged ones counted; 0 where it has none.
    fn session_seq(&mut self, session_id: &str, lookup: &mut dyn Lookup) -> Result<u64, AppendError> {
        if let Some(last) = self.group.sessions.get(session_id).copied().or_else(|| self.memory.session_seq(session_id)) {
            return Ok(last);
        }
        let last = if self.floor() == Seq::ZERO { 0 } else { lookup.session_seq(session_id)?.unwrap_or(0) };
        self.memory.learn_session(session_id, last);
        Ok(last)
    }

    /// Writes the open group and makes it durable. Nothing where it is empty.
    ///
    /// # Errors
    /// [`LedgerError::DiskFull`] and failures to create a segment: the group is dropped, nothing of it was
    /// written, and the writer is well. [`LedgerError::Poisoned`]: what was written is unknown.
    pub fn flush(&mut self) -> Result<Option<Group>, LedgerError> {
        self.check_well()?;
        if self.group.events.is_empty() {
            return Ok(None);
        }
        let last = self.last_staged();
        let mut group = std::mem::take(&mut self.group);
        let bytes = group.bytes.len() as u64;
        self.make_room(bytes)?;
        let Some(active) = &mut self.active else {
            return Ok(None);
        };
        let offset = active.len;
        let written = self
            .options
            .at(failpoint::LEDGER_WRITE)
            .and_then(|()| active.file.write_at(&group.bytes, offset))
            .and_then(|()| self.options.at(failpoint::LEDGER_SYNC))
            .and_then(|()| if canary::on(Canary::SkipSync) { Ok(()) } else { active.file.sync_data() })
            .and_then(|()| self.options.at(failpoint::LEDGER_SYNCED));
        if let Err(error) = written {
            return Err(self.poison(&error));
        }
        active.len += bytes;
        let segment = active.segment.first;
        let first = self.head.seq.next();
        self.head = last;
        self.id_max = self.id_max.max(group.by_id.keys().max().copied());
        for event in group.events {
            self.memory.remember(event);
        }
        tracing::trace!(actor = "ledger", seq = last.seq.get(), segment = segment.get(), bytes, "group is durable");
        Ok(Some(Group { segment, offset, first, last, bytes: std::mem::take(&mut group.bytes) }))
    }

    /// The open group as if it were written.
    #[cfg(counterfoil_canary)]
    pub(crate) fn unwritten_group(&self) -> Option<Group> {
        let active = self.active.as_ref().filter(|_| !self.group.events.is_empty())?;
        Some(Group {
            segment: active.segment.first,
            offset: active.len,
            first: self.head.seq.next(),
            last: self.last_staged(),
            bytes: self.group.bytes.clone(),
        })
    }

    /// Sees to a segment with room for the open group. Where that fails, nothing has been written.
    fn make_room(&mut self, bytes: u64) -> Result<(), LedgerError> {
        if self.active.as_ref().is_none_or(|active| active.len > 0 && active.len + bytes > self.options.segment_bytes_max) {
            self.rotate()?;
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !self.can_reserve || active.len + bytes <= self.reserved_to {
            return Ok(());
        }
        let ahead = bytes.max(RESERVE_BYTES.min(self.options.segment_bytes_max));
        let reserved = self.options.at(failpoint::LEDGER_RESERVE).and_then(|()| {
            active.file.reserve(active.len, ahead).map(|()| ahead).or_else(|_| active.file.reserve(active.len, bytes).map(|()| bytes))
        });
        match reserved {
            Ok(reserved) => self.reserved_to = active.len + reserved,
            Err(error) if is_full(&error) => {
                return Err(LedgerError::DiskFull { path: active.segment.path.clone() });
            }
            // A file system that can't reserve shows a full disk at the write, which then poisons.
            Err(_) => self.can_reserve = false,
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), LedgerError> {
        let storage = self.options.storage.clone();
        let first = self.head.seq.next();
        let path = segment::segment_path(&self.dir, first);
        let segments = segment::segments_dir(&self.dir);
        if let Some(old) = &mut self.active {
            // Given back even where the rest fails: what is appended here then must reserve again.
            self.reserved_to = 0;
            let trimmed = self.options.at(failpoint::LEDGER_ROTATE_TRIM).and_then(|()| old.file.set_len(old.len));
            trimmed.map_err(LedgerError::io("trimming", &old.segment.path))?;
        }
        let create = || {
            self.options.at(failpoint::LEDGER_ROTATE)?;
            storage.create_dir(&segments)?;
            storage.create_new(&path)
        };
        let file = create().map_err(|error| {
            if is_full(&error) { LedgerError::DiskFull { path: path.clone() } } else { LedgerError::io("creating", &path)(error) }
        })?;
        let synced = self
            .options
            .at(failpoint::LEDGER_ROTATE_SYNC)
            // A process may have been killed after creating segments/, so that it is there says nothing.
            .and_then(|()| if self.active.is_none() { storage.sync_dir(&self.dir) } else { Ok(()) })
            .and_then(|()| if canary::on(Canary::SkipDirectorySync) { Ok(()) } else { storage.sync_dir(&segments) })
            .and_then(|()| self.options.at(failpoint::LEDGER_ROTATED));
        if let Err(error) = synced {
            return Err(self.poison(&error));
        }
        tracing::debug!(actor = "ledger", segment = first.get(), "new segment");
        self.active = Some(Active { segment: Segment { first, path }, file, len: 0 });
        self.reserved_to = 0;
        Ok(())
    }

    fn poison(&mut self, error: &io::Error) -> LedgerError {
        let cause = error.to_string();
        tracing::error!(actor = "ledger", seq = self.head.seq.get(), %cause, "poisoned: nothing more is acknowledged");
        self.poisoned = Some(cause.clone());
        LedgerError::Poisoned { cause }
    }

    fn check_well(&self) -> Result<(), LedgerError> {
        match &self.poisoned {
            Some(_) if canary::on(Canary::IgnorePoison) => Ok(()),
            Some(cause) => Err(LedgerError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Releases what was reserved ahead. Call it once nothing more is to be appended; the open group must be flushed.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn trim(&mut self) -> Result<(), LedgerError> {
        self.check_well()?;
        self.reserved_to = 0;
        match &mut self.active {
            Some(active) => {
                let trimmed = self.options.at(failpoint::LEDGER_TRIM).and_then(|()| active.file.set_len(active.len));
                trimmed.map_err(LedgerError::io("trimming", &active.segment.path))
            }
            None => Ok(()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<LookupError> for AppendError {
    fn from(error: LookupError) -> AppendError {
        match error {
            LookupError::Rebuilding { done, total } => AppendError::Rebuilding { done, total },
            error => AppendError::Lookup(error),
        }
    }
}
