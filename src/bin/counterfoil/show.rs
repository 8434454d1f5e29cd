//! `show`: one event, by its seq or id.

use counterfoil::rusqlite::OptionalExtension;
use counterfoil::{Body, Event, EventId, LedgerReader, Seq, erasure_of, line};

use crate::args::ShowArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::text;

pub fn run(args: &ShowArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let wanted = args.event.as_str();
    let by_seq = wanted.parse::<u64>().ok().filter(|seq| (1..=Seq::MAX.get()).contains(seq)).map(Seq::new);
    let by_id = wanted.parse::<EventId>().ok();
    if by_seq.is_none() && by_id.is_none() {
        let wanted = text::shortened(wanted, 80);
        return Err(Failure::usage(format!(
            "`{wanted}` is neither a seq nor an event id; write a number from 1 on, or `evt_` and 26 upper-case Crockford base32 digits"
        )));
    }
    let ledger = context.ledger()?;
    let seq = match (by_seq, by_id) {
        (Some(seq), _) => Some(seq),
        (None, Some(id)) => seq_of(&ledger, id, context)?,
        (None, None) => None,
    };
    let bytes = match seq {
        Some(seq) => ledger.line(seq)?,
        None => None,
    };
    let Some(bytes) = bytes else {
        let head = ledger.head()?.seq;
        return Err(Failure::other(format!(
            "there is no event {wanted}; the ledger's last one is seq {head}, and `counterfoil tail` shows the last ones"
        )));
    };
    let event =
        line::decode(&bytes).map_err(|error| Failure::other(format!("seq {wanted} is damaged: {error}; run `counterfoil verify`")))?;
    if out.is_json() {
        out.json(&event.to_record())?;
    } else {
        print(&event, out)?;
        if event.body == Body::Erased
            && let Ok(mirror) = context.mirror(&ledger)
            && let Ok(Some(erasure)) = erasure_of(&mirror, event.seq)
        {
            out.line(format_args!("erased by        {}", text::plain(&erasure.to_string())))?;
        }
    }
    Ok(Exit::Fine)
}

/// Where the event with this id stands: by the mirror, and by the ledger's own lines where the mirror is behind.
fn seq_of(ledger: &LedgerReader, id: EventId, context: &Context) -> Result<Option<Seq>, Failure> {
    let mut from = Seq::FIRST;
    if let Ok(mirror) = context.mirror(ledger) {
        let found: Result<Option<i64>, _> =
            mirror.connection().query_row("SELECT seq FROM events WHERE id = ?1", [id.to_string()], |row| row.get(0)).optional();
        match found {
            Ok(Some(seq)) => return Ok(Some(Seq::new(u64::try_from(seq).unwrap_or(0)))),
            Ok(None) => from = mirror.watermark(ledger.manifest().ledger_id).map_or(Seq::FIRST, |mark| mark.seq.next()),
            Err(_) => {}
        }
    }
    let mut lines = ledger.lines_from(from)?;
    while let Some((_, event)) = lines.next_event()? {
        if event.id == id {
            return Ok(Some(event.seq));
        }
    }
    Ok(None)
}

fn print(event: &Event<'_>, out: &mut Out) -> Result<(), Failure> {
    let record = event.to_record();
    let source = record.source.name().map_or(record.source.kind().to_owned(), |name| format!("{}: {name}", record.source.kind()));
    let mut field = |name: &str, value: Option<String>| match value {
        Some(value) => out.line(format_args!("{name:<16} {}", text::plain(&value))),
        None => Ok(()),
    };
    field("seq", Some(record.seq.to_string()))?;
    field("id", Some(record.id.to_string()))?;
    field("event_type", Some(record.event_type))?;
    field("source", Some(source))?;
    field("observed_at", Some(record.observed_at.to_string()))?;
    field("recorded_at", Some(record.recorded_at.to_string()))?;
    let position = record.session_seq.unwrap_or(0);
    field("session", record.session_id.map(|session| format!("{session} (its event {position})")))?;
    field("trace", record.trace_id.map(|trace| trace.to_string()))?;
    field("caused by", record.causation_id.map(|cause| cause.to_string()))?;
    field("tags", (!record.domain_tags.is_empty()).then(|| record.domain_tags.join(", ")))?;
    field("attachments", record.attachments.map(|json| json.get().to_owned()))?;
    field("group", Some(format!("fsynced with the events from seq {} on", record.group_seq)))?;
    field("batch", record.batch.map(|(i, n)| format!("{i} of {n}")))?;
    field("policy", record.policy.map(|json| json.get().to_owned()))?;
    field("signed by", record.signed_by)?;
    field("signature", record.signature)?;
    field("payload_hash", Some(record.payload_hash.to_string()))?;
    field("prev_event_hash", Some(record.prev_event_hash.to_string()))?;
    field("event_hash", Some(record.event_hash.to_string()))?;
    if let Some(bytes) = record.blob_bytes {
        return out.line(format_args!("payload: {} out of line, in blobs/", text::bytes(bytes)));
    }
    match event.payload() {
        None => out.line("payload: erased"),
        Some(json) => {
            // Numbers and key order may be shown otherwise than they stand; the bytes are in --json and in the ledger.
            let pretty = serde_json::from_str::<serde_json::Value>(json).and_then(|value| serde_json::to_string_pretty(&value));
            let shown = pretty.unwrap_or_else(|_| json.to_owned());
            out.line("payload")?;
            for line in shown.lines() {
                out.line(text::plain(line))?;
            }
            Ok(())
        }
    }
}
