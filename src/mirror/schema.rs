//! Tables, settings and migrations of the mirror.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use super::error::fault_of;
use super::{MirrorError, MirrorFault};
use crate::event::{EventHash, LedgerId, Seq};
use crate::ledger::{Manifest, Watermark};

/// `PRAGMA user_version` of a mirror that this code writes.
pub const SCHEMA_VERSION: i64 = 2;

/// `PRAGMA application_id`: "Cfoi".
const APPLICATION_ID: i64 = 0x4366_6f69;

/// Bytes of a page of a new mirror. 8 KiB: a transaction writes the last page of each stream's part of an index that it has a
/// row of, so with 16 KiB transactions of 1 and of 16 rows take 1.3 and 1.15 times the CPU and write twice as much, while rows
/// that come in large transactions gain 8 %; with 4 KiB those lose 20 %.
const PAGE_BYTES: i64 = 8192;

/// KiB of pages that the writer may keep. 32 MiB: SQLite's own 2 MiB are 250 of these pages, about what a transaction
/// changes, so that it would write some of them twice, and read the ends of the indexes again each time.
const CACHE_KIB: i64 = 32 << 10;

/// Databases up to this size are checked at open; larger ones when they are read. 16 MiB take some 20 ms.
const QUICK_CHECK_BYTES_MAX: i64 = 16 << 20;

/// One entry a version: what brings a database from the version before it to this one.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] = [
    "
CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  schema_version INTEGER NOT NULL,
  observed_at TEXT NOT NULL,
  recorded_at TEXT NOT NULL,
  source TEXT NOT NULL,
  event_type TEXT NOT NULL,
  trace_id TEXT,
  session_id TEXT,
  session_seq INTEGER,
  causation_id TEXT,
  domain_tags TEXT,
  attachments TEXT,
  group_seq INTEGER NOT NULL,
  batch TEXT,
  signed_by TEXT,
  policy TEXT,
  payload_hash BLOB NOT NULL,
  prev_event_hash BLOB NOT NULL,
  event_hash BLOB NOT NULL,
  signature TEXT,
  payload TEXT,
  blob TEXT,
  erased INTEGER
);
CREATE INDEX events_by_session ON events (session_id, session_seq) WHERE session_id IS NOT NULL;
CREATE INDEX events_by_trace ON events (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX events_by_type ON events (event_type);
CREATE INDEX events_by_time ON events (observed_at);
CREATE TABLE segments (
  first_seq INTEGER PRIMARY KEY,
  last_seq INTEGER NOT NULL
);
CREATE TABLE mirrored_through (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  ledger_id TEXT NOT NULL,
  created_at TEXT NOT NULL,
  seq INTEGER NOT NULL,
  event_hash BLOB NOT NULL,
  segment INTEGER NOT NULL,
  byte_offset INTEGER NOT NULL
);
CREATE VIEW events_text AS SELECT
  seq, id, observed_at, recorded_at, json_extract(source, '$.type') AS source_type,
  coalesce(json_extract(source, '$.name'), json_extract(source, '$.model')) AS source_name,
  event_type, trace_id, session_id, session_seq, causation_id, domain_tags, attachments, group_seq, batch,
  signed_by, policy, lower(hex(payload_hash)) AS payload_hash, lower(hex(prev_event_hash)) AS prev_event_hash,
  lower(hex(event_hash)) AS event_hash, signature, payload, blob, erased
FROM events;
",
    super::guard::TRIGGERS,
];

