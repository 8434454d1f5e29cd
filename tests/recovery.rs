//! Goal: open does with a tail exactly what the last table of FORMAT.md says. Nothing at or below D is ever cut, what
//! is cut lies in torn/ byte for byte, what is kept keeps its bytes, and where the table says refuse, nothing changes.
//!
//! Method: a small store whose last groups are not mirrored (the watermark D stands before them) is edited in every
//! way that the table names, at every byte where that has a meaning, and opened by the writer. What came out is one
//! table, `snapshots/recovery_table.snap`. The editing is the crash, so the disk's fsync does nothing here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use counterfoil::*;

/// A store, the bytes of its active segment, and where D and the last group stand there.
struct Case {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    options: Options,
    manifest: Manifest,
    mark: Watermark,
    active: PathBuf,
    bytes: Vec<u8>,
    /// Ends of the active segment's lines.
    ends: Vec<usize>,
    /// Offset behind the line at D.
    durable: usize,
    /// Position of the stream `s-1` at D.
    position: u64,
    /// Outcomes so far: the costly checks run for each new one, and for some of the others.
    seen: RefCell<HashMap<String, usize>>,
}

fn events(from: u64, to: u64) -> Vec<Draft> {
    (from..to).map(|n| note("{\"seq\":").id(id(n)).session("s-1").payload_json(format!("{{\"seq\":{n},\"k\":{{}}}}")).unwrap()).collect()
}

impl Case {
    /// 13 mirrored events (the last one in a segment that goes on), then these groups.
    fn new(groups: Vec<Vec<Draft>>) -> Case {
        Case::with(|dir, options| unmirrored_groups(dir, options, groups))
    }

    /// The same, then one unmirrored batch.
    fn batch(drafts: Vec<Draft>) -> Case {
        Case::with(|dir, options| {
            let (mut writer, mut mirror) = writer(dir, options);
            let drafts: Vec<_> = drafts.into_iter().map(checked).collect();
            writer.stage(&drafts, &Conditions::none(), false, &mut mirror).unwrap();
            writer.flush().unwrap().unwrap();
            writer.trim().unwrap();
        })
    }

    fn with(last: impl FnOnce(&Path, &Options)) -> Case {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut options = small_segments();
        disk::without_sync(&mut options);
        filled(&dir, &options);
        options.segment_bytes_max = 1 << 20;
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        store.append(note("the last mirrored one").session("s-1")).unwrap();
        let (mark, manifest) = (store.watermark(), store.manifest().clone());
        store.close().unwrap();
        last(&dir, &options);
        let active = segment_paths(&dir).pop().unwrap();
        let bytes = fs::read(&active).unwrap();
        let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        let durable = *ends.iter().find(|end| **end as u64 > mark.offset).unwrap();
        Case { _temp: temp, dir, options, manifest, mark, active, bytes, ends, durable, position: 7, seen: RefCell::default() }
    }

