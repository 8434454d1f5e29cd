//! Shows a conversation as the ledger has it, and checks the ledger. Reads only, whether or not an agent is at work.

use std::io::Write;
use std::path::Path;

use counterfoil::entity::Codec;
use counterfoil::{LedgerReader, Options, Seq, StreamQuery, StreamReader, parity_full, verify};

use crate::agent::Error;
use crate::conversation::{Call, Conversations, Outcome, Said};
use crate::run::STREAM;

/// Each event of the conversation, with its position.
pub fn conversation(dir: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let codec = Codec::new(&Conversations)?;
    let mut reader = StreamReader::open(dir.join("store"), &Options::default())?;
    let mut open: Vec<Call> = Vec::new();
    let mut query = Some(StreamQuery::new(STREAM));
    while let Some(asked) = query.take() {
        let page = reader.page(&asked, Seq::MAX)?;
        for event in &page.events {
            let Some(payload) = reader.payload(event)? else { continue };
            let said = codec.decode(&event.event_type, payload.get())?;
            writeln!(out, "{:>4}  {}", event.session_seq.unwrap_or_default(), line(&said))?;
            match said {
                Said::Called(call) => open.push(call),
                Said::Resulted { call, .. } => open.retain(|open| open.id != call),
                Said::Asked { .. } | Said::Answered { .. } => {}
            }
        }
        query = page.next.map(|next| asked.from(next));
    }
    for call in open {
        writeln!(out, "      open    {} {}: it has no result yet", call.id, call.tool)?;
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
