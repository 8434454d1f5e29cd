//! Goal: an id is recorded once. The same content again gives the first receipt, marked duplicate; other content is a
//! conflict and nothing is written. That holds in the open group, in memory, from the mirror, after a reopen, and after
//! the mirror was lost; for batches as a whole.
//!
//! Method: each field of a draft is varied alone; receipts are compared in full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::*;
use counterfoil::*;

fn store(options: &Options) -> (tempfile::TempDir, PathBuf, Store) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (store, _) = Store::open(&dir, options).unwrap();
    (temp, dir, store)
}

fn full() -> Draft {
    Draft::new(EventType::TOOL_CALL, Source::tool("bash"))
        .id(id(1))
        .observed_at(Timestamp::from_micros(5_000_000))
        .session("s-1")
        .trace(TraceId::from_u128(1))
        .caused_by(id(9))
        .tag("a")
        .tag("b")
        .payload_json("{\"a\":1}")
        .unwrap()
}

/// Drafts with the same id that differ in one thing each.
fn others() -> Vec<(&'static str, Draft)> {
    let base = |kind, source| {
        Draft::new(kind, source).id(id(1)).observed_at(Timestamp::from_micros(5_000_000)).trace(TraceId::from_u128(1)).caused_by(id(9))
    };
    let tagged = |draft: Draft| draft.tag("a").tag("b").payload_json("{\"a\":1}").unwrap();
    let plain = || base(EventType::TOOL_CALL, Source::tool("bash"));
    vec![
        ("source's name", tagged(base(EventType::TOOL_CALL, Source::tool("zsh")).session("s-1"))),
        ("source", tagged(base(EventType::TOOL_CALL, Source::child_agent("bash")).session("s-1"))),
        ("event_type", tagged(base(EventType::TOOL_RESULT, Source::tool("bash")).session("s-1"))),
        ("session_id", tagged(plain().session("s-2"))),
        ("no session_id", tagged(plain())),
        ("trace_id", full().trace(TraceId::from_u128(2))),
        ("causation_id", full().caused_by(id(8))),
        ("observed_at", full().observed_at(Timestamp::from_micros(5_000_001))),
        ("one tag more", full().tag("c")),
        ("the tags' order", plain().session("s-1").tag("b").tag("a").payload_json("{\"a\":1}").unwrap()),
        ("tags run together", plain().session("s-1").tag("ab").payload_json("{\"a\":1}").unwrap()),
        ("payload", full().payload_json("{\"a\":2}").unwrap()),
        ("payload's spelling", full().payload_json("{\"a\": 1}").unwrap()),
    ]
}

fn same_again(store: &mut Store, first: &Receipt, dir: &std::path::Path) {
    let before = state(store, dir);
    let again = store.append(full()).unwrap();
    assert_eq!(again, {
        let mut receipt = first.clone();
        receipt.duplicate = true;
        receipt
    });
    // A draft that gives no time of its own is the same too.
    let timeless = Draft::new(EventType::TOOL_CALL, Source::tool("bash")).id(id(1)).session("s-1").trace(TraceId::from_u128(1));
    let timeless = timeless.caused_by(id(9)).tag("a").tag("b").payload_json(" {\"a\":1}\n").unwrap();
    assert!(store.append(timeless).unwrap().duplicate);
    for (what, draft) in others() {
        let error = store.append(draft).unwrap_err();
        assert!(
            error.is_conflict() && matches!(error, Error::Append(AppendError::Conflict { seq, .. }) if seq == first.seq),
            "{what}: {error}"
        );
    }
    assert_eq!(state(store, dir), before, "nothing is written");
}

