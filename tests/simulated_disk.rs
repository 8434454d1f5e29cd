//! Goal: whatever a disk does that keeps its word about fsync, and whenever the power or the process goes, what was
//! acknowledged is there afterwards, in order, once; what is there was submitted; a retry is told the truth.
//!
//! Method: seeded histories of appends, batches, rotations, compressions, closes, kills, power cuts, failing operations and full disks
//! on a disk that forgets all that it may (`common/simulated.rs`). A failure names its seed: COUNTERFOIL_SEED=n runs that one.
//! COUNTERFOIL_HISTORIES says how many; COUNTERFOIL_SEED_FROM where they begin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use common::history::{self, Counts, History, Process};
use common::simulated::{Choices, SimDisk};
use common::{Random, campaign};
use counterfoil::*;

/// What the disk of a history is like.
#[derive(Clone, Copy)]
struct Temper {
    faults: bool,
    garbage: bool,
    lies: bool,
}

struct Driver {
    random: Random,
    history: History,
    process: Option<Process>,
    temper: Temper,
    /// Groups that are durable and that the mirror has not committed.
    unmirrored: Vec<Group>,
    /// The history is over: a disk that lied was found out.
    refused: bool,
}

impl Driver {
    fn new(seed: u64, temper: Temper) -> Driver {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(Path::new("/simulated"), Choices::Seeded(Random::new(seed ^ 0xd15c)));
        disk.faults(|faults| (faults.garbage, faults.lies) = (temper.garbage, temper.lies));
        let segment_bytes_max = [1200, 2500, 6000, 64 << 20][random.below(4) as usize];
        let mut history = History::new(disk, segment_bytes_max);
        // Blank lines are laid out as far ahead as a segment is long, which would be a lot of simulated disk.
        history.options.preallocate = random.chance(2) && segment_bytes_max < 64 << 20;
        history.honest = !temper.lies;
        Driver { random, history, process: None, temper, unmirrored: Vec::new(), refused: false }
    }

    fn run(&mut self) -> Counts {
        for _ in 0..self.random.below(40) + 5 {
            if self.refused {
                return self.history.counts.clone();
            }
            if self.temper.faults && self.random.chance(4) {
                self.arm();
            }
            match (self.process.is_some(), self.random.below(14)) {
                (false, 0..3) => self.reform(),
                (false, _) => self.open(),
                (_, 0) => self.close(),
                (_, 1) => self.kill(),
                (_, 2) => self.cut(),
                (_, 3) => self.retry(),
                (_, 4) => self.mirror(),
                _ => self.append(),
            }
            if self.history.disk.is_off() {
                self.cut();
            }
        }
        self.finish();
        self.history.counts.clone()
    }

    fn arm(&mut self) {
        let kind = [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::Interrupted][self.random.below(3) as usize];
        let (after, what) = (self.random.below(12), self.random.below(6));
        self.history.disk.faults(|faults| match what {
            0 => faults.full = !faults.full,
            1..4 => faults.power = Some(after / 2),
            _ => faults.fail = Some((after, kind)),
        });
    }

    fn calm(&mut self) {
        self.history.disk.faults(|faults| (faults.full, faults.power, faults.fail) = (false, None, None));
    }

    fn open(&mut self) {
        let mut armed = false;
        self.history.disk.faults(|faults| armed = faults.full || faults.power.is_some() || faults.fail.is_some());
        match self.history.open() {
            Ok(_) if self.history.found_out => {
                self.history.counts.refused += 1;
                self.refused = true;
            }
            Ok(mut process) => {
                let events = if self.random.chance(2) { usize::MAX } else { self.random.below(3) as usize };
                self.history.replay(&mut process, events);
                self.process = Some(process);
            }
            Err(refusal @ (LedgerError::Refused(_) | LedgerError::Manifest { .. })) if self.temper.lies => {
                self.history.counts.refused += 1;
                self.refused = true;
                drop(refusal);
            }
            Err(error @ (LedgerError::Io { .. } | LedgerError::DiskFull { .. })) if armed => {
                drop(error);
                if !self.history.disk.is_off() && self.random.chance(2) {
                    self.calm();
                }
            }
            Err(error) => panic!("open fails without a reason: {error}"),
        }
    }

    /// Compresses the segments that nobody writes to, or makes them plain again.
    fn reform(&mut self) {
        let (dir, options) = (Path::new(history::DIR), &self.history.options);
        let which = Sealed::AllBut(self.random.below(3) as usize);
        let form = if self.random.chance(3) { decompress } else { compress };
        let mut armed = self.temper.lies;
        self.history.disk.faults(|faults| armed |= faults.full || faults.power.is_some() || faults.fail.is_some());
        match form(dir, options, &which, &mut |_| ()) {
            Ok(done) => self.history.counts.reformed += done.len() as u64,
            Err(LedgerError::NoStore { .. } | LedgerError::Refused(_)) if self.history.acknowledged.is_empty() => {}
            Err(error) => assert!(armed, "a segment can't be compressed, without a reason: {error}"),
        }
    }

