//! The gates that are built in. None of them allocates where it allows.

use super::{Appending, Gate, KeyStanding, ParityState, RuleId, Vote};
use crate::event::Source;
use crate::keys::{KeyChange, KeyState};

macro_rules! gate {
    ($(#[$doc:meta])* $name:ident, $rule:ident, $vote:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Gate for $name {
            fn rule(&self) -> &RuleId {
                const RULE: &RuleId = &RuleId::$rule;
                RULE
            }

            fn vote(&self, appending: &Appending<'_>) -> Vote {
                $vote(self.rule(), appending)
            }
        }
    };
}

gate!(
    /// `ledger.append.event_source_tier_gate`: sources below the policy's minimum tier.
    EventSourceTier,
    EVENT_SOURCE_TIER,
    event_source_tier
);
gate!(
    /// `ledger.append.attestation_required`: in trusted mode a user's event is signed by a current key. For users it must allow.
    AttestationRequired,
    ATTESTATION_REQUIRED,
    attestation_required
);
gate!(
    /// `ledger.append.runtime_mode`: what no key of the ledger signs is warned of in local mode, rejected in trusted mode.
    RuntimeModeGate,
    RUNTIME_MODE,
    runtime_mode
);
gate!(
    /// `ledger.append_signed.key_state_current_use`: keys that are retired or revoked sign no more. It must allow.
    KeyStateCurrentUse,
    KEY_STATE_CURRENT_USE,
    key_state_current_use
);
gate!(
    /// `ledger.append_signed.trust_tier_minimum`: keys below the policy's minimum tier.
    TrustTierMinimum,
    TRUST_TIER_MINIMUM,
    trust_tier_minimum
);
gate!(
    /// `mirror.append.parity_invariant`: what the mirror's state says.
    ParityInvariant,
    PARITY_INVARIANT,
    parity_invariant
);

fn event_source_tier(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    let (tier, min) = (appending.source_tier, appending.source_tier_min);
    if tier >= min {
        return Vote::allow(rule.clone(), "the source is trusted far enough");
    }
    appending.object(rule, format!("the source {} is {tier}, below the minimum of {min}", appending.source().kind()))
}

fn attestation_required(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    if !matches!(appending.source(), Source::User) {
        return Vote::allow(rule.clone(), "not a user's event");
    }
    if appending.key().is_current() || is_first_word(appending) {
        return Vote::allow(rule.clone(), "a current key signs it");
    }
    if !appending.is_trusted() {
        return Vote::allow(rule.clone(), "local development asks for no attestation");
    }
    Vote::reject(rule.clone(), "a user's event must be signed by a current key")
}

fn runtime_mode(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    match appending.key() {
        KeyStanding::Known(..) => Vote::allow(rule.clone(), "a key of this ledger signs it"),
        KeyStanding::Unknown(_) if is_first_word(appending) => Vote::allow(rule.clone(), "it introduces the key that signs it"),
        KeyStanding::Unknown(key_id) => appending.object(rule, format!("{key_id} signs it, which is no key of this ledger")),
        KeyStanding::Unsigned => appending.object(rule, "it is not signed"),
    }
}

fn key_state_current_use(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    match appending.key() {
        KeyStanding::Unsigned => Vote::allow(rule.clone(), "no key signs it"),
        KeyStanding::Known(_, KeyState::Current) => Vote::allow(rule.clone(), "the key that signs it is current"),
        KeyStanding::Known(key_id, state) => Vote::reject(rule.clone(), format!("{key_id} is {state}, and signs no more")),
        KeyStanding::Unknown(_) if is_first_word(appending) => Vote::allow(rule.clone(), "it introduces the key that signs it"),
        KeyStanding::Unknown(_) if !appending.is_trusted() => {
            Vote::allow(rule.clone(), "local development takes keys that it does not know")
        }
        KeyStanding::Unknown(key_id) => Vote::reject(rule.clone(), format!("{key_id} is no key of this ledger")),
    }
}

