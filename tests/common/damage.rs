//! A small store, every way to damage it, and what must hold whatever the damage: one judge for all corruption tests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use counterfoil::*;

use super::*;

/// All files of a store, by their paths in it; without LOCK and what SQLite keeps beside an open database.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

pub const MIRROR: &str = "mirror.sqlite3";
pub const MANIFEST: &str = "ledger.json";

pub fn store_files(dir: &Path) -> Files {
    let mut files = files(dir);
    files.retain(|path, _| !matches!(path.to_string_lossy().as_ref(), "LOCK" | "mirror.sqlite3-wal" | "mirror.sqlite3-shm"));
    files
}

pub fn is_segment(path: &Path) -> bool {
    path.starts_with("segments")
}

/// Eight events in three segments: two; a batch of two; then one, a group of two, and one. Sessions, tags, a cause, and
/// payloads that are hard to keep. `at` has the store as it was, both legs level, after 1, 2, 4, 5, 7 and 8 events.
pub struct History {
    pub options: Options,
    pub at: BTreeMap<u64, Files>,
    /// The lines of all eight.
    pub lines: Vec<Vec<u8>>,
}

impl History {
    pub fn new() -> History {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("store");
        let mut options = super::options();
        options.segment_bytes_max = 1100;
        disk::without_sync(&mut options);
        let mut drafts = drafts().into_iter();
        let mut next = |events: usize| drafts.by_ref().take(events).collect::<Vec<_>>();
        let mut at = BTreeMap::new();
        for (events, segment_bytes_max) in [(1, 1200), (1, 1200), (2, 1200), (1, 1200), (2, 1 << 20), (1, 1 << 20)] {
            options.segment_bytes_max = segment_bytes_max;
            let (mut store, _) = Store::open(&dir, &options).unwrap();
            match (next(events), store.head().seq.get()) {
                // A group that is no batch: two appends that shared an fsync.
                (drafts, 5) => {
                    store.close().unwrap();
                    unmirrored_groups(&dir, &options, vec![drafts]);
                    store = Store::open(&dir, &options).unwrap().0;
                }
                (drafts, _) => drop(store.append_batch(drafts, &Conditions::none()).unwrap()),
            }
            let seq = store.head().seq.get();
            store.close().unwrap();
            at.insert(seq, store_files(&dir));
        }
        assert_eq!(at.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5, 7, 8]);
        let sizes: Vec<_> = at[&8].iter().filter(|(path, _)| is_segment(path)).map(|(path, bytes)| (path.clone(), bytes.len())).collect();
        assert_eq!(sizes.len(), 3, "{sizes:?}");
        let lines = lines_of(&at[&8]);
        History { options, at, lines }
    }

    /// The whole ledger beside the mirror of another moment, or none.
    pub fn with_mirror(&self, at: Option<u64>) -> Files {
        let mut files = self.at[&8].clone();
        match at {
            Some(at) => files.insert(MIRROR.into(), self.at[&at][Path::new(MIRROR)].clone()),
            None => files.remove(Path::new(MIRROR)),
        };
        files
    }
}

/// A directory where an fsync of SQLite's costs nothing, where there is one.
pub fn in_memory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The lines of a ledger, blank ones and fill left out.
pub fn lines_of(files: &Files) -> Vec<Vec<u8>> {
    let segments = files.iter().filter(|(path, _)| is_segment(path));
    segments.flat_map(|(_, bytes)| bytes.split(|b| *b == b'\n')).filter(|line| line.iter().any(|b| *b != 0)).map(<[u8]>::to_vec).collect()
}

/// What became of one damage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// What open said: exactly one of clean, mirror brought up or rebuilt, torn tail repaired, or a refusal.
    pub open: String,
    /// Who found it, or why there was nothing to find.
    pub found: &'static str,
    /// What brought everything back, if something was lost.
    pub mended: &'static str,
}

/// A directory in which a store is damaged again and again.
pub struct Bench<'h> {
    _temp: tempfile::TempDir,
    pub dir: PathBuf,
    pub history: &'h History,
    pub whole: Files,
    /// Seq up to which the mirror of `whole` has rows.
    pub mirrored: u64,
    seen: BTreeMap<Outcome, u64>,
}

/// The costly checks (a second open, an append) run for each outcome this often at first, and then for one in so many.
const CLOSE_LOOKS: u64 = 4;
const CLOSE_LOOK_ONE_IN: u64 = 64;

