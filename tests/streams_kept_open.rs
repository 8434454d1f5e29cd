//! Goal: readers that the handle keeps open between its calls cost nobody anything: they are used again, hold no read transaction, follow a
//! mirror that is replaced, and are gone once the store is closed or its last handle is dropped.
//!
//! Method: the manifest's file, which each reader that is opened reads, is counted by the disk; the WAL is emptied from outside after pages
//! were read; the process's open files are listed.

#![cfg(feature = "actors")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use common::opened::Opened;
use common::{note, until};
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::from(common::options());
    common::disk::without_sync(&mut options.store);
    options.store.mirror_busy_timeout = Duration::from_millis(10);
    options
}

async fn filled(dir: &Path, options: LedgerOptions) -> Ledger {
    let ledger = Ledger::open_with(dir, options).await.unwrap();
    ledger.append_batch((1..=50u64).map(|n| note(&n.to_string()).id(common::id(n)).session("s-1")).collect()).await.unwrap();
    ledger.mirrored(Seq::new(50)).await.unwrap();
    ledger
}

/// Each kind of read of the handle.
async fn read_all_ways(ledger: &Ledger) {
    let page = ledger.stream_page(StreamQuery::new("s-1").from(20).events_max(10)).await.unwrap();
    assert_eq!(page.events.len(), 10);
    let found = ledger.find(common::id(7)).await.unwrap().unwrap();
    assert_eq!(ledger.payload(&found).await.unwrap().unwrap().get(), "\"7\"");
    assert_eq!(ledger.sessions(SessionsQuery::new()).await.unwrap().sessions.len(), 1);
    let mut events = ledger.stream(StreamQuery::new("s-1").events_max(30));
    let mut count = 0;
    while let Some(event) = std::future::poll_fn(|cx| events.as_mut().poll_next(cx)).await {
        event.unwrap();
        count += 1;
    }
    assert!(count >= 50, "{count}");
}

fn wal(dir: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", mirror_path(dir).display()))
}

/// Files of the store that this process has open, where that can be listed.
fn open_files(dir: &Path) -> Option<Vec<PathBuf>> {
    let dir = dir.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc/self/fd").ok()?;
    let mut open: Vec<_> = all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).filter(|path| path.starts_with(&dir)).collect();
    open.sort();
    Some(open)
}

