//! Goal: optimistic concurrency. An append that expects another state of its stream or of the ledger is refused with an
//! error that names both, and nothing is written.
//!
//! Method: each expectation is met and missed, alone and in batches, before and after a reopen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;

use common::*;
use counterfoil::*;

fn missed(store: &mut Store, dir: &Path, append: impl FnOnce(&mut Store) -> Result<(), Error>) -> String {
    let before = state(store, dir);
    let error = append(store).unwrap_err();
    assert_eq!(state(store, dir), before, "nothing is written: {error}");
    assert!(
        matches!(error, Error::Append(AppendError::WrongSessionSeq { .. } | AppendError::WrongHead { .. } | AppendError::NoSession)),
        "{error}"
    );
    error.to_string()
}

#[test]
fn of_a_stream_and_of_the_head() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let genesis = store.head().event_hash;
    let say = |text: &str| note(text).session("s-1");
    assert_eq!(store.append_expecting(say("1"), &Expect::NoStream).unwrap().session_seq, Some(1));
    assert_eq!(store.append_expecting(say("2"), &Expect::SessionSeq(1)).unwrap().session_seq, Some(2));
    let third = store.append_expecting(say("3"), &Expect::Head(store.head().event_hash)).unwrap();
    assert_eq!(third.session_seq, Some(3));
    store.append_expecting(note("x"), &Expect::Head(third.event_hash)).unwrap();
    for round in 0..2 {
        let mut append = |draft: Draft, expect: Expect| missed(&mut store, &dir, |store| store.append_expecting(draft, &expect).map(drop));
        let no_stream = append(say("x"), Expect::NoStream);
        let behind = append(say("x"), Expect::SessionSeq(2));
        let ahead = append(say("x"), Expect::SessionSeq(4));
        let none = append(note("x").session("s-2"), Expect::SessionSeq(1));
        let head = append(say("x"), Expect::Head(genesis));
        let without = append(note("x"), Expect::NoStream);
        if round == 0 {
            insta::assert_snapshot!(no_stream, @"stream `s-1` is at 3, not at 0; read what came in between, and decide again");
            insta::assert_snapshot!(behind, @"stream `s-1` is at 3, not at 2; read what came in between, and decide again");
            insta::assert_snapshot!(head, @"the ledger's head is b56b23b1a21bfce50b04e3c20d36f9f76ce0883fb2adba8fc83148ae54566217, not 973e0d2fb78ef590dfc9f3a7f947b16ab7dbe14f6b2a438286d7707d9a7c43aa; read what came in between, and decide again");
            insta::assert_snapshot!(without, @"a condition on a stream needs a draft with a session id; give the draft one, or drop the condition");
            assert!(ahead.contains("is at 3, not at 4") && none.contains("`s-2` is at 0, not at 1"), "{ahead} {none}");
        }
        // A reopen changes nothing of it.
        store.close().unwrap();
        store = Store::open(&dir, &options).unwrap().0;
    }
    assert_eq!(store.append_expecting(say("4"), &Expect::SessionSeq(3)).unwrap().session_seq, Some(4));
}

#[test]
fn of_a_batch_for_each_stream() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    let batch = || vec![note("a").session("s-1"), note("b").session("s-2"), note("c").session("s-1"), note("d")];
    let conditions = Conditions::none().session("s-1", 0).session("s-2", 0).head(store.head().event_hash);
    let receipts = store.append_batch(batch(), &conditions).unwrap();
    assert_eq!(receipts.iter().map(|r| r.session_seq).collect::<Vec<_>>(), [Some(1), Some(1), Some(2), None]);
    for conditions in [
        conditions,
        Conditions::none().session("s-1", 2).session("s-2", 0),
        Conditions::none().session("s-1", 1).session("s-2", 1),
        Conditions::none().session("another", 1),
    ] {
        missed(&mut store, &dir, |store| store.append_batch(batch(), &conditions).map(drop));
    }
    // A stream is where it was before the batch, and nowhere else; said twice, it must be true twice.
    for (conditions, is_met) in [
        (Conditions::none().session("s-1", 2).session("s-2", 1), true),
        (Conditions::none().session("s-1", 4).session("s-1", 4).session("s-2", 2), true),
        (Conditions::none().session("s-1", 6).session("s-1", 8), false),
        (Conditions::none().session("s-1", 8).session("s-1", 6), false),
        (Conditions::none().session("s-2", 3).session("s-1", 8), false),
    ] {
        match is_met {
            true => drop(store.append_batch(batch(), &conditions).unwrap()),
            false => drop(missed(&mut store, &dir, |store| store.append_batch(batch(), &conditions).map(drop))),
        }
    }
    // A condition may be about a stream that the batch does not touch.
    let conditions = Conditions::none().session("s-1", 6).session("another", 0);
    assert_eq!(store.append_batch(vec![note("e").session("s-2"), note("f")], &conditions).unwrap()[0].session_seq, Some(4));
}

#[test]
fn counts_what_is_staged_and_not_yet_durable() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    filled(&dir, &options);
    let (mut writer, mut mirror) = writer(&dir, &options);
    let mut stage = |draft: Draft, conditions: Conditions| writer.stage(&[checked(draft)], &conditions, false, &mut mirror).map(drop);
    stage(note("x").session("s-1"), Conditions::none().session("s-1", 6)).unwrap();
    let error = stage(note("x").session("s-1"), Conditions::none().session("s-1", 6)).unwrap_err();
    assert!(matches!(error, AppendError::WrongSessionSeq { expected: 6, actual: 7, .. }), "{error}");
    stage(note("x").session("s-1"), Conditions::none().session("s-1", 7)).unwrap();
}

#[test]
fn many_streams_at_a_mirror_that_does_not_move_cost_no_more_each() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    Store::open(&dir, &options).unwrap().0.close().unwrap();
    let (mut writer, mut mirror) = writer(&dir, &options);
    let started = std::time::Instant::now();
    // More than are kept without need: each one that is new must not look through all the others.
    let streams = (1 << 16) + 8_000;
    for n in 0..streams {
        let draft = checked(note("x").session(format!("s-{n}")));
        while let Stage::GroupFull = writer.stage(std::slice::from_ref(&draft), &Conditions::none(), true, &mut mirror).unwrap() {
            writer.flush().unwrap();
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{n} of {streams} streams in {:?}", started.elapsed());
    }
    writer.flush().unwrap();
    let known = checked(note("y").session("s-0"));
    let conditions = Conditions::none().session("s-0", 1);
    assert!(matches!(writer.stage(&[known], &conditions, true, &mut mirror), Ok(Stage::Staged(_))));
}
