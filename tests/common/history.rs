//! A history of appends, crashes and opens on a simulated disk, with what must hold after each of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use counterfoil::*;

use super::simulated::SimDisk;

pub const DIR: &str = "/simulated/store";

#[derive(Clone)]
struct ModelRow {
    mark: Watermark,
    stored: Stored,
    id: EventId,
    stream: Option<(String, u64)>,
}

/// The mirror as the ledger sees it: rows up to a watermark, which a crash may set back.
#[derive(Clone, Default)]
pub struct ModelMirror {
    rows: Vec<ModelRow>,
    /// What the writer has forgotten: below it the mirror must answer, or say that it can't.
    floor: Seq,
}

impl ModelMirror {
    pub fn seq(&self) -> Seq {
        self.rows.last().map_or(Seq::ZERO, |row| row.mark.seq)
    }

    pub fn watermark(&self, manifest: &Manifest) -> Watermark {
        let empty = Watermark { seq: Seq::ZERO, event_hash: manifest.genesis(), segment: Seq::ZERO, offset: 0 };
        self.rows.last().map_or(empty, |row| row.mark)
    }

    fn commit(&mut self, event: &Event<'_>, segment: Seq, offset: u64) {
        let mark = Watermark { seq: event.seq, event_hash: event.event_hash, segment, offset };
        let stream = event.session_id().map(|id| (id.to_owned(), event.session_seq().unwrap()));
        self.rows.push(ModelRow { mark, stored: Stored::of(event), id: event.id, stream });
    }

    pub fn commit_group(&mut self, group: &Group) {
        let mut offset = group.offset;
        for bytes in group.bytes.split_inclusive(|byte| *byte == b'\n') {
            let event = line::decode(&bytes[..bytes.len() - 1]).unwrap();
            if event.seq == self.seq().next() {
                self.commit(&event, group.segment, offset);
            }
            offset += bytes.len() as u64;
        }
    }

    /// Forgets the rows after this many.
    pub fn set_back(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the hint of the watermark is to point elsewhere.
    pub fn misplace(&mut self, offset: u64) {
        if let Some(row) = self.rows.last_mut() {
            row.mark.offset = offset;
        }
    }
}

impl ModelMirror {
    fn covers(&self) -> Result<(), LookupError> {
        match self.seq() < self.floor {
            true => Err(LookupError::Rebuilding { done: self.seq().get(), total: self.floor.get() }),
            false => Ok(()),
        }
    }
}

impl Lookup for ModelMirror {
    fn by_id(&mut self, id: EventId) -> Result<Option<Stored>, LookupError> {
        self.covers()?;
        Ok(self.rows.iter().find(|row| row.id == id).map(|row| row.stored.clone()))
    }
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
        self.covers()?;
        let stream = self.rows.iter().rev().find_map(|row| row.stream.as_ref().filter(|(id, _)| id == session_id));
        Ok(stream.map(|(_, seq)| *seq))
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(self.rows.iter().map(|row| row.id).max())
    }
}

/// An event that was handed in, by its number.
#[derive(Clone)]
pub struct Submitted {
    pub draft: Draft,
    pub payload: String,
    /// The batch it came in, and how many there were.
    pub batch: Option<(u64, usize)>,
}

#[derive(Clone, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub recovered_unacknowledged: u64,
    pub torn: u64,
    pub opens: u64,
    pub refused: u64,
    pub reformed: u64,
}

/// What the world outside knows of a store.
#[derive(Clone)]
pub struct History {
    pub disk: SimDisk,
    pub options: Options,
    pub mirror: ModelMirror,
    pub submitted: Vec<Submitted>,
    /// Hash and number of all that was acknowledged, or presented by an open, by seq.
    pub acknowledged: BTreeMap<u64, (EventHash, usize)>,
    /// What the writer has sealed, ever.
    pub sealed: HashSet<(u64, EventHash)>,
    /// Numbers of events of which an error has said that they are not written.
    pub refused: BTreeSet<usize>,
    /// What recovery said that it saved.
    pub torn: BTreeMap<PathBuf, Vec<u8>>,
    pub counts: Counts,
    /// Whether the disk keeps its word. Under one that doesn't, all can be lost, and only what is there can be checked.
    pub honest: bool,
    /// A disk that lied was found out by verify.
    pub found_out: bool,
    ledger_id: Option<LedgerId>,
}

