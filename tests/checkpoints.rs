//! Goal: a checkpoint has the form that C2SP gives it and the root that RFC 6962 gives the events, whether the tree grew with the
//! events, was read from its file, or is made anew since that is lost or damaged; and nothing is signed twice.
//!
//! Method: stores of every size up to 300 and of some thousand, signed at each and at random sizes; the root against the
//! definition, word for word, and against tlog_tiles; the tree's file removed, cut and damaged in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod checkpoint_support;

use std::fs;

use checkpoint_support::common::*;
use checkpoint_support::*;
use counterfoil::checkpoint::*;
use counterfoil::*;

#[test]
fn the_text() {
    let temp = tempfile::tempdir().unwrap();
    let options = options();
    let store = store_of(temp.path(), &options, 5);
    let checkpoint = sign(&store, temp.path(), &options);
    insta::assert_snapshot!(checkpoint, @"
    counterfoil/ldg_01M860XD300000000000000001
    5
    rI+jQLkgBvPbcOm1ouKLcXdA6fJzEjJ1dbChWlvcoyw=

    — counterfoil/ldg_01M860XD300000000000000001 ADyCFgCVuXzP+xoNjaGhZe40w8wV3oxwjqwGje5WKnhH1vX6ZJYXAa5hVyCzWS50BVWcENVdTvQelQM1ihu74AP59AE=
    ");
    assert_eq!(checkpoint.origin(), format!("counterfoil/{}", store.manifest().ledger_id));
    assert_eq!((checkpoint.size(), checkpoint.root()), (5, root(&leaves(temp.path()))));
    assert_eq!(checkpoint.verify(&[public()]), Ok(public()));
    assert_eq!(Checkpoint::parse(checkpoint.to_string().as_bytes()).unwrap(), checkpoint);
    assert_eq!(fs::read_to_string(temp.path().join("checkpoints/signed.txt")).unwrap(), checkpoint.to_string());
}

#[test]
fn each_size_grown_is_each_size_from_scratch() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(temp.path(), &options, 0);
    let mut growing = signer(&store, temp.path(), &options, Vec::new());
    assert!(matches!(growing.sign(store.head()), Err(CheckpointError::Empty)));
    let mut signed = Vec::new();
    for size in 1..=300u64 {
        grow(&mut store, 1);
        let new = growing.sign(store.head()).unwrap();
        assert!(new.is_new && new.checkpoint.size() == size);
        assert!(!growing.sign(store.head()).unwrap().is_new, "size {size} was signed twice");
        if size % 50 == 7 || size % 256 < 2 {
            // One that reads the file goes on from there.
            growing = signer(&store, temp.path(), &options, Vec::new());
        }
        signed.push(new.checkpoint);
    }
    let leaves = leaves(temp.path());
    let tlog = Tlog::of(&leaves);
    let mut edge = Edge::default();
    assert_eq!(edge.root(), root(&[]));
    for (size, checkpoint) in (1..).zip(&signed) {
        edge.push(leaves[size - 1]);
        assert_eq!(checkpoint.root(), root(&leaves[..size]), "size {size}");
        assert_eq!((checkpoint.root(), edge.root()), (tlog.root(size as u64), checkpoint.root()), "size {size}");
    }
    let kept: String = signed.iter().map(ToString::to_string).collect();
    assert_eq!(fs::read_to_string(temp.path().join("checkpoints/signed.txt")).unwrap(), kept);
}

#[test]
fn larger_trees_at_random_sizes() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.segment_bytes_max = 100_000;
    let mut store = store_of(temp.path(), &options, 0);
    let (mut random, mut signed) = (Random::new(6), Vec::new());
    let mut growing = signer(&store, temp.path(), &options, Vec::new());
    while store.head().seq.get() < 3000 {
        grow(&mut store, 1 + random.below(300));
        if random.chance(3) {
            growing = signer(&store, temp.path(), &options, Vec::new());
        }
        signed.push(growing.sign(store.head()).unwrap().checkpoint);
    }
    let leaves = leaves(temp.path());
    assert!(signed.iter().all(|checkpoint| checkpoint.root() == root(&leaves[..checkpoint.size() as usize])));
    // The tree's file, grown, is what it is from scratch.
    let path = temp.path().join("checkpoints/tree.hashes");
    let grown = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    grow(&mut store, 1);
    sign(&store, temp.path(), &options);
    assert_eq!(fs::read(&path).unwrap(), grown);
}

