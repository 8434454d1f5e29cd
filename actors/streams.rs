//! Streams, read through the handle: off the async threads, and up to what was durable when it was asked for.
//!
//! Called by callers of [`Ledger`] and by entities. No actor is asked: readers need no lock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::stream::{BoxStream, Stream};
use serde_json::value::RawValue;

use super::handle::{Ledger, blocking};
use super::readers::Taken;
use super::shared::MirrorHealth;
use crate::{Error, EventId, EventRecord, Seq, SessionIndex, SessionsPage, SessionsQuery, StreamPage, StreamQuery, StreamReader};

impl Ledger {
    /// A page of a stream, with every event that was durable when it was asked for. Rows that wait for more to be committed together
    /// are committed at once, and awaited for `mirror_busy_timeout` at most; what the mirror has not got then is read from the ledger's
    /// lines.
    ///
    /// While the mirror is missing or being made anew, a page looks through the ledger's lines from the first one on; forwards, one that
    /// goes on where another ended goes on in the lines too, as long as no others are read at the same time; backwards each looks through
    /// them anew. Take [`Ledger::stream`], or keep a [`StreamReader`] of your own, where many pages are read. Where a row is wrong, lines are
    /// read in its place, and a warning names it.
    ///
    /// # Errors
    /// As [`StreamReader::page`].
    pub async fn stream_page(&self, query: StreamQuery) -> Result<StreamPage, Error> {
        self.with_streams(move |reader, through| reader.page(&query, through)).await
    }

    /// The events of a stream, of which a page is loaded when the consumer asks for its first event, and none ahead. It ends behind
    /// the last event that was durable when its last page was loaded, and after an error; dropped, it stops, and what is being
    /// loaded is thrown away. The store stays open for as long as it lives; and one that is read half-way and kept has files open that may
    /// have been replaced since, with what was erased meanwhile: read it on, or drop it.
    ///
    /// `StreamExt` of futures-util or tokio-stream has `next` for it, and much else.
    ///
    /// # Errors
    /// An item is an error as of [`StreamReader::page`].
    pub fn stream(&self, query: StreamQuery) -> BoxStream<'static, Result<EventRecord, Error>> {
        let reading = Reading { ledger: self.clone(), reader: None, query };
        Box::pin(Events { page: Vec::new().into_iter(), rest: Rest::Idle(Box::new(reading)) })
    }

    /// An event by its id; see [`StreamReader::find`].
    ///
    /// # Errors
    /// As [`StreamReader::page`].
    pub async fn find(&self, id: EventId) -> Result<Option<EventRecord>, Error> {
        self.with_streams(move |reader, through| reader.find(id, through)).await
    }

    /// The payload's exact JSON, read from blobs/ where it is out of line; None where it is erased.
    ///
    /// # Errors
    /// As [`StreamReader::payload`].
    pub async fn payload(&self, event: &EventRecord) -> Result<Option<Box<RawValue>>, Error> {
        if event.erased || event.payload.is_some() {
            return Ok(event.payload.clone());
        }
        let event = event.clone();
        self.with_reader(move |reader| reader.payload(&event)).await
    }

    /// A page of the list of sessions, once the mirror has every event that was durable when it was asked for, or has been waited for
    /// as with [`Ledger::stream_page`]. Up to which event they are counted stands in the page.
    ///
    /// # Errors
    /// As [`SessionIndex::page`].
    pub async fn sessions(&self, query: SessionsQuery) -> Result<SessionsPage, Error> {
        self.readable().await;
        let (dir, shared) = (self.inner.dir.clone(), self.inner.shared.clone());
        blocking(move || shared.readers.sessions.with(|| SessionIndex::open(&dir, &shared.options.store), |index| index.page(&query))).await
    }

    async fn with_streams<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut StreamReader, Seq) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let through = self.readable().await;
        self.with_reader(move |reader| read(reader, through)).await
    }

    /// Holds no handle: the store may be closed, and its last handle dropped, while something is read.
    async fn with_reader<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut StreamReader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (dir, shared) = (self.inner.dir.clone(), self.inner.shared.clone());
        blocking(move || shared.readers.streams.with(|| StreamReader::open(&dir, &shared.options.store), read)).await
    }

    /// What is durable now, once the mirror has it, or has been waited for long enough.
    async fn readable(&self) -> Seq {
        let shared = &self.inner.shared;
        let durable = shared.durable.borrow().seq;
        let is_well = matches!(shared.live.borrow().mirror, MirrorHealth::Live | MirrorHealth::CatchingUp);
        if is_well {
            // Where it does not come about, the ledger's lines have it.
            let _ = tokio::time::timeout(shared.options.store.mirror_busy_timeout, self.mirrored(durable)).await;
        }
        durable
    }
}

/// A stream that is being read.
struct Events {
    /// What has been loaded.
    page: std::vec::IntoIter<EventRecord>,
    rest: Rest,
}

/// A page, and what is to go on from there.
type Loaded = Result<(Reading, StreamPage), Error>;

/// What is behind the events that have been loaded.
enum Rest {
    /// Pages that nobody has asked for yet.
    Idle(Box<Reading>),
    /// A page is being loaded.
    Loading(Pin<Box<dyn Future<Output = Loaded> + Send>>),
    /// Nothing.
    Over,
}

struct Reading {
    ledger: Ledger,
    /// Kept open from page to page, unless the mirror is another one by then.
    reader: Option<Taken<StreamReader>>,
    /// The next page.
    query: StreamQuery,
}

impl Reading {
    async fn load(mut self) -> Loaded {
        let through = self.ledger.readable().await;
        blocking(move || {
            let shared = &self.ledger.inner.shared;
            let idle = &shared.readers.streams;
            let mut reader = match self.reader.take().filter(|reader| idle.is_current(reader)) {
                Some(reader) => reader,
                None => idle.take(|| StreamReader::open(&self.ledger.inner.dir, &shared.options.store))?,
            };
            let page = reader.one.page(&self.query, through)?;
            match page.next {
                Some(_) => self.reader = Some(reader),
                None => idle.give_back(reader),
            }
            Ok((self, page))
        })
        .await
    }
}

impl Stream for Events {
    type Item = Result<EventRecord, Error>;

    fn poll_next(mut self: Pin<&mut Events>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.page.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            match std::mem::replace(&mut self.rest, Rest::Over) {
                Rest::Over => return Poll::Ready(None),
                Rest::Idle(reading) => self.rest = Rest::Loading(Box::pin(reading.load())),
                Rest::Loading(mut loading) => {
                    let Poll::Ready(loaded) = loading.as_mut().poll(cx) else {
                        self.rest = Rest::Loading(loading);
                        return Poll::Pending;
                    };
                    match loaded {
                        Ok((mut reading, page)) => {
                            self.page = page.events.into_iter();
                            if let Some(next) = page.next {
                                reading.query = reading.query.from(next);
                                self.rest = Rest::Idle(Box::new(reading));
                            }
                        }
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
            }
        }
    }
}
