//! Goal: a store whose sealed segments are compressed, some or all of them, is the same store: every reader gives the same
//! lines, appends go on, both legs stay equal, repair works in both directions, and the plain form comes back byte for byte.
//! What another program compressed is read too; `zstdcat` reads what we compress.
//!
//! Method: a small store of several segments, the same commands on its plain and its mixed form; `zstd` where it is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use counterfoil::*;

fn all_but(keep: usize) -> Sealed {
    Sealed::AllBut(keep)
}

fn holding(seqs: &[u64]) -> Sealed {
    Sealed::Holding(seqs.iter().copied().map(Seq::new).collect())
}

fn zst(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.zst", path.display()))
}

/// Every line of the ledger, through a reader.
fn lines(dir: &Path) -> Vec<Vec<u8>> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = Vec::new();
    while let Some((line, _)) = lines.next_event().unwrap() {
        all.push(line.raw.bytes.to_vec());
    }
    all
}

#[test]
fn a_mixed_store_is_the_same_store() {
    let (_temp, dir, options) = store();
    let (plain, paths, before) = (lines(&dir), segment_paths(&dir), segments(&dir));
    assert!(paths.len() >= 4, "{paths:?}");
    let first_of = |n: usize| paths[n].file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let mut told = Vec::new();
    let done = compress(&dir, &options, &holding(&[1, first_of(2)]), &mut |one| told.push(one.clone())).unwrap();
    assert_eq!((&told, done.len()), (&done, 2));
    for (n, path) in paths.iter().enumerate() {
        assert_eq!((path.exists(), zst(path).exists()), (n != 0 && n != 2, n == 0 || n == 2), "{path:?}");
    }
    assert_eq!(
        (done[0].path.clone(), done[0].plain_bytes),
        (zst(&paths[0]), before[Path::new(paths[0].file_name().unwrap())].len() as u64)
    );
    assert_eq!(done[0].stored_bytes, fs::metadata(zst(&paths[0])).unwrap().len());

    assert_eq!(lines(&dir), plain);
    let reader = LedgerReader::open(&dir, &options).unwrap();
    for (n, line) in plain.iter().enumerate() {
        assert_eq!(reader.line(Seq::new(n as u64 + 1)).unwrap().as_ref(), Some(line), "line {}", n + 1);
    }
    let verified = verified(&dir);
    assert!(verified.is_clean() && verified.events == 12, "{verified}");
    let full = replay_store(&dir, &options, &mut |_, _| ()).unwrap();
    assert!(full.parity.is_consistent() && full.replay.skipped_existing == 12, "{:?}", full.replay);
    open_is_clean(&dir, &options);

    // Appends go on, and the mirror comes back from such a ledger.
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    store.append(note("after")).unwrap();
    store.close().unwrap();
    fs::remove_file(mirror_path(&dir)).unwrap();
    assert_eq!(open_is_clean(&dir, &options).replay.replayed, 13);
    assert!(forecast(&dir, &options).unwrap().torn.is_none());

    let back = decompress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    assert_eq!(back.len(), 2);
    let now = segments(&dir);
    assert!(before.iter().all(|(name, bytes)| now[name].starts_with(bytes)), "the plain form is back, byte for byte");
    assert_eq!(now.len(), before.len().max(now.len()));
    assert!(compress(&dir, &options, &all_but(99), &mut |_| ()).unwrap().is_empty());
}

