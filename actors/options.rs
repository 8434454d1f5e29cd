//! Options of the actors: every bound by name, with its reason.

use std::time::Duration;

use super::checkpoint::CheckpointOptions;
use crate::Options;

/// How the actors run. Take [`LedgerOptions::default`] and change what you need.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LedgerOptions {
    /// The store's own options.
    pub store: Options,
    /// Events that may be on their way to the ledger's acknowledgement. 4,096, a full group: more would only wait
    /// in a mailbox instead of with their callers. Never below `group_events_max`.
    pub inflight_events_max: usize,
    /// Bytes that may be on their way likewise. 64 MiB, two of the largest groups.
    pub inflight_bytes_max: usize,
    /// Bytes of groups that may wait for SqliteActor. 32 MiB; past that it reads the ledger's file instead.
    pub mirror_queue_bytes_max: usize,
    /// A group is written as soon as it has so many bytes, though more could join. 1 MiB: past that a write costs
    /// more than the fsync it shares.
    pub group_bytes_target: usize,
    /// How long rows that nobody waits for may wait for more, to be committed in one transaction. 25 ms: nobody who looks sees
    /// that, and each transaction writes a page for every stream that it has a row of, so that in one of 4,000 rows a row costs
    /// two thirds of what it does in one of 250, and a tenth of what it does alone. Zero: not at all. Rows that are awaited
    /// ([`Durability::Mirrored`](super::Durability), [`Ledger::mirrored`](super::Ledger::mirrored)) never wait.
    pub mirror_delay: Duration,
    /// How long a group is kept open for more appends to join, from its first one on, whoever is there. Zero: no longer than
    /// 0.4 of a recent fsync, and only while more appends are on their way or their callers are about to come back; a lone caller
    /// never waits. Timers have a resolution of a millisecond.
    pub linger: Duration,
    /// Appends that may wait for the mirror's acknowledgement. 65,536; past that they get `MirrorBehind` at once.
    pub mirrored_waiters_max: usize,
    /// How long such an append waits before it gets its receipt with `MirrorBehind`.
    pub mirrored_deadline: Duration,
    /// How long `close` waits for a mirror that can't be written just now.
    pub close_deadline: Duration,
    /// How often the two legs are compared: in O(1), and by content what is new since the last time. Zero: never.
    pub parity_interval: Duration,
    /// Sealed segments that no check has read yet, and that are read in each such interval, on one thread. One: 64 MiB take
    /// less than half a second, and a large store is gone through bit by bit.
    pub parity_segments_max: usize,
    /// Whether the whole ledger is verified in the background once the store is open. Off: it reads all of it.
    pub verify_after_open: bool,
    /// Sealed segments that stay plain, the newest ones; older ones are compressed beside the appends, one after the other.
    /// None: they are compressed on request alone.
    pub compress_sealed: Option<usize>,
    /// How checkpoints are signed and where they are handed to. None: they are signed by `counterfoil checkpoint` alone.
    pub checkpoint: Option<CheckpointOptions>,
    /// Restarts that may happen within `restart_window` before the supervisor gives up and fails upward.
    pub restarts_max: usize,
    /// See `restarts_max`.
    pub restart_window: Duration,
    /// A restart waits, from a millisecond up to this, doubling with each restart in the window. One second.
    pub restart_backoff_max: Duration,
    /// How often the handle repeats an append whose answer was lost, by its id, before it says `OutcomeUnknown`.
    pub retries_max: usize,
}

impl Default for LedgerOptions {
    fn default() -> LedgerOptions {
        LedgerOptions {
            store: Options::default(),
            inflight_events_max: 4096,
            inflight_bytes_max: 64 << 20,
            mirror_queue_bytes_max: 32 << 20,
            group_bytes_target: 1 << 20,
            mirror_delay: Duration::from_millis(25),
            linger: Duration::ZERO,
            mirrored_waiters_max: 1 << 16,
            mirrored_deadline: Duration::from_secs(5),
            close_deadline: Duration::from_secs(5),
            parity_interval: Duration::from_secs(60),
            parity_segments_max: 1,
            verify_after_open: false,
            compress_sealed: None,
            checkpoint: None,
            restarts_max: 10,
            restart_window: Duration::from_secs(60),
            restart_backoff_max: Duration::from_secs(1),
            retries_max: 8,
        }
    }
}

impl From<Options> for LedgerOptions {
    fn from(store: Options) -> LedgerOptions {
        LedgerOptions { store, ..LedgerOptions::default() }
    }
}
