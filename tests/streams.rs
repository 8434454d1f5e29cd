//! Goal: a page of a stream is what a filter over all of the ledger's lines gives, forwards and backwards, from any position, up to
//! any seq, though the mirror is missing, behind or damaged, row by row too; and nothing is handed out that is not right by its own hash.
//!
//! Method: stores from seeds (batches, compressed segments, payloads in blobs/, erased ones), with a mirror that is at the ledger's
//! end, behind, missing, locked, no database, or being made anew between two pages; one reader reads pages of many sizes, and is held
//! against the filter. Then rows, index and blobs are damaged by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::opened::counting;
use common::streams::{STREAMS, all, filled, of_stream, text, unmirrored};
use common::{Random, campaign, note, portable};
use counterfoil::*;

/// What a page must be, and where the next one begins.
fn check_page(query: (&str, bool, Option<u64>, usize, usize), page: &StreamPage, stream: &[&(EventRecord, usize)]) {
    let (_, backwards, from, events_max, bytes_max) = query;
    let mut expected: Vec<_> = stream.to_vec();
    if backwards {
        expected.reverse();
    }
    let is_asked_for = |at: u64| if backwards { from.is_none_or(|from| at <= from) } else { from.is_none_or(|from| at >= from) };
    expected.retain(|(event, _)| is_asked_for(event.session_seq.unwrap()));
    let got: Vec<_> = page.events.iter().map(text).collect();
    assert_eq!(got, expected.iter().take(got.len()).map(|(event, _)| text(event)).collect::<Vec<_>>(), "{query:?}");
    let bytes = |events: usize| expected.iter().take(events).map(|(_, bytes)| bytes).sum::<usize>();
    assert!(got.len() <= events_max && (got.len() <= 1 || bytes(got.len()) <= bytes_max), "{query:?}");
    let could_take_more = got.len() < expected.len() && got.len() < events_max && bytes(got.len() + 1) <= bytes_max;
    assert!(!could_take_more, "{query:?}: {} of {} events", got.len(), expected.len());
    let last = page.events.last().and_then(|event| event.session_seq);
    match page.next {
        None => assert_eq!(got.len(), expected.len(), "{query:?}: it says that this is all"),
        Some(next) if backwards => assert_eq!(Some(next + 1), last, "{query:?}"),
        Some(next) => assert_eq!(next, last.expect("a page that is not the last has an event") + 1, "{query:?}"),
    }
    let end = stream.len() as u64;
    let sees_all = if backwards { from.is_none() } else { page.next.is_none() };
    assert!(if sees_all { page.last == end } else { page.last <= end }, "{query:?}: {} of {end}", page.last);
}

