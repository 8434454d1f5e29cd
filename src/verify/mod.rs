//! Verify: the whole chain and every payload hash, from the ledger alone, collecting every failure.
//!
//! Called by the CLI and by repair. Only reads; needs no lock, and runs beside a live writer.

mod signatures;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use self::signatures::Signatures;
pub use self::signatures::{KeyUse, SignatureReport, SignatureRules};

use serde::{Deserialize, Serialize, Serializer};

use crate::checkpoint::Roots;
use crate::erase::RecordedErasure;
use crate::event::erasure::ErasurePayload;
use crate::event::{Body, Event, EventId, PayloadHash, Seq, line};
use crate::keys::Signed;
use crate::ledger::place::{Expected, Standing, check_blob};
use crate::ledger::stream::{Plan, Stream, StreamLine, cancelled};
use crate::ledger::{Head, LedgerError, LedgerReader, LineFault, erase, lock, place};
use crate::mirror::bounded_positions;

/// Failures that a report lists at most; the count goes on.
const LISTED_MAX: usize = 10_000;

/// Erasures that a report lists at most; the count goes on.
const ERASURES_LISTED_MAX: usize = 100;

/// A line that is not right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The segment.
    pub path: PathBuf,
    /// Which line of it, from 1, blank ones not counted.
    pub line: u64,
    /// Where it begins.
    pub offset: u64,
    /// The seq that it has, or that belongs there.
    pub seq: Seq,
    /// Its id, where it can be read.
    pub id: Option<EventId>,
    /// What is wrong.
    #[serde(serialize_with = "as_text")]
    pub reason: LineFault,
}

fn as_text<S: Serializer>(reason: &LineFault, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(reason)
}

/// Bytes at the end of the ledger that are no line (yet).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The segment.
    pub path: PathBuf,
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What verify found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Lines that are right, whoever signed them.
    pub events: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of all lines.
    pub bytes: u64,
    /// The last event.
    pub head: Head,
    /// Events whose payload was erased, as an erasure event says.
    pub erased: u64,
    /// Events that an erasure names, and whose payload is still there: the next open erases them.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_yet_erased: u64,
    /// How many erasures the ledger has.
    #[serde(skip_serializing_if = "is_zero")]
    pub erasures_count: u64,
    /// The first hundred of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub erasures: Vec<RecordedErasure>,
    /// Events that carry a signature of the right form. Who signed is in `signatures`, where that was asked for.
    pub signed: u64,
    /// Who signed, by the rules that were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signatures: Option<SignatureReport>,
    /// How many lines are wrong.
    pub failures_count: u64,
    /// How many of those are right as lines, but are not signed as they should be.
    pub signature_failures_count: u64,
    /// The first ten thousand of them.
    pub failures: Vec<Failure>,
    /// What a live writer has begun to write.
    pub unfinished: Option<Unfinished>,
}

impl VerifyReport {
    /// Whether every line is right.
    pub fn is_clean(&self) -> bool {
        self.failures_count == 0
    }

    fn fail(&mut self, failure: Failure) {
        self.failures_count += 1;
        self.signature_failures_count += u64::from(failure.reason.is_of_signature());
        if self.failures.len() < LISTED_MAX {
            self.failures.push(failure);
        }
    }
}

