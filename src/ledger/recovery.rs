//! Recovery: what open does with the ledger's own state, by FORMAT.md's table "What recovery does with a tail".
//!
//! It never guesses: a tail is either clean, or torn in the one way that a crash can tear it, or refused with
//! the place and the command that helps.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::notes::LastSigned;
use super::place::{Expected, Standing, check_blob};
use super::sealed::{self, SealedEnds};
use super::segment::{self, LineReader, Segment};
use super::storage::{self, Storage, StorageFile};
use super::tail::{self, Tail};
use super::{Head, LedgerError, LineFault, Lookup, Manifest};
use crate::canary::{self, Canary};
use crate::event::{ContentDigest, Event, EventHash, EventId, Seq, Timestamp, line};
use crate::failpoint;
use crate::keys::KeyEvent;
use crate::options::Options;

/// A seq that is known to be durable, and where its line is: the mirror's watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The event.
    pub seq: Seq,
    /// Its hash.
    pub event_hash: EventHash,
    /// First seq of the segment that holds it.
    pub segment: Seq,
    /// Where its line begins there: a hint, which is checked.
    pub offset: u64,
}

/// Why open refuses: something has happened that a crash can't do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A later group was written, so the damaged bytes had been fsynced.
    #[error(
        "{path}, byte {offset}: seq {seq} is damaged, though seq {later} of a later group stands behind it, so it had been fsynced: \
         this is corruption, not a torn tail; run `counterfoil repair --from mirror`"
    )]
    LaterGroup {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What belongs there.
        seq: Seq,
        /// What was found behind it.
        later: Seq,
    },
    /// A line that fits its own hash, but not its place: tearing can't make it.
    #[error(
        "{path}, byte {offset}: {fault}: a second writer or a splice, not a torn tail; \
         run `counterfoil verify` to see where, and `counterfoil repair --from mirror` to restore what the mirror has"
    )]
    Splice {
        /// The segment.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// What does not fit.
        fault: LineFault,
    },
    /// The ledger ends before an event that is known to have been durable.
    #[error(
        "{path}, byte {offset}: the ledger ends at seq {valid}, but seq {durable} was durable ({evidence}): \
         durable events are lost; run `counterfoil repair --from mirror`"
    )]
    LostDurable {
        /// The segment.
        path: PathBuf,
        /// Where its valid lines end.
        offset: u64,
        /// The last valid seq.
        valid: Seq,
        /// The seq that was durable.
        durable: Seq,
        /// How that is known.
        evidence: &'static str,
    },
    /// The ledger ends before an event that the last checkpoint in the store covers: either durable events are lost, or that
    /// checkpoint is not what it says, which can't be told here, without a key.
    #[error(
        "{path}, byte {offset}: the ledger ends at seq {valid}, but {signed}, byte {signed_at}, has a checkpoint of {durable} events, signed \
         with the key {key_hash:08x}: a signed checkpoint covers what is not there. Where it is yours (`counterfoil verify --anchor \
         {signed} --key KEY` verifies its signature) durable events are lost: run `counterfoil repair --from mirror`, or restore the \
         segments from a backup. Where it is not, or there is no newer backup, move {signed} aside, and keep it"
    )]
    BehindCheckpoint {
        /// The segment.
        path: PathBuf,
        /// Where its valid lines end.
        offset: u64,
        /// The last valid seq.
        valid: Seq,
        /// The last seq that the checkpoint covers.
        durable: Seq,
        /// The file that the checkpoint is in.
        signed: PathBuf,
        /// Where it begins there.
        signed_at: u64,
        /// Which key its signature names; see [`crate::note::key_hash`].
        key_hash: u32,
    },
    /// Sealed segments don't meet end to end.
    #[error("{path}: {reason}: a segment is missing or damaged; run `counterfoil repair --from mirror`")]
    SegmentsDoNotMeet {
        /// The segment at which it shows.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The mirror knows another event at a seq that both have.
    #[error(
        "{path}, seq {seq}: the ledger has {ledger}, the mirror {mirror}: two histories; find out which is right \
         (`counterfoil parity --full`), then run `counterfoil repair --from ledger` or restore the ledger from its backup"
    )]
    TwoHistories {
        /// The segment.
        path: PathBuf,
        /// Where they differ.
        seq: Seq,
        /// The ledger's event hash.
        ledger: EventHash,
        /// The mirror's.
        mirror: EventHash,
    },
    /// A line that links to the one before it, but stands elsewhere in its stream than the rows before it say. Tearing
    /// can't make it, and which of the two is wrong can't be told here.
    #[error(
        "{path}, byte {offset}, seq {seq}: {fault}, by what the mirror has of that stream; run `counterfoil verify`: where every line is \
         right, the mirror is wrong, and `counterfoil repair --from ledger` derives it anew"
    )]
    OtherStream {
        /// The segment.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// The line's seq.
        seq: Seq,
        /// What does not fit.
        fault: LineFault,
    },
    /// The manifest is another ledger's: the first event does not link to its genesis.
    #[error(
        "{path} belongs to another ledger than {segment}, byte 0, seq 1, which does not link to its genesis; \
         move it away and run `counterfoil repair --from mirror`, or restore the right one from a backup"
    )]
    OtherManifest {
        /// The manifest.
        path: PathBuf,
        /// The first segment.
        segment: PathBuf,
    },
    /// There are segments or a mirror, but no manifest to read them by.
    #[error(
        "{path} is missing, though the store has events; run `counterfoil repair --from mirror` where there is a mirror, \
         else restore the file from a backup (its ledger_id is what the chain begins with)"
    )]
    NoManifest {
        /// The manifest's path.
        path: PathBuf,
    },
}

