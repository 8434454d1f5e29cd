//! The keys that a ledger knows, and what each may do at a seq.

use std::collections::BTreeMap;

use serde::Serialize;

use super::change::{KeyChange, KeyEvent};
use crate::attest::{KeyId, PublicKey};
use crate::event::Seq;

/// Keys of one ledger at most. 4,096: a key a day for eleven years; what has more is no life of keys but a mistake.
const KEYS_MAX: usize = 4096;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It signs.
    Current,
    /// It signs no more; what it has signed stands.
    Retired,
    /// It signs no more, and may be in other hands.
    Revoked,
}

impl std::fmt::Display for KeyState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            KeyState::Current => "current",
            KeyState::Retired => "retired",
            KeyState::Revoked => "revoked",
        })
    }
}

/// What a ledger says of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its id.
    pub key_id: KeyId,
    /// The key.
    pub public_key: PublicKey,
    /// What it may do.
    pub state: KeyState,
    /// The event that brought it in; nothing of a root that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Seq>,
    /// The event that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Seq>,
    /// Why it ended, or else why it came in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Why a change to keys, or a signature, does not follow from what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The change is not signed.
    #[error("a change to the keys must be signed; sign it with a key of the ledger that is current")]
    Unsigned,
    /// The key that signed is not one of the ledger's.
    #[error("{key_id} is no key of this ledger that a current one has let in (`counterfoil keys add` does)")]
    Unknown {
        /// The key.
        key_id: KeyId,
    },
    /// The key that signed may not any more.
    #[error("{key_id} is {state} since seq {since}, and signs no more; `counterfoil keys list` tells which are current")]
    NotCurrent {
        /// The key.
        key_id: KeyId,
        /// What it is.
        state: KeyState,
        /// Since which event.
        since: Seq,
    },
    /// A rotation that the old key did not sign.
    #[error("the rotation from {from} is signed by {signed_by}; only {from} itself can hand over, others retire or revoke it")]
    OtherRotates {
        /// The old key.
        from: KeyId,
        /// Who signed.
        signed_by: KeyId,
    },
    /// The key that comes in has been there before.
    #[error("{key_id} is a key of this ledger already ({state}); generate a new one (`counterfoil keys generate`)")]
    Known {
        /// The key.
        key_id: KeyId,
        /// What it is.
        state: KeyState,
    },
    /// The key that comes in is none.
    #[error(
        "{key_id} is no Ed25519 key that could sign anything; give the public key as it was written (`counterfoil keys generate` writes FILE.pub)"
    )]
    Unusable {
        /// Its id.
        key_id: KeyId,
    },
    /// There are too many keys.
    #[error("the ledger has {count} keys, which is the most it may have; use one of those that are current")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The event can't be read as a change to keys.
    #[error("it can't be read as a change to keys; another program has written it")]
    Malformed,
}

/// The keys that a ledger knows, from its root on, as the events up to some seq have made them.
///
/// A change that does not follow (not signed, signed by a key that may not, or made of nothing) changes nothing.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    root: Option<KeyId>,
    keys: BTreeMap<KeyId, KeyInfo>,
}

impl KeyRing {
    /// Without a root: the first key that a ledger adds by its own signature is taken as that.
    pub fn new() -> KeyRing {
        KeyRing::default()
    }

    /// With the root that a verifier was given.
    pub fn rooted(root: PublicKey) -> KeyRing {
        let info =
            KeyInfo { key_id: root.key_id(), public_key: root, state: KeyState::Current, since: None, until: None, reason: String::new() };
        KeyRing { root: Some(root.key_id()), keys: BTreeMap::from([(root.key_id(), info)]) }
    }

    /// The root: the one that was given, or the first that the ledger has added.
    pub fn root(&self) -> Option<KeyId> {
        self.root
    }

    /// All keys, by id.
    pub fn keys(&self) -> impl Iterator<Item = &KeyInfo> {
        self.keys.values()
    }