fn trust_tier_minimum(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    let (tier, min) = (appending.key_tier, appending.key_tier_min);
    match appending.key().key_id() {
        None => Vote::allow(rule.clone(), "no key signs it"),
        Some(_) if tier >= min => Vote::allow(rule.clone(), "the key that signs it is trusted far enough"),
        Some(_) if is_first_word(appending) => Vote::allow(rule.clone(), "it introduces the key that signs it"),
        Some(key_id) => appending.object(rule, format!("{key_id} is {tier}, below the minimum of {min}")),
    }
}

fn parity_invariant(rule: &RuleId, appending: &Appending<'_>) -> Vote {
    let max = appending.lag_events_max;
    match appending.parity() {
        ParityState::Consistent => Vote::allow(rule.clone(), "ledger and mirror are equal"),
        ParityState::Rebuilding => Vote::allow(rule.clone(), "the mirror is being rebuilt"),
        lagging @ ParityState::Lagging { .. } if lagging.is_well(max) => Vote::allow(rule.clone(), "the mirror lags within its bound"),
        ParityState::Lagging { events } => Vote::warn(rule.clone(), format!("the mirror lags by {events} events, more than {max}")),
        ParityState::Mismatched => appending.object(rule, "ledger and mirror differ; see `counterfoil parity --full`"),
    }
}

/// Whether it is the event that introduces the very key that signs it. Only the ledger writes such events, and the writer
/// checks that they follow from the keys it knows.
fn is_first_word(appending: &Appending<'_>) -> bool {
    match KeyChange::of(appending.event_type().as_str(), appending.payload()) {
        Some(KeyChange::Added { key, .. }) => Some(key.key_id()) == appending.key().key_id(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Policy;
    use super::*;
    use crate::attest::PublicKey;
    use crate::event::{Draft, EventType, LedgerId, Limits, Timestamp};

    /// The first key of a trusted ledger vouches for itself, and no other key can use that.
    #[test]
    fn a_key_introduces_itself() {
        let key = PublicKey::from_bytes([3; 32]);
        let draft = KeyChange::Added { key, reason: Default::default() }.draft().unwrap();
        let draft = draft.check(&Limits { line_bytes_max: 1 << 20, redactor: None }).unwrap();
        let allows = |key| Policy::trusted().decide_fast(&Appending::new(&draft, LedgerId::from_u128(7), Timestamp::EPOCH).signed(key));
        assert!(allows(KeyStanding::Unknown(key.key_id())));
        assert!(!allows(KeyStanding::Unknown(PublicKey::from_bytes([4; 32]).key_id())));
        assert!(!allows(KeyStanding::Unsigned));
        assert!(!allows(KeyStanding::Known(key.key_id(), KeyState::Retired)));
    }

    /// 100,000 events a second pass the gates: those that have nothing to say own nothing that was allocated.
    #[test]
    fn what_allows_is_borrowed() {
        let key_id = PublicKey::from_bytes([3; 32]).key_id();
        let keys = [KeyStanding::Unsigned, KeyStanding::Unknown(key_id), KeyStanding::Known(key_id, KeyState::Current)];
        let lags = [ParityState::Consistent, ParityState::Rebuilding, ParityState::Lagging { events: 9 }];
        let gates: [&dyn Gate; 6] =
            [&EventSourceTier, &AttestationRequired, &RuntimeModeGate, &KeyStateCurrentUse, &TrustTierMinimum, &ParityInvariant];
        let mut allowed = 0;
        for policy in [Policy::default(), Policy::local(), Policy::trusted()] {
            for source in [Source::User, Source::Runtime, Source::tool("bash")] {
                let draft = Draft::new(EventType::SYSTEM_NOTE, source).check(&Limits { line_bytes_max: 1 << 20, redactor: None }).unwrap();
                for (key, parity) in keys.iter().flat_map(|key| lags.map(|parity| (*key, parity))) {
                    let appending = Appending::new(&draft, LedgerId::from_u128(7), Timestamp::EPOCH).signed(key).parity_is(parity);
                    let votes = gates.map(|gate| gate.vote(&policy.seen(&appending)));
                    for vote in votes.iter().filter(|vote| vote.outcome() == super::super::Outcome::Allow) {
                        assert!(vote.is_borrowed(), "{vote}");
                        allowed += 1;
                    }
                }
            }
        }
        assert!(allowed > 300, "{allowed}");
    }
}
