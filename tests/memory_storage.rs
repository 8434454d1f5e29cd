//! Goal: on [`MemoryStorage`] a store is a store like any other, so that programs that embed one can be tested on it: what is
//! acknowledged is there after a power cut, a second writer is told so, nothing of the ledger is on the real disk, and two
//! ledgers in one process have nothing to do with each other.
//!
//! Method: the same drafts on it and on the file system give the same bytes; histories from a seed, with cuts at each place; a cut
//! between an append and its row; the actors under load, cut, poisoned and opened again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Random, drafts, id, note, options};
use counterfoil::*;

/// Small segments, on such a disk.
fn on(disk: &MemoryStorage) -> Options {
    let mut options = common::small_segments();
    options.storage = Arc::new(disk.clone());
    options
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("new/store");
    (temp, dir)
}

/// Both legs right and equal.
fn is_clean(dir: &Path, options: &Options) -> u64 {
    let reader = LedgerReader::open(dir, options).unwrap();
    let verified = verify(&reader, &mut |_| ()).unwrap();
    let parity = parity_full(&reader, options, None, &mut |_| ()).unwrap();
    assert!(verified.is_clean() && parity.is_consistent(), "{verified}{parity}");
    parity.jsonl_event_count
}

#[test]
fn the_same_bytes_as_on_the_file_system() {
    let (_temp, dir) = temp();
    let (_real_temp, real) = temp_filled();
    let disk = MemoryStorage::new();
    let options = on(&disk);
    common::filled(&dir, &options);
    let relative = |dir: &Path, path: &Path| path.strip_prefix(dir).unwrap().to_owned();
    let kept: Vec<_> = disk.files().iter().map(|path| (relative(&dir, path), disk.read(path).unwrap())).collect();
    let mut written = common::files(&real);
    written.retain(|path, _| !path.to_string_lossy().starts_with("mirror.sqlite3"));
    assert!(written.keys().filter(|path| path.starts_with("segments")).count() > 1);
    assert_eq!(kept, written.into_iter().collect::<Vec<_>>());
    // And none of it is there.
    assert!(common::files(&dir).keys().all(|path| path.to_string_lossy().starts_with("mirror.sqlite3")));

    // Read, compressed, erased, verified, opened again, with the mirror gone.
    assert_eq!(is_clean(&dir, &options), 12);
    compress(&dir, &options, &Sealed::AllBut(0), &mut |_| ()).unwrap();
    assert!(disk.files().iter().any(|path| path.extension().is_some_and(|form| form == "zst")));
    let report = erase(&dir, &options, &Erasure::new(Erase::Seqs(vec![Seq::new(3)..=Seq::new(3)]), "a test")).unwrap();
    assert_eq!(report.done.unfinished, None);
    std::fs::remove_file(mirror_path(&dir)).unwrap();
    let (store, _) = Store::open(&dir, &options).unwrap();
    assert_eq!(store.head().seq.get(), 13);
    store.close().unwrap();
    assert_eq!(is_clean(&dir, &options), 13);
    let reader = LedgerReader::open(&dir, &options).unwrap();
    assert!(reader.line(Seq::new(3)).unwrap().unwrap().ends_with(b"}"));
}

fn temp_filled() -> (tempfile::TempDir, PathBuf) {
    let (temp, dir) = temp();
    common::filled(&dir, &common::small_segments());
    (temp, dir)
}

#[test]
fn a_second_writer_is_told_so() {
    let (_temp, dir) = temp();
    let disk = MemoryStorage::new();
    let (store, report) = Store::open(&dir, &on(&disk)).unwrap();
    assert!(report.created);
    let refused = Store::open(&dir, &on(&disk)).err().unwrap();
    assert!(refused.is_locked() && refused.to_string().contains("this process"), "{refused}");
    assert_eq!(writer_of(&dir, &on(&disk)), Some(format!("this process ({})", std::process::id())));
    store.close().unwrap();
    assert_eq!(writer_of(&dir, &on(&disk)), None);
    Store::open(&dir, &on(&disk)).unwrap().0.close().unwrap();
}

