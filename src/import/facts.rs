//! What a line says of itself, and what earlier lines said. Shared by the formats.

use std::collections::HashMap;

use super::object::Object;
use crate::event::line::SESSION_ID_BYTES_MAX;
use crate::event::{EventId, EventType, Source, Timestamp};

/// The name of a model or tool that the transcript does not tell.
pub(crate) const UNKNOWN: &str = "unknown";

/// What a line is recorded as.
#[derive(Debug)]
pub(crate) struct Facts {
    pub event_type: EventType,
    pub source: Source<'static>,
    pub session: Option<String>,
    pub observed_at: Option<Timestamp>,
    pub caused_by: Option<EventId>,
    /// Names by which later lines refer to this one.
    pub names: Vec<String>,
}

impl Facts {
    /// Something on record, of which no more is known.
    pub fn note() -> Facts {
        Facts::new(EventType::SYSTEM_NOTE, Source::Runtime)
    }

    pub fn new(event_type: EventType, source: Source<'static>) -> Facts {
        Facts { event_type, source, session: None, observed_at: None, caused_by: None, names: Vec::new() }
    }
}

/// What earlier lines of the transcript said. Grows by a small entry for each line that has a name.
#[derive(Debug, Default)]
pub(crate) struct Known {
    events: HashMap<String, EventId>,
    tools: HashMap<String, String>,
    model: Option<String>,
}

impl Known {
    /// Later lines can refer to this event by that name.
    pub fn name_event(&mut self, name: String, id: EventId) {
        self.events.entry(name).or_insert(id);
    }

    /// The event that was given this name.
    pub fn event(&self, name: &str) -> Option<EventId> {
        self.events.get(name).copied()
    }

    /// A call with this id uses that tool.
    pub fn name_tool(&mut self, call_id: String, tool: String) {
        self.tools.entry(call_id).or_insert(tool);
    }

    /// The tool that answers this call.
    pub fn tool(&self, call_id: Option<&str>) -> Source<'static> {
        Source::tool(call_id.and_then(|id| self.tools.get(id)).map_or(UNKNOWN, String::as_str))
    }

    pub fn set_model(&mut self, model: Option<String>) {
        if model.is_some() {
            self.model = model;
        }
    }

    /// The model that was named last.
    pub fn model(&self) -> Source<'static> {
        Source::child_agent(self.model.as_deref().unwrap_or(UNKNOWN))
    }
}

/// A session id, where it has the length that the format allows.
pub(crate) fn session(id: impl Into<String>) -> Option<String> {
    Some(id.into()).filter(|id| (1..=SESSION_ID_BYTES_MAX).contains(&id.len()))
}

/// The time in this field.
pub(crate) fn time(line: &Object<'_>, key: &str) -> Option<Timestamp> {
    Timestamp::parse_lenient(&line.text(key)?)
}
