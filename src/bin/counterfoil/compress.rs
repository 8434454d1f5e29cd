//! `compress`: gives sealed segments their compressed form, or the plain one back. Takes the lock.

use counterfoil::{Reformed, Sealed, Seq, compress, decompress};
use serde::Serialize;

use crate::args::CompressArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{progress, text};

#[derive(Serialize)]
struct Report {
    /// What has another form now.
    segments: Vec<Reformed>,
    plain_bytes: u64,
    stored_bytes: u64,
}

pub fn run(args: &CompressArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let which = match (args.seqs.is_empty(), args.keep) {
        (false, _) => Sealed::Holding(args.seqs.iter().copied().map(Seq::new).collect()),
        (true, keep) => Sealed::AllBut(keep.unwrap_or(0)),
    };
    let bar = progress::segments(if args.undo { "decompressing" } else { "compressing" }, context.ledger()?.size()?.segments);
    let mut segments = Vec::new();
    let mut done = |reformed: &Reformed| {
        bar.inc(1);
        segments.push(reformed.clone());
    };
    let (store, options) = (context.store.as_path(), &context.options);
    let ended = match args.undo {
        false => compress(store, options, &which, &mut done),
        true => decompress(store, options, &which, &mut done),
    };
    bar.finish_and_clear();
    // What was done before an error is done.
    if ended.is_ok() || !segments.is_empty() {
        tell(segments, args.undo, out)?;
    }
    ended?;
    Ok(Exit::Fine)
}

fn tell(segments: Vec<Reformed>, undo: bool, out: &mut Out) -> Result<(), Failure> {
    let sum = |bytes: fn(&Reformed) -> u64| segments.iter().map(bytes).sum();
    let report = Report { plain_bytes: sum(|one| one.plain_bytes), stored_bytes: sum(|one| one.stored_bytes), segments };
    if out.is_json() {
        return out.json(&report);
    }
    for Reformed { path, plain_bytes, stored_bytes } in &report.segments {
        out.line(format_args!("  {}  {} of lines, {} on disk", path.display(), text::bytes(*plain_bytes), text::bytes(*stored_bytes)))?;
    }
    let count = text::count(report.segments.len() as u64, "segment");
    match (report.segments.is_empty(), undo) {
        (true, false) => out.line("compress: nothing to do: they are compressed already, or there is no sealed segment")?,
        (true, true) => out.line("compress: nothing to undo: they are plain")?,
        (false, true) => out.line(format_args!("compress: {count} plain again, {}", text::bytes(report.stored_bytes)))?,
        (false, false) => {
            let (from, to) = (text::bytes(report.plain_bytes), text::bytes(report.stored_bytes));
            out.line(format_args!("compress: {count} from {from} to {to}"))?;
        }
    }
    Ok(())
}
