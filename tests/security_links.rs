//! Goal: nothing outside a store is written, truncated, created or removed through a symbolic link inside it; the error
//! names the link and what to do. A store that is itself reached by a link is a store like any other.
//!
//! Method: each thing that a store writes to is replaced by a link to a file or folder outside (one that is there, and
//! one that is not); everything that writes is tried; outside and inside stay as they were.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::*;
use counterfoil::*;

/// A closed store, and a folder outside that must not change.
struct Case {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    outside: PathBuf,
    options: Options,
}

fn case() -> Case {
    let (temp, dir, options) = store();
    let outside = temp.path().join("outside");
    fs::create_dir_all(outside.join("folder")).unwrap();
    for name in ["victim", "folder/victim", "folder/00000000000000000001.jsonl", "folder/ledger.json"] {
        fs::write(outside.join(name), "precious").unwrap();
    }
    Case { _temp: temp, dir, outside, options }
}

/// Everything below a folder, links not followed: what each file holds, and where each link leads.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut tree, mut waiting) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(path) = waiting.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let holds = match () {
            () if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            () if kind.is_dir() => Vec::new(),
            () => fs::read(&path).unwrap(),
        };
        tree.insert(path, holds);
    }
    tree
}

/// Moves what is there away and puts a link to the target in its place; answers where it is now.
fn replace(path: &Path, target: &Path) -> Option<PathBuf> {
    let kept = path.with_file_name(format!("{}.kept", path.file_name().unwrap().to_str().unwrap()));
    let moved = fs::rename(path, &kept).is_ok();
    symlink(target, path).unwrap();
    moved.then_some(kept)
}

type Write = fn(&Path, &Options) -> Result<(), Error>;

/// Everything that writes to a store.
fn writers() -> Vec<(&'static str, Write)> {
    vec![
        ("open", |dir, options| {
            let (mut store, _) = Store::open(dir, options)?;
            store.append(note("new"))?;
            store.close()
        }),
        ("replay", |dir, options| replay_store(dir, options, &mut |_, _| ()).map(drop)),
        ("repair from the ledger", |dir, options| Ok(repair_from_ledger(dir, options, &mut |_| ()).map(drop)?)),
        ("repair from the mirror", |dir, options| Ok(repair_from_mirror(dir, options, &mut |_| ()).map(drop)?)),
    ]
}

#[test]
fn what_a_store_writes_to_is_no_link() {
    for name in
        ["LOCK", "segments", "tmp", "torn", "blobs", "checkpoints", "mirror.sqlite3", "mirror.sqlite3-wal", "mirror.sqlite3-journal"]
    {
        for target in ["victim", "folder", "missing"] {
            let Case { _temp, dir, outside, options } = case();
            let kept = replace(&dir.join(name), &outside.join(target));
            let before = (tree(&dir), tree(&outside));
            for (what, write) in writers() {
                let error = write(&dir, &options).expect_err(what);
                let text = portable(&error, &dir);
                // The ledger's reader may come upon a folder that is not its own first.
                let expected = format!("<store>/{name} is a symbolic link, and nothing inside a store is written through one");
                let typed = text.starts_with(&expected) || matches!(name, "segments") && target != "folder";
                assert!(typed, "{name} -> {target}, {what}: {text}");
                assert!((tree(&dir), tree(&outside)) == before, "{name} -> {target}: {what} changed something");
            }
            // As it was, it opens.
            fs::remove_file(dir.join(name)).unwrap();
            if let Some(kept) = kept {
                fs::rename(kept, dir.join(name)).unwrap();
            }
            open_is_clean(&dir, &options);
        }
    }
}

#[test]
fn the_error_says_what_to_do() {
    let Case { _temp, dir, outside, options } = case();
    replace(&dir.join("tmp"), &outside.join("folder"));
    let error = Store::open(&dir, &options).err().unwrap();
    assert!(matches!(error, Error::Ledger(LedgerError::SymbolicLink { .. })));
    insta::assert_snapshot!(portable(error, &dir), @"<store>/tmp is a symbolic link, and nothing inside a store is written through one; put what it points to in its place, or remove it");
    let manifest = Manifest::load(&FsStorage, &dir).unwrap().unwrap();
    replace(&dir.join("mirror.sqlite3"), &outside.join("victim"));
    let error = Mirror::open(&dir, &manifest, &options).err().unwrap();
    assert!(matches!(error, MirrorError::SymbolicLink { .. }) && error.fault() == MirrorFault::Disagrees);
    insta::assert_snapshot!(portable(error, &dir), @"<store>/mirror.sqlite3 is a symbolic link, and nothing inside a store is written through one; put what it points to in its place, or remove it: the mirror can be rebuilt");
}

