//! Goal: a ledger that `crtx-ledger` has written is adopted whole: what its rows say is kept, it comes back byte for byte,
//! importing it again adds nothing, and once it has grown only its new rows.
//!
//! Method: ledgers are written by that crate itself, signed ones too, adopted into stores, compared and exported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;
mod cortex_support;

use std::fs;
use std::path::Path;

use chrono::DateTime;
use common::*;
use cortex_support::*;
use counterfoil::import::{ImportError, LayoutNote, Settings, TAG_REDACTED, TAG_REPEATED_ID, export_originals};
use counterfoil::*;

/// A store in a folder of its own, beside the ledger that it adopts.
fn store_in(temp: &Path) -> (std::path::PathBuf, Store, Options) {
    let (dir, options) = (temp.join("store"), options());
    let store = Store::open(&dir, &options).unwrap().0;
    (dir, store, options)
}

fn exported(dir: &Path, out: &Path) -> (Vec<u8>, bool) {
    let reader = LedgerReader::open(dir, &Options::default()).unwrap();
    let _ = fs::remove_dir_all(out);
    let files = export_originals(&reader, out).unwrap();
    assert_eq!((files.len(), files[0].name.as_str()), (1, "events.jsonl"));
    (fs::read(&files[0].path).unwrap(), files[0].exact)
}

fn records(dir: &Path) -> Vec<EventRecord> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut records = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        records.push(event.to_record());
    }
    records
}

fn notes(dir: &Path) -> Vec<LayoutNote> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut notes = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        if event.event_type == "system_note.v1" {
            notes.push(LayoutNote::from_payload(event.payload().unwrap()).unwrap());
        }
    }
    notes
}

#[test]
fn rows_keep_what_they_say_and_the_file_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, (0..31).map(event), 3);
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok());
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 31, notes: 1, duplicates: 0 });
    store.close().unwrap();
    open_is_clean(&dir, &options);

    let file = fs::read_to_string(&path).unwrap();
    let mut reader = LedgerReader::open(&dir, &options).unwrap().lines_from(Seq::FIRST).unwrap();
    for (number, line) in file.lines().enumerate() {
        let (_, ours) = reader.next_event().unwrap().unwrap();
        let theirs = event(number as u64);
        assert_eq!(ours.payload(), Some(line));
        assert_eq!(ours.id.to_string(), theirs.id.to_string());
        assert_eq!(ours.event_type, theirs.event_type.wire_str());
        assert_eq!(ours.source_json, serde_json::to_string(&theirs.source).unwrap());
        assert_eq!(ours.trace_id.map(|id| id.to_string()), theirs.trace_id.map(|id| id.to_string()));
        assert_eq!(ours.session_id(), theirs.session_id.as_deref());
        assert_eq!(ours.domain_tags()[2..], theirs.domain_tags);
        assert_eq!(ours.observed_at, Timestamp::from(theirs.observed_at));
    }
    let [note] = &notes(&dir)[..] else { panic!("one note") };
    let cortex = note.cortex.as_ref().unwrap();
    let log = cortex_ledger::JsonlLog::open(&path).unwrap();
    assert_eq!(Some(cortex.head.as_str()), log.head());
    assert_eq!((cortex.rows, cortex.signed, cortex.repeated_ids, cortex.left_out), (31, 10, 0, 0));
    assert_eq!(note.blake3, blake3::hash(file.as_bytes()).to_hex().as_str());
    assert_eq!((note.format.as_str(), note.lines, note.bytes), ("cortex", 31, file.len() as u64));
    assert_eq!(note.transcript, event(0).id.to_string());
    assert_eq!(exported(&dir, &temp.path().join("out")), (file.into_bytes(), true));
}

#[test]
fn again_adds_nothing_and_a_grown_one_its_new_rows() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, (0..7).map(event), 0);
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 7, notes: 1, duplicates: 0 });
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 8 });
    for grown in [9, 10] {
        let had = fs::read_to_string(&path).unwrap().lines().count() as u64;
        append(&path, (had..grown).map(event), 2);
        assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: grown - had, notes: 1, duplicates: had });
        assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 0, duplicates: grown + 1 });
    }
    // Moved elsewhere it is the same ledger.
    let moved = temp.path().join("moved");
    fs::create_dir(&moved).unwrap();
    fs::rename(&path, moved.join("events.jsonl")).unwrap();
    assert_eq!(adopt(&mut store, &moved.join("events.jsonl")).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 11 });
    store.close().unwrap();
    open_is_clean(&dir, &options);
    let heads: Vec<u64> = notes(&dir).iter().map(|note| note.cortex.as_ref().unwrap().rows).collect();
    assert_eq!(heads, [7, 9, 10]);
    assert_eq!(exported(&dir, &temp.path().join("out")), (fs::read(moved.join("events.jsonl")).unwrap(), true));
}

