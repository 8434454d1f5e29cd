//! `import`: transcripts into the ledger, pipelined in order. A file that fails is reported, and the others go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use counterfoil::actors::{Durability, Ledger};
use counterfoil::import::{Format, ImportError, Settings, TAG_LAYOUT, TAG_SKIPPED, TranscriptReader, transcripts_in};
use counterfoil::{AppendError, Conditions, Receipt, Replaced, Secrets, Seq};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::append::{Answer, CATCH_UP, IN_FLIGHT_MAX, mirror_behind, open, print as print_receipt, runtime};
use crate::args::ImportArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{progress, text};

/// What became of a file.
#[derive(Debug, Default, Serialize)]
struct FileReport {
    #[serde(serialize_with = "lossy")]
    file: PathBuf,
    format: Option<&'static str>,
    #[serde(flatten)]
    counts: Counts,
    error: Option<String>,
}

/// A name that is no UTF-8 is no reason to print nothing.
fn lossy<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    /// Lines or steps that were recorded now.
    appended: u64,
    /// Lines or steps that were recorded before.
    duplicate: u64,
    /// Bad lines that were passed over; each has a note.
    skipped: u64,
    /// Notes that were recorded now, about the file's layout or about bad lines.
    notes: u64,
    /// Lines whose id is recorded with other content, since the file was changed elsewhere than at its end.
    conflicts: u64,
    /// Lines that were recorded now without their secrets.
    redacted: u64,
    /// Secrets that were replaced in them, by rule.
    replaced: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.appended += other.appended;
        self.duplicate += other.duplicate;
        self.skipped += other.skipped;
        self.notes += other.notes;
        self.conflicts += other.conflicts;
        self.redacted += other.redacted;
        for (rule, count) in &other.replaced {
            *self.replaced.entry(rule.clone()).or_default() += count;
        }
    }
}

#[derive(Serialize)]
struct Total {
    files: u64,
    files_failed: u64,
    #[serde(flatten)]
    counts: Counts,
    mirrored_through: Seq,
    interrupted: bool,
}

/// From the reading thread: what happens next with file number `file`.
struct Step {
    file: usize,
    what: What,
}

enum What {
    /// A draft is on its way.
    Sent { answer: Answer, sent: Sent },
    /// The file's format is known.
    Format(Format),
    /// The file is read; so many bad lines were passed over.
    End { skipped: u64, error: Option<String> },
}

/// What was sent.
struct Sent {
    /// Whether it is a note rather than a line.
    is_note: bool,
    /// Secrets that are in it, or were.
    secrets: Vec<Replaced>,
    /// Whether they are.
    keeps_secrets: bool,
}

pub fn run(args: ImportArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let mut reports = Vec::new();
    for path in &args.paths {
        reports.extend(transcripts_in(path).into_iter().map(|found| match found {
            Ok(file) => FileReport { file, ..FileReport::default() },
            Err(error) => {
                let file = if let ImportError::Io { path, .. } = &error { path.clone() } else { path.clone() };
                FileReport { file, error: Some(message(error.into())), ..FileReport::default() }
            }
        }));
    }
    if reports.is_empty() {
        return Err(Failure::other(
            "no transcripts in there (.jsonl, .traj, or .json trajectories); name a file to import whatever it is called",
        ));
    }
    if reports.iter().all(|report| report.error.is_some()) {
        // No store is created for nothing.
        return print(&reports, Seq::ZERO, false, context, out);
    }
    runtime()?.block_on(async {
        let ledger = open(context, context.options.clone(), out).await?;
        let import = Import::start(&args, &reports, &ledger, context);
        let done = import.run(&mut reports, args.receipts.then_some(&mut *out)).await;
        let closed = ledger.close().await;
        let (interrupted, fatal) = done?;
        let mirrored_through = closed.as_ref().map_or(Seq::ZERO, |report| report.mirrored_through);
        let exit = print(&reports, mirrored_through, interrupted, context, out)?;
        match (fatal, closed) {
            (Some(error), _) => Err(error.into()),
            (None, Err(error)) => Err(error.into()),
            // Closing has waited for the mirror, though not for ever.
            (None, Ok(report)) => match mirror_behind(&report) {
                Some(reason) => Err(Failure::other(format!("all of it is in the ledger, but the mirror is behind: {reason}; {CATCH_UP}"))),
                None if interrupted => Err(Failure::other("interrupted; import again to go on: what is recorded is recognised")),
                None => Ok(exit),
            },
        }
    })
}

struct Import {
    steps: mpsc::Receiver<Step>,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
}

