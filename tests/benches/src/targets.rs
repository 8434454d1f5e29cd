//! What must be reached (issue 5), as ratios of cases of one round.

use bench_load::Outcome;

use crate::plan::{IMPORT_BESIDE, LARGE, PER_APPEND, SMALL};
use crate::results::{Results, Spread, append_key};

/// A row of the table of what must be reached.
pub struct Row {
    pub name: String,
    pub target: String,
    pub measured: Option<Spread>,
    /// Whether the median is within the target; nothing where it was not measured.
    pub by_median: Option<bool>,
    /// Whether every round is.
    pub by_all: bool,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Targets<'r> {
    results: &'r Results,
    rows: Vec<Row>,
}

/// All rows, as far as they were measured.
pub fn targets(results: &Results) -> Vec<Row> {
    let mut targets = Targets { results, rows: Vec::new() };
    let sizes: Vec<usize> =
        [SMALL, LARGE].into_iter().filter(|size| results.outcomes.keys().any(|key| key.ends_with(&format!("/{size}")))).collect();
    for &size in &sizes {
        targets.one_in_flight(size);
        targets.sixteen(size);
        targets.many(size);
        targets.ahead_of_peers(size);
    }
    targets.syncs(sizes.first().copied().unwrap_or(SMALL));
    targets.upkeep();
    targets.rows
}

