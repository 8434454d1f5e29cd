//! Goal: a process that runs the actors under load of 64 concurrent appenders and is killed by SIGKILL at any moment, again
//! and again, loses nothing that it acknowledged: the event is in the ledger, and in the mirror too where the receipt said
//! `Mirrored`, before anything is replayed. Nothing is recorded twice, batches are whole, and each appender's events stand in
//! its own order, though each next process repeats what was on its way.
//!
//! Method: this test binary again as the process, real signals, receipts through a pipe, small segments. It is killed after a
//! random number of receipts, or at a random time: while it opens, recovers and replays, works, or closes.
//! COUNTERFOIL_KILLS makes the campaign longer, COUNTERFOIL_KILL_SEED starts it elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(all(unix, feature = "actors"))]

mod crash_support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::*;
use crash_support::common::{self, Random};
use crash_support::*;

const APPENDERS: u64 = 64;
const KILLS_A_ROUND: u64 = 10;

/// The n-th submission of an appender in one life of the process: a single, or each fifth time a batch.
fn submission(life: u64, appender: u64, n: u64) -> Vec<Draft> {
    let events = if (n + appender) % 5 == 4 { 3 } else { 1 };
    let draft = |i| {
        let draft = common::note(&format!("{life}/{appender}/{n}/{i}")).id(common::id(life << 40 | appender << 24 | n << 4 | i));
        if (n + appender) % 7 == 6 { draft } else { draft.session(format!("s-{appender}")) }
    };
    (0..events).map(draft).collect()
}

fn durability(appender: u64, n: u64) -> Durability {
    if (appender + n).is_multiple_of(4) { Durability::Ledger } else { Durability::Mirrored }
}

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::default();
    options.store.segment_bytes_max = 64 << 10;
    options
}

/// One appender: first what may or may not have been recorded when the last process was killed, then one after another.
async fn appender(ledger: Ledger, life: u64, appender: u64, pending: Option<u64>, until: u64) -> Result<(), AppendError> {
    let pending = pending.map(|n| (life - 1, n));
    for (life, n) in pending.into_iter().chain((0..until).map(|n| (life, n))) {
        let batch = submission(life, appender, n);
        say(&ledger.append_batch_with(batch, Conditions::none(), durability(appender, n)).await?);
    }
    Ok(())
}

