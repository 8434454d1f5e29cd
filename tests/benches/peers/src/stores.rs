//! Key-value stores and SQLite: fjall, redb, SQLite alone with a lean schema.

use std::sync::Mutex;

use bench_load::{Outcome, Payloads, Result, Spec, threads};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};

/// fjall: an insert, then `persist` with fdatasync.
pub fn fjall(spec: &Spec) -> Result<Outcome> {
    let db = Database::builder(&spec.dir).open()?;
    let events = db.keyspace("events", KeyspaceCreateOptions::default)?;
    let (db, events, payloads) = (&db, &events, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, spec.in_flight, 1, |_| {
        move |n| {
            events.insert(n.to_be_bytes(), payloads.get(n))?;
            Ok(db.persist(PersistMode::SyncData)?)
        }
    })
}

const TABLE: redb::TableDefinition<u64, &str> = redb::TableDefinition::new("events");

/// redb: a write transaction an event; `commit` is durable, which is its default.
pub fn redb(spec: &Spec) -> Result<Outcome> {
    let db = redb::Database::create(spec.dir.join("events.redb"))?;
    let (db, payloads) = (&db, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, spec.in_flight, 1, |_| {
        move |n| {
            let payload = payloads.get(n);
            let mut transaction = db.begin_write()?;
            transaction.set_durability(redb::Durability::Immediate)?;
            transaction.open_table(TABLE)?.insert(n, payload.as_str())?;
            Ok(transaction.commit()?)
        }
    })
}

/// SQLite alone: WAL, `synchronous=FULL`, a table of a number and a text, K rows a transaction by one caller.
pub fn sqlite_lean(spec: &Spec) -> Result<Outcome> {
    let connection = rusqlite::Connection::open(spec.dir.join("events.sqlite3"))?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE events (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL)")?;
    let (connection, payloads, each) = (Mutex::new(connection), Payloads::new(spec.payload), spec.in_flight as u64);
    let (connection, payloads) = (&connection, &payloads);
    threads(spec, 1, each, |_| {
        let mut payload = String::new();
        move |n| {
            let mut connection = connection.lock().map_err(|_| "poisoned")?;
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2)")?;
                for n in n..n + each {
                    payload.clear();
                    payloads.push(n, &mut payload);
                    insert.execute((n as i64, payload.as_str()))?;
                }
            }
            Ok(transaction.commit()?)
        }
    })
}
