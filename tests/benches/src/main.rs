//! Benchmarks of Counterfoil: alone on this disk, or side by side with what could be used instead. See README.md.
//!
//! - `plan` which cases there are · `runner` a process for each, in rounds · `results`, `targets`, `report` (with `entity_report`), `plot` what
//!   came of it · `machine` what it ran on · `growth`, `soak` long runs
//! - `cases` what such a process does: `disk` yardsticks, `core`, `actors`, `sqlite`, `upkeep` (with `transcripts`), `entity` and `streams`
//!   (with `tools`); `settings` their options

mod actors;
mod cases;
mod core;
mod disk;
mod entity;
mod entity_report;
mod growth;
mod machine;
mod plan;
mod plot;
mod report;
mod results;
mod runner;
mod settings;
mod soak;
mod sqlite;
mod streams;
mod targets;
mod tools;
mod transcripts;
mod upkeep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench_load::{Result, Spec};
use clap::{Args, Parser, Subcommand};

use machine::Machine;
use plan::{LARGE, Program, SMALL, Wanted, plan};
use results::{Recorder, Results};
use runner::Runner;

/// Measures Counterfoil on a disk.
#[derive(Parser)]
#[command(name = "counterfoil-benches")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The project alone, on your disk.
    Alone(Rounds),
    /// Side by side with its peers, interleaved.
    SideBySide(Rounds),
    /// Stores of growing size.
    Growth {
        #[command(flatten)]
        place: Place,
        /// Events of each store.
        #[arg(long, value_delimiter = ',', default_value = "100000,1000000,10000000")]
        sizes: Vec<u64>,
        /// How long appends onto it are measured.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        #[arg(long, default_value_t = SMALL)]
        payload: usize,
    },
    /// One store, one long run; a line for each tenth of it.
    Soak {
        #[command(flatten)]
        place: Place,
        #[arg(long, default_value_t = 10_000_000)]
        events: u64,
        #[arg(long, default_value_t = 256)]
        in_flight: usize,
        #[arg(long, default_value_t = SMALL)]
        payload: usize,
        /// Settings, as `preallocate`.
        #[arg(long, value_delimiter = ',')]
        with: Vec<String>,
    },
    /// Writes the report of a run again.
    Report {
        /// The directory that holds its results.jsonl.
        out: PathBuf,
    },
}

#[derive(Args)]
struct Place {
    /// A directory on the disk to measure; what is made there is removed.
    #[arg(long, env = "COUNTERFOIL_BENCH_DIR", default_value = ".")]
    dir: PathBuf,
    /// Memory that is touched before each round, in GiB, so that the page cache has pages that the host has backed.
    #[arg(long, default_value_t = 4.0)]
    touch: f64,
}

