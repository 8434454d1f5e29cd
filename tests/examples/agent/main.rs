//! A small tool-calling agent whose conversation is an entity on the ledger, and that can be killed at any moment.
//!
//! ```text
//! cargo run --example agent               kill it twice in the middle of a tool call, and see
//! cargo run --example agent -- run DIR    run it in a folder; what was begun there goes on
//! cargo run --example agent -- show DIR   what it has said and done there
//! ```
//!
//! - `conversation` the entity: commands, events, state, and which calls are open · `agent` the loop · `tools` and `shell` what it can
//!   do · `model` what it is told to
//! - `run` the program · `demo` kills it · `show` reads what is recorded

#![allow(clippy::print_stdout, clippy::print_stderr)] // it is a program

mod agent;
mod conversation;
mod demo;
mod model;
mod run;
mod shell;
mod show;
mod tools;

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::agent::{Error, Step};

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match obey(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(args: &[String]) -> Result<(), Error> {
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => tokio::task::block_in_place(demonstrate),
        ["run", dir] => {
            run::run(Path::new(dir), tell).await?;
            println!("Done. What was said: cargo run --example agent -- show {dir}");
            Ok(())
        }
        ["run", dir, "--steps"] => run::run(Path::new(dir), run::step).await,
        ["show", dir] => {
            show::conversation(Path::new(dir), &mut std::io::stdout())?;
            show::checks(Path::new(dir), &mut std::io::stdout())
        }
        _ => Err("use `agent`, `agent run DIR` or `agent show DIR`".into()),
    }
}

fn tell(_: &str, step: Step) {
    if let Some(line) = run::line(&step) {
        println!("{line}");
    }
}

fn demonstrate() -> Result<(), Error> {
    let dir = tempfile::Builder::new().prefix("counterfoil-agent-").tempdir()?.keep();
    let exe = std::env::current_exe()?;
    let agent = || {
        let mut agent = Command::new(&exe);
        agent.arg("run").arg(&dir).arg("--steps");
        agent
    };
    demo::demonstrate(&dir, &agent, &mut std::io::stdout())?;
    println!("Look around: {}", dir.display());
    Ok(())
}
