//! Goal: what recovery refuses, `Ledger::open` answers at once, with its type, and lets go of the lock. Method: a store
//! without its middle segment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::time::Duration;

use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::*;

#[tokio::test]
async fn a_refusal_is_no_restart() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = common::options();
    options.segment_bytes_max = 1;
    let (mut store, _) = Store::open(temp.path(), &options).unwrap();
    for n in 0..3 {
        store.append(common::note(&n.to_string())).unwrap();
    }
    store.close().unwrap();
    std::fs::remove_file(temp.path().join("segments/00000000000000000002.jsonl")).unwrap();
    let mut with = LedgerOptions::default();
    // If it were tried again at all, it would be for ever.
    with.restarts_max = usize::MAX;
    let opened = tokio::time::timeout(Duration::from_secs(60), Ledger::open_with(temp.path(), with)).await;
    let error = opened.expect("it is tried again and again").unwrap_err();
    assert!(error.is_refused(), "{error}");
    assert_eq!(writer_of(temp.path(), &options), None);
    assert!(matches!(forecast(temp.path(), &options), Err(LedgerError::Refused(_))));
}
