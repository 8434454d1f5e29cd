//! Goal: an erasure erases what is named and nothing else, says what it did, is recorded, and changes nothing else that anyone can
//! ask of the store: chain, receipts, positions, duplicates. What can't be erased is refused before anything is written.
//!
//! Method: stores of a few segments, erased by seq, id and session, opened, verified, compared, appended to and exported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::secrets::{self, SECRET, check_erased, secrets_in};
use common::{copy_dir, files, id};
use counterfoil::*;

fn seqs(all: &[u64]) -> Erase {
    Erase::Seqs(all.iter().map(|seq| Seq::new(*seq)..=Seq::new(*seq)).collect())
}

fn refused(dir: &Path, options: &Options, erasure: &Erasure) -> String {
    let before = files(&dir.join("segments"));
    let error = erase(dir, options, erasure).unwrap_err();
    assert!(matches!(error, Error::Erase(_)), "{error}");
    assert_eq!(files(&dir.join("segments")), before);
    error.to_string()
}

#[test]
fn it_is_recorded_and_shown() {
    let (_temp, dir, options) = secrets::store();
    let erasure = Erasure::new(seqs(&[3, 4]), "ticket 7").by("data protection").source(Source::User);
    let report = erase(&dir, &options, &erasure).unwrap();
    let recorded = report.recorded[0];
    assert_eq!(recorded.get(), secrets::EVENTS + 1);
    let line = LedgerReader::open(&dir, &options).unwrap().line(recorded).unwrap().unwrap();
    let event = line::decode(&line).unwrap();
    assert_eq!((event.event_type, event.source()), ("counterfoil.erasure.v1", Source::User));
    let payload: serde_json::Value = serde_json::from_str(event.payload().unwrap()).unwrap();
    let named = &report.listed[0];
    assert_eq!(payload["by"], "data protection");
    assert_eq!(payload["erased"][0]["seq"], 3);
    assert_eq!(payload["erased"][0]["id"], named.id.to_string());
    assert_eq!(payload["erased"][0]["reason"], "ticket 7");
    let erased = LedgerReader::open(&dir, &options).unwrap().line(named.seq).unwrap().unwrap();
    assert_eq!(payload["erased"][0]["payload_hash"], line::decode(&erased).unwrap().payload_hash.to_string());

    let verified = common::verified(&dir);
    assert_eq!((verified.erased, verified.erasures_count, verified.erasures.len()), (2, 1, 1));
    let shown = &verified.erasures[0];
    assert_eq!((shown.seq, shown.events, shown.reason.as_str(), shown.by.as_deref()), (recorded, 2, "ticket 7", Some("data protection")));
    insta::assert_snapshot!(shown.to_string(), @r#"seq 25: 2 events, "ticket 7" (by "data protection", user, NOT SIGNED)"#);
}

#[test]
fn the_active_segment_is_sealed_first() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = common::options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 0..4 {
        store.append(common::note(&format!("event {n}"))).unwrap();
    }
    assert_eq!(common::segment_paths(&dir).len(), 1);
    store.erase(&Erasure::new(seqs(&[2]), "a test")).unwrap();
    let names: Vec<_> = common::segment_paths(&dir).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["00000000000000000001.jsonl", "00000000000000000005.jsonl"]);
    assert_eq!(store.append(common::note("on")).unwrap().seq.get(), 6);
    // What lies in a sealed segment seals none.
    store.erase(&Erasure::new(seqs(&[3]), "a test")).unwrap();
    assert_eq!(common::segment_paths(&dir).len(), 2);
    store.close().unwrap();
    common::open_is_clean(&dir, &options);
}

#[test]
fn nothing_to_erase_records_nothing() {
    let (_temp, dir, options) = secrets::store();
    let all = Erasure::new(secrets::all(), "a test");
    let dry = erase(&dir, &options, &all.clone().dry_run()).unwrap();
    assert!(dry.dry_run && dry.events == SECRET.len() as u64 && dry.recorded.is_empty() && dry.done.is_nothing(), "{dry:?}");
    assert!(!secrets_in(&dir).is_empty());
    let done = erase(&dir, &options, &all).unwrap();
    assert_eq!(done.listed, dry.listed);
    let segments = common::segments(&dir);
    let again = erase(&dir, &options, &all).unwrap();
    assert_eq!((again.events, again.already_erased, again.recorded.len()), (0, SECRET.len() as u64, 0));
    assert!(again.done.is_nothing(), "{again:?}");
    assert_eq!(common::segments(&dir), segments);
    // In part.
    let part = erase(&dir, &options, &Erasure::new(seqs(&[2, 3]), "a test")).unwrap();
    assert_eq!((part.events, part.already_erased), (1, 1));
}

