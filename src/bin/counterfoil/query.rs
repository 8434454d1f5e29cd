//! `query` and `sessions`: the mirror, read-only.

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use counterfoil::rusqlite::types::Value;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{QueryArgs, SessionsArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::{self, Out};
use crate::text;

/// Characters of a cell of a table at most, so that one payload does not fill the screen.
const CELL_CHARS_MAX: usize = 400;

pub fn query(args: &QueryArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let mut mirror = context.mirror(&ledger)?;
    if out.is_json() {
        return query_json(args, &mut mirror, out);
    }
    let mut table = table();
    let (mut rows, mut more) = (0u64, false);
    let columns = mirror.query_each(&args.sql, &[], |_, values| {
        more = args.limit > 0 && rows == args.limit;
        if !more {
            rows += 1;
            table.add_row(values.iter().map(cell));
        }
        !more
    })?;
    if rows == 0 {
        out::note(out, "no rows");
        return Ok(Exit::Fine);
    }
    table.set_header(columns.iter().map(|column| text::shortened(column, CELL_CHARS_MAX)));
    print_table(&table, out)?;
    if more {
        out::note(out, format_args!("these are the first {} rows; --limit 0 shows all", text::number(args.limit)));
    }
    Ok(Exit::Fine)
}

/// An array with an object a row, written as the rows come.
fn query_json(args: &QueryArgs, mirror: &mut counterfoil::MirrorReader, out: &mut Out) -> Result<Exit, Failure> {
    let (mut names, mut failure, mut rows) = (Vec::new(), None, 0u64);
    let done = mirror.query_each(&args.sql, &[], |columns, values| {
        if rows == 0 {
            names = keys(columns);
        }
        let row: Vec<String> = names.iter().zip(&values).map(|(name, value)| format!("{name}:{}", json(value))).collect();
        let begin = if rows == 0 { "[" } else { ",\n" };
        rows += 1;
        out.text(format_args!("{begin}{{{}}}", row.join(","))).map_err(|error| failure = Some(error)).is_ok()
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    if done.is_ok() || rows > 0 {
        out.line(if rows == 0 { "[]" } else { "]" })?;
    }
    done?;
    Ok(Exit::Fine)
}

/// The columns' names as JSON, each of them once.
fn keys(columns: &[String]) -> Vec<String> {
    let mut used: Vec<String> = Vec::new();
    for column in columns {
        let mut name = column.clone();
        let mut number = 1;
        while used.contains(&name) {
            number += 1;
            name = format!("{column}_{number}");
        }
        used.push(name);
    }
    used.iter().map(|name| serde_json::Value::from(name.as_str()).to_string()).collect()
}

fn json(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        // What JSON has no number for is null.
        Value::Real(number) => serde_json::Value::from(*number).to_string(),
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Blob(bytes) => format!("\"{}\"", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text::shortened(text, CELL_CHARS_MAX),
        Value::Blob(bytes) => text::shortened(&hex(bytes.get(..CELL_CHARS_MAX.min(bytes.len())).unwrap_or_default()), CELL_CHARS_MAX),
    }
}

/// A table that fits the terminal: a line under its header, and nothing else that would not paste well.
fn table() -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn print_table(table: &Table, out: &mut Out) -> Result<(), Failure> {
    table.lines().try_for_each(|line| out.line(line.trim_end()))
}

#[derive(Serialize)]
struct Session {
    session_id: String,
    events: i64,
    first_seq: i64,
    last_seq: i64,
    first_observed_at: String,
    last_observed_at: String,
    types: Box<RawValue>,
}

const SESSIONS: &str = "
SELECT session_id, sum(n), min(first_seq), max(last_seq), min(first), max(last), json_group_object(event_type, n) FROM (
  SELECT session_id, event_type, count(*) AS n, min(seq) AS first_seq, max(seq) AS last_seq, min(observed_at) AS first, max(observed_at) AS last
  FROM events WHERE session_id IS NOT NULL GROUP BY session_id, event_type ORDER BY n DESC, event_type
) GROUP BY session_id ORDER BY max(last_seq) DESC LIMIT ?1";

pub fn sessions(args: &SessionsArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let mut mirror = context.mirror(&ledger)?;
    // One more than is shown tells whether there are more; SQLite takes -1 as no limit.
    let asked = i64::try_from(args.limit).unwrap_or(i64::MAX);
    let limit = if asked == 0 { -1 } else { asked.saturating_add(1) };
    let mut rows = mirror.query(SESSIONS, &[&limit])?.rows.into_iter().filter_map(session).collect::<Vec<_>>();
    let more = asked > 0 && rows.len() as u64 > args.limit;
    rows.truncate(if asked == 0 { usize::MAX } else { usize::try_from(asked).unwrap_or(usize::MAX) });
    if out.is_json() {
        out.json(&rows)?;
        return Ok(Exit::Fine);
    }
    if rows.is_empty() {
        out::note(out, context.local("no event belongs to a session; `counterfoil append --session ID` gives one"));
        return Ok(Exit::Fine);
    }
    let mut table = table();
    table.set_header(["session", "events", "first", "last", "types"]);
    for session in rows {
        let types: std::collections::BTreeMap<String, u64> = serde_json::from_str(session.types.get()).unwrap_or_default();
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let types: Vec<_> = types.iter().map(|(name, count)| format!("{} {count}", name.trim_end_matches(".v1"))).collect();
        let second = |time: &str| time.get(..19).unwrap_or(time).replace('T', " ");
        table.add_row([
            text::shortened(&session.session_id, 60),
            session.events.to_string(),
            second(&session.first_observed_at),
            second(&session.last_observed_at),
            text::shortened(&types.join(", "), CELL_CHARS_MAX),
        ]);
    }
    print_table(&table, out)?;
    if more {
        out::note(out, format_args!("these are the latest {} sessions; --limit 0 shows all", text::number(args.limit)));
    }
    Ok(Exit::Fine)
}

fn session(row: Vec<Value>) -> Option<Session> {
    let [
        Value::Text(session_id),
        Value::Integer(events),
        Value::Integer(first_seq),
        Value::Integer(last_seq),
        Value::Text(first_observed_at),
        Value::Text(last_observed_at),
        Value::Text(types),
    ] = <[Value; 7]>::try_from(row).ok()?
    else {
        return None;
    };
    let types = RawValue::from_string(types).ok()?;
    Some(Session { session_id, events, first_seq, last_seq, first_observed_at, last_observed_at, types })
}
