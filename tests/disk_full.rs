//! Goal: on a full disk an append ends in a definite `DiskFull`: nothing of it is written or acknowledged, and the writer
//! is well. Once there is room the same process appends again, and ledger and mirror, which were on that disk both, are
//! equal. However little room there is, a store can be opened, or not, and is whole once there is room again.
//!
//! Method: a small ext4 on a loop device, filled to its last block by a file beside the store. Over the actors with 64
//! appenders, over Store, and over the command; with every number of KiB left up to some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
mod real_disk;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use counterfoil::actors::{Durability, Ledger, LedgerOptions, MirrorHealth, Phase};
use counterfoil::*;
use real_disk::{APPENDS_MAX, DEADLINE, Disk, EXT4, Kind, append_until_error, fill, in_time};

const APPENDERS: u64 = 64;
/// With so much room left, a store can be made.
const ROOM_MAX: u64 = 400 << 10;
/// Blocks as large as pages: with smaller ones a full disk can end the process by SIGBUS, in SQLite's shared memory, of
/// which SQLite sees to one byte a page only.
const SMALL: Kind = Kind { mkfs: &["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0"], bytes: 24 << 20, ..EXT4 };

struct Rig {
    disk: Disk,
    store: PathBuf,
    ballast: PathBuf,
    temp: tempfile::TempDir,
}

fn rig() -> Rig {
    let temp = tempfile::tempdir().unwrap();
    let mut disk = Disk::make(temp.path(), &SMALL).unwrap();
    disk.mount();
    Rig { store: disk.mount.join("store"), ballast: disk.mount.join("ballast"), disk, temp }
}

/// Small segments, so that little is reserved ahead.
fn options() -> Options {
    let mut options = Options::default();
    options.segment_bytes_max = 64 << 10;
    options
}

fn draft(task: u64, n: u64) -> Draft {
    common::note(&format!("{task} {n} {}", "x".repeat(2000))).session(format!("s-{task}")).id(common::id(task << 20 | n))
}

fn is_full(error: &AppendError) -> bool {
    matches!(error, AppendError::Ledger(LedgerError::DiskFull { .. }))
}

/// The events of the store as they are now: id and seq.
fn events(rig: &Rig) -> HashMap<EventId, Seq> {
    let mut lines = LedgerReader::open(&rig.store, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = HashMap::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        assert!(all.insert(event.id, event.seq).is_none(), "{} is there twice", event.id);
    }
    all
}

async fn actors_on(rig: &Rig) {
    let mut options = LedgerOptions::from(options());
    options.mirrored_deadline = Duration::from_millis(200);
    let ledger = Ledger::open_with(&rig.store, options).await.unwrap();
    for n in 0..20 {
        ledger.append_with(draft(100, n), Expect::Any, Durability::Mirrored).await.unwrap();
    }
    fill(&rig.ballast, 0);
    let tasks: Vec<_> = (0..APPENDERS).map(|task| tokio::spawn(append_until_error(ledger.clone(), draft, task))).collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        let (receipts, error) = in_time("an append", task).await.unwrap();
        assert!(is_full(&error) && Error::from(error).is_retryable());
        acknowledged.extend(receipts);
    }
    // Groups were refused; one event may still fit into what the last block has left.
    acknowledged.extend(in_time("the last append", append_until_error(ledger.clone(), draft, APPENDERS)).await.0);
    let status = ledger.status();
    assert_eq!((&status.phase, status.restarts), (&Phase::Running, 0));
    let before = common::segments(&rig.store);
    for n in 0..10 {
        assert!(is_full(&in_time("an append", ledger.append(draft(200, n))).await.unwrap_err()));
        let batch = (0..3).map(|i| draft(201, n * 3 + i)).collect();
        assert!(is_full(&in_time("a batch", ledger.append_batch(batch)).await.unwrap_err()));
        assert!(is_full(&in_time("try_append", ledger.try_append(draft(202, n))).await.unwrap_err()));
    }
    assert_eq!(ledger.status().durable, status.durable, "nothing more is durable");
    assert!(common::segments(&rig.store) == before, "nothing is written");
    let there = events(rig);
    assert_eq!(there.len() as u64, status.durable.seq.get());
    assert_eq!(there.len(), 20 + acknowledged.len(), "what was refused is not there");
    let behind = status.durable.seq.get() - ledger.status().mirrored_through.get();
    eprintln!("  actors: {} acknowledged on a full disk, the mirror {behind} behind: {:?}", acknowledged.len(), ledger.status().mirror);
    std::fs::remove_file(&rig.ballast).unwrap();
    let again = in_time("an append", ledger.append_with(draft(200, 0), Expect::Any, Durability::Ledger)).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (status.durable.seq.next(), false), "as if the refused ones had not been tried");
    for receipt in acknowledged {
        let number = receipt.id.as_u128() as u64;
        let again = in_time("an append", ledger.append(draft(number >> 20 & 0xffff, number & 0xf_ffff))).await.unwrap();
        assert!(again.duplicate && again.seq == receipt.seq && again.event_hash == receipt.event_hash);
    }
    common::until("a mirror that lives", || ledger.status().mirror == MirrorHealth::Live).await;
    in_time("mirrored", ledger.mirrored(again.seq)).await.unwrap();
    let parity = in_time("parity", ledger.parity(ParityKind::Full)).await.unwrap();
    assert!(parity.is_consistent(), "{parity}");
    assert_eq!(ledger.status().restarts, 0);
    in_time("close", ledger.close()).await.unwrap();
}