    /// Stages a group of events and batches, and flushes it.
    fn append(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let group = self.stage_group(&mut process);
        if group.is_empty() {
            self.process = Some(process);
        } else {
            self.flush(process, group);
        }
    }

    fn stage_group(&mut self, process: &mut Process) -> Vec<(Vec<usize>, Vec<Receipt>)> {
        let mut group = Vec::new();
        for _ in 0..self.random.below(4) + 1 {
            let size = if self.random.chance(3) { self.random.below(3) as usize + 2 } else { 1 };
            let numbers: Vec<usize> = (0..size).map(|_| self.draft()).collect();
            if size > 1 {
                self.history.batch(&numbers);
            }
            match self.history.stage(process, &numbers) {
                Ok(Stage::Staged(staged)) => group.push((numbers, staged.receipts)),
                Ok(Stage::GroupFull) => panic!("a group is full after {} events", group.len()),
                // A read for the mirror was made to fail.
                Err(AppendError::Rebuilding { .. }) if self.temper.faults => break,
                Err(error) => panic!("{error}"),
            }
        }
        group
    }

    /// While a group is in flight the next is staged, and what is in flight is handed in again: that is known, and not durable.
    fn stage_beside(&mut self, process: &mut Process, flying: &[(Vec<usize>, Vec<Receipt>)]) -> Vec<(Vec<usize>, Vec<Receipt>)> {
        let head = process.writer.head();
        if let Some((numbers, receipts)) = flying.first().filter(|(numbers, _)| self.retryable(numbers[0]).is_some()) {
            match self.history.stage(process, numbers) {
                Ok(Stage::Staged(staged)) => {
                    assert!(!staged.durable && staged.receipts.iter().all(|receipt| receipt.duplicate));
                    assert_eq!(staged.receipts[0].event_hash, receipts[0].event_hash);
                }
                Err(AppendError::Rebuilding { .. }) if self.temper.faults => {}
                other => panic!("an event in flight, handed in again: {other:?}"),
            }
        }
        let group = self.stage_group(process);
        assert!(matches!(process.writer.depart(), Ok(None)), "two groups in flight");
        assert_eq!(process.writer.head(), head, "durable before it has landed");
        group
    }

    fn draft(&mut self) -> usize {
        let with_id = !self.random.chance(4);
        let session = (!self.random.chance(3)).then(|| self.random.below(3));
        let text_bytes = match self.random.below(8) {
            0 => self.random.below(3000),
            _ => self.random.below(100),
        };
        self.history.draft(with_id, session, text_bytes as usize)
    }

    fn flush(&mut self, mut process: Process, group: Vec<(Vec<usize>, Vec<Receipt>)>) {
        let mut next = Vec::new();
        let written = process.writer.depart().and_then(|flight| {
            let mut flight = flight.expect("a group of events departs");
            if self.random.chance(3) {
                next = self.stage_beside(&mut process, &group);
            }
            flight.fly();
            process.writer.land(flight)
        });
        match written {
            Ok(durable) => {
                for (numbers, receipts) in group {
                    self.history.acknowledge(&numbers, &receipts);
                }
                self.unmirrored.push(durable);
                self.process = Some(process);
                if self.random.chance(2) {
                    self.mirror();
                }
            }
            Err(LedgerError::Poisoned { .. }) => return self.poisoned(process),
            // Definite: nothing of it is written, and the writer is well.
            Err(LedgerError::DiskFull { .. } | LedgerError::Io { .. }) => {
                self.history.refused.extend(group.into_iter().flat_map(|(numbers, _)| numbers));
                self.process = Some(process);
            }
            Err(error) => panic!("{error}"),
        }
        if let Some(process) = self.process.take_if(|_| !next.is_empty()) {
            self.flush(process, next);
        }
    }

    /// Nothing more is acknowledged, whatever the disk does now.
    fn poisoned(&mut self, mut process: Process) {
        self.calm_unless_off();
        let number = self.draft();
        let again = self.history.stage(&mut process, &[number]);
        assert!(matches!(again, Err(AppendError::Ledger(LedgerError::Poisoned { .. }))), "a poisoned writer says {again:?}");
        assert!(matches!(process.writer.flush(), Err(LedgerError::Poisoned { .. })));
        drop(process);
        if !self.history.disk.is_off() && self.random.chance(2) { self.kill() } else { self.cut() }
    }

    fn calm_unless_off(&mut self) {
        if !self.history.disk.is_off() {
            self.calm();
        }
    }

    fn mirror(&mut self) {
        for group in self.unmirrored.drain(..) {
            if group.first.previous() <= self.history.mirror.seq() {
                self.history.mirror.commit_group(&group);
            }
        }
        if let Some(mut process) = self.process.take() {
            self.history.replay(&mut process, usize::MAX);
            self.process = Some(process);
        }
    }

