//! Recovery: whatever the segments hold, open ends in a store that is right and can be appended to, or in a typed
//! refusal that has changed nothing; it deletes no byte, and never ends below what was durable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use counterfoil::*;

use super::history::{DIR, Known, history, options, put_manifest, segment_path};
use super::memory::Memory;
use super::scenario::{Scenario, scenario};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The ledger alone, and a mirror that is only said to be there: thousands a second.
pub fn run(data: &[u8]) {
    ledger_alone(&scenario(data));
}

/// The whole store, with a mirror that SQLite makes.
pub fn run_store(data: &[u8]) {
    with_mirror(&scenario(data));
}

fn disk(scenario: &Scenario, dir: &Path) -> Arc<Memory> {
    let disk = Arc::new(Memory::default());
    put_manifest(&disk, dir, &history().manifest);
    for (first, bytes) in &scenario.segments {
        disk.put(&segment_path(dir, *first), bytes.clone());
    }
    disk
}

fn open(dir: &Path, options: &Options, watermark: Option<Watermark>) -> Result<(Writer, RecoveryReport), LedgerError> {
    let mut known = Known(watermark.map(|mark| mark.seq));
    Writer::open(dir, &history().manifest, watermark, &mut known, options)
}

/// Whether the error is one that damage may end in.
fn is_refusal(error: &LedgerError) -> bool {
    assert!(!error.to_string().is_empty());
    matches!(error, LedgerError::Refused(_))
}

fn ledger_alone(scenario: &Scenario) {
    let dir = Path::new(DIR);
    let disk = disk(scenario, dir);
    let options = options(&disk, 1 << 20);
    let before = disk.files();
    read(dir, &options);
    let forecast = forecast(dir, &options);
    assert_eq!(disk.files(), before, "looking changes nothing");
    let watermark = scenario.watermark;
    let (writer, report) = match open(dir, &options, watermark) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(is_refusal(&error), "{error}");
            assert_eq!(disk.files(), before, "a refusal changes nothing: {error}");
            return;
        }
    };
    if watermark.is_none() {
        let forecast = forecast.expect("it was to be opened");
        let torn = |report: &RecoveryReport| report.torn.as_ref().map(|torn| (torn.offset, torn.bytes));
        assert_eq!((forecast.head, torn(&forecast)), (report.head, torn(&report)), "the forecast is right");
    }
    assert_eq!(writer.head(), report.head);
    drop(writer);
    let after = disk.files();
    nothing_is_deleted(&before, &after, &report);
    nothing_durable_is_lost(dir, &options, watermark, report.head);
    let scan = scanned_from(scenario, dir, &after);
    let right_before = what_was_scanned_is_right(dir, &options, &scan, report.head);
    // Once more: nothing is left to do.
    let (mut writer, again) = open(dir, &options, watermark).expect("it opens again");
    assert_eq!((again.head, again.torn), (report.head, None));
    assert_eq!(disk.files(), after, "a second open changes nothing");
    append(&mut writer, &options);
    drop(writer);
    let (writer, last) = match open(dir, &options, watermark) {
        Ok(opened) => opened,
        // Damage below the watermark shows once its segment is sealed.
        Err(error) if !right_before && is_refusal(&error) => return,
        Err(error) => panic!("it opens after an append: {error}"),
    };
    assert_eq!((last.head.seq, last.torn), (report.head.seq.next().next(), None));
    assert_eq!(writer.head(), last.head);
    what_was_scanned_is_right(dir, &options, &scan, last.head);
    read(dir, &options);
}

/// Every way of reading, for panics; a reader never fails of damage but by saying so.
fn read(dir: &Path, options: &Options) {
    let reader = LedgerReader::open(dir, options).expect("the manifest is right");
    let _ = reader.head().map_err(|error| assert!(matches!(error, LedgerError::Damaged { .. }), "{error}"));
    for seq in [0, 1, 2, 9, 300] {
        let line = reader.line(Seq::new(seq)).map_err(|error| assert!(matches!(error, LedgerError::Damaged { .. }), "{error}"));
        if let Ok(Some(line)) = line {
            assert_eq!(line::decode(&line).map(|event| event.seq.get()), Ok(seq));
        }
    }
    verify(&reader, &mut |_| ()).expect("verify reports what is wrong");
}

