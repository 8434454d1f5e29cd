//! Goal: a bad line is named with file, line and reason, and stops its file, what came before it kept; with
//! skip_bad it is noted, and reading goes on.
//! Method: each kind of damage that real transcripts show, in the middle of a good file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod import_support;

use std::collections::HashSet;

use counterfoil::import::{BadLine, Format, ImportError, Settings, TAG_SKIPPED, TranscriptReader};
use import_support::*;
use proptest::prelude::*;

fn damages() -> Vec<(&'static [u8], BadLine)> {
    vec![
        (b"{\"a\":1}{\"b\":2}", BadLine::Fused { at: 7 }),
        (b"{\"a\":1} {\"b\":2}", BadLine::Fused { at: 8 }),
        (b"{\"a\":1}x", BadLine::Fused { at: 7 }),
        (b"1 2", BadLine::Fused { at: 2 }),
        (b"{\"a\":", BadLine::Incomplete),
        (b"{\"a\":\"tex", BadLine::Incomplete),
        (b"[[[", BadLine::Incomplete),
        (b"\0\0\0\0", BadLine::Nul { at: 0, count: 4 }),
        (b"{\"a\":\0\0\"\"}", BadLine::Nul { at: 5, count: 2 }),
        (b"{\"a\":\"\xff\"}", BadLine::NotUtf8 { at: 6 }),
        ("\u{feff}{\"a\":1}".as_bytes(), BadLine::ByteOrderMark),
        (b"ok", BadLine::NotJson("expected value at line 1 column 1".to_owned())),
        (b"{a:1}", BadLine::NotJson("key must be a string at line 1 column 2".to_owned())),
        (b"{\"a\":01}", BadLine::NotJson("invalid number at line 1 column 7".to_owned())),
    ]
}

#[test]
fn a_bad_line_stops_its_file() {
    for (damage, expected) in damages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        std::fs::write(&path, [b"{\"n\":1}\n\n", damage, b"\n{\"n\":3}\n"].concat()).unwrap();
        let mut reader = TranscriptReader::open(&path, &Settings::default()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().payload_bytes(), "{\"n\":1}");
        match reader.next().unwrap_err() {
            ImportError::BadLine { path: named, line: 3, reason } => {
                assert_eq!(named, path);
                assert_eq!(reason, expected, "{}", String::from_utf8_lossy(damage));
            }
            error => panic!("{error}"),
        }
        assert!(reader.next().unwrap().is_none(), "it never restarts, and writes no layout note");
        assert!(reader.next().unwrap().is_none());
    }
}

#[test]
fn an_error_says_where_and_what_next() {
    let error = drafts_of("s.jsonl", b"{\"a\":1}\n{\"a\":1}{}\n", &Settings::default()).unwrap_err();
    assert!(error.is_bad_line());
    let text = error.to_string();
    assert!(
        text.ends_with(
            "/s.jsonl, line 2: a second value begins at byte 7: records fused into one line, or bytes after the record; \
         mend the line, or import with --skip-bad to note it and go on"
        ),
        "{text}"
    );
}

#[test]
fn skipped_lines_are_noted_and_come_back_in_the_export() {
    let mut file = b"{\"n\":0}\r\n".to_vec();
    for (damage, _) in damages() {
        file.extend_from_slice(&[b" ", damage, b"\t\n{\"n\":1}\n"].concat());
    }
    file.extend_from_slice(b"{\"n\":2}{\"n\":");
    let drafts = drafts_of("s.jsonl", &file, &skipping()).unwrap();
    let skipped: Vec<_> = drafts.iter().filter(|draft| has_tag(draft, TAG_SKIPPED)).collect();
    assert_eq!(skipped.len(), damages().len() + 1);
    assert_eq!(lines(&drafts).len(), damages().len() + 1);
    assert!(skipped.iter().all(|draft| draft.event_type().as_str() == "system_note.v1"));
    let first: serde_json::Value = serde_json::from_str(skipped[0].payload_bytes()).unwrap();
    let first = &first["import_skipped"];
    assert_eq!((first["file"].as_str(), first["line"].as_u64(), first["bytes"].as_u64()), (Some("s.jsonl"), Some(2), Some(16)));
    assert!(first["reason"].as_str().unwrap().contains("fused"), "{first}");
    assert_eq!(drafts.iter().map(|draft| draft.given_id()).collect::<HashSet<_>>().len(), drafts.len());
    assert_eq!(rebuilt(&drafts), (file, true));
}

