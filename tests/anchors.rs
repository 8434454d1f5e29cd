//! Goal: a ledger that was cut, rewritten or rolled back is caught by a checkpoint that was kept elsewhere, and so is a checkpoint
//! that is not what it says; nothing more is signed for such a ledger, and recovery refuses one that is shorter than it was signed.
//! An anchor that fails, hangs or is not there holds up nothing and gets the next checkpoint.
//!
//! Method: stores rewritten with right hashes throughout; files and commands as anchors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod checkpoint_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use checkpoint_support::common::*;
use checkpoint_support::*;
use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::*;
use counterfoil::*;

/// A store with checkpoints of 4, 9 and 12 events, closed, and the file that has them too.
fn anchored() -> (tempfile::TempDir, PathBuf, PathBuf, Options) {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor, mut options) = (temp.path().join("store"), temp.path().join("anchor"), quick());
    options.segment_bytes_max = 1900;
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let mut signer = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&anchor))]);
    for count in [4, 5, 3] {
        for _ in 0..count {
            grow(&mut store, 1);
        }
        assert_eq!(signer.sign(store.head()).unwrap().anchors[0].error, None);
    }
    store.close().unwrap();
    (temp, dir, anchor, options)
}

fn held_against(dir: &Path, anchors: &[&Path]) -> AnchorReport {
    let reader = LedgerReader::open(dir, &Options::default()).unwrap();
    let mut anchored = Anchored::new(&reader, &[public()]);
    anchors.iter().for_each(|path| anchored.read(path).unwrap());
    verify_anchored(&reader, anchored, None, &mut |_| ()).unwrap().1
}

/// The same store with other events, of which the first `same` are the same; all its hashes are right.
fn rewritten(dir: &Path, options: &Options, same: u64, count: u64) {
    let reader = LedgerReader::open(dir, options).unwrap();
    let lines: Vec<Vec<u8>> = (1..=same).map(|seq| reader.line(Seq::new(seq)).unwrap().unwrap()).collect();
    fs::remove_dir_all(dir.join("segments")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("mirror.sqlite3{suffix}")));
    }
    // Recovery would refuse it.
    let checkpoints = dir.join("checkpoints");
    fs::rename(&checkpoints, dir.join("aside")).unwrap();
    if same > 0 {
        fs::create_dir(dir.join("segments")).unwrap();
        let lines: Vec<u8> = lines.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        fs::write(dir.join("segments/00000000000000000001.jsonl"), lines).unwrap();
    }
    let (mut store, _) = Store::open(dir, options).unwrap();
    while store.head().seq.get() < count {
        store.append(note("another history")).unwrap();
    }
    store.close().unwrap();
    fs::rename(dir.join("aside"), checkpoints).unwrap();
    assert!(verified(dir).is_clean());
}

