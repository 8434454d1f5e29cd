//! Goal: an agent that is killed by SIGKILL at any moment, again and again, has each effect that has a key done exactly once, and each
//! that has none at most once; it loses no call and leaves none open, and what it says is what an agent says that nobody kills.
//!
//! Method: the worked agent of the examples, in this test binary again as the process, with eight conversations at once through one
//! registry, a snapshot every five events, and real files and commands. It is killed a random time after a random number of steps:
//! while it opens, answers, records, or runs a tool. After each kill no effect is there whose call is not recorded; when it has come to
//! its end, calls, results, effects and states are compared with each other, and with those of a process that nobody killed.
//! COUNTERFOIL_AGENT_KILLS makes the campaign longer, COUNTERFOIL_AGENT_SEED starts it elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(all(unix, feature = "actors"))]

#[path = "examples/agent/agent.rs"]
mod agent;
mod agent_support;
#[path = "examples/agent/conversation.rs"]
mod conversation;
mod crash_support;
#[allow(dead_code)]
#[path = "examples/agent/model.rs"]
mod model;
#[path = "examples/agent/shell.rs"]
mod shell;
#[path = "examples/agent/tools.rs"]
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use agent::Step;
use agent_support::*;
use conversation::*;
use counterfoil::actors::Ledger;
use counterfoil::actors::entity::EntityOptions;
use counterfoil::entity::{Entity, Snapshots};
use counterfoil::{EventId, Manifest};
use crash_support::common::{self, Random};
use crash_support::{again, begin_to_say, command, equal_legs, role};
use tools::{Kind, Tool};

const KILLS_A_ROUND: u64 = 12;
/// What the test harness prints before the process says anything.
const HARNESS_LINES: u64 = 3;

/// The process that is killed: its role is the folder.
#[test]
fn process() {
    let Some(dir) = role() else { return };
    begin_to_say();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(work(Path::new(&dir))) {
        println!("error {error}");
        std::process::exit(4);
    }
    println!("finished");
}

/// When a process is killed: so long after so many steps.
#[derive(Clone, Copy, Debug)]
struct Moment {
    steps: u64,
    time: Duration,
}

impl Moment {
    fn of(random: &mut Random) -> Moment {
        let (steps, micros) = match random.below(6) {
            0 => (0, 60_000), // about as long as it takes to open
            1 => (0, 400_000),
            _ => (1 + random.below(160), 20_000),
        };
        Moment { steps, time: Duration::from_micros(random.below(micros)) }
    }
}

/// Runs a process until that moment, or to its end. Answers its steps, and whether it came to its end.
fn life(dir: &Path, moment: Option<Moment>, what: &str) -> (Vec<(String, Step)>, bool) {
    let mut child = command(&again("process", dir.to_str().unwrap())).spawn().unwrap();
    let (mut out, mut err) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let mut text = String::new();
    if let Some(Moment { steps, time }) = moment {
        let mut lines = 0;
        while lines < HARNESS_LINES + steps && out.read_line(&mut text).unwrap() > 0 {
            lines += 1;
        }
        std::thread::park_timeout(time); // the random moment
        child.kill().unwrap();
    }
    // What it had said by then counts too.
    out.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    let errors = errors.join().unwrap();
    assert!(!errors.contains("panicked at"), "{what}: {errors}");
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("error ")).collect();
    assert!(failed.is_empty(), "{what}: {failed:?}");
    (agent_support::heard(&text), text.ends_with("finished\n") || text.contains("\nfinished\n"))
}

/// Where the conversations were at the kills.
#[derive(Debug, Default)]
struct Moments {
    kills: u64,
    unbegun: u64,
    before_intent: u64,
    before_effect: u64,
    in_effect: u64,
    before_result: u64,
    elsewhere: u64,
}

impl Moments {
    /// Takes note of a kill; `said` is what was recorded by then.
    fn note(&mut self, steps: &[(String, Step)], said: &BTreeMap<String, Vec<(Said, EventId)>>) {
        self.kills += 1;
        self.unbegun += u64::from(steps.is_empty());
        for n in 0..CONVERSATIONS {
            let name = stream(n);
            let mine = || steps.iter().filter(|(stream, _)| *stream == name).map(|(_, step)| step);
            let said: Vec<&Said> = said.get(&name).into_iter().flatten().map(|(said, _)| said).collect();
            // Calls are carried out one after another.
            let open = said.iter().find_map(|called| match called {
                Said::Called(Call { id, .. }) if said.iter().all(|said| !is_result_of(said, id)) => Some(id.clone()),
                _ => None,
            });
            let is_over = said.len() > 3 && matches!(said.last(), Some(Said::Answered { .. }));
            let counter = match open {
                _ if mine().next().is_none() => &mut self.elsewhere,
                None if is_over => &mut self.elsewhere,
                None => &mut self.before_intent,
                Some(id) if mine().any(|step| matches!(step, Step::Happened(call) if call.id == id)) => &mut self.before_result,
                Some(id) if mine().any(|step| matches!(step, Step::Begun(call) if call.id == id)) => &mut self.in_effect,
                Some(_) => &mut self.before_effect,
            };
            *counter += 1;
        }
    }
}

