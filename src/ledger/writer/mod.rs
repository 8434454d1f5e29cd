//! The writer: seals drafts into an open group, has the group written and made durable, rotates segments.
//!
//! Called by the store and by LedgerActor, which hold the store's lock. [`Writer::flush`] does it all; who wants to seal the
//! next group meanwhile takes a [`Flight`] from [`Writer::depart`], flies it on another thread, and brings it back to
//! [`Writer::land`]. A group that could not be written definitely is dropped as if it had never been staged; one whose fate
//! is unknown poisons the writer.

mod admit;

use std::io;
use std::path::{Path, PathBuf};

use super::flight::Flight;
use super::keys::LedgerKeys;
use super::memory::Memory;
use super::notes;
use super::recovery::{self, Active, Context, TailEvent};
use super::room::Room;
use super::segment::{self, Segment};
use super::signing::{Signing, Unsigned};
use super::{
    AppendError, Conditions, Head, LedgerError, Lookup, LookupError, Manifest, NotSigned, Receipt, RecoveryReport, SealedEnds, Stored,
    Watermark,
};
use crate::attest::Signer;
use crate::canary::{self, Canary};
use crate::event::{CheckedDraft, EventId, LedgerId, Place, Seq, Timestamp, line};
use crate::failpoint;
use crate::keys::KeyEvent;
use crate::options::Options;
use crate::policy::ParityState;

/// Buffers of groups that are kept to be filled again: one is open, one in flight, the others wait for the mirror.
const SPARES_MAX: usize = 4;
/// A larger one is given back to the system. 4 MiB: four times what LedgerActor lets a group become by itself.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Appends to a store's ledger. One per store, under its lock.
pub struct Writer {
    options: Options,
    dir: PathBuf,
    ledger_id: LedgerId,
    head: Head,
    /// The segment that is appended to; with the group in flight while there is one.
    active: Option<Active>,
    room: Room,
    group: OpenGroup,
    /// The last event of the group in flight.
    flying: Option<Head>,
    memory: Memory,
    signing: Signing,
    keys: LedgerKeys,
    parity: ParityState,
    id_max: Option<EventId>,
    spares: Vec<Vec<u8>>,
    /// Of sealed segments, as recovery has read them, until somebody keeps them.
    ends: Vec<SealedEnds>,
    poisoned: Option<String>,
}

