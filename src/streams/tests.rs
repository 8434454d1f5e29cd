//! What a page costs, counted in steps of SQLite's virtual machine: what it has, and nothing that grows with the store or the stream.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{SessionIndex, SessionsOrder, SessionsQuery, StreamQuery, StreamReader};
use crate::event::{Draft, EventId, EventType, Seq, Source};
use crate::ledger::Conditions;
use crate::options::Options;
use crate::store::Store;

/// A closed store of so many events in so many streams, in turn.
fn filled(dir: &Path, events: u64, streams: u64) -> Options {
    let options = Options::default();
    let (mut store, _) = Store::open(dir, &options).unwrap();
    let draft = |n: u64| {
        let draft = Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).id(EventId::from_u128(u128::from(n)));
        draft.session(format!("s-{}", n % streams)).payload("some text").unwrap()
    };
    for from in (0..events).step_by(4000) {
        store.append_batch((from..events.min(from + 4000)).map(draft).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    options
}

/// Counts the steps of a connection.
fn counted(conn: &mut rusqlite::Connection) -> Arc<AtomicU64> {
    let steps = Arc::new(AtomicU64::new(0));
    let count = steps.clone();
    let counting = move || {
        count.fetch_add(1, SeqCst);
        false
    };
    conn.progress_handler(1, Some(counting)).unwrap();
    steps
}

/// Steps of pages in the middle of a stream, at its ends, of a look for an event, and of one that is not there.
fn steps_of_pages(dir: &Path, options: &Options, middle: u64, through: Seq) -> Vec<(&'static str, u64)> {
    let mut reader = StreamReader::open(dir, options).unwrap();
    reader.page(&StreamQuery::new("none"), through).unwrap();
    let steps = counted(reader.mirror.as_mut().unwrap().connection_mut());
    let of = |query: StreamQuery| query.events_max(20);
    let mut took = Vec::new();
    for (what, query) in [
        ("from the start", of(StreamQuery::new("s-1"))),
        ("from the middle", of(StreamQuery::new("s-1").from(middle))),
        ("from the end, backwards", of(StreamQuery::new("s-1").backwards())),
        ("from the middle, backwards", of(StreamQuery::new("s-1").from(middle).backwards())),
        ("no such stream", of(StreamQuery::new("none"))),
    ] {
        let before = steps.load(SeqCst);
        let events = reader.page(&query, through).unwrap().events.len();
        assert_eq!(events, if query.session_id() == "none" { 0 } else { 20 }, "{what}");
        took.push((what, steps.load(SeqCst) - before));
    }
    for (what, id) in [("an id", 1), ("no such id", u128::MAX)] {
        let before = steps.load(SeqCst);
        assert_eq!(reader.find(EventId::from_u128(id), through).unwrap().is_some(), id == 1);
        took.push((what, steps.load(SeqCst) - before));
    }
    took
}

#[test]
fn a_page_takes_as_many_steps_in_a_large_store_as_in_a_small_one() {
    let temp = tempfile::tempdir().unwrap();
    let (small, large) = (temp.path().join("small"), temp.path().join("large"));
    let options = filled(&small, 400, 5);
    filled(&large, 6_000, 5);
    let of_small = steps_of_pages(&small, &options, 40, Seq::new(400));
    let of_large = steps_of_pages(&large, &options, 600, Seq::new(6_000));
    assert_eq!(of_small, of_large);
    // A row is 60 steps or so: its columns, and what it takes to find it.
    assert!(of_large.iter().all(|(_, steps)| (20..20 * 100).contains(steps)), "{of_large:?}");
    // Where much lies behind the last seq that is wanted, it is looked for by halves.
    let early = steps_of_pages(&large, &options, 40, Seq::new(400));
    for ((what, steps), (_, early)) in of_large.iter().zip(&early) {
        assert!(*early < steps + 14 * 60, "{what}: {early} steps, and {steps} where nothing lies behind");
    }
}

#[test]
fn a_page_of_sessions_takes_as_many_steps_in_a_long_list_as_in_a_short_one() {
    let temp = tempfile::tempdir().unwrap();
    let (short, long) = (temp.path().join("short"), temp.path().join("long"));
    let options = filled(&short, 600, 60);
    filled(&long, 6_000, 2_000);
    let steps_of = |dir: &Path| -> Vec<u64> {
        let mut index = SessionIndex::open(dir, &options).unwrap();
        index.page(&SessionsQuery::new()).unwrap();
        let (list, mirror) = (counted(index.file.conn()), counted(index.mirror.as_mut().unwrap().connection_mut()));
        let mut took = Vec::new();
        for order in [SessionsOrder::Last, SessionsOrder::First, SessionsOrder::Id] {
            let mut query = SessionsQuery::new().order(order);
            for _ in 0..2 {
                let before = list.load(SeqCst) + mirror.load(SeqCst);
                let page = index.page(&query.clone().limit(20)).unwrap();
                assert_eq!(page.sessions.len(), 20);
                took.push(list.load(SeqCst) + mirror.load(SeqCst) - before);
                query = SessionsQuery::after(page.next.unwrap());
            }
        }
        took
    };
    let (of_short, of_long) = (steps_of(&short), steps_of(&long));
    assert_eq!(of_short, of_long);
    assert!(of_long.iter().all(|steps| (100..20 * 100).contains(steps)), "{of_long:?}");
}

#[test]
fn new_rows_are_counted_and_no_others() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = filled(&dir, 8_000, 100);
    let mut index = SessionIndex::open(&dir, &options).unwrap();
    index.page(&SessionsQuery::new()).unwrap();
    let mirror = counted(index.mirror.as_mut().unwrap().connection_mut());
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).session("s-1").payload("more").unwrap()).unwrap();
    assert_eq!(index.page(&SessionsQuery::new()).unwrap().as_of, Seq::new(8_001));
    let steps = mirror.load(SeqCst);
    assert!((20..1_000).contains(&steps), "{steps} steps in a mirror of 8,000 rows");
    store.close().unwrap();
}
