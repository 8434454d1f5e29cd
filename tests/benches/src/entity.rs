//! Commands to entities: N entities, each with one command under way, from as many tasks; and commands with keys on a stream that
//! has had many.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench_load::{Error, Meter, Outcome, Pacer, Payloads, Result, Spec};
use counterfoil::actors::entity::{Entities, EntityOptions};
use counterfoil::actors::{Durability, Ledger};
use counterfoil::entity::Codec;
use counterfoil::{Expect, LedgerReader};
use tokio::task::JoinSet;

use crate::actors::{self, runtime};
use crate::settings::{Settings, settings};
use crate::tools::{Happened, Tools, command};

/// Tasks that are started first, then counted.
const READY: Duration = Duration::from_millis(50);
/// Appends in flight while keys are written that are to be old.
const WRITING: usize = 256;
/// Events of an entity that is looked at.
const READ: u64 = 10;
/// Between two looks.
const BETWEEN: Duration = Duration::from_millis(1);
/// How often an old key is sent again.
const AGAIN: u64 = 2000;
/// The stream that has had many keys.
const OLD: &str = "019c8a4c-ed82-79a1-aa28-7738fc5c0000";

/// The stream of a caller's own.
pub fn own_stream(caller: u64) -> String {
    format!("019c8a4c-ed82-79a1-aa28-7738fc5b{caller:04x}")
}

/// What callers share.
struct Load {
    entities: Entities<Tools>,
    payloads: Payloads,
    pacer: Pacer,
    keyed: bool,
}

impl Load {
    async fn command(&self, caller: usize, stream: &str, n: u64, from: Instant) -> Result<()> {
        let command = command(&self.payloads, n)?;
        let outcome = if self.keyed {
            self.entities.send_keyed(stream, format!("call-{n}"), command).await?
        } else {
            self.entities.send(stream, command).await?
        };
        if outcome.duplicate || outcome.events.len() != 1 {
            return Err(format!(
                "command {n} was answered with {} events, and as a duplicate: {}",
                outcome.events.len(),
                outcome.duplicate
            )
            .into());
        }
        self.pacer.done(caller, from, 1);
        Ok(())
    }
}

/// As many entities as there are callers.
pub fn run(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let keyed = has("keyed");
    let Settings { ledger: options, syncs } = settings(has);
    let (runtime, store) = (runtime()?, options.store.clone());
    let ledger = runtime.block_on(Ledger::open_with(&spec.dir, options))?;
    let entities = runtime.block_on(ledger.entities(Tools, EntityOptions::default()))?;
    let streams: Vec<String> = (0..spec.in_flight as u64).map(own_stream).collect();
    runtime.block_on(async {
        for stream in &streams {
            entities.position(stream).await?;
        }
        Ok::<_, Error>(())
    })?;
    let syncs_before = syncs.load(Ordering::Relaxed);
    let load = Arc::new(Load { entities, payloads: Payloads::new(spec.payload), pacer: Pacer::new(spec, READY), keyed });
    let meter = runtime.block_on(closed(&load, &streams))?;
    let mut outcome = load.pacer.outcome();
    outcome.ledger_syncs = Some(syncs.load(Ordering::Relaxed) - syncs_before);
    runtime.block_on(ledger.mirrored(ledger.status().durable.seq))?;
    outcome.drained_seconds = Some(load.pacer.start().elapsed().as_secs_f64());
    let outcome = meter.stop(outcome);
    let Some(Load { entities, .. }) = Arc::into_inner(load) else { return Err("a caller is left".into()) };
    let folded = runtime.block_on(async {
        let mut folded = 0;
        for stream in &streams {
            folded += entities.read(stream, |known| known.calls).await?;
        }
        entities.close().await;
        ledger.close().await?;
        Ok::<_, Error>(folded)
    })?;
    let head = LedgerReader::open(&spec.dir, &store)?.head()?.seq.get();
    if (folded, head) != (outcome.events, outcome.events) {
        return Err(format!("{} commands were answered, {folded} are in the states, {head} in the ledger", outcome.events).into());
    }
    Ok(outcome)
}

