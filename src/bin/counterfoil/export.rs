//! `export`: the ledger's lines byte for byte, or imported transcripts under their own names.

use std::path::Path;

use counterfoil::import::{ExportedFile, export_originals};
use counterfoil::{LedgerReader, Lines, Seq};

use crate::args::ExportArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::{self, Out};
use crate::text;

pub fn run(args: &ExportArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    if let Some(dir) = &args.original {
        return originals(&ledger, dir, context, out);
    }
    let (from, to) = (Seq::new(args.from.unwrap_or(1).max(1)), args.to.map_or(Seq::MAX, Seq::new));
    let mut lines = ledger.lines_from(from)?;
    while let Some((line, event)) = lines.next_event()? {
        if event.seq > to {
            return Ok(Exit::Fine);
        }
        if args.session.as_deref().is_none_or(|session| event.session_id() == Some(session)) {
            out.raw(line.raw.bytes)?;
            out.raw(b"\n")?;
        }
    }
    check_end(&mut lines, context)?;
    Ok(Exit::Fine)
}

/// A reader stops at damage too: says so, unless it is what a live writer has begun.
pub fn check_end(lines: &mut Lines, context: &Context) -> Result<(), Failure> {
    let offset = match lines.next_raw()? {
        Some(line) if !line.raw.is_fill() => line.raw.offset,
        _ => return Ok(()),
    };
    if context.writer().is_some() {
        return Ok(());
    }
    Err(Failure::other(format!(
        "the ledger ends in bytes that are no right line (byte {offset} of its last segment); run `counterfoil doctor` to see what they are"
    )))
}

fn originals(ledger: &LedgerReader, dir: &Path, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let files: Vec<ExportedFile> = export_originals(ledger, dir)?;
    if out.is_json() {
        out.json(&files)?;
        return Ok(Exit::Fine);
    }
    for file in &files {
        let exact = match (file.exact_but_for_redactions, file.redacted) {
            (true, 0) => "exact".to_owned(),
            (true, _) => format!("exact but for {}", redacted(file)),
            (false, 0) => "NOT exact: what the ledger has of it".to_owned(),
            (false, _) => format!("NOT exact: what the ledger has of it, with {}", redacted(file)),
        };
        let path = text::plain(&file.path.display().to_string());
        out.line(format_args!("{path}  {}, {}, {exact}", text::count(file.lines, "line"), text::bytes(file.bytes)))?;
    }
    if files.is_empty() {
        out::note(out, context.local("the store holds no imported JSONL transcript; bring some in with `counterfoil import PATH`"));
    }
    Ok(Exit::Fine)
}

/// Numbers of lines that are shown. 8: enough to look some up; the tag and --json have all of them.
const SHOWN_MAX: usize = 8;

/// Which lines are not as they were.
fn redacted(file: &ExportedFile) -> String {
    let mut numbers: Vec<_> = file.redacted_lines.iter().take(SHOWN_MAX).map(u64::to_string).collect();
    if file.redacted > numbers.len() as u64 {
        numbers.push("...".to_owned());
    }
    format!("{} ({})", text::count(file.redacted, "redacted line"), numbers.join(", "))
}
