//! Codex CLI's rollout files: what a line means. Called by the reader, line by line. Pure but for [`Known`].
//!
//! | line | event_type | source |
//! |---|---|---|
//! | `response_item` message, role `assistant`; reasoning | agent_response | child_agent(model of the latest `turn_context`) |
//! | `response_item` message, role `user` | user_message | user (also what the runtime wrote in the user's name) |
//! | `response_item` message, other roles | system_note | runtime |
//! | `response_item` `*_call` (function, custom tool, local shell, web search) | tool_call | child_agent(model) |
//! | `response_item` `*_output` | tool_result | tool(name of the call with that `call_id`, else `unknown`) |
//! | all else (`session_meta`, `turn_context`, `event_msg`, `compacted`, …) | system_note | runtime |
//!
//! `event_msg` lines tell again what `response_item` lines hold; as notes, nothing is counted twice.
//! Caused by: for an output the event of its call.

use super::facts::{self, Facts, Known, UNKNOWN};
use super::object::Object;
use crate::event::{EventType, Source};

/// Whether a line is Codex's.
pub(crate) fn recognises(line: &Object<'_>) -> bool {
    const KINDS: [&str; 5] = ["session_meta", "response_item", "event_msg", "turn_context", "compacted"];
    line.text("type").is_some_and(|kind| KINDS.contains(&kind.as_str())) && line.object("payload").is_some()
}

/// Which transcript a line belongs to. A fork's file holds its parent's `session_meta` too, but behind its own.
pub(crate) fn identity(line: &Object<'_>) -> Option<String> {
    if line.text("type").as_deref() != Some("session_meta") {
        return None;
    }
    line.object("payload")?.text("id")
}

/// What a line is recorded as.
pub(crate) fn read(line: &Object<'_>, known: &mut Known) -> Facts {
    let payload = line.object("payload");
    let mut facts = match (line.text("type").as_deref(), &payload) {
        (Some("response_item"), Some(item)) => read_item(item, known),
        (Some("turn_context"), Some(turn)) => {
            known.set_model(turn.text("model"));
            Facts::note()
        }
        _ => Facts::note(),
    };
    facts.observed_at = facts::time(line, "timestamp");
    facts
}

fn read_item(item: &Object<'_>, known: &mut Known) -> Facts {
    let kind = item.text("type").unwrap_or_default();
    let call_id = item.text("call_id");
    match kind.as_str() {
        "message" => match item.text("role").as_deref() {
            Some("assistant") => Facts::new(EventType::AGENT_RESPONSE, known.model()),
            Some("user") => Facts::new(EventType::USER_MESSAGE, Source::User),
            _ => Facts::note(),
        },
        "reasoning" => Facts::new(EventType::AGENT_RESPONSE, known.model()),
        call if call.ends_with("_call") => {
            let mut facts = Facts::new(EventType::TOOL_CALL, known.model());
            if let Some(id) = call_id {
                let name = item.text("name").or_else(|| call.strip_suffix("_call").map(str::to_owned));
                known.name_tool(id.clone(), name.unwrap_or_else(|| UNKNOWN.to_owned()));
                facts.names.push(id);
            }
            facts
        }
        output if output.ends_with("_output") => {
            let mut facts = Facts::new(EventType::TOOL_RESULT, known.tool(call_id.as_deref()));
            facts.caused_by = call_id.and_then(|id| known.event(&id));
            facts
        }
        _ => Facts::note(),
    }
}
