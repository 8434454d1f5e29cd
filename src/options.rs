//! Options: every bound of a store, by name, with its reason.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::attest::Signer;
use crate::event::{Limits, Timestamp};
use crate::ledger::storage::{FsStorage, Storage};
use crate::policy::Policy;
use crate::redact::Redactor;

/// Where times come from.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Where ids come from.
pub trait Ids: Send + Sync {
    /// 128 bits that no call has given before: by convention 48 bits of `at` in milliseconds, then 80 random ones.
    fn next(&self, at: Timestamp) -> u128;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Random ids that grow within one process, so that SQLite's index of ids grows at its end.
#[derive(Default)]
pub struct RandomIds(Mutex<ulid::Generator>);

impl Ids for RandomIds {
    fn next(&self, at: Timestamp) -> u128 {
        let time = UNIX_EPOCH + Duration::from_millis(at.id_millis());
        let mut generator = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The generator fails only where 2^80 ids of one millisecond are used up.
        generator.generate_from_datetime(time).unwrap_or_else(|_| ulid::Ulid::from_datetime(time)).0
    }
}

/// A place in the code where a test can make a crash or a failure happen. Nothing outside tests sets one.
#[doc(hidden)]
pub type Failpoint = dyn Fn(&'static str) -> std::io::Result<()> + Send + Sync;

/// How a store is opened. Take [`Options::default`] and change what you need.
///
/// ```
/// let mut options = counterfoil::Options::default();
/// options.segment_bytes_max = 8 << 20;
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// A segment is sealed when the next group would make it longer. 64 MiB: small enough to copy, grep and
    /// compress as a unit, large enough that a long-lived store has hundreds of files, not thousands.
    pub segment_bytes_max: u64,
    /// Bytes of the longest line. 16 MiB: an agent's largest tool results fit; a mistake doesn't fill the memory.
    pub line_bytes_max: usize,
    /// Bytes of the largest group, and so of the largest atomic batch. 32 MiB: two of the longest lines.
    pub group_bytes_max: usize,
    /// Events of the largest group, and so of the largest atomic batch. 4,096: past that one fsync is spread
    /// thin enough that larger groups only add latency.
    pub group_events_max: usize,
    /// Events that may wait for the mirror before appends wait too. 262,144, about 40 MB of ids and positions. No batch
    /// may have more.
    pub unmirrored_events_max: usize,
    /// How long opening waits for another writer to let go of the store. Zero: answer `Locked` at once.
    pub lock_wait: Duration,
    /// How long SQLite waits for a lock on the mirror before the step is put off. 250 ms: a reader's checkpoint
    /// passes, a writer that sits on the lock doesn't stop the actor from answering.
    pub mirror_busy_timeout: Duration,
    /// Bytes of the mirror's WAL past which the mirror's writer waits (for two seconds at most) for readers to let go of it, so
    /// that it can be emptied. 64 MiB, four times what it grows to by itself: readers that overlap, so that there is always one,
    /// would let it grow for ever.
    pub mirror_wal_bytes_max: u64,
    /// Whether blank lines are laid out at the end of the active segment, at most 1 MiB ahead, for small groups to be written
    /// over: that spares the file system's journal, at the price of blank lines for those who read along (`tail -f` shows them;
    /// readers of this crate skip them). They are cut off when the segment is sealed and when the store is closed. Off: space is
    /// reserved all the same, but the file ends with its last line.
    pub preallocate: bool,
    /// What may be appended: gates that vote, and rules that must have. By default the mirror's state alone is looked at; see
    /// [`Policy::local`] and [`Policy::trusted`].
    pub policy: Policy,
    /// What signs each event that does not bring a signer of its own ([`Draft::sign_with`](crate::Draft::sign_with)). None: those
    /// are not signed.
    pub attestor: Option<Signer>,
    /// How long a signer that may wait for something has for a signature; then its event is left out. 2 s: a TPM or a service that
    /// is well answers within a tenth of that, and the group waits for as long.
    pub sign_deadline: Duration,
    /// Whether opening may create a store where there is none.
    pub create: bool,
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Ids>,
    /// The disk that holds the ledger.
    pub storage: Arc<dyn Storage>,
    /// What takes out of payloads what must not be recorded, before they are hashed. None: payloads are recorded as they are.
    /// [`Secrets`](crate::Secrets) knows well-known shapes of secrets.
    pub redactor: Option<Arc<dyn Redactor>>,
    /// For tests: called at the places that [`crate::failpoint`] names.
    #[doc(hidden)]
    pub failpoint: Option<Arc<Failpoint>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes_max: 64 << 20,
            line_bytes_max: 16 << 20,
            group_bytes_max: 32 << 20,
            group_events_max: 4096,
            unmirrored_events_max: 1 << 18,
            lock_wait: Duration::ZERO,
            mirror_busy_timeout: Duration::from_millis(250),
            mirror_wal_bytes_max: 64 << 20,
            preallocate: false,
            policy: Policy::default(),
            attestor: None,
            sign_deadline: Duration::from_secs(2),
            create: true,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds::default()),
            storage: Arc::new(FsStorage),
            redactor: None,
            failpoint: None,
        }
    }
}

impl Options {
    /// The bounds that a draft is checked against, and what redacts it.
    pub fn limits(&self) -> Limits {
        Limits { line_bytes_max: self.line_bytes_max, redactor: self.redactor.clone() }
    }

    pub(crate) fn at(&self, point: &'static str) -> std::io::Result<()> {
        self.failpoint.as_ref().map_or(Ok(()), |failpoint| failpoint(point))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes_max", &self.segment_bytes_max)
            .field("line_bytes_max", &self.line_bytes_max)
            .field("group_bytes_max", &self.group_bytes_max)
            .field("group_events_max", &self.group_events_max)
            .field("unmirrored_events_max", &self.unmirrored_events_max)
            .field("lock_wait", &self.lock_wait)
            .finish_non_exhaustive()
    }
}
