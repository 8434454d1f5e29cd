//! Whether drafts may be appended: by those who are to sign them, by the ledger's keys, and by the store's policy.
//!
//! Called when they are staged, once it is known that they are no duplicates and that their conditions hold. Writes nothing.

use super::Writer;
use crate::attest::Signer;
use crate::event::{Brought, CheckedDraft, DraftError, Timestamp};
use crate::keys::{KEY_EVENTS, KeyChange, KeyFault};
use crate::ledger::{AppendError, Lookup};
use crate::policy::{Appending, KeyStanding, ParityState};

impl Writer {
    /// Whether those who are to sign can be asked, and changes to keys follow from those that the ledger has.
    pub(super) fn check_keys(&mut self, drafts: &[CheckedDraft], lookup: &mut dyn Lookup) -> Result<(), AppendError> {
        let mut changed = None;
        for draft in drafts {
            let signed_by = match self.signing.of(draft) {
                Some(signer) => {
                    self.signing.check(signer)?;
                    Some(signer.key_id())
                }
                None => None,
            };
            let draft = draft.draft();
            if !KEY_EVENTS.contains(&draft.event_type().as_str()) {
                continue;
            }
            let change = KeyChange::of(draft.event_type().as_str(), draft.payload_bytes()).ok_or(KeyFault::Malformed)?;
            let ring = match &mut changed {
                Some(ring) => ring,
                none => none.insert(self.keys.ring(lookup)?.clone()),
            };
            ring.apply(self.last_staged().seq.next(), &change, signed_by)?;
        }
        Ok(())
    }

    /// Whether those who are to sign are keys of the ledger that may, where it records its keys at all: else verify would never again
    /// find it signed as it should be. Asked behind the policy, which may have more to say of it.
    pub(super) fn check_use(&mut self, drafts: &[CheckedDraft], lookup: &mut dyn Lookup) -> Result<(), AppendError> {
        for draft in drafts {
            let Some(key_id) = self.signing.of(draft).map(Signer::key_id) else { continue };
            let ring = self.keys.ring(lookup)?;
            if !ring.is_empty() {
                ring.check(key_id)?;
            }
        }
        Ok(())
    }

    /// What the store's policy says of these drafts: for each the text that its event has of it, where it has one; nothing at all
    /// where nobody has anything to say.
    pub(super) fn decide(
        &mut self,
        drafts: &[CheckedDraft],
        now: Timestamp,
        lookup: &mut dyn Lookup,
    ) -> Result<Vec<Option<String>>, AppendError> {
        let policy = &self.options.policy;
        let mut decisions = Vec::new();
        if policy.allows_all(self.parity) && drafts.iter().all(|draft| draft.draft().brought().is_none()) {
            return Ok(decisions);
        }
        for (index, draft) in drafts.iter().enumerate() {
            let key = match self.signing.of(draft) {
                Some(signer) if policy.looks_at_keys() => KeyStanding::of(self.keys.ring(lookup)?, Some(signer.key_id())),
                Some(signer) => KeyStanding::Unknown(signer.key_id()),
                None => KeyStanding::Unsigned,
            };
            let appending = Appending::new(draft, self.ledger_id, now).signed(key).parity_is(self.parity);
            let brought = draft.draft().brought();
            if brought.is_none() && policy.decide_fast(&appending) {
                continue;
            }
            let Brought { decision, authorisation } = brought.cloned().unwrap_or_default();
            let decision = policy.decide(&appending, decision, authorisation.as_ref()).map_err(Box::new)?;
            if let Some(json) = decision.policy_json() {
                decisions.resize(index, None);
                decisions.push(Some(json));
            }
        }
        Ok(decisions)
    }

    /// Whether the lines have room for what the policy adds to them.
    pub(super) fn check_room(&self, drafts: &[CheckedDraft], decisions: &[Option<String>]) -> Result<(), AppendError> {
        let mut bytes = drafts.iter().zip(decisions).map(|(draft, json)| draft.line_bytes_max() + json.as_ref().map_or(0, String::len));
        let max = self.options.line_bytes_max;
        match bytes.find(|bytes| *bytes > max) {
            Some(bytes) => Err(DraftError::LineTooLong { bytes, max }.into()),
            None => Ok(()),
        }
    }

    /// Takes note of how the mirror stands to the ledger, for the policy.
    pub fn parity_is(&mut self, parity: ParityState) {
        self.parity = parity;
    }
}