/// Its events are in the memory, behind those that are durable or in flight.
#[derive(Default)]
struct OpenGroup {
    bytes: Vec<u8>,
    events: usize,
    /// Those that are being signed, in order.
    unsigned: Vec<Unsigned>,
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
    /// Whether the events are durable already (duplicates of durable ones), else once the durable head is at the last of them.
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
        let storage = options.storage.as_ref();
        let signed = notes::as_evidence(storage, dir, manifest.ledger_id).map_err(LedgerError::io("reading", &notes::signed_path(dir)))?;
        let context = Context { options, storage, dir, manifest, line_bytes_max: options.line_bytes_max, watermark, signed };
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
            ledger_id: manifest.ledger_id,
            head: recovered.head,
            active: recovered.active,
            room: Room::new(options),
            group: OpenGroup::default(),
            flying: None,
            memory: Memory::new(recovered.floor, recovered.tail),
            signing: Signing::new(manifest.ledger_id, options),
            keys: LedgerKeys::new(recovered.floor, recovered.keys),
            parity: ParityState::Consistent,
            id_max,
            spares: Vec::new(),
            ends: recovered.ends,
            poisoned: None,
        };
        Ok((writer, recovered.report))
    }

    /// The durable head.
    pub fn head(&self) -> Head {
        self.head
    }

    /// What is to be kept in the mirror, so that the next open need not read it again.
    pub(crate) fn take_sealed_ends(&mut self) -> Vec<SealedEnds> {
        std::mem::take(&mut self.ends)
    }

    /// Events that wait for the mirror, staged ones counted.
    pub fn unmirrored(&self) -> usize {
        self.memory.len()
    }

    /// Every event above this seq is remembered; a lookup in the mirror must cover those up to it.
    pub fn floor(&self) -> Seq {
        self.memory.floor()
    }

    /// Bytes and events of the open group.
    pub fn open_group(&self) -> (usize, usize) {
        (self.group.bytes.len(), self.group.events)
    }

    /// Takes note that the mirror has all events up to this one.
    pub fn mirrored_through(&mut self, seq: Seq) {
        self.memory.mirrored_through(seq.min(self.head.seq));
    }

    /// Seals drafts into the open group; more than one make an atomic batch. Ids come first, then conditions, then the store's
    /// policy.
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
        self.check_keys(drafts, lookup)?;
        let waiting = self.unmirrored();
        if waiting + drafts.len() > self.options.unmirrored_events_max {
            return Err(AppendError::MirrorTooFarBehind { waiting });
        }
        if self.group.events > 0 && (self.group.bytes.len() + bytes > bytes_max || self.group.events + drafts.len() > events_max) {
            return Ok(Stage::GroupFull);
        }
        let recorded_at = self.options.clock.now();
        let decisions = self.decide(drafts, recorded_at, lookup)?;
        let policy_bytes = decisions.iter().flatten().map(String::len).sum::<usize>();
        self.check_use(drafts, lookup)?;
        if policy_bytes > 0 {
            self.check_room(drafts, &decisions)?;
            if bytes + policy_bytes > bytes_max {
                return Err(AppendError::BatchTooLarge { events: drafts.len(), bytes: bytes + policy_bytes, events_max, bytes_max });
            }
            if self.group.events > 0 && self.group.bytes.len() + bytes + policy_bytes > bytes_max {
                return Ok(Stage::GroupFull);
            }
        }
        let mut positions = Vec::with_capacity(drafts.len());
        for draft in drafts {
            positions.push(match draft.session_id() {
                None => None,
                Some(session_id) => Some(self.session_seq(session_id, lookup)?),
            });
        }
        Ok(Stage::Staged(self.seal(drafts, positions, decisions, recorded_at)))
    }

    /// Seals drafts whose streams were at these positions before the first of them.
    fn seal(
        &mut self,
        drafts: &[CheckedDraft],
        positions: Vec<Option<u64>>,
        decisions: Vec<Option<String>>,
        recorded_at: Timestamp,
    ) -> Staged {
        let group_seq = self.flying.unwrap_or(self.head).seq.next();
        let mut receipts = Vec::with_capacity(drafts.len());
        let mut last = self.last_staged();
        let (first, start) = (last.seq.next(), self.group.bytes.len());
        for (index, (draft, position)) in drafts.iter().zip(positions).enumerate() {
            let id = draft.id().unwrap_or_else(|| EventId::from_u128(self.options.ids.next(recorded_at)));
            let batch = (drafts.len() > 1).then(|| (index as u32 + 1, drafts.len() as u32));
            // A stream that the batch has moved on is where the memory has it.
            let position = if index == 0 { position } else { draft.session_id().and_then(|id| self.memory.session_seq(id)).or(position) };
            let session_seq = position.map(|last| last + 1);
            let signer = self.signing.of(draft).cloned();
            let signed_by = signer.as_ref().map(|signer| signer.key_id().to_string());
            let signed_by = signed_by.as_deref();
            let policy = decisions.get(index).and_then(Option::as_deref);
            let prev = last.event_hash;
            let place = Place { seq: last.seq.next(), id, recorded_at, session_seq, group_seq, batch, prev, signed_by, policy };
            let mut event = draft.place(&place);
            let signature_at = line::seal(&mut event, &mut self.group.bytes);
            self.group.bytes.push(b'\n');
            self.group.events += 1;
            if let Some((signer, at)) = signer.zip(signature_at) {
                self.group.unsigned.push(Unsigned { first, start, seq: event.seq, at, asked: self.signing.ask(&signer, event.event_hash) });
            }
            if let Some(change) = KeyEvent::of(&event) {
                self.keys.staged(change);
            }
            last = Head { seq: event.seq, event_hash: event.event_hash };
            let remembered = TailEvent::with_content(&event, draft.content());
            receipts.push(remembered.receipt.clone());
            self.id_max = self.id_max.max(Some(id));
            self.memory.remember(remembered);
        }
        Staged { receipts, durable: false }
    }

    /// Waits for the signatures of the open group, and puts them into their lines. To be called before a group that
    /// [`Writer::is_signing`] is written.
    ///
    /// # Errors
    /// [`NotSigned`]: some could not be had. The open group ends before the first append that is concerned; those behind it are to
    /// be staged again, but for those that could not be signed.
    pub fn sign(&mut self) -> Result<(), NotSigned> {
        let unsigned = std::mem::take(&mut self.group.unsigned);
        if unsigned.is_empty() {
            return Ok(());
        }
        let failed = self.signing.fill_in(&unsigned, &mut self.group.bytes);
        let Some((seq, _)) = failed.first() else { return Ok(()) };
        let Some(Unsigned { first, start, .. }) = unsigned.iter().find(|event| event.seq == *seq) else { return Ok(()) };
        let (from, last) = (*first, self.last_staged().seq);
        self.group.bytes.truncate(*start);
        self.group.events = self.group.events.saturating_sub((last.get() + 1 - from.get()) as usize);
        self.forget_above(from.previous());
        Err(NotSigned { from, failed })
    }

    /// What signs from now on what brings no signer of its own.
    pub fn sign_with(&mut self, signer: Option<Signer>) {
        self.signing.default = signer;
    }

    /// Whether events of the open group are being signed.
    pub fn is_signing(&self) -> bool {
        !self.group.unsigned.is_empty()
    }

    /// Takes back what was staged above this seq.
    fn forget_above(&mut self, seq: Seq) {
        self.memory.forget_above(seq);
        self.keys.forget_above(seq);
    }

    fn last_staged(&self) -> Head {
        self.memory.last().filter(|last| last.seq > self.head.seq).unwrap_or(self.head)
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
        if let Some(event) = self.memory.by_id(id) {
            return Ok(Some((event.clone(), event.receipt.seq <= self.head.seq)));
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
    pub(crate) fn session_seq(&mut self, session_id: &str, lookup: &mut dyn Lookup) -> Result<u64, AppendError> {
        if let Some(last) = self.memory.session_seq(session_id) {
            return Ok(last);
        }
        let last = if self.floor() == Seq::ZERO { 0 } else { lookup.session_seq(session_id)?.unwrap_or(0) };
        self.memory.learn_session(session_id, last);
        Ok(last)
    }

    /// Writes the open group and makes it durable. Nothing where it is empty.
    ///
    /// # Errors
    /// [`LedgerError::InFlight`] where a flight is out, [`LedgerError::NotSigned`]; else as [`Writer::depart`] and [`Writer::land`].
    pub fn flush(&mut self) -> Result<Option<Group>, LedgerError> {
        self.check_landed()?;
        match self.depart()? {
            None => Ok(None),
            Some(mut flight) => {
                flight.fly();
                self.land(flight).map(Some)
            }
        }
    }

    /// Closes the open group and hands it over to be written. Nothing where it is empty, or where one is in flight. The
    /// next group may be staged meanwhile, but departs only when this one has landed.
    ///
    /// # Errors
    /// [`LedgerError::DiskFull`] and failures to create a segment: the group is dropped, nothing of it was
    /// written, and the writer is well. [`LedgerError::NotSigned`]: nothing has happened. [`LedgerError::Poisoned`].
    pub fn depart(&mut self) -> Result<Option<Flight>, LedgerError> {
        self.check_well()?;
        if self.group.events == 0 || self.flying.is_some() {
            return Ok(None);
        }
        if let Some(unsigned) = self.group.unsigned.first() {
            return Err(LedgerError::NotSigned { seq: unsigned.seq });
        }
        let last = self.last_staged();
        let empty = OpenGroup { bytes: self.spares.pop().unwrap_or_default(), ..OpenGroup::default() };
        let bytes = std::mem::replace(&mut self.group, empty).bytes;
        if let Err(error) = self.make_room(bytes.len() as u64) {
            self.forget_above(self.head.seq);
            return Err(error);
        }
        let Some(active) = self.active.take() else {
            return Ok(None); // make_room has seen to one
        };
        let fill = self.room.fill_behind(active.len + bytes.len() as u64, bytes.len());
        self.flying = Some(last);
        Ok(Some(Flight::new(active, bytes, last, fill, self.options.failpoint.clone())))
    }

    /// Takes a flight back: its group is durable.
    ///
    /// # Errors
    /// [`LedgerError::Poisoned`]: what was written is unknown.
    pub fn land(&mut self, flight: Flight) -> Result<Group, LedgerError> {
        let (mut active, bytes, last, written) = flight.into_parts();
        if self.flying.take_if(|flying| *flying == last).is_none() {
            return Err(self.poison(&io::Error::other("a flight of another writer")));
        }
        let (segment, offset) = (active.segment.first, active.len);
        active.len += bytes.len() as u64;
        self.active = Some(active);
        if let Err(error) = written {
            return Err(self.poison(&error));
        }
        let first = self.head.seq.next();
        self.head = last;
        tracing::trace!(actor = "ledger", seq = last.seq.get(), segment = segment.get(), bytes = bytes.len(), "group is durable");
        Ok(Group { segment, offset, first, last, bytes })
    }

    /// The last event that a flight under way will make durable.
    pub fn in_flight(&self) -> Option<Head> {
        self.flying
    }

    /// Takes back the buffer of a group that nobody needs any more, to fill it again.
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    /// The open group as if it were written.
    #[cfg(counterfoil_canary)]
    pub(crate) fn unwritten_group(&self) -> Option<Group> {
        let active = self.active.as_ref().filter(|_| self.group.events > 0)?;
        Some(Group {
            segment: active.segment.first,
            offset: active.len,
            first: self.head.seq.next(),
            last: self.last_staged(),
            bytes: self.group.bytes.clone(),
        })
    }

    /// Sees to a segment with room for a group. Where that fails, nothing has been written.
    fn make_room(&mut self, bytes: u64) -> Result<(), LedgerError> {
        if self.active.as_ref().is_none_or(|active| active.len > 0 && active.len + bytes > self.options.segment_bytes_max) {
            self.rotate()?;
        }
        match &mut self.active {
            Some(active) => self.room.reserve(active, bytes, &self.options),
            None => Ok(()),
        }
    }

    /// Seals the active segment where it holds this event, or one before it: what is sealed may be erased. The open group must be
    /// flushed.
    ///
    /// # Errors
    /// [`LedgerError::InFlight`] where it is not; else as [`Writer::depart`].
    pub(crate) fn seal_through(&mut self, seq: Seq) -> Result<(), LedgerError> {
        self.check_well()?;
        self.check_landed()?;
        if self.group.events > 0 {
            return Err(LedgerError::InFlight { seq: self.last_staged().seq });
        }
        match &self.active {
            Some(active) if active.len > 0 && active.segment.first <= seq => self.rotate(),
            _ => Ok(()),
        }
    }

    fn rotate(&mut self) -> Result<(), LedgerError> {
        let storage = self.options.storage.clone();
        let first = self.head.seq.next();
        let path = segment::segment_path(&self.dir, first);
        let segments = segment::segments_dir(&self.dir);
        // Always for good: an earlier process may have cut blank lines off and not have come to the fsync.
        self.cut_room(failpoint::LEDGER_ROTATE_TRIM, true)?;
        let create = || {
            self.options.at(failpoint::LEDGER_ROTATE)?;
            storage.create_dir(&segments)?;
            storage.create_new(&path)
        };
        let file = create().map_err(|error| {
            if super::room::is_full(&error) {
                LedgerError::DiskFull { path: path.clone() }
            } else {
                LedgerError::io("creating", &path)(error)
            }
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
        Ok(())
    }

    fn poison(&mut self, error: &io::Error) -> LedgerError {
        let cause = error.to_string();
        tracing::error!(actor = "ledger", seq = self.head.seq.get(), %cause, "poisoned: nothing more is acknowledged");
        self.poisoned = Some(cause.clone());
        LedgerError::Poisoned { cause }
    }

    fn check_landed(&self) -> Result<(), LedgerError> {
        match self.flying {
            Some(last) => Err(LedgerError::InFlight { seq: last.seq }),
            None => Ok(()),
        }
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
    /// [`LedgerError::InFlight`]; [`LedgerError::Io`]; [`LedgerError::Poisoned`].
    pub fn trim(&mut self) -> Result<(), LedgerError> {
        self.check_well()?;
        self.check_landed()?;
        self.cut_room(failpoint::LEDGER_TRIM, false)
    }

    fn cut_room(&mut self, point: &'static str, for_good: bool) -> Result<(), LedgerError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let trimmed = self.options.at(point).and_then(|()| self.room.trim(active));
        let filled = trimmed.map_err(LedgerError::io("trimming", &active.segment.path))?;
        match if filled || for_good { active.file.sync_data() } else { Ok(()) } {
            Ok(()) => Ok(()),
            Err(error) => Err(self.poison(&error)),
        }
    }
}

impl From<LookupError> for AppendError {
    fn from(error: LookupError) -> AppendError {
        match error {
            LookupError::Rebuilding { done, total } => AppendError::Rebuilding { done, total },
            error => AppendError::Lookup(error),
        }
    }
}
