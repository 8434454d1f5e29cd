//! A store on a real disk whose power is cut again and again, and what must hold after each cut.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use counterfoil::*;

use super::watch::{Count, Moment, lines_of, moment, wait};
use super::{Planned, Run, submit_again};
use crate::common::{self, Random};
use crate::real_disk::{Cutter, Disk, Kind};

/// What a process is to do, and how it is started.
#[derive(Debug)]
enum Work {
    Actors(Run),
    Import,
    Append { lines: u64 },
}

struct Ack {
    seq: u64,
    hash: String,
    place: Option<(u64, u64, u64)>,
    /// It was given before the cut began. An fsync that is under way while FS_IOC_SHUTDOWN strikes may still say that all
    /// is well, and lie (Linux 6.18, ext4, any program that fsyncs): with the power really gone nobody would have heard it.
    /// What it acknowledged may be there or not.
    certain: bool,
}

pub struct History<'a> {
    seed: u64,
    random: Random,
    disk: Disk,
    kind: Kind,
    store: PathBuf,
    transcripts: PathBuf,
    /// Where the process writes its standard error.
    told: PathBuf,
    cutter: &'a mut Cutter,
    count: &'a mut Count,
    writer_test: &'static str,
    submitted: HashMap<String, Option<Planned>>,
    acked: HashMap<EventId, Ack>,
    runs: Vec<Run>,
    unchecked: bool,
    imported: bool,
    skip_sync: bool,
    /// All was submitted again.
    again: bool,
}

