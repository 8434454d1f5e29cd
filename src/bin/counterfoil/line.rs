//! An event on one line.

use counterfoil::EventRecord;

use crate::text;

/// Widths below which a line leaves out the date, and then the source, so that some of the payload is seen.
const WIDTH_WITH_DATE: usize = 130;
const WIDTH_WITH_SOURCE: usize = 90;

/// Of the whole ledger: seq, time, session, type, source, and as much of the payload as fits.
pub fn of_ledger(event: &EventRecord, width: usize) -> String {
    let session_chars = if width < WIDTH_WITH_DATE { 12 } else { 20 };
    let session = text::shortened(event.session_id.as_deref().unwrap_or("-"), session_chars);
    rest(format!("{:>6}  {}  {session:<12}", event.seq, time(event, width)), event, width)
}

/// Of a stream: position there, seq, time, type, source, payload.
pub fn of_stream(event: &EventRecord, width: usize) -> String {
    let position = event.session_seq.unwrap_or(0);
    rest(format!("{position:>6}  {}  seq {:<8}", time(event, width), event.seq.get()), event, width)
}

fn time(event: &EventRecord, width: usize) -> String {
    let time = event.observed_at.to_string();
    let from = if width < WIDTH_WITH_DATE { 11 } else { 0 };
    time.get(from..23).unwrap_or(&time).replace('T', " ")
}

fn rest(begin: String, event: &EventRecord, width: usize) -> String {
    let mut line = format!("{begin}  {:<18}  ", event.event_type);
    if width >= WIDTH_WITH_SOURCE {
        let source = event.source.name().map_or(event.source.kind().to_owned(), |name| format!("{}:{name}", event.source.kind()));
        line += &format!("{:<16}  ", text::shortened(&source, 28));
    }
    let room = width.saturating_sub(line.chars().count()).max(8);
    line += &match (&event.payload, event.blob_bytes) {
        (Some(json), _) => text::shortened(json.get(), room),
        (None, Some(bytes)) => format!("({} in blobs/)", text::bytes(bytes)),
        (None, None) => "(erased)".to_owned(),
    };
    line
}
