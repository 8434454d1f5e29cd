//! Growth: stores of growing size, and whether what is done with them costs what it did before.

use std::path::Path;
use std::time::Duration;

use bench_load::{Outcome, Result, Spec};

use crate::machine::touch_memory;
use crate::report::{Sheet, short};
use crate::runner::run;

/// A store of ten million events takes a few minutes to make.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Appends that are in flight while a store is made, and when the rate onto it is measured.
const IN_FLIGHT: usize = 256;

/// What is measured of each size.
const HEAD: [&str; 11] = [
    "events",
    "made at, events/s",
    "append, events/s",
    "p99.9 µs",
    "peak MiB",
    "open: ledger ms",
    "Store ms",
    "actors ms",
    "verify, events/s (MiB)",
    "parity, events/s (MiB)",
    "replay, events/s (MiB)",
];

/// Makes a store of each size in turn, and measures it; each is removed before the next.
pub fn growth(work: &Path, sizes: &[u64], seconds: f64, payload: usize, touch_gib: f64) -> Result<Sheet> {
    let program = std::env::current_exe()?;
    let mut rows = Vec::new();
    for &events in sizes {
        touch_memory(touch_gib);
        let (store, dir) = (work.join(format!("store-{events}")), work.join("case"));
        std::fs::create_dir_all(&store)?;
        let case = |system: &str, dir: &Path| -> Result<Outcome> {
            let making = dir == store && system == "actors" && !store.join("ledger.json").exists();
            let spec = Spec {
                system: system.to_owned(),
                dir: dir.to_owned(),
                in_flight: IN_FLIGHT,
                payload,
                seconds: if making { 1e6 } else { seconds },
                events_max: if making { events } else { u64::MAX },
                rate: None,
                store: Some(store.clone()),
            };
            std::fs::create_dir_all(dir)?;
            let outcome = run(&program, &spec, PATIENCE);
            if dir != store {
                std::fs::remove_dir_all(dir)?;
            }
            let outcome = outcome?;
            eprintln!("{events} events: {system}: {:.0}/s, {} MiB at most", outcome.sustained(), outcome.peak_kib / 1024);
            Ok(outcome)
        };
        let made = case("actors", &store)?;
        let open = case("open", &dir)?;
        let checked = ["verify", "parity", "replay"].into_iter().map(|system| case(system, &dir)).collect::<Result<Vec<_>>>()?;
        let more = case("actors", &store)?;
        let mut row = vec![
            events.to_string(),
            short(made.sustained()),
            short(more.sustained()),
            short(more.p999),
            short(more.peak_kib as f64 / 1024.0),
        ];
        row.extend(["ledger_ms", "store_ms", "actors_ms"].map(|name| short(open.more.get(name).copied().unwrap_or(f64::NAN))));
        row.extend(checked.iter().map(|done| format!("{} ({})", short(done.rate()), done.peak_kib / 1024)));
        rows.push(row);
        std::fs::remove_dir_all(&store)?;
    }
    let title = format!("Growth, {payload}-byte payloads, {IN_FLIGHT} in flight, the mirror's drain counted");
    Ok(Sheet { title, head: HEAD.map(str::to_owned).to_vec(), rows })
}
