//! Which cases there are.

use bench_load::Spec;

use crate::results::key;

/// Which binary runs a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ours,
    Peers,
}

/// One case of a plan; its directory and store are filled in when it is run.
#[derive(Clone, Debug)]
pub struct Case {
    pub program: Program,
    pub spec: Spec,
    pub store: Needs,
}

/// What a case reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Our store of so many events.
    Ours(u64),
    /// Ours, with a long stream among others, or (the second) with its events together; see `streams`.
    Streams(u64, bool),
    /// crtx-store's.
    Crtx(u64),
}

/// What is wanted of a plan.
pub struct Wanted {
    pub peers: bool,
    pub quick: bool,
    pub seconds: f64,
    /// Events of the stores that are verified, compared, replayed.
    pub lines: u64,
    /// Events of the stores in which one long stream is read, or its entity opened.
    pub sizes: Vec<u64>,
    /// Parts of a case's key, one of which it must have; none: all cases.
    pub only: Vec<String>,
}

pub const SMALL: usize = 395;
pub const LARGE: usize = 1140;
/// Arrivals a second of the open loops.
pub const RATES: [f64; 3] = [1_000.0, 5_000.0, 20_000.0];
/// Callers of the peers in an open loop: no more of their appends than that are under way.
const OPEN_CALLERS: usize = 64;
const ALL: &[usize] = &[1, 16, 256, 1024];

/// Ours and the disk's, with the numbers in flight at which they are measured.
const OURS: &[(&str, &[usize])] = &[
    ("f1", &[1, 16]),
    ("f2", &[1]),
    ("f2+fallocated", &[1]),
    ("f3", ALL),
    ("core-ledger", ALL),
    ("core-ledger+preallocate", &[1]),
    ("core-store", ALL),
    ("actors", ALL),
    ("actors+preallocate", ALL),
    ("actors+mirrored", ALL),
    ("core-ledger+signed", ALL),
    ("actors+signed", ALL),
    ("actors+ledger-only", ALL),
    ("actors+ledger-only+preallocate", ALL),
    ("sqlite-own", ALL),
];

const PEERS: &[(&str, &[usize])] = &[
    ("crtx", ALL),
    ("okaywal", ALL),
    ("logdb", ALL),
    ("batpak", ALL),
    ("batpak+group", ALL),
    ("batpak-batch", &[16, 256, 1024]),
    ("fjall", ALL),
    ("redb", ALL),
    ("sqlite-lean", ALL),
];

/// Peers whose append is durable by itself, one caller an event: not those that are handed a batch.
pub const PER_APPEND: &[&str] = &["crtx", "okaywal", "logdb", "batpak", "batpak+group", "fjall", "redb"];

/// What an import is measured beside, in the same round, whatever else is wanted: both legs, with payloads as long as the lines of
/// Claude Code's transcripts, which most of what is imported is.
pub const IMPORT_BESIDE: (&str, usize, usize) = ("actors+mirrored", 256, LARGE);

/// Commands to entities, with as many plain appends in flight beside them: as they are elsewhere here, and (`+own`) each caller in a
/// stream of its own, as an entity is.
pub const COMMANDS: &[(&str, usize)] =
    &[("entity", 1), ("entity+keyed", 1), ("actors", 1000), ("actors+own", 1000), ("entity", 1000), ("entity+keyed", 1000)];
/// Looks at an entity's state, beside so many plain appends.
pub const READS: (&str, [usize; 2]) = ("entity-read", [1, 256]);
/// What is done with one stream, in stores of growing size.
pub const STREAMS: &[&str] = &[
    "entity-open",
    "entity-open+together",
    "entity-open+folded",
    "entity-open+folded+together",
    "stream-middle",
    "stream-middle+together",
    "stream-backwards",
    "stream-backwards+together",
    "sessions",
];
/// What is done with all of a store's events: it may grow with them.
pub const FIRST_LIST: &str = "sessions-first";
/// How many keys a stream has had, of which those of a new command are told.
const KEYS: [u64; 2] = [1_000, 100_000];

