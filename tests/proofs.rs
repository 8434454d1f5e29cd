//! Goal: every proof that is made verifies, by ours and by tlog_tiles; and no proof verifies whose bytes, checkpoint, event or key
//! is another one. Made by the tree's file or without it, a proof is the same.
//!
//! Method: all events and all steps of ledgers of up to 32 events, random ones of a ledger of thousands; a bit of each byte of a
//! proof flipped (all of them with COUNTERFOIL_PROOF_BITS=8).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod checkpoint_support;

use std::fs;

use checkpoint_support::common::*;
use checkpoint_support::*;
use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::*;
use counterfoil::*;

/// Events of the ledger of all pairs.
const ALL: u64 = 32;

#[test]
fn all_pairs() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(temp.path(), &options, 0);
    let mut signer = signer(&store, temp.path(), &options, Vec::new());
    let mut checkpoints = Vec::new();
    for _ in 0..ALL {
        grow(&mut store, 1);
        checkpoints.push(signer.sign(store.head()).unwrap().checkpoint);
    }
    let leaves = leaves(temp.path());
    let reader = store.reader().unwrap();
    for to in &checkpoints {
        let (size, hash) = (to.size(), tlog_tiles::Hash(*to.root().as_bytes()));
        for from in &checkpoints[..size as usize] {
            let what = format!("{} of {size}", from.size());
            let proof = prove_event(&reader, Seq::new(from.size()), Some(size)).unwrap();
            assert_eq!(Proof::parse(proof.to_string().as_bytes()).unwrap(), proof);
            assert_eq!(proof.check(None, &[public()]), Ok(public()), "{what}");
            assert_eq!(proof.check(Some(to), &[public()]), Ok(public()), "{what}");
            let (index, event) = (from.size() - 1, leaves[from.size() as usize - 1]);
            assert_eq!(proof.claim(), Statement::Includes { seq: Seq::new(from.size()), event_hash: event });
            let theirs = tlog_tiles::record_hash(event.as_bytes());
            tlog_tiles::check_record(&proof_hashes(&proof), size, hash, index, theirs).unwrap();
            // No other place, size, root or event.
            let hashes: Vec<TreeHash> = proof_hashes(&proof).into_iter().map(|hash| TreeHash::from_bytes(hash.0)).collect();
            assert!(includes(size, to.root(), index, event, &hashes));
            for other in [0, index / 2, index ^ 1, size - 1].into_iter().filter(|other| *other < size) {
                assert!(other == index || !includes(size, to.root(), other, event, &hashes), "{what} at {other}");
                assert!(other == index || !includes(size, to.root(), index, leaves[other as usize], &hashes), "{what} at {other}");
            }
            assert!(!includes(size, to.root(), index, event, &[&hashes[..], &[to.root()]].concat()));

            let proof = prove_from(&reader, from.size(), Some(size)).unwrap();
            assert_eq!(Proof::parse(proof.to_string().as_bytes()).unwrap(), proof);
            assert_eq!(proof.check(Some(from), &[public()]), Ok(public()), "{what}");
            assert_eq!(proof.check(None, &[public()]), Err(ProofFault::NeedsOld { old: from.size() }));
            let old = tlog_tiles::Hash(*from.root().as_bytes());
            tlog_tiles::check_tree(&proof_hashes(&proof), size, hash, from.size(), old).unwrap();
            let hashes: Vec<TreeHash> = proof_hashes(&proof).into_iter().map(|hash| TreeHash::from_bytes(hash.0)).collect();
            for other in checkpoints.iter().step_by(7).filter(|other| other.size() != from.size()) {
                assert!(!extends((other.size(), other.root()), (size, to.root()), &hashes), "{what} from {}", other.size());
                assert!(!extends((from.size(), other.root()), (size, to.root()), &hashes), "{what} from {}", other.size());
            }
        }
        assert!(matches!(prove_event(&reader, Seq::new(size + 1), Some(size)), Err(CheckpointError::NotCovered { .. })));
        for from in [0, size + 1] {
            assert!(matches!(prove_from(&reader, from, Some(size)), Err(CheckpointError::NoSuchStep { .. })));
        }
    }
    assert!(matches!(prove_event(&reader, Seq::ZERO, None), Err(CheckpointError::NotCovered { .. })));
    assert!(matches!(prove_event(&reader, Seq::FIRST, Some(999)), Err(CheckpointError::NoSuchSize { size: 999, .. })));
}

