//! Public keys by id, for those who verify signatures on many threads.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::attest::{KeyId, PreparedKey, PublicKey, Signature};
use crate::chain;
use crate::event::{Event, LedgerId};

/// What is known of an event's signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Signed {
    /// It has none.
    #[default]
    No,
    /// It has one, which was not looked at, or whose key is not known (yet).
    Unchecked(KeyId),
    /// The key with this id has signed it. Whether that key may is another question.
    Right(KeyId),
    /// It is no signature of this event by that key.
    Wrong(KeyId),
}

impl Signed {
    /// Of an event that is not looked at.
    pub(crate) fn unchecked(event: &Event<'_>) -> Signed {
        match event.signed_by.and_then(|key_id| key_id.parse().ok()) {
            Some(key_id) => Signed::Unchecked(key_id),
            None => Signed::No,
        }
    }
}

/// Keys that signatures are checked with. An id is a hash of its key, so whoever names a key here can't make another pass for
/// it: that it may sign is decided elsewhere, in order.
#[derive(Debug)]
pub struct KnownKeys {
    ledger_id: LedgerId,
    keys: RwLock<HashMap<KeyId, PreparedKey>>,
}

impl KnownKeys {
    pub(crate) fn new(ledger_id: LedgerId) -> KnownKeys {
        KnownKeys { ledger_id, keys: RwLock::default() }
    }

    /// Takes a key in. What is no point of the curve has signed nothing.
    pub(crate) fn add(&self, key: PublicKey) {
        if let Some(prepared) = key.prepared() {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(key.key_id(), prepared);
        }
    }

    /// Checks an event's signature, where its key is known.
    pub(crate) fn check(&self, event: &Event<'_>) -> Signed {
        let Signed::Unchecked(key_id) = Signed::unchecked(event) else { return Signed::No };
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = keys.get(&key_id) else { return Signed::Unchecked(key_id) };
        let signature = event.signature.and_then(|text| text.parse::<Signature>().ok());
        let is_right = signature.is_some_and(|signature| key.verify(&chain::signing_input(self.ledger_id, event.event_hash), &signature));
        if is_right { Signed::Right(key_id) } else { Signed::Wrong(key_id) }
    }
}
