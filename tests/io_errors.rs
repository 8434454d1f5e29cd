//! Goal: after a failed write or fsync nothing is acknowledged until the store is opened afresh, and the fresh open keeps
//! what was acknowledged. A full disk that shows itself while reserving space writes nothing and leaves the writer well.
//!
//! Method: a disk with switches lies under the storage trait; each kind of I/O is made to fail in the middle of work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use common::disk::{Op, Switches, faulty};
use common::*;
use counterfoil::*;

fn store(segment_bytes_max: u64) -> (tempfile::TempDir, PathBuf, Options, Arc<Switches>, Store) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    options.segment_bytes_max = segment_bytes_max;
    let switches = faulty(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("first").session("s-1").id(id(1))).unwrap();
    store.append(note("second").session("s-1").id(id(2))).unwrap();
    (temp, dir, options, switches, store)
}

fn draft() -> Draft {
    note("third").session("s-1").id(id(3))
}

/// The append fails as poisoned, and so does all that follows, though the disk is well again.
fn poisons(store: &mut Store, switches: &Switches) -> String {
    let error = store.append(draft()).unwrap_err();
    assert!(error.is_poisoned() && !error.is_retryable(), "{error}");
    switches.heal();
    let syncs = switches.syncs.load(SeqCst);
    for later in [draft(), note("fourth"), note("first").session("s-1").id(id(1))] {
        let error = store.append(later).unwrap_err();
        assert!(error.is_poisoned(), "{error}");
    }
    assert_eq!(switches.syncs.load(SeqCst), syncs, "fsync is never retried");
    assert_eq!(store.head().seq.get(), 2, "nothing more is durable");
    error.to_string()
}

/// After a fresh open the same draft is recorded once, whatever had reached the disk.
fn reopened(dir: &std::path::Path, options: &Options) -> OpenReport {
    let (mut store, report) = Store::open(dir, options).unwrap();
    let receipt = store.append(draft()).unwrap();
    assert_eq!((receipt.seq.get(), receipt.session_seq, receipt.mirror), (3, Some(3), MirrorAck::Mirrored));
    assert_eq!(store.append(note("first").session("s-1").id(id(1))).unwrap().seq.get(), 1);
    store.close().unwrap();
    open_is_clean(dir, options);
    assert_eq!(parity(dir).jsonl_event_count, 3);
    report
}

#[test]
fn a_failed_write() {
    let whole = 500;
    for written in [0, 1, 100, whole] {
        let (_temp, dir, options, switches, mut store) = store(1 << 20);
        switches.tear(written);
        let text = poisons(&mut store, &switches);
        if written == 0 {
            insta::assert_snapshot!(text, @"this writer is poisoned by an I/O error (Write fails, as told); close the store and open it again: recovery settles what was recorded");
        }
        drop(store);
        let report = reopened(&dir, &options);
        assert_eq!(report.recovery.torn.as_ref().map(|torn| torn.bytes), (written > 0).then_some(written as u64));
        assert_eq!(files(&dir.join("torn")).len(), usize::from(written > 0));
    }
}

#[test]
fn a_failed_fsync() {
    let (_temp, dir, options, switches, mut store) = store(1 << 20);
    switches.fail(Op::Sync, ErrorKind::Other);
    poisons(&mut store, &switches);
    drop(store);
    // The bytes had reached the file: recovery writes them again, syncs, and the event is there once.
    let before = switches.syncs.load(SeqCst);
    let report = reopened(&dir, &options);
    assert!(report.recovery.rewritten_bytes > 400 && report.recovery.torn.is_none(), "{report:?}");
    assert!(switches.syncs.load(SeqCst) > before);
}

