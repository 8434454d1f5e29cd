//! Goal: the keys of a ledger come and go as its events say, each change signed by a key that may make it; who verifies from a
//! root key that was given follows them, and takes no other key for one of the ledger's, whatever the ledger claims.
//! Method: a table of lives of keys, each played on a real store (reopened, and with its mirror made anew, in between); what the
//! store refuses is forged past it and must be found by verify.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::sync::Arc;

use counterfoil::attest::{Attestor, KeyId, MemoryKey, PublicKey};
use counterfoil::keys::{KeyChange, KeyFault, KeyReason, KeyRing, KeyState};
use counterfoil::*;

fn key(number: u8) -> Arc<MemoryKey> {
    Arc::new(MemoryKey::from_seed(&[number; 32]))
}

fn public(number: u8) -> PublicKey {
    key(number).public_key()
}

fn id(number: u8) -> KeyId {
    public(number).key_id()
}

fn why() -> KeyReason {
    KeyReason::try_from("because".to_owned()).unwrap()
}

fn added(number: u8) -> KeyChange {
    KeyChange::Added { key: public(number), reason: why() }
}

fn rotated(from: u8, to: u8) -> KeyChange {
    KeyChange::Rotated { from: id(from), to: public(to), reason: why() }
}

fn retired(number: u8) -> KeyChange {
    KeyChange::Retired { key: id(number), reason: why() }
}

fn revoked(number: u8) -> KeyChange {
    KeyChange::Revoked { key: id(number), reason: why() }
}

/// Changes, each with the key that signs it and whether it follows.
type Life = Vec<(KeyChange, u8, bool)>;

fn lives() -> Vec<(&'static str, Life)> {
    vec![
        ("the first key lets itself in", vec![(added(1), 1, true), (added(1), 1, false)]),
        ("the first key can't be let in by another", vec![(added(1), 2, false), (added(2), 2, true)]),
        ("no change but a first key's own comes first", vec![(rotated(1, 2), 1, false), (retired(1), 1, false), (revoked(1), 1, false)]),
        ("a key lets others in", vec![(added(1), 1, true), (added(2), 1, true), (added(3), 2, true), (added(4), 5, false)]),
        ("rotation", vec![(added(1), 1, true), (rotated(1, 2), 1, true), (added(3), 1, false), (added(3), 2, true)]),
        ("only a key itself hands over", vec![(added(1), 1, true), (added(2), 1, true), (rotated(1, 3), 2, false)]),
        ("rotation to a key that is known", vec![(added(1), 1, true), (added(2), 1, true), (rotated(1, 2), 1, false)]),
        ("rotation to itself", vec![(added(1), 1, true), (rotated(1, 1), 1, false)]),
        ("a retired key does nothing", vec![(added(1), 1, true), (added(2), 1, true), (retired(1), 2, true), (retired(2), 1, false)]),
        ("a key retires itself", vec![(added(1), 1, true), (retired(1), 1, true), (added(2), 1, false), (added(2), 2, false)]),
        ("a key is retired once", vec![(added(1), 1, true), (added(2), 1, true), (retired(2), 1, true), (retired(2), 1, false)]),
        ("a revoked key does nothing", vec![(added(1), 1, true), (added(2), 1, true), (revoked(2), 1, true), (retired(1), 2, false)]),
        (
            "a retired key can be revoked",
            vec![(added(1), 1, true), (rotated(1, 2), 1, true), (revoked(1), 2, true), (revoked(1), 2, false)],
        ),
        ("a key never comes back", vec![(added(1), 1, true), (added(2), 1, true), (revoked(2), 1, true), (added(2), 1, false)]),
        ("an unknown key can't be ended", vec![(added(1), 1, true), (retired(9), 1, false), (revoked(9), 1, false)]),
    ]
}

#[test]
fn a_store_takes_only_changes_that_follow() {
    for (name, life) in lives() {
        let temp = tempfile::tempdir().unwrap();
        let (mut options, mut ring, mut seq) = (common::options(), KeyRing::new(), 0);
        common::disk::without_sync(&mut options);
        for (n, (change, by, follows)) in life.iter().enumerate() {
            // What is known is found again in the ledger's tail, in the mirror, and in a mirror that is made anew.
            if n % 2 == 1 {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(temp.path().join(format!("mirror.sqlite3{suffix}")));
                }
            }
            let mut store = Store::open(temp.path(), &options).unwrap().0;
            let answer = store.change_key(change, key(*by));
            assert_eq!(answer.is_ok(), *follows, "{name}, change {n}: {answer:?}");
            if let Err(error) = &answer {
                assert!(matches!(error, Error::Append(AppendError::Key(_))), "{name}: {error}");
            }
            assert_eq!(ring.apply(Seq::new(seq + 1), change, Some(id(*by))).is_ok(), *follows, "{name}, change {n}");
            seq += u64::from(*follows);
            assert_eq!(store.head().seq.get(), seq);
            store.close().unwrap();
        }
        let reader = LedgerReader::open(temp.path(), &options).unwrap();
        let mirror = MirrorReader::open(temp.path(), reader.manifest().ledger_id, options.mirror_busy_timeout).unwrap();
        let states = |ring: &KeyRing| ring.keys().map(|key| (key.key_id, key.state, key.since, key.until)).collect::<Vec<_>>();
        assert_eq!(states(&mirror.keys().unwrap()), states(&ring), "{name}");
        if let Some(root) = ring.root().and_then(|root| ring.key(root)) {
            let rules = SignatureRules { root: root.public_key, required_from: Some(Seq::FIRST) };
            let report = verify_signed(&reader, rules, &mut |_| ()).unwrap();
            assert!(report.is_clean(), "{name}: {report}");
            assert_eq!(report.signatures.unwrap().verified, seq);
        }
    }
}