/// Reads a stream, page after page, for as long as `between`, which is called between two pages, wants more.
fn read_through(
    reader: &mut StreamReader,
    (session, backwards, from, events_max, bytes_max): (&str, bool, Option<u64>, usize, usize),
    through: Seq,
    stream: &[&(EventRecord, usize)],
    between: &mut dyn FnMut() -> bool,
) {
    let mut at = from;
    for _ in 0..=stream.len() + 1 {
        let mut query = StreamQuery::new(session).events_max(events_max).bytes_max(bytes_max);
        if backwards {
            query = query.backwards();
        }
        if let Some(at) = at {
            query = query.from(at);
        }
        let page = reader.page(&query, through).unwrap_or_else(|error| panic!("{error}"));
        check_page((session, backwards, at, events_max, bytes_max), &page, stream);
        if page.next.is_none() {
            return;
        }
        at = page.next;
        if !between() {
            return;
        }
    }
    panic!("the pages of {session} do not end");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum MirrorIs {
    Whole,
    Behind,
    Missing,
    NoDatabase,
    Locked,
    Empty,
    RemovedAndRebuilt,
}

fn rebuild(dir: &Path, options: &Options) {
    let _ = fs::remove_file(mirror_path(dir));
    Store::open(dir, options).unwrap().0.close().unwrap();
}

#[test]
fn pages_are_what_a_filter_over_all_lines_gives() {
    let mut pages_at = [0u64; 7];
    for seed in 0..campaign("COUNTERFOIL_STREAM_STORES", 28) {
        let mut random = Random::new(seed);
        let temp = common::damage::in_memory();
        let dir = temp.path().join("store");
        let mut options = filled(&dir, &mut random);
        options.mirror_busy_timeout = Duration::from_millis(1);
        use MirrorIs::*;
        let state = [Whole, Behind, Missing, NoDatabase, Locked, Empty, RemovedAndRebuilt][(seed % 7) as usize];
        if matches!(state, Behind | RemovedAndRebuilt) {
            let lag = random.below(40);
            unmirrored(&dir, &options, &mut random, lag);
        }
        let path = mirror_path(&dir);
        let mut lock = None;
        match state {
            Missing => fs::remove_file(&path).unwrap(),
            NoDatabase => fs::write(&path, "no database, and longer than the header of one ".repeat(10)).unwrap(),
            Locked => {
                let conn = rusqlite::Connection::open(&path).unwrap();
                conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; CREATE TABLE held (n)").unwrap();
                lock = Some(conn);
            }
            Empty => {
                fs::remove_file(&path).unwrap();
                let manifest = Manifest::load(&FsStorage, &dir).unwrap().unwrap();
                drop(Mirror::open(&dir, &manifest, &options).unwrap());
            }
            Whole | Behind | RemovedAndRebuilt => {}
        }
        let all = all(&dir);
        let mut reader = StreamReader::open(&dir, &options).unwrap();
        // All lines are looked through again and again where there is no mirror to read from.
        for round in 0..if matches!(state, Missing | NoDatabase | Locked | Empty) { 6 } else { 30 } {
            let session = STREAMS[random.below(5) as usize];
            let through = if random.chance(3) { Seq::new(random.below(all.len() as u64 + 1)) } else { Seq::MAX };
            let stream = of_stream(&all, session, through);
            let from = (!random.chance(3)).then(|| random.below(stream.len() as u64 + 3));
            let query = (session, random.chance(2), from, 1 + random.below(20) as usize, 1 + random.below(8_000) as usize);
            read_through(&mut reader, query, through, &stream, &mut || {
                if state == RemovedAndRebuilt && random.chance(20) {
                    rebuild(&dir, &options);
                }
                // Left off in the middle, so that the next query begins elsewhere than where this one would go on.
                !random.chance(8)
            });
            pages_at[(seed % 7) as usize] += 1;
            let (event, _) = &all[random.below(all.len() as u64) as usize];
            let found = reader.find(event.id, through).unwrap();
            assert_eq!(found.as_ref().map(text), (event.seq <= through).then(|| text(event)), "seed {seed} round {round}");
            assert!(reader.find(common::id(1), Seq::MAX).unwrap().is_none());
        }
        drop(lock);
    }
    assert!(pages_at.iter().all(|pages| *pages > 0), "{pages_at:?}");
}

#[test]
fn a_readers_events_are_those_of_all_pages() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut random = Random::new(7);
    let options = filled(&dir, &mut random);
    unmirrored(&dir, &options, &mut random, 20);
    let all = all(&dir);
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    for session in STREAMS {
        let stream: Vec<_> = of_stream(&all, session, Seq::MAX).iter().map(|(event, _)| text(event)).collect();
        let query = StreamQuery::new(session).events_max(3);
        let read = |query, reader: &mut StreamReader| reader.events(query, Seq::MAX).map(|event| text(&event.unwrap())).collect::<Vec<_>>();
        assert_eq!(read(query.clone(), &mut reader), stream);
        assert_eq!(read(query.clone().backwards(), &mut reader), stream.iter().rev().cloned().collect::<Vec<_>>());
        assert_eq!(read(query.from(4), &mut reader), stream.iter().skip(3).cloned().collect::<Vec<_>>());
    }
}

/// A store of one stream of 20 events in several segments, and its mirror.
fn of_one_stream() -> (tempfile::TempDir, PathBuf, Options) {
    of_events_named("event")
}

fn of_events_named(name: &str) -> (tempfile::TempDir, PathBuf, Options) {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = common::small_segments();
    common::disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 1..=20u64 {
        store.append(note(&format!("{name} {n}")).id(common::id(n)).session("s-1")).unwrap();
    }
    store.close().unwrap();
    (temp, dir, options)
}

