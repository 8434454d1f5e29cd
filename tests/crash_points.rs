//! Goal: a process that ends at any step of appending, rotating, recovering, replaying, repairing and closing, with and
//! without actors, leaves a store that the next open brings to parity by itself (a repair: once it is begun again), with all
//! that was acknowledged, and nothing that was not submitted.
//!
//! Method: this test binary again as the process, which aborts at the k-th hit of a failpoint: every failpoint of
//! `counterfoil::failpoint::ALL`, at every hit of it in every scenario. A failpoint that nothing hits fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(unix)]

mod crash_support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use counterfoil::failpoint;
use crash_support::common::{copy_dir, small_segments};
use crash_support::scenarios::{SCENARIOS, Scenario};
use crash_support::*;

/// Crashes that are made at once: each process waits for the disk most of its time.
const AT_ONCE: usize = 4;

/// The process: `scenario point hit directory`. Aborts at that hit, or else says how often each point was hit.
#[test]
fn process() {
    let Some(role) = role() else { return };
    let words: Vec<&str> = role.splitn(4, ' ').collect();
    let [scenario, at, hit, dir] = words[..] else { panic!("{role}") };
    let (at, hit): (String, u64) = (at.to_owned(), hit.parse().unwrap());
    let hits: Arc<Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
    let count = hits.clone();
    let mut options = small_segments();
    options.failpoint = Some(Arc::new(move |point| {
        let mut hits = count.lock().unwrap();
        let n = hits.entry(point).or_default();
        *n += 1;
        if point == at && *n == hit {
            std::process::abort();
        }
        Ok(())
    }));
    begin_to_say();
    Scenario::named(scenario).work(Path::new(dir), &options).unwrap();
    for (point, hits) in hits.lock().unwrap().iter() {
        println!("hits {point} {hits}");
    }
}

/// How often a scenario hits each point.
fn hits(scenario: Scenario, dir: &Path) -> BTreeMap<String, u64> {
    let ended = run(&again("process", &format!("{scenario:?} none 0 {}", dir.display())), "without a crash");
    assert!(ended.status.success(), "{scenario:?}: {ended:?}");
    let hits = ended.out.lines().filter_map(|line| {
        let (point, n) = line.strip_prefix("hits ")?.split_once(' ')?;
        Some((point.to_owned(), n.parse().unwrap()))
    });
    hits.collect()
}

#[test]
fn every_crash_recovers_to_parity() {
    if role().is_some() {
        return;
    }
    let temp = memory_dir();
    let mut prepared = Vec::new();
    let mut crashes: Vec<(usize, String, u64)> = Vec::new();
    let mut hit: BTreeSet<String> = BTreeSet::new();
    for (n, scenario) in SCENARIOS.iter().enumerate() {
        let dir = temp.path().join(format!("prepared-{n}"));
        let before = scenario.prepare(&dir);
        let whole = temp.path().join(format!("whole-{n}"));
        if dir.exists() {
            copy_dir(&dir, &whole);
        }
        for (point, hits) in hits(*scenario, &whole) {
            crashes.extend((1..=hits).map(|k| (n, point.clone(), k)));
            hit.insert(point);
        }
        scenario.check(&whole, &before, &[], &format!("{scenario:?} without a crash"));
        prepared.push((dir, before));
    }
    let declared: BTreeSet<String> = failpoint::ALL.iter().map(|point| (*point).to_owned()).collect();
    let unknown: Vec<_> = hit.difference(&declared).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");

    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let crashed: Mutex<BTreeSet<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((n, point, k)) = crashes.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (scenario, (from, before)) = (SCENARIOS[*n], &prepared[*n]);
                    let what = format!("{scenario:?}, {point}, hit {k}");
                    let dir = temp.path().join(format!("{n}-{point}-{k}"));
                    if from.exists() {
                        copy_dir(from, &dir);
                    }
                    let ended = run(&again("process", &format!("{scenario:?} {point} {k} {}", dir.display())), &what);
                    if ended.status.signal().is_some() {
                        crashed.lock().unwrap().insert(point.clone());
                    } else {
                        // How the actors' appends meet differs from run to run.
                        assert!(ended.status.success(), "{what}: {ended:?}");
                        missed.fetch_add(1, Ordering::SeqCst);
                    }
                    scenario.check(&dir, before, &ended.said, &what);
                    std::fs::remove_dir_all(&dir).unwrap();
                }
            });
        }
    });
    let never: Vec<String> = declared.difference(&crashed.into_inner().unwrap()).cloned().collect();
    // Without the actors their points are nowhere.
    let never: Vec<_> = never.iter().filter(|point| cfg!(feature = "actors") || !point.starts_with("actor.")).collect();
    assert!(never.is_empty(), "declared, but no scenario comes by: {never:?}");
    let missed = missed.into_inner();
    assert!(missed * 20 <= crashes.len(), "{missed} of {} crashes did not come about", crashes.len());
    eprintln!(
        "{} crashes at {} points in {} scenarios ({missed} did not come about): all recovered to parity",
        crashes.len() - missed,
        declared.len(),
        SCENARIOS.len()
    );
}
