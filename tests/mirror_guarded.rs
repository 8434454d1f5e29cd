//! Goal: who opens the mirror with another program deletes and changes no row by accident, and is told what to do in place of it; what
//! Counterfoil itself does to rows, erasures and repairs, is not in its own way; a mirror of before is guarded from its next open on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use counterfoil::*;

fn refused(conn: &rusqlite::Connection, sql: &str) -> String {
    conn.execute_batch(sql).expect_err(sql).to_string()
}

#[test]
fn rows_are_not_deleted_nor_changed() {
    let (_temp, dir, options) = common::store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    insta::assert_snapshot!(refused(&conn, "DELETE FROM events WHERE seq = 3"), @"this is the mirror of a Counterfoil ledger, and its rows are not deleted: to take data out, run `counterfoil erase`; to have the mirror made anew, remove the file while nobody writes");
    insta::assert_snapshot!(refused(&conn, "UPDATE events SET payload = '1' WHERE seq = 3"), @"this is the mirror of a Counterfoil ledger, and its rows are not changed: append an event that says what is right, and keep what is yours in a database of its own");
    for sql in [
        "DELETE FROM events",
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE session_id = 's-1')",
        "INSERT INTO events SELECT * FROM events WHERE seq = 3 ON CONFLICT DO UPDATE SET payload = '1'",
        "BEGIN; DELETE FROM events WHERE seq = 12; COMMIT",
    ] {
        refused(&conn, sql);
    }
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").unwrap();
    }
    // Nothing of it stays, and the writer has noticed nothing.
    let again = store.append(common::drafts().remove(11)).unwrap();
    assert!(again.duplicate && again.seq == Seq::new(12), "{again:?}");
    store.append(common::note("more").session("s-1")).unwrap();
    store.close().unwrap();
    assert!(common::parity(&dir).is_consistent());
}

#[test]
fn a_mirror_of_before_is_guarded_from_its_next_open_on() {
    let (_temp, dir, options) = common::store();
    let conn = common::by_hand(&dir);
    conn.execute_batch("DROP TRIGGER events_are_not_deleted; DROP TRIGGER events_are_not_changed; PRAGMA user_version = 1").unwrap();
    drop(conn);
    let report = common::open_is_clean(&dir, &options);
    assert_eq!(report.mirror_set_aside, None, "its rows are kept");
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    assert_eq!(conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), SCHEMA_VERSION);
    refused(&conn, "DELETE FROM events WHERE seq = 3");
}

#[test]
fn it_is_in_the_way_of_no_erasure_and_no_repair_and_stands_afterwards() {
    let (_temp, dir, options) = common::store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.erase(&Erasure::new(Erase::Seqs(vec![Seq::new(4)..=Seq::new(4)]), "asked")).unwrap();
    store.close().unwrap();
    let conn = common::by_hand(&dir);
    conn.execute_batch("UPDATE events SET payload = '1' WHERE seq = 3; DELETE FROM events WHERE seq = 5").unwrap();
    drop(conn);
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert!(common::parity(&dir).is_consistent());
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    refused(&conn, "DELETE FROM events WHERE seq = 3");
    refused(&conn, "UPDATE events SET payload = NULL WHERE seq = 3");
}
