//! Goal: what comes of votes, of break-glass and of the gates that are built in is what the tables below say.
//!
//! Method: each row is one case. Votes are written `rule:outcome`, with a `*` where break-glass may override them, and come in
//! the order written. The first table goes through `compose` alone, the second through `decide` with each kind of
//! authorisation, the third asks each built-in gate by itself; a snapshot holds what the presets make of every mode, source, key
//! and state of parity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod policy_support;

use std::fmt::Write;

use counterfoil::policy::*;
use counterfoil::*;
use policy_support::*;

/// `key` and `attest` are the two rules that nothing can stand in for; the rest stand for themselves.
fn rule(name: &str) -> RuleId {
    match name {
        "key" => RuleId::KEY_STATE_CURRENT_USE,
        "attest" => RuleId::ATTESTATION_REQUIRED,
        "parity" => RuleId::PARITY_INVARIANT,
        "mode" => RuleId::RUNTIME_MODE,
        "source" => RuleId::EVENT_SOURCE_TIER,
        "tier" => RuleId::TRUST_TIER_MINIMUM,
        other => RuleId::new(other).unwrap(),
    }
}

fn short(vote: &Vote) -> String {
    let names = ["key", "attest", "parity", "mode", "source", "tier"];
    let name = names.into_iter().find(|name| rule(name) == *vote.rule()).unwrap_or(vote.rule().as_str());
    format!("{name}:{}{}", vote.outcome(), if vote.is_overridable() { "*" } else { "" })
}

fn list(votes: &[Vote]) -> String {
    if votes.is_empty() { "-".to_owned() } else { votes.iter().map(short).collect::<Vec<_>>().join(" ") }
}

fn votes(text: &str) -> Vec<Vote> {
    let outcome = |name: &str| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name).unwrap();
    let vote = |text: &str| {
        let (name, word) = text.split_once(':').unwrap();
        let vote = Vote::new(rule(name), outcome(word.trim_end_matches('*')), format!("{name} says so"));
        if word.ends_with('*') { vote.overridable() } else { vote }
    };
    text.split_whitespace().filter(|text| *text != "-").map(vote).collect()
}

/// The cells of a table's rows.
fn rows<const N: usize>(table: &str) -> Vec<[&str; N]> {
    table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("not {N} cells: {line}")))
        .collect()
}

