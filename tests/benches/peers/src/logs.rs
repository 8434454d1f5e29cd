//! Logs: okaywal, logdb, batpak.

use std::time::Duration;

use batpak::id::IdempotencyKey;
use batpak::prelude::{Coordinate, EventKind};
use batpak::store::{AppendOptions, BatchAppendItem, CausationRef, DurabilityGate, Store, StoreConfig, SyncMode, WatermarkKind};
use bench_load::{Outcome, Payloads, Result, Spec, session, threads};

/// okaywal: `commit` returns when the entry is synced; commits that meet share a sync. Checkpoints recycle its files,
/// so nothing is kept: what it is made for.
pub fn okaywal(spec: &Spec) -> Result<Outcome> {
    let log = okaywal::WriteAheadLog::recover(&spec.dir, okaywal::LogVoid)?;
    let (log, payloads) = (&log, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, spec.in_flight, 1, |_| {
        let mut payload = String::new();
        move |n| {
            payload.clear();
            payloads.push(n, &mut payload);
            let mut entry = log.begin_entry()?;
            entry.write_chunk(payload.as_bytes())?;
            entry.commit()?;
            Ok(())
        }
    })
}

/// logdb: `append`, then `flush`, which waits until the record is durable. Syncs as soon as there is something to sync:
/// its other modes wait longer.
pub fn logdb(spec: &Spec) -> Result<Outcome> {
    let config = logdb::Config { data_dir: spec.dir.clone(), durability_mode: logdb::DurabilityMode::Sync, ..logdb::Config::default() };
    let db = logdb::LogDb::open(config)?;
    let (db, payloads) = (&db, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, spec.in_flight, 1, |_| {
        let mut payload = String::new();
        move |n| {
            payload.clear();
            payloads.push(n, &mut payload);
            db.append(payload.as_bytes())?;
            Ok(db.flush()?)
        }
    })
}

/// Longer than anything takes here.
const GATE: DurabilityGate = DurabilityGate::new(WatermarkKind::Durable, Duration::from_secs(60));
const KIND: EventKind = EventKind::custom(0xF, 1);

fn config(spec: &Spec) -> StoreConfig {
    StoreConfig::new(&spec.dir).with_sync_every_n_events(1).with_sync_mode(SyncMode::SyncData)
}

fn coordinate(caller: u64) -> Result<Coordinate> {
    Ok(Coordinate::new(format!("session:{}", session(caller)), "bench:agents")?)
}

/// batpak: each append behind a durable gate, one sync an event, or (`+group`) with its group commit.
pub fn batpak(spec: &Spec, group: bool) -> Result<Outcome> {
    let config = if group { config(spec).with_group_commit_max_batch(256) } else { config(spec) };
    let store = Store::open(config)?;
    let (store, payloads) = (&store, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, spec.in_flight, 1, |caller| {
        let coordinate = coordinate(caller as u64).map_err(|error| error.to_string());
        move |n| {
            let coordinate = coordinate.as_ref().map_err(String::as_str)?;
            let mut options = AppendOptions::new().with_gate(GATE);
            if group {
                // Group commit demands a key.
                options = options.with_idempotency(IdempotencyKey::from(n as u128 + 1));
            }
            store.append_with_options(coordinate, KIND, &payloads.get(n), options).map(drop)?;
            Ok(())
        }
    })
}

/// batpak's batch call: one caller, K events a call.
pub fn batpak_batch(spec: &Spec) -> Result<Outcome> {
    let each = spec.in_flight as u64;
    let store = Store::open(config(spec).with_batch_max_size(4096).with_batch_max_bytes(8 << 20))?;
    let (store, payloads) = (&store, Payloads::new(spec.payload));
    let payloads = &payloads;
    threads(spec, 1, each, |_| {
        let coordinates = (0..bench_load::SESSIONS).map(coordinate).collect::<Result<Vec<_>>>().map_err(|error| error.to_string());
        move |n| {
            let coordinates = coordinates.as_ref().map_err(String::as_str)?;
            let item = |n: u64| -> Result<BatchAppendItem> {
                let coordinate = coordinates[(n % bench_load::SESSIONS) as usize].clone();
                Ok(BatchAppendItem::new(coordinate, KIND, &payloads.get(n), AppendOptions::default(), CausationRef::None)?)
            };
            let items = (n..n + each).map(item).collect::<Result<Vec<_>>>()?;
            store.append_batch_with_options(items, AppendOptions::new().with_gate(GATE))?;
            Ok(())
        }
    })
}
