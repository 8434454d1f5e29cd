//! CPU time and memory of this process.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::Outcome;

/// Measures CPU time from its start on.
pub struct Meter(f64);

impl Meter {
    /// Starts it.
    pub fn start() -> Meter {
        Meter(cpu_us())
    }

    /// Adds what was measured to what came of a case.
    pub fn stop(&self, outcome: Outcome) -> Outcome {
        Outcome { cpu_us: cpu_us() - self.0, peak_kib: peak_kib(), ..outcome }
    }
}

/// CPU time of the process, all threads and the kernel's work for them.
fn cpu_us() -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    tv_sec as f64 * 1e6 + tv_nsec as f64 / 1e3
}

/// The most memory that the process ever had resident; 0 where the system doesn't tell.
pub fn peak_kib() -> u64 {
    status("VmHWM:")
}

/// Has [`peak_kib`] count from now on, and answers what is resident now. Where the system can't, the peak stays that of the whole
/// life.
pub fn forget_peak() -> u64 {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    resident_kib()
}

/// What it has resident now.
pub fn resident_kib() -> u64 {
    status("VmRSS:")
}

fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
