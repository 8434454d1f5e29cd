//! Erasure on the ledger's side: payloads out of sealed segments, blobs that nothing else uses, copies in torn/. Called by
//! `crate::erase`, with the store's lock held, once the erasure is recorded. It never touches the active segment, and never
//! decides what is erased.
//!
//! Each step can be done again: what is done already costs a look. Of a segment's events the copies in torn/ go first, as long as
//! the segment itself still says what they look like.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use super::edit::{Edit, replace};
use super::place::blob_path;
use super::segment::{self, LineReader, Segment};
use super::storage::Storage;
use super::tail::right_by_its_own_hash;
use super::zst;
use super::{LedgerError, LedgerReader, LineFault, Lines, Needles};
use crate::event::erasure::{ERASURE, ErasurePayload, is_never_erased};
use crate::event::{Body, Event, EventId, PayloadHash, Seq, line};
use crate::failpoint;
use crate::options::Options;

/// An event that is to have no payload any more. What a line says otherwise of itself is not that event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub id: Option<EventId>,
    pub payload_hash: PayloadHash,
}

impl Name {
    pub(crate) fn is_of(&self, event: &Event<'_>) -> bool {
        self.payload_hash == event.payload_hash && self.id.is_none_or(|id| id == event.id) && !is_never_erased(event.event_type)
    }
}

/// Events that are to have no payload, by their seq, each as every erasure names it: one that names it wrongly, later, does not take
/// away what another has said.
pub(crate) type Names = BTreeMap<Seq, Vec<Name>>;

/// The name by which this event is erased, if one is its.
pub(crate) fn name_of(names: &Names, event: &Event<'_>) -> Option<Name> {
    names.get(&event.seq)?.iter().copied().find(|name| name.is_of(event))
}

/// What was erased from a file in torn/.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TornErased {
    /// The file.
    pub path: PathBuf,
    /// Bytes that were taken out of it.
    pub bytes: u64,
    /// Whether nothing was left, and the file removed.
    pub removed: bool,
}

/// What stands for a payload, and what the line ends in.
const ERASED_END: &[u8] = b",\"erased\":true}";
/// A stored payload is searched for by pieces of so many bytes, which a text rarely has by chance.
const PIECE_BYTES: usize = 32;
/// They are this far from each other: a page of the mirror that a large payload flows over to has several whole.
const PIECE_EVERY: usize = 1024;

/// Adds what finds a payload, or a part of it, wherever it may stand.
fn add_payload(json: &str, needles: &mut Needles) {
    let bytes = json.as_bytes();
    let pieces =
        bytes.windows(PIECE_BYTES).step_by(PIECE_EVERY).chain(bytes.last_chunk::<PIECE_BYTES>().map(<[u8; PIECE_BYTES]>::as_slice));
    pieces.for_each(|piece| needles.add(piece));
    if bytes.len() < PIECE_BYTES {
        // Alone it would be found in places that have nothing to do with it.
        needles.add(format!("\"payload\":{json}}}").as_bytes());
    }
}

/// Hands over the erasures among these lines, in order. A line that is not right by its own hash says nothing.
///
/// # Errors
/// [`LedgerError::Io`].
pub(crate) fn each_erasure(lines: &mut Lines, found: &mut dyn FnMut(&Event<'_>, ErasurePayload)) -> Result<(), LedgerError> {
    static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(ERASURE));
    while let Some(line) = lines.next_raw()? {
        if !line.raw.terminated || TYPE.find(line.raw.bytes).is_none() {
            continue;
        }
        if let Ok(event) = line::decode(line.raw.bytes)
            && let Some(payload) = ErasurePayload::of(&event)
        {
            found(&event, payload);
        }
    }
    Ok(())
}

