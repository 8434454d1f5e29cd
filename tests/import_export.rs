//! Goal: every imported JSONL transcript is written back under its own name, exactly, and nothing that is there
//! already is ever overwritten or reached through a name or link.
//! Method: ledgers with interleaved, unfinished, grown and hostile imports are exported to temporary folders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod import_support;

use std::path::Path;

use counterfoil::import::{ExportedFile, ImportError, Settings, TAG_LAYOUT, export_originals};
use counterfoil::{Draft, EventType, Source};
use import_support::*;

const JSONL: [&str; 4] = ["claude.jsonl", "codex.jsonl", "openhands.jsonl", "other.jsonl"];

fn read(exported: &ExportedFile) -> Vec<u8> {
    std::fs::read(&exported.path).unwrap()
}

fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn interleaved_imports_come_back_exactly() {
    let all: Vec<Vec<Draft>> =
        JSONL.iter().chain(&["run.traj"]).map(|name| drafts(&fixture(name), &Settings::default()).unwrap()).collect();
    let mut ledger = TestLedger::new();
    for at in 0..all.iter().map(Vec::len).max().unwrap() {
        for drafts in &all {
            if let Some(draft) = drafts.get(at) {
                ledger.append(draft);
                ledger.append(draft);
            }
        }
    }
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("not/there/yet");
    let exported = export_originals(&ledger.reader(), &to).unwrap();
    assert_eq!(exported.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), JSONL, "and no trajectory");
    for file in &exported {
        let original = std::fs::read(fixture(&file.name)).unwrap();
        assert!(read(file) == original && file.exact, "{}", file.name);
        assert_eq!((file.bytes, file.lines), (original.len() as u64, original.iter().filter(|byte| **byte == b'\n').count() as u64));
    }
    assert_eq!(export_originals(&ledger.reader(), &to).unwrap(), exported, "the same files may be there already");
    assert_eq!(entries(&to), JSONL, "nothing temporary stays");
}

#[test]
fn more_transcripts_than_open_files_and_one_name_for_all() {
    let mut ledger = TestLedger::new();
    let files: Vec<String> = (0..70).map(|n| format!("{{\"n\":{n}}}\r\n{{\"n\":\"x\"}}")).collect();
    let all: Vec<Vec<Draft>> = files.iter().map(|file| drafts_of("log.jsonl", file.as_bytes(), &Settings::default()).unwrap()).collect();
    for at in 0..3 {
        for drafts in &all {
            ledger.append(&drafts[at]);
        }
    }
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert_eq!(exported.len(), 70);
    assert_eq!((exported[0].name.as_str(), exported[69].name.as_str()), ("log.jsonl", "log.70.jsonl"));
    for (file, original) in exported.iter().zip(&files) {
        assert!(read(file) == original.as_bytes() && file.exact);
    }
}

#[test]
fn the_latest_layout_counts() {
    let mut ledger = TestLedger::new();
    ledger.append_all(&drafts_of("log.jsonl", b"{\"n\":1}\r\n{\"n\":2}", &Settings::default()).unwrap());
    let grown = b"{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}";
    ledger.append_all(&drafts_of("log.jsonl", grown, &Settings::default()).unwrap());
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert_eq!((exported.len(), exported[0].name.as_str(), exported[0].exact), (1, "log.jsonl", true));
    assert_eq!(read(&exported[0]), grown);
}

#[test]
fn other_jsonl_that_begins_alike_is_told_apart_by_name() {
    let mut ledger = TestLedger::new();
    let files = [("a.jsonl", "{\"version\":1}\n{\"n\":1}\n"), ("b.jsonl", "{\"version\":1}\n{\"n\":2}\n")];
    for (name, text) in files {
        ledger.append_all(&drafts_of(name, text.as_bytes(), &Settings::default()).unwrap());
    }
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert_eq!(exported.len(), 2);
    for (file, (name, text)) in exported.iter().zip(files) {
        assert!(file.name == name && file.exact && read(file) == text.as_bytes());
    }
}

#[test]
fn an_unfinished_import_is_exported_as_far_as_it_came() {
    let drafts = drafts(&fixture("codex.jsonl"), &Settings::default()).unwrap();
    let mut ledger = TestLedger::new();
    ledger.append_all(&drafts[..5]);
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert_eq!((exported.len(), exported[0].exact, exported[0].lines), (1, false, 5));
    assert!(std::fs::read(fixture("codex.jsonl")).unwrap().starts_with(&read(&exported[0])));
    // The import goes on where it was, and the export is exact then.
    ledger.append_all(&drafts);
    let again = tempfile::tempdir().unwrap();
    assert!(export_originals(&ledger.reader(), again.path()).unwrap()[0].exact);
}

