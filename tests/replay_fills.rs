//! Goal: replay gives the mirror what it lacks, holes below the watermark too; it is idempotent and resumable, and where
//! a row conflicts it fails closed: nothing of the transaction that met it stays.
//!
//! Method: rows are deleted and edited behind the store's back, then `Replay` runs from the watermark and from the start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;

use common::*;
use counterfoil::*;
use rusqlite::Connection;

fn mirror(dir: &Path, options: &Options) -> (LedgerReader, Mirror) {
    let reader = LedgerReader::open(dir, options).unwrap();
    let mirror = Mirror::open(dir, reader.manifest(), options).unwrap();
    (reader, mirror)
}

fn rows(dir: &Path) -> i64 {
    common::by_hand(dir).query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
}

#[test]
fn holes_below_the_watermark() {
    let (_temp, dir, options) = store();
    for holes in ["seq = 1", "seq = 11", "seq IN (3, 4, 9)", "seq % 2 = 1", "seq < 12"] {
        common::by_hand(&dir).execute(&format!("DELETE FROM events WHERE {holes}"), []).unwrap();
        let missing = 12 - rows(&dir) as u64;
        let (reader, mut mirror) = mirror(&dir, &options);
        assert_eq!(mirror.watermark().seq.get(), 12);
        let report = Replay::from_watermark(&reader, &mirror, Seq::new(12)).unwrap().run(&mut mirror, &mut |_| ()).unwrap();
        assert_eq!((report.replayed, report.skipped_existing), (0, 0), "nothing lies behind the watermark");
        let report = Replay::from_start(&reader, Seq::new(12)).unwrap().run(&mut mirror, &mut |_| ()).unwrap();
        assert_eq!((report.replayed, report.skipped_existing, report.through.get()), (missing, 12 - missing, 12), "{holes}");
        let report = Replay::from_start(&reader, Seq::new(12)).unwrap().run(&mut mirror, &mut |_| ()).unwrap();
        assert_eq!((report.replayed, report.skipped_existing), (0, 12), "again: {holes}");
        drop(mirror);
        assert!(parity(&dir).is_consistent());
    }
}

#[test]
fn a_watermark_without_its_row_is_no_evidence() {
    // Nothing tells a row that was deleted from a watermark that is wrong, so such a mirror is rebuilt as a whole.
    for damage in ["DELETE FROM events WHERE seq = 12", "DELETE FROM events", "UPDATE mirrored_through SET seq = 13"] {
        let (_temp, dir, options) = store();
        common::by_hand(&dir).execute(damage, []).unwrap();
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let error = Mirror::open(&dir, reader.manifest(), &options).unwrap_err();
        assert!(matches!(error, MirrorError::Corrupt { .. }), "{error}");
        let report = open_is_clean(&dir, &options);
        assert_eq!((report.mirror_set_aside.is_some(), report.replay.replayed), (true, 12), "{damage}");
    }
}

#[test]
fn a_conflicting_row_fails_closed() {
    let (_temp, dir, options) = store();
    let conn = common::by_hand(&dir);
    conn.execute_batch("DELETE FROM events WHERE seq IN (2, 3); UPDATE events SET payload = '\"forged\"' WHERE seq = 9").unwrap();
    let (reader, mut mirror) = mirror(&dir, &options);
    let mark = mirror.watermark();
    let error = Replay::from_start(&reader, Seq::new(12)).unwrap().run(&mut mirror, &mut |_| ()).unwrap_err();
    assert!(
        matches!(&error, ReplayError::Mirror(MirrorError::Conflict { seq, id: found, .. }) if seq.get() == 9 && *found == id(108)),
        "{error}"
    );
    insta::assert_snapshot!(portable(error, &dir), @"the mirror <store>/mirror.sqlite3 has another event at seq 9 or under evt_00000J6HB7000000000000003C: the ledger has hash 04e0734f5b28ec929864851091666f260b49cd29262a14552152889367186883, the row 04e0734f5b28ec929864851091666f260b49cd29262a14552152889367186883 and differs in payload; nothing was written; run `counterfoil parity --full` to see all differences, then `counterfoil repair --from ledger`");
    assert_eq!((rows(&dir), mirror.watermark()), (10, mark), "nothing of the transaction stays");
    drop(mirror);
    let report = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!((report.rows_written, report.set_aside.len()), (3, 1));
    let kept: String = Connection::open(&report.set_aside[0])
        .unwrap()
        .query_row("SELECT payload FROM events WHERE seq = 9", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, "\"forged\"");
    open_is_clean(&dir, &options);
}

#[test]
fn it_goes_on_where_it_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 0..5 {
        // Batches, so that a step's end falls into one.
        store.append_batch((0..1000).map(|k| note("x").session(format!("s-{}", (n + k) % 7))).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    std::fs::remove_file(mirror_path(&dir)).unwrap();
    let (reader, mut mirror1) = mirror(&dir, &options);
    let mut replay = Replay::from_start(&reader, Seq::new(5000)).unwrap();
    assert_eq!(replay.step(&mut mirror1).unwrap(), ReplayStep::More);
    assert_eq!((mirror1.watermark().seq.get(), rows(&dir)), (4096, 4096));
    drop((replay, mirror1)); // as a crash would
    let (reader, mut mirror2) = mirror(&dir, &options);
    let report = Replay::from_watermark(&reader, &mirror2, Seq::new(5000)).unwrap().run(&mut mirror2, &mut |_| ()).unwrap();
    assert_eq!((report.replayed, report.skipped_existing), (904, 0));
    drop(mirror2);
    assert!(parity(&dir).is_consistent());
}

#[test]
fn a_damaged_line_ends_it() {
    let (_temp, dir, options) = store();
    let path = &segment_paths(&dir)[2];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[700] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let (reader, mut mirror) = mirror(&dir, &options);
    let error = Replay::from_start(&reader, Seq::new(12)).unwrap().run(&mut mirror, &mut |_| ()).unwrap_err();
    assert!(matches!(&error, ReplayError::Ledger(LedgerError::Damaged { path: at, .. }) if at == path), "{error}");
    drop(mirror);
    let error = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap_err();
    assert!(matches!(error, RepairError::LedgerDamaged { failures: 1 }), "{error}");
}
