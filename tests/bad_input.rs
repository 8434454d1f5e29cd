//! Goal: bad input is refused with a typed error that says what to do, and nothing is written: neither to the ledger
//! nor to the mirror. Odd but valid input is kept byte for byte.
//!
//! Method: each bad thing is handed to a store whose bytes and rows are compared before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use counterfoil::*;

fn store(options: &Options) -> (tempfile::TempDir, std::path::PathBuf, Store) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, options).unwrap();
    store.append(note("first").session("s-1")).unwrap();
    (temp, dir, store)
}

/// The error of an append that must write nothing.
fn refused(store: &mut Store, dir: &Path, drafts: Vec<Draft>) -> Error {
    let before = state(store, dir);
    let error = store.append_batch(drafts, &Conditions::none()).unwrap_err();
    assert_eq!(state(store, dir), before, "{error}");
    error
}

#[test]
fn payloads_that_are_no_json() {
    for bad in
        ["", " ", "{", "{nope}", "nul", "01", "\"a\nb\"", "\"\\x\"", "\"\\u12\"", "[1,]", "1 2", "\u{feff}1", "NaN", "'a'", "{\"a\":1}}"]
    {
        let error = note("x").payload_json(bad).unwrap_err();
        assert!(matches!(error, DraftError::Payload(PayloadError::NotJson(_))), "{bad:?}: {error}");
        assert!(error.to_string().ends_with("quote plain text as a JSON string"), "{error}");
    }
    let error = note("x").payload(&std::collections::HashMap::from([((1, 2), 3)])).unwrap_err();
    assert!(matches!(error, DraftError::Payload(PayloadError::Serialize(_))), "{error}");
}

#[test]
fn odd_payloads_are_kept_byte_for_byte() {
    let options = options();
    let (_temp, dir, mut store) = store(&options);
    let odd = [
        "\"\\ud800\"",
        "\"\\udc00\\ud800 \\uD83D\\ude00\"",
        "\"\u{2028}\u{2029}\u{85}\u{7f}\"",
        "{\"a\":1,\"a\":2,\"\":null}",
        "[1.0,1.00,1e400,-0,123456789012345678901234567890]",
        "\"\\u0000\\/\\u0041\"",
        "{ \"spaced\" :\t[ 1 , 2 ] }",
        "\"\u{1F600}\u{e000}\u{10ffff}\"",
        "\",\\\"event_hash\\\":\\\"\"",
    ];
    for (n, json) in odd.iter().enumerate() {
        let receipt = store.append(note("x").payload_json(*json).unwrap()).unwrap();
        assert_eq!(receipt.seq.get(), n as u64 + 2);
        let bytes = store.reader().unwrap().line(receipt.seq).unwrap().unwrap();
        assert_eq!(line::decode(&bytes).unwrap().payload(), Some(*json));
        assert!(String::from_utf8(bytes).unwrap().ends_with(&format!(",\"payload\":{json}}}")));
    }
    store.close().unwrap();
    open_is_clean(&dir, &options);
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    for (n, json) in odd.iter().enumerate() {
        let kept: String = conn.query_row("SELECT payload FROM events WHERE seq = ?1", [n as i64 + 2], |row| row.get(0)).unwrap();
        assert_eq!(kept, *json);
    }
}