// votes | an authorisation that holds | outcome | contributing | discarded
const COMPOSED: &str = "
    # the order of outcomes
    -                                  | no  | allow       | -                     | -
    a:allow                            | no  | allow       | a:allow               | -
    a:warn                             | no  | warn        | a:warn                | -
    a:break_glass                      | no  | break_glass | a:break_glass         | -
    a:quarantine                       | no  | quarantine  | a:quarantine          | -
    a:reject                           | no  | reject      | a:reject              | -
    a:allow b:warn                     | no  | warn        | b:warn                | a:allow
    a:warn b:break_glass               | no  | break_glass | b:break_glass         | a:warn
    a:break_glass b:quarantine         | no  | quarantine  | b:quarantine          | a:break_glass
    a:quarantine b:reject              | no  | reject      | b:reject              | a:quarantine
    a:allow b:warn c:break_glass d:quarantine e:reject | no | reject | e:reject     | d:quarantine c:break_glass b:warn a:allow
    e:reject d:quarantine c:break_glass b:warn a:allow | no | reject | e:reject     | d:quarantine c:break_glass b:warn a:allow

    # ties, by rule
    b:allow a:allow                    | no  | allow       | a:allow b:allow       | -
    b:warn a:warn c:allow              | no  | warn        | a:warn b:warn         | c:allow
    b:reject a:reject                  | no  | reject      | a:reject b:reject     | -
    z:allow b:warn y:allow a:reject    | no  | reject      | a:reject              | b:warn y:allow z:allow
    a.b:warn a:warn a_b:warn           | no  | warn        | a:warn a.b:warn a_b:warn | -

    # a rule that votes more than once: all its votes are kept
    a:allow a:reject                   | no  | reject      | a:reject              | a:allow
    a:reject a:reject                  | no  | reject      | a:reject a:reject     | -
    a:warn a:allow a:warn              | no  | warn        | a:warn a:warn         | a:allow
    a:reject* a:reject                 | no  | reject      | a:reject a:reject*    | -

    # break-glass lifts what blocks, where all of it agrees
    a:reject* b:break_glass            | yes | break_glass | b:break_glass         | a:reject*
    a:quarantine* b:break_glass        | yes | break_glass | b:break_glass         | a:quarantine*
    b:break_glass a:reject* c:quarantine* | yes | break_glass | b:break_glass      | a:reject* c:quarantine*
    a:reject* a:break_glass            | yes | break_glass | a:break_glass         | a:reject*
    a:reject* c:break_glass b:break_glass d:warn e:allow | yes | break_glass | b:break_glass c:break_glass | a:reject* d:warn e:allow
    attest:reject* b:break_glass       | yes | break_glass | b:break_glass         | attest:reject*
    parity:reject* mode:reject* b:break_glass | yes | break_glass | b:break_glass  | mode:reject* parity:reject*

    # and no further
    a:reject* b:break_glass            | no  | reject      | a:reject*             | b:break_glass
    a:quarantine* b:break_glass        | no  | quarantine  | a:quarantine*         | b:break_glass
    a:reject b:break_glass             | yes | reject      | a:reject              | b:break_glass
    a:quarantine b:break_glass         | yes | quarantine  | a:quarantine          | b:break_glass
    a:reject* c:quarantine b:break_glass | yes | reject    | a:reject*             | c:quarantine b:break_glass
    a:reject c:quarantine* b:break_glass | yes | reject    | a:reject              | c:quarantine* b:break_glass
    a:reject* c:reject b:break_glass   | yes | reject      | a:reject* c:reject    | b:break_glass
    a:reject* a:reject b:break_glass   | yes | reject      | a:reject a:reject*    | b:break_glass
    a:reject*                          | yes | reject      | a:reject*             | -
    a:quarantine*                      | yes | quarantine  | a:quarantine*         | -
    a:reject* b:warn* c:allow*         | yes | reject      | a:reject*             | b:warn* c:allow*
    a:reject b:break_glass*            | yes | reject      | a:reject              | b:break_glass*

    # where nothing blocks, an authorisation means nothing
    -                                  | yes | allow       | -                     | -
    a:allow                            | yes | allow       | a:allow               | -
    a:warn b:allow                     | yes | warn        | a:warn                | b:allow
    a:break_glass b:warn               | yes | break_glass | a:break_glass         | b:warn

    # the state of a key is never overridden
    key:reject* b:break_glass          | yes | reject      | key:reject*           | b:break_glass
    key:quarantine* b:break_glass      | yes | quarantine  | key:quarantine*       | b:break_glass
    key:reject* a:reject* b:break_glass | yes | reject     | a:reject* key:reject* | b:break_glass
    key:allow a:reject* b:break_glass  | yes | break_glass | b:break_glass         | a:reject* key:allow
";

#[test]
fn votes_compose() {
    let rows = rows::<5>(COMPOSED);
    assert!(rows.len() >= 48, "{}", rows.len());
    for [given, holds, outcome, contributing, discarded] in rows {
        let decision = compose(votes(given), (holds == "yes").then(attested));
        let found = (decision.outcome().as_str(), list(decision.contributing()), list(decision.discarded()));
        assert_eq!(found, (outcome, contributing.to_owned(), discarded.to_owned()), "{given}");
        // It is kept where it has lifted something, and only there.
        let lifted = outcome == "break_glass" && votes(given).iter().any(|vote| vote.outcome().is_blocking());
        assert_eq!(decision.authorisation().is_some(), lifted, "{given}");
        match decision.policy_json() {
            Some(json) => {
                assert!(["warn", "break_glass"].contains(&outcome), "{given}");
                assert!(json.len() <= POLICY_BYTES_MAX);
                stands_in_a_line(&json);
            }
            None => assert!(["allow", "quarantine", "reject"].contains(&outcome), "{given}"),
        }
    }
}

