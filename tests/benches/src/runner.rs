//! Runs cases, a process each: rounds of all cases in random order, then syncs counted under strace.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench_load::{Outcome, Result, Spec};

use crate::machine::touch_memory;
use crate::plan::{Case, Needs, Program};
use crate::results::{Recorder, key};

/// What a case may take beside the seconds that it sends appends for: stores are copied, mirrors drained.
const PATIENCE: Duration = Duration::from_secs(120);
/// A counting run is short.
const COUNTED_SECONDS: f64 = 0.3;
/// Callers of the store that is made for others to read.
const MAKING: usize = 256;

/// Where cases run, and by what.
pub struct Runner {
    /// A directory on the disk that is measured. What the runner makes there it removes.
    pub work: PathBuf,
    pub peers: PathBuf,
    pub seed: u64,
    pub touch_gib: f64,
    /// Stores that cases read, made once.
    pub stores: BTreeMap<String, PathBuf>,
}

impl Runner {
    pub fn new(dir: &Path, peers: PathBuf, seed: u64, touch_gib: f64) -> Result<Runner> {
        let work = dir.join(format!("counterfoil-benches-{}", std::process::id()));
        fs::create_dir_all(&work)?;
        Ok(Runner { work: work.canonicalize()?, peers, seed, touch_gib, stores: BTreeMap::new() })
    }

    /// Makes the stores that cases read.
    pub fn make_stores(&mut self, cases: &[Case]) -> Result<()> {
        for case in cases {
            let (name, program, system, events) = match case.store {
                Needs::Nothing => continue,
                Needs::Ours(events) => (format!("ours-{events}"), Program::Ours, "actors", events),
                Needs::Streams(events, together) => (streams_name(events, together), Program::Ours, streams_make(together), events),
                Needs::Crtx(events) => (format!("crtx-{events}"), Program::Peers, "crtx-make", events),
            };
            if self.stores.contains_key(&name) {
                continue;
            }
            eprintln!("making a store of {events} events ({system})");
            let dir = self.work.join(&name);
            fs::create_dir(&dir)?;
            // crtx-store syncs each event; in memory that costs nothing.
            let memory = Path::new("/dev/shm").join(format!("counterfoil-benches-{}", std::process::id()));
            fs::create_dir_all(&memory)?;
            let spec = Spec {
                system: system.to_owned(),
                dir: dir.clone(),
                in_flight: MAKING,
                seconds: 1e6,
                events_max: events,
                store: Some(memory.clone()),
                ..case.spec.clone()
            };
            let made = run(&self.program(program)?, &spec, Duration::from_secs(3600));
            fs::remove_dir_all(&memory)?;
            made?;
            self.stores.insert(name, dir);
        }
        Ok(())
    }

    /// Runs rounds of all cases, each round in an order of its own.
    pub fn rounds(&mut self, cases: &[Case], rounds: usize, recorder: &mut Recorder) -> Result<()> {
        for round in 0..rounds {
            touch_memory(self.touch_gib);
            for (at, index) in self.order(cases).into_iter().enumerate() {
                let case = &cases[index];
                let outcome = self.case(case).unwrap_or_else(|error| Outcome::skipped(format!("failed: {error}")));
                let key = key(&case.spec);
                let said = outcome.skipped.clone().unwrap_or_else(|| format!("{:.0}/s", outcome.rate()));
                eprintln!("round {}/{rounds}, case {}/{}: {key}: {said}", round + 1, at + 1, cases.len());
                recorder.case(round, &key, outcome)?;
            }
        }
        Ok(())
    }

