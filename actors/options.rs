//! Options of the actors: every bound by name, with its reason.

use std::time::Duration;

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
    /// Bytes of groups that may wait in SqliteActor's mailbox. 32 MiB; past that it reads the ledger's file instead.
    pub mirror_queue_bytes_max: usize,
    /// A group is written as soon as it has so many bytes, though more could join. 1 MiB: past that a write costs
    /// more than the fsync it shares.
    pub group_bytes_target: usize,
    /// Appends that may wait for the mirror's acknowledgement. 65,536; past that they get `MirrorBehind` at once.
    pub mirrored_waiters_max: usize,
    /// How long such an append waits before it gets its receipt with `MirrorBehind`.
    pub mirrored_deadline: Duration,
    /// How long `close` waits for a mirror that can't be written just now.
    pub close_deadline: Duration,
    /// How often the two legs are compared in O(1). Zero: never.
    pub parity_interval: Duration,
    /// Sealed segments that stay plain, the newest ones; older ones are compressed beside the appends, one after the other.
    /// None: they are compressed on request alone.
    pub compress_sealed: Option<usize>,
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
            mirrored_waiters_max: 1 << 16,
            mirrored_deadline: Duration::from_secs(5),
            close_deadline: Duration::from_secs(5),
            parity_interval: Duration::from_secs(60),
            compress_sealed: None,
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