#[test]
fn what_is_refused_changes_nothing() {
    let (_temp, dir, options) = store();
    let before = segments(&dir);
    let active = segment_paths(&dir).pop().unwrap();
    let error = compress(&dir, &options, &holding(&[12]), &mut |_| ()).unwrap_err();
    assert!(matches!(&error, LedgerError::Active { path } if *path == active), "{error}");
    for seq in [0, 13] {
        let error = compress(&dir, &options, &holding(&[1, seq]), &mut |_| ()).unwrap_err();
        assert!(matches!(&error, LedgerError::NoSegment { head, .. } if head.get() == 12), "{error}");
    }
    let (store, _) = Store::open(&dir, &options).unwrap();
    assert!(matches!(compress(&dir, &options, &all_but(0), &mut |_| ()), Err(LedgerError::Locked { .. })));
    store.close().unwrap();
    assert_eq!(segments(&dir), before);
    assert!(matches!(compress(&dir.join("none"), &options, &all_but(0), &mut |_| ()), Err(LedgerError::NoStore { .. })));

    // A damaged segment stays as it is; those before it are done.
    let second = &segment_paths(&dir)[1];
    let mut bytes = fs::read(second).unwrap();
    bytes[40] ^= 1;
    fs::write(second, &bytes).unwrap();
    let error = compress(&dir, &options, &all_but(0), &mut |_| ()).unwrap_err();
    assert!(matches!(&error, LedgerError::Damaged { path, offset: 0, .. } if path == second), "{error}");
    assert_eq!(fs::read(second).unwrap(), bytes);
    assert!(files(&dir.join("tmp")).is_empty() && zst(&segment_paths(&dir)[0].with_extension("")).exists());
}