/// Sets the connection up, creates the tables where they are missing, and migrates older ones.
pub(super) fn prepare(conn: &mut Connection, path: &Path, manifest: &Manifest, wal_bytes_max: u64) -> Result<(), MirrorError> {
    let sqlite = |source| MirrorError::Sqlite { action: "preparing", path: path.to_owned(), source };
    let version = check_known(conn, path)?;
    if version == 0 {
        // Takes effect only before the first table.
        conn.pragma_update(None, "page_size", PAGE_BYTES).map_err(sqlite)?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sqlite)?;
    tracing::trace!(mode, "mirror journal mode");
    // A row comes after the ledger's fsync and can be replayed, so the mirror need not fsync each commit.
    conn.pragma_update(None, "synchronous", "NORMAL").map_err(sqlite)?;
    conn.pragma_update(None, "trusted_schema", false).map_err(sqlite)?;
    // The WAL goes back to this size once it has been checkpointed, so one burst doesn't stay on disk.
    conn.pragma_update(None, "journal_size_limit", i64::try_from(wal_bytes_max).unwrap_or(i64::MAX)).map_err(sqlite)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(sqlite)?;
    conn.set_prepared_statement_cache_capacity(32);
    if version < SCHEMA_VERSION {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            transaction.execute_batch(migration).map_err(sqlite)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(sqlite)?;
        transaction
            .execute(
                "INSERT OR IGNORE INTO mirrored_through VALUES (1, ?1, ?2, 0, ?3, 1, 0)",
                (manifest.ledger_id.to_string(), manifest.created_at.to_string(), manifest.genesis().as_bytes()),
            )
            .map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
    Ok(())
}

/// The schema version; an error where the database is newer than this code, or no mirror.
pub(super) fn check_known(conn: &Connection, path: &Path) -> Result<i64, MirrorError> {
    let sqlite = |source| MirrorError::Sqlite { action: "opening", path: path.to_owned(), source };
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (version, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(MirrorError::NotAMirror { path: path.to_owned() });
    }
    if tables > 0 && version == 0 {
        // Tables and version come in one transaction.
        return Err(MirrorError::Corrupt { path: path.to_owned(), reason: "it has tables, but no schema version".to_owned() });
    }
    if version > SCHEMA_VERSION {
        return Err(MirrorError::Future { path: path.to_owned(), found: version, known: SCHEMA_VERSION });
    }
    Ok(version)
}

/// The watermark; an error where it is another ledger's.
pub(super) fn watermark(conn: &Connection, path: &Path, ledger_id: LedgerId) -> Result<Watermark, MirrorError> {
    let found = conn
        .query_row("SELECT ledger_id, seq, event_hash, segment, byte_offset FROM mirrored_through", [], |row| {
            let number = |at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
            let mark = Watermark {
                seq: Seq::new(number(1)?),
                event_hash: EventHash::from_bytes(row.get(2)?),
                segment: Seq::new(number(3)?),
                offset: number(4)?,
            };
            Ok((row.get::<_, String>(0)?, mark))
        })
        .optional()
        .map_err(|source| MirrorError::Sqlite { action: "reading the watermark of", path: path.to_owned(), source })?;
    let Some((found, mark)) = found else {
        return Err(MirrorError::Corrupt { path: path.to_owned(), reason: "it has no watermark".to_owned() });
    };
    if found != ledger_id.to_string() {
        return Err(MirrorError::OtherLedger { path: path.to_owned(), found, expected: ledger_id.to_string() });
    }
    Ok(mark)
}

/// Whether the watermark is that of a row: else it is no evidence of anything.
pub(super) fn check_watermark(conn: &Connection, path: &Path, mark: Watermark) -> Result<(), MirrorError> {
    if mark.seq == Seq::ZERO {
        return Ok(());
    }
    let seq = i64::try_from(mark.seq.get()).unwrap_or(i64::MAX);
    let row = conn.query_row("SELECT event_hash FROM events WHERE seq = ?1", [seq], |row| row.get(0).map(EventHash::from_bytes)).optional();
    match row {
        Ok(Some(hash)) if hash == mark.event_hash => Ok(()),
        Ok(_) => Err(MirrorError::Corrupt {
            path: path.to_owned(),
            reason: format!("its watermark is at seq {}, but no such row is there", mark.seq),
        }),
        Err(source) => Err(MirrorError::Sqlite { action: "reading", path: path.to_owned(), source }),
    }
}

/// The manifest of the mirrored ledger.
pub(super) fn manifest(conn: &Connection, path: &Path) -> Result<Manifest, MirrorError> {
    let (ledger_id, created_at) = conn
        .query_row("SELECT ledger_id, created_at FROM mirrored_through", [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .map_err(|source| MirrorError::Sqlite { action: "reading the watermark of", path: path.to_owned(), source })?;
    match (ledger_id.parse(), created_at.parse()) {
        (Ok(ledger_id), Ok(created_at)) => Ok(Manifest::new(ledger_id, created_at)),
        _ => Err(MirrorError::Corrupt { path: path.to_owned(), reason: "its ledger's identity is unreadable".to_owned() }),
    }
}

/// Lets SQLite check its own structures, where the database is small enough for that to cost nothing.
pub(super) fn quick_check(conn: &Connection, path: &Path) -> Result<(), MirrorError> {
    let sqlite = |source| MirrorError::Sqlite { action: "checking", path: path.to_owned(), source };
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    if pragma("page_count")?.saturating_mul(pragma("page_size")?) > QUICK_CHECK_BYTES_MAX {
        return Ok(());
    }
    full_check(conn, path)
}

/// Lets SQLite check its own structures.
pub(crate) fn full_check(conn: &Connection, path: &Path) -> Result<(), MirrorError> {
    let sqlite = |source| MirrorError::Sqlite { action: "checking", path: path.to_owned(), source };
    match check(conn, "PRAGMA quick_check(1)").map_err(sqlite)? {
        None => Ok(()),
        Some(reason) => Err(MirrorError::Corrupt { path: path.to_owned(), reason }),
    }
}

/// What a check of SQLite's own finds each time, if anything.
fn check(conn: &Connection, sql: &str) -> rusqlite::Result<Option<String>> {
    let mut found = None;
    for _ in 0..super::READS {
        match conn.query_row(sql, [], |row| row.get::<_, String>(0)) {
            Ok(answer) if answer == "ok" => return Ok(None),
            Ok(answer) => found = Some(answer),
            Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt)) => {
                found = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Lets SQLite check each index against its table too: an id that its index has lost would be recorded twice.
pub(crate) fn index_check(conn: &Connection) -> rusqlite::Result<Option<String>> {
    check(conn, "PRAGMA integrity_check(1)")
}

/// Whether the tables are there, with all their columns.
pub(super) fn check_tables(conn: &Connection, path: &Path) -> Result<(), MirrorError> {
    let events = conn.prepare(super::SELECT).map(|_| ());
    let segments = events.and_then(|()| conn.prepare("SELECT first_seq, last_seq FROM segments").map(|_| ()));
    segments.map_err(|source| match fault_of(&source) {
        MirrorFault::Broken => MirrorError::Corrupt { path: path.to_owned(), reason: source.to_string() },
        MirrorFault::Passing | MirrorFault::Disagrees => MirrorError::Sqlite { action: "checking", path: path.to_owned(), source },
    })
}
