//! Goal: a signed event carries a signature that anyone can check with FORMAT.md and an Ed25519 library, whoever has written it:
//! the synchronous store or the actors, alone or in groups and batches, by the store's key or by one that the append brought.
//! Method: lines are read as plain JSON, and their signatures are checked here, without the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod common;

use std::path::Path;
use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use counterfoil::actors::Ledger;
use counterfoil::attest::{AttestError, Attestor, MemoryKey, PublicKey, Signature};
use counterfoil::*;
use ed25519_dalek::VerifyingKey;

fn key(seed: u8) -> Arc<MemoryKey> {
    Arc::new(MemoryKey::from_seed(&[seed; 32]))
}

/// The keys that signed, seq by seq (none where an event is not signed), each signature checked by the format's own words.
fn signers(dir: &Path, keys: &[&MemoryKey]) -> Vec<Option<usize>> {
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("ledger.json")).unwrap()).unwrap();
    let ledger_id = manifest["ledger_id"].as_str().unwrap();
    let ids: Vec<String> = keys
        .iter()
        .map(|key| {
            let id = blake3::hash(key.public_key().as_bytes());
            format!("key_{}", id.to_hex().get(..32).unwrap())
        })
        .collect();
    let lines = String::from_utf8(common::ledger_bytes(dir)).unwrap();
    let signer = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(signed_by) = event.get("signed_by") else {
            assert!(event.get("signature").is_none());
            return None;
        };
        let which = ids.iter().position(|id| id == signed_by.as_str().unwrap()).unwrap();
        let bytes: [u8; 64] = BASE64_URL_SAFE_NO_PAD.decode(event["signature"].as_str().unwrap()).unwrap().try_into().unwrap();
        let message = format!("counterfoil event signature v1\n{ledger_id}\n{}\n", event["event_hash"].as_str().unwrap());
        let verifying = VerifyingKey::from_bytes(keys[which].public_key().as_bytes()).unwrap();
        verifying.verify_strict(message.as_bytes(), &ed25519_dalek::Signature::from_bytes(&bytes)).unwrap();
        Some(which)
    };
    lines.lines().map(signer).collect()
}

/// A key that says it may have to wait, so that it is asked on other threads.
struct Elsewhere(MemoryKey);

impl Attestor for Elsewhere {
    fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }
    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError> {
        self.0.sign(message)
    }
}

#[test]
fn the_synchronous_store_signs() {
    let (temp, _, mut options) = common::store();
    let dir = temp.path().join("signed");
    let (own, brought) = (key(1), key(2));
    options.attestor = Some(own.clone().into());
    let mut store = Store::open(&dir, &options).unwrap().0;
    store.append(common::note("by the store's key")).unwrap();
    store.append(common::note("by its own").sign_with(brought.clone())).unwrap();
    store
        .append_batch(vec![common::note("a"), common::note("b").sign_with(brought.clone()), common::note("c")], &Conditions::none())
        .unwrap();
    store.close().unwrap();
    options.attestor = None;
    let mut store = Store::open(&dir, &options).unwrap().0;
    store.append(common::note("by nobody")).unwrap();
    store.close().unwrap();
    assert_eq!(signers(&dir, &[&own, &brought]), [Some(0), Some(1), Some(0), Some(1), Some(0), None]);
    assert!(common::verified(&dir).is_clean());
    assert!(common::parity(&dir).is_consistent());
}

#[test]
fn a_signature_is_no_part_of_what_makes_an_event_the_same() {
    let (temp, _, options) = common::store();
    let dir = temp.path().join("new");
    let mut store = Store::open(&dir, &options).unwrap().0;
    let first = store.append(common::note("once").id(common::id(1)).sign_with(key(1))).unwrap();
    let again = store.append(common::note("once").id(common::id(1))).unwrap();
    assert_eq!((again.seq, again.event_hash, again.duplicate), (first.seq, first.event_hash, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actors_sign_what_many_tasks_append() {
    let (temp, _, mut options) = common::unsynced_store();
    let dir = temp.path().join("new");
    let (local, elsewhere) = (key(1), Arc::new(Elsewhere(MemoryKey::from_seed(&[2; 32]))));
    options.attestor = Some(local.clone().into());
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let tasks: Vec<_> = (0..32u64)
        .map(|task| {
            let (ledger, elsewhere) = (ledger.clone(), elsewhere.clone());
            tokio::spawn(async move {
                for n in 0..20u64 {
                    let draft = common::note(&format!("{task} {n}")).session(format!("s-{}", task % 5));
                    let draft = if (task + n).is_multiple_of(3) { draft.sign_with(elsewhere.clone()) } else { draft };
                    ledger.append(draft).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    ledger.close().await.unwrap();
    let signers = signers(&dir, &[&local, &elsewhere.0]);
    assert_eq!(signers.len(), 640);
    // (task + n) divisible by three: 7 of 20 for tasks 0 and 1 modulo 3 (n = 0, 3, … and 2, 5, …), 6 or 7 else.
    let expected = (0..32u64).flat_map(|task| (0..20u64).map(move |n| task + n)).filter(|sum| sum.is_multiple_of(3)).count();
    assert_eq!(signers.iter().filter(|signer| **signer == Some(1)).count(), expected);
    assert!(signers.iter().all(Option::is_some));
    assert!(common::verified(&dir).is_clean());
    assert!(common::parity(&dir).is_consistent());
}
