//! Goal: whoever reads beside a running erasure sees no damage: not verify, whole or up to a seq, no comparison of the legs, no reader
//! of lines. Where the writer has gone in the middle, what differs is told, until the next open has completed it.
//!
//! Method: at each step of an erasure, in the failpoint, everything that reads is run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::secrets::{self, EVENTS, SECRET};
use common::small_segments;
use counterfoil::*;

fn read_all(dir: &Path, point: &str) -> u64 {
    let options = Options::default();
    let reader = LedgerReader::open(dir, &options).unwrap();
    let lines = secrets::lines(dir);
    assert!(lines.len() as u64 >= EVENTS, "{point}: lines");
    for through in [Seq::new(EVENTS), Seq::new(9), Seq::MAX] {
        let verified = counterfoil::verify_by(&reader, Some(through), &Plan::default(), &mut |_| ()).unwrap();
        assert!(verified.is_clean(), "{point}, through {through}: {verified}");
    }
    let full = parity_full(&reader, &options, None, &mut |_| ()).unwrap();
    assert!(full.is_consistent(), "{point}: {full}");
    let quick = parity_quick(&reader, &options).unwrap();
    assert!(quick.is_consistent(), "{point}: {quick}");
    let since = parity_incremental(&reader, &options, None, usize::MAX, &mut |_| ()).unwrap();
    assert!(since.is_consistent(), "{point}: {since}");
    full.being_erased_count
}

#[test]
fn every_reader_at_every_step() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    secrets::filled(&dir, &options);
    let seen: Arc<Mutex<(BTreeSet<&'static str>, u64)>> = Arc::default();
    let (looked, at) = (seen.clone(), dir.clone());
    options.failpoint = Some(Arc::new(move |point| {
        if point.starts_with("erase.") {
            let being_erased = read_all(&at, point);
            let mut looked = looked.lock().unwrap();
            looked.0.insert(point);
            looked.1 = looked.1.max(being_erased);
        }
        Ok(())
    }));
    let report = erase(&dir, &options, &secrets::erasure()).unwrap();
    assert_eq!(report.done.unfinished, None, "a reader that comes and goes is waited for");
    let (points, being_erased) = seen.lock().unwrap().clone();
    assert_eq!(points.len(), failpoint::ALL.iter().filter(|point| point.starts_with("erase.")).count(), "{points:?}");
    assert_eq!(being_erased, SECRET.len() as u64, "it was looked at in the middle");
    assert_eq!(read_all(&dir, "afterwards"), 0);
}

#[test]
fn what_a_writer_has_left_half_done_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    secrets::filled(&dir, &options);
    let before = secrets::lines(&dir);
    options.failpoint = Some(Arc::new(|point| match point {
        failpoint::ERASE_ROWS => Err(std::io::Error::other("stopped here")),
        _ => Ok(()),
    }));
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let report = store.erase(&secrets::erasure()).unwrap();
    assert!(report.done.unfinished.as_ref().is_some_and(|why| why.contains("stopped here")), "{report:?}");
    let beside = common::parity(&dir);
    assert!(beside.is_consistent() && beside.being_erased_count == SECRET.len() as u64, "{beside}");
    // An edited row is no erased one, whoever is at work.
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET payload = '\"edited\"' WHERE seq = 2", []).unwrap();
    conn.execute("UPDATE events SET payload = NULL, erased = 1 WHERE seq = 5", []).unwrap();
    let beside = common::parity(&dir);
    assert_eq!(beside.mismatched.iter().map(|one| one.seq.get()).collect::<Vec<_>>(), [2, 5]);
    drop(conn);
    drop(store);
    let left = common::parity(&dir);
    assert_eq!((left.mismatched_count, left.being_erased_count), (SECRET.len() as u64 + 2, 0), "{left}");
    repair_from_ledger(&dir, &small_segments(), &mut |_| ()).unwrap();
    secrets::check_erased(&dir, &before, "repaired");
    assert_eq!(read_all(&dir, "repaired"), 0);
}

#[test]
fn a_forged_erasure_in_the_mirror_erases_nothing() {
    for is_hashed in [false, true] {
        forged(is_hashed);
    }
}

fn forged(is_hashed: bool) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    secrets::filled(&dir, &options);
    let before = secrets::lines(&dir);
    let victim = line::decode(&before[&2]).unwrap();
    let payload = format!(r#"{{"erased":[{{"seq":2,"id":"{}","payload_hash":"{}","reason":"forged"}}]}}"#, victim.id, victim.payload_hash);
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET event_type = 'counterfoil.erasure.v1', payload = ?1 WHERE seq = 6", [&payload]).unwrap();
    if is_hashed {
        let hash = blake3::hash(payload.as_bytes());
        conn.execute("UPDATE events SET payload_hash = ?1 WHERE seq = 6", [hash.as_bytes().as_slice()]).unwrap();
    }
    drop(conn);
    let (store, report) = Store::open(&dir, &options).unwrap();
    assert!(report.erased.is_nothing(), "{report:?}");
    drop(store);
    let repaired = repair_from_mirror(&dir, &options, &mut |_| ());
    assert_eq!(repaired.is_err(), is_hashed, "{repaired:?}");
    assert!(secrets::lines(&dir) == before, "the ledger is as it was");
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    common::open_is_clean(&dir, &options);
    assert!(secrets::lines(&dir) == before);
}
