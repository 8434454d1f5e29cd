//! What to list of sessions, and a page of it. No I/O.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::event::{Seq, Timestamp};

/// Sessions of a page where the caller says nothing: a screen or two.
const LIMIT: usize = 50;
/// Sessions of the largest page. 1,000: a few hundred KB.
const LIMIT_MAX: usize = 1000;

/// In which order sessions are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionsOrder {
    /// By their last event, the latest first.
    #[default]
    Last,
    /// By their first event, the latest first.
    First,
    /// By their id, in the order of its bytes.
    Id,
}

/// What to list: by default the 50 sessions with the latest events.
///
/// Pages follow each other by what they end with, not by a number of sessions. So no session is listed twice; one that gets an event
/// between two pages, in the order of [`SessionsOrder::Last`], moves to the front, before what was listed already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsQuery {
    pub(super) order: SessionsOrder,
    pub(super) after: Option<SessionsCursor>,
    pub(super) limit: usize,
}

impl Default for SessionsQuery {
    fn default() -> SessionsQuery {
        SessionsQuery::new()
    }
}

impl SessionsQuery {
    /// The latest sessions.
    pub fn new() -> SessionsQuery {
        SessionsQuery { order: SessionsOrder::default(), after: None, limit: LIMIT }
    }

    /// What follows this page, in the same order.
    pub fn after(cursor: SessionsCursor) -> SessionsQuery {
        SessionsQuery { order: cursor.order(), after: Some(cursor), limit: LIMIT }
    }

    /// In this order, from its beginning on.
    pub fn order(self, order: SessionsOrder) -> SessionsQuery {
        SessionsQuery { order, after: self.after.filter(|cursor| cursor.order() == order), ..self }
    }

    /// Sessions of a page at most: 50 where nothing is said, never more than 1,000 nor less than one.
    pub fn limit(self, sessions: usize) -> SessionsQuery {
        SessionsQuery { limit: sessions.clamp(1, LIMIT_MAX), ..self }
    }
}

/// Where a page ends. As text `last-123`, `first-7` or `id-` and a session's id; it stays good for as long as the store does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionsCursor(pub(super) Place);

/// What the last session of a page has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Last(Seq),
    First(Seq),
    Id(String),
}

impl SessionsCursor {
    /// The order of the pages.
    pub fn order(&self) -> SessionsOrder {
        match self.0 {
            Place::Last(_) => SessionsOrder::Last,
            Place::First(_) => SessionsOrder::First,
            Place::Id(_) => SessionsOrder::Id,
        }
    }
}

impl fmt::Display for SessionsCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Last(seq) => write!(f, "last-{seq}"),
            Place::First(seq) => write!(f, "first-{seq}"),
            Place::Id(id) => write!(f, "id-{id}"),
        }
    }
}

/// A text that says no place in a list of sessions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place in a list of sessions; take what the page before says under `next`, as in `last-123`")]
pub struct SessionsCursorError(String);

impl FromStr for SessionsCursor {
    type Err = SessionsCursorError;

    fn from_str(text: &str) -> Result<SessionsCursor, SessionsCursorError> {
        let seq = |digits: &str| digits.parse().ok().map(Seq::new).filter(|seq| seq.get().to_string() == digits);
        let place = match text.split_once('-') {
            Some(("last", digits)) => seq(digits).map(Place::Last),
            Some(("first", digits)) => seq(digits).map(Place::First),
            Some(("id", id)) => Some(Place::Id(id.to_owned())),
            _ => None,
        };
        place.map(SessionsCursor).ok_or_else(|| SessionsCursorError(text.chars().take(80).collect()))
    }
}

impl Serialize for SessionsCursor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Some sessions, in the order that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionsPage {
    /// The sessions.
    pub sessions: Vec<SessionSummary>,
    /// Where the next page begins; None on the last one.
    pub next: Option<SessionsCursor>,
    /// The last event that is counted: the mirror had it.
    pub as_of: Seq,
}

/// A session, as its events up to [`SessionsPage::as_of`] say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionSummary {
    /// Its id.
    pub session_id: String,
    /// Its events.
    pub events: u64,
    /// Bytes of their payloads, in the line or out of it; erased ones have none.
    pub bytes: u64,
    /// Its first event.
    pub first_seq: Seq,
    /// Its last event.
    pub last_seq: Seq,
    /// The earliest time that one of its events was observed at: what was imported has the time of when it happened.
    pub first_observed_at: Timestamp,
    /// The latest such time.
    pub last_observed_at: Timestamp,
    /// When its last event was recorded, by the ledger's clock.
    pub last_recorded_at: Timestamp,
    /// How many events it has of which type, the most frequent first; of more than 64 types those 64.
    #[serde(serialize_with = "as_map")]
    pub types: Vec<(String, u64)>,
}

fn as_map<S: Serializer>(list: &[(String, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(list.iter().map(|(key, count)| (key, count)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_text() {
        for text in ["last-1", "first-9223372036854775807", "id-", "id-a-b", "id-\u{1} ü"] {
            assert_eq!(text.parse::<SessionsCursor>().unwrap().to_string(), text);
        }
        for bad in ["", "last", "last-", "last-01", "last-+1", "last--1", "first-x", "Last-1", "9"] {
            assert!(bad.parse::<SessionsCursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_order_and_a_cursor_of_another_begin_anew() {
        let cursor: SessionsCursor = "first-7".parse().unwrap();
        let query = SessionsQuery::after(cursor.clone());
        assert_eq!((query.order, query.after.as_ref()), (SessionsOrder::First, Some(&cursor)));
        assert_eq!(query.clone().order(SessionsOrder::First), query);
        assert_eq!(query.order(SessionsOrder::Id).after, None);
        assert_eq!((SessionsQuery::new().limit(0).limit, SessionsQuery::new().limit(usize::MAX).limit), (1, 1000));
    }
}
