//! Goal: the boundary of a schema is appended only on the head that was expected, by the ledger alone, and once; its row goes
//! where a larger transaction of the caller's goes, and is replayed where that is not committed.
//!
//! Method: transactions over the mirror and over an attached database commit, roll back, are run twice, and are cut off by a
//! copy of the store; the append is stopped at each of its own points; then the store is opened, and both legs compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use counterfoil::rusqlite::Connection;
use counterfoil::*;

fn migration() -> SchemaMigration {
    SchemaMigration::new("acme.orders", 1, 2).script("CREATE TABLE orders").details(&serde_json::json!({"by": "ann"})).unwrap()
}

fn opened(temp: &Path) -> (PathBuf, Store, Options) {
    let (dir, options) = (temp.join("store"), options());
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for text in ["1", "2", "3"] {
        store.append(note(text)).unwrap();
    }
    (dir, store, options)
}

fn count(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

const BOUNDARIES: &str = "SELECT count(*) FROM events WHERE event_type = 'counterfoil.schema_migration.v1'";
const TABLES: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'orders'";

#[test]
fn its_line_says_what_changed_on_which_head() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = opened(temp.path());
    let head = store.head();
    let receipt = store.append_schema_migration(head.event_hash, &migration()).unwrap();
    assert_eq!((receipt.seq, receipt.duplicate, receipt.mirror), (head.seq.next(), false, MirrorAck::Mirrored));
    let line = store.reader().unwrap().line(receipt.seq).unwrap().unwrap();
    insta::assert_snapshot!(String::from_utf8(line).unwrap(), @r#"{"seq":4,"id":"evt_0000000000MVY42GV7NKZ3ETQV","schema_version":1,"observed_at":"2026-11-24T05:37:00.004000Z","recorded_at":"2026-11-24T05:37:00.004000Z","source":{"type":"runtime"},"event_type":"counterfoil.schema_migration.v1","group_seq":4,"payload_hash":"7ebb4f8c8b2f1bf7f510977f7ef895b6a07ea2c66da0c73b8f2dc0c5413c7e3b","prev_event_hash":"954642b8760f32dea1972983b402d88fa9ab3c44db7096b3a9d43f4b63490104","event_hash":"24af67320fbbb54e6b45bace498ee551b0be3236f36b09f1df894f727038f25f","payload":{"schema":"acme.orders","from":1,"to":2,"expected_head":"954642b8760f32dea1972983b402d88fa9ab3c44db7096b3a9d43f4b63490104","script":"869afcd7ca104953bf34b3fd7fa1ccb33f349e0c0f2d173f7add6e0bd5882529","details":{"by":"ann"}}}"#);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn callers_cannot_write_it_themselves() {
    let reserved = EventType::new(SchemaMigration::EVENT_TYPE);
    assert!(matches!(reserved, Err(EventTypeError::Reserved(_))));
}

#[test]
fn on_another_head_nothing_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = opened(temp.path());
    let old = store.head().event_hash;
    store.append(note("in between")).unwrap();
    let before = state(&store, &dir);
    let append = store.append_schema_migration(old, &migration()).unwrap_err();
    let begin = store.begin_schema_migration(old, &migration()).unwrap_err();
    for error in [append, begin] {
        let actual = store.head().event_hash;
        let Error::Append(AppendError::WrongHead { expected, actual: found }) = &error else { panic!("{error}") };
        assert_eq!((*expected, *found), (old, actual));
        assert!(error.to_string().contains(&old.to_string()) && error.to_string().contains(&actual.to_string()), "{error}");
    }
    assert_eq!(state(&store, &dir), before);
    // Once it is there, another migration on that head comes too late.
    let head = store.head().event_hash;
    let first = store.append_schema_migration(head, &migration()).unwrap();
    let again = store.append_schema_migration(head, &migration()).unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let before = state(&store, &dir);
    let error = store.append_schema_migration(head, &SchemaMigration::new("acme.orders", 1, 3)).unwrap_err();
    assert!(matches!(error, Error::Append(AppendError::WrongHead { .. })), "{error}");
    assert_eq!(state(&store, &dir), before);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn its_row_is_committed_with_the_callers_tables() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = opened(temp.path());
    let head = store.head();
    let boundary = store.begin_schema_migration(head.event_hash, &migration()).unwrap();
    assert_eq!((boundary.receipt().seq, boundary.receipt().mirror), (head.seq.next(), MirrorAck::NotAwaited));
    assert_eq!(store.head().seq, boundary.receipt().seq, "it is durable in the ledger");
    let inserted = store.mirror_mut().transaction(|transaction| {
        transaction.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
        let first = boundary.insert(transaction)?;
        Ok((first, boundary.insert(transaction)?))
    });
    assert_eq!(inserted.unwrap(), (Insertion::Inserted, Insertion::AlreadyPresent));
    assert_eq!(store.watermark().seq, head.seq, "the watermark stays");
    // Run again as a whole, before the watermark has gone over it and after.
    for _ in 0..2 {
        let again = store.begin_schema_migration(head.event_hash, &migration()).unwrap();
        assert_eq!((again.receipt().seq, again.receipt().duplicate), (boundary.receipt().seq, true));
        assert_eq!(again.line(), boundary.line());
        assert_eq!(store.mirror_mut().transaction(|transaction| again.insert(transaction)).unwrap(), Insertion::AlreadyPresent);
    }
    store.catch_up().unwrap();
    assert_eq!(store.watermark().seq, boundary.receipt().seq);
    store.append(note("behind it")).unwrap();
    store.close().unwrap();
    open_is_clean(&dir, &options);
    let conn = Connection::open(mirror_path(&dir)).unwrap();
    assert_eq!((count(&conn, BOUNDARIES), count(&conn, TABLES)), (1, 1));
}

