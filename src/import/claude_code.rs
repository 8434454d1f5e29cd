//! Claude Code's session files: what a line means. Called by the reader, line by line. Pure but for [`Known`].
//!
//! | line | event_type | source |
//! |---|---|---|
//! | `assistant` with a `tool_use` | tool_call | child_agent(`message.model`): the model asks |
//! | `assistant` else (text, thinking) | agent_response | child_agent(`message.model`) |
//! | `assistant` that the runtime made up (`<synthetic>`, `isApiErrorMessage`) | system_note | runtime |
//! | `user` with a `tool_result` | tool_result | tool(name of the `tool_use` with that id, else `unknown`) |
//! | `user` with `isMeta` or `isCompactSummary` | system_note | runtime |
//! | `user` in a side chain | user_message | child_agent(`unknown`): the prompt was written by an agent |
//! | `user` else | user_message | user |
//! | all else (`progress`, `system`, `summary`, `file-history-snapshot`, `queue-operation`, …) | system_note | runtime |
//!
//! Caused by: for a tool result the event with its `tool_use`, else the event with the line's `parentUuid`.

use super::facts::{self, Facts, Known, UNKNOWN};
use super::object::Object;
use crate::event::{EventType, Source};

/// Whether a line is Claude Code's.
pub(crate) fn recognises(line: &Object<'_>) -> bool {
    let Some(kind) = line.text("type") else { return false };
    line.has("sessionId") && (line.has("uuid") || line.has("timestamp"))
        || line.has("uuid") && line.has("parentUuid")
        || kind == "file-history-snapshot" && line.has("messageId")
        || kind == "summary" && line.has("leafUuid")
}

/// Which transcript a line belongs to: its session, and the sub-agent where it has a file of its own.
/// A sub-agent's file carries its parent's session id, so that alone would mix the two up.
pub(crate) fn identity(line: &Object<'_>) -> Option<(String, String)> {
    let session = line.text("sessionId")?;
    let identity = match line.text("agentId") {
        Some(agent) => format!("{session}/{agent}"),
        None => session.clone(),
    };
    Some((identity, session))
}

/// What a line is recorded as.
pub(crate) fn read(line: &Object<'_>, known: &mut Known) -> Facts {
    let message = line.object("message");
    let parts = message.as_ref().map(|message| message.objects("content")).unwrap_or_default();
    let part = |kind: &str| parts.iter().find(|part| part.text("type").as_deref() == Some(kind));
    let parent = line.text("parentUuid").and_then(|uuid| known.event(&uuid));
    let mut facts = match line.text("type").as_deref() {
        Some("assistant") => {
            let model = message.as_ref().and_then(|message| message.text("model"));
            if line.truth("isApiErrorMessage") || model.as_deref() == Some("<synthetic>") {
                Facts::note()
            } else {
                let called = part("tool_use").is_some();
                let event_type = if called { EventType::TOOL_CALL } else { EventType::AGENT_RESPONSE };
                Facts::new(event_type, Source::child_agent(model.unwrap_or_else(|| UNKNOWN.to_owned())))
            }
        }
        Some("user") => match part("tool_result") {
            Some(result) => {
                let call = result.text("tool_use_id");
                let mut facts = Facts::new(EventType::TOOL_RESULT, known.tool(call.as_deref()));
                facts.caused_by = call.and_then(|call| known.event(&call));
                facts
            }
            None if line.truth("isMeta") || line.truth("isCompactSummary") => Facts::note(),
            None if line.truth("isSidechain") => Facts::new(EventType::USER_MESSAGE, Source::child_agent(UNKNOWN)),
            None => Facts::new(EventType::USER_MESSAGE, Source::User),
        },
        _ => Facts::note(),
    };
    facts.caused_by = facts.caused_by.or(parent);
    facts.session = line.text("sessionId").and_then(facts::session);
    // A file-history-snapshot has its time inside.
    facts.observed_at = facts::time(line, "timestamp").or_else(|| facts::time(&line.object("snapshot")?, "timestamp"));
    facts.names.extend(line.text("uuid"));
    for call in parts.iter().filter(|part| part.text("type").as_deref() == Some("tool_use")) {
        if let Some(id) = call.text("id") {
            facts.names.push(id.clone());
            known.name_tool(id, call.text("name").unwrap_or_else(|| UNKNOWN.to_owned()));
        }
    }
    facts
}
