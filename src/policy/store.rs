//! The policy of a store: which gates it has, which rules it requires, whom it trusts how far.

use std::fmt;
use std::sync::Arc;

use super::{
    Appending, AttestationRequired, Attested, Authorisation, AuthorisationFault, Decision, EventSourceTier, Gate, KeyStateCurrentUse,
    Outcome, ParityInvariant, ParityState, RuleId, RuntimeMode, RuntimeModeGate, TrustTier, TrustTierMinimum, VOTES_MAX, Vote, compose,
    decision,
};
use crate::attest::{KeyId, PublicKey};
use crate::event::Source;

/// What a store is opened with: gates, required rules, and whom it trusts how far.
///
/// It says what is appended from now on; nothing that the ledger has is looked at again.
#[derive(Clone)]
pub struct Policy {
    gates: Vec<Arc<dyn Gate>>,
    /// Sorted, each once.
    required: Vec<RuleId>,
    /// Whether the gates alone cover what is required.
    is_covered: bool,
    /// Whether some gate may ask what the ledger says of keys.
    looks_at_keys: bool,
    /// Whether the mirror's state is all that is looked at, by the gate that is built in.
    is_parity_alone: bool,
    mode: RuntimeMode,
    source_tiers: Vec<(Source<'static>, TrustTier)>,
    key_tiers: Vec<(KeyId, TrustTier)>,
    source_tier_min: TrustTier,
    key_tier_min: TrustTier,
    lag_events_max: u64,
    authorisers: Vec<PublicKey>,
}

/// Why an append was refused. Nothing has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The strongest vote blocks, and nothing lifts it.
    #[error("the append is refused: {decision}; {}", Next(decision.outcome(), authorisation.as_ref()))]
    Refused {
        /// The whole decision.
        decision: Box<Decision>,
        /// Why the authorisation that was brought does not hold; or that one is missing which would have lifted what blocks.
        authorisation: Option<AuthorisationFault>,
    },
    /// A rule that must allow, whatever the rest say, has voted otherwise.
    #[error(
        "the append is refused: {} has voted {} ({}), but must vote allow, and nothing overrides it; mend what it names, and append again",
        vote.rule(), vote.outcome(), vote.reason()
    )]
    MustAllow {
        /// Its vote.
        vote: Box<Vote>,
        /// The whole decision.
        decision: Box<Decision>,
    },
    /// A rule that is required has not voted.
    #[error(
        "the append is refused: {rule} is required, and has not voted; open the store with a gate of this rule, or bring a decision to which it contributed"
    )]
    Missing {
        /// The rule.
        rule: RuleId,
    },
    /// There are more votes than a decision can have.
    #[error("the append is refused: {count} votes, but a decision has at most {VOTES_MAX}; register fewer gates, or bring fewer votes")]
    TooManyVotes {
        /// How many there are.
        count: usize,
    },
}

impl PolicyError {
    /// The whole decision, where one was reached.
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            PolicyError::Refused { decision, .. } | PolicyError::MustAllow { decision, .. } => Some(decision),
            PolicyError::Missing { .. } | PolicyError::TooManyVotes { .. } => None,
        }
    }
}

/// What to do about a refusal.
struct Next<'a>(Outcome, Option<&'a AuthorisationFault>);

impl fmt::Display for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next(_, Some(fault)) => write!(f, "break-glass was asked for, but {fault}"),
            Next(Outcome::Quarantine, None) => f.write_str("look at the event, mend what the rules name, and append it again"),
            Next(_, None) => f.write_str("mend what the rules name, and append it again"),
        }
    }
}

impl Default for Policy {
    /// Parity alone, in local mode, and nothing required but that.
    fn default() -> Policy {
        let policy = Policy {
            gates: vec![Arc::new(ParityInvariant)],
            required: vec![RuleId::PARITY_INVARIANT],
            is_covered: false,
            looks_at_keys: false,
            is_parity_alone: true,
            mode: RuntimeMode::Local,
            source_tiers: Vec::new(),
            key_tiers: Vec::new(),
            source_tier_min: TrustTier::Observed,
            key_tier_min: TrustTier::Verified,
            lag_events_max: Policy::LAG_EVENTS_MAX,
            authorisers: Vec::new(),
        };
        policy.covered()
    }
}

impl Policy {
    /// Events that the mirror may be behind before that is warned of: 65,536, a quarter of
    /// [`Options::unmirrored_events_max`](crate::Options::unmirrored_events_max), at which appends wait; and more than a mirror that
    /// is well lags by under full load.
    pub const LAG_EVENTS_MAX: u64 = 1 << 16;

    /// For local development: all rules that are built in, which warn of most things.
    pub fn local() -> Policy {
        RuleId::BUILT_IN.into_iter().fold(Policy::default().with_all(), Policy::require)
    }

    /// For a ledger that others rely on: the same rules, which reject. What no current key of the ledger signs is refused.
    pub fn trusted() -> Policy {
        Policy { mode: RuntimeMode::Trusted, ..Policy::local() }
    }