    /// What is known of a key.
    pub fn key(&self, key_id: KeyId) -> Option<&KeyInfo> {
        self.keys.get(&key_id)
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether this key may sign now.
    ///
    /// # Errors
    /// [`KeyFault::Unknown`], [`KeyFault::NotCurrent`].
    pub fn check(&self, key_id: KeyId) -> Result<&KeyInfo, KeyFault> {
        match self.keys.get(&key_id) {
            None => Err(KeyFault::Unknown { key_id }),
            Some(info) if info.state == KeyState::Current => Ok(info),
            Some(info) => Err(KeyFault::NotCurrent { key_id, state: info.state, since: info.until.unwrap_or_default() }),
        }
    }

    /// Whether a change follows, signed by this key; that its signature is right is for the caller to know.
    ///
    /// # Errors
    /// [`KeyFault`].
    pub fn check_change(&self, change: &KeyChange, signed_by: Option<KeyId>) -> Result<(), KeyFault> {
        let signed_by = signed_by.ok_or(KeyFault::Unsigned)?;
        if let Some(key) = change.brings().filter(|key| !key.is_usable()) {
            return Err(KeyFault::Unusable { key_id: key.key_id() });
        }
        if let (true, KeyChange::Added { key, .. }) = (self.keys.is_empty(), change) {
            // The first one vouches for itself: that it is the right one is for those to know who verify.
            return if key.key_id() == signed_by { Ok(()) } else { Err(KeyFault::Unknown { key_id: signed_by }) };
        }
        self.check(signed_by)?;
        match change {
            KeyChange::Added { key, .. } => self.check_new(*key, signed_by),
            KeyChange::Rotated { from, to, .. } if *from == signed_by => self.check_new(*to, signed_by),
            KeyChange::Rotated { from, .. } => Err(KeyFault::OtherRotates { from: *from, signed_by }),
            KeyChange::Retired { key, .. } => self.check(*key).map(drop),
            // One that is retired can still turn out to be in other hands.
            KeyChange::Revoked { key, .. } => match self.keys.get(key) {
                Some(KeyInfo { state: KeyState::Retired, .. }) => Ok(()),
                _ => self.check(*key).map(drop),
            },
        }
    }

    fn check_new(&self, key: PublicKey, signed_by: KeyId) -> Result<(), KeyFault> {
        match self.keys.get(&key.key_id()) {
            // A root that was given is introduced by the ledger too, by itself.
            Some(info) if info.since.is_none() && signed_by == info.key_id && self.root == Some(signed_by) => Ok(()),
            Some(info) => Err(KeyFault::Known { key_id: info.key_id, state: info.state }),
            None if self.keys.len() >= KEYS_MAX => Err(KeyFault::TooMany { count: self.keys.len() }),
            None => Ok(()),
        }
    }

    /// Takes a change over, as the event with this seq records it.
    ///
    /// # Errors
    /// [`KeyFault`]: then nothing has changed.
    pub fn apply(&mut self, seq: Seq, change: &KeyChange, signed_by: Option<KeyId>) -> Result<(), KeyFault> {
        self.check_change(change, signed_by)?;
        let reason = change.reason().to_owned();
        match change {
            KeyChange::Added { key, .. } => self.bring_in(*key, seq, reason),
            KeyChange::Rotated { from, to, .. } => {
                self.end(*from, KeyState::Retired, seq, reason.clone());
                self.bring_in(*to, seq, reason);
            }
            KeyChange::Retired { key, .. } => self.end(*key, KeyState::Retired, seq, reason),
            KeyChange::Revoked { key, .. } => self.end(*key, KeyState::Revoked, seq, reason),
        }
        Ok(())
    }

    /// What these events make of the keys, in order. A change that does not follow counts for nothing, as for any verifier.
    pub(crate) fn of<'e>(events: impl IntoIterator<Item = &'e KeyEvent>) -> KeyRing {
        let mut ring = KeyRing::new();
        for event in events {
            if let Err(fault) = ring.apply_event(event) {
                tracing::warn!(seq = event.seq.get(), %fault, "a change to the keys does not follow, and counts for nothing");
            }
        }
        ring
    }

    pub(crate) fn apply_event(&mut self, event: &KeyEvent) -> Result<(), KeyFault> {
        let change = event.change.as_ref().ok_or(KeyFault::Malformed)?;
        self.apply(event.seq, change, event.signed_by)
    }

    fn bring_in(&mut self, key: PublicKey, seq: Seq, reason: String) {
        let key_id = key.key_id();
        self.root.get_or_insert(key_id);
        let info = KeyInfo { key_id, public_key: key, state: KeyState::Current, since: Some(seq), until: None, reason };
        self.keys.insert(key_id, info);
    }

    fn end(&mut self, key_id: KeyId, state: KeyState, seq: Seq, reason: String) {
        if let Some(info) = self.keys.get_mut(&key_id) {
            (info.state, info.until) = (state, Some(seq));
            if !reason.is_empty() {
                info.reason = reason;
            }
        }
    }
}
