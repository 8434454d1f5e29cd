//! What the payloads of a JSONL transcript don't hold: line ends, blank lines, white space around lines, the bytes
//! of lines that are not recorded as they are. Called by the reader (which writes it down as the last draft) and by
//! the export (which puts it together with the payloads). Pure.
//!
//! Invariant: payloads and a complete layout make the file again, byte for byte. A layout past its bounds is cut
//! and says so (`complete: false`); the export then writes what it has, and says that it is not exact.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::scan::Parts;
use crate::redact::{Redactor, redact_text};

/// Bytes of a line, beside its payload, that are kept. 64 KiB: a mangled record fits; a file of NULs doesn't.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a whole layout as JSON. 4 MiB: a quarter of the longest line of a ledger.
const LAYOUT_BYTES_MAX: usize = 4 << 20;
/// Bytes that a run's keys and numbers take at most.
const RUN_BYTES: usize = 96;

/// The payload of a layout note is `{"import": …}` with this inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayoutNote {
    /// Name of the format.
    pub format: String,
    /// Identity of the transcript, in the format's own terms.
    pub transcript: String,
    /// Name of the file, without its folder. Written by others: not to be trusted as a path.
    pub name: String,
    /// Lines of the file, blank ones counted.
    pub lines: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of the whole file, 64 hex digits.
    pub blake3: String,
    /// Whether the layout has all that an exact export needs.
    pub complete: bool,
    /// Lines in which secrets were replaced before they were recorded. Where there are any, `bytes` and `blake3` are those of
    /// the redacted file: a hash of the original would confirm a guess. (Of a Cortex ledger, `cortex` has that one as well.)
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redacted: u64,
    /// The lines, in order.
    pub layout: Vec<Run>,
    /// Of a Cortex ledger: what was adopted of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cortex: Option<CortexHead>,
}

/// What was adopted of a Cortex ledger whose chain verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CortexHead {
    /// The event hash of its last row, by its own rules.
    pub head: String,
    /// Its rows.
    pub rows: u64,
    /// Rows that carry a signature. It is kept with the row, and was not checked: that takes its public key.
    pub signed: u64,
    /// Rows whose id a row before them has too; each was recorded under an id of its own, see [`super::TAG_REPEATED_ID`].
    pub repeated_ids: u64,
    /// Tags, sessions and times that a header can't hold; they are in the payloads alone.
    pub left_out: u64,
    /// Where secrets were replaced: the bytes that the ledger's file had, by which it is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_bytes: Option<u64>,
    /// BLAKE3 of these bytes, 64 hex digits. It confirms a guess at what was replaced, as the hashes in the rows do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_blake3: Option<String>,
}

/// What becomes of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunKind {
    /// A payload is the line, but for the white space around it and its end.
    #[default]
    Line,
    /// A line without payload: white space only.
    Blank,
    /// There is a payload, but the line's own bytes are here (the payload dropped white space inside).
    Raw,
    /// A line that was skipped: its bytes are here, and there is no payload.
    Skipped,
    /// A line that was skipped, and whose bytes were too many to be kept.
    Lost,
}

/// Lines that follow each other and have all of this in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How many.
    pub n: u64,
    /// What they are; left out for [`RunKind::Line`].
    #[serde(default, skip_serializing_if = "is_line")]
    pub kind: RunKind,
    /// What ends each: `\n`, `\r\n`, or nothing.
    pub end: String,
    /// White space before each; a blank line's all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lead: String,
    /// White space after each.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trail: String,
    /// The bytes of each, where they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The bytes of each in base64, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Whether secrets were replaced in each. Lines that have a payload say so by its tag instead.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redacted: bool,
}

fn is_line(kind: &RunKind) -> bool {
    *kind == RunKind::Line
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_false(truth: &bool) -> bool {
    !truth
}

#[derive(Serialize, Deserialize)]
struct Wrapped<N> {
    import: N,
}

impl LayoutNote {
    /// The note in this payload, where it is one.
    pub fn from_payload(json: &str) -> Option<LayoutNote> {
        serde_json::from_str::<Wrapped<LayoutNote>>(json).ok().map(|note| note.import)
    }

    /// Its payload.
    ///
    /// # Errors
    /// None that could happen: it holds only texts and numbers.
    pub fn to_payload(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Wrapped { import: self })
    }
}

/// Collects a layout, line by line.
#[derive(Debug)]
pub(crate) struct Builder {
    runs: Vec<Run>,
    bytes: usize,
    bytes_max: usize,
    complete: bool,
    /// What the export is going to write, where redacted: its bytes and hash.
    redacted: Option<Box<Redacted>>,
}

