//! Goal: a repair that ends early, or that can't bring all back, says so and leaves what the next one needs.
//!
//! Method: a repair from the ledger fails as its first transaction begins; a ledger is cut inside a batch of which the mirror
//! has the beginning only, as after a replay that was stopped there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::io;
use std::sync::Arc;

use common::*;
use counterfoil::*;

fn segments_known(dir: &std::path::Path) -> i64 {
    let mirror = rusqlite::Connection::open(mirror_path(dir)).unwrap();
    mirror.query_row("SELECT count(*) FROM segments", [], |row| row.get(0)).unwrap()
}

#[test]
fn the_list_of_segments_outlives_a_repair_that_ends_early() {
    let (_temp, dir, options) = store();
    let known = segments_known(&dir);
    assert!(known > 1);
    for point in [failpoint::MIRROR_BEGIN, failpoint::MIRROR_COMMIT] {
        let mut failing = options.clone();
        failing.failpoint = Some(Arc::new(move |at| if at == point { Err(io::Error::other("as told")) } else { Ok(()) }));
        repair_from_ledger(&dir, &failing, &mut |_| ()).unwrap_err();
        assert_eq!(segments_known(&dir), known, "{point}: lost segments can still be brought back");
    }
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!(segments_known(&dir), known);
    fs::remove_file(&segment_paths(&dir)[0]).unwrap();
    repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn the_rest_of_a_batch_that_nobody_has() {
    let temp = tempfile::tempdir().unwrap();
    let options = options();
    Store::open(temp.path(), &options).unwrap().0.close().unwrap();
    let (mut writer, mut mirror) = writer(temp.path(), &options);
    let drafts: Vec<_> = (0..4).map(|n| checked(note(&format!("{n}")).session("s").id(id(n)))).collect();
    writer.stage(&drafts, &Conditions::none(), false, &mut mirror).unwrap();
    let whole = writer.flush().unwrap().unwrap();
    writer.trim().unwrap();
    // A replay was stopped behind the second event of the batch, and the ledger has lost what comes after.
    let ends: Vec<_> = whole.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let half = whole.bytes[..ends[1]].to_vec();
    mirror.apply(&Group { bytes: half.clone(), ..whole.clone() }).unwrap();
    drop((writer, mirror));
    let path = segment_paths(temp.path()).remove(0);
    for kept in [half.len(), ends[0], 0] {
        fs::write(&path, &half[..kept]).unwrap();
        assert!(matches!(refusal(temp.path(), &options).0, Refusal::LostDurable { .. }));
        let error = repair_from_mirror(temp.path(), &options, &mut |_| ()).unwrap_err();
        assert!(matches!(error, RepairError::Unrecoverable { seq, .. } if seq.get() == 3), "{error}");
        assert_eq!(fs::read(&path).unwrap(), &half[..kept], "nothing was changed");
    }
    fs::write(&path, &whole.bytes).unwrap();
    assert_eq!(open_is_clean(temp.path(), &options).replay.replayed, 2);
}