/// A task for each stream, which sends when it is answered.
async fn closed(load: &Arc<Load>, streams: &[String]) -> Result<Meter> {
    let mut tasks = JoinSet::new();
    for (caller, stream) in streams.iter().cloned().enumerate() {
        let load = load.clone();
        tasks.spawn(async move {
            tokio::time::sleep_until(load.pacer.start().into()).await;
            while let Some((n, from)) = load.pacer.next(1) {
                load.command(caller, &stream, n, from).await?;
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

/// Looks at an entity's state while as many plain appends are in flight to other streams: a look a millisecond, so that by each the
/// ledger has moved on since the last.
pub fn reads(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let (runtime, options) = (runtime()?, settings(has).ledger);
    let spec = spec.clone();
    // On a worker, as a runtime's own tasks are: from another thread each answer would have further to go.
    let running = runtime.spawn(async move {
        let ledger = Ledger::open_with(&spec.dir, options).await?;
        let (payloads, durability) = (Payloads::new(spec.payload), Durability::Ledger);
        let entities = ledger.entities(Tools, EntityOptions::default()).await?;
        for n in 0..READ {
            entities.send(OLD, command(&payloads, n)?).await?;
        }
        let (pacer, reads) = (Pacer::new(&spec, READY), Pacer::new(&spec, READY));
        let beside = Arc::new(actors::Load { ledger: ledger.clone(), payloads, durability, own: false, pacer });
        let (appending, meter) = (beside.clone(), Meter::start());
        let callers = spec.in_flight;
        let appends = tokio::spawn(async move { actors::closed(&appending, callers).await.map(drop) });
        tokio::time::sleep_until(reads.start().into()).await;
        while reads.next(1).is_some() {
            tokio::time::sleep(BETWEEN).await;
            let from = Instant::now();
            let calls = entities.read(OLD, |known| known.calls).await?;
            if calls != READ {
                return Err(format!("{calls} of {READ} calls are in the state").into());
            }
            reads.done(0, from, 1);
        }
        appends.await??;
        let mut outcome = meter.stop(reads.outcome());
        outcome.more.insert("appends_a_second".to_owned(), beside.pacer.outcome().rate());
        entities.close().await;
        ledger.close().await?;
        Ok(outcome)
    });
    runtime.block_on(running)?
}

/// Commands with new keys, then old keys again, on a stream that has had `events_max` commands with keys.
pub fn keys(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let (runtime, options) = (runtime()?, settings(has).ledger);
    let spec = spec.clone();
    // On a worker, as a runtime's own tasks are: from another thread each answer would have further to go.
    let running = runtime.spawn(async move {
        let ledger = Ledger::open_with(&spec.dir, options).await?;
        let payloads = Payloads::new(spec.payload);
        write_keys(&ledger, &payloads, spec.events_max).await?;
        let entities = ledger.entities(Tools, EntityOptions::default()).await?;
        if entities.position(OLD).await? != spec.events_max {
            return Err("not all that was written is in the stream".into());
        }
        let pacer = Pacer::new(&Spec { events_max: u64::MAX, ..spec.clone() }, Duration::ZERO);
        let load = Load { entities, payloads, pacer, keyed: true };
        let meter = Meter::start();
        while let Some((n, from)) = load.pacer.next(1) {
            load.command(0, OLD, spec.events_max + n, from).await?;
        }
        let mut outcome = meter.stop(load.pacer.outcome());
        let mut again = Vec::new();
        for n in 0..AGAIN.min(spec.events_max) {
            // All over the stream, in no order.
            let n = n.wrapping_mul(0x9e37_79b9) % spec.events_max;
            let (command, start) = (command(&load.payloads, n)?, Instant::now());
            let answer = load.entities.send_keyed(OLD, format!("call-{n}"), command).await?;
            again.push(start.elapsed().as_secs_f64() * 1e6);
            if !answer.duplicate || answer.events.len() != 1 {
                return Err(format!("key {n} was taken for a new one").into());
            }
        }
        again.sort_by(f64::total_cmp);
        for (name, at) in [("again_p50", again.len() / 2), ("again_max", again.len() - 1)] {
            outcome.more.insert(name.to_owned(), again[at]);
        }
        load.entities.close().await;
        ledger.close().await?;
        Ok(outcome)
    });
    runtime.block_on(running)?
}

/// Writes what commands with these keys would have caused, without an entity, many at once; until the mirror has them.
async fn write_keys(ledger: &Ledger, payloads: &Payloads, keys: u64) -> Result<()> {
    let codec = Arc::new(Codec::new(&Tools)?);
    let mut tasks = JoinSet::new();
    for first in 0..WRITING as u64 {
        let (ledger, payloads, codec) = (ledger.clone(), payloads.clone(), codec.clone());
        tasks.spawn(async move {
            for n in (first..keys).step_by(WRITING) {
                let event = Happened::Printed(command(&payloads, n)?);
                let draft = codec.draft(&Tools, OLD, Some(&format!("call-{n}")), true, &event)?;
                ledger.append_with(draft, Expect::Any, Durability::Ledger).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(ledger.mirrored(ledger.status().durable.seq).await?)
}
