//! Goal: an erasure that is killed by SIGKILL, at whatever step, has after the next open either not begun, and everything is as it
//! was, or it is complete, and nothing of the payloads is left in any file. It is never half.
//!
//! Method: real signals to real processes: this test binary again, which tells each step that it comes to, killed at the nth of them;
//! and the command, killed at a random time. What the killed process has left is looked at before anyone opens it, so that
//! the report says how many kills were in the middle. COUNTERFOIL_ERASE_KILLS makes the campaign longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(all(unix, feature = "cli"))]

mod crash_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use counterfoil::*;
use crash_support::common::{self, copy_dir, secrets, small_segments};
use crash_support::*;

/// The process: erases in the directory that it is given, and says each step.
#[test]
fn process() {
    let Some(dir) = role() else { return };
    let mut options = small_segments();
    options.failpoint = Some(Arc::new(|point| {
        println!("step {point}");
        Ok(())
    }));
    begin_to_say();
    erase(Path::new(&dir), &options, &secrets::erasure()).unwrap();
}

/// Runs the process and kills it once it has said so many steps; answers the last one that it said.
fn killed_at_step(dir: &Path, steps: usize) -> (Option<String>, usize) {
    let mut child = command(&again("process", dir.to_str().unwrap())).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = lines.filter_map(|line| line.strip_prefix("step ").map(str::to_owned));
    let (mut last, mut count) = (None, 0);
    while count < steps {
        let Some(step) = said.next() else { break };
        (last, count) = (Some(step), count + 1);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (last, count)
}

fn cli(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.env_remove("COUNTERFOIL_STORE").arg("--store").arg(dir).arg("erase");
    for seq in secrets::SECRET {
        command.arg("--seq").arg(seq.to_string());
    }
    command.args(["--reason", "a test", "--by", "its author"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn killed_after(dir: &Path, time: Duration) {
    let mut child = cli(dir).spawn().unwrap();
    std::thread::park_timeout(time); // the random moment
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a killed process has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    NotBegun,
    Recorded,
    PartlyDone,
    Complete,
}

fn left(dir: &Path) -> Left {
    let now = common::verified(dir);
    let has_payload = !secrets::secrets_in(dir).is_empty();
    match (now.erasures_count, now.erased) {
        (0, _) => Left::NotBegun,
        (_, 0) => Left::Recorded,
        _ if now.not_yet_erased > 0 || has_payload => Left::PartlyDone,
        _ => Left::Complete,
    }
}

#[test]
fn it_has_not_begun_or_is_complete() {
    if role().is_some() {
        return;
    }
    let temp = memory_dir();
    let prepared = temp.path().join("prepared");
    secrets::filled(&prepared, &small_segments());
    let whole = temp.path().join("whole");
    copy_dir(&prepared, &whole);
    let (_, steps) = killed_at_step(&whole, usize::MAX);
    let timed = temp.path().join("timed");
    copy_dir(&prepared, &timed);
    let started = Instant::now();
    assert!(cli(&timed).status().unwrap().success());
    let run_time = started.elapsed();

    let mut random = common::Random::new(0xe5a5e);
    let kills = common::campaign("COUNTERFOIL_ERASE_KILLS", 24);
    let mut found: BTreeMap<Left, u64> = BTreeMap::new();
    let mut at: BTreeMap<String, u64> = BTreeMap::new();
    for n in 0..kills {
        let dir = temp.path().join("killed");
        copy_dir(&prepared, &dir);
        let what = if n % 2 == 0 {
            // Each step in its turn, not one after the other.
            let step = (n / 2) as usize * 23 % steps + 1;
            let (last, _) = killed_at_step(&dir, step);
            let last = last.unwrap_or_default();
            *at.entry(last.clone()).or_default() += 1;
            format!("kill {n} at step {step}, {last}")
        } else {
            let time = Duration::from_micros(random.below(run_time.as_micros() as u64 * 5 / 4));
            killed_after(&dir, time);
            format!("kill {n} after {time:?}")
        };
        *found.entry(left(&dir)).or_default() += 1;
        secrets::check_all_or_nothing(&dir, &small_segments(), &what);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    eprintln!("{kills} kills, {steps} steps: left {found:?}; after the next open none was half done; killed at {at:?}");
    assert!(found.len() > 1, "all kills found the same: {found:?}");
}