/// All cases that are wanted, in a fixed order.
pub fn plan(wanted: &Wanted) -> Vec<Case> {
    let mut cases = Vec::new();
    let payloads: &[usize] = if wanted.quick { &[SMALL] } else { &[SMALL, LARGE] };
    for &payload in payloads {
        for (program, systems) in [(Program::Ours, OURS), (Program::Peers, PEERS)] {
            for (system, in_flight) in systems {
                let in_flight = in_flight.iter().filter(|n| !wanted.quick || **n <= 256);
                cases.extend(in_flight.map(|&in_flight| append(program, system, in_flight, payload, None, wanted)));
            }
        }
    }
    let rates = if wanted.quick { &RATES[..1] } else { &RATES[..] };
    for &rate in rates {
        for system in ["actors", "actors+mirrored"] {
            cases.push(append(Program::Ours, system, 1, SMALL, Some(rate), wanted));
        }
        for system in ["f1"].iter().chain(PER_APPEND) {
            let program = if *system == "f1" { Program::Ours } else { Program::Peers };
            cases.push(append(program, system, OPEN_CALLERS, SMALL, Some(rate), wanted));
        }
    }
    cases.extend(upkeep(wanted));
    cases.extend(entities(wanted));
    cases.retain(|case| wanted.peers || case.program == Program::Ours);
    cases.retain(|case| wanted.only.is_empty() || wanted.only.iter().any(|part| key(&case.spec).contains(part)));
    let yardstick = append(Program::Ours, IMPORT_BESIDE.0, IMPORT_BESIDE.1, IMPORT_BESIDE.2, None, wanted);
    let has = |of: &dyn Fn(&Case) -> bool| cases.iter().any(of);
    if has(&|case| case.spec.system == "import") && !has(&|case| key(&case.spec) == key(&yardstick.spec)) {
        cases.push(yardstick);
    }
    cases
}

fn append(program: Program, system: &str, in_flight: usize, payload: usize, rate: Option<f64>, wanted: &Wanted) -> Case {
    let spec = Spec {
        system: system.to_owned(),
        dir: Default::default(),
        in_flight,
        payload,
        seconds: wanted.seconds,
        events_max: u64::MAX,
        rate,
        store: None,
    };
    Case { program, spec, store: Needs::Nothing }
}

/// What is done with stores that are there.
fn upkeep(wanted: &Wanted) -> Vec<Case> {
    let case = |program, system: &str, store, events_max| {
        let case = append(program, system, 1, SMALL, None, wanted);
        Case { store, spec: Spec { events_max, ..case.spec }, ..case }
    };
    let (small, lines) = (wanted.lines / 10, wanted.lines);
    let mut cases = vec![case(Program::Ours, "open", Needs::Ours(small), small), case(Program::Ours, "open", Needs::Ours(lines), lines)];
    for system in ["verify", "parity", "replay", "repair-from-ledger", "repair-from-mirror"] {
        cases.push(case(Program::Ours, system, Needs::Ours(lines), lines));
    }
    cases.push(case(Program::Ours, "checkpoint", Needs::Ours(lines), lines));
    // It makes its own store too, a tenth as large: signing takes its time.
    cases.push(case(Program::Ours, "verify-signed", Needs::Nothing, small));
    // An import makes its own store. Half the lines: some seconds, all the same.
    cases.push(case(Program::Ours, "import", Needs::Nothing, lines / 2));
    for system in ["crtx-open", "crtx-parity", "crtx-replay"] {
        cases.push(case(Program::Peers, system, Needs::Crtx(lines), lines));
    }
    cases
}

/// Entities and streams.
fn entities(wanted: &Wanted) -> Vec<Case> {
    let ours = |system: &str, in_flight| append(Program::Ours, system, in_flight, SMALL, None, wanted);
    let mut cases: Vec<Case> = COMMANDS.iter().map(|(system, in_flight)| ours(system, *in_flight)).collect();
    let of = |system: &str, events_max| {
        let case = ours(system, 1);
        Case { spec: Spec { events_max, ..case.spec }, ..case }
    };
    let keys = if wanted.quick { &KEYS[..1] } else { &KEYS[..] };
    cases.extend(READS.1.map(|in_flight| ours(READS.0, in_flight)));
    cases.extend(keys.iter().map(|keys| of("entity-keys", *keys)));
    for system in STREAMS.iter().chain([&FIRST_LIST]) {
        let together = system.contains("+together");
        cases.extend(wanted.sizes.iter().map(|&events| Case { store: Needs::Streams(events, together), ..of(system, events) }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_never_measured_alone() {
        for (quick, only) in [(false, vec!["/395", "#"]), (false, vec!["import"]), (false, vec![]), (true, vec!["import"])] {
            let only = only.into_iter().map(str::to_owned).collect();
            let cases = plan(&Wanted { peers: true, quick, seconds: 1.0, lines: 1000, sizes: vec![1, 2, 3], only });
            let beside = cases.iter().filter(|case| key(&case.spec) == "actors+mirrored/256/1140").count();
            assert_eq!(beside, 1);
        }
        let only = vec!["actors/16".to_owned()];
        let cases = plan(&Wanted { peers: false, quick: false, seconds: 1.0, lines: 1000, sizes: vec![1, 2, 3], only });
        assert!(cases.iter().all(|case| case.spec.system == "actors"));
    }

    #[test]
    fn no_case_is_there_twice() {
        for quick in [false, true] {
            let cases = plan(&Wanted { peers: true, quick, seconds: 1.0, lines: 1000, sizes: vec![1, 2, 3], only: Vec::new() });
            let keys: std::collections::BTreeSet<_> = cases.iter().map(|case| key(&case.spec)).collect();
            assert_eq!(keys.len(), cases.len());
        }
    }
}