fn is_result_of(said: &Said, id: &str) -> bool {
    matches!(said, Said::Resulted { call, .. } if call == id)
}

/// Every mark that a tool was to leave: by stream and call.
fn marks(said: &BTreeMap<String, Vec<(Said, EventId)>>) -> BTreeMap<(String, String), Tool> {
    let mut marks = BTreeMap::new();
    for (stream, said) in said {
        let said: Vec<Said> = said.iter().map(|(said, _)| said.clone()).collect();
        marks.extend(calls(&said).into_iter().map(|(id, tool)| ((stream.clone(), id), tool)));
    }
    marks
}

/// The mark itself: what a call leaves in a file.
fn mark(tool: &Tool) -> String {
    match tool {
        Tool::Pay { to, cents } => format!("{}.{:02} to {to}", cents / 100, cents % 100),
        Tool::Shell { args, .. } => args.first().cloned().unwrap_or("an old call".to_owned()),
        Tool::ReadFile { .. } => String::new(),
    }
}

/// No effect is there whose call is not recorded. Effects must have been looked up before what is recorded was.
fn check_intents(effects: Vec<String>, said: &BTreeMap<String, Vec<(Said, EventId)>>, what: &str) {
    let intended: BTreeSet<String> = marks(said).values().map(mark).collect();
    for effect in effects {
        assert!(intended.contains(&effect), "{what}: `{effect}` was done, and nothing says that it was to be");
    }
}

fn all_effects(dir: &Path) -> Vec<String> {
    let keyed = effects(dir, "bank").into_values().chain(effects(dir, "keyed").into_values());
    keyed.chain(log(dir)).collect()
}

/// Each call has one result, behind it; each effect that has a key is there once, each other one as its result says.
fn check_effects(dir: &Path, found: &BTreeSet<(String, String)>, what: &str) -> (usize, usize) {
    let said = by_lines(dir);
    assert_eq!(said.len() as u64, CONVERSATIONS, "{what}");
    let (mut bank, mut keyed) = (effects(dir, "bank"), effects(dir, "keyed"));
    let mut logged = BTreeMap::<String, usize>::new();
    for line in log(dir) {
        *logged.entry(line).or_default() += 1;
    }
    let (all, mut interrupted) = (marks(&said), 0);
    for ((stream, id), tool) in &all {
        let what = format!("{what}: {stream} {id} {tool}");
        let said = &said[stream];
        let called = said.iter().position(|(said, _)| matches!(said, Said::Called(call) if call.id == *id)).unwrap();
        let results: Vec<usize> = (0..said.len()).filter(|at| is_result_of(&said[*at].0, id)).collect();
        assert_eq!(results.len(), 1, "{what}: has one result");
        assert!(results[0] > called, "{what}");
        let (Said::Resulted { outcome, .. }, result) = &said[results[0]] else { panic!("{what}") };
        assert_eq!(*result, effect_key(stream, id), "{what}: the effect's key is the id of its result");
        let (key, mark) = (result.to_string(), mark(tool));
        let is_done = matches!(outcome, Outcome::Done { .. });
        match tool {
            Tool::Pay { .. } => assert_eq!((bank.remove(&key), is_done), (Some(mark), true), "{what}"),
            Tool::Shell { keyed: true, .. } => assert_eq!((keyed.remove(&key), is_done), (Some(mark), true), "{what}"),
            Tool::Shell { keyed: false, .. } if *outcome == Outcome::Interrupted => {
                interrupted += 1;
                assert!(found.contains(&(stream.clone(), id.clone())), "{what}: it was found open");
                assert!(logged.remove(&mark).unwrap_or(0) <= 1, "{what}: done twice");
            }
            Tool::Shell { keyed: false, .. } => assert_eq!(logged.remove(&mark), Some(1), "{what}: done as often as it says"),
            Tool::ReadFile { .. } => assert_ne!(*outcome, Outcome::Interrupted, "{what}"),
        }
    }
    assert!(bank.is_empty() && keyed.is_empty() && logged.is_empty(), "{what}: nobody asked for {bank:?} {keyed:?} {logged:?}");
    (all.len(), interrupted)
}