#[test]
fn an_import_that_was_stopped_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let path = ledger(temp.path(), 9);
    let mut reader = counterfoil::import::TranscriptReader::open(&path, &Default::default()).unwrap();
    for _ in 0..4 {
        store.append(reader.next().unwrap().unwrap()).unwrap();
    }
    drop(reader);
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 5, notes: 1, duplicates: 4 });
    store.close().unwrap();
    open_is_clean(&dir, &options);
    assert_eq!(exported(&dir, &temp.path().join("out")), (fs::read(&path).unwrap(), true));
}

#[test]
fn line_ends_blank_lines_and_a_last_line_without_end_are_kept() {
    let rows = rows((0..4).map(event));
    let file = format!("\n{}\r\n  {}\t\n\n{}\n{}", rows[0], rows[1], rows[2], rows[3]);
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, _) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    fs::write(&path, &file).unwrap();
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 4, notes: 1, duplicates: 0 });
    assert_eq!(exported(&dir, &temp.path().join("out")), (file.clone().into_bytes(), true));
    // The last line gets its end: that is growth, without a row.
    fs::write(&path, file.clone() + "\n").unwrap();
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 1, duplicates: 4 });
    assert_eq!(exported(&dir, &temp.path().join("out")), ((file + "\n").into_bytes(), true));
}

#[test]
fn an_id_that_comes_again_is_recorded_under_one_of_its_own() {
    let mut events: Vec<_> = (0..6).map(event).collect();
    (events[2].id, events[4].id) = (events[1].id, events[1].id);
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, events, 0);
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok(), "that crate does not mind");
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 6, notes: 1, duplicates: 0 });
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 7 });
    store.close().unwrap();
    open_is_clean(&dir, &options);
    assert_eq!(notes(&dir)[0].cortex.as_ref().unwrap().repeated_ids, 2);
    let records = records(&dir);
    let own: Vec<bool> = records.iter().map(|record| record.domain_tags.iter().any(|tag| tag == TAG_REPEATED_ID)).collect();
    assert_eq!(own, [false, false, true, false, true, false, false]);
    assert_eq!(exported(&dir, &temp.path().join("out")), (fs::read(&path).unwrap(), true));
}

#[test]
fn what_a_header_cannot_hold_stays_in_the_payload() {
    let mut events: Vec<_> = (0..3).map(event).collect();
    events[0].domain_tags =
        ["", "import-layout", "transcript:0123456789abcdef", "format:jsonl", "kept", "import-skipped"].map(str::to_owned).to_vec();
    events[0].domain_tags.push("x".repeat(129));
    events[1].domain_tags = (0..70).map(|n| format!("tag {n}")).collect();
    events[1].session_id = Some("s".repeat(513));
    events[2].session_id = Some(String::new());
    events[2].observed_at = DateTime::from_timestamp(253_402_300_800, 0).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, events, 0);
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 3, notes: 1, duplicates: 0 });
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 4 });
    store.close().unwrap();
    open_is_clean(&dir, &options);
    let records = records(&dir);
    assert_eq!(records[0].domain_tags[2..], ["kept"]);
    assert_eq!((records[1].domain_tags.len(), &records[1].session_id, &records[2].session_id), (62, &None, &None));
    assert_eq!(notes(&dir)[0].cortex.as_ref().unwrap().left_out, 6 + 10 + 1 + 1 + 1);
    assert_eq!(exported(&dir, &temp.path().join("out")), (fs::read(&path).unwrap(), true));
}

#[test]
fn the_boundary_of_a_schema_and_rows_behind_it() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, _) = store_in(temp.path());
    let path = ledger(temp.path(), 3);
    let mut log = cortex_ledger::JsonlLog::open(&path).unwrap();
    let payload = cortex_core::SchemaMigrationV1ToV2Payload::new(log.head().unwrap(), "script", None, "fixture");
    log.append_schema_migration_v1_to_v2(payload, &cortex_ledger::schema_migration_v1_to_v2_policy_decision_test_allow()).unwrap();
    append(&path, [cortex_core::Event { schema_version: 2, ..event(4) }], 0);
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok());
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 5, notes: 1, duplicates: 0 });
    assert_eq!(exported(&dir, &temp.path().join("out")), (fs::read(&path).unwrap(), true));
}

