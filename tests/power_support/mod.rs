//! What is written when the power goes: plans of appends that a seed gives, and the process that carries them out.
//!
//! The writing process is the test binary itself, started again with a plan in its environment. It tells what it does
//! on its standard output, a line each: `opening`, `opened TORN REWRITTEN`, `ack TASK INDEX SEQ ID HASH MIRROR
//! NANOSECONDS`, `error WHAT`, `refused WHAT`, `waits STATUS`, `hangs STATUS`, `closing`, `closed`, `ended WHAT`.

pub mod history;
pub mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use counterfoil::actors::{Durability, Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;

use crate::common::{self, Random};

/// Bytes of payload that one run may write at most, so that a history fits its disk.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// What is not answered for so long waits for something that will not come.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// One run of the writing process, as its seed has it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seed: u64,
    /// The number of the run in its history: payloads and ids hold it.
    pub number: u64,
    pub tasks: u64,
    pub appends: u64,
    pub payload_bytes_max: u64,
    pub segment_bytes_max: u64,
    pub group_events_max: usize,
    pub can_reserve: bool,
    /// For the canary: an fsync that does nothing.
    pub skip_sync: bool,
}

fn pick(random: &mut Random, from: &[u64]) -> u64 {
    from[random.below(from.len() as u64) as usize]
}

impl Run {
    pub fn new(seed: u64, number: u64) -> Run {
        let mut random = Random::new(seed << 20 | number);
        let tasks = pick(&mut random, &[1, 4, 16, 64]);
        let payload_bytes_max = pick(&mut random, &[60, 60, 600, 6_000, 60_000]);
        Run {
            seed,
            number,
            tasks,
            appends: (RUN_BYTES_MAX / payload_bytes_max / tasks).clamp(2, 10),
            payload_bytes_max,
            segment_bytes_max: pick(&mut random, &[2_000, 10_000, 100_000, 64 << 20]),
            group_events_max: pick(&mut random, &[5, 64, 4096]) as usize,
            can_reserve: !random.chance(4),
            skip_sync: false,
        }
    }

    /// What one task appends, in order: the events of each append, and what it waits for.
    pub fn plan(&self, task: u64) -> Vec<(Vec<Draft>, Durability)> {
        let mut random = Random::new(self.seed << 32 | self.number << 16 | task);
        let mut index = 0;
        let mut plan = Vec::new();
        for _ in 0..self.appends {
            let events = if random.chance(4) { 2 + random.below(4) } else { 1 };
            let with_id = !random.chance(4);
            let drafts = (0..events).map(|_| {
                let session = format!("s-{}", random.below(self.tasks / 2 + 1));
                let long = "x".repeat(random.below(self.payload_bytes_max) as usize);
                let draft = common::note(&format!("{} {task} {index} {long}", self.number)).session(session);
                let id = common::id(self.number << 40 | task << 20 | index);
                index += 1;
                if with_id { draft.id(id) } else { draft }
            });
            let drafts = drafts.collect();
            plan.push((drafts, if random.chance(3) { Durability::Mirrored } else { Durability::Ledger }));
        }
        plan
    }

    /// All that it submits, by payload, in order of its tasks: the id where it brings one, and its place.
    pub fn submitted(&self) -> HashMap<String, Planned> {
        let mut all = HashMap::new();
        for task in 0..self.tasks {
            let drafts = self.plan(task).into_iter().flat_map(|(drafts, _)| drafts);
            for (index, draft) in drafts.enumerate() {
                let checked = common::checked(draft);
                let payload = checked.draft().payload_bytes().to_owned();
                let there = all.insert(payload, Planned { run: self.number, task, index: index as u64, id: checked.id() });
                assert!(there.is_none(), "payloads differ");
            }
        }
        all
    }

    fn options(&self) -> LedgerOptions {
        let mut options = LedgerOptions::default();
        // With the power gone no mirror comes back, and a process that is left to end by itself would wait for it.
        options.mirrored_deadline = Duration::from_secs(1);
        options.close_deadline = Duration::from_millis(100);
        options.store.segment_bytes_max = self.segment_bytes_max;
        options.store.group_events_max = self.group_events_max;
        if self.skip_sync {
            common::disk::without_sync(&mut options.store);
        } else if !self.can_reserve {
            common::disk::faulty(&mut options.store).fail(common::disk::Op::Reserve, std::io::ErrorKind::Unsupported);
        }
        options
    }

