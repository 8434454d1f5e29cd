//! Commands that a stream's entity has seen lately, by the ids of their first events. No I/O.
//!
//! The mirror knows all of them by its index of ids, but for those that it has not got yet. So those must be remembered, and a few
//! more are, which spares looking them up.

use std::collections::{HashMap, VecDeque};

use crate::event::{EventId, Seq};

/// Commands that are remembered although the mirror has them. 256, some 20 KB: what a client repeats, it repeats soon.
const KEPT: usize = 256;

/// Commands that were seen lately, and how far they are remembered.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    positions: HashMap<EventId, u64>,
    order: VecDeque<(Seq, EventId)>,
    forgotten: Seq,
}

impl Recent {
    /// Nothing is remembered of what stands in the stream up to this seq.
    pub(crate) fn behind(seq: Seq) -> Recent {
        Recent { forgotten: seq, ..Recent::default() }
    }

    /// Remembers that the event at this position is the first one of its command.
    pub(crate) fn note(&mut self, id: EventId, position: u64, seq: Seq) {
        if self.positions.insert(id, position).is_none() {
            self.order.push_back((seq, id));
        }
    }

    /// Forgets the oldest of those that the mirror has.
    pub(crate) fn forget(&mut self, mirrored_through: Seq) {
        while self.order.len() > KEPT
            && let Some((seq, id)) = self.order.front().copied().filter(|(seq, _)| *seq <= mirrored_through)
        {
            self.order.pop_front();
            self.positions.remove(&id);
            self.forgotten = self.forgotten.max(seq);
        }
    }

    /// The position of the command's first event, where that is remembered.
    pub(crate) fn find(&self, id: EventId) -> Option<u64> {
        self.positions.get(&id).copied()
    }

    /// Commands up to this seq may be remembered no more; [`Seq::ZERO`]: each one is remembered.
    pub(crate) fn forgotten(&self) -> Seq {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_mirror_lacks_is_never_forgotten() {
        let mut recent = Recent::default();
        let id = |n: u64| EventId::from_u128(n.into());
        for n in 1..=1000 {
            recent.note(id(n), n, Seq::new(n));
        }
        recent.forget(Seq::ZERO);
        assert_eq!((recent.forgotten(), recent.find(id(1))), (Seq::ZERO, Some(1)));
        recent.forget(Seq::new(100));
        assert_eq!((recent.forgotten(), recent.find(id(100)), recent.find(id(101))), (Seq::new(100), None, Some(101)));
        recent.forget(Seq::MAX);
        assert_eq!(recent.forgotten(), Seq::new(1000 - KEPT as u64));
        assert_eq!(recent.find(id(1000)), Some(1000));
    }

    #[test]
    fn one_that_is_noted_twice_is_forgotten_once() {
        let mut recent = Recent::behind(Seq::new(7));
        recent.note(EventId::from_u128(1), 1, Seq::new(8));
        recent.note(EventId::from_u128(1), 1, Seq::new(8));
        assert_eq!((recent.order.len(), recent.forgotten()), (1, Seq::new(7)));
    }
}