    fn with_all(self) -> Policy {
        self.with_gate(EventSourceTier)
            .with_gate(AttestationRequired)
            .with_gate(RuntimeModeGate)
            .with_gate(KeyStateCurrentUse)
            .with_gate(TrustTierMinimum)
    }

    /// Adds a gate. Where there is one of its rule already, both vote.
    pub fn with_gate(mut self, gate: impl Gate + 'static) -> Policy {
        self.gates.push(Arc::new(gate));
        self.is_parity_alone = false;
        self.covered()
    }

    /// Requires that this rule has voted: a gate of the store, or in the decision that a caller brings, who is believed. Events that the
    /// ledger itself records are asked only for rules that the store has a gate of.
    pub fn require(mut self, rule: RuleId) -> Policy {
        if let Err(at) = self.required.binary_search(&rule) {
            self.required.insert(at, rule);
        }
        self.covered()
    }

    fn covered(mut self) -> Policy {
        self.is_covered = self.required.iter().all(|rule| self.gates.iter().any(|gate| gate.rule() == rule));
        let keyless = [RuleId::PARITY_INVARIANT, RuleId::EVENT_SOURCE_TIER];
        self.looks_at_keys = self.gates.iter().any(|gate| !keyless.contains(gate.rule()));
        self
    }

    /// How far a source is trusted, instead of [`TrustTier::of`]: this tool or model, or all of them where its name is empty.
    pub fn with_source_tier(mut self, source: Source<'static>, tier: TrustTier) -> Policy {
        self.source_tiers.retain(|(known, _)| *known != source);
        self.source_tiers.push((source, tier));
        self
    }

    /// How far a key is trusted while it is current; those that nothing is said of are `verified`.
    pub fn with_key_tier(mut self, key_id: KeyId, tier: TrustTier) -> Policy {
        self.key_tiers.retain(|(known, _)| *known != key_id);
        self.key_tiers.push((key_id, tier));
        self
    }

    /// The tier that sources must have, which is `observed` by default.
    pub fn source_tier_min(mut self, tier: TrustTier) -> Policy {
        self.source_tier_min = tier;
        self
    }

    /// The tier that keys must have which sign, which is `verified` by default.
    pub fn key_tier_min(mut self, tier: TrustTier) -> Policy {
        self.key_tier_min = tier;
        self
    }

    /// How many events the mirror may be behind before that is warned of, instead of [`Policy::LAG_EVENTS_MAX`].
    pub fn lag_events_max(mut self, events: u64) -> Policy {
        self.lag_events_max = events;
        self
    }

    /// Whoever has this key may authorise break-glass. Nobody may, until someone is named.
    pub fn permit_break_glass(mut self, key: PublicKey) -> Policy {
        if !self.authorisers.contains(&key) {
            self.authorisers.push(key);
        }
        self
    }

    /// Whether a gate may ask what the ledger says of the key that signs.
    pub(crate) fn looks_at_keys(&self) -> bool {
        self.looks_at_keys
    }

    /// Its mode.
    pub fn mode(&self) -> RuntimeMode {
        self.mode
    }

    /// The rules that must have voted, by id.
    pub fn required(&self) -> &[RuleId] {
        &self.required
    }

    /// The rules of its gates, in the order in which they are asked.
    pub fn rules(&self) -> impl Iterator<Item = &RuleId> {
        self.gates.iter().map(|gate| gate.rule())
    }

    fn source_tier(&self, source: &Source<'_>) -> TrustTier {
        let is_kind = |known: &Source<'_>| known.kind() == source.kind() && known.name().unwrap_or_default().is_empty();
        let said = self.source_tiers.iter().find(|(known, _)| known == source);
        let said = said.or_else(|| self.source_tiers.iter().find(|(known, _)| is_kind(known)));
        said.map_or_else(|| TrustTier::of(source), |(_, tier)| *tier)
    }

    fn key_tier(&self, appending: &Appending<'_>) -> TrustTier {
        match appending.key().key_id() {
            Some(key_id) if appending.key().is_current() => {
                self.key_tiers.iter().find(|(known, _)| *known == key_id).map_or(TrustTier::Verified, |(_, tier)| *tier)
            }
            _ => TrustTier::Untrusted,
        }
    }

