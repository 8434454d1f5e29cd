//! `doctor`: everything at a glance, each finding with the command that mends it. Only reads, and each check stands
//! for itself, so that it works on badly broken stores too.

use std::fs;
use std::path::Path;

use counterfoil::rusqlite;
use counterfoil::{
    Finding as ParityFinding, LedgerError, LedgerReader, Manifest, MirrorError, MirrorFault, MirrorReader, ParityKind, Refusal,
    SCHEMA_VERSION, forecast,
};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::check::compare;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::stats::{files, is_aside};
use crate::text;

mod checkpoints;

/// Ledgers up to this size are read as a whole: some 0.2 s. Larger ones only with --full.
const DEEP_BYTES_MAX: u64 = 64 << 20;
/// Space on the disk below which a full segment no longer fits.
const SPACE_BYTES_MIN: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Worth knowing; nothing to mend.
    Note,
    Wrong,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    text: String,
    /// The command that mends it, to be copied into a shell.
    mend: Option<String>,
}

struct Doctor<'c> {
    context: &'c Context,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Report {
    store: String,
    healthy: bool,
    findings: Vec<Finding>,
}

pub fn run(args: &DoctorArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let mut doctor = Doctor { context, findings: Vec::new() };
    doctor.examine(args.full);
    let healthy = doctor.findings.iter().all(|finding| finding.state != State::Wrong);
    let report = Report { store: context.store.display().to_string(), healthy, findings: doctor.findings };
    if out.is_json() {
        out.json(&report)?;
    } else {
        print(&report, out)?;
    }
    Ok(Exit::consistent(healthy))
}

fn print(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let wrong = report.findings.iter().filter(|finding| finding.state == State::Wrong).count() as u64;
    let verdict = if report.healthy { "all is well".to_owned() } else { format!("{} to mend", text::count(wrong, "finding")) };
    out.line(format_args!("doctor: {}: {verdict}", report.store))?;
    for finding in &report.findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Wrong => "WRONG",
        };
        out.line(format_args!("  {state:<5}  {:<9}  {}", finding.check, text::plain(&finding.text)))?;
        if let Some(mend) = &finding.mend {
            out.line(format_args!("                    run: {mend}"))?;
        }
    }
    Ok(())
}

