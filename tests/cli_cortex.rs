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

#[test]
fn says_what_it_redacted() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().canonicalize().unwrap();
    let (store, path, out) = (folder.join("store"), folder.join("events.jsonl"), folder.join("out"));
    let secret = ["gh", "p_", &"aB3".repeat(12)].concat();
    let tagged = |number| cortex_core::Event { domain_tags: vec![secret.clone()], ..event(number) };
    append(&path, (0..6).map(|number| if number == 3 { tagged(number) } else { event(number) }), 0);
    let shown = |args: &[&str]| run(&store, args).fine().replace(&folder.display().to_string(), "<folder>");
    insta::assert_snapshot!(shown(&["import", path.to_str().unwrap()]), @r"
    <folder>/events.jsonl  (cortex)  6 appended, 0 duplicate, 0 skipped, 1 redacted (and 1 note)
    total: 1 file: 6 appended, 0 duplicate, 0 skipped, 1 redacted (and 1 note)
    replaced 1 secret in 1 line before writing: github-token 1
      (`export --original` says which lines those are; --keep-secrets records them as they are)
    ");
    insta::assert_snapshot!(shown(&["export", "--original", out.to_str().unwrap()]), @"<folder>/out/events.jsonl  6 lines, 3.6 KiB, exact but for 1 redacted line (4)");
    assert!(common::parity(&store).is_consistent());
}
