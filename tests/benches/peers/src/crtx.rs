//! crtx-store: JSONL and SQLite, one fsync and one transaction an event. It has one caller at a time, so callers take
//! turns at a mutex.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use bench_load::{Meter, Outcome, Payloads, Result, Spec, session, threads};
use cortex_core::{Event, EventId, EventSource, EventType, SCHEMA_VERSION};
use cortex_ledger::{JsonlLog, append_policy_decision_test_allow};
use cortex_store::mirror::{append_event, mirror_policy_decision_test_allow, replay_jsonl_into_sqlite, verify_event_set_parity};

/// How often a store is opened; the median counts.
const OPENS: usize = 5;

fn event(payloads: &Payloads, n: u64, caller: u64) -> Result<Event> {
    let now = chrono::Utc::now();
    Ok(Event {
        id: EventId::new(),
        schema_version: SCHEMA_VERSION,
        observed_at: now,
        recorded_at: now,
        source: EventSource::Tool { name: "bash".to_owned() },
        event_type: EventType::ToolResult,
        trace_id: None,
        session_id: Some(session(caller)),
        domain_tags: Vec::new(),
        payload: serde_json::from_str(&payloads.get(n))?,
        payload_hash: String::new(),
        prev_event_hash: None,
        event_hash: String::new(),
    })
}

/// `append_event`: both legs before it returns.
pub fn append(spec: &Spec) -> Result<Outcome> {
    let both = Mutex::new((JsonlLog::open(spec.dir.join("events.jsonl"))?, cortex_store::open(&spec.dir)?));
    let (ledger_policy, mirror_policy) = (append_policy_decision_test_allow(), mirror_policy_decision_test_allow());
    let payloads = Payloads::new(spec.payload);
    let (both, payloads, ledger_policy, mirror_policy) = (&both, &payloads, &ledger_policy, &mirror_policy);
    threads(spec, spec.in_flight, 1, |caller| {
        move |n| {
            let event = event(payloads, n, caller as u64)?;
            let mut both = both.lock().map_err(|_| "poisoned")?;
            let (log, pool) = &mut *both;
            append_event(log, pool, event, ledger_policy, mirror_policy)?;
            Ok(())
        }
    })
}

/// Makes a store of `events_max` events, for the cases below. It is made in memory (`store`), where an fsync costs
/// nothing, and then copied to where it is wanted.
pub fn make(spec: &Spec) -> Result<Outcome> {
    let memory = spec.store.as_deref().ok_or("where is memory?")?;
    let made = append(&Spec { dir: memory.to_owned(), in_flight: 1, seconds: 1e6, ..spec.clone() })?;
    for entry in std::fs::read_dir(memory)? {
        let entry = entry?;
        std::fs::copy(entry.path(), spec.dir.join(entry.file_name()))?;
    }
    Ok(made)
}

fn measured(work: impl FnOnce() -> Result<u64>) -> Result<Outcome> {
    let (meter, start) = (Meter::start(), Instant::now());
    let events = work()?;
    Ok(meter.stop(Outcome { events, seconds: start.elapsed().as_secs_f64(), ..Outcome::default() }))
}

fn store_of(spec: &Spec) -> Result<&Path> {
    spec.store.as_deref().ok_or_else(|| "the case needs a store".into())
}

/// `verify_event_set_parity`, which verifies the chain too.
pub fn parity(spec: &Spec) -> Result<Outcome> {
    let dir = store_of(spec)?;
    let pool = cortex_store::open(dir)?;
    measured(|| {
        let report = verify_event_set_parity(&pool, dir.join("events.jsonl"))?;
        if report.is_consistent() { Ok(report.jsonl_event_count as u64) } else { Err(format!("{report:?}").into()) }
    })
}

/// `replay_jsonl_into_sqlite` into a fresh database, which ends with parity.
pub fn replay(spec: &Spec) -> Result<Outcome> {
    let mut pool = cortex_store::open(&spec.dir)?;
    measured(|| {
        let report = replay_jsonl_into_sqlite(&mut pool, store_of(spec)?.join("events.jsonl"))?;
        if report.parity.is_consistent() { Ok(report.replayed as u64) } else { Err(format!("{report:?}").into()) }
    })
}

/// Opens both legs.
pub fn open(spec: &Spec) -> Result<Outcome> {
    let (dir, mut times) = (store_of(spec)?, Vec::new());
    let mut outcome = measured(|| {
        for _ in 0..OPENS {
            let start = Instant::now();
            let _log = JsonlLog::open(dir.join("events.jsonl"))?;
            let _pool = cortex_store::open(dir)?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(OPENS as u64)
    })?;
    times.sort_by(f64::total_cmp);
    outcome.more.insert("store_ms".to_owned(), times[OPENS / 2] * 1e3);
    Ok(outcome)
}