impl<'a> History<'a> {
    pub fn new(
        seed: u64,
        dir: &Path,
        kind: Kind,
        cutter: &'a mut Cutter,
        count: &'a mut Count,
        writer_test: &'static str,
        skip_sync: bool,
    ) -> History<'a> {
        let disk = Disk::make(dir, &kind).unwrap();
        let transcripts = dir.join("transcripts");
        std::fs::create_dir(&transcripts).unwrap();
        History {
            seed,
            random: Random::new(seed),
            store: disk.mount.join("store"),
            disk,
            kind,
            transcripts,
            told: dir.join("told"),
            cutter,
            count,
            writer_test,
            submitted: HashMap::new(),
            acked: HashMap::new(),
            runs: Vec::new(),
            unchecked: false,
            imported: false,
            skip_sync,
            again: false,
        }
    }

    /// Starts something that writes, cuts the power at some moment, mounts the disk again and (mostly) checks.
    pub fn cut(&mut self) -> Result<(), String> {
        let work = self.work();
        let moment = self.moment(&work);
        let flag = if self.skip_sync { 2 } else { [2, 2, 2, 1, 1, 0][self.random.below(6) as usize] };
        let cut = format!("cut {} (flag {flag}, {moment:?}, {work:?})", self.count.cuts);
        self.cut_at(&work, moment, flag).map_err(|error| format!("{cut}: {error}"))
    }

    fn cut_at(&mut self, work: &Work, moment: Moment, flag: u64) -> Result<(), String> {
        self.disk.mount();
        let mut child = self.start(work);
        let lines = lines_of(&mut child);
        let (before, ended) = wait(&lines, moment, matches!(work, Work::Actors(_)))?;
        let witness = self.disk.mount.join("not synced");
        std::fs::write(&witness, vec![b'w'; 5000]).unwrap();
        let began = self.cutter.cut(flag, &self.disk.mount);
        let end = self.end(child, ended);
        let after: Vec<String> = lines.iter().collect();
        end.map_err(|error| format!("{error}; it said {:?}, and last of all {:?}", before.last(), after.last()))?;
        self.count.waits_for_a_dead_mirror += u64::from(after.iter().any(|line| line.starts_with("waits")));
        self.disk.unmount();
        self.disk.mount();
        if flag != 0 {
            self.count.unsynced += 1;
            self.count.unsynced_lost += u64::from(std::fs::read(&witness).ok() != Some(vec![b'w'; 5000]));
        }
        let _ = std::fs::remove_file(&witness);
        self.count.cuts += 1;
        *self.count.flags.entry(flag).or_default() += 1;
        *self.count.disks.entry(format!("{} {}", self.kind.mkfs.join(" "), self.kind.options)).or_default() += 1;
        *self.count.phases.entry(self.phase(work, &before)).or_default() += 1;
        if let Some(line) = before.iter().find(|line| ["error", "ended", "waits"].iter().any(|word| line.starts_with(word))) {
            return Err(format!("before the power went: {line}"));
        }
        if let Some(line) = before.iter().chain(&after).find(|line| line.starts_with("refused") || line.starts_with("hangs")) {
            return Err(line.clone());
        }
        for line in &before {
            self.take(work, line, true, began)?;
        }
        for line in &after {
            self.take(work, line, false, began)?;
        }
        self.unchecked = self.random.chance(3) && !self.skip_sync;
        if !self.unchecked {
            self.check()?;
        }
        self.disk.unmount();
        Ok(())
    }

    fn work(&mut self) -> Work {
        match self.random.below(8) {
            0 if !self.skip_sync => Work::Import,
            1 if !self.skip_sync => Work::Append { lines: 1 + self.random.below(200) },
            _ => Work::Actors(Run { skip_sync: self.skip_sync, ..Run::new(self.seed, self.runs.len() as u64) }),
        }
    }

    fn moment(&mut self, work: &Work) -> Moment {
        let random = &mut self.random;
        let events = match work {
            Work::Actors(run) => run.tasks * run.appends * 2,
            Work::Import => TRANSCRIPTS * LINES,
            Work::Append { lines } => *lines,
        };
        match random.below(8) {
            0 if !self.skip_sync => Moment::After("closing", moment(random, 4_000)),
            1 | 2 if !self.skip_sync => Moment::After("opening", moment(random, 30_000)),
            3 if !self.skip_sync => Moment::Time(moment(random, 200_000)),
            4 => Moment::Acks(1 + random.below(3)),
            _ => Moment::Acks(1 + random.below(events)),
        }
    }

    fn start(&mut self, work: &Work) -> Child {
        let store = self.store.clone();
        let told = std::fs::File::create(&self.told).unwrap();
        let cli = |told| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
            command.arg("--store").arg(&store).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(told);
            command
        };
        match work {
            Work::Actors(run) => {
                self.submitted.extend(run.submitted().into_iter().map(|(payload, planned)| (payload, Some(planned))));
                self.runs.push(*run);
                run.command(self.writer_test, &store).stderr(told).spawn().unwrap()
            }
            Work::Import => {
                if !std::mem::replace(&mut self.imported, true) {
                    self.write_transcripts();
                }
                cli(told).args(["import", "--receipts"]).arg(&self.transcripts).spawn().unwrap()
            }
            Work::Append { lines } => {
                let durability = if self.random.chance(2) { "mirrored" } else { "ledger" };
                let mut child = cli(told).args(["append", "--durability", durability]).stdin(Stdio::piped()).spawn().unwrap();
                let mut text = String::new();
                for n in 0..*lines {
                    let payload = format!("\"append {} {n} {}\"", self.count.cuts, "y".repeat(self.random.below(300) as usize));
                    writeln!(text, "{payload}").unwrap();
                    self.submitted.insert(payload, None);
                }
                let mut stdin = child.stdin.take().unwrap();
                // On a thread of its own: the command may stop reading.
                std::thread::spawn(move || stdin.write_all(text.as_bytes()));
                child
            }
        }
    }

    fn write_transcripts(&mut self) {
        for file in 0..TRANSCRIPTS {
            let mut text = String::new();
            for n in 0..LINES {
                let payload = format!("{{\"file\":{file},\"n\":{n},\"text\":\"{}\"}}", "z".repeat(self.random.below(200) as usize));
                writeln!(text, "{payload}").unwrap();
                self.submitted.insert(payload, None);
            }
            std::fs::write(self.transcripts.join(format!("{file}.jsonl")), text).unwrap();
        }
    }

    /// Kills the process, or lets it end by itself: with the disk gone, it must.
    fn end(&mut self, mut child: Child, ended: bool) -> Result<(), String> {
        if ended {
            let status = child.wait().unwrap();
            let told = || std::fs::read_to_string(&self.told).unwrap_or_default();
            return if status.success() {
                Ok(())
            } else {
                Err(format!("before the power went, the process ended with {status}: {}", told()))
            };
        }
        if self.random.chance(6) {
            let deadline = Instant::now() + Duration::from_secs(60);
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if Instant::now() >= deadline {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return Err("the power is off, and the process hangs".to_owned());
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            self.count.ended_alone += 1;
            if let Some(signal) = status.signal() {
                *self.count.ended_by_signal.entry(signal).or_default() += 1;
            }
        } else {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Ok(())
    }

    fn phase(&self, work: &Work, before: &[String]) -> &'static str {
        let last = before.iter().rev().find_map(|line| line.split(' ').next());
        match (work, last) {
            (Work::Import | Work::Append { .. }, None) => "command, before its first receipt",
            (Work::Import | Work::Append { .. }, Some(_)) => "command, amid receipts or later",
            (_, None) => "process starting",
            (_, Some("opening")) if self.unchecked => "recovering from the cut before",
            (_, Some("opening")) => "opening",
            (_, Some("closing")) => "closing",
            (_, Some("closed")) => "closed",
            _ => "appending",
        }
    }

    /// Takes note of what a line of the process says.
    fn take(&mut self, work: &Work, line: &str, read_before: bool, began: u128) -> Result<(), String> {
        let (id, ack) = match work {
            Work::Actors(run) => {
                let words: Vec<_> = line.split(' ').collect();
                if let ["opened", torn, rewritten] = words[..] {
                    self.met(torn.parse().unwrap(), rewritten.parse().unwrap());
                }
                let ["ack", task, index, seq, id, hash, _mirror, at] = words[..] else { return Ok(()) };
                let certain = at.parse::<u128>().unwrap() < began;
                let place = Some((run.number, task.parse().unwrap(), index.parse().unwrap()));
                (id.parse().unwrap(), Ack { seq: seq.parse().unwrap(), hash: hash.to_owned(), place, certain })
            }
            Work::Import | Work::Append { .. } => {
                let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return Ok(()) };
                let Some(id) = value.get("id").and_then(|id| id.as_str()) else { return Ok(()) };
                let hash = value["event_hash"].as_str().unwrap().to_owned();
                (id.parse().unwrap(), Ack { seq: value["seq"].as_u64().unwrap(), hash, place: None, certain: read_before })
            }
        };
        let first = self.acked.get(&id).filter(|first| first.certain);
        if let Some(first) = first
            && (first.seq, &first.hash) != (ack.seq, &ack.hash)
        {
            return Err(format!("two receipts for {id} that differ: seq {} and {}", first.seq, ack.seq));
        }
        let ack = Ack { certain: ack.certain || first.is_some(), ..ack };
        self.count.acknowledged_in_the_cut += u64::from(!ack.certain);
        self.count.acknowledged += u64::from(self.acked.insert(id, ack).is_none());
        Ok(())
    }

    fn met(&mut self, torn_bytes: u64, rewritten_bytes: u64) {
        self.count.torn += u64::from(torn_bytes > 0);
        self.count.torn_bytes += torn_bytes;
        self.count.rewritten += u64::from(rewritten_bytes > 0);
    }

    /// Opens the store, which recovers it, and compares: acknowledged ⊆ recovered ⊆ submitted, each once, in order;
    /// the chain is whole and both legs are equal.
    /// Answers how many events that brought their ids are there.
    fn check(&mut self) -> Result<u64, String> {
        let (store, report) = Store::open(&self.store, &Options::default()).map_err(|error| format!("open: {error}"))?;
        self.count.checks += 1;
        self.met(report.recovery.torn.as_ref().map_or(0, |torn| torn.bytes), report.recovery.rewritten_bytes);
        self.count.behind += u64::from(report.replay.replayed > 0);
        self.count.behind_events += report.replay.replayed;
        self.count.set_aside += u64::from(report.mirror_set_aside.is_some());
        if self.random.chance(2) {
            store.close().map_err(|error| format!("close: {error}"))?;
        } else {
            drop(store);
        }
        self.compare()
    }

    /// The comparison alone, without opening.
    fn compare(&mut self) -> Result<u64, String> {
        let mut acked: HashSet<EventId> = self.acked.keys().copied().collect();
        let mut payloads = HashSet::new();
        let mut next: HashMap<(u64, u64), u64> = HashMap::new();
        let mut with_id = 0;
        let reader = LedgerReader::open(&self.store, &Options::default()).map_err(|error| error.to_string())?;
        let mut lines = reader.lines_from(Seq::FIRST).map_err(|error| error.to_string())?;
        while let Some((_, event)) = lines.next_event().map_err(|error| error.to_string())? {
            let payload = event.payload().unwrap_or_default();
            let planned = match self.submitted.get(payload) {
                Some(planned) => *planned,
                None if payload.starts_with("{\"import\":") => None,
                None => return Err(format!("seq {} was never submitted: {}", event.seq, &payload[..payload.len().min(60)])),
            };
            if !payloads.insert(payload.to_owned()) {
                return Err(format!("seq {} is there twice: {}", event.seq, &payload[..payload.len().min(60)]));
            }
            if let Some(Planned { run, task, index, id }) = planned {
                with_id += u64::from(id.is_some());
                if id.is_some_and(|id| id != event.id) {
                    return Err(format!("seq {} has the id {}, but {id:?} was submitted", event.seq, event.id));
                }
                let expected = std::mem::replace(next.entry((run, task)).or_default(), index + 1);
                if index < expected || (index > expected && !self.may_lack(run, task, expected, index)) {
                    return Err(format!("seq {}: event {index} of run {run}, task {task}, stands where {expected} belongs", event.seq));
                }
            }
            if let Some(Ack { seq, hash, place, .. }) = self.acked.get(&event.id) {
                let found = planned.map(|planned| (planned.run, planned.task, planned.index));
                if event.seq.get() != *seq || event.event_hash.to_string() != *hash || *place != found {
                    return Err(format!("{} was acknowledged as seq {seq}, and seq {} is another event", event.id, event.seq));
                }
                acked.remove(&event.id);
            }
            self.count.recovered += 1;
        }
        let verified = common::verified(&self.store);
        let lost = |certain| acked.iter().filter(|id| self.acked[*id].certain == certain).collect::<Vec<_>>();
        if let Some(id) = lost(true).first() {
            let (seq, count) = (self.acked[*id].seq, lost(true).len());
            return Err(format!("{count} acknowledged events are lost, {id} (seq {seq}) among them; {verified}"));
        }
        self.count.lost_in_the_cut += lost(false).len() as u64;
        acked.iter().for_each(|id| drop(self.acked.remove(id)));
        let parity = common::parity(&self.store);
        if !verified.is_clean() || !parity.is_consistent() || parity.jsonl_event_count != parity.sqlite_event_count {
            return Err(format!("{verified}\n{parity}"));
        }
        Ok(with_id)
    }

    /// Whether these events of a task may lack: those without an id are not submitted again.
    fn may_lack(&self, run: u64, task: u64, from: u64, to: u64) -> bool {
        let without_id = |index| self.submitted.values().flatten().any(|planned| *planned == Planned { run, task, index, id: None });
        self.again && (from..to).all(without_id)
    }

    /// The end: all is submitted again, the import is run to its end, twice; all is there, once.
    pub fn finish(mut self) -> Result<(), String> {
        self.disk.mount();
        let there = self.check()?;
        self.again = true;
        let duplicates = submit_again(&self.store, &self.runs)?;
        if duplicates != there {
            return Err(format!("{there} events with ids were there, and {duplicates} were found to be duplicates"));
        }
        self.count.again += duplicates;
        if self.imported {
            for _ in 0..2 {
                let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
                let output = command.arg("--store").arg(&self.store).arg("import").arg(&self.transcripts).output().unwrap();
                if !output.status.success() {
                    return Err(format!("import: {}", String::from_utf8_lossy(&output.stderr)));
                }
            }
        }
        self.compare()?;
        self.disk.unmount();
        Ok(())
    }
}

const TRANSCRIPTS: u64 = 3;
const LINES: u64 = 60;