#[test]
fn what_is_acknowledged_survives_each_cut() {
    for seed in 0..common::campaign("COUNTERFOIL_MEMORY_CUTS", 12) {
        let mut random = Random::new(seed);
        let (_temp, dir) = temp();
        let mut disk = MemoryStorage::new();
        let mut options = on(&disk);
        options.preallocate = random.chance(2);
        let mut acknowledged: Vec<Receipt> = Vec::new();
        for _ in 0..4 {
            let (mut store, _) = Store::open(&dir, &options).unwrap();
            assert_eq!(store.head().seq.get(), acknowledged.len() as u64, "seed {seed}");
            for _ in 0..random.below(9) {
                let n = acknowledged.len() as u64;
                let drafts = (0..=random.below(3)).map(|k| note("x").id(id(n + k)).session("s")).collect();
                acknowledged.extend(store.append_batch(drafts, &Conditions::none()).unwrap());
            }
            if random.chance(3) {
                store.close().unwrap();
                disk = disk.lose_unsynced();
            } else {
                disk = disk.lose_unsynced();
                let error = store.append(note("y")).unwrap_err();
                // Where it was about to begin a segment, nothing was written, and it says so.
                assert!(error.is_poisoned() || matches!(error, Error::Ledger(LedgerError::Io { .. })), "{error}");
            }
            options.storage = Arc::new(disk.clone());
        }
        drop(Store::open(&dir, &options).unwrap());
        assert_eq!(is_clean(&dir, &options), acknowledged.len() as u64);
        let reader = LedgerReader::open(&dir, &options).unwrap();
        for receipt in &acknowledged {
            let line = reader.line(receipt.seq).unwrap().unwrap();
            assert_eq!(line::decode(&line).unwrap().event_hash, receipt.event_hash, "seed {seed}");
        }
    }
}

#[test]
fn what_is_not_synced_is_lost() {
    // Else a cut would show nothing.
    let (_temp, dir) = temp();
    let disk = MemoryStorage::new();
    common::filled(&dir, &on(&disk));
    let (mut writer, mut mirror) = writer(&dir, &on(&disk));
    let all = || disk.files().into_iter().filter(|path| !path.ends_with("LOCK")).map(|path| (disk.read(&path).unwrap(), path));
    let before: Vec<_> = all().collect();
    writer.stage(&[common::checked(note("never"))], &Conditions::none(), false, &mut mirror).unwrap();
    let segment = last_segment(&disk);
    let mut file = on(&disk).storage.open_write(&segment).unwrap();
    let len = file.len().unwrap();
    file.write_at(b"{\"seq\":13", len).unwrap();
    assert!(disk.read(&segment).unwrap().ends_with(b"{\"seq\":13"));
    let disk = disk.lose_unsynced();
    let all = || disk.files().into_iter().filter(|path| !path.ends_with("LOCK")).map(|path| (disk.read(&path).unwrap(), path));
    assert!(all().eq(before));
}

fn writer(dir: &Path, options: &Options) -> (Writer, Mirror) {
    let manifest = Manifest::load(options.storage.as_ref(), dir).unwrap().unwrap();
    let mut mirror = Mirror::open(dir, &manifest, options).unwrap();
    let mark = Some(mirror.watermark());
    let (writer, _) = Writer::open(dir, &manifest, mark, &mut mirror, options).unwrap();
    (writer, mirror)
}

fn last_segment(disk: &MemoryStorage) -> PathBuf {
    disk.files().into_iter().rfind(|path| path.extension().is_some_and(|form| form == "jsonl")).unwrap()
}

#[test]
fn a_failed_fsync_poisons() {
    let (_temp, dir) = temp();
    let disk = MemoryStorage::new();
    let (mut store, _) = Store::open(&dir, &on(&disk)).unwrap();
    store.append(note("one")).unwrap();
    disk.fail_next_sync(io::ErrorKind::StorageFull);
    let error = store.append(note("two").id(id(2))).unwrap_err();
    assert!(error.is_poisoned(), "{error}");
    let error = store.append(note("three")).unwrap_err();
    assert!(error.is_poisoned(), "{error}");
    drop(store);
    let (mut store, _) = Store::open(&dir, &on(&disk)).unwrap();
    // Recorded or not: once by its id.
    assert_eq!(store.append(note("two").id(id(2))).unwrap().seq.get(), 2);
    assert_eq!(store.append(note("two").id(id(2))).unwrap().seq.get(), 2);
    store.close().unwrap();
}

