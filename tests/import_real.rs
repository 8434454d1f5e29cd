//! Goal: what agents really write is imported whole, once, and comes back byte for byte.
//! Method: the transcripts in ../shared/data, where that folder exists; else this says so aloud and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod import_support;

use std::path::Path;
use std::sync::Arc;

use counterfoil::Secrets;
use counterfoil::import::{Settings, export_originals, transcripts_in};
use import_support::*;

const COUNTS: [(&str, usize); 6] = [
    ("claude-code/session-large.jsonl", 2385),
    ("claude-code/session-tools.jsonl", 39),
    ("codex/rollout-a.jsonl", 702),
    ("openhands/events.jsonl", 10),
    ("swe-agent/i_got_id_demo.traj", 21),
    ("swe-agent/marshmallow-1867.traj", 13),
];

#[test]
fn real_transcripts() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if !data.is_dir() {
        eprintln!("SKIPPED: ../shared/data is not here");
        return;
    }
    let found: Vec<_> = transcripts_in(&data).into_iter().map(Result::unwrap).collect();
    assert_eq!(found, COUNTS.map(|(name, _)| data.join(name)));
    let mut ledger = TestLedger::new();
    let redacting = Settings { redactor: Some(Arc::new(Secrets::new())), ..Settings::default() };
    let mut total = 0;
    for (name, count) in COUNTS {
        let drafts = drafts(&data.join(name), &Settings::default()).unwrap();
        let expected = count + usize::from(name.ends_with(".jsonl"));
        assert_eq!((drafts.len(), ledger.append_all(&drafts)), (expected, expected), "{name}");
        // There are no secrets in them, as was looked up by other means: what is found there is none.
        assert_eq!(keys(&import_support::drafts(&data.join(name), &redacting).unwrap()), keys(&drafts), "{name}");
        if name.ends_with(".jsonl") {
            assert!(rebuilt(&drafts).1, "{name}");
        }
        let unknown = drafts.iter().filter(|draft| format!("{draft:?}").contains("\"unknown\"")).count();
        eprintln!("{name}: {} drafts, {unknown} with an unknown tool or model", drafts.len());
        total += expected;
    }
    let again: usize = COUNTS.iter().map(|(name, _)| ledger.append_all(&drafts(&data.join(name), &Settings::default()).unwrap())).sum();
    assert_eq!((total, again), (3174, 0));
    let out = tempfile::tempdir().unwrap();
    let exported = export_originals(&ledger.reader(), out.path()).unwrap();
    assert_eq!(exported.len(), 4);
    for (file, (name, _)) in exported.iter().zip(COUNTS) {
        assert!(file.exact && std::fs::read(&file.path).unwrap() == std::fs::read(data.join(name)).unwrap(), "{name}");
    }
}