fn refused(store: &mut Store, dir: &Path, path: &Path) -> String {
    let before = state(store, dir);
    let error = adopt(store, path).unwrap_err();
    assert!(matches!(error, ImportError::NotAsAdopted { .. }), "{error}");
    assert_eq!(state(store, dir), before);
    error.to_string().replace(&path.display().to_string(), "<ledger>")
}

#[test]
fn a_ledger_that_is_no_longer_what_was_adopted_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, _) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    let whole = rows((0..8).map(event));
    for adopted in [5, 8] {
        fs::write(&path, text_of(&whole[..adopted])).unwrap();
        adopt(&mut store, &path).unwrap();
    }
    fs::write(&path, text_of(&whole[..7])).unwrap();
    insta::assert_snapshot!(refused(&mut store, &dir, &path), @"<ledger> is not the ledger that was adopted up to seq 10: it has 7 rows, but 8 were adopted: it was shortened; nothing of the file was recorded; `counterfoil export --original DIR` writes what was adopted, to compare");

    // Rewritten from its fourth row on, with a chain that verifies, and longer than it was.
    let other = |number: u64| cortex_core::Event { payload: serde_json::json!("another"), ..event(number) };
    let forged = rows((0..12).map(|number| if number == 3 { other(number) } else { event(number) }));
    fs::write(&path, text_of(&forged)).unwrap();
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok());
    insta::assert_snapshot!(refused(&mut store, &dir, &path), @"<ledger> is not the ledger that was adopted up to seq 10: its row 8 has the event hash b1dd6131aac7998fbe1e2cdd08276e3f138f9502b176b817c7abb7d74177ee80, but 9089d39143426282b5ebb2cabc6d437f80df030542770737afbac251baada5d4 was adopted there: it was rewritten; nothing of the file was recorded; `counterfoil export --original DIR` writes what was adopted, to compare");

    // Its chain does not see this.
    let mut edited = whole.clone();
    edited[3] = edited[3].replace("runtime", "user");
    assert_ne!(edited, whole);
    fs::write(&path, text_of(&edited)).unwrap();
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok());
    insta::assert_snapshot!(refused(&mut store, &dir, &path), @"<ledger> is not the ledger that was adopted up to seq 10: the chain of its first 8 rows is the same, but not their bytes: what the chain does not cover was changed (an id, a type, a source, a time, tags, a signature, or white space); nothing of the file was recorded; `counterfoil export --original DIR` writes what was adopted, to compare");

    fs::write(&path, text_of(&whole)).unwrap();
    assert_eq!(adopt(&mut store, &path).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 9 });
}

#[test]
fn an_id_that_is_recorded_otherwise_is_found_before_anything_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, _) = store_in(temp.path());
    let path = ledger(temp.path(), 6);
    let refused = |store: &mut Store| {
        let before = state(store, &dir);
        let error = adopt(store, &path).unwrap_err();
        assert_eq!(state(store, &dir), before);
        error.to_string().replace(&path.display().to_string(), "<ledger>")
    };
    // By somebody who recorded it here as well.
    store.append(note("first")).unwrap();
    store.append(note("mine").id(event(3).id.to_string().parse().unwrap())).unwrap();
    insta::assert_snapshot!(refused(&mut store), @"<ledger>, line 4: evt_00000000000000000000001003 is already recorded as seq 2, and not as a row of this ledger; nothing of the file was recorded; adopt it into a store of its own");
    // By an adoption, after which its first row was given another id, and so it seems another ledger.
    let (dir, mut store, _) = store_in(&temp.path().join("other"));
    adopt(&mut store, &path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(&event(0).id.to_string(), &event(99).id.to_string(), 1)).unwrap();
    assert!(cortex_ledger::verify_chain(&path).unwrap().ok());
    let before = state(&store, &dir);
    assert!(matches!(adopt(&mut store, &path), Err(ImportError::IdTaken { line: 2, .. })));
    assert_eq!(state(&store, &dir), before);
}