    /// Opens the ledger with this active segment; checks the promises that hold whatever happens.
    fn open(&self, bytes: &[u8]) -> String {
        let torn = self.dir.join("torn");
        let _ = fs::remove_dir_all(&torn);
        fs::write(&self.active, bytes).unwrap();
        let mut positions = Positions(self.position);
        match Writer::open(&self.dir, &self.manifest, Some(self.mark), &mut positions, &self.options) {
            Ok((writer, report)) => {
                let now = fs::read(&self.active).unwrap();
                assert_eq!(now[..self.durable], self.bytes[..self.durable], "nothing at or below D is cut");
                let added = usize::from(!now.is_empty() && now.len() > bytes.len());
                assert_eq!(now[..now.len() - added], bytes[..now.len() - added], "kept lines keep their bytes");
                let outcome = match report.torn {
                    None => format!("clean, head {}", report.head.seq),
                    Some(cut) => {
                        let saved = fs::read(&cut.saved).unwrap();
                        assert_eq!(saved, bytes[cut.offset as usize..], "what was cut is in torn/");
                        assert_eq!((cut.offset as usize, cut.bytes as usize), (now.len(), saved.len()));
                        format!("torn, head {}", report.head.seq)
                    }
                };
                let outcome = if added == 1 { outcome + ", its LF added" } else { outcome };
                let mut seen = self.seen.borrow_mut();
                let count = seen.entry(outcome.clone()).or_default();
                if count.is_multiple_of(32) {
                    self.goes_on(writer, report.head);
                }
                *count += 1;
                outcome
            }
            Err(LedgerError::Refused(refusal)) => {
                assert_eq!(fs::read(&self.active).unwrap(), bytes, "a refusal changes nothing");
                assert!(!torn.exists());
                let text = refusal.to_string();
                assert!(text.contains(&self.active.display().to_string()) && text.contains("byte"), "{text}");
                assert!(text.contains("`counterfoil "), "{text}");
                match *refusal {
                    Refusal::LaterGroup { seq, later, .. } => format!("refused: seq {seq} damaged before seq {later} of a later group"),
                    Refusal::Splice { fault: LineFault::Seq { expected, found }, .. } => {
                        format!("refused: a splice, seq {found} where {expected} belongs")
                    }
                    Refusal::Splice { fault: LineFault::Link { .. }, .. } => "refused: a splice, another prev".to_owned(),
                    Refusal::LostDurable { valid, durable, .. } => format!("refused: ends at {valid}, but {durable} was durable"),
                    other => format!("refused: {other}"),
                }
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// After recovery the ledger verifies, opens clean, and takes appends.
    fn goes_on(&self, mut writer: Writer, head: Head) {
        let append = |writer: &mut Writer| {
            let draft = checked(note("after"));
            let Stage::Staged(staged) = writer.stage(&[draft], &Conditions::none(), true, &mut Positions(self.position)).unwrap() else {
                panic!("the group is empty, so it is not full")
            };
            writer.flush().unwrap().unwrap();
            staged.receipts[0].clone()
        };
        assert_eq!(append(&mut writer).seq, head.seq.next());
        drop(writer);
        let (mut writer, report) =
            Writer::open(&self.dir, &self.manifest, Some(self.mark), &mut Positions(self.position), &self.options).unwrap();
        assert_eq!((report.torn, report.head.seq), (None, head.seq.next()), "the second open is clean");
        assert_eq!(append(&mut writer).seq.get(), head.seq.get() + 2);
        drop(writer);
        let report = verified(&self.dir);
        assert!(report.is_clean(), "{report}");
    }

    fn hole(&self, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let end = (start + len).min(bytes.len());
        bytes[start..end].fill(0);
        bytes
    }
}

/// Streams as the filled store has them.
struct Positions(u64);

impl Lookup for Positions {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        Ok(None)
    }
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
        Ok((session_id == "s-1").then_some(self.0))
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(Some(EventId::from_u128(u128::MAX)))
    }
}

/// Outcomes of one kind of edit, with how often and where first and last.
#[derive(Default)]
struct Tally {
    table: String,
    cases: usize,
}

impl Tally {
    fn add(&mut self, what: &str, outcomes: impl IntoIterator<Item = (usize, String)>) {
        let mut rows: Vec<(String, usize, usize, usize)> = Vec::new();
        for (at, outcome) in outcomes {
            self.cases += 1;
            match rows.iter_mut().find(|row| row.0 == outcome) {
                Some(row) => (row.1, row.3) = (row.1 + 1, at),
                None => rows.push((outcome, 1, at, at)),
            }
        }
        writeln!(self.table, "{what}").unwrap();
        for (outcome, count, first, last) in rows {
            let places = if first == last { format!("at byte {first}") } else { format!("at bytes {first} to {last}") };
            writeln!(self.table, "  {count:>5}  {outcome}  ({places})").unwrap();
        }
    }
}

#[test]
fn every_row_of_the_table() {
    let parts = [cut_and_hole, hole_before_a_later_group, splices, batches, below_the_watermark];
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .map(|part| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    part(&mut tally);
                    tally
                })
            })
            .into_iter()
            .collect();
        running.into_iter().map(|part| part.join().unwrap()).collect()
    });
    let (table, cases) = tallies.iter().fold((String::new(), 0), |(table, cases), tally| (table + &tally.table, cases + tally.cases));
    eprintln!("{cases} tails were opened");
    snapshots(|| insta::assert_snapshot!("recovery_table", table));
}

