//! Bounds of the entities of one kind, by name, with their reasons.

use std::time::Duration;

use crate::actors::Durability;

/// How the entities of one kind live. Take [`EntityOptions::default`] and change what you need.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EntityOptions {
    /// What a command's events must have reached before it is answered. With `Mirrored` the caller waits for the rows, up to the
    /// store's `mirrored_deadline`, and the entity goes on with its next command meanwhile.
    pub durability: Durability,
    /// A snapshot is taken whenever so many events were folded since the last one. 256: that many take a millisecond or two to
    /// read and fold, and a snapshot costs about one transaction of SQLite. Zero: none are taken or read.
    pub snapshot_every: u64,
    /// An entity that nobody has sent anything to for so long is let go of; the next command folds it anew. Two minutes: a
    /// conversation's pause doesn't cost it, a finished one doesn't stay. Zero: they stay until
    /// [`Entities::passivate`](super::Entities::passivate) or the end.
    pub passivate_after: Duration,
    /// How often a command is decided anew, since something else was appended to the stream between reading it and appending
    /// to it, before it is answered with `Contended`. 8: two writers that take turns need one.
    pub redecisions_max: usize,
    /// Commands that may wait for one entity; whoever sends more waits. 1,024: a quarter of what may be on its way to the ledger.
    pub waiting_max: usize,
    /// Entities that may live at once, those apart that were let go of and still have something to do. 65,536: each costs an actor, some
    /// 2 KB, its state, and up to 20 KB for the keys that it remembers. Past that the one that was idle for longest is let go of first.
    pub entities_max: usize,
    /// Events that are read at a time while an entity is folded. 512: others' reads come in between.
    pub page_events_max: usize,
    /// Streams that can't be folded and are remembered as such, so that each command isn't a new attempt. 1,024; past that the
    /// one that was found first is forgotten, and tried again when it is asked for.
    pub poisoned_max: usize,
}

impl Default for EntityOptions {
    fn default() -> EntityOptions {
        EntityOptions {
            durability: Durability::Ledger,
            snapshot_every: 256,
            passivate_after: Duration::from_secs(120),
            redecisions_max: 8,
            waiting_max: 1024,
            entities_max: 1 << 16,
            page_events_max: 512,
            poisoned_max: 1024,
        }
    }
}