    /// The command that starts the writing process. `test` is the name of the test that calls [`write`].
    pub fn command(&self, test: &str, store: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env("COUNTERFOIL_WRITER_STORE", store);
        command.env("COUNTERFOIL_WRITER_RUN", format!("{} {} {}", self.seed, self.number, u64::from(self.skip_sync)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// The run that this process was started for, if it was.
    pub fn of_this_process() -> Option<(Run, PathBuf)> {
        let store = std::env::var_os("COUNTERFOIL_WRITER_STORE")?;
        let numbers: Vec<u64> = std::env::var("COUNTERFOIL_WRITER_RUN").ok()?.split(' ').map(|n| n.parse().unwrap()).collect();
        Some((Run { skip_sync: numbers[2] == 1, ..Run::new(numbers[0], numbers[1]) }, store.into()))
    }
}

/// An event that a run submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub run: u64,
    pub task: u64,
    pub index: u64,
    pub id: Option<EventId>,
}

/// Nanoseconds since 1970.
pub fn now_nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}

fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // The harness may have begun a line of its own.
    let _ = std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes());
}

/// Carries a run out: the work of the writing process.
pub fn write(run: Run, store: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if run.skip_sync {
        // What is to be found out is lost events, not a store that was never made.
        Store::open(store, &Options::default()).unwrap().0.close().unwrap();
    }
    runtime.block_on(async {
        say(format_args!("opening"));
        let ledger = match Ledger::open_with(store, run.options()).await {
            Ok(ledger) => ledger,
            Err(error) if error.is_refused() => return say(format_args!("refused {error}")),
            Err(error) => return say(format_args!("error {error}")),
        };
        let recovery = ledger.status().recovery.unwrap();
        say(format_args!("opened {} {}", recovery.torn.map_or(0, |torn| torn.bytes), recovery.rewritten_bytes));
        let tasks: Vec<_> = (0..run.tasks).map(|task| tokio::spawn(carry_out(run, task, ledger.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        say(format_args!("closing"));
        match ledger.close().await {
            Ok(report) if report.ledger_error.is_none() => say(format_args!("closed")),
            Ok(report) => say(format_args!("ended {report:?}")),
            Err(error) => say(format_args!("ended {error}")),
        }
    });
}

async fn carry_out(run: Run, task: u64, ledger: Ledger) {
    let mut index = 0;
    for (drafts, durability) in run.plan(task) {
        let events = drafts.len() as u64;
        let append = ledger.append_batch_with(drafts, Conditions::none(), durability);
        let Ok(answer) = tokio::time::timeout(ANSWER_MAX, append).await else {
            // By design an append that has to look something up waits for a mirror that can't be read.
            let blocked = matches!(ledger.status().mirror, MirrorHealth::Blocked { .. });
            return say(format_args!("{} {:?}", if blocked { "waits" } else { "hangs" }, ledger.status()));
        };
        match answer {
            Ok(receipts) => {
                let now = now_nanos();
                for (n, receipt) in receipts.iter().enumerate() {
                    let Receipt { seq, id, event_hash, mirror, .. } = receipt;
                    say(format_args!("ack {task} {} {seq} {id} {event_hash} {mirror:?} {now}", index + n as u64));
                }
            }
            Err(error) => return say(format_args!("error {error}")),
        }
        index += events;
    }
}

/// Appends again, with their ids, all that these runs submitted with ids; each must be there afterwards. Answers how
/// many were there before.
pub fn submit_again(store: &Path, runs: &[Run]) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(store).await.map_err(|error| error.to_string())?;
        let ledger = Arc::new(ledger);
        let mut tasks = Vec::new();
        for run in runs.iter().copied() {
            for task in 0..run.tasks {
                let ledger = ledger.clone();
                tasks.push(tokio::spawn(async move {
                    let mut duplicates = 0;
                    for (drafts, durability) in run.plan(task) {
                        if drafts.iter().any(|draft| draft.given_id().is_none()) {
                            continue;
                        }
                        let receipts = ledger.append_batch_with(drafts, Conditions::none(), durability).await;
                        let receipts = receipts.map_err(|error| format!("appending run {} task {task} again: {error}", run.number))?;
                        duplicates += receipts.iter().filter(|receipt| receipt.duplicate).count() as u64;
                    }
                    Ok::<u64, String>(duplicates)
                }));
            }
        }
        let mut duplicates = 0;
        for task in tasks {
            duplicates += task.await.map_err(|error| error.to_string())??;
        }
        let ledger = Arc::try_unwrap(ledger).map_err(|_| "a task lives on".to_owned())?;
        ledger.close().await.map_err(|error| error.to_string())?;
        Ok(duplicates)
    })
}
