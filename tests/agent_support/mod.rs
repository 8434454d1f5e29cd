//! The agent of the examples under a script of its own: many conversations at once, each with many calls of every kind.
#![allow(dead_code)] // each test uses some of it

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use counterfoil::actors::entity::EntityOptions;
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::entity::{Codec, Folded, command_id};
use counterfoil::*;

use crate::agent::{Agent, Error, Step};
use crate::conversation::*;
use crate::crash_support::common::Random;
use crate::model::Model;
use crate::tools::{Kind, Tool, Tools};

pub const CONVERSATIONS: u64 = 8;
/// Answers of the model in a conversation, the last one included.
pub const TURNS: usize = 20;
/// The conversation that an older version of the agent has begun.
pub const OLD: &str = "c-0";
/// Small, so that each conversation has many.
pub const SNAPSHOT_EVERY: u64 = 5;

pub fn stream(n: u64) -> String {
    format!("c-{n}")
}

/// A model whose answers depend on what it was asked, on the turn, and on every result that does not depend on chance.
pub struct Script;

impl Model for Script {
    fn answer(&self, conversation: &Conversation) -> Answer {
        let turn = conversation.turn();
        let asked = conversation.said.iter().rev().find_map(|said| match said {
            Said::Asked { text } => Some(text.as_str()),
            _ => None,
        });
        let asked = asked.unwrap();
        let seen = digest(conversation);
        if turn >= TURNS {
            return Answer { text: format!("the end, having seen {seen:016x}"), calls: Vec::new() };
        }
        let mut random = Random::new(asked.bytes().fold(turn as u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte)));
        let calls = if random.chance(2) { 1 } else { 1 + random.below(3) };
        let calls = (1..=calls).map(|n| tool(&mut random, &format!("{asked}/{turn}.{n}/{seen:016x}"))).collect();
        Answer { text: format!("turn {turn}, having seen {seen:016x}"), calls }
    }
}

/// Leaves its text under its key, and a line in the log where the same command is running already. Some take so long that they
/// are still at it when the next process has opened the store.
const KEYED: &str = r#"
f="keyed/$COUNTERFOIL_CALL_ID"
mkdir "$f.running" || echo "twice at once: $1" >> log.txt
[ -e "$f" ] || { sleep "$2"; echo "$1" > "$f.draft" && mv "$f.draft" "$f"; }
rmdir "$f.running"
read -r it < "$f"; echo "$it"
"#;

/// A tool that leaves this text somewhere, or none.
fn tool(random: &mut Random, mark: &str) -> Tool {
    let seconds = if random.chance(5) { "0.3" } else { "0.01" };
    let shell = |command: &str, keyed| Tool::Shell { command: command.to_owned(), args: vec![mark.to_owned(), seconds.to_owned()], keyed };
    match random.below(10) {
        0 => Tool::ReadFile { path: "facts.txt".to_owned() },
        1 => Tool::ReadFile { path: "../store/ledger.json".to_owned() },
        2..=4 => Tool::Pay { to: mark.to_owned(), cents: random.below(100_000) },
        5..=6 => shell(KEYED, true),
        7 => shell("echo \"$1\" >> log.txt; exit 3", false),
        _ => shell("echo \"$1\" >> log.txt", false),
    }
}

