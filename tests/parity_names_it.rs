//! Goal: full parity names every difference between a line and its row: which seq, which column, which hashes; and it
//! names what is wrong besides. Nothing that differs passes as consistent.
//!
//! Method: every column of every row is edited in every way that SQLite allows (another value, another type, NULL, the
//! same bytes as a BLOB); rows are deleted and added; the ledger is broken in each way that has a finding of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use counterfoil::*;
use rusqlite::types::Value;

fn sql(dir: &Path, sql: &str) {
    common::by_hand(dir).execute_batch(sql).unwrap();
}

#[test]
fn every_column() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    // The format's own vectors have every key, out-of-line and erased payloads too.
    copy_dir(Path::new("tests/vectors/store-v1"), &dir);
    open_is_clean(&dir, &Options::default());
    let conn = common::by_hand(&dir);
    // Without its rules the table takes what a damaged file could hold.
    conn.execute_batch("PRAGMA writable_schema = ON").unwrap();
    conn.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'events'", []).unwrap();
    conn.execute_batch("PRAGMA writable_schema = RESET").unwrap();
    let columns: Vec<String> = {
        let mut statement = conn.prepare("SELECT name FROM pragma_table_info('events')").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(columns.len(), 24);
    let (mut edits, mut without) = (0, Vec::new());
    for column in &columns[1..] {
        for seq in 1..=10 {
            let original: Value = conn.query_row(&format!("SELECT {column} FROM events WHERE seq = ?1"), [seq], |row| row.get(0)).unwrap();
            for edited in edits_of(&original) {
                conn.execute(&format!("UPDATE events SET {column} = ?1 WHERE seq = ?2"), (&edited, seq)).unwrap();
                let stored: Value =
                    conn.query_row(&format!("SELECT {column} FROM events WHERE seq = ?1"), [seq], |row| row.get(0)).unwrap();
                if stored == original {
                    continue; // the column's affinity has made it what it was
                }
                edits += 1;
                let report = parity(&dir);
                let what = format!("seq {seq}: {column} as {stored:?}");
                assert_eq!(report.mismatched_count, 1, "{what}: {report}");
                let found = &report.mismatched[0];
                assert_eq!(found.seq.get(), seq as u64, "{what}: {report}");
                assert_eq!(found.columns, [column.as_str()], "{what}: {report}");
                assert_eq!((report.findings_count, report.missing_in_jsonl.count), (0, 0), "{what}: {report}");
                assert!(!report.is_consistent());
                if column == "event_hash" {
                    assert_ne!(found.row_hash, Some(found.ledger_hash), "{what}");
                }
            }
            conn.execute(&format!("UPDATE events SET {column} = ?1 WHERE seq = ?2"), (&original, seq)).unwrap();
        }
        if conn.query_row(&format!("SELECT count({column}) FROM events"), [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            without.push(column.clone());
        }
    }
    assert!(parity(&dir).is_consistent());
    assert!(without.is_empty(), "no vector has {without:?}");
    eprintln!("{edits} edits of 23 columns were named");
    assert!(edits > 1000);
    // The 24th, seq, is where a row stands: moved, it is missing here and too much there.
    for to in [0, -5, 11, 99, i64::MAX] {
        conn.execute("UPDATE events SET seq = ?1 WHERE seq = 4", [to]).unwrap();
        let report = parity(&dir);
        assert_eq!(report.missing_in_sqlite.ranges, [SeqRange { first: Seq::new(4), last: Seq::new(4) }], "{to}: {report}");
        match to {
            1.. => {
                assert_eq!(report.missing_in_jsonl.ranges, [SeqRange { first: Seq::new(to as u64), last: Seq::new(to as u64) }], "{report}")
            }
            _ => assert_eq!(report.findings, [Finding::StrayRow { seq: to }], "{report}"),
        }
        conn.execute("UPDATE events SET seq = 4 WHERE seq = ?1", [to]).unwrap();
    }
    assert!(parity(&dir).is_consistent());
}

/// Other values for this one, of its own type and of each other type.
fn edits_of(value: &Value) -> Vec<Value> {
    let mut edits = vec![Value::Null, Value::Integer(-7), Value::Real(1.5), Value::Text(String::new()), Value::Blob(vec![1; 31])];
    match value {
        Value::Integer(n) => {
            edits.extend([Value::Integer(n + 1), Value::Integer(i64::MAX), Value::Text(format!("{n} ")), Value::Text("x".into())])
        }
        Value::Text(text) => {
            let mut changed = text.clone().into_bytes();
            let at = changed.len() / 2;
            changed[at] ^= 2;
            edits.extend([
                Value::Text(String::from_utf8(changed).unwrap_or_default()),
                Value::Text(format!("{text} ")),
                Value::Text(format!(" {text}")),
                Value::Text(text.to_uppercase()),
                Value::Text(text.to_lowercase()),
                Value::Text(format!("{text}\u{0}")),
                Value::Blob(text.clone().into_bytes()),
            ]);
        }
        Value::Blob(bytes) => {
            let mut changed = bytes.clone();
            changed[9] ^= 1;
            edits.extend([Value::Blob(changed), Value::Blob([bytes.clone(), vec![0]].concat()), Value::Text("a".repeat(32))]);
        }
        Value::Null => {
            edits.extend([Value::Integer(1), Value::Text("null".into()), Value::Text("[1,2]".into()), Value::Text("s-1".into())])
        }
        Value::Real(_) => panic!("no column is real"),
    }
    edits
}

#[test]
fn rows_deleted_and_added() {
    let (_temp, dir, options) = store();
    sql(&dir, "DELETE FROM events WHERE seq IN (3, 5, 6, 7, 12)");
    sql(
        &dir,
        "INSERT INTO events SELECT seq + 90, 'evt_0000000000000000000000000' || (seq % 10), schema_version, observed_at, recorded_at, source, \
         event_type, trace_id, session_id, session_seq, causation_id, domain_tags, attachments, group_seq, batch, signed_by, policy, \
         payload_hash, prev_event_hash, event_hash, signature, payload, blob, erased FROM events WHERE seq IN (1, 2)",
    );
    sql(&dir, "UPDATE events SET payload = '\"forged\"' WHERE seq = 9; UPDATE events SET event_hash = x'00' WHERE seq = 10");
    let report = parity(&dir);
    assert_eq!((report.jsonl_event_count, report.sqlite_event_count), (12, 9));
    snapshots(|| insta::assert_snapshot!("parity_rows", portable(report, &dir)));
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    let report = parity(&dir);
    assert!(report.is_consistent(), "{report}");
    snapshots(|| insta::assert_snapshot!("parity_consistent", portable(report, &dir)));
}

#[test]
fn long_lists_are_bounded() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for _ in 0..3 {
        store.append_batch((0..250).map(|_| note("x")).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    sql(&dir, "DELETE FROM events WHERE seq % 3 = 0; UPDATE events SET payload = '1' WHERE seq % 3 = 1");
    let report = parity(&dir);
    assert_eq!((report.missing_in_sqlite.count, report.missing_in_sqlite.ranges.len()), (250, 100));
    assert_eq!((report.mismatched_count, report.mismatched.len()), (250, 100));
    let text = report.to_string();
    assert!(text.contains("250 (seq 3, 6, ") && text.contains(" and 150 more)") && text.contains("and 150 more\n"), "{text}");
}

#[test]
fn findings_have_names() {
    let (_temp, dir, options) = store();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let mut table = String::new();
    let mut tell = |what: &str| {
        let full = parity_full(&reader, &options, None, &mut |_| ()).unwrap();
        let quick = parity_quick(&reader, &options).unwrap();
        assert!(!full.is_consistent(), "{what}");
        table += &format!("== {what}\n{}{}", portable(&full, &dir), portable(&quick, &dir));
        full.findings
    };
    let whole = files(&dir);
    let restore = || {
        for (name, bytes) in &whole {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), bytes).unwrap();
        }
    };

    fs::remove_dir_all(dir.join("segments")).unwrap();
    assert!(matches!(tell("the ledger is missing")[..], [Finding::MissingLedger { .. }]));
    restore();
    fs::remove_file(mirror_path(&dir)).unwrap();
    assert!(matches!(tell("the mirror is missing")[..], [Finding::MissingMirror { .. }]));
    fs::write(mirror_path(&dir), "text").unwrap();
    assert!(matches!(tell("the mirror is a text file")[..], [Finding::UnreadableMirror { .. }]));
    restore();
    let path = &segment_paths(&dir)[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[60] ^= 1;
    fs::write(path, &bytes).unwrap();
    assert!(matches!(tell("a damaged line")[..], [Finding::BrokenChain { seq, .. }] if seq.get() == 4));
    restore();
    fs::remove_file(path).unwrap();
    assert!(matches!(tell("a segment is missing")[..], [Finding::BrokenChain { .. }, ..]));
    restore();
    sql(&dir, "UPDATE mirrored_through SET event_hash = zeroblob(32)");
    assert!(matches!(tell("the watermark has another hash")[..], [Finding::WrongWatermark { .. }]));
    restore();
    sql(&dir, "UPDATE mirrored_through SET seq = 99");
    tell("the watermark is beyond the head");
    restore();
    sql(&dir, "DELETE FROM mirrored_through");
    tell("there is no watermark");
    restore();
    sql(&dir, "DROP TABLE events");
    assert!(matches!(tell("there is no table")[..], [Finding::UnreadableMirror { .. }]));
    let report = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!((report.rows_written, report.set_aside.len()), (12, 1));
    open_is_clean(&dir, &options);
    restore();
    assert!(parity(&dir).is_consistent());
    snapshots(|| insta::assert_snapshot!("parity_findings", table));
}

#[test]
fn quick_sees_how_far_the_mirror_is() {
    let (_temp, dir, options) = store();
    let quick = || parity_quick(&LedgerReader::open(&dir, &options).unwrap(), &options).unwrap();
    assert!(quick().is_consistent());
    let older = fs::read(mirror_path(&dir)).unwrap();
    unmirrored_groups(&dir, &options, vec![vec![note("13"), note("14")]]);
    let report = quick();
    assert_eq!((report.jsonl_event_count, report.sqlite_event_count, report.missing_in_sqlite.count), (14, 12, 2));
    open_is_clean(&dir, &options);
    assert!(quick().is_consistent());
    fs::write(mirror_path(&dir), older).unwrap();
    assert_eq!(quick().missing_in_sqlite.ranges, [SeqRange { first: Seq::new(13), last: Seq::new(14) }]);
}

#[test]
fn a_duplicate_id_in_the_ledger() {
    let (_temp, dir, options) = store();
    // A right chain with an id twice, as only other code than ours could write it.
    let path = segment_paths(&dir).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.clone();
    let mut event = line::decode(last.trim_ascii_end()).unwrap();
    (event.prev_event_hash, event.seq) = (event.event_hash, event.seq.next());
    (event.group_seq, event.id, event.session) = (event.seq, id(103), None);
    let mut again = Vec::new();
    line::encode(&event, &mut again);
    event.event_hash = chain::event_hash(chain::material(&again).unwrap());
    again.clear();
    line::encode(&event, &mut again);
    bytes.extend_from_slice(&again);
    bytes.push(b'\n');
    fs::write(&path, &bytes).unwrap();
    assert!(verified(&dir).is_clean(), "the chain itself is right");
    let Err(error) = Store::open(&dir, &options) else { panic!("opened") };
    assert!(
        matches!(error, Error::Replay(ReplayError::Mirror(MirrorError::DuplicateId { first, second, .. })) if first.get() == 4 && second.get() == 13)
    );
    insta::assert_snapshot!(portable(error, &dir), @"evt_00000J6HB70000000000000037 is seq 13 in the ledger, but the mirror has it as seq 4; run `counterfoil parity --full`: where it says that the ledger has the id twice, restore the ledger from a backup, else run `counterfoil repair --from ledger`");
    let report = parity(&dir);
    assert_eq!(report.findings, [Finding::DuplicateId { id: id(103), first: Seq::new(4), second: Seq::new(13) }]);
    assert_eq!(report.missing_in_sqlite.count, 1);
    assert_eq!(common::by_hand(&dir).query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap(), 12);
}

#[test]
fn an_index_that_does_not_fit_its_table() {
    // The mirror's indexes answer whether an id is known: an entry that is lost would let an event be recorded twice.
    let (_temp, dir, options) = store();
    let whole = fs::read(mirror_path(&dir)).unwrap();
    let (mut in_index, mut in_rows) = (0, 0);
    for text in [id(108).to_string(), id(111).to_string(), "user_message.v1".to_owned(), "s-1".to_owned()] {
        for at in memchr_all(&whole, text.as_bytes()) {
            let mut bytes = whole.clone();
            bytes[at + text.len() - 1] ^= 1;
            fs::write(mirror_path(&dir), &bytes).unwrap();
            let report = parity(&dir);
            assert!(!report.is_consistent(), "{text} at {at} of the file");
            match &report.findings[..] {
                [Finding::DamagedMirror { .. }] if report.mismatched_count == 0 => in_index += 1,
                _ => in_rows += 1,
            }
            let repaired = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
            assert_eq!(fs::read(&repaired.set_aside[0]).unwrap(), bytes, "what was damaged is kept");
            open_is_clean(&dir, &options);
            fs::remove_file(&repaired.set_aside[0]).unwrap();
        }
    }
    eprintln!("{in_index} damages in indexes and {in_rows} in rows were named and mended");
    assert!(in_index > 5 && in_rows > 5);
}

fn memchr_all(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect()
}