/// Bytes that were cut from a torn tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// The segment.
    pub segment: PathBuf,
    /// Where they began.
    pub offset: u64,
    /// How many they were.
    pub bytes: u64,
    /// Where they are now.
    pub saved: PathBuf,
}

/// What recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The last event.
    pub head: Head,
    /// What was cut off. It may have been an acknowledged group that was damaged before it was mirrored: that
    /// looks the same.
    pub torn: Option<Torn>,
    /// Bytes that were written again and fsynced, since nothing proved them durable.
    pub rewritten_bytes: u64,
}

/// An event of the tail, as the writer remembers it until it is mirrored.
#[derive(Clone, Debug)]
pub(crate) struct TailEvent {
    pub receipt: super::Receipt,
    pub session_id: Option<Box<str>>,
    pub content: ContentDigest,
    pub observed_at: Timestamp,
    pub batch: Option<(u32, u32)>,
}

impl TailEvent {
    pub(crate) fn of(event: &Event<'_>) -> TailEvent {
        TailEvent::with_content(event, ContentDigest::of(event))
    }

    /// The same, where the digest is known.
    pub(crate) fn with_content(event: &Event<'_>, content: ContentDigest) -> TailEvent {
        TailEvent {
            receipt: super::Receipt::of(event),
            session_id: event.session_id().map(Into::into),
            content,
            observed_at: event.observed_at,
            batch: event.batch,
        }
    }
}

/// The ledger, ready to be appended to.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub head: Head,
    /// The segment to append to, and where; nothing in an empty ledger.
    pub active: Option<Active>,
    /// Events above the floor, in order.
    pub tail: Vec<TailEvent>,
    /// All events above this one are in `tail`.
    pub floor: Seq,
    pub id_max: Option<EventId>,
    /// Changes to keys among the tail.
    pub keys: Vec<KeyEvent>,
    /// Of sealed segments, those that are worth being kept: see [`sealed::check`].
    pub ends: Vec<SealedEnds>,
    pub report: RecoveryReport,
}

#[derive(Debug)]
pub(crate) struct Active {
    pub segment: Segment,
    pub file: Box<dyn StorageFile>,
    pub len: u64,
}

/// Where recovery reads and what it holds on to.
pub(crate) struct Context<'a> {
    pub options: &'a Options,
    pub storage: &'a dyn Storage,
    pub dir: &'a Path,
    pub manifest: &'a Manifest,
    pub line_bytes_max: usize,
    /// The mirror's watermark, if a mirror of this ledger is there.
    pub watermark: Option<Watermark>,
    /// The last checkpoint of this ledger in the store.
    pub signed: Option<LastSigned>,
}