fn cut_and_hole(tally: &mut Tally) {
    let case = Case::new(vec![events(1, 4)]);
    let (from, to) = (case.durable, case.bytes.len());
    assert_eq!(case.ends.iter().filter(|end| **end > from).count(), 3);
    tally.add("the last group of three, cut at each byte", (from..=to).map(|at| (at, case.open(&case.bytes[..at]))));
    for fill in [vec![b'\n'; 100], vec![0; 5000], [vec![b'\n'; 3], vec![0; 9], vec![b'\n'; 2]].concat()] {
        let bytes = [case.bytes.clone(), fill].concat();
        tally.add("the whole group with fill behind it", [(to, case.open(&bytes))]);
        let torn = [&case.bytes[..to - 40], &bytes[to..]].concat();
        tally.add("the group cut 40 bytes before its end, with fill behind it", [(to - 40, case.open(&torn))]);
    }
    tally.add("a hole of one zero at each byte of it", (from..to).map(|at| (at, case.open(&case.hole(at, 1)))));
    for len in [100, 512, 1024, to] {
        let what = format!("a hole of {len} zeros at each seventh byte of it");
        tally.add(&what, (from..to).step_by(7).map(|at| (at, case.open(&case.hole(at, len)))));
    }
}

fn hole_before_a_later_group(tally: &mut Tally) {
    let case = Case::new(vec![events(1, 4), events(4, 5)]);
    let from = case.durable;
    let later = case.ends[case.ends.len() - 2];
    let to_its_end = |at: usize| later - at;
    tally
        .add("a hole of one zero at each byte of a group that another follows", (from..later).map(|at| (at, case.open(&case.hole(at, 1)))));
    let what = "a hole from each third byte up to the next group's first byte";
    tally.add(what, (from..later).step_by(3).map(|at| (at, case.open(&case.hole(at, to_its_end(at))))));
    let what = "the same, ten bytes into the next group, which is the last";
    tally.add(what, (from..later).step_by(31).map(|at| (at, case.open(&case.hole(at, to_its_end(at) + 10)))));
    tally.add("the next group cut at each seventh byte", (later..case.bytes.len()).step_by(7).map(|at| (at, case.open(&case.bytes[..at]))));
    // Damage before D's end is not a tail: with the watermark there, no line above it is reached.
    let bytes = &mut case.bytes.clone();
    bytes[case.mark.offset as usize + 30] ^= 1;
    tally.add("the line at D damaged", [(0, case.open(bytes))]);
}

fn splices(tally: &mut Tally) {
    let case = Case::new(vec![events(1, 4)]);
    let line_of = |n: usize| {
        let from = if n == 0 { 0 } else { case.ends[n - 1] };
        case.bytes[from..case.ends[n]].to_vec()
    };
    let with = |tail: &[u8]| [&case.bytes[..], tail].concat();
    let to = case.bytes.len();
    for n in 0..case.ends.len() {
        assert!(matches!(line::decode(line_of(n).trim_ascii_end()), Ok(event) if event.seq.get() >= 9));
    }
    tally.add("an earlier line again at the end", (0..case.ends.len()).map(|n| (to, case.open(&with(&line_of(n))))));
    let text = line_of(case.ends.len() - 1);
    let last = line::decode(text.strip_suffix(b"\n").unwrap()).unwrap();
    let relined = |seq: u64, group: u64, prev: EventHash| {
        let mut event = last.clone();
        (event.seq, event.group_seq, event.prev_event_hash, event.id) = (Seq::new(seq), Seq::new(group), prev, id(99));
        event.session = None;
        let mut bytes = Vec::new();
        line::encode(&event, &mut bytes);
        event.event_hash = chain::event_hash(chain::material(&bytes).unwrap());
        bytes.clear();
        line::encode(&event, &mut bytes);
        bytes.push(b'\n');
        bytes
    };
    let v = last.seq.get();
    let foreign = chain::genesis(LedgerId::from_u128(5));
    tally.add("the first line of another ledger", [(to, case.open(&with(&relined(1, 1, foreign))))]);
    tally.add("a right line with seq v+1 and another prev", [(to, case.open(&with(&relined(v + 1, v + 1, foreign))))]);
    tally.add("the same without its LF", [(to, case.open(with(&relined(v + 1, v + 1, foreign)).strip_suffix(b"\n").unwrap()))]);
    tally.add("the same behind garbage", [(to, case.open(&with(&[b"gar{bage", &relined(v + 1, v + 1, foreign)[..]].concat())))]);
    tally.add("a right line with seq v+2 of the group that v+1 began", [(to, case.open(&with(&relined(v + 2, v + 1, foreign))))]);
    tally.add("a right line with seq v+2 of a group of its own", [(to, case.open(&with(&relined(v + 2, v + 2, foreign))))]);
    tally.add("a right line that goes on from v", [(to, case.open(&with(&relined(v + 1, v + 1, last.event_hash))))]);
    tally.add("text that is no line", [(to, case.open(&with(b"hello\n{\"seq\":\n")))]);
}

