//! `verify` and `parity`: checks that only read, but for `parity --since-clean`, which keeps in the mirror what it found right
//! where nobody writes to the store. Beside a live writer the mirror may be behind; that is lag, no inconsistency.

use counterfoil::attest::PublicKey;
use counterfoil::checkpoint::{AnchorReport, Anchored, verify_anchored};
use counterfoil::{
    Finding, LedgerReader, ParityKind, ParityReport, Seq, SignatureRules, VerifyReport, parity_full, parity_incremental, parity_quick,
    verify_signed,
};
use serde::Serialize;

use crate::args::{ParityArgs, VerifyArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{keys, progress, text};

#[derive(Serialize)]
struct Judged<T: Serialize> {
    clean: bool,
    #[serde(flatten)]
    report: T,
}

pub fn verify(args: &VerifyArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let bar = progress::bytes("verifying", ledger.size()?.plain_bytes);
    let mut done = |bytes| bar.set_position(bytes);
    let required_from = args.require_signatures.then_some(Seq::FIRST).or(args.require_signatures_from.map(Seq::new));
    let root = args.root.as_deref().map(keys::public_key).transpose()?;
    let rules = root.map(|root| SignatureRules { root, required_from });
    let (report, anchors) = match (args.anchors.is_empty(), rules) {
        (true, None) => (counterfoil::verify(&ledger, &mut done)?, None),
        (true, Some(rules)) => (verify_signed(&ledger, rules, &mut done)?, None),
        (false, rules) => {
            let (report, anchors) = verify_anchored(&ledger, anchored(args, root, &ledger)?, rules, &mut done)?;
            (report, Some(anchors))
        }
    };
    bar.finish_and_clear();
    let clean = report.is_clean() && anchors.as_ref().is_none_or(AnchorReport::is_clean);
    if out.is_json() {
        out.json(&Judged { clean, report: Verified { report, anchors } })?;
    } else {
        out.text(context.local(&report.to_string()))?;
        if let Some(anchors) = anchors {
            out.text(text::plain_lines(&context.local(&anchors.to_string())))?;
        }
    }
    Ok(Exit::consistent(clean))
}

#[derive(Serialize)]
struct Verified {
    #[serde(flatten)]
    report: VerifyReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchors: Option<AnchorReport>,
}

/// The checkpoints that the ledger is to be held against, and the keys that may have signed them.
fn anchored(args: &VerifyArgs, root: Option<PublicKey>, ledger: &LedgerReader) -> Result<Anchored, Failure> {
    let mut keys = args.keys.iter().map(|key| keys::public_key(key)).collect::<Result<Vec<_>, _>>()?;
    keys.extend(root);
    let mut anchored = Anchored::new(ledger, &keys);
    args.anchors.iter().try_for_each(|path| anchored.read(path))?;
    Ok(anchored)
}

/// A comparison, and who was writing meanwhile.
pub struct Compared {
    pub report: ParityReport,
    pub writer: Option<String>,
}

impl Compared {
    /// Whether both legs are equal, but for what a live writer has not mirrored yet.
    pub fn is_consistent(&self) -> bool {
        // A mirror that is missing beside a writer is being made.
        let is_lag = |finding: &Finding| matches!(finding, Finding::MissingMirror { .. });
        let lag_only =
            self.report.missing_in_jsonl.is_empty() && self.report.mismatched_count == 0 && self.report.findings.iter().all(is_lag);
        self.report.is_consistent() || (self.writer.is_some() && lag_only)
    }
}

/// Compares both legs, bounded by the mirror's watermark where a writer is at work.
pub fn compare(context: &Context, ledger: &LedgerReader, kind: ParityKind) -> Result<Compared, Failure> {
    let before = context.writer();
    let report = match kind {
        ParityKind::Quick => parity_quick(ledger, &context.options)?,
        kind => {
            let mark = context.mirror(ledger).and_then(|mirror| Ok(mirror.watermark(ledger.manifest().ledger_id)?.seq)).ok();
            let through = mark.filter(|_| before.is_some());
            let bar = progress::events("comparing", through.map_or_else(|| ledger.head().map_or(0, |head| head.seq.get()), Seq::get));
            let mut done = |events| bar.set_position(events);
            let report = match kind {
                ParityKind::Incremental => parity_incremental(ledger, &context.options, through, usize::MAX, &mut done)?,
                _ => parity_full(ledger, &context.options, through, &mut done)?,
            };
            bar.finish_and_clear();
            report
        }
    };
    Ok(Compared { report, writer: before.or_else(|| context.writer()) })
}

pub fn parity(args: &ParityArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let kind = match (args.full, args.since_clean) {
        (true, _) => ParityKind::Full,
        (false, true) => ParityKind::Incremental,
        (false, false) => ParityKind::Quick,
    };
    let compared = compare(context, &ledger, kind)?;
    print(&compared, context, out)?;
    Ok(Exit::consistent(compared.is_consistent()))
}

#[derive(Serialize)]
struct Parity<'r> {
    consistent: bool,
    /// Who was writing meanwhile.
    writer: Option<&'r str>,
    #[serde(flatten)]
    report: &'r ParityReport,
}

fn print(compared: &Compared, context: &Context, out: &mut Out) -> Result<(), Failure> {
    let Compared { report, writer } = compared;
    let consistent = compared.is_consistent();
    if out.is_json() {
        return out.json(&Parity { consistent, writer: writer.as_deref(), report });
    }
    match writer {
        Some(writer) if consistent => {
            out.line(format_args!("parity ({}): consistent up to seq {}", name(report.kind), report.mirrored_through))?;
            out.line(format_args!("  {writer} is writing to the store; the mirror follows"))?;
            out.line(format_args!("  events compared        {}", report.jsonl_event_count.min(report.sqlite_event_count)))?;
            if report.skipped_count > 0 {
                out.line(format_args!("  not read again         {}", report.skipped_count))?;
            }
            if !report.missing_in_sqlite.is_empty() {
                out.line(format_args!("  not mirrored yet       {}", report.missing_in_sqlite))?;
            }
            Ok(())
        }
        _ => out.text(context.local(&report.to_string())),
    }
}

fn name(kind: ParityKind) -> &'static str {
    match kind {
        ParityKind::Quick => "quick",
        ParityKind::Incremental => "since the last clean check",
        ParityKind::Full => "full",
    }
}
