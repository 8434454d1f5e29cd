//! Permits: ractor's mailboxes are unbounded, so what may be in them is bounded here.
//!
//! A permit is moved inside the append message. Wherever the message ends, answered, dropped with a dead actor's
//! mailbox, or lost with a panicking handler, the permit comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::LedgerOptions;
use crate::AppendError;

/// The right to have an append on its way: so many events, so many bytes. Given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _events: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    _append: Counted,
}

/// One of the appends that have a permit.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(appends: &Arc<AtomicUsize>) -> Counted {
        appends.fetch_add(1, Ordering::Relaxed);
        Counted(appends.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both bounds of a store.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    appends: Arc<AtomicUsize>,
    events_max: usize,
    bytes_max: usize,
    group_events_max: usize,
    group_bytes_max: usize,
}

impl Permits {
    pub(crate) fn new(options: &LedgerOptions) -> Permits {
        // A semaphore hands out at most u32::MAX at once.
        let bytes_max = options.inflight_bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let events_max = options.inflight_events_max.max(options.store.group_events_max).min(u32::MAX as usize);
        Permits {
            events: Arc::new(Semaphore::new(events_max)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            appends: Arc::default(),
            events_max,
            bytes_max,
            group_events_max: options.store.group_events_max,
            group_bytes_max: options.store.group_bytes_max,
        }
    }

    fn sizes(&self, events: usize, bytes: usize) -> Result<(u32, u32), AppendError> {
        // What can never be in flight as a whole does not fit a group either, unless the bounds are set so.
        let (events_max, bytes_max) = (self.group_events_max, self.group_bytes_max);
        if events > events_max || bytes > bytes_max {
            return Err(AppendError::BatchTooLarge { events, bytes, events_max, bytes_max });
        }
        if bytes > self.bytes_max || events > self.events_max {
            return Err(AppendError::TooLargeForFlight { bytes, max: self.bytes_max });
        }
        Ok((events as u32, bytes as u32))
    }

    /// Waits, in the order of asking, until there is room.
    pub(crate) async fn acquire(&self, events: usize, bytes: usize) -> Result<Permit, AppendError> {
        let (events, bytes) = self.sizes(events, bytes)?;
        let closed = |_: AcquireError| AppendError::Closed;
        let events = self.events.clone().acquire_many_owned(events).await.map_err(closed)?;
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.map_err(closed)?;
        Ok(Permit { _events: events, _bytes: bytes, _append: Counted::new(&self.appends) })
    }

    /// Says `Busy` where there is no room.
    pub(crate) fn try_acquire(&self, events: usize, bytes: usize) -> Result<Permit, AppendError> {
        let (events, bytes) = self.sizes(events, bytes)?;
        let refused = |error| match error {
            TryAcquireError::NoPermits => AppendError::Busy,
            TryAcquireError::Closed => AppendError::Closed,
        };
        let events = self.events.clone().try_acquire_many_owned(events).map_err(refused)?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes).map_err(refused)?;
        Ok(Permit { _events: events, _bytes: bytes, _append: Counted::new(&self.appends) })
    }

    /// Events on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.events_max - self.events.available_permits()
    }

    /// Appends on their way.
    pub(crate) fn appends(&self) -> usize {
        self.appends.load(Ordering::Relaxed)
    }

    /// Wakes all who wait; they get `Closed`.
    pub(crate) fn close(&self) {
        self.events.close();
        self.bytes.close();
    }
}
