//! Goal: whatever the votes, their order never matters, none is lost, nothing passes that a vote blocks without a break-glass that
//! holds, a further vote never weakens, and what is required has voted.
//!
//! Method: proptest over votes of a few rules (so that they meet), every kind of authorisation, source, key and state of parity;
//! what may pass is written down here a second time, from the words. The seed is fixed; COUNTERFOIL_POLICY_ROUNDS says how
//! many cases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod policy_support;

use std::cell::Cell;

use counterfoil::policy::*;
use counterfoil::*;
use policy_support::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn runner() -> TestRunner {
    let cases = std::env::var("COUNTERFOIL_POLICY_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(500);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

fn vote() -> impl Strategy<Value = Vote> {
    let own = ["acme.one", "acme.two"].map(|name| RuleId::new(name).unwrap());
    let rules = own.into_iter().chain([RuleId::KEY_STATE_CURRENT_USE, RuleId::ATTESTATION_REQUIRED, RuleId::PARITY_INVARIANT]);
    let rule = prop::sample::select(rules.collect::<Vec<_>>());
    let reason = prop_oneof![Just("so"), Just("no"), Just("a \"reason\" with \\ and \u{2028}, and a\nline end")];
    // More can be overridden than not, or break-glass would hardly ever come through.
    (rule, prop::sample::select(Outcome::ALL.to_vec()), reason, prop::bool::weighted(0.8)).prop_map(
        |(rule, outcome, reason, overridable)| {
            let vote = Vote::new(rule, outcome, reason);
            if overridable { vote.overridable() } else { vote }
        },
    )
}

fn votes() -> impl Strategy<Value = Vec<Vote>> {
    prop::collection::vec(vote(), 0..7)
}

/// What stands around an append: source, authorisation, and whether the policy names who may authorise.
#[derive(Clone, Debug)]
struct Around {
    is_user: bool,
    authorisation: &'static str,
    is_permitted: bool,
}

fn around() -> impl Strategy<Value = Around> {
    let authorisation = prop_oneof![1 => Just("valid"), 1 => prop::sample::select(AUTHORISATIONS.to_vec())];
    (any::<bool>(), authorisation, prop::bool::weighted(0.8)).prop_map(|(is_user, authorisation, is_permitted)| Around {
        is_user,
        authorisation,
        is_permitted,
    })
}

impl Around {
    fn policy(&self) -> Policy {
        if self.is_permitted { permitted(Policy::default()) } else { Policy::default() }
    }

    fn holds(&self) -> bool {
        self.is_permitted && self.authorisation.starts_with("valid")
    }

    fn decide(&self, votes: &[Vote]) -> Result<Decision, PolicyError> {
        let draft = draft(if self.is_user { Source::User } else { Source::Runtime });
        // One that names the payload names that of either source: it is the same.
        let appending = Appending::new(&draft, ledger_id(), noon(0));
        self.policy().decide(&appending, Some(compose(votes.to_vec(), None)), authorisation(self.authorisation).as_ref())
    }

    fn must_allow(&self, vote: &Vote) -> bool {
        *vote.rule() == RuleId::KEY_STATE_CURRENT_USE || (self.is_user && *vote.rule() == RuleId::ATTESTATION_REQUIRED)
    }
}

fn sorted(votes: impl IntoIterator<Item = Vote>) -> Vec<String> {
    let mut texts: Vec<String> = votes.into_iter().map(|vote| format!("{vote} {}", vote.is_overridable())).collect();
    texts.sort();
    texts
}

#[test]
fn order_never_matters_and_no_vote_is_lost() {
    let shuffled = votes().prop_flat_map(|votes| (Just(votes.clone()), Just(votes).prop_shuffle()));
    let attested = attested();
    runner()
        .run(&(shuffled, any::<bool>()), |((one, other), holds)| {
            let decision = compose(one.clone(), holds.then(|| attested.clone()));
            prop_assert_eq!(&decision, &compose(other, holds.then(|| attested.clone())));
            prop_assert!(decision.contributing().iter().all(|vote| vote.outcome() == decision.outcome()));
            prop_assert!(decision.discarded().iter().all(|vote| vote.outcome() != decision.outcome()));
            let kept = decision.contributing().iter().chain(decision.discarded()).cloned();
            prop_assert_eq!(sorted(kept), sorted(one));
            if let Some(json) = decision.policy_json() {
                stands_in_a_line(&json);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn nothing_blocked_passes_without_a_break_glass_that_holds() {
    let (lifted, blocked) = (Cell::new(0), Cell::new(0));
    runner()
        .run(&(votes(), around()), |(votes, around)| {
            let result = around.decide(&votes);
            let blocking: Vec<&Vote> = votes.iter().filter(|vote| vote.outcome().is_blocking()).collect();
            let asked = votes.iter().any(|vote| vote.outcome() == Outcome::BreakGlass);
            let may_lift = asked && around.holds() && blocking.iter().all(|vote| vote.is_overridable() && !around.must_allow(vote));
            let all_must_allow = votes.iter().all(|vote| !around.must_allow(vote) || vote.outcome() == Outcome::Allow);
            let strongest = votes.iter().map(Vote::outcome).max().unwrap_or_default();
            match &result {
                Ok(decision) => {
                    prop_assert!(all_must_allow);
                    prop_assert!(blocking.is_empty() || may_lift);
                    let expected = if blocking.is_empty() { strongest } else { Outcome::BreakGlass };
                    prop_assert_eq!(decision.outcome(), expected);
                    prop_assert_eq!(decision.authorisation().is_some(), !blocking.is_empty());
                    lifted.set(lifted.get() + u32::from(!blocking.is_empty()));
                }
                Err(PolicyError::Refused { decision, .. }) => {
                    prop_assert!(!blocking.is_empty() && !may_lift);
                    prop_assert_eq!(decision.outcome(), strongest);
                    prop_assert!(decision.authorisation().is_none() && decision.policy_json().is_none());
                    blocked.set(blocked.get() + 1);
                }
                Err(PolicyError::MustAllow { vote, .. }) => {
                    prop_assert!((blocking.is_empty() || may_lift) && around.must_allow(vote) && vote.outcome() != Outcome::Allow);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            // All votes are kept, the store's own among them.
            let decision = result.as_ref().unwrap_or_else(|error| error.decision().unwrap());
            prop_assert_eq!(decision.votes().len(), votes.len() + 1);
            Ok(())
        })
        .unwrap();
    // The property has seen both.
    assert!(lifted.get() > 5 && blocked.get() > 50, "{lifted:?} lifted, {blocked:?} blocked");
}

#[test]
fn a_further_vote_never_weakens() {
    let attested = attested();
    runner()
        .run(&(votes(), vote(), around(), any::<bool>()), |(before, further, around, holds)| {
            let after: Vec<Vote> = before.iter().cloned().chain([further.clone()]).collect();
            let [one, other] = [&before, &after].map(|votes| compose(votes.clone(), holds.then(|| attested.clone())).outcome());
            let asks = further.outcome() == Outcome::BreakGlass;
            prop_assert!(other >= one || (asks && holds && other == Outcome::BreakGlass), "{} to {}", one, other);
            let [one, other] = [&before, &after].map(|votes| around.decide(votes));
            prop_assert!(one.is_ok() || other.is_err() || (asks && around.holds()));
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_required_has_voted() {
    let names = ["acme.one", "acme.two", "acme.three"].map(|name| RuleId::new(name).unwrap());
    let required = prop::sample::subsequence([names.to_vec(), RuleId::BUILT_IN.to_vec()].concat(), 0..4);
    let (missing, present) = (Cell::new(0), Cell::new(0));
    runner()
        .run(&(votes(), required, any::<bool>(), any::<bool>()), |(votes, required, is_local, brings)| {
            let policy = if is_local { Policy::local() } else { Policy::default() };
            let policy = required.iter().cloned().fold(policy, Policy::require);
            let draft = draft(Source::Runtime);
            let appending = Appending::new(&draft, ledger_id(), noon(0));
            let brought = if brings { votes } else { Vec::new() };
            let voted = |rule: &&RuleId| policy.rules().any(|gate| gate == *rule) || brought.iter().any(|vote| vote.rule() == *rule);
            let lacking = required.iter().find(|rule| !voted(rule));
            match policy.decide(&appending, Some(compose(brought.clone(), None)), None) {
                Err(error @ PolicyError::Missing { .. }) => {
                    let PolicyError::Missing { rule } = &error else { unreachable!() };
                    prop_assert!(required.contains(rule) && !voted(&rule));
                    prop_assert!(error.to_string().contains(rule.as_str()));
                    missing.set(missing.get() + 1);
                }
                _ => {
                    prop_assert_eq!(lacking, None);
                    present.set(present.get() + 1);
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(missing.get() > 50 && present.get() > 50, "{missing:?} missing, {present:?} present");
}

#[test]
fn the_fast_way_says_what_the_slow_one_says() {
    let sources = [Source::User, Source::Runtime, Source::tool("bash"), Source::ExternalOutcome, Source::ManualCorrection];
    let source = prop::sample::select(sources.to_vec());
    let allowed = Cell::new(0);
    let key_name = prop::sample::select(KEYS.to_vec());
    let parity_name = prop::sample::select(PARITIES.to_vec());
    let tiers = prop::sample::select(vec![TrustTier::Untrusted, TrustTier::Observed, TrustTier::Verified, TrustTier::Operator]);
    runner()
        .run(&(source, key_name, parity_name, tiers.clone(), tiers, 0..4u8), |(source, key_name, parity_name, from, by, which)| {
            let policy = match which {
                0 => Policy::default(),
                1 => Policy::local(),
                2 => Policy::trusted(),
                _ => Policy::local().require(RuleId::new("acme.one").unwrap()),
            };
            let policy = policy.lag_events_max(10).source_tier_min(from).key_tier_min(by);
            let draft = draft(source);
            let appending = Appending::new(&draft, ledger_id(), noon(0)).signed(key(key_name)).parity_is(parity(parity_name));
            let slow = policy.decide(&appending, None, None).is_ok_and(|decision| decision.outcome() == Outcome::Allow);
            prop_assert_eq!(policy.decide_fast(&appending), slow);
            allowed.set(allowed.get() + u32::from(slow));
            Ok(())
        })
        .unwrap();
    assert!(allowed.get() > 50, "{allowed:?}");
}