/// What brings a row back that was rolled back.
#[derive(Clone, Copy, Debug)]
enum Replayed {
    CatchUp,
    NextAppend,
    Open,
}

#[test]
fn it_is_rolled_back_with_them_and_replayed_later() {
    for by in [Replayed::CatchUp, Replayed::NextAppend, Replayed::Open] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, mut store, options) = opened(temp.path());
        let head = store.head();
        let boundary = store.begin_schema_migration(head.event_hash, &migration()).unwrap();
        // On a connection of the caller's own.
        let mut conn = Connection::open(mirror_path(&dir)).unwrap();
        let transaction = conn.transaction().unwrap();
        transaction.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
        assert_eq!(boundary.insert(&transaction).unwrap(), Insertion::Inserted);
        assert_eq!(count(&transaction, BOUNDARIES), 1);
        transaction.rollback().unwrap();
        assert_eq!((count(&conn, BOUNDARIES), count(&conn, TABLES)), (0, 0));
        assert_eq!(store.watermark().seq, head.seq);
        match by {
            Replayed::CatchUp => assert_eq!(store.catch_up().unwrap().replayed, 1),
            Replayed::NextAppend => assert_eq!(store.append(note("behind it")).unwrap().mirror, MirrorAck::Mirrored),
            Replayed::Open => {}
        }
        store.close().unwrap();
        let report = open_is_clean(&dir, &options);
        assert_eq!(report.replay.replayed, u64::from(matches!(by, Replayed::Open)), "{by:?}");
        assert_eq!((count(&conn, BOUNDARIES), count(&conn, TABLES)), (1, 0), "{by:?}");
    }
}

#[test]
fn the_callers_tables_may_lie_in_a_database_of_their_own() {
    for commits in [true, false] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, mut store, options) = opened(temp.path());
        let head = store.head().event_hash;
        let boundary = store.begin_schema_migration(head, &migration()).unwrap();
        let mut conn = Connection::open(temp.path().join("orders.sqlite3")).unwrap();
        conn.execute("ATTACH ?1 AS mirror", [mirror_path(&dir).to_str().unwrap()]).unwrap();
        let transaction = conn.transaction().unwrap();
        transaction.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
        assert_eq!(boundary.insert(&transaction).unwrap(), Insertion::Inserted);
        if commits { transaction.commit() } else { transaction.rollback() }.unwrap();
        assert_eq!((count(&conn, BOUNDARIES), count(&conn, TABLES)), (i64::from(commits), i64::from(commits)));
        store.close().unwrap();
        let report = open_is_clean(&dir, &options);
        assert_eq!((report.replay.replayed, report.replay.skipped_existing), if commits { (0, 1) } else { (1, 0) });
    }
}

#[test]
fn a_crash_before_the_transaction_commits_leaves_the_event_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = opened(temp.path());
    let head = store.head().event_hash;
    let boundary = store.begin_schema_migration(head, &migration()).unwrap();
    let (between, within) = (temp.path().join("between"), temp.path().join("within"));
    copy_dir(&dir, &between);
    let mut conn = Connection::open(mirror_path(&dir)).unwrap();
    let transaction = conn.transaction().unwrap();
    transaction.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
    boundary.insert(&transaction).unwrap();
    copy_dir(&dir, &within);
    for dir in [between, within] {
        assert_eq!(open_is_clean(&dir, &options).replay.replayed, 1);
        // Whoever comes back runs it again, as it was.
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        let again = store.begin_schema_migration(head, &migration()).unwrap();
        assert_eq!((again.receipt().seq, again.receipt().duplicate), (boundary.receipt().seq, true));
        assert_eq!(again.receipt().mirror, MirrorAck::Mirrored);
        let inserted = store.mirror_mut().transaction(|transaction| {
            transaction.execute_batch("CREATE TABLE orders (id TEXT)").unwrap();
            again.insert(transaction)
        });
        assert_eq!(inserted.unwrap(), Insertion::AlreadyPresent);
        store.close().unwrap();
        open_is_clean(&dir, &options);
        let conn = Connection::open(mirror_path(&dir)).unwrap();
        assert_eq!((count(&conn, BOUNDARIES), count(&conn, TABLES)), (1, 1));
    }
}

