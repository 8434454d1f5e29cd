//! Goal: one writer; a second one ends with exit code 3 and names the first; whoever only reads is not in its way, and
//! takes no lag for damage. Method: a child that holds the store open while its standard input is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::io::Write;
use std::process::Stdio;

use cli_support::*;

#[test]
fn a_second_writer_is_told_who_the_first_one_is() {
    let (_temp, store) = sample();
    let mut writer = Running(command(&store, &["append"]).stdin(Stdio::piped()).spawn().unwrap());
    let mut stdin = writer.0.stdin.take().unwrap();
    stdin.write_all(b"\"from the first writer\"\n").unwrap();
    until("the first writer's event is there", || run(&store, &["show", "13"]).code == 0);
    for args in [&["append", "1"][..], &["replay"], &["repair", "--from", "ledger"], &["repair", "--from", "mirror"]] {
        let run = run(&store, args);
        assert_eq!(run.code, 3, "{args:?}: {run:?}");
        assert!(run.err.contains(&format!("is being written by process {}", writer.0.id())), "{run:?}");
    }
    for args in [&["parity"][..], &["parity", "--full"], &["verify"], &["tail"], &["stats"], &["doctor"], &["export"]] {
        let run = run(&store, args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
    }
    let doctor = run(&store, &["doctor"]).fine();
    assert!(doctor.contains(&format!("held: process {} is writing", writer.0.id())), "{doctor}");
    drop(stdin);
    assert!(writer.0.wait().unwrap().success());
    run(&store, &["append", "1"]).fine();
}

#[test]
fn parity_beside_a_busy_writer_reports_no_inconsistency() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let mut writer = Running(command(&store, &["append", "--session", "s"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut stdin = writer.0.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        for n in 0..30_000 {
            if writeln!(stdin, "{{\"n\":{n}}}").is_err() {
                break;
            }
        }
    });
    until("the writer has begun", || run(&store, &["tail"]).code == 0 && store.join("mirror.sqlite3").exists());
    let mut compared = 0;
    while !writing.is_finished() && compared < 40 {
        for args in [&["parity"][..], &["parity", "--full"], &["verify"]] {
            let run = run(&store, args);
            assert_eq!(run.code, 0, "{args:?}: {run:?}");
        }
        compared += 1;
    }
    writing.join().unwrap();
    assert!(writer.0.wait().unwrap().success());
    assert!(common::parity(&store).is_consistent());
}