// source | votes that the caller brings | authorisation | what comes of it
const DECIDED: &str = "
    tool | a:reject* b:break_glass            | valid            | break_glass
    tool | a:reject* b:break_glass            | valid-by-id      | break_glass
    tool | a:reject* b:break_glass            | valid-by-payload | break_glass
    tool | a:reject* b:break_glass            | valid-to-now     | break_glass
    tool | a:reject* b:break_glass            | valid-from-now   | break_glass
    tool | a:reject* b:break_glass            | -                | refused: there is no authorisation
    tool | a:reject* b:break_glass            | stranger         | refused: may not authorise it here
    tool | a:reject* b:break_glass            | other-signature  | refused: does not verify
    tool | a:reject* b:break_glass            | changed          | refused: does not verify
    tool | a:reject* b:break_glass            | key-swapped      | refused: does not verify
    tool | a:reject* b:break_glass            | other-ledger     | refused: is for the ledger ldg_00000000000000000000000001
    tool | a:reject* b:break_glass            | other-operation  | refused: is for `ledger.erase`
    tool | a:reject* b:break_glass            | other-session    | refused: names neither this event
    tool | a:reject* b:break_glass            | too-early        | refused: begins at 2026-11-28T12:00:01.000000Z
    tool | a:reject* b:break_glass            | too-late         | refused: ended at 2026-11-28T11:59:59.000000Z
    tool | a:reject b:break_glass             | valid            | refused: mend what the rules name
    tool | a:quarantine b:break_glass         | valid            | refused: look at the event
    tool | a:reject*                          | valid            | refused: mend what the rules name
    tool | a:reject*                          | too-late         | refused: mend what the rules name
    tool | a:warn                             | too-late         | warn
    tool | a:break_glass                      | too-late         | break_glass
    tool | -                                  | stranger         | allow
    # a key's state must be allowed, whatever the rest say
    tool | key:warn                           | -                | must allow: key:warn
    tool | key:break_glass                    | valid            | must allow: key:break_glass
    tool | key:allow                          | -                | allow
    tool | key:allow key:warn                 | -                | must allow: key:warn
    tool | key:reject                         | -                | refused: mend what the rules name
    tool | key:reject* b:break_glass          | valid            | refused: mend what the rules name
    tool | key:warn a:reject* b:break_glass   | valid            | must allow: key:warn
    tool | key:warn a:reject                  | -                | refused: mend what the rules name
    # so must the attestation of users, and only of users
    user | attest:allow                       | -                | allow
    user | attest:warn                        | -                | must allow: attest:warn
    user | attest:break_glass                 | valid            | must allow: attest:break_glass
    user | attest:reject* b:break_glass       | valid            | refused: mend what the rules name
    user | attest:quarantine* b:break_glass   | valid            | refused: look at the event
    user | attest:allow a:reject* b:break_glass | valid          | break_glass
    tool | attest:warn                        | -                | warn
    tool | attest:reject* b:break_glass       | valid            | break_glass
";

fn source(name: &str) -> Source<'static> {
    match name {
        "user" => Source::User,
        "child_agent" => Source::child_agent("m-1"),
        "tool" => Source::tool("bash"),
        "runtime" => Source::Runtime,
        "external_outcome" => Source::ExternalOutcome,
        "manual_correction" => Source::ManualCorrection,
        other => panic!("no source {other}"),
    }
}

fn said(result: &Result<Decision, PolicyError>) -> String {
    match result {
        Ok(decision) => decision.outcome().to_string(),
        Err(PolicyError::MustAllow { vote, .. }) => format!("must allow: {}", short(vote)),
        Err(error) => format!("refused: {error}"),
    }
}

#[test]
fn authorisations_hold_or_say_why_not() {
    let policy = permitted(Policy::default());
    for [from, brought, name, expected] in rows::<4>(DECIDED) {
        let draft = draft(source(from));
        let appending = Appending::new(&draft, ledger_id(), noon(0));
        let given = authorisation(name);
        let result = policy.decide(&appending, Some(compose(votes(brought), None)), given.as_ref());
        let text = said(&result);
        let fits = match expected.strip_prefix("refused: ") {
            Some(why) => text.starts_with("refused: the append is refused: ") && text.contains(why),
            None => text == expected,
        };
        assert!(fits, "{brought} with {name}: {text}, not {expected}");
        let decision = result.as_ref().map_or_else(|error| error.decision().unwrap().clone(), Decision::clone);
        assert!(decision.has(&RuleId::PARITY_INVARIANT), "the store's own gate has voted too");
        if let Some(json) = result.ok().and_then(|decision| decision.policy_json()) {
            stands_in_a_line(&json);
        }
    }
}