impl<'h> Bench<'h> {
    pub fn new(history: &'h History, mirror: Option<u64>) -> Bench<'h> {
        let temp = in_memory();
        let dir = temp.path().join("store");
        let whole = history.with_mirror(mirror);
        let bench = Bench { _temp: temp, dir, history, whole, mirrored: mirror.unwrap_or(0), seen: BTreeMap::new() };
        bench.put(&bench.whole);
        bench
    }

    /// Makes the directory hold exactly these files.
    fn put(&self, files: &Files) {
        let there = store_files(&self.dir);
        for path in there.keys().filter(|path| !files.contains_key(*path)) {
            fs::remove_file(self.dir.join(path)).unwrap();
        }
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(self.dir.join(format!("{MIRROR}{suffix}")));
        }
        for (path, bytes) in files.iter().filter(|(path, bytes)| there.get(*path) != Some(*bytes)) {
            let path = self.dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn open(&self) -> Result<OpenReport, Error> {
        let (store, report) = Store::open(&self.dir, &self.history.options)?;
        store.close()?;
        Ok(report)
    }

    /// Opens the store with these files and checks all that must hold whatever the damage.
    pub fn judge(&mut self, what: &str, damaged: &Files) -> Outcome {
        self.put(damaged);
        match self.open() {
            Ok(report) => self.accepted(what, damaged, &report),
            Err(error) => self.refused(what, damaged, &error),
        }
    }

    fn accepted(&mut self, what: &str, damaged: &Files, report: &OpenReport) -> Outcome {
        let now = store_files(&self.dir);
        let open = match report {
            OpenReport { recovery: RecoveryReport { torn: Some(torn), .. }, .. } => {
                let saved = fs::read(&torn.saved).unwrap();
                let segment = torn.segment.strip_prefix(&self.dir).unwrap();
                assert_eq!(saved, damaged[segment][torn.offset as usize..], "{what}: what was cut is in torn/");
                "torn tail repaired"
            }
            OpenReport { mirror_set_aside: Some(aside), .. } => {
                assert_eq!(fs::read(aside).unwrap(), damaged[Path::new(MIRROR)], "{what}: what was set aside is what was there");
                "mirror set aside, rebuilt"
            }
            OpenReport { replay, .. } if replay.replayed == 0 => "clean",
            _ if damaged.contains_key(Path::new(MIRROR)) => "mirror brought up",
            _ => "mirror rebuilt",
        };
        let verified = verified(&self.dir);
        let parity = parity(&self.dir);
        let lines = lines_of(&now);
        let manifest_differs = now[Path::new(MANIFEST)].trim_ascii() != self.whole[Path::new(MANIFEST)].trim_ascii();
        let (found, mended) = if verified.is_clean() && parity.is_consistent() {
            let mirrored = if damaged.contains_key(Path::new(MIRROR)) { self.mirrored } else { 0 };
            assert!(lines.len() as u64 >= mirrored, "{what}: nothing at or below the watermark is lost");
            assert!(self.history.lines.starts_with(&lines), "{what}: wrong data were accepted");
            match (lines.len() == self.history.lines.len(), open) {
                (_, "torn tail repaired") => ("open", "torn/ has what was cut"),
                (true, "mirror set aside, rebuilt") => ("open", "-"),
                // Where there was a mirror, parity compares the two.
                (true, _) if manifest_differs => ("nobody (created_at is in no hash)", "backup"),
                (true, _) => ("- (the same events)", "-"),
                (false, _) => ("nobody (a valid older state)", "backup"),
            }
        } else if verified.is_clean() {
            ("parity", self.mend(what, true))
        } else {
            assert!(!parity.is_consistent(), "{what}: parity finds what verify finds");
            ("verify, parity", self.mend(what, false))
        };
        self.close_look(what, &now, Outcome { open: open.to_owned(), found, mended })
    }

    /// A second open changes nothing; appends go on.
    fn close_look(&mut self, what: &str, now: &Files, outcome: Outcome) -> Outcome {
        let seen = self.seen.entry(outcome.clone()).or_default();
        *seen += 1;
        if *seen > CLOSE_LOOKS && !seen.is_multiple_of(CLOSE_LOOK_ONE_IN) {
            return outcome;
        }
        self.put(now);
        let again = self.open().unwrap_or_else(|error| panic!("{what}: the second open: {error}"));
        assert_eq!((again.recovery.torn, again.mirror_set_aside, again.replay.replayed), (None, None, 0), "{what}: the second open");
        assert!(store_files(&self.dir) == *now, "{what}: the second open changes nothing");
        let (mut store, _) = Store::open(&self.dir, &self.history.options).unwrap();
        let receipt = store.append(note("after")).unwrap();
        assert_eq!(receipt.mirror, MirrorAck::Mirrored, "{what}");
        store.close().unwrap();
        let (verified, parity) = (verified(&self.dir), parity(&self.dir));
        match outcome.found {
            "verify, parity" => assert!(verified.failures_count > 0, "{what}"),
            "parity" => assert!(verified.is_clean(), "{what}: {verified}"),
            _ => assert!(verified.is_clean() && parity.is_consistent(), "{what}: {verified}{parity}"),
        }
        outcome
    }

    fn refused(&mut self, what: &str, damaged: &Files, error: &Error) -> Outcome {
        let open = format!("refused: {}", kind(error).unwrap_or_else(|| panic!("{what}: not a typed refusal: {error}")));
        let now = store_files(&self.dir);
        let mut begun = now.clone();
        if matches!(error, Error::Replay(_)) {
            // Rows of the lines before the damage may have been written: they are right.
            begun.remove(Path::new(MIRROR));
        }
        for (path, bytes) in &begun {
            assert!(damaged.get(path) == Some(bytes), "{what}: a refusal changes nothing, but {} is another ({error})", path.display());
        }
        for path in damaged.keys() {
            assert!(now.contains_key(path), "{what}: a refusal removes nothing, but {} is gone ({error})", path.display());
        }
        let text = error.to_string();
        let from_ledger = text.contains("`counterfoil repair --from ledger`");
        assert!(from_ledger || text.contains("`counterfoil ") || text.contains("use a newer"), "{what}: it says what to do: {text}");
        if text.contains("move the file away: it can be rebuilt") {
            fs::remove_file(self.dir.join(MIRROR)).unwrap();
            self.open().unwrap_or_else(|error| panic!("{what}: open without it: {error}"));
            assert!(lines_of(&store_files(&self.dir)) == self.history.lines && parity(&self.dir).is_consistent(), "{what}");
            return Outcome { open, found: "open", mended: "moving it away: rebuilt" };
        }
        if text.contains("move it away and run") || text.contains("belongs to another ledger than") {
            fs::remove_file(self.dir.join(MANIFEST)).unwrap();
        }
        Outcome { open, found: "open", mended: self.mend(what, from_ledger) }
    }

    /// Runs the repair that was advised. Where it says that it has done it, all is well then; else nothing has changed.
    fn mend(&self, what: &str, from_ledger: bool) -> &'static str {
        let before = store_files(&self.dir);
        let options = &self.history.options;
        let repaired = match from_ledger {
            true => repair_from_ledger(&self.dir, options, &mut |_| ()),
            false => repair_from_mirror(&self.dir, options, &mut |_| ()),
        };
        match repaired {
            Ok(_) => {
                self.open().unwrap_or_else(|error| panic!("{what}: open after the repair: {error}"));
                let (verified, parity) = (verified(&self.dir), parity(&self.dir));
                assert!(verified.is_clean() && parity.is_consistent(), "{what}: after the repair: {verified}{parity}");
                let lines = lines_of(&store_files(&self.dir));
                assert!(self.history.lines.starts_with(&lines), "{what}: the repair made up lines");
                match (lines.len() == self.history.lines.len(), from_ledger) {
                    (true, true) => "repair --from ledger: all",
                    (true, false) => "repair --from mirror: all",
                    (false, _) if lines.len() as u64 >= self.mirrored => "repair --from mirror: all that it had",
                    _ => panic!("{what}: the repair has lost seq {} to {}", lines.len() + 1, self.mirrored),
                }
            }
            Err(error) => {
                let now = store_files(&self.dir);
                let differ = |(path, bytes): &(&PathBuf, &Vec<u8>)| before.get(*path) != Some(*bytes);
                let changed: Vec<_> =
                    now.iter().filter(|(path, _)| !path.starts_with("tmp")).filter(differ).map(|(path, _)| path).collect();
                assert!(changed.is_empty(), "{what}: a repair that fails changes nothing: {changed:?} ({error})");
                match error {
                    RepairError::Unrecoverable { .. } => "backup (neither leg has it)",
                    RepairError::Mirror(MirrorError::Missing { .. }) => "backup (no mirror)",
                    RepairError::Ledger(LedgerError::FutureFormat { .. }) => "backup, or a newer counterfoil",
                    RepairError::LedgerDamaged { .. } => "backup (the ledger is damaged too)",
                    RepairError::Mirror(MirrorError::OtherLedger { .. }) => "backup (the mirror is another's)",
                    other => panic!("{what}: {other}"),
                }
            }
        }
    }
}

/// The name of a refusal; nothing where the error is none.
pub fn kind(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Ledger(LedgerError::Refused(refusal)) => match **refusal {
            Refusal::LaterGroup { .. } => "LaterGroup",
            Refusal::Splice { .. } => "Splice",
            Refusal::LostDurable { .. } => "LostDurable",
            Refusal::BehindCheckpoint { .. } => "BehindCheckpoint",
            Refusal::SegmentsDoNotMeet { .. } => "SegmentsDoNotMeet",
            Refusal::TwoHistories { .. } => "TwoHistories",
            Refusal::OtherManifest { .. } => "OtherManifest",
            Refusal::NoManifest { .. } => "NoManifest",
            Refusal::OtherStream { .. } => "OtherStream",
            _ => return None,
        },
        Error::Ledger(LedgerError::Manifest { .. }) => "Manifest",
        Error::Ledger(LedgerError::FutureFormat { .. }) => "FutureFormat",
        Error::Mirror(MirrorError::Future { .. }) => "mirror Future",
        Error::Replay(ReplayError::Ledger(LedgerError::Damaged { .. })) => "Damaged (found by replay)",
        Error::Replay(ReplayError::Mirror(MirrorError::Conflict { .. })) => "Conflict (found by replay)",
        Error::Replay(ReplayError::Mirror(MirrorError::DuplicateId { .. })) => "DuplicateId (found by replay)",
        _ => return None,
    })
}