/// Every byte is where it was, or in torn/, or was fill.
fn nothing_is_deleted(before: &Files, after: &Files, report: &RecoveryReport) {
    let mut torn = after.iter().filter(|(path, _)| path.parent().is_some_and(|parent| parent.ends_with("torn"))).map(|(_, bytes)| bytes);
    let mut changed = 0;
    for (path, was) in before {
        let is = after.get(path).expect("no file is removed");
        if was == is {
            continue;
        }
        changed += 1;
        let kept = is.strip_suffix(b"\n").filter(|kept| kept.len() >= was.len()).unwrap_or(is);
        assert!(was.starts_with(kept), "{} was changed, not cut", path.display());
        let cut = &was[kept.len()..];
        match &report.torn {
            Some(_) => assert_eq!(torn.next().map(Vec::as_slice), Some(cut), "what was cut is in torn/"),
            None => assert!(cut.iter().all(|byte| matches!(byte, 0 | b'\n')), "bytes were cut and not kept"),
        }
    }
    assert!(changed <= 1, "only the active segment is cut");
    let others = |path: &&PathBuf| !before.contains_key(*path) && !path.parent().is_some_and(|parent| parent.ends_with("torn"));
    assert_eq!(after.keys().find(others), None, "nothing else is left behind");
}

fn nothing_durable_is_lost(dir: &Path, options: &Options, watermark: Option<Watermark>, head: Head) {
    let Some(mark) = watermark.filter(|mark| mark.seq > Seq::ZERO) else { return };
    assert!(head.seq >= mark.seq, "the watermark is {}, the head {}", mark.seq, head.seq);
    let reader = LedgerReader::open(dir, options).expect("it opens");
    // Damage before it, which is verify's to find, may state the same seq.
    let mut lines = reader.lines_from(Seq::FIRST).expect("memory does not fail");
    let mut there = false;
    while let Ok(Some(line)) = lines.next_raw() {
        there |= line::decode(line.raw.bytes).is_ok_and(|event| (event.seq, event.event_hash) == (mark.seq, mark.event_hash));
    }
    assert!(there, "the watermark's line is gone");
}

/// Where recovery's scan of the last segment begins: behind the watermark's line, where that is in it.
struct Scan {
    path: PathBuf,
    from: u64,
    /// Whether the mirror was right there, or nothing was before: else no one knows the streams' positions.
    streams_known: bool,
}

fn scanned_from(scenario: &Scenario, dir: &Path, after: &Files) -> Scan {
    let Some((path, bytes)) = after.iter().rfind(|(path, _)| path.parent().is_some_and(|parent| parent.ends_with("segments"))) else {
        return Scan { path: segment_path(dir, 1), from: 0, streams_known: true };
    };
    let mut end = 0;
    let mut from = 0;
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += text.len() as u64;
        let event = line::decode(text.strip_suffix(b"\n").unwrap_or(text));
        if scenario.watermark.is_some_and(|mark| event.is_ok_and(|event| (event.seq, event.event_hash) == (mark.seq, mark.event_hash))) {
            from = end;
        }
    }
    let first: u64 = path.file_stem().and_then(|name| name.to_str()?.parse().ok()).expect("a segment's name");
    let mirrored = scenario.watermark.is_some_and(|mark| mark.seq.get() + 1 == first);
    Scan { path: path.clone(), from, streams_known: from > 0 || first == 1 || mirrored }
}

