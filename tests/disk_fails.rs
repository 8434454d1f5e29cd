//! Goal: on a disk that fails for real, the store is poisoned at the first failed fsync: every append is answered,
//! nothing is acknowledged afterwards, no fsync is repeated, nothing is respawned. While the disk fails, nobody is told
//! of bytes that only the page cache has; once it is well, an open writes again what it keeps, and what it reports is
//! there after a power cut.
//!
//! Method: ext4 on a zram device that says EIO to each write once its memory is limited. With the journal on another
//! device only data fail: the first fsync says EIO, a second one would say that all is well, and the page cache shows
//! what the disk lacks. With the journal beside the data the first failure makes the file system read-only. Over the
//! actors, over Store, and over the command.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
mod real_disk;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::disk::faulty;
use counterfoil::actors::{Durability, Ledger, LedgerOptions, Phase};
use counterfoil::*;
use real_disk::{APPENDS_MAX, Cutter, Failing, append_until_error, in_time};

const APPENDERS: u64 = 64;
/// Events that one writer appends before the disk fails.
const FIRST: u64 = 50;

/// Both ways in which the disk can fail: whether the journal is on a device of its own.
const JOURNAL_ELSEWHERE: [bool; 2] = [true, false];

fn draft(task: u64, n: u64) -> Draft {
    common::note(&format!("{task} {n} {}", "x".repeat(4000))).session(format!("s-{task}")).id(common::id(task << 20 | n))
}

struct Rig {
    failing: Failing,
    store: PathBuf,
    temp: tempfile::TempDir,
}

fn rig(journal_elsewhere: bool) -> Rig {
    let temp = tempfile::tempdir().unwrap();
    let failing = Failing::new(temp.path(), journal_elsewhere);
    let store = failing.mount.join("store");
    Rig { failing, store, temp }
}

type Events = HashMap<EventId, (Seq, EventHash)>;

/// Every event of the store, by id.
fn events(store: &Path) -> Events {
    let mut lines = LedgerReader::open(store, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = HashMap::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        assert!(all.insert(event.id, (event.seq, event.event_hash)).is_none(), "{} is there twice", event.id);
    }
    all
}

