//! Threads that sign, so that the writer need not: an event is handed over when it is sealed, and its signature is fetched
//! when its group is about to be written. While a group is on its way to the disk, the next one is signed.
//!
//! Keys of this process are signed with by as many threads as there are processors, and by the writer itself where it would
//! wait otherwise. What may wait for something (a TPM, a service) has threads of its own, and a deadline.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::attest::{AttestError, Attestor, KeyId, Signature};
use crate::chain;
use crate::event::{EventHash, LedgerId};

/// Threads for signers that wait for something. 16: a service that takes 5 ms then signs 3,200 events/s.
const REMOTE_THREADS_MAX: usize = 16;
/// Threads for keys in memory. More than processors would be of no use, and past four the writer can't keep up with them.
const LOCAL_THREADS_MAX: usize = 4;

/// An event that was handed over to be signed.
pub(crate) struct Asked {
    attestor: Arc<dyn Attestor>,
    slot: Arc<Slot>,
    since: Instant,
}

/// Where its signature will be.
#[derive(Default)]
struct Slot {
    answer: Mutex<Option<Result<Signature, AttestError>>>,
}

struct Job {
    attestor: Arc<dyn Attestor>,
    event_hash: EventHash,
    slot: Arc<Slot>,
}

/// Signs the events of one ledger.
pub(crate) struct Signers {
    local: Arc<Pool>,
    remote: Arc<Pool>,
    deadline: Duration,
}