/// The same for erasures that are said to stand at these seqs. Each segment that holds one is read once, from the first of them on.
///
/// # Errors
/// [`LedgerError::Io`].
pub(crate) fn each_erasure_at(
    reader: &LedgerReader,
    seqs: &BTreeSet<Seq>,
    found: &mut dyn FnMut(&Event<'_>, ErasurePayload),
) -> Result<(), LedgerError> {
    let segments = reader.segments()?;
    let mut next = seqs.first().copied();
    while let Some(first) = next {
        let end = segments.iter().map(|segment| segment.first).find(|begin| *begin > first).unwrap_or(Seq::MAX);
        let last = seqs.range(first..end).next_back().copied().unwrap_or(first);
        let mut lines = reader.lines_from(first)?;
        while let Some(line) = lines.next_raw()? {
            let Some(seq) = line.raw.stated_seq() else { continue };
            if seq > last {
                break;
            }
            if seqs.contains(&seq)
                && line.raw.terminated
                && let Ok(event) = line::decode(line.raw.bytes)
                && let Some(payload) = ErasurePayload::of(&event)
            {
                found(&event, payload);
            }
        }
        next = seqs.range(end.max(last.next())..).next().copied();
    }
    Ok(())
}

/// What a segment holds of events that are to have no payload.
#[derive(Debug)]
pub(crate) struct Look {
    pub segment: Segment,
    edits: Vec<Edit>,
    /// What finds copies of the payloads that are still there.
    pub needles: Needles,
    /// Where copies of the events may be told by what they say of themselves.
    pub said: Said,
    /// Blobs that these events use, or used.
    pub blobs: HashSet<PayloadHash>,
    /// Events that are not there, or not right: nothing can be done to them here.
    pub missing: Vec<Seq>,
}

/// What lines say of themselves that are to go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    ids: HashSet<EventId>,
    hashes: HashSet<PayloadHash>,
    /// Those of events whose id is not known. Others may have the same payload, and keep it.
    hashes_alone: HashSet<PayloadHash>,
}

impl Said {
    pub(crate) fn of<'n>(names: impl Iterator<Item = &'n Name>) -> Said {
        let mut said = Said::default();
        for name in names {
            said.ids.extend(name.id);
            said.hashes.insert(name.payload_hash);
            if name.id.is_none() {
                said.hashes_alone.insert(name.payload_hash);
            }
        }
        said
    }

    /// What rows of the mirror have of them, for a search in files that are no whole mirror any more.
    pub(crate) fn add_to(&self, needles: &mut Needles) {
        self.ids.iter().for_each(|id| needles.add(id.to_string().as_bytes()));
        self.hashes.iter().for_each(|hash| needles.add(hash.as_bytes()));
    }
}

#[derive(Deserialize)]
struct Attachment {
    hash: PayloadHash,
}

fn attachments(event: &Event<'_>) -> impl Iterator<Item = PayloadHash> + use<> {
    let all: Vec<Attachment> = event.attachments_json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    all.into_iter().map(|attachment| attachment.hash)
}

/// Looks through a segment for these events.
///
/// # Errors
/// [`LedgerError::Io`]; [`LedgerError::Damaged`] where a compressed segment that has to be written anew can't be read whole.
pub(crate) fn look(options: &Options, segment: &Segment, names: &Names) -> Result<Look, LedgerError> {
    let storage = options.storage.as_ref();
    let reading = || LedgerError::io("reading", &segment.path);
    let mut segment = segment.clone();
    let file = segment.open_present(storage).map_err(LedgerError::io("opening", &segment.path))?;
    let mut lines = LineReader::new(file, 0, options.line_bytes_max);
    let said = Said::of(names.values().flatten());
    let compressed = segment.is_compressed();
    let (mut seen, mut lost) = (HashSet::new(), None);
    let mut look =
        Look { segment: segment.clone(), edits: Vec::new(), needles: Needles::new(), said, blobs: HashSet::new(), missing: vec![] };
    let mut erased_line = Vec::new();
    while let Some(raw) = lines.next().map_err(reading())? {
        if compressed && memchr::memchr(zst::LOST, raw.bytes).is_some() {
            lost.get_or_insert(raw.offset);
            continue;
        }
        let Some(seq) = raw.stated_seq().filter(|seq| names.contains_key(seq)) else { continue };
        let Some(event) = line::decode(raw.bytes).ok().filter(|event| event.seq == seq && name_of(names, event).is_some()) else {
            continue;
        };
        seen.insert(seq);
        look.blobs.extend(attachments(&event));
        look.blobs.insert(event.payload_hash);
        if let Some(json) = event.payload() {
            add_payload(json, &mut look.needles);
        }
        if event.body == Body::Erased {
            continue;
        }
        erased_line.clear();
        line::encode(&Event { body: Body::Erased, ..event }, &mut erased_line);
        let kept = (erased_line.len() - ERASED_END.len()) as u64;
        look.edits.push(Edit { from: raw.offset + kept, to: raw.offset + raw.len, with: ERASED_END });
    }
    look.missing = names.keys().copied().filter(|seq| !seen.contains(seq)).collect();
    match lost.filter(|_| !look.edits.is_empty()) {
        Some(offset) => Err(LedgerError::Damaged { path: segment.path, offset, reason: LineFault::Compressed }),
        None => Ok(look),
    }
}

