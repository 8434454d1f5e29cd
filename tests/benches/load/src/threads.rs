//! Callers on threads of their own, for systems that are called synchronously.

use std::time::Duration;

use crate::{Meter, Outcome, Pacer, Result, Spec};

/// A thousand callers take some 30 ms to start.
const READY: Duration = Duration::from_millis(100);
const STACK_BYTES: usize = 256 << 10;

/// Runs `callers` threads. Each makes itself an append function (called with the number of its first event) and calls
/// it until the time is over; each call appends `events_each` events.
pub fn threads<F>(spec: &Spec, callers: usize, events_each: u64, append: impl Fn(usize) -> F + Sync) -> Result<Outcome>
where
    F: FnMut(u64) -> Result<()>,
{
    let pacer = Pacer::new(spec, READY);
    let run = |caller: usize| -> Result<()> {
        let mut append = append(caller);
        pacer.wait_for_start();
        while let Some((n, from)) = pacer.next(events_each) {
            append(n)?;
            pacer.done(caller, from, events_each);
        }
        Ok(())
    };
    let meter = std::thread::scope(|scope| -> Result<Meter> {
        let run = &run;
        let spawn = |caller| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, move || run(caller));
        let running = (0..callers).map(spawn).collect::<std::io::Result<Vec<_>>>()?;
        pacer.wait_for_start();
        let meter = Meter::start();
        for caller in running {
            caller.join().map_err(|_| "a caller panicked")??;
        }
        Ok(meter)
    })?;
    Ok(meter.stop(pacer.outcome()))
}