impl Context<'_> {
    /// The last event that the mirror or a checkpoint knows to be durable, and which of them does.
    fn known_durable(&self) -> (Seq, &'static str) {
        let signed = self.signed.as_ref().map_or(Seq::ZERO, |signed| signed.size);
        match self.watermark.map_or(Seq::ZERO, |mark| mark.seq) {
            mirrored if mirrored >= signed => (mirrored, BY_MIRROR),
            _ => (signed, BY_CHECKPOINT),
        }
    }

    fn lost(&self, path: PathBuf, offset: u64, valid: Seq, durable: Seq, evidence: &'static str) -> LedgerError {
        let refusal = match &self.signed {
            Some(last) if evidence == BY_CHECKPOINT => Refusal::BehindCheckpoint {
                path,
                offset,
                valid,
                durable,
                signed: last.path.clone(),
                signed_at: last.offset,
                key_hash: last.key_hash,
            },
            _ => Refusal::LostDurable { path, offset, valid, durable, evidence },
        };
        Box::new(refusal).into()
    }
}

/// Recovers the ledger. The caller holds the store's lock.
pub(crate) fn recover(cx: &Context<'_>, lookup: &mut dyn Lookup) -> Result<Recovered, LedgerError> {
    let segments = segment::list(cx.storage, cx.dir)?;
    let genesis = Head { seq: Seq::ZERO, event_hash: cx.manifest.genesis() };
    let Some((active, sealed)) = segments.split_last() else {
        let (durable, evidence) = cx.known_durable();
        if durable > Seq::ZERO {
            return Err(cx.lost(segment::segment_path(cx.dir, Seq::FIRST), 0, Seq::ZERO, durable, evidence));
        }
        let report = RecoveryReport { head: genesis, torn: None, rewritten_bytes: 0 };
        return Ok(Recovered {
            head: genesis,
            active: None,
            tail: Vec::new(),
            floor: Seq::ZERO,
            id_max: None,
            keys: Vec::new(),
            ends: Vec::new(),
            report,
        });
    };
    if active.is_compressed() {
        return recover_sealed(cx, &segments, genesis, lookup);
    }
    let (sealed_end, ends) = sealed::check(cx, sealed, genesis, lookup)?;
    if active.first != sealed_end.seq.next() {
        let reason = format!("it begins with seq {}, but seq {} belongs there", active.first, sealed_end.seq.next());
        return Err(Box::new(Refusal::SegmentsDoNotMeet { path: active.path.clone(), reason }).into());
    }
    let start = scan_start(cx, &segments, active, sealed_end)?;
    Ok(Recovered { ends, ..recover_active(cx, active, sealed_end, start, lookup)? })
}

/// Recovers a ledger whose last segment is compressed, and so sealed: the one that comes after it is not there yet.
fn recover_sealed(cx: &Context<'_>, segments: &[Segment], genesis: Head, lookup: &mut dyn Lookup) -> Result<Recovered, LedgerError> {
    let (head, ends) = sealed::check(cx, segments, genesis, lookup)?;
    let next = Segment::named(cx.dir, head.seq.next(), false);
    let (durable, evidence) = cx.known_durable();
    if durable > head.seq {
        return Err(cx.lost(next.path, 0, head.seq, durable, evidence));
    }
    // For its check of the watermark: there is nothing to scan.
    scan_start(cx, segments, &next, head)?;
    let report = RecoveryReport { head, torn: None, rewritten_bytes: 0 };
    Ok(Recovered { head, active: None, tail: Vec::new(), floor: head.seq, id_max: None, keys: Vec::new(), ends, report })
}

/// Makes the names of the manifest and the segments durable: the process that made them may have been killed before it
/// had, and what is appended now is only as durable as its file's name.
pub(crate) fn sync_names(cx: &Context<'_>, has_segments: bool) -> Result<(), LedgerError> {
    let segments = segment::segments_dir(cx.dir);
    for dir in [cx.dir, &segments].into_iter().take(1 + usize::from(has_segments)) {
        cx.storage.sync_dir(dir).map_err(LedgerError::io("syncing", dir))?;
    }
    Ok(())
}