#[test]
fn nobody_may_authorise_until_someone_is_named() {
    let draft = draft(Source::Runtime);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    let brought = compose(votes("a:reject* b:break_glass"), None);
    let result = Policy::default().decide(&appending, Some(brought), authorisation("valid").as_ref());
    assert!(matches!(result, Err(PolicyError::Refused { authorisation: Some(AuthorisationFault::NotPermitted { .. }), .. })));
}

/// A decision that was reached elsewhere, by a policy that permits others, does not carry its authorisation in here.
#[test]
fn a_brought_authorisation_is_looked_at_again() {
    let draft = draft(Source::Runtime);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    let brought = || compose(votes("a:reject* b:break_glass"), Some(attested()));
    assert_eq!(brought().outcome(), Outcome::BreakGlass);
    assert_eq!(said(&permitted(Policy::default()).decide(&appending, Some(brought()), None)), "break_glass");
    assert!(Policy::default().decide(&appending, Some(brought()), None).is_err());
    let late = Appending::new(&draft, ledger_id(), noon(61));
    assert!(permitted(Policy::default()).decide(&late, Some(brought()), None).is_err());
}

// gate | mode | source | key | parity | vote
const GATES: &str = "
    source | local   | tool              | unsigned | consistent | source:allow
    source | trusted | external_outcome  | unsigned | consistent | source:allow
    source | trusted | manual_correction | unsigned | consistent | source:allow
    # minimum raised to verified
    source+ | local   | tool             | unsigned | consistent | source:warn
    source+ | trusted | tool             | unsigned | consistent | source:reject*
    source+ | trusted | child_agent      | current  | consistent | source:reject*
    source+ | trusted | external_outcome | current  | consistent | source:reject*
    source+ | trusted | user             | unsigned | consistent | source:allow
    source+ | trusted | runtime          | unsigned | consistent | source:allow
    source+ | trusted | manual_correction | unsigned | consistent | source:allow

    attest | local   | user | unsigned | consistent | attest:allow
    attest | local   | user | current  | consistent | attest:allow
    attest | local   | user | unknown  | consistent | attest:allow
    attest | trusted | user | unsigned | consistent | attest:reject
    attest | trusted | user | current  | consistent | attest:allow
    attest | trusted | user | retired  | consistent | attest:reject
    attest | trusted | user | revoked  | consistent | attest:reject
    attest | trusted | user | unknown  | consistent | attest:reject
    attest | trusted | tool | unsigned | consistent | attest:allow
    attest | trusted | manual_correction | unsigned | consistent | attest:allow

    mode | local   | tool | unsigned | consistent | mode:warn
    mode | trusted | tool | unsigned | consistent | mode:reject*
    mode | local   | tool | current  | consistent | mode:allow
    mode | trusted | tool | current  | consistent | mode:allow
    mode | local   | tool | unknown  | consistent | mode:warn
    mode | trusted | tool | unknown  | consistent | mode:reject*

    key | local   | tool | unsigned | consistent | key:allow
    key | trusted | tool | unsigned | consistent | key:allow
    key | local   | tool | current  | consistent | key:allow
    key | trusted | tool | current  | consistent | key:allow
    key | local   | tool | retired  | consistent | key:reject
    key | trusted | tool | retired  | consistent | key:reject
    key | local   | tool | revoked  | consistent | key:reject
    key | trusted | tool | revoked  | consistent | key:reject
    key | local   | tool | unknown  | consistent | key:allow
    key | trusted | tool | unknown  | consistent | key:reject

    tier | local   | tool | unsigned | consistent | tier:allow
    tier | trusted | tool | unsigned | consistent | tier:allow
    tier | trusted | tool | current  | consistent | tier:allow
    tier | local   | tool | unknown  | consistent | tier:warn
    tier | trusted | tool | unknown  | consistent | tier:reject*
    # minimum raised to operator
    tier+ | local   | tool | current | consistent | tier:warn
    tier+ | trusted | tool | current | consistent | tier:reject*

    parity | local   | tool | unsigned | consistent | parity:allow
    parity | local   | tool | unsigned | rebuilding | parity:allow
    parity | local   | tool | unsigned | lagging-10 | parity:allow
    parity | local   | tool | unsigned | lagging-11 | parity:warn
    parity | local   | tool | unsigned | mismatched | parity:warn
    parity | trusted | tool | unsigned | consistent | parity:allow
    parity | trusted | tool | unsigned | rebuilding | parity:allow
    parity | trusted | tool | unsigned | lagging-10 | parity:allow
    parity | trusted | tool | unsigned | lagging-11 | parity:warn
    parity | trusted | tool | unsigned | mismatched | parity:reject*
