//! Goal: with the actors, an open finishes an erasure that was recorded and not carried out, and a live store erases beside its
//! appends: nothing that is acknowledged is lost, nothing of the payloads is left, and nothing brings them back; not the
//! compression that runs beside it, nor an actor that is killed meanwhile.
//!
//! Method: the store of `common::secrets`, with a recorded erasure, and alive under appenders; each file is searched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::secrets::{self, SECRET, check_erased, secrets_in};
use common::{note, small_segments};
use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::*;

fn filled() -> (tempfile::TempDir, PathBuf, LedgerOptions) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    secrets::filled(&dir, &options);
    (temp, dir, LedgerOptions::from(options))
}

/// Records the erasure of all secrets, and stops there.
fn recorded(dir: &Path) {
    let mut options = small_segments();
    options.failpoint = Some(Arc::new(|point| match point {
        failpoint::ERASE_RECORDED => Err(std::io::Error::other("stopped here")),
        _ => Ok(()),
    }));
    let stopped = erase(dir, &options, &secrets::erasure());
    assert!(stopped.is_err_and(|error| error.to_string().contains("stopped here")));
    assert_eq!((common::verified(dir).erasures_count, common::verified(dir).not_yet_erased), (1, SECRET.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_finishes_what_was_recorded() {
    let (_temp, dir, options) = filled();
    let before = secrets::lines(&dir);
    recorded(&dir);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    check_erased(&dir, &before, "after open");
    common::finish(ledger, &dir, secrets::EVENTS + 1).await;
    check_erased(&dir, &before, "closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_store_erases_beside_its_appends() {
    let (_temp, dir, mut options) = filled();
    options.compress_sealed = Some(0);
    let before = secrets::lines(&dir);
    let ledger = Ledger::open_with(&dir, options.clone()).await.unwrap();
    let appenders: Vec<_> = (0..4)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for n in 0..60 {
                    let durability = if n % 5 == 0 { Durability::Mirrored } else { Durability::Ledger };
                    let draft = note(&format!("{task}-{n}")).session(format!("live-{task}"));
                    ledger.append_with(draft, Expect::Any, durability).await.unwrap();
                }
            })
        })
        .collect();
    let dry = ledger.erase(secrets::erasure().dry_run()).await.unwrap();
    assert_eq!((dry.events, dry.recorded.len()), (SECRET.len() as u64, 0));
    let report = ledger.erase(secrets::erasure()).await.unwrap();
    assert_eq!((report.events, report.recorded.len(), &report.done.unfinished), (SECRET.len() as u64, 1, &None), "{report:?}");
    assert_eq!(report.done.rows, SECRET.len() as u64);
    let left = secrets_in(&dir);
    assert!(left.is_empty(), "secrets are left in {left:?}");
    // What is in the active segment by now, too.
    let late = ledger.append(note(&format!("{}late", secrets::WORDS[0]))).await.unwrap();
    let report = ledger.erase(Erasure::new(Erase::Ids(vec![late.id]), "a test")).await.unwrap();
    assert_eq!((report.events, &report.done.unfinished), (1, &None));
    for appender in appenders {
        appender.await.unwrap();
    }
    assert!(ledger.erase(Erasure::new(Erase::Ids(vec![common::id(1)]), "x")).await.is_err_and(|error| matches!(error, Error::Erase(_))));
    let parity = ledger.parity(ParityKind::Full).await.unwrap();
    assert!(parity.is_consistent() && parity.erased_count == SECRET.len() as u64 + 1, "{parity}");
    assert!(ledger.verify().await.unwrap().is_clean());
    common::finish(ledger, &dir, secrets::EVENTS + 240 + 3).await;
    assert_eq!(secrets_in(&dir), Vec::<PathBuf>::new());
    assert_eq!(common::verified(&dir).erased, SECRET.len() as u64 + 1);
    let now = secrets::lines(&dir);
    assert!(before.keys().filter(|seq| !SECRET.contains(seq)).all(|seq| now[seq] == before[seq]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_that_is_killed_leaves_nothing_half_done() {
    let (_temp, dir, options) = filled();
    let before = secrets::lines(&dir);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let erasing = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.erase(secrets::erasure()).await }
    });
    let until = ledger.clone();
    common::until("the erasure is recorded", || until.status().durable.seq.get() > secrets::EVENTS).await;
    if let Some(sqlite) = ledger.children().await.unwrap().sqlite {
        sqlite.kill();
    }
    let _ = erasing.await.unwrap();
    common::until("a SqliteActor is there again", || ledger.status().mirrored_through.get() > secrets::EVENTS).await;
    let again = ledger.erase(secrets::erasure()).await.unwrap();
    assert!(again.recorded.is_empty(), "{again:?}");
    ledger.close().await.unwrap();
    common::open_is_clean(&dir, &small_segments());
    check_erased(&dir, &before, "killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_there_twice_keeps_nothing() {
    let (temp, dir, options) = filled();
    let before = secrets::lines(&dir);
    let other = temp.path().join("copy");
    common::copy_dir(&dir, &other);
    compress(&other, &small_segments(), &Sealed::AllBut(0), &mut |_| ()).unwrap();
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    // As `zstd -k` leaves it, or a compression that failed behind its rename.
    let mut doubles = 0;
    for path in common::segment_paths(&other).iter().filter(|path| path.extension().is_some_and(|form| form == "zst")) {
        let to = dir.join("segments").join(path.file_name().unwrap());
        if !to.exists() {
            std::fs::copy(path, to).unwrap();
            doubles += 1;
        }
    }
    assert!(doubles > 2);
    let report = ledger.erase(secrets::erasure()).await.unwrap();
    assert_eq!(report.done.unfinished, None);
    let left = secrets_in(&dir);
    assert!(left.is_empty(), "secrets are left in {left:?}");
    ledger.close().await.unwrap();
    common::open_is_clean(&dir, &small_segments());
    check_erased(&dir, &before, "doubles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_one_segment_that_is_compressed_not_for_all() {
    let (_temp, dir, mut options) = filled();
    let before = secrets::lines(&dir);
    let order: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let (points, erasing) = (order.clone(), Arc::new((Mutex::new(false), Condvar::new())));
    options.store.failpoint = Some(Arc::new(move |point| {
        let (lock, told) = &*erasing;
        match point {
            failpoint::ACTOR_SQLITE_ERASE => {
                *lock.lock().unwrap() = true;
                told.notify_all();
            }
            // The first segment is not done before the erasure waits for it.
            failpoint::COMPRESS_SYNC => {
                let began = told.wait_timeout_while(lock.lock().unwrap(), Duration::from_secs(60), |began| !*began).unwrap();
                assert!(*began.0, "no erasure came");
                if !points.lock().unwrap().contains(&point) {
                    // It is on its way to the lock, which shows nowhere.
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
            failpoint::ERASE_ROWS => {}
            _ => return Ok(()),
        }
        points.lock().unwrap().push(point);
        Ok(())
    }));
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let compressing = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.compress(Sealed::AllBut(0)).await }
    });
    assert_eq!(ledger.erase(secrets::erasure()).await.unwrap().done.unfinished, None);
    assert!(compressing.await.unwrap().unwrap().len() > 3);
    let order = order.lock().unwrap().clone();
    let rows = order.iter().rposition(|point| *point == failpoint::ERASE_ROWS).unwrap();
    let last = order.iter().rposition(|point| *point == failpoint::COMPRESS_SYNC).unwrap();
    assert!(rows < last, "{order:?}");
    ledger.close().await.unwrap();
    check_erased(&dir, &before, "compressed meanwhile");
}