    /// Hands in something again that has an id: the answer is the first receipt, or it is written now.
    fn retry(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let number = self.random.below(self.history.submitted.len() as u64) as usize;
        let Some(numbers) = self.retryable(number) else {
            self.process = Some(process);
            return;
        };
        let known = self.history.acknowledged.iter().find(|(_, (_, n))| *n == numbers[0]).map(|(seq, (hash, _))| (*seq, *hash));
        match (self.history.stage(&mut process, &numbers), known) {
            (Ok(Stage::Staged(Staged { receipts, durable: true })), Some((seq, hash))) => {
                assert!(receipts[0].duplicate);
                assert_eq!((receipts[0].seq.get(), receipts[0].event_hash), (seq, hash));
                self.process = Some(process);
            }
            (Ok(Stage::Staged(staged)), None) => {
                assert!(!staged.durable && staged.receipts.iter().all(|receipt| !receipt.duplicate));
                for number in &numbers {
                    self.history.refused.remove(number);
                }
                self.flush(process, vec![(numbers, staged.receipts)]);
            }
            (Err(AppendError::Rebuilding { .. }), _) if self.temper.faults => self.process = Some(process),
            (other, known) => panic!("a retry of {numbers:?}, known as {known:?}: {other:?}"),
        }
    }

    /// The event, or its whole batch, where all have ids.
    fn retryable(&self, number: usize) -> Option<Vec<usize>> {
        let submitted = self.history.submitted.get(number)?;
        let numbers = match submitted.batch {
            None => vec![number],
            Some((first, size)) => (first as usize..first as usize + size).collect(),
        };
        numbers.iter().all(|n| self.history.submitted[*n].draft.given_id().is_some()).then_some(numbers)
    }

    fn close(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.writer.trim();
        }
    }

    fn kill(&mut self) {
        self.process = None;
        self.unmirrored.clear();
        self.history.disk.kill();
        self.set_mirror_back();
    }

    fn cut(&mut self) {
        self.process = None;
        self.unmirrored.clear();
        self.history.disk.cut();
        self.set_mirror_back();
    }

    /// The last commits of a mirror with `synchronous=NORMAL` may be lost; so may the whole mirror, or its hint be wrong.
    fn set_mirror_back(&mut self) {
        let mirror = &mut self.history.mirror;
        match self.random.below(8) {
            0 => mirror.set_back(0),
            1 | 2 => mirror.set_back(self.random.below(mirror.len() as u64 + 1) as usize),
            3 => mirror.misplace(self.random.below(4000)),
            _ => {}
        }
    }

    /// In the end all is handed in again, and all must be there, once, after one more cut.
    fn finish(&mut self) {
        self.cut();
        self.calm();
        self.open();
        let mut number = 0;
        while number < self.history.submitted.len() && !self.refused {
            if let Some(numbers) = self.retryable(number).filter(|numbers| numbers[0] == number) {
                let Some(mut process) = self.process.take() else { panic!("not open") };
                match self.history.stage(&mut process, &numbers).unwrap() {
                    Stage::Staged(Staged { receipts, durable: true }) => {
                        self.history.acknowledge(&numbers, &receipts);
                        self.process = Some(process);
                    }
                    Stage::Staged(staged) => self.flush(process, vec![(numbers, staged.receipts)]),
                    Stage::GroupFull => panic!("a group is full"),
                }
            }
            number += 1;
        }
        self.cut();
        self.open();
        if !self.refused && !self.temper.lies {
            let there: std::collections::HashSet<usize> = self.history.acknowledged.values().map(|(_, n)| *n).collect();
            for number in 0..self.history.submitted.len() {
                assert!(self.retryable(number).is_none() || there.contains(&number), "event {number} was retried and is not there");
            }
        }
    }
}

fn run(seed: u64) -> Counts {
    let temper = Temper { faults: seed % 2 == 1, garbage: seed % 3 == 1, lies: seed % 16 == 15 };
    let outcome = catch_unwind(AssertUnwindSafe(|| Driver::new(seed, temper).run()));
    outcome.unwrap_or_else(|panic| {
        eprintln!("seed {seed} fails: COUNTERFOIL_SEED={seed} cargo test --test simulated_disk");
        resume_unwind(panic)
    })
}

#[test]
fn what_is_acknowledged_survives_any_history() {
    let from = campaign("COUNTERFOIL_SEED", campaign("COUNTERFOIL_SEED_FROM", 0));
    let histories = if std::env::var("COUNTERFOIL_SEED").is_ok() { 1 } else { campaign("COUNTERFOIL_HISTORIES", 250) };
    let mut total = Counts::default();
    for seed in from..from + histories {
        let counts = run(seed);
        total.acknowledged += counts.acknowledged;
        total.recovered_unacknowledged += counts.recovered_unacknowledged;
        total.torn += counts.torn;
        total.opens += counts.opens;
        total.refused += counts.refused;
        total.reformed += counts.reformed;
    }
    eprintln!(
        "{histories} histories: {} acknowledged, {} opens, {} torn tails, {} events kept that nobody was told of, {} lying disks found out, {} segments compressed or plain again",
        total.acknowledged, total.opens, total.torn, total.recovered_unacknowledged, total.refused, total.reformed
    );
    assert!(
        total.acknowledged > histories && total.torn > histories / 20 && total.reformed > histories / 10,
        "the histories do too little"
    );
}
