//! Goal: one event can be inserted inside a transaction of the caller's own: it answers whether it was there, fails
//! closed where another row is, leaves the watermark alone, and goes where the caller's transaction goes.
//!
//! Method: unmirrored events are inserted in transactions that commit and that roll back; then the store is opened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use common::*;
use counterfoil::*;

#[test]
fn in_the_callers_transaction() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    filled(&dir, &options);
    unmirrored_groups(&dir, &options, vec![vec![note("13").session("s-1")], vec![note("14")]]);
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let mut mirror = Mirror::open(&dir, reader.manifest(), &options).unwrap();
    let mark = mirror.watermark();
    let line_of = |seq| reader.line(Seq::new(seq)).unwrap().unwrap();
    let (thirteen, fourteen, two) = (line_of(13), line_of(14), line_of(2));

    // Beside a row of the caller's own, both or neither.
    let decided = mirror.transaction(|transaction| {
        transaction.execute_batch("CREATE TABLE cutover (seq)").unwrap();
        let event = line::decode(&thirteen).unwrap();
        assert_eq!(insert_event(transaction, &event)?, Insertion::Inserted);
        assert_eq!(insert_event(transaction, &event)?, Insertion::AlreadyPresent);
        assert_eq!(insert_event(transaction, &line::decode(&two).unwrap())?, Insertion::AlreadyPresent);
        transaction.execute_batch("INSERT INTO cutover VALUES (13)").unwrap();
        Ok("committed")
    });
    assert_eq!(decided.unwrap(), "committed");
    assert_eq!((mirror.watermark(), mirror.count().unwrap().0), (mark, 13));

    let error = mirror.transaction(|transaction| {
        assert_eq!(insert_event(transaction, &line::decode(&fourteen).unwrap())?, Insertion::Inserted);
        let forged = String::from_utf8(two.clone()).unwrap().replace("agent_response", "user_message");
        let mut event = line::decode(&two).unwrap();
        event.event_type = "user_message.v1";
        assert_ne!(forged.as_bytes(), two);
        insert_event(transaction, &event)
    });
    let error = error.unwrap_err();
    assert!(matches!(&error, MirrorError::Conflict { seq, .. } if seq.get() == 2), "{error}");
    insta::assert_snapshot!(portable(error, &dir), @"the mirror <store>/mirror.sqlite3 has another event at seq 2 or under evt_00000J6HB70000000000000035: the ledger has hash 7218e88f1303b88bc402e2341bdd252c742e7546ef533eeb1f834869f28ed874, the row 7218e88f1303b88bc402e2341bdd252c742e7546ef533eeb1f834869f28ed874 and differs in event_type; nothing was written; run `counterfoil parity --full` to see all differences, then `counterfoil repair --from ledger`");
    assert_eq!((mirror.watermark(), mirror.count().unwrap().0), (mark, 13), "rolled back, the good one too");

    // Under an id that stands elsewhere.
    let error = mirror.transaction(|transaction| {
        let mut event = line::decode(&fourteen).unwrap();
        event.id = id(100);
        insert_event(transaction, &event)
    });
    assert!(matches!(error, Err(MirrorError::DuplicateId { first, second, .. }) if first.get() == 1 && second.get() == 14));
    drop(mirror);

    // What was rolled back is replayed, what was committed is found there.
    let report = open_is_clean(&dir, &options);
    assert_eq!((report.replay.replayed, report.replay.skipped_existing), (1, 1));
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    assert_eq!(
        conn.query_row("SELECT count(*) FROM cutover", [], |row| row.get::<_, i64>(0)).unwrap(),
        1,
        "a replay keeps the caller's table"
    );
}

#[test]
fn the_watermark_moves_with_the_rows_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    filled(&dir, &options);
    unmirrored_groups(&dir, &options, vec![vec![note("13"), note("14")]]);
    for point in [failpoint::MIRROR_BEGIN, failpoint::MIRROR_COMMIT] {
        options.failpoint = Some(std::sync::Arc::new(move |at| match at == point {
            true => Err(std::io::Error::other("as told")),
            false => Ok(()),
        }));
        let error = Store::open(&dir, &options).err().unwrap();
        assert!(matches!(error, Error::Replay(ReplayError::Mirror(MirrorError::Io { .. }))), "{error}");
        options.failpoint = None;
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let mirror = Mirror::open(&dir, reader.manifest(), &options).unwrap();
        assert_eq!((mirror.watermark().seq.get(), mirror.count().unwrap().0), (12, 12), "{point}");
    }
    assert_eq!(open_is_clean(&dir, &options).replay.replayed, 2);
}

#[test]
fn an_append_outlives_a_mirror_that_cannot_be_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("1").session("s").id(id(1))).unwrap();
    let other = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let receipt = store.append(note("2").session("s").id(id(2))).unwrap();
    assert_eq!((receipt.mirror, receipt.session_seq), (MirrorAck::MirrorBehind, Some(2)));
    let again = store.append(note("2").session("s").id(id(2))).unwrap();
    assert_eq!((again.duplicate, again.mirror), (true, MirrorAck::MirrorBehind));
    assert!(store.append(note("other").id(id(2))).unwrap_err().is_conflict());
    assert!(store.append(note("other").id(id(1))).unwrap_err().is_conflict(), "the locked mirror can be read");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.append(note("3").session("s")).unwrap().mirror, MirrorAck::Mirrored);
    assert_eq!(store.watermark().seq.get(), 3);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}
