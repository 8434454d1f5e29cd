//! When the next append is due, and how long it took.
//!
//! Closed loop: a caller sends as soon as it was answered. Open loop: appends arrive at a fixed rate whatever the
//! system manages, and a latency counts from the moment that the append was to arrive: a system that stalls can't hide
//! behind callers that wait for it (coordinated omission).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::{Outcome, Spec};

/// Recorders, so that callers rarely meet at one.
const SHARDS: usize = 16;
/// How much later than planned an open loop may end before the rest is given up.
const LATE_MAX: f64 = 2.0;

/// Paces one case. Shared by its callers.
pub struct Pacer {
    start: Instant,
    end: Instant,
    give_up: Instant,
    events_max: u64,
    rate: Option<f64>,
    tickets: AtomicU64,
    done: AtomicU64,
    /// Of the last acknowledgement, from the start.
    last_ns: AtomicU64,
    latencies: Vec<Mutex<Histogram<u64>>>,
}

impl Pacer {
    /// A pacer whose time begins after `delay`, when all callers stand ready.
    pub fn new(spec: &Spec, delay: Duration) -> Pacer {
        let start = Instant::now() + delay;
        Pacer {
            start,
            end: start + Duration::from_secs_f64(spec.seconds),
            give_up: start + Duration::from_secs_f64(spec.seconds * LATE_MAX),
            events_max: spec.events_max,
            rate: spec.rate,
            tickets: AtomicU64::new(0),
            done: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            latencies: (0..SHARDS).map(|_| Mutex::new(histogram())).collect(),
        }
    }

    /// When it starts.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Sleeps until it starts.
    pub fn wait_for_start(&self) {
        sleep_until(self.start);
    }

    /// Takes `events` events; answers their number and the moment that their latency counts from, or nothing when it is
    /// time to end. In an open loop it sleeps until they are due.
    pub fn next(&self, events: u64) -> Option<(u64, Instant)> {
        let now = Instant::now();
        let over = if self.rate.is_some() { self.give_up } else { self.end };
        if now >= over {
            return None;
        }
        let n = self.tickets.fetch_add(events, Ordering::Relaxed);
        if n >= self.events_max {
            return None;
        }
        let Some(rate) = self.rate else {
            return Some((n, now));
        };
        let due = self.start + Duration::from_secs_f64(n as f64 / rate);
        if due >= self.end {
            return None;
        }
        sleep_until(due);
        Some((n, due))
    }

    /// Records that events which counted from `from` are acknowledged.
    pub fn done(&self, caller: usize, from: Instant, events: u64) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(from).as_nanos() as u64;
        self.done.fetch_add(events, Ordering::Relaxed);
        self.last_ns.fetch_max(now.saturating_duration_since(self.start).as_nanos() as u64, Ordering::Relaxed);
        if let Ok(mut latencies) = self.latencies[caller % SHARDS].lock() {
            latencies.saturating_record_n(latency, events);
        }
    }

    /// Events that are acknowledged.
    pub fn events(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What came of it, but for what only the case knows.
    pub fn outcome(&self) -> Outcome {
        let mut all = histogram();
        for latencies in &self.latencies {
            if let Ok(latencies) = latencies.lock() {
                let _ = all.add(&*latencies);
            }
        }
        let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
        let mut outcome = Outcome {
            events: self.events(),
            seconds: self.last_ns.load(Ordering::Relaxed) as f64 / 1e9,
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
            max: all.max() as f64 / 1e3,
            ..Outcome::default()
        };
        if let Some(rate) = self.rate {
            let planned = rate * (self.end - self.start).as_secs_f64();
            outcome.more.insert("unsent".to_owned(), (planned - outcome.events as f64).max(0.0).floor());
        }
        outcome
    }
}

/// From 100 ns to a minute, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("these bounds are right")
}

fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(rate: Option<f64>, events_max: u64) -> Spec {
        Spec { system: String::new(), dir: ".".into(), in_flight: 1, payload: 100, seconds: 0.2, events_max, rate, store: None }
    }

    #[test]
    fn an_open_loop_counts_from_the_moment_that_the_append_was_due() {
        let pacer = Pacer::new(&spec(Some(100.0), u64::MAX), Duration::ZERO);
        let mut last = 0.0;
        let mut events = 0;
        while let Some((n, due)) = pacer.next(1) {
            if n == 0 {
                // One stall of 50 ms: those that came due meanwhile waited too.
                std::thread::sleep(Duration::from_millis(50));
            }
            pacer.done(0, due, 1);
            last = due.duration_since(pacer.start()).as_secs_f64();
            events += 1;
        }
        assert_eq!(events, 20);
        assert!((last - 0.19).abs() < 1e-6);
        let outcome = pacer.outcome();
        assert_eq!(outcome.more["unsent"], 0.0);
        assert!(outcome.max >= 50_000.0, "{outcome:?}");
        let waited = pacer.latencies[0].lock().unwrap().count_between(10_000_000, 60_000_000_000);
        assert!(waited >= 4, "the stall was seen by {waited} appends");
    }

    #[test]
    fn events_are_bounded() {
        let pacer = Pacer::new(&spec(None, 10), Duration::ZERO);
        let mut events = 0;
        while let Some((_, from)) = pacer.next(1) {
            pacer.done(events, from, 1);
            events += 1;
        }
        assert_eq!((events, pacer.outcome().events), (10, 10));
    }
}
