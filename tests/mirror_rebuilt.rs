//! Goal: whatever happens to the mirror's file, the next open has a whole mirror again, and nothing is thrown away: a
//! file of no use lies beside it as `mirror.sqlite3.aside-N`, byte for byte.
//!
//! Method: the file of a small store is deleted, overwritten, cut, replaced, byte by byte where that is cheap; then the
//! store is opened, and every row compared with its line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use counterfoil::*;

struct Case {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    options: Options,
    mirror: Vec<u8>,
}

impl Case {
    fn new() -> Case {
        let (temp, dir, options) = unsynced_store();
        let mirror = fs::read(mirror_path(&dir)).unwrap();
        Case { _temp: temp, dir, options, mirror }
    }

    /// Opens with these bytes as the mirror; answers whether they were set aside, where they then must be.
    fn open(&self, what: &str, bytes: &[u8]) -> bool {
        let path = mirror_path(&self.dir);
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", path.display()));
        }
        fs::write(&path, bytes).unwrap();
        let ledger = segments(&self.dir);
        let (store, report) = Store::open(&self.dir, &self.options).unwrap_or_else(|error| panic!("{what}: {error}"));
        store.close().unwrap();
        if let Some(aside) = &report.mirror_set_aside {
            assert!(fs::read(aside).unwrap() == bytes, "{what}: what was set aside is not what was there");
            assert_eq!(report.replay.replayed, 12, "{what}");
            fs::remove_file(aside).unwrap();
        }
        let parity = parity(&self.dir);
        assert!(parity.is_consistent(), "{what}: {parity}");
        assert_eq!((parity.sqlite_event_count, parity.jsonl_event_count), (12, 12), "{what}");
        assert_eq!(segments(&self.dir), ledger, "{what}: the ledger is not touched");
        report.mirror_set_aside.is_some()
    }
}

#[test]
fn deleted() {
    let case = Case::new();
    fs::remove_file(mirror_path(&case.dir)).unwrap();
    let report = open_is_clean(&case.dir, &case.options);
    assert_eq!((report.mirror_set_aside, report.replay.replayed), (None, 12));
}

#[test]
fn files_of_no_use_are_set_aside() {
    let case = Case::new();
    let page = common::MIRROR_PAGE_BYTES;
    assert_eq!(case.mirror.len() % page, 0);
    for n in 1..case.mirror.len() / page {
        let mut bytes = case.mirror.clone();
        bytes[n * page..(n + 1) * page].fill(0x5a);
        assert!(case.open(&format!("page {} overwritten", n + 1), &bytes));
    }
    for keep in [100, 4096, page, page + 1, 3 * page, case.mirror.len() - page, case.mirror.len() - 9000] {
        assert!(case.open(&format!("cut to {keep} bytes"), &case.mirror[..keep]), "cut to {keep} bytes");
    }
    assert!(case.open("a text file", b"this is no database, but somebody's notes\n"));
    assert!(case.open("zeros", &vec![0; 2 * page]));
    let other = case.dir.join("other.sqlite3");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')").unwrap();
    assert!(case.open("somebody else's database", &fs::read(&other).unwrap()));
    // Nothing is in it, so nothing needs keeping.
    assert!(!case.open("an empty file", b""));
    assert!(!case.open("a file of one byte, which SQLite takes for empty", b"S"));
}

#[test]
fn each_byte_of_the_header() {
    let case = Case::new();
    let (mut aside, mut used, mut refused) = (0, 0, 0);
    for at in 0..100 {
        for value in [case.mirror[at] ^ 0xff, case.mirror[at] ^ 1] {
            let mut bytes = case.mirror.clone();
            bytes[at] = value;
            if (60..64).contains(&at) {
                // The schema version: a higher one can't be told from a newer counterfoil's.
                fs::write(mirror_path(&case.dir), &bytes).unwrap();
                if let Err(error) = Store::open(&case.dir, &case.options) {
                    assert!(matches!(error, Error::Mirror(MirrorError::Future { .. })), "{at}: {error}");
                    refused += 1;
                    continue;
                }
            }
            match case.open(&format!("byte {at} of the header as {value}"), &bytes) {
                true => aside += 1,
                false => used += 1,
            }
        }
    }
    eprintln!("header bytes: {aside} set aside, {used} of no consequence, {refused} taken for a newer version");
    assert!(aside > 80 && refused >= 4);
}