#[test]
fn what_is_as_it_was_fits() {
    let (_temp, dir, anchor, options) = anchored();
    assert_eq!(fs::read(&anchor).unwrap(), fs::read(dir.join("checkpoints/signed.txt")).unwrap());
    let report = held_against(&dir, &[&anchor]);
    assert_eq!((report.checkpoints, report.covered, report.is_clean()), (3, 12, true));
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    grow(&mut store, 2);
    store.close().unwrap();
    insta::assert_snapshot!(held_against(&dir, &[&anchor, &dir.join("checkpoints/signed.txt")]), @"
    anchors: the ledger fits every checkpoint
      checkpoints 6 (signatures verified)
      covered     12 events
    ");
}

#[test]
fn what_was_cut_or_rewritten_is_caught() {
    let mut said = String::new();
    for (same, count) in [(11, 11), (12, 12), (4, 12), (11, 12), (0, 12), (0, 20), (9, 9), (3, 3), (0, 0)] {
        let (temp, dir, anchor, options) = anchored();
        rewritten(&dir, &options, same, count);
        let report = held_against(&dir, &[&anchor]);
        assert_eq!(report.is_clean(), same == 12);
        let report = report.to_string().replace(&temp.path().display().to_string(), "<temp>");
        // The other root depends on nothing but the events.
        said += &format!("the first {same} of 12, then others up to {count}\n{report}");
    }
    snapshots(|| insta::assert_snapshot!("anchors_rewritten", said));
}

#[test]
fn nothing_is_signed_for_it() {
    let mut said = String::new();
    for (same, count) in [(4, 12), (0, 20), (11, 11)] {
        for lost in ["nothing", "the store's own", "the anchor's"] {
            let (temp, dir, anchor, options) = anchored();
            rewritten(&dir, &options, same, count);
            match lost {
                "nothing" => {}
                "the anchor's" => fs::remove_file(&anchor).unwrap(),
                _ => fs::remove_dir_all(dir.join("checkpoints")).unwrap(),
            }
            let opened = Store::open(&dir, &options);
            let error = match &opened {
                Err(error) => error.to_string(),
                Ok((store, _)) => {
                    let before = files(temp.path());
                    let mut signer = signer(store, &dir, &options, vec![Arc::new(FileAnchor::new(&anchor))]);
                    let error = signer.sign(store.head()).unwrap_err();
                    assert!(error.is_inconsistent(), "{error}");
                    let kept = |path: &Path| path.ends_with("anchor") || path.ends_with("signed.txt");
                    let notes = |files: std::collections::BTreeMap<PathBuf, Vec<u8>>| {
                        files.into_iter().filter(|(path, _)| kept(path)).collect::<Vec<_>>()
                    };
                    assert_eq!(notes(files(temp.path())), notes(before));
                    error.to_string()
                }
            };
            said += &format!("the first {same} of 12, then others up to {count}; lost: {lost}\n  {error}\n");
            said = said.replace(&temp.path().display().to_string(), "<temp>");
        }
    }
    snapshots(|| insta::assert_snapshot!("anchors_not_signed", said));
}

/// Where the last checkpoint ends a block, the file of the tree's hashes leads to its root without the ledger: that file is of the
/// old history, so an event must be looked at all the same.
#[test]
fn nothing_is_signed_for_a_history_of_whole_blocks() {
    for (size, more, anchored) in [(255u64, 0u64, true), (256, 0, true), (256, 1, true), (256, 1, false), (512, 0, false), (512, 257, true)]
    {
        let temp = tempfile::tempdir().unwrap();
        let (dir, anchor, options) = (temp.path().join("store"), temp.path().join("anchor"), quick());
        let anchors = || -> Vec<Arc<dyn Anchor>> { if anchored { vec![Arc::new(FileAnchor::new(&anchor))] } else { Vec::new() } };
        let store = store_of(&dir, &options, size);
        signer(&store, &dir, &options, anchors()).sign(store.head()).unwrap();
        store.close().unwrap();
        rewritten(&dir, &options, 3, size + more);
        let (store, _) = Store::open(&dir, &options).unwrap();
        let kept = fs::read(dir.join("checkpoints/signed.txt")).unwrap();
        let error = signer(&store, &dir, &options, anchors()).sign(store.head()).unwrap_err();
        assert!(matches!(&error, CheckpointError::Diverged { size: at, .. } if *at == size), "{size} and {more} more: {error}");
        assert_eq!(fs::read(dir.join("checkpoints/signed.txt")).unwrap(), kept);
    }
}

#[test]
fn recovery_takes_it_as_evidence() {
    for cut in 1..=12u64 {
        let (_temp, dir, _anchor, options) = anchored();
        // Both legs are rolled back: without the checkpoint, a prefix is a right ledger.
        let checkpoints = dir.join("checkpoints/signed.txt");
        let kept = fs::read(&checkpoints).unwrap();
        rewritten(&dir, &options, 12 - cut, 12 - cut);
        let before = files(&dir);
        let (refused, text) = refusal(&dir, &options);
        assert!(
            matches!(refused, Refusal::BehindCheckpoint { valid, durable, signed_at: 462, .. } if valid.get() == 12 - cut && durable.get() == 12),
            "{text}"
        );
        assert!(text.contains("a signed checkpoint covers what is not there"), "{text}");
        assert_eq!(files(&dir), before, "a refused open changed something");
        // One that covers no more than there is refuses nothing; nor does one of another ledger, nor what a crash left.
        let notes = String::from_utf8(kept).unwrap();
        let id = LedgerReader::open(&dir, &options).unwrap().manifest().ledger_id.to_string();
        let foreign = notes.replace(&id, &id.replace("ldg_01", "ldg_02"));
        assert_ne!(foreign, notes);
        for fine in [String::new(), foreign, notes[..30].to_owned()] {
            fs::write(&checkpoints, fine).unwrap();
            Store::open(&dir, &options).unwrap().0.close().unwrap();
        }
    }
}

#[test]
fn a_torn_tail_below_it_is_no_torn_tail() {
    let (_temp, dir, _anchor, options) = anchored();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("mirror.sqlite3{suffix}")));
    }
    let last = segment_paths(&dir).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, &bytes[..bytes.len() - 20]).unwrap();
    let (refused, text) = refusal(&dir, &options);
    assert!(matches!(refused, Refusal::BehindCheckpoint { durable, .. } if durable.get() == 12), "{text}");
    fs::remove_dir_all(dir.join("checkpoints")).unwrap();
    assert!(Store::open(&dir, &options).unwrap().1.recovery.torn.is_some());
}

