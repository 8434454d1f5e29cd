//! Goal: a page of a stream is what a filter over all of the ledger's lines gives, forwards and backwards, from any position, up to
//! any seq, whatever state the mirror is in; and nothing is handed out that is not right by its own hash.
//!
//! Method: stores from seeds (batches, compressed segments, payloads in blobs/, erased ones), with a mirror that is at the ledger's
//! end, behind, missing, locked, no database, or being made anew between two pages; one reader reads pages of many sizes, and is held
//! against the filter. Then rows, index and blobs are damaged by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::streams::{STREAMS, all, filled, of_stream, text, unmirrored};
use common::{Random, campaign, copy_dir, note};
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

/// Reads a stream, page after page; `between` is called between two pages.
fn read_through(
    reader: &mut StreamReader,
    (session, backwards, from, events_max, bytes_max): (&str, bool, Option<u64>, usize, usize),
    through: Seq,
    stream: &[&(EventRecord, usize)],
    between: &mut dyn FnMut(),
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
        between();
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
                } else if random.chance(40) {
                    pages_at[0] += 1;
                }
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
