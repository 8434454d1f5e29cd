//! Goal: through the handle a stream has every event that was durable when it was asked for, also while the mirror is locked, lags or is
//! missing; an async stream loads the pages that its consumer asks for and no others, and stops when it is dropped; sessions are listed
//! with what has just been appended.
//!
//! Method: appends and reads in turn on a live store; another connection holds SQLite's lock; the disk under the ledger counts what is
//! read of segments, with a mirror whose index is gone, so that each page that is loaded shows.

#![cfg(feature = "actors")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::opened::counting;
use common::{note, until};
use counterfoil::actors::{Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;
use futures_core::Stream;

type Events = Pin<Box<dyn Stream<Item = Result<EventRecord, Error>> + Send>>;

async fn next(events: &mut Events) -> Option<EventRecord> {
    poll_fn(|cx| events.as_mut().poll_next(cx)).await.map(|event| event.unwrap())
}

async fn positions(mut events: Events) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(event) = next(&mut events).await {
        all.push(event.session_seq.unwrap());
    }
    all
}

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::from(common::options());
    common::disk::without_sync(&mut options.store);
    options.store.mirror_busy_timeout = Duration::from_millis(10);
    options.close_deadline = Duration::from_secs(20);
    options
}

/// Appends, and reads what was appended at once.
async fn append_and_read(ledger: &Ledger, from: u64, to: u64) {
    for n in from..=to {
        let receipt = ledger.append(note(&n.to_string()).session("s-1")).await.unwrap();
        let page = ledger.stream_page(StreamQuery::new("s-1").backwards().events_max(1)).await.unwrap();
        assert_eq!((page.events[0].id, page.last), (receipt.id, n));
        let page = ledger.stream_page(StreamQuery::new("s-1").from(n)).await.unwrap();
        assert_eq!((page.events.len(), page.next), (1, None));
        let found = ledger.find(receipt.id).await.unwrap().unwrap();
        assert_eq!(ledger.payload(&found).await.unwrap().unwrap().get(), format!("\"{n}\""));
    }
}