fn damaged(dir: &Path, sql: &str) {
    let conn = common::by_hand(dir);
    assert!(conn.execute(sql, []).unwrap() > 0, "{sql}");
}

/// All pages of so many events, and what is found by each id, against the lines.
fn check_all(reader: &mut StreamReader, dir: &Path, missing: &[u64], what: &str) {
    let truth: Vec<String> = all(dir).iter().map(|(event, _)| text(event)).collect();
    for events_max in [1, 3, 7, 256] {
        for from in [None, Some(1), Some(6), Some(7), Some(8), Some(20)] {
            for backwards in [false, true] {
                let mut query = StreamQuery::new("s-1").events_max(events_max);
                query = if backwards { query.backwards() } else { query };
                query = from.map_or(query.clone(), |from| query.from(from));
                let read = reader.events(query.clone(), Seq::MAX).map(|event| event.map(|event| text(&event)));
                let read = read.collect::<Result<Vec<_>, _>>().unwrap_or_else(|error| panic!("{what}, {query:?}: {error}"));
                let at = from.map_or(if backwards { truth.len() } else { 1 }, |from| from as usize);
                let expected: Vec<_> = if backwards { truth[..at].iter().rev().cloned().collect() } else { truth[at - 1..].to_vec() };
                assert_eq!(read, expected, "{what}, {query:?}");
            }
        }
    }
    for n in 1..=20u64 {
        let found = reader.find(common::id(n), Seq::MAX).unwrap_or_else(|error| panic!("{what}, event {n}: {error}"));
        let expected = (!missing.contains(&n)).then(|| truth[n as usize - 1].clone());
        assert_eq!(found.as_ref().map(text), expected, "{what}, event {n}");
    }
}

#[test]
fn in_place_of_rows_that_are_wrong_lines_are_read() {
    let hash = "ab".repeat(32); // of nothing that was recorded
    let id = common::id(99);
    // With ids whose row is gone.
    let cases: [(String, &[u64]); 18] = [
        ("UPDATE events SET payload = '\"another\"' WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET event_type = 'tool_call.v1' WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET payload = 'nope' WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET observed_at = 'yesterday' WHERE seq = 7".to_owned(), &[]),
        (format!("UPDATE events SET event_hash = x'{hash}' WHERE seq = 7"), &[]),
        ("UPDATE events SET erased = 2 WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET session_seq = 8 WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET session_seq = 21 WHERE seq = 7".to_owned(), &[]),
        ("UPDATE events SET session_seq = 21 WHERE seq = 20".to_owned(), &[]),
        ("UPDATE events SET session_id = 's-2' WHERE seq = 7".to_owned(), &[]),
        (format!("UPDATE events SET id = '{id}' WHERE seq = 7"), &[7]),
        ("UPDATE events SET seq = 70 WHERE seq = 7".to_owned(), &[]),
        ("DELETE FROM events WHERE seq = 7".to_owned(), &[7]),
        ("DELETE FROM events WHERE seq = 1".to_owned(), &[1]),
        ("DELETE FROM events WHERE seq IN (6, 7)".to_owned(), &[6, 7]),
        ("UPDATE events SET payload = '1' WHERE seq IN (1, 20)".to_owned(), &[]),
        ("UPDATE events SET payload = '1' WHERE seq % 3 = 1".to_owned(), &[]),
        ("UPDATE events SET payload = '1'".to_owned(), &[]),
    ];
    for (sql, missing) in cases {
        let (_temp, dir, options) = of_one_stream();
        damaged(&dir, &sql);
        let mut reader = StreamReader::open(&dir, &options).unwrap();
        check_all(&mut reader, &dir, missing, &sql);
        repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
        assert_eq!(reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap().events.len(), 20, "{sql}");
    }
}