#[test]
fn what_is_no_checkpoint_of_it_is_a_failure() {
    let (temp, dir, anchor, options) = anchored();
    let right = fs::read_to_string(&anchor).unwrap();
    let (other, forged) = (temp.path().join("other"), temp.path().join("forged"));
    let two = store_of(&other, &options, 2);
    let foreign = sign(&two, &other, &options).to_string();
    let strange = Checkpointer::new(&other, two.manifest(), &options, Arc::new(MemoryKey::from_seed(&[9; 32])), Vec::new());
    drop(strange);
    let mut said = String::new();
    let wrong_key = {
        let reader = LedgerReader::open(&dir, &options).unwrap();
        let mut anchored = Anchored::new(&reader, &[MemoryKey::from_seed(&[9; 32]).public_key()]);
        anchored.read(&anchor).unwrap();
        verify_anchored(&reader, anchored, None, &mut |_| ()).unwrap().1
    };
    said += &format!("another key\n{wrong_key}");
    let cases = [
        ("a changed size", right.replacen("\n9\n", "\n8\n", 1)),
        ("a changed root", right.replacen("\n9\n", "\n9\nA", 1)),
        ("another ledger's", format!("{right}{foreign}")),
        ("nothing", String::new()),
        ("other bytes", format!("some words\n{right}more\nwords\n")),
        ("a cut one", right[..right.len() - 30].to_owned()),
        ("no end of line", right.trim_end().to_owned()),
    ];
    for (what, text) in cases {
        fs::write(&forged, text).unwrap();
        said += &format!("{what}\n{}", held_against(&dir, &[&forged]));
    }
    said = said.replace(&temp.path().display().to_string(), "<temp>").replace(&two.manifest().ledger_id.to_string(), "<other>");
    snapshots(|| insta::assert_snapshot!("anchors_no_checkpoints", said));
    // Damage in the ledger leaves no root to be told.
    let path = &segment_paths(&dir)[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[80] ^= 1;
    fs::write(path, bytes).unwrap();
    let report = held_against(&dir, &[&anchor]);
    assert!(!report.is_clean() && report.failures.iter().all(|failure| matches!(failure.reason, AnchorFault::Damaged { .. })), "{report}");
}

#[test]
fn a_file_that_is_not_an_anchors_is_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, options) = (temp.path().join("store"), quick());
    let mut store = store_of(&dir, &options, 3);
    let path = temp.path().join("anchor");
    for wrong in ["alias ll='ls -l'\n", "counterfoil/ldg_01M860XD300000000000000009\n3\n"] {
        fs::write(&path, wrong).unwrap();
        let signed = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&path))]).sign(store.head()).unwrap();
        assert!(signed.anchors[0].error.as_ref().unwrap().contains("no checkpoint"), "{signed:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), wrong);
        grow(&mut store, 1);
    }
    // Once it can take one it gets the newest, without a new event.
    fs::remove_file(&path).unwrap();
    let mut signer =
        signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(temp.path().join("no/anchor"))), Arc::new(FileAnchor::new(&path))]);
    let signed = signer.sign(store.head()).unwrap();
    assert!(signed.anchors[0].error.is_some() && signed.anchors[1].error.is_none() && signer.has_unanchored());
    fs::create_dir(temp.path().join("no")).unwrap();
    let again = signer.sign(store.head()).unwrap();
    assert!(!again.is_new && again.anchors.iter().all(|anchor| anchor.error.is_none() && anchor.size == store.head().seq.get()));
    assert_eq!(fs::read(temp.path().join("no/anchor")).unwrap(), fs::read(&path).unwrap());
}

