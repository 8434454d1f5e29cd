//! `stats`: events and bytes, counted.

use std::fs;
use std::path::Path;

use counterfoil::{LedgerId, Seq, mirror_path, rusqlite::types::Value};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::text;

/// Files, and the bytes in them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Files {
    pub count: u64,
    pub bytes: u64,
}

/// What the mirror counts.
#[derive(Default, Serialize)]
struct Counted {
    mirrored_through: u64,
    rows: u64,
    sessions: u64,
    groups: u64,
    /// Events without their payload.
    erased: u64,
    /// An erasure is not known to be done as a whole.
    erasure_unfinished: bool,
    events_a_group: Option<f64>,
    first_observed_at: Option<String>,
    last_observed_at: Option<String>,
    #[serde(serialize_with = "as_map")]
    by_type: Vec<(String, u64)>,
    #[serde(serialize_with = "as_map")]
    by_source: Vec<(String, u64)>,
}

fn as_map<S: serde::Serializer>(list: &[(String, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(list.iter().map(|(key, count)| (key, count)))
}

#[derive(Serialize)]
struct Stats {
    store: String,
    ledger_id: LedgerId,
    head: Seq,
    segments: u64,
    compressed_segments: u64,
    /// Of the lines.
    ledger_bytes: u64,
    /// Of the files that hold them.
    stored_bytes: u64,
    mirror_bytes: u64,
    wal_bytes: u64,
    torn: Files,
    set_aside: Files,
    /// Nothing where the mirror can't be read.
    mirror: Option<Counted>,
    mirror_error: Option<String>,
}

pub fn run(context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let (mirror, mirror_error) = match count(context, &ledger) {
        Ok(counted) => (Some(counted), None),
        Err(Failure::Told { message, .. }) => (None, Some(context.local(&message))),
        Err(gone) => return Err(gone),
    };
    let path = mirror_path(&context.store);
    let size = ledger.size()?;
    let stats = Stats {
        store: context.store.display().to_string(),
        ledger_id: ledger.manifest().ledger_id,
        head: ledger.head()?.seq,
        segments: size.segments,
        compressed_segments: size.compressed,
        ledger_bytes: size.plain_bytes,
        stored_bytes: size.stored_bytes,
        mirror_bytes: len(&path),
        wal_bytes: len(&path.with_extension("sqlite3-wal")),
        torn: files(&context.store.join("torn"), |_| true),
        set_aside: files(&context.store, is_aside),
        mirror,
        mirror_error,
    };
    if out.is_json() {
        out.json(&stats)?;
    } else {
        print(&stats, out)?;
    }
    Ok(Exit::Fine)
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Whether a file of a store is (a part of) a mirror that was set aside.
pub fn is_aside(name: &str) -> bool {
    name.starts_with("mirror.sqlite3.aside-")
}

/// Files of a folder whose names are wanted.
pub fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Files {
    let mut files = Files::default();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if wanted(&entry.file_name().to_string_lossy()) {
            files.count += 1;
            files.bytes += entry.metadata().map_or(0, |meta| meta.len());
        }
    }
    files
}

fn count(context: &Context, ledger: &counterfoil::LedgerReader) -> Result<Counted, Failure> {
    let mut mirror = context.mirror(ledger)?;
    let mut counted = Counted { mirrored_through: mirror.watermark(ledger.manifest().ledger_id)?.seq.get(), ..Counted::default() };
    let totals = "SELECT count(*), count(DISTINCT session_id), count(DISTINCT group_seq), min(observed_at), max(observed_at), \
                  count(erased) FROM events";
    let number = |value: &Value| match value {
        Value::Integer(number) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    let word = |value: &Value| match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    if let Some([rows, sessions, groups, first, last, erased]) = mirror.query(totals, &[])?.rows.first().map(Vec::as_slice) {
        (counted.rows, counted.sessions, counted.groups) = (number(rows), number(sessions), number(groups));
        (counted.first_observed_at, counted.last_observed_at, counted.erased) = (word(first), word(last), number(erased));
    }
    counted.erasure_unfinished = mirror.erasure_is_unfinished()?;
    counted.events_a_group = (counted.groups > 0).then(|| (counted.rows as f64 / counted.groups as f64 * 100.0).round() / 100.0);
    let mut list = |sql: &str| -> Result<Vec<(String, u64)>, Failure> {
        let rows = mirror.query(sql, &[])?.rows;
        Ok(rows.iter().filter_map(|row| Some((word(row.first()?)?, number(row.get(1)?)))).collect())
    };
    counted.by_type = list("SELECT event_type, count(*) AS n FROM events GROUP BY 1 ORDER BY n DESC, 1")?;
    counted.by_source = list(
        "SELECT source_type || coalesce(':' || source_name, ''), count(*) AS n FROM events_text GROUP BY 1 ORDER BY n DESC, 1 LIMIT 50",
    )?;
    Ok(counted)
}

fn print(stats: &Stats, out: &mut Out) -> Result<(), Failure> {
    let mut field = |name: &str, value: String| out.line(format_args!("{name:<12} {value}"));
    field("store", stats.store.clone())?;
    field("ledger", stats.ledger_id.to_string())?;
    let segments = text::count(stats.segments, "segment");
    let compressed = match stats.compressed_segments {
        0 => String::new(),
        compressed => format!(" ({} with {} compressed)", text::bytes(stats.stored_bytes), text::count(compressed, "segment")),
    };
    field("events", format!("{} in {segments}, {}{compressed}", text::number(stats.head.get()), text::bytes(stats.ledger_bytes)))?;
    match (&stats.mirror, &stats.mirror_error) {
        (Some(mirror), _) => {
            let behind = stats.head.get().saturating_sub(mirror.mirrored_through);
            let lag = if behind == 0 { "up to date".to_owned() } else { format!("{} behind", text::count(behind, "event")) };
            let (file, wal) = (text::bytes(stats.mirror_bytes), text::bytes(stats.wal_bytes));
            field("mirror", format!("through seq {} ({lag}), {file}, WAL {wal}", mirror.mirrored_through))?;
            if let (Some(first), Some(last)) = (&mirror.first_observed_at, &mirror.last_observed_at) {
                field("time", format!("{first} to {last}"))?;
            }
            let a_group = mirror.events_a_group.map_or(String::new(), |events| format!(", {events:.2} events an fsync"));
            field("sessions", text::number(mirror.sessions))?;
            field("groups", format!("{}{a_group}", text::number(mirror.groups)))?;
            if mirror.erased > 0 || mirror.erasure_unfinished {
                let left =
                    if mirror.erasure_unfinished { "; an erasure is NOT DONE AS A WHOLE (`counterfoil doctor` says more)" } else { "" };
                field("erased", text::count(mirror.erased, "event") + left)?;
            }
            for (name, list) in [("by type", &mirror.by_type), ("by source", &mirror.by_source)] {
                for (at, (key, count)) in list.iter().enumerate() {
                    let name = if at == 0 { name } else { "" };
                    field(name, format!("{:>10}  {}", text::number(*count), text::shortened(key, 60)))?;
                }
            }
        }
        (None, error) => field("mirror", error.clone().unwrap_or_default())?,
    }
    for (name, files) in [("torn", stats.torn), ("set aside", stats.set_aside)] {
        if files.count > 0 {
            field(name, format!("{}, {}", text::count(files.count, "file"), text::bytes(files.bytes)))?;
        }
    }
    Ok(())
}