#[test]
fn rows_that_are_missing_at_the_end_are_read_from_lines_where_the_stream_goes_on_behind_them() {
    let (_temp, dir, options) = of_one_stream();
    common::unmirrored_groups(&dir, &options, vec![vec![note("event 21").id(common::id(21)).session("s-1")]]);
    damaged(&dir, "DELETE FROM events WHERE seq = 20");
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    let positions = |query: StreamQuery, reader: &mut StreamReader| -> Vec<u64> {
        reader.events(query, Seq::new(21)).map(|event| event.unwrap().session_seq.unwrap()).collect()
    };
    assert_eq!(positions(StreamQuery::new("s-1"), &mut reader), (1..=21).collect::<Vec<_>>());
    assert_eq!(positions(StreamQuery::new("s-1").events_max(4), &mut reader), (1..=21).collect::<Vec<_>>());
    assert_eq!(positions(StreamQuery::new("s-1").backwards().events_max(4), &mut reader), (1..=21).rev().collect::<Vec<_>>());
}

#[test]
fn where_lines_begin_is_not_taken_from_a_row_of_another_ledger() {
    let (_other, other, _) = of_events_named("other");
    let (_temp, dir, options) = of_one_stream();
    let conn = common::by_hand(&dir);
    // Each is right by its own hash, and links to what this ledger does not have.
    conn.execute("ATTACH ?1 AS other", [mirror_path(&other).to_str().unwrap()]).unwrap();
    conn.execute_batch("DELETE FROM events WHERE seq IN (6, 12); INSERT INTO events SELECT * FROM other.events WHERE seq IN (6, 12)")
        .unwrap();
    damaged(&dir, "UPDATE events SET payload = '1' WHERE seq IN (7, 14)");
    let all = all(&dir);
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    // Behind the row before the page, and before the first of its own.
    for from in [7, 12] {
        let page = reader.page(&StreamQuery::new("s-1").from(from).events_max(4), Seq::MAX).unwrap();
        let expected: Vec<_> = all[from as usize - 1..][..4].iter().map(|(event, _)| text(event)).collect();
        assert_eq!(page.events.iter().map(text).collect::<Vec<_>>(), expected, "from {from}");
    }
}

#[test]
fn an_erased_event_stays_erased_though_its_row_is_wrong() {
    let (_temp, dir, options) = of_one_stream();
    erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![Seq::new(7)..=Seq::new(7)]), "a test")).unwrap();
    for sql in
        ["UPDATE events SET erased = NULL, payload = '\"event 7\"' WHERE seq = 7", "UPDATE events SET event_type = 'x' WHERE seq = 7"]
    {
        damaged(&dir, sql);
        let mut reader = StreamReader::open(&dir, &options).unwrap();
        for query in [StreamQuery::new("s-1").from(5), StreamQuery::new("s-1").backwards()] {
            let page = reader.page(&query, Seq::MAX).unwrap();
            let event = page.events.iter().find(|event| event.session_seq == Some(7)).unwrap();
            let is_erased = event.erased && event.payload.is_none() && reader.payload(event).unwrap().is_none();
            // A row that has the payload back is right by its hashes: that it was erased is for parity to see.
            assert!(is_erased || sql.contains("NULL"), "{sql}");
        }
        if sql.contains("NULL") {
            damaged(&dir, "UPDATE events SET erased = 1, payload = NULL WHERE seq = 7");
        }
    }
}

#[test]
fn where_lines_are_wrong_as_well_both_are_named() {
    let row = "UPDATE events SET payload = '1' WHERE seq = ";
    type Change = fn(&str) -> String;
    let cases: [(u64, Change, &str); 4] = [
        (7, |line| line.replace("event", "Event"), "its segment is damaged at the same event"),
        (7, |_| String::new(), "its segment lacks the line"),
        (20, |line| line.replace("event", "Event"), "the last segment, which ends before a line that is wrong"),
        (20, |_| String::new(), "the last segment has lost it"),
    ];
    for (seq, change, what) in cases {
        let (_temp, dir, options) = of_one_stream();
        let is_of = |line: &str| line.contains(&format!("\"event {seq}\""));
        for path in common::segment_paths(&dir) {
            let text = fs::read_to_string(&path).unwrap();
            let changed = |line: &str| if is_of(line) { change(line) } else { line.to_owned() };
            fs::write(&path, text.split_inclusive('\n').map(changed).collect::<String>()).unwrap();
        }
        damaged(&dir, &format!("{row}{seq}"));
        let mut reader = StreamReader::open(&dir, &options).unwrap();
        let before = reader.page(&StreamQuery::new("s-1").events_max(6), Seq::MAX).unwrap();
        assert_eq!(before.events.len(), 6, "{what}: what is before it is read");
        let errors = [
            reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap_err(),
            reader.page(&StreamQuery::new("s-1").from(seq).events_max(1), Seq::MAX).unwrap_err(),
            reader.page(&StreamQuery::new("s-1").from(seq).backwards().events_max(1), Seq::MAX).unwrap_err(),
            reader.find(common::id(seq), Seq::MAX).unwrap_err(),
        ];
        for error in errors {
            let Error::Stream(StreamError::Both { mirror, is_same: true, .. }) = &error else { panic!("{what}: {error}") };
            assert!(matches!(&**mirror, StreamError::Row { seq: found, .. } if *found as u64 == seq), "{what}: {error}");
            let text = error.to_string();
            assert!(text.contains("`counterfoil verify`") && text.contains(&format!("the row of seq {seq}")), "{what}: {error}");
        }
    }
}