impl Import {
    /// Starts the thread that reads the transcripts, hashes what is in them, and sends it.
    fn start(args: &ImportArgs, reports: &[FileReport], ledger: &Ledger, context: &Context) -> Import {
        let files: Vec<PathBuf> = reports.iter().map(|report| report.file.clone()).collect();
        let total = files.iter().map(|file| std::fs::metadata(file).map_or(0, |meta| meta.len())).sum();
        let bar = progress::bytes("importing", total);
        // Where secrets are kept, what finds them still makes the ids, so that an import with and one without are told apart.
        let redactor = Some(Arc::new(Secrets::new()) as Arc<dyn counterfoil::Redactor>);
        let settings =
            Settings { format: args.format, skip_bad: args.skip_bad, redactor, keep_secrets: args.keep_secrets, ..Settings::default() };
        let failed: Vec<bool> = reports.iter().map(|report| report.error.is_some()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (to, steps) = mpsc::channel(IN_FLIGHT_MAX);
        let (ledger, handle) = (ledger.clone(), tokio::runtime::Handle::current());
        let (stopped, shown, line_bytes_max) = (stop.clone(), bar.clone(), context.options.line_bytes_max);
        let settings = Settings { line_bytes_max: settings.line_bytes_max.min(line_bytes_max), ..settings };
        std::thread::spawn(move || {
            let mut sender = Sender { ledger, handle, to, stopped, bar: shown, begun: Instant::now(), sent: 0, bytes_before: 0 };
            for (number, (file, failed)) in files.iter().zip(failed).enumerate() {
                if !failed && sender.file(number, file, &settings).is_none() {
                    return;
                }
            }
        });
        Import { steps, stop, bar }
    }

    /// Takes the answers in order, and prints the receipts where that is asked for. Answers whether Ctrl-C ended it, and
    /// what else did.
    async fn run(mut self, reports: &mut [FileReport], mut receipts_to: Option<&mut Out>) -> Result<(bool, Option<AppendError>), Failure> {
        let (mut interrupted, mut fatal) = (false, None);
        let mut printed = Ok(());
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let step = tokio::select! {
                step = self.steps.recv() => step,
                _ = &mut interrupt, if !interrupted => {
                    interrupted = true;
                    self.stop.store(true, Ordering::Relaxed);
                    continue;
                }
            };
            let Some(Step { file, what }) = step else { break };
            let Some(report) = reports.get_mut(file) else { continue };
            match what {
                What::Format(format) => report.format = Some(format.name()),
                What::End { skipped, error } => {
                    report.counts.skipped = skipped;
                    report.error = report.error.take().or(error);
                }
                What::Sent { answer, sent } => match answer.await {
                    Ok(receipts) => {
                        receipts.iter().for_each(|receipt| report.take(receipt, &sent));
                        if let (Some(out), Ok(())) = (receipts_to.as_mut(), &printed) {
                            printed = receipts.iter().try_for_each(|receipt| print_receipt(receipt, out)).and_then(|()| out.flush());
                            if printed.is_err() {
                                self.stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                    Err(error @ AppendError::Conflict { .. }) => {
                        report.counts.conflicts += 1;
                        let is_cortex = report.format == Some(Format::Cortex.name());
                        report.error.get_or_insert_with(|| match is_cortex {
                            true if sent.secrets.is_empty() => {
                                format!("a row has an id that is recorded otherwise: {error}; adopt the ledger into a store of its own")
                            }
                            _ => changed(&error, &sent),
                        });
                    }
                    Err(error) => {
                        // Nothing can be appended any more; what is on its way is answered likewise.
                        self.stop.store(true, Ordering::Relaxed);
                        report.error.get_or_insert_with(|| error.to_string());
                        fatal.get_or_insert(error);
                    }
                },
            }
        }
        self.bar.finish_and_clear();
        printed.map(|()| (interrupted, fatal))
    }
}

/// Why a line that is on record can't be recorded again.
fn changed(error: &AppendError, sent: &Sent) -> String {
    match (sent.secrets.is_empty(), sent.keeps_secrets) {
        (true, _) => format!("a line that was imported before has changed: {error}; import it under another name to record both"),
        (false, true) => format!("lines with secrets are on record without them, and stay so: {error}; import without --keep-secrets"),
        (false, false) => {
            format!("lines are on record with their secrets, or have changed, and stay so: {error}; erase them to be rid of the secrets")
        }
    }
}

impl FileReport {
    fn take(&mut self, receipt: &Receipt, sent: &Sent) {
        match (sent.is_note, receipt.duplicate) {
            (true, false) => self.counts.notes += 1,
            (true, true) => {}
            (false, false) => self.counts.appended += 1,
            (false, true) => self.counts.duplicate += 1,
        }
        if !sent.secrets.is_empty() && !sent.keeps_secrets && !receipt.duplicate {
            self.counts.redacted += 1;
            for Replaced { rule, count, .. } in &sent.secrets {
                *self.counts.replaced.entry(rule.clone().into_owned()).or_default() += count;
            }
        }
    }
}

/// The side that reads.
struct Sender {
    ledger: Ledger,
    handle: tokio::runtime::Handle,
    to: mpsc::Sender<Step>,
    stopped: Arc<AtomicBool>,
    bar: ProgressBar,
    begun: Instant,
    sent: u64,
    bytes_before: u64,
}

impl Sender {
    fn check_adopted(&self, reader: &TranscriptReader) -> Result<(), Failure> {
        Ok(reader.check_adopted(&self.ledger.reader()?)?)
    }

    /// Sends all of a file. Nothing where no other file is to follow.
    fn file(&mut self, number: usize, path: &Path, settings: &Settings) -> Option<()> {
        let send = |to: &mpsc::Sender<Step>, what| to.blocking_send(Step { file: number, what }).ok();
        let mut reader = match TranscriptReader::open(path, settings) {
            Ok(reader) => reader,
            Err(error) => return send(&self.to, What::End { skipped: 0, error: Some(message(error.into())) }),
        };
        send(&self.to, What::Format(reader.format()))?;
        // Before anything of it is sent; the reader looks at no other format.
        let checked = if reader.format() == Format::Cortex { self.check_adopted(&reader) } else { Ok(()) };
        let mut failed = checked.err().map(message);
        while failed.is_none() && !self.stopped.load(Ordering::Relaxed) {
            let draft = match reader.next() {
                Ok(Some(draft)) => draft,
                Ok(None) => break,
                Err(error) => {
                    failed = Some(message(error.into()));
                    break;
                }
            };
            let secrets = reader.replaced().to_vec();
            let is_note = draft.tags().iter().any(|tag| tag == TAG_LAYOUT || tag == TAG_SKIPPED);
            let checked = match self.ledger.check(draft) {
                Ok(checked) => checked,
                Err(error) => {
                    let line = reader.progress().lines;
                    failed = Some(format!("{}, line {line}: {error}", path.display()));
                    break;
                }
            };
            let submitted = self.handle.block_on(self.ledger.submit(vec![checked], Conditions::none(), Durability::Ledger));
            let answer: Answer = match submitted {
                Ok(answer) => Box::pin(answer),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            };
            send(&self.to, What::Sent { answer, sent: Sent { is_note, secrets, keeps_secrets: settings.keep_secrets } })?;
            self.sent += 1;
            if self.sent.is_multiple_of(64) {
                let rate = self.sent as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
                self.bar.set_position(self.bytes_before + reader.progress().bytes);
                self.bar.set_message(format!("{} events, {}/s", text::number(self.sent), text::number(rate as u64)));
            }
        }
        self.bytes_before += reader.progress().bytes_total;
        send(&self.to, What::End { skipped: reader.progress().skipped, error: failed })?;
        (!self.stopped.load(Ordering::Relaxed)).then_some(())
    }
}

fn message(failure: Failure) -> String {
    match failure {
        Failure::Told { message, .. } => message,
        Failure::ReaderGone => String::new(),
    }
}

fn print(reports: &[FileReport], mirrored_through: Seq, interrupted: bool, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let mut counts = Counts::default();
    reports.iter().for_each(|report| counts.add(&report.counts));
    let files_failed = reports.iter().filter(|report| report.error.is_some()).count() as u64;
    let total = Total { files: reports.len() as u64, files_failed, counts, mirrored_through, interrupted };
    let counts = &total.counts;
    for report in reports {
        if out.is_json() {
            out.json(report)?;
        } else {
            let format = report.format.unwrap_or("-");
            let file = text::plain(&report.file.display().to_string());
            out.line(format_args!("{file}  ({format})  {}", shown(&report.counts)))?;
            if let Some(error) = &report.error {
                out.line(format_args!("  FAILED: {}", text::plain(&context.local(error))))?;
            }
        }
    }
    if out.is_json() {
        #[derive(Serialize)]
        struct Document {
            total: Total,
        }
        out.json(&Document { total })?;
    } else {
        let failed = if files_failed > 0 { format!(", {files_failed} FAILED") } else { String::new() };
        out.line(format_args!("total: {}{failed}: {}", text::count(total.files, "file"), shown(counts)))?;
        if counts.redacted > 0 {
            let replaced: Vec<_> = counts.replaced.iter().map(|(rule, count)| format!("{rule} {}", text::number(*count))).collect();
            let (secrets, lines) = (text::count(counts.replaced.values().sum(), "secret"), text::count(counts.redacted, "line"));
            out.line(format_args!("replaced {secrets} in {lines} before writing: {}", replaced.join(", ")))?;
            out.line(format_args!("  (`export --original` says which lines those are; --keep-secrets records them as they are)"))?;
        }
    }
    Ok(if files_failed > 0 { Exit::PartFailed } else { Exit::Fine })
}

fn shown(counts: &Counts) -> String {
    let Counts { appended, duplicate, skipped, notes, conflicts, redacted, .. } = *counts;
    let redacted = if redacted > 0 { format!(", {} redacted", text::number(redacted)) } else { String::new() };
    let notes = text::count(notes, "note");
    let [appended, duplicate, skipped] = [appended, duplicate, skipped].map(text::number);
    let conflicts = if conflicts > 0 { format!(", {} in conflict", text::number(conflicts)) } else { String::new() };
    format!("{appended} appended, {duplicate} duplicate, {skipped} skipped{conflicts}{redacted} (and {notes})")
}
