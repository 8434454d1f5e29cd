//! `sessions` and `stream`: which sessions there are, and the events of one.

use std::path::Path;

use counterfoil::{Seq, SessionIndex, SessionSummary, SessionsPage, SessionsQuery, StreamQuery, StreamReader};
use serde::Serialize;

use crate::append::CATCH_UP;
use crate::args::{SessionsArgs, StreamArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::line;
use crate::out::{self, Out};
use crate::query::{CELL_CHARS_MAX, print_table, table};
use crate::text;

/// Sessions, or events, that are shown where nothing is said.
const LIMIT: u64 = 50;
/// Sessions, or events, that are read at a time where all are wanted.
const PAGE: usize = 1000;

/// The limit, as a command to run next must have it, where it is not the one that it has anyway.
fn limit(limit: u64) -> String {
    if limit == LIMIT { String::new() } else { format!(" --limit {limit}") }
}

/// How many are wanted at most, where a limit of 0 is none.
fn wanted(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

/// How many the next page is to have, where so many are left.
fn page_of(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PAGE).min(PAGE)
}

pub fn sessions(args: &SessionsArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let query = match (&args.after, args.order) {
        (Some(cursor), Some(order)) if cursor.order() != order.into() => {
            return Err(Failure::usage(format!("`--after {cursor}` is of another order than `--order`; leave `--order` out")));
        }
        (Some(cursor), _) => SessionsQuery::after(cursor.clone()),
        (None, order) => SessionsQuery::new().order(order.unwrap_or_default().into()),
    };
    let mut index = SessionIndex::open(&context.store, &context.options)?;
    let mut page = index.page(&query.limit(page_of(wanted(args.limit))))?;
    let mut shown = 0;
    // No more than a page is held, however many are wanted.
    let next = loop {
        show(&page, shown == 0, out)?;
        shown += page.sessions.len() as u64;
        let left = wanted(args.limit) - shown;
        match page.next.take() {
            Some(next) if left > 0 => page = index.page(&SessionsQuery::after(next).limit(page_of(left)))?,
            next => break next,
        }
    };
    if out.is_json() {
        out.line(format_args!("],\"next\":{},\"as_of\":{}}}", json_of(&next)?, json_of(&page.as_of)?))?;
        return Ok(Exit::Fine);
    }
    if shown == 0 && args.after.is_some() {
        out::note(out, "no more sessions");
    } else if shown == 0 {
        out::note(out, context.local("no event belongs to a session; `counterfoil append --session ID` gives one"));
    }
    if let Some(next) = next {
        let next = text::quoted(Path::new(&next.to_string()));
        let next = context.command(&format!("sessions --after {next}{}", limit(args.limit)));
        out::note(out, format_args!("these are {}; the next ones: `{next}`", text::count(shown, "session")));
    }
    tell_lag(page.as_of, context, out)
}

/// Says that events are not counted yet, where it is so.
fn tell_lag(as_of: Seq, context: &Context, out: &Out) -> Result<Exit, Failure> {
    // Whatever is in the way of reading the ledger's end is in the way of no list.
    let head = context.ledger().ok().and_then(|ledger| ledger.head().ok()).map_or(as_of, |head| head.seq);
    if head > as_of {
        let help = if context.writer().is_some() { "its writer brings it up" } else { CATCH_UP };
        let (as_of, head) = (text::number(as_of.get()), text::number(head.get()));
        out::note(out, context.local(&format!("counted up to seq {as_of} of {head}, since the mirror is behind; {help}")));
    }
    Ok(Exit::Fine)
}

/// A page: a table of its own, or a part of the one JSON document.
fn show(page: &SessionsPage, is_first: bool, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        let mut before = if is_first { "{\"sessions\":[" } else { "," };
        for session in &page.sessions {
            out.text(format_args!("{before}{}", json_of(session)?))?;
            before = ",";
        }
        return if page.sessions.is_empty() && is_first { out.text(before) } else { Ok(()) };
    }
    if page.sessions.is_empty() {
        return Ok(());
    }
    let mut table = table();
    table.set_header(["session", "events", "size", "first", "last", "types"]);
    for session in &page.sessions {
        table.add_row(row(session));
    }
    print_table(&table, out)
}

fn json_of(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::other(format!("printing JSON: {error}; leave out --json")))
}

fn row(session: &SessionSummary) -> [String; 6] {
    let types: Vec<_> = session.types.iter().map(|(name, count)| format!("{} {count}", name.trim_end_matches(".v1"))).collect();
    let second = |time: String| time.get(..19).unwrap_or(&time).replace('T', " ");
    [
        text::shortened(&session.session_id, 60),
        session.events.to_string(),
        text::bytes(session.bytes),
        second(session.first_observed_at.to_string()),
        second(session.last_observed_at.to_string()),
        text::shortened(&types.join(", "), CELL_CHARS_MAX),
    ]
}

pub fn stream(args: &StreamArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let mut reader = StreamReader::open(&context.store, &context.options)?;
    let mut query = StreamQuery::new(&args.session);
    if let Some(from) = args.from {
        query = query.from(from);
    }
    if args.backwards {
        query = query.backwards();
    }
    let width = if out.is_terminal() { text::width() } else { 160 };
    // JSON is for programs, which no note tells that it was cut: all of it, unless they say how much.
    let limit = args.limit.unwrap_or(if out.is_json() { 0 } else { LIMIT });
    let (mut left, mut shown) = (wanted(limit), 0u64);
    let (mut next, last) = loop {
        let page = reader.page(&query.clone().events_max(page_of(left)), Seq::MAX)?;
        if page.last == 0 {
            let session = text::shortened(&args.session, 80);
            return Err(Failure::other(format!("session `{session}` has no event; `counterfoil sessions` lists the sessions")));
        }
        for event in &page.events {
            if out.is_json() {
                out.json(event)?;
            } else {
                out.line(line::of_stream(event, width))?;
            }
        }
        shown += page.events.len() as u64;
        left -= page.events.len() as u64;
        match page.next {
            Some(next) if left > 0 => query = query.from(next),
            next => break (next, page.last),
        }
    };
    if let Some(position) = next.filter(|next| *next > last && !out.is_json()) {
        // The page has not seen whether the stream goes on there.
        let behind = reader.page(&query.from(position).events_max(1), Seq::MAX)?;
        next = next.filter(|_| !behind.events.is_empty());
    }
    if let Some(next) = next {
        let backwards = if args.backwards { " --backwards" } else { "" };
        let next = context.command(&format!("stream {}", words(&args.session, &format!("--from {next}{backwards}{}", self::limit(limit)))));
        out::note(out, format_args!("these are {}; the next ones: `{next}`", text::count(shown, "event")));
    } else if shown == 0 {
        out::note(out, format_args!("no event is there: the session has {}", text::count(last, "event")));
    }
    Ok(Exit::Fine)
}

/// A session's id and options, in an order in which the id is not taken for an option.
fn words(session: &str, options: &str) -> String {
    let quoted = text::quoted(Path::new(session));
    if session.starts_with('-') { format!("{options} -- {quoted}") } else { format!("{quoted} {options}") }
}