struct Pool {
    ledger_id: LedgerId,
    threads_max: usize,
    /// Whether the one who waits may help itself to what is queued, and need not check what comes out.
    is_local: bool,
    state: Mutex<State>,
    work: Condvar,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Someone waits for an answer.
    awaited: bool,
    /// Calls under way whose deadline is past, by key.
    overdue: HashMap<KeyId, usize>,
    /// Slots of those.
    abandoned: Vec<Arc<Slot>>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half done by a panic: each change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signers {
    /// No thread is started before there is something to sign.
    pub(crate) fn new(ledger_id: LedgerId, deadline: Duration) -> Signers {
        let pool = |threads_max, is_local| {
            let (state, work, answered) = Default::default();
            Arc::new(Pool { ledger_id, threads_max, is_local, state, work, answered })
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Signers { local: pool(processors.min(LOCAL_THREADS_MAX), true), remote: pool(REMOTE_THREADS_MAX, false), deadline }
    }

    fn pool(&self, attestor: &dyn Attestor) -> &Arc<Pool> {
        if attestor.is_local() { &self.local } else { &self.remote }
    }

    /// Whether it makes sense to ask this signer.
    ///
    /// # Errors
    /// [`AttestError::Stuck`].
    pub(crate) fn check(&self, attestor: &dyn Attestor) -> Result<(), AttestError> {
        if attestor.is_local() {
            return Ok(());
        }
        let key_id = attestor.key_id();
        if lock(&self.remote.state).overdue.contains_key(&key_id) { Err(AttestError::Stuck { key_id }) } else { Ok(()) }
    }

    /// Hands an event over.
    pub(crate) fn ask(&self, attestor: &Arc<dyn Attestor>, event_hash: EventHash) -> Asked {
        let slot = Arc::new(Slot::default());
        let job = Job { attestor: attestor.clone(), event_hash, slot: slot.clone() };
        self.pool(attestor.as_ref()).push(job);
        Asked { attestor: attestor.clone(), slot, since: Instant::now() }
    }

    /// Fetches a signature; waits for it where it has to.
    ///
    /// # Errors
    /// [`AttestError`].
    pub(crate) fn fetch(&self, asked: &Asked) -> Result<Signature, AttestError> {
        let pool = self.pool(asked.attestor.as_ref());
        pool.fetch(asked, self.deadline)
    }
}

impl Drop for Signers {
    fn drop(&mut self) {
        // Threads are not waited for: one may be in a call that never comes back. They touch nothing of the store's.
        for pool in [&self.local, &self.remote] {
            let mut state = lock(&pool.state);
            state.closed = true;
            state.queue.clear();
            drop(state);
            pool.work.notify_all();
        }
    }
}

impl Pool {
    fn push(self: &Arc<Pool>, job: Job) {
        let mut state = lock(&self.state);
        state.queue.push_back(job);
        // A lone event of a local key is signed by whoever fetches it: to wake a thread would take as long.
        let waiting = state.queue.len();
        if self.is_local && waiting < 2 {
            return;
        }
        if state.idle > 0 {
            drop(state);
            self.work.notify_one();
        } else if state.threads < self.threads_max && waiting > 0 {
            let pool = self.clone();
            // Where there is no thread to be had, the one that is there, or the writer, comes to it later.
            let started = thread::Builder::new().name("counterfoil-signer".to_owned()).spawn(move || pool.work());
            state.threads += usize::from(started.is_ok());
        }
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                self.answer(&job);
                state = lock(&self.state);
                continue;
            }
            if state.closed {
                return;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Signs, and puts the answer where it is waited for.
    fn answer(&self, job: &Job) {
        let answer = self.sign(job);
        *lock(&job.slot.answer) = Some(answer);
        let mut state = lock(&self.state);
        if let Some(at) = state.abandoned.iter().position(|slot| Arc::ptr_eq(slot, &job.slot)) {
            state.abandoned.swap_remove(at);
            let key_id = job.attestor.key_id();
            if let Some(calls) = state.overdue.get_mut(&key_id) {
                *calls -= 1;
                if *calls == 0 {
                    state.overdue.remove(&key_id);
                }
            }
        }
        if state.awaited {
            self.answered.notify_all();
        }
    }

    fn sign(&self, job: &Job) -> Result<Signature, AttestError> {
        let message = chain::signing_input(self.ledger_id, job.event_hash);
        let failed = |reason: &str| AttestError::Failed { key_id: job.attestor.key_id(), reason: reason.to_owned() };
        let signature = catch_unwind(AssertUnwindSafe(|| job.attestor.sign(&message))).unwrap_or_else(|_| Err(failed("it panicked")))?;
        // What a key in memory gives is right; what comes from elsewhere is what everybody would be told to trust.
        if !self.is_local && !job.attestor.public_key().verify(&message, &signature) {
            return Err(AttestError::Wrong { key_id: job.attestor.key_id() });
        }
        Ok(signature)
    }

    fn fetch(&self, asked: &Asked, deadline: Duration) -> Result<Signature, AttestError> {
        loop {
            if let Some(answer) = lock(&asked.slot.answer).take() {
                return answer;
            }
            let mut state = lock(&self.state);
            if self.is_local
                && let Some(job) = state.queue.pop_front()
            {
                drop(state);
                self.answer(&job);
                continue;
            }
            // Answers are given without this lock, so it may have come just now; who gives it next sees that it is awaited.
            state.awaited = true;
            if lock(&asked.slot.answer).is_some() {
                state.awaited = false;
                continue;
            }
            let left = deadline.saturating_sub(asked.since.elapsed());
            if !self.is_local && left.is_zero() {
                state.awaited = false;
                return Err(self.abandon(&mut state, asked, deadline));
            }
            let left = if self.is_local { Duration::from_secs(3600) } else { left };
            let (mut state, _) = self.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state.awaited = false;
        }
    }

    /// Takes it that a call does not come back in time.
    fn abandon(&self, state: &mut State, asked: &Asked, deadline: Duration) -> AttestError {
        let key_id = asked.attestor.key_id();
        let queued = state.queue.len();
        state.queue.retain(|job| !Arc::ptr_eq(&job.slot, &asked.slot));
        if state.queue.len() == queued {
            // It is under way.
            state.abandoned.push(asked.slot.clone());
            *state.overdue.entry(key_id).or_default() += 1;
        }
        AttestError::Deadline { key_id, deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) }
    }
}