#[test]
fn a_tree_that_is_lost_or_damaged_is_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(temp.path(), &options, 1500);
    sign(&store, temp.path(), &options);
    let path = temp.path().join("checkpoints/tree.hashes");
    let right = fs::read(&path).unwrap();
    assert_eq!(right.len() as u64, 32 * (2 * 5 - 2));
    let mut wrongs = vec![None, Some(Vec::new()), Some(right[..right.len() - 1].to_vec()), Some(vec![0; right.len()])];
    // The hash over the first 1,024 events, which is at the right edge, and the file of another tree.
    wrongs.push(Some({
        let mut wrong = right.clone();
        wrong[32 * 6] ^= 1;
        wrong
    }));
    wrongs.push(Some(right.iter().rev().copied().collect()));
    for wrong in wrongs {
        match &wrong {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
        grow(&mut store, 3);
        let checkpoint = sign(&store, temp.path(), &options);
        assert_eq!(checkpoint.root(), root(&leaves(temp.path())), "{:?}", wrong.map(|wrong| wrong.len()));
        assert_eq!(fs::read(&path).unwrap()[..right.len()], right);
    }
}

#[test]
fn what_a_crash_leaves_of_a_note_is_written_over() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let mut store = store_of(temp.path(), &options, 3);
    let path = temp.path().join("checkpoints/signed.txt");
    let first = sign(&store, temp.path(), &options).to_string();
    grow(&mut store, 1);
    let second = sign(&store, temp.path(), &options).to_string();
    for cut in 0..second.len() {
        for fill in [0, 40] {
            fs::write(&path, [first.as_bytes(), &second.as_bytes()[..cut], &vec![0; fill]].concat()).unwrap();
            let signed = sign(&store, temp.path(), &options);
            assert_eq!(signed.to_string(), second, "cut at {cut}");
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{first}{second}"), "cut at {cut}");
        }
    }
    // Anything else there is nobody's to cut.
    fs::write(&path, format!("{first}notes of my own")).unwrap();
    let error = signer(&store, temp.path(), &options, Vec::new()).sign(store.head()).unwrap_err();
    insta::assert_snapshot!(portable(error, temp.path()), @"<store>/checkpoints/signed.txt: it ends in something that is no checkpoint, which is nobody's to write over; so nothing more is signed: restore that file from a backup");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{first}notes of my own"));
}

#[test]
fn compressed_segments_count_as_well() {
    let (_temp, dir, options) = unsynced_store();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let first = sign(&store, &dir, &options);
    store.compress(&Sealed::AllBut(0)).unwrap();
    fs::remove_dir_all(dir.join("checkpoints")).unwrap();
    assert_eq!(sign(&store, &dir, &options), first);
}

#[test]
fn a_damaged_line_is_not_signed() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let store = store_of(temp.path(), &options, 20);
    let path = &segment_paths(temp.path())[0];
    let right = fs::read_to_string(path).unwrap();
    // The payload of an event that is not the last one, and the whole line of another.
    for wrong in [right.replace("\"event 7\"", "\"event 8\""), right.replacen("\"seq\":9,", "\"seq\":8,", 1)] {
        assert_ne!(wrong, right);
        fs::write(path, wrong).unwrap();
        let error = signer(&store, temp.path(), &options, Vec::new()).sign(store.head()).unwrap_err();
        assert!(matches!(error, CheckpointError::Ledger(LedgerError::Damaged { .. })), "{error}");
    }
}

#[test]
fn a_note_has_no_control_characters() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let right = sign(&store_of(temp.path(), &options, 1), temp.path(), &options).to_string();
    for c in ['\u{7f}', '\u{9b}', '\u{1b}', '\t'] {
        let wrong = right.replacen("ldg_", &format!("ldg_{c}"), 1);
        assert_eq!(Checkpoint::parse(wrong.as_bytes()), Err(NoteError::Malformed("it has control characters")));
    }
}
