//! The systems that Counterfoil is measured beside. One process runs one case, as the driver asks for it.
//!
//! Each is set so that an append is on disk when it returns; the driver counts the syncs of each in a run under strace.

mod crtx;
mod logs;
mod stores;

use bench_load::{Outcome, Result, Spec};

fn main() -> std::process::ExitCode {
    bench_load::main(run)
}

fn run(spec: &Spec) -> Result<Outcome> {
    let (system, has) = spec.system();
    match system {
        "crtx" => crtx::append(spec),
        "crtx-make" => crtx::make(spec),
        "crtx-parity" => crtx::parity(spec),
        "crtx-replay" => crtx::replay(spec),
        "crtx-open" => crtx::open(spec),
        "okaywal" => logs::okaywal(spec),
        "logdb" => logs::logdb(spec),
        "batpak" => logs::batpak(spec, has("group")),
        "batpak-batch" => logs::batpak_batch(spec),
        "fjall" => stores::fjall(spec),
        "redb" => stores::redb(spec),
        "sqlite-lean" => stores::sqlite_lean(spec),
        other => Err(format!("there is no peer {other:?}").into()),
    }
}
