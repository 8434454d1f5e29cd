//! What is done with one stream of a store of many: opening its entity, reading a page in its middle, a page backwards from its end;
//! and the list of the store's sessions.
//!
//! Each is done several times by a process of its own, each time through what was opened for that, and timed one by one; what the
//! process's memory grows by meanwhile is measured too. Files are in the page cache.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bench_load::{Error, Meter, Outcome, Payloads, Result, Spec, forget_peak, peak_kib, session};
use counterfoil::actors::entity::EntityOptions;
use counterfoil::actors::{Durability, Ledger};
use counterfoil::entity::{Codec, Folded, Snapshot, Snapshots};
use counterfoil::{
    Expect, LedgerReader, Options, Seq, SessionIndex, SessionsOrder, SessionsPage, SessionsQuery, StreamPage, StreamQuery, StreamReader,
};
use tokio::task::JoinSet;

use crate::actors::runtime;
use crate::core::draft;
use crate::entity::own_stream;
use crate::settings::settings;
use crate::tools::Tools;

/// How often each is done; median and worst count.
const TIMES: usize = 15;
/// How often the list of sessions is made from nothing.
const FIRST_TIMES: usize = 3;
/// Events of a page, as they are where nobody says anything.
const PAGE: u64 = 256;
/// Events of the streams beside the long one.
const EVENTS_EACH: u64 = 1000;
/// How many of those streams go on at a time.
const AT_A_TIME: u64 = 64;
/// Streams of one event at the end of each store, so that there is more than a page of sessions in the smallest too.
const SINGLE: u64 = 64;
/// The first of them, beyond all others.
const SINGLES: u64 = 0xff00;
/// How far the snapshot is behind the stream's end: half of what there is between two.
const BEHIND: u64 = 128;

/// Events of the long stream of a store with so many: 10,000, and 200 where the store is of a quick run.
pub fn long_stream(events: u64) -> u64 {
    if events < 10_000 { 200 } else { 10_000 }
}

fn long() -> String {
    session(0)
}

/// Which event is of which stream.
#[derive(Clone, Copy)]
struct Layout {
    events: u64,
    long: u64,
    together: bool,
}

impl Layout {
    fn stream(&self, n: u64) -> String {
        if n >= self.events {
            return own_stream(SINGLES + n - self.events);
        }
        let (every, first) = (self.events / self.long, (self.events - self.long) / 2);
        // How many events of others come before it, where it is of another one.
        let others = match self.together {
            true if n < first => n,
            true if n < first + self.long => return long(),
            true => n - self.long,
            false if n.is_multiple_of(every) => return long(),
            false => n - n / every - 1,
        };
        own_stream(others / (EVENTS_EACH * AT_A_TIME) * AT_A_TIME + others % AT_A_TIME)
    }
}