/// Whether the ledger begins with this manifest. Asked before the mirror is judged by it: with the wrong manifest in
/// place, the right mirror would be set aside.
pub(crate) fn check_genesis(storage: &dyn Storage, dir: &Path, manifest: &Manifest, line_bytes_max: usize) -> Result<(), LedgerError> {
    let mut segment = Segment::named(dir, Seq::FIRST, false);
    let file = match segment.open_present(storage) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(LedgerError::io("opening", &segment.path))?,
    };
    let path = &segment.path;
    let mut reader = LineReader::new(file, 0, line_bytes_max);
    let first = reader.next().map_err(LedgerError::io("reading", path))?;
    match first.map(|raw| line::decode(raw.bytes)) {
        Some(Ok(event)) if event.seq == Seq::FIRST && event.prev_event_hash != manifest.genesis() => {
            Err(Box::new(Refusal::OtherManifest { path: Manifest::path(dir), segment: path.clone() }).into())
        }
        _ => Ok(()),
    }
}

const BY_MIRROR: &str = "the mirror has it";
const BY_CHECKPOINT: &str = "a signed checkpoint covers it";
const BY_SEALED: &str = "the segment before it ends there";

/// Where the scan of the active segment starts: behind the watermark where that is in it, else at its beginning.
struct ScanStart {
    head: Head,
    /// The group that the head belongs to; none where the segment begins.
    group: Seq,
    /// The batch that the head belongs to: replay may have stopped inside one.
    batch: Option<(u32, u32)>,
    offset: u64,
    /// Whether the mirror's watermark was found in the ledger.
    watermark_seen: bool,
}

fn scan_start(cx: &Context<'_>, segments: &[Segment], active: &Segment, sealed_end: Head) -> Result<ScanStart, LedgerError> {
    let beginning = |watermark_seen| ScanStart { head: sealed_end, group: Seq::ZERO, batch: None, offset: 0, watermark_seen };
    let Some(mark) = cx.watermark.filter(|mark| mark.seq > Seq::ZERO) else {
        return Ok(beginning(true));
    };
    let Some(holder) = segments.iter().rev().find(|segment| segment.first <= mark.seq) else {
        return Ok(beginning(false));
    };
    let Some((Mark { event_hash: hash, group, batch, end, terminated, .. }, ..)) = find_mark(cx.storage, holder, &mark, cx.line_bytes_max)?
    else {
        if holder.first == active.first {
            // It is lost; the scan says where the valid lines end.
            return Ok(beginning(false));
        }
        let reason = format!("seq {}, which the mirror has, is missing or damaged in it", mark.seq);
        return Err(Box::new(Refusal::SegmentsDoNotMeet { path: holder.path.clone(), reason }).into());
    };
    if hash != mark.event_hash {
        let refusal = Refusal::TwoHistories { path: holder.path.clone(), seq: mark.seq, ledger: hash, mirror: mark.event_hash };
        return Err(Box::new(refusal).into());
    }
    // Where that line has lost its LF, the scan from the beginning adds it.
    if holder.first == active.first && terminated {
        Ok(ScanStart { head: Head { seq: mark.seq, event_hash: hash }, group, batch, offset: end, watermark_seen: true })
    } else {
        Ok(beginning(true))
    }
}

/// The ledger's line at the watermark, and the offset behind it.
pub(crate) struct Mark {
    pub id: EventId,
    pub event_hash: EventHash,
    pub group: Seq,
    pub batch: Option<(u32, u32)>,
    pub end: u64,
    pub terminated: bool,
}

/// Finds the line at the watermark in the segment that should hold it: by the hint, or by a scan. For recovery and replay alike.
/// Answers with it the segment, in the form that was read, and what reads on behind it: an erasure may give the segment another file
/// meanwhile, in which that line ends elsewhere.
pub(crate) fn find_mark(
    storage: &dyn Storage,
    segment: &Segment,
    mark: &Watermark,
    line_bytes_max: usize,
) -> Result<Option<(Mark, Segment, LineReader)>, LedgerError> {
    let path = &segment.path;
    let from = if segment.first == mark.segment { mark.offset } else { 0 };
    for offset in [from, 0] {
        let mut segment = segment.clone();
        let file = segment.open_present(storage).map_err(LedgerError::io("opening", path))?;
        let mut reader = LineReader::new(file, offset, line_bytes_max);
        while let Some(raw) = reader.next().map_err(LedgerError::io("reading", path))? {
            let (end, terminated) = (raw.end(), raw.terminated);
            match line::decode(raw.bytes) {
                Ok(event) if event.seq == mark.seq => {
                    let Event { id, event_hash, group_seq: group, batch, .. } = event;
                    return Ok(Some((Mark { id, event_hash, group, batch, end, terminated }, segment, reader)));
                }
                // The hint is good for its own line only.
                _ if offset != 0 => break,
                _ => {}
            }
        }
    }
    Ok(None)
}