/// The process that is killed: `directory life until pending,pending,…`.
#[test]
fn process() {
    let Some(role) = role() else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let [dir, life, until, pending] = words[..] else { panic!("{role}") };
    let (life, until): (u64, u64) = (life.parse().unwrap(), until.parse().unwrap());
    let pending: Vec<u64> = pending.split(',').filter_map(|n| n.parse().ok()).collect();
    begin_to_say();
    let work = async {
        let ledger = Ledger::open_with(dir, options()).await?;
        let all = (0..APPENDERS).map(|n| tokio::spawn(appender(ledger.clone(), life, n, pending.get(n as usize).copied(), until)));
        for appender in all.collect::<Vec<_>>() {
            appender.await.unwrap()?;
        }
        ledger.close().await?;
        Ok::<(), Error>(())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(work) {
        println!("error {error}");
        std::process::exit(4);
    }
}

/// When a process is killed.
#[derive(Debug)]
enum Moment {
    Receipts(u64),
    Time(Duration),
}

/// Runs a process until that moment; answers what it said.
fn killed(role: &str, moment: &Moment) -> Vec<Said> {
    let mut child = command(&again("process", role)).spawn().unwrap();
    let (out, mut err) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let listen = move |most: u64| {
        let mut out = out;
        let mut text = String::new();
        let mut receipts = 0;
        while receipts < most && out.read_line(&mut text).unwrap() > 0 {
            receipts += 1;
        }
        (text, out)
    };
    let text = match moment {
        Moment::Receipts(most) => {
            let (mut text, mut rest) = listen(*most);
            child.kill().unwrap();
            // What it had said by then counts too.
            rest.read_to_string(&mut text).unwrap();
            text
        }
        Moment::Time(time) => {
            let listening = std::thread::spawn(move || listen(u64::MAX).0);
            std::thread::park_timeout(*time); // the random moment
            child.kill().unwrap();
            listening.join().unwrap()
        }
    };
    child.wait().unwrap();
    let errors = errors.join().unwrap();
    assert!(!errors.contains("panicked at"), "{errors}");
    let refused: Vec<&str> = text.lines().filter(|line| line.starts_with("error ")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    heard(&text)
}

/// What the lives of one store have acknowledged: how many submissions of each appender, a life each, and every receipt.
#[derive(Default)]
struct Known {
    receipts: HashMap<EventId, (u64, String)>,
    acknowledged: Vec<Vec<u64>>,
}

impl Known {
    /// Takes note of what a life has said; answers what each appender had on its way when it ended.
    fn learn(&mut self, life: u64, said: &[Said], what: &str) -> Vec<u64> {
        for said in said {
            let receipt = (said.seq, said.hash.clone());
            let first = self.receipts.entry(said.id).or_insert_with(|| receipt.clone());
            assert_eq!(*first, receipt, "{what}: two receipts for {}", said.id);
        }
        let acknowledged = |appender, n| {
            let batch = submission(life, appender, n);
            let known = batch.iter().filter(|draft| self.receipts.contains_key(&draft.given_id().unwrap())).count();
            // A batch's receipts come in one write, which the kill may have cut.
            known > 0
        };
        let counts: Vec<u64> = (0..APPENDERS).map(|appender| (0..).find(|n| !acknowledged(appender, *n)).unwrap()).collect();
        self.acknowledged.push(counts.clone());
        counts
    }

    /// Opens the store, which must need nobody's help, and checks it against what is known.
    fn check(&self, dir: &Path, what: &str) -> usize {
        let (store, _) = Store::open(dir, &options().store).unwrap_or_else(|error| panic!("{what}: {error}"));
        store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        let there = recorded(dir, what);
        for (id, receipt) in &self.receipts {
            assert_eq!(there.get(id), Some(receipt), "{what}: {id} was acknowledged");
        }
        let mut submitted = 0;
        for appender in 0..APPENDERS {
            let mut last = 0;
            for (life, counts) in self.acknowledged.iter().enumerate() {
                // All that was acknowledged, and of what was on its way at the end the whole or nothing.
                for n in 0..=counts[appender as usize] {
                    let batch = submission(life as u64, appender, n);
                    let seqs: Vec<u64> = batch.iter().filter_map(|draft| Some(there.get(&draft.given_id().unwrap())?.0)).collect();
                    assert!(seqs.is_empty() || seqs.len() == batch.len(), "{what}: a part of a batch is there");
                    assert!(seqs.len() == batch.len() || n == counts[appender as usize], "{what}: {life}/{appender}/{n} is missing");
                    for seq in &seqs {
                        assert!(*seq > last, "{what}: {life}/{appender}/{n} comes before what was acknowledged before it was sent");
                        last = *seq;
                    }
                    submitted += seqs.len();
                }
            }
        }
        assert_eq!(there.len(), submitted, "{what}: nothing else is there");
        equal_legs(dir, there.len(), what);
        submitted
    }
}

#[test]
fn what_killed_actors_have_acknowledged_is_there_once() {
    if role().is_some() {
        return;
    }
    let kills = common::campaign("COUNTERFOIL_KILLS", 40);
    let first = common::campaign("COUNTERFOIL_KILL_SEED", 0);
    let temp = tempfile::tempdir().unwrap();
    let (mut done, mut receipts, mut mirrored, mut events, mut silent) = (0, 0, 0, 0, 0);
    for seed in first.. {
        let what = format!("COUNTERFOIL_KILL_SEED={seed}");
        let mut random = Random::new(seed);
        let dir = temp.path().join(format!("store-{seed}"));
        let mut known = Known::default();
        let mut pending = Vec::new();
        for life in 0..KILLS_A_ROUND {
            let until = if random.chance(4) { random.below(8) } else { u64::MAX };
            let moment = match random.below(3) {
                0 => Moment::Receipts(1 + random.below(2000)),
                1 => Moment::Time(Duration::from_micros(random.below(60_000))),
                _ => Moment::Time(Duration::from_micros(random.below(400_000))),
            };
            let pending_text = pending.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            let said = killed(&format!("{} {life} {until} {pending_text}", dir.display()), &moment);
            let what = format!("{what}, life {life}, {moment:?}");
            check_rows(&dir, &said, &what);
            pending = known.learn(life, &said, &what);
            done += 1;
            silent += u64::from(said.is_empty());
            receipts += said.len();
            mirrored += said.iter().filter(|said| said.mirrored).count();
        }
        events += known.check(&dir, &what);
        std::fs::remove_dir_all(&dir).unwrap();
        if done >= kills {
            break;
        }
    }
    assert!(receipts > 0 && mirrored > 0, "some were acknowledged before the kill");
    eprintln!(
        "{done} kills ({silent} before the first receipt), {receipts} receipts, {mirrored} of them mirrored, {events} events: none lost, none twice"
    );
}