/// The redacted file, as far as it was read.
#[derive(Debug, Default)]
struct Redacted {
    lines: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

/// A finished layout.
#[derive(Debug)]
pub(crate) struct Finished {
    pub runs: Vec<Run>,
    pub complete: bool,
    /// Where lines were redacted: how many, and bytes and hash of the redacted file.
    pub redacted: Option<(u64, u64, blake3::Hash)>,
}

impl Builder {
    /// A layout takes at most a quarter of the longest line, so that its note fits into one.
    /// `redacts`: whether lines may be redacted.
    pub fn new(line_bytes_max: usize, redacts: bool) -> Builder {
        let bytes_max = LAYOUT_BYTES_MAX.min(line_bytes_max / 4);
        Builder { runs: Vec::new(), bytes: 0, bytes_max, complete: true, redacted: redacts.then(Box::default) }
    }

    /// A line whose record is the payload, as it is or (`changed`) not quite; redacted or not.
    pub fn line(&mut self, parts: &Parts<'_>, changed: bool, is_redacted: bool) {
        self.count(parts, is_redacted);
        self.push(if changed { RunKind::Raw } else { RunKind::Line }, parts, changed, true, false);
    }

    /// A blank line.
    pub fn blank(&mut self, parts: &Parts<'_>) {
        self.count(parts, false);
        self.push(RunKind::Blank, parts, false, true, false);
    }

    /// A skipped line; `whole` says whether all of its bytes are here. Its bytes are kept without their secrets; where they are
    /// no text that could be redacted, not at all. Whether that made a difference.
    pub fn skipped(&mut self, parts: &Parts<'_>, whole: bool, redactor: Option<&dyn Redactor>) -> bool {
        let text = String::from_utf8_lossy(parts.core);
        let Some(redacted) = redactor.and_then(|redactor| redact_text(redactor, &text)) else {
            self.count(parts, false);
            self.push(RunKind::Skipped, parts, true, whole, false);
            return false;
        };
        let is_text = std::str::from_utf8(parts.core).is_ok();
        let parts = Parts { core: redacted.json.as_bytes(), ..*parts };
        self.count(&parts, true);
        self.push(RunKind::Skipped, &parts, true, whole && is_text, true);
        true
    }

    fn count(&mut self, parts: &Parts<'_>, is_redacted: bool) {
        if let Some(redacted) = &mut self.redacted {
            redacted.lines += u64::from(is_redacted);
            for part in [parts.lead, parts.core, parts.trail, parts.end.as_bytes()] {
                redacted.hasher.update(part);
                redacted.bytes += part.len() as u64;
            }
        }
    }

    fn push(&mut self, kind: RunKind, parts: &Parts<'_>, keep: bool, whole: bool, redacted: bool) {
        let core = if keep { parts.core } else { &[] };
        let mut run = Run { n: 1, kind, end: parts.end.to_owned(), redacted, ..Run::default() };
        if whole && core.len() + parts.lead.len() + parts.trail.len() <= LINE_BYTES_MAX {
            run.lead = String::from_utf8_lossy(parts.lead).into_owned();
            run.trail = String::from_utf8_lossy(parts.trail).into_owned();
            if keep {
                match std::str::from_utf8(core) {
                    Ok(text) => run.raw = Some(text.to_owned()),
                    Err(_) => run.base64 = Some(STANDARD.encode(core)),
                }
            }
        } else {
            self.complete = false;
            run.kind = match kind {
                RunKind::Raw | RunKind::Line => RunKind::Line,
                RunKind::Blank => RunKind::Blank,
                RunKind::Skipped | RunKind::Lost => RunKind::Lost,
            };
        }
        self.add(run);
    }

    fn add(&mut self, run: Run) {
        if let Some(last) = self.runs.last_mut()
            && (Run { n: last.n, ..run.clone() }) == *last
        {
            last.n += 1;
            return;
        }
        let raw = run.raw.as_deref().map_or(0, escaped_len) + run.base64.as_ref().map_or(0, String::len);
        let bytes = RUN_BYTES + escaped_len(&run.lead) + escaped_len(&run.trail) + raw;
        // Once one run is left out, all are: one that follows would tell of the wrong lines.
        if self.bytes + bytes > self.bytes_max {
            self.bytes = self.bytes_max;
            self.complete = false;
            return;
        }
        self.bytes += bytes;
        self.runs.push(run);
    }

    /// The layout.
    pub fn finish(self) -> Finished {
        let redacted = self.redacted.filter(|redacted| redacted.lines > 0);
        let redacted = redacted.map(|redacted| (redacted.lines, redacted.bytes, redacted.hasher.finalize()));
        Finished { runs: self.runs, complete: self.complete, redacted }
    }
}

/// Bytes of a text inside JSON at most.
fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| {
            if byte < 0x20 {
                6
            } else if matches!(byte, b'"' | b'\\') {
                2
            } else {
                1
            }
        })
        .sum()
}

/// Puts a transcript together again: hand it the payloads in order, then finish.
#[derive(Debug)]
pub(crate) struct Rebuild<W> {
    out: W,
    runs: std::vec::IntoIter<Run>,
    run: Run,
    open_end: bool,
    written: Written,
    hasher: blake3::Hasher,
}

