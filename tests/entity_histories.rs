//! Goal: whatever becomes of an entity, its registry, its actors, its store, its disk, what is derived, and whoever else appends to its
//! stream: its state is a pure fold of the stream, each acknowledged command's effect is there once, each decision was made on the
//! state before it, and a key gets its first answer.
//!
//! Method: seeded histories on the simulated disk, the mirror and the snapshots in real files. The model folds the ledger's lines by
//! hand and keeps what each command was answered; events say which command has caused them and what it was decided on.
//! COUNTERFOIL_ENTITY_HISTORIES says how many; COUNTERFOIL_SEED=n runs that one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod history_support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use history_support::bank::{SNAPSHOTS_TAKEN, SNAPSHOTS_USED, UPCASTS};
use history_support::common::campaign;
use history_support::world::{Counts, Log, World};

fn run(seed: u64) -> Counts {
    // In memory where the system has such a directory: SQLite's own fsyncs are not what is asked about.
    let shm = Path::new("/dev/shm");
    let temp = if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() };
    let log = Log::default();
    let mut builder = match seed % 8 {
        0 => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        builder.worker_threads(2).enable_all().build().unwrap().block_on(async {
            let mut world = World::new(seed, temp.path(), log.clone()).await;
            world.run().await;
            world.counts
        })
    }));
    outcome.unwrap_or_else(|panic| {
        let steps = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n");
        eprintln!("{steps}\nseed {seed} fails: COUNTERFOIL_SEED={seed} cargo test --test entity_histories");
        resume_unwind(panic)
    })
}

#[test]
fn the_state_is_a_fold_and_each_command_is_there_once() {
    let from = campaign("COUNTERFOIL_SEED", campaign("COUNTERFOIL_SEED_FROM", 0));
    let histories = if std::env::var("COUNTERFOIL_SEED").is_ok() { 1 } else { campaign("COUNTERFOIL_ENTITY_HISTORIES", 24) };
    let (begun, mut counts) = (Instant::now(), Counts::new());
    for seed in from..from + histories {
        for (what, times) in run(seed) {
            *counts.entry(what).or_default() += times;
        }
    }
    let [taken, used, upcasts] = [&SNAPSHOTS_TAKEN, &SNAPSHOTS_USED, &UPCASTS].map(|counter| counter.load(Relaxed));
    counts.extend([("snapshots taken", taken), ("snapshots used", used), ("upcasts", upcasts)]);
    eprintln!("{histories} histories in {:.1} s: {counts:#?}", begun.elapsed().as_secs_f64());
    for what in ["answers that were duplicates", "decided again", "outcomes unknown", "snapshots used", "upcasts", "power cuts"] {
        assert!(histories < 20 || counts.get(what).is_some_and(|times| *times > histories / 20), "{what}: the histories do too little");
    }
}
