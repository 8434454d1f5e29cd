//! Changes to the keys of a ledger, and the events that record them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attest::{KeyId, PublicKey};
use crate::event::{Draft, DraftError, Event, EventType, Seq, Source};

/// The types of events that record changes to keys.
pub(crate) const KEY_EVENTS: [&str; 4] = [ADDED, ROTATED, RETIRED, REVOKED];

const ADDED: &str = "counterfoil.key_added.v1";
const ROTATED: &str = "counterfoil.key_rotated.v1";
const RETIRED: &str = "counterfoil.key_retired.v1";
const REVOKED: &str = "counterfoil.key_revoked.v1";

/// Why a key changed, in a person's words: at most 1,024 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyReason(String);

/// A reason that is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reason has {bytes} bytes, but at most {max} are allowed; shorten it", max = KeyReason::BYTES_MAX)]
pub struct KeyReasonError {
    /// Bytes it has.
    pub bytes: usize,
}

impl KeyReason {
    /// Bytes of the longest one: a sentence or two, and a header's worth of room in every key list.
    pub const BYTES_MAX: usize = 1024;

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for KeyReason {
    type Error = KeyReasonError;
    fn try_from(text: String) -> Result<KeyReason, KeyReasonError> {
        if text.len() <= KeyReason::BYTES_MAX { Ok(KeyReason(text)) } else { Err(KeyReasonError { bytes: text.len() }) }
    }
}

impl From<KeyReason> for String {
    fn from(reason: KeyReason) -> String {
        reason.0
    }
}

/// A change to the keys of a ledger. Whoever appends it signs it with the key that the change asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyChange {
    /// Another key may sign. Signed by one that may already; the first key of a ledger signs its own.
    Added {
        /// The new key.
        key: PublicKey,
        /// Why.
        reason: KeyReason,
    },
    /// A key hands over to another, and is retired by it. Signed by the old one.
    Rotated {
        /// The key that signs no more.
        from: KeyId,
        /// The key that does from here on.
        to: PublicKey,
        /// Why.
        reason: KeyReason,
    },
    /// A key signs no more. Signed by any that may.
    Retired {
        /// The key.
        key: KeyId,
        /// Why.
        reason: KeyReason,
    },
    /// A key is in hands that it should not be in, or may be. Signed by any that may, itself too. What it signed before this event
    /// stays as it is: that it was there before is what checkpoints show.
    Revoked {
        /// The key.
        key: KeyId,
        /// Why.
        reason: KeyReason,
    },
}

#[derive(Serialize, Deserialize)]
struct AddedJson {
    key_id: KeyId,
    public_key: PublicKey,
    #[serde(default, skip_serializing_if = "KeyReason::is_empty")]
    reason: KeyReason,
}

#[derive(Serialize, Deserialize)]
struct RotatedJson {
    from: KeyId,
    to: KeyId,
    public_key: PublicKey,
    #[serde(default, skip_serializing_if = "KeyReason::is_empty")]
    reason: KeyReason,
}

#[derive(Serialize, Deserialize)]
struct EndedJson {
    key_id: KeyId,
    #[serde(default, skip_serializing_if = "KeyReason::is_empty")]
    reason: KeyReason,
}

impl KeyChange {
    /// The draft of the event that records it; it has yet to be signed.
    ///
    /// # Errors
    /// Never in practice: there is nothing in it that can't be written.
    pub(crate) fn draft(&self) -> Result<Draft, DraftError> {
        let draft = |name| Draft::new(EventType::reserved(name), Source::Runtime);
        match self {
            KeyChange::Added { key, reason } => {
                draft(ADDED).payload(&AddedJson { key_id: key.key_id(), public_key: *key, reason: reason.clone() })
            }
            KeyChange::Rotated { from, to, reason } => {
                draft(ROTATED).payload(&RotatedJson { from: *from, to: to.key_id(), public_key: *to, reason: reason.clone() })
            }
            KeyChange::Retired { key, reason } => draft(RETIRED).payload(&EndedJson { key_id: *key, reason: reason.clone() }),
            KeyChange::Revoked { key, reason } => draft(REVOKED).payload(&EndedJson { key_id: *key, reason: reason.clone() }),
        }
    }

    /// The change that an event of this type with this payload records; nothing where it is no such event, or is none that
    /// this library has written.
    pub(crate) fn of(event_type: &str, payload: &str) -> Option<KeyChange> {
        match event_type {
            ADDED => {
                let AddedJson { key_id, public_key: key, reason } = serde_json::from_str(payload).ok()?;
                (key.key_id() == key_id).then_some(KeyChange::Added { key, reason })
            }
            ROTATED => {
                let RotatedJson { from, to, public_key, reason } = serde_json::from_str(payload).ok()?;
                (public_key.key_id() == to).then_some(KeyChange::Rotated { from, to: public_key, reason })
            }
            RETIRED | REVOKED => {
                let EndedJson { key_id: key, reason } = serde_json::from_str(payload).ok()?;
                Some(if event_type == RETIRED { KeyChange::Retired { key, reason } } else { KeyChange::Revoked { key, reason } })
            }
            _ => None,
        }
    }

    /// The key that it brings in.
    pub fn brings(&self) -> Option<PublicKey> {
        match self {
            KeyChange::Added { key, .. } => Some(*key),
            KeyChange::Rotated { to, .. } => Some(*to),
            KeyChange::Retired { .. } | KeyChange::Revoked { .. } => None,
        }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            KeyChange::Added { reason, .. }
            | KeyChange::Rotated { reason, .. }
            | KeyChange::Retired { reason, .. }
            | KeyChange::Revoked { reason, .. } => reason.as_str(),
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyChange::Added { key, .. } => write!(f, "{} added", key.key_id()),
            KeyChange::Rotated { from, to, .. } => write!(f, "{from} rotated to {}", to.key_id()),
            KeyChange::Retired { key, .. } => write!(f, "{key} retired"),
            KeyChange::Revoked { key, .. } => write!(f, "{key} revoked"),
        }
    }
}

/// A change where it stands in the ledger.
#[derive(Clone, Debug)]
pub struct KeyEvent {
    /// The event.
    pub seq: Seq,
    /// The key that signed it.
    pub signed_by: Option<KeyId>,
    /// What it records; nothing where it can't be read as a change.
    pub change: Option<KeyChange>,
}

impl KeyEvent {
    /// Of an event of one of these types; nothing of any other.
    pub(crate) fn of(event: &Event<'_>) -> Option<KeyEvent> {
        KEY_EVENTS.contains(&event.event_type).then(|| KeyEvent {
            seq: event.seq,
            signed_by: event.signed_by.and_then(|key| key.parse().ok()),
            change: event.payload().and_then(|payload| KeyChange::of(event.event_type, payload)),
        })
    }
}