pub(super) fn open(cx: &Context<'_>, segment: &Segment) -> Result<Box<dyn StorageFile>, LedgerError> {
    segment.open(cx.storage).map_err(LedgerError::io("opening", &segment.path))
}

fn recover_active(
    cx: &Context<'_>,
    active: &Segment,
    sealed_end: Head,
    start: ScanStart,
    lookup: &mut dyn Lookup,
) -> Result<Recovered, LedgerError> {
    let path = &active.path;
    let reading = || LedgerError::io("reading", path);
    let mut file = cx.storage.open_write(path).map_err(LedgerError::io("opening", path))?;
    let file_len = file.len().map_err(reading())?;
    if file_len > start.offset {
        // After a failed fsync the page cache shows bytes that the disk lacks, and on ext4 (as of Linux 6.18) writing them
        // again through it makes them no more durable, though the fsync then succeeds. What a process has left unwritten is
        // written first; then the disk itself is read.
        let forget = |file: &mut dyn StorageFile| if canary::on(Canary::TrustCache) { Ok(()) } else { file.forget_cached() };
        file.sync_data().and_then(|()| forget(file.as_mut())).map_err(LedgerError::io("syncing", path))?;
    }
    // Streams from before the scan are known only where the mirror is exactly there.
    let known = cx.watermark.is_some_and(|mark| mark.seq == start.head.seq);
    let mut base = |session_id: &str| match start.head.seq {
        Seq::ZERO => Some(0),
        _ if known => Some(lookup.session_seq(session_id).ok()?.unwrap_or(0)),
        _ => None,
    };

    let mut expected = Expected::after(start.head).within(start.group, start.batch);
    let mut reader = LineReader::new(open(cx, active)?, start.offset, cx.line_bytes_max);
    let mut kept: Vec<TailEvent> = Vec::new();
    let mut batch_offset = start.offset;
    let (mut valid_end, mut lf_missing) = (start.offset, false);
    let (mut id_max, mut keys) = (None, Vec::new());
    while let Some(raw) = reader.next().map_err(reading())? {
        let Ok(event) = line::decode(raw.bytes) else {
            break;
        };
        let standing = Standing::of(&event);
        let group = expected.check_group(&standing);
        if check_blob(cx.storage, cx.dir, &event)?.is_some() {
            break;
        }
        match expected.check_standing(&standing, &mut || base(event.session_id()?))? {
            None => {}
            Some(fault @ LineFault::SessionSeq { .. }) => {
                return Err(Box::new(Refusal::OtherStream { path: path.clone(), offset: raw.offset, seq: event.seq, fault }).into());
            }
            Some(_) => break,
        }
        if let Err(fault) = group {
            // It is sealed and linked, so it is what was written: no tear made it.
            return Err(Box::new(Refusal::Splice { path: path.clone(), offset: raw.offset, fault }).into());
        }
        if event.batch.is_none_or(|(i, _)| i == 1) {
            // Fill that stands before a batch goes with it: what is left ends where the last kept line does.
            batch_offset = valid_end;
        }
        kept.push(TailEvent::of(&event));
        keys.extend(KeyEvent::of(&event));
        id_max = id_max.max(Some(event.id));
        (valid_end, lf_missing) = (raw.end(), !raw.terminated);
    }

    let (durable, evidence) = match cx.known_durable() {
        (known, evidence) if known > sealed_end.seq => (known, evidence),
        _ => (sealed_end.seq, BY_SEALED),
    };
    let valid = expected.head();
    if valid.seq < durable || !start.watermark_seen {
        return Err(cx.lost(path.clone(), valid_end, valid.seq, durable, evidence));
    }
    let mut cut = valid_end;
    let mut has_torn = tail::classify(&mut LineReader::new(open(cx, active)?, valid_end, cx.line_bytes_max), path, valid)? == Tail::Torn;
    let mut head = valid;
    if let Some((i, _)) = expected.open_batch() {
        // The batch never became whole, so nothing of it was acknowledged.
        let first = valid.seq.get() + 1 - u64::from(i).min(valid.seq.get());
        if first <= durable.get() {
            return Err(cx.lost(path.clone(), batch_offset, Seq::new(first).previous(), durable, evidence));
        }
        (cut, lf_missing, has_torn) = (batch_offset, false, true);
        kept.truncate(kept.len().saturating_sub(i as usize));
        keys.retain(|change: &KeyEvent| change.seq < Seq::new(first));
        head = kept.last().map_or(start.head, |last| Head { seq: last.receipt.seq, event_hash: last.receipt.event_hash });
    }
    let at = |point| cx.options.at(point).map_err(LedgerError::io("recovering", path));
    if has_torn {
        at(failpoint::RECOVERY_SAVE)?;
    }
    let torn = if has_torn { Some(save_torn(cx, file.as_mut(), active, cut, file_len)?) } else { None };
    if has_torn {
        at(failpoint::RECOVERY_SAVED)?;
    }
    let rewritten_bytes = rewrite(file.as_mut(), start.offset, cut, lf_missing).map_err(LedgerError::io("rewriting", path))?;
    let len = cut + u64::from(lf_missing);
    if file_len != len {
        at(failpoint::RECOVERY_CUT)?;
        file.set_len(len).map_err(LedgerError::io("cutting", path))?;
    }
    if file_len != len || rewritten_bytes > 0 {
        at(failpoint::RECOVERY_SYNC)?;
        file.sync_data().map_err(LedgerError::io("syncing", path))?;
    }
    at(failpoint::RECOVERY_DONE)?;
    Ok(Recovered {
        head,
        active: Some(Active { segment: active.clone(), file, len }),
        tail: kept,
        floor: start.head.seq,
        id_max,
        keys,
        ends: Vec::new(),
        report: RecoveryReport { head, torn, rewritten_bytes },
    })
}