#[test]
fn a_wal_of_garbage_or_of_another_moment() {
    let case = Case::new();
    let wal = PathBuf::from(format!("{}-wal", mirror_path(&case.dir).display()));
    // Rows that are in the WAL alone, as a crash leaves them.
    let (mut store, _) = Store::open(&case.dir, &case.options).unwrap();
    for n in 0..5 {
        store.append(note("in the WAL").id(id(n))).unwrap();
    }
    let (main, good) = (fs::read(mirror_path(&case.dir)).unwrap(), fs::read(&wal).unwrap());
    drop(store);
    assert!(good.len() > 10_000, "{}", good.len());
    for what in ["garbage", "a cut one", "one with a damaged frame", "none"] {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", mirror_path(&case.dir).display()));
        }
        fs::write(mirror_path(&case.dir), &main).unwrap();
        let mut bytes = good.clone();
        match what {
            "garbage" => bytes.fill(0x37),
            "a cut one" => bytes.truncate(good.len() * 2 / 3),
            "one with a damaged frame" => bytes[good.len() / 2] ^= 1,
            _ => bytes.clear(),
        }
        fs::write(&wal, &bytes).unwrap();
        let report = open_is_clean(&case.dir, &case.options);
        assert_eq!(parity(&case.dir).sqlite_event_count, 17, "{what}");
        assert!(report.replay.replayed > 0, "{what}: {report:?}");
    }
}

#[test]
fn asides_do_not_overwrite_each_other() {
    let case = Case::new();
    let path = mirror_path(&case.dir);
    for n in 1..=3 {
        fs::write(&path, format!("garbage {n}")).unwrap();
        fs::write(format!("{}-wal", path.display()), format!("wal {n}")).unwrap();
        let report = open_is_clean(&case.dir, &case.options);
        let aside = format!("{}.aside-{n}", path.display());
        assert_eq!(report.mirror_set_aside.as_deref(), Some(Path::new(&aside)));
        assert_eq!(fs::read_to_string(&aside).unwrap(), format!("garbage {n}"));
    }
    assert_eq!(fs::read_to_string(format!("{}.aside-1", path.display())).unwrap(), "garbage 1");
}

#[test]
fn an_interrupted_setting_aside_is_not_overwritten_by_the_next() {
    let case = Case::new();
    let path = mirror_path(&case.dir);
    // A process was killed after the first of its renames; then a new WAL came about, and the file was found broken again.
    let first = PathBuf::from(format!("{}.aside-1-wal", path.display()));
    fs::write(&first, b"the WAL of before").unwrap();
    fs::write(format!("{}-wal", path.display()), b"the WAL of now").unwrap();
    let aside = set_aside(&case.dir).unwrap();
    assert_eq!(fs::read(&first).unwrap(), b"the WAL of before");
    assert_eq!(fs::read(format!("{}-wal", aside.display())).unwrap(), b"the WAL of now");
    assert_eq!(fs::read(&aside).unwrap(), case.mirror);
    open_is_clean(&case.dir, &case.options);
}

/// Under an open store, that is: what is committed into a file that nobody can open any more is not mirrored.
#[test]
#[cfg(unix)]
fn its_wal_is_removed_under_the_store() {
    let case = Case::new();
    let (mut store, _) = Store::open(&case.dir, &case.options).unwrap();
    assert_eq!(store.append(note("before")).unwrap().mirror, MirrorAck::Mirrored);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", mirror_path(&case.dir).display())).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(store.append(note("after")).unwrap().mirror, MirrorAck::MirrorBehind);
    }
    assert!(matches!(store.catch_up(), Err(Error::Mirror(MirrorError::Gone { .. }))));
    drop(store);
    open_is_clean(&case.dir, &case.options);
}