#[test]
fn what_is_there_is_not_overwritten() {
    let mut ledger = TestLedger::new();
    ledger.append_all(&drafts(&fixture("other.jsonl"), &Settings::default()).unwrap());
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("other.jsonl");
    std::fs::write(&path, "mine").unwrap();
    let error = export_originals(&ledger.reader(), out.path()).unwrap_err();
    assert!(matches!(&error, ImportError::Exists { path: named } if *named == path), "{error}");
    assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(out.path()).len()), (b"mine".as_slice(), 1));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(export_originals(&ledger.reader(), out.path()), Err(ImportError::Exists { .. })));
}

#[cfg(unix)]
#[test]
fn links_are_not_followed() {
    let mut ledger = TestLedger::new();
    ledger.append_all(&drafts(&fixture("other.jsonl"), &Settings::default()).unwrap());
    let out = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let targets = [elsewhere.path().join("missing"), elsewhere.path().join("same")];
    std::fs::copy(fixture("other.jsonl"), &targets[1]).unwrap();
    for target in &targets {
        let link = out.path().join("other.jsonl");
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert!(matches!(export_originals(&ledger.reader(), out.path()), Err(ImportError::Exists { .. })));
        assert_eq!(std::fs::read_link(&link).unwrap(), *target);
        std::fs::remove_file(&link).unwrap();
    }
    assert_eq!(entries(elsewhere.path()), ["same"]);
    // Nor where the file is written before it has its name.
    let transcript = export_originals(&ledger.reader(), out.path()).unwrap()[0].transcript.clone();
    std::fs::remove_file(out.path().join("other.jsonl")).unwrap();
    let temp = out.path().join(format!(".counterfoil-{}-{transcript}.tmp", std::process::id()));
    std::os::unix::fs::symlink(&targets[1], &temp).unwrap();
    let error = export_originals(&ledger.reader(), out.path()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("creating {}: ", temp.display())), "{error}");
    assert!(temp.is_symlink() && std::fs::read(&targets[1]).unwrap() == std::fs::read(fixture("other.jsonl")).unwrap());
}

#[test]
fn names_never_lead_out_of_the_folder() {
    let hostile =
        ["../evil.jsonl", "/tmp/evil.jsonl", "..", ".", "", "a/b.jsonl", "a\\b.jsonl", "C:evil", "nul\\u0000.jsonl", &"n".repeat(300)];
    for name in hostile {
        let mut ledger = TestLedger::new();
        let drafts = drafts_of("good.jsonl", b"{\"n\":1}\n", &Settings::default()).unwrap();
        ledger.append_all(&drafts[..1]);
        let json = drafts[1].payload_bytes().replace("good.jsonl", &name.replace("a\\b", "a\\\\b"));
        // The same tags, source and type, as a hostile runtime could write them.
        ledger.append(&drafts[1].clone().payload_json(json).unwrap());
        let out = tempfile::tempdir().unwrap();
        let to = out.path().join("inner");
        let exported = export_originals(&ledger.reader(), &to).unwrap();
        assert_eq!(exported[0].name, format!("{}.jsonl", exported[0].transcript), "{name}");
        assert_eq!((entries(out.path()).len(), entries(&to).len()), (1, 1), "{name}");
    }
}

#[test]
fn notes_that_no_import_wrote_do_not_count() {
    let mut ledger = TestLedger::new();
    let drafts = drafts_of("good.jsonl", b"{\"n\":1}\r\n", &Settings::default()).unwrap();
    ledger.append_all(&drafts);
    let tag = {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("good.jsonl");
        std::fs::write(&path, b"{\"n\":1}\r\n").unwrap();
        counterfoil::import::TranscriptReader::open(&path, &Settings::default()).unwrap().tag().to_owned()
    };
    let lf = drafts[1].payload_bytes().replace(r#""n":1,"end":"\r\n""#, r#""n":1,"end":"\n""#);
    assert_ne!(lf, drafts[1].payload_bytes());
    let of_another = lf.replace(r#""format":"jsonl""#, r#""format":"codex""#);
    for (source, payload) in [(Source::User, lf), (Source::Runtime, of_another), (Source::Runtime, "7".to_owned())] {
        let forged = Draft::new(EventType::SYSTEM_NOTE, source).tag(TAG_LAYOUT).tag("format:jsonl").tag(&tag);
        ledger.append(&forged.payload_json(payload).unwrap());
    }
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert!(exported[0].exact);
    assert_eq!(read(&exported[0]), b"{\"n\":1}\r\n");
}

#[test]
fn a_ledger_without_transcripts_exports_nothing() {
    let mut ledger = TestLedger::new();
    ledger.append(&Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).tag("transcript:short").tag("format:jsonl"));
    let out = tempfile::tempdir().unwrap();
    assert!(export_originals(&ledger.reader(), out.path()).unwrap().is_empty());
}
