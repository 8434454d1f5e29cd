//! Goal: `counterfoil import` adopts a Cortex ledger as it is told to or finds by itself, and says what is wrong with one that
//! is broken or no longer what it was. Method: runs of the command over ledgers that `crtx-ledger` has written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "cli")]

mod cli_support;
mod cortex_support;

use std::fs;

use cli_support::*;
use cortex_support::*;

#[test]
fn adopts_refuses_and_gives_back() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().canonicalize().unwrap();
    let (store, path, out) = (folder.join("store"), folder.join("events.jsonl"), folder.join("out"));
    append(&path, (0..12).map(event), 4);
    let mut shown = String::new();
    let mut import = |what: &str, args: &[&str], code: u8| {
        let run = run(&store, &[&["import", path.to_str().unwrap()], args].concat());
        assert_eq!(i32::from(code), run.code, "{run:?}");
        shown += &format!("{what}\n{}", run.out.replace(&folder.display().to_string(), "<folder>"));
    };
    import("adopted", &["--format", "cortex"], 0);
    import("again, told from its content", &[], 0);
    let whole = fs::read_to_string(&path).unwrap();
    append(&path, (12..14).map(event), 0);
    import("grown", &[], 0);
    let grown = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole).unwrap();
    import("shortened", &[], 4);
    fs::write(&path, grown.replacen("hello", "hallo", 1)).unwrap();
    import("edited", &[], 4);
    import("edited, bad lines skipped", &["--skip-bad"], 4);
    fs::write(&path, &grown).unwrap();
    snapshot!("cli_cortex", shown);
    run(&store, &["export", "--original", out.to_str().unwrap()]).fine();
    assert_eq!(fs::read_to_string(out.join("events.jsonl")).unwrap(), grown);
    run(&store, &["verify"]).fine();
    assert!(common::parity(&store).is_consistent());
    let notes = run(
        &store,
        &[
            "query",
            "--json",
            "SELECT json_extract(payload, '$.import.cortex.rows') AS n FROM events WHERE event_type = 'system_note.v1' ORDER BY seq",
        ],
    );
    assert_eq!(notes.fine().trim(), "[{\"n\":12},\n{\"n\":14}]");
}