#[test]
fn what_can_not_be_erased_is_refused() {
    let (_temp, dir, options) = secrets::store();
    let erasure = |which| Erasure::new(which, "a test");
    erase(&dir, &options, &erasure(seqs(&[1]))).unwrap();
    let mut texts = vec![
        refused(&dir, &options, &Erasure::new(seqs(&[2]), "")),
        refused(&dir, &options, &Erasure::new(seqs(&[2]), "x".repeat(257))),
        refused(&dir, &options, &erasure(seqs(&[2])).by("")),
        refused(&dir, &options, &erasure(seqs(&[2, 26]))),
        refused(&dir, &options, &erasure(seqs(&[0]))),
        refused(&dir, &options, &erasure(Erase::Ids(vec![id(502), id(9)]))),
        refused(&dir, &options, &erasure(Erase::Session("s-9".to_owned()))),
        refused(&dir, &options, &erasure(seqs(&[2, 25]))),
    ];
    let mut small = options.clone();
    small.group_bytes_max = 5000;
    texts.push(refused(&dir, &small, &erasure(Erase::Seqs(vec![Seq::new(2)..=Seq::new(24)]))));
    // A line that is damaged.
    let path = common::segment_paths(&dir).into_iter().find(|path| path.to_str().unwrap().contains("00009.jsonl")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = erase(&dir, &options, &erasure(seqs(&[9, 10]))).unwrap_err();
    texts.push(common::portable(error, &dir));
    common::snapshots(|| insta::assert_snapshot!("erasure_refused", texts.join("\n")));
    assert!(erase(dir.join("nowhere"), &options, &erasure(seqs(&[1]))).is_err_and(|error| error.to_string().contains("no store")));
}

#[test]
fn an_erased_event_is_known_by_its_payload_hash() {
    let (_temp, dir, options) = secrets::store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let first = store.append(secrets::draft(4)).unwrap();
    store.erase(&Erasure::new(secrets::all(), "a test")).unwrap();
    for again in [false, true] {
        let receipt = store.append(secrets::draft(4)).unwrap();
        assert!(receipt.duplicate && receipt.seq == first.seq && receipt.event_hash == first.event_hash, "{receipt:?}");
        let batch = store.append_batch(vec![secrets::draft(7), secrets::draft(8)], &Conditions::none()).unwrap();
        assert!(batch.iter().all(|receipt| receipt.duplicate));
        let other = store.append(common::note("other").id(id(504)));
        assert!(other.is_err_and(|error| error.is_conflict()));
        if !again {
            // Also when it is looked up in the ledger's tail, not in the mirror.
            store.close().unwrap();
            fs::remove_file(mirror_path(&dir)).unwrap();
            store = Store::open(&dir, &options).unwrap().0;
        }
    }
    // Streams go on.
    let next = store.append(common::note("next").session(secrets::SESSION)).unwrap();
    assert_eq!(next.session_seq, Some(4));
    store.close().unwrap();
    common::open_is_clean(&dir, &options);
}

/// A copy of some of the store's files is put back, and the store opened, replayed or repaired.
fn brought_back(what: &str, put_back: impl Fn(&Path, &Path)) {
    let (temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    let backup = temp.path().join("backup");
    copy_dir(&dir, &backup);
    let erased = erase(&dir, &options, &Erasure::new(secrets::all(), "a test").by("me")).unwrap();
    assert_eq!(erased.done.unfinished, None);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(common::note("more")).unwrap();
    store.close().unwrap();
    type Way = (&'static str, fn(&Path, &Options));
    let ways: [Way; 5] = [
        ("open", |dir, options| drop(common::open_is_clean(dir, options))),
        ("replay", |dir, options| assert!(replay_store(dir, options, &mut |_, _| ()).unwrap().parity.is_consistent())),
        ("repair from ledger", |dir, options| drop(repair_from_ledger(dir, options, &mut |_| ()).unwrap())),
        ("repair from mirror", |dir, options| {
            repair_from_mirror(dir, options, &mut |_| ()).unwrap();
            assert!(secrets_in(&dir.join("segments")).is_empty() && secrets_in(&dir.join("torn")).is_empty());
            common::open_is_clean(dir, options);
        }),
        ("erase", |dir, options| drop(erase(dir, options, &Erasure::new(seqs(&[1]), "another")).unwrap())),
    ];
    for (way, run) in ways {
        let copy = temp.path().join(way.replace(' ', "-"));
        copy_dir(&dir, &copy);
        put_back(&backup, &copy);
        assert!(!secrets_in(&copy).is_empty(), "{what}: nothing was put back");
        run(&copy, &options);
        let left = secrets_in(&copy);
        assert!(left.is_empty(), "{what}, {way}: secrets are left in {left:?}");
        if way == "erase" {
            assert!(common::verified(&copy).is_clean() && common::parity(&copy).is_consistent(), "{what}, {way}");
            continue;
        }
        check_erased(&copy, &before, &format!("{what}, {way}"));
        // It is known to be done: nothing is looked at again.
        let (store, report) = Store::open(&copy, &options).unwrap();
        assert!(report.erased.is_nothing(), "{what}, {way}: {report:?}");
        store.close().unwrap();
    }
}

fn put_back_segments(backup: &Path, dir: &Path) {
    let old = common::segment_paths(backup);
    // All but the one that was active then.
    for path in &old[..old.len() - 1] {
        let to = dir.join("segments").join(path.file_name().unwrap());
        fs::remove_file(&to).unwrap();
        fs::copy(path, to).unwrap();
    }
}

fn put_back_mirror(backup: &Path, dir: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("mirror.sqlite3{suffix}");
        let _ = fs::remove_file(dir.join(&name));
        if backup.join(&name).exists() {
            fs::copy(backup.join(&name), dir.join(&name)).unwrap();
        }
    }
}

#[test]
fn older_segments_bring_nothing_back() {
    brought_back("segments", put_back_segments);
}

#[test]
fn an_older_mirror_brings_nothing_back() {
    brought_back("mirror", put_back_mirror);
}

#[test]
fn older_copies_of_both_bring_nothing_back() {
    brought_back("both", |backup, dir| {
        put_back_segments(backup, dir);
        put_back_mirror(backup, dir);
    });
}

#[test]
fn older_torn_bytes_bring_nothing_back() {
    brought_back("torn", |backup, dir| {
        // Those whose lines say what they are: of others nobody knows any more what the payload was.
        fs::create_dir_all(dir.join("torn")).unwrap();
        for name in ["00000000000000000001.damaged-1", "00000000000000000001.damaged-2.zst", "00000000000000000002-0-0.torn"] {
            fs::copy(backup.join("torn").join(name), dir.join("torn").join(name)).unwrap();
        }
        fs::copy(backup.join("mirror.sqlite3.aside-1"), dir.join("mirror.sqlite3.aside-7")).unwrap();
    });
}

#[test]
fn segments_that_are_there_twice_bring_nothing_back() {
    brought_back("doubles", |backup, dir| {
        // The old compressed form beside the erased one, decompressed, and the other way round.
        for path in common::segment_paths(backup).iter().filter(|path| path.extension().is_some_and(|e| e == "zst")) {
            let to = dir.join("segments").join(path.file_name().unwrap());
            let erased = zstd::stream::decode_all(&fs::read(&to).unwrap()[..]).unwrap();
            fs::write(to.with_extension(""), erased).unwrap();
            fs::copy(path, to).unwrap();
        }
    });
}

#[test]
fn a_lost_segment_comes_back_without_its_secret() {
    let (_temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    erase(&dir, &options, &Erasure::new(secrets::all(), "a test")).unwrap();
    for path in common::segment_paths(&dir).iter().take(4) {
        fs::remove_file(path).unwrap();
    }
    let report = repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    assert!(report.lines_restored > 4);
    check_erased(&dir, &before, "lost segments");
    fs::remove_file(mirror_path(&dir)).unwrap();
    common::open_is_clean(&dir, &options);
    check_erased(&dir, &before, "a new mirror");
}

#[test]
fn blobs_go_when_nothing_uses_them() {
    // The format's own vectors: seq 5 or so has its payload out of line, and attachments.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    copy_dir(Path::new("tests/vectors/store-v1"), &dir);
    let options = common::options();
    let blobs = |dir: &Path| files(&dir.join("blobs")).len();
    let uses: Vec<(u64, bool, bool)> = secrets::lines(&dir)
        .iter()
        .map(|(seq, line)| {
            let event = line::decode(line).unwrap();
            (*seq, matches!(event.body, Body::Blob { .. }), event.attachments_json.is_some())
        })
        .collect();
    let out_of_line: Vec<u64> = uses.iter().filter(|(_, blob, _)| *blob).map(|(seq, ..)| *seq).collect();
    let attached: Vec<u64> = uses.iter().filter(|(.., attached)| *attached).map(|(seq, ..)| *seq).collect();
    assert_eq!(blobs(&dir), 2);
    let report = erase(&dir, &options, &Erasure::new(seqs(&out_of_line), "a test")).unwrap();
    assert_eq!((report.done.blobs.len(), blobs(&dir)), (1, 1), "{report:?}");
    let attached: Vec<u64> = attached.into_iter().filter(|seq| !out_of_line.contains(seq)).collect();
    let report = erase(&dir, &options, &Erasure::new(seqs(&attached), "a test")).unwrap();
    assert_eq!((report.done.blobs.len(), blobs(&dir)), (1, 0), "{report:?}");
    assert!(common::verified(&dir).is_clean() && common::parity(&dir).is_consistent());
}

#[test]
fn a_blob_that_another_event_uses_stays() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = common::options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 0..3 {
        store.append(common::note("the same").id(id(n))).unwrap();
    }
    store.close().unwrap();
    // Out of line by hand: what the hash covers is the same.
    let path = &common::segment_paths(&dir)[0];
    let text = fs::read_to_string(path).unwrap().replace(",\"payload\":\"the same\"", ",\"blob\":{\"bytes\":10}");
    fs::write(path, text).unwrap();
    let hash = blake3::hash(b"\"the same\"").to_hex();
    let blob = dir.join("blobs").join(&hash[..2]).join(&*hash);
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, "\"the same\"").unwrap();
    fs::remove_file(mirror_path(&dir)).unwrap();
    for (seq, stays) in [(1, true), (3, true), (2, false)] {
        let report = erase(&dir, &options, &Erasure::new(seqs(&[seq]), "a test")).unwrap();
        assert_eq!((blob.exists(), report.done.blobs.len()), (stays, usize::from(!stays)), "seq {seq}");
        assert!(common::verified(&dir).is_clean() && common::parity(&dir).is_consistent(), "seq {seq}");
    }
}

#[test]
fn a_reader_that_holds_the_wal_is_told_of_and_the_rest_is_done_later() {
    let (_temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let reader = rusqlite::Connection::open_with_flags(mirror_path(&dir), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let report = store.erase(&Erasure::new(secrets::all(), "a test")).unwrap();
    assert!(report.done.unfinished.as_ref().is_some_and(|why| why.contains("a reader holds the mirror's WAL")), "{report:?}");
    // The ledger's side is done, and the rows are; the WAL still has them.
    assert!(secrets_in(&dir.join("segments")).is_empty() && common::parity(&dir).is_consistent());
    assert!(!secrets_in(&dir).is_empty());
    reader.execute_batch("COMMIT").unwrap();
    drop(reader);
    let again = store.erase(&Erasure::new(secrets::all(), "a test")).unwrap();
    assert_eq!((again.events, again.recorded.len(), &again.done.unfinished), (0, 0, &None));
    store.close().unwrap();
    check_erased(&dir, &before, "later");
}

#[test]
fn one_segment_that_can_not_be_written_keeps_no_other_from_being_erased() {
    let (_temp, dir, options) = secrets::store();
    let before = secrets::lines(&dir);
    fs::remove_dir_all(dir.join("torn")).unwrap();
    let mut failing = options.clone();
    let first = std::sync::atomic::AtomicBool::new(true);
    failing.failpoint = Some(std::sync::Arc::new(move |point| match point {
        failpoint::ERASE_SYNC if first.swap(false, std::sync::atomic::Ordering::SeqCst) => Err(std::io::Error::other("not this one")),
        _ => Ok(()),
    }));
    let report = erase(&dir, &failing, &secrets::erasure()).unwrap();
    assert!(report.done.unfinished.as_ref().is_some_and(|why| why.contains("not this one")), "{report:?}");
    assert!(report.done.segments.len() > 3 && report.done.rows == SECRET.len() as u64, "{report:?}");
    let left = secrets_in(&dir);
    assert_eq!(left, [PathBuf::from("segments/00000000000000000003.jsonl")]);
    assert_eq!(common::verified(&dir).not_yet_erased, 1);
    common::open_is_clean(&dir, &options);
    check_erased(&dir, &before, "at the next open");
}

#[test]
fn an_erased_export_says_so() {
    let (temp, dir, options) = secrets::store();
    erase(&dir, &options, &Erasure::new(secrets::all(), "a test")).unwrap();
    let lines = secrets::lines(&dir);
    let erased = lines.values().filter(|line| line.ends_with(b",\"erased\":true}")).count();
    assert_eq!(erased, SECRET.len());
    drop(temp);
}

#[test]
fn a_range_passes_over_the_ledgers_own_events() {
    let (_temp, dir, options) = secrets::store();
    erase(&dir, &options, &Erasure::new(seqs(&[1]), "a test")).unwrap();
    let report = erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![Seq::new(1)..=Seq::new(25)]), "a test")).unwrap();
    assert_eq!((report.events, report.already_erased, report.passed_over), (23, 1, 1));
    let verified = common::verified(&dir);
    assert!(verified.is_clean() && verified.erased == 24 && verified.erasures_count == 2, "{verified}");
    assert!(secrets_in(&dir).is_empty());
    let own = LedgerReader::open(&dir, &options).unwrap().line(Seq::new(25)).unwrap().unwrap();
    let id = line::decode(&own).unwrap().id;
    assert!(refused(&dir, &options, &Erasure::new(Erase::Ids(vec![id]), "a test")).contains("never erased"));
}

