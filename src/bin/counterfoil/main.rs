//! `counterfoil`, the command: parse, call the library, print, exit code. What others could use is in the library.
//!
//! - `args` what can be said on the command line · `context` the store and options that every command gets
//! - `out` standard output · `failure` errors and exit codes · `text`, `progress` how things are shown
//! - a file a command, or a family of them

mod append;
mod args;
mod check;
mod checkpoint;
mod compress;
mod context;
mod demo;
mod doctor;
mod erase;
mod export;
mod failure;
mod import;
mod init;
mod keys;
mod line;
mod mend;
mod out;
mod progress;
mod prove;
mod query;
mod sessions;
mod show;
mod stats;
mod tail;
mod text;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use context::Context;
use failure::{Exit, Failure};
use out::Out;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let (context, mut out) = (Context::new(&cli), Out::new(cli.json));
    let done = start_log().and_then(|()| run(cli.command, &context, &mut out)).and_then(|exit| out.flush().map(|()| exit));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // What was printed before it is printed; if nobody reads it any more, there is nobody to tell.
            let _ = out.flush();
            failure.report(&context)
        }
    }
}

fn run(command: Command, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, context, out),
        Command::Init => init::run(context, out),
        Command::Append(args) => append::run(args, context, out),
        Command::Import(args) => import::run(args, context, out),
        Command::Export(args) => export::run(&args, context, out),
        Command::Tail(args) => tail::run(&args, context, out),
        Command::Show(args) => show::run(&args, context, out),
        Command::Sessions(args) => sessions::sessions(&args, context, out),
        Command::Stream(args) => sessions::stream(&args, context, out),
        Command::Query(args) => query::query(&args, context, out),
        Command::Stats => stats::run(context, out),
        Command::Verify(args) => check::verify(&args, context, out),
        Command::Parity(args) => check::parity(&args, context, out),
        Command::Replay => mend::replay(context, out),
        Command::Repair(args) => mend::repair(&args, context, out),
        Command::Compress(args) => compress::run(&args, context, out),
        Command::Checkpoint(args) => checkpoint::run(&args, context, out),
        Command::Prove(args) => prove::prove(&args, context, out),
        Command::CheckProof(args) => prove::check(&args, out),
        Command::Keys(command) => keys::run(command, context, out),
        Command::Erase(args) => erase::run(args, context, out),
        Command::Doctor(args) => doctor::run(&args, context, out),
        Command::Completions(args) => completions(args.shell, out),
    }
}

fn completions(shell: clap_complete::Shell, out: &mut Out) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "counterfoil", &mut script);
    out.raw(&script)?;
    Ok(Exit::Fine)
}

/// Prints help, version or what is wrong with the command line.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let message = error.to_string();
        return failure::report_json(failure::USAGE, message.trim_end().trim_start_matches("error: "));
    }
    // A closed pipe is no reason to fail: nobody reads it.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS }
}

/// Logs go to standard error, as `COUNTERFOIL_LOG` asks for; by default there are none: what a person must know, the
/// commands say.
fn start_log() -> Result<(), Failure> {
    let wanted = std::env::var("COUNTERFOIL_LOG").unwrap_or_else(|_| "off".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&wanted)
        .map_err(|error| Failure::usage(format!("COUNTERFOIL_LOG: {error}; write a level, as in COUNTERFOIL_LOG=debug")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).compact().init();
    Ok(())
}