#[test]
fn the_active_segment_is_not_written_through_a_link() {
    let Case { _temp, dir, outside, options } = case();
    let path = segment_paths(&dir).pop().unwrap();
    let torn = [fs::read(&path).unwrap(), b"{\"seq\":13,".to_vec()].concat();
    fs::write(outside.join("segment"), &torn).unwrap();
    replace(&path, &outside.join("segment"));
    let before = (tree(&dir), tree(&outside));
    // Reading follows it: an old segment may lie on another disk.
    assert_eq!(LedgerReader::open(&dir, &options).unwrap().line(Seq::new(12)).unwrap().map(|line| line.len() > 1), Some(true));
    let error = Store::open(&dir, &options).err().unwrap();
    let text = portable(&error, &dir);
    assert!(
        text.starts_with("opening <store>/segments/")
            && text.ends_with("it is a symbolic link, which is not written through; put what it points to in its place"),
        "{text}"
    );
    assert!((tree(&dir), tree(&outside)) == before);
}

#[test]
fn links_among_rubbish_and_names_to_come_are_not_followed() {
    let Case { _temp, dir, outside, options } = case();
    for (name, target) in [("tmp/a", "victim"), ("tmp/ledger.json", "missing"), ("tmp/00000000000000000001.jsonl", "folder/victim")] {
        symlink(outside.join(target), dir.join(name)).unwrap();
    }
    fs::create_dir_all(dir.join("torn")).unwrap();
    // The names that a torn tail, a damaged segment and mirrors of no use would be given next.
    let active = segment_paths(&dir).pop().unwrap();
    let (first, len) = (active.file_stem().unwrap().to_str().unwrap().to_owned(), fs::metadata(&active).unwrap().len());
    for name in [format!("torn/{first}-{len}-0.torn"), format!("torn/{first}.damaged-1"), "mirror.sqlite3.aside-1".to_owned()] {
        symlink(outside.join("missing"), dir.join(name)).unwrap();
    }
    let before = tree(&outside);
    let whole = fs::read(&active).unwrap();
    fs::write(&active, [&whole[..], b"{\"seq\":13,"].concat()).unwrap();
    let report = open_is_clean(&dir, &options);
    assert_eq!(report.recovery.torn.map(|torn| torn.bytes), Some(10));
    let conn = common::by_hand(&dir);
    conn.execute("UPDATE events SET payload = '9' WHERE seq = 2", []).unwrap();
    drop(conn);
    repair_from_ledger(&dir, &options, &mut |_| ())
        .map(drop)
        .unwrap_or_else(|error| assert!(error.to_string().contains("aside-1"), "{error}"));
    let _ = fs::remove_file(dir.join("mirror.sqlite3.aside-1"));
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    fs::write(&active, &whole[1..]).unwrap();
    repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    fs::write(mirror_path(&dir), [b'x'; 5000]).unwrap();
    open_is_clean(&dir, &options);
    assert!(tree(&outside) == before, "something outside was written, created or removed");
}

#[test]
fn a_store_that_is_reached_by_a_link_is_a_store() {
    let Case { _temp, dir, outside, options } = case();
    let link = outside.join("store");
    symlink(&dir, &link).unwrap();
    let (mut store, _) = Store::open(&link, &options).unwrap();
    assert_eq!(store.append(note("through the link")).unwrap().seq.get(), 13);
    store.close().unwrap();
    open_is_clean(&link, &options);
    open_is_clean(&dir, &options);
    repair_from_ledger(&link, &options, &mut |_| ()).unwrap();
    // So is one below a folder that is a link.
    symlink(dir.parent().unwrap(), outside.join("parent")).unwrap();
    open_is_clean(&outside.join("parent").join("store"), &options);
}

#[test]
fn an_export_follows_no_link() {
    let Case { _temp, dir, outside, options } = case();
    let out = outside.join("out");
    fs::create_dir_all(&out).unwrap();
    let transcript = outside.join("a.jsonl");
    fs::write(&transcript, "{\"n\":1}\n").unwrap();
    let mut reader = import::TranscriptReader::open(&transcript, &import::Settings::default()).unwrap();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    while let Some(draft) = reader.next().unwrap() {
        store.append(draft).unwrap();
    }
    let reader = store.reader().unwrap();
    for target in ["victim", "missing", "folder"] {
        let _ = fs::remove_file(out.join("a.jsonl"));
        symlink(outside.join(target), out.join("a.jsonl")).unwrap();
        let before = tree(&outside);
        let error = import::export_originals(&reader, &out).unwrap_err();
        assert!(matches!(error, import::ImportError::Exists { .. }), "{error}");
        assert!(tree(&outside) == before, "{target}");
    }
}