#[test]
fn a_failed_write_or_fsync_while_recovering() {
    for op in [Op::Write, Op::Sync, Op::SyncDir, Op::SetLen] {
        let (_temp, dir, options, switches, mut store) = store(1 << 20);
        switches.tear(100);
        store.append(draft()).unwrap_err();
        drop(store);
        let path = &segment_paths(&dir)[0];
        let before = fs::read(path).unwrap();
        switches.fail(op, ErrorKind::Other);
        let error = Store::open(&dir, &options).err().unwrap_or_else(|| panic!("{op:?}"));
        assert!(matches!(error, Error::Ledger(LedgerError::Io { .. })), "{op:?}: {error}");
        assert!(before.starts_with(&fs::read(path).unwrap()), "{op:?}");
        switches.heal();
        reopened(&dir, &options);
        // However often it failed, the torn bytes are kept.
        assert!(files(&dir.join("torn")).values().any(|bytes| bytes.len() == 100), "{op:?}");
    }
}

#[test]
fn a_full_disk_while_reserving() {
    let (_temp, dir, options, switches, mut store) = store(1 << 20);
    store.close().unwrap();
    store = Store::open(&dir, &options).unwrap().0;
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        switches.fail(Op::Reserve, kind);
        let before = state(&store, &dir);
        let batch = vec![note("a").session("s-1").id(id(8)), note("b").session("s-2").id(id(9))];
        for _ in 0..2 {
            let error = store.append_batch(batch.clone(), &Conditions::none().session("s-1", 2)).unwrap_err();
            assert!(matches!(error, Error::Ledger(LedgerError::DiskFull { .. })), "{error}");
            assert!(error.is_retryable(), "it is definite, and can succeed later");
            assert_eq!(state(&store, &dir), before, "nothing is written");
        }
    }
    switches.heal();
    // Seqs, positions and ids are as if nothing had been tried.
    let error =
        store.append(note("other").id(id(8)).session("s-1")).map(|receipt| (receipt.seq.get(), receipt.session_seq, receipt.duplicate));
    assert_eq!(error.unwrap(), (3, Some(3), false));
    let receipt = store.append_expecting(note("b").session("s-2").id(id(9)), &Expect::NoStream).unwrap();
    assert_eq!((receipt.seq.get(), receipt.session_seq), (4, Some(1)));
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_disk_that_cannot_reserve() {
    let (_temp, dir, options, switches, store) = store(1 << 20);
    drop(store);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    switches.fail(Op::Reserve, ErrorKind::Unsupported);
    store.append(draft()).unwrap();
    let tried = switches.reserves.load(SeqCst);
    store.append(note("fourth")).unwrap();
    assert_eq!(switches.reserves.load(SeqCst), tried, "it is not asked again");
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_segment_that_cannot_be_created() {
    for (op, kind) in [(Op::Create, ErrorKind::StorageFull), (Op::Create, ErrorKind::PermissionDenied), (Op::SetLen, ErrorKind::Other)] {
        let (_temp, dir, options, switches, mut store) = store(1200);
        assert_eq!(segment_paths(&dir).len(), 1);
        let before = state(&store, &dir);
        switches.fail(op, kind);
        let error = store.append(draft()).unwrap_err();
        assert!(!error.is_poisoned(), "{op:?} {kind}: {error}");
        assert_eq!(matches!(error, Error::Ledger(LedgerError::DiskFull { .. })), kind == ErrorKind::StorageFull, "{error}");
        assert_eq!(state(&store, &dir), before, "nothing is written");
        switches.heal();
        // The reservation of the old segment was given back: what fits there must reserve again.
        let receipt = store.append(draft()).unwrap();
        assert_eq!((receipt.seq.get(), receipt.session_seq), (3, Some(3)));
        assert_eq!(segment_paths(&dir).len(), 2);
        store.close().unwrap();
        open_is_clean(&dir, &options);
    }
}

#[test]
fn space_given_back_is_reserved_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    options.segment_bytes_max = 2000;
    let switches = faulty(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("first")).unwrap();
    let reserves = switches.reserves.load(SeqCst);
    store.append(note("small")).unwrap();
    assert_eq!(switches.reserves.load(SeqCst), reserves, "reserved ahead");
    switches.fail(Op::Create, ErrorKind::StorageFull);
    store.append(note(&"x".repeat(1500))).unwrap_err();
    // The attempt to rotate has trimmed the segment. A small event still fits it, and must find a full disk before it writes.
    switches.fail(Op::Reserve, ErrorKind::StorageFull);
    let error = store.append(note("small")).unwrap_err();
    assert!(matches!(error, Error::Ledger(LedgerError::DiskFull { .. })), "{error}");
    switches.heal();
    store.append(note("small")).unwrap();
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_directory_that_cannot_be_synced_after_a_rotation() {
    let (_temp, dir, options, switches, mut store) = store(1200);
    switches.fail(Op::SyncDir, ErrorKind::Other);
    poisons(&mut store, &switches);
    drop(store);
    assert_eq!(reopened(&dir, &options).recovery.torn, None);
}

/// A process can be killed between creating a segment and making its name durable. The next one finds the file there.
#[test]
fn a_segment_whose_name_may_not_be_durable_is_made_so_before_it_is_written_to() {
    for first in [true, false] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut options = options();
        options.segment_bytes_max = 1200;
        let switches = faulty(&mut options);
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        let mut next = 1;
        if !first {
            store.append(note("first")).unwrap();
            store.append(note("second")).unwrap();
            next = 3;
        }
        drop(store);
        fs::create_dir_all(dir.join("segments")).unwrap();
        fs::write(dir.join(format!("segments/{next:020}.jsonl")), "").unwrap();
        let before = switches.dir_syncs.load(SeqCst);
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        assert_eq!(switches.dir_syncs.load(SeqCst), before + 2, "segments/, and the directory that holds it");
        assert_eq!(store.append(note("next")).unwrap().seq.get(), next);
        store.close().unwrap();
        open_is_clean(&dir, &options);
    }
    // Likewise for segments/ itself.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    let switches = faulty(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    fs::create_dir(dir.join("segments")).unwrap();
    let before = switches.dir_syncs.load(SeqCst);
    store.append(note("first")).unwrap();
    assert_eq!(switches.dir_syncs.load(SeqCst), before + 2);
}