impl Look {
    /// Whether it still has a payload that is to go.
    pub(crate) fn is_needed(&self) -> bool {
        !self.edits.is_empty()
    }

    /// Writes the segment anew without the payloads; answers its file.
    ///
    /// # Errors
    /// As of `replace`.
    pub(crate) fn erase(&self, dir: &Path, options: &Options) -> Result<PathBuf, LedgerError> {
        replace(dir, options, &self.segment, &self.edits)?;
        tracing::info!(segment = self.segment.first.get(), events = self.edits.len(), "payloads are erased from a segment");
        Ok(self.segment.path.clone())
    }
}

/// The files of torn/.
///
/// # Errors
/// [`LedgerError::Io`].
pub(crate) fn torn_files(storage: &dyn Storage, dir: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let torn = dir.join("torn");
    let mut names = match storage.list(&torn) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(LedgerError::io("listing", &torn))?,
    };
    names.sort();
    Ok(names.into_iter().map(|name| torn.join(name)).collect())
}

/// What tells a copy.
pub(crate) struct Copies<'c> {
    pub said: &'c Said,
    pub needles: &'c Needles,
    /// First seqs of the segments that hold the events.
    pub segments: &'c [Seq],
}

/// Whether a file in torn/ comes from one of these segments, as far as its name says.
fn may_be_of(path: &Path, segments: &[Seq]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.get(..20).and_then(|digits| digits.parse().ok()).is_none_or(|first| segments.contains(&Seq::new(first)))
}

/// Takes lines out of a file in torn/ that say that they are one of these events, and pieces that are no right line of another one
/// and hold a part of a payload. Nothing where there are none. A compressed file of a segment that holds one of the events goes as
/// a whole where it can't be read as a whole, since nobody can tell.
///
/// # Errors
/// [`LedgerError::Io`].
pub(crate) fn erase_in_torn(dir: &Path, options: &Options, path: &Path, copies: &Copies<'_>) -> Result<Option<TornErased>, LedgerError> {
    let Copies { said, needles, segments } = copies;
    let storage = options.storage.as_ref();
    let reading = || LedgerError::io("reading", path);
    let file = Segment { first: Seq::ZERO, path: path.to_owned() };
    let mut source = file.open(storage).map_err(LedgerError::io("opening", path))?;
    let len = source.len().map_err(reading())?;
    let mut pieces = LineReader::new(file.open(storage).map_err(reading())?, 0, options.line_bytes_max);
    let (mut edits, mut left): (Vec<Edit>, bool) = (Vec::new(), false);
    loop {
        let raw = match pieces.next() {
            Ok(Some(raw)) => raw,
            Ok(None) => break,
            // A folder is nobody's copy.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(None),
            Err(error) => return Err(reading()(error)),
        };
        if file.is_compressed() && memchr::memchr(zst::LOST, raw.bytes).is_some() {
            if !may_be_of(path, segments) {
                return Ok(None);
            }
            (edits, left) = (vec![Edit { from: 0, to: len, with: b"" }], false);
            break;
        }
        let is_cut = raw.len > raw.bytes.len() as u64;
        let beyond = is_cut && needles.are_in_file(source.as_mut(), raw.offset, raw.offset + raw.len).map_err(reading())?;
        if !beyond && !is_one_of(raw.bytes, said, needles) {
            left = true;
            continue;
        }
        let to = raw.end();
        match edits.last_mut().filter(|last| last.to == raw.offset) {
            Some(last) => last.to = to,
            None => edits.push(Edit { from: raw.offset, to, with: b"" }),
        }
    }
    drop(source);
    if edits.is_empty() {
        return Ok(None);
    }
    let bytes = edits.iter().map(|edit| edit.to - edit.from).sum();
    if left {
        replace(dir, options, &file, &edits)?;
    } else {
        remove(options, path)?;
    }
    tracing::info!(path = %path.display(), bytes, "copies of erased payloads are gone from torn/");
    Ok(Some(TornErased { path: path.to_owned(), bytes, removed: !left }))
}