";

fn all_votes(policy: &Policy, appending: &Appending<'_>) -> Vec<Vote> {
    let decision = match policy.decide(appending, None, None) {
        Ok(decision) => decision,
        Err(error) => error.decision().unwrap().clone(),
    };
    decision.votes().into_iter().cloned().collect()
}

#[test]
fn built_in_gates_vote() {
    for [gate, mode, from, by, equal, expected] in rows::<6>(GATES) {
        let mut policy = if mode == "local" { Policy::local() } else { Policy::trusted() }.lag_events_max(10);
        if gate.ends_with('+') {
            policy = policy.source_tier_min(TrustTier::Verified).key_tier_min(TrustTier::Operator);
        }
        let draft = draft(source(from));
        let appending = Appending::new(&draft, ledger_id(), noon(0)).signed(key(by)).parity_is(parity(equal));
        let wanted = rule(gate.trim_end_matches('+'));
        let found: Vec<_> = all_votes(&policy, &appending).iter().filter(|vote| *vote.rule() == wanted).map(short).collect();
        assert_eq!(found, [expected], "{gate} {mode} {from} {by} {equal}");
    }
}

/// What each preset makes of everything, for people to read.
#[test]
fn presets_decide() {
    let mut text = String::new();
    for (name, policy) in [("default", Policy::default()), ("local", Policy::local()), ("trusted", Policy::trusted())] {
        let policy = policy.lag_events_max(10);
        for from in ["user", "tool"] {
            let draft = draft(source(from));
            for (by, equal) in KEYS.iter().flat_map(|by| PARITIES.map(|equal| (by, equal))) {
                let appending = Appending::new(&draft, ledger_id(), noon(0)).signed(key(by)).parity_is(parity(equal));
                let result = policy.decide(&appending, None, None);
                assert_eq!(policy.decide_fast(&appending), result.as_ref().is_ok_and(|made| made.outcome() == Outcome::Allow));
                let decision = result.as_ref().unwrap_or_else(|error| error.decision().unwrap());
                let why = if decision.outcome() == Outcome::Allow { String::new() } else { list(decision.contributing()) };
                let row = format!("{name:<8}{from:<5}{by:<9}{equal:<11} {:<12}{why}", decision.outcome());
                writeln!(text, "{}", row.trim_end()).unwrap();
            }
        }
    }
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("policy_presets", text);
    });
}

#[test]
fn tiers_are_by_source_and_by_key() {
    let tier_of = |policy: &Policy, source: Source<'static>| {
        let draft = draft(source);
        let appending = Appending::new(&draft, ledger_id(), noon(0));
        all_votes(policy, &appending).iter().find(|vote| *vote.rule() == RuleId::EVENT_SOURCE_TIER).unwrap().outcome()
    };
    let policy = Policy::trusted()
        .with_source_tier(Source::tool(""), TrustTier::Untrusted)
        .with_source_tier(Source::tool("bash"), TrustTier::Observed);
    assert_eq!(tier_of(&policy, Source::tool("bash")), Outcome::Allow);
    assert_eq!(tier_of(&policy, Source::tool("curl")), Outcome::Reject);
    assert_eq!(tier_of(&policy, Source::child_agent("bash")), Outcome::Allow);
    let key_id = key("current").key_id().unwrap();
    let draft = draft(Source::Runtime);
    let signed = Appending::new(&draft, ledger_id(), noon(0)).signed(key("current"));
    assert!(Policy::trusted().decide_fast(&signed));
    assert!(!Policy::trusted().with_key_tier(key_id, TrustTier::Observed).decide_fast(&signed));
    assert!(Policy::trusted().with_key_tier(key_id, TrustTier::Operator).key_tier_min(TrustTier::Operator).decide_fast(&signed));
}

