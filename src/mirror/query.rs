//! Read-only SQL for people.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ToSql};

use super::MirrorReader;
use crate::event::Seq;

/// An answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// Why a query was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The mirror can't be read.
    #[error(transparent)]
    Mirror(#[from] super::MirrorError),
    /// SQLite refused it.
    #[error(
        "the query was refused: {0}; the tables are events, events_text, segments and mirrored_through (`PRAGMA table_info(events)` lists the columns), and only reading is allowed"
    )]
    Refused(#[source] rusqlite::Error),
}

fn allow_reading(context: AuthContext<'_>) -> Authorization {
    const PRAGMAS: [&str; 6] = ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "user_version"];
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => Authorization::Allow,
        AuthAction::Pragma { pragma_name, pragma_value: value }
            if PRAGMAS.contains(&pragma_name) && (value.is_none() || pragma_name != "user_version") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// SQLite's JSON functions make no UTF-8 of a lone surrogate, which a payload may hold: that is shown as U+FFFD.
fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

impl MirrorReader {
    /// Runs a query, calling `row` for each row of the answer with the columns' names and the values, until it
    /// answers `false`. Only reading is possible: no writes, no ATTACH, no extensions.
    ///
    /// # Errors
    /// [`QueryError::Refused`] with what SQLite said.
    pub fn query_each(
        &mut self,
        sql: &str,
        params: &[&dyn ToSql],
        mut row: impl FnMut(&[String], Vec<Value>) -> bool,
    ) -> Result<Vec<String>, QueryError> {
        self.conn.authorizer(Some(allow_reading)).map_err(QueryError::Refused)?;
        let answer = (|| {
            let mut statement = self.conn.prepare(sql)?;
            let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut rows = statement.query(params)?;
            while let Some(found) = rows.next()? {
                let values = (0..columns.len()).map(|at| Ok(value(found.get_ref(at)?))).collect::<Result<_, rusqlite::Error>>()?;
                if !row(&columns, values) {
                    break;
                }
            }
            Ok(columns)
        })();
        self.conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(QueryError::Refused)?;
        answer.map_err(QueryError::Refused)
    }

    /// Runs a query and keeps the whole answer; for answers that are known to be small.
    ///
    /// # Errors
    /// As [`MirrorReader::query_each`].
    pub fn query(&mut self, sql: &str, params: &[&dyn ToSql]) -> Result<Table, QueryError> {
        let mut rows = Vec::new();
        let columns = self.query_each(sql, params, |_, row| {
            rows.push(row);
            true
        })?;
        Ok(Table { columns, rows })
    }
}

pub(super) fn count(conn: &Connection) -> rusqlite::Result<(u64, Seq)> {
    conn.query_row("SELECT count(*), max(seq) FROM events", [], |row| {
        let last = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
        Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), Seq::new(u64::try_from(last).unwrap_or(0))))
    })
}
