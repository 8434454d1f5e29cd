//! What the tests of policy share: a ledger's id, keys, authorisations with each defect, and lines that hold a decision.

#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::LazyLock;

use counterfoil::attest::{Attestor, MemoryKey, PublicKey};
use counterfoil::policy::*;
use counterfoil::*;

pub fn ledger_id() -> LedgerId {
    LedgerId::from_u128(0x0193_5a00_0000_0000_0000_0000_0000_0006)
}

/// Noon, in seconds from then.
pub fn noon(plus_s: i64) -> Timestamp {
    let noon: Timestamp = "2026-11-28T12:00:00.000000Z".parse().unwrap();
    Timestamp::from_micros(noon.as_micros() + plus_s * 1_000_000)
}

/// The key of the one who may authorise.
pub fn operator() -> MemoryKey {
    MemoryKey::from_seed(&[7; 32])
}

/// Somebody's key.
pub fn stranger() -> MemoryKey {
    MemoryKey::from_seed(&[8; 32])
}

pub fn draft(source: Source<'static>) -> CheckedDraft {
    let draft = Draft::new(EventType::SYSTEM_NOTE, source).id(EventId::from_u128(6)).session("s-1").payload("mend it").unwrap();
    draft.check(&Options::default().limits()).unwrap()
}

pub fn terms(refs: &[&str]) -> Terms {
    let refs = refs.iter().copied();
    Terms::new(ledger_id(), Terms::APPEND, refs, (noon(-60), noon(60)), ReasonCode::IncidentResponse).unwrap()
}

fn terms_with(ledger_id: LedgerId, operation: &str, from: i64, to: i64) -> Terms {
    Terms::new(ledger_id, operation, ["session:s-1"], (noon(from), noon(to)), ReasonCode::IncidentResponse).unwrap()
}

/// What an authorisation can be like: `-` none, `valid…`, or one with exactly one defect.
pub const AUTHORISATIONS: [&str; 15] = [
    "-",
    "valid",
    "valid-by-id",
    "valid-by-payload",
    "valid-to-now",
    "valid-from-now",
    "stranger",
    "other-signature",
    "changed",
    "other-ledger",
    "other-operation",
    "other-session",
    "too-early",
    "too-late",
    "key-swapped",
];

/// Each is signed once.
pub fn authorisation(name: &str) -> Option<Authorisation> {
    static SIGNED: LazyLock<HashMap<&str, Option<Authorisation>>> =
        LazyLock::new(|| AUTHORISATIONS.into_iter().map(|name| (name, sign(name))).collect());
    SIGNED[name].clone()
}

fn sign(name: &str) -> Option<Authorisation> {
    let (operator, stranger) = (operator(), stranger());
    let sign = |terms: Terms| Authorisation::sign(terms, &operator).unwrap();
    let good = || terms(&["session:s-1"]);
    Some(match name {
        "-" => return None,
        "valid" => sign(good()),
        "valid-by-id" => sign(terms(&["evt_00000000000000000000000099", &EventId::from_u128(6).to_string()])),
        "valid-by-payload" => sign(terms(&[&format!("payload:{}", draft(Source::User).payload_hash())])),
        "valid-to-now" => sign(terms_with(ledger_id(), Terms::APPEND, -60, 0)),
        "valid-from-now" => sign(terms_with(ledger_id(), Terms::APPEND, 0, 60)),
        "stranger" => Authorisation::sign(good(), &stranger).unwrap(),
        "other-signature" => Authorisation::new(good(), operator.public_key(), *sign(terms(&["session:s-2"])).signature()),
        // The window was widened after it had been signed.
        "changed" => {
            let signed = sign(terms_with(ledger_id(), Terms::APPEND, -60, -30));
            Authorisation::new(terms_with(ledger_id(), Terms::APPEND, -60, 30), signed.key(), *signed.signature())
        }
        "other-ledger" => sign(terms_with(LedgerId::from_u128(1), Terms::APPEND, -60, 60)),
        "other-operation" => sign(terms_with(ledger_id(), "ledger.erase", -60, 60)),
        "other-session" => sign(terms(&["session:s-2", "session:S-1", "s-1"])),
        "too-early" => sign(terms_with(ledger_id(), Terms::APPEND, 1, 60)),
        "too-late" => sign(terms_with(ledger_id(), Terms::APPEND, -60, -1)),
        // A permitted key is named, and another has signed.
        "key-swapped" => Authorisation::new(good(), operator.public_key(), *Authorisation::sign(good(), &stranger).unwrap().signature()),
        other => panic!("no authorisation {other}"),
    })
}

pub fn permitted(policy: Policy) -> Policy {
    policy.permit_break_glass(operator().public_key())
}

/// A decision's authorisation that holds.
pub fn attested() -> Attested {
    let draft = draft(Source::User);
    let appending = Appending::new(&draft, ledger_id(), noon(0));
    permitted(Policy::default()).attest(&authorisation("valid").unwrap(), &appending).unwrap()
}

/// Keys by what the ledger says of them.
pub const KEYS: [&str; 5] = ["unsigned", "current", "retired", "revoked", "unknown"];

pub fn key(name: &str) -> KeyStanding {
    use counterfoil::keys::KeyState;
    let key_id = PublicKey::from_bytes([9; 32]).key_id();
    match name {
        "unsigned" => KeyStanding::Unsigned,
        "current" => KeyStanding::Known(key_id, KeyState::Current),
        "retired" => KeyStanding::Known(key_id, KeyState::Retired),
        "revoked" => KeyStanding::Known(key_id, KeyState::Revoked),
        "unknown" => KeyStanding::Unknown(key_id),
        other => panic!("no key {other}"),
    }
}

/// States of parity; the bound in tests is ten events.
pub const PARITIES: [&str; 5] = ["consistent", "rebuilding", "lagging-10", "lagging-11", "mismatched"];

pub fn parity(name: &str) -> ParityState {
    match name {
        "consistent" => ParityState::Consistent,
        "rebuilding" => ParityState::Rebuilding,
        "lagging-10" => ParityState::Lagging { events: 10 },
        "lagging-11" => ParityState::Lagging { events: 11 },
        "mismatched" => ParityState::Mismatched,
        other => panic!("no parity {other}"),
    }
}

/// A line with this `policy`, right by its own hash, must be read and written back byte for byte.
pub fn stands_in_a_line(policy: &str) {
    let first = std::fs::read_to_string("tests/vectors/store-v1/segments/00000000000000000001.jsonl").unwrap();
    let mut event = line::decode(first.lines().next().unwrap().as_bytes()).unwrap();
    event.policy_json = Some(policy);
    let mut bytes = Vec::new();
    line::encode(&event, &mut bytes);
    event.event_hash = chain::event_hash(chain::material(&bytes).unwrap());
    bytes.clear();
    line::encode(&event, &mut bytes);
    let decoded = line::decode(&bytes).unwrap_or_else(|error| panic!("{error}: {policy}"));
    assert_eq!(decoded.policy_json, Some(policy));
    let mut again = Vec::new();
    line::encode(&decoded, &mut again);
    assert_eq!(again, bytes);
}
