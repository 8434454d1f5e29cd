//! `tail`: the last events, a line each, and those that another process appends from now on.

use std::thread::sleep;
use std::time::Duration;

use counterfoil::Seq;

use crate::args::TailArgs;
use crate::context::Context;
use crate::export::check_end;
use crate::failure::{Exit, Failure};
use crate::line;
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
        while let Some((found, event)) = lines.next_event()? {
            if out.is_json() {
                out.raw(found.raw.bytes)?;
                out.raw(b"\n")?;
            } else {
                out.line(line::of_ledger(&event.to_record(), width))?;
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
