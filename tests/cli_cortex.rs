//! Goal: `counterfoil import` adopts a Cortex ledger as it is told to or finds by itself, says what is wrong with one that is
//! broken or no longer what it was, and needs no more memory for a long one than for a short one.
//!
//! Method: runs of the command over ledgers that `crtx-ledger` has sealed; its peak of memory (Linux) is read while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "cli")]

mod cli_support;
mod cortex_support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

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

/// The peak of memory of an import, in KiB, as far as could be seen.
fn peak(store: &Path, path: &Path, code: i32) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.arg("--store").arg(store).arg("import").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        std::thread::yield_now();
    }
    assert_eq!(child.wait().unwrap().code(), Some(code));
    peak
}

/// What the append of so many events takes is the ledger's matter: here the check alone is looked at, and an import of rows
/// that are recorded.
#[test]
#[cfg(target_os = "linux")]
fn a_long_ledger_takes_no_more_memory() {
    let rows_max = common::campaign("COUNTERFOIL_MEMORY_EVENTS", 10_000);
    let temp = tempfile::tempdir().unwrap();
    let peaks = [rows_max / 4, rows_max].map(|count| {
        let (path, store) = (temp.path().join("events.jsonl"), temp.path().join(count.to_string()));
        let mut rows = rows((0..count).map(event));
        fs::write(&path, text_of(&rows)).unwrap();
        let first = peak(&store, &path, 0);
        let again = peak(&store, &path, 0);
        rows.push("{}".to_owned());
        fs::write(&path, text_of(&rows)).unwrap();
        let broken = peak(&store, &path, 4);
        eprintln!("{count} rows: {first} KiB to import them, {again} KiB to do it again, {broken} KiB to find the last one broken");
        [again, broken]
    });
    for (few, many) in peaks[0].into_iter().zip(peaks[1]) {
        assert!(few > 1000 && many < few + (4 << 10), "{peaks:?}");
    }
}