/// What a crash leaves of a note may be cut off, and nothing else: a note that was there is not one, whatever was done to it.
#[test]
fn a_note_that_was_changed_is_not_cut() {
    let (_temp, dir, anchor, options) = anchored();
    let own = dir.join("checkpoints/signed.txt");
    let right = fs::read(&own).unwrap();
    let last = right.len() - 231;
    let mut wrongs: Vec<Vec<u8>> = (last..right.len()).map(|at| [&right[..at], &[right[at] ^ 1], &right[at + 1..]].concat()).collect();
    wrongs.push(
        right.iter().enumerate().flat_map(|(at, byte)| if *byte == b'\n' && at > 300 { vec![b'\r', b'\n'] } else { vec![*byte] }).collect(),
    );
    wrongs.push([&right[..last + 60], b"\n", &right[last + 60..]].concat());
    wrongs.push([&right[..last + 60], &[0; 3], &right[last + 60..]].concat());
    for (n, wrong) in wrongs.iter().enumerate() {
        fs::write(&anchor, wrong).unwrap();
        assert!(!held_against(&dir, &[&anchor]).is_clean(), "{n}: {:?}", String::from_utf8_lossy(wrong));
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        grow(&mut store, 1);
        let signed = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&anchor))]).sign(store.head());
        assert!(fs::read(&anchor).unwrap().starts_with(wrong), "{n}: cut after {signed:?}");
        // The store's own is held to the same.
        fs::write(&own, wrong).unwrap();
        let signed = signer(&store, &dir, &options, Vec::new()).sign(store.head());
        assert!(fs::read(&own).unwrap().starts_with(wrong), "{n}: cut after {signed:?}");
        fs::write(&own, &right).unwrap();
    }
    // Its last note changed so that it is none, the store rolled back and grown anew: there is no second checkpoint of that size.
    rewritten(&dir, &options, 9, 12);
    for wrong in [&wrongs[50], &wrongs[231], &wrongs[232]] {
        fs::write(&own, wrong).unwrap();
        let (store, _) = Store::open(&dir, &options).unwrap();
        let error = signer(&store, &dir, &options, Vec::new()).sign(store.head()).unwrap_err();
        assert!(error.is_inconsistent(), "{error}");
        assert_eq!(fs::read(&own).unwrap(), *wrong);
    }
}

#[test]
fn blank_lines_at_the_end_are_in_nobodys_way() {
    let (_temp, dir, anchor, options) = anchored();
    let before = [fs::read(&anchor).unwrap(), b"\n\n".to_vec()].concat();
    fs::write(&anchor, &before).unwrap();
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    grow(&mut store, 1);
    let signed = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&anchor))]).sign(store.head()).unwrap();
    assert_eq!(signed.anchors[0].error, None);
    assert_eq!(fs::read(&anchor).unwrap(), [before, signed.checkpoint.to_string().into_bytes()].concat());
    assert_eq!(held_against(&dir, &[&anchor]).covered, 13);
}

