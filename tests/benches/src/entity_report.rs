//! Tables of what is done with streams and entities: what must not grow with the store, and commands a second.

use bench_load::Outcome;

use crate::plan::{COMMANDS, FIRST_LIST, READS, SMALL, STREAMS};
use crate::report::{Sheet, short, spread};
use crate::results::{Results, Spread, append_key};

/// All of them.
pub fn sheets(results: &Results) -> Vec<Sheet> {
    vec![commands(results), keys(results), reads(results), growth(results), first_lists(results)]
}

fn named<'n>(name: &'n str) -> impl Fn(&Outcome) -> f64 + 'n {
    move |outcome| outcome.more.get(name).copied().unwrap_or(f64::NAN)
}

/// Commands a second, beside plain appends of as many callers.
fn commands(results: &Results) -> Sheet {
    let head =
        ["", "N", "a second", "÷ `actors/N`", "÷ `actors+own/N`", "p50 µs", "p99", "p99.9", "syncs of the ledger", "CPU µs", "peak MiB"];
    let mut sheet = Sheet::new("Commands to N entities at once, one of each under way, beside N plain appends; 395-byte payloads", &head);
    let mut rows: Vec<(&str, usize)> = COMMANDS.to_vec();
    rows.insert(0, ("actors", 1));
    for (system, n) in rows {
        let key = append_key(system, n, SMALL);
        let Some(rate) = results.spread(&key, Outcome::rate) else { continue };
        let median = |of: &dyn Fn(&Outcome) -> f64| results.spread(&key, of).map_or("–".to_owned(), |spread| short(spread.median));
        let beside = |beside: &str| {
            let beside = append_key(beside, n, SMALL);
            let ratio = |round| Some(results.number(round, &key, Outcome::rate)? / results.number(round, &beside, Outcome::rate)?);
            if beside == key { "–".to_owned() } else { spread(Spread::of((0..results.rounds()).filter_map(ratio))) }
        };
        sheet.rows.push(vec![
            system.to_owned(),
            n.to_string(),
            spread(Some(rate)),
            beside("actors"),
            beside("actors+own"),
            median(&|outcome| outcome.p50),
            median(&|outcome| outcome.p99),
            median(&|outcome| outcome.p999),
            median(&|outcome| outcome.ledger_syncs.map_or(f64::NAN, |syncs| syncs as f64 / outcome.events as f64)),
            median(&|outcome| outcome.cpu_us / outcome.events as f64),
            median(&|outcome| outcome.peak_kib as f64 / 1024.0),
        ]);
    }
    sheet
}

/// Commands with keys on a stream that has had many.
fn keys(results: &Results) -> Sheet {
    let head = ["older keys", "new keys a second", "p50 µs", "p99", "an old key again, p50 µs", "worst"];
    let mut sheet = Sheet::new("Commands with keys, one at a time, on a stream that has had many", &head);
    for (key, events) in sizes(results, "entity-keys") {
        let cell = |of: &dyn Fn(&Outcome) -> f64| spread(results.spread(&key, of));
        sheet.rows.push(vec![
            events.to_string(),
            cell(&Outcome::rate),
            cell(&|outcome| outcome.p50),
            cell(&|outcome| outcome.p99),
            cell(&named("again_p50")),
            cell(&named("again_max")),
        ]);
    }
    sheet
}

/// Looks at states.
fn reads(results: &Results) -> Sheet {
    let head = ["appends in flight", "p50 µs", "p99", "p99.9", "appends a second"];
    let mut sheet = Sheet::new("Looks at an entity's state, one a millisecond, beside plain appends to other streams", &head);
    for in_flight in READS.1 {
        let key = append_key(READS.0, in_flight, SMALL);
        let cell = |of: &dyn Fn(&Outcome) -> f64| spread(results.spread(&key, of));
        if results.spread(&key, Outcome::rate).is_some() {
            sheet.rows.push(vec![
                in_flight.to_string(),
                cell(&|outcome| outcome.p50),
                cell(&|outcome| outcome.p99),
                cell(&|outcome| outcome.p999),
                cell(&named("appends_a_second")),
            ]);
        }
    }
    sheet
}