/// What was said is what is said where nobody kills, but for results of calls that were interrupted.
fn check_said(dir: &Path, calm: &Path, what: &str) {
    for n in 0..CONVERSATIONS {
        let (killed, calm) = (by_fold(dir, &stream(n)), by_fold(calm, &stream(n)));
        let tools = calls(&calm.said);
        assert!(killed.open.is_empty() && killed.is_over(), "{what}: conversation {n}");
        assert_eq!(killed.said.len(), calm.said.len(), "{what}: conversation {n}");
        for (killed, calm) in killed.said.iter().zip(&calm.said) {
            match (killed, calm) {
                (Said::Resulted { call: a, outcome: Outcome::Interrupted }, Said::Resulted { call: b, .. }) => {
                    assert_eq!((a, tools[a].kind()), (b, Kind::Unknowable), "{what}: conversation {n}");
                }
                _ => assert_eq!(killed, calm, "{what}: conversation {n}"),
            }
        }
    }
}

/// Entities, from their snapshots, are what a fold of their streams from the beginning is; both legs of the store are right.
fn check_states(dir: &Path, what: &str) {
    let store = dir.join("store");
    let manifest = Manifest::load(&counterfoil::FsStorage, &store).unwrap().unwrap();
    let mut snapshots = Snapshots::open(&store, manifest.ledger_id, Duration::from_secs(5)).unwrap();
    for n in 0..CONVERSATIONS {
        let snapshot = snapshots.load(Conversations::NAME, Conversations::STATE_VERSION, &stream(n)).unwrap();
        assert!(snapshot.is_some_and(|snapshot| snapshot.session_seq > SNAPSHOT_EVERY), "{what}: conversation {n} has a snapshot");
    }
    drop(snapshots);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = Ledger::open(&store).await.unwrap();
        let conversations = ledger.entities(Conversations, EntityOptions::default()).await.unwrap();
        for n in 0..CONVERSATIONS {
            let state = conversations.read(stream(n), Clone::clone).await.unwrap();
            assert_eq!(state, by_fold(dir, &stream(n)), "{what}: conversation {n}");
        }
        conversations.close().await;
        ledger.close().await.unwrap();
    });
    let events = by_lines(dir).values().map(Vec::len).sum();
    equal_legs(&store, events, what);
}

#[test]
fn a_killed_agent_does_everything_once() {
    if role().is_some() {
        return;
    }
    let kills = common::campaign("COUNTERFOIL_AGENT_KILLS", 12);
    let first = common::campaign("COUNTERFOIL_AGENT_SEED", 0);
    let temp = tempfile::tempdir().unwrap();
    let calm = temp.path().join("calm");
    assert!(life(&calm, None, "calm").1);
    assert_eq!(check_effects(&calm, &BTreeSet::from([(OLD.to_owned(), "1.1".to_owned())]), "calm").1, 1, "the old call");
    check_states(&calm, "calm");

    let mut moments = Moments::default();
    let (mut rounds, mut calls, mut interrupted, mut found_open) = (0, 0, 0, 0);
    for seed in first.. {
        let mut random = Random::new(seed);
        let dir = temp.path().join(format!("round-{seed}"));
        let mut found = BTreeSet::new();
        let mut learn = |steps: &[(String, Step)]| {
            for (stream, step) in steps {
                if let Step::Found(call) = step {
                    found.insert((stream.clone(), call.id.clone()));
                }
            }
        };
        for life_of_round in 0..KILLS_A_ROUND {
            let moment = Moment::of(&mut random);
            let what = format!("COUNTERFOIL_AGENT_SEED={seed}, life {life_of_round}, {moment:?}");
            let (steps, is_finished) = life(&dir, Some(moment), &what);
            learn(&steps);
            if is_finished {
                break;
            }
            let effects = all_effects(&dir);
            let said = by_lines(&dir);
            check_intents(effects, &said, &what);
            moments.note(&steps, &said);
        }
        let what = format!("COUNTERFOIL_AGENT_SEED={seed}");
        let (steps, is_finished) = life(&dir, None, &what);
        learn(&steps);
        assert!(is_finished, "{what}");
        let (all, cut) = check_effects(&dir, &found, &what);
        check_said(&dir, &calm, &what);
        check_states(&dir, &what);
        (rounds, calls, interrupted, found_open) = (rounds + 1, calls + all, interrupted + cut, found_open + found.len());
        std::fs::remove_dir_all(&dir).unwrap();
        if moments.kills >= kills {
            break;
        }
    }
    assert!(moments.in_effect + moments.before_effect + moments.before_result > 0, "calls were cut: {moments:?}");
    eprintln!(
        "{} kills ({} before the first step) in {rounds} rounds of {CONVERSATIONS} conversations: {calls} calls, {found_open} found open, \
         {interrupted} of them interrupted; every effect once, no call lost, none open",
        moments.kills, moments.unbegun
    );
    eprintln!(
        "conversations at the kills: {} before an intent, {} between intent and effect, {} in the effect, {} between effect and result, {} \
         elsewhere",
        moments.before_intent, moments.before_effect, moments.in_effect, moments.before_result, moments.elsewhere
    );
}
