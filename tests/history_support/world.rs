//! A store with its accounts, and the model beside it: steps are done to the one, and held against the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use counterfoil::actors::entity::{EntityError, EntityOptions};
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;
use rusqlite::Connection;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::error::Elapsed;

use super::bank::{Account, Bank, Short, State};
use super::chance::Chance;
use super::common::Random;
use super::common::simulated::{Choices, SimDisk};
use super::model::{Answer, Fate, Model, of_version};
use super::ops::{Done, MIRROR, Op, SNAPSHOTS, derived, remove, send};

/// How long a step may take before it counts as one that hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// How long all that belongs to a step may take.
const STEP_DEADLINE: Duration = Duration::from_secs(300);

/// How long what waits for a lock may wait before the lock is let go of.
const PATIENCE: Duration = Duration::from_millis(15);

/// How often what was done and seen.
pub type Counts = BTreeMap<&'static str, u64>;

/// What was done, to be told where it ends badly.
pub type Log = Arc<Mutex<Vec<String>>>;

/// What goes on that explains errors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) killed: bool,
    pub(super) closing: bool,
    pub(super) power: bool,
    pub(super) outside: usize,
    /// The version and the options that it went on under.
    pub(super) version: u32,
    pub(super) redecisions_max: usize,
    pub(super) entities_max: usize,
}

pub struct World {
    pub(super) dir: PathBuf,
    pub(super) disk: SimDisk,
    pub(super) options: LedgerOptions,
    pub(super) entity_options: EntityOptions,
    pub(super) version: u32,
    pub(super) ledger: Option<Ledger>,
    pub(super) bank: Option<Bank>,
    pub(super) chance: Chance,
    pub(super) model: Model,
    /// Who holds SQLite's write lock on the mirror, and on the snapshots.
    pub(super) locks: [Option<Connection>; 2],
    /// The mirror may not have all just now.
    pub(super) mirror_is_behind: bool,
    /// An entity that was killed a moment ago may still take a command, and lose it.
    pub(super) is_dying: bool,
    /// It was removed in this life of the store, which nobody may have seen yet.
    pub(super) mirror_is_removed: bool,
    /// Derived files as they were.
    pub(super) images: Vec<Vec<(PathBuf, Vec<u8>)>>,
    pub(super) log: Log,
    pub counts: Counts,
}

impl World {
    pub async fn new(seed: u64, root: &Path, log: Log) -> World {
        let mut chance = Chance::new(seed);
        let disk = SimDisk::new(root, Choices::Seeded(Random::new(seed ^ 0xb00c)));
        let dir = root.join("store");
        std::fs::create_dir(&dir).unwrap();
        let mut options = chance.ledger_options();
        options.store.storage = Arc::new(disk.clone());
        let entity_options = chance.entity_options();
        let model = Model::new(&chance.streams);
        let version = 1 + chance.random.below(2) as u32;
        let mut world = World {
            dir,
            disk,
            options,
            entity_options,
            version,
            ledger: None,
            bank: None,
            chance,
            model,
            locks: [None, None],
            mirror_is_behind: false,
            is_dying: false,
            mirror_is_removed: false,
            images: Vec::new(),
            log,
            counts: Counts::new(),
        };
        world.open().await;
        world
    }

    /// A history, from its first command to its end.
    pub async fn run(&mut self) {
        for _ in 0..10 + self.chance.random.below(51) {
            let step = tokio::time::timeout(STEP_DEADLINE, self.step()).await;
            assert!(step.is_ok(), "it hangs: {:?}", self.ledger.as_ref().map(Ledger::status));
            if self.chance.random.chance(4) {
                let step = tokio::time::timeout(STEP_DEADLINE, self.compare()).await;
                assert!(step.is_ok(), "comparing hangs: {:?}", self.ledger.as_ref().map(Ledger::status));
            }
        }
        let step = tokio::time::timeout(STEP_DEADLINE, self.finish()).await;
        assert!(step.is_ok(), "the end hangs: {:?}", self.ledger.as_ref().map(Ledger::status));
    }

