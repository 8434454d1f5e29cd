//! A group on its way to the disk: one write and one fdatasync, on whatever thread flies it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Head;
use super::recovery::Active;
use crate::canary::{self, Canary};
use crate::failpoint;
use crate::options::Failpoint;

/// A closed group, and the file that it goes to. [`Writer::depart`](super::Writer::depart) makes one; after
/// [`Flight::fly`] it goes back to [`Writer::land`](super::Writer::land), whatever came of it. There is one at a time: the
/// next group is written only after this one's fsync has returned.
#[must_use = "its events are lost to the writer until it has landed"]
pub struct Flight {
    active: Active,
    bytes: Vec<u8>,
    /// Its last event.
    last: Head,
    /// Blank lines that are written behind it, see [`Options::preallocate`](crate::Options::preallocate).
    fill: Option<Fill>,
    failpoint: Option<Arc<Failpoint>>,
    written: io::Result<()>,
    took: Duration,
}

/// Blank lines behind a group.
pub(super) struct Fill {
    pub from: u64,
    pub bytes: Arc<[u8]>,
}

impl Flight {
    pub(super) fn new(active: Active, bytes: Vec<u8>, last: Head, fill: Option<Fill>, failpoint: Option<Arc<Failpoint>>) -> Flight {
        let written = Err(io::Error::other("its group was never written"));
        Flight { active, bytes, last, fill, failpoint, written, took: Duration::ZERO }
    }

    /// Writes the group and makes it durable. Blocks for as long as the disk takes. What came of it is told at landing.
    pub fn fly(&mut self) {
        let started = Instant::now();
        self.written = self.write();
        self.took = started.elapsed();
    }

    /// How long that took.
    pub fn took(&self) -> Duration {
        self.took
    }

    fn write(&mut self) -> io::Result<()> {
        let at = |point| self.failpoint.as_ref().map_or(Ok(()), |failpoint| failpoint(point));
        let (file, offset) = (self.active.file.as_mut(), self.active.len);
        at(failpoint::LEDGER_WRITE)?;
        file.write_at(&self.bytes, offset)?;
        if let Some(Fill { from, bytes }) = &self.fill {
            file.write_at(bytes, *from)?;
        }
        at(failpoint::LEDGER_SYNC)?;
        if !canary::on(Canary::SkipSync) {
            file.sync_data()?;
        }
        at(failpoint::LEDGER_SYNCED)
    }

    pub(super) fn into_parts(self) -> (Active, Vec<u8>, Head, io::Result<()>) {
        (self.active, self.bytes, self.last, self.written)
    }
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight").field("segment", &self.active.segment).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}