#[cfg(feature = "actors")]
mod actors {
    use super::*;
    use counterfoil::actors::{Durability, Ledger, LedgerOptions};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_ledgers_in_one_process() {
        let ((_one, one_dir), (_other, other_dir)) = (temp(), temp());
        let (one_disk, other_disk) = (MemoryStorage::new(), MemoryStorage::new());
        let one = Ledger::open_with(&one_dir, on(&one_disk)).await.unwrap();
        let other = Ledger::open_with(&other_dir, on(&other_disk)).await.unwrap();
        let appenders: Vec<_> = [&one, &other]
            .into_iter()
            .enumerate()
            .flat_map(|(which, ledger)| (0..8).map(move |task| (which, task, ledger.clone())))
            .map(|(which, task, ledger)| {
                tokio::spawn(async move {
                    for n in 0..10 * (which + 1) {
                        let durability = if n % 3 == 0 { Durability::Mirrored } else { Durability::Ledger };
                        let draft = note(&format!("{which}-{task}-{n}")).session(format!("s-{task}"));
                        ledger.append_with(draft, Expect::SessionSeq(n as u64), durability).await.unwrap();
                    }
                })
            })
            .collect();
        for appender in appenders {
            appender.await.unwrap();
        }
        for (ledger, dir, disk, events) in [(one, one_dir, one_disk, 80), (other, other_dir, other_disk, 160)] {
            assert!(ledger.parity(ParityKind::Full).await.unwrap().is_consistent());
            assert!(ledger.verify().await.unwrap().is_clean());
            assert_eq!(ledger.close().await.unwrap().head.seq.get(), events);
            assert_eq!(is_clean(&dir, &on(&disk)), events);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_live_store_is_cut_and_opened_again() {
        let (_temp, dir) = temp();
        let mut disk = MemoryStorage::new();
        let mut options = LedgerOptions::from(on(&disk));
        // The mirror of one that was cut has nothing to catch up with.
        options.close_deadline = std::time::Duration::from_millis(10);
        let mut acknowledged = Vec::new();
        for round in 0..4u64 {
            let ledger = Ledger::open_with(&dir, options.clone()).await.unwrap();
            let appenders: Vec<_> = (0..6u64)
                .map(|task| {
                    let ledger = ledger.clone();
                    tokio::spawn(async move {
                        let mut receipts = Vec::new();
                        for n in 0.. {
                            let draft = note("x").id(id(round << 40 | task << 20 | n)).session(format!("s-{task}"));
                            match ledger.append(draft).await {
                                Ok(receipt) => receipts.push(receipt),
                                Err(_) => break,
                            }
                        }
                        receipts
                    })
                })
                .collect();
            common::until("some appends", || ledger.status().events >= 50 + round * 17).await;
            disk = disk.lose_unsynced();
            options.store.storage = Arc::new(disk.clone());
            for appender in appenders {
                acknowledged.extend(appender.await.unwrap());
            }
            let closed = ledger.close().await;
            assert!(closed.as_ref().map_or(true, |report| report.ledger_error.is_some()), "{closed:?}");
        }
        drop(Store::open(&dir, &options.store).unwrap());
        is_clean(&dir, &options.store);
        let reader = LedgerReader::open(&dir, &options.store).unwrap();
        assert!(acknowledged.len() >= 200);
        for receipt in acknowledged {
            let line = reader.line(receipt.seq).unwrap().expect("what was acknowledged is there");
            assert_eq!(line::decode(&line).unwrap().event_hash, receipt.event_hash);
        }
    }
}

#[test]
fn the_default_options_will_do() {
    let (_temp, dir) = temp();
    let mut with = options();
    with.storage = Arc::new(MemoryStorage::default());
    let (mut store, _) = Store::open(&dir, &with).unwrap();
    for draft in drafts() {
        store.append(draft).unwrap();
    }
    store.close().unwrap();
    assert_eq!(is_clean(&dir, &with), 12);
}