fn batches(tally: &mut Tally) {
    let case = Case::batch(events(1, 4));
    let (from, to) = (case.durable, case.bytes.len());
    tally.add("a batch of three at the end, cut at each byte", (from..=to).map(|at| (at, case.open(&case.bytes[..at]))));
    tally.add("a hole of one zero at each fifth byte of it", (from..to).step_by(5).map(|at| (at, case.open(&case.hole(at, 1)))));
    // D inside the batch: it was durable as a whole, so a part of it is a loss.
    let first = &case.bytes[from..*case.ends.iter().find(|end| **end > from).unwrap() - 1];
    let event = line::decode(first).unwrap();
    let mark = Watermark { seq: event.seq, event_hash: event.event_hash, offset: from as u64, ..case.mark };
    let inside = Case { mark, durable: from + first.len() + 1, position: 8, ..case };
    let from = inside.durable;
    tally.add("the same cut with D at the batch's first event", (from..=to).map(|at| (at, inside.open(&inside.bytes[..at]))));
}

fn below_the_watermark(tally: &mut Tally) {
    let case = Case::new(vec![events(1, 3)]);
    tally.add(
        "the active segment cut at each third byte up to D's end, and at its last ones",
        (0..case.durable - 9).step_by(3).chain(case.durable - 9..case.durable).map(|at| (at, case.open(&case.bytes[..at]))),
    );
    // The stored offset is a hint: a wrong one costs a scan.
    for offset in [0, 1, 5000, case.mark.offset - 1] {
        let (writer, report) = {
            fs::write(&case.active, &case.bytes).unwrap();
            let mark = Watermark { offset, ..case.mark };
            Writer::open(&case.dir, &case.manifest, Some(mark), &mut Positions(case.position), &case.options).unwrap()
        };
        assert_eq!((report.torn, writer.head().seq.get()), (None, 15));
    }
}

#[test]
fn sealed_segments_must_meet() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    disk::without_sync(&mut options);
    filled(&dir, &options);
    let paths = segment_paths(&dir);
    let originals: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(paths.len() >= 4, "{} segments", paths.len());
    let mut texts = String::new();
    let mut check = |what: &str| {
        let before = segments(&dir);
        let (refused, text) = refusal(&dir, &options);
        assert!(matches!(refused, Refusal::SegmentsDoNotMeet { .. } | Refusal::LostDurable { .. }), "{text}");
        assert_eq!(segments(&dir), before, "a refusal changes nothing");
        writeln!(texts, "{what}\n  {}", portable(text, &dir)).unwrap();
        for (path, bytes) in paths.iter().zip(&originals) {
            fs::write(path, bytes).unwrap();
        }
    };
    for (n, path) in paths.iter().enumerate() {
        fs::remove_file(path).unwrap();
        check(&format!("segment {} of {} missing", n + 1, paths.len()));
    }
    let sealed = &originals[1];
    let last_line = sealed[..sealed.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    fs::write(&paths[1], &sealed[..last_line]).unwrap();
    check("the last line of a sealed segment missing");
    fs::write(&paths[1], &sealed[..sealed.len() - 9]).unwrap();
    check("a sealed segment cut inside its last line");
    fs::write(&paths[1], &sealed[..sealed.len() - 1]).unwrap();
    check("a sealed segment without its last LF");
    fs::write(&paths[1], b"").unwrap();
    check("a sealed segment empty");
    let mut bytes = sealed.clone();
    bytes[50] ^= 1;
    fs::write(&paths[1], bytes).unwrap();
    check("the first line of a sealed segment damaged");
    fs::write(&paths[1], &originals[2]).unwrap();
    check("a sealed segment overwritten by the next one");
    fs::rename(paths.last().unwrap(), dir.join("segments/00000000000000000099.jsonl")).unwrap();
    let (refused, text) = refusal(&dir, &options);
    assert!(matches!(refused, Refusal::SegmentsDoNotMeet { .. }), "{text}");
    fs::remove_file(dir.join("segments/00000000000000000099.jsonl")).unwrap();
    check("the last segment gone");
    snapshots(|| insta::assert_snapshot!("recovery_sealed_segments", texts));
    open_is_clean(&dir, &options);
}