#[test]
fn the_last_segment_may_be_compressed_by_hand() {
    let (_temp, dir, options) = store();
    compress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    let Some(last) = segment_paths(&dir).pop() else { panic!("no segments") };
    if !zstd(&last, &[]) {
        return;
    }
    fs::remove_file(&last).unwrap();
    let whole = lines(&dir);
    assert_eq!(whole.len(), 12);
    open_is_clean(&dir, &options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    assert_eq!((store.head().seq.get(), store.append(note("next")).unwrap().seq.get()), (12, 13));
    assert!(store.append(drafts().remove(0)).unwrap().duplicate);
    store.close().unwrap();
    assert!(dir.join("segments/00000000000000000013.jsonl").exists());
    open_is_clean(&dir, &options);
    // Lost with the mirror ahead: refused, as with plain ones.
    fs::remove_file(dir.join("segments/00000000000000000013.jsonl")).unwrap();
    let (refusal, text) = refusal(&dir, &options);
    assert!(matches!(refusal, Refusal::LostDurable { .. }), "{text}");
    repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    open_is_clean(&dir, &options);
    assert_eq!(lines(&dir).len(), 13);
}

/// Compresses a file with the tool, where that is there.
fn zstd(path: &Path, args: &[&str]) -> bool {
    match Command::new("zstd").args(["-q", "-k", "-f"]).args(args).arg(path).status() {
        Ok(status) => {
            assert!(status.success());
            true
        }
        Err(error) => {
            skipped("compressed by zstd", &format!("there is no zstd here ({error})"));
            false
        }
    }
}

#[test]
fn what_zstd_compresses_is_read_and_the_other_way_round() {
    let (_temp, dir, options) = store();
    let (plain, paths, before) = (lines(&dir), segment_paths(&dir), segments(&dir));
    for (path, args) in [(&paths[0], &["-19"][..]), (&paths[1], &["--no-check"]), (&paths[2], &["--fast=5"])] {
        if !zstd(path, args) {
            return;
        }
        fs::remove_file(path).unwrap();
    }
    // Two frames, one after the other.
    let bytes = fs::read(paths[0].with_extension("jsonl.zst")).unwrap();
    let whole = before[Path::new(paths[0].file_name().unwrap())].clone();
    fs::write(&paths[0], &whole[..whole.len() / 2]).unwrap();
    zstd(&paths[0], &[]);
    let mut frames = fs::read(zst(&paths[0])).unwrap();
    fs::write(&paths[0], &whole[whole.len() / 2..]).unwrap();
    zstd(&paths[0], &[]);
    frames.extend(fs::read(zst(&paths[0])).unwrap());
    fs::remove_file(&paths[0]).unwrap();
    for form in [bytes, frames] {
        fs::write(zst(&paths[0]), form).unwrap();
        assert_eq!(lines(&dir), plain);
        open_is_clean(&dir, &options);
    }
    // It gets a table of frames, as those have that we compress; they stay as they are.
    let again = compress(&dir, &options, &holding(&[1]), &mut |_| ()).unwrap();
    assert_eq!(again.iter().map(|one| one.path.clone()).collect::<Vec<_>>(), [zst(&paths[0])]);
    assert!(fs::read(zst(&paths[0])).unwrap().ends_with(&0x8f92_eab1_u32.to_le_bytes()));
    assert_eq!((compress(&dir, &options, &holding(&[1]), &mut |_| ()).unwrap(), lines(&dir)), (Vec::new(), plain));
    open_is_clean(&dir, &options);
    decompress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    assert_eq!(segments(&dir), before);
    compress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    for path in &paths[..paths.len() - 1] {
        let out = Command::new("zstdcat").arg(zst(path)).output().unwrap();
        assert!(out.status.success() && out.stdout == before[Path::new(path.file_name().unwrap())], "{path:?}");
        assert!(Command::new("zstd").arg("-tq").arg(zst(path)).status().unwrap().success());
    }
}

#[test]
fn where_both_forms_are_there_the_plain_one_counts() {
    let (_temp, dir, options) = store();
    let (before, paths) = (segments(&dir), segment_paths(&dir));
    let copies: Vec<Vec<u8>> = paths[..2].iter().map(|path| fs::read(path).unwrap()).collect();
    compress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    let other = fs::read(zst(&paths[1])).unwrap();
    fs::write(&paths[0], &copies[0]).unwrap(); // what a crash leaves
    fs::write(&paths[1], &copies[1]).unwrap();
    fs::write(zst(&paths[1]), [&other[..], &fs::read(zst(&paths[2])).unwrap()].concat()).unwrap(); // what a person leaves
    assert!(verified(&dir).is_clean());
    open_is_clean(&dir, &options);
    assert!(!zst(&paths[0]).exists() && !zst(&paths[1]).exists() && paths[0].exists() && paths[1].exists());
    let torn = files(&dir.join("torn"));
    assert_eq!(torn.keys().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(), ["00000000000000000004.other-1.zst"]);
    decompress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    assert_eq!(segments(&dir), before);
}

#[test]
fn a_second_form_that_cannot_be_read_is_no_reason_not_to_open() {
    let (_temp, dir, options) = store();
    let (before, paths) = (segments(&dir), segment_paths(&dir));
    fs::create_dir(zst(&paths[0])).unwrap();
    fs::write(zst(&paths[1]), b"no zstd").unwrap();
    open_is_clean(&dir, &options);
    assert_eq!(segments(&dir), before);
    let kept: Vec<_> = fs::read_dir(dir.join("torn")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[test]
fn a_plain_form_that_is_a_beginning_gives_way() {
    let (_temp, dir, options) = store();
    let (plain, paths) = (lines(&dir), segment_paths(&dir));
    let whole = fs::read(&paths[1]).unwrap();
    compress(&dir, &options, &all_but(0), &mut |_| ()).unwrap();
    for len in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&paths[1], &whole[..len]).unwrap();
        open_is_clean(&dir, &options);
        assert!(!paths[1].exists() && zst(&paths[1]).exists(), "{len}");
        assert_eq!(lines(&dir), plain);
        assert!(files(&dir.join("torn")).values().any(|kept| *kept == whole[..len]), "{len}");
    }
    // Where the compressed one is damaged too, nobody decides: the plain one counts, and the other one is kept.
    let mut damaged = fs::read(zst(&paths[1])).unwrap();
    damaged[60] ^= 4;
    fs::write(zst(&paths[1]), &damaged).unwrap();
    fs::write(&paths[1], &whole[..whole.len() / 2]).unwrap();
    refusal(&dir, &options);
    assert!(paths[1].exists() && files(&dir.join("torn")).values().any(|kept| *kept == damaged));
    repair_from_mirror(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!(lines(&dir), plain);
}
