//! Where an event came from.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Where an event came from. Its JSON form is an object tagged by `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source<'a> {
    /// A person.
    User,
    /// A model, as agent or sub-agent.
    ChildAgent {
        /// The model's name.
        model: Cow<'a, str>,
    },
    /// A tool that the agent used.
    Tool {
        /// The tool's name.
        name: Cow<'a, str>,
    },
    /// The agent's runtime.
    Runtime,
    /// The world outside: a build, a deployment, a payment.
    ExternalOutcome,
    /// A person who put something right.
    ManualCorrection,
}

impl Source<'static> {
    /// A model, as agent or sub-agent.
    pub fn child_agent(model: impl Into<String>) -> Source<'static> {
        Source::ChildAgent { model: Cow::Owned(model.into()) }
    }

    /// A tool that the agent used.
    pub fn tool(name: impl Into<String>) -> Source<'static> {
        Source::Tool { name: Cow::Owned(name.into()) }
    }
}

impl Source<'_> {
    /// Its name in the format: `user`, `child_agent`, `tool`, `runtime`, `external_outcome`, `manual_correction`.
    pub fn kind(&self) -> &'static str {
        match self {
            Source::User => "user",
            Source::ChildAgent { .. } => "child_agent",
            Source::Tool { .. } => "tool",
            Source::Runtime => "runtime",
            Source::ExternalOutcome => "external_outcome",
            Source::ManualCorrection => "manual_correction",
        }
    }

    /// The model or the tool, where it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Source::ChildAgent { model } => Some(model),
            Source::Tool { name } => Some(name),
            _ => None,
        }
    }

    /// Appends its canonical JSON.
    pub(crate) fn push_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        let key: &[u8] = match self {
            Source::ChildAgent { .. } => b",\"model\":",
            _ => b",\"name\":",
        };
        if let Some(name) = self.name() {
            out.extend_from_slice(key);
            super::line::push_string(name, out);
        }
        out.push(b'}');
    }
}
