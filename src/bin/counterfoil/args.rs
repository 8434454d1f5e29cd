//! What can be said on the command line. Only declarations: nothing here acts.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use counterfoil::import::Format;
use counterfoil::{EventId, EventType, Seq, SessionsCursor, SessionsOrder, Source, Timestamp, TraceId};

const AFTER_HELP: &str = "\
Exit codes:
  0  fine
  1  inconsistency found (verify, parity, replay, repair, doctor, demo, checkpoint, check-proof)
  2  usage: wrong arguments, payloads that are no JSON, bad types or ids, refused SQL
  3  locked: another process writes to the store
  4  refused, or any other failure

Commands that only read (export, tail, show, sessions, stream, query, stats, verify, parity, doctor,
prove) work beside a live writer. `sessions` keeps its list in sessions.sqlite3, and `parity
--since-clean`, where nobody holds the lock, in the mirror what it found right; the others never
write.
COUNTERFOIL_LOG=info (or debug, trace) logs to standard error.
New here? Run `counterfoil demo`.";

/// An event ledger for agent runtimes: fsynced JSONL that anyone can grep, mirrored into SQLite that anyone can query.
#[derive(Debug, Parser)]
#[command(name = "counterfoil", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    /// The store's folder
    #[arg(long, global = true, env = "COUNTERFOIL_STORE", default_value = ".counterfoil", value_name = "DIR")]
    pub store: PathBuf,
    /// Print JSON on standard output and nothing else there; errors are JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one of it