#[test]
#[cfg(unix)]
fn a_file_inside_the_store_is_no_anchor() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, options) = (temp.path().join("store"), quick());
    let store = store_of(&dir, &options, 3);
    let own = fs::read(dir.join("checkpoints/signed.txt")).ok();
    assert_eq!(own, None);
    let first = sign(&store, &dir, &options).to_string();
    let (link, hard) = (temp.path().join("link"), temp.path().join("hard"));
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    fs::hard_link(dir.join("checkpoints/signed.txt"), &hard).unwrap();
    let names = ["checkpoints/signed.txt", "checkpoints/anchor.txt", "segments/anchor.jsonl", "../store/anchor"];
    let paths = names.iter().map(|name| dir.join(name)).chain([link.join("anchor"), hard]);
    for path in paths {
        let signed = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&path))]).sign(store.head()).unwrap();
        let error = signed.anchors[0].error.clone().unwrap();
        assert!(error.contains("it is inside the store"), "{}: {error}", path.display());
        assert!(path.exists() == (path.ends_with("signed.txt") || path.ends_with("hard")), "{} was made", path.display());
    }
    assert_eq!(fs::read_to_string(dir.join("checkpoints/signed.txt")).unwrap(), first);
}

/// Two processes that hand on to the same new file: what each was told that it took is there.
#[test]
fn two_at_once_lose_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, options) = (temp.path().join("store"), quick());
    let mut store = store_of(&dir, &options, 3);
    let first = sign(&store, &dir, &options);
    grow(&mut store, 1);
    let both = [first, sign(&store, &dir, &options)];
    for round in 0..60 {
        let (path, ready) = (temp.path().join(format!("anchor-{round}")), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            for checkpoint in &both {
                scope.spawn(|| {
                    ready.wait();
                    FileAnchor::new(&path).publish(checkpoint).unwrap();
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert!(both.iter().all(|checkpoint| text.contains(&checkpoint.to_string())), "round {round}: {text}");
        assert_eq!(text.len(), both.iter().map(|checkpoint| checkpoint.to_string().len()).sum::<usize>(), "round {round}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_can_only_be_appended_to_is_an_anchor() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor, options) = (temp.path().join("store"), temp.path().join("anchor"), quick());
    let mut store = store_of(&dir, &options, 3);
    fs::write(&anchor, "").unwrap();
    let chattr = |flag: &str| std::process::Command::new("chattr").arg(flag).arg(&anchor).stderr(std::process::Stdio::null()).status();
    if !chattr("+a").is_ok_and(|status| status.success()) {
        return skipped("an append-only anchor", "chattr +a needs root and a file system that has it");
    }
    let mut signer = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&anchor))]);
    let first = signer.sign(store.head()).unwrap();
    grow(&mut store, 1);
    let second = signer.sign(store.head()).unwrap();
    let taken = fs::read_to_string(&anchor).unwrap();
    chattr("-a").unwrap();
    assert_eq!((first.anchors[0].error.clone(), second.anchors[0].error.clone()), (None, None));
    assert_eq!(taken, format!("{}{}", first.checkpoint, second.checkpoint));
}

/// What has no end is not waited for: a pipe in the place of an anchor, or of a file of the store.
#[test]
#[cfg(unix)]
fn a_pipe_is_refused() {
    let (temp, dir, _anchor, options) = anchored();
    let pipe = temp.path().join("pipe");
    let made = |path: &Path| std::process::Command::new("mkfifo").arg(path).status().is_ok_and(|status| status.success());
    if !made(&pipe) {
        return skipped("pipes as anchors", "there is no mkfifo");
    }
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    grow(&mut store, 1);
    let signed = signer(&store, &dir, &options, vec![Arc::new(FileAnchor::new(&pipe))]).sign(store.head()).unwrap();
    assert!(signed.anchors[0].error.as_ref().unwrap().contains("it is no regular file"), "{signed:?}");
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let read = Anchored::new(&reader, &[]).read(&pipe).unwrap_err().to_string();
    assert!(read.contains("it is no regular file"), "{read}");
    store.close().unwrap();
    for name in ["tree.hashes", "signed.txt"] {
        let path = dir.join("checkpoints").join(name);
        let _ = fs::remove_file(&path);
        assert!(made(&path));
        let proved = prove_event(&reader, Seq::new(2), None).map(drop).map_err(|error| error.to_string());
        if name == "signed.txt" {
            assert!(proved.unwrap_err().contains("it is no regular file"));
            let opened = Store::open(&dir, &options).map(drop).map_err(|error| error.to_string());
            assert!(opened.unwrap_err().contains("it is no regular file"));
        }
    }
}

/// A process before this one may have been killed before a note was durable, or its fsync have failed.
#[test]
fn a_note_that_is_found_is_made_durable() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, mut options) = (temp.path().join("store"), options());
    let disk = disk::faulty(&mut options);
    let store = store_of(&dir, &options, 3);
    sign(&store, &dir, &options);
    let counted = || (disk.syncs.load(std::sync::atomic::Ordering::SeqCst), disk.dir_syncs.load(std::sync::atomic::Ordering::SeqCst));
    let before = counted();
    let mut second = signer(&store, &dir, &options, Vec::new());
    second.check(store.head()).unwrap();
    let after = counted();
    assert!(after.0 > before.0 && after.1 >= before.1 + 2, "{before:?} {after:?}");
    assert!(!second.sign(store.head()).unwrap().is_new && counted() == after, "once is enough");
}