    /// Counts the syncs of each case that appends, in a run of its own under strace. False where there is no strace.
    pub fn count(&self, cases: &[Case], recorder: &mut Recorder) -> Result<bool> {
        if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
            return Ok(false);
        }
        for case in cases.iter().filter(|case| case.store == Needs::Nothing && case.spec.rate.is_none() && case.spec.events_max == u64::MAX)
        {
            let counted = self.in_fresh_dir(&case.spec, |spec| {
                let counts = self.work.join("strace");
                let mut strace = Command::new("strace");
                strace.args(["-f", "-c", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,sync_file_range,msync,syncfs", "-o"]);
                strace.arg(&counts).arg(self.program(case.program)?);
                let outcome = finish(strace, &Spec { seconds: COUNTED_SECONDS, ..spec }, PATIENCE)?;
                Ok((outcome, fs::read_to_string(counts)?))
            });
            match counted {
                Ok((outcome, counts)) if outcome.skipped.is_none() && outcome.events > 0 => {
                    let key = key(&case.spec);
                    let syncs = calls(&counts) as f64 / outcome.events as f64;
                    eprintln!("counted {key}: {syncs:.4} syncs an event");
                    recorder.counted(&key, syncs)?;
                }
                Ok(_) => {}
                Err(error) => eprintln!("counting {} failed: {error}", key(&case.spec)),
            }
        }
        Ok(true)
    }

    fn case(&self, case: &Case) -> Result<Outcome> {
        let store = match case.store {
            Needs::Nothing => None,
            Needs::Ours(events) => self.stores.get(&format!("ours-{events}")),
            Needs::Streams(events, together) => self.stores.get(&streams_name(events, together)),
            Needs::Crtx(events) => self.stores.get(&format!("crtx-{events}")),
        };
        let program = self.program(case.program)?;
        self.in_fresh_dir(&case.spec, |spec| {
            let patience = PATIENCE + Duration::from_secs_f64(spec.seconds);
            run(&program, &Spec { store: store.cloned(), ..spec }, patience)
        })
    }

    fn in_fresh_dir<T>(&self, spec: &Spec, run: impl FnOnce(Spec) -> Result<T>) -> Result<T> {
        let dir = self.work.join("case");
        fs::create_dir(&dir)?;
        let done = run(Spec { dir: dir.clone(), ..spec.clone() });
        fs::remove_dir_all(&dir)?;
        done
    }

    fn program(&self, program: Program) -> Result<PathBuf> {
        match program {
            Program::Ours => Ok(std::env::current_exe()?),
            Program::Peers => Ok(self.peers.clone()),
        }
    }

    /// A random order, by the seed. Cases that are compared with each other stand near each other, since a disk's mood
    /// changes by the minute: blocks of one number in flight and one payload, or one rate, are in random order, and so are
    /// the cases of each.
    fn order(&mut self, cases: &[Case]) -> Vec<usize> {
        let mut blocks: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, case) in cases.iter().enumerate() {
            let block = match (case.spec.rate, case.spec.events_max) {
                (Some(rate), _) => format!("@{rate}"),
                (None, u64::MAX) => format!("{}/{}", case.spec.in_flight, case.spec.payload),
                // It is compared with both legs at 256 in flight, and writes as they do.
                _ if case.spec.system == "import" => "256/1140".to_owned(),
                // The sizes of one thing beside each other.
                _ if matches!(case.store, Needs::Streams(..)) => case.spec.system.clone(),
                _ => "#".to_owned(),
            };
            blocks.entry(block).or_default().push(index);
        }
        let mut blocks: Vec<Vec<usize>> = blocks.into_values().collect();
        self.shuffle(&mut blocks);
        blocks.iter_mut().for_each(|block| self.shuffle(block));
        blocks.concat()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            items.swap(at, (self.seed % (at as u64 + 1)) as usize);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.work);
    }
}

fn streams_make(together: bool) -> &'static str {
    if together { "streams-make+together" } else { "streams-make" }
}

fn streams_name(events: u64, together: bool) -> String {
    format!("{}-{events}", streams_make(together))
}

/// Runs a case in a process of its own.
pub fn run(program: &Path, spec: &Spec, patience: Duration) -> Result<Outcome> {
    finish(Command::new(program), spec, patience)
}

fn finish(mut command: Command, spec: &Spec, patience: Duration) -> Result<Outcome> {
    let stderr = if spec.system.starts_with("soak") { Stdio::inherit() } else { Stdio::piped() };
    let mut child = command.arg("case").arg(serde_json::to_string(spec)?).stdout(Stdio::piped()).stderr(stderr).spawn()?;
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!("it did not end within {} s", patience.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut out, mut error) = (String::new(), String::new());
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut out)?;
    }
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_string(&mut error)?;
    }
    if !child.wait()?.success() {
        return Err(error.lines().last().unwrap_or("it failed and said nothing").into());
    }
    Ok(serde_json::from_str(out.lines().last().unwrap_or_default())?)
}

/// Sums the calls of `strace -c`, but for sync_file_range, which makes nothing durable.
fn calls(counts: &str) -> u64 {
    let mut sum = 0;
    for line in counts.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, calls, .., "fsync" | "fdatasync" | "msync" | "syncfs"] = words.as_slice() {
            sum += calls.parse::<u64>().unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn calls_are_summed() {
        let counts = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                       99.00    0.012345          12      1000         2 fdatasync\n\
                        1.00    0.000123          12        10           fsync\n\
                        0.00    0.000123          12         7           sync_file_range\n\
                      100.00    0.012468          12      1017         2 total\n";
        assert_eq!(super::calls(counts), 1010);
    }
}
