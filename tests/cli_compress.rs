//! Goal: `compress` says what it did, and after it each command that reads gives what it gave before.
//! Method: a store with a known clock and known ids; the output of each command on its plain, mixed and compressed form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;

/// Commands whose output does not depend on the segments' form.
const READS: &[&[&str]] = &[
    &["export"],
    &["export", "--from", "3", "--to", "7"],
    &["export", "--session", "s-2"],
    &["tail", "-n", "20", "--json"],
    &["show", "1"],
    &["show", "6", "--json"],
    &["sessions"],
    &["query", "SELECT * FROM events"],
    &["verify"],
    &["parity"],
    &["parity", "--full"],
    &["replay"],
    &["repair", "--from", "ledger"],
    &["repair", "--from", "mirror"],
];

#[test]
fn every_command_reads_both_forms() {
    let (_temp, store) = sample();
    let read = |form: &str| -> Vec<String> {
        let all = READS.iter().map(|args| {
            let run = run(&store, args);
            assert_eq!(run.code, 0, "{form}, {args:?}: {run:?}");
            run.shown(&store)
        });
        all.collect()
    };
    let plain = read("plain");
    let said = run(&store, &["compress", "4"]);
    snapshot!("cli_compress_one", said.shown(&store));
    assert_eq!(read("mixed"), plain);
    snapshot!("cli_compress_all", run(&store, &["compress", "--all"]).shown(&store));
    assert_eq!(read("compressed"), plain);
    let json: serde_json::Value = serde_json::from_str(&run(&store, &["stats", "--json"]).fine()).unwrap();
    let compressed = segments(&store).iter().filter(|path| path.extension().is_some_and(|e| e == "zst")).count();
    assert_eq!(json["compressed_segments"], compressed);
    assert!(compressed > 1 && json["stored_bytes"].as_u64() < json["ledger_bytes"].as_u64(), "{json}");
    let doctor = run(&store, &["doctor"]).fine();
    assert!(doctor.contains("all is well") && doctor.contains(&format!("{compressed} of them compressed")), "{doctor}");
    snapshot!("cli_compress_again", run(&store, &["compress", "--all"]).shown(&store));

    run(&store, &["append", "\"more\""]).fine();
    snapshot!("cli_compress_undo", run(&store, &["compress", "--undo", "--all"]).shown(&store));
    assert_eq!(run(&store, &["compress", "--keep", "99", "--json"]).fine(), "{\"segments\":[],\"plain_bytes\":0,\"stored_bytes\":0}\n");
    assert_eq!(run(&store, &["export", "--to", "12"]).shown(&store), plain[0]);
}

#[test]
fn what_it_refuses() {
    let (_temp, store) = sample();
    let shown = [&["compress"][..], &["compress", "12"], &["compress", "99"], &["compress", "--all", "3"], &["compress", "--undo"]]
        .map(|args| format!("$ counterfoil {}\n{}", args.join(" "), run(&store, args).shown(&store)));
    snapshot!("cli_compress_refused", shown.join("\n"));
}

#[test]
fn damage_is_named() {
    let (_temp, store) = sample();
    run(&store, &["compress", "--all"]).fine();
    let path = &segments(&store)[1];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let shown = [&["verify"][..], &["compress", "--undo", "4"], &["repair", "--from", "mirror"]]
        .map(|args| format!("$ counterfoil {}\n{}", args.join(" "), run(&store, args).shown(&store)));
    snapshot!("cli_compress_damaged", shown.join("\n"));
}

#[test]
fn what_was_done_before_an_error_is_told() {
    let (_temp, store) = sample();
    let path = &segments(&store)[1];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let run = run(&store, &["compress", "--all", "--json"]);
    let done: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, done["segments"].as_array().unwrap().len()), (4, 1), "{run:?}");
    assert!(run.err.contains("00000000000000000004.jsonl"), "{run:?}");
}