#[test]
#[cfg(unix)]
fn commands() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, options) = (temp.path().join("store"), quick());
    let mut store = store_of(&dir, &options, 3);
    let (taken, there) = (temp.path().join("taken"), temp.path().join("there"));
    let sh = |script: &str| CommandAnchor::new("sh", ["-c", script]);
    let anchors: Vec<Arc<dyn Anchor>> = vec![
        Arc::new(sh(&format!("cat >> {}", taken.display()))),
        Arc::new(sh(&format!("test -e {} || {{ echo it is not there >&2; exit 3; }}", there.display()))),
        Arc::new(sh("sleep 600").deadline(Duration::from_millis(50))),
        Arc::new(CommandAnchor::new("/no/such/command", ["x"])),
        // It reads nothing, and leaves a child that holds its pipes open.
        Arc::new(sh("sleep 2 & exit 0")),
        Arc::new(sh("yes | head -c 200000 >&2; exit 1")),
    ];
    let mut signer = signer(&store, &dir, &options, anchors);
    let first = signer.sign(store.head()).unwrap();
    let said: String = first
        .anchors
        .iter()
        .map(|anchor| format!("{} {}: {}\n", anchor.size, anchor.anchor, anchor.error.clone().unwrap_or_default()))
        .collect();
    let said = said.replace(&temp.path().display().to_string(), "<temp>").replace("y; ", "");
    insta::assert_snapshot!(said, @"
    3 sh -c cat >> <temp>/taken: 
    0 sh -c test -e <temp>/there || { echo it is not there >&2; exit 3; }: it ended with exit status: 3; it says: it is not there
    0 sh -c sleep 600: it has not ended within 50 ms, and was killed; see what it waits for
    0 /no/such/command x: it could not be started: No such file or directory (os error 2); see that the command is there
    3 sh -c sleep 2 & exit 0: 
    0 sh -c yes | head -c 200000 >&2; exit 1: it ended with exit status: 1; it says: y
    ");
    fs::write(&there, "").unwrap();
    grow(&mut store, 1);
    let second = signer.sign(store.head()).unwrap();
    assert_eq!(second.anchors[1].error, None);
    // It has the first too: nothing is given again that was taken.
    assert_eq!(fs::read_to_string(&taken).unwrap(), format!("{}{}", first.checkpoint, second.checkpoint));
    assert!(!signer.sign(store.head()).unwrap().is_new);
    assert_eq!(fs::read_to_string(&taken).unwrap(), format!("{}{}", first.checkpoint, second.checkpoint));
}
