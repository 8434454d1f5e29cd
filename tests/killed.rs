//! Goal: an import that is killed by SIGKILL at any moment, again and again, loses nothing that was acknowledged and
//! records nothing twice; each next open recovers by itself, and the finished store equals one that was never
//! killed, but for recorded_at, group_seq, and the hashes that follow from them.
//!
//! Method: the real command, real signals. Receipts are read from its standard output until it is killed: after a
//! random number of them, or a random time. COUNTERFOIL_KILL_ROUNDS makes the campaign longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "cli")]

mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use counterfoil::*;

const KILLS_A_ROUND: u64 = 4;
const FILES: u64 = 4;
const LINES: u64 = 400;

fn rounds() -> u64 {
    common::campaign("COUNTERFOIL_KILL_ROUNDS", 5)
}

fn write_transcripts(dir: &Path) {
    for file in 0..FILES {
        let mut text = String::new();
        for n in 0..LINES {
            let time = format!("2026-03-0{}T{:02}:{:02}:00.{:03}Z", file + 1, n / 60 % 24, n % 60, n % 1000);
            match file {
                0 | 1 => writeln!(
                    text,
                    r#"{{"type":"user","sessionId":"s-{file}","uuid":"u-{file}-{n}","parentUuid":"u-{file}-{}","timestamp":"{time}","message":{{"role":"user","content":"line {n}"}}}}"#,
                    n.wrapping_sub(1)
                ),
                2 => writeln!(text, r#"{{"timestamp":"{time}","type":"event_msg","payload":{{"type":"agent_message","message":"{n}"}}}}"#),
                // Lines without a time, each third one repeated.
                _ => writeln!(text, r#"{{"n":{}}}"#, n / 3),
            }
            .unwrap();
        }
        std::fs::write(dir.join(format!("transcript-{file}.jsonl")), text).unwrap();
    }
}

fn import(store: &Path, transcripts: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.arg("--store").arg(store).args(["--json", "import", "--receipts"]).arg(transcripts);
    command
}

enum Moment {
    Receipts(u64),
    Time(Duration),
}

/// Runs an import and kills it; answers the receipts that it had given.
fn killed(store: &Path, transcripts: &Path, moment: Moment) -> Vec<(EventId, u64, String)> {
    let mut child = import(store, transcripts).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let reader = |lines: BufReader<std::process::ChildStdout>, most: u64| {
        let mut receipts = Vec::new();
        for line in lines.lines().map_while(Result::ok) {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { break };
            let Some(id) = value.get("id").and_then(|id| id.as_str()) else { continue };
            receipts.push((id.parse().unwrap(), value["seq"].as_u64().unwrap(), value["event_hash"].as_str().unwrap().to_owned()));
            if receipts.len() as u64 >= most {
                break;
            }
        }
        receipts
    };
    match moment {
        Moment::Receipts(count) => {
            let receipts = reader(lines, count);
            child.kill().unwrap();
            child.wait().unwrap();
            receipts
        }
        Moment::Time(time) => {
            let reading = std::thread::spawn(move || reader(lines, u64::MAX));
            std::thread::park_timeout(time); // the random moment
            child.kill().unwrap();
            child.wait().unwrap();
            reading.join().unwrap()
        }
    }
}

/// Every event's fields but those that depend on when and in which company it was written.
fn contents(store: &Path) -> Vec<serde_json::Value> {
    let mut lines = LedgerReader::open(store, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        let undated = event.observed_at == event.recorded_at;
        let mut record = serde_json::to_value(event.to_record()).unwrap();
        let fields = record.as_object_mut().unwrap();
        for key in ["recorded_at", "group_seq", "prev_event_hash", "event_hash"] {
            fields.remove(key);
        }
        if undated {
            fields.remove("observed_at");
        }
        all.push(record);
    }
    all
}

#[test]
fn killed_imports_recover_by_themselves_and_end_as_if_never_killed() {
    let temp = tempfile::tempdir().unwrap();
    let transcripts = temp.path().join("transcripts");
    std::fs::create_dir(&transcripts).unwrap();
    write_transcripts(&transcripts);
    let whole = temp.path().join("whole");
    let started = std::time::Instant::now();
    assert!(import(&whole, &transcripts).stdout(Stdio::null()).status().unwrap().success());
    let run_time = started.elapsed();
    let expected = contents(&whole);
    assert_eq!(expected.len() as u64, FILES * LINES + FILES, "all lines, and a note a file");

    let (mut kills, mut acknowledged, mut in_the_middle) = (0, 0, 0);
    for round in 0..rounds() {
        let mut random = common::Random::new(round);
        let store = temp.path().join(format!("round-{round}"));
        let mut receipts: HashMap<EventId, (u64, String)> = HashMap::new();
        for _ in 0..KILLS_A_ROUND {
            let moment = if random.below(2) == 0 {
                Moment::Receipts(1 + random.below(FILES * LINES))
            } else {
                Moment::Time(Duration::from_micros(random.below(run_time.as_micros() as u64)))
            };
            let given = killed(&store, &transcripts, moment);
            kills += 1;
            acknowledged += given.len();
            for (id, seq, hash) in given {
                let first = receipts.entry(id).or_insert((seq, hash.clone()));
                assert_eq!(*first, (seq, hash), "round {round}: two receipts for {id}");
            }
            // Nobody has opened it since: what was acknowledged is in the file as it is.
            if store.join("ledger.json").exists() {
                let mut lines = LedgerReader::open(&store, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
                let mut there: HashMap<EventId, (u64, String)> = HashMap::new();
                while let Some((_, event)) = lines.next_event().unwrap() {
                    let twice = there.insert(event.id, (event.seq.get(), event.event_hash.to_string()));
                    assert!(twice.is_none(), "round {round}: {} is there twice", event.id);
                }
                in_the_middle += usize::from((1..expected.len()).contains(&there.len()));
                for (id, receipt) in &receipts {
                    assert_eq!(there.get(id), Some(receipt), "round {round}: {id} was acknowledged");
                }
            }
        }
        let output = import(&store, &transcripts).output().unwrap();
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(contents(&store), expected, "round {round}");
        let verified = common::verified(&store);
        assert!(verified.is_clean(), "round {round}: {verified}");
        let parity = common::parity(&store);
        assert!(parity.is_consistent(), "round {round}: {parity}");
        std::fs::remove_dir_all(&store).unwrap();
    }
    eprintln!(
        "{} rounds, {kills} kills ({in_the_middle} in the middle of the events), {acknowledged} receipts before a kill, none lost",
        rounds()
    );
}
