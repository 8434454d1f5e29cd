//! The reader of a transcript: one draft a line or step, in order, then the layout note. Called by whoever appends
//! them. Never appends anything itself, and holds one line at a time.
//!
//! Memory: the longest line (bounded by [`Settings::line_bytes_max`]), about 100 bytes for each line that was read
//! (occurrences, and names that later lines refer to), and the layout, bounded by 4 MiB. A trajectory is read whole. For
//! rows of a Cortex ledger nothing is kept: it is read twice instead.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::adoption::Adoption;
use super::error::{BadLine, ImportError};
use super::facts::{Facts, Known};
use super::format::{Format, detect};
use super::identity::{Identity, Ids, Kind, with_time};
use super::layout::{Builder, CortexHead, Finished, LayoutNote};
use super::object::Object;
use super::scan::{self, Parts, Scanner};
use super::{TAG_LAYOUT, TAG_REDACTED, TAG_REPEATED_ID, TAG_SKIPPED, claude_code, codex, jsonl, openhands, swe_agent};
use crate::event::{Draft, Payload, Timestamp};
use crate::ledger::LedgerReader;
use crate::redact::{Redacted, Redactor, Replaced, redact_text};

/// How a transcript is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The format; else it is told from the content, see [`detect`].
    pub format: Option<Format>,
    /// Whether a bad line is noted and passed over, rather than the end. Not in a Cortex ledger: a chain is whole or broken.
    pub skip_bad: bool,
    /// Bytes of the longest line; a longer one is a bad line. By default 16 MiB less 64 KiB, so that an event with
    /// such a payload fits into the longest line of a ledger with default options. Keep it below that of the ledger.
    pub line_bytes_max: usize,
    /// What takes secrets out of lines before they become drafts, and out of what ids are made of. None: lines are as they
    /// are, and so are ids.
    pub redactor: Option<Arc<dyn Redactor>>,
    /// Whether the redactor is used for ids alone, and lines are recorded as they are. A transcript that was imported the other
    /// way round before has the same ids, so that the ledger answers `Conflict` for lines with secrets instead of recording
    /// them twice.
    pub keep_secrets: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { format: None, skip_bad: false, line_bytes_max: (16 << 20) - (64 << 10), redactor: None, keep_secrets: false }
    }
}

impl Settings {
    /// What takes secrets out of what is recorded.
    pub(crate) fn redacts(&self) -> Option<&dyn Redactor> {
        self.redactor.as_deref().filter(|_| !self.keep_secrets)
    }
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes that the file had when it was opened; one that grows may have more.
    pub bytes_total: u64,
    /// Lines read, blank ones counted; steps of a trajectory.
    pub lines: u64,
    /// Bad lines that were passed over.
    pub skipped: u64,
}

/// Reads a transcript and yields its drafts.
///
/// ```no_run
/// use counterfoil::import::{Settings, TranscriptReader};
/// let mut reader = TranscriptReader::open("session.jsonl".as_ref(), &Settings::default())?;
/// while let Some(draft) = reader.next()? {
///     println!("{} {}", draft.event_type(), draft.payload_bytes());
/// }
/// # Ok::<(), counterfoil::import::ImportError>(())
/// ```
#[derive(Debug)]
pub struct TranscriptReader {
    path: PathBuf,
    name: String,
    settings: Settings,
    identity: Identity,
    ids: Ids,
    tag: String,
    format_tag: String,
    bytes_total: u64,
    skipped: u64,
    last_time: Option<Timestamp>,
    /// What the redactor found in the last draft.
    replaced: Vec<Replaced>,
    /// How often a line was there, by what its first id has besides the time.
    seen: HashMap<u128, u64>,
    known: Known,
    /// Of a Cortex ledger.
    adoption: Option<Box<Adoption>>,
    input: Input,
}

#[derive(Debug)]
enum Input {
    Lines { scanner: Box<Scanner>, layout: Builder },
    Steps { steps: std::vec::IntoIter<Box<RawValue>>, read: u64, model: String },
    Done { bytes: u64, lines: u64 },
}