impl std::fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_whole = self.failures_count == self.signature_failures_count;
        let verdict = match (self.is_clean(), is_whole) {
            (true, _) => "every line is right",
            (false, true) => "the chain is whole, but NOT SIGNED AS IT SHOULD BE",
            (false, false) => "DAMAGED",
        };
        writeln!(f, "verify: {verdict}")?;
        let plural = if self.segments == 1 { "" } else { "s" };
        writeln!(f, "  events    {} in {} segment{plural}, {} bytes", self.events, self.segments, self.bytes)?;
        writeln!(f, "  head      seq {} {}", self.head.seq, self.head.event_hash)?;
        if self.erased > 0 {
            writeln!(f, "  erased    {}", self.erased)?;
        }
        if self.not_yet_erased > 0 {
            writeln!(f, "  not yet   {} that an erasure names still have their payload; the next open erases them", self.not_yet_erased)?;
        }
        for erasure in &self.erasures {
            writeln!(f, "    {erasure}")?;
        }
        if self.erasures_count > self.erasures.len() as u64 {
            writeln!(f, "    and {} more erasures", self.erasures_count - self.erasures.len() as u64)?;
        }
        match &self.signatures {
            Some(signatures) => write!(f, "{signatures}")?,
            None if self.signed > 0 => {
                writeln!(f, "  signed    {} (form checked; `verify --root KEY` checks who signed)", self.signed)?;
            }
            None => {}
        }
        if let Some(unfinished) = &self.unfinished {
            writeln!(
                f,
                "  unfinished {} bytes at byte {} of {}: a writer is at work",
                unfinished.bytes,
                unfinished.offset,
                unfinished.path.display()
            )?;
        }
        if self.failures_count > 0 {
            writeln!(f, "  failures  {}", self.failures_count)?;
        }
        for failure in &self.failures {
            let id = failure.id.map_or(String::new(), |id| format!(" {id}"));
            writeln!(
                f,
                "    {} line {} (byte {}), seq {}{id}: {}",
                failure.path.display(),
                failure.line,
                failure.offset,
                failure.seq,
                failure.reason
            )?;
        }
        if self.failures_count > self.failures.len() as u64 {
            writeln!(f, "    and {} more", self.failures_count - self.failures.len() as u64)?;
        }
        if !is_whole {
            writeln!(f, "  run `counterfoil parity --full` to see what the mirror still has, then `counterfoil repair --from mirror`")?;
        }
        if self.signature_failures_count > 0 {
            writeln!(
                f,
                "  no repair makes a signature; ask who holds these keys, and see that the root is the right one (`counterfoil keys list`)"
            )?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Attachment {
    hash: PayloadHash,
    bytes: u64,
}

/// How often a line of the active segment is read that is not right, while a writer is at work.
const READINGS_MAX: u32 = 10;

/// How many lines lie between two calls of `progress`.
const PROGRESS_LINES: u64 = 256;

/// Reads the whole ledger in order and checks every line at its place, on as many threads as there are processors, in
/// constant memory. `progress` is called with the bytes that are done, now and then and at the end.
///
/// What is checked of a line: its form, its event hash, its seq, its link, its session_seq, its group and batch,
/// its payload's hash (also out of line), its attachments, and that an erased payload is named by an erasure. Not that no other
/// line has its id, which would take memory for each of them: a replay ([`crate::replay_store`]) names an id that comes twice.
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read. What is wrong with lines is in the report.
pub fn verify(reader: &LedgerReader, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, LedgerError> {
    verify_by(reader, None, &Plan::default(), progress)
}

/// The same, and who signed: each signature must be right, by a key that the ledger's changes to keys lead to from the root
/// that is given, and that was current where it signed.
///
/// # Errors
/// As [`verify`].
pub fn verify_signed(reader: &LedgerReader, rules: SignatureRules, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, LedgerError> {
    let plan = Plan::default();
    run(Verifier::new(reader, Seq::MAX, &plan).signed(Some(rules)), plan, progress)
}

/// The same by a plan, on which the report does not depend; up to a seq that is known to be durable, where a writer is at work.
#[doc(hidden)]
pub fn verify_by(
    reader: &LedgerReader,
    through: Option<Seq>,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifyReport, LedgerError> {
    run(Verifier::new(reader, through.unwrap_or(Seq::MAX), plan), plan.clone(), progress)
}

/// The same, and has the tree of checkpoints grow by each line that is right.
pub(crate) fn verify_watched(
    reader: &LedgerReader,
    roots: &mut Roots,
    rules: Option<SignatureRules>,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifyReport, LedgerError> {
    let plan = Plan::default();
    run(Verifier { roots: Some(roots), ..Verifier::new(reader, Seq::MAX, &plan).signed(rules) }, plan, progress)
}

fn run(mut verifier: Verifier<'_>, mut plan: Plan, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, LedgerError> {
    let (reader, through) = (verifier.reader, verifier.through);
    plan.keys = verifier.signatures.as_ref().map(|signatures| signatures.known.clone());
    let mut lines = Stream::new(reader.lines_from(Seq::FIRST)?, through, plan.clone());
    let (mut count, mut readings) = (0u64, 0);
    while verifier.expected.head().seq < through && lines.advance()? {
        let Some(found) = lines.current() else { break };
        if verifier.is_unfinished(&found) {
            break;
        }
        if found.active && found.decoded.is_err() && readings < READINGS_MAX && verifier.is_written() {
            // A writer may have been in the middle of it: what it is, is what is there now.
            readings += 1;
            let again = reader.lines_at(found.segment, found.raw.offset)?;
            lines = Stream::new(again, through, plan.clone());
            continue;
        }
        readings = 0;
        verifier.line(&found)?;
        count += 1;
        if count.is_multiple_of(PROGRESS_LINES) {
            progress(verifier.report.bytes);
        }
    }
    progress(verifier.report.bytes);
    if plan.is_cancelled() {
        return Err(cancelled());
    }
    verifier.name_beyond()?;
    Ok(verifier.finish())
}

struct Verifier<'r> {
    reader: &'r LedgerReader,
    roots: Option<&'r mut Roots>,
    through: Seq,
    /// The last line was from behind `through`, and no place for it.
    is_beyond: bool,
    /// Whether a writer is at work, once that was asked.
    is_written: Option<bool>,
    expected: Expected,
    report: VerifyReport,
    /// The segment that the last line was in, and which line of it that was.
    segment: Seq,
    line_number: u64,
    /// Erased events that no erasure has named yet.
    waiting: BTreeMap<Seq, (PayloadHash, Failure)>,
    signatures: Option<Signatures>,
    /// Erased events that an erasure has named.
    named: HashSet<Seq>,
}

impl Verifier<'_> {
    fn new<'r>(reader: &'r LedgerReader, through: Seq, plan: &Plan) -> Verifier<'r> {
        let genesis = Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() };
        let report = VerifyReport {
            events: 0,
            segments: 0,
            bytes: 0,
            head: genesis,
            erased: 0,
            not_yet_erased: 0,
            erasures_count: 0,
            erasures: Vec::new(),
            signed: 0,
            signatures: None,
            failures_count: 0,
            signature_failures_count: 0,
            failures: Vec::new(),
            unfinished: None,
        };
        let expected = Expected::keeping(genesis, bounded_positions(plan.positions_max));
        Verifier {
            reader,
            roots: None,
            through,
            is_beyond: false,
            is_written: None,
            expected,
            report,
            segment: Seq::ZERO,
            line_number: 0,
            waiting: BTreeMap::new(),
            signatures: None,
            named: HashSet::new(),
        }
    }

    fn signed(self, rules: Option<SignatureRules>) -> Self {
        let ledger_id = self.reader.manifest().ledger_id;
        Verifier { signatures: rules.map(|rules| Signatures::new(ledger_id, rules)), ..self }
    }

    /// Whether the ledger ends here: in fill, or in what a live writer has begun to write.
    fn is_unfinished(&mut self, found: &StreamLine<'_>) -> bool {
        let raw = found.raw;
        if !found.active || raw.terminated {
            return false;
        }
        if raw.is_fill() {
            return true;
        }
        let written = self.is_written();
        if written {
            let path = found.path(self.reader.dir());
            self.report.unfinished = Some(Unfinished { path, offset: raw.offset, bytes: raw.len });
        }
        written
    }

    /// Whether a writer is at work. Asked once: the question takes the lock for a moment.
    fn is_written(&mut self) -> bool {
        let reader = self.reader;
        *self.is_written.get_or_insert_with(|| lock::is_held(reader.storage(), reader.dir()))
    }

    fn line(&mut self, found: &StreamLine<'_>) -> Result<(), LedgerError> {
        let raw = found.raw;
        if found.segment != self.segment {
            (self.segment, self.line_number) = (found.segment, 0);
            self.report.segments += 1;
        }
        self.line_number += 1;
        self.report.bytes += raw.end() - raw.offset;
        match found.decoded {
            Ok(event) if raw.terminated => self.event(found, event)?,
            Ok(event) => {
                self.report.fail(self.failure(found, event.seq, Some(event.id), LineFault::Unterminated));
                self.expected.step_over(event)?;
            }
            Err(error) => {
                let id = line::decode_unhashed(raw.bytes).ok().map(|event| event.id);
                self.report.fail(self.failure(found, self.expected.head().seq.next(), id, found.fault(error.clone())));
                self.expected.lose_line();
            }
        }
        Ok(())
    }

    fn event(&mut self, found: &StreamLine<'_>, standing: &Standing) -> Result<(), LedgerError> {
        let expected = self.expected.head().seq.next();
        if standing.seq > self.through && !found.active {
            // It has no place before what is asked for, nor have those that follow it: one failure tells.
            if !std::mem::replace(&mut self.is_beyond, true) {
                let reason = LineFault::Seq { expected, found: standing.seq };
                self.report.fail(self.failure(found, standing.seq, Some(standing.id), reason));
            }
            return Ok(());
        }
        self.is_beyond = false;
        // Most lines have nothing more to look at.
        let event = if standing.is_plain { None } else { line::decode_again(found.raw.bytes).ok() };
        let wrong = match (self.check(found, standing)?, &event) {
            (None, Some(event)) => check_blobs(self.reader, event)?,
            (fault, _) => fault,
        };
        match wrong {
            None => {
                self.report.events += 1;
                self.report.head = self.expected.head();
                self.report.signed += u64::from(standing.signed != Signed::No);
                if let Some(roots) = &mut self.roots {
                    roots.event(self.report.head);
                }
                let event = || line::decode_again(found.raw.bytes).ok();
                let signatures = self.signatures.as_mut();
                if let Some(reason) = signatures.and_then(|all| all.check(standing.seq, standing.signed, &event, !standing.is_plain)) {
                    self.report.fail(self.failure(found, standing.seq, Some(standing.id), reason));
                }
            }
            Some(reason) => {
                self.report.fail(self.failure(found, standing.seq, Some(standing.id), reason));
                if standing.seq > self.expected.head().seq.next() {
                    self.expected.lose_lines_before(standing.seq);
                }
                self.expected.step_over(standing)?;
            }
        }
        if let Some(event) = event {
            self.erasures(found, &event);
        }
        Ok(())
    }

    /// Whether it is right at its place.
    fn check(&mut self, found: &StreamLine<'_>, event: &Standing) -> Result<Option<LineFault>, LedgerError> {
        let first_line = self.line_number == 1;
        if first_line && event.seq != found.segment {
            return Ok(Some(LineFault::Seq { expected: found.segment, found: event.seq }));
        }
        // A group lies in one segment.
        let begins = !first_line || event.group_seq == event.seq;
        let group = if begins { self.expected.check_group(event) } else { Err(LineFault::Group { found: event.group_seq }) };
        Ok(self.expected.check_standing(event, &mut || Some(0))?.or(group.err()))
    }

    fn erasures(&mut self, found: &StreamLine<'_>, event: &Event<'_>) {
        if event.body == Body::Erased {
            let unnamed = self.failure(found, event.seq, Some(event.id), LineFault::NotErased);
            self.waiting.insert(event.seq, (event.payload_hash, unnamed));
        } else if let Some(payload) = ErasurePayload::of(event) {
            self.report.erasures_count += 1;
            if self.report.erasures.len() < ERASURES_LISTED_MAX {
                self.report.erasures.push(RecordedErasure::of(event, &payload, None));
            }
            self.name(&payload);
        }
    }

    /// Takes note of what an erasure names.
    fn name(&mut self, payload: &ErasurePayload) {
        for named in &payload.erased {
            if self.waiting.get(&named.seq).is_some_and(|(hash, _)| *hash == named.payload_hash) {
                self.waiting.remove(&named.seq);
                self.named.insert(named.seq);
                self.report.erased += 1;
            } else if !self.named.contains(&named.seq) {
                self.report.not_yet_erased += 1;
            }
        }
    }

    /// Reads on where an erased event waits for its name: it may have been erased after the check began, and the erasure stand
    /// behind its end.
    fn name_beyond(&mut self) -> Result<(), LedgerError> {
        if self.waiting.is_empty() || self.through == Seq::MAX {
            return Ok(());
        }
        let (through, not_yet) = (self.through, self.report.not_yet_erased);
        erase::each_erasure(&mut self.reader.lines_from(through.next())?, &mut |event, payload| {
            if event.seq > through {
                self.name(&payload);
            }
        })?;
        // What it names besides was read before it was written.
        self.report.not_yet_erased = not_yet;
        Ok(())
    }

    fn failure(&self, found: &StreamLine<'_>, seq: Seq, id: Option<EventId>, reason: LineFault) -> Failure {
        let path = found.path(self.reader.dir());
        Failure { path, line: self.line_number, offset: found.raw.offset, seq, id, reason }
    }

    fn finish(mut self) -> VerifyReport {
        for (_, failure) in self.waiting.into_values() {
            self.report.fail(failure);
        }
        self.report.signatures = self.signatures.map(Signatures::report);
        self.report
    }
}

/// What is wrong with the bytes that an event keeps out of its line, if anything.
fn check_blobs(reader: &LedgerReader, event: &Event<'_>) -> Result<Option<LineFault>, LedgerError> {
    let wrong = check_blob(reader.storage(), reader.dir(), event)?;
    if wrong.is_some() || event.body == Body::Erased {
        return Ok(wrong);
    }
    let attachments: Vec<Attachment> = event.attachments_json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    for Attachment { hash, bytes } in attachments {
        let wrong = place::check_blob_file(reader.storage(), reader.dir(), hash, bytes)?;
        if wrong.is_some() {
            return Ok(wrong);
        }
    }
    Ok(None)
}
