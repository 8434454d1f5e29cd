//! Votes: what one rule says of one append.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What may come of an append, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is written.
    #[default]
    Allow,
    /// It is written, and the event says who had doubts.
    Warn,
    /// It is written against a rule, or would be if an authorisation holds; the event says so.
    BreakGlass,
    /// It is not written: someone should look at it first.
    Quarantine,
    /// It is not written.
    Reject,
}

impl Outcome {
    /// All of them, from the weakest to the strongest.
    pub const ALL: [Outcome; 5] = [Outcome::Allow, Outcome::Warn, Outcome::BreakGlass, Outcome::Quarantine, Outcome::Reject];

    /// Its name in the format: `allow`, `warn`, `break_glass`, `quarantine`, `reject`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Warn => "warn",
            Outcome::BreakGlass => "break_glass",
            Outcome::Quarantine => "quarantine",
            Outcome::Reject => "reject",
        }
    }

    /// Whether nothing is written: quarantine and reject.
    pub const fn is_blocking(self) -> bool {
        matches!(self, Outcome::Quarantine | Outcome::Reject)
    }

    /// Whether it is written into the event: warn and break_glass.
    pub const fn is_recorded(self) -> bool {
        matches!(self, Outcome::Warn | Outcome::BreakGlass)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The name of a rule: lower-case words joined by dots, `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$`, at most 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId(Cow<'static, str>);

/// A text that is no rule id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rule id: write lower-case words joined by dots, as in `acme.deploys`, at most 128 bytes")]
pub struct RuleIdError(String);

impl RuleId {
    /// Bytes of the longest one, as for event types.
    pub const BYTES_MAX: usize = 128;

    /// How far a source is trusted: `ledger.append.event_source_tier_gate`.
    pub const EVENT_SOURCE_TIER: RuleId = RuleId(Cow::Borrowed("ledger.append.event_source_tier_gate"));
    /// Users' events are attested: `ledger.append.attestation_required`.
    pub const ATTESTATION_REQUIRED: RuleId = RuleId(Cow::Borrowed("ledger.append.attestation_required"));
    /// Where unsigned rows may be written: `ledger.append.runtime_mode`.
    pub const RUNTIME_MODE: RuleId = RuleId(Cow::Borrowed("ledger.append.runtime_mode"));
    /// Keys that sign are current: `ledger.append_signed.key_state_current_use`.
    pub const KEY_STATE_CURRENT_USE: RuleId = RuleId(Cow::Borrowed("ledger.append_signed.key_state_current_use"));
    /// How far the key that signs is trusted: `ledger.append_signed.trust_tier_minimum`.
    pub const TRUST_TIER_MINIMUM: RuleId = RuleId(Cow::Borrowed("ledger.append_signed.trust_tier_minimum"));
    /// Ledger and mirror are equal: `mirror.append.parity_invariant`.
    pub const PARITY_INVARIANT: RuleId = RuleId(Cow::Borrowed("mirror.append.parity_invariant"));

    /// The rules that are built in, by id.
    pub const BUILT_IN: [RuleId; 6] = [
        RuleId::ATTESTATION_REQUIRED,
        RuleId::EVENT_SOURCE_TIER,
        RuleId::RUNTIME_MODE,
        RuleId::KEY_STATE_CURRENT_USE,
        RuleId::TRUST_TIER_MINIMUM,
        RuleId::PARITY_INVARIANT,
    ];

    /// The rule with this name.
    ///
    /// # Errors
    /// [`RuleIdError`] where the name does not have the form.
    pub fn new(name: impl Into<String>) -> Result<RuleId, RuleIdError> {
        fn is_word(word: &str) -> bool {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }
        let name = name.into();
        if name.len() <= RuleId::BYTES_MAX && name.split('.').all(is_word) {
            Ok(RuleId(Cow::Owned(name)))
        } else {
            Err(RuleIdError(name.chars().take(160).collect()))
        }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for RuleId {
    type Err = RuleIdError;
    fn from_str(name: &str) -> Result<RuleId, RuleIdError> {
        RuleId::new(name)
    }
}

impl TryFrom<String> for RuleId {
    type Error = RuleIdError;
    fn try_from(name: String) -> Result<RuleId, RuleIdError> {
        RuleId::new(name)
    }
}

impl From<RuleId> for String {
    fn from(rule: RuleId) -> String {
        rule.0.into_owned()
    }
}

/// Votes of one decision at most. 64: ten times the rules that are built in; what has more would make headers longer than
/// payloads.
pub const VOTES_MAX: usize = 64;

/// What one rule says of one append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    #[serde(rename = "id")]
    rule: RuleId,
    outcome: Outcome,
    reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overridable: bool,
}

impl Vote {
    /// Bytes of the longest reason: a sentence or two. What is longer is cut, since an append should not fail for words.
    pub const REASON_BYTES_MAX: usize = 512;

    /// A vote. Control characters in the reason become spaces, and it is cut at [`Vote::REASON_BYTES_MAX`]. One that blocks can't
    /// be overridden, until [`Vote::overridable`] says that it can.
    pub fn new(rule: RuleId, outcome: Outcome, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote { rule, outcome, reason: bounded(reason.into()), overridable: false }
    }

    /// Nothing against it.
    pub fn allow(rule: RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote::new(rule, Outcome::Allow, reason)
    }

    /// It may be written, but the event shall say this.
    pub fn warn(rule: RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote::new(rule, Outcome::Warn, reason)
    }

    /// Asks that votes which block and can be overridden are, if there is an authorisation for it.
    pub fn break_glass(rule: RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote::new(rule, Outcome::BreakGlass, reason)
    }

    /// Someone should look at it first.
    pub fn quarantine(rule: RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote::new(rule, Outcome::Quarantine, reason)
    }

    /// It must not be written.
    pub fn reject(rule: RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        Vote::new(rule, Outcome::Reject, reason)
    }

    /// The same, where break-glass may override it.
    pub fn overridable(mut self) -> Vote {
        self.overridable = true;
        self
    }

    /// The same, where nothing overrides it.
    pub(super) fn final_word(mut self) -> Vote {
        self.overridable = false;
        self
    }

    /// The same, under this rule.
    pub(super) fn under(mut self, rule: &RuleId) -> Vote {
        if self.rule != *rule {
            self.rule = rule.clone();
        }
        self
    }

    /// Whether nothing was allocated for it.
    #[cfg(test)]
    pub(super) fn is_borrowed(&self) -> bool {
        matches!((&self.rule.0, &self.reason), (Cow::Borrowed(_), Cow::Borrowed(_)))
    }

    /// The rule that says so.
    pub fn rule(&self) -> &RuleId {
        &self.rule
    }

    /// What it wants.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why, in a person's words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether break-glass may override it. Of no account where it does not block.
    pub fn is_overridable(&self) -> bool {
        self.overridable
    }

    /// Strongest first, then by rule, reason, and what can't be overridden first: the same votes always come in one order, and
    /// those that are equal can't be told apart.
    pub(super) fn compare(&self, other: &Vote) -> std::cmp::Ordering {
        let key = |vote: &Vote| (vote.outcome, vote.overridable);
        let (mine, others) = (key(self), key(other));
        (others.0.cmp(&mine.0))
            .then_with(|| self.rule.cmp(&other.rule))
            .then_with(|| self.reason.cmp(&other.reason))
            .then(mine.1.cmp(&others.1))
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.rule, self.outcome, self.reason)
    }
}

fn bounded(reason: Cow<'static, str>) -> Cow<'static, str> {
    if reason.len() <= Vote::REASON_BYTES_MAX && !reason.contains(char::is_control) {
        return reason;
    }
    let mut text = String::new();
    for c in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > Vote::REASON_BYTES_MAX {
            break;
        }
        text.push(c);
    }
    Cow::Owned(text)
}
