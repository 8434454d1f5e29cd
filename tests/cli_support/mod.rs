//! What the tests of the command share: running it, a store whose every byte is known, and texts without temp paths.
#![allow(dead_code)] // each test uses some of it

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use counterfoil::*;

#[path = "../common/mod.rs"]
pub mod common;

/// What a run of the command gave.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn of(output: Output) -> Run {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Run { code: output.status.code().expect("ended by itself"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The standard output of a run that must have gone well.
    pub fn fine(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Exit code, standard output and standard error in one text, the store's path replaced.
    pub fn shown(&self, store: &Path) -> String {
        let part = |name: &str, text: &str| if text.is_empty() { String::new() } else { format!("--- {name}\n{text}") };
        let shown = format!("exit code {}\n{}{}", self.code, part("stdout", &self.out), part("stderr", &self.err));
        shown.replace(&store.display().to_string(), "<store>")
    }
}

/// The command on a store, without the caller's environment in it.
pub fn command(store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.env_remove("COUNTERFOIL_STORE").env_remove("COUNTERFOIL_LOG").env_remove("COLUMNS").arg("--store").arg(store).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(store: &Path, args: &[&str]) -> Run {
    Run::of(command(store, args).output().unwrap())
}

pub fn run_with_input(store: &Path, args: &[&str], input: &[u8]) -> Run {
    let mut child = command(store, args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // On a thread of its own: the command may stop reading.
    let writing = std::thread::spawn(move || stdin.write_all(&input).ok());
    let run = Run::of(child.wait_with_output().unwrap());
    writing.join().unwrap();
    run
}

/// Runs a command as a person would who copied it from the output.
pub fn run_line(line: &str) -> Run {
    let named = format!(" {}", env!("CARGO_BIN_EXE_counterfoil"));
    let line = format!(" {line}").replace(" counterfoil --store", &format!("{named} --store"));
    Run::of(Command::new("sh").args(["-c", &line]).output().unwrap())
}

/// A child that is ended, whatever the test does.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until it is so, for a minute at most.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A store with a known clock and known ids: 12 events in two sessions and none, over several segments.
pub fn sample() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap().join("store");
    fill(&path, "it fails");
    (temp, path)
}

/// The same store, but for one word of its second event.
pub fn fill(path: &Path, word: &str) {
    let mut options = common::options();
    options.segment_bytes_max = 2500;
    let (mut store, _) = Store::open(path, &options).unwrap();
    let mut cause = None;
    for n in 0..12u64 {
        let (event_type, source, payload) = match n % 4 {
            0 => (EventType::USER_MESSAGE, Source::User, format!(r#"{{"text":"mend test {n}"}}"#)),
            1 => (EventType::TOOL_CALL, Source::child_agent("m-1"), format!(r#"{{"tool":"bash","why":"{word}"}}"#)),
            2 => (EventType::TOOL_RESULT, Source::tool("bash"), r#"{"exit":0,"n":1.0,"n":2}"#.to_owned()),
            _ => (EventType::SYSTEM_NOTE, Source::Runtime, r#""\u001b[31mred""#.to_owned()),
        };
        let mut draft = Draft::new(event_type, source).payload_json(payload).unwrap().trace(TraceId::from_u128(7)).tag("sample");
        if n % 4 != 3 {
            draft = draft.session(if n < 6 { "s-1" } else { "s-2" });
        }
        if let Some(cause) = cause {
            draft = draft.caused_by(cause);
        }
        cause = Some(store.append(draft).unwrap().id);
    }
    store.close().unwrap();
}

/// Segment files, in order.
pub fn segments(store: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(store.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Removes the mirror and what SQLite keeps beside it.
pub fn remove_mirror(store: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(store.join(format!("mirror.sqlite3{suffix}")));
    }
}

/// Compares with `snapshots/<name>.snap`.
#[macro_export]
macro_rules! snapshot {
    ($name:expr, $text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!($name, $text));
    }};
}
