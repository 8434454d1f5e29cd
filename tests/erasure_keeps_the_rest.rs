//! Goal: what a repair, a replay or an open has set aside keeps what only it has, once something was erased and the next time that
//! something is: payloads go from it, and nothing else. Where it can't be read, it goes as a whole, and nobody says that it is kept.
//!
//! Method: stores with an erasure, whose ledger is cut or whose mirror is broken, repaired, replayed and opened; files are looked for
//! where reports say that they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::secrets::{self, secrets_in};
use counterfoil::*;

/// A store of ten events of which the second is erased, all in plain segments.
fn erased() -> (tempfile::TempDir, PathBuf, Options) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = common::options();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 1..=4 {
        store.append(common::note(&format!("{}{n}", secrets::WORDS[0])).id(common::id(n))).unwrap();
    }
    store.erase(&Erasure::new(Erase::Seqs(vec![Seq::new(2)..=Seq::new(2)]), "a test")).unwrap();
    for n in 6..=10 {
        store.append(common::note(&format!("{}{n}", secrets::WORDS[0])).id(common::id(n))).unwrap();
    }
    store.close().unwrap();
    (temp, dir, options)
}

fn payloads(mirror: &Path) -> Vec<(i64, Option<String>)> {
    let conn = rusqlite::Connection::open_with_flags(mirror, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all = conn.prepare("SELECT seq, payload FROM events ORDER BY seq").unwrap();
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// The ledger ends two events earlier.
fn cut(dir: &Path) {
    let path = common::segment_paths(dir).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&path, lines[..lines.len() - 2].iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn rows_that_the_ledger_lacks_stay_where_the_repair_says() {
    let (_temp, dir, options) = erased();
    cut(&dir);
    let report = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!((report.rows_removed, report.set_aside.len()), (2, 1), "{report:?}");
    assert!(report.erased.mirrors_removed.is_empty(), "{report:?}");
    let of = |aside: &[(i64, Option<String>)], seq: i64| aside.iter().find(|(at, _)| *at == seq).unwrap().1.clone();
    let aside = payloads(&report.set_aside[0]);
    assert_eq!((of(&aside, 10), of(&aside, 2)), (Some(format!("\"{}10\"", secrets::WORDS[0])), None));
    common::open_is_clean(&dir, &options);
    // The next erasure leaves what it does not name, too.
    let done = erase(&dir, &options, &Erasure::new(Erase::Ids(vec![common::id(3)]), "a test")).unwrap().done;
    assert_eq!((done.mirrors_rewritten, done.mirrors_removed, done.unfinished), (report.set_aside.clone(), vec![], None));
    let aside = payloads(&report.set_aside[0]);
    assert_eq!((aside.len(), of(&aside, 3), of(&aside, 4).is_some(), of(&aside, 10).is_some()), (10, None, true, true));
    let bytes = fs::read(&report.set_aside[0]).unwrap();
    assert!(memchr::memmem::find(&bytes, format!("{}3", secrets::WORDS[0]).as_bytes()).is_none());
}

/// What is said to be kept is there.
fn check_kept(what: &str, kept: &[PathBuf], erased: &Erased) {
    assert!(kept.iter().all(|path| path.exists()), "{what}: {kept:?} {erased:?}");
    assert!(erased.mirrors_removed.iter().all(|path| !path.exists() && !kept.contains(path)), "{what}: {kept:?} {erased:?}");
}

fn break_mirror(dir: &Path) {
    let path = mirror_path(dir);
    let mut bytes = fs::read(&path).unwrap();
    let len = bytes.len();
    // The header and the id of an erased event are still there.
    let id = common::id(2).to_string();
    let keeps = memchr::memmem::find(&bytes, id.as_bytes()).unwrap();
    for (at, byte) in bytes.iter_mut().enumerate().take(len).skip(4096) {
        if at < keeps || at > keeps + 40 {
            *byte = b'x';
        }
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn nobody_says_that_a_broken_mirror_is_kept_that_is_gone() {
    let (temp, dir, options) = erased();
    break_mirror(&dir);
    let at = |name: &str| {
        let copy = temp.path().join(name);
        common::copy_dir(&dir, &copy);
        copy
    };
    let replayed = replay_store(at("replay"), &options, &mut |_, _| ()).unwrap();
    check_kept("replay", &replayed.mirror_set_aside.into_iter().collect::<Vec<_>>(), &replayed.erased);
    assert_eq!(replayed.erased.mirrors_removed.len(), 1, "nobody can tell what is in it");
    let opened = Store::open(at("open"), &options).unwrap().1;
    check_kept("open", &opened.mirror_set_aside.into_iter().collect::<Vec<_>>(), &opened.erased);
    let repaired = repair_from_ledger(&at("repair"), &options, &mut |_| ()).unwrap();
    check_kept("repair", &repaired.set_aside, &repaired.erased);
}

#[cfg(feature = "actors")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_the_actors() {
    let (_temp, dir, options) = erased();
    break_mirror(&dir);
    let ledger = counterfoil::actors::Ledger::open_with(&dir, counterfoil::actors::LedgerOptions::from(options)).await.unwrap();
    ledger.append_with(common::note("more"), Expect::Any, counterfoil::actors::Durability::Mirrored).await.unwrap();
    let kept = ledger.status().mirror_set_aside;
    assert!(kept.as_ref().is_none_or(|path| path.exists()), "{kept:?}");
    ledger.close().await.unwrap();
}

#[test]
fn a_damaged_segment_that_goes_as_a_whole_is_not_said_to_be_kept() {
    let (_temp, dir, options) = secrets::store();
    let holders = [Seq::new(4)];
    compress(&dir, &options, &Sealed::Holding(holders.to_vec()), &mut |_| ()).unwrap();
    erase(&dir, &options, &secrets::erasure()).unwrap();
    let path = common::segment_paths(&dir).into_iter().find(|path| path.extension().is_some_and(|form| form == "zst")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    fs::write(&path, bytes).unwrap();
    let report = repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    assert!(report.set_aside.iter().all(|path| path.exists()), "{report:?}");
    assert!(report.erased.torn.iter().any(|torn| torn.removed), "{report:?}");
    common::open_is_clean(&dir, &options);
    assert_eq!(secrets_in(&dir), Vec::<PathBuf>::new());
}
