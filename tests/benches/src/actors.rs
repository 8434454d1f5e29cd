//! Through the actors: what an embedding runtime gets from its handle. K tasks, each waiting for its own append.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench_load::{Error, Meter, Outcome, Pacer, Payloads, Result, Spec};
use counterfoil::actors::{Durability, Ledger};
use counterfoil::rusqlite::{Connection, OpenFlags};
use counterfoil::{Expect, Seq, mirror_path};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::core::{check_head, draft};
use crate::entity::own_stream;
use crate::settings::{Settings, settings};

/// As `#[tokio::main]` has it: as many workers as processors.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Appends through the handle, acknowledged by the ledger or (`+mirrored`) by both legs.
pub fn run(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let durability = if has("mirrored") { Durability::Mirrored } else { Durability::Ledger };
    let (ledger_only, own) = (has("ledger-only"), has("own"));
    let Settings { ledger: options, syncs } = settings(has);
    let runtime = runtime()?;
    let store = options.store.clone();
    let ledger = runtime.block_on(Ledger::open_with(&spec.dir, options))?;
    let held = if ledger_only { Some(Held::mirror(spec)?) } else { None };
    let syncs_before = syncs.load(Ordering::Relaxed);
    let (payloads, pacer) = (Payloads::new(spec.payload), Pacer::new(spec, READY));
    let load = Load { ledger: ledger.clone(), payloads, durability, own, pacer };
    let load = Arc::new(load);
    let meter = match spec.rate {
        None => runtime.block_on(closed(&load, spec.in_flight)),
        Some(_) => open(&load, &runtime),
    }?;
    let mut outcome = load.pacer.outcome();
    outcome.ledger_syncs = Some(syncs.load(Ordering::Relaxed) - syncs_before);
    if !ledger_only {
        let last = ledger.status().durable.seq;
        runtime.block_on(ledger.mirrored(last))?;
        outcome.drained_seconds = Some(load.pacer.start().elapsed().as_secs_f64());
    }
    let outcome = meter.stop(outcome);
    drop(held);
    if ledger_only {
        // Its mirror is far behind; nothing is lost where it is not waited for.
        check_head(spec, &store, &outcome)?;
        std::mem::forget(runtime);
        return Ok(outcome);
    }
    let report = runtime.block_on(ledger.close())?;
    if report.head.seq.get() < outcome.events || report.mirrored_through < Seq::new(outcome.events) {
        return Err(format!("{} events were acknowledged, but {report:?}", outcome.events).into());
    }
    check_head(spec, &store, &outcome)?;
    Ok(outcome)
}

/// Tasks start faster than threads.
const READY: Duration = Duration::from_millis(50);

pub struct Load {
    pub ledger: Ledger,
    pub payloads: Payloads,
    pub durability: Durability,
    /// Each caller appends to a stream of its own.
    pub own: bool,
    pub pacer: Pacer,
}

impl Load {
    async fn append(&self, caller: u64, n: u64, from: Instant) -> Result<()> {
        let draft = draft(&self.payloads, n, caller)?;
        let draft = if self.own { draft.session(own_stream(caller)) } else { draft };
        self.ledger.append_with(draft, Expect::Any, self.durability).await?;
        self.pacer.done(caller as usize, from, 1);
        Ok(())
    }
}

/// K callers, each sends when it is answered.
pub async fn closed(load: &Arc<Load>, callers: usize) -> Result<Meter> {
    let mut tasks = JoinSet::new();
    for caller in 0..callers as u64 {
        let load = load.clone();
        tasks.spawn(async move {
            tokio::time::sleep_until(load.pacer.start().into()).await;
            while let Some((n, from)) = load.pacer.next(1) {
                load.append(caller, n, from).await?;
            }
            Ok::<_, Error>(())
        });
    }
    tokio::time::sleep_until(load.pacer.start().into()).await;
    let meter = Meter::start();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(meter)
}

/// A task for each arrival. A thread of its own keeps the time: tokio's timer counts in milliseconds.
fn open(load: &Arc<Load>, runtime: &Runtime) -> Result<Meter> {
    load.pacer.wait_for_start();
    let meter = Meter::start();
    let mut tasks = JoinSet::new();
    while let Some((n, due)) = load.pacer.next(1) {
        let load = load.clone();
        tasks.spawn_on(async move { load.append(n, n, due).await }, runtime.handle());
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    runtime.block_on(async {
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok::<_, Error>(meter)
    })
}

/// Keeps the mirror from being written, by holding its lock: what is measured then is the ledger alone. A stand-in
/// until there is an option for that.
struct Held(#[allow(dead_code)] Connection);

impl Held {
    fn mirror(spec: &Spec) -> Result<Held> {
        let connection = Connection::open_with_flags(mirror_path(&spec.dir), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Held(connection))
    }
}