#[tokio::test]
async fn own_appends_are_read_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    append_and_read(&ledger, 1, 20).await;
    ledger.mirrored(Seq::new(20)).await.unwrap();
    let sessions = ledger.sessions(SessionsQuery::new()).await.unwrap();
    assert_eq!((sessions.sessions[0].events, sessions.as_of.get()), (20, 20));

    // Another connection holds the lock to write: readers go on, and see in the lines what has no row.
    let other = common::by_hand(temp.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    append_and_read(&ledger, 21, 40).await;
    assert_eq!(ledger.status().mirrored_through.get(), 20);
    assert_eq!(positions(ledger.stream(StreamQuery::new("s-1").events_max(7))).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(positions(ledger.stream(StreamQuery::new("s-1").backwards().events_max(7))).await, (1..=40).rev().collect::<Vec<_>>());
    let sessions = ledger.sessions(SessionsQuery::new()).await.unwrap();
    assert_eq!((sessions.sessions[0].events, sessions.as_of.get()), (20, 20), "it says as of which event it is");
    other.execute_batch("ROLLBACK").unwrap();

    until("the mirror has them", || ledger.status().mirrored_through.get() == 40).await;
    append_and_read(&ledger, 41, 45).await;
    // It is removed under the actors, and made anew.
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display()));
    }
    append_and_read(&ledger, 46, 60).await;
    until("a new mirror", || ledger.status().mirror == MirrorHealth::Live && ledger.status().mirrored_through.get() >= 60).await;
    assert_eq!(ledger.sessions(SessionsQuery::new()).await.unwrap().sessions[0].events, 60);
    ledger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_loads_what_is_asked_for_and_stops_when_it_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    let read;
    (options.store, read) = counting(&options.store);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let draft = |n: u64| note(&format!("{n} {}", "x".repeat(1000))).session("s-1");
    ledger.append_batch((1..=400).map(draft).collect()).await.unwrap();
    // Without a mirror each page that is loaded reads lines.
    let other = common::by_hand(temp.path());
    ledger.mirrored(Seq::new(400)).await.unwrap();
    // SqliteActor's first steps, which may read the ledger too, are over once it has done others' work.
    for _ in 0..3 {
        let other = ledger.append(note("elsewhere").session("s-2")).await.unwrap();
        ledger.mirrored(other.seq).await.unwrap();
    }
    other.execute_batch("DROP INDEX events_by_session").unwrap();
    let so_far = || read.load(SeqCst);

    let before = so_far();
    let mut events: Events = ledger.stream(StreamQuery::new("s-1").events_max(20));
    assert_eq!(so_far(), before, "nobody has asked for an event yet");
    assert_eq!(next(&mut events).await.unwrap().session_seq, Some(1));
    let of_one_page = so_far() - before;
    assert!(of_one_page > 20_000 && of_one_page < 150_000, "{of_one_page}");
    for n in 2..=20 {
        assert_eq!(next(&mut events).await.unwrap().session_seq, Some(n));
    }
    assert_eq!(so_far() - before, of_one_page, "a page, and nothing ahead of what was asked for");
    assert_eq!(next(&mut events).await.unwrap().session_seq, Some(21));
    assert!((of_one_page + 20_000..of_one_page * 3).contains(&(so_far() - before)), "one more page");
    drop(events);
    let after = so_far();
    // What would have gone on reading has had every chance to.
    for _ in 0..20 {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
    assert_eq!(so_far(), after, "nobody is there any more");

    // Dropped while a page is being loaded: that page is thrown away.
    let mut events: Events = ledger.stream(StreamQuery::new("s-1").events_max(20));
    let _ = poll_fn(|cx| std::task::Poll::Ready(events.as_mut().poll_next(cx).is_pending())).await;
    drop(events);
    ledger.close().await.unwrap();
    until("it is closed", || Store::open(temp.path(), &Options::default()).is_ok()).await;
}

#[tokio::test]
async fn a_stream_ends_where_its_last_page_was_loaded() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let append = async |n: u64| ledger.append(note(&n.to_string()).session("s-1")).await.unwrap();
    for n in 1..=5 {
        append(n).await;
    }
    let mut events: Events = ledger.stream(StreamQuery::new("s-1").events_max(4));
    assert_eq!(next(&mut events).await.unwrap().session_seq, Some(1));
    append(6).await;
    assert_eq!(positions(events).await, [2, 3, 4, 5, 6], "what was durable when the last page was loaded is there");
    assert_eq!(positions(ledger.stream(StreamQuery::new("none"))).await, [] as [u64; 0]);
    // A row that is wrong does not: its line is read.
    let conn = common::by_hand(temp.path());
    ledger.mirrored(Seq::new(6)).await.unwrap();
    conn.execute("UPDATE events SET payload = '9' WHERE seq = 5", []).unwrap();
    let events: Events = ledger.stream(StreamQuery::new("s-1").events_max(2));
    assert_eq!(positions(events).await, [1, 2, 3, 4, 5, 6]);
    // An error does.
    let path = common::segment_paths(temp.path()).remove(0);
    let lines = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, lines.replace("\"payload\":\"5\"", "\"payload\":\"6\"")).unwrap();
    let mut events: Events = ledger.stream(StreamQuery::new("s-1").events_max(2));
    for n in 1..=4 {
        assert_eq!(next(&mut events).await.unwrap().session_seq, Some(n));
    }
    let error = poll_fn(|cx| events.as_mut().poll_next(cx)).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stream(StreamError::Both { .. })), "{error}");
    assert!(poll_fn(|cx| events.as_mut().poll_next(cx)).await.is_none());
    std::fs::write(&path, lines).unwrap();
    ledger.close().await.unwrap();
}