#[derive(Args)]
struct Rounds {
    #[command(flatten)]
    place: Place,
    /// Few cases, one short round: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Rounds; all cases of a round are interleaved in random order.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds that each case sends appends for.
    #[arg(long)]
    seconds: Option<f64>,
    /// Events of the stores that are verified, compared, replayed.
    #[arg(long)]
    lines: Option<u64>,
    /// Only cases with one of these in their name, as `actors/16`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Of the order of the cases.
    #[arg(long, default_value_t = 20_261_124)]
    seed: u64,
    /// Don't count syncs under strace.
    #[arg(long)]
    no_count: bool,
    /// The binary of the peers.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/target/release/counterfoil-bench-peers"))]
    peers: PathBuf,
    /// Where results, report and plots go.
    #[arg(long, default_value = "bench-results")]
    out: PathBuf,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|command| command == "case") {
        return bench_load::main(cases::run);
    }
    let done = match Cli::parse().command {
        Command::Alone(rounds) => measure(&rounds, false),
        Command::SideBySide(rounds) => measure(&rounds, true),
        Command::Growth { place, sizes, seconds, payload } => on(&place, false, |runner, machine| {
            eprintln!("{machine:?}");
            print!("{}", growth::growth(&runner.work, &sizes, seconds, payload, place.touch)?.markdown());
            Ok(true)
        }),
        Command::Soak { place, events, in_flight, payload, with } => on(&place, false, |runner, machine| {
            eprintln!("{machine:?}");
            soaked(&runner.work, place.touch, events, in_flight, payload, &with)
        }),
        Command::Report { out } => {
            Results::read(&out.join("results.jsonl")).and_then(|results| write_report(&results, &out).map(|()| true))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does something in a fresh directory on the disk that is asked for, unless that is memory.
fn on(place: &Place, quick: bool, run: impl FnOnce(&mut Runner, Machine) -> Result<bool>) -> Result<bool> {
    let machine = Machine::of(&place.dir);
    if machine.is_in_memory() {
        let what = format!("{} is in memory ({}): name a directory on a disk by --dir", place.dir.display(), machine.file_system);
        if !quick {
            return Err(what.into());
        }
        eprintln!("{what}");
    }
    eprintln!("on {}", machine.file_system);
    let mut runner = Runner::new(&place.dir, PathBuf::new(), 1, place.touch)?;
    run(&mut runner, machine)
}

/// Runs rounds, and writes what came of them.
fn measure(rounds: &Rounds, peers: bool) -> Result<bool> {
    let quick = rounds.quick;
    let wanted = Wanted {
        peers,
        quick,
        seconds: rounds.seconds.unwrap_or(if quick { 0.15 } else { 2.0 }),
        lines: rounds.lines.unwrap_or(if quick { 2_000 } else { 100_000 }),
        sizes: if quick { vec![800] } else { vec![10_000, 100_000, 1_000_000] },
        only: rounds.only.clone(),
    };
    let cases = plan(&wanted);
    if cases.iter().any(|case| case.program == Program::Peers) && !rounds.peers.is_file() {
        let build = "cargo build --release --manifest-path tests/benches/peers/Cargo.toml";
        return Err(format!("{} is not there: run `{build}`", rounds.peers.display()).into());
    }
    std::fs::create_dir_all(&rounds.out)?;
    let count = rounds.rounds.unwrap_or(if quick { 1 } else { 5 });
    on(&rounds.place, quick, |runner, machine| {
        runner.peers = rounds.peers.clone();
        runner.seed = rounds.seed.max(1);
        runner.touch_gib = if quick { rounds.place.touch.min(0.25) } else { rounds.place.touch };
        let mut recorder = Recorder::create(&rounds.out.join("results.jsonl"), machine)?;
        runner.make_stores(&cases)?;
        runner.rounds(&cases, count, &mut recorder)?;
        if !rounds.no_count && !quick && !runner.count(&cases, &mut recorder)? {
            eprintln!("there is no strace, so syncs are not counted");
        }
        write_report(&recorder.results, &rounds.out)?;
        if quick {
            println!("a quick run shows that everything runs; its numbers say nothing");
        }
        let failed = |why: &str| why.starts_with("failed");
        Ok(!recorder.results.outcomes.keys().any(|key| recorder.results.skipped(key).is_some_and(failed)))
    })
}

/// Prints the tables; writes the page and the plots beside the results.
fn write_report(results: &Results, out: &Path) -> Result<()> {
    let mut plots = Vec::new();
    for payload in [SMALL, LARGE] {
        let name = format!("throughput-{payload}.svg");
        if plot::throughput(results, payload, &out.join(&name))? {
            plots.push(name);
        }
    }
    std::fs::write(out.join("BENCHMARKS.md"), report::page(results, &plots))?;
    for sheet in report::sheets(results) {
        print!("{}", sheet.text());
    }
    println!("\nwritten to {}: results.jsonl, BENCHMARKS.md, {}", out.display(), plots.join(", "));
    Ok(())
}

/// A soak in a process of its own; tells how its last part compares with its first.
fn soaked(work: &Path, touch: f64, events: u64, in_flight: usize, payload: usize, with: &[String]) -> Result<bool> {
    machine::touch_memory(touch);
    let dir = work.join("soak");
    std::fs::create_dir(&dir)?;
    let system = [&["soak".to_owned()], with].concat().join("+");
    let spec = Spec { system, dir, in_flight, payload, seconds: 0.0, events_max: events, rate: None, store: None };
    let outcome = runner::run(&std::env::current_exe()?, &spec, Duration::from_secs(4 * 3600))?;
    if let Some(why) = outcome.skipped {
        return Err(why.into());
    }
    let of = |part: u64, name: &str| outcome.more.get(&format!("{part:02} {name}")).copied().unwrap_or(f64::NAN);
    let last = soak::PARTS - 1;
    println!(
        "{} events, {:.0}/s; last tenth ÷ first: rate {:.2}, resident memory {:.2}, WAL {:.2}; peak {} MiB",
        outcome.events,
        outcome.rate(),
        of(last, "rate") / of(0, "rate"),
        of(last, "resident_kib") / of(0, "resident_kib"),
        of(last, "wal_bytes") / of(0, "wal_bytes"),
        outcome.peak_kib / 1024,
    );
    Ok(true)
}