#[test]
fn nothing_is_acknowledged_before_its_fsync() {
    let (_temp, dir, options, switches, mut store) = store(1200);
    let counts = || (switches.syncs.load(SeqCst), switches.dir_syncs.load(SeqCst), segment_paths(&dir).len());
    for n in 0..6 {
        let before = counts();
        store.append(note(&format!("{n}"))).unwrap();
        let after = counts();
        let sealed = if before.2 > 0 { after.2 - before.2 } else { 0 };
        assert_eq!(after.0, before.0 + 1 + sealed, "one fsync a group, and one of a segment that is sealed");
        assert_eq!(after.1 - before.1, after.2 - before.2, "one of the directory for each new segment");
    }
    assert!(segment_paths(&dir).len() >= 3);
    let before = counts();
    store.append_batch((0..50).map(|_| note("x")).collect(), &Conditions::none()).unwrap();
    assert_eq!(counts().0, before.0 + 2, "a batch is one group, and seals a segment");
    store.close().unwrap();
    open_is_clean(&dir, &options);
}

#[test]
fn a_directory_above_that_can_not_be_fsynced_at_all() {
    for (kind, opens) in [
        (ErrorKind::InvalidInput, true),
        (ErrorKind::ReadOnlyFilesystem, true),
        (ErrorKind::PermissionDenied, true),
        (ErrorKind::Other, false),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut options = options();
        let switches = faulty(&mut options);
        // The first directory that a new store has fsynced is the one that it lies in.
        switches.fail_once(Op::SyncDir, kind, 0);
        let opened = Store::open(&dir, &options).map(|(store, report)| (store.close(), report.created));
        assert!(!switches.is_armed(), "it did fail");
        match opened {
            Ok((closed, created)) => assert!(opens && created && closed.is_ok(), "{kind}"),
            Err(error) => assert!(!opens && error.to_string().contains("syncing"), "{kind}: {error}"),
        }
        assert_eq!(open_is_clean(&dir, &options).created, !opens);
    }
}