#[test]
fn an_open_group_of_the_store_itself_recovers_and_is_mirrored() {
    // The whole open, mirror and all, at a few of the cuts.
    let case = Case::new(vec![events(1, 4), events(4, 6)]);
    let mirror = files(&case.dir);
    for at in (case.durable..=case.bytes.len()).step_by(191) {
        for (name, bytes) in mirror.iter().filter(|(name, _)| name.to_string_lossy().starts_with("mirror")) {
            fs::write(case.dir.join(name), bytes).unwrap();
        }
        fs::write(&case.active, &case.bytes[..at]).unwrap();
        let report = open_is_clean(&case.dir, &case.options);
        let whole = case.ends.iter().filter(|end| **end <= at || **end == at + 1).count()
            - case.ends.iter().filter(|end| **end <= case.durable).count();
        assert_eq!(report.replay.replayed as usize, whole);
        assert_eq!(open_is_clean(&case.dir, &case.options).recovery.torn, None);
    }
}

#[test]
fn mirrors_of_other_moments_and_ledgers() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, other) = (temp.path().join("store"), temp.path().join("other"));
    let options = small_segments();
    filled(&dir, &options);
    filled(&other, &options);
    let older = fs::read(mirror_path(&dir)).unwrap();
    let older_ledger = temp.path().join("older");
    copy_dir(&dir, &older_ledger);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for n in 0..5 {
        store.append(note("later").id(id(n)).session("s-1")).unwrap();
    }
    store.close().unwrap();
    let newer = fs::read(mirror_path(&dir)).unwrap();
    let whole = segments(&dir);

    // Another ledger's mirror is no evidence of anything here: it is set aside, and the ledger read afresh.
    fs::copy(mirror_path(&other), mirror_path(&dir)).unwrap();
    let report = open_is_clean(&dir, &options);
    let aside = report.mirror_set_aside.unwrap();
    assert_eq!(fs::read(&aside).unwrap().len(), fs::read(mirror_path(&other)).unwrap().len());
    assert_eq!((report.replay.replayed, report.replay.skipped_existing), (17, 0));
    assert_eq!(segments(&dir), whole);

    // An older one is brought up.
    fs::write(mirror_path(&dir), &older).unwrap();
    let report = open_is_clean(&dir, &options);
    assert_eq!((report.mirror_set_aside, report.replay.replayed), (None, 5));
    assert_eq!(segments(&dir), whole);

    // A newer one beside an older ledger is evidence of a loss; it brings the very bytes back.
    fs::write(mirror_path(&older_ledger), &newer).unwrap();
    let (refused, text) = refusal(&older_ledger, &options);
    assert!(matches!(refused, Refusal::LostDurable { valid, durable, .. } if valid.get() == 12 && durable.get() == 17), "{text}");
    repair_from_mirror(&older_ledger, &options, &mut |_| ()).unwrap();
    assert_eq!(segments(&older_ledger), whole);
    open_is_clean(&older_ledger, &options);
}

#[test]
fn two_histories_of_one_ledger_are_refused_and_the_ledgers_can_be_chosen() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, fork) = (temp.path().join("store"), temp.path().join("fork"));
    let options = small_segments();
    filled(&dir, &options);
    copy_dir(&dir, &fork);
    for (dir, text) in [(&dir, "one way"), (&fork, "the other way")] {
        let (mut store, _) = Store::open(dir, &options).unwrap();
        store.append(note(text)).unwrap();
        store.append(note(text)).unwrap();
        store.close().unwrap();
    }
    fs::copy(mirror_path(&fork), mirror_path(&dir)).unwrap();
    let before = files(&dir.join("segments"));
    let (refused, text) = refusal(&dir, &options);
    assert!(matches!(refused, Refusal::TwoHistories { seq, .. } if seq.get() == 14), "{text}");
    assert_eq!(files(&dir.join("segments")), before);
    snapshots(|| insta::assert_snapshot!("two_histories", portable(text, &dir)));

    let report = repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    assert_eq!(report.rows_written, 2);
    // The other history is still there, in the copy.
    assert_eq!(report.set_aside.len(), 1, "the rows that were replaced are kept");
    let aside = rusqlite::Connection::open(&report.set_aside[0]).unwrap();
    let kept: String = aside.query_row("SELECT payload FROM events WHERE seq = 13", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "\"the other way\"");
    assert_eq!(files(&dir.join("segments")), before);
    open_is_clean(&dir, &options);
}
