//! A history that every input begins from: real lines, written by the project's own writer, always the same ones.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use counterfoil::*;

use super::memory::Memory;

pub const DIR: &str = "/dev/null/counterfoil-fuzz";

/// A line of the history, and where it is.
#[derive(Clone)]
pub struct Place {
    pub segment: Seq,
    pub offset: u64,
    pub line: Vec<u8>,
    pub hash: EventHash,
    pub id: EventId,
    pub session: Option<(String, u64)>,
}

pub struct History {
    pub manifest: Manifest,
    /// By seq, from 1.
    pub lines: Vec<Place>,
    /// What a second writer would have written from seq 9 on.
    pub fork: Vec<Vec<u8>>,
}

struct Counting(AtomicU64);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed) as i64)
    }
}

impl Ids for Counting {
    fn next(&self, _: Timestamp) -> u128 {
        1 << 90 | u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Options over this disk. Ids and times begin at a number of their own.
pub fn options(disk: &Arc<Memory>, from: u64) -> Options {
    let mut options = Options::default();
    options.clock = Arc::new(Counting(AtomicU64::new(from)));
    options.ids = Arc::new(Counting(AtomicU64::new(from)));
    options.storage = disk.clone();
    options.segment_bytes_max = 2400;
    options.line_bytes_max = 20 << 10;
    options
}

/// A mirror that knows what the history has up to a seq.
pub struct Known(pub Option<Seq>);

impl Known {
    fn places(&self) -> Result<&'static [Place], LookupError> {
        let Some(seq) = self.0 else { return Err(LookupError::Rebuilding { done: 0, total: 0 }) };
        // Asked while the history is being written, too.
        if seq == Seq::ZERO { Ok(&[]) } else { Ok(&history().lines[..seq.get() as usize]) }
    }
}

impl Lookup for Known {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        self.places().map(|_| None)
    }
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
        let sessions = self.places()?.iter().filter_map(|place| place.session.as_ref());
        Ok(sessions.filter(|(id, _)| id == session_id).map(|(_, seq)| *seq).max())
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(self.places()?.iter().map(|place| place.id).max())
    }
}

pub fn put_manifest(disk: &Memory, dir: &Path, manifest: &Manifest) {
    let mut json = serde_json::to_vec(manifest).expect("a manifest is JSON");
    json.push(b'\n');
    disk.put(&Manifest::path(dir), json);
}

pub fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join("segments").join(format!("{first:020}.jsonl"))
}

fn draft(n: usize) -> Draft {
    let payloads =
        ["null", "{\"seq\":1,\"event_hash\":\"x\"}", "\"{\\\"seq\\\":9,\"", "[1.0,1e400,{\"k\":1,\"k\":2}]", "\"a\u{2028} \\ud800\"", "7"];
    let sources = [Source::User, Source::tool("bash \"x\""), Source::Runtime, Source::child_agent("m\u{1}")];
    let draft = Draft::new(EventType::WELL_KNOWN[n % EventType::WELL_KNOWN.len()].clone(), sources[n % 4].clone());
    let draft = draft.payload_json(payloads[n % payloads.len()]).expect("it is JSON");
    match n % 4 {
        0 => draft.session("s-1").tag("blue"),
        1 => draft.session("s-\u{1}2").trace(TraceId::from_u128(7)),
        2 => draft.session("s-1").caused_by(EventId::from_u128(3)).tag("a\tb").tag("ü"),
        _ => draft,
    }
}

/// Groups of one, of several events, and batches, in three segments.
fn written(manifest: &Manifest, groups: &[&[usize]], from: u64, disk: &Arc<Memory>) {
    let dir = Path::new(DIR);
    let options = options(disk, from);
    let (mut writer, _) = Writer::open(dir, manifest, None, &mut Known(None), &options).expect("it opens");
    let mut n = writer.head().seq.get() as usize;
    for group in groups {
        for events in *group {
            let drafts: Vec<_> = (n..n + events).map(|n| draft(n).check(&options.limits()).expect("it is within bounds")).collect();
            n += events;
            let staged = writer.stage(&drafts, &Conditions::none(), true, &mut Known(Some(Seq::ZERO)));
            assert!(matches!(staged, Ok(Stage::Staged(_))));
        }
        writer.flush().expect("memory does not fail");
    }
}

pub fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let manifest = Manifest::new(LedgerId::from_u128(5), Timestamp::from_micros(1_800_000_000_000_000));
        let disk = Arc::new(Memory::default());
        put_manifest(&disk, Path::new(DIR), &manifest);
        written(&manifest, &[&[1], &[1, 1], &[3], &[1, 1], &[2, 1], &[1], &[2], &[1, 1], &[1]], 100, &disk);
        let lines = places(&disk);
        let forked = Arc::new(Memory::default());
        for (path, bytes) in disk.files().into_iter().filter(|(path, _)| *path <= segment_path(Path::new(DIR), 8)) {
            forked.put(&path, bytes);
        }
        let common = places(&forked).len();
        written(&manifest, &[&[1], &[2]], 900, &forked);
        let fork = places(&forked).into_iter().skip(common).map(|place| place.line).collect();
        History { manifest, lines, fork }
    })
}

fn places(disk: &Memory) -> Vec<Place> {
    let mut places = Vec::new();
    for (path, bytes) in disk.files() {
        let Some(first) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl")?.parse().ok()) else { continue };
        let mut offset = 0;
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = text.strip_suffix(b"\n").unwrap_or(text).to_vec();
            let event = line::decode(&line).expect("the writer's own line");
            let session = event.session_id().map(str::to_owned).zip(event.session_seq());
            places.push(Place { segment: Seq::new(first), offset, hash: event.event_hash, id: event.id, session, line: line.clone() });
            offset += text.len() as u64;
        }
    }
    places
}
