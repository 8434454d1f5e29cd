//! Results as tables: on a terminal, and as Markdown for BENCHMARKS.md.

use std::fmt::Write as _;

use bench_load::Outcome;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle, presets};

use crate::entity_report;
use crate::plan::{LARGE, RATES, SMALL};
use crate::results::{Results, Spread, append_key};
use crate::targets::targets;

/// Systems in the order in which tables show them.
pub const SYSTEMS: &[&str] = &[
    "f1",
    "f2",
    "f2+fallocated",
    "f3",
    "core-ledger",
    "core-ledger+preallocate",
    "core-ledger+signed",
    "core-store",
    "actors",
    "actors+preallocate",
    "actors+mirrored",
    "actors+signed",
    "actors+ledger-only",
    "actors+ledger-only+preallocate",
    "sqlite-own",
    "crtx",
    "okaywal",
    "logdb",
    "batpak",
    "batpak+group",
    "batpak-batch",
    "fjall",
    "redb",
    "sqlite-lean",
];
pub const IN_FLIGHT: [usize; 4] = [1, 16, 256, 1024];
const UPKEEP: &[&str] = &[
    "open",
    "verify",
    "verify-signed",
    "checkpoint",
    "parity",
    "replay",
    "repair-from-ledger",
    "repair-from-mirror",
    "import",
    "crtx-open",
    "crtx-parity",
    "crtx-replay",
];

