//! The way back: every imported JSONL transcript is written again under its own name. Called by
//! `counterfoil export --original`. Reads the ledger through its reader, without the lock; writes only new files in
//! the folder that it is given, for their owner alone, never over what is there, never through a symbolic link in it.
//!
//! One pass finds the transcripts and their latest layout notes, then [`OPEN_FILES_MAX`] of them are written at a
//! time, each time reading only the part of the ledger that holds them. Memory: an entry a transcript, and the
//! layouts (4 MiB at most each) of those that are being written.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ImportError;
use super::format::Format;
use super::identity::{format_of_tag, transcript_of_tag, transcript_tag};
use super::layout::{LayoutNote, Rebuild, RunKind};
use super::{TAG_LAYOUT, TAG_REDACTED, TAG_SKIPPED};
use crate::event::{Event, EventType, Seq, Source};
use crate::ledger::storage::{create_dir_private, private};
use crate::ledger::{LedgerError, LedgerReader};

/// Files that are written at a time. 32: far below any limit on open files, and few passes over the ledger.
const OPEN_FILES_MAX: usize = 32;
/// Bytes of the longest file name. 200: a suffix still fits into the 255 of most file systems.
const NAME_BYTES_MAX: usize = 200;

/// A transcript that was written back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExportedFile {
    /// Its name: its own, or one with a number where another transcript has that one already.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its lines, blank ones counted.
    pub lines: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is, by its BLAKE3, the file that was imported last, byte for byte. Never where lines were redacted.
    pub exact: bool,
    /// The same, but for what was redacted.
    pub exact_but_for_redactions: bool,
    /// Lines in which secrets were replaced before they were recorded: these alone are not as they were in an otherwise exact
    /// file.
    pub redacted: u64,
    /// Their numbers, from 1; the first 10,000.
    pub redacted_lines: Vec<u64>,
    /// The 16 hex digits of its tag.
    pub transcript: String,
}

/// Writes every imported JSONL transcript of a ledger into this folder, which is created where it is missing. In the
/// order of their first lines in the ledger; SWE-agent's trajectories are left out.
///
/// A file is not exact where its import did not end (there is no layout note yet: its lines are written with LF),
/// where lines were redacted, where a payload was erased, where its layout is past its bounds, or where the transcript was changed elsewhere
/// than at its end between two imports.
///
/// # Errors
/// [`ImportError::Exists`] where a file is there already with other bytes: what was written before it stays.
/// [`ImportError::Ledger`], [`ImportError::Io`].
pub fn export_originals(reader: &LedgerReader, out_dir: &Path) -> Result<Vec<ExportedFile>, ImportError> {
    let found = find(reader)?;
    create_dir_private(out_dir).map_err(ImportError::io("creating", out_dir))?;
    let mut names = HashSet::new();
    let mut exported = Vec::new();
    for some in found.chunks(OPEN_FILES_MAX) {
        let mut files = Vec::with_capacity(some.len());
        for transcript in some {
            files.push(Writing::start(reader, transcript, out_dir, &mut names)?);
        }
        write(reader, some, &mut files)?;
        for file in files {
            exported.push(file.finish(out_dir)?);
        }
    }
    Ok(exported)
}