impl TranscriptReader {
    /// Opens a transcript and tells its format and identity. Of a Cortex ledger the whole chain is verified here.
    ///
    /// # Errors
    /// [`ImportError::Io`], [`ImportError::NotAFile`]; [`ImportError::BrokenChain`]; for a trajectory, which is read here and now, also
    /// [`ImportError::NotATrajectory`] and [`ImportError::TooLarge`].
    pub fn open(path: &Path, settings: &Settings) -> Result<TranscriptReader, ImportError> {
        let format = match settings.format {
            Some(format) => format,
            None => detect(path)?,
        };
        let (file, mut bytes_total) = scan::open(path)?;
        let redactor = settings.redactor.as_deref();
        let mut adoption = None;
        let (identity, input) = if format == Format::SweAgent {
            let trajectory = swe_agent::load(path, file, bytes_total)?;
            let first = trajectory.steps.first().and_then(|step| Payload::from_json(step.get()).ok());
            let model = clean(settings.redacts(), trajectory.model);
            let steps = Input::Steps { steps: trajectory.steps.into_iter(), read: 0, model };
            let first = first.map(|first| redact(redactor, first.as_str()).map_or(first.as_str().to_owned(), |redacted| redacted.json));
            (Identity::of_steps(path, first.as_deref(), redactor), steps)
        } else {
            let identity = Identity::of_file(path, format, redactor)?;
            let mut bytes_max = u64::MAX;
            if format == Format::Cortex {
                let adopted = Adoption::check(path, &file, &[&identity.tag(), &identity.format_tag()], settings)?;
                (bytes_total, bytes_max) = (adopted.bytes, adopted.bytes);
                adoption = Some(Box::new(adopted));
            }
            let scanner = Box::new(Scanner::new(file, bytes_max, settings.line_bytes_max));
            let layout = Builder::new(settings.line_bytes_max, settings.redacts().is_some());
            (identity, Input::Lines { scanner, layout })
        };
        Ok(TranscriptReader {
            path: path.to_owned(),
            name: clean(settings.redacts(), path.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            settings: settings.clone(),
            ids: identity.ids(),
            tag: identity.tag(),
            format_tag: identity.format_tag(),
            identity,
            bytes_total,
            skipped: 0,
            last_time: None,
            replaced: Vec::new(),
            seen: HashMap::new(),
            known: Known::default(),
            adoption,
            input,
        })
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.identity.format
    }

    /// Its file's name, without the folder, and without its secrets where these are taken out.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag of all its drafts, `transcript:<16 hex>`.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// What the redactor found in the draft that came last, by rule: replaced in it, unless secrets are kept.
    pub fn replaced(&self) -> &[Replaced] {
        &self.replaced
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let (bytes, lines) = match &self.input {
            Input::Lines { scanner, .. } => (scanner.bytes(), scanner.lines()),
            Input::Steps { read, .. } => (self.bytes_total, *read),
            Input::Done { bytes, lines } => (*bytes, *lines),
        };
        Progress { bytes, bytes_total: self.bytes_total, lines, skipped: self.skipped }
    }

    /// Compares a Cortex ledger with what was adopted of it into this ledger before; transcripts of other formats are not
    /// looked at. To be called before the first draft is appended. Reads the ledger once.
    ///
    /// # Errors
    /// [`ImportError::NotAsAdopted`] where it no longer begins with that, byte for byte; [`ImportError::IdTaken`] where an event
    /// that is no row of it has an id of it; [`ImportError::Ledger`], [`ImportError::Io`].
    pub fn check_adopted(&self, ledger: &LedgerReader) -> Result<(), ImportError> {
        match &self.adoption {
            Some(adoption) => adoption.compare(&self.path, &self.tag, ledger),
            None => Ok(()),
        }
    }

    /// The next draft; nothing at the end, and nothing after an error.
    ///
    /// # Errors
    /// [`ImportError::Changed`] where a Cortex ledger is not what it was at open; [`ImportError::BadLine`] where a line can't be recorded, unless bad ones are skipped; [`ImportError::Io`].
    #[allow(clippy::should_implement_trait)] // it is fallible, as Lines::next_event is
    pub fn next(&mut self) -> Result<Option<Draft>, ImportError> {
        let Progress { bytes, lines, .. } = self.progress();
        self.replaced.clear();
        match std::mem::replace(&mut self.input, Input::Done { bytes, lines }) {
            Input::Lines { scanner, layout } => match self.adoption.take() {
                Some(adoption) => self.next_row(scanner, layout, adoption),
                None => self.next_line(scanner, layout),
            },
            Input::Steps { steps, read, model } => self.next_step(steps, read, model),
            Input::Done { .. } => Ok(None),
        }
    }

    fn next_line(&mut self, mut scanner: Box<Scanner>, mut layout: Builder) -> Result<Option<Draft>, ImportError> {
        let line_bytes_max = self.settings.line_bytes_max;
        loop {
            let Some(line) = scanner.next().map_err(ImportError::io("reading", &self.path))? else {
                // An empty file has nothing to record, and no first line to be known by.
                return Ok((scanner.lines() > 0).then(|| self.layout_note(&scanner, layout, None)));
            };
            let (parts, number) = (line.parts(), line.number);
            let is_whole = line.len == line.bytes.len() as u64;
            if parts.core.is_empty() && is_whole {
                layout.blank(&parts);
                continue;
            }
            let record = if is_whole { scan::check(parts.core) } else { Err(BadLine::TooLong { bytes: line.len, max: line_bytes_max }) };
            let draft = match record {
                Ok(record) => {
                    let redacted = self.find_secrets(record);
                    let redacted = redacted.as_ref().map(|redacted| redacted.json.as_str());
                    let is_redacted = redacted.is_some() && !self.settings.keep_secrets;
                    let kept = redacted.filter(|_| is_redacted).unwrap_or(record);
                    // The record has just been found to be one JSON value; what a redactor makes of it has not.
                    let payload = if is_redacted { to_payload(kept) } else { Ok(Payload::from_valid(kept.to_owned())) };
                    let payload = payload.map_err(|reason| ImportError::BadLine { path: self.path.clone(), line: number, reason })?;
                    layout.line(&Parts { core: kept.as_bytes(), ..parts }, payload.as_str() != kept, is_redacted);
                    let draft = self.line_draft(redacted.unwrap_or(record), payload);
                    if is_redacted { draft.tag(TAG_REDACTED) } else { draft }
                }
                Err(reason) if self.settings.skip_bad => {
                    layout.skipped(&parts, is_whole, self.settings.redacts());
                    self.skipped_draft(number, line.len, &parts, &reason)
                }
                Err(reason) => return Err(ImportError::BadLine { path: self.path.clone(), line: number, reason }),
            };
            self.input = Input::Lines { scanner, layout };
            return Ok(Some(draft));
        }
    }

    /// The next row of a Cortex ledger.
    fn next_row(
        &mut self,
        mut scanner: Box<Scanner>,
        mut layout: Builder,
        mut adoption: Box<Adoption>,
    ) -> Result<Option<Draft>, ImportError> {
        let changed = |path: &Path, line| ImportError::Changed { path: path.to_owned(), line };
        while let Some(line) = scanner.next().map_err(ImportError::io("reading", &self.path))? {
            let parts = line.parts();
            if parts.core.is_empty() {
                layout.blank(&parts);
                continue;
            }
            let record = scan::check(parts.core).map_err(|_| changed(&self.path, line.number))?;
            let redacted = self.find_secrets(record);
            let redacted = redacted.as_ref().map(|redacted| redacted.json.as_str());
            let is_redacted = redacted.is_some() && !self.settings.keep_secrets;
            let kept = redacted.filter(|_| is_redacted).unwrap_or(record);
            let recorded = self.settings.redacts().map(|redactor| (redactor, kept));
            let (row, is_repeated) = adoption.row(&self.path, &line, record, recorded)?;
            self.last_time = row.facts.observed_at.or(self.last_time);
            let payload = if is_redacted { to_payload(kept) } else { Ok(Payload::from_valid(kept.to_owned())) };
            let payload = payload.map_err(|reason| ImportError::BadLine { path: self.path.clone(), line: line.number, reason })?;
            layout.line(&Parts { core: kept.as_bytes(), ..parts }, payload.as_str() != kept, is_redacted);
            let id = match is_repeated {
                true => self.ids.hash(redacted.unwrap_or(record).as_bytes()).id(self.last_time, Kind::Line(0)),
                false => row.id,
            };
            let own = [(true, self.tag.as_str()), (true, &self.format_tag), (is_repeated, TAG_REPEATED_ID), (is_redacted, TAG_REDACTED)];
            let own: Vec<&str> = own.into_iter().filter_map(|(is_so, tag)| is_so.then_some(tag)).collect();
            let draft = row.draft(id, &own, payload);
            self.adoption = Some(adoption);
            self.input = Input::Lines { scanner, layout };
            return Ok(Some(draft));
        }
        if !adoption.is_whole(&scanner) {
            return Err(changed(&self.path, scanner.lines()));
        }
        let note = (scanner.lines() > 0).then(|| self.layout_note(&scanner, layout, adoption.head.take()));
        Ok(note)
    }

    fn next_step(&mut self, mut steps: std::vec::IntoIter<Box<RawValue>>, read: u64, model: String) -> Result<Option<Draft>, ImportError> {
        let Some(step) = steps.next() else { return Ok(None) };
        let (number, len, max) = (read + 1, step.get().len(), self.settings.line_bytes_max);
        let payload = to_payload(step.get()).and_then(|payload| match payload.as_str().len() {
            bytes if bytes > max => Err(BadLine::TooLong { bytes: bytes as u64, max }),
            _ => Ok(payload),
        });
        let draft = match payload {
            // The payload rather than the step's bytes: another indentation of the file is the same step.
            Ok(payload) => {
                let redacted = self.find_secrets(payload.as_str());
                let record = redacted.map_or_else(|| payload.as_str().to_owned(), |redacted| redacted.json);
                let is_redacted = !self.replaced.is_empty() && !self.settings.keep_secrets;
                let payload = if is_redacted { to_payload(&record) } else { Ok(payload) };
                let payload = payload.map_err(|reason| ImportError::BadLine { path: self.path.clone(), line: number, reason })?;
                let draft = self.draft(swe_agent::read(&model), &record, payload);
                if is_redacted { draft.tag(TAG_REDACTED) } else { draft }
            }
            Err(reason) if self.settings.skip_bad => {
                let parts = Parts { lead: b"", core: step.get().as_bytes(), trail: b"", end: "" };
                self.skipped_draft(number, len as u64, &parts, &reason)
            }
            Err(reason) => return Err(ImportError::BadLine { path: self.path.clone(), line: number, reason }),
        };
        self.input = Input::Steps { steps, read: number, model };
        Ok(Some(draft))
    }

    /// The record as the redactor leaves it, where that is not as it is.
    fn find_secrets(&mut self, record: &str) -> Option<Redacted> {
        let redacted = redact(self.settings.redactor.as_deref(), record)?;
        self.replaced.clone_from(&redacted.replaced);
        Some(redacted)
    }

    fn line_draft(&mut self, record: &str, payload: Payload) -> Draft {
        let line = Object::parse(record);
        let mut facts = match (&line, self.identity.format) {
            (Some(line), Format::ClaudeCode) => claude_code::read(line, &mut self.known),
            (Some(line), Format::Codex) => codex::read(line, &mut self.known),
            (Some(line), Format::OpenHands) => openhands::read(line, &mut self.known),
            (Some(line), _) => jsonl::read(line),
            // Valid JSON, but no object, or one whose keys no parser can read.
            (None, _) => Facts::note(),
        };
        let names = std::mem::take(&mut facts.names);
        let draft = self.draft(facts, record, payload);
        if let Some(id) = draft.given_id() {
            for name in names {
                self.known.name_event(name, id);
            }
        }
        draft
    }

    fn draft(&mut self, facts: Facts, record: &str, payload: Payload) -> Draft {
        self.last_time = facts.observed_at.or(self.last_time);
        let hashed = self.ids.hash(record.as_bytes());
        let first = hashed.bits(Kind::Line(0));
        let seen = self.seen.entry(first).or_default();
        let id = match *seen {
            0 => with_time(first, self.last_time),
            occurrence => hashed.id(self.last_time, Kind::Line(occurrence)),
        };
        *seen += 1;
        let mut draft = self.tagged(Draft::new(facts.event_type, facts.source)).id(id).with_payload(payload);
        // A line without a time happened after the line before it; one with nothing before it is dated when it is sealed.
        if let Some(at) = self.last_time {
            draft = draft.observed_at(at);
        }
        if let Some(session) = facts.session.or_else(|| self.identity.session.clone()) {
            draft = draft.session(session);
        }
        if let Some(cause) = facts.caused_by.filter(|cause| *cause != id) {
            draft = draft.caused_by(cause);
        }
        draft
    }

    fn tagged(&self, draft: Draft) -> Draft {
        draft.tag(&self.tag).tag(&self.format_tag)
    }

    fn skipped_draft(&mut self, number: u64, bytes: u64, parts: &Parts<'_>, reason: &BadLine) -> Draft {
        #[derive(Serialize)]
        struct Skipped<'a> {
            file: &'a str,
            line: u64,
            reason: String,
            bytes: u64,
            /// Of the bytes that were read, white space around them trimmed.
            blake3: String,
        }
        #[derive(Serialize)]
        struct Wrapped<'a> {
            import_skipped: Skipped<'a>,
        }
        self.skipped += 1;
        // What was skipped is told of as if it had never had secrets in it: neither its hash nor its length tells of them.
        let text = String::from_utf8_lossy(parts.core);
        let redacted = self.settings.redactor.as_deref().and_then(|redactor| redact_text(redactor, &text));
        let core = redacted.as_ref().map_or(parts.core, |redacted| redacted.json.as_bytes());
        let bytes = bytes.saturating_sub(parts.core.len() as u64) + core.len() as u64;
        let reason = if redacted.is_some() { reason.clone().of(core, bytes) } else { reason.clone() };
        let blake3 = blake3::hash(core).to_hex().to_string();
        self.replaced = redacted.map(|redacted| redacted.replaced).unwrap_or_default();
        let skipped = Skipped { file: &self.name, line: number, reason: reason.to_string(), bytes, blake3 };
        // Texts and numbers always make a payload.
        let payload = Payload::from_serialize(&Wrapped { import_skipped: skipped }).unwrap_or_else(|_| Payload::null());
        let id = self.ids.hash(payload.as_str().as_bytes()).id(self.last_time, Kind::Skipped);
        let facts = Facts::note();
        let draft = self.tagged(Draft::new(facts.event_type, facts.source)).tag(TAG_SKIPPED).id(id).with_payload(payload);
        match self.identity.session.clone() {
            Some(session) => draft.session(session),
            None => draft,
        }
    }

    fn layout_note(&self, scanner: &Scanner, layout: Builder, cortex: Option<CortexHead>) -> Draft {
        let Finished { runs: layout, complete, redacted } = layout.finish();
        let (redacted, bytes, hash) = redacted.unwrap_or_else(|| (0, scanner.bytes(), scanner.hash()));
        // An adopted ledger is known again by the bytes that it has, and its rows bring their own hashes along.
        let cortex = cortex.map(|head| match redacted {
            0 => head,
            _ => CortexHead { original_bytes: Some(scanner.bytes()), original_blake3: Some(scanner.hash().to_hex().to_string()), ..head },
        });
        let note = LayoutNote {
            format: self.identity.format.name().to_owned(),
            transcript: self.identity.text.clone(),
            name: self.name.clone(),
            lines: scanner.lines(),
            bytes,
            blake3: hash.to_hex().to_string(),
            complete,
            redacted,
            layout,
            cortex,
        };
        let payload = note.to_payload().ok().and_then(|json| Payload::from_json(json).ok()).unwrap_or_else(Payload::null);
        let id = self.ids.hash(payload.as_str().as_bytes()).id(self.last_time, Kind::Layout);
        let facts = Facts::note();
        self.tagged(Draft::new(facts.event_type, facts.source)).tag(TAG_LAYOUT).id(id).with_payload(payload)
    }
}

/// The record as the redactor leaves it, where that is not as it is.
pub(crate) fn redact(redactor: Option<&dyn Redactor>, record: &str) -> Option<Redacted> {
    // A redactor that names no rule has changed nothing that it could tell of.
    redactor?.redact(record).filter(|redacted| !redacted.replaced.is_empty())
}

/// A name without its secrets.
fn clean(redactor: Option<&dyn Redactor>, text: String) -> String {
    redactor.and_then(|redactor| redact_text(redactor, &text)).map_or(text, |redacted| redacted.json)
}

fn to_payload(record: &str) -> Result<Payload, BadLine> {
    Payload::from_json(record).map_err(|error| BadLine::NotJson(error.to_string()))
}