/// A table before it is decided how it looks.
pub struct Sheet {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    pub fn new(title: impl Into<String>, head: &[&str]) -> Sheet {
        Sheet { title: title.into(), head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    fn table(&self, style: TableStyle) -> Table {
        let mut table = Table::new();
        table.load_style(style).set_header(&self.head).add_rows(&self.rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// For a terminal: a line under the header, and nothing else that would not paste well.
    pub fn text(&self) -> String {
        const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
        let mut table = self.table(STYLE);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let lines = table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        format!("\n{}\n\n{lines}", self.title)
    }

    /// For a page.
    pub fn markdown(&self) -> String {
        format!("## {}\n\n{}\n\n", self.title, self.table(presets::ASCII_MARKDOWN))
    }
}

/// All tables that there are numbers for.
pub fn sheets(results: &Results) -> Vec<Sheet> {
    let mut sheets = vec![reached(results)];
    for payload in [SMALL, LARGE] {
        sheets.push(throughput(results, payload));
    }
    for payload in [SMALL, LARGE] {
        sheets.push(ratios(results, payload));
    }
    for payload in [SMALL, LARGE] {
        sheets.push(details(results, payload));
    }
    sheets.push(open_loops(results));
    sheets.push(upkeep(results));
    sheets.extend(entity_report::sheets(results));
    sheets.push(not_measured(results));
    sheets.retain(|sheet| !sheet.rows.is_empty());
    sheets
}

/// The whole page.
pub fn page(results: &Results, plots: &[String]) -> String {
    let machine = &results.machine;
    let mut page = String::from("# Benchmarks\n\n");
    let _ = writeln!(
        page,
        "Measured {} on {}, {} processors, {:.0} GiB,",
        machine.date, machine.processor, machine.processors, machine.memory_gib
    );
    let _ = writeln!(
        page,
        "{}, {}; {} rounds, all cases of a round in random order, each in",
        machine.kernel,
        machine.file_system,
        results.rounds()
    );
    let _ = writeln!(page, "a process of its own. Median (least–most) of the rounds. {}.\n", machine.versions.join(", "));
    let _ = writeln!(page, "    counterfoil-benches {}\n", machine.command);
    page.push_str("What each name means: [tests/benches/README.md](tests/benches/README.md).\n\n");
    for plot in plots {
        let _ = writeln!(page, "![{plot}]({plot})\n");
    }
    for sheet in sheets(results) {
        page.push_str(&sheet.markdown());
    }
    page
}

fn reached(results: &Results) -> Sheet {
    let mut sheet = Sheet::new("What must be reached", &["", "target", "measured", ""]);
    for row in targets(results) {
        let said = match (row.by_median, row.by_all) {
            (Some(true), true) => "reached",
            (Some(true), false) => "reached, but not in every round",
            (Some(false), _) => "NOT reached",
            (None, _) => continue,
        };
        sheet.rows.push(vec![row.name, row.target, spread(row.measured), said.to_owned()]);
    }
    sheet
}

fn throughput(results: &Results, payload: usize) -> Sheet {
    let title = format!("Events a second, {payload}-byte payloads, by appends in flight (or lines, or rows, a sync)");
    let mut sheet = Sheet::new(title, &["", "1", "16", "256", "1024"]);
    for system in SYSTEMS {
        let cells: Vec<String> =
            IN_FLIGHT.iter().map(|k| spread(results.spread(&append_key(system, *k, payload), Outcome::rate))).collect();
        if cells.iter().any(|cell| cell != "–") {
            sheet.rows.push([vec![(*system).to_owned()], cells].concat());
        }
    }
    sheet
}

/// Ours to what they are measured beside, at the same number in flight; F1 is always that of one caller. The mirror's
/// drain counted.
fn ratios(results: &Results, payload: usize) -> Sheet {
    const BESIDE: [&str; 7] = ["f1", "f3", "crtx", "okaywal", "logdb", "sqlite-own", "sqlite-lean"];
    let head = [&["", "K"], &BESIDE[..]].concat();
    let mut sheet = Sheet::new(format!("Ratios within a round, {payload}-byte payloads, the mirror's drain counted"), &head);
    let ours = SYSTEMS.iter().filter(|system| system.starts_with("core") || system.starts_with("actors"));
    for (system, k) in ours.flat_map(|system| IN_FLIGHT.map(|k| (system, k))) {
        let key = append_key(system, k, payload);
        let to = |beside: &str| {
            let other = append_key(beside, if beside == "f1" { 1 } else { k }, payload);
            let ratio = |round| Some(results.number(round, &key, Outcome::sustained)? / results.number(round, &other, Outcome::sustained)?);
            spread(Spread::of((0..results.rounds()).filter_map(ratio)))
        };
        let cells = BESIDE.map(to).to_vec();
        if cells.iter().any(|cell| cell != "–") {
            sheet.rows.push([vec![(*system).to_owned(), k.to_string()], cells].concat());
        }
    }
    sheet
}

fn details(results: &Results, payload: usize) -> Sheet {
    let head = [
        "",
        "K",
        "events/s",
        "drain counted",
        "% of F3",
        "p50 µs",
        "p99",
        "p99.9",
        "max",
        "syncs/event",
        "of the ledger",
        "CPU µs/event",
        "peak MiB",
    ];
    let mut sheet = Sheet::new(format!("Latency and cost, {payload}-byte payloads, closed loop"), &head);
    for system in SYSTEMS {
        for k in IN_FLIGHT {
            let key = append_key(system, k, payload);
            let median = |of: &dyn Fn(&Outcome) -> f64| results.spread(&key, of).map_or("–".to_owned(), |spread| short(spread.median));
            if results.spread(&key, Outcome::rate).is_none() {
                continue;
            }
            let f3 = append_key("f3", k, payload);
            let of_f3 = (0..results.rounds())
                .filter_map(|round| Some(100.0 * results.number(round, &key, Outcome::rate)? / results.number(round, &f3, Outcome::rate)?));
            let ledger_syncs = |outcome: &Outcome| outcome.ledger_syncs.map_or(f64::NAN, |syncs| syncs as f64 / outcome.events as f64);
            sheet.rows.push(vec![
                (*system).to_owned(),
                k.to_string(),
                median(&Outcome::rate),
                median(&|outcome| outcome.drained_seconds.map_or(f64::NAN, |seconds| outcome.events as f64 / seconds)),
                Spread::of(of_f3).map_or("–".to_owned(), |spread| format!("{:.0}", spread.median)),
                median(&|outcome| outcome.p50),
                median(&|outcome| outcome.p99),
                median(&|outcome| outcome.p999),
                median(&|outcome| outcome.max),
                counted(results, &key, k),
                median(&ledger_syncs),
                median(&|outcome| outcome.cpu_us / outcome.events as f64),
                median(&|outcome| outcome.peak_kib as f64 / 1024.0),
            ]);
        }
    }
    sheet
}

/// Syncs an event as strace counts them. K appends can share one sync, and no more can: what has fewer acknowledges
/// what is not on disk.
fn counted(results: &Results, key: &str, in_flight: usize) -> String {
    let Some(syncs) = results.counted.get(key) else {
        return "–".to_owned();
    };
    let durable = syncs * in_flight as f64 >= 0.99 || key.starts_with("sqlite-own");
    format!("{}{}", short(*syncs), if durable { "" } else { " NOT DURABLE" })
}

fn open_loops(results: &Results) -> Sheet {
    let head = ["", "arrivals/s", "p50 µs", "p99", "p99.9", "max", "not sent in time"];
    let mut sheet = Sheet::new("Open loop, 395-byte payloads: latency from the moment an append was to arrive", &head);
    for system in SYSTEMS {
        for rate in RATES {
            let key = format!("{system}@{rate}");
            let median = |of: &dyn Fn(&Outcome) -> f64| results.spread(&key, of).map_or("–".to_owned(), |spread| short(spread.median));
            if results.spread(&key, Outcome::rate).is_none() {
                continue;
            }
            sheet.rows.push(vec![
                (*system).to_owned(),
                short(rate),
                median(&|outcome| outcome.p50),
                median(&|outcome| outcome.p99),
                median(&|outcome| outcome.p999),
                median(&|outcome| outcome.max),
                median(&|outcome| outcome.more.get("unsent").copied().unwrap_or(f64::NAN)),
            ]);
        }
    }
    sheet
}

fn upkeep(results: &Results) -> Sheet {
    let head = ["", "events/s", "ms", "the ledger's part", "through the actors", "peak MiB"];
    let mut sheet = Sheet::new("Open, verify, parity, replay, repair, import (`#` events in the store)", &head);
    for system in UPKEEP {
        for key in results.outcomes.keys().filter(|key| key.split('#').next() == Some(system) && key.contains('#')) {
            let named = |name: &'static str| move |outcome: &Outcome| outcome.more.get(name).copied().unwrap_or(f64::NAN);
            let opens = results.spread(key, named("store_ms")).is_some();
            let (rate, ms) = if opens {
                ("–".to_owned(), spread(results.spread(key, named("store_ms"))))
            } else {
                (spread(results.spread(key, Outcome::rate)), spread(results.spread(key, |outcome| outcome.seconds * 1e3)))
            };
            let peak = results.spread(key, |outcome| outcome.peak_kib as f64 / 1024.0).filter(|peak| peak.median > 0.0);
            if results.spread(key, Outcome::rate).is_some() {
                let (ledger, actors) = (spread(results.spread(key, named("ledger_ms"))), spread(results.spread(key, named("actors_ms"))));
                sheet.rows.push(vec![key.clone(), rate, ms, ledger, actors, spread(peak)]);
            }
        }
    }
    sheet
}

/// Each reason with the cases that it kept from being measured.
fn not_measured(results: &Results) -> Sheet {
    let mut sheet = Sheet::new("Not measured", &["why", "cases"]);
    for key in results.outcomes.keys() {
        let Some(why) = results.skipped(key) else { continue };
        match sheet.rows.iter_mut().find(|row| row[0] == why) {
            Some(row) => row[1] += &format!(", {key}"),
            None => sheet.rows.push(vec![why.to_owned(), key.clone()]),
        }
    }
    sheet
}

/// A median with the least and the most, where they differ.
pub fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => "–".to_owned(),
        Some(Spread { median, min, max }) if min == max => short(median),
        Some(Spread { median, min, max }) => format!("{} ({}–{})", short(median), short(min), short(max)),
    }
}

/// Three digits, thousands as k.
pub fn short(number: f64) -> String {
    match number.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 99_950.0 => format!("{:.0}k", number / 1e3),
        size if size >= 9_995.0 => format!("{:.1}k", number / 1e3),
        size if size >= 99.95 => format!("{number:.0}"),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.0034, 0.5, 7.25, 12.34, 433.3, 2345.0, 12_345.0, 433_210.0].map(super::short);
        assert_eq!(shown, ["0.00", "0.0034", "0.50", "7.25", "12.3", "433", "2345", "12.3k", "433k"]);
    }
}