impl Doctor<'_> {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.findings.push(Finding { check, state: State::Ok, text: text.into(), mend: None });
    }

    fn note(&mut self, check: &'static str, text: impl Into<String>) {
        let text = self.context.local(&text.into());
        self.findings.push(Finding { check, state: State::Note, text, mend: None });
    }

    fn wrong(&mut self, check: &'static str, text: &str, mend: Option<&str>) {
        // A command that mends two findings is told with the first one.
        let mend = mend.map(|command| self.context.command(command));
        let mend = mend.filter(|mend| self.findings.iter().all(|finding| finding.mend.as_ref() != Some(mend)));
        self.findings.push(Finding { check, state: State::Wrong, text: self.context.local(text), mend });
    }

    fn examine(&mut self, full: bool) {
        let context = self.context;
        if !context.store.is_dir() {
            let what = if context.store.exists() { "the path is not a directory" } else { "there is nothing here" };
            let mend = if context.store.exists() { None } else { Some("init") };
            return self.wrong("store", &format!("{what}; name a store with --store, or create one"), mend);
        }
        let mirror = self.mirror_as_such();
        let ledger = self.store(mirror.is_some());
        self.lock();
        self.segments();
        let recovers = self.recovery(ledger.as_ref(), mirror.as_ref());
        self.mirror(ledger.as_ref(), mirror, recovers);
        self.erasures(ledger.as_ref());
        if let Some(ledger) = ledger {
            self.contents(&ledger, recovers, full);
            self.checkpoints(&ledger);
        }
        self.leftovers();
        self.disk();
        self.sqlite();
    }

    /// The mirror, whatever ledger it belongs to; and that ledger's manifest.
    fn mirror_as_such(&self) -> Option<Manifest> {
        MirrorReader::open_any(&self.context.store, self.context.options.mirror_busy_timeout).ok()?.manifest().ok()
    }

    /// Whether the mirror of this ledger has anything that a repair could write back.
    fn has_rows(&self, manifest: &Manifest) -> bool {
        let mirror = MirrorReader::open(&self.context.store, manifest.ledger_id, self.context.options.mirror_busy_timeout);
        mirror.and_then(|mirror| mirror.count()).is_ok_and(|(rows, _)| rows > 0)
    }

    fn store(&mut self, has_mirror: bool) -> Option<LedgerReader> {
        let (store, path) = (self.context.store.display(), Manifest::path(&self.context.store));
        match LedgerReader::open(&self.context.store, &self.context.options) {
            Ok(ledger) => {
                let manifest = ledger.manifest();
                self.ok("store", format!("{store}: ledger {}, format 1, created {}", manifest.ledger_id, manifest.created_at));
                return Some(ledger);
            }
            Err(LedgerError::Refused(refusal)) if matches!(*refusal, Refusal::NoManifest { .. }) => {
                let (text, mend) = if has_mirror {
                    ("is missing; the mirror has what was in it", Some("repair --from mirror"))
                } else {
                    ("is missing, and so is a mirror that knows it; restore it from a backup", None)
                };
                self.wrong("store", &format!("{} {text}", path.display()), mend);
            }
            Err(LedgerError::NoStore { .. }) if has_mirror => {
                let text = format!("{} and all segments are missing; the mirror has what was in them", path.display());
                self.wrong("store", &text, Some("repair --from mirror"));
            }
            Err(LedgerError::NoStore { .. }) => {
                self.wrong("store", "this folder holds no store; name another with --store, or create one", Some("init"))
            }
            Err(error @ LedgerError::Manifest { .. }) if has_mirror => {
                self.wrong("store", &error.to_string(), None);
                self.mend_manifest();
            }
            Err(error) => self.wrong("store", &error.to_string(), None),
        }
        None
    }

    /// The finding told last is mended by having ledger.json written anew.
    fn mend_manifest(&mut self) {
        let path = Manifest::path(&self.context.store);
        let (from, to) = (text::quoted(&path), text::quoted(&path.with_extension("json.damaged")));
        if let Some(finding) = self.findings.last_mut() {
            finding.mend = Some(format!("mv {from} {to} && {}", self.context.command("repair --from mirror")));
        }
    }

    fn lock(&mut self) {
        match self.context.writer() {
            Some(writer) => self.ok("lock", format!("held: {writer} is writing to the store")),
            None => self.ok("lock", "free: nobody is writing to the store"),
        }
    }

    fn segments(&mut self) {
        let segments = self.context.store.join("segments");
        let (plain, compressed) =
            (files(&segments, |name| name.ends_with(".jsonl")), files(&segments, |name| name.ends_with(".jsonl.zst")));
        let said = format!("{}, {}", text::count(plain.count + compressed.count, "segment"), text::bytes(plain.bytes + compressed.bytes));
        self.ok("segments", if compressed.count > 0 { format!("{said}, {} of them compressed", compressed.count) } else { said });
    }

    /// What the next open would find. Answers whether it would go well.
    fn recovery(&mut self, ledger: Option<&LedgerReader>, mirror: Option<&Manifest>) -> bool {
        if self.context.writer().is_some() {
            self.ok("recovery", "nothing to recover while a writer is at work");
            return true;
        }
        let from_mirror = mirror.filter(|mirror| self.has_rows(mirror)).map(|_| "repair --from mirror");
        match forecast(&self.context.store, &self.context.options) {
            Ok(report) => match report.torn {
                None => self.ok("recovery", format!("the ledger ends cleanly at seq {}", report.head.seq)),
                Some(torn) => {
                    let (bytes, segment) = (text::bytes(torn.bytes), torn.segment.display());
                    let text = format!(
                        "a crash has left a torn tail: {bytes} behind seq {} ({segment}, byte {}); the next open keeps them in torn/ and cuts them off",
                        report.head.seq, torn.offset
                    );
                    self.wrong("recovery", &text, Some("replay"));
                }
            },
            // It was told already.
            Err(_) if ledger.is_none() => return false,
            Err(LedgerError::Refused(refusal)) => {
                let mend = match *refusal {
                    Refusal::TwoHistories { .. } | Refusal::OtherStream { .. } => Some("repair --from ledger"),
                    Refusal::BehindCheckpoint { valid, .. } => from_mirror.filter(|_| self.mirror_has_more(ledger, valid)),
                    _ => from_mirror,
                };
                let is_other = matches!(*refusal, Refusal::OtherManifest { .. });
                let agree = ledger.zip(mirror).is_some_and(|(ledger, mirror)| ledger.manifest().ledger_id == mirror.ledger_id);
                let text = match mend {
                    None if matches!(*refusal, Refusal::BehindCheckpoint { .. }) => format!("open would refuse: {refusal}"),
                    None => format!("open would refuse: {refusal} (but the mirror can't help: restore the store from a backup)"),
                    Some(_) if is_other && agree => {
                        "open would refuse: the segments belong to another ledger than ledger.json and the mirror".to_owned()
                    }
                    Some(_) => format!("open would refuse: {refusal}"),
                };
                self.wrong("recovery", &text, mend);
                if is_other && mend.is_some() && !agree {
                    self.mend_manifest();
                }
                return false;
            }
            Err(error) => {
                let is_damage = matches!(error, LedgerError::Damaged { .. });
                self.wrong("recovery", &format!("open would fail: {error}"), from_mirror.filter(|_| is_damage));
                return false;
            }
        }
        true
    }

    fn mirror(&mut self, ledger: Option<&LedgerReader>, as_such: Option<Manifest>, recovers: bool) {
        let ledger_id = ledger.map(|ledger| ledger.manifest().ledger_id).or(as_such.map(|manifest| manifest.ledger_id));
        let Some(ledger_id) = ledger_id else {
            return self.note("mirror", "not looked at: without ledger.json nobody knows whose it is");
        };
        let opened = MirrorReader::open(&self.context.store, ledger_id, self.context.options.mirror_busy_timeout);
        let checked = opened.and_then(|mirror| {
            let mark = mirror.watermark(ledger_id)?;
            let path = mirror.path().to_owned();
            let answer: Result<String, _> = mirror.connection().query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
            match answer {
                Ok(answer) if answer == "ok" => Ok(mark),
                Ok(reason) => Err(MirrorError::Corrupt { path, reason }),
                Err(source) => Err(MirrorError::Sqlite { action: "checking", path, source }),
            }
        });
        match checked {
            Ok(mark) => self
                .ok("mirror", format!("readable, schema version {SCHEMA_VERSION}, through seq {}, SQLite's quick_check is ok", mark.seq)),
            // What mends it would be refused until the ledger is well.
            Err(MirrorError::Missing { .. }) if !recovers => self.note("mirror", "missing; it can be rebuilt once the ledger is well"),
            Err(MirrorError::OtherLedger { .. }) if !recovers => {
                self.note("mirror", "it belongs to another ledger than ledger.json does; mend the ledger first");
            }
            Err(error @ MirrorError::Missing { .. }) => self.wrong("mirror", &error.to_string(), Some("replay")),
            Err(error) if error.fault() == MirrorFault::Broken => {
                self.wrong("mirror", &format!("{error}"), Some("replay"));
            }
            Err(error) => self.wrong("mirror", &error.to_string(), None),
        }
        self.wal();
    }

    /// An erasure that was recorded, and that something kept from being carried out as a whole.
    fn erasures(&mut self, ledger: Option<&LedgerReader>) {
        let mirror = ledger.and_then(|ledger| self.context.mirror(ledger).ok());
        if !mirror.is_some_and(|mirror| mirror.erasure_is_unfinished().unwrap_or(false)) {
            return;
        }
        const LEFT: &str = "an erasure is recorded and not done as a whole: what it names may still be in a file of the store";
        if self.context.writer().is_some() {
            return self.note("erasure", format!("{LEFT}; the writer may be at it: look again, else erase again or close the store"));
        }
        self.wrong("erasure", &format!("{LEFT}; end what reads the mirror, if something does, and open the store"), Some("replay"));
    }

    /// A writer empties the WAL past a bound, unless a reader holds it.
    fn wal(&mut self) {
        let mirror = counterfoil::mirror_path(&self.context.store);
        let mirror = fs::canonicalize(&mirror).unwrap_or(mirror);
        let bytes = fs::metadata(format!("{}-wal", mirror.display())).map_or(0, |meta| meta.len());
        if bytes > self.context.options.mirror_wal_bytes_max {
            let (bytes, mirror) = (text::bytes(bytes), text::quoted(&mirror));
            if self.context.writer().is_none() {
                return self.note("mirror", format!("its WAL has {bytes}; the next close for writing empties it"));
            }
            let text = format!(
                "a reader holds the mirror's WAL, {bytes}: it grows until that reader ends its transaction (`fuser {mirror}` shows who has it open)"
            );
            self.wrong("mirror", &text, None);
        }
    }

    /// The lines themselves, and the rows.
    fn contents(&mut self, ledger: &LedgerReader, recovers: bool, full: bool) {
        // What keeps its size from being told is what the checks are to tell.
        let deep = full || ledger.size().map_or(true, |size| size.plain_bytes <= DEEP_BYTES_MAX);
        if deep {
            match counterfoil::verify(ledger, &mut |_| ()) {
                Ok(report) if report.is_clean() => self.ok("verify", format!("all {} right", text::count(report.events, "line"))),
                Ok(report) => {
                    let first = report.failures.first().map_or(String::new(), |failure| {
                        format!(", the first at seq {} ({} line {}): {}", failure.seq, failure.path.display(), failure.line, failure.reason)
                    });
                    let text = format!("{} wrong{first}; `counterfoil verify` lists them all", text::count(report.failures_count, "line"));
                    // A tail that can be recovered, or a refusal, was told with its own command.
                    let told = self.findings.iter().any(|finding| finding.check == "recovery" && finding.state == State::Wrong);
                    if told {
                        self.note("verify", text);
                    } else {
                        self.wrong("verify", &text, Some("repair --from mirror"));
                    }
                }
                Err(error) => self.wrong("verify", &error.to_string(), None),
            }
        } else {
            self.note(
                "verify",
                format!("not done: the ledger has more than {}; doctor --full reads all of it", text::bytes(DEEP_BYTES_MAX)),
            );
        }
        if self.findings.iter().any(|finding| finding.check == "mirror" && finding.state != State::Ok) {
            return self.note("parity", "not compared: there is no mirror to compare with");
        }
        if !recovers {
            return self.note("parity", "not compared: mend the ledger first (`counterfoil parity --full` shows what differs)");
        }
        let kind = if deep { ParityKind::Full } else { ParityKind::Quick };
        match compare(self.context, ledger, kind) {
            Err(Failure::Told { message, .. }) => self.wrong("parity", &message, None),
            Err(Failure::ReaderGone) => {}
            Ok(compared) if compared.is_consistent() => {
                let lines = text::count(compared.report.jsonl_event_count, "line");
                let rows = text::count(compared.report.sqlite_event_count, "row");
                let depth = if deep { "byte for byte" } else { "by the watermark; doctor --full compares every row" };
                self.ok("parity", format!("{lines}, {rows}, equal {depth}"));
            }
            Ok(compared) => self.parity(&compared.report),
        }
    }

    fn parity(&mut self, report: &counterfoil::ParityReport) {
        if !report.missing_in_jsonl.is_empty() {
            let text = format!("the ledger lacks events that the mirror has: {}", report.missing_in_jsonl);
            self.wrong("parity", &text, Some("repair --from mirror"));
        }
        if !report.missing_in_sqlite.is_empty() {
            let text = format!("the mirror lacks events that the ledger has: {}", report.missing_in_sqlite);
            self.wrong("parity", &text, Some("replay"));
        }
        // A line that is wrong was told by `verify`, or by `recovery` where it is a tail.
        let told = self.findings.iter().any(|finding| matches!(finding.check, "verify" | "recovery") && finding.state == State::Wrong);
        if let Some(first) = report.mismatched.first() {
            let differ = text::count(report.mismatched_count, "row");
            let text = format!("{differ} unlike the ledger's line, the first at seq {}, in {}", first.seq, first.columns.join(", "));
            self.wrong("parity", &text, Some("repair --from ledger"));
        }
        let is_news = |finding: &&ParityFinding| !(told && matches!(finding, ParityFinding::BrokenChain { .. }));
        if let Some(finding) = report.findings.iter().find(is_news) {
            let mend = match finding {
                ParityFinding::MissingMirror { .. } => Some("replay"),
                ParityFinding::MissingLedger { .. } | ParityFinding::BrokenChain { .. } | ParityFinding::OtherCreation { .. } => {
                    Some("repair --from mirror")
                }
                ParityFinding::DuplicateId { .. } => None,
                _ => Some("repair --from ledger"),
            };
            self.wrong("parity", &finding.to_string(), mend);
        }
    }

    fn leftovers(&mut self) {
        let store = &self.context.store;
        let torn = files(&store.join("torn"), |_| true);
        let (aside, tmp) = (files(store, is_aside), files(&store.join("tmp"), |_| true));
        let mut said = Vec::new();
        for (files, what) in [
            (torn, "in torn/ (kept from earlier crashes or repairs; nothing but you deletes them, or an erasure of what is in them)"),
            (aside, "of mirrors set aside (rows that a repair removed are there alone; else of no use any more once the mirror is well)"),
            (tmp, "in tmp/ (rubbish; the next open removes it)"),
        ] {
            if files.count > 0 {
                said.push(format!("{}, {}, {what}", text::count(files.count, "file"), text::bytes(files.bytes)));
            }
        }
        said.into_iter().for_each(|text| self.note("kept", text));
    }

    fn disk(&mut self) {
        match space(&self.context.store) {
            Some(free) if free < SPACE_BYTES_MIN => {
                self.wrong("disk", &format!("{} left: less than a segment; free some space", text::bytes(free)), None);
            }
            Some(free) => self.ok("disk", format!("{} left", text::bytes(free))),
            None => self.note("disk", "how much space is left can't be told"),
        }
        let writable = fs::metadata(&self.context.store).is_ok_and(|meta| !meta.permissions().readonly());
        if !writable {
            self.note("disk", "the store's folder is read-only: it can be read, not appended to");
        }
    }

    fn sqlite(&mut self) {
        if rusqlite::version_number() < 3_051_003 {
            self.wrong("sqlite", &format!("SQLite {} can lose a WAL; build with rusqlite's bundled SQLite", rusqlite::version()), None);
        } else {
            self.ok("sqlite", format!("SQLite {}", rusqlite::version()));
        }
    }
}

#[cfg(unix)]
fn space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn space(_: &Path) -> Option<u64> {
    None
}
