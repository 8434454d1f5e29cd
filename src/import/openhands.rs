//! OpenHands' events as JSONL: what a line means. Called by the reader, line by line. Pure but for [`Known`].
//!
//! | `kind` | event_type | source |
//! |---|---|---|
//! | `ActionEvent` | tool_call | child_agent(model that the latest statistics name, else `unknown`) |
//! | `ObservationEvent` | tool_result | tool(`tool_name`, else `unknown`) |
//! | `MessageEvent` with source `user` | user_message | user |
//! | `MessageEvent` with source `agent` | agent_response | child_agent(model) |
//! | all else (`ConversationStateUpdateEvent`, `SystemPromptEvent`, …) | system_note | runtime |
//!
//! Caused by: for an observation the event of its `action_id`. Times have no offset and are taken as UTC.

use super::facts::{self, Facts, Known, UNKNOWN};
use super::object::Object;
use crate::event::{EventType, Source};

/// Whether a line is OpenHands'.
pub(crate) fn recognises(line: &Object<'_>) -> bool {
    line.text("kind").is_some_and(|kind| kind.ends_with("Event")) && line.text("id").is_some() && line.has("source")
}

/// Which transcript a line belongs to, if it is the first one.
pub(crate) fn identity(line: &Object<'_>) -> Option<String> {
    line.text("id")
}

/// What a line is recorded as.
pub(crate) fn read(line: &Object<'_>, known: &mut Known) -> Facts {
    let mut facts = match (line.text("kind").as_deref(), line.text("source").as_deref()) {
        (Some("ActionEvent"), _) => Facts::new(EventType::TOOL_CALL, known.model()),
        (Some("ObservationEvent"), _) => {
            let tool = line.text("tool_name").unwrap_or_else(|| UNKNOWN.to_owned());
            let mut facts = Facts::new(EventType::TOOL_RESULT, Source::tool(tool));
            facts.caused_by = line.text("action_id").and_then(|id| known.event(&id));
            facts
        }
        (Some("MessageEvent"), Some("user")) => Facts::new(EventType::USER_MESSAGE, Source::User),
        (Some("MessageEvent"), Some("agent")) => Facts::new(EventType::AGENT_RESPONSE, known.model()),
        (Some("ConversationStateUpdateEvent"), _) => {
            known.set_model(model(line));
            Facts::note()
        }
        _ => Facts::note(),
    };
    facts.observed_at = facts::time(line, "timestamp");
    facts.names.extend(line.text("id"));
    facts
}

fn model(line: &Object<'_>) -> Option<String> {
    line.object("value")?.object("usage_to_metrics")?.object("default")?.text("model_name")
}
