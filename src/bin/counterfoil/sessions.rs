//! `sessions` and `stream`: which sessions there are, and the events of one.

use std::path::Path;

use counterfoil::{Seq, SessionIndex, SessionSummary, SessionsCursor, SessionsPage, SessionsQuery, StreamQuery, StreamReader};
use serde::Serialize;

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

/// What was asked for, be it more than a page of the library's.
#[derive(Serialize)]
struct Listed {
    sessions: Vec<SessionSummary>,
    next: Option<SessionsCursor>,
    as_of: Seq,
}

pub fn sessions(args: &SessionsArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let mut query = match (&args.after, args.order) {
        (Some(cursor), Some(order)) if cursor.order() != order.into() => {
            return Err(Failure::usage(format!("`--after {cursor}` is of another order than `--order`; leave `--order` out")));
        }
        (Some(cursor), _) => SessionsQuery::after(cursor.clone()),
        (None, order) => SessionsQuery::new().order(order.unwrap_or_default().into()),
    };
    let mut index = SessionIndex::open(&context.store, &context.options)?;
    let wanted = if args.limit == 0 { usize::MAX } else { usize::try_from(args.limit).unwrap_or(usize::MAX) };
    let mut sessions = Vec::new();
    let (next, as_of) = loop {
        let page: SessionsPage = index.page(&query.limit(PAGE.min(wanted - sessions.len())))?;
        sessions.extend(page.sessions);
        match page.next {
            Some(next) if sessions.len() < wanted => query = SessionsQuery::after(next),
            next => break (next, page.as_of),
        }
    };
    if out.is_json() {
        out.json(&Listed { sessions, next, as_of })?;
        return Ok(Exit::Fine);
    }
    if sessions.is_empty() {
        let none = if args.after.is_some() {
            "no more sessions"
        } else {
            "no event belongs to a session; `counterfoil append --session ID` gives one"
        };
        out::note(out, context.local(none));
        return Ok(Exit::Fine);
    }
    let count = sessions.len() as u64;
    let mut table = table();
    table.set_header(["session", "events", "size", "first", "last", "types"]);
    for session in &sessions {
        table.add_row(row(session));
    }
    print_table(&table, out)?;
    if let Some(next) = next {
        let next = text::quoted(Path::new(&next.to_string()));
        let next = context.command(&format!("sessions --after {next}{}", limit(args.limit)));
        out::note(out, format_args!("these are {}; the next ones: `{next}`", text::count(count, "session")));
    }
    Ok(Exit::Fine)
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
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    let mut shown = 0u64;
    let (next, last) = loop {
        let page = reader.page(&query.clone().events_max(usize::try_from(left).unwrap_or(PAGE).min(PAGE)), Seq::MAX)?;
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
            next => break (next.filter(|next| args.backwards || *next <= page.last), page.last),
        }
    };
    if let Some(next) = next {
        let backwards = if args.backwards { " --backwards" } else { "" };
        let session = text::quoted(Path::new(&args.session));
        let next = context.command(&format!("stream {session} --from {next}{backwards}{}", limit(args.limit)));
        out::note(out, format_args!("these are {}; the next ones: `{next}`", text::count(shown, "event")));
    } else if shown == 0 {
        out::note(out, format_args!("no event is there: the session has {}", text::count(last, "event")));
    }
    Ok(Exit::Fine)
}