#[test]
fn large_ones_with_and_without_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.segment_bytes_max = 200_000;
    let mut store = store_of(temp.path(), &options, 0);
    let mut signer = signer(&store, temp.path(), &options, Vec::new());
    let (mut checkpoints, mut random) = (Vec::new(), Random::new(62));
    while store.head().seq.get() < 5000 {
        grow(&mut store, 1 + random.below(700));
        checkpoints.push(signer.sign(store.head()).unwrap().checkpoint);
    }
    store.compress(&Sealed::AllBut(3)).unwrap();
    let reader = store.reader().unwrap();
    let path = temp.path().join("checkpoints/tree.hashes");
    let right = fs::read(&path).unwrap();
    let tlog = Tlog::of(&leaves(temp.path()));
    for _ in 0..campaign("COUNTERFOIL_PROOFS", 6) {
        let to = &checkpoints[random.below(checkpoints.len() as u64) as usize];
        let seq = 1 + random.below(to.size());
        let make = || [prove_event(&reader, Seq::new(seq), Some(to.size())), prove_from(&reader, seq, Some(to.size()))].map(Result::unwrap);
        fs::write(&path, &right).unwrap();
        let proofs = make();
        assert_eq!(proofs[0].check(Some(to), &[public()]), Ok(public()));
        let theirs = [tlog_tiles::prove_record(to.size(), seq - 1, &tlog).unwrap(), tlog_tiles::prove_tree(to.size(), seq, &tlog).unwrap()];
        assert_eq!(proofs.each_ref().map(proof_hashes), theirs, "{seq} of {}", to.size());
        // Some other hash of the file is wrong, or all are; or it is not there.
        let mut wrong = right.clone();
        for at in (0..wrong.len()).step_by(32) {
            wrong[at + random.below(32) as usize] ^= 1 << random.below(8);
        }
        fs::write(&path, wrong).unwrap();
        assert_eq!(make(), proofs);
        fs::remove_file(&path).unwrap();
        assert_eq!(make(), proofs);
    }
}

#[test]
fn no_other_bit() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(temp.path(), &options, 11);
    let old = sign(&store, temp.path(), &options);
    grow(&mut store, 10);
    let new = sign(&store, temp.path(), &options);
    let reader = store.reader().unwrap();
    let (keys, mut flips, bits) = ([public()], 0, campaign("COUNTERFOIL_PROOF_BITS", 1) as usize);
    for (proof, known) in [(prove_event(&reader, Seq::new(9), None).unwrap(), &new), (prove_from(&reader, 11, None).unwrap(), &old)] {
        let right = proof.to_string().into_bytes();
        for at in 0..right.len() {
            for bit in (0..bits).map(|n| (at + n) % 8) {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << bit;
                let says = Proof::parse(&wrong).map(|proof| proof.check(Some(known), &keys));
                // Nothing of a proof may be otherwise: not its hashes, not what it claims, not its checkpoint.
                assert!(!matches!(says, Ok(Ok(_))), "byte {at}, bit {bit}: {}", String::from_utf8_lossy(&wrong));
                flips += 1;
            }
        }
        for cut in 0..right.len() {
            assert!(Proof::parse(&right[..cut]).is_err(), "cut at {cut}");
        }
        let other = MemoryKey::from_seed(&[8; 32]).public_key();
        let fault = SignatureFault::UnknownKey;
        assert_eq!(proof.check(Some(known), &[other]), Err(ProofFault::Signature { size: new.size(), fault }));
        assert_eq!(proof.check(Some(known), &[other, public()]), Ok(public()));
    }
    assert!(flips > 1000, "{flips}");
}

#[test]
fn what_is_held_against_something_else() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(&temp.path().join("one"), &options, 11);
    let old = sign(&store, &temp.path().join("one"), &options);
    grow(&mut store, 10);
    sign(&store, &temp.path().join("one"), &options);
    let reader = store.reader().unwrap();
    let proofs = [prove_event(&reader, Seq::new(9), None).unwrap(), prove_from(&reader, 11, None).unwrap()];
    // Another ledger, and the same one as it would be had it been rewritten.
    let two = store_of(&temp.path().join("two"), &options, 11);
    let foreign = sign(&two, &temp.path().join("two"), &options);
    let forked = temp.path().join("forked");
    fs::create_dir(&forked).unwrap();
    fs::copy(temp.path().join("one/ledger.json"), forked.join("ledger.json")).unwrap();
    let (mut fork, _) = Store::open(&forked, &options).unwrap();
    for _ in 0..21 {
        fork.append(note("another history")).unwrap();
        if [11, 21].contains(&fork.head().seq.get()) {
            sign(&fork, &forked, &options);
        }
    }
    let fork = |size| stored_checkpoint(&fork.reader().unwrap(), Some(size)).unwrap().unwrap();
    let mut said = String::new();
    for (proof, known) in [(0, Some(&old)), (0, Some(&foreign)), (0, Some(&fork(21))), (1, None), (1, Some(&foreign)), (1, Some(&fork(11)))]
    {
        said += &format!("{}\n", proofs[proof].check(known, &[public()]).unwrap_err());
    }
    said = said.replace(&store.manifest().ledger_id.to_string(), "<one>").replace(&two.manifest().ledger_id.to_string(), "<two>");
    insta::assert_snapshot!(said, @"
    the proof needs the checkpoint of 21 events, and the one that was given has 11
    the proof is about counterfoil/<one>, and the checkpoint about counterfoil/<two>
    there are two checkpoints of 21 events with different roots: one of them is of a ledger that was rewritten
    it leads from 11 events on, so it needs the checkpoint of as many; give it with --checkpoint
    the proof is about counterfoil/<one>, and the checkpoint about counterfoil/<two>
    its hashes do not lead to the root that was signed
    ");
    let Statement::Includes { event_hash, .. } = proofs[0].claim() else { panic!() };
    assert_eq!(proofs[0].check_event(event_hash), Ok(()));
    let another = leaves(&temp.path().join("one"))[9];
    assert!(matches!(proofs[0].check_event(another), Err(ProofFault::OtherEvent { .. })));
}