/// Answers whether what was not scanned is right too.
fn what_was_scanned_is_right(dir: &Path, options: &Options, scan: &Scan, head: Head) -> bool {
    let reader = LedgerReader::open(dir, options).expect("it opens");
    let report = verify(&reader, &mut |_| ()).expect("memory does not fail");
    let is_before = |failure: &&Failure| failure.path < scan.path || failure.path == scan.path && failure.offset < scan.from;
    let damaged_before = report.failures.iter().any(|failure| is_before(&failure));
    for failure in report.failures.iter().filter(|failure| !is_before(failure)) {
        let excused = match failure.reason {
            // Not recovery's to judge.
            LineFault::NotErased | LineFault::Blob { .. } => true,
            // What went before is unknown where that is damaged.
            LineFault::SessionSeq { .. } => damaged_before || !scan.streams_known,
            LineFault::Group { .. } | LineFault::Batch => damaged_before,
            _ => false,
        };
        assert!(excused, "recovery let pass what verify does not:\n{report}");
    }
    assert_eq!(reader.head().expect("the last line is right"), head);
    if !damaged_before && report.is_clean() {
        assert_eq!(report.events, head.seq.get());
    }
    !damaged_before
}

/// Two events: one of no session, then one of a session where that can be looked up, else another.
fn append(writer: &mut Writer, options: &Options) {
    let head = writer.head();
    for n in 1..=2 {
        let draft = Draft::new(EventType::SYSTEM_NOTE, Source::Runtime);
        let draft = if n == 2 && writer.floor() == Seq::ZERO { draft.session("s-1") } else { draft };
        let checked = draft.check(&options.limits()).expect("it is within bounds");
        let staged = writer.stage(&[checked], &Conditions::none(), true, &mut Known(None));
        let Ok(Stage::Staged(staged)) = staged else { panic!("{staged:?}") };
        assert_eq!(staged.receipts.first().map(|receipt| receipt.seq.get()), Some(head.seq.get() + n));
        writer.flush().expect("memory does not fail").expect("a group");
    }
}

/// The whole store, with a mirror made by SQLite in a folder of this process's own.
fn with_mirror(scenario: &Scenario) {
    let dir = std::env::temp_dir().join(format!("counterfoil-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder of its own");
    let disk = disk(scenario, &dir);
    let options = options(&disk, 1 << 20);
    let before = disk.files();
    let mut head = match Store::open(&dir, &options) {
        Ok((mut store, report)) => {
            assert_eq!(store.watermark().seq, report.recovery.head.seq);
            let receipt = store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).session("s-1"));
            let receipt = receipt.expect("it can be appended to");
            assert_eq!((receipt.seq, receipt.mirror), (report.recovery.head.seq.next(), MirrorAck::Mirrored));
            store.close().expect("it closes");
            Some(receipt.seq)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let typed = matches!(&error, Error::Ledger(LedgerError::Refused(_) | LedgerError::Damaged { .. }) | Error::Replay(_));
            assert!(typed, "{error}");
            None
        }
    };
    if let Some(seq) = head.take() {
        let reader = LedgerReader::open(&dir, &options).expect("it opens");
        let report = verify(&reader, &mut |_| ()).expect("memory does not fail");
        let active = reader.segments().expect("memory does not fail").pop().expect("it has an event");
        let sealed = |failure: &Failure| failure.path < active.path;
        let excused = |failure: &Failure| match failure.reason {
            LineFault::NotErased | LineFault::Blob { .. } => true,
            // A line that comes again at the end of a sealed segment: replay has read as far as the head by then.
            LineFault::Seq { expected, found } => found < expected && sealed(failure),
            // The chain is whole; which events were written together is verify's to check.
            LineFault::Group { .. } | LineFault::Batch => sealed(failure),
            // Rubbish between the last event of a sealed segment and a line that comes again.
            _ => sealed(failure) && failure.seq >= active.first,
        };
        assert!(report.failures.iter().all(excused), "{report}");
        let parity = parity_full(&reader, &options, None, &mut |_| ()).expect("both are there");
        assert!(!report.is_clean() || parity.is_consistent(), "{parity}");
        let (store, again) = Store::open(&dir, &options).expect("it opens again");
        assert_eq!((again.recovery.head.seq, again.recovery.torn), (seq, None));
        store.close().expect("it closes");
        assert!(before.keys().all(|path| disk.files().contains_key(path)), "no file is removed");
    }
    let _ = std::fs::remove_dir_all(&dir);
}