/// Makes a store of `events_max` events: one long stream, whose events are spread evenly over the whole store, so that each row of it
/// stands among those of others, or (`+together`) in its middle, one behind the other; and streams of 1,000 events, 64 of them at a
/// time; behind them 64 of one event. And a snapshot of the long one's entity, and the list of sessions.
pub fn make(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let (options, runtime, events) = (settings(|_| false).ledger, runtime()?, spec.events_max);
    let layout = Layout { events, long: long_stream(events), together: has("together") };
    let store = options.store.clone();
    let start = Instant::now();
    runtime.block_on(async {
        let ledger = Ledger::open_with(&spec.dir, options).await?;
        let payloads = Arc::new(Payloads::new(spec.payload));
        let mut tasks = JoinSet::new();
        for first in 0..spec.in_flight as u64 {
            let (ledger, payloads, step) = (ledger.clone(), payloads.clone(), spec.in_flight);
            tasks.spawn(async move {
                for n in (first..events).step_by(step) {
                    let draft = draft(&payloads, n, 0)?.session(layout.stream(n));
                    ledger.append_with(draft, Expect::Any, Durability::Ledger).await?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        for n in events..events + SINGLE {
            ledger.append(draft(&payloads, n, 0)?.session(layout.stream(n))).await?;
        }
        ledger.mirrored(ledger.status().durable.seq).await?;
        ledger.close().await?;
        Ok::<_, Error>(())
    })?;
    keep_snapshot(&spec.dir, &store, long_stream(events).saturating_sub(BEHIND))?;
    listed(&SessionIndex::open(&spec.dir, &store)?.page(&SessionsQuery::new())?, events)?;
    Ok(Outcome { events, seconds: start.elapsed().as_secs_f64(), ..Outcome::default() })
}

/// Keeps a snapshot of the long stream's entity at a position.
fn keep_snapshot(dir: &Path, options: &Options, at: u64) -> Result<()> {
    let ledger_id = LedgerReader::open(dir, options)?.manifest().ledger_id;
    let mut snapshots = Snapshots::open(dir, ledger_id, options.mirror_busy_timeout)?;
    let (mut reader, codec, mut folded) = (StreamReader::open(dir, options)?, Codec::new(&Tools)?, Folded::default());
    for event in reader.events(StreamQuery::new(long()), Seq::MAX).take(at as usize) {
        let event = event?;
        folded.absorb(&Tools, &codec, &event, event.payload.as_deref().map(|payload| payload.get()))?;
    }
    if folded.position != at {
        return Err(format!("the long stream ends at {}", folded.position).into());
    }
    snapshots.save(&Snapshot {
        entity: "tools".to_owned(),
        type_name: std::any::type_name::<Tools>().to_owned(),
        state_version: 1,
        session_id: long(),
        session_seq: folded.position,
        seq: folded.seq,
        event_hash: folded.event_hash,
        state: serde_json::to_string(&folded.state)?,
    })?;
    Ok(())
}

/// Does something so many times. What is timed it says itself, in seconds.
fn several(times: usize, mut once: impl FnMut() -> Result<f64>) -> Result<Outcome> {
    let (resident, meter) = (forget_peak(), Meter::start());
    let mut took = (0..times).map(|_| once()).collect::<Result<Vec<_>>>()?;
    let mut outcome = meter.stop(Outcome { events: times as u64, seconds: took.iter().sum(), ..Outcome::default() });
    outcome.more.insert("grown_kib".to_owned(), peak_kib().saturating_sub(resident) as f64);
    took.sort_by(f64::total_cmp);
    (outcome.p50, outcome.max) = (took[times / 2] * 1e6, took[times - 1] * 1e6);
    Ok(outcome)
}

fn store_of(spec: &Spec) -> Result<&Path> {
    spec.store.as_deref().ok_or_else(|| "the case needs a store".into())
}

/// Opens the long stream's entity, by its snapshot or (`+folded`) without one; each time by a registry that has nothing open yet, on
/// a store that is open.
pub fn open(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let (dir, runtime, events) = (store_of(spec)?, runtime()?, long_stream(spec.events_max));
    let mut options = EntityOptions::default();
    if has("folded") {
        options.snapshot_every = 0;
    }
    let ledger = runtime.block_on(Ledger::open_with(dir, settings(has).ledger))?;
    let outcome = several(TIMES, || {
        let start = Instant::now();
        let entities = runtime.block_on(ledger.entities(Tools, options.clone()))?;
        let known = runtime.block_on(entities.read(long(), |known| known.clone()))?;
        let seconds = start.elapsed().as_secs_f64();
        runtime.block_on(entities.close());
        if known.calls == events { Ok(seconds) } else { Err(format!("{} events were folded", known.calls).into()) }
    })?;
    runtime.block_on(ledger.close())?;
    Ok(outcome)
}

/// A page from the middle of the long stream on.
pub fn middle(spec: &Spec) -> Result<Outcome> {
    let from = long_stream(spec.events_max) / 2;
    page(spec, &StreamQuery::new(long()).from(from), |page| page.events.first().and_then(|event| event.session_seq) == Some(from))
}

/// A page from the long stream's end backwards.
pub fn backwards(spec: &Spec) -> Result<Outcome> {
    let last = long_stream(spec.events_max);
    let is_right = |page: &StreamPage| page.events.first().and_then(|event| event.session_seq) == Some(last) && page.last == last;
    page(spec, &StreamQuery::new(long()).backwards(), is_right)
}

/// A page of the list of sessions, those with the latest events, by a list that is there; one that was just opened, and one that was
/// kept open.
pub fn sessions(spec: &Spec) -> Result<Outcome> {
    let (dir, options) = (store_of(spec)?, Options::default());
    let timed = |index: Option<&mut SessionIndex>| -> Result<f64> {
        let (query, start) = (SessionsQuery::new().order(SessionsOrder::Last), Instant::now());
        let page = match index {
            Some(index) => index.page(&query)?,
            None => SessionIndex::open(dir, &options)?.page(&query)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        listed(&page, spec.events_max)?;
        Ok(seconds)
    };
    let mut outcome = several(TIMES, || timed(None))?;
    let mut index = SessionIndex::open(dir, &options)?;
    index.page(&SessionsQuery::new())?;
    let kept = several(TIMES, || timed(Some(&mut index)))?;
    outcome.more.extend([("kept_p50".to_owned(), kept.p50), ("kept_max".to_owned(), kept.max)]);
    Ok(outcome)
}

/// The first page of the list where there is no list yet: all of the mirror is read for it.
pub fn first_list(spec: &Spec) -> Result<Outcome> {
    let (dir, options) = (store_of(spec)?, Options::default());
    let outcome = several(FIRST_TIMES, || {
        for file in ["sessions.sqlite3", "sessions.sqlite3-wal", "sessions.sqlite3-shm"] {
            match std::fs::remove_file(dir.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let start = Instant::now();
        let page = SessionIndex::open(dir, &options)?.page(&SessionsQuery::new())?;
        let seconds = start.elapsed().as_secs_f64();
        listed(&page, spec.events_max)?;
        Ok(seconds)
    })?;
    Ok(Outcome { events: spec.events_max * FIRST_TIMES as u64, ..outcome })
}

fn listed(page: &SessionsPage, events: u64) -> Result<()> {
    // By default a page has 50.
    if page.as_of.get() == events + SINGLE && page.sessions.len() == 50 && page.sessions.iter().all(|session| session.events == 1) {
        return Ok(());
    }
    Err(format!("{} sessions as of {}", page.sessions.len(), page.as_of).into())
}

/// A page by a reader that was just opened; and once more by one that was kept open.
fn page(spec: &Spec, query: &StreamQuery, is_right: impl Fn(&StreamPage) -> bool) -> Result<Outcome> {
    let (dir, options) = (store_of(spec)?, Options::default());
    let wanted = PAGE.min(long_stream(spec.events_max) / 2 + 1);
    let timed = |reader: Option<&mut StreamReader>| -> Result<f64> {
        let start = Instant::now();
        let page = match reader {
            Some(reader) => reader.page(query, Seq::MAX)?,
            None => StreamReader::open(dir, &options)?.page(query, Seq::MAX)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        if (page.events.len() as u64) < wanted || !is_right(&page) {
            return Err(format!("a page of {} events, of which the last is {}", page.events.len(), page.last).into());
        }
        Ok(seconds)
    };
    let mut outcome = several(TIMES, || timed(None))?;
    let mut reader = StreamReader::open(dir, &options)?;
    reader.page(query, Seq::MAX)?;
    let kept = several(TIMES, || timed(Some(&mut reader)))?;
    outcome.more.extend([("kept_p50".to_owned(), kept.p50), ("kept_max".to_owned(), kept.max)]);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_stream_is_long_and_the_others_are_not() {
        for (events, together) in [(200, false), (200, true), (3200, false), (10_000, true), (200_000, false), (200_000, true)] {
            let layout = Layout { events, long: long_stream(events), together };
            let mut streams = BTreeMap::<String, u64>::new();
            for n in 0..events + SINGLE {
                *streams.entry(layout.stream(n)).or_default() += 1;
            }
            assert_eq!(streams.remove(&long()), Some(layout.long));
            assert!(streams.values().all(|events| *events <= EVENTS_EACH));
            assert_eq!(streams.values().sum::<u64>(), events - layout.long + SINGLE);
            assert!(streams.values().filter(|events| **events == 1).count() as u64 >= SINGLE);
        }
    }
}