#[test]
fn an_append_that_is_stopped_is_recorded_once_or_not_at_all() {
    for point in [failpoint::LEDGER_WRITE, failpoint::LEDGER_SYNC, failpoint::LEDGER_SYNCED] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, store, mut options) = opened(temp.path());
        let head = store.head();
        store.close().unwrap();
        let at = Arc::new(move |at: &str| if at == point { Err(std::io::Error::other("as told")) } else { Ok(()) });
        let well = options.clone();
        options.failpoint = Some(at);
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        let error = store.begin_schema_migration(head.event_hash, &migration()).unwrap_err();
        assert!(!error.to_string().is_empty());
        drop(store);
        let (mut store, _) = Store::open(&dir, &well).unwrap();
        let boundary = store.begin_schema_migration(head.event_hash, &migration()).unwrap();
        assert_eq!(boundary.receipt().seq, head.seq.next(), "{point}");
        assert_eq!(boundary.receipt().duplicate, point != failpoint::LEDGER_WRITE, "{point}");
        store.mirror_mut().transaction(|transaction| boundary.insert(transaction)).unwrap();
        store.close().unwrap();
        open_is_clean(&dir, &well);
        assert_eq!(count(&Connection::open(mirror_path(&dir)).unwrap(), BOUNDARIES), 1, "{point}");
    }
}

#[test]
fn what_the_mirror_lacked_comes_before_it() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut store, options) = opened(temp.path());
    let other = Connection::open(mirror_path(&dir)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.append(note("4")).unwrap().mirror, MirrorAck::MirrorBehind);
    let head = store.head();
    let before = state(&store, &dir);
    assert!(store.begin_schema_migration(head.event_hash, &migration()).is_err(), "the mirror is locked");
    assert_eq!(state(&store, &dir), before);
    other.execute_batch("ROLLBACK").unwrap();
    let boundary = store.begin_schema_migration(head.event_hash, &migration()).unwrap();
    assert_eq!(store.watermark().seq, head.seq);
    store.mirror_mut().transaction(|transaction| boundary.insert(transaction)).unwrap();
    store.close().unwrap();
    assert_eq!(open_is_clean(&dir, &options).replay.skipped_existing, 1);
}

#[test]
fn only_the_mirror_of_its_own_ledger_takes_it() {
    let temp = tempfile::tempdir().unwrap();
    let (_, mut store, _) = opened(temp.path());
    let head = store.head().event_hash;
    let boundary = store.begin_schema_migration(head, &migration()).unwrap();
    let elsewhere = temp.path().join("elsewhere");
    let (mut other, _) = Store::open(&elsewhere, &Options::default()).unwrap();
    let error = other.mirror_mut().transaction(|transaction| boundary.insert(transaction)).unwrap_err();
    assert!(matches!(error, MirrorError::OtherLedger { .. }), "{error}");
    let none = Connection::open_in_memory().unwrap();
    assert!(matches!(boundary.insert(&none), Err(MirrorError::Sqlite { .. })));
    // Another row stands in its place.
    let error = store.mirror_mut().transaction(|transaction| {
        boundary.insert(transaction)?;
        common::unguard(transaction);
        transaction.execute("UPDATE events SET observed_at = '2026-11-24T05:37:09.000000Z' WHERE seq = 4", []).unwrap();
        boundary.insert(transaction)
    });
    assert!(matches!(error, Err(MirrorError::Conflict { .. })), "{error:?}");
}

#[cfg(feature = "actors")]
#[tokio::test]
async fn the_actors_append_it_too() {
    use counterfoil::actors::{Durability, Ledger, LedgerOptions};
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::default();
    options.mirrored_deadline = std::time::Duration::from_secs(60);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let first = ledger.append(note("1")).await.unwrap();
    let second = ledger.append(note("2")).await.unwrap();
    let append = |head| {
        let ledger = ledger.clone();
        async move { ledger.append_schema_migration(head, &migration(), Durability::Mirrored).await }
    };
    let Err(AppendError::WrongHead { expected, actual }) = append(first.event_hash).await else { panic!("another head") };
    assert_eq!((expected, actual), (first.event_hash, second.event_hash));
    let receipt = append(second.event_hash).await.unwrap();
    assert_eq!((receipt.seq.get(), receipt.duplicate, receipt.mirror), (3, false, MirrorAck::Mirrored));
    let again = append(second.event_hash).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (receipt.seq, true));
    // Of callers that race on one head, one wins.
    let racing: Vec<_> = (3..9)
        .map(|to| {
            let (ledger, head) = (ledger.clone(), receipt.event_hash);
            tokio::spawn(async move {
                ledger.append_schema_migration(head, &SchemaMigration::new("acme.orders", 2, to), Durability::Ledger).await
            })
        })
        .collect();
    let mut won = 0;
    for task in racing {
        match task.await.unwrap() {
            Ok(receipt) => won += u64::from(!receipt.duplicate),
            Err(AppendError::WrongHead { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
    finish(ledger, temp.path(), 4).await;
}