#[test]
fn drafts_out_of_bounds() {
    let (_temp, dir, mut store) = store(&options());
    let long = "x".repeat(10 << 10);
    for draft in [note("x").session(""), note("x").session(long.clone()), note("x").session("ü".repeat(257))] {
        let error = refused(&mut store, &dir, vec![draft]);
        assert!(matches!(error, Error::Draft(DraftError::SessionId { .. })), "{error}");
    }
    for draft in [note("x").tag(""), note("x").tag("t").tag("y".repeat(129))] {
        let error = refused(&mut store, &dir, vec![draft]);
        assert!(matches!(error, Error::Draft(DraftError::Tag { .. })), "{error}");
    }
    let many = (0..65).fold(note("x"), |draft, n| draft.tag(format!("t{n}")));
    let error = refused(&mut store, &dir, vec![many]);
    assert!(matches!(error, Error::Draft(DraftError::Tags { count: 65 })), "{error}");
    // The bounds themselves are within.
    let most = (0..64).fold(note("x").session("\u{1}".repeat(512)), |draft, n| draft.tag(format!("{n:0>128}")));
    assert_eq!(store.append(most).unwrap().seq.get(), 2);
    // In a batch, one bad draft is a refusal of all.
    let error = refused(&mut store, &dir, vec![note("good"), note("x").session("")]);
    assert!(matches!(error, Error::Draft(DraftError::SessionId { bytes: 0 })), "{error}");
    for bad in ["", "tool_call", "ToolCall.v1", "a.v0", "tool call.v1", "v1"] {
        assert!(matches!(EventType::new(bad), Err(EventTypeError::Form(_))), "{bad}");
    }
    assert!(matches!(EventType::new("counterfoil.erasure.v1"), Err(EventTypeError::Reserved(_))));
}

#[test]
fn lines_over_the_limit() {
    let (_temp, dir, mut store) = store(&options());
    let mut huge = vec![b'x'; 100 << 20];
    (huge[0], huge[(100 << 20) - 1]) = (b'"', b'"');
    let draft = note("x").with_payload(Payload::from_json(String::from_utf8(huge).unwrap()).unwrap());
    let error = refused(&mut store, &dir, vec![draft]);
    assert!(matches!(error, Error::Draft(DraftError::LineTooLong { bytes, max }) if bytes > 100 << 20 && max == 16 << 20), "{error}");
    insta::assert_snapshot!(error, @"the line would have 104858674 bytes, but at most 16777216 are allowed; split the payload, or store it elsewhere and record its hash");
    assert_eq!(store.append(note("the store is well")).unwrap().seq.get(), 2);
}

#[test]
fn a_line_at_the_limit_can_be_read_again() {
    let mut options = options();
    options.line_bytes_max = 5000;
    let (_temp, dir, mut store) = store(&options);
    let fits = (1..5000).rev().find(|n| note(&"x".repeat(*n)).check(&options.limits()).is_ok()).unwrap();
    assert!(fits > 3800);
    store.append(note(&"x".repeat(fits))).unwrap();
    store.append(note("behind it")).unwrap();
    store.close().unwrap();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    assert!(verify(&reader, &mut |_| ()).unwrap().is_clean());
    open_is_clean(&dir, &options);
}

#[test]
fn batches_that_do_not_fit() {
    let mut options = options();
    (options.group_events_max, options.group_bytes_max) = (4, 8000);
    let (_temp, dir, mut store) = store(&options);
    let error = refused(&mut store, &dir, (0..5).map(|_| note("x")).collect());
    assert!(matches!(error, Error::Append(AppendError::BatchTooLarge { events: 5, events_max: 4, .. })), "{error}");
    let error = refused(&mut store, &dir, (0..3).map(|_| note(&"x".repeat(2500))).collect());
    assert!(matches!(error, Error::Append(AppendError::BatchTooLarge { events: 3, bytes_max: 8000, .. })), "{error}");
    let error = refused(&mut store, &dir, Vec::new());
    assert!(matches!(error, Error::Append(AppendError::EmptyBatch)), "{error}");
    let receipts = store.append_batch((0..4).map(|_| note("x")).collect(), &Conditions::none()).unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.seq.get()).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[test]
