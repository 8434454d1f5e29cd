//! `tail`: the last events, a line each, and those that another process appends from now on.

use std::thread::sleep;
use std::time::Duration;

use counterfoil::{Body, Event, Seq};

use crate::args::TailArgs;
use crate::context::Context;
use crate::export::check_end;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::text;

/// How often the ledger is looked at. 25 ms: at once to a person, nothing to a disk.
const POLL: Duration = Duration::from_millis(25);

pub fn run(args: &TailArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let head = ledger.head()?.seq.get();
    let from = Seq::new(head.saturating_sub(args.count).saturating_add(1));
    let mut lines = ledger.lines_from(from)?;
    let width = if out.is_terminal() { text::width() } else { 160 };
    loop {
        while let Some((line, event)) = lines.next_event()? {
            if out.is_json() {
                out.raw(line.raw.bytes)?;
                out.raw(b"\n")?;
            } else {
                out.line(one_line(&event, width))?;
            }
        }
        if !args.follow {
            check_end(&mut lines, context)?;
            return Ok(Exit::Fine);
        }
        out.flush()?;
        sleep(POLL);
    }
}

/// Widths below which a line leaves out the date, and then the source, so that some of the payload is seen.
const WIDTH_WITH_DATE: usize = 130;
const WIDTH_WITH_SOURCE: usize = 90;

/// An event on one line: seq, time, session, type, source, and as much of the payload as fits.
fn one_line(event: &Event<'_>, width: usize) -> String {
    let time = event.observed_at.to_string();
    let (from, session_chars) = if width < WIDTH_WITH_DATE { (11, 12) } else { (0, 20) };
    let time = time.get(from..23).unwrap_or(&time).replace('T', " ");
    let session = text::shortened(event.session_id().unwrap_or("-"), session_chars);
    let mut line = format!("{:>6}  {time}  {session:<12}  {:<18}  ", event.seq, event.event_type);
    if width >= WIDTH_WITH_SOURCE {
        let source = event.source();
        let source = source.name().map_or(source.kind().to_owned(), |name| format!("{}:{name}", source.kind()));
        line += &format!("{:<16}  ", text::shortened(&source, 28));
    }
    let room = width.saturating_sub(line.chars().count()).max(8);
    line += &match event.body {
        Body::Inline(json) => text::shortened(json, room),
        Body::Blob { bytes } => format!("({} in blobs/)", text::bytes(bytes)),
        Body::Erased => "(erased)".to_owned(),
    };
    line
}
