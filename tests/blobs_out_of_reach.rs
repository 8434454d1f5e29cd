//! Goal: a blob that can't be read just now is an I/O error, and not a missing one: no line is cut, called damaged, or left
//! out for it; once it can be read again, all is as it was.
//!
//! Method: in a copy of the vectors' store, whose active segment is made the one with the out-of-line payload, the blobs
//! become symbolic links that lead round in a circle, which root can't open either. Recovery, verify, replay and parity
//! look at them; then they are put back.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{copy_dir, files, open_is_clean, verified};
use counterfoil::*;

fn blobs(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("blobs")).into_keys().map(|name| dir.join("blobs").join(name)).collect()
}

/// Takes the blobs out of reach, and puts them back when told to.
fn out_of_reach(dir: &Path) -> impl FnOnce() {
    let kept: Vec<_> = blobs(dir).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert!(!kept.is_empty());
    for (_, path) in &kept {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
    }
    move || {
        for (bytes, path) in kept {
            fs::remove_file(&path).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

fn is_io(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Io { path, .. } if path.components().any(|part| part.as_os_str() == "blobs"))
}

#[test]
fn an_open_waits_for_them_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    copy_dir(Path::new("tests/vectors/store-v1"), temp.path());
    fs::remove_file(temp.path().join("segments/00000000000000000010.jsonl")).unwrap();
    let put_back = out_of_reach(temp.path());
    let before = common::segments(temp.path());
    let refused = Store::open(temp.path(), &Options::default()).map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Error::Ledger(error) if is_io(error)), "{refused}");
    let forecast = counterfoil::forecast(temp.path(), &Options::default()).unwrap_err();
    assert!(is_io(&forecast), "{forecast}");
    assert_eq!(common::segments(temp.path()), before, "nothing is cut");
    assert!(!temp.path().join("torn").exists(), "nothing is called torn");
    put_back();
    let (_store, report) = Store::open(temp.path(), &Options::default()).unwrap();
    assert_eq!((report.recovery.torn, report.recovery.head.seq.get()), (None, 9));
}

#[test]
fn what_only_reads_says_so() {
    let temp = tempfile::tempdir().unwrap();
    copy_dir(Path::new("tests/vectors/store-v1"), temp.path());
    open_is_clean(temp.path(), &Options::default());
    let put_back = out_of_reach(temp.path());
    let options = Options::default();
    let reader = LedgerReader::open(temp.path(), &options).unwrap();
    assert!(is_io(&verify(&reader, &mut |_| ()).unwrap_err()));
    assert!(is_io(&parity_full(&reader, &options, None, &mut |_| ()).unwrap_err()));
    // A mirror that is made anew needs them too, and is not called wrong for want of them.
    let manifest = reader.manifest().clone();
    fs::remove_file(mirror_path(temp.path())).unwrap();
    let mut mirror = Mirror::open(temp.path(), &manifest, &options).unwrap();
    let replayed = Replay::from_start(&reader, reader.head().unwrap().seq).unwrap().run(&mut mirror, &mut |_| ()).unwrap_err();
    assert!(matches!(&replayed, ReplayError::Ledger(error) if is_io(error)), "{replayed}");
    drop(mirror);
    put_back();
    open_is_clean(temp.path(), &options);
    // One that is missing is a wrong line, as ever.
    fs::remove_file(&blobs(temp.path())[0]).unwrap();
    assert_eq!(verified(temp.path()).failures_count, 1);
}