/// An erasure event that names another payload under the same seq, as no code of this project writes it.
fn misnaming(dir: &Path, options: &Options, of: u64) {
    let mut lines = secrets::lines(dir);
    let template = lines.values().find(|line| line::decode(line).unwrap().event_type == "counterfoil.erasure.v1").unwrap().clone();
    let last = lines.pop_last().unwrap().1;
    let (mut event, head) = (line::decode(&template).unwrap(), line::decode(&last).unwrap());
    let payload = format!("{{\"erased\":[{{\"seq\":{of},\"payload_hash\":\"{}\",\"reason\":\"x\"}}]}}", "0".repeat(64));
    (event.seq, event.group_seq, event.prev_event_hash, event.id) = (head.seq.next(), head.seq.next(), head.event_hash, id(9999));
    (event.payload_hash, event.body) = (chain::payload_hash(payload.as_bytes()), Body::Inline(&payload));
    let mut sealed = Vec::new();
    line::encode(&event, &mut sealed);
    event.event_hash = chain::event_hash(chain::material(&sealed).unwrap());
    sealed.clear();
    line::encode(&event, &mut sealed);
    sealed.push(b'\n');
    let path = common::segment_paths(dir).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(sealed);
    fs::write(path, bytes).unwrap();
    Store::open(dir, options).unwrap().0.close().unwrap();
}

#[test]
fn an_erasure_that_names_it_wrongly_takes_no_other_back() {
    brought_back("misnamed", |backup, dir| {
        misnaming(dir, &common::small_segments(), 4);
        put_back_segments(backup, dir);
        put_back_mirror(backup, dir);
    });
}

#[test]
fn a_large_erasure_is_one_batch() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = common::options();
    options.segment_bytes_max = 200_000;
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for batch in 0..3 {
        let drafts = (0..800).map(|n| common::note(&format!("{}{batch}-{n}", secrets::WORDS[0])).session("s")).collect();
        store.append_batch(drafts, &Conditions::none()).unwrap();
    }
    let report = store.erase(&Erasure::new(Erase::Session("s".to_owned()), "a test")).unwrap();
    assert_eq!((report.events, report.recorded.len(), report.listed.len()), (2400, 3, 1000));
    store.close().unwrap();
    let verified = common::verified(&dir);
    assert!(verified.is_clean() && verified.erased == 2400 && verified.erasures_count == 3, "{verified}");
    assert_eq!(secrets_in(&dir), Vec::<PathBuf>::new());
    common::open_is_clean(&dir, &options);
}
