//! Calls that may hang: what a signer or an anchor is asked is asked on a thread of its own, and waited for within a deadline.
//!
//! Called by [`super::sign`] and [`super::handing`]. A thread that hangs is never joined, and there is at most one for each
//! of them: until it comes back nothing more is asked there.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often somebody who waits looks whether that is to end before its time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// It has not come back in time.
    Late(Duration),
    /// It has not come back from an earlier call.
    Stuck,
    /// It has panicked.
    Panicked,
    /// There is no thread for it.
    NoThread(String),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missed::Late(deadline) => write!(f, "no answer within {} ms; see what it waits for", deadline.as_millis()),
            Missed::Stuck => write!(f, "stuck: it has not come back from an earlier call, so it is not asked again; see what it waits for"),
            Missed::Panicked => write!(f, "it has panicked; see standard error"),
            Missed::NoThread(error) => write!(f, "no thread could be started for it: {error}"),
        }
    }
}

/// Calls to one that may hang.
pub(super) struct Calls<T> {
    pending: Option<Pending<T>>,
}

struct Pending<T> {
    answer: Receiver<T>,
    deadline: Duration,
    until: Instant,
}

impl<T: Send + 'static> Calls<T> {
    pub(super) fn new() -> Calls<T> {
        Calls { pending: None }
    }

    /// Whether a call has not been answered.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Begins a call, which has so long; [`Calls::wait`] has its answer.
    pub(super) fn start(&mut self, deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> Result<(), Missed> {
        if self.is_pending() {
            return Err(Missed::Stuck);
        }
        let (answered, answer) = sync_channel(1);
        // Nobody may listen any more.
        let work = move || drop(answered.send(call()));
        let started = thread::Builder::new().name("counterfoil-anchor".to_owned()).spawn(work);
        started.map_err(|error| Missed::NoThread(error.to_string()))?;
        let until = Instant::now().checked_add(deadline).unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30));
        self.pending = Some(Pending { answer, deadline, until });
        Ok(())
    }

    /// Waits for the answer until the call's deadline, or until that flag is set; without a call there is none. The answer to a call
    /// that was given up can still be had later.
    pub(super) fn wait(&mut self, cancelled: Option<&AtomicBool>) -> Option<Result<T, Missed>> {
        let pending = self.pending.as_ref()?;
        let was_late = Instant::now() >= pending.until;
        let answer = loop {
            let left = pending.until.saturating_duration_since(Instant::now());
            match pending.answer.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(answer) => break Ok(answer),
                Err(RecvTimeoutError::Disconnected) => break Err(Missed::Panicked),
                Err(RecvTimeoutError::Timeout) if was_late => return Some(Err(Missed::Stuck)),
                Err(RecvTimeoutError::Timeout) => {
                    let is_cancelled = cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed));
                    if is_cancelled || Instant::now() >= pending.until {
                        return Some(Err(Missed::Late(pending.deadline)));
                    }
                }
            }
        };
        self.pending = None;
        Some(answer)
    }
}