    pub(super) fn say(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn bank(&self) -> Bank {
        self.bank.clone().unwrap()
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.clone().unwrap()
    }

    async fn step(&mut self) {
        match self.chance.random.below(200) {
            0..80 => {
                let op = self.chance.send(&mut self.model);
                self.perform(vec![(0, op)]).await;
            }
            80..105 => {
                let op = self.chance.send_again(&mut self.model);
                self.perform(vec![(0, op)]).await;
            }
            105..125 => {
                let op = self.chance.outside();
                self.perform(vec![(0, op)]).await;
            }
            125..155 => {
                let ops = self.burst();
                self.perform(ops).await;
            }
            155..167 => {
                let stream = self.chance.stream();
                let op = if self.chance.random.chance(4) { Op::KillEntity(stream) } else { Op::Passivate(stream) };
                self.perform(vec![(0, op)]).await;
            }
            167..173 => self.lock(),
            173..179 => self.unlock().await,
            179..183 => {
                let op = if self.chance.random.chance(2) { Op::RemoveMirror } else { Op::RemoveSnapshots };
                self.perform(vec![(0, op)]).await;
            }
            183..189 => self.new_registry().await,
            189..192 => self.erase().await,
            _ => self.reopen().await,
        }
    }

    /// Things that are done at once.
    pub(super) fn burst(&mut self) -> Vec<(u64, Op)> {
        let mut ops = Vec::new();
        for _ in 0..2 + self.chance.random.below(6) {
            let stream = self.chance.stream();
            let op = match self.chance.random.below(20) {
                0..8 => self.chance.send(&mut self.model),
                8..11 => self.chance.send_again(&mut self.model),
                11..15 => self.chance.outside(),
                15 => Op::Read(stream),
                16 => Op::Passivate(stream),
                17 => Op::KillEntity(stream),
                18 if self.chance.random.chance(3) => Op::KillLedger,
                19 if self.chance.random.chance(3) => Op::KillSqlite,
                _ => Op::Read(stream),
            };
            ops.push((self.chance.yields(), op));
        }
        ops
    }

    /// Does these things at once, and holds what they were answered against the model.
    async fn perform(&mut self, ops: Vec<(u64, Op)>) {
        let trouble = self.trouble(&ops);
        let from = self.positions();
        let done = self.do_all(ops).await;
        self.settle_erasure(&done).await;
        self.judge(done, &from, trouble);
    }

    pub(super) fn trouble(&self, ops: &[(u64, Op)]) -> Trouble {
        let has = |is: fn(&Op) -> bool| ops.iter().any(|(_, op)| is(op));
        Trouble {
            killed: self.is_dying || has(|op| matches!(op, Op::KillEntity(_) | Op::KillLedger)),
            closing: has(|op| matches!(op, Op::CloseBank | Op::CloseLedger)),
            power: false,
            version: self.version,
            redecisions_max: self.entity_options.redecisions_max,
            entities_max: self.entity_options.entities_max,
            outside: ops.iter().filter(|(_, op)| matches!(op, Op::Outside(_))).count(),
        }
    }

    pub(super) async fn do_all(&mut self, ops: Vec<(u64, Op)>) -> Vec<Done> {
        for (yields, op) in &ops {
            self.say(format!("  {} after {yields}", op.text()));
            *self.counts.entry(op.name()).or_default() += 1;
            self.mirror_is_behind |= matches!(op, Op::KillSqlite | Op::RemoveMirror);
            self.mirror_is_removed |= matches!(op, Op::RemoveMirror);
            self.is_dying |= matches!(op, Op::KillEntity(_));
        }
        let run = |(yields, op): (u64, Op)| (op.text(), tokio::spawn(op.run(yields, self.bank(), self.ledger())));
        let running: Vec<_> = ops.into_iter().map(run).collect();
        let mut done = Vec::new();
        for (what, mut running) in running {
            let ended = match tokio::time::timeout(PATIENCE, &mut running).await {
                Ok(ended) => Ok(ended),
                Err(_) => {
                    // An append that needs the mirror's rows waits for as long as it is locked.
                    self.locks = [None, None];
                    self.hurry(running).await
                }
            };
            done.push(ended.unwrap_or_else(|_| panic!("it hangs: {what}; {:?}", self.ledger().status())).unwrap());
        }
        done
    }

    /// Waits for something that takes long. A mirror that was removed right behind the open can be one that nobody misses: LedgerActor
    /// waits for it, and SqliteActor, which has nothing to write, goes on with the file that is gone, until the next comparison of the
    /// legs. That is none of the entities' doing; it is counted.
    async fn hurry<T>(&mut self, mut running: JoinHandle<T>) -> Result<Result<T, JoinError>, Elapsed> {
        match tokio::time::timeout(Duration::from_secs(2), &mut running).await {
            Err(_) if self.mirror_is_removed => {
                self.count("mirrors that nobody missed");
                Op::KillSqlite.run(0, self.bank(), self.ledger()).await;
            }
            // It waits for a mirror that needs the ledger, and writes nothing, so that nobody is told that the disk has gone.
            Err(_) if self.disk.is_off() => {
                self.count("appends that waited on a dead disk");
                Op::KillLedger.run(0, self.bank(), self.ledger()).await;
            }
            Err(_) => {}
            Ok(ended) => return Ok(ended),
        }
        tokio::time::timeout(DEADLINE, running).await
    }

    /// A look may wait behind a command that nobody waits for any more, and that needs the mirror: where LedgerActor has restarted since and
    /// the mirror is locked, for as long as it is.
    async fn freely<T>(&mut self, look: impl Future<Output = T>) -> T {
        let mut look = std::pin::pin!(look);
        if let Ok(seen) = tokio::time::timeout(Duration::from_secs(2), &mut look).await {
            return seen;
        }
        self.count("looks behind what waited for the mirror");
        self.locks = [None, None];
        if self.mirror_is_removed {
            Op::KillSqlite.run(0, self.bank(), self.ledger()).await;
        }
        look.await
    }

    pub(super) fn positions(&self) -> BTreeMap<String, usize> {
        self.model.streams.iter().map(|(name, stream)| (name.clone(), stream.position())).collect()
    }

    /// An erasure that could not be carried out is, when the store is opened again: until then each look may see either.
    async fn settle_erasure(&mut self, done: &[Done]) {
        let unfinished = |done: &Done| {
            matches!(done, Done::Erased(Err(_))) || matches!(done, Done::Erased(Ok(report)) if report.done.unfinished.is_some())
        };
        if done.iter().any(unfinished) {
            self.count("erasures left to the next open");
            self.locks = [None, None];
            self.close().await;
            self.open().await;
        }
    }

    /// Reads what has come, and holds answers against it.
    pub(super) fn judge(&mut self, done: Vec<Done>, from: &BTreeMap<String, usize>, trouble: Trouble) {
        let is_erased = done.iter().any(|done| matches!(done, Done::Erased(_)));
        self.read_lines(is_erased || trouble.power);
        for done in done {
            match done {
                Done::Sent { by, decided, answer } => {
                    let sent = &self.model.sent[&by];
                    let from = from[&sent.stream];
                    let answer = self.answer(by, answer, trouble);
                    let decided = decided.load(Relaxed);
                    *self.counts.entry("decided again").or_default() += decided.saturating_sub(1);
                    self.model.answered(by, &answer, from);
                }
                Done::Read { stream, state: Ok(state) } => self.is_one_of(&stream, &state, from[&stream], trouble.version),
                Done::Read { state: Err(error), .. } => assert!(self.is_expected(&error, false, trouble), "{error} {error:?} {trouble:?}"),
                Done::Appended(Err(error)) => assert!(trouble.power || trouble.closing, "{error}"),
                Done::Erased(_) | Done::Appended(_) | Done::Nothing => {}
            }
        }
    }

    pub(super) fn read_lines(&mut self, again: bool) {
        let ledger = self.ledger.as_ref().unwrap();
        let durable = ledger.status().durable.seq;
        let reader = ledger.reader().unwrap();
        if again { self.model.read_again(&reader, durable) } else { self.model.read_on(&reader, durable) }
    }

    fn answer(
        &mut self,
        by: u64,
        answer: Option<Result<counterfoil::actors::entity::Outcome<super::bank::Event>, EntityError<Short>>>,
        trouble: Trouble,
    ) -> Answer {
        let is_keyed = self.model.sent[&by].key.is_some();
        let (said, answer) = match answer {
            None => ("dropped".to_owned(), Answer::Open),
            Some(Ok(outcome)) => {
                let what = if outcome.duplicate { "answers that were duplicates" } else { "answers with an outcome" };
                self.count(what);
                let said = format!("at {} with {} events, duplicate {}", outcome.position, outcome.receipts.len(), outcome.duplicate);
                (said, Answer::Outcome(outcome))
            }
            Some(Err(EntityError::Rejected(short))) => {
                self.count("refusals");
                (short.to_string(), Answer::Refused(short))
            }
            Some(Err(error)) => {
                assert!(self.is_expected(&error, is_keyed, trouble), "#{by}: {error} {error:?} {trouble:?}");
                let is_open = error.is_outcome_unknown();
                self.count(if is_open { "outcomes unknown" } else { "errors" });
                (error.to_string(), if is_open { Answer::Open } else { Answer::Failed })
            }
        };
        self.say(format!("  #{by} {said}"));
        answer
    }

    /// Whether what goes on explains this error.
    fn is_expected(&self, error: &EntityError<Short>, is_keyed: bool, trouble: Trouble) -> bool {
        trouble.power
            || match error {
                EntityError::Contended { .. } => trouble.outside >= trouble.redecisions_max,
                EntityError::TooMany { .. } => trouble.entities_max < self.chance.streams.len(),
                // One with a key is sent again, and may then meet with what else a command meets with.
                EntityError::OutcomeUnknown { .. } => {
                    let is_crowded = trouble.entities_max < self.chance.streams.len();
                    trouble.closing || trouble.killed && (!is_keyed || self.mirror_is_behind || trouble.redecisions_max < 2 || is_crowded)
                }
                EntityError::Closed => trouble.closing,
                EntityError::Append(AppendError::Closed | AppendError::Stopped { .. } | AppendError::OutcomeUnknown { .. }) => {
                    trouble.closing
                }
                EntityError::Append(AppendError::Rebuilding { .. }) => self.mirror_is_behind && is_keyed,
                _ => false,
            }
    }

    /// A state that was seen is one that was, since then.
    fn is_one_of(&self, stream: &str, state: &State, from: usize, version: u32) {
        let states = &self.model.streams[stream];
        let is_there = states.states(from).any(|fold| of_version(fold, version) == *state);
        assert!(is_there, "{stream}: no fold from {from} to {} is {state:?}, the last is {:?}", states.position(), states.state());
    }

    /// The state of each stream is the fold of its lines.
    pub(super) async fn compare(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        for stream in self.chance.streams.clone() {
            self.read_lines(false);
            loop {
                assert!(Instant::now() < deadline, "{stream} is never where its lines are");
                let from = self.model.streams[&stream].position();
                let bank = self.bank();
                let state = match self.freely(bank.read(&stream)).await {
                    // Its actor was killed just now, or the registry before has not let go yet.
                    Err(EntityError::Taken { .. } | EntityError::TooMany { .. } | EntityError::OutcomeUnknown { .. }) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    state => state.unwrap_or_else(|error| panic!("{stream}: {error}")),
                };
                self.read_lines(false);
                self.is_one_of(&stream, &state, from, self.version);
                let lines = &self.model.streams[&stream];
                // What a caller has let go of may have come since.
                if of_version(lines.state(), self.version) == state
                    && bank.position(&stream).await.is_ok_and(|at| at as usize == lines.position())
                {
                    break;
                }
                self.count("looked at again");
            }
        }
        // Nothing that was sent before is under way any more.
        self.model.settle();
        self.is_dying = false;
        self.count("comparisons");
    }

    fn lock(&mut self) {
        let which = self.chance.random.below(2) as usize;
        let path = self.dir.join([MIRROR, SNAPSHOTS][which][0]);
        if self.locks[which].is_some() || !path.exists() {
            return;
        }
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(Duration::from_millis(5)).unwrap();
        if connection.execute_batch("BEGIN IMMEDIATE").is_ok() {
            self.say(format!("lock {which}"));
            self.locks[which] = Some(connection);
            self.mirror_is_behind |= which == 0;
            self.count(["mirrors locked", "snapshots locked"][which]);
        }
    }

    async fn unlock(&mut self) {
        self.say("unlock".to_owned());
        self.locks = [None, None];
        if self.chance.random.chance(2) {
            let caught_up = self.ledger().mirrored(Seq::new(self.model.seq())).await;
            caught_up.unwrap_or_else(|error| panic!("{error}"));
            self.mirror_is_behind = self.mirror_is_removed;
        }
    }

    async fn new_registry(&mut self) {
        let beside = if self.chance.random.chance(3) { self.burst() } else { Vec::new() };
        let closes = self.chance.random.chance(2) || !beside.is_empty();
        self.say(format!("new registry, the old one is closed: {closes}"));
        if !beside.is_empty() {
            let closing = (self.chance.yields(), Op::CloseBank);
            self.perform(beside.into_iter().chain([closing]).collect()).await;
        }
        let bank = self.bank.take().unwrap();
        if closes {
            tokio::time::timeout(DEADLINE, bank.close()).await.expect("closing the registry hangs");
        } else {
            drop(bank);
        }
        self.count("registries made anew");
        self.open_bank().await;
    }

    pub(super) async fn open_bank(&mut self) {
        if self.chance.random.chance(2) {
            self.version = 3 - self.version;
            self.count("versions of the state changed");
        }
        self.entity_options = self.chance.entity_options();
        let bank = Bank::open(&self.ledger(), self.version, self.entity_options.clone()).await;
        self.bank = Some(bank.unwrap());
        let EntityOptions { snapshot_every, page_events_max, redecisions_max, entities_max, durability, .. } = &self.entity_options;
        self.say(format!(
            "version {}, a snapshot every {snapshot_every}, pages of {page_events_max}, {redecisions_max} redecisions, {entities_max} entities, {durability:?}",
            self.version
        ));
    }

    /// Erases an event of a stream, commands beside it.
    async fn erase(&mut self) {
        self.compare().await;
        let stream = self.chance.stream();
        let lines = &self.model.streams[&stream].lines;
        if lines.is_empty() {
            return;
        }
        let seq = lines[self.chance.random.below(lines.len() as u64) as usize].seq;
        self.locks = [None, None];
        let mut ops = if self.chance.random.chance(2) { self.burst() } else { Vec::new() };
        // Until the rows are there, it would be refused.
        self.ledger().mirrored(Seq::new(self.model.seq())).await.unwrap();
        ops.push((self.chance.yields(), Op::Erase(seq)));
        self.perform(ops).await;
    }

    /// Settles what is open, and looks at all of it once more: by the product's own fold, too.
    async fn finish(&mut self) {
        self.say("the end".to_owned());
        self.locks = [None, None];
        for life in 0..2 {
            self.ledger().mirrored(Seq::new(self.model.seq())).await.unwrap();
            self.compare().await;
            for (stream, key, what) in self.model.open() {
                let op = self.chance.command(&mut self.model, stream.clone(), Some(key.clone()), what, None);
                self.perform(vec![(0, op)]).await;
                self.model.settled(&stream, &key);
            }
            self.compare().await;
            if life == 0 {
                self.close().await;
                self.open().await;
            }
        }
        self.close().await;
        let reader = LedgerReader::open(&self.dir, &self.options.store).unwrap();
        self.model.read_again(&reader, reader.head().unwrap().seq);
        self.model.conclude();
        let mut streams = StreamReader::open(&self.dir, &self.options.store).unwrap();
        for (name, stream) in &self.model.streams {
            let folded = counterfoil::entity::fold(&Account::<1>, &mut streams, name, Seq::MAX).unwrap();
            assert_eq!((&folded.state, folded.position as usize), (stream.state(), stream.position()));
            *self.counts.entry("events").or_default() += stream.position() as u64;
        }
    }
}
