//! Goal: what the ledger has lost and the mirror still has comes back byte for byte, when an operator says so: whole
//! segments, cut ends, damaged lines, ledger.json. Open never does it by itself; it refuses and names the command.
//!
//! Method: the files of a small store are deleted, cut and damaged; open must refuse (or verify must name it, where
//! open does not look), `repair_from_mirror` must restore the very files, and then all must be clean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::*;
use counterfoil::*;

struct Case {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    options: Options,
    whole: BTreeMap<PathBuf, Vec<u8>>,
    paths: Vec<PathBuf>,
}

impl Case {
    fn new() -> Case {
        let (temp, dir, options) = unsynced_store();
        let (whole, paths) = (segments(&dir), segment_paths(&dir));
        assert!(paths.len() >= 4);
        Case { _temp: temp, dir, options, whole, paths }
    }

    fn repair(&self, what: &str) -> RepairReport {
        let report = repair_from_mirror(&self.dir, &self.options, &mut |_| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(segments(&self.dir) == self.whole, "{what}: not the very bytes");
        report
    }

    fn clean(&self, what: &str) {
        let (store, report) = Store::open(&self.dir, &self.options).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((report.recovery.torn, report.replay.replayed), (None, 0), "{what}");
        store.close().unwrap();
        assert!(parity(&self.dir).is_consistent(), "{what}");
        assert!(verified(&self.dir).is_clean(), "{what}");
    }

    /// Open refuses and changes nothing; repair restores; all is clean.
    fn refused_then_restored(&self, what: &str) -> (String, RepairReport) {
        let before = segments(&self.dir);
        let (refused, text) = refusal(&self.dir, &self.options);
        assert_eq!(segments(&self.dir), before, "{what}: a refusal changes nothing");
        assert!(text.contains("`counterfoil repair --from mirror`"), "{what}: {text}");
        assert!(text.contains(".jsonl"), "{what}: {text}");
        assert!(matches!(refused, Refusal::LostDurable { .. } | Refusal::SegmentsDoNotMeet { .. }), "{what}: {text}");
        let report = self.repair(what);
        self.clean(what);
        (text, report)
    }
}

#[test]
fn lost_segments() {
    let case = Case::new();
    for which in 0..case.paths.len() {
        fs::remove_file(&case.paths[which]).unwrap();
        let (_, report) = case.refused_then_restored(&format!("segment {which}"));
        assert_eq!(report.segments_written, [case.paths[which].clone()]);
        assert!(report.lines_restored > 0 && report.set_aside.is_empty());
    }
    for path in &case.paths {
        fs::remove_file(path).unwrap();
    }
    let (text, report) = case.refused_then_restored("all files");
    assert_eq!((report.lines_restored, report.segments_written.len()), (12, case.paths.len()));
    insta::assert_snapshot!(portable(text, &case.dir), @"<store>/segments/00000000000000000001.jsonl, byte 0: the ledger ends at seq 0, but seq 12 was durable (the mirror has it): durable events are lost; run `counterfoil repair --from mirror`");
    fs::remove_dir_all(case.dir.join("segments")).unwrap();
    case.refused_then_restored("the directory");
}

#[test]
fn lost_segments_after_a_repair_of_the_mirror() {
    let case = Case::new();
    // A repair of rows ends where the watermark was; the list of segments is there afterwards as before.
    let conn = common::by_hand(&case.dir);
    conn.execute("UPDATE events SET payload = '9' WHERE seq = 2", []).unwrap();
    drop(conn);
    assert_eq!(repair_from_ledger(&case.dir, &case.options, &mut |_| ()).unwrap().rows_written, 1);
    fs::remove_file(&case.paths[1]).unwrap();
    case.refused_then_restored("a lost segment after a repair of the mirror");
}

#[test]
fn cut_below_the_watermark() {
    let case = Case::new();
    let mut cuts = 0;
    let last = case.paths.last().unwrap();
    let bytes = fs::read(last).unwrap();
    // But for the last byte: a line that lacks its LF alone is whole, and gets it back.
    for keep in (0..bytes.len() - 1).step_by(13) {
        fs::write(last, &bytes[..keep]).unwrap();
        let (text, report) = case.refused_then_restored(&format!("cut to {keep}"));
        assert!(text.contains("seq 12 was durable"), "{text}");
        assert_eq!(fs::read(&report.set_aside[0]).unwrap(), bytes[..keep], "the damaged file is kept");
        cuts += 1;
    }
    for path in &case.paths[..case.paths.len() - 1] {
        let bytes = fs::read(path).unwrap();
        for keep in (0..bytes.len()).step_by(101) {
            fs::write(path, &bytes[..keep]).unwrap();
            case.refused_then_restored(&format!("{} cut to {keep}", path.display()));
            cuts += 1;
        }
    }
    fs::write(last, &bytes[..bytes.len() - 1]).unwrap();
    open_is_clean(&case.dir, &case.options);
    assert_eq!(segments(&case.dir), case.whole);
    eprintln!("{cuts} cuts were refused and restored");
}

#[test]
fn damaged_lines() {
    let case = Case::new();
    let (mut refusals, mut found_by_verify) = (0, 0);
    for path in &case.paths {
        let bytes = fs::read(path).unwrap();
        for at in (0..bytes.len()).step_by(57) {
            for damage in [&b"\0"[..], b"\n", b"XXXXXXXX"] {
                let mut damaged = bytes.clone();
                let to = (at + damage.len()).min(bytes.len());
                damaged[at..to].copy_from_slice(&damage[..to - at]);
                if damaged == bytes {
                    continue;
                }
                let what = format!("{} at {at}: {damage:?}", path.display());
                fs::write(path, &damaged).unwrap();
                let report = verified(&case.dir);
                assert!(!report.is_clean() && report.failures[0].path == *path, "{what}: {report}");
                assert!(!parity(&case.dir).is_consistent(), "{what}");
                // Open looks at the ends of sealed segments and at what lies behind the watermark; the rest is verify's.
                match Store::open(&case.dir, &case.options) {
                    Err(error) => {
                        assert!(error.is_refused(), "{what}: {error}");
                        refusals += 1;
                    }
                    Ok(_) => found_by_verify += 1,
                }
                assert!(fs::read(path).unwrap() == damaged, "{what}: open changes nothing");
                let report = case.repair(&what);
                assert!(report.set_aside.iter().any(|kept| fs::read(kept).unwrap() == damaged), "{what}: the damaged file is kept");
                fs::remove_dir_all(case.dir.join("torn")).unwrap();
            }
        }
    }
    case.clean("in the end");
    eprintln!("{refusals} damages were refused by open, {found_by_verify} named by verify, all restored");
    assert!(refusals > 20 && found_by_verify > 20);
}

#[test]
fn the_manifest() {
    let case = Case::new();
    let path = case.dir.join("ledger.json");
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (refused, text) = refusal(&case.dir, &case.options);
    assert!(matches!(refused, Refusal::NoManifest { .. }), "{text}");
    insta::assert_snapshot!(portable(text, &case.dir), @"<store>/ledger.json is missing, though the store has events; run `counterfoil repair --from mirror` where there is a mirror, else restore the file from a backup (its ledger_id is what the chain begins with)");
    let error = LedgerReader::open(&case.dir, &case.options).unwrap_err();
    assert!(matches!(&error, LedgerError::Refused(refusal) if matches!(**refusal, Refusal::NoManifest { .. })), "{error}");
    let report = case.repair("manifest");
    assert!(report.manifest_restored && report.segments_written.is_empty());
    assert_eq!(fs::read(&path).unwrap(), bytes);
    case.clean("manifest");

    // With everything else gone but the mirror.
    fs::remove_file(&path).unwrap();
    fs::remove_dir_all(case.dir.join("segments")).unwrap();
    refusal(&case.dir, &case.options);
    case.repair("mirror alone");
    assert_eq!(fs::read(&path).unwrap(), bytes);
    case.clean("mirror alone");
}

#[test]
fn a_spliced_line_goes_to_torn() {
    let case = Case::new();
    let last = case.paths.last().unwrap();
    let bytes = fs::read(last).unwrap();
    let spliced = [&bytes[..], &fs::read(&case.paths[0]).unwrap()].concat();
    fs::write(last, &spliced).unwrap();
    let (refused, text) = refusal(&case.dir, &case.options);
    assert!(matches!(refused, Refusal::Splice { .. }), "{text}");
    insta::assert_snapshot!(portable(text, &case.dir), @"<store>/segments/00000000000000000012.jsonl, byte 535: seq 1 where 13 belongs: a second writer or a splice, not a torn tail; run `counterfoil verify` to see where, and `counterfoil repair --from mirror` to restore what the mirror has");
    let report = case.repair("splice");
    assert_eq!(report.lines_restored, 0);
    assert_eq!(fs::read(&report.set_aside[0]).unwrap(), spliced);
    case.clean("splice");
}

#[test]
fn a_segment_under_a_wrong_name_goes_to_torn() {
    let case = Case::new();
    let (right, wrong) = (&case.paths[0], case.paths[0].with_file_name(format!("{:020}.jsonl", 2)));
    assert!(wrong < case.paths[1], "a seq within the first segment");
    let bytes = fs::read(right).unwrap();
    fs::rename(right, &wrong).unwrap();
    let (_, report) = case.refused_then_restored("renamed");
    assert_eq!(fs::read(&report.set_aside[0]).unwrap(), bytes);
    assert!(!wrong.exists());
}

#[test]
fn lines_that_the_mirror_lacks_are_kept() {
    let case = Case::new();
    unmirrored_groups(&case.dir, &case.options, vec![vec![note("13"), note("14")], vec![note("15")], vec![note("16")]]);
    let whole = segments(&case.dir);
    assert!(whole.len() > case.whole.len());
    let path = &case.paths[1];
    fs::remove_file(path).unwrap();
    repair_from_mirror(&case.dir, &case.options, &mut |_| ()).unwrap();
    assert_eq!(segments(&case.dir), whole);
    let report = open_is_clean(&case.dir, &case.options);
    assert_eq!((report.recovery.torn, report.replay.replayed), (None, 4));
}

#[test]
fn what_neither_leg_has_is_not_papered_over() {
    // Two groups that are not mirrored; the first is damaged, the second proves that it was fsynced.
    let mut case = Case::new();
    case.options.segment_bytes_max = 1 << 20;
    unmirrored_groups(&case.dir, &case.options, vec![vec![note("13")], vec![note("14")]]);
    let last = case.paths.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    let at = bytes.windows(8).position(|w| w == b"\"seq\":13").unwrap();
    bytes[at + 30] ^= 1;
    fs::write(last, &bytes).unwrap();
    let (refused, text) = refusal(&case.dir, &case.options);
    assert!(matches!(refused, Refusal::LaterGroup { seq, later, .. } if seq.get() == 13 && later.get() == 14), "{text}");
    let error = repair_from_mirror(&case.dir, &case.options, &mut |_| ()).unwrap_err();
    assert!(matches!(&error, RepairError::Unrecoverable { seq, .. } if seq.get() == 13), "{error}");
    insta::assert_snapshot!(portable(error, &case.dir), @"neither the ledger nor the mirror has a right line for seq 13 (the mirror has no row, though seq 14 of a later group stands behind it); restore the store from a backup");
    assert_eq!(fs::read(last).unwrap(), bytes, "nothing changed");
    // Nor where the later group has a segment of its own.
    fs::write(last, &bytes[..at]).unwrap();
    fs::write(case.dir.join("segments/00000000000000000014.jsonl"), b"").unwrap();
    let error = repair_from_mirror(&case.dir, &case.options, &mut |_| ()).unwrap_err();
    assert!(matches!(&error, RepairError::Unrecoverable { seq, .. } if seq.get() == 13), "{error}");
    fs::remove_file(case.dir.join("segments/00000000000000000014.jsonl")).unwrap();
    // A row that was edited is no source either.
    fs::write(last, &case.whole[last.strip_prefix(case.dir.join("segments")).unwrap()]).unwrap();
    fs::remove_file(&case.paths[0]).unwrap();
    let mirror = common::by_hand(&case.dir);
    mirror.execute("UPDATE events SET payload = '\"forged\"' WHERE seq = 2", []).unwrap();
    drop(mirror);
    let error = repair_from_mirror(&case.dir, &case.options, &mut |_| ()).unwrap_err();
    insta::assert_snapshot!(portable(error, &case.dir), @"neither the ledger nor the mirror has a right line for seq 2 (the mirror's row: the payload does not fit payload_hash); restore the store from a backup");
    assert!(!case.paths[0].exists(), "a part of a segment is not left under its name");
}

#[test]
fn what_is_replaced_is_kept_whichever_read_fails() {
    let case = Case::new();
    let mut options = case.options.clone();
    let switches = disk::faulty(&mut options);
    let path = &case.paths[1];
    let mut damaged = fs::read(path).unwrap();
    damaged[100] ^= 1;
    for after in 0.. {
        fs::write(path, &damaged).unwrap();
        let _ = fs::remove_dir_all(case.dir.join("torn"));
        switches.fail_once(disk::Op::OpenRead, std::io::ErrorKind::Other, after);
        let failed = repair_from_mirror(&case.dir, &options, &mut |_| ()).is_err();
        let ended = switches.is_armed();
        switches.heal();
        assert!(failed != ended, "read {after}: it says so");
        case.repair(&format!("read {after}"));
        assert!(files(&case.dir.join("torn")).values().any(|kept| *kept == damaged), "read {after}: what was replaced is lost");
        if ended {
            assert!(after > 5);
            return;
        }
    }
}

#[test]
fn a_payload_that_was_taken_away() {
    let case = Case::new();
    // The form of an erased event, and no erasure that names it. The hashes fit.
    let blank = |text: &str, seq: u64| -> String {
        let blanked = |line: &str| match line.find(",\"payload\":") {
            Some(at) if line.starts_with(&format!("{{\"seq\":{seq},")) => format!("{},\"erased\":true}}\n", &line[..at]),
            _ => format!("{line}\n"),
        };
        text.lines().map(blanked).collect()
    };
    for path in &case.paths {
        let text = fs::read_to_string(path).unwrap();
        let seq: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        fs::write(path, blank(&text, seq)).unwrap();
        assert_eq!(verified(&case.dir).failures_count, 1, "seq {seq}");
        let report = case.repair(&format!("seq {seq}"));
        assert_eq!((report.lines_restored, report.segments_written.len()), (1, 1));
        case.clean(&format!("seq {seq}"));
    }
    // Where the mirror lacks it too, nothing is put in its place, and the rest is restored.
    let conn = common::by_hand(&case.dir);
    conn.execute("UPDATE events SET payload = NULL, erased = 1 WHERE seq = 1", []).unwrap();
    drop(conn);
    fs::write(&case.paths[0], blank(&fs::read_to_string(&case.paths[0]).unwrap(), 1)).unwrap();
    fs::remove_file(&case.paths[1]).unwrap();
    let report = repair_from_mirror(&case.dir, &case.options, &mut |_| ()).unwrap();
    assert_eq!(report.segments_written, [case.paths[1].clone()]);
    assert_eq!(verified(&case.dir).failures_count, 1);
}