fn paths_that_are_no_store() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "text").unwrap();
    let error = Store::open(&file, &options()).err().unwrap();
    assert!(matches!(error, Error::Ledger(LedgerError::NotADirectory { .. })), "{error}");
    assert!(matches!(LedgerReader::open(&file, &options()), Err(LedgerError::NotADirectory { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    let error = Store::open(file.join("below"), &options()).err().unwrap();
    assert!(matches!(error, Error::Ledger(LedgerError::Io { .. } | LedgerError::NotADirectory { .. })), "{error}");

    let nothing = temp.path().join("nothing");
    let mut existing = options();
    existing.create = false;
    let error = Store::open(&nothing, &existing).err().unwrap();
    assert!(matches!(error, Error::Ledger(LedgerError::NoStore { .. })), "{error}");
    assert!(matches!(LedgerReader::open(&nothing, &existing), Err(LedgerError::NoStore { .. })));
    assert!(!nothing.exists(), "nothing is created");
    assert!(matches!(repair_from_mirror(&nothing, &existing, &mut |_| ()), Err(RepairError::Ledger(LedgerError::NoStore { .. }))));
    assert!(matches!(repair_from_ledger(&nothing, &existing, &mut |_| ()), Err(RepairError::Ledger(LedgerError::NoStore { .. }))));
    assert!(!nothing.exists());
}

#[test]
#[cfg(unix)]
fn a_read_only_directory() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &options());
    let lock = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    lock(0o500);
    if fs::write(dir.join("probe"), "").is_ok() {
        lock(0o700);
        common::skipped("a_read_only_directory", "this user (root?) may write to read-only directories");
        return;
    }
    assert!(verified(&dir).is_clean(), "reading needs no writing");
    let error = Store::open(dir.join("inner"), &options()).err();
    lock(0o700);
    assert!(matches!(error, Some(Error::Ledger(LedgerError::Io { .. }))), "{error:?}");
}

#[test]
fn manifests_that_are_none() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &options());
    let path = dir.join("ledger.json");
    let good = fs::read_to_string(&path).unwrap();
    let open = |text: &str| {
        fs::write(&path, text).unwrap();
        let before = files(&dir);
        let error = Store::open(&dir, &options()).err().unwrap_or_else(|| panic!("opened with {text}"));
        assert!(LedgerReader::open(&dir, &options()).is_err());
        let mut after = files(&dir);
        after.insert("LOCK".into(), before[Path::new("LOCK")].clone());
        assert_eq!(after, before, "nothing is written");
        error
    };
    let future = open(&good.replace("\"format_version\":1", "\"format_version\":2,\"new\":true"));
    assert!(matches!(future, Error::Ledger(LedgerError::FutureFormat { found: 2, known: 1, .. })), "{future}");
    let mut texts = portable(future, &dir) + "\n";
    for damaged in [
        String::new(),
        "{".to_owned(),
        "\0".repeat(good.len()),
        good.replace("\"counterfoil\"", "\"other\""),
        good.replace("blake3", "sha256"),
        good.replace("ldg_", "evt_"),
        good.replace("\"hash\"", "\"more\":1,\"hash\""),
        good.replace(",\"hash\":\"blake3\"", ""),
        good.replace("2026-11-24T", "2026-11-24 "),
        good[..good.len() / 2].to_owned(),
    ] {
        assert_ne!(damaged, good);
        let error = open(&damaged);
        assert!(matches!(error, Error::Ledger(LedgerError::Manifest { .. })), "{damaged}: {error}");
        texts += &(portable(error, &dir) + "\n");
    }
    snapshots(|| insta::assert_snapshot!("manifests", texts));
    // One of another ledger: the chain does not begin with it.
    fs::write(&path, good.replace("\"ledger_id\":\"ldg_0", "\"ledger_id\":\"ldg_1")).unwrap();
    let before = (segments(&dir), fs::read(mirror_path(&dir)).unwrap());
    let (refused, text) = refusal(&dir, &options());
    assert!(matches!(refused, Refusal::OtherManifest { .. }), "{text}");
    insta::assert_snapshot!(portable(text, &dir), @"<store>/ledger.json belongs to another ledger than <store>/segments/00000000000000000001.jsonl, byte 0, seq 1, which does not link to its genesis; move it away and run `counterfoil repair --from mirror`, or restore the right one from a backup");
    assert_eq!((segments(&dir), fs::read(mirror_path(&dir)).unwrap()), before, "the mirror is the right one, and stays");
    fs::rename(&path, temp.path().join("wrong.json")).unwrap();
    assert!(repair_from_mirror(&dir, &options(), &mut |_| ()).unwrap().manifest_restored);
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
    open_is_clean(&dir, &options());
}

