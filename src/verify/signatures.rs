//! Who signed what, in order: whether each key may sign where it does, by the changes to keys that the ledger records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::attest::{KeyId, PublicKey};
use crate::event::{Event, LedgerId, Seq};
use crate::keys::{KeyEvent, KeyFault, KeyInfo, KeyRing, KnownKeys, Signed};
use crate::ledger::LineFault;

/// What verify is to make sure of besides the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureRules {
    /// The key that is trusted, however it was come by: the ledger's own word for it proves nothing.
    pub root: PublicKey,
    /// Every event from this one on must be signed.
    pub required_from: Option<Seq>,
}

/// What is known of signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SignatureReport {
    /// The key that was trusted.
    pub root: KeyId,
    /// Events whose signature is right, by a key that might sign there.
    pub verified: u64,
    /// Events that are not signed.
    pub unsigned: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsigned_last: Option<Seq>,
    /// The keys, as they are at the end.
    pub keys: Vec<KeyUse>,
}

/// A key, and what it has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyUse {
    /// The key.
    #[serde(flatten)]
    pub key: KeyInfo,
    /// Events that it has signed.
    pub events: u64,
}

pub(super) struct Signatures {
    rules: SignatureRules,
    ring: KeyRing,
    pub(super) known: Arc<KnownKeys>,
    verified: u64,
    unsigned: u64,
    unsigned_last: Option<Seq>,
    uses: BTreeMap<KeyId, u64>,
}

impl Signatures {
    pub(super) fn new(ledger_id: LedgerId, rules: SignatureRules) -> Signatures {
        let known = KnownKeys::new(ledger_id);
        known.add(rules.root);
        Signatures {
            rules,
            ring: KeyRing::rooted(rules.root),
            known: Arc::new(known),
            verified: 0,
            unsigned: 0,
            unsigned_last: None,
            uses: BTreeMap::new(),
        }
    }

    /// Whether an event is signed as it should be. `signed` is what another thread has made of it; `event` gives the event where
    /// it has to be looked at here.
    pub(super) fn check<'a>(
        &mut self,
        seq: Seq,
        signed: Signed,
        event: &dyn Fn() -> Option<Event<'a>>,
        is_key_event: bool,
    ) -> Option<LineFault> {
        // A key that came in a moment ago was not known yet when the line was read.
        let signed = match signed {
            Signed::Unchecked(key_id) => event().map_or(Signed::Wrong(key_id), |event| self.known.check(&event)),
            other => other,
        };
        let wrong = match signed {
            Signed::No => {
                self.unsigned += 1;
                self.unsigned_last = Some(seq);
                let is_required = self.rules.required_from.is_some_and(|from| seq >= from);
                is_required.then_some(LineFault::NotSigned)
            }
            Signed::Wrong(key_id) => Some(LineFault::Signature { key_id }),
            Signed::Unchecked(key_id) => Some(KeyFault::Unknown { key_id }.into()),
            Signed::Right(key_id) => match self.ring.check(key_id) {
                Ok(_) => {
                    self.verified += 1;
                    *self.uses.entry(key_id).or_default() += 1;
                    None
                }
                Err(fault) => Some(fault.into()),
            },
        };
        if is_key_event && wrong.is_none() {
            return event().as_ref().and_then(KeyEvent::of).and_then(|change| self.change(&change));
        }
        wrong
    }

    fn change(&mut self, event: &KeyEvent) -> Option<LineFault> {
        if let Err(fault) = self.ring.apply_event(event) {
            return Some(fault.into());
        }
        if let Some(key) = event.change.as_ref().and_then(|change| change.brings()) {
            self.known.add(key);
        }
        None
    }

    pub(super) fn report(self) -> SignatureReport {
        let keys = self.ring.keys();
        let keys = keys.map(|key| KeyUse { key: key.clone(), events: self.uses.get(&key.key_id).copied().unwrap_or_default() });
        SignatureReport {
            root: self.rules.root.key_id(),
            verified: self.verified,
            unsigned: self.unsigned,
            unsigned_last: self.unsigned_last,
            keys: keys.collect(),
        }
    }
}

impl std::fmt::Display for SignatureReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unsigned = match self.unsigned_last {
            Some(last) => format!(", {} not signed (the last is seq {last})", self.unsigned),
            None => String::new(),
        };
        writeln!(f, "  signed    {} verified from root {}{unsigned}", self.verified, self.root)?;
        for KeyUse { key, events } in &self.keys {
            let until = key.until.map_or(String::new(), |seq| format!(" since seq {seq}"));
            let plural = if *events == 1 { "" } else { "s" };
            writeln!(f, "    {} {}{until}: {events} event{plural}", key.key_id, key.state)?;
        }
        Ok(())
    }
}