/// A process that has the store open.
pub struct Process {
    pub writer: Writer,
    pub manifest: Manifest,
    _lock: StoreLock,
}

impl History {
    pub fn new(disk: SimDisk, segment_bytes_max: u64) -> History {
        let mut options = super::options();
        options.storage = Arc::new(disk.clone());
        options.segment_bytes_max = segment_bytes_max;
        History {
            disk,
            options,
            mirror: ModelMirror::default(),
            submitted: Vec::new(),
            acknowledged: BTreeMap::new(),
            sealed: HashSet::new(),
            refused: BTreeSet::new(),
            torn: BTreeMap::new(),
            counts: Counts::default(),
            honest: true,
            found_out: false,
            ledger_id: None,
        }
    }

    /// The same past on another disk.
    pub fn on(&self, disk: SimDisk) -> History {
        let mut other = self.clone();
        other.options.storage = Arc::new(disk.clone());
        other.disk = disk;
        other
    }

    /// Opens the store as a new process does, and checks all that must hold. What is there counts as acknowledged from
    /// now on, since a retry would be told so.
    pub fn open(&mut self) -> Result<Process, LedgerError> {
        let dir = Path::new(DIR);
        let Claim { lock, manifest, .. } = claim(dir, self.mirror.len() > 0, &self.options)?;
        let expected = *self.ledger_id.get_or_insert(manifest.ledger_id);
        let (before, page_cache_lied) = (self.segment_files(), self.disk.shows_what_is_lost());
        let watermark = self.mirror.watermark(&manifest);
        self.mirror.floor = Seq::ZERO;
        let (mut writer, report) = Writer::open(dir, &manifest, Some(watermark), &mut self.mirror, &self.options)?;
        self.counts.opens += 1;
        if self.acknowledged.is_empty() || !self.honest {
            self.ledger_id = Some(manifest.ledger_id);
        } else {
            assert_eq!(manifest.ledger_id, expected, "another manifest than the one that events were acknowledged under");
        }
        if let Some(torn) = report.torn {
            self.counts.torn += 1;
            let saved = self.disk.read(&torn.saved).unwrap();
            assert_eq!(saved.len() as u64, torn.bytes);
            // After a failed fsync what was seen before is not what the disk has. A listing may have been made to fail.
            let cut = before.get(&torn.segment).map(|bytes| &bytes[torn.offset as usize..]);
            assert!(cut.is_none_or(|cut| saved == cut) || page_cache_lied, "the saved tail is not what was cut");
            self.torn.insert(torn.saved, saved);
        }
        self.check(writer.head());
        writer.mirrored_through(self.mirror.seq());
        Ok(Process { writer, manifest, _lock: lock })
    }

