//! `replay` and `repair`: what makes both legs equal again. They take the lock.

use std::io::IsTerminal;

use counterfoil::{
    Erased, FullReplay, LedgerError, ParityKind, ParityReport, RecoveryReport, Refusal, RepairReport, forecast, repair_from_ledger,
    repair_from_mirror, replay_store,
};
use serde::Serialize;

use crate::args::{Leg, RepairArgs};
use crate::check;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{erase, progress, text};

pub fn replay(context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let bar = progress::events("replaying", 0);
    let done = replay_store(&context.store, &context.options, &mut |through, head| {
        bar.set_length(head.get());
        bar.set_position(through.get());
    })?;
    bar.finish_and_clear();
    let exit = exit(done.parity.is_consistent(), &done.erased);
    if out.is_json() {
        out.json(&done)?;
        return Ok(exit);
    }
    let FullReplay { recovery, mirror_set_aside, erased, replay, parity, .. } = done;
    recovered(&recovery, out)?;
    if let Some(aside) = mirror_set_aside {
        out.line(format_args!("the old mirror was of no use; it is kept as {}", aside.display()))?;
    }
    let (written, there) = (text::number(replay.replayed), text::number(replay.skipped_existing));
    out.line(format_args!("replayed up to seq {}: {written} rows written, {there} were right already", replay.through))?;
    applied(&erased, context, out)?;
    out.text(context.local(&parity.to_string()))?;
    Ok(exit)
}

/// An erasure that is not carried out as a whole is something to come back to.
fn exit(is_consistent: bool, erased: &Erased) -> Exit {
    if is_consistent && erased.unfinished.is_some() { Exit::PartFailed } else { Exit::consistent(is_consistent) }
}

/// Says what was carried out of erasures that are recorded, where there was something to do.
fn applied(erased: &Erased, context: &Context, out: &mut Out) -> Result<(), Failure> {
    if erased.is_nothing() {
        return Ok(());
    }
    out.line("erasures that are recorded were applied to what was found:")?;
    erase::carried_out(erased, context, out)
}

/// Says what recovery found, where there is something to say.
pub fn recovered(recovery: &RecoveryReport, out: &mut Out) -> Result<(), Failure> {
    let Some(torn) = &recovery.torn else { return Ok(()) };
    let (bytes, segment, saved) = (text::bytes(torn.bytes), torn.segment.display(), torn.saved.display());
    out.line(format_args!("a torn tail of {bytes} was cut from {segment} (byte {}) and kept as {saved}", torn.offset))
}

#[derive(Serialize)]
struct Repaired {
    repair: RepairReport,
    consistent: bool,
    /// Why open still refuses the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    parity: ParityReport,
}

pub fn repair(args: &RepairArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    // Both count in seqs; how many there are is known only by the way.
    let bar = progress::events("repairing", context.ledger().ok().and_then(|ledger| ledger.head().ok()).map_or(0, |head| head.seq.get()));
    let mut done = |seq: u64| bar.set_position(seq);
    let (store, options) = (context.store.as_path(), &context.options);
    let repair = match args.from {
        Leg::Ledger => repair_from_ledger(store, options, &mut done)?,
        Leg::Mirror => repair_from_mirror(store, options, &mut done)?,
    };
    bar.finish_and_clear();
    let compared = check::compare(context, &context.ledger()?, ParityKind::Full)?;
    let refused = match forecast(store, options) {
        Err(LedgerError::Refused(refusal)) if matches!(*refusal, Refusal::BehindCheckpoint { .. }) => Some(refusal),
        _ => None,
    };
    let consistent = compared.is_consistent() && refused.is_none();
    if out.is_json() {
        let exit = exit(consistent, &repair.erased);
        let refused = refused.map(|refusal| refusal.to_string());
        out.json(&Repaired { repair, consistent, refused, parity: compared.report })?;
        return Ok(exit);
    }
    print(&repair, args.from, out)?;
    applied(&repair.erased, context, out)?;
    // The mirror can't bring back what it does not have.
    if let Some(refusal) = refused {
        out.line(format_args!("open still refuses: {}", text::plain(&context.local(&refusal.to_string()))))?;
    }
    out.text(context.local(&compared.report.to_string()))?;
    if std::io::stdout().is_terminal() && !consistent {
        out.line(format_args!("`{}` says what is left to do", context.command("doctor")))?;
    }
    Ok(exit(consistent, &repair.erased))
}

fn print(repair: &RepairReport, from: Leg, out: &mut Out) -> Result<(), Failure> {
    let RepairReport { rows_written, rows_removed, segments_written, lines_restored, set_aside, manifest_restored, .. } = repair;
    match from {
        Leg::Ledger if rows_written + rows_removed == 0 => out.line("repair: every row was right already")?,
        Leg::Ledger => {
            out.line(format_args!("repair: {} written from the ledger", text::count(*rows_written, "row")))?;
            if *rows_removed > 0 {
                out.line(format_args!("  {} removed that the ledger does not have", text::count(*rows_removed, "row")))?;
            }
        }
        Leg::Mirror if segments_written.is_empty() => out.line("repair: the ledger has all that the mirror has")?,
        Leg::Mirror => {
            let (lines, segments) = (text::count(*lines_restored, "line"), text::count(segments_written.len() as u64, "segment"));
            out.line(format_args!("repair: {lines} restored from the mirror, {segments} written"))?;
            for segment in segments_written {
                out.line(format_args!("  wrote {}", segment.display()))?;
            }
        }
    }
    if *manifest_restored {
        out.line("  wrote ledger.json")?;
    }
    for aside in set_aside {
        out.line(format_args!("  what was there before is kept as {}", aside.display()))?;
    }
    Ok(())
}