#[test]
fn rows_beyond_the_watermark_are_no_evidence() {
    let (_temp, dir, options) = of_one_stream();
    damaged(
        &dir,
        "INSERT INTO events SELECT 21, 'evt_0000000000000000000000000Z', schema_version, observed_at, recorded_at, source, event_type,
         trace_id, session_id, 21, causation_id, domain_tags, attachments, 21, batch, signed_by, policy, payload_hash, prev_event_hash,
         event_hash, signature, payload, blob, erased FROM events WHERE seq = 20",
    );
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    for query in [StreamQuery::new("s-1"), StreamQuery::new("s-1").backwards()] {
        let page = reader.page(&query, Seq::MAX).unwrap();
        assert_eq!((page.events.len(), page.last, page.next), (20, 20, None));
    }
}

#[test]
fn nothing_beyond_the_last_seq_is_handed_out_though_a_row_says_that_it_is_not() {
    let (_temp, dir, options) = of_one_stream();
    // By the index the last event of the stream is an early one.
    damaged(&dir, "UPDATE events SET seq = 0 WHERE seq = 20");
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    let from = |position| StreamQuery::new("s-1").from(position).events_max(4);
    let cases: [(StreamQuery, &[u64]); 4] =
        [(from(9), &[9, 10]), (from(11), &[]), (from(12).backwards(), &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]), (from(3).backwards(), &[3, 2, 1])];
    for (query, expected) in cases {
        let events: Result<Vec<_>, _> = reader.events(query.clone(), Seq::new(10)).collect();
        assert_eq!(events.unwrap().iter().map(|event| event.seq.get()).collect::<Vec<_>>(), expected, "{query:?}");
    }
}

#[test]
fn a_mirror_without_its_index_and_one_that_is_damaged_are_not_waited_for() {
    for sql in
        ["DROP INDEX events_by_session", "DROP TABLE events", "UPDATE mirrored_through SET ledger_id = 'ldg_00000000000000000000000000'"]
    {
        let (_temp, dir, options) = of_one_stream();
        common::by_hand(&dir).execute_batch(sql).unwrap();
        let mut reader = StreamReader::open(&dir, &options).unwrap();
        let page = reader.page(&StreamQuery::new("s-1").from(5).events_max(4), Seq::MAX).unwrap();
        assert_eq!(page.events.iter().filter_map(|event| event.session_seq).collect::<Vec<_>>(), [5, 6, 7, 8], "{sql}");
    }
    // Each byte of its pages from somewhere on.
    let (_temp, dir, options) = of_one_stream();
    let mut bytes = fs::read(mirror_path(&dir)).unwrap();
    bytes[common::MIRROR_PAGE_BYTES..].fill(0x5a);
    fs::write(mirror_path(&dir), bytes).unwrap();
    let page = StreamReader::open(&dir, &options).unwrap().page(&StreamQuery::new("s-1").backwards(), Seq::MAX).unwrap();
    assert_eq!(page.events.len(), 20);
}

