//! The demonstration: the agent as a process of its own, killed twice in the middle of a tool call.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Error, Step};
use crate::conversation::Call;
use crate::model::QUESTION;
use crate::tools::Tool;
use crate::{run, show};

/// How long the effect of the shell command is waited for.
const EFFECT_WAIT: Duration = Duration::from_secs(10);

/// When a process is killed.
struct Kill<'a> {
    /// At the first step of which this is true,
    at: fn(&Step) -> bool,
    /// or after it, as soon as this file is there.
    once: Option<&'a Path>,
    /// What is to be said of that moment.
    moment: &'a str,
}

/// Runs the agent in this folder; `agent` is the command that runs it there step by step.
pub fn demonstrate(dir: &Path, agent: &dyn Fn() -> Command, out: &mut dyn Write) -> Result<(), Error> {
    writeln!(out, "An agent that survives being killed. It is asked: {QUESTION}\n\nA process begins.")?;
    let kill = Kill {
        at: |step| matches!(step, Step::Happened(Call { tool: Tool::Pay { .. }, .. })),
        once: None,
        moment: "the bank has paid, and that is recorded nowhere",
    };
    life(agent(), Some(kill), out)?;

    writeln!(out, "\nA second process.")?;
    let books = dir.join("work/books.txt");
    let kill = Kill {
        at: |step| matches!(step, Step::Begun(Call { tool: Tool::Shell { .. }, .. })),
        once: Some(&books),
        moment: "the command has begun",
    };
    life(agent(), Some(kill), out)?;

    writeln!(out, "\nA third process.")?;
    life(agent(), None, out)?;

    writeln!(out, "\nThe conversation, as the ledger has it:")?;
    show::conversation(dir, out)?;
    let orders = fs::read_dir(dir.join("work/bank"))?.count();
    let entered = fs::read_to_string(books)?.lines().count();
    writeln!(out, "\nPaid: {orders} order at the bank. Entered: {entered} line in the books.")?;
    show::checks(dir, out)
}

/// Runs a process up to the moment at which it is killed, or to its end.
fn life(mut agent: Command, kill: Option<Kill<'_>>, out: &mut dyn Write) -> Result<(), Error> {
    let mut child = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut go_on), Some(steps)) = (child.stdin.take(), child.stdout.take()) else { return Err("it has no pipes".into()) };
    for told in BufReader::new(steps).lines() {
        let Ok(step) = serde_json::from_str::<Step>(&told?) else { continue };
        if let Some(line) = run::line(&step) {
            writeln!(out, "  {line}")?;
        }
        if let Some(kill) = kill.as_ref().filter(|kill| (kill.at)(&step)) {
            if let Some(file) = kill.once {
                writeln!(go_on)?;
                wait_for(file)?;
            }
            child.kill()?; // SIGKILL
            child.wait()?;
            writeln!(out, "       SIGKILL: {}", kill.moment)?;
            return Ok(());
        }
        writeln!(go_on)?;
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the agent has failed: {status}").into()) }
}

fn wait_for(file: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + EFFECT_WAIT;
    while !file.exists() {
        if Instant::now() > deadline {
            return Err(format!("{} has not come", file.display()).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
