//! Shared by the import tests: a ledger without a mirror, and short ways to read transcripts.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use counterfoil::import::{Format, ImportError, LayoutNote, Settings, TAG_LAYOUT, TAG_SKIPPED, TranscriptReader};
use counterfoil::{CheckedDraft, ContentDigest, Draft, EventId, Options, Timestamp};
use counterfoil::{Conditions, LedgerReader, Lookup, LookupError, Manifest, Stage, Stored, Writer};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transcripts").join(name)
}

pub fn skipping() -> Settings {
    Settings { skip_bad: true, ..Settings::default() }
}

/// All drafts of a transcript.
pub fn drafts(path: &Path, settings: &Settings) -> Result<Vec<Draft>, ImportError> {
    let mut reader = TranscriptReader::open(path, settings)?;
    let mut drafts = Vec::new();
    while let Some(draft) = reader.next()? {
        drafts.push(draft);
    }
    assert!(reader.next()?.is_none(), "the end stays the end");
    Ok(drafts)
}

/// A file in a folder of its own, and its drafts.
pub fn drafts_of(name: &str, bytes: &[u8], settings: &Settings) -> Result<Vec<Draft>, ImportError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    drafts(&path, settings)
}

pub fn checked(draft: &Draft) -> CheckedDraft {
    draft.clone().check(&Options::default().limits()).unwrap()
}

/// What makes a draft the same as another one: id, content, time.
pub fn key(draft: &Draft) -> (EventId, ContentDigest, Option<Timestamp>) {
    let checked = checked(draft);
    (checked.id().unwrap(), checked.content(), checked.observed_at())
}

pub fn keys(drafts: &[Draft]) -> Vec<(EventId, ContentDigest, Option<Timestamp>)> {
    drafts.iter().map(key).collect()
}

pub fn has_tag(draft: &Draft, tag: &str) -> bool {
    format!("{draft:?}").contains(&format!("\"{tag}\""))
}

pub fn is_line(draft: &Draft) -> bool {
    !has_tag(draft, TAG_LAYOUT) && !has_tag(draft, TAG_SKIPPED)
}

pub fn lines(drafts: &[Draft]) -> Vec<Draft> {
    drafts.iter().filter(|draft| is_line(draft)).cloned().collect()
}

pub fn note(drafts: &[Draft]) -> LayoutNote {
    let draft = drafts.last().unwrap();
    assert!(has_tag(draft, TAG_LAYOUT));
    LayoutNote::from_payload(draft.payload_bytes()).unwrap()
}

/// The file that drafts make, and whether it is exact.
pub fn rebuilt(drafts: &[Draft]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let exact = counterfoil::import::rebuild(&note(drafts), lines(drafts).iter().map(Draft::payload_bytes), &mut out).unwrap();
    (out, exact)
}

pub fn jsonl() -> Settings {
    Settings { format: Some(Format::Jsonl), ..Settings::default() }
}

struct NoMirror;

impl Lookup for NoMirror {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        Ok(None)
    }
    fn session_seq(&mut self, _: &str) -> Result<Option<u64>, LookupError> {
        Ok(None)
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(None)
    }
}

/// A ledger in a temporary folder, without mirror.
pub struct TestLedger {
    pub dir: tempfile::TempDir,
    options: Options,
    writer: Writer,
}

impl TestLedger {
    pub fn new() -> TestLedger {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::new(counterfoil::LedgerId::from_u128(7), Timestamp::EPOCH);
        let mut json = serde_json::to_vec(&manifest).unwrap();
        json.push(b'\n');
        std::fs::write(dir.path().join("ledger.json"), json).unwrap();
        let mut options = Options::default();
        options.segment_bytes_max = 64 << 10; // several segments, even for small transcripts
        let (writer, _) = Writer::open(dir.path(), &manifest, None, &mut NoMirror, &options).unwrap();
        TestLedger { dir, options, writer }
    }

    /// Appends a draft; whether it was new.
    pub fn append(&mut self, draft: &Draft) -> bool {
        let draft = draft.clone().check(&self.options.limits()).unwrap();
        loop {
            match self.writer.stage(std::slice::from_ref(&draft), &Conditions::none(), false, &mut NoMirror).unwrap() {
                Stage::Staged(staged) => return !staged.receipts[0].duplicate,
                Stage::GroupFull => drop(self.writer.flush().unwrap()),
            }
        }
    }

    /// Appends drafts; how many were new.
    pub fn append_all(&mut self, drafts: &[Draft]) -> usize {
        let mut new = 0;
        for (at, draft) in drafts.iter().enumerate() {
            new += usize::from(self.append(draft));
            if at % 50 == 0 {
                self.writer.flush().unwrap();
            }
        }
        self.writer.flush().unwrap();
        new
    }

    pub fn reader(&mut self) -> LedgerReader {
        self.writer.flush().unwrap();
        LedgerReader::open(self.dir.path(), &self.options).unwrap()
    }
}
