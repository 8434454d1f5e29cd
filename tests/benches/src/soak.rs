//! A long run: the rate of each part of it, and the memory, the WAL and the mirror's lag meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bench_load::{Outcome, Pacer, Payloads, Result, Spec, resident_kib};
use counterfoil::actors::{Durability, Ledger};
use counterfoil::mirror_path;

use crate::actors::{Load, closed, runtime};
use crate::settings::{Settings, settings};

/// Parts that a soak is told in.
pub const PARTS: u64 = 10;
/// How often memory and WAL are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Appends `events_max` events in [`PARTS`] parts; prints one line a part on standard error.
pub fn run(spec: &Spec) -> Result<Outcome> {
    let (_, has) = spec.system();
    let Settings { ledger: options, .. } = settings(has);
    let runtime = runtime()?;
    let ledger = runtime.block_on(Ledger::open_with(&spec.dir, options))?;
    let part = Spec { events_max: spec.events_max / PARTS, seconds: 1e6, ..spec.clone() };
    let mut outcome = Outcome::default();
    for number in 0..PARTS {
        let pacer = Pacer::new(&part, Duration::ZERO);
        let (payloads, durability) = (Payloads::new(spec.payload), Durability::Ledger);
        let load = Arc::new(Load { ledger: ledger.clone(), payloads, durability, own: false, pacer });
        let (seen, meter) = watched(&spec.dir, || runtime.block_on(closed(&load, spec.in_flight)))?;
        let done = meter.stop(load.pacer.outcome());
        let status = ledger.status();
        let behind = status.durable.seq.get() - status.mirrored_through.get();
        eprintln!(
            "{:>10} events: {:>7.0}/s, p50 {:.0} µs, p99.9 {:.0} µs, resident {:.1} MiB, WAL {:.1} MiB at most, mirror {behind} behind",
            (number + 1) * part.events_max,
            done.rate(),
            done.p50,
            done.p999,
            seen.resident_kib as f64 / 1024.0,
            seen.wal_bytes as f64 / 1_048_576.0,
        );
        for (name, value) in [
            ("rate", done.rate()),
            ("p999", done.p999),
            ("resident_kib", seen.resident_kib as f64),
            ("wal_bytes", seen.wal_bytes as f64),
            ("behind", behind as f64),
        ] {
            outcome.more.insert(format!("{number:02} {name}"), value);
        }
        outcome.events += done.events;
        outcome.seconds += done.seconds;
        outcome.cpu_us += done.cpu_us;
        outcome.peak_kib = done.peak_kib;
    }
    let last = ledger.status().durable.seq;
    runtime.block_on(ledger.mirrored(last))?;
    runtime.block_on(ledger.close())?;
    Ok(outcome)
}

/// The most that was seen while something ran.
struct Seen {
    resident_kib: u64,
    wal_bytes: u64,
}

fn watched<T>(dir: &std::path::Path, run: impl FnOnce() -> Result<T>) -> Result<(Seen, T)> {
    let mut wal = mirror_path(dir).into_os_string();
    wal.push("-wal");
    let (over, resident, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                resident.fetch_max(resident_kib(), Ordering::Relaxed);
                bytes.fetch_max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let done = run();
        over.store(true, Ordering::Relaxed);
        done
    })?;
    Ok((Seen { resident_kib: resident.into_inner(), wal_bytes: bytes.into_inner() }, done))
}
