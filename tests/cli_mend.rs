//! Goal: replay and repair report what they did, where the old went, and the parity after it. Method: broken stores with
//! known bytes, snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;

use cli_support::*;

#[test]
fn replay_and_repair_report() {
    let (_temp, store) = sample();
    snapshot!("cli_replay_nothing", run(&store, &["replay"]).shown(&store));
    fs::write(store.join("mirror.sqlite3"), vec![b'x'; 40_000]).unwrap();
    let replayed = run(&store, &["replay"]);
    assert_eq!(replayed.code, 0);
    snapshot!("cli_replay_corrupt_mirror", replayed.shown(&store));

    let whole = common::ledger_bytes(&store);
    let damaged = segments(&store)[1].clone();
    let text = fs::read_to_string(&damaged).unwrap();
    fs::write(&damaged, text.replacen("it fails", "it fialS", 1)).unwrap();
    fs::remove_file(&segments(&store)[2]).unwrap();
    let verified = run(&store, &["verify"]);
    assert_eq!(verified.code, 1);
    snapshot!("cli_verify_damaged", verified.shown(&store));
    let compared = run(&store, &["parity", "--full"]);
    assert_eq!(compared.code, 1);
    snapshot!("cli_parity_damaged", compared.shown(&store));
    let refused = run(&store, &["append", "1"]);
    assert_eq!(refused.code, 4);
    snapshot!("cli_append_refused", refused.shown(&store));
    let refused = run(&store, &["repair", "--from", "ledger"]);
    assert_eq!(refused.code, 4);
    snapshot!("cli_repair_refused", refused.shown(&store));
    let repaired = run(&store, &["repair", "--from", "mirror"]);
    assert_eq!(repaired.code, 0);
    snapshot!("cli_repair_from_mirror", repaired.shown(&store));
    assert_eq!(common::ledger_bytes(&store), whole);

    let mirror = common::by_hand(&store);
    mirror.execute("UPDATE events SET payload = '{}' WHERE seq = 4", []).unwrap();
    mirror.execute("INSERT INTO events SELECT 99, 'evt_00000000000000000000000009', schema_version, observed_at, recorded_at, source, event_type, trace_id, NULL, NULL, causation_id, domain_tags, attachments, group_seq, batch, signed_by, policy, payload_hash, prev_event_hash, event_hash, signature, payload, blob, erased FROM events WHERE seq = 1", []).unwrap();
    drop(mirror);
    let compared = run(&store, &["parity", "--full"]);
    assert_eq!(compared.code, 1);
    snapshot!("cli_parity_edited", compared.shown(&store));
    let repaired = run(&store, &["repair", "--from", "ledger"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    snapshot!("cli_repair_from_ledger", repaired.shown(&store));
}

#[test]
fn what_an_erasure_removes_is_not_said_to_be_kept() {
    let (_temp, store) = sample();
    run(&store, &["erase", "--seq", "2", "--reason", "a test"]).fine();
    // Its second page is rubbish but for the id of the erased event.
    let mirror = store.join("mirror.sqlite3");
    let mut bytes = fs::read(&mirror).unwrap();
    bytes[4096..].fill(b'x');
    let id = run(&store, &["show", "2", "--json"]).fine();
    let id = serde_json::from_str::<serde_json::Value>(&id).unwrap()["id"].as_str().unwrap().to_owned();
    bytes[9000..9000 + id.len()].copy_from_slice(id.as_bytes());
    fs::write(&mirror, bytes).unwrap();
    let replayed = run(&store, &["replay"]).fine();
    assert!(!replayed.contains("is kept as"), "{replayed}");
    assert!(replayed.contains("removed: ") && !store.join("mirror.sqlite3.aside-1").exists(), "{replayed}");
}