    fn segment_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let dir = Path::new(DIR).join("segments");
        let names = self.options.storage.list(&dir).unwrap_or_default();
        names.iter().map(|name| dir.join(name)).filter_map(|path| Some((path.clone(), self.disk.read(&path)?))).collect()
    }

    /// What must hold after each open.
    fn check(&mut self, head: Head) {
        let Ok(reader) = LedgerReader::open(Path::new(DIR), &self.options) else {
            return; // a read that was made to fail
        };
        let Ok(report) = verify(&reader, &mut |_| ()) else { return };
        if !self.honest && !report.is_clean() {
            // Damage below the watermark, which open doesn't read and verify finds.
            self.found_out = true;
            return;
        }
        assert!(report.is_clean() && report.unfinished.is_none(), "{report}");
        assert_eq!(report.head, head);
        let mut recovered: BTreeMap<u64, (EventHash, usize)> = BTreeMap::new();
        let mut numbers = HashSet::new();
        let mut batches: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        let Ok(mut lines) = reader.lines_from(Seq::FIRST) else { return };
        loop {
            let Ok(next) = lines.next_event() else { return };
            let Some((_, event)) = next else { break };
            let Body::Inline(payload) = &event.body else { panic!("a payload that is not inline") };
            let number: usize = payload.split(':').next().and_then(|n| n.trim_start_matches('"').parse().ok()).unwrap();
            let submitted = &self.submitted[number];
            assert_eq!(*payload, submitted.payload, "seq {}: another payload than was submitted", event.seq);
            assert!(numbers.insert(number), "event {number} is there twice");
            assert!(!self.refused.contains(&number), "event {number} is there, though an error said that it was not written");
            assert!(self.sealed.contains(&(event.seq.get(), event.event_hash)), "seq {} was never sealed so", event.seq);
            if let Some((batch, size)) = submitted.batch {
                batches.entry(batch).or_insert((0, size)).0 += 1;
            }
            recovered.insert(event.seq.get(), (event.event_hash, number));
        }
        for (batch, (found, size)) in batches {
            assert_eq!(found, size, "batch {batch} is there in part");
        }
        if !self.honest {
            self.acknowledged = recovered;
            return;
        }
        for (seq, acknowledged) in &self.acknowledged {
            assert_eq!(recovered.get(seq), Some(acknowledged), "seq {seq} was acknowledged and is lost");
        }
        for (path, bytes) in &self.torn {
            assert_eq!(self.disk.read(path).as_ref(), Some(bytes), "a saved tail is lost");
        }
        self.counts.recovered_unacknowledged += (recovered.len() - self.acknowledged.len()) as u64;
        self.acknowledged = recovered;
    }

    /// Takes a draft of one's own: what it carries is its number and so much text.
    pub fn draft(&mut self, with_id: bool, session: Option<u64>, text_bytes: usize) -> usize {
        let number = self.submitted.len();
        let payload = format!("\"{number}:{}\"", "x".repeat(text_bytes));
        let mut draft = Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).payload_json(&payload).unwrap();
        if with_id {
            draft = draft.id(super::id(number as u64));
        }
        if let Some(session) = session {
            draft = draft.session(format!("s-{session}"));
        }
        self.submitted.push(Submitted { draft, payload, batch: None });
        number
    }

    /// Marks drafts as a batch.
    pub fn batch(&mut self, numbers: &[usize]) {
        let first = numbers[0] as u64;
        for number in numbers {
            self.submitted[*number].batch = Some((first, numbers.len()));
        }
    }

    /// Stages these drafts, as one batch where they are more than one. A mirror that can't answer is brought up first.
    pub fn stage(&mut self, process: &mut Process, numbers: &[usize]) -> Result<Stage, AppendError> {
        match self.try_stage(process, numbers) {
            Err(AppendError::Rebuilding { .. }) => {
                self.replay(process, usize::MAX);
                self.try_stage(process, numbers)
            }
            other => other,
        }
    }

    fn try_stage(&mut self, process: &mut Process, numbers: &[usize]) -> Result<Stage, AppendError> {
        let drafts: Vec<CheckedDraft> =
            numbers.iter().map(|n| self.submitted[*n].draft.clone().check(&self.options.limits()).unwrap()).collect();
        self.mirror.floor = process.writer.floor();
        let stage = process.writer.stage(&drafts, &Conditions::none(), false, &mut self.mirror)?;
        if let Stage::Staged(staged) = &stage {
            for receipt in &staged.receipts {
                self.sealed.insert((receipt.seq.get(), receipt.event_hash));
            }
        }
        Ok(stage)
    }

    /// Takes note of receipts that were given out.
    pub fn acknowledge(&mut self, numbers: &[usize], receipts: &[Receipt]) {
        for (number, receipt) in numbers.iter().zip(receipts) {
            self.counts.acknowledged += 1;
            self.refused.remove(number);
            let known = self.acknowledged.insert(receipt.seq.get(), (receipt.event_hash, *number));
            assert!(known.is_none_or(|known| known == (receipt.event_hash, *number)), "seq {} was given out twice", receipt.seq);
        }
    }

    /// Brings the mirror up to the ledger, or so many events of it.
    pub fn replay(&mut self, process: &mut Process, events: usize) {
        let Ok(reader) = LedgerReader::open(Path::new(DIR), &self.options) else { return };
        let Ok(mut lines) = reader.lines_from(self.mirror.seq().next()) else { return };
        for _ in 0..events {
            let Ok(Some((line, event))) = lines.next_event() else { break };
            if event.seq == self.mirror.seq().next() && event.seq <= process.writer.head().seq {
                self.mirror.commit(&event, line.segment, line.raw.offset);
            }
        }
        process.writer.mirrored_through(self.mirror.seq());
    }
}
