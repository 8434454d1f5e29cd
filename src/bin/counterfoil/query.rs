//! `query`: the mirror, read-only.

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use counterfoil::rusqlite::types::Value;

use crate::args::QueryArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::{self, Out};
use crate::text;

/// Characters of a cell of a table at most, so that one payload does not fill the screen.
pub const CELL_CHARS_MAX: usize = 400;

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
pub fn table() -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

pub fn print_table(table: &Table, out: &mut Out) -> Result<(), Failure> {
    table.lines().try_for_each(|line| out.line(line.trim_end()))
}