/// A ledger whose keys 1 and then 2 have signed: `1+ a 1>2 b c(unsigned) 2+3 d(3) 3- e(2)`.
fn rotated_store(dir: &Path) -> Options {
    let mut options = common::small_segments();
    common::disk::without_sync(&mut options);
    let mut store = Store::open(dir, &options).unwrap().0;
    store.change_key(&added(1), key(1)).unwrap();
    store.append(common::note("a").sign_with(key(1))).unwrap();
    store.change_key(&rotated(1, 2), key(1)).unwrap();
    store.append(common::note("b").sign_with(key(2))).unwrap();
    store.append(common::note("c")).unwrap();
    store.change_key(&added(3), key(2)).unwrap();
    store.append(common::note("d").sign_with(key(3))).unwrap();
    store.change_key(&retired(3), key(2)).unwrap();
    store.append(common::note("e").sign_with(key(2))).unwrap();
    store.close().unwrap();
    options
}

fn verified(dir: &Path, options: &Options, root: u8, required_from: Option<u64>) -> VerifyReport {
    let rules = SignatureRules { root: public(root), required_from: required_from.map(Seq::new) };
    verify_signed(&LedgerReader::open(dir, options).unwrap(), rules, &mut |_| ()).unwrap()
}

#[test]
fn verify_follows_the_keys_from_the_root() {
    let temp = tempfile::tempdir().unwrap();
    let options = rotated_store(temp.path());
    let report = verified(temp.path(), &options, 1, None);
    assert!(report.is_clean(), "{report}");
    let signatures = report.signatures.unwrap();
    assert_eq!((signatures.verified, signatures.unsigned, signatures.unsigned_last), (8, 1, Some(Seq::new(5))));
    let uses: Vec<_> =
        [1, 2, 3].map(|n| signatures.keys.iter().find(|key| key.key.key_id == id(n)).map(|key| (key.key.state, key.events))).into();
    assert_eq!(uses, [Some((KeyState::Retired, 3)), Some((KeyState::Current, 4)), Some((KeyState::Retired, 1))]);
    assert!(verified(temp.path(), &options, 1, Some(6)).is_clean());
    let report = verified(temp.path(), &options, 1, Some(1));
    assert_eq!((report.failures_count, report.signature_failures_count, report.failures[0].seq.get()), (1, 1, 5));
    assert_eq!(report.failures[0].reason, LineFault::NotSigned);
    // From any other root nothing follows: a chain can't show a key that the root has not let in.
    for other in [2, 3, 9] {
        let report = verified(temp.path(), &options, other, None);
        let known = report.signatures.as_ref().unwrap().keys.len();
        let foreign = report.failures.iter().filter(|failure| matches!(failure.reason, LineFault::Key(KeyFault::Unknown { .. }))).count();
        assert!(known <= 2 && foreign >= 3, "root {other}: {report}");
        assert_eq!(report.failures[0].seq, Seq::FIRST, "root {other}: {report}");
    }
}

/// Writes the same ledger again through a writer that checks nothing, with other signers: what someone with the directory can do.
fn forged(from: &Path, to: &Path, sign: impl Fn(u64, Option<KeyId>) -> Option<u8>) -> Options {
    let reader = LedgerReader::open(from, &Options::default()).unwrap();
    let ledger_id = reader.manifest().ledger_id;
    common::copy_dir(from, to);
    for path in common::segment_paths(to) {
        std::fs::remove_file(path).unwrap();
    }
    let _ = std::fs::remove_file(to.join("mirror.sqlite3"));
    let (mut text, mut prev) = (Vec::new(), chain::genesis(ledger_id));
    for line in String::from_utf8(common::ledger_bytes(from)).unwrap().lines() {
        let mut event = line::decode(line.as_bytes()).unwrap();
        let by = sign(event.seq.get(), event.signed_by.map(|id| id.parse().unwrap()));
        let signed_by = by.map(|by| id(by).to_string());
        (event.prev_event_hash, event.group_seq, event.signed_by, event.signature) = (prev, event.seq, signed_by.as_deref(), None);
        common::rehash(&mut event);
        prev = event.event_hash;
        let signature = by.map(|by| key(by).sign(&chain::signing_input(ledger_id, prev)).unwrap().to_string());
        event.signature = signature.as_deref();
        line::encode(&event, &mut text);
        text.push(b'\n');
    }
    std::fs::write(to.join("segments").join(format!("{:020}.jsonl", 1)), text).unwrap();
    Options::default()
}