#[test]
fn what_is_wrong_with_the_ledger_is_said() {
    let (_temp, dir, options) = of_one_stream();
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    // What the mirror has is read from there, whatever the ledger's files are like.
    let paths = common::segment_paths(&dir);
    let kept = fs::read(&paths[1]).unwrap();
    let text = String::from_utf8(kept.clone()).unwrap().replacen("event", "Event", 1);
    fs::write(&paths[1], &text).unwrap();
    assert_eq!(reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap().events.len(), 20);
    fs::rename(mirror_path(&dir), dir.join("kept")).unwrap();
    let error = reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap_err();
    assert!(matches!(&error, Error::Ledger(LedgerError::Damaged { path, .. }) if *path == paths[1]), "{error}");
    assert!(reader.page(&StreamQuery::new("s-1").events_max(1), Seq::MAX).is_ok(), "lines before it are right");
    fs::remove_file(&paths[1]).unwrap();
    let error = reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap_err();
    assert!(matches!(&error, Error::Ledger(LedgerError::Damaged { reason: LineFault::Seq { .. }, .. })), "{error}");
    fs::write(&paths[1], kept).unwrap();
    assert_eq!(reader.page(&StreamQuery::new("s-1"), Seq::new(20)).unwrap().events.len(), 20);
    // An event that is known to be durable, and is not there.
    let error = reader.page(&StreamQuery::new("s-1"), Seq::new(21)).unwrap_err();
    insta::assert_snapshot!(portable(error, &dir), @"the ledger <store> ends at seq 20, before seq 21; run `counterfoil verify` to see what is damaged or missing");
    // A mirror that is further than the ledger.
    fs::rename(dir.join("kept"), mirror_path(&dir)).unwrap();
    fs::remove_file(paths.last().unwrap()).unwrap();
    let error = reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap_err();
    insta::assert_snapshot!(portable(error, &dir), @"<store>/mirror.sqlite3 mirrors the ledger up to seq 20, and the ledger has no such event; run `counterfoil parity --full` to see which of the two is wrong, then `counterfoil repair`");
}

#[test]
fn payloads_come_from_the_line_and_from_blobs() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let temp = common::damage::in_memory();
        let dir = temp.path().join("store");
        let options = filled(&dir, &mut random);
        let reader = StreamReader::open(&dir, &options).unwrap();
        let mut of_blobs = 0;
        for (event, _) in all(&dir) {
            let payload = reader.payload(&event).unwrap();
            assert_eq!(payload.is_none(), event.erased);
            if let Some(payload) = payload {
                assert_eq!(blake3::hash(payload.get().as_bytes()).as_bytes(), event.payload_hash.as_bytes());
            }
            let Some(_) = event.blob_bytes else { continue };
            of_blobs += 1;
            let name = event.payload_hash.to_string();
            let path = dir.join("blobs").join(&name[..2]).join(&name);
            let kept = fs::read(&path).unwrap();
            for (what, bytes) in [("longer", [&kept[..], b" "].concat()), ("damaged", kept.iter().map(|byte| byte ^ 1).collect())] {
                fs::write(&path, bytes).unwrap();
                let error = reader.payload(&event).expect_err(what);
                assert!(
                    matches!(&error, Error::Stream(StreamError::Payload { seq, reason: LineFault::Blob { .. }, .. }) if *seq == event.seq),
                    "{error}"
                );
            }
            fs::remove_file(&path).unwrap();
            let error = reader.payload(&event).unwrap_err();
            assert!(error.to_string().contains("is missing; run `counterfoil verify`"), "{error}");
            fs::write(&path, kept).unwrap();
            if random.chance(4) && !event.event_type.starts_with("counterfoil.") {
                // Erased after it was read: that is no damage.
                let mut open = StreamReader::open(&dir, &options).unwrap();
                open.find(event.id, Seq::MAX).unwrap();
                rebuild(&dir, &options);
                erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![event.seq..=event.seq]), "a test")).unwrap();
                assert!(reader.payload(&event).unwrap().is_none());
                assert!(open.payload(&event).unwrap().is_none(), "the mirror that it has open was replaced before");
                fs::remove_file(mirror_path(&dir)).unwrap();
                assert!(StreamReader::open(&dir, &options).unwrap().payload(&event).unwrap().is_none());
                Store::open(&dir, &options).unwrap().0.close().unwrap();
            }
        }
        assert!(seed > 0 || of_blobs > 0);
    }
}