impl Rig {
    fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command.arg("--store").arg(&self.store).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// While the disk fails, an open fails too, or gives what the disk really has, which is the answer; and a command
    /// that appends fails, without a receipt.
    fn opened_while_it_fails(&self) -> Events {
        let recovered = match Store::open(&self.store, &Options::default()) {
            Ok((store, _)) => {
                drop(store);
                events(&self.store)
            }
            Err(error) => {
                assert!(!error.is_refused(), "the disk is to blame, not the ledger: {error}");
                eprintln!("  while it fails, open says: {error}");
                Events::new()
            }
        };
        let output = self.command(&["append", "1"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(output.stdout.is_empty(), "no receipt");
        recovered
    }

    /// With the disk well again (the device is; a file system that has become read-only has to be mounted again), the
    /// store recovers, and what it then reports survives a power cut, with all that was acknowledged.
    fn recovers(self, journal_elsewhere: bool, acknowledged: &Events) {
        let while_it_failed = self.opened_while_it_fails();
        self.failing.heal();
        if !journal_elsewhere {
            self.failing.remount();
        }
        let (store, report) = Store::open(&self.store, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
        let head = report.recovery.head.seq;
        drop(store);
        let recovered = events(&self.store);
        assert_eq!(recovered.len() as u64, head.get());
        Cutter::start().cut(2, &self.failing.mount);
        self.failing.remount();
        let there = events(&self.store);
        assert!(there == recovered, "{head} events were reported as recovered, and {} are there after a power cut", there.len());
        for (id, event) in acknowledged.iter().chain(&while_it_failed) {
            assert!(there.get(id) == Some(event), "{id}, seq {}, was acknowledged or recovered, and is lost", event.0);
        }
        common::open_is_clean(&self.store, &Options::default());
        let mut store = Store::open(&self.store, &Options::default()).unwrap().0;
        store.append(common::note("it goes on")).unwrap();
        store.close().unwrap();
        common::open_is_clean(&self.store, &Options::default());
        let torn = report.recovery.torn.map_or(0, |torn| torn.bytes);
        let again = report.recovery.rewritten_bytes;
        eprintln!("  {} acknowledged, {head} recovered; {torn} bytes torn, {again} written again", acknowledged.len());
    }
}

fn of_receipt(receipt: Receipt) -> (EventId, (Seq, EventHash)) {
    (receipt.id, (receipt.seq, receipt.event_hash))
}

fn of_json(receipt: &str) -> (EventId, (Seq, EventHash)) {
    let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap();
    let text = |key: &str| receipt[key].as_str().unwrap();
    (text("id").parse().unwrap(), (Seq::new(receipt["seq"].as_u64().unwrap()), text("event_hash").parse().unwrap()))
}

fn is_poisoned(error: &AppendError) -> bool {
    matches!(error, AppendError::Ledger(LedgerError::Poisoned { .. }))
}

/// The actors on a disk that fails under 64 appenders; answers what was acknowledged.
async fn actors_on(rig: &Rig) -> Events {
    let mut options = LedgerOptions::default();
    options.mirrored_deadline = Duration::from_secs(1);
    options.close_deadline = Duration::from_millis(100);
    let switches = faulty(&mut options.store);
    let ledger = Ledger::open_with(&rig.store, options).await.unwrap();
    ledger.append_with(draft(100, 0), Expect::Any, Durability::Mirrored).await.unwrap();
    let tasks: Vec<_> = (0..APPENDERS).map(|task| tokio::spawn(append_until_error(ledger.clone(), draft, task))).collect();
    common::until("so many appends", || ledger.status().durable.seq.get() > APPENDERS * 3).await;
    rig.failing.fail();
    let (mut acknowledged, mut unknown) = (Events::new(), 0);
    for task in tasks {
        let (receipts, error) = in_time("an append", task).await.unwrap();
        acknowledged.extend(receipts.into_iter().map(of_receipt));
        unknown += usize::from(matches!(error, AppendError::OutcomeUnknown { .. }));
        assert!(is_poisoned(&error) || matches!(error, AppendError::OutcomeUnknown { .. }), "{error}");
    }
    assert!(unknown > 0, "those whose group failed are told that nobody knows");
    let Phase::Poisoned { cause } = ledger.status().phase else { panic!("{:?}", ledger.status()) };
    eprintln!("  actors: {} acknowledged, {unknown} unknown, poisoned by: {cause}", acknowledged.len());
    let (syncs, head) = (switches.syncs.load(SeqCst), ledger.status().durable);
    for durability in [Durability::Ledger, Durability::Mirrored] {
        for n in 0..APPENDERS {
            let later = in_time("a later append", ledger.append_with(draft(200, n), Expect::Any, durability)).await;
            assert!(later.as_ref().is_err_and(is_poisoned), "{later:?}");
        }
    }
    assert!(in_time("try_append", ledger.try_append(draft(200, 0))).await.is_err_and(|error| is_poisoned(&error)));
    let append = ledger.reserve(vec![common::checked(draft(200, 1))]).await.unwrap();
    let by_message = ractor::call!(ledger.address(), |reply| append.into_message(reply)).unwrap();
    assert!(by_message.is_err_and(|error| is_poisoned(&error)));
    assert!(in_time("children", ledger.children()).await.unwrap().ledger.is_none(), "LedgerActor is not respawned");
    let status = ledger.status();
    assert_eq!((status.durable, status.restarts), (head, 0));
    assert!(in_time("close", ledger.close()).await.is_err_and(|error| is_poisoned(&error)));
    assert_eq!(switches.syncs.load(SeqCst), syncs, "no fsync is repeated");
    acknowledged
}

#[test]
fn the_actors_on_a_disk_that_fails() {
    if let Some(why) = real_disk::missing_failing() {
        return common::skipped("actors on a disk that fails", &why);
    }
    for journal_elsewhere in JOURNAL_ELSEWHERE {
        let rig = rig(journal_elsewhere);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let acknowledged = runtime.block_on(actors_on(&rig));
        rig.recovers(journal_elsewhere, &acknowledged);
    }
}

#[test]
fn the_synchronous_store_on_a_disk_that_fails() {
    if let Some(why) = real_disk::missing_failing() {
        return common::skipped("Store on a disk that fails", &why);
    }
    for journal_elsewhere in JOURNAL_ELSEWHERE {
        let rig = rig(journal_elsewhere);
        let mut options = Options::default();
        let switches = faulty(&mut options);
        let mut store = Store::open(&rig.store, &options).unwrap().0;
        let mut acknowledged: Events = (0..FIRST).map(|n| of_receipt(store.append(draft(0, n)).unwrap())).collect();
        rig.failing.fail();
        let error =
            (FIRST..APPENDS_MAX).find_map(|n| store.append(draft(0, n)).map(|receipt| acknowledged.extend([of_receipt(receipt)])).err());
        let error = error.expect("the disk fails");
        assert!(error.is_poisoned() && !error.is_retryable(), "{error}");
        eprintln!("  Store: {} acknowledged, {error}", acknowledged.len());
        let (syncs, head) = (switches.syncs.load(SeqCst), store.head());
        for n in 0..3 {
            let error = store.append(draft(1, n)).unwrap_err();
            assert!(error.is_poisoned(), "{error}");
        }
        assert_eq!((switches.syncs.load(SeqCst), store.head()), (syncs, head), "no fsync is repeated, nothing more is durable");
        drop(store);
        rig.recovers(journal_elsewhere, &acknowledged);
    }
}

/// The failed fsyncs of segments that strace has seen. Where another thread's call comes between, strace writes a call in
/// two lines, the path in the first (`<unfinished ...>`) and the result in the second (`<... fdatasync resumed>`).
fn failed_syncs(trace: &Path) -> usize {
    let trace = std::fs::read_to_string(trace).unwrap();
    let mut begun = std::collections::HashMap::new();
    let mut failed = 0;
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        if line.ends_with("<unfinished ...>") {
            begun.insert(thread, call);
            continue;
        }
        let of = if line.contains(" resumed>") { begun.remove(thread).unwrap_or_default() } else { call };
        failed += usize::from(of.contains("sync(") && of.contains("/segments/") && call.contains("= -1"));
    }
    failed
}

#[test]
fn the_command_on_a_disk_that_fails() {
    if let Some(why) = real_disk::missing_failing() {
        return common::skipped("the command on a disk that fails", &why);
    }
    let traced = real_disk::has("strace");
    if !traced {
        common::skipped("counting the fsyncs of the command on a disk that fails", "strace not found");
    }
    for journal_elsewhere in JOURNAL_ELSEWHERE {
        let rig = rig(journal_elsewhere);
        let trace = rig.temp.path().join("trace");
        let binary = env!("CARGO_BIN_EXE_counterfoil");
        let mut command = Command::new(if traced { "strace" } else { binary });
        if traced {
            command.args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace).arg(binary);
        }
        command.arg("--store").arg(&rig.store).args(["--json", "append"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || {
            let lines = (0..APPENDS_MAX).map(|n| format!("\"{n} {}\"\n", "x".repeat(4000)));
            lines.map(|line| stdin.write_all(line.as_bytes())).take_while(Result::is_ok).count()
        });
        let mut acknowledged = Events::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            acknowledged.extend([of_json(&line.unwrap())]);
            if acknowledged.len() as u64 == FIRST {
                rig.failing.fail();
            }
        }
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        writing.join().unwrap();
        assert_eq!(output.status.code(), Some(4), "{told}");
        eprintln!("  command: {} acknowledged, {told}", acknowledged.len());
        if traced {
            assert_eq!(failed_syncs(&trace), 1, "one fsync of a segment fails, and none is repeated");
        }
        rig.recovers(journal_elsewhere, &acknowledged);
    }
}