#[test]
fn same_content_and_other_content() {
    let options = options();
    let (_temp, dir, mut store) = store(&options);
    store.append(note("before")).unwrap();
    let first = store.append(full()).unwrap();
    assert!(!first.duplicate);
    same_again(&mut store, &first, &dir);
    store.append(note("after").session("s-1")).unwrap();
    same_again(&mut store, &first, &dir);
    store.close().unwrap();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    same_again(&mut store, &first, &dir);
    store.close().unwrap();
    fs::remove_file(mirror_path(&dir)).unwrap();
    let (mut store, report) = Store::open(&dir, &options).unwrap();
    assert_eq!(report.replay.replayed, 3);
    same_again(&mut store, &first, &dir);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn what_is_not_mirrored_is_remembered() {
    let options = options();
    let (_temp, dir, store) = store(&options);
    drop(store);
    let (mut writer, mut mirror) = writer(&dir, &options);
    let stage = |writer: &mut Writer, mirror: &mut Mirror, draft: Draft| match writer.stage(
        &[checked(draft)],
        &Conditions::none(),
        false,
        mirror,
    ) {
        Ok(Stage::Staged(staged)) => Ok((staged.receipts[0].clone(), staged.durable)),
        Ok(Stage::GroupFull) => panic!("full"),
        Err(error) => Err(error),
    };
    let (first, durable) = stage(&mut writer, &mut mirror, full()).unwrap();
    assert!(!first.duplicate && !durable);
    // In the open group: a duplicate, but not one that may be acknowledged.
    let (again, durable) = stage(&mut writer, &mut mirror, full()).unwrap();
    assert!(again.duplicate && !durable && again.seq == first.seq);
    for (what, draft) in others() {
        assert!(matches!(stage(&mut writer, &mut mirror, draft), Err(AppendError::Conflict { .. })), "{what}");
    }
    assert_eq!(writer.open_group().1, 1);
    writer.flush().unwrap().unwrap();
    // Durable, and known by memory alone.
    let (again, durable) = stage(&mut writer, &mut mirror, full()).unwrap();
    assert!(again.duplicate && durable);
    for (what, draft) in others() {
        assert!(matches!(stage(&mut writer, &mut mirror, draft), Err(AppendError::Conflict { .. })), "{what}");
    }
    assert_eq!((writer.open_group().1, writer.unmirrored(), mirror.count().unwrap().0), (0, 1, 0));
    // After a crash, by what recovery read.
    drop((writer, mirror));
    let (mut writer, mut mirror) = common::writer(&dir, &options);
    assert!(
        matches!(stage(&mut writer, &mut mirror, full()), Ok((receipt, true)) if receipt.duplicate && receipt.event_hash == first.event_hash)
    );
}

#[test]
fn batches_as_a_whole() {
    let options = options();
    let (_temp, dir, mut store) = store(&options);
    let batch = |ids: &[u64]| ids.iter().map(|n| note(&format!("{n}")).id(id(*n)).session("s")).collect::<Vec<_>>();
    let none = Conditions::none();
    let first = store.append_batch(batch(&[5, 3, 4]), &none).unwrap();
    store.append(note("7").id(id(7)).session("s")).unwrap();
    let check = |store: &mut Store| {
        let before = state(store, &dir);
        let again = store.append_batch(batch(&[5, 3, 4]), &none).unwrap();
        let marked: Vec<_> = first
            .iter()
            .map(|receipt| {
                let mut receipt = receipt.clone();
                receipt.duplicate = true;
                receipt
            })
            .collect();
        assert_eq!(again, marked);
        for (what, ids, named) in [
            ("partly new", &[5, 3, 4, 9][..], 5),
            ("another order", &[3, 5, 4], 3),
            ("a part of it", &[5, 3], 5),
            ("new first", &[9, 3], 3),
            ("with another append's", &[4, 7], 4),
            ("an id twice", &[8, 8], 8),
        ] {
            let error = store.append_batch(batch(ids), &none).unwrap_err();
            assert!(matches!(error, Error::Append(AppendError::BatchConflict { id: found }) if found == id(named)), "{what}: {error}");
        }
        let mut other = batch(&[5, 3]);
        other.push(note("other").id(id(4)).session("s"));
        let error = store.append_batch(other, &none).unwrap_err();
        assert!(matches!(error, Error::Append(AppendError::Conflict { id: found, .. }) if found == id(4)), "{error}");
        // One event of a batch, appended alone, is a duplicate: it is in the ledger as it is.
        assert!(store.append(batch(&[3]).remove(0)).unwrap().duplicate);
        assert_eq!(state(store, &dir), before, "nothing is written");
    };
    check(&mut store);
    store.close().unwrap();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    check(&mut store);
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn ids_come_before_conditions() {
    let (_temp, _dir, mut store) = store(&options());
    let first = store.append_expecting(full(), &Expect::NoStream).unwrap();
    // The stream has an event now; the retry is answered all the same.
    let again = store.append_expecting(full(), &Expect::NoStream).unwrap();
    assert!(again.duplicate && again.seq == first.seq);
    let error = store.append_expecting(full().payload_json("2").unwrap(), &Expect::NoStream).unwrap_err();
    assert!(error.is_conflict(), "{error}");
}

#[test]
fn a_row_that_the_ledger_does_not_have_is_no_receipt() {
    let options = options();
    let (_temp, dir, mut store) = store(&options);
    store.append(note("one").id(id(2))).unwrap();
    // Someone's row beyond the watermark, under an id that an append then brings.
    let conn = rusqlite::Connection::open(mirror_path(&dir)).unwrap();
    conn.execute("CREATE TEMP TABLE t AS SELECT * FROM events", []).unwrap();
    conn.execute("UPDATE t SET seq = 50, id = ?1", [id(1).to_string()]).unwrap();
    conn.execute("INSERT INTO events SELECT * FROM t", []).unwrap();
    drop(conn);
    let receipt = store.append(note("one").id(id(1))).unwrap();
    assert_eq!((receipt.duplicate, receipt.seq.get()), (false, 2));
    assert_eq!(receipt.mirror, MirrorAck::MirrorBehind, "the row stands in the way, and the receipt says so");
    assert!(store.reader().unwrap().line(Seq::new(2)).unwrap().is_some());
    drop(store);
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_high_id_in_a_sealed_segment_is_known_after_the_mirror_was_lost() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    // The highest id comes first: an importer's ids follow the transcript's clock, not the ledger's.
    let high = || note("high").id(id(1 << 40));
    let first = store.append(high()).unwrap();
    for n in 0..20 {
        store.append(note(&n.to_string()).id(id(n))).unwrap();
    }
    store.close().unwrap();
    assert!(segment_paths(&dir).len() > 2);
    fs::remove_file(mirror_path(&dir)).unwrap();

    let (mut store, report) = Store::open(&dir, &options).unwrap();
    assert_eq!(report.replay.replayed, 21);
    let again = store.append(high()).unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let conflict = store.append(note("other").id(id(1 << 40))).unwrap_err();
    assert!(conflict.is_conflict(), "{conflict}");
    store.close().unwrap();
    open_is_clean(&dir, &options);
}
