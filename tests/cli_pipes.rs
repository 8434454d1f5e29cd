//! Goal: a reader that goes away ends the command quietly; a place that takes no bytes is told. Method: standard output
//! closed after the first bytes, and /dev/full.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

use cli_support::*;

#[test]
fn a_closed_pipe_is_no_failure() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let input: String = (0..5000).map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(100))).collect();
    run_with_input(&store, &["append"], input.as_bytes()).fine();
    for args in [
        &["export"][..],
        &["tail", "-n", "5000"],
        &["tail", "-n", "5000", "--json"],
        &["query", "SELECT * FROM events", "--json"],
        &["query", "SELECT * FROM events", "--limit", "0"],
    ] {
        let mut child = command(&store, args).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
    // What was sent before nobody listened any more is recorded, and the store is whole.
    let mut child = command(&store, &["append"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert!(common::parity(&store).is_consistent());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_place_is_told() {
    let (_temp, store) = sample();
    for args in [&["export"][..], &["stats"], &["verify", "--json"], &["query", "SELECT 1"], &["append", "1"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = Run::of(command(&store, args).stdout(full).output().unwrap());
        assert_eq!(run.code, 4, "{args:?}: {run:?}");
        assert!(run.err.contains("No space left on device"), "{run:?}");
    }
}
