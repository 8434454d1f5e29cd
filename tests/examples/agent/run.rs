//! Runs the agent in a folder: `store` has its ledger, `work` is where its tools work. What runs there once goes on there.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::EntityOptions;

use crate::agent::{Agent, Error, Step};
use crate::conversation::{Call, Conversations, Outcome};
use crate::model::{Bookkeeper, INVOICE, QUESTION};
use crate::tools::{Kind, Tools};

/// The conversation's stream.
pub const STREAM: &str = "invoice-17";

/// The whole program.
pub async fn run(dir: &Path, watch: impl Fn(&str, Step) + Send + Sync + 'static) -> Result<(), Error> {
    let ledger = Ledger::open(dir.join("store")).await?; // one process a store: nobody else works in this folder
    let conversations = ledger.entities(Conversations, EntityOptions::default()).await?;
    let work = dir.join("work");
    let tools = Tools::new(&work)?;
    if !work.join("invoice.txt").exists() {
        fs::write(work.join("invoice.new"), INVOICE)?;
        fs::rename(work.join("invoice.new"), work.join("invoice.txt"))?; // it may be killed here as well
    }
    let agent = Agent { conversations, model: Arc::new(Bookkeeper), tools, watch: Arc::new(watch) };
    agent.converse(STREAM, QUESTION).await?;
    agent.conversations.close().await;
    ledger.close().await?;
    Ok(())
}

/// Prints each step as JSON, and waits for a line before it goes on: so whoever has started this process can kill it at one.
pub fn step(_stream: &str, step: Step) {
    let json = serde_json::to_string(&step).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let told = writeln!(out, "{json}").and_then(|()| out.flush());
    // Whoever is gone is waited for no more.
    let _ = told.and_then(|()| std::io::stdin().read_line(&mut String::new()));
}

/// A step in a line, where it is worth one.
pub fn line(step: &Step) -> Option<String> {
    let (id, so) = match step {
        Step::Found(Call { id, tool }) => {
            let so = match tool.kind() {
                Kind::Repeatable => "it changes nothing, so it is run again",
                Kind::Keyed => "it has a key, so it is run again with that",
                Kind::Unknowable => "it has no key, so it is not run again",
            };
            (id, format!("{tool}: found open; {so}"))
        }
        Step::Called(Call { id, tool }) => (id, tool.to_string()),
        Step::Recorded(Call { id, .. }, Outcome::Done { .. }) => (id, "done".to_owned()),
        Step::Recorded(Call { id, .. }, Outcome::Failed { .. }) => (id, "failed".to_owned()),
        Step::Recorded(Call { id, .. }, Outcome::Interrupted) => (id, "interrupted".to_owned()),
        Step::Begun(_) | Step::Happened(_) => return None,
    };
    Some(format!("{id:<4} {so}"))
}
