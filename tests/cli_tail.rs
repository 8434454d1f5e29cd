//! Goal: tail --follow shows what another process appends, across segments, while it is written. Method: a follower and
//! writers, its output read as it comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::io::{BufRead, BufReader};
use std::sync::mpsc;

use cli_support::*;

#[test]
fn follow_sees_what_others_append() {
    let (_temp, store) = sample();
    let mut follower = Running(command(&store, &["tail", "-n", "2", "--follow", "--json"]).spawn().unwrap());
    let lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let (to, seen) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| to.send(line)));
    let next = || {
        let line = seen.recv_timeout(std::time::Duration::from_secs(60)).expect("the follower shows an event within a minute");
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert_eq!((next()["seq"].as_u64(), next()["seq"].as_u64()), (Some(11), Some(12)));
    for n in 13..20u64 {
        run(&store, &["append", &n.to_string(), "--session", "followed"]).fine();
        let event = next();
        assert_eq!((event["seq"].as_u64(), event["payload"].as_u64()), (Some(n), Some(n)));
    }
}

#[test]
fn follow_begins_in_an_empty_store() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    run(&store, &["init"]).fine();
    let mut follower = Running(command(&store, &["tail", "-f"]).spawn().unwrap());
    run(&store, &["append", "\"hello\""]).fine();
    let mut line = String::new();
    BufReader::new(follower.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.trim_end().ends_with("\"hello\""), "{line}");
}
