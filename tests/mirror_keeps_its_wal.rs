//! Goal: another program that opens the mirror and closes it again (`sqlite3 mirror.sqlite3`, say) leaves its WAL where it
//! is: SQLite removes the WAL with the last connection, and a writer's own is one.
//!
//! Method: python3, whose sqlite3 module is another build of SQLite, opens the mirror for writing, reads and closes it, beside
//! a store, beside actors, and beside actors whose SqliteActor has opened the mirror again. The WAL is still the same file,
//! and what is committed afterwards is seen by new connections.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{finish, note, skipped};
use counterfoil::actors::{Ledger, MirrorHealth};
use counterfoil::*;

const COUNT: &str = "
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1])
print(conn.execute('SELECT count(*) FROM events').fetchone()[0])
conn.close()
";

/// What another program counts; nothing where there is none.
fn counted_elsewhere(dir: &Path) -> Option<u64> {
    let counted = Command::new("python3").args(["-c", COUNT]).arg(mirror_path(dir)).output().ok()?;
    assert!(counted.status.success(), "{counted:?}");
    Some(String::from_utf8(counted.stdout).unwrap().trim().parse().unwrap())
}

fn wal_inode(dir: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", mirror_path(dir).display())).expect("a WAL").ino()
}

#[test]
fn beside_a_store() {
    let (_temp, dir, options) = common::store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("one")).unwrap();
    let wal = wal_inode(&dir);
    match counted_elsewhere(&dir) {
        Some(events) => assert_eq!(events, 13),
        None => return skipped("beside_a_store", "there is no python3"),
    }
    assert_eq!(wal_inode(&dir), wal, "the WAL that is written is the one that readers see");
    store.append(note("two")).unwrap();
    assert_eq!(counted_elsewhere(&dir), Some(14));
    store.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_actors() {
    let (_temp, dir, options) = common::store();
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    for events in 13..17 {
        ledger.mirrored(ledger.append(note("one")).await.unwrap().seq).await.unwrap();
        let wal = wal_inode(&dir);
        match counted_elsewhere(&dir) {
            Some(counted) => assert_eq!(counted, events),
            None => return skipped("beside_actors", "there is no python3"),
        }
        assert_eq!(wal_inode(&dir), wal, "the WAL that is written is the one that readers see");
        assert!(ledger.status().mirror_set_aside.is_none(), "the mirror is well");
        // The next SqliteActor opens the mirror again, beside LedgerActor's reader.
        let killed = ledger.children().await.unwrap().sqlite.unwrap();
        killed.kill();
        let is_back = async || {
            let next = ledger.children().await.unwrap().sqlite;
            next.is_some_and(|next| next.get_id() != killed.get_id()) && ledger.status().mirror == MirrorHealth::Live
        };
        let back = async {
            while !is_back().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), back).await.expect("a restart");
    }
    finish(ledger, &dir, 16).await;
}