/// Removes a file, durably.
pub(crate) fn remove(options: &Options, path: &Path) -> Result<(), LedgerError> {
    let removed = || {
        options.at(failpoint::ERASE_REMOVE)?;
        match options.storage.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        options.at(failpoint::ERASE_REMOVED)?;
        options.storage.sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    removed().map_err(LedgerError::io("removing", path))
}

/// Whether these bytes between two line ends are a line of one of these events, whole or in part, or have a part of one's payload.
fn is_one_of(piece: &[u8], said: &Said, needles: &Needles) -> bool {
    // Only a right line is believed to be another one: behind the header of one the end of another may stand, where bytes were lost.
    let mut unknown = piece;
    if let Some((before, event)) = right_by_its_own_hash(piece)
        && event.payload_is_right() != Some(false)
    {
        if said.ids.contains(&event.id) || said.hashes_alone.contains(&event.payload_hash) {
            return true;
        }
        unknown = piece.get(..before).unwrap_or_default();
    }
    let says_so = |at: usize| {
        let Some((id, rest)) = unknown.get(at..).and_then(header_id) else { return false };
        const KEY: &[u8] = b"\"payload_hash\":\"";
        let hash = memchr::memmem::find(rest, KEY).and_then(|at| parsed::<PayloadHash>(rest.get(at + KEY.len()..)?, 64));
        said.ids.contains(&id) || hash.is_some_and(|hash| said.hashes.contains(&hash))
    };
    memchr::memmem::find_iter(unknown, b"{\"seq\":").any(says_so) || needles.are_in(unknown)
}

/// The id in the header that begins here, and what follows it. (An erasure names events by seq and id too, with no schema_version.)
fn header_id(line: &[u8]) -> Option<(EventId, &[u8])> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = rest.get(digits..)?.strip_prefix(b",\"id\":\"")?;
    let id = parsed(rest, EventId::TEXT_BYTES)?;
    let rest = rest.get(EventId::TEXT_BYTES..)?;
    rest.starts_with(b"\",\"schema_version\"").then_some((id, rest))
}

fn parsed<T: std::str::FromStr>(text: &[u8], bytes: usize) -> Option<T> {
    std::str::from_utf8(text.get(..bytes)?).ok()?.parse().ok()
}

/// Removes those of these blobs that no event uses that still has its payload; answers which.
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read: then nothing is removed.
pub(crate) fn remove_unused_blobs(
    reader: &LedgerReader,
    options: &Options,
    mut blobs: HashSet<PayloadHash>,
) -> Result<Vec<PathBuf>, LedgerError> {
    let (storage, dir) = (options.storage.as_ref(), reader.dir());
    blobs.retain(|hash| storage.open_read(&blob_path(dir, *hash)).is_ok());
    if blobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = reader.lines_from(Seq::FIRST)?;
    while let Some(found) = lines.next_raw()? {
        let may_use = |key: &[u8]| memchr::memmem::find(found.raw.bytes, key).is_some();
        if !may_use(b",\"blob\":{\"bytes\":") && !may_use(b",\"attachments\":[") {
            continue;
        }
        match line::decode(found.raw.bytes) {
            Ok(event) if event.body == Body::Erased => {}
            Ok(event) => {
                if matches!(event.body, Body::Blob { .. }) {
                    blobs.remove(&event.payload_hash);
                }
                for hash in attachments(&event) {
                    blobs.remove(&hash);
                }
            }
            // Nobody knows what it uses.
            Err(_) => blobs.retain(|hash| memchr::memmem::find(found.raw.bytes, hash.to_string().as_bytes()).is_none()),
        }
    }
    let mut removed: Vec<PathBuf> = blobs.into_iter().map(|hash| blob_path(dir, hash)).collect();
    removed.sort();
    removed.iter().try_for_each(|path| remove(options, path))?;
    Ok(removed)
}

/// Segments, each with events that it holds.
pub(crate) type Holders = Vec<(Segment, Names)>;

/// The sealed segments that hold these events, with the events of each; and the first event that none of them holds.
///
/// # Errors
/// [`LedgerError`] where they can't be listed.
pub(crate) fn by_segment(storage: &dyn Storage, dir: &Path, names: &Names) -> Result<(Holders, Option<Seq>), LedgerError> {
    let list = segment::list(storage, dir)?;
    let mut all = Vec::new();
    let mut active = Seq::MAX;
    for (n, segment) in list.iter().enumerate() {
        let next = list.get(n + 1).map(|next| next.first);
        if next.is_none() && !segment.is_compressed() {
            active = segment.first;
            break;
        }
        let these: Names = names.range(segment.first..next.unwrap_or(Seq::MAX)).map(|(seq, all)| (*seq, all.clone())).collect();
        if !these.is_empty() {
            all.push((segment.clone(), these));
        }
    }
    Ok((all, names.range(active..).next().map(|(seq, _)| *seq)))
}
