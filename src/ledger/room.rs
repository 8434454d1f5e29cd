//! Room in the active segment: space that is reserved before a group is written, and blank lines that are laid out ahead.

use std::io;
use std::sync::Arc;

use super::LedgerError;
use super::flight::Fill;
use super::recovery::Active;
use crate::failpoint;
use crate::options::Options;

/// Space that is reserved, or laid out, ahead of the writes. 1 MiB: rare enough to cost nothing, small enough to waste nothing.
const AHEAD_BYTES: u64 = 1 << 20;

/// With a larger group blank lines cost more to write than they spare: its own new blocks are then what the journal is for.
const FILL_GROUP_BYTES_MAX: usize = 64 << 10;

/// What is known of the space behind the active segment's last line. Offsets of the file; 0 where nothing is known.
pub(super) struct Room {
    reserved_to: u64,
    /// The file ends here, in blank lines.
    filled_to: u64,
    can_reserve: bool,
    segment_bytes_max: u64,
    blank: Option<Arc<[u8]>>,
}

impl Room {
    pub(super) fn new(options: &Options) -> Room {
        let bytes = AHEAD_BYTES.min(options.segment_bytes_max);
        let blank = options.preallocate.then(|| vec![b'\n'; usize::try_from(bytes).unwrap_or(0)].into());
        Room { reserved_to: 0, filled_to: 0, can_reserve: true, segment_bytes_max: options.segment_bytes_max, blank }
    }

    /// Reserves space for a group, at unchanged size, so that a full disk shows itself before a byte is written.
    pub(super) fn reserve(&mut self, active: &mut Active, bytes: u64, options: &Options) -> Result<(), LedgerError> {
        if !self.can_reserve || active.len + bytes <= self.reserved_to.max(self.filled_to) {
            return Ok(());
        }
        let ahead = bytes + AHEAD_BYTES.min(self.segment_bytes_max);
        let reserved = options.at(failpoint::LEDGER_RESERVE).and_then(|()| {
            active.file.reserve(active.len, ahead).map(|()| ahead).or_else(|_| active.file.reserve(active.len, bytes).map(|()| bytes))
        });
        match reserved {
            Ok(reserved) => self.reserved_to = active.len + reserved,
            Err(error) if is_full(&error) => {
                return Err(LedgerError::DiskFull { path: active.segment.path.clone() });
            }
            // A file system that can't reserve shows a full disk at the write, which then poisons.
            Err(_) => self.can_reserve = false,
        }
        Ok(())
    }

    /// The blank lines to write behind a group that ends at `end`: none where those that are there reach further, where
    /// they are not asked for, or where space for them is not reserved, so that they never fill a disk up.
    pub(super) fn fill_behind(&mut self, end: u64, group_bytes: usize) -> Option<Fill> {
        let blank = self.blank.as_ref()?;
        if end <= self.filled_to || group_bytes > FILL_GROUP_BYTES_MAX || end + blank.len() as u64 > self.reserved_to {
            return None;
        }
        self.filled_to = end + blank.len() as u64;
        Some(Fill { from: end, bytes: blank.clone() })
    }

    /// Gives back what lies behind the last line; answers whether blank lines were cut off, which only an fsync does for good.
    pub(super) fn trim(&mut self, active: &mut Active) -> io::Result<bool> {
        let filled = self.filled_to > active.len;
        // Even where the rest fails: what is appended here then must reserve again.
        self.reserved_to = 0;
        active.file.set_len(active.len)?;
        self.filled_to = 0;
        Ok(filled)
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
