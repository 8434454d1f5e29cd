//! The conversation, as an entity: what was said, what was called, what came of it, and which calls are open.
//!
//! A call is recorded before its tool runs, its result after. So a call that is open when the process starts is one that an earlier
//! process may have begun, may have finished, and has not recorded the end of.

use counterfoil::entity::{Entity, Upcasts, command_id};
use counterfoil::{Draft, EventId, Source};
use serde::{Deserialize, Serialize};

use crate::tools::Tool;

/// What the events of a conversation add up to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// All of it, in order: this is what a model is shown.
    pub said: Vec<Said>,
    /// Calls that have no result yet.
    pub open: Vec<Call>,
}

/// A tool that the model asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Its place in the conversation: `3.1` is the first call of the model's third answer.
    pub id: String,
    pub tool: Tool,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done {
        output: String,
    },
    Failed {
        reason: String,
    },
    /// The process ended while the call was open, and nobody can know how far it came.
    Interrupted,
}

/// What a model answers: calls, or none where it has come to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    pub calls: Vec<Tool>,
}

pub enum Command {
    Ask { text: String },
    Answer(Answer),
    Record { call: String, outcome: Outcome },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
pub enum Said {
    #[serde(rename = "user_message.v1")]
    Asked { text: String },
    #[serde(rename = "agent_response.v1")]
    Answered { text: String },
    #[serde(rename = "tool_call.v2")]
    Called(Call),
    #[serde(rename = "tool_result.v1")]
    Resulted { call: String, outcome: Outcome },
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("call {id} is open; record its result first")]
    StillOpen { id: String },
    #[error("call {id} is not open; read the conversation for what came of it")]
    NotOpen { id: String },
}

impl Conversation {
    /// The number of the model's next answer.
    pub fn turn(&self) -> usize {
        1 + self.said.iter().filter(|said| matches!(said, Said::Answered { .. })).count()
    }

    /// Whether the model has answered without calling anything: there is nothing to do.
    pub fn is_over(&self) -> bool {
        matches!(self.said.last(), Some(Said::Answered { .. }))
    }
}

/// Key of the command that records the result of a call.
pub fn result_key(call: &str) -> String {
    format!("result:{call}")
}

/// Key of the command that records an answer of the model.
pub fn answer_key(turn: impl std::fmt::Display) -> String {
    format!("answer:{turn}")
}

/// The key that a call's effect is done under: the id that the event with its result has, or will have.
pub fn effect_key(stream: &str, call: &str) -> EventId {
    command_id(stream, &result_key(call))
}

/// What `tool_call.v1` was.
#[derive(Deserialize)]
struct CallV1 {
    id: String,
    command: String,
}

/// The kind of entity that a conversation is.
pub struct Conversations;

impl Entity for Conversations {
    type State = Conversation;
    type Command = Command;
    type Event = Said;
    type Error = Refused;
    const NAME: &'static str = "conversation";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, conversation: &Conversation, command: &Command) -> Result<Vec<Said>, Refused> {
        match command {
            Command::Ask { text } => Ok(vec![Said::Asked { text: text.clone() }]),
            Command::Answer(answer) => {
                if let Some(Call { id, .. }) = conversation.open.first() {
                    return Err(Refused::StillOpen { id: id.clone() });
                }
                let turn = conversation.turn();
                let calls = answer.calls.iter().enumerate().map(|(n, tool)| Call { id: format!("{turn}.{}", n + 1), tool: tool.clone() });
                // One append: the answer and all of its calls, or nothing.
                Ok(std::iter::once(Said::Answered { text: answer.text.clone() }).chain(calls.map(Said::Called)).collect())
            }
            Command::Record { call, .. } if conversation.open.iter().all(|open| open.id != *call) => {
                Err(Refused::NotOpen { id: call.clone() })
            }
            Command::Record { call, outcome } => Ok(vec![Said::Resulted { call: call.clone(), outcome: outcome.clone() }]),
        }
    }

    fn apply(&self, conversation: &mut Conversation, said: &Said) {
        match said {
            Said::Called(call) => conversation.open.push(call.clone()),
            Said::Resulted { call, .. } => conversation.open.retain(|open| open.id != *call),
            Said::Asked { .. } | Said::Answered { .. } => {}
        }
        conversation.said.push(said.clone());
    }

    /// Once the shell was the only tool, and a call was its command.
    fn upcasts(&self) -> Upcasts {
        Upcasts::none().upcast("tool_call.v1", "tool_call.v2", |call| {
            let CallV1 { id, command } = serde_json::from_value(call).map_err(|error| error.to_string())?;
            Ok(serde_json::json!({"id": id, "tool": {"shell": {"command": command, "args": [], "keyed": false}}}))
        })
    }

    /// Who said it, and for a result, the answer that asked for it.
    fn draft(&self, said: &Said, draft: Draft) -> Draft {
        match said {
            Said::Asked { .. } => draft.by(Source::User),
            Said::Answered { .. } | Said::Called(_) => draft.by(Source::child_agent("scripted")),
            Said::Resulted { call, .. } => {
                let turn = call.split('.').next().unwrap_or_default();
                let asked = draft.session_id().map(|stream| command_id(stream, &answer_key(turn)));
                match asked {
                    Some(asked) => draft.caused_by(asked),
                    None => draft,
                }
            }
        }
    }
}
