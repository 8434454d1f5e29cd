//! Goal: SQL given to `query` can read the mirror, and do nothing else: not write, not attach or create files, not
//! change a setting that lasts, not load code, not leave a transaction open.
//!
//! Method: statements that would, in many spellings, through the library and the command; the store's bytes and the
//! folder around it stay as they are, and afterwards the same reader still answers and the store still appends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;
use std::path::Path;

use cli_support::common::*;
use cli_support::run;
use counterfoil::*;

const REFUSED: [&str; 46] = [
    "DELETE FROM events",
    "UPDATE events SET payload = 'x'",
    "INSERT INTO segments VALUES (99, 99)",
    "REPLACE INTO segments VALUES (1, 99)",
    "WITH x AS (SELECT 1) DELETE FROM events",
    "WITH x AS (SELECT 1) INSERT INTO segments SELECT 98, 98",
    "INSERT INTO segments VALUES (97, 97) RETURNING first_seq",
    "DROP TABLE events",
    "DROP VIEW events_text",
    "ALTER TABLE events RENAME TO e",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t (a)",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END",
    "CREATE INDEX i ON events (payload)",
    "CREATE VIRTUAL TABLE t USING fts5(a)",
    "CREATE VIRTUAL TABLE temp.t USING dbstat",
    "ATTACH '<outside>/made' AS other",
    "ATTACH ':memory:' AS other",
    "ATTACH 'file:<outside>/made?mode=rwc' AS other",
    "ATTACH '<outside>/victim' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '<outside>/made'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "SAVEPOINT s",
    "ROLLBACK",
    "COMMIT",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = ON",
    "PRAGMA query_only = OFF",
    "PRAGMA trusted_schema = ON",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA temp_store_directory = '<outside>'",
    "PRAGMA data_store_directory = '<outside>'",
    "PRAGMA cache_spill = 1",
    "SELECT load_extension('<outside>/victim')",
    "SELECT LOAD_EXTENSION('<outside>/victim', 'entry')",
    "SELECT * FROM pragma_database_list",
    "SELECT 1; DELETE FROM events",
];

/// What SQLite has no function for here, and must not come to have one.
const UNKNOWN: [&str; 5] = [
    "SELECT readfile('<outside>/victim')",
    "SELECT writefile('<outside>/made', 'x')",
    "SELECT edit('x', 'touch <outside>/made')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "SELECT * FROM fsdir('<outside>')",
];

fn outside_of(dir: &Path) -> std::path::PathBuf {
    let outside = dir.parent().unwrap().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    outside
}

#[test]
fn the_library_only_reads() {
    let (_temp, dir, options) = store();
    let outside = outside_of(&dir);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let mut mirror = store.mirror_reader().unwrap();
    mirror.query("SELECT 1", &[]).unwrap();
    let before = (files(&dir), files(&outside));
    for sql in REFUSED.iter().chain(&UNKNOWN) {
        let sql = sql.replace("<outside>", outside.to_str().unwrap());
        let error = mirror.query(&sql, &[]).expect_err(&sql);
        assert!(matches!(error, QueryError::Refused(_)), "{sql}: {error}");
        assert!((files(&dir), files(&outside)) == before, "{sql} changed something");
        assert_eq!(mirror.query("SELECT count(*) FROM events", &[]).unwrap().rows[0][0], rusqlite::types::Value::Integer(12), "{sql}");
    }
    // No lock and no transaction is left behind, and nothing of the reader's connection has changed.
    assert_eq!(store.append(note("after")).unwrap().mirror, MirrorAck::Mirrored);
    assert_eq!(mirror.query("SELECT count(*) FROM events", &[]).unwrap().rows[0][0], rusqlite::types::Value::Integer(13));
    assert!(mirror.connection().is_autocommit());
    store.close().unwrap();
}

#[test]
fn the_command_only_reads() {
    let (_temp, dir, _) = store();
    let outside = outside_of(&dir);
    let before = (files(&dir), files(&outside));
    for sql in [
        "DELETE FROM events",
        "ATTACH '<outside>/made' AS x",
        "VACUUM INTO '<outside>/made'",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM events",
    ] {
        let run = run(&dir, &["query", &sql.replace("<outside>", outside.to_str().unwrap())]);
        assert!(run.code != 0 && run.out.is_empty() && run.err.contains("only reading is allowed"), "{sql}: {run:?}");
        let mut after = files(&dir);
        // A reader may leave an empty WAL and its index.
        after.retain(|path, bytes| before.0.contains_key(path) || !bytes.is_empty() && !path.ends_with("mirror.sqlite3-shm"));
        assert!(after == before.0 && files(&outside) == before.1, "{sql} changed something");
    }
}

#[test]
fn a_lone_surrogate_hides_no_other_row() {
    let (_temp, dir, options) = store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("").payload_json("\"a\\ud800b\"").unwrap()).unwrap();
    let mut mirror = store.mirror_reader().unwrap();
    let rows = mirror.query("SELECT payload ->> '$' FROM events WHERE seq > 11 AND json_valid(payload)", &[]).unwrap().rows;
    let [.., rusqlite::types::Value::Text(text)] = &rows.last().unwrap()[..] else { panic!("{rows:?}") };
    assert!(text.starts_with('a') && text.ends_with('b') && text.contains('\u{fffd}'), "{text:?}");
}

#[test]
fn what_people_ask_is_answered() {
    let (_temp, dir, _) = store();
    for sql in [
        "SELECT seq, payload FROM events ORDER BY seq DESC LIMIT 3",
        "SELECT event_type, count(*) FROM events_text GROUP BY 1 HAVING count(*) > 0",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT count(*) FROM n",
        "SELECT json_extract(payload, '$.seq') FROM events WHERE json_valid(payload) AND json_type(payload) = 'object'",
        "SELECT key, value FROM events, json_each(events.payload) WHERE json_valid(payload) AND json_type(payload) = 'object'",
        "EXPLAIN QUERY PLAN SELECT * FROM events WHERE session_id = 's-1'",
        "PRAGMA table_info(events)",
        "SELECT name FROM pragma_table_info('events')",
        "SELECT lower(hex(event_hash)), upper('x'), strftime('%Y', observed_at), row_number() OVER (ORDER BY seq) FROM events",
        "VALUES (1), (2)",
    ] {
        assert_eq!(run(&dir, &["query", sql]).code, 0, "{sql}");
    }
}
