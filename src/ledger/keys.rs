//! The keys of a ledger as its writer knows them: from the mirror, and from events that are not mirrored yet.

use super::{Lookup, LookupError};
use crate::event::Seq;
use crate::keys::{KeyEvent, KeyRing};

/// Read when they are first asked for: most writers never need them.
#[derive(Debug, Default)]
pub(super) struct LedgerKeys {
    /// Changes up to this seq are looked up.
    floor: Seq,
    below: Option<Vec<KeyEvent>>,
    /// Changes above the floor, in order, staged ones among them.
    above: Vec<KeyEvent>,
    ring: Option<KeyRing>,
}

impl LedgerKeys {
    pub(super) fn new(floor: Seq, above: Vec<KeyEvent>) -> LedgerKeys {
        LedgerKeys { floor, below: (floor == Seq::ZERO).then(Vec::new), above, ring: None }
    }

    /// The keys, staged changes counted. A change that does not follow counts for nothing, as for any verifier.
    pub(super) fn ring(&mut self, lookup: &mut dyn Lookup) -> Result<&KeyRing, LookupError> {
        let below = match self.below.take() {
            Some(below) => below,
            None => lookup.key_events(self.floor)?,
        };
        let below = self.below.insert(below);
        Ok(self.ring.get_or_insert_with(|| KeyRing::of(below.iter().chain(&self.above))))
    }

    /// Takes note of a change that was staged.
    pub(super) fn staged(&mut self, event: KeyEvent) {
        if let Some(ring) = &mut self.ring {
            // It was checked before it was staged.
            let _ = ring.apply_event(&event);
        }
        self.above.push(event);
    }

    /// Takes back the changes above this seq: they were not written.
    pub(super) fn forget_above(&mut self, seq: Seq) {
        let known = self.above.len();
        self.above.retain(|event| event.seq <= seq);
        if self.above.len() < known {
            self.ring = None;
        }
    }
}