    /// What is being appended, with what the policy knows of it.
    pub(super) fn seen<'a>(&self, appending: &Appending<'a>) -> Appending<'a> {
        let mut seen = *appending;
        seen.mode = self.mode;
        seen.source_tier = self.source_tier(appending.source());
        seen.key_tier = self.key_tier(appending);
        seen.source_tier_min = self.source_tier_min;
        seen.key_tier_min = self.key_tier_min;
        seen.lag_events_max = self.lag_events_max;
        seen
    }

    /// Whether every append is allowed while the mirror is in this state, whatever it is: so it is with the policy that a store has by
    /// default, and a mirror that is well.
    pub(crate) fn allows_all(&self, parity: ParityState) -> bool {
        self.is_parity_alone && self.is_covered && parity.is_well(self.lag_events_max)
    }

    /// Whether this append is allowed without more ado: every gate allows, and all that is required has voted. Then
    /// [`Decision::allow`] is what comes of it. Allocates nothing, but for what gates do that are not built in; where it says no,
    /// [`Policy::decide`] asks all gates again.
    pub fn decide_fast(&self, appending: &Appending<'_>) -> bool {
        if !self.is_covered || self.gates.len() > VOTES_MAX {
            return false;
        }
        let seen = self.seen(appending);
        self.gates.iter().all(|gate| ask(gate.as_ref(), &seen).outcome() == Outcome::Allow)
    }

    /// Whether an authorisation holds for this append.
    ///
    /// # Errors
    /// [`AuthorisationFault`] with the first thing that is not as it should be.
    pub fn attest(&self, authorisation: &Authorisation, appending: &Appending<'_>) -> Result<Attested, AuthorisationFault> {
        authorisation.attest(&self.authorisers, appending)
    }

    /// Decides about an append: asks every gate, adds the votes of the decision that the caller brings, if any, and composes
    /// them. What the caller brings can't weaken anything: its votes are votes like any other, its outcome means nothing, and the
    /// authorisation in it is looked at again (unless there is another).
    ///
    /// What comes back may be written: allow, warn or break_glass. The last two are recorded in the event:
    /// [`Decision::policy_json`].
    ///
    /// # Errors
    /// [`PolicyError`], which has the whole decision where one was reached.
    pub fn decide(
        &self,
        appending: &Appending<'_>,
        brought: Option<Decision>,
        authorisation: Option<&Authorisation>,
    ) -> Result<Decision, PolicyError> {
        let seen = self.seen(appending);
        let mut votes: Vec<Vote> = self.gates.iter().map(|gate| ask(gate.as_ref(), &seen).under(gate.rule())).collect();
        let (more, brought) = brought.map(Decision::into_parts).unwrap_or_default();
        votes.extend(more);
        if votes.len() > VOTES_MAX {
            return Err(PolicyError::TooManyVotes { count: votes.len() });
        }
        // For its own events the ledger has nobody to ask but its gates.
        let is_own = appending.event_type().is_reserved();
        let is_asked = |rule: &&RuleId| !is_own || self.gates.iter().any(|gate| gate.rule() == *rule);
        if let Some(rule) = self.required.iter().filter(is_asked).find(|rule| !votes.iter().any(|vote| vote.rule() == *rule)) {
            return Err(PolicyError::Missing { rule: rule.clone() });
        }
        let must_allow = |vote: &Vote| must_allow(vote.rule(), appending.source());
        let votes: Vec<Vote> = votes.into_iter().map(|vote| if must_allow(&vote) { vote.final_word() } else { vote }).collect();
        let authorisation = authorisation.or(brought.as_ref().map(Attested::authorisation));
        let (attested, fault) = self.overriding(&votes, authorisation, appending);
        let decision = compose(votes, attested);
        if decision.outcome().is_blocking() {
            return Err(PolicyError::Refused { decision: Box::new(decision), authorisation: fault });
        }
        let mut votes = decision.contributing().iter().chain(decision.discarded());
        match votes.find(|vote| must_allow(vote) && vote.outcome() != Outcome::Allow).cloned() {
            Some(vote) => Err(PolicyError::MustAllow { vote: Box::new(vote), decision: Box::new(decision) }),
            None => Ok(decision),
        }
    }

    /// The authorisation where it would make a difference and holds, or why it does not.
    fn overriding(
        &self,
        votes: &[Vote],
        authorisation: Option<&Authorisation>,
        appending: &Appending<'_>,
    ) -> (Option<Attested>, Option<AuthorisationFault>) {
        let is_blocked = votes.iter().any(|vote| vote.outcome().is_blocking());
        if !is_blocked || !decision::is_overridable(votes) {
            return (None, None);
        }
        match authorisation.map_or(Err(AuthorisationFault::Missing), |authorisation| self.attest(authorisation, appending)) {
            Ok(attested) => (Some(attested), None),
            Err(fault) => (None, Some(fault)),
        }
    }
}

/// A gate's vote. One that panics has not said that it may be written.
fn ask(gate: &dyn Gate, seen: &Appending<'_>) -> Vote {
    let vote = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.vote(seen)));
    vote.unwrap_or_else(|_| Vote::reject(gate.rule().clone(), "the gate panicked"))
}

/// Whether this rule must vote allow, so that break-glass can't stand in for it.
fn must_allow(rule: &RuleId, source: &Source<'_>) -> bool {
    *rule == RuleId::KEY_STATE_CURRENT_USE || (*rule == RuleId::ATTESTATION_REQUIRED && matches!(source, Source::User))
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("gates", &self.gates)
            .field("required", &self.required)
            .field("mode", &self.mode)
            .field("source_tiers", &self.source_tiers)
            .field("key_tiers", &self.key_tiers)
            .field("source_tier_min", &self.source_tier_min)
            .field("key_tier_min", &self.key_tier_min)
            .field("lag_events_max", &self.lag_events_max)
            .field("authorisers", &self.authorisers)
            .finish_non_exhaustive()
    }
}
