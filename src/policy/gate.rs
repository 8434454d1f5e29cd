//! Gates, and what they may look at.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{RuleId, Vote};
use crate::attest::KeyId;
use crate::event::{CheckedDraft, EventType, LedgerId, PayloadHash, Source, Timestamp};
use crate::keys::{KeyRing, KeyState};

/// A rule that looks at every append of a store.
///
/// It is asked on the writer's own thread, once or twice an append, so it computes and never waits for anything. Its answer
/// depends on nothing but what it is shown: two stores with the same gates decide alike. What needs to ask elsewhere is asked by
/// the caller, who then brings a [`Decision`](super::Decision).
///
/// ```
/// use counterfoil::policy::{Appending, Gate, RuleId, Vote};
///
/// struct NoSecrets(RuleId);
///
/// impl Gate for NoSecrets {
///     fn rule(&self) -> &RuleId {
///         &self.0
///     }
///
///     fn vote(&self, appending: &Appending<'_>) -> Vote {
///         if appending.payload().contains("BEGIN PRIVATE KEY") {
///             Vote::quarantine(self.0.clone(), "the payload holds a private key")
///         } else {
///             Vote::allow(self.0.clone(), "no private key in sight")
///         }
///     }
/// }
/// ```
pub trait Gate: Send + Sync {
    /// The rule under which its votes count. Always the same.
    fn rule(&self) -> &RuleId;

    /// What it says of this append. It counts under [`Gate::rule`], whatever rule the vote names.
    fn vote(&self, appending: &Appending<'_>) -> Vote;
}

impl fmt::Debug for dyn Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gate {}", self.rule())
    }
}

/// Whether people play with a store or rely on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeMode {
    /// Local development: what is not as it should be is written, with a warning.
    #[default]
    Local,
    /// Others rely on it: what is not as it should be is refused.
    Trusted,
}

/// How far a source, or a key, is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustTier {
    /// Not at all.
    Untrusted,
    /// What it says is worth recording, and proves nothing.
    Observed,
    /// An operator has vouched for it.
    Verified,
    /// It is an operator.
    Operator,
}

impl TrustTier {
    /// The tier of a source that a policy says nothing of: models, tools and the world outside are observed, the runtime and
    /// users are verified, and whoever puts something right is an operator.
    pub const fn of(source: &Source<'_>) -> TrustTier {
        match source {
            Source::ChildAgent { .. } | Source::Tool { .. } | Source::ExternalOutcome => TrustTier::Observed,
            Source::User | Source::Runtime => TrustTier::Verified,
            Source::ManualCorrection => TrustTier::Operator,
        }
    }

    /// Its name: `untrusted`, `observed`, `verified`, `operator`.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrustTier::Untrusted => "untrusted",
            TrustTier::Observed => "observed",
            TrustTier::Verified => "verified",
            TrustTier::Operator => "operator",
        }
    }
}

impl fmt::Display for TrustTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How ledger and mirror stand to each other, as the store itself knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParityState {
    /// They are equal.
    Consistent,
    /// The mirror is being filled from the ledger.
    Rebuilding,
    /// Rows are still to come.
    Lagging {
        /// Events whose row is still to come. What is too many is the policy's to say.
        events: u64,
    },
    /// A line and its row differ, or one of them is missing where it should not.
    Mismatched,
}

impl ParityState {
    /// Whether nothing speaks against appending, where the mirror may be behind by so many events.
    pub(super) fn is_well(self, lag_events_max: u64) -> bool {
        match self {
            ParityState::Consistent | ParityState::Rebuilding => true,
            ParityState::Lagging { events } => events <= lag_events_max,
            ParityState::Mismatched => false,
        }
    }
}

/// What the ledger says of the key that will sign, if any will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// The event will not be signed.
    Unsigned,
    /// This key will sign, and the ledger knows nothing of it.
    Unknown(KeyId),
    /// This key will sign, and the ledger says this of it.
    Known(KeyId, KeyState),
}

impl KeyStanding {
    /// What a ledger's keys say of one of them.
    pub fn of(ring: &KeyRing, signed_by: Option<KeyId>) -> KeyStanding {
        match signed_by {
            None => KeyStanding::Unsigned,
            Some(key_id) => ring.key(key_id).map_or(KeyStanding::Unknown(key_id), |info| KeyStanding::Known(key_id, info.state)),
        }
    }