#[tokio::test]
async fn calls_one_after_the_other_open_one_reader() {
    let temp = tempfile::tempdir().unwrap();
    let opened = Arc::new(AtomicU64::new(0));
    let (mut options, count) = (options(), opened.clone());
    options.store.storage = Arc::new(Opened(move |path: &Path, file: Box<dyn StorageFile>| {
        count.fetch_add(u64::from(path.ends_with("ledger.json")), SeqCst);
        file
    }));
    let ledger = filled(temp.path(), options).await;
    let before = opened.load(SeqCst);
    for _ in 0..10 {
        read_all_ways(&ledger).await;
    }
    assert_eq!(opened.load(SeqCst) - before, 2, "a reader of streams, and a list of sessions");
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn the_wal_is_emptied_beside_them() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.store.mirror_wal_bytes_max = 1 << 20;
    let ledger = filled(temp.path(), options).await;
    let conn = common::by_hand(temp.path());
    for n in 0..30 {
        read_all_ways(&ledger).await;
        ledger.append_batch((0..20).map(|_| note(&"x".repeat(4_000)).session("s-1")).collect()).await.unwrap();
        ledger.mirrored(Seq::new(50 + (n + 1) * 20)).await.unwrap();
        assert!(ledger.status().mirror_wal_held.is_none(), "{:?}", ledger.status());
    }
    read_all_ways(&ledger).await;
    let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
    assert_eq!((busy, std::fs::metadata(wal(temp.path())).unwrap().len()), (0, 0));
    drop(conn);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn they_follow_a_mirror_that_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = filled(temp.path(), options()).await;
    read_all_ways(&ledger).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display()));
    }
    ledger.append(note("51").session("s-1")).await.unwrap();
    let rows = || {
        let new = MirrorReader::open(temp.path(), ledger.manifest().ledger_id, Duration::ZERO).ok()?;
        Some((new.count().ok()?, new.watermark(ledger.manifest().ledger_id).ok()?.seq))
    };
    until("a new mirror", || rows() == Some(((51, Seq::new(51)), Seq::new(51)))).await;
    let is_deleted = |path: &PathBuf| path.to_string_lossy().ends_with(" (deleted)");
    until("the old one is closed", || open_files(temp.path()).is_none_or(|open| !open.iter().any(is_deleted))).await;
    let page = ledger.stream_page(StreamQuery::new("s-1")).await.unwrap();
    assert_eq!((page.events.len(), page.last), (51, 51));
    assert_eq!(ledger.sessions(SessionsQuery::new()).await.unwrap().sessions[0].events, 51);
    // That its rows are what is read shows where one is gone from their end, which the ledger's lines, and the old file, do not know of.
    common::by_hand(temp.path()).execute("DELETE FROM events WHERE seq = 51", []).unwrap();
    let page = ledger.stream_page(StreamQuery::new("s-1")).await.unwrap();
    assert_eq!((page.events.len(), page.last), (50, 50));
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn none_is_left_once_the_store_is_closed() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = filled(temp.path(), options()).await;
    let other = ledger.clone();
    read_all_ways(&ledger).await;
    assert!(wal(temp.path()).exists());
    ledger.close().await.unwrap();
    assert!(!wal(temp.path()).exists(), "the writer's connection was the last one");
    // Reads need no lock: they go on, and keep nothing.
    read_all_ways(&other).await;
    if let Some(open) = open_files(temp.path()) {
        assert_eq!(open, [] as [PathBuf; 0]);
    }
    drop(other);
}

#[tokio::test]
async fn none_is_left_once_the_last_handle_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = filled(temp.path(), options()).await;
    read_all_ways(&ledger).await;
    let Some(open) = open_files(temp.path()) else {
        return common::skipped("none_is_left_once_the_last_handle_is_dropped", "open files can't be listed here");
    };
    assert!(open.iter().filter(|path| path.ends_with("mirror.sqlite3")).count() > 1, "{open:?}");
    drop(ledger);
    until("all is closed", || open_files(temp.path()).unwrap().is_empty()).await;
    assert!(!wal(temp.path()).exists(), "the writer's connection was the last one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_holds_a_file_with_what_was_erased() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = filled(temp.path(), options()).await;
    let secret = "a secret that nobody is to read";
    let receipt = ledger.append(note(secret).session("s-1")).await.unwrap();
    ledger.mirrored(receipt.seq).await.unwrap();
    // Into the file itself, and into what readers have open.
    common::by_hand(temp.path()).query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    read_all_ways(&ledger).await;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display()));
    }
    ledger.append(note("51").session("s-1")).await.unwrap();
    let new = || MirrorReader::open(temp.path(), ledger.manifest().ledger_id, Duration::ZERO).ok()?.count().ok();
    until("a new mirror", || new().is_some_and(|(rows, _)| rows == 52)).await;
    let report = ledger.erase(Erasure::new(Erase::Seqs(vec![receipt.seq..=receipt.seq]), "asked")).await.unwrap();
    assert!(report.done.unfinished.is_none(), "{report:?}");
    let Some(open) = open_files(temp.path()) else {
        return common::skipped("none_holds_a_file_with_what_was_erased", "open files can't be listed here");
    };
    assert!(open.iter().all(|path| !path.to_string_lossy().ends_with(" (deleted)")), "{open:?}");
    for fd in std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| Some(fd.ok()?.path())) {
        if std::fs::read_link(&fd).is_ok_and(|path| open.contains(&path)) {
            let bytes = std::fs::read(&fd).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{:?}", std::fs::read_link(&fd));
        }
    }
    ledger.close().await.unwrap();
}