/// A transcript in the ledger.
#[derive(Debug)]
struct Found {
    transcript: String,
    first: Seq,
    last: Seq,
    /// Lines that were redacted.
    redacted: u64,
    /// The latest notes of an import that kept everything, and of one that redacted.
    notes: [Option<Note>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Note {
    seq: Seq,
    lines: u64,
}

impl Found {
    /// The note that counts: the latest one. Where a file was imported both ways, its lines are on record as the first import
    /// had them, so its note counts.
    fn note(&self) -> Option<Seq> {
        let note = match self.notes {
            [Some(kept), Some(redacted)] if kept.lines == redacted.lines => {
                if self.redacted > 0 {
                    redacted
                } else {
                    kept
                }
            }
            [Some(kept), Some(redacted)] => {
                if kept.seq > redacted.seq {
                    kept
                } else {
                    redacted
                }
            }
            [kept, redacted] => kept.or(redacted)?,
        };
        Some(note.seq)
    }
}

/// What an event is to the export.
enum Role {
    Line { is_redacted: bool },
    Layout(Box<LayoutNote>),
}

/// The transcript that an event belongs to, and what it is there.
fn role(event: &Event<'_>) -> Option<(String, Role)> {
    event.domain_tags_json.filter(|tags| tags.contains("\"transcript:"))?;
    let tags = event.domain_tags();
    let has = |wanted: &str| tags.iter().any(|tag| tag == wanted);
    let transcript = tags.iter().find_map(|tag| transcript_of_tag(tag))?.to_owned();
    if !tags.iter().find_map(|tag| format_of_tag(tag)).is_some_and(Format::is_jsonl) || has(TAG_SKIPPED) {
        return None;
    }
    if !has(TAG_LAYOUT) {
        return Some((transcript, Role::Line { is_redacted: has(TAG_REDACTED) }));
    }
    if event.event_type != EventType::SYSTEM_NOTE.as_str() || event.source() != Source::Runtime {
        return None;
    }
    let note = LayoutNote::from_payload(event.payload()?)?;
    // A note that is not of the transcript that it is tagged with was not written by an import.
    has(&transcript_tag(&note.format, &note.transcript)).then_some((transcript, Role::Layout(Box::new(note))))
}

fn find(reader: &LedgerReader) -> Result<Vec<Found>, ImportError> {
    let mut found: Vec<Found> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut lines = reader.lines_from(Seq::FIRST)?;
    while let Some((_, event)) = lines.next_event()? {
        let Some((transcript, role)) = role(&event) else { continue };
        let place = *places.entry(transcript.clone()).or_insert(found.len());
        if place == found.len() {
            found.push(Found { transcript, first: event.seq, last: event.seq, redacted: 0, notes: [None; 2] });
        }
        if let Some(entry) = found.get_mut(place) {
            match role {
                Role::Line { is_redacted } => {
                    entry.last = event.seq;
                    entry.redacted += u64::from(is_redacted);
                }
                Role::Layout(note) => {
                    let [kept, redacted] = &mut entry.notes;
                    *(if note.redacted > 0 { redacted } else { kept }) = Some(Note { seq: event.seq, lines: note.lines });
                }
            }
        }
    }
    Ok(found)
}

/// Hands the payloads of these transcripts to their files.
fn write(reader: &LedgerReader, some: &[Found], files: &mut [Writing]) -> Result<(), ImportError> {
    let places: HashMap<&str, usize> = some.iter().enumerate().map(|(place, found)| (found.transcript.as_str(), place)).collect();
    let (Some(first), Some(last)) = (some.iter().map(|f| f.first).min(), some.iter().map(|f| f.last).max()) else { return Ok(()) };
    let mut lines = reader.lines_from(first)?;
    while let Some((_, event)) = lines.next_event()? {
        if event.seq > last {
            break;
        }
        let Some((transcript, Role::Line { is_redacted })) = role(&event) else { continue };
        let file = places.get(transcript.as_str()).and_then(|place| files.get_mut(*place));
        // Lines that a live writer has added since the first pass wait for the next export.
        let seen = places.get(transcript.as_str()).and_then(|place| some.get(*place)).is_some_and(|found| event.seq <= found.last);
        if let Some(file) = file.filter(|_| seen) {
            let Writing { rebuild: Some(rebuild), temp, .. } = file else { continue };
            rebuild.payload(event.payload(), is_redacted).map_err(ImportError::io("writing", &temp.path))?;
        }
    }
    Ok(())
}

/// A file under its temporary name, removed unless it was given its own.
#[derive(Debug)]
struct Temp {
    path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // It is gone already where it was renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// A transcript that is being written.
struct Writing {
    rebuild: Option<Rebuild<BufWriter<File>>>,
    temp: Temp,
    name: String,
    transcript: String,
    hash: Option<String>,
}

impl Writing {
    fn start(reader: &LedgerReader, found: &Found, out_dir: &Path, names: &mut HashSet<String>) -> Result<Writing, ImportError> {
        let note = match found.note() {
            Some(seq) => load_note(reader, seq)?,
            None => None,
        };
        let name = note.as_ref().and_then(|note| safe_name(&note.name)).unwrap_or_else(|| format!("{}.jsonl", found.transcript));
        let name = free_name(&name, names);
        let path = out_dir.join(format!(".counterfoil-{}-{}.tmp", std::process::id(), found.transcript));
        // Never through a link, never into a file of someone else's.
        let file = private(OpenOptions::new().write(true).create_new(true)).open(&path).map_err(ImportError::io("creating", &path))?;
        let (layout, hash) = note.map_or((Vec::new(), None), |note| {
            // A layout that lost bytes can't be exact, whatever its hash says.
            let is_whole = note.complete && note.layout.iter().all(|run| run.kind != RunKind::Lost);
            (note.layout, is_whole.then_some(note.blake3))
        });
        let rebuild = Some(Rebuild::new(layout, BufWriter::new(file)));
        Ok(Writing { rebuild, temp: Temp { path }, name, transcript: found.transcript.clone(), hash })
    }

    fn finish(mut self, out_dir: &Path) -> Result<ExportedFile, ImportError> {
        let writing = || ImportError::io("writing", &self.temp.path);
        let Some(rebuild) = self.rebuild.take() else { return Err(writing()(io::Error::other("it was finished before"))) };
        let (out, written, hash) = rebuild.finish().map_err(writing())?;
        let file = out.into_inner().map_err(|error| writing()(error.into_error()))?;
        file.sync_all().map_err(writing())?;
        let path = out_dir.join(&self.name);
        place(&self.temp.path, &path, &hash)?;
        let is_as_recorded = self.hash.as_deref() == Some(hash.to_hex().as_str());
        Ok(ExportedFile {
            lines: written.lines,
            bytes: written.bytes,
            exact: is_as_recorded && written.redacted == 0,
            exact_but_for_redactions: is_as_recorded,
            redacted: written.redacted,
            redacted_lines: written.redacted_lines,
            name: std::mem::take(&mut self.name),
            transcript: std::mem::take(&mut self.transcript),
            path,
        })
    }
}

fn load_note(reader: &LedgerReader, seq: Seq) -> Result<Option<LayoutNote>, LedgerError> {
    let mut lines = reader.lines_from(seq)?;
    Ok(lines.next_event()?.and_then(|(_, event)| match role(&event) {
        Some((_, Role::Layout(note))) => Some(*note),
        _ => None,
    }))
}

/// The name, where it is one of a file in the folder itself.
fn safe_name(name: &str) -> Option<String> {
    let is_safe = !matches!(name, "" | "." | "..")
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control);
    is_safe.then(|| name.to_owned())
}

/// The name, or `name.2.jsonl` and so on where it was used already. Case makes no difference, as some file systems have it.
fn free_name(name: &str, used: &mut HashSet<String>) -> String {
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let mut free = name.to_owned();
    let mut number = 1;
    while !used.insert(free.to_lowercase()) {
        number += 1;
        free = format!("{stem}.{number}{extension}");
    }
    free
}

/// Gives a finished file its own name. What has that name stays, and must be the same file already.
fn place(temp: &Path, path: &Path, hash: &blake3::Hash) -> Result<(), ImportError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ImportError::io("looking at", path)(error)),
        Ok(there) if there.is_file() && hash_of(path)? == *hash => return Ok(()),
        Ok(_) => return Err(ImportError::Exists { path: path.to_owned() }),
    }
    // A hard link never replaces anything. Where the file system has none, a rename has to do.
    match fs::hard_link(temp, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(ImportError::Exists { path: path.to_owned() }),
        Err(_) => fs::rename(temp, path).map_err(ImportError::io("naming", path)),
    }
}

fn hash_of(path: &Path) -> Result<blake3::Hash, ImportError> {
    let mut file = File::open(path).map_err(ImportError::io("opening", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ImportError::io("reading", path)(error)),
        }
    }
}
