//! Every case of our own, by the name of its system.

use bench_load::{Outcome, Result, Spec};

use crate::{actors, core, disk, entity, soak, sqlite, streams, upkeep};

/// Runs a case in this process.
pub fn run(spec: &Spec) -> Result<Outcome> {
    let (system, has) = spec.system();
    match system {
        "f1" => disk::f1(spec),
        "f2" => disk::f2(spec, !has("fallocated")),
        "f3" => disk::f3(spec),
        "core-ledger" => core::ledger(spec, has),
        "core-store" => core::store(spec, has),
        "actors" => actors::run(spec, has),
        "sqlite-own" => sqlite::own_schema(spec),
        "verify" => upkeep::verified(spec),
        "verify-signed" => upkeep::verified_signed(spec),
        "checkpoint" => upkeep::checkpoint(spec),
        "parity" => upkeep::parity(spec),
        "replay" => upkeep::replay(spec),
        "repair-from-ledger" => upkeep::from_ledger(spec),
        "repair-from-mirror" => upkeep::from_mirror(spec),
        "open" => upkeep::open(spec),
        "import" => upkeep::import(spec),
        "entity" => entity::run(spec, has),
        "entity-read" => entity::reads(spec, has),
        "entity-keys" => entity::keys(spec, has),
        "streams-make" => streams::make(spec, has),
        "entity-open" => streams::open(spec, has),
        "stream-middle" => streams::middle(spec),
        "stream-backwards" => streams::backwards(spec),
        "sessions" => streams::sessions(spec),
        "sessions-first" => streams::first_list(spec),
        "soak" => soak::run(spec),
        other => Err(format!("there is no system {other:?}").into()),
    }
}