/// Writes the kept bytes again where they stand: after a failed fsync the page cache can show bytes that the
/// disk does not have. Answers how many.
fn rewrite(file: &mut dyn StorageFile, from: u64, to: u64, lf_missing: bool) -> std::io::Result<u64> {
    if storage::each_piece(file, from, to, |file, at, bytes| file.write_at(bytes, at))? < to {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if lf_missing {
        file.write_at(b"\n", to)?;
    }
    Ok(to - from + u64::from(lf_missing))
}

/// Copies the bytes from `cut` to the end into torn/, durably.
fn save_torn(cx: &Context<'_>, file: &mut dyn StorageFile, segment: &Segment, cut: u64, file_len: u64) -> Result<Torn, LedgerError> {
    let dir = cx.dir.join("torn");
    cx.storage.create_dir(&dir).map_err(LedgerError::io("creating", &dir))?;
    let taken = cx.storage.list(&dir).map_err(LedgerError::io("listing", &dir))?;
    let name =
        (0u32..).map(|n| format!("{:020}-{cut}-{n}.torn", segment.first.get())).find(|name| !taken.contains(name)).unwrap_or_default();
    let saved = dir.join(name);
    let copy = |file: &mut dyn StorageFile| {
        storage::write_file(cx.storage, &cx.dir.join("tmp"), &saved, |to| {
            storage::each_piece(file, cut, file_len, |_, at, bytes| to.write_at(bytes, at - cut)).map(drop)
        })?;
        cx.storage.sync_dir(cx.dir)
    };
    copy(file).map_err(LedgerError::io("saving the torn tail to", &saved))?;
    tracing::warn!(segment = %segment.path.display(), offset = cut, bytes = file_len - cut, saved = %saved.display(), "cut a torn tail");
    Ok(Torn { segment: segment.path.clone(), offset: cut, bytes: file_len - cut, saved })
}
