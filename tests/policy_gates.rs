//! Goal: a store asks its gates about every append before it seals it, and about nothing else: duplicates are answered first; what
//! is refused leaves no trace but the whole decision in the caller's hands; what is warned of or lifted by break-glass says so in
//! the event, on both legs; the mirror's vote comes from the mirror's real state.
//! Method: real stores, synchronous and under the actors, with gates that count, refuse, warn and panic; lines are read as JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use counterfoil::actors::{Durability, Ledger};
use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::keys::{KeyChange, KeyReason};
use counterfoil::policy::*;
use counterfoil::*;
use serde_json::Value;

/// Votes as the payload says, and counts how often it was asked.
#[derive(Clone)]
struct ByPayload(RuleId, Arc<AtomicUsize>);

impl ByPayload {
    fn new() -> ByPayload {
        ByPayload(RuleId::new("test.by_payload").unwrap(), Arc::default())
    }
}

impl Gate for ByPayload {
    fn rule(&self) -> &RuleId {
        &self.0
    }
    fn vote(&self, appending: &Appending<'_>) -> Vote {
        self.1.fetch_add(1, Ordering::SeqCst);
        let rule = self.0.clone();
        match appending.payload() {
            p if p.contains("warn") => Vote::warn(rule, "it says so"),
            p if p.contains("quarantine") => Vote::quarantine(rule, "it says so"),
            p if p.contains("overridable") => Vote::reject(rule, "it says so").overridable(),
            p if p.contains("reject") => Vote::reject(rule, "it says so"),
            p if p.contains("panic") => panic!("a gate's own mistake"),
            _ => Vote::allow(rule, "fine"),
        }
    }
}

/// Asks for break-glass, always.
struct Asks(RuleId);

