//! Goal: a reader of lines that are being written, or whose segment an erasure gives another file, gets each event once and right, and is
//! never told of damage.
//!
//! Method: a disk that lets the writer, or an erasure, go on between two reads, or two opens, of the reader's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::opened::{Opened, Through};
use common::{copy_dir, note, options, segment_paths, unmirrored_groups};
use counterfoil::*;

/// What happens beside the reader.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

fn meanwhile(happens: impl FnOnce() + Send + 'static) -> Meanwhile {
    Arc::new(Mutex::new(Some(Box::new(happens))))
}

fn happen(meanwhile: &Meanwhile) {
    if let Some(happens) = meanwhile.lock().unwrap().take() {
        happens();
    }
}

fn wrapped(wrap: impl Fn(&Path, Box<dyn StorageFile>) -> Box<dyn StorageFile> + Send + Sync + 'static) -> Options {
    let mut options = options();
    options.storage = Arc::new(Opened(wrap));
    options
}

fn seqs(lines: &mut Lines) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        seqs.push(event.seq.get());
    }
    seqs
}

/// Three events in one segment.
fn store(root: &Path) -> (PathBuf, Vec<u8>) {
    let dir = root.join("store");
    let (mut store, _) = Store::open(&dir, &options()).unwrap();
    for text in ["short".to_owned(), "x".repeat(3000), "y".repeat(3000)] {
        store.append(note(&text).session("s")).unwrap();
    }
    store.close().unwrap();
    let bytes = fs::read(&segment_paths(&dir)[0]).unwrap();
    (dir, bytes)
}

#[test]
fn lines_that_come_over_fill_that_was_read() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, whole) = store(temp.path());
    let path = segment_paths(&dir).remove(0);
    // As it is while the first event alone is written: the rest of the file is fill.
    let first = memchr::memchr(b'\n', &whole).unwrap() + 1;
    let mut filled = whole.clone();
    filled[first..].fill(b'\n');
    filled.resize(64 << 10, b'\n');
    fs::write(&path, &filled).unwrap();
    let mut written = whole.clone();
    written.resize(64 << 10, b'\n');
    let (reads, writing) = (Arc::new(AtomicU64::new(0)), meanwhile(move || fs::write(&path, &written).unwrap()));
    let (count, watch) = (reads.clone(), writing.clone());
    let options = wrapped(move |path, file| {
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            return file;
        }
        let (count, watch) = (count.clone(), watch.clone());
        // Beside its second read.
        Box::new(Through(file, move |file: &mut dyn StorageFile, buffer: &mut [u8], offset| {
            if count.fetch_add(1, SeqCst) == 1 {
                happen(&watch);
            }
            file.read_at(buffer, offset)
        }))
    });
    let mut lines = LedgerReader::open(&dir, &options).unwrap().lines_from(Seq::FIRST).unwrap();
    assert_eq!(seqs(&mut lines), [1, 2, 3]);
    assert!(reads.load(SeqCst) > 1 && writing.lock().unwrap().is_none(), "nothing has happened meanwhile");
}

#[test]
fn a_segment_that_an_erasure_gives_another_file() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, writing) = (temp.path().join("store"), options());
    let (mut store, _) = Store::open(&dir, &writing).unwrap();
    for text in ["x".repeat(3000), "the last that the mirror has".to_owned()] {
        store.append(note(&text).session("s")).unwrap();
    }
    store.close().unwrap();
    unmirrored_groups(&dir, &writing, vec![vec![note("a").session("s")], vec![note("b").session("s")]]);
    // What an erasure of the first event makes of the segment: all lines behind it begin elsewhere.
    let erased = temp.path().join("erased");
    copy_dir(&dir, &erased);
    let (mut store, _) = Store::open(&erased, &writing).unwrap();
    store.erase(&Erasure::new(Erase::Seqs(vec![Seq::FIRST..=Seq::FIRST]), "asked")).unwrap();
    store.close().unwrap();
    let (from, to) = (segment_paths(&erased).remove(0), segment_paths(&dir).remove(0));
    assert!(fs::metadata(&from).unwrap().len() + 2000 < fs::metadata(&to).unwrap().len());

    let swap: Meanwhile = Arc::default();
    let watch = swap.clone();
    let options = wrapped(move |path, file| {
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            happen(&watch);
        }
        file
    });
    let mut reader = StreamReader::open(&dir, &options).unwrap();
    *swap.lock().unwrap() = Some(Box::new(move || fs::rename(from, to).unwrap()));
    let page = reader.page(&StreamQuery::new("s").from(2), Seq::new(4)).unwrap();
    assert_eq!(page.events.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(swap.lock().unwrap().is_none(), "nothing has happened meanwhile");
}