#[test]
fn the_actors_on_a_full_disk() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("actors on a full disk", &why);
    }
    let rig = rig();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(actors_on(&rig));
    common::open_is_clean(&rig.store, &options());
}

#[test]
fn the_synchronous_store_on_a_full_disk() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("Store on a full disk", &why);
    }
    let rig = rig();
    let mut store = Store::open(&rig.store, &options()).unwrap().0;
    store.append(draft(0, 0)).unwrap();
    fill(&rig.ballast, 0);
    let mut acknowledged = 1;
    let refused = (1..APPENDS_MAX).find_map(|n| store.append(draft(0, n)).map(|_| acknowledged += 1).err().map(|error| (n, error)));
    let (next, error) = refused.expect("the disk is full");
    assert!(matches!(
        error,
        Error::Append(AppendError::Ledger(LedgerError::DiskFull { .. })) | Error::Ledger(LedgerError::DiskFull { .. })
    ));
    let (before, head) = (common::segments(&rig.store), store.head());
    for _ in 0..10 {
        assert!(store.append(draft(0, next)).unwrap_err().is_retryable());
        assert!(store.append_batch(vec![draft(1, 0), draft(1, 1)], &Conditions::none()).unwrap_err().is_retryable());
    }
    assert!(common::segments(&rig.store) == before && store.head() == head, "nothing is written");
    assert_eq!(events(&rig).len(), acknowledged);
    std::fs::remove_file(&rig.ballast).unwrap();
    let receipt = store.append(draft(0, next)).unwrap();
    assert_eq!((receipt.seq, receipt.duplicate, receipt.mirror), (head.seq.next(), false, MirrorAck::Mirrored));
    store.close().unwrap();
    eprintln!("  Store: {acknowledged} acknowledged on a full disk");
    common::open_is_clean(&rig.store, &options());
}

#[test]
fn the_command_on_a_full_disk() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("the command on a full disk", &why);
    }
    let rig = rig();
    let lines = rig.temp.path().join("lines");
    let append = |payloads: u64| {
        let text: String = (0..payloads).map(|n| format!("\"{n} {}\"\n", "x".repeat(2000))).collect();
        std::fs::write(&lines, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command.arg("--store").arg(&rig.store).args(["--json", "append"]).stdin(std::fs::File::open(&lines).unwrap());
        let started = Instant::now();
        let output = command.stdout(Stdio::piped()).output().unwrap();
        assert!(started.elapsed() < DEADLINE);
        (output.status.code(), output.stdout.split(|b| *b == b'\n').count() as u64 - 1, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(append(10).0, Some(0));
    fill(&rig.ballast, 100 << 10);
    let (code, acknowledged, told) = append(2_000);
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("is full: nothing was written") || told.contains("disk is full"), "{told}");
    eprintln!("  command: {acknowledged} acknowledged on a full disk; {told}");
    std::fs::remove_file(&rig.ballast).unwrap();
    let there = events(&rig).len() as u64;
    assert!(there >= 10 + acknowledged, "{there}");
    assert_eq!(append(10).0, Some(0));
    assert_eq!(events(&rig).len() as u64, there + 10);
    common::open_is_clean(&rig.store, &options());
}

/// A new store and one that exists are opened and appended to with so much room; then there is room again.
#[test]
fn with_every_little_room_there_is() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("stores on an almost full disk", &why);
    }
    let steps = common::campaign("COUNTERFOIL_FULL_STEPS", 8).max(1);
    let (mut opened, mut appended) = (0, 0);
    for room in (0..=steps).map(|step| step * ROOM_MAX / steps) {
        let mut rig = rig();
        let stores = [rig.store.clone(), rig.disk.mount.join("old")];
        let mut old = Store::open(&stores[1], &options()).unwrap().0;
        let first = old.append(draft(9, 0)).unwrap();
        drop(old);
        fill(&rig.ballast, room);
        let mut acknowledged = vec![Vec::new(), vec![first]];
        for (store, acknowledged) in stores.iter().zip(&mut acknowledged) {
            let Ok((mut store, _)) = Store::open(store, &options()) else { continue };
            opened += 1;
            for n in 0..40 {
                match store.append(draft(1, n)) {
                    Ok(receipt) => acknowledged.push(receipt),
                    Err(error) => assert!(!error.is_poisoned(), "with {room} bytes left: {error}"),
                }
            }
            appended += acknowledged.len();
        }
        std::fs::remove_file(&rig.ballast).unwrap();
        for (store, acknowledged) in stores.iter().zip(&acknowledged) {
            rig.store = store.clone();
            let mut store = Store::open(store, &options()).unwrap_or_else(|error| panic!("with {room} bytes left: {error}")).0;
            store.append(draft(2, 0)).unwrap();
            store.close().unwrap();
            common::open_is_clean(&rig.store, &options());
            let there = events(&rig);
            assert_eq!(there.len(), acknowledged.len() + 1, "with {room} bytes left");
            assert!(acknowledged.iter().all(|receipt| there.get(&receipt.id) == Some(&receipt.seq)));
        }
    }
    eprintln!("  {opened} of {} opens with little room, {appended} events acknowledged, none lost", 2 * (steps + 1));
}
