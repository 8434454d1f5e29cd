//! Goal: the demo holds, leaves a store that is whole, and writes into no store that is there. Method: runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;

#[test]
fn demo_holds_and_leaves_a_store_to_look_at() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("demo");
    let shown = run(std::path::Path::new("unused"), &["demo", dir.to_str().unwrap()]).fine();
    assert!(shown.contains("Everything held"), "{shown}");
    assert!(shown.lines().count() <= 36, "{shown}");
    let parity = common::parity(&dir);
    assert!(parity.is_consistent() && parity.jsonl_event_count > 200, "{parity}");
    assert!(common::verified(&dir).is_clean());
    // Every command that it advises works.
    let advised: Vec<_> = shown.lines().filter(|line| line.contains(" --store ") || line.trim_start().starts_with("grep ")).collect();
    assert_eq!(advised.len(), 6, "{shown}");
    for line in advised {
        let run = run_line(line.trim());
        assert_eq!(run.code, 0, "{line}: {run:?}");
        assert!(!run.out.is_empty(), "{line}: {run:?}");
    }
    let again = run(std::path::Path::new("unused"), &["demo", dir.to_str().unwrap()]);
    assert_eq!(again.code, 4, "{again:?}");
    assert_eq!(common::parity(&dir), parity);
}

#[test]
fn demo_in_a_temporary_folder_says_where() {
    let temp = tempfile::tempdir().unwrap();
    let output = command(std::path::Path::new("unused"), &["demo", "--json"]).env("TMPDIR", temp.path()).output().unwrap();
    let report: serde_json::Value = serde_json::from_str(&Run::of(output).fine()).unwrap();
    assert_eq!((report["held"].as_bool(), report["reopened"]["equal"].as_bool()), (Some(true), Some(true)));
    assert_eq!(report["reopened"]["lines"], report["reopened"]["rows"]);
    let rewritten = &report["rewritten"];
    assert_eq!((rewritten["store_fits"].as_bool(), rewritten["caught"].as_bool()), (Some(true), Some(true)), "{rewritten}");
    assert!(report["kill"]["restarts"].as_u64().unwrap() >= 1);
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [std::path::PathBuf::from(report["store"].as_str().unwrap())], "only the store is left, not the copy");
}
