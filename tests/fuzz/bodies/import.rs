//! The importers: whatever a transcript holds, it is read to its end or to a typed error, in the same way each time, and
//! what was read of a JSONL transcript is written back to its very bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use counterfoil::import::*;
use counterfoil::*;

use super::Input;
use super::history::{DIR, Known, options, put_manifest};
use super::memory::Memory;

const NAMES: [&str; 6] = ["a.jsonl", "run.traj", "b.json", "…\u{1}\"\\.jsonl", "rollout-1.jsonl", "noext"];

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (which, name, bound) = (input.byte(), input.byte(), input.byte());
    let folder = std::env::temp_dir().join(format!("counterfoil-import-{}-{:?}", std::process::id(), std::thread::current().id()));
    let folder = Folder(folder);
    std::fs::create_dir_all(&folder.0).expect("a folder of its own");
    let path = folder.0.join(NAMES[usize::from(name) % NAMES.len()]);
    std::fs::write(&path, input.0).expect("a file of its own");
    let format = Format::ALL.into_iter().nth(usize::from(which) % 8);
    let mut settings = Settings { format, skip_bad: bound & 1 == 0, ..Settings::default() };
    if bound & 2 != 0 {
        settings.line_bytes_max = 1 << (bound >> 2).clamp(4, 15);
    }
    let read = read(&path, &settings);
    assert!(read == self::read(&path, &settings), "the second time is like the first");
    let Ok((format, drafts, error)) = read else { return };
    if settings.skip_bad {
        assert_eq!(error, None, "a bad line is passed over");
    }
    if format.is_jsonl() && error.is_none() {
        let exact = exported(&drafts, input.0);
        if data.len().is_multiple_of(16) && settings.line_bytes_max > 1 << 16 {
            through_a_ledger(&drafts, input.0, exact, &folder.0.join("out"));
        }
    }
    if error.is_some() {
        let skipping = Settings { skip_bad: true, ..settings };
        let (_, others, _) = self::read(&path, &skipping).expect("it could be opened before");
        assert_eq!(drafts[..], others[..drafts.len()], "what comes before a bad line is the same");
    }
}

type Read = (Format, Vec<Draft>, Option<String>);

/// The drafts, and the bad line that was the end of them.
fn read(path: &Path, settings: &Settings) -> Result<Read, String> {
    let mut reader = TranscriptReader::open(path, settings).map_err(|error| {
        assert!(matches!(error, ImportError::NotATrajectory { .. } | ImportError::BrokenChain { .. }), "{error}");
        error.to_string()
    })?;
    let (mut drafts, mut ids) = (Vec::new(), std::collections::HashSet::new());
    let error = loop {
        match reader.next() {
            Ok(Some(draft)) => {
                assert!(ids.insert(draft.given_id()), "an id comes twice");
                drafts.push(draft);
            }
            Ok(None) => break None,
            Err(error) => {
                assert!(error.is_bad_line(), "{error}");
                break Some(error.to_string());
            }
        }
    };
    assert!(matches!(reader.next(), Ok(None)), "nothing follows the end");
    for draft in &drafts {
        let limits = Limits { line_bytes_max: settings.line_bytes_max.max(1 << 16) + (64 << 10), redactor: None };
        draft.clone().check(&limits).expect("a draft can be recorded");
    }
    Ok((reader.format(), drafts, error))
}

/// Whether the layout note makes the file again; where it says that it is complete, it does.
fn exported(drafts: &[Draft], file: &[u8]) -> bool {
    let Some((note, lines)) = drafts.split_last() else {
        assert!(file.is_empty(), "only an empty file has no draft");
        return true;
    };
    let note = LayoutNote::from_payload(note.payload_bytes()).expect("the last draft is the layout note");
    let payloads = lines.iter().filter(|draft| !draft.tags().iter().any(|tag| tag == TAG_SKIPPED)).map(Draft::payload_bytes);
    let mut out = Vec::new();
    let exact = rebuild(&note, payloads, &mut out).expect("memory does not fail");
    assert_eq!(exact, out == file, "it knows whether it is exact");
    assert!(exact || !note.complete, "a complete layout makes the file again");
    exact
}

fn through_a_ledger(drafts: &[Draft], file: &[u8], exact: bool, out: &Path) {
    let dir = Path::new(DIR);
    let disk = Arc::new(Memory::default());
    let manifest = Manifest::new(LedgerId::from_u128(5), Timestamp::from_micros(0));
    put_manifest(&disk, dir, &manifest);
    let mut options = options(&disk, 1);
    options.line_bytes_max = 1 << 20;
    let genesis = Watermark { seq: Seq::ZERO, event_hash: manifest.genesis(), segment: Seq::FIRST, offset: 0 };
    let (mut writer, _) = Writer::open(dir, &manifest, Some(genesis), &mut Known(Some(Seq::ZERO)), &options).expect("it opens");
    for draft in drafts {
        let checked = draft.clone().check(&options.limits()).expect("a draft can be recorded");
        let staged = writer.stage(&[checked], &Conditions::none(), false, &mut Known(Some(Seq::ZERO)));
        let Ok(Stage::Staged(staged)) = staged else { panic!("{staged:?}") };
        assert!(staged.receipts.iter().all(|receipt| !receipt.duplicate));
        writer.flush().expect("memory does not fail");
    }
    let reader = LedgerReader::open(dir, &options).expect("it opens");
    assert!(verify(&reader, &mut |_| ()).expect("memory does not fail").is_clean());
    let exported = export_originals(&reader, out).expect("it is written back");
    assert_eq!(exported.len(), usize::from(!drafts.is_empty()));
    for exported in exported {
        assert_eq!(exported.path.parent(), Some(out), "no name leads out of the folder");
        let written = std::fs::read(&exported.path).expect("the file is there");
        assert_eq!((exported.exact, written == file), (exact, exact));
    }
}