/// A gate of an embedder's own.
struct Fixed(RuleId, Vote);

impl Gate for Fixed {
    fn rule(&self) -> &RuleId {
        &self.0
    }

    fn vote(&self, _: &Appending<'_>) -> Vote {
        self.1.clone()
    }
}

#[test]
fn required_rules_are_asked_for_by_name() {
    let draft = draft(Source::Runtime);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    let policy = || Policy::default().require(rule("acme.review"));
    assert!(!policy().decide_fast(&appending));
    insta::assert_snapshot!(policy().decide(&appending, None, None).unwrap_err(), @"the append is refused: acme.review is required, and has not voted; open the store with a gate of this rule, or bring a decision to which it contributed");
    // Contributing or discarded, it has voted.
    for brought in ["acme.review:allow", "acme.review:allow b:warn"] {
        assert!(policy().decide(&appending, Some(compose(votes(brought), None)), None).is_ok());
    }
    let gated = policy().with_gate(Fixed(rule("acme.review"), Vote::allow(rule("acme.review"), "seen")));
    assert!(gated.decide_fast(&appending));
    // A gate that votes in another's name has voted in its own.
    let forger = policy().with_gate(Fixed(rule("acme.other"), Vote::allow(rule("acme.review"), "forged")));
    assert!(matches!(forger.decide(&appending, None, None), Err(PolicyError::Missing { rule }) if rule.as_str() == "acme.review"));
    // What all allow for tests satisfies what trusted mode requires, and weakens none of its gates.
    let trusted = Policy::trusted().decide(&appending, Some(Decision::test_only_all_allow()), None);
    assert_eq!(trusted.unwrap_err().decision().unwrap().outcome(), Outcome::Reject);
}

