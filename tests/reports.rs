//! Goal: what the format and the reports look like is on record: the lines of a small ledger with their hashes, and what
//! verify says of a clean and of a damaged one.
//!
//! Method: clock and ids are injected, so every byte is the same in every run; nothing is redacted but the temporary path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;

use common::*;

#[test]
fn sealed_lines() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &small_segments());
    let mut text = fs::read_to_string(dir.join("ledger.json")).unwrap();
    for (name, bytes) in segments(&dir) {
        text += &format!("== {}\n{}", name.display(), String::from_utf8(bytes).unwrap());
    }
    snapshots(|| insta::assert_snapshot!("sealed_lines", text));
}

#[test]
fn verify_clean_and_damaged() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    filled(&dir, &small_segments());
    let mut text = portable(verified(&dir), &dir);
    let paths = segment_paths(&dir);
    let edit = |n: usize, from: &str, to: &str| {
        let before = fs::read_to_string(&paths[n]).unwrap();
        assert!(before.contains(from), "{before}");
        fs::write(&paths[n], before.replacen(from, to, 1)).unwrap();
    };
    edit(0, "\"payload\":{\"seq\":1}", "\"payload\":{\"seq\":2}");
    edit(1, "\"session_seq\":3", "\"session_seq\":4");
    fs::remove_file(&paths[2]).unwrap();
    edit(3, "{\"seq\":", "{\"seq\" :");
    let last = fs::read(&paths[4]).unwrap();
    fs::write(&paths[4], [&last[..], b"{\"seq\":13,\"id\":\"evt_"].concat()).unwrap();
    text += &portable(verified(&dir), &dir);
    let held = counterfoil::StoreLock::acquire(&counterfoil::FsStorage, &dir, std::time::Duration::ZERO).unwrap();
    let beside = verified(&dir);
    assert!(beside.unfinished.is_some());
    text += &portable(beside, &dir);
    drop(held);
    snapshots(|| insta::assert_snapshot!("verify_reports", text));
}