impl Targets<'_> {
    fn row(&mut self, name: String, bound: Bound, unit: &str, of: impl Fn(usize) -> Option<f64>) {
        let measured = Spread::of((0..self.results.rounds()).filter_map(of));
        let (target, within): (String, Box<dyn Fn(f64) -> bool>) = match bound {
            Bound::AtLeast(least) => (format!("≥ {least}{unit}"), Box::new(move |number| number >= least)),
            Bound::AtMost(most) => (format!("≤ {most}{unit}"), Box::new(move |number| number <= most)),
        };
        let by_median = measured.map(|spread| within(spread.median));
        let by_all = measured.is_some_and(|spread| within(spread.min) && within(spread.max));
        self.rows.push(Row { name, target, measured, by_median, by_all });
    }

    /// Ratio of two cases' rates; `sustained` counts the mirror's drain in.
    fn ratio(&mut self, what: &str, ours: &str, theirs: &str, (our_k, their_k): (usize, usize), size: usize, least: f64) {
        let results = self.results;
        let (ours, theirs) = (append_key(ours, our_k, size), append_key(theirs, their_k, size));
        let sustained = what.contains("sustained");
        let of = move |outcome: &Outcome| if sustained { outcome.sustained() } else { outcome.rate() };
        let name = format!("{what}: `{ours}` ÷ `{theirs}`");
        self.row(name, Bound::AtLeast(least), " ×", |round| {
            Some(results.number(round, &ours, of)? / results.number(round, &theirs, Outcome::rate)?)
        });
    }

    fn one_in_flight(&mut self, size: usize) {
        for (what, ours, theirs, least) in [
            ("core, 1 in flight", "core-ledger", "f1", 0.9),
            ("core, 1 in flight, preallocate", "core-ledger+preallocate", "f1", 1.2),
            ("core, 1 in flight, preallocate", "core-ledger+preallocate", "crtx", 4.0),
            ("actors, 1 in flight", "actors", "f1", 0.75),
            ("actors, 1 in flight, preallocate", "actors+preallocate", "f1", 0.9),
        ] {
            self.ratio(what, ours, theirs, (1, 1), size, least);
        }
    }

    fn sixteen(&mut self, size: usize) {
        for (what, ours, theirs, least) in [
            ("ledger ack, 16 in flight, mirror on", "actors", "f3", 0.7),
            ("ledger ack, 16 in flight, mirror on", "actors", "crtx", 20.0),
            ("both legs, 16 in flight", "actors+mirrored", "f3", 0.5),
            ("both legs, 16 in flight", "actors+mirrored", "crtx", 15.0),
        ] {
            self.ratio(what, ours, theirs, (16, 16), size, least);
        }
    }

    fn many(&mut self, size: usize) {
        let only = "actors+ledger-only+preallocate";
        self.ratio("ledger ack, 256 in flight, ledger only, preallocate", only, "f3", (256, 256), size, 0.45);
        self.ratio("ledger ack, 256 in flight, ledger only, preallocate", only, "okaywal", (256, 256), size, 5.0);
        for k in [256, 1024] {
            let what = format!("ledger ack, {k} in flight, mirror on, sustained");
            self.ratio(&what, "actors", "sqlite-own", (k, k), size, 0.9);
            self.ratio(&what, "actors", "crtx", (k, 256), size, 60.0);
        }
        self.ratio("both legs, 256 in flight", "actors+mirrored", "sqlite-own", (256, 256), size, 0.75);
        let (results, key) = (self.results, append_key("actors+mirrored", 256, size));
        let tail = |outcome: &Outcome| outcome.p999 / outcome.p50;
        self.row(format!("both legs, 256 in flight: p99.9 ÷ p50 of `{key}`"), Bound::AtMost(8.0), " ×", |round| {
            results.number(round, &key, tail)
        });
    }

    fn ahead_of_peers(&mut self, size: usize) {
        let results = self.results;
        for k in [16, 256, 1024] {
            let ours = append_key("actors", k, size);
            let name = format!("ahead of every peer's durable append: `{ours}` ÷ the fastest of them");
            self.row(name, Bound::AtLeast(1.0), " ×", |round| {
                let rates = PER_APPEND.iter().filter_map(|peer| results.number(round, &append_key(peer, k, size), Outcome::rate));
                let fastest = rates.fold(f64::NAN, f64::max);
                Some(results.number(round, &ours, Outcome::rate)? / fastest).filter(|ratio| ratio.is_finite())
            });
        }
    }

    fn syncs(&mut self, size: usize) {
        let results = self.results;
        for (k, most) in [(1, 1.1), (16, 1.1), (256, 2.2), (1024, 2.2)] {
            let key = append_key("actors", k, size);
            let times_k = |outcome: &Outcome| outcome.ledger_syncs.unwrap_or(0) as f64 / outcome.events as f64 * k as f64;
            let name = format!("syncs of the ledger an event, × K: `{key}`");
            self.row(name, Bound::AtMost(most), "", |round| results.number(round, &key, times_k));
        }
    }

    fn upkeep(&mut self) {
        let results = self.results;
        let found = |prefix: &str| {
            let keys = results.outcomes.keys().filter(|key| key.starts_with(&format!("{prefix}#")));
            let mut keys: Vec<String> = keys.cloned().collect();
            keys.sort_by_key(|key| key.rsplit('#').next().and_then(|events| events.parse::<u64>().ok()));
            keys
        };
        let last = |prefix: &str| found(prefix).pop().unwrap_or_else(|| format!("{prefix}#?"));
        for (ours, theirs, least, mib) in [
            ("verify", "crtx-parity", 15.0, Some(32.0)),
            ("parity", "crtx-parity", 15.0, Some(64.0)),
            ("replay", "crtx-replay", 10.0, None),
        ] {
            let (ours, theirs) = (last(ours), last(theirs));
            let name = format!("`{ours}` ÷ `{theirs}`");
            self.row(name, Bound::AtLeast(least), " ×", |round| {
                Some(results.number(round, &ours, Outcome::rate)? / results.number(round, &theirs, Outcome::rate)?)
            });
            if let Some(mib) = mib {
                let peak = |outcome: &Outcome| outcome.peak_kib as f64 / 1024.0;
                self.row(format!("peak memory of `{ours}`"), Bound::AtMost(mib), " MiB", |round| results.number(round, &ours, peak));
            }
        }
        let ledger_ms = |outcome: &Outcome| outcome.more.get("ledger_ms").copied().unwrap_or(f64::NAN);
        if let [small, .., large] = found("open").as_slice() {
            let name = format!("open, the ledger's part: `{large}` ÷ `{small}`");
            self.row(name, Bound::AtMost(1.25), " ×", |round| {
                Some(results.number(round, large, ledger_ms)? / results.number(round, small, ledger_ms)?)
            });
        }
        let open = last("open");
        self.row(format!("open, the ledger's part: `{open}`"), Bound::AtMost(5.0), " ms", |round| results.number(round, &open, ledger_ms));
        let (import, both) = (last("import"), append_key(IMPORT_BESIDE.0, IMPORT_BESIDE.1, IMPORT_BESIDE.2));
        self.row(format!("`{import}` ÷ `{both}`"), Bound::AtLeast(0.7), " ×", |round| {
            Some(results.number(round, &import, Outcome::rate)? / results.number(round, &both, Outcome::sustained)?)
        });
    }
}
