//! What the tests that end a process at a chosen moment share: how it is started (this test binary again), how it says
//! what was acknowledged, and what must be there afterwards.
#![allow(dead_code)] // each test uses some of it
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use counterfoil::*;

#[path = "../common/mod.rs"]
pub mod common;
pub mod scenarios;

/// No process here works for longer than some seconds, but where SQLite tries for ten seconds each time to get a lock that it
/// has lost track of. One that has not ended by then hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// What the environment variable that makes a test binary the process under test is called: it holds what to do.
pub const ROLE: &str = "COUNTERFOIL_TEST_ROLE";

/// What this process is to do, where it is one that a test has started.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// This test binary again, to run the one test that looks at its role.
pub fn again(test: &str, role: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    ["env", "-u", "RUST_BACKTRACE", &format!("{ROLE}={role}"), &exe, test, "--exact", "--nocapture", "--test-threads=1"]
        .map(str::to_owned)
        .to_vec()
}

pub fn command(line: &[String]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory in memory where there is one: an ended process leaves there what it would leave on a disk, only sooner.
pub fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub said: Vec<Said>,
    pub out: String,
    pub err: String,
}

/// Runs a process to its end, which must come.
pub fn run(line: &[String], what: &str) -> Ended {
    let mut child = command(line).process_group(0).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (out, err) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let status = end(&mut child);
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("{what}: it hangs: {out}\n{err}"));
    assert!(!err.contains("panicked at"), "{what}: {err}");
    Ended { status, said: heard(&out), out, err }
}

fn end(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + HANGS_AFTER;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            // Whoever traces it, and the process itself, which would hold the pipes.
            Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An acknowledgement, as the process printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub id: EventId,
    pub seq: u64,
    pub hash: String,
    pub mirrored: bool,
}

/// Prints receipts: a line each, in one write.
pub fn say(receipts: &[Receipt]) {
    let mut text = String::new();
    for receipt in receipts {
        let mirrored = receipt.mirror == MirrorAck::Mirrored;
        writeln!(text, "ack {} {} {} {mirrored}", receipt.id, receipt.seq, receipt.event_hash).unwrap();
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// What a process that is to say something prints first: the test harness has begun the line.
pub fn begin_to_say() {
    println!();
}

/// The receipts in what was printed. A line that was cut short says nothing.
pub fn heard(out: &str) -> Vec<Said> {
    out.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(heard_line).collect()
}

pub fn heard_line(line: &str) -> Option<Said> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ack", id, seq, hash, mirrored] = words[..] else { return None };
    Some(Said { id: id.parse().unwrap(), seq: seq.parse().unwrap(), hash: hash.to_owned(), mirrored: mirrored == "true" })
}

/// What one appender submits, in its order: each a batch where it has several drafts.
pub type Submissions = Vec<Vec<Draft>>;

/// Singles and batches, in sessions and without: enough to fill several of `common::small_segments`.
pub fn submissions() -> Submissions {
    let mut next = 0;
    let mut submit = |events: u64| {
        let drafts = (next..next + events).map(|n| {
            let draft = common::note(&format!("event {n}")).id(common::id(1000 - n));
            if n % 3 == 2 { draft } else { draft.session(format!("s-{}", n % 3)) }
        });
        let drafts = drafts.collect();
        next += events;
        drafts
    };
    [1, 1, 3, 1, 1, 2, 1, 1, 1, 3, 1].map(&mut submit).to_vec()
}

/// Events of the ledger: seq and hash by id. None may be there twice.
pub fn recorded(dir: &Path, what: &str) -> HashMap<EventId, (u64, String)> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut there = HashMap::new();
    while let Some((_, event)) = lines.next_event().unwrap_or_else(|error| panic!("{what}: {error}")) {
        let twice = there.insert(event.id, (event.seq.get(), event.event_hash.to_string()));
        assert!(twice.is_none(), "{what}: {} is there twice", event.id);
    }
    there
}

/// A receipt that says `Mirrored` is a row, whatever has happened to the process since. Nobody may have opened the store.
pub fn check_rows(dir: &Path, said: &[Said], what: &str) {
    if !said.iter().any(|said| said.mirrored) {
        return;
    }
    let mirror = MirrorReader::open_any(dir, Duration::from_secs(1)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let sql = "SELECT id, seq, lower(hex(event_hash)) FROM events";
    let mut select = mirror.connection().prepare(sql).unwrap();
    let rows: BTreeMap<String, (i64, String)> =
        select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap().map(Result::unwrap).collect();
    for said in said.iter().filter(|said| said.mirrored) {
        assert_eq!(rows.get(&said.id.to_string()), Some(&(said.seq as i64, said.hash.clone())), "{what}: {} had its row", said.id);
    }
}

/// Opens the store, which must need nobody's help, and checks it: what was acknowledged is there; what is there was
/// submitted, in that order and with nothing left out in between, batches whole; and both legs are right and equal.
/// Then everything is submitted again, and the store has all of it, once.
pub fn check(dir: &Path, options: &Options, submissions: &Submissions, said: &[Said], what: &str) {
    let (store, _) = Store::open(dir, options).unwrap_or_else(|error| panic!("{what}: {error}"));
    let there = recorded(dir, what);
    for said in said {
        assert_eq!(there.get(&said.id), Some(&(said.seq, said.hash.clone())), "{what}: {} was acknowledged", said.id);
    }
    store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    equal_legs(dir, there.len(), what);
    let mut seq = 0;
    for batch in submissions {
        let found = batch.iter().filter(|draft| there.contains_key(&draft.given_id().unwrap())).count();
        assert!(found == 0 || found == batch.len(), "{what}: a part of a batch is there");
        for draft in batch.iter().take(found) {
            seq += 1;
            assert_eq!(there[&draft.given_id().unwrap()].0, seq, "{what}: order");
        }
    }
    assert_eq!(seq, there.len() as u64, "{what}: nothing else is there");

    let (mut store, _) = Store::open(dir, options).unwrap_or_else(|error| panic!("{what}: {error}"));
    let acknowledged: HashSet<EventId> = said.iter().map(|said| said.id).collect();
    for batch in submissions {
        let receipts = store.append_batch(batch.clone(), &Conditions::none()).unwrap_or_else(|error| panic!("{what}: {error}"));
        for receipt in receipts {
            assert_eq!(receipt.duplicate, there.contains_key(&receipt.id), "{what}");
            assert!(receipt.duplicate || !acknowledged.contains(&receipt.id), "{what}");
            assert_eq!(receipt.mirror, MirrorAck::Mirrored, "{what}");
        }
    }
    store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    let all = submissions.iter().map(Vec::len).sum();
    assert_eq!(recorded(dir, what).len(), all, "{what}");
    equal_legs(dir, all, what);
    assert!(common::files(&dir.join("tmp")).is_empty(), "{what}: tmp/ is cleared");
}

pub fn equal_legs(dir: &Path, events: usize, what: &str) {
    let verified = common::verified(dir);
    assert!(verified.is_clean(), "{what}: {verified}");
    let parity = common::parity(dir);
    assert!(parity.is_consistent(), "{what}: {parity}");
    assert_eq!((parity.jsonl_event_count, parity.sqlite_event_count), (events as u64, events as u64), "{what}");
}
