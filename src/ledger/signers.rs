//! Threads that sign, so that the writer need not: an event is handed over when it is sealed, and its signature is fetched
//! when its group is about to be written. While a group is on its way to the disk, the next one is signed.
//!
//! Keys of this process are signed with by as many threads as there are processors, and by the writer itself where it would
//! wait otherwise. What may wait for something (a TPM, a service) has threads of its own, and a deadline.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::attest::{AttestError, Signature, Signer};
use crate::chain;
use crate::event::{EventHash, LedgerId};

/// Threads for signers that wait for something. 16: a service that takes 5 ms then signs 3,200 events/s.
const REMOTE_THREADS_MAX: usize = 16;
/// Calls whose deadline is past do not count among those, up to so many: a signer that hangs must not take the others' threads.
const OVERDUE_MAX: usize = 64;
/// Threads for keys in memory. More than processors would be of no use, and past four the writer can't keep up with them.
const LOCAL_THREADS_MAX: usize = 4;
/// How often a signer is asked that says no: what passes by itself, as a connection that is gone, shall not leave events out.
const TRIES: usize = 2;

/// An event that was handed over to be signed.
pub(crate) struct Asked {
    signer: Signer,
    slot: Arc<Slot>,
}

/// Where its signature will be.
#[derive(Default)]
struct Slot {
    answer: Mutex<Option<Result<Signature, AttestError>>>,
}

struct Job {
    signer: Signer,
    event_hash: EventHash,
    slot: Arc<Slot>,
}

/// A call of a signer that has not come back.
struct Call {
    signer: Signer,
    slot: Arc<Slot>,
    since: Instant,
    /// Its deadline is past, and nobody waits for it any more.
    overdue: bool,
}

/// Signs the events of one ledger.
pub(crate) struct Signers {
    local: Arc<Pool>,
    remote: Arc<Pool>,
}

struct Pool {
    ledger_id: LedgerId,
    threads_max: usize,
    /// How long a call may take; nothing where they never wait for anything, so that the one who waits may help itself to what is
    /// queued, and need not check what comes out.
    deadline: Option<Duration>,
    state: Mutex<State>,
    work: Condvar,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    calls: Vec<Call>,
    threads: usize,
    idle: usize,
    /// Someone waits for an answer.
    awaited: bool,
    closed: bool,
}

impl State {
    fn overdue(&self) -> usize {
        self.calls.iter().filter(|call| call.overdue).count()
    }

    /// Whether a call of this signer has not come back in time, and is still away.
    fn is_stuck(&self, signer: &Signer) -> bool {
        self.calls.iter().any(|call| call.overdue && call.signer.is(signer))
    }