#[test]
fn two_ledgers_in_one_store() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = store_in(temp.path());
    let (one, other) = (temp.path().join("events.jsonl"), temp.path().join("other.jsonl"));
    append(&one, (0..5).map(event), 0);
    append(&other, (100..104).map(event), 0);
    assert_eq!(adopt(&mut store, &one).unwrap().rows, 5);
    assert_eq!(adopt(&mut store, &other).unwrap().rows, 4);
    append(&one, (5..6).map(event), 0);
    assert_eq!(adopt(&mut store, &one).unwrap().rows, 1);
    store.close().unwrap();
    open_is_clean(&dir, &options);
    let out = temp.path().join("out");
    let files = export_originals(&LedgerReader::open(&dir, &options).unwrap(), &out).unwrap();
    for (file, path) in files.iter().zip([&one, &other]) {
        assert!(file.exact);
        assert_eq!(fs::read(&file.path).unwrap(), fs::read(path).unwrap());
    }
}

#[test]
fn what_changes_after_the_check_is_not_taken() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("events.jsonl");
    let open = |rows: &[String]| {
        fs::write(&path, text_of(rows)).unwrap();
        counterfoil::import::TranscriptReader::open(&path, &Default::default()).unwrap()
    };
    let whole = rows((0..5).map(event));
    // What is written behind it waits for the next import.
    let mut reader = open(&whole[..3]);
    append(&path, (3..5).map(event), 0);
    let mut drafts = Vec::new();
    while let Some(draft) = reader.next().unwrap() {
        drafts.push(draft);
    }
    assert_eq!(drafts.len(), 4);
    let note = LayoutNote::from_payload(drafts[3].payload_bytes()).unwrap();
    assert_eq!((note.lines, note.bytes), (3, text_of(&whole[..3]).len() as u64));
    // Another chain, other bytes that the chain does not cover, fewer rows.
    let mut edited = whole.clone();
    edited[3] = edited[3].replace("runtime", "user");
    let other = rows((11..16).map(event));
    for (changed, taken) in [(&[&whole[..3], &other[3..]].concat(), 3), (&edited, 5), (&whole[..4].to_vec(), 4)] {
        let mut reader = open(&whole);
        fs::write(&path, text_of(changed)).unwrap();
        for _ in 0..taken {
            assert!(reader.next().unwrap().is_some());
        }
        let end = reader.next();
        assert!(matches!(end, Err(ImportError::Changed { .. })), "{end:?} after {taken}");
        assert!(reader.next().unwrap().is_none());
    }
}

fn redacting() -> Settings {
    Settings { redactor: Some(std::sync::Arc::new(Secrets::new())), ..Settings::default() }
}

fn token(filling: &str) -> String {
    ["gh", "p_", &filling.repeat(36)[..36]].concat()
}

fn other_secret() -> String {
    ["aK3bZ9cQ7dX1eW5fV8gU", "2hT6iS4jR0kPmNnLoMpH"].concat()
}

/// A mark is longer than the password for which it stands.
fn too_long_once_redacted() -> String {
    format!("{:>128}", "https://me:pw1@h")
}

/// Events with this secret wherever a header takes texts from, and in a payload; the others have none.
fn events_with(secret: &str) -> Vec<cortex_core::Event> {
    let mut events: Vec<_> = (0..8).map(event).collect();
    events[1].domain_tags = ["kept".to_owned(), format!("with {secret}"), too_long_once_redacted(), secret.to_owned()].to_vec();
    events[2].session_id = Some(format!("https://me:{secret}@example.org"));
    events[3].source = cortex_core::EventSource::Tool { name: format!("curl {secret}") };
    events[4].source = cortex_core::EventSource::ChildAgent { model: secret.to_owned() };
    events[5].payload = serde_json::json!({ "out": secret });
    // One that is told by the words before it, which stand in another tag.
    events[6].domain_tags = vec!["aws_secret_access_key".to_owned(), other_secret()];
    (events[7].id, events[7].domain_tags) = (events[1].id, events[1].domain_tags.clone());
    events
}