    /// The key that will sign.
    pub fn key_id(&self) -> Option<KeyId> {
        match self {
            KeyStanding::Unsigned => None,
            KeyStanding::Unknown(key_id) | KeyStanding::Known(key_id, _) => Some(*key_id),
        }
    }

    /// Whether a key signs that the ledger says is current.
    pub fn is_current(&self) -> bool {
        matches!(self, KeyStanding::Known(_, KeyState::Current))
    }
}

/// What is being appended, and what the store knows at that moment: all that a gate may look at.
#[derive(Clone, Copy, Debug)]
pub struct Appending<'a> {
    draft: &'a CheckedDraft,
    ledger_id: LedgerId,
    now: Timestamp,
    key: KeyStanding,
    parity: ParityState,
    // What the policy knows is filled in by it, so that no caller can say otherwise.
    pub(super) mode: RuntimeMode,
    pub(super) source_tier: TrustTier,
    pub(super) key_tier: TrustTier,
    pub(super) source_tier_min: TrustTier,
    pub(super) key_tier_min: TrustTier,
    pub(super) lag_events_max: u64,
}

impl<'a> Appending<'a> {
    /// This draft, to this ledger, now, unsigned, with a mirror that is equal.
    pub fn new(draft: &'a CheckedDraft, ledger_id: LedgerId, now: Timestamp) -> Appending<'a> {
        Appending {
            draft,
            ledger_id,
            now,
            key: KeyStanding::Unsigned,
            parity: ParityState::Consistent,
            mode: RuntimeMode::Local,
            source_tier: TrustTier::Untrusted,
            key_tier: TrustTier::Untrusted,
            source_tier_min: TrustTier::Untrusted,
            key_tier_min: TrustTier::Untrusted,
            lag_events_max: 0,
        }
    }

    /// The same, signed with this key.
    pub fn signed(mut self, key: KeyStanding) -> Appending<'a> {
        self.key = key;
        self
    }

    /// The same, with the mirror in this state.
    pub fn parity_is(mut self, parity: ParityState) -> Appending<'a> {
        self.parity = parity;
        self
    }

    /// The draft.
    pub fn draft(&self) -> &'a CheckedDraft {
        self.draft
    }

    /// Where it comes from.
    pub fn source(&self) -> &'a Source<'static> {
        self.draft.draft().source()
    }

    /// Its type.
    pub fn event_type(&self) -> &'a EventType {
        self.draft.draft().event_type()
    }

    /// The stream it belongs to.
    pub fn session_id(&self) -> Option<&'a str> {
        self.draft.session_id()
    }

    /// Its free labels.
    pub fn tags(&self) -> &'a [String] {
        self.draft.draft().tags()
    }

    /// Its payload: JSON, byte for byte as it would be written.
    pub fn payload(&self) -> &'a str {
        self.draft.draft().payload_bytes()
    }

    /// The hash of its payload.
    pub fn payload_hash(&self) -> PayloadHash {
        self.draft.payload_hash()
    }

    /// The ledger it goes to.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// The moment at which it would be sealed.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What the ledger says of the key that signs.
    pub fn key(&self) -> KeyStanding {
        self.key
    }

    /// How the mirror stands to the ledger.
    pub fn parity(&self) -> ParityState {
        self.parity
    }

    /// The policy's mode.
    pub fn mode(&self) -> RuntimeMode {
        self.mode
    }

    /// How far the policy trusts its source.
    pub fn source_tier(&self) -> TrustTier {
        self.source_tier
    }

    /// How far the policy trusts the key that signs; `untrusted` where none does.
    pub fn key_tier(&self) -> TrustTier {
        self.key_tier
    }

    /// What an authorisation can name it by: `evt_…` where the draft gives an id, `session:…` where it has one, and `payload:`
    /// with the hex of its payload_hash.
    pub fn artifact_refs(&self) -> Vec<String> {
        let id = self.draft.id().map(|id| id.to_string());
        let session = self.session_id().map(|session_id| format!("session:{session_id}"));
        id.into_iter().chain(session).chain([format!("payload:{}", self.payload_hash())]).collect()
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.mode == RuntimeMode::Trusted
    }

    /// A warning in local mode; in trusted mode a rejection, which break-glass may override.
    pub(super) fn object(&self, rule: &RuleId, reason: impl Into<Cow<'static, str>>) -> Vote {
        match self.mode {
            RuntimeMode::Local => Vote::warn(rule.clone(), reason),
            RuntimeMode::Trusted => Vote::reject(rule.clone(), reason).overridable(),
        }
    }
}
