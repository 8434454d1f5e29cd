//! `erase`: forgets payloads for good, and says where. Takes the lock.

use counterfoil::{Erase, EraseReport, Erased, Erasure, erase};

use crate::args::EraseArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{keys, text};

/// Events that are shown.
const SHOWN_MAX: usize = 20;

pub fn run(args: EraseArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let EraseArgs { seqs, ids, session, reason, by, source, sign, dry_run } = args;
    let which = match session {
        Some(session) => Erase::Session(session),
        None if ids.is_empty() => Erase::Seqs(seqs),
        None => Erase::Ids(ids),
    };
    let mut erasure = Erasure::new(which, reason).source(source);
    (erasure.by, erasure.dry_run) = (by, dry_run);
    let options = keys::signing(&context.options, sign.as_deref())?;
    let report = erase(&context.store, &options, &erasure)?;
    // It is recorded, but not done as a whole.
    let exit = if report.done.unfinished.is_none() { Exit::Fine } else { Exit::PartFailed };
    if out.is_json() {
        out.json(&report)?;
    } else {
        print(&report, context, out)?;
    }
    Ok(exit)
}

fn print(report: &EraseReport, context: &Context, out: &mut Out) -> Result<(), Failure> {
    let events = text::count(report.events, "event");
    match (report.dry_run, report.recorded.first()) {
        (true, _) => out.line(format_args!("erase: {events} would be erased"))?,
        (false, Some(seq)) => out.line(format_args!("erase: {events} erased, recorded as seq {seq}"))?,
        (false, None) => out.line("erase: nothing to erase")?,
    }
    for event in report.listed.iter().take(SHOWN_MAX) {
        let bytes = text::bytes(event.payload_bytes);
        out.line(format_args!("  seq {} {} {}, {bytes}", event.seq, event.id, text::plain(&event.event_type)))?;
    }
    let more = report.events.saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        out.line(format_args!("  and {} more", text::number(more)))?;
    }
    if report.already_erased > 0 {
        out.line(format_args!("  {} erased before", text::count(report.already_erased, "event")))?;
    }
    if report.passed_over > 0 {
        out.line(format_args!("  {} of the ledger's own, never erased, passed over", text::count(report.passed_over, "event")))?;
    }
    for seq in report.layout_notes.iter().take(SHOWN_MAX) {
        out.line(format_args!("  ! a copy may be in seq {seq}, the layout note of the transcript: erase that too"))?;
    }
    carried_out(&report.done, context, out)
}

/// Says what was carried out of erasures, where there was something to do.
pub fn carried_out(done: &Erased, context: &Context, out: &mut Out) -> Result<(), Failure> {
    for path in done.segments.iter().chain(&done.mirrors_rewritten) {
        out.line(format_args!("  written anew: {}", path.display()))?;
    }
    for torn in &done.torn {
        let what = if torn.removed { "removed" } else { "taken out" };
        out.line(format_args!("  {what}: {} of {}", text::bytes(torn.bytes), torn.path.display()))?;
    }
    for path in &done.blobs {
        out.line(format_args!("  removed: {}", path.display()))?;
    }
    for path in &done.mirrors_removed {
        out.line(format_args!("  removed: {} (it can't be read, so it may have held what is erased)", path.display()))?;
    }
    if done.rows > 0 {
        let anew = if done.unfinished.is_none() { ", every page written anew" } else { "" };
        out.line(format_args!("  mirror: {} without payload{anew}", text::count(done.rows, "row")))?;
    }
    if done.missing_count > 0 {
        let seqs: Vec<String> = done.missing.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
        let events = text::count(done.missing_count, "event");
        out.line(context.local(&format!("  ! {events} could not be found (seq {}); run `counterfoil verify`", seqs.join(", "))))?;
    }
    if let Some(unfinished) = &done.unfinished {
        out.line(format_args!("  ! not done as a whole: {}", context.local(unfinished)))?;
    }
    Ok(())
}
