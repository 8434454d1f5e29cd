//! Goal: whenever the power goes, and however often, everything that was acknowledged is there afterwards, once, as it
//! was acknowledged, and nothing that was not submitted; the store recovers by itself, both legs are equal, and submitting
//! all of it again records nothing twice.
//!
//! Method: real file systems on loop devices, and FS_IOC_SHUTDOWN, after which nothing reaches the device. What has not
//! been synced is lost, as the test shows each time with a file of its own. The writers are this binary, started again
//! (actors: up to 64 appenders, batches, mirrored acknowledgements, small segments), and the real command (`import
//! --receipts`, `append`). They tell each acknowledgement on a pipe. The power goes after so many receipts, after some
//! time, while a store is opened, recovers from the cut before, or closes. One store lives through several cuts.
//! A seed gives drafts, options and moments; the rest is the machine's timing.
//! COUNTERFOIL_POWER_CUTS makes the campaign longer, COUNTERFOIL_POWER_SEED begins it elsewhere. What a loop device can't
//! show is a disk that loses what it has said is flushed, or that reorders within its own cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;
mod power_support;
mod real_disk;

use std::path::Path;
use std::time::Instant;

use power_support::Run;
use power_support::history::History;
use power_support::watch::Count;
use real_disk::{Cutter, EXT4, Kind, Memory};

const WRITER: &str = "the_process_that_writes";

const KINDS: &[Kind] = &[
    EXT4,
    Kind { options: "data=writeback", ..EXT4 },
    Kind { mkfs: &["mkfs.ext4", "-q", "-F", "-b", "1024"], options: "data=ordered,nodelalloc", ..EXT4 },
    Kind { mkfs: &["mkfs.ext4", "-q", "-F", "-b", "1024"], options: "data=writeback,nodelalloc", ..EXT4 },
    Kind { options: "data=journal", ..EXT4 },
];
const XFS: Kind = Kind { mkfs: &["mkfs.xfs", "-q", "-f"], options: "noatime", bytes: 512 << 20 };

/// Not a test of its own: started again by the others, this is the process whose power is cut.
#[test]
fn the_process_that_writes() {
    if let Some((run, store)) = Run::of_this_process() {
        power_support::write(run, &store);
    }
}

/// One store through so many cuts.
fn live(mut history: History<'_>, cuts: u64) -> Result<(), String> {
    for _ in 0..cuts {
        history.cut()?;
    }
    history.finish()
}

/// A place for an image in memory, so that a flush costs nothing. The device is the image all the same.
fn in_memory(dir: &Path) -> Memory {
    Memory::mount(&dir.join("memory"), 1 << 30)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("power cuts", &why);
    }
    let mut kinds = KINDS.to_vec();
    if real_disk::has("mkfs.xfs") {
        kinds.push(XFS);
    }
    let cuts = common::campaign("COUNTERFOIL_POWER_CUTS", 30);
    let mut seed = common::campaign("COUNTERFOIL_POWER_SEED", 1);
    let started = Instant::now();
    let (mut cutter, mut count, mut histories) = (Cutter::start(), Count::default(), 0);
    while count.cuts < cuts {
        let temp = tempfile::tempdir().unwrap();
        let kind = kinds[(seed % kinds.len() as u64) as usize];
        let length = (1 + common::Random::new(seed).below(9)).min(cuts - count.cuts);
        let memory = in_memory(temp.path());
        let history = History::new(seed, &memory.0, kind, &mut cutter, &mut count, WRITER, false);
        if let Err(error) = live(history, length) {
            let image = std::env::temp_dir().join(format!("counterfoil-power-cut-{seed}"));
            std::fs::copy(memory.0.join("image"), &image).unwrap();
            panic!("COUNTERFOIL_POWER_SEED={seed} begins with this history, on {kind:?}; its disk is {}: {error}", image.display());
        }
        histories += 1;
        seed += 1;
        if histories % 20 == 0 {
            eprintln!("{} cuts, {} torn tails, {} acknowledged", count.cuts, count.torn, count.acknowledged);
        }
    }
    eprintln!("{histories} histories in {:?}: {count:#?}", started.elapsed());
    assert!(count.unsynced_lost > 0, "the cuts have no teeth: what was not synced was there again");
}

#[test]
fn a_store_that_does_not_sync_is_found_out() {
    if let Some(why) = real_disk::missing() {
        return common::skipped("power cuts of a store that does not sync", &why);
    }
    let (mut cutter, mut count) = (Cutter::start(), Count::default());
    for seed in 1..=40 {
        let temp = tempfile::tempdir().unwrap();
        let memory = in_memory(temp.path());
        let history = History::new(seed, &memory.0, EXT4, &mut cutter, &mut count, WRITER, true);
        if let Err(error) = live(history, 1) {
            eprintln!("found out at cut {seed}: {error}");
            return;
        }
    }
    panic!("{} cuts of a store that never syncs, and nothing was lost: the test is blind", count.cuts);
}
