//! Decisions: what comes of all votes on one append.

use std::fmt;

use serde::Serialize;

use super::{Attested, Outcome, RuleId, Vote, json};

/// What comes of all votes: the strongest wins, and every vote is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decision {
    outcome: Outcome,
    contributing: Vec<Vote>,
    discarded: Vec<Vote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorisation: Option<Attested>,
}

/// Composes votes. The same votes give the same decision, in whatever order they come; a rule that votes more than once has all
/// its votes kept. No vote at all is `allow`.
///
/// A vote of `ledger.append_signed.key_state_current_use` that blocks is never overridden, whatever it says of itself.
///
/// The authorisation is one that was found to hold, by [`Policy::attest`](super::Policy::attest). It is kept in the decision where it made the
/// difference.
pub fn compose(mut votes: Vec<Vote>, authorisation: Option<Attested>) -> Decision {
    votes.sort_by(Vote::compare);
    let strongest = votes.first().map_or(Outcome::Allow, Vote::outcome);
    let overridden = strongest.is_blocking() && is_overridable(&votes) && authorisation.is_some();
    let outcome = if overridden { Outcome::BreakGlass } else { strongest };
    let (contributing, discarded) = votes.into_iter().partition(|vote| vote.outcome() == outcome);
    Decision { outcome, contributing, discarded, authorisation: authorisation.filter(|_| overridden) }
}

/// Whether an authorisation would lift what blocks: some vote asks for break-glass, and every one that blocks allows it.
pub(super) fn is_overridable(votes: &[Vote]) -> bool {
    votes.iter().any(|vote| vote.outcome() == Outcome::BreakGlass)
        && votes
            .iter()
            .filter(|vote| vote.outcome().is_blocking())
            .all(|vote| vote.is_overridable() && *vote.rule() != RuleId::KEY_STATE_CURRENT_USE)
}

impl Decision {
    /// Nothing was against it, and nobody was asked. Allocates nothing.
    pub const fn allow() -> Decision {
        Decision { outcome: Outcome::Allow, contributing: Vec::new(), discarded: Vec::new(), authorisation: None }
    }

    /// A decision in which every rule that is built in allows, for tests and fixtures and nothing else: who appends with it has
    /// looked at nothing.
    #[doc(hidden)]
    pub fn test_only_all_allow() -> Decision {
        compose(RuleId::BUILT_IN.into_iter().map(|rule| Vote::allow(rule, "a test says so")).collect(), None)
    }

    /// What comes of it.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The votes that have its outcome, by rule.
    pub fn contributing(&self) -> &[Vote] {
        &self.contributing
    }

    /// The other votes: strongest first, then by rule.
    pub fn discarded(&self) -> &[Vote] {
        &self.discarded
    }

    /// What lifted the votes that block, where that is how it went.
    pub fn authorisation(&self) -> Option<&Attested> {
        self.authorisation.as_ref()
    }

    /// All votes: strongest first, then by rule.
    pub fn votes(&self) -> Vec<&Vote> {
        let mut votes: Vec<&Vote> = self.contributing.iter().chain(&self.discarded).collect();
        votes.sort_by(|one, other| one.compare(other));
        votes
    }

    /// Whether this rule has voted.
    pub fn has(&self, rule: &RuleId) -> bool {
        self.contributing.iter().chain(&self.discarded).any(|vote| vote.rule() == rule)
    }

    pub(super) fn into_parts(self) -> (Vec<Vote>, Option<Attested>) {
        let mut votes = self.contributing;
        votes.extend(self.discarded);
        (votes, self.authorisation)
    }

    /// The `policy` of the event, canonical as the format has it, at most [`POLICY_BYTES_MAX`](super::POLICY_BYTES_MAX) bytes.
    /// Nothing where the outcome is not one that events record: `allow` is not worth it, and what blocks has no event.
    pub fn policy_json(&self) -> Option<String> {
        self.outcome.is_recorded().then(|| json::encode(self))
    }
}

impl fmt::Display for Decision {
    /// `reject by a.b (why) and c.d (why)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome.fmt(f)?;
        for (index, vote) in self.contributing.iter().enumerate() {
            let join = if index == 0 { "by" } else { "and" };
            write!(f, " {join} {} ({})", vote.rule(), vote.reason())?;
        }
        Ok(())
    }
}
