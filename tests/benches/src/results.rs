//! Results of all rounds, by case; kept as JSON lines, so that a report can be written again from them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use bench_load::{Outcome, Result, Spec};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The name of a case: system, number in flight, payload; with `@` the rate of an open loop; a store's size for those
/// that read one.
pub fn key(spec: &Spec) -> String {
    match (spec.rate, spec.events_max) {
        (Some(rate), _) => format!("{}@{rate}", spec.system),
        (None, u64::MAX) => format!("{}/{}/{}", spec.system, spec.in_flight, spec.payload),
        (None, events) => format!("{}#{events}", spec.system),
    }
}

/// Of one system at one number in flight.
pub fn append_key(system: &str, in_flight: usize, payload: usize) -> String {
    format!("{system}/{in_flight}/{payload}")
}

/// A line of the results' file.
#[derive(Serialize, Deserialize)]
enum Line {
    Machine(Machine),
    Case {
        round: usize,
        key: String,
        outcome: Outcome,
    },
    /// Syncs an event, as counted by strace, all files of the process.
    Counted {
        key: String,
        syncs: f64,
    },
}

/// What was measured.
#[derive(Default)]
pub struct Results {
    pub machine: Machine,
    /// Outcomes by case and round.
    pub outcomes: BTreeMap<String, BTreeMap<usize, Outcome>>,
    /// Syncs an event by case.
    pub counted: BTreeMap<String, f64>,
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of some numbers; nothing where there is none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut numbers: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

impl Results {
    /// Reads what [`Recorder`] wrote.
    pub fn read(path: &Path) -> Result<Results> {
        let mut results = Results::default();
        for line in BufReader::new(File::open(path)?).lines() {
            results.add(serde_json::from_str(&line?)?);
        }
        Ok(results)
    }

    fn add(&mut self, line: Line) {
        match line {
            Line::Machine(machine) => self.machine = machine,
            Line::Case { round, key, outcome } => {
                self.outcomes.entry(key).or_default().insert(round, outcome);
            }
            Line::Counted { key, syncs } => {
                self.counted.insert(key, syncs);
            }
        }
    }

    /// Rounds that there were.
    pub fn rounds(&self) -> usize {
        self.outcomes.values().flat_map(|rounds| rounds.keys()).max().map_or(0, |last| last + 1)
    }

    /// A number of a case in a round; nothing where it was not measured.
    pub fn number(&self, round: usize, key: &str, of: impl Fn(&Outcome) -> f64) -> Option<f64> {
        let outcome = self.outcomes.get(key)?.get(&round)?;
        (outcome.skipped.is_none() && outcome.events > 0).then(|| of(outcome))
    }

    /// The spread of a case's number over all rounds.
    pub fn spread(&self, key: &str, of: impl Fn(&Outcome) -> f64) -> Option<Spread> {
        Spread::of((0..self.rounds()).filter_map(|round| self.number(round, key, &of)))
    }

    /// Why a case was not measured, if it was not.
    pub fn skipped(&self, key: &str) -> Option<&str> {
        self.outcomes.get(key)?.values().find_map(|outcome| outcome.skipped.as_deref())
    }
}

/// Writes results as they come.
pub struct Recorder {
    file: File,
    pub results: Results,
}

impl Recorder {
    pub fn create(path: &Path, machine: Machine) -> Result<Recorder> {
        let mut recorder = Recorder { file: File::create(path)?, results: Results::default() };
        recorder.record(Line::Machine(machine))?;
        Ok(recorder)
    }

    pub fn case(&mut self, round: usize, key: &str, outcome: Outcome) -> Result<()> {
        self.record(Line::Case { round, key: key.to_owned(), outcome })
    }

    pub fn counted(&mut self, key: &str, syncs: f64) -> Result<()> {
        self.record(Line::Counted { key: key.to_owned(), syncs })
    }

    fn record(&mut self, line: Line) -> Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
        self.results.add(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
