//! Goal: what verify and parity find does not depend on how many threads look, where chunks end, or how many positions of streams
//! fit in memory; and verify finds what a simple reading of the format finds.
//!
//! Method: a store of several segments, sessions and a batch is damaged from a seed (bits flipped, bytes cut, lines dropped,
//! repeated and swapped, segments dropped, LF and NUL put in). Each form is checked by several plans, down to a chunk a line
//! and no position in memory, and by a reference of its own here, which goes line by line. A store whose writer was lied to
//! about a stream's position has a line that only the positions give away. COUNTERFOIL_PARALLEL_ROUNDS sets the number of forms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::*;
use counterfoil::*;

fn plan(threads: usize, chunk_bytes: usize, positions_max: usize) -> Plan {
    Plan { threads, chunk_bytes, positions_max, ..Plan::default() }
}

fn plans() -> [Plan; 5] {
    [plan(0, 1 << 20, 1 << 20), plan(0, 1, 0), plan(1, 1, 1), plan(2, 900, 2), plan(3, 1, 0)]
}

/// What a simple reading of the format finds: where each wrong line begins, and what kind of fault it has.
fn reference(dir: &Path) -> Vec<(String, u64, &'static str)> {
    let reader = LedgerReader::open(dir, &Options::default()).unwrap();
    let mut wrong = Vec::new();
    let (mut head, mut link_known, mut lost, mut group, mut batch) = (0u64, true, 0u32, None, None);
    let mut hash = reader.manifest().genesis();
    let mut sessions: HashMap<String, (u64, u32)> = HashMap::new();
    let mut lines = reader.lines_from(Seq::FIRST).unwrap();
    let mut segment = Seq::ZERO;
    while let Some(found) = lines.next_raw().unwrap() {
        let name = format!("{:020}.jsonl", found.segment.get());
        if found.active && !found.raw.terminated && found.raw.is_fill() {
            break;
        }
        let first_line = found.segment != segment;
        segment = found.segment;
        let mut fail = |kind| wrong.push((name.clone(), found.raw.offset, kind));
        let Ok(event) = line::decode(found.raw.bytes) else {
            fail("line");
            (head, link_known, lost, group, batch) = (head + 1, false, lost + 1, None, None);
            continue;
        };
        let seq = event.seq.get();
        let begins = event.group_seq == event.seq;
        let open = batch.filter(|(i, n): &(u32, u32)| i < n);
        let position = event.session.as_ref().map(|(id, at)| (id.to_string(), *at));
        let fits = position.as_ref().is_none_or(|(id, at)| match sessions.get(id) {
            Some((last, then)) if *then != lost => at > last,
            Some((last, _)) => *at == last + 1,
            None if lost > 0 => *at > 0,
            None => *at == 1,
        });
        let group_fits = begins || (!first_line && group.is_none_or(|group| group == event.group_seq));
        let batch_fits = match (open, event.batch) {
            (Some((i, n)), found) => found == Some((i + 1, n)) && (!begins),
            (None, Some((i, _))) => i == 1 || !link_known,
            (None, None) => true,
        };
        let fault = match () {
            () if !found.raw.terminated => Some("end"),
            () if first_line && event.seq != segment => Some("seq"),
            () if seq != head + 1 => Some("seq"),
            () if link_known && event.prev_event_hash != hash => Some("link"),
            () if !fits => Some("session"),
            () if event.payload_is_right() == Some(false) => Some("payload"),
            () if !group_fits => Some("group"),
            () if !batch_fits => Some("batch"),
            () => None,
        };
        if let Some(kind) = fault {
            fail(kind);
            if found.raw.terminated && seq > head + 1 {
                lost += 1;
            }
        }
        (head, hash, link_known, group, batch) = (seq, event.event_hash, true, Some(event.group_seq), event.batch);
        if let Some((id, at)) = position {
            sessions.insert(id, (at, lost));
        }
    }
    wrong
}

fn kind(reason: &LineFault) -> &'static str {
    match reason {
        LineFault::Line(_) => "line",
        LineFault::Unterminated => "end",
        LineFault::Seq { .. } => "seq",
        LineFault::Link { .. } => "link",
        LineFault::SessionSeq { .. } => "session",
        LineFault::Payload => "payload",
        LineFault::Group { .. } => "group",
        LineFault::Batch => "batch",
        _ => "other",
    }
}

/// Checks by all plans; answers what verify found.
fn checked_by_all(dir: &Path, what: &str) -> VerifyReport {
    let options = Options::default();
    let reader = LedgerReader::open(dir, &options).unwrap();
    let by = |plan: &Plan| {
        let verified = verify_by(&reader, None, plan, &mut |_| ()).unwrap();
        let parity = parity_full_by(&reader, &options, None, plan, &mut |_| ()).unwrap();
        (verified, parity)
    };
    let first = by(&plans()[0]);
    for plan in &plans()[1..] {
        let other = by(plan);
        assert_eq!(other, first, "{what}: {plan:?}");
    }
    let name = |failure: &Failure| failure.path.file_name().unwrap().to_string_lossy().into_owned();
    let found: Vec<_> = first.0.failures.iter().map(|failure| (name(failure), failure.offset, kind(&failure.reason))).collect();
    assert_eq!(found, reference(dir), "{what}");
    first.0
}

