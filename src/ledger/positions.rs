//! Positions of streams, by stream: so many in memory, the rest where the caller says. A check of a whole ledger must not
//! need more memory the more sessions there are.
//!
//! Called by `place`. The ledger knows no database, so [`Spill`] is handed in from above.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::LazyLock;

use super::LedgerError;

/// Positions that are kept in memory: about 2 MB, and twice that while they move out.
pub(crate) const POSITIONS_MAX: usize = 50_000;

/// A stream, by 128 bits of keyed hash: the key is this process's own, so nobody can make two streams that meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(pub u128);

impl SessionKey {
    pub(crate) fn of(session_id: &str) -> SessionKey {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let [high, low] = &*KEYS;
        SessionKey(u128::from(high.hash_one(session_id)) << 64 | u128::from(low.hash_one(session_id)))
    }
}

/// Last position of a stream, and how many lines were lost before it was seen.
pub(crate) type Position = (u64, u32);

/// Where positions go that are too many for memory.
pub(crate) trait Spill: std::fmt::Debug + Send {
    /// The position that was kept last.
    fn find(&mut self, key: SessionKey) -> io::Result<Option<Position>>;
    /// Keeps these, in place of what it has of the same streams.
    fn keep(&mut self, positions: &[(SessionKey, Position)]) -> io::Result<()>;
}

/// The positions of all streams.
#[derive(Debug)]
pub(crate) struct Positions {
    memory: HashMap<SessionKey, Position>,
    max: usize,
    spill: Option<Box<dyn Spill>>,
    has_spilled: bool,
}

impl Positions {
    /// All in memory: for what a caller bounds otherwise.
    pub(crate) fn in_memory() -> Positions {
        Positions { memory: HashMap::new(), max: usize::MAX, spill: None, has_spilled: false }
    }

    /// At most `max` in memory.
    pub(crate) fn spilling(spill: Box<dyn Spill>, max: usize) -> Positions {
        Positions { max, spill: Some(spill), ..Positions::in_memory() }
    }

    pub(crate) fn get(&mut self, key: SessionKey) -> Result<Option<Position>, LedgerError> {
        match (self.memory.get(&key), &mut self.spill) {
            (None, Some(spill)) if self.has_spilled => spill.find(key).map_err(failed),
            (found, _) => Ok(found.copied()),
        }
    }

    pub(crate) fn set(&mut self, key: SessionKey, position: Position) -> Result<(), LedgerError> {
        if let Some(spill) = &mut self.spill
            && self.memory.len() >= self.max
            && !self.memory.contains_key(&key)
        {
            // In the order of keys, so that a database goes over its pages once.
            let mut all: Vec<_> = self.memory.drain().collect();
            all.sort_unstable_by_key(|(key, _)| *key);
            spill.keep(&all).map_err(failed)?;
            self.has_spilled = true;
        }
        self.memory.insert(key, position);
        Ok(())
    }
}

fn failed(source: io::Error) -> LedgerError {
    // Where SQLite makes its temporary files, in this order.
    let path = "SQLITE_TMPDIR, TMPDIR, /var/tmp, /usr/tmp or /tmp".into();
    LedgerError::Io { action: "keeping positions of streams in a temporary file in", path, source }
}
