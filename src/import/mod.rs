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
//! With [`Settings::redactor`], lines are recorded without the secrets that it finds, headers and the file's name too, and ids,
//! identities, the layout note's hash and what is told of skipped lines are made of the redacted bytes, so that none of them
//! confirms a guess or tells the length of a secret. The export gives the redacted lines, and says
//! which those are; all others come back byte for byte. With [`Settings::keep_secrets`] as well, lines stay as they are, under
//! the same ids.
//!
//! # Cortex ledgers
//! A ledger that `crtx-ledger` 0.1 has written is *adopted*: its whole chain is verified by its own rules before the first
//! draft, and a broken one yields none. Its rows keep their ids, types, sources, traces, sessions, tags and times, and the
//! layout note also has its head and its rows. [`TranscriptReader::check_adopted`] finds one that no longer begins with
//! what was adopted. `skip_bad` changes nothing here: without a row there is no chain. What rows mean: see `cortex`.
//! A redacted row still has the hashes that the ledger gave it, and the layout note has the whole original's beside the redacted
//! file's, so that the adopted ledger is known again: these do confirm a guess. What a header has of a row (session, tags, names
//! of models and tools) is redacted with it. Once exported, its own rules find a redacted row broken.
//!
//! # Tags
//! Every draft is tagged `transcript:<16 hex>` (which transcript) and `format:<format>`; layout notes also
//! [`TAG_LAYOUT`], records of skipped lines also [`TAG_SKIPPED`], redacted lines also [`TAG_REDACTED`], rows under an id of
//! their own also [`TAG_REPEATED_ID`].
//!
//! # Files
//! - `format` which format it is · `identity` which transcript it is, and ids · `scan` lines of a file
//! - `claude_code`, `codex`, `openhands`, `swe_agent`, `cortex`, `jsonl` what a line means · `facts`, `object` their tools
//! - `canonical` the hashes of a Cortex ledger · `adoption` its check as a whole, and against what was adopted
//! - `reader` drafts, in order · `layout` what the payloads don't hold · `export` the way back · `walk` folders

mod adoption;
mod canonical;
mod claude_code;
mod codex;
mod cortex;
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

pub use error::{BadLine, ChainFault, Difference, FormatError, ImportError};
pub use export::{ExportedFile, export_originals};
pub use format::{Format, detect};
pub use layout::{CortexHead, LayoutNote, Run, RunKind, rebuild};
pub use reader::{Progress, Settings, TranscriptReader};
pub use walk::transcripts_in;

/// Tag of layout notes.
pub const TAG_LAYOUT: &str = "import-layout";
/// Tag of records of lines that were skipped.
pub const TAG_SKIPPED: &str = "import-skipped";
/// Tag of lines that were redacted.
pub const TAG_REDACTED: &str = "import-redacted";
/// Tag of rows of a Cortex ledger whose id a row before them has too. An id is recorded once, so they have one of their
/// own; the one that they were given is in their payload.
pub const TAG_REPEATED_ID: &str = "import-repeated-id";
