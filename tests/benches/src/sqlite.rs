//! SQLite alone with our own schema, settings and statement: K rows a transaction by one caller. What the mirror can
//! reach at most.
//!
//! Schema, settings and rows are taken from a store that the library has just made, so that they are always its own.

use std::time::{SystemTime, UNIX_EPOCH};

use bench_load::{Outcome, Payloads, Result, Spec, threads};
use counterfoil::rusqlite::types::Value;
use counterfoil::rusqlite::{Connection, params_from_iter};
use counterfoil::{Conditions, EventId, Options, Store, Timestamp, mirror_path};

use crate::core::draft;

/// Rows that are taken as templates: enough that their text is not always in the processor's cache.
const TEMPLATES: u64 = 1024;

/// Runs it.
pub fn own_schema(spec: &Spec) -> Result<Outcome> {
    let mut options = Options::default();
    options.mirror_wal_bytes_max = u64::MAX >> 1;
    let (mut store, _) = Store::open(&spec.dir, &options)?;
    let payloads = Payloads::new(spec.payload);
    let drafts = (0..TEMPLATES).map(|n| draft(&payloads, n, n)).collect::<Result<Vec<_>>>()?;
    store.append_batch(drafts, &Conditions::none())?;
    store.close()?;
    let connection = Connection::open(mirror_path(&spec.dir))?;
    // What the mirror sets on its connections; the rest is in the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let rows = Rows::read(&connection)?;
    // Its rows are kept from that.
    connection.set_db_config(counterfoil::rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.execute("DELETE FROM events", [])?;
    let (connection, rows) = (std::sync::Mutex::new(connection), &rows);
    let each = spec.in_flight as u64;
    let connection = &connection;
    threads(spec, 1, each, |_| {
        let mut row = Vec::new();
        move |n| {
            let mut connection = connection.lock().map_err(|_| "poisoned")?;
            let transaction = connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(&rows.insert)?;
                for n in n..n + each {
                    rows.make(n, &mut row);
                    insert.execute(params_from_iter(&row))?;
                }
            }
            Ok(transaction.commit()?)
        }
    })
}

/// Rows as the library writes them, to be written again with new keys.
struct Rows {
    insert: String,
    columns: Vec<String>,
    templates: Vec<Vec<Value>>,
}

impl Rows {
    fn read(connection: &Connection) -> Result<Rows> {
        let mut select = connection.prepare("SELECT * FROM events ORDER BY seq")?;
        let columns: Vec<String> = select.column_names().map(str::to_owned).collect();
        let count = columns.len();
        let templates = select.query_map([], |row| (0..count).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>())?;
        let templates = templates.collect::<Result<Vec<_>, _>>()?;
        let marks = vec!["?"; count].join(", ");
        Ok(Rows { insert: format!("INSERT INTO events VALUES ({marks})"), columns, templates })
    }

    /// Row `n`: a template with a seq, an id, a position in its session and times of its own, all growing.
    fn make(&self, n: u64, row: &mut Vec<Value>) {
        let template = &self.templates[(n % TEMPLATES) as usize];
        row.clone_from(template);
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
        for (column, value) in self.columns.iter().zip(row) {
            match (column.as_str(), &*value) {
                ("seq" | "group_seq", Value::Integer(_)) => *value = Value::Integer(n as i64 + 1),
                ("session_seq", Value::Integer(_)) => *value = Value::Integer((n / 64) as i64 + 1),
                ("id", Value::Text(_)) => *value = Value::Text(id(micros, n).to_string()),
                ("id", Value::Blob(_)) => *value = Value::Blob(id(micros, n).as_u128().to_be_bytes().to_vec()),
                ("observed_at" | "recorded_at", Value::Text(_)) => *value = Value::Text(Timestamp::from_micros(micros).to_string()),
                ("observed_at" | "recorded_at", Value::Integer(_)) => *value = Value::Integer(micros),
                _ => {}
            }
        }
    }
}

/// As ids are by convention: 48 bits of milliseconds, then 80 that grow here.
fn id(micros: i64, n: u64) -> EventId {
    EventId::from_u128(((micros / 1000) as u128) << 80 | n as u128)
}