/// What was said so far, but for results that may be other ones where the process was killed.
fn digest(conversation: &Conversation) -> u64 {
    let mut hasher = DefaultHasher::new();
    let calls = calls(&conversation.said);
    for said in &conversation.said {
        match said {
            Said::Resulted { call, .. } if calls[call].kind() == Kind::Unknowable => call.hash(&mut hasher),
            said => serde_json::to_string(said).unwrap().hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// The tools that were called, by the ids of the calls.
pub fn calls(said: &[Said]) -> BTreeMap<String, Tool> {
    let call = |said: &Said| match said {
        Said::Called(Call { id, tool }) => Some((id.clone(), tool.clone())),
        _ => None,
    };
    said.iter().filter_map(call).collect()
}

/// The process: has all conversations in this folder, and goes on with those that were begun there.
pub async fn work(dir: &Path) -> Result<(), Error> {
    let mut options = LedgerOptions::default();
    options.store.segment_bytes_max = 64 << 10;
    let ledger = Ledger::open_with(dir.join("store"), options).await?;
    old_history(&ledger).await?;
    let mut options = EntityOptions::default();
    options.snapshot_every = SNAPSHOT_EVERY;
    options.passivate_after = Duration::from_millis(20);
    let conversations = ledger.entities(Conversations, options).await?;
    let work = dir.join("work");
    let tools = Tools::new(&work)?;
    fs::create_dir_all(work.join("keyed"))?;
    fs::write(work.join("facts.txt"), "what nobody changes")?;
    let agent = Arc::new(Agent { conversations, model: Arc::new(Script), tools, watch: Arc::new(tell) });
    let all = (0..CONVERSATIONS).map(|n| {
        let agent = agent.clone();
        tokio::spawn(async move { agent.converse(&stream(n), &format!("q{n}")).await })
    });
    for conversation in all.collect::<Vec<_>>() {
        conversation.await??;
    }
    let Ok(agent) = Arc::try_unwrap(agent) else { return Err("somebody still has the agent".into()) };
    agent.conversations.close().await;
    ledger.close().await?;
    Ok(())
}

/// What a version of the agent that wrote `tool_call.v1` has left: a call that is open.
async fn old_history(ledger: &Ledger) -> Result<(), Error> {
    let draft = |event_type, payload| Draft::new(event_type, Source::Runtime).session(OLD).payload_json(payload);
    let history = vec![
        draft(EventType::USER_MESSAGE, r#"{"text":"from before"}"#)?.id(command_id(OLD, "before")),
        draft(EventType::AGENT_RESPONSE, r#"{"text":"an old answer"}"#)?.id(command_id(OLD, &answer_key(1))),
        draft(EventType::TOOL_CALL, r#"{"id":"1.1","command":"echo an old call >> log.txt"}"#)?.id(command_id(OLD, "call:1.1")),
    ];
    ledger.append_batch(history).await?;
    Ok(())
}

/// A line a step, in one write.
fn tell(stream: &str, step: Step) {
    let line = format!("{}\n", serde_json::to_string(&(stream, step)).unwrap());
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// Steps in what a process has printed. A line that was cut short is none.
pub fn heard(out: &str) -> Vec<(String, Step)> {
    out.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The conversations by the ledger's lines alone, with the ids of the events; what came of a torn tail is not among them.
pub fn by_lines(dir: &Path) -> BTreeMap<String, Vec<(Said, EventId)>> {
    let mut all = BTreeMap::<String, Vec<(Said, EventId)>>::new();
    // A process that is killed early has made no store yet.
    let Ok(reader) = LedgerReader::open(&dir.join("store"), &Options::default()) else { return all };
    let Ok(mut lines) = reader.lines_from(Seq::FIRST) else { return all };
    while let Some((_, event)) = lines.next_event().unwrap() {
        let payload: serde_json::Value = serde_json::from_str(event.payload().unwrap()).unwrap();
        let text = |key: &str| payload[key].as_str().unwrap().to_owned();
        let said = match event.event_type {
            "user_message.v1" => Said::Asked { text: text("text") },
            "agent_response.v1" => Said::Answered { text: text("text") },
            "tool_call.v2" => Said::Called(Call { id: text("id"), tool: serde_json::from_value(payload["tool"].clone()).unwrap() }),
            "tool_call.v1" => {
                Said::Called(Call { id: text("id"), tool: Tool::Shell { command: text("command"), args: Vec::new(), keyed: false } })
            }
            "tool_result.v1" => Said::Resulted { call: text("call"), outcome: serde_json::from_value(payload["outcome"].clone()).unwrap() },
            other => panic!("{other}"),
        };
        all.entry(event.session_id().unwrap().to_owned()).or_default().push((said, event.id));
    }
    all
}

/// A conversation by a fold of its stream, from its first event.
pub fn by_fold(dir: &Path, stream: &str) -> Conversation {
    let codec = Codec::new(&Conversations).unwrap();
    let mut reader = StreamReader::open(dir.join("store"), &Options::default()).unwrap();
    let events: Vec<EventRecord> = reader.events(StreamQuery::new(stream), Seq::MAX).map(Result::unwrap).collect();
    let mut folded = Folded::<Conversations>::default();
    for event in &events {
        let payload = reader.payload(event).unwrap();
        folded.absorb(&Conversations, &codec, event, payload.as_ref().map(|payload| payload.get())).unwrap();
    }
    folded.state
}

/// The texts of the files in a folder of the work folder, by their names; drafts are none.
pub fn effects(dir: &Path, folder: &str) -> BTreeMap<String, String> {
    let Ok(files) = fs::read_dir(dir.join("work").join(folder)) else { return BTreeMap::new() };
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_none());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), fs::read_to_string(&path).unwrap().trim_end().to_owned())).collect()
}

/// The lines that commands without a key have left.
pub fn log(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("work/log.txt")).unwrap_or_default().lines().map(str::to_owned).collect()
}