impl Gate for Asks {
    fn rule(&self) -> &RuleId {
        &self.0
    }
    fn vote(&self, _: &Appending<'_>) -> Vote {
        Vote::break_glass(self.0.clone(), "someone may have to")
    }
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = String::from_utf8(common::ledger_bytes(dir)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn refusal(error: Error) -> PolicyError {
    assert!(error.is_denied() && !error.is_retryable(), "{error}");
    match error {
        Error::Append(AppendError::Policy(error)) => *error,
        other => panic!("{other}"),
    }
}

fn store(policy: Policy) -> (tempfile::TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.policy = policy;
    let store = Store::open(temp.path(), &options).unwrap().0;
    (temp, store)
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let gate = ByPayload::new();
    let (temp, mut store) = store(Policy::default().with_gate(gate.clone()));
    store.append(common::note("first").session("s")).unwrap();
    for (word, outcome) in [("reject", Outcome::Reject), ("quarantine", Outcome::Quarantine), ("panic", Outcome::Reject)] {
        let refused = refusal(store.append(common::note(word).session("s")).unwrap_err());
        let decision = refused.decision().unwrap();
        assert_eq!((decision.outcome(), decision.contributing().len(), decision.discarded().len()), (outcome, 1, 1), "{refused}");
        assert_eq!(decision.contributing()[0].rule(), gate.rule());
        // One of a batch refuses all of it.
        let batch = vec![common::note("a"), common::note(word), common::note("c")];
        refusal(store.append_batch(batch, &Conditions::none()).unwrap_err());
    }
    let receipt = store.append(common::note("second").session("s")).unwrap();
    assert_eq!((receipt.seq.get(), receipt.session_seq), (2, Some(2)));
    assert!(lines(temp.path()).iter().all(|line| line.get("policy").is_none()), "allow is not worth writing down");
    store.close().unwrap();
    assert!(common::verified(temp.path()).is_clean() && common::parity(temp.path()).is_consistent());
}

#[test]
fn duplicates_are_answered_before_any_gate_runs() {
    let gate = ByPayload::new();
    let (_temp, mut store) = store(Policy::default().with_gate(gate.clone()));
    let first = store.append(common::note("once").id(common::id(1))).unwrap();
    let asked = gate.1.load(Ordering::SeqCst);
    assert!(asked > 0);
    let again = store.append(common::note("once").id(common::id(1))).unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    let conflict = store.append(common::note("reject").id(common::id(1))).unwrap_err();
    assert!(conflict.is_conflict(), "the id comes first: {conflict}");
    let unmet = store.append_expecting(common::note("x").session("s"), &Expect::SessionSeq(9)).unwrap_err();
    assert!(matches!(unmet, Error::Append(AppendError::WrongSessionSeq { .. })), "and so do conditions: {unmet}");
    assert_eq!(gate.1.load(Ordering::SeqCst), asked, "no gate was asked");
}

#[test]
fn what_is_warned_of_says_so_on_both_legs() {
    let (temp, mut store) = store(Policy::default().with_gate(ByPayload::new()));
    store.append(common::note("warn me")).unwrap();
    store.append_batch(vec![common::note("a"), common::note("warn b"), common::note("c")], &Conditions::none()).unwrap();
    store.close().unwrap();
    let lines = lines(temp.path());
    let outcomes: Vec<_> = lines.iter().map(|line| line.pointer("/policy/outcome").and_then(Value::as_str)).collect();
    assert_eq!(outcomes, [Some("warn"), None, Some("warn"), None]);
    insta::assert_snapshot!(lines[0]["policy"], @r#"{"outcome":"warn","rules":[{"id":"test.by_payload","outcome":"warn","reason":"it says so"},{"id":"mirror.append.parity_invariant","outcome":"allow","reason":"ledger and mirror are equal"}]}"#);
    assert!(common::verified(temp.path()).is_clean());
    let parity = common::parity(temp.path());
    assert!(parity.is_consistent(), "{parity}");
    let reader = LedgerReader::open(temp.path(), &Options::default()).unwrap();
    let mut mirror = MirrorReader::open(temp.path(), reader.manifest().ledger_id, Duration::ZERO).unwrap();
    let rows = mirror.query("SELECT seq, json_extract(policy, '$.outcome') FROM events WHERE policy IS NOT NULL", &[]).unwrap();
    assert_eq!(rows.rows.len(), 2);
}

#[test]
fn a_rule_that_is_required_must_have_voted() {
    let rule = RuleId::new("acme.review").unwrap();
    let (temp, mut store) = store(Policy::default().require(rule.clone()));
    let missing = refusal(store.append(common::note("x")).unwrap_err());
    assert!(matches!(&missing, PolicyError::Missing { rule: named } if *named == rule), "{missing}");
    let brought = |outcome| compose(vec![Vote::new(rule.clone(), outcome, "somebody has looked at it")], None);
    store.append(common::note("reviewed").decided(brought(Outcome::Allow))).unwrap();
    store.append(common::note("doubted").decided(brought(Outcome::Warn))).unwrap();
    let refused = refusal(store.append(common::note("found wanting").decided(brought(Outcome::Quarantine))).unwrap_err());
    assert_eq!(refused.decision().unwrap().outcome(), Outcome::Quarantine);
    // What is brought can't speak against the store's own gates.
    drop(store);
    let outcomes: Vec<_> = lines(temp.path()).iter().map(|line| line.pointer("/policy/outcome").cloned()).collect();
    assert_eq!(outcomes, [None, Some(Value::from("warn"))]);
}

#[test]
fn break_glass_is_written_into_the_event() {
    let officer = MemoryKey::from_seed(&[5; 32]);
    let policy = Policy::default().with_gate(ByPayload::new()).with_gate(Asks(RuleId::new("test.asks").unwrap()));
    let (temp, mut store) = store(policy.permit_break_glass(officer.public_key()));
    let ledger_id = store.manifest().ledger_id;
    let day = |day: u32| format!("2026-11-{day}T00:00:00.000000Z").parse::<Timestamp>().unwrap();
    let authorisation = |session: &str, window, key: &MemoryKey| {
        let terms = Terms::new(ledger_id, Terms::APPEND, [format!("session:{session}")], window, ReasonCode::IncidentResponse).unwrap();
        Authorisation::sign(terms, key).unwrap()
    };
    let good = authorisation("s", (day(20), day(28)), &officer);
    let draft = |word: &str, session: &str| common::note(word).session(session);
    // The clock of these tests stands at the 24th.
    for (what, bad) in [
        ("another session", draft("overridable", "t").authorised(good.clone())),
        ("another time", draft("overridable", "s").authorised(authorisation("s", (day(25), day(28)), &officer))),
        ("another key", draft("overridable", "s").authorised(authorisation("s", (day(20), day(28)), &MemoryKey::from_seed(&[6; 32])))),
        ("a vote that nothing lifts", draft("reject", "s").authorised(good.clone())),
        ("no authorisation", draft("overridable", "s")),
    ] {
        let refused = refusal(store.append(bad).unwrap_err());
        assert!(matches!(refused, PolicyError::Refused { .. }), "{what}: {refused}");
    }
    store.append(draft("overridable", "s").authorised(good)).unwrap();
    store.close().unwrap();
    let lines = lines(temp.path());
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["policy"]["outcome"], "break_glass");
    assert_eq!(lines[0]["policy"]["authorisation"]["terms"]["reason_code"], "incident_response");
    assert!(common::verified(temp.path()).is_clean() && common::parity(temp.path()).is_consistent());
}

#[test]
fn a_policy_that_makes_the_line_too_long_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    options.policy = Policy::default().with_gate(ByPayload::new());
    options.line_bytes_max = 1300;
    let mut store = Store::open(temp.path(), &options).unwrap().0;
    store.append(common::note(&"x".repeat(200))).unwrap();
    let error = store.append(common::note(&format!("warn{}", "x".repeat(200)))).unwrap_err();
    assert!(matches!(error, Error::Append(AppendError::Draft(DraftError::LineTooLong { .. }))), "{error}");
    assert_eq!(store.head().seq.get(), 1);
}

fn trusted(key: &Arc<MemoryKey>) -> actors::LedgerOptions {
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.policy = Policy::trusted();
    options.attestor = Some(key.clone().into());
    options.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_store_takes_what_a_current_key_signs() {
    let temp = tempfile::tempdir().unwrap();
    let (own, other) = (Arc::new(MemoryKey::from_seed(&[1; 32])), Arc::new(MemoryKey::from_seed(&[2; 32])));
    let ledger = Ledger::open_with(temp.path(), trusted(&own)).await.unwrap();
    let denied = |answer: Result<Receipt, AppendError>| match answer {
        Err(AppendError::Policy(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    // Before the ledger knows its key, not even that key may sign anything but its own coming in.
    assert!(denied(ledger.append(common::note("early")).await).contains("runtime_mode"));
    let reason = KeyReason::default();
    ledger.change_key(&KeyChange::Added { key: own.public_key(), reason: reason.clone() }, own.clone()).await.unwrap();
    ledger.append(common::note("signed by the store's key")).await.unwrap();
    ledger.append(Draft::new(EventType::USER_MESSAGE, Source::User)).await.unwrap();
    assert!(denied(ledger.append(common::note("foreign").sign_with(other.clone())).await).contains("key_state_current_use"));
    ledger.change_key(&KeyChange::Rotated { from: own.key_id(), to: other.public_key(), reason }, own.clone()).await.unwrap();
    assert!(denied(ledger.append(common::note("too late")).await).contains("is retired"));
    ledger.append(common::note("by the new key").sign_with(other.clone())).await.unwrap();
    ledger.close().await.unwrap();
    let report = verify_signed(
        &LedgerReader::open(temp.path(), &Options::default()).unwrap(),
        SignatureRules { root: own.public_key(), required_from: Some(Seq::FIRST) },
        &mut |_| (),
    );
    let report = report.unwrap();
    assert!(report.is_clean() && report.events == 5, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirrors_vote_is_about_the_real_mirror() {
    let temp = tempfile::tempdir().unwrap();
    let key = Arc::new(MemoryKey::from_seed(&[1; 32]));
    for (is_trusted, what) in [(false, "local"), (true, "trusted")] {
        let dir = temp.path().join(what);
        let mut options = trusted(&key);
        if !is_trusted {
            options.store.policy = Policy::default();
        }
        let ledger = Ledger::open_with(&dir, options).await.unwrap();
        ledger.change_key(&KeyChange::Added { key: key.public_key(), reason: KeyReason::default() }, key.clone()).await.unwrap();
        let first = ledger.append_with(common::note("fine"), Expect::Any, Durability::Mirrored).await.unwrap();
        ledger.mirrored(first.seq).await.unwrap();
        // Somebody edits a row behind the store's back, and a check finds it.
        let row = common::by_hand(&dir);
        row.busy_timeout(Duration::from_secs(30)).unwrap();
        row.execute("UPDATE events SET payload = '\"forged\"' WHERE seq = ?1", [first.seq.get() as i64]).unwrap();
        drop(row);
        assert!(!ledger.parity(ParityKind::Full).await.unwrap().is_consistent());
        let answer = ledger.append(common::note("after that")).await;
        if is_trusted {
            let Err(AppendError::Policy(refused)) = answer else { panic!("{answer:?}") };
            assert_eq!(refused.decision().unwrap().contributing()[0].rule(), &RuleId::PARITY_INVARIANT, "{refused}");
        } else {
            answer.unwrap();
        }
        ledger.close().await.unwrap();
        let last = lines(&dir).pop().unwrap();
        assert_eq!(last.pointer("/policy/outcome").and_then(Value::as_str), (!is_trusted).then_some("warn"), "{what}: {last}");
    }
}

/// Appends six events while nobody can write to the mirror, until the connection that is given back lets go.
async fn six_beside_a_held_mirror(ledger: &Ledger) -> rusqlite::Connection {
    let held = common::by_hand(ledger.dir());
    held.busy_timeout(Duration::from_secs(30)).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 1..=6 {
        ledger.append(common::note(&n.to_string())).await.unwrap();
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_beyond_its_bound_is_warned_of() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.policy = Policy::default().lag_events_max(3);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.append_with(common::note("0"), Expect::Any, Durability::Mirrored).await.unwrap();
    common::until("Live", || ledger.status().mirror == actors::MirrorHealth::Live).await;
    let held = six_beside_a_held_mirror(&ledger).await;
    held.execute_batch("ROLLBACK").unwrap();
    ledger.close().await.unwrap();
    let warned: Vec<_> = lines(temp.path()).iter().map(|line| line.get("policy").is_some()).collect();
    // The first four find three before them at most, the last two at least four. Between them it depends on when LedgerActor hears
    // that the first row is committed.
    assert_eq!((&warned[..4], &warned[5..]), (&[false; 4][..], &[true; 2][..]), "{warned:?}");
}

/// Warns at length.
struct Wordy(RuleId);

impl Gate for Wordy {
    fn rule(&self) -> &RuleId {
        &self.0
    }
    fn vote(&self, _: &Appending<'_>) -> Vote {
        Vote::warn(self.0.clone(), "w".repeat(512))
    }
}

#[test]
fn what_a_policy_adds_counts_for_the_bound_of_a_batch() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.group_bytes_max = 1 << 20;
    for n in 0..60 {
        options.policy = options.policy.with_gate(Wordy(RuleId::new(format!("test.r{n}")).unwrap()));
    }
    let mut store = Store::open(temp.path(), &options).unwrap().0;
    let batch = (0..900).map(|n| common::note(&n.to_string())).collect();
    let error = store.append_batch(batch, &Conditions::none()).unwrap_err();
    assert!(matches!(error, Error::Append(AppendError::BatchTooLarge { bytes, .. }) if bytes > 1 << 20), "{error}");
    assert_eq!(store.head().seq, Seq::ZERO);
}

#[test]
fn the_ledgers_own_events_have_nobody_to_ask() {
    let rule = RuleId::new("acme.review").unwrap();
    let (_temp, mut store) = store(Policy::default().require(rule.clone()));
    let review = compose(vec![Vote::allow(rule, "somebody has looked at it")], None);
    store.append(common::note("x").decided(review)).unwrap();
    let key = Arc::new(MemoryKey::from_seed(&[1; 32]));
    store.change_key(&KeyChange::Added { key: key.public_key(), reason: KeyReason::default() }, key).unwrap();
    store.append_schema_migration(store.head().event_hash, &SchemaMigration::new("acme", 0, 1)).unwrap();
    store.erase(&Erasure::new(Erase::Seqs(vec![Seq::FIRST..=Seq::FIRST]), "a test")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_no_mismatch() {
    let temp = tempfile::tempdir().unwrap();
    let key = Arc::new(MemoryKey::from_seed(&[1; 32]));
    let mut options = trusted(&key);
    options.close_deadline = Duration::from_millis(50);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    ledger.change_key(&KeyChange::Added { key: key.public_key(), reason: KeyReason::default() }, key.clone()).await.unwrap();
    ledger.append_with(common::note("0"), Expect::Any, Durability::Mirrored).await.unwrap();
    let held = six_beside_a_held_mirror(&ledger).await;
    // A check that was asked for does not wait for ever, and says what lacks; that is no reason to refuse.
    let parity = ledger.parity(ParityKind::Full).await.unwrap();
    assert!(!parity.is_consistent() && !parity.is_mismatched(), "{parity}");
    ledger.append(common::note("beside it")).await.unwrap();
    held.execute_batch("ROLLBACK").unwrap();
    ledger.close().await.unwrap();
    assert!(common::parity(temp.path()).is_consistent());
}