pub enum Command {
    /// Show what it is for: a scripted agent session, a killed actor, a damaged copy, a rewritten past
    Demo(DemoArgs),
    /// Create a store
    Init,
    /// Append events, from arguments or one a line from standard input
    Append(AppendArgs),
    /// Import transcripts of Claude Code, Codex, OpenHands, SWE-agent, ledgers of Cortex, or any JSONL
    Import(ImportArgs),
    /// Write the ledger's lines, byte for byte, or imported transcripts under their own names
    Export(ExportArgs),
    /// Show the last events, and follow
    Tail(TailArgs),
    /// Show one event
    Show(ShowArgs),
    /// List sessions: how many events, how large, since when
    Sessions(SessionsArgs),
    /// Show the events of a session
    Stream(StreamArgs),
    /// Query the mirror with SQL, read-only
    Query(QueryArgs),
    /// Count events and bytes
    Stats,
    /// Check the whole chain, every payload's hash, and who signed
    Verify(VerifyArgs),
    /// Compare ledger and mirror
    Parity(ParityArgs),
    /// Replay the whole ledger into the mirror; makes a missing or corrupt mirror anew
    Replay,
    /// Restore one side from the other, where they differ: your decision which one is right
    Repair(RepairArgs),
    /// Compress sealed segments (zstd); every command reads both forms, and `zstdcat` does
    #[command(
        after_help = "What `zstd` itself has compressed is read too, but decoded whole at each open; compress makes it\nanew, with a table that lets a line be read without the rest."
    )]
    Compress(CompressArgs),
    /// Sign how many events there are and what they are, and hand that to places outside the store
    Checkpoint(CheckpointArgs),
    /// Prove that an event was signed in a checkpoint, or that a checkpoint continues an earlier one
    Prove(ProveArgs),
    /// Check such a proof. Needs no store: only the proof, the key, and a checkpoint where you have one
    CheckProof(CheckProofArgs),
    /// Make keys that sign events, and record in the ledger which may
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Erase payloads for good, in ledger and mirror; the events and the chain stay, and who erased what and why is recorded
    #[command(
        after_help = "Nothing brings an erased payload back but a copy that lies outside of the store: backups, exports, file system\nsnapshots. Each page of the mirror is written anew, which takes as long as the mirror is large, and its size once more in the\nfolder for temporary files (SQLITE_TMPDIR, else /var/tmp) and in the store. Where something is in the way, the exit code is 4,\n`doctor` and `stats` say so, and the next open does the rest."
    )]
    Erase(EraseArgs),
    /// Check everything at a glance, with the command that mends each finding
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the demo's store goes; a new temporary folder if left out
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct AppendArgs {
    /// Payloads, JSON each; `-`, or none, reads one a line from standard input
    #[arg(value_name = "PAYLOAD", allow_negative_numbers = true)]
    pub payloads: Vec<String>,
    /// Event type, as in tool_call.v1
    #[arg(long = "type", value_name = "TYPE", default_value = "system_note.v1")]
    pub event_type: EventType,
    /// Session that the events belong to
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Where they come from: user, runtime, tool:NAME, child_agent:MODEL, external_outcome, manual_correction
    #[arg(long, default_value = "runtime", value_parser = source)]
    pub source: Source<'static>,
    /// Event id of the caller's own: appending it twice records it once (one payload only)
    #[arg(long, value_name = "EVT_ID")]
    pub id: Option<EventId>,
    /// Trace that they belong to
    #[arg(long, value_name = "TRC_ID")]
    pub trace: Option<TraceId>,
    /// Event that caused them
    #[arg(long, value_name = "EVT_ID")]
    pub caused_by: Option<EventId>,
    /// Free label; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// When it happened (RFC 3339); else the moment of recording
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub observed_at: Option<Timestamp>,
    /// What a receipt waits for
    #[arg(long, value_enum, default_value_t = DurabilityArg::Ledger)]
    pub durability: DurabilityArg,
    /// Sign them with the private key in this file (PKCS#8 PEM, mode 600)
    #[arg(long, value_name = "KEYFILE")]
    pub sign: Option<PathBuf>,
    /// What may be appended: `local` warns of what is not signed, `trusted` takes only what a current key of the ledger signs. Each
    /// append is decided by itself: what `parity --full` once found is not remembered
    #[arg(long, value_enum)]
    pub policy: Option<PolicyArg>,
    /// All payloads as one batch: all of them are recorded, or none
    #[arg(long)]
    pub atomic: bool,
    /// Replace well-known shapes of secrets in payloads before they are hashed and written
    #[arg(long)]
    pub redact: bool,
    /// Only if the last event of the session has this session_seq (one payload, or --atomic)
    #[arg(long, value_name = "N", requires = "session")]
    pub expect_session_seq: Option<u64>,
    /// Only if the session has no event yet (one payload, or --atomic)
    #[arg(long, requires = "session", conflicts_with = "expect_session_seq")]
    pub expect_new_session: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// Warn, in the event itself
    Local,
    /// Refuse
    Trusted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArg {
    /// Durable in the ledger
    Ledger,
    /// And its row committed in the mirror
    Mirrored,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Transcripts, or folders that hold some (.jsonl, .traj)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// claude-code, codex, openhands, swe-agent, cortex or jsonl; told from the content if left out
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Record a note for a bad line and go on, rather than stop the file there
    #[arg(long)]
    pub skip_bad: bool,
    /// Record lines as they are; else well-known shapes of secrets are replaced before they are hashed and written
    #[arg(long)]
    pub keep_secrets: bool,
    /// Print each event's receipt as it comes, before the counts
    #[arg(long)]
    pub receipts: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only events of this session
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Only events from this seq on
    #[arg(long, value_name = "SEQ")]
    pub from: Option<u64>,
    /// Only events up to this seq
    #[arg(long, value_name = "SEQ")]
    pub to: Option<u64>,
    /// Write every imported JSONL transcript into this folder, under its own name
    #[arg(long, value_name = "DIR", conflicts_with_all = ["session", "from", "to"])]
    pub original: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TailArgs {
    /// How many events
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    pub count: u64,
    /// Go on with what is appended from now on
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A seq, or an event id
    #[arg(value_name = "SEQ|ID")]
    pub event: String,
}

#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// By when they were recorded to last, or first, the latest first, or by id [default: last]
    #[arg(long, value_enum)]
    pub order: Option<OrderArg>,
    /// How many sessions at most; 0 shows all
    #[arg(long, default_value_t = 50)]
    pub limit: u64,
    /// Go on behind a page, in its order: what it says under `next`
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<SessionsCursor>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum OrderArg {
    #[default]
    Last,
    First,
    Id,
}

impl From<OrderArg> for SessionsOrder {
    fn from(order: OrderArg) -> SessionsOrder {
        match order {
            OrderArg::Last => SessionsOrder::Last,
            OrderArg::First => SessionsOrder::First,
            OrderArg::Id => SessionsOrder::Id,
        }
    }
}

#[derive(Debug, Args)]
pub struct StreamArgs {
    /// The session's id
    pub session: String,
    /// Position in the session to begin with, from 1 on; else its first event, or its last
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// From newer events to older ones
    #[arg(long)]
    pub backwards: bool,
    /// How many events at most; 0 shows all [default: 50, and all of them as JSON]
    #[arg(long)]
    pub limit: Option<u64>,
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// SQL to run; tables: events, events_text (hashes as hex), segments, mirrored_through
    pub sql: String,
    /// How many rows a table shows at most; 0 shows all. JSON is never cut
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Check who signed: each signature must lead back to this key, by the ledger's own record of its keys. A key file, or 64 hex digits
    #[arg(long, value_name = "KEY")]
    pub root: Option<String>,
    /// Every event must be signed
    #[arg(long, requires = "root")]
    pub require_signatures: bool,
    /// Every event from this seq on must be signed
    #[arg(long, value_name = "SEQ", requires = "root", conflicts_with = "require_signatures")]
    pub require_signatures_from: Option<u64>,
    /// Checkpoints that were kept elsewhere: the ledger must reach each of them, and have its root there; may be repeated
    #[arg(long = "anchor", value_name = "FILE")]
    pub anchors: Vec<PathBuf>,
    /// A key that signs checkpoints, a file or 64 hex digits; the one of --root may too, and keys that came after it are to be named
    /// here. Without any, no signature of them is checked; may be repeated
    #[arg(long = "key", value_name = "KEY", requires = "anchors")]
    pub keys: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// File of the private key that signs it; whether the ledger's own record of keys still has it is not asked
    #[arg(long, value_name = "KEYFILE")]
    pub key: PathBuf,
    /// A file outside the store to append it to: on another disk, or a share; may be repeated
    #[arg(long = "anchor", value_name = "FILE")]
    pub anchors: Vec<PathBuf>,
    /// A command, for `sh -c`, that gets it on standard input: a commit, an upload, a witness's client; may be repeated
    #[arg(long = "anchor-command", value_name = "COMMAND")]
    pub commands: Vec<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ProveArgs {
    /// Prove that this event is among those of a checkpoint
    #[arg(value_name = "SEQ", group = "what", value_parser = clap::value_parser!(u64).range(1..1 << 63))]
    pub seq: Option<u64>,
    /// Prove that a checkpoint's events begin with the first SIZE, as another checkpoint has them
    #[arg(long, value_name = "SIZE", group = "what")]
    pub from: Option<u64>,
    /// The checkpoint of so many events, rather than the newest
    #[arg(long, value_name = "SIZE")]
    pub size: Option<u64>,
    /// Write it to this file, over what it has, rather than to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckProofArgs {
    /// The proof, as `prove` writes it
    #[arg(value_name = "FILE")]
    pub proof: PathBuf,
    /// A public key that checkpoints are signed by, a file or 64 hex digits; may be repeated
    #[arg(long = "key", value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    /// Checkpoints that you have from elsewhere: the one that the proof leads to or, with `prove --from`, on from
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// A file with the event's line, which the proof must be about
    #[arg(long, value_name = "FILE")]
    pub event: Option<PathBuf>,
}

/// What `keys` does.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key: FILE gets the private half (mode 600), FILE.pub the public one. Touches no store
    Generate {
        /// Where it goes; nothing is written over
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the keys that the ledger knows
    List,
    /// Let a key sign. A ledger's first key lets itself in: it is the root that others verify from
    Add {
        /// The key to let in, a file or 64 hex digits; the signing key itself if left out
        #[arg(value_name = "KEY")]
        new: Option<String>,
        #[command(flatten)]
        by: SignedChange,
    },
    /// Hand over to another key; the old one signs this, and nothing after it
    Rotate {
        /// The key that signs from now on, a file or 64 hex digits
        #[arg(long, value_name = "KEY")]
        to: String,
        #[command(flatten)]
        by: SignedChange,
    },
    /// Let a key sign no more
    Retire {
        /// Its id, as in key_0123…, or the key
        #[arg(value_name = "KEY")]
        which: String,
        /// Though no key is left then that may sign, or ever let another in
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        by: SignedChange,
    },
    /// Let a key sign no more, since it is in other hands, or may be
    Revoke {
        /// Its id, as in key_0123…, or the key
        #[arg(value_name = "KEY")]
        which: String,
        /// Though no key is left then that may sign, or ever let another in
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        by: SignedChange,
    },
}

/// Who signs a change to the keys, and why it is made.
#[derive(Debug, Args)]
pub struct SignedChange {
    /// File of the private key that signs the change: one that may sign now
    #[arg(long = "key", value_name = "KEYFILE")]
    pub key: PathBuf,
    /// Why, for those who read the ledger
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Compare every line with every row, byte for byte, rather than only how far each side is
    #[arg(long)]
    pub full: bool,
    /// Compare so only what is new or changed since a comparison that found all equal; sees no rot in place
    #[arg(long, conflicts_with = "full")]
    pub since_clean: bool,
}

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The side that is right
    #[arg(long, value_enum)]
    pub from: Leg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Leg {
    /// Derive the rows that differ from the ledger, once its whole chain verifies
    Ledger,
    /// Write lines and segments that the ledger has lost back from the mirror, byte for byte
    Mirror,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct CompressArgs {
    /// The segments that hold these events
    #[arg(value_name = "SEQ", group = "which")]
    pub seqs: Vec<u64>,
    /// All sealed segments
    #[arg(long, group = "which")]
    pub all: bool,
    /// All sealed segments but the newest N
    #[arg(long, group = "which", value_name = "N")]
    pub keep: Option<usize>,
    /// Give compressed segments their plain form back
    #[arg(long, conflicts_with = "keep")]
    pub undo: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct EraseArgs {
    /// The event with this seq, or those of a range (3-7); may be repeated
    #[arg(long = "seq", value_name = "SEQ|FROM-TO", group = "which", value_parser = seqs)]
    pub seqs: Vec<RangeInclusive<Seq>>,
    /// The event with this id; may be repeated
    #[arg(long = "id", value_name = "EVT_ID", group = "which")]
    pub ids: Vec<EventId>,
    /// All events that this session has by now
    #[arg(long, value_name = "ID", group = "which")]
    pub session: Option<String>,
    /// Why; it is recorded, and stays
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asked for it; it is recorded, and stays
    #[arg(long, value_name = "TEXT")]
    pub by: Option<String>,
    /// Where the record of it comes from, as with append
    #[arg(long, default_value = "manual_correction", value_parser = source)]
    pub source: Source<'static>,
    /// Sign the record of it with the private key in this file
    #[arg(long, value_name = "KEYFILE")]
    pub sign: Option<PathBuf>,
    /// Only show what would be erased
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Read every line and every row, however many there are
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

impl Cli {
    /// Whether the store was named on the command line, so that commands to run next must name it too.
    pub fn names_store() -> bool {
        let named = |arg: OsString| arg == "--store" || arg.to_string_lossy().starts_with("--store=");
        std::env::args_os().any(named)
    }
}

fn source(text: &str) -> Result<Source<'static>, String> {
    let (kind, name) = text.split_once(':').map_or((text, None), |(kind, name)| (kind, Some(name)));
    match (kind, name) {
        ("user", None) => Ok(Source::User),
        ("runtime", None) => Ok(Source::Runtime),
        ("external_outcome", None) => Ok(Source::ExternalOutcome),
        ("manual_correction", None) => Ok(Source::ManualCorrection),
        ("tool", Some(name)) if !name.is_empty() => Ok(Source::tool(name)),
        ("child_agent", Some(model)) if !model.is_empty() => Ok(Source::child_agent(model)),
        _ => Err("write user, runtime, tool:NAME, child_agent:MODEL, external_outcome or manual_correction".to_owned()),
    }
}

fn seqs(text: &str) -> Result<RangeInclusive<Seq>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let seq = |digits: &str| digits.parse::<u64>().ok().filter(|seq| (1..=Seq::MAX.get()).contains(seq)).map(Seq::new);
    match (seq(first), seq(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("write a seq from 1 on, or a range of them as in 3-7".to_owned()),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_lenient(text).ok_or_else(|| "write a time of the form 2026-11-24T05:37:00Z, between the years 0 and 9999".to_owned())
}