fn files_with(dir: &Path, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if memchr::memmem::find(&fs::read(&path).unwrap(), wanted.as_bytes()).is_some() {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn headers_have_no_secret_that_is_taken_out_of_rows() {
    let temp = tempfile::tempdir().unwrap();
    let secret = token("aB3");
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, events_with(&secret), 3);
    assert_eq!(adopt_with(&mut store, &path, &redacting()).unwrap(), Adopted { rows: 8, notes: 1, duplicates: 0 });
    assert_eq!(adopt_with(&mut store, &path, &redacting()).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 9 });
    // It may still grow, though what is recorded is not what is in the file.
    append(&path, [event(8)], 0);
    assert_eq!(adopt_with(&mut store, &path, &redacting()).unwrap(), Adopted { rows: 1, notes: 1, duplicates: 8 });
    store.close().unwrap();
    open_is_clean(&dir, &options);
    for part in [&secret[4..], &other_secret(), "pw1@"] {
        assert_eq!(files_with(&dir, part), Vec::<String>::new());
        assert_eq!(files_with(temp.path(), part).len(), 1, "the search finds what is there");
    }
    let (mark, records) = ("[redacted:github-token]", records(&dir));
    let ids: Vec<String> = records.iter().take(7).map(|record| record.id.to_string()).collect();
    assert_eq!(ids, (0..7).map(|number| event(number).id.to_string()).collect::<Vec<_>>());
    assert_eq!(records[1].domain_tags[3..], ["kept".to_owned(), format!("with {mark}"), mark.to_owned()]);
    assert_eq!(notes(&dir)[0].cortex.as_ref().unwrap().left_out, 2, "a tag in the second row, and in the last one");
    assert_eq!(records[2].session_id.as_deref(), Some("https://me:[redacted:github-token]@example.org"));
    assert_eq!(records[3].source, Source::tool(format!("curl {mark}")));
    assert_eq!(records[4].source, Source::child_agent(mark));
    assert_eq!(records[6].domain_tags[3..], ["aws_secret_access_key", "[redacted:aws-secret-access-key]"]);
    let redacted: Vec<bool> = records.iter().map(|record| record.domain_tags.iter().any(|tag| tag == TAG_REDACTED)).collect();
    assert_eq!(redacted, [false, true, true, true, true, true, true, true, false, false, false]);
}

#[test]
fn an_export_of_redacted_rows_says_which_and_gives_all_else_byte_for_byte() {
    let temp = tempfile::tempdir().unwrap();
    let secret = token("aB3");
    let (dir, mut store, options) = store_in(temp.path());
    let path = temp.path().join("events.jsonl");
    append(&path, (0..4).map(event).chain((4..6).map(|n| cortex_core::Event { payload: secret.as_str().into(), ..event(n) })), 2);
    append(&path, (6..9).map(event), 0);
    // Line ends of its own, so that the layout has to know them.
    let file = fs::read_to_string(&path).unwrap().replacen('\n', "\r\n\n", 3);
    fs::write(&path, &file).unwrap();
    adopt_with(&mut store, &path, &redacting()).unwrap();
    let out = temp.path().join("out");
    let exported = &export_originals(&LedgerReader::open(&dir, &options).unwrap(), &out).unwrap()[0];
    assert!(fs::read_to_string(&exported.path).unwrap() == file.replace(&secret, "[redacted:github-token]"));
    assert_eq!((exported.exact, exported.exact_but_for_redactions), (false, true));
    assert_eq!((exported.redacted, exported.redacted_lines.as_slice()), (2, [8, 9].as_slice()));
    let note = &notes(&dir)[0];
    let hash = |bytes: &str| blake3::hash(bytes.as_bytes()).to_hex().to_string();
    let redacted = file.replace(&secret, "[redacted:github-token]");
    assert_eq!((note.redacted, note.bytes, &note.blake3), (2, redacted.len() as u64, &hash(&redacted)));
    let cortex = note.cortex.as_ref().unwrap();
    assert_eq!((cortex.original_bytes, cortex.original_blake3.as_ref()), (Some(file.len() as u64), Some(&hash(&file))));
    // It is known again by what it was: with another secret it is another file.
    fs::write(&path, file.replace(&secret, &token("x9Q"))).unwrap();
    assert!(matches!(adopt_with(&mut store, &path, &redacting()), Err(ImportError::BrokenChain { .. })));
    fs::write(&path, file.replacen("runtime", "user", 1)).unwrap();
    assert!(matches!(adopt_with(&mut store, &path, &redacting()), Err(ImportError::NotAsAdopted { .. })));
    fs::write(&path, &file).unwrap();
    assert_eq!(adopt_with(&mut store, &path, &redacting()).unwrap(), Adopted { rows: 0, notes: 0, duplicates: 10 });
}
