//! Which format a transcript has, told from its content. Called by the reader; reads, and never writes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::error::{FormatError, ImportError};
use super::object::Object;
use super::scan::{self, RawLine, Scanner};
use super::{claude_code, codex, cortex, openhands, swe_agent};

/// Formats of transcripts that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `claude-code`: Claude Code's session JSONL.
    ClaudeCode,
    /// `codex`: Codex CLI's rollout JSONL.
    Codex,
    /// `openhands`: OpenHands' events, one a line.
    OpenHands,
    /// `swe-agent`: SWE-agent's `.traj`, one JSON object.
    SweAgent,
    /// `cortex`: the ledger of `crtx-ledger` 0.1, adopted only if its chain verifies.
    Cortex,
    /// `jsonl`: any other JSONL.
    Jsonl,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] = [Format::ClaudeCode, Format::Codex, Format::OpenHands, Format::SweAgent, Format::Jsonl, Format::Cortex];

    /// Its name, as [`Format::from_str`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Format::ClaudeCode => "claude-code",
            Format::Codex => "codex",
            Format::OpenHands => "openhands",
            Format::SweAgent => "swe-agent",
            Format::Cortex => "cortex",
            Format::Jsonl => "jsonl",
        }
    }

    /// Whether it has one record a line, so that its export is exact.
    pub const fn is_jsonl(self) -> bool {
        !matches!(self, Format::SweAgent)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = FormatError;
    fn from_str(name: &str) -> Result<Format, FormatError> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| FormatError(name.chars().take(80).collect()))
    }
}

/// Lines that are looked at to tell the format. 16: the first one tells, unless others come before it.
const DETECT_LINES_MAX: u64 = 16;
/// Bytes of the longest line that is looked at ahead of the import. 16 MiB, the ledger's own bound.
pub(crate) const AHEAD_LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes of a file that are looked at ahead of the import. 64 MiB: four of the longest lines.
pub(crate) const AHEAD_BYTES_MAX: u64 = 64 << 20;

/// Shows the first lines that are not blank until one gives an answer.
pub(crate) fn look_ahead<T>(
    path: &Path,
    lines_max: u64,
    mut look: impl FnMut(&RawLine<'_>) -> Option<T>,
) -> Result<Option<T>, ImportError> {
    let (file, _) = scan::open(path)?;
    let mut scanner = Scanner::new(file, u64::MAX, AHEAD_LINE_BYTES_MAX);
    let mut seen = 0;
    while seen < lines_max && scanner.bytes() < AHEAD_BYTES_MAX {
        let Some(line) = scanner.next().map_err(ImportError::io("reading", path))? else { break };
        if line.parts().core.is_empty() {
            continue;
        }
        seen += 1;
        if let Some(answer) = look(&line) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

/// The format of the transcript in this file, told from its first 16 lines that are not blank: the first line that
/// is one of a known format decides. A JSON object with a `trajectory` array is SWE-agent's, and so is a file that is
/// called `.traj` and begins with half a JSON object: one that was cut. All else is [`Format::Jsonl`], an empty file too.
///
/// # Errors
/// [`ImportError::Io`], [`ImportError::NotAFile`].
pub fn detect(path: &Path) -> Result<Format, ImportError> {
    let found = look_ahead(path, DETECT_LINES_MAX, |raw| {
        let line = Object::parse(std::str::from_utf8(raw.parts().core).ok()?)?;
        if cortex::recognises(&line) {
            Some(Format::Cortex)
        } else if codex::recognises(&line) {
            Some(Format::Codex)
        } else if openhands::recognises(&line) {
            Some(Format::OpenHands)
        } else if claude_code::recognises(&line) {
            Some(Format::ClaudeCode)
        } else {
            None
        }
    })?;
    match found {
        Some(format) => Ok(format),
        None if swe_agent::is_trajectory(path)? || is_cut_trajectory(path)? => Ok(Format::SweAgent),
        None => Ok(Format::Jsonl),
    }
}

/// Whether a trajectory was to be here: read as one, it is refused as a whole, rather than line by line.
fn is_cut_trajectory(path: &Path) -> Result<bool, ImportError> {
    if path.extension().is_none_or(|extension| extension != "traj") {
        return Ok(false);
    }
    let half = look_ahead(path, 1, |raw| {
        let core = raw.parts().core;
        Some(core.starts_with(b"{") && scan::check(core).is_err())
    })?;
    Ok(half.unwrap_or(false))
}