#[test]
fn a_mirror_from_the_future() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &options());
    rusqlite::Connection::open(mirror_path(&dir)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = (segments(&dir), fs::read(mirror_path(&dir)).unwrap());
    let error = Store::open(&dir, &options()).err().unwrap();
    assert!(matches!(error, Error::Mirror(MirrorError::Future { found: 99, known: SCHEMA_VERSION, .. })), "{error}");
    insta::assert_snapshot!(portable(error, &dir), @"the mirror <store>/mirror.sqlite3 has schema version 99, and this counterfoil knows 2; use a newer counterfoil, or move the file away: it can be rebuilt");
    let report = parity(&dir);
    assert!(matches!(report.findings[..], [Finding::UnreadableMirror { .. }]), "{report}");
    assert!(repair_from_ledger(&dir, &options(), &mut |_| ()).is_err());
    assert!(repair_from_mirror(&dir, &options(), &mut |_| ()).is_err());
    assert_eq!((segments(&dir), fs::read(mirror_path(&dir)).unwrap()), before, "it is left alone");
    assert!(verified(&dir).is_clean(), "the ledger can be read without it");
}

#[test]
fn two_writers() {
    let options = options();
    let (_temp, dir, mut store) = store(&options);
    let error = Store::open(&dir, &options).err().unwrap();
    assert!(error.is_locked(), "{error}");
    let text = portable(&error, &dir).replace(&std::process::id().to_string(), "<pid>");
    insta::assert_snapshot!(text, @"<store> is being written by this process (<pid>); close it there, or read without the lock (show, query, tail, verify and parity need none)");
    assert!(matches!(repair_from_ledger(&dir, &options, &mut |_| ()), Err(RepairError::Ledger(LedgerError::Locked { .. }))));
    assert!(matches!(repair_from_mirror(&dir, &options, &mut |_| ()), Err(RepairError::Ledger(LedgerError::Locked { .. }))));
    // Readers need no lock, and the first writer is not disturbed.
    assert!(verified(&dir).is_clean());
    assert!(parity(&dir).is_consistent());
    assert_eq!(store.append(note("still here")).unwrap().seq.get(), 2);
    drop(store);
    Store::open(&dir, &options).unwrap();
}

#[test]
fn a_compressed_segment_that_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &small_segments());
    let path = &segment_paths(&dir)[1];
    let before = segments(&dir);
    fs::rename(path, format!("{}.zst", path.display())).unwrap();
    let error = Store::open(&dir, &small_segments()).err().unwrap();
    insta::assert_snapshot!(portable(error, &dir), @"<store>/segments/00000000000000000004.jsonl.zst: its first line, where seq 4 belongs, is damaged: it lies in a damaged part of a compressed segment: a segment is missing or damaged; run `counterfoil repair --from mirror`");
    let verified = verified(&dir);
    assert_eq!((verified.failures[0].reason.clone(), verified.failures[0].seq.get()), (LineFault::Compressed, 4), "{verified}");
    // What was there is kept, and replaced.
    let repaired = repair_from_mirror(&dir, &options(), &mut |_| ()).unwrap();
    assert!(repaired.set_aside[0].ends_with("00000000000000000004.damaged-1.zst"), "{repaired:?}");
    assert_eq!(segments(&dir), before);
    open_is_clean(&dir, &small_segments());
}