/// Whether all damage is wanted, or a sample of it.
pub fn all() -> bool {
    std::env::var("COUNTERFOIL_CORRUPTION").is_ok_and(|which| which == "all")
}

/// Outcomes, counted by damage, state of the mirror, and place.
#[derive(Default)]
pub struct Table {
    rows: Vec<([String; 3], Outcome, u64)>,
}

impl Table {
    pub fn add(&mut self, key: [&str; 3], outcome: Outcome) {
        match self.rows.iter_mut().find(|(k, o, _)| *k == key && *o == outcome) {
            Some((_, _, count)) => *count += 1,
            None => self.rows.push((key.map(str::to_owned), outcome, 1)),
        }
    }

    pub fn join(mut self, other: Table) -> Table {
        self.rows.extend(other.rows);
        self
    }

    /// Damages that were judged.
    pub fn cases(&self) -> u64 {
        self.rows.iter().map(|(_, _, count)| count).sum()
    }

    /// As text: a heading for each damage, a line for each outcome.
    pub fn text(mut self) -> String {
        let mut order: Vec<String> = Vec::new();
        for ([damage, _, _], _, _) in &self.rows {
            if !order.contains(damage) {
                order.push(damage.clone());
            }
        }
        self.rows.sort_by_key(|([damage, _, _], _, _)| order.iter().position(|other| other == damage));
        let mut text = String::from(
            "open      what Store::open said; a refusal changed nothing\n\
             found by  `nobody`: what is left is a store as it once was, and nothing in it can tell (a checkpoint elsewhere would)\n\
             mended by what was run and brought the very bytes back: all, or all that the mirror had; `backup`: nothing in the store can\n\n",
        );
        writeln!(text, "{:>6}  {:<13} {:<21} {:<37} {:<33} mended by", "count", "mirror", "where", "open", "found by").unwrap();
        let mut last = String::new();
        for ([damage, mirror, place], Outcome { open, found, mended }, count) in self.rows {
            if damage != last {
                writeln!(text, "\n{damage}").unwrap();
            }
            writeln!(text, "{count:>6}  {mirror:<13} {place:<21} {open:<37} {found:<33} {mended}").unwrap();
            last = damage;
        }
        text
    }
}
