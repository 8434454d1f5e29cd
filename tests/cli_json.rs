//! Goal: with --json, standard output holds JSON and nothing else, whatever the command and however it ends; errors are
//! one JSON object on standard error. Method: every command, every line parsed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;
use serde_json::Value;

#[test]
fn standard_output_is_json() {
    let (temp, store) = sample();
    let transcript = temp.path().join("t.jsonl");
    std::fs::write(&transcript, "{\"a\":1}\nnope\n").unwrap();
    let (transcript, originals, demo) = (transcript.to_str().unwrap(), temp.path().join("o"), temp.path().join("d"));
    let mut runs = Vec::new();
    for args in [
        &["init"][..],
        &["append", "1", "2"],
        &["append", "1", "--atomic", "--durability", "mirrored"],
        &["append", "nope"],
        &["import", transcript],
        &["import", transcript, "--skip-bad"],
        &["import", "/nonexistent"],
        &["export"],
        &["export", "--original", originals.to_str().unwrap()],
        &["tail"],
        &["show", "1"],
        &["show", "999"],
        &["sessions"],
        &["query", "SELECT * FROM events_text"],
        &["query", "SELECT 1 WHERE 0"],
        &["query", "nope"],
        &["stats"],
        &["verify"],
        &["parity"],
        &["parity", "--full"],
        &["replay"],
        &["repair", "--from", "ledger"],
        &["repair", "--from", "mirror"],
        &["doctor"],
        &["demo", demo.to_str().unwrap()],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let run = run(&store, &args);
        let is_array = args.starts_with(&["query"]);
        if is_array && !run.out.is_empty() {
            serde_json::from_str::<Value>(&run.out).unwrap_or_else(|error| panic!("{args:?}: {error}: {run:?}"));
        } else {
            for line in run.out.lines() {
                serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{args:?}: {error}: {run:?}"));
            }
        }
        if !run.err.is_empty() {
            let error: Value = serde_json::from_str(&run.err).unwrap_or_else(|error| panic!("{args:?}: {error}: {run:?}"));
            assert_eq!(error["exit_code"], run.code, "{args:?}");
        }
        runs.push((args.join(" "), run.code));
    }
    let failed: Vec<_> = runs.iter().filter(|(_, code)| *code != 0).map(|(args, code)| (args.as_str(), *code)).collect();
    assert_eq!(failed.len(), 5, "{failed:?}");
}