#[test]
fn what_the_store_would_refuse_is_found_by_verify() {
    let temp = tempfile::tempdir().unwrap();
    let (real, fake) = (temp.path().join("real"), temp.path().join("fake"));
    rotated_store(&real);
    let number = |id_: KeyId| (1..=9).find(|n| id(*n) == id_);
    let same = |_: u64, by: Option<KeyId>| by.and_then(number);
    // The forger's own work is right where nothing is changed.
    let options = forged(&real, &fake, same);
    let report = verified(&fake, &options, 1, None);
    assert!(report.is_clean(), "{report}");
    let cases: [(&str, u64, Option<u8>, u64); 6] = [
        ("the rotation is signed by the new key", 3, Some(2), 3),
        ("an event after the rotation is signed by the old key", 4, Some(1), 4),
        ("a key is let in by one that is unknown", 6, Some(9), 6),
        ("a key is let in by nobody", 6, None, 6),
        ("a retired key signs", 9, Some(3), 9),
        ("an unknown key signs", 2, Some(9), 2),
    ];
    for (what, seq, by, found) in cases {
        std::fs::remove_dir_all(&fake).unwrap();
        let options = forged(&real, &fake, |at, was| if at == seq { by } else { was.and_then(number) });
        let report = verified(&fake, &options, 1, None);
        let first = report.failures.first().unwrap_or_else(|| panic!("{what}: {report}"));
        assert_eq!(first.seq.get(), found, "{what}: {report}");
        assert_eq!(report.failures_count, report.signature_failures_count, "{what}: the chain is right: {report}");
    }
}

/// A public key whose bytes are these, and zeros.
fn odd(first: u8) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[0] = first;
    PublicKey::from_bytes(bytes)
}

#[test]
fn keys_that_sign_nothing_never_come_in() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = Store::open(temp.path(), &common::options()).unwrap().0;
    store.change_key(&added(1), key(1)).unwrap();
    // No point of the curve, and one of small order, for which anyone can sign.
    for none in [odd(2), odd(1)] {
        for change in [KeyChange::Added { key: none, reason: why() }, KeyChange::Rotated { from: id(1), to: none, reason: why() }] {
            let error = store.change_key(&change, key(1)).unwrap_err();
            assert!(matches!(error, Error::Append(AppendError::Key(KeyFault::Unusable { .. }))), "{error}");
        }
    }
    store.append(common::note("the first one still signs").sign_with(key(1))).unwrap();
}

#[test]
fn what_verify_would_never_take_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    options.attestor = Some(key(1).into());
    let mut store = Store::open(temp.path(), &options).unwrap().0;
    store.append(common::note("a ledger that records no keys takes any")).unwrap();
    store.change_key(&added(1), key(1)).unwrap();
    let refused = |answer: Result<Receipt, Error>| match answer {
        Err(Error::Append(AppendError::Key(fault))) => fault,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(store.append(common::note("x").sign_with(key(2)))), KeyFault::Unknown { .. }));
    store.change_key(&rotated(1, 2), key(1)).unwrap();
    assert!(matches!(refused(store.append(common::note("x"))), KeyFault::NotCurrent { .. }));
    // What signs can be exchanged without opening the store anew.
    store.sign_with(Some(key(2).into()));
    store.append(common::note("by the new key")).unwrap();
    store.sign_with(None);
    store.append(common::note("by nobody")).unwrap();
    store.close().unwrap();
    let report = verified(temp.path(), &options, 1, Some(2));
    assert_eq!((report.failures_count, report.failures[0].seq.get()), (1, 5), "{report}");
}

#[test]
fn redaction_leaves_the_ledgers_own_events_alone() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    options.redactor = Some(Arc::new(Secrets::new()));
    let mut store = Store::open(temp.path(), &options).unwrap().0;
    store.change_key(&added(1), key(1)).unwrap();
    store.change_key(&added(2), key(1)).unwrap();
    let mut text = "PGPASSWORD=abcd was in the same file. ".to_owned();
    text.push_str(&".".repeat(1020 - text.len()));
    let reason = KeyReason::try_from(text).unwrap();
    store.change_key(&KeyChange::Revoked { key: id(2), reason }, key(1)).unwrap();
    assert!(store.append(common::note("by the revoked key").sign_with(key(2))).is_err());
    store.close().unwrap();
    let report = verified(temp.path(), &options, 1, Some(1));
    assert!(report.is_clean() && report.events == 3, "{report}");
}

#[test]
fn reasons_are_bounded() {
    assert!(KeyReason::try_from("x".repeat(1024)).is_ok());
    assert_eq!(KeyReason::try_from("x".repeat(1025)).unwrap_err().bytes, 1025);
}
