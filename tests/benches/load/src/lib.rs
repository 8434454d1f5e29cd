//! What the two binaries share: what a case is, how it is loaded, what is measured.
//!
//! - `spec` a case, and what came of it, as JSON · `pacer` closed and open loops · `threads` callers on threads
//! - `payload` payloads like those of agents · `meter` time, CPU, memory

mod meter;
mod pacer;
mod payload;
mod spec;
mod threads;

pub use meter::{Meter, forget_peak, peak_kib, resident_kib};
pub use pacer::Pacer;
pub use payload::{Payloads, SESSIONS, session};
pub use spec::{Outcome, Spec};
pub use threads::threads;

/// Whatever went wrong: a benchmark stops and says so.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// See [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs the case that the second argument describes in JSON, and prints what came of it, as JSON in one line.
pub fn main(run: impl FnOnce(&Spec) -> Result<Outcome>) -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let done = match arguments.as_slice() {
        [_, case, spec] if case == "case" => serde_json::from_str(spec).map_err(Error::from).and_then(|spec| run(&spec)),
        _ => Err("usage: case '{\"system\":…,\"dir\":…}'".into()),
    };
    match done.and_then(|outcome| Ok(serde_json::to_string(&outcome)?)) {
        Ok(line) => {
            println!("{line}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