/// The cases of a system that are told apart by a store's size, smallest first.
fn sizes(results: &Results, system: &str) -> Vec<(String, u64)> {
    let size = |key: &String| key.strip_prefix(system)?.strip_prefix('#')?.parse().ok().map(|size| (key.clone(), size));
    let mut sizes: Vec<(String, u64)> = results.outcomes.keys().filter_map(size).collect();
    sizes.sort_by_key(|(_, size)| *size);
    sizes
}

/// What must not grow with the store: time and memory, for stores of each size, and the largest's to the smallest's.
fn growth(results: &Results) -> Sheet {
    let all = STREAMS.iter().map(|system| sizes(results, system)).max_by_key(Vec::len).unwrap_or_default();
    let mut head = vec!["".to_owned()];
    head.extend(all.iter().map(|(_, size)| format!("ms at {size}")));
    head.push("÷".to_owned());
    head.extend(all.iter().map(|(_, size)| format!("MiB at {size}")));
    head.push("÷".to_owned());
    let title = "One stream in stores of growing size: median (worst) in ms, and what memory grows by in MiB (the process's peak)";
    let mut sheet = Sheet { title: title.to_owned(), head, rows: Vec::new() };
    for system in STREAMS {
        let sizes = sizes(results, system);
        let measured = |(key, _): &(String, u64)| results.spread(key, |outcome| outcome.p50).is_some();
        if sizes.len() != all.len() || sizes.is_empty() || !sizes.iter().all(measured) {
            continue;
        }
        sheet.rows.push(growth_row(results, system, &sizes, |outcome| outcome.p50, |outcome| outcome.max));
        if results.spread(&sizes[0].0, named("kept_p50")).is_some() {
            let row = growth_row(results, &format!("{system}, kept open"), &sizes, named("kept_p50"), named("kept_max"));
            sheet.rows.push(row);
        }
    }
    sheet
}

/// The first list of a store's sessions.
fn first_lists(results: &Results) -> Sheet {
    let head = ["events", "ms", "worst", "µs an event", "MiB, what memory grows by"];
    let mut sheet = Sheet::new("The first list of sessions, which reads all of the mirror", &head);
    for (key, events) in sizes(results, FIRST_LIST) {
        let cell = |of: &dyn Fn(&Outcome) -> f64| spread(results.spread(&key, of));
        sheet.rows.push(vec![
            events.to_string(),
            cell(&|outcome| outcome.p50 / 1e3),
            cell(&|outcome| outcome.max / 1e3),
            cell(&|outcome| outcome.p50 / events as f64),
            cell(&|outcome| named("grown_kib")(outcome) / 1024.0),
        ]);
    }
    sheet
}

fn growth_row(
    results: &Results,
    name: &str,
    sizes: &[(String, u64)],
    median: impl Fn(&Outcome) -> f64,
    worst: impl Fn(&Outcome) -> f64,
) -> Vec<String> {
    let middle = |key: &str, of: &dyn Fn(&Outcome) -> f64| results.spread(key, of).map_or("–".to_owned(), |spread| short(spread.median));
    let grown = |outcome: &Outcome| named("grown_kib")(outcome) / 1024.0;
    let ratio = |of: &dyn Fn(&Outcome) -> f64| {
        let (Some((least, _)), Some((most, _))) = (sizes.first(), sizes.last()) else { return "–".to_owned() };
        let ratio = |round| Some(results.number(round, most, of)? / results.number(round, least, of)?);
        spread(Spread::of((0..results.rounds()).filter_map(ratio)))
    };
    let mut row = vec![name.to_owned()];
    row.extend(sizes.iter().map(|(key, _)| {
        let most = results.spread(key, &worst).map_or(f64::NAN, |spread| spread.max);
        format!("{} ({})", middle(key, &|outcome| median(outcome) / 1e3), short(most / 1e3))
    }));
    row.push(ratio(&median));
    if name.contains(',') {
        // Its memory is counted with the row above.
        row.extend(vec![String::new(); sizes.len() + 1]);
        return row;
    }
    row.extend(
        sizes.iter().map(|(key, _)| format!("{} ({})", middle(key, &grown), middle(key, &|outcome| outcome.peak_kib as f64 / 1024.0))),
    );
    row.push(ratio(&grown));
    row
}