/// Damages one segment in one way; answers which.
fn damage(dir: &Path, random: &mut Random) -> String {
    let paths = segment_paths(dir);
    let path = &paths[random.below(paths.len() as u64) as usize];
    let mut bytes = fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let (one, other) = (random.below(lines.len() as u64) as usize, random.below(lines.len() as u64) as usize);
    let way = random.below(9);
    match way {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => bytes.splice(at..at, *b"\n\n").for_each(drop),
        4 => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = 0),
        5 | 6 => {
            let line = lines[one].clone();
            if way == 5 {
                lines.insert(other, line)
            } else {
                lines.swap(one, other)
            }
            bytes = lines.concat();
        }
        7 => {
            lines.remove(one);
            bytes = lines.concat();
        }
        _ => {
            fs::remove_file(path).unwrap();
            return format!("{} removed", path.display());
        }
    }
    fs::write(path, &bytes).unwrap();
    format!("{} in way {way} at byte {at}, lines {one} and {other}", path.display())
}

#[test]
fn every_plan_finds_the_same() {
    let (temp, dir, _) = unsynced_store();
    assert!(checked_by_all(&dir, "whole").is_clean());
    let rounds = campaign("COUNTERFOIL_PARALLEL_ROUNDS", 60);
    let mut damaged = 0;
    for seed in 0..rounds {
        let copy = temp.path().join("copy");
        copy_dir(&dir, &copy);
        let mut random = Random::new(seed);
        let what = (0..1 + random.below(3)).map(|_| damage(&copy, &mut random)).collect::<Vec<_>>().join("; ");
        let report = checked_by_all(&copy, &format!("seed {seed}: {what}"));
        damaged += u64::from(!report.is_clean());
        fs::remove_dir_all(&copy).unwrap();
    }
    eprintln!("{rounds} forms, {damaged} of them damaged");
    assert!(damaged > rounds / 2);
}

/// Says of every stream that it is at position 7.
struct Lying;

impl Lookup for Lying {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        Ok(None)
    }
    fn session_seq(&mut self, _: &str) -> Result<Option<u64>, LookupError> {
        Ok(Some(7))
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(None)
    }
}

#[test]
fn a_wrong_position_is_found_beyond_what_fits_in_memory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    let mut random = Random::new(3);
    for _ in 0..8 {
        let draft = |random: &mut Random| note("x").session(format!("s-{}", random.below(40)));
        store.append_batch((0..50).map(|_| draft(&mut random)).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    assert!(checked_by_all(&dir, "400 events in 40 sessions").is_clean());
    let manifest = Manifest::load(&FsStorage, &dir).unwrap().unwrap();
    let mark = Mirror::open(&dir, &manifest, &options).unwrap().watermark();
    let (mut writer, _) = Writer::open(&dir, &manifest, Some(mark), &mut Lying, &options).unwrap();
    writer.stage(&[checked(note("y").session("s-1"))], &Conditions::none(), false, &mut Lying).unwrap();
    writer.flush().unwrap().unwrap();
    writer.trim().unwrap();
    let report = checked_by_all(&dir, "a wrong position");
    assert_eq!(report.failures_count, 1, "{report}");
    assert!(matches!(report.failures[0].reason, LineFault::SessionSeq { found: 8, .. }), "{report}");
}

#[test]
fn a_line_from_behind_the_end_does_not_end_a_check() {
    let (_temp, dir, options) = unsynced_store();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let through = Seq::new(10);
    let paths = segment_paths(&dir);
    let last = fs::read_to_string(paths.last().unwrap()).unwrap();
    let beyond = last.lines().rfind(|line| line.contains("\"seq\":12,")).unwrap();
    let first = fs::read_to_string(&paths[0]).unwrap();
    let (head, rest) = first.split_once('\n').unwrap();
    for lines in [format!("{beyond}\n"), format!("{beyond}\n{beyond}\n")] {
        fs::write(&paths[0], format!("{head}\n{lines}{rest}")).unwrap();
        for plan in &plans() {
            let report = verify_by(&reader, Some(through), plan, &mut |_| ()).unwrap();
            assert_eq!((report.events, report.failures_count), (10, 1), "{report}");
            assert!(matches!(report.failures[0].reason, LineFault::Seq { found, .. } if found.get() == 12), "{report}");
            let parity = parity_full_by(&reader, &options, Some(through), plan, &mut |_| ()).unwrap();
            assert_eq!((parity.jsonl_event_count, parity.findings_count, parity.missing_in_jsonl.count), (10, 1, 0), "{parity}");
        }
    }
}

#[test]
fn the_last_line_of_a_sealed_segment_without_its_lf_is_read_once() {
    let (_temp, dir, options) = unsynced_store();
    let reader = LedgerReader::open(&dir, &options).unwrap();
    let paths = segment_paths(&dir);
    let text = fs::read_to_string(&paths[0]).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let end = Seq::new(lines.len() as u64);
    // The first line is damaged, so that the check goes on to the segment's end without having been there.
    let damaged = text.replacen("\"seq\":1,", "\"sEq\":1,", 1);
    fs::write(&paths[0], damaged.trim_end()).unwrap();
    for plan in &plans() {
        let report = verify_by(&reader, Some(end), plan, &mut |_| ()).unwrap();
        let at = report.failures.iter().map(|failure| failure.line).collect::<Vec<_>>();
        assert_eq!(at, [1, end.get()], "{report}");
    }
}