/// Numbers of redacted lines that are told one by one. 10,000: more than anyone reads; the count goes on.
const REDACTED_LINES_MAX: usize = 10_000;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Lines, blank ones counted.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Lines in which secrets were replaced before they were recorded.
    pub redacted: u64,
    /// The numbers of the first ones, from 1.
    pub redacted_lines: Vec<u64>,
}

impl<W: Write> Rebuild<W> {
    pub fn new(layout: Vec<Run>, out: W) -> Rebuild<W> {
        Rebuild {
            out,
            runs: layout.into_iter(),
            run: Run::default(),
            open_end: false,
            written: Written::default(),
            hasher: blake3::Hasher::new(),
        }
    }

    /// The next payload's line; lines without payload that come before it are written first. A payload that is
    /// missing (it was erased) leaves its line out.
    pub fn payload(&mut self, payload: Option<&str>, is_redacted: bool) -> io::Result<()> {
        self.lines_without_payload()?;
        let run = if self.run.n == 0 {
            // The layout knows nothing of this line.
            Run { end: "\n".to_owned(), ..Run::default() }
        } else {
            self.run.n -= 1;
            self.run.clone()
        };
        match payload {
            Some(payload) => self.write(&run, payload.as_bytes(), is_redacted),
            None => Ok(()),
        }
    }

    /// Writes what follows the last payload. The writer, what was written, and its hash.
    pub fn finish(mut self) -> io::Result<(W, Written, blake3::Hash)> {
        // Lines whose payloads are not there are left out; what stands between them is kept.
        self.lines_without_payload()?;
        while self.run.n > 0 {
            self.run.n = 0;
            self.lines_without_payload()?;
        }
        self.out.flush()?;
        Ok((self.out, self.written, self.hasher.finalize()))
    }

    /// Ends at a run that wants a payload, or at the layout's end.
    fn lines_without_payload(&mut self) -> io::Result<()> {
        loop {
            if self.run.n == 0 {
                match self.runs.next() {
                    Some(run) => self.run = run,
                    None => return Ok(()),
                }
                continue;
            }
            match self.run.kind {
                RunKind::Line | RunKind::Raw => return Ok(()),
                RunKind::Blank | RunKind::Skipped => {
                    let run = self.run.clone();
                    self.write(&run, &[], run.redacted)?;
                }
                RunKind::Lost => {}
            }
            self.run.n -= 1;
        }
    }

    fn write(&mut self, run: &Run, payload: &[u8], is_redacted: bool) -> io::Result<()> {
        let decoded = run.base64.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let core = match (&run.raw, &decoded) {
            (Some(raw), _) => raw.as_bytes(),
            (None, Some(decoded)) => decoded,
            (None, None) => payload,
        };
        if self.open_end {
            // Something follows what was the last line: an older layout, whose file has grown since.
            self.put(b"\n")?;
        }
        for part in [run.lead.as_bytes(), core, run.trail.as_bytes(), run.end.as_bytes()] {
            self.put(part)?;
        }
        self.open_end = !run.end.ends_with('\n');
        self.written.lines += 1;
        if is_redacted {
            self.written.redacted += 1;
            if self.written.redacted_lines.len() < REDACTED_LINES_MAX {
                self.written.redacted_lines.push(self.written.lines);
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Writes a transcript again from its layout and the payloads of its lines, in order, and says whether the result
/// is, by its BLAKE3, the file that the note tells of (with lines redacted, where it says that some were).
///
/// # Errors
/// What the writer says.
///
/// ```
/// use counterfoil::import::{LayoutNote, rebuild};
/// let hash = blake3::hash(b"{\"a\":1}\r\n{\"b\":2}").to_hex();
/// let note = format!(
///     r#"{{"import":{{"format":"jsonl","transcript":"t","name":"a.jsonl","lines":2,"bytes":16,"blake3":"{hash}",
///     "complete":true,"layout":[{{"n":1,"end":"\r\n"}},{{"n":1,"end":""}}]}}}}"#
/// );
/// let note = LayoutNote::from_payload(&note).ok_or("no note")?;
/// let mut file = Vec::new();
/// assert!(rebuild(&note, ["{\"a\":1}", "{\"b\":2}"], &mut file)?);
/// assert_eq!(file, b"{\"a\":1}\r\n{\"b\":2}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rebuild<P: AsRef<str>>(note: &LayoutNote, payloads: impl IntoIterator<Item = P>, out: impl Write) -> io::Result<bool> {
    let mut rebuild = Rebuild::new(note.layout.clone(), out);
    for payload in payloads {
        rebuild.payload(Some(payload.as_ref()), false)?;
    }
    let (_, _, hash) = rebuild.finish()?;
    Ok(hash.to_hex().as_str() == note.blake3)
}
