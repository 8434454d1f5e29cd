//! Goal: entities need the ledger alone: while the mirror is locked, removed, rebuilt or wrong in some rows, and while the store's actors
//! die and come back, commands are decided on all that is recorded, and keys stay exact.
//!
//! Method: another connection holds SQLite's write lock; the mirror's file is removed under the store; rows are changed by hand;
//! LedgerActor and SqliteActor are killed between and during commands. Entities are let go of each time, so that they are folded from what
//! there is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use counterfoil::actors::entity::EntityOptions;
use counterfoil::actors::{Ledger, MirrorHealth};
use counterfoil::*;
use entity_support::*;

/// Commands of which each needs the one before, on an entity that is folded anew each time; one key is sent twice.
async fn exchange(ledger: &Ledger, round: u64) {
    let accounts = ledger.entities(Account, EntityOptions::default()).await.unwrap();
    let before = accounts.read("a", |state| state.cents).await.unwrap();
    for n in 0..5 {
        let key = format!("{round}-{n}");
        let first = accounts.send_keyed("a", &key, deposit(10)).await.unwrap();
        assert!(!first.duplicate);
        accounts.passivate("a");
        let again = accounts.send_keyed("a", &key, deposit(10)).await.unwrap();
        assert!(again.duplicate && again.receipts[0].seq == first.receipts[0].seq);
        accounts.send("a", Do::Withdraw { cents: 9 }).await.unwrap();
        accounts.passivate("a");
    }
    // Keys of all rounds before.
    for old in 0..round {
        assert!(accounts.send_keyed("a", format!("{old}-3"), deposit(10)).await.unwrap().duplicate);
    }
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), before + 5);
    accounts.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_go_on_whatever_becomes_of_the_mirror() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    exchange(&ledger, 0).await;
    let locked = rusqlite::Connection::open(temp.path().join("mirror.sqlite3")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    exchange(&ledger, 1).await;
    until("Blocked", || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. })).await;
    exchange(&ledger, 2).await;
    drop(locked);
    exchange(&ledger, 3).await;
    for name in ["mirror.sqlite3", "mirror.sqlite3-wal", "mirror.sqlite3-shm"] {
        let _ = std::fs::remove_file(temp.path().join(name));
    }
    exchange(&ledger, 4).await;
    exchange(&ledger, 5).await;
    ledger.close().await.unwrap();
    let ledger = open(temp.path()).await;
    exchange(&ledger, 6).await;
    ledger.close().await.unwrap();
    assert_eq!(balance_by_hand(temp.path(), "a"), 35);
    assert!(common::parity(temp.path()).is_consistent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_go_on_while_the_stores_actors_die() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    for round in 0..4 {
        let children = ledger.children().await.unwrap();
        let victim = if round % 2 == 0 { children.ledger } else { children.sqlite };
        let exchanging = exchange(&ledger, round);
        let killing = async {
            tokio::task::yield_now().await;
            victim.inspect(|actor| actor.kill());
        };
        tokio::join!(exchanging, killing);
    }
    assert_eq!(balance_by_hand(temp.path(), "a"), 20);
}

#[tokio::test]
async fn commands_go_on_though_rows_are_wrong() {
    for sql in [
        "UPDATE events SET payload = '\"nothing\"' WHERE seq = 2",
        "UPDATE events SET event_hash = zeroblob(32) WHERE seq IN (1, 3)",
        "UPDATE events SET erased = 2",
        "DELETE FROM events WHERE seq = 2",
    ] {
        let temp = tempfile::tempdir().unwrap();
        let ledger = open(temp.path()).await;
        let with = |snapshot_every| {
            let mut options = EntityOptions::default();
            options.snapshot_every = snapshot_every;
            options
        };
        let accounts = ledger.entities(Account, with(3)).await.unwrap();
        for n in 0..4 {
            accounts.send_keyed("a", format!("k-{n}"), deposit(10)).await.unwrap();
        }
        ledger.mirrored(Seq::new(4)).await.unwrap();
        let conn = common::by_hand(temp.path());
        assert!(conn.execute(sql, []).unwrap() > 0);
        accounts.passivate("a");
        assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 40, "{sql}");
        assert!(accounts.send_keyed("a", "k-2", deposit(10)).await.unwrap().duplicate, "{sql}");
        // From the stream's first event on.
        conn.execute_batch("UPDATE events SET payload = '1' WHERE seq = 4").unwrap();
        accounts.close().await;
        let accounts = ledger.entities(Account, with(0)).await.unwrap();
        assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 40, "{sql}");
        accounts.send("a", Do::Withdraw { cents: 40 }).await.unwrap();
        assert_eq!(balance_by_hand(temp.path(), "a"), 0, "{sql}");
    }
}

#[tokio::test]
async fn keys_behind_a_snapshot_are_found_without_the_mirror() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, snapshots_every(1)).await.unwrap();
    for n in 0..3 {
        accounts.send_keyed("a", format!("k-{n}"), deposit(10)).await.unwrap();
    }
    ledger.mirrored(Seq::new(3)).await.unwrap();
    for name in ["mirror.sqlite3", "mirror.sqlite3-wal", "mirror.sqlite3-shm"] {
        let _ = std::fs::remove_file(temp.path().join(name));
    }
    // From the snapshot, which knows no keys.
    accounts.passivate("a");
    assert!(accounts.send_keyed("a", "k-1", deposit(10)).await.unwrap().duplicate);
    assert_eq!(accounts.read("a", |state| state.cents).await.unwrap(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_behind_a_snapshot_hold_while_the_mirror_is_locked() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let accounts = ledger.entities(Account, snapshots_every(1)).await.unwrap();
    accounts.send("a", deposit(1)).await.unwrap();
    let locked = rusqlite::Connection::open(temp.path().join("mirror.sqlite3")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..3 {
        accounts.send_keyed("a", format!("k-{n}"), deposit(1)).await.unwrap();
    }
    accounts.read("b", |_| ()).await.unwrap(); // the snapshot is kept by now
    accounts.passivate("a");
    assert!(accounts.send_keyed("a", "k-1", deposit(1)).await.unwrap().duplicate);
    assert!(accounts.send_keyed("a", "other", Do::Withdraw { cents: 1000 }).await.unwrap_err().is_rejected());
    drop(locked);
}