#[test]
fn a_partial_last_line_that_is_completed_later_is_then_recorded() {
    let part = drafts_of("s.jsonl", b"{\"n\":1}\n{\"n\":", &skipping()).unwrap();
    let whole = drafts_of("s.jsonl", b"{\"n\":1}\n{\"n\":2}\n", &skipping()).unwrap();
    let mut ledger = TestLedger::new();
    assert_eq!(ledger.append_all(&part), 3);
    assert_eq!(ledger.append_all(&whole), 2, "the line and the new layout");
    let out = tempfile::tempdir().unwrap();
    let exported = counterfoil::import::export_originals(&ledger.reader(), out.path()).unwrap();
    assert!(exported[0].exact);
    assert_eq!(std::fs::read(&exported[0].path).unwrap(), b"{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn a_line_over_the_bound_is_bad_and_is_not_held() {
    let settings = Settings { line_bytes_max: 4096, ..skipping() };
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(300_000));
    let file = format!("{{\"n\":1}}\n{long}\n{{\"n\":2}}\n");
    let drafts = drafts_of("s.jsonl", file.as_bytes(), &settings).unwrap();
    assert_eq!(lines(&drafts).len(), 2);
    let skipped: serde_json::Value = serde_json::from_str(drafts[1].payload_bytes()).unwrap();
    assert_eq!(skipped["import_skipped"]["reason"], format!("it has {} bytes, but at most 4096 are read", long.len()));
    assert!(!note(&drafts).complete);
    let (bytes, exact) = rebuilt(&drafts);
    assert_eq!((bytes.as_slice(), exact), (b"{\"n\":1}\n{\"n\":2}\n".as_slice(), false));
    // Also where what was kept of it is white space.
    let spaces = format!("{}{{\"n\":1}}\n", " ".repeat(5000));
    assert!(drafts_of("s.jsonl", spaces.as_bytes(), &Settings { skip_bad: false, ..settings.clone() }).unwrap_err().is_bad_line());
    // At the bound itself it is good.
    let line = format!("\"{}\"", "x".repeat(4094));
    assert_eq!(drafts_of("s.jsonl", line.as_bytes(), &settings).unwrap()[0].payload_bytes(), line);
}

#[test]
fn a_large_bad_line_is_noted_but_not_kept() {
    let nul = vec![0u8; 70 << 10];
    let file = [b"{\"n\":1}\n", nul.as_slice(), b"\n{\"n\":2}\n"].concat();
    let drafts = drafts_of("s.jsonl", &file, &skipping()).unwrap();
    assert_eq!((lines(&drafts).len(), note(&drafts).complete), (2, false));
    assert!(!rebuilt(&drafts).1);
}

#[test]
fn a_trajectory_that_is_damaged_is_named() {
    let whole = std::fs::read(fixture("run.traj")).unwrap();
    let settings = Settings { format: Some(Format::SweAgent), ..Settings::default() };
    let error = drafts_of("r.traj", &whole[..whole.len() / 2], &settings).unwrap_err();
    assert!(matches!(error, ImportError::NotATrajectory { .. }), "{error}");
    // Told from its name where its content is cut: not line by line.
    let error = drafts_of("r.traj", &whole[..whole.len() / 2], &Settings::default()).unwrap_err();
    assert!(matches!(error, ImportError::NotATrajectory { .. }), "{error}");
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let names = ["claude.jsonl", "codex.jsonl", "openhands.jsonl", "other.jsonl", "run.traj"];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..8);
    (prop::sample::select(names.to_vec()), edits).prop_map(|(name, edits)| {
        let mut file = std::fs::read(fixture(name)).unwrap();
        for (index, edit, byte) in edits {
            if file.is_empty() {
                break;
            }
            let at = index.index(file.len());
            match edit {
                0 => file[at] ^= 1 << (byte % 8),
                1 => drop(file.remove(at)),
                2 => file.insert(at, byte),
                _ => file.truncate(at.max(1)),
            }
        }
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_is_an_error_or_comes_back(file in damaged(), format in prop::sample::select([None].into_iter().chain(Format::ALL.map(Some)).collect::<Vec<_>>())) {
        let settings = Settings { format, ..skipping() };
        match drafts_of("s.jsonl", &file, &settings) {
            Ok(drafts) if drafts.iter().any(|draft| has_tag(draft, counterfoil::import::TAG_LAYOUT)) => {
                prop_assert!(rebuilt(&drafts) == (file, true));
                let mut ledger = TestLedger::new();
                prop_assert_eq!(ledger.append_all(&drafts), drafts.len());
            }
            Ok(drafts) => prop_assert!(file.is_empty() || drafts.iter().all(is_line) || format == Some(Format::SweAgent)),
            Err(error) => prop_assert!(matches!(error, ImportError::NotATrajectory { .. } | ImportError::BrokenChain { .. }), "{}", error),
        }
    }
}
