//! Goal: whatever a command creates is its owner's alone, whatever the umask is: 0600 for every file, 0700 for every
//! directory; the mirror's WAL and shared memory, set-aside mirrors, torn tails and exported transcripts among them.
//!
//! Method: the command runs under a umask that takes nothing away, an ordinary one and a strict one, through everything
//! that creates files; then each file is looked at.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cli_support::common::*;
use cli_support::*;

const UMASKS: [&str; 3] = ["000", "022", "077"];

/// The command under a umask.
fn under(umask: &str, store: &Path, args: &[&str]) -> Command {
    let inner = command(store, args);
    let mut outer = Command::new("sh");
    outer.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(inner.get_program()).args(inner.get_args());
    outer.env_remove("COUNTERFOIL_STORE").env_remove("COUNTERFOIL_LOG");
    outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    outer
}

fn fine(umask: &str, store: &Path, args: &[&str]) -> String {
    Run::of(under(umask, store, args).output().unwrap()).fine()
}

/// Checks everything below (and the folder itself); answers the paths, from there on.
fn all_private(root: &Path, umask: &str) -> Vec<String> {
    let (mut seen, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o7777;
        assert_eq!(mode, wanted, "{} has {mode:o} under umask {umask}", path.display());
        if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen.push(path.strip_prefix(root).unwrap().display().to_string());
    }
    seen
}

fn holds(seen: &[String], wanted: &[&str]) {
    for wanted in wanted {
        assert!(seen.iter().any(|path| path.contains(wanted)), "{wanted} is not among {seen:?}");
    }
}

#[test]
fn while_a_writer_is_at_work() {
    for umask in UMASKS {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("deep/er/store");
        let mut child = Running(under(umask, &store, &["append"]).stdin(Stdio::piped()).spawn().unwrap());
        let mut stdin = child.0.stdin.take().unwrap();
        writeln!(stdin, "\"hello\"").unwrap();
        let mut receipt = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut receipt).unwrap();
        assert!(receipt.starts_with("seq 1 "), "{receipt}");
        let seen = all_private(&temp.path().join("deep"), umask);
        holds(&seen, &["LOCK", "ledger.json", "segments/0", "tmp", "mirror.sqlite3", "mirror.sqlite3-wal", "mirror.sqlite3-shm"]);
        drop(stdin);
        assert!(child.0.wait().unwrap().success());
    }
}

#[test]
fn what_recovery_and_repair_leave() {
    for umask in UMASKS {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("store");
        fine(umask, &store, &["append", "1", "2", "3"]);
        // A torn tail, and a mirror of no use.
        let path = segment_paths(&store).pop().unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":4,torn").unwrap();
        fs::write(store.join("mirror.sqlite3"), [b'x'; 5000]).unwrap();
        fine(umask, &store, &["append", "4"]);
        holds(&all_private(&store, umask), &["torn/0", "mirror.sqlite3.aside-1"]);
        // A row that differs: repair keeps a copy of the mirror.
        let mirror = by_hand(&store);
        mirror.execute("UPDATE events SET payload = '9' WHERE seq = 2", []).unwrap();
        drop(mirror);
        fine(umask, &store, &["repair", "--from", "ledger"]);
        holds(&all_private(&store, umask), &["mirror.sqlite3.aside-2"]);
        // A damaged line, and a missing manifest.
        let damaged = String::from_utf8(fs::read(&path).unwrap()).unwrap().replacen("\"payload\":1", "\"payload\":7", 1);
        fs::write(&path, damaged).unwrap();
        fs::remove_file(store.join("ledger.json")).unwrap();
        fine(umask, &store, &["repair", "--from", "mirror"]);
        holds(&all_private(&store, umask), &["torn/00000000000000000001.damaged-1", "ledger.json"]);
        fine(umask, &store, &["verify"]);
    }
}

#[test]
fn what_import_export_and_demo_make() {
    for umask in UMASKS {
        let temp = tempfile::tempdir().unwrap();
        let (store, out) = (temp.path().join("store"), temp.path().join("a/b"));
        fine(umask, &store, &["import", "tests/fixtures/transcripts"]);
        all_private(&store, umask);
        fine(umask, &store, &["export", "--original", out.to_str().unwrap()]);
        holds(&all_private(&temp.path().join("a"), umask), &["claude.jsonl", "codex.jsonl", "openhands.jsonl", "other.jsonl"]);
        let demo = temp.path().join("demo");
        fine(umask, &temp.path().join("unused"), &["demo", demo.to_str().unwrap()]);
        all_private(&demo, umask);
    }
}