#[test]
fn refusals_say_what_to_do() {
    let draft = draft(Source::User);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    let refusal = |policy: Policy, brought: &str, name: &str| {
        policy.decide(&appending, Some(compose(votes(brought), None)), authorisation(name).as_ref()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(refusal(Policy::trusted(), "-", "-"), @"the append is refused: reject by ledger.append.attestation_required (a user's event must be signed by a current key) and ledger.append.runtime_mode (it is not signed); mend what the rules name, and append it again");
    insta::assert_snapshot!(refusal(Policy::default(), "acme.review:quarantine", "-"), @"the append is refused: quarantine by acme.review (acme.review says so); look at the event, mend what the rules name, and append it again");
    insta::assert_snapshot!(refusal(permitted(Policy::default()), "acme.review:reject* acme.oncall:break_glass", "too-late"), @"the append is refused: reject by acme.review (acme.review says so); break-glass was asked for, but its authorisation ended at 2026-11-28T11:59:59.000000Z, and it is 2026-11-28T12:00:00.000000Z; have a new one signed");
    insta::assert_snapshot!(refusal(Policy::default(), "acme.review:reject* acme.oncall:break_glass", "-"), @"the append is refused: reject by acme.review (acme.review says so); break-glass was asked for, but there is no authorisation; have one signed by a key that the policy permits");
    insta::assert_snapshot!(refusal(Policy::local(), "attest:warn", "-"), @"the append is refused: ledger.append.attestation_required has voted warn (attest says so), but must vote allow, and nothing overrides it; mend what it names, and append again");
    let many = "a:allow ".repeat(VOTES_MAX);
    insta::assert_snapshot!(refusal(Policy::default(), &many, "-"), @"the append is refused: 65 votes, but a decision has at most 64; register fewer gates, or bring fewer votes");
}

#[test]
fn recorded_decisions_have_this_text() {
    let lifted = compose(votes("a:reject* b:break_glass c:allow"), Some(attested()));
    insta::assert_snapshot!(lifted.policy_json().unwrap(), @r#"{"outcome":"break_glass","rules":[{"id":"a","outcome":"reject","reason":"a says so"},{"id":"b","outcome":"break_glass","reason":"b says so"},{"id":"c","outcome":"allow","reason":"c says so"}],"authorisation":{"terms":{"ledger_id":"ldg_01JDD000000000000000000006","operation":"ledger.append","artifact_refs":["session:s-1"],"not_before":"2026-11-28T11:59:00.000000Z","not_after":"2026-11-28T12:01:00.000000Z","reason_code":"incident_response"},"key":"ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c","signature":"BqJQdvRE0INd7N4nLbCJDFhjQR-9AmoDBvAYcvhK5LRZny08GBiplTKUOdlRBp2A5GnL6_rAz8ZYg7WHVBNDBw"}}"#);
    insta::assert_snapshot!(compose(votes("b:warn a:warn c:allow"), None).policy_json().unwrap(), @r#"{"outcome":"warn","rules":[{"id":"a","outcome":"warn","reason":"a says so"},{"id":"b","outcome":"warn","reason":"b says so"},{"id":"c","outcome":"allow","reason":"c says so"}]}"#);
    let authorisation = authorisation("valid").unwrap();
    insta::assert_snapshot!(String::from_utf8(authorisation.terms().message()).unwrap(), @r#"
    counterfoil break-glass authorisation v1
    {"ledger_id":"ldg_01JDD000000000000000000006","operation":"ledger.append","artifact_refs":["session:s-1"],"not_before":"2026-11-28T11:59:00.000000Z","not_after":"2026-11-28T12:01:00.000000Z","reason_code":"incident_response"}
    "#);
}

/// Whoever reads an event can check its authorisation, with the event alone.
#[test]
fn authorisations_read_back_from_events() {
    let json = compose(votes("a:reject* b:break_glass"), Some(attested())).policy_json().unwrap();
    let policy: serde_json::Value = serde_json::from_str(&json).unwrap();
    let text = serde_json::to_string(&authorisation("valid").unwrap()).unwrap();
    assert!(json.ends_with(&format!(",\"authorisation\":{text}}}")), "{json}");
    let read: Authorisation = serde_json::from_value(policy["authorisation"].clone()).unwrap();
    assert_eq!(read, authorisation("valid").unwrap());
    assert!(read.is_signed());
    assert!(!authorisation("changed").unwrap().is_signed());
    for (from, to) in [("s-1", "s-2"), ("incident_response", "data_migration"), ("12:01:00", "13:01:00")] {
        let changed: Authorisation = serde_json::from_str(&text.replace(from, to)).unwrap();
        assert!(!changed.is_signed(), "{from} to {to}");
    }
    for wrong in [
        text.replace("incident_response", "boredom"),
        text.replace("\"session:s-1\"", ""),
        text.replace("{\"terms\"", "{\"x\":1,\"terms\""),
    ] {
        assert!(serde_json::from_str::<Authorisation>(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn terms_have_bounds() {
    let make = |operation: &str, refs: Vec<String>, from, to| {
        Terms::new(ledger_id(), operation, refs, (noon(from), noon(to)), ReasonCode::DiagnosticOnly)
    };
    let one = || vec!["session:s-1".to_owned()];
    assert!(make("x", one(), 0, 0).is_ok());
    assert_eq!(make("", one(), 0, 0), Err(TermsError::Operation { bytes: 0 }));
    assert_eq!(make(" ", one(), 0, 0), Err(TermsError::Operation { bytes: 1 }));
    assert_eq!(make(&"x".repeat(129), one(), 0, 0), Err(TermsError::Operation { bytes: 129 }));
    assert_eq!(make("x", vec![], 0, 0), Err(TermsError::Refs { count: 0 }));
    assert_eq!(make("x", vec!["a".to_owned(); 17], 0, 0), Err(TermsError::Refs { count: 17 }));
    assert_eq!(make("x", vec!["a".to_owned(), " ".to_owned()], 0, 0), Err(TermsError::Ref { index: 1, bytes: 1 }));
    assert_eq!(make("x", vec!["a".repeat(521)], 0, 0), Err(TermsError::Ref { index: 0, bytes: 521 }));
    assert_eq!(make("x", one(), 1, 0), Err(TermsError::Window { not_before: noon(1), not_after: noon(0) }));
    let sorted = make("x", vec!["b".to_owned(), "a".to_owned(), "b".to_owned()], 0, 0).unwrap();
    assert_eq!(sorted.artifact_refs(), ["a", "b"]);
    // The longest session can be named.
    let longest = Draft::new(EventType::SYSTEM_NOTE, Source::User).session("é".repeat(256)).check(&Options::default().limits()).unwrap();
    let refs = Appending::new(&longest, ledger_id(), noon(0)).artifact_refs();
    assert!(make("x", refs, 0, 0).is_ok());
}

/// Everything at its longest, and as bad to escape as it gets, stays below the bound and stands in a line.
#[test]
fn the_longest_policy_is_within_its_bound() {
    let refs = (0..Terms::REFS_MAX).map(|index| format!("{}{index:02}", "\u{1}".repeat(Terms::REF_BYTES_MAX - 2)));
    let mut refs: Vec<String> = refs.collect();
    refs[0] = "session:s-1".to_owned();
    let terms = Terms::new(ledger_id(), Terms::APPEND, refs, (noon(-1), noon(1)), ReasonCode::OperatorCorrection).unwrap();
    let authorisation = Authorisation::sign(terms, &operator()).unwrap();
    let long = |index: usize| RuleId::new(format!("r{index:02}.{}", "x".repeat(RuleId::BYTES_MAX - 4))).unwrap();
    let mut votes: Vec<Vote> = (0..VOTES_MAX - 2).map(|index| Vote::quarantine(long(index), "\"".repeat(600)).overridable()).collect();
    votes.push(Vote::break_glass(long(99), "\\".repeat(600)));
    let draft = draft(Source::Runtime);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    let decision = permitted(Policy::default()).decide(&appending, Some(compose(votes, None)), Some(&authorisation)).unwrap();
    assert_eq!(decision.votes().len(), VOTES_MAX);
    let json = decision.policy_json().unwrap();
    assert!((POLICY_BYTES_MAX * 9 / 10..=POLICY_BYTES_MAX).contains(&json.len()), "{} of {POLICY_BYTES_MAX}", json.len());
    stands_in_a_line(&json);
}

#[test]
fn rule_ids_and_reasons_are_bounded() {
    for good in ["a", "a.b", "a_1.b2", &"x".repeat(128)] {
        assert!(RuleId::new(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "a.", ".a", "a..b", "A", "a b", "a\n", "é", "1a", "a-b", &"x".repeat(129)] {
        assert!(RuleId::new(bad).is_err(), "{bad:?}");
    }
    for rule in RuleId::BUILT_IN {
        assert_eq!(RuleId::new(rule.as_str()).unwrap(), rule);
    }
    let vote = Vote::warn(rule("a"), format!("line\nend\u{85}{}", "é".repeat(600)));
    assert!(vote.reason().starts_with("line end é") && vote.reason().len() <= Vote::REASON_BYTES_MAX);
    assert!(vote.reason().len() > Vote::REASON_BYTES_MAX - 2);
}

/// The ids are a contract with those who have written rules for Cortex.
#[test]
fn built_in_rules_have_these_ids() {
    let mut ids: Vec<String> = Policy::trusted().rules().map(RuleId::to_string).collect();
    ids.sort();
    insta::assert_snapshot!(ids.join("\n"), @r#"
    ledger.append.attestation_required
    ledger.append.event_source_tier_gate
    ledger.append.runtime_mode
    ledger.append_signed.key_state_current_use
    ledger.append_signed.trust_tier_minimum
    mirror.append.parity_invariant
    "#);
    assert_eq!(ids, RuleId::BUILT_IN.map(|rule| rule.to_string()));
    assert_eq!(Policy::trusted().required(), RuleId::BUILT_IN);
    assert_eq!(Policy::default().required(), [RuleId::PARITY_INVARIANT]);
}