/// Ten batches of so many events each, of three streams, in segments of 64 KiB.
fn of_three_streams(each: u64) -> (tempfile::TempDir, PathBuf, Options) {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.segment_bytes_max = 64 << 10;
    let draft = |n: u64| note(&"x".repeat(400)).session(format!("s-{}", n % 3));
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for from in (0..3_000).step_by(300) {
        store.append_batch((from..from + each).map(draft).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    (temp, dir, options)
}

#[test]
fn lines_are_read_for_what_the_mirror_lacks_and_once() {
    let (_temp, dir, options) = of_three_streams(100);
    let whole: u64 = LedgerReader::open(&dir, &options).unwrap().bytes().unwrap();
    assert!(whole > 500_000);
    let (counted, bytes) = counting(&options);
    let mut reader = StreamReader::open(&dir, &counted).unwrap();
    let read = |reader: &mut StreamReader, query: &StreamQuery, through: Seq| {
        let before = bytes.load(SeqCst);
        let page = reader.page(query, through).unwrap();
        (page, bytes.load(SeqCst) - before)
    };
    let head = Seq::new(1_000);
    for query in [StreamQuery::new("s-1"), StreamQuery::new("s-1").backwards(), StreamQuery::new("s-1").from(200), StreamQuery::new("none")]
    {
        assert_eq!(read(&mut reader, &query, head).1, 0, "what the mirror has is not looked for in the ledger: {query:?}");
        let (_, bytes) = read(&mut reader, &query, Seq::MAX);
        assert!(bytes < 20_000, "the watermark's line, and whether there are more: {bytes} bytes, {query:?}");
    }
    // Behind: what is read of lines is the tail, and a full page of rows needs none.
    let mut random = Random::new(1);
    unmirrored(&dir, &options, &mut random, 30);
    let full = StreamQuery::new("s-1").events_max(10);
    assert_eq!(read(&mut reader, &full, Seq::MAX).1, 0);
    assert_eq!(read(&mut reader, &full.clone().from(300).backwards(), Seq::MAX).1, 0);
    let (page, of_tail) = read(&mut reader, &full.clone().backwards(), Seq::MAX);
    assert!(of_tail < 100_000 && page.last > 333, "{of_tail} of {whole} bytes");
    // Without a mirror: a page that goes on where the last one ended goes on in the lines, and stops when it is full.
    fs::remove_file(mirror_path(&dir)).unwrap();
    let (mut at, mut pages, mut sum) = (1, 0, 0);
    loop {
        let (page, bytes) = read(&mut reader, &full.clone().from(at), Seq::MAX);
        (pages, sum) = (pages + 1, sum + bytes);
        // They are read ahead of, 64 KiB at a time.
        assert!(bytes < 150_000, "{bytes} bytes for a page");
        match page.next {
            Some(next) => at = next,
            None => break,
        }
    }
    assert!(pages > 30 && sum < 6 * whole, "{pages} pages took {sum} bytes of {whole}");
}

#[test]
fn a_wrong_row_costs_lines_near_it_and_many_cost_all_lines_once() {
    let (_temp, dir, options) = of_three_streams(300);
    let whole = LedgerReader::open(&dir, &options).unwrap().bytes().unwrap();
    let events = all(&dir);
    let last = events.iter().map(|(event, _)| event).rfind(|event| event.session_id.as_deref() == Some("s-1")).unwrap();
    let (counted, bytes) = counting(&options);
    let all_of = |reader: &mut StreamReader| {
        let before = bytes.load(SeqCst);
        let query = StreamQuery::new("s-1").events_max(10);
        assert_eq!(reader.events(query, Seq::new(3_000)).map(|event| event.unwrap().session_seq).max(), Some(Some(1_000)));
        bytes.load(SeqCst) - before
    };
    for (rows, bytes_max) in [
        ("session_seq = 905", 400_000),
        // The first of a page, and the last.
        ("session_seq = 901", 400_000),
        ("session_seq = 910", 400_000),
        ("session_seq IN (1, 2)", 200_000),
        ("session_seq % 10 = 5", 6 * whole),
        ("session_seq % 20 = 5", 6 * whole),
        ("session_seq % 40 = 1", 6 * whole),
        ("session_seq > 0", 6 * whole),
    ] {
        damaged(&dir, &format!("UPDATE events SET payload = '1' WHERE session_id = 's-1' AND {rows}"));
        let mut reader = StreamReader::open(&dir, &counted).unwrap();
        let read = all_of(&mut reader);
        eprintln!("{rows}: {read} bytes of {whole}");
        assert!(read > 0 && read < bytes_max, "{rows}: {read} bytes of {whole}");
        assert_eq!(all_of(&mut reader), read, "a reader does not lose its way");
        let before = bytes.load(SeqCst);
        assert_eq!(reader.find(last.id, Seq::new(3_000)).unwrap().as_ref().map(text), Some(text(last)));
        assert!(bytes.load(SeqCst) - before < 400_000, "{rows}: an id is looked up in its segment");
        repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    }
}

#[test]
fn lines_are_not_looked_through_without_end_for_one_wrong_row() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let long = "x".repeat(100_000);
    for n in 0..120 {
        let of_stream = matches!(n, 0 | 1 | 119);
        store.append(note(&long).session(if of_stream { "s-1" } else { "s-2" })).unwrap();
    }
    store.close().unwrap();
    damaged(&dir, "UPDATE events SET payload = '1' WHERE seq = 2");
    let (counted, bytes) = counting(&options);
    let mut reader = StreamReader::open(&dir, &counted).unwrap();
    let page = reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap();
    assert_eq!((page.events.len(), page.next), (2, Some(3)));
    assert!(bytes.load(SeqCst) < 6 << 20, "{}", bytes.load(SeqCst));
    let page = reader.page(&StreamQuery::new("s-1").from(3), Seq::new(120)).unwrap();
    assert_eq!((page.events.len(), page.next, page.last), (1, None, 3));
    assert!(bytes.load(SeqCst) < 6 << 20, "{}", bytes.load(SeqCst));
}

#[test]
fn where_a_page_ended_is_of_no_matter_to_another_one() {
    let (_temp, dir, options) = of_one_stream();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append_batch((1..=5u64).map(|n| note(&n.to_string()).session("s-2")).collect(), &Conditions::none()).unwrap();
    store.close().unwrap();
    fs::remove_file(mirror_path(&dir)).unwrap();
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    let mut page = |session: &str, from: u64, through: u64| -> Vec<u64> {
        let query = StreamQuery::new(session).from(from).events_max(3);
        reader.page(&query, Seq::new(through)).unwrap().events.iter().filter_map(|event| event.session_seq).collect()
    };
    for (session, from, through, expected) in [
        ("s-1", 1, 25, &[1, 2, 3][..]),
        ("s-1", 4, 25, &[4, 5, 6]),
        ("s-1", 2, 25, &[2, 3, 4]),
        ("s-1", 9, 25, &[9, 10, 11]),
        ("s-2", 4, 25, &[4, 5]),
        ("s-1", 1, 25, &[1, 2, 3]),
        ("s-2", 4, 25, &[4, 5]),
        ("s-1", 1, 25, &[1, 2, 3]),
        ("s-1", 4, 2, &[]),
        ("s-1", 4, 5, &[4, 5]),
        ("s-1", 6, 25, &[6, 7, 8]),
    ] {
        assert_eq!(page(session, from, through), expected, "{session} from {from} through {through}");
    }
}

#[test]
fn a_reader_sees_what_is_written_meanwhile_and_a_mirror_that_was_replaced() {
    let (_temp, dir, options) = of_one_stream();
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    let count = |reader: &mut StreamReader| reader.page(&StreamQuery::new("s-1"), Seq::MAX).unwrap().events.len();
    assert_eq!(count(&mut reader), 20);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("21").session("s-1")).unwrap();
    assert_eq!(count(&mut reader), 21);
    store.close().unwrap();
    erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![Seq::new(3)..=Seq::new(3)]), "a test")).unwrap();
    let third = reader.page(&StreamQuery::new("s-1").from(3).events_max(1), Seq::MAX).unwrap().events.pop().unwrap();
    assert!(third.erased && third.payload.is_none());
    // Removed, and made anew: what the old file says no longer counts.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", mirror_path(&dir).display()));
    }
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("22").session("s-1")).unwrap();
    assert_eq!(count(&mut reader), 22);
    store.close().unwrap();
}
