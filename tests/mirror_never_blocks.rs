//! Goal: while the mirror is locked by someone else, missing, or being rebuilt, appends go on, up to a bound, and
//! the promises about ids and streams hold all the same; it heals without help when the cause goes away.
//!
//! Method: another connection holds SQLite's write lock; the file is removed under the actors; a failpoint holds the
//! replay. Waits poll with a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{finish, until};
use counterfoil::actors::{Durability, Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::default();
    options.store.mirror_busy_timeout = Duration::from_millis(10);
    options.mirrored_deadline = Duration::from_millis(100);
    options.close_deadline = Duration::from_secs(20);
    options
}

fn in_session(session: &str, n: u64) -> Draft {
    common::note(&format!("{session} {n}")).session(session)
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_by_another_process() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let first = ledger.append(in_session("s", 0).id(common::id(1))).await.unwrap();
    ledger.mirrored(first.seq).await.unwrap();

    let other = rusqlite::Connection::open(mirror_path(temp.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 1..=50 {
        let receipt = ledger.append(in_session("s", n).id(common::id(100 + n))).await.unwrap();
        assert_eq!(receipt.session_seq, Some(n + 1));
    }
    let behind = ledger.append_with(in_session("s", 51), Expect::SessionSeq(51), Durability::Mirrored).await.unwrap();
    assert_eq!(behind.mirror, MirrorAck::MirrorBehind, "durable, and says that the row is not there yet");
    until("Blocked", || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. })).await;
    // Ids: of an event that is mirrored, of one that is not, and with other content.
    for (id, seq) in [(1, 1), (150, 51)] {
        let again = ledger.append(in_session("s", if id == 1 { 0 } else { 50 }).id(common::id(id))).await.unwrap();
        assert!(again.duplicate && again.seq.get() == seq, "{again:?}");
        let other = ledger.append(common::note("other").id(common::id(id))).await.unwrap_err();
        assert!(matches!(other, AppendError::Conflict { .. }), "{other}");
    }
    let wrong = ledger.append_with(in_session("s", 9), Expect::NoStream, Durability::Ledger).await.unwrap_err();
    assert!(matches!(wrong, AppendError::WrongSessionSeq { actual: 52, .. }), "{wrong}");
    assert_eq!(ledger.append(in_session("new", 0)).await.unwrap().session_seq, Some(1));

    other.execute_batch("ROLLBACK").unwrap();
    finish(ledger, temp.path(), 53).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_for_longer_than_the_bound() {
    let temp = tempfile::tempdir().unwrap();
    let mut bounded = options();
    bounded.store.unmirrored_events_max = 20;
    let ledger = Ledger::open_with(temp.path(), bounded).await.unwrap();
    let other = rusqlite::Connection::open(mirror_path(temp.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..20 {
        ledger.append(in_session("s", n)).await.unwrap();
    }
    let refused = ledger.try_append(in_session("s", 20)).await.unwrap_err();
    assert!(matches!(refused, AppendError::MirrorTooFarBehind { waiting: 20 }), "{refused}");
    let waiting: Vec<_> = (20..30)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.append(in_session("s", n)).await })
        })
        .collect();
    until("10 in flight", || ledger.status().in_flight == 10).await;
    assert_eq!(ledger.status().durable.seq.get(), 20, "nothing is written past the bound");
    other.execute_batch("ROLLBACK").unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    finish(ledger, temp.path(), 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_while_it_is_open() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    for n in 0..30 {
        ledger.append(in_session("s", n).id(common::id(n))).await.unwrap();
    }
    ledger.mirrored(Seq::new(30)).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display())).ok();
    }
    for n in 30..60 {
        let receipt = ledger.append(in_session("s", n)).await.unwrap();
        assert_eq!(receipt.session_seq, Some(n + 1));
    }
    let again = ledger.append(in_session("s", 3).id(common::id(3))).await.unwrap();
    assert!(again.duplicate && again.seq.get() == 4);
    until("a new file", || mirror_path(temp.path()).exists() && ledger.status().mirrored_through.get() == 60).await;
    assert!(ledger.status().restarts >= 1);
    finish(ledger, temp.path(), 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn being_rebuilt() {
    let temp = tempfile::tempdir().unwrap();
    let hold = Arc::new(AtomicBool::new(false));
    let mut held = options();
    let flag = hold.clone();
    held.store.failpoint = Some(Arc::new(move |point| {
        while point == "mirror.begin" && flag.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }));
    let ledger = Ledger::open_with(temp.path(), held).await.unwrap();
    for n in 0..30 {
        ledger.append(in_session("known", n).id(common::id(1000 + n))).await.unwrap();
    }
    ledger.mirrored(Seq::new(30)).await.unwrap();
    hold.store(true, Ordering::SeqCst);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display())).ok();
    }
    // The next commit finds the file gone; the replay that follows is held before its first transaction.
    ledger.append(in_session("known", 30)).await.unwrap();
    until("a replay", || ledger.status().restarts >= 1 && mirror_path(temp.path()).exists()).await;
    let mut unknown = 0;
    until("Rebuilding", || {
        unknown += 1;
        let (ledger, draft) = (ledger.clone(), in_session(&format!("unknown-{unknown}"), 0));
        futures_block(async move { matches!(ledger.try_append(draft).await, Err(AppendError::Rebuilding { .. })) })
    })
    .await;
    // Fresh ids in known streams go on.
    let receipt = ledger.append(in_session("known", 31)).await.unwrap();
    assert!(receipt.session_seq >= Some(32));
    // A caller's id that may be known, and an unknown stream, wait.
    let waiting = [in_session("known", 3).id(common::id(1003)), in_session("stranger", 0)].map(|draft| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.append(draft).await })
    });
    until("two in flight", || ledger.status().in_flight == 2).await;
    hold.store(false, Ordering::SeqCst);
    let [known, stranger] = waiting;
    let known = known.await.unwrap().unwrap();
    assert!(known.duplicate && known.seq.get() == 4, "{known:?}");
    assert_eq!(stranger.await.unwrap().unwrap().session_seq, Some(1));
    let events = ledger.status().durable.seq.get();
    finish(ledger, temp.path(), events).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn its_shared_memory_cannot_be_made_yet() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    common::filled(&dir, &common::small_segments());
    std::fs::remove_file(mirror_path(&dir)).unwrap();
    std::fs::create_dir(dir.join("mirror.sqlite3-shm")).unwrap();
    let ledger = Ledger::open_with(&dir, options()).await.unwrap();
    until("Blocked", || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. })).await;
    ledger.append(common::note("fresh")).await.unwrap();
    let known = common::drafts().swap_remove(0);
    let refused = ledger.try_append(known.clone()).await.unwrap_err();
    assert!(matches!(refused, AppendError::Rebuilding { .. }), "{refused}");
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.append(known).await }
    });
    until("one in flight", || ledger.status().in_flight == 1).await;
    std::fs::remove_dir(dir.join("mirror.sqlite3-shm")).unwrap();
    let again = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it heals without help").unwrap().unwrap();
    assert!(again.duplicate && again.seq == Seq::FIRST, "{again:?}");
    finish(ledger, &dir, 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_reach_while_ledger_actor_restarts() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.restarts_max = 1000;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append(in_session("s", 0)).await.unwrap();
    ledger.mirrored(Seq::FIRST).await.unwrap();
    let mirror = mirror_path(temp.path());
    let moved = temp.path().join("moved");
    std::fs::rename(&mirror, &moved).unwrap();
    std::fs::create_dir(&mirror).unwrap();
    ledger.children().await.unwrap().ledger.unwrap().kill();
    until("a restart", || ledger.status().restarts >= 3).await;
    std::fs::remove_dir(&mirror).unwrap();
    std::fs::rename(&moved, &mirror).unwrap();
    let receipt = ledger.append(in_session("s", 1)).await.unwrap();
    assert_eq!(receipt.session_seq, Some(2));
    finish(ledger, temp.path(), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_broken_in_a_large_mirror() {
    let temp = tempfile::tempdir().unwrap();
    let large = |n: u64| common::note(&"x".repeat(1 << 20)).id(common::id(n));
    let (mut store, _) = Store::open(temp.path(), &Options::default()).unwrap();
    for n in 0..20 {
        store.append(large(n)).unwrap();
    }
    store.close().unwrap();
    let mirror = mirror_path(temp.path());
    let root: i64 = {
        let conn = rusqlite::Connection::open(&mirror).unwrap();
        conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_events_1'", [], |row| row.get(0)).unwrap()
    };
    let mut bytes = std::fs::read(&mirror).unwrap();
    assert!(bytes.len() > 16 << 20, "so large that open does not check it as a whole");
    bytes[(root as usize - 1) * common::MIRROR_PAGE_BYTES..root as usize * common::MIRROR_PAGE_BYTES].fill(0xff);
    std::fs::write(&mirror, bytes).unwrap();

    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(60), ledger.append(large(3))).await.expect("an answer").unwrap();
    assert!(again.duplicate && again.seq.get() == 4, "{again:?}");
    assert!(ledger.status().restarts <= 3, "{} restarts", ledger.status().restarts);
    finish(ledger, temp.path(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_cannot_be_read_for_a_while() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    let disk = common::disk::faulty(&mut options.store);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append(in_session("s", 0)).await.unwrap();
    ledger.mirrored(Seq::FIRST).await.unwrap();
    let other = rusqlite::Connection::open(mirror_path(temp.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.append(in_session("s", 1)).await.unwrap();
    until("Blocked", || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. })).await;
    // As where a process has too many files open: what was not committed has to be read from the ledger.
    disk.fail(common::disk::Op::OpenRead, std::io::ErrorKind::Other);
    until("word of it", || format!("{:?}", ledger.status().mirror).contains("OpenRead")).await;
    other.execute_batch("ROLLBACK").unwrap();
    disk.heal();
    ledger.append(in_session("s", 2)).await.unwrap();
    finish(ledger, temp.path(), 3).await;
}

/// Runs a future inside a condition that is polled.
fn futures_block<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_while_it_is_open_and_too_large_to_be_checked_at_open() {
    let temp = tempfile::tempdir().unwrap();
    let text = "x".repeat(2000);
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let mut events = 0;
    for _ in 0..5 {
        let batch = (0..2000).map(|n| common::note(&text).session("s").id(common::id(events + n))).collect();
        ledger.append_batch(batch).await.unwrap();
        events += 2000;
    }
    ledger.close().await.unwrap();
    let path = mirror_path(temp.path());
    assert!(std::fs::metadata(&path).unwrap().len() > 16 << 20, "larger than what is checked at open");

    // Every page of the index of ids turns to garbage.
    let conn = rusqlite::Connection::open(&path).unwrap();
    let pages: Vec<u64> = {
        let mut pages = conn.prepare("SELECT pageno FROM dbstat WHERE name = 'sqlite_autoindex_events_1'").unwrap();
        pages.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(|page| page.unwrap() as u64).collect()
    };
    drop(conn);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in &pages {
        use std::io::{Seek, SeekFrom, Write};
        file.seek(SeekFrom::Start((page - 1) * common::MIRROR_PAGE_BYTES as u64)).unwrap();
        file.write_all(&[0xa5; common::MIRROR_PAGE_BYTES]).unwrap();
    }
    drop(file);

    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let again = ledger.append(common::note(&text).session("s").id(common::id(7))).await.unwrap();
    assert!(again.duplicate && again.seq.get() == 8, "{again:?}");
    let fresh = ledger.append(common::note("on").session("s")).await.unwrap();
    assert_eq!(fresh.session_seq, Some(events + 1));
    finish(ledger, temp.path(), events + 1).await;
    assert!(temp.path().join("mirror.sqlite3.aside-1").exists(), "the damaged file is kept");
}
