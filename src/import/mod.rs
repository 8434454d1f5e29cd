//! Transcripts of agents, in and out: each line of a transcript becomes a draft, and every imported JSONL
//! transcript can be written back byte for byte.
//!
//! Called by `counterfoil import` and `export --original`, and by runtimes that bring their own history along.
//! Opens no store, appends nothing, knows no tokio: [`TranscriptReader`] yields drafts for whoever appends them,
//! [`export_originals`] reads a ledger through its reader. Never writes to a transcript.
//!
//! The promises, as long as a transcript only grows at its end:
//! - Importing it again yields the very same drafts with the very same ids, so that a ledger adds nothing; one
//!   that has grown yields the same drafts first.
//! - Ids don't depend on the folder a transcript lies in.
//! - What its lines' payloads don't hold (line ends, blank lines, white space around lines, bytes of skipped
//!   lines) is in one last draft, the *layout note*, so that the export is exact.
//!
//! # Limits
//! - A transcript that was changed elsewhere than at its end keeps what was recorded of it. Lines that lost the line
//!   they refer to have an id that is known and another content: the ledger answers `Conflict`. The export of such a
//!   transcript is not exact, and says so.
//! - The latest layout note counts; one that was recorded before (a file renamed and renamed back) stays where it was.
//! - Which beginnings make two files one transcript: see `identity`.
//! - A layout note may hold the bytes of lines that could not be recorded as they are: erase it with them.
//!
//! # Secrets
//! With [`Settings::redactor`], lines are recorded without the secrets that it finds, and ids, identities and the layout note's
//! hash are made of the redacted bytes, so that none of them confirms a guess. The export gives the redacted lines, and says
//! which those are; all others come back byte for byte. With [`Settings::keep_secrets`] as well, lines stay as they are, under
//! the same ids.
//!
//! # Tags
//! Every draft is tagged `transcript:<16 hex>` (which transcript) and `format:<format>`; layout notes also
//! [`TAG_LAYOUT`], records of skipped lines also [`TAG_SKIPPED`], redacted lines also [`TAG_REDACTED`].
//!
//! # Files
//! - `format` which format it is · `identity` which transcript it is, and ids · `scan` lines of a file
//! - `claude_code`, `codex`, `openhands`, `swe_agent`, `jsonl` what a line means · `facts`, `object` their tools
//! - `reader` drafts, in order · `layout` what the payloads don't hold · `export` the way back · `walk` folders

mod claude_code;
mod codex;
mod error;
mod export;
mod facts;
mod format;
mod identity;
mod jsonl;
mod layout;
mod object;
mod openhands;
mod reader;
mod scan;
mod swe_agent;
mod walk;

pub use error::{BadLine, FormatError, ImportError};
pub use export::{ExportedFile, export_originals};
pub use format::{Format, detect};
pub use layout::{LayoutNote, Run, RunKind, rebuild};
pub use reader::{Progress, Settings, TranscriptReader};
pub use walk::transcripts_in;

/// Tag of layout notes.
pub const TAG_LAYOUT: &str = "import-layout";
/// Tag of records of lines that were skipped.
pub const TAG_SKIPPED: &str = "import-skipped";
/// Tag of lines that were redacted.
pub const TAG_REDACTED: &str = "import-redacted";
