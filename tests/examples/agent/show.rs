//! Shows a conversation as the ledger has it, and checks the ledger. Reads only, whether or not an agent is at work.

use std::io::Write;
use std::path::Path;

use counterfoil::entity::{Codec, Folded};
use counterfoil::{LedgerReader, Options, Seq, StreamQuery, StreamReader, parity_full, verify};

use crate::agent::Error;
use crate::conversation::{Call, Conversations, Outcome, Said};
use crate::run::STREAM;

/// Each event of the conversation, with its position, and the calls that are open.
pub fn conversation(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let (codec, mut folded) = (Codec::new(&Conversations)?, Folded::<Conversations>::default());
    let mut reader = StreamReader::open(dir.join("store"), &Options::default())?;
    let mut query = Some(StreamQuery::new(STREAM));
    while let Some(asked) = query.take() {
        let page = reader.page(&asked, Seq::MAX)?;
        for event in &page.events {
            let payload = reader.payload(event)?;
            folded.absorb(&Conversations, &codec, event, payload.as_ref().map(|payload| payload.get()))?;
            if let Some(said) = folded.state.said.last() {
                writeln!(out, "{:>4}  {}", folded.position, line(said))?;
            }
        }
        query = page.next.map(|next| asked.from(next));
    }
    for Call { id, tool } in &folded.state.open {
        writeln!(out, "      open    {id} {tool}: it has no result yet")?;
    }
    Ok(())
}

/// Whether every line is right, and the mirror has the same.
pub fn checks(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let options = Options::default();
    let ledger = LedgerReader::open(&dir.join("store"), &options)?;
    let verified = verify(&ledger, &mut |_| ())?;
    let parity = parity_full(&ledger, &options, None, &mut |_| ())?;
    let word = |is: bool, yes, no| if is { yes } else { no };
    writeln!(
        out,
        "{} events, {}; the SQLite mirror {}",
        verified.events,
        word(verified.is_clean(), "every line verified", "DAMAGED"),
        word(parity.is_consistent(), "has the same", "DIFFERS"),
    )?;
    Ok(())
}

fn line(said: &Said) -> String {
    match said {
        Said::Asked { text } => format!("user    {text}"),
        Said::Answered { text } => format!("model   {text}"),
        Said::Called(call) => format!("call    {} {}", call.id, call.tool),
        Said::Resulted { call, outcome } => match outcome {
            Outcome::Done { output } => format!("result  {call} {}", output.trim_end()).trim_end().to_owned(),
            Outcome::Failed { reason } => format!("result  {call} failed: {}", reason.trim_end()),
            Outcome::Interrupted => format!("result  {call} interrupted: outcome unknown"),
        },
    }
}
