//! A case and what came of it. Both travel as JSON between the driver and the process that runs the case.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A case: one process runs one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Which system in which setting, as `actors` or `actors+preallocate`.
    pub system: String,
    /// Where its files go. Nothing else is there.
    pub dir: PathBuf,
    /// Callers that each wait for their append; for systems with one caller, lines or rows that share a sync.
    #[serde(default = "one")]
    pub in_flight: usize,
    /// Bytes of a payload.
    #[serde(default = "small")]
    pub payload: usize,
    /// How long appends are sent.
    #[serde(default = "second")]
    pub seconds: f64,
    /// Appends that are sent at most.
    #[serde(default = "no_bound")]
    pub events_max: u64,
    /// Arrivals a second, whatever the system manages (open loop); else each caller sends when it is answered.
    #[serde(default)]
    pub rate: Option<f64>,
    /// A store that was made before, for the cases that read one.
    #[serde(default)]
    pub store: Option<PathBuf>,
}

fn one() -> usize {
    1
}

fn small() -> usize {
    395
}

fn second() -> f64 {
    1.0
}

fn no_bound() -> u64 {
    u64::MAX
}

impl Spec {
    /// The system without its settings, and whether a setting is among them.
    pub fn system(&self) -> (&str, impl Fn(&str) -> bool) {
        let mut parts = self.system.split('+');
        let system = parts.next().unwrap_or_default();
        let settings: Vec<&str> = parts.collect();
        (system, move |setting: &str| settings.contains(&setting))
    }
}

/// What came of a case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Events that were acknowledged, or read.
    pub events: u64,
    /// From the first event's start to the last one's acknowledgement.
    pub seconds: f64,
    /// The same, until the mirror had all of them too.
    pub drained_seconds: Option<f64>,
    /// Latencies in microseconds: of an append, or of a group where one caller writes groups. In an open loop from the
    /// moment that the append was to arrive.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Calls that make the ledger's bytes durable, counted by the system's own disk, where it has such a seam.
    pub ledger_syncs: Option<u64>,
    /// CPU time of the process (and the kernel on its behalf) in microseconds, the drain counted.
    pub cpu_us: f64,
    /// The most memory that the process ever had.
    pub peak_kib: u64,
    /// Whatever else the case tells, by name.
    pub more: BTreeMap<String, f64>,
    /// Why nothing was measured.
    pub skipped: Option<String>,
}

impl Outcome {
    /// Nothing was measured.
    pub fn skipped(why: impl Into<String>) -> Outcome {
        Outcome { skipped: Some(why.into()), ..Outcome::default() }
    }

    /// Acknowledged events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// Events a second until both legs had them.
    pub fn sustained(&self) -> f64 {
        self.events as f64 / self.drained_seconds.unwrap_or(self.seconds)
    }
}
