//! The model. A real one is asked over the network; this one follows a script, and is a pure function of the conversation so far.

use std::future::{Future, ready};
use std::pin::Pin;

use crate::conversation::{Answer, Call, Conversation, Outcome, Said};
use crate::tools::Tool;

/// An answer that is to come.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

pub trait Model: Send + Sync + 'static {
    /// What comes next.
    fn answer<'a>(&'a self, conversation: &'a Conversation) -> Answering<'a>;
}

/// What the bookkeeper is asked.
pub const QUESTION: &str = "Pay invoice.txt, and enter it in books.txt.";
/// What is in invoice.txt.
pub const INVOICE: &str = "12000 cents to ACME";

/// Pays an invoice and enters it in the books.
pub struct Bookkeeper;

impl Model for Bookkeeper {
    fn answer<'a>(&'a self, conversation: &'a Conversation) -> Answering<'a> {
        Box::pin(ready(Bookkeeper::next(conversation)))
    }
}

impl Bookkeeper {
    fn next(conversation: &Conversation) -> Answer {
        let Some((tool, outcome)) = last_result(conversation) else {
            return call("First the invoice.", read("invoice.txt"));
        };
        match (tool, outcome) {
            (Tool::ReadFile { path }, Outcome::Done { output }) if path == "invoice.txt" => match output.split_once(" cents to ") {
                Some((cents, to)) if cents.parse::<u64>().is_ok() => {
                    call("I pay it.", Tool::Pay { to: to.trim().to_owned(), cents: cents.parse().unwrap_or_default() })
                }
                _ => say("That is no invoice that I can read."),
            },
            (Tool::Pay { .. }, Outcome::Done { output }) => call("Now the books.", enter(output)),
            (Tool::Shell { .. }, Outcome::Done { .. }) => say("Paid, and entered."),
            (Tool::Shell { .. }, Outcome::Interrupted) => call("I don't know whether that was carried out. I look.", read("books.txt")),
            (Tool::ReadFile { .. }, Outcome::Done { output: books }) => match order(conversation) {
                Some(order) if !books.contains(order) => call("It was not.", enter(order)),
                _ => say("It was: paid, and entered, once."),
            },
            // There are no books yet.
            (Tool::ReadFile { path }, Outcome::Failed { .. }) if path == "books.txt" => match order(conversation) {
                Some(order) => call("It was not.", enter(order)),
                None => say("There is nothing to enter."),
            },
            (tool, _) => say(&format!("I can't go on: {tool} has failed.")),
        }
    }
}

fn say(text: &str) -> Answer {
    Answer { text: text.to_owned(), calls: Vec::new() }
}

fn call(text: &str, tool: Tool) -> Answer {
    Answer { text: text.to_owned(), calls: vec![tool] }
}

fn read(path: &str) -> Tool {
    Tool::ReadFile { path: path.to_owned() }
}

fn enter(order: &str) -> Tool {
    Tool::Shell { command: "echo \"$1\" >> books.txt".to_owned(), args: vec![order.to_owned()], keyed: false }
}

/// The last call that has a result, and that.
fn last_result(conversation: &Conversation) -> Option<(&Tool, &Outcome)> {
    results(conversation).last()
}

/// What the bank has answered.
fn order(conversation: &Conversation) -> Option<&str> {
    results(conversation).find_map(|result| match result {
        (Tool::Pay { .. }, Outcome::Done { output }) => Some(output.as_str()),
        _ => None,
    })
}

fn results(conversation: &Conversation) -> impl Iterator<Item = (&Tool, &Outcome)> {
    let tool_of = |id: &str| {
        conversation.said.iter().find_map(|said| match said {
            Said::Called(Call { id: called, tool }) if called == id => Some(tool),
            _ => None,
        })
    };
    conversation.said.iter().filter_map(move |said| match said {
        Said::Resulted { call, outcome } => Some((tool_of(call)?, outcome)),
        _ => None,
    })
}