    /// Takes note of calls whose deadline is past; answers how long the next one has.
    fn look_at_calls(&mut self, deadline: Duration) -> Duration {
        let mut left = deadline;
        for call in self.calls.iter_mut().filter(|call| !call.overdue) {
            let has = deadline.saturating_sub(call.since.elapsed());
            call.overdue = has.is_zero();
            left = if call.overdue { left } else { left.min(has) };
        }
        left
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half done by a panic: each change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signers {
    /// No thread is started before there is something to sign.
    pub(crate) fn new(ledger_id: LedgerId, deadline: Duration) -> Signers {
        let pool = |threads_max, deadline| {
            let (state, work, answered) = Default::default();
            Arc::new(Pool { ledger_id, threads_max, deadline, state, work, answered })
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Signers { local: pool(processors.min(LOCAL_THREADS_MAX), None), remote: pool(REMOTE_THREADS_MAX, Some(deadline)) }
    }

    fn pool(&self, signer: &Signer) -> &Arc<Pool> {
        if signer.is_local() { &self.local } else { &self.remote }
    }

    /// Whether it makes sense to ask this signer.
    ///
    /// # Errors
    /// [`AttestError::Stuck`].
    pub(crate) fn check(&self, signer: &Signer) -> Result<(), AttestError> {
        let is_stuck = !signer.is_local() && lock(&self.remote.state).is_stuck(signer);
        if is_stuck { Err(AttestError::Stuck { key_id: signer.key_id() }) } else { Ok(()) }
    }

    /// Hands an event over.
    pub(crate) fn ask(&self, signer: &Signer, event_hash: EventHash) -> Asked {
        let slot = Arc::new(Slot::default());
        self.pool(signer).push(Job { signer: signer.clone(), event_hash, slot: slot.clone() });
        Asked { signer: signer.clone(), slot }
    }

    /// Fetches a signature; waits for it where it has to.
    ///
    /// # Errors
    /// [`AttestError`].
    pub(crate) fn fetch(&self, asked: &Asked) -> Result<Signature, AttestError> {
        self.pool(&asked.signer).fetch(asked)
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
        if self.deadline.is_some() || state.queue.len() > 1 {
            self.see_to_threads(&mut state);
        }
    }

    /// Sees that as many threads are at work as there is work for.
    fn see_to_threads(self: &Arc<Pool>, state: &mut State) {
        // One that was woken counts as idle until it has taken something, so it is held against all that is queued.
        if state.idle >= state.queue.len() {
            self.work.notify_one();
        } else if state.threads < self.threads_max + state.overdue().min(OVERDUE_MAX) {
            let pool = self.clone();
            // Where there is no thread to be had, one that is there, or the writer, comes to it later.
            let started = thread::Builder::new().name("counterfoil-signer".to_owned()).spawn(move || pool.work());
            state.threads += usize::from(started.is_ok());
        } else {
            self.work.notify_one();
        }
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            // Threads that were started while others hung are not needed once those are back.
            let is_spare = state.threads > self.threads_max + state.overdue().min(OVERDUE_MAX);
            if let Some(job) = state.queue.pop_front().filter(|_| !state.closed) {
                let (signer, slot) = (job.signer.clone(), job.slot.clone());
                state.calls.push(Call { signer, slot, since: Instant::now(), overdue: false });
                drop(state);
                let answer = self.sign(&job);
                state = lock(&self.state);
                state.calls.retain(|call| !Arc::ptr_eq(&call.slot, &job.slot));
                self.answer(&job, answer, &state);
                continue;
            }
            if state.closed || is_spare {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Puts the answer where it is waited for.
    fn answer(&self, job: &Job, answer: Result<Signature, AttestError>, state: &State) {
        *lock(&job.slot.answer) = Some(answer);
        if state.awaited {
            self.answered.notify_all();
        }
    }

    fn sign(&self, job: &Job) -> Result<Signature, AttestError> {
        let (message, key_id) = (chain::signing_input(self.ledger_id, job.event_hash), job.signer.key_id());
        let panicked = |_| Err(AttestError::Failed { key_id, reason: "it panicked".to_owned() });
        let ask = || catch_unwind(AssertUnwindSafe(|| job.signer.attestor().sign(&message))).unwrap_or_else(panicked);
        let mut answer = ask();
        for _ in 1..TRIES {
            answer = answer.or_else(|_| ask());
        }
        let signature = answer?;
        // What a key in memory gives is right; what comes from elsewhere is what everybody would be told to trust.
        if self.deadline.is_some() && !job.signer.public_key().verify(&message, &signature) {
            return Err(AttestError::Wrong { key_id });
        }
        Ok(signature)
    }

    fn fetch(self: &Arc<Pool>, asked: &Asked) -> Result<Signature, AttestError> {
        let key_id = asked.signer.key_id();
        let mut state = lock(&self.state);
        loop {
            if let Some(answer) = lock(&asked.slot.answer).take() {
                return answer;
            }
            let mut pause = Duration::from_secs(3600);
            if let Some(deadline) = self.deadline {
                pause = state.look_at_calls(deadline);
                if state.calls.iter().any(|call| call.overdue && Arc::ptr_eq(&call.slot, &asked.slot)) {
                    return Err(AttestError::Deadline { key_id, deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) });
                }
                let queued = state.queue.iter().position(|job| Arc::ptr_eq(&job.slot, &asked.slot));
                match queued {
                    // It would hang there too.
                    Some(at) if state.is_stuck(&asked.signer) => {
                        state.queue.remove(at);
                        return Err(AttestError::Stuck { key_id });
                    }
                    // Calls that hang have given their threads up to others.
                    Some(_) => self.see_to_threads(&mut state),
                    None => {}
                }
            } else if let Some(job) = state.queue.pop_front() {
                drop(state);
                let answer = self.sign(&job);
                state = lock(&self.state);
                self.answer(&job, answer, &state);
                continue;
            }
            // Answers are given with the lock held, so none has come since it was looked for.
            state.awaited = true;
            state = self.answered.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            state.awaited = false;
        }
    }
}
