//! Names of event types.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What kind of event it is: `tool_call.v1`, `acme.deploy.v2`.
///
/// Lower-case words joined by dots, the last of them a version:
/// `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.v[1-9][0-9]*$`, at most 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Cow<'static, str>);

/// Why a text is no event type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// It does not have the form.
    #[error("`{0}` is no event type: write lower-case words and a version joined by dots, as in `tool_call.v1`, at most 128 bytes")]
    Form(String),
    /// It is one that only the ledger itself may write.
    #[error("`{0}` is reserved: types that begin with `counterfoil.` are written by the ledger itself; choose another first word")]
    Reserved(String),
}

impl EventType {
    /// Bytes of the longest type.
    pub const BYTES_MAX: usize = 128;

    /// What the names begin with that only the ledger itself may write.
    pub(crate) const RESERVED: &str = "counterfoil.";

    /// A person said something.
    pub const USER_MESSAGE: EventType = EventType(Cow::Borrowed("user_message.v1"));
    /// The agent's model answered.
    pub const AGENT_RESPONSE: EventType = EventType(Cow::Borrowed("agent_response.v1"));
    /// The agent asked for a tool.
    pub const TOOL_CALL: EventType = EventType(Cow::Borrowed("tool_call.v1"));
    /// A tool answered.
    pub const TOOL_RESULT: EventType = EventType(Cow::Borrowed("tool_result.v1"));
    /// Code was changed.
    pub const CODE_DIFF: EventType = EventType(Cow::Borrowed("code_diff.v1"));
    /// Tests were run.
    pub const TEST_RESULT: EventType = EventType(Cow::Borrowed("test_result.v1"));
    /// Something was decided.
    pub const DECISION: EventType = EventType(Cow::Borrowed("decision.v1"));
    /// Someone put something right.
    pub const CORRECTION: EventType = EventType(Cow::Borrowed("correction.v1"));
    /// How something ended.
    pub const OUTCOME: EventType = EventType(Cow::Borrowed("outcome.v1"));
    /// Anything that the runtime wants on record.
    pub const SYSTEM_NOTE: EventType = EventType(Cow::Borrowed("system_note.v1"));

    /// The schema of something that lives beside the ledger changed. Only the ledger itself writes it.
    pub(crate) const SCHEMA_MIGRATION: EventType = EventType(Cow::Borrowed("counterfoil.schema_migration.v1"));

    /// The ten types that every tool knows.
    pub const WELL_KNOWN: [EventType; 10] = [
        EventType::USER_MESSAGE,
        EventType::AGENT_RESPONSE,
        EventType::TOOL_CALL,
        EventType::TOOL_RESULT,
        EventType::CODE_DIFF,
        EventType::TEST_RESULT,
        EventType::DECISION,
        EventType::CORRECTION,
        EventType::OUTCOME,
        EventType::SYSTEM_NOTE,
    ];

    /// The type with this name.
    ///
    /// # Errors
    /// [`EventTypeError::Form`] where the name does not have the form, [`EventTypeError::Reserved`] where it
    /// begins with `counterfoil.`.
    ///
    /// ```
    /// use counterfoil::EventType;
    /// assert_eq!(EventType::new("tool_call.v1")?, EventType::TOOL_CALL);
    /// assert!(EventType::new("ToolCall").is_err());
    /// # Ok::<(), counterfoil::EventTypeError>(())
    /// ```
    pub fn new(name: impl Into<String>) -> Result<EventType, EventTypeError> {
        let name = name.into();
        if !EventType::is_well_formed(&name) {
            return Err(EventTypeError::Form(name.chars().take(160).collect()));
        }
        if name.starts_with(EventType::RESERVED) {
            return Err(EventTypeError::Reserved(name));
        }
        Ok(EventType(Cow::Owned(name)))
    }

    /// One of the types that only the ledger itself writes.
    pub(crate) const fn reserved(name: &'static str) -> EventType {
        EventType(Cow::Borrowed(name))
    }

    /// Whether only the ledger itself may write it.
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.starts_with(EventType::RESERVED)
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_well_formed(name: &str) -> bool {
        fn is_word(word: &str) -> bool {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }
        fn is_version(word: &str) -> bool {
            word.strip_prefix('v')
                .is_some_and(|digits| digits.starts_with(|c: char| ('1'..='9').contains(&c)) && digits.bytes().all(|b| b.is_ascii_digit()))
        }
        name.len() <= EventType::BYTES_MAX
            && name.rsplit_once('.').is_some_and(|(words, version)| is_version(version) && words.split('.').all(is_word))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for EventType {
    type Err = EventTypeError;
    fn from_str(name: &str) -> Result<EventType, EventTypeError> {
        EventType::new(name)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_form() {
        for good in ["a.v1", "tool_call.v1", "acme.tool_call.v12", "a.v1.v2", "a1_.b.v10"] {
            assert!(EventType::is_well_formed(good), "{good}");
        }
        let long = format!("{}.v1", "a".repeat(126));
        for bad in ["", "v1", "a", "a.v0", "a.v01", "a.v", "A.v1", "a..v1", ".a.v1", "1a.v1", "a.v1x", "a-b.v1", "a.v1\n", "é.v1", &long] {
            assert!(!EventType::is_well_formed(bad), "{bad}");
        }
        assert!(matches!(EventType::new("counterfoil.erasure.v1"), Err(EventTypeError::Reserved(_))));
        assert!(EventType::WELL_KNOWN.iter().all(|t| EventType::new(t.as_str()).is_ok()));
    }
}
