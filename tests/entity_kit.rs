//! Goal: the kit for tests of entities passes what is right, and fails where an entity breaks what the actors rely on, with a text that
//! shows where: steps that lead elsewhere, a `decide` or `apply` that is not pure, events and states that serde does not bring back.
//!
//! Method: one entity with a fault of every kind, each switched on alone; the panics' texts are snapshots. The same steps without
//! a fault pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use counterfoil::Draft;
use counterfoil::entity::kit::{Case, Kit, Then, cases};
use counterfoil::entity::{Entity, Upcasts};
use serde::{Deserialize, Serialize, Serializer};

/// What is wrong with the entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    DecideCounts,
    ErrorCounts,
    ApplyCounts,
    UpcastCounts,
    DecideAsksSkipped,
    ApplyAsksSkipped,
    ApplyAsksSkippedOfEvent,
    EventRounds,
    EventIsNan,
    StateHasOddKeys,
    StateIsNan,
    /// No fault, but something that must not pass for one.
    StateHasHashSet,
    PassesOverItsOwn,
    TagIsTooLong,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    total: u64,
    /// The order of its keys is another in each instance.
    names: HashMap<String, u64>,
    #[serde(skip)]
    last: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pairs: BTreeMap<(u8, u8), u8>,
    #[serde(default, skip_serializing_if = "HashSet::is_empty")]
    set: HashSet<u64>,
    weight: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Event {
    #[serde(rename = "added.v2")]
    Added {
        by: u64,
        #[serde(skip)]
        hidden: u64,
    },
    #[serde(rename = "weighed.v1")]
    Weighed {
        #[serde(serialize_with = "one_more")]
        grams: f64,
    },
    #[serde(rename = "named.v1")]
    Named(HashMap<String, u64>),
    #[serde(rename = "noted.v1")]
    Noted,
}

/// Adds one to what has decimals: no number that does is read as it was written.
fn one_more<S: Serializer>(grams: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(if grams.fract() > 0.0 { grams + 1.0 } else { *grams })
}

fn added(by: u64) -> Event {
    Event::Added { by, hidden: 0 }
}

enum Command {
    Add(u64),
    Weigh(f64),
    Name,
    Note,
    Nothing,
    Refuse,
    Panic,
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("not {0}")]
    Not(u64),
    #[error("never")]
    Never,
}

struct Lab(Fault, AtomicU64);

impl Lab {
    fn new(fault: Fault) -> Lab {
        Lab(fault, AtomicU64::new(0))
    }

    fn count(&self, fault: Fault) -> u64 {
        if self.0 == fault { self.1.fetch_add(1, Relaxed) } else { 0 }
    }
}

impl Entity for Lab {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Error = Refused;
    const NAME: &'static str = "lab";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &State, command: &Command) -> Result<Vec<Event>, Refused> {
        Ok(match command {
            Command::Add(by) if self.0 == Fault::DecideAsksSkipped => vec![added(by + state.last)],
            Command::Add(by) => vec![Event::Added { by: by + self.count(Fault::DecideCounts), hidden: state.total + 1 }, Event::Noted],
            Command::Weigh(grams) => vec![Event::Weighed { grams: *grams }],
            Command::Name => vec![Event::Named((0..20).map(|n| (format!("k{n}"), n)).collect())],
            Command::Note => vec![Event::Noted],
            Command::Nothing => Vec::new(),
            Command::Refuse if self.0 == Fault::ErrorCounts => return Err(Refused::Not(self.count(Fault::ErrorCounts))),
            Command::Refuse => return Err(Refused::Not(state.total)),
            Command::Panic => panic!("at total {}", state.total),
        })
    }

    fn apply(&self, state: &mut State, event: &Event) {
        match event {
            Event::Added { by, hidden } => {
                state.total += by + self.count(Fault::ApplyCounts);
                match self.0 {
                    Fault::ApplyAsksSkipped => state.total += state.last,
                    Fault::ApplyAsksSkippedOfEvent => state.total += hidden,
                    Fault::StateHasOddKeys => drop(state.pairs.insert((1, 2), 3)),
                    Fault::StateIsNan => state.weight = f64::NAN,
                    Fault::StateHasHashSet => state.set.extend(0..20),
                    _ => {}
                }
                state.last = *by;
            }
            Event::Weighed { grams } => state.weight += grams,
            Event::Named(names) => state.names.extend(names.clone()),
            Event::Noted => {}
        }
    }

    fn upcasts(&self) -> Upcasts {
        let (fault, count) = (self.0, AtomicU64::new(0));
        Upcasts::none().upcast("added.v1", "added.v2", move |payload| {
            let by = payload.as_u64().ok_or("no number")?;
            let extra = if fault == Fault::UpcastCounts { count.fetch_add(1, Relaxed) } else { 0 };
            Ok(serde_json::json!({"by": by + extra}))
        })
    }

    fn draft(&self, _: &Event, draft: Draft) -> Draft {
        if self.0 == Fault::TagIsTooLong { draft.tag("x".repeat(129)) } else { draft.tag("lab") }
    }

    fn passes_over(&self, event_type: &str) -> bool {
        event_type == "foreign.v1" || (self.0 == Fault::PassesOverItsOwn && event_type.starts_with("noted."))
    }
}

fn kit(fault: Fault) -> Kit<Lab> {
    Kit::of(Lab::new(fault))
}

/// What a test that fails is told.
fn failing(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("the kit must fail");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
}

/// Steps in which every fault shows, unless it shows earlier.
fn steps(fault: Fault) {
    kit(fault)
        .given([added(2), Event::Noted])
        .given_json(&[("added.v1", "5"), ("foreign.v1", "[]"), ("noted.v1", "null")])
        .then_state(|state| state.total == 7)
        .when(Command::Add(1))
        .then([added(1), Event::Noted])
        .when(Command::Refuse)
        .then_error(|error| *error == Refused::Not(8))
        .when(Command::Name)
        .then_state(|state| state.names["k7"] == 7)
        .when(Command::Weigh(1.0))
        .then([Event::Weighed { grams: 1.0 }])
        .when(Command::Add(2))
        .then_state(|state| state.total == 10 && state.last == 2);
}

#[test]
fn an_entity_that_is_well_passes() {
    // But for an event with a map, whose order is not the same twice.
    let told = failing(|| steps(Fault::None));
    assert!(told.starts_with("`decide` is not pure: asked twice of one state, it answered differently\n  - named.v1 {"), "{told}");

    let kit = kit(Fault::StateHasHashSet)
        .when(Command::Add(3))
        .then([added(3), Event::Noted])
        .when(Command::Nothing)
        .then_nothing()
        .when(Command::Refuse)
        .then_error_eq(Refused::Not(3))
        .given([Event::Named((0..20).map(|n| (format!("k{n}"), n)).collect())])
        .when(Command::Weigh(2.0))
        .then_state(|state| state.weight == 2.0)
        .given_json(&[("foreign.v1", "{}"), ("added.v1", " 4 ")])
        .then_state(|state| state.names.len() == 20);
    assert_eq!(kit.state().total, 7);
}

#[test]
fn every_fault_is_found() {
    let weigh = |fault, grams| failing(move || drop(kit(fault).when(Command::Weigh(grams)).then([Event::Weighed { grams }])));
    let mut told = String::new();
    for (fault, text) in [
        (Fault::DecideCounts, failing(|| steps(Fault::DecideCounts))),
        (Fault::ErrorCounts, failing(|| steps(Fault::ErrorCounts))),
        (Fault::ApplyCounts, failing(|| steps(Fault::ApplyCounts))),
        (Fault::UpcastCounts, failing(|| steps(Fault::UpcastCounts))),
        (Fault::DecideAsksSkipped, failing(|| steps(Fault::DecideAsksSkipped))),
        (Fault::ApplyAsksSkipped, failing(|| steps(Fault::ApplyAsksSkipped))),
        (Fault::ApplyAsksSkippedOfEvent, failing(|| steps(Fault::ApplyAsksSkippedOfEvent))),
        (Fault::EventRounds, weigh(Fault::EventRounds, 1.25)),
        (Fault::EventIsNan, weigh(Fault::EventIsNan, f64::NAN)),
        (Fault::StateHasOddKeys, failing(|| steps(Fault::StateHasOddKeys))),
        (Fault::StateIsNan, failing(|| steps(Fault::StateIsNan))),
        (Fault::PassesOverItsOwn, failing(|| steps(Fault::PassesOverItsOwn))),
        (Fault::TagIsTooLong, failing(|| steps(Fault::TagIsTooLong))),
    ] {
        told += &format!("{fault:?}: {text}\n");
    }
    insta::assert_snapshot!(told, @r#"
    DecideCounts: `decide` is not pure: asked twice of one state, it answered differently
      - added.v2 {"by":1}
      + added.v2 {"by":2}
        noted.v1 null
    ErrorCounts: `decide` is not pure: asked twice of one state, it answered differently
      - error: not 0
      + error: not 1
    ApplyCounts: event 1, `added.v2 {"by":2}`: it does something else to the state once it was recorded and read again; a field that serde leaves out, or an `apply` that is not pure
      - {"total":2,"names":{},"weight":0.0}
      + {"total":3,"names":{},"weight":0.0}
    UpcastCounts: recorded event 3, `added.v1`: its upcast is not pure: it read as two events
      - added.v2 {"by":5}
      + added.v2 {"by":6}
    DecideAsksSkipped: `decide` answers differently of a state that was in a snapshot; does serde leave out a field, or do events come in the order of a HashMap?
      - added.v2 {"by":6}
      + added.v2 {"by":1}
    ApplyAsksSkipped: event 3, `added.v2 {"by":5}`: it does something else to a state that was in a snapshot; a field that serde leaves out, or an `apply` that is not pure
      - {"total":9,"names":{},"weight":0.0}
      + {"total":7,"names":{},"weight":0.0}
    ApplyAsksSkippedOfEvent: event 6, `added.v2 {"by":1}`: it does something else to the state once it was recorded and read again; a field that serde leaves out, or an `apply` that is not pure
      - {"total":16,"names":{},"weight":0.0}
      + {"total":8,"names":{},"weight":0.0}
    EventRounds: event 1: it does not read back as what it was; its Serialize and Deserialize don't fit (or is it the order of a HashSet?)
      - weighed.v1 {"grams":2.25}
      + weighed.v1 {"grams":3.25}
    EventIsNan: event 1: `weighed.v1 {"grams":null}`: the event was not recorded, since it could not be read again (JSON has no NaN and no infinity, for one): the payload is none of `weighed.v1`: invalid type: null, expected f64 at line 1 column 13; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast
    StateHasOddKeys: event 1, `added.v2 {"by":2}`: the state can't be written to a snapshot: key must be a string
    StateIsNan: event 1, `added.v2 {"by":2}`: the state can't be read from its snapshot: invalid type: null, expected f64 at line 1 column 35
      {"total":2,"names":{},"weight":null}
    PassesOverItsOwn: event 2: `noted.v1 null`: `noted.v1` is passed over when it is read, so it can't be recorded; take it out of `Entity::passes_over`
    TagIsTooLong: event 1: `added.v2 {"by":2}` can't be recorded: tag 0 has 129 bytes, but must have 1 to 128; shorten it
    "#);
}

#[test]
fn what_was_expected_and_what_came() {
    let none = || kit(Fault::None).given([added(2)]);
    let told = [
        failing(|| drop(none().when(Command::Add(1)).then([added(2), Event::Weighed { grams: 1.0 }, Event::Noted]))),
        failing(|| drop(none().when(Command::Note).then_nothing())),
        failing(|| drop(none().when(Command::Nothing).then([Event::Noted]))),
        failing(|| drop(none().when(Command::Refuse).then([Event::Noted]))),
        failing(|| drop(none().when(Command::Refuse).then_nothing())),
        failing(|| drop(none().when(Command::Refuse).then_state(|_| true))),
        failing(|| drop(none().when(Command::Refuse).then_error(|error| *error == Refused::Never))),
        failing(|| drop(none().when(Command::Refuse).then_error_eq(Refused::Never))),
        failing(|| drop(none().when(Command::Note).then_error(|_| true))),
        failing(|| drop(none().when(Command::Nothing).then_error_eq(Refused::Never))),
        failing(|| drop(none().then_state(|state| state.total == 3))),
        failing(|| drop(none().given_json(&[("unheard_of.v1", "{}")]))),
        failing(|| drop(none().given_json(&[("added.v1", "{}")]))),
        failing(|| drop(none().given_json(&[("added.v1", "nope")]))),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    the command led to other events (- expected, + decided)
      - added.v2 {"by":2}
      - weighed.v1 {"grams":1.0}
      + added.v2 {"by":1}
        noted.v1 null
    the command led to other events (- expected, + decided)
      + noted.v1 null
    the command led to other events (- expected, + decided)
      - noted.v1 null
    the command was refused: not 2
    expected was
        noted.v1 null
    the command was refused: not 2
    expected was
        no event
    the command was refused: not 2
    the command was refused with another error: not 2
    the command was refused with another error (- expected, + found)
      - Never
      + Not(2)
    the command was not refused, and led to
        noted.v1 null
    an error was expected
    the command was not refused, and led to
        no event
    expected was the error: never
    `then_state` does not hold for the state {"total":2,"names":{},"weight":0.0}
    recorded event 2, `unheard_of.v1`: `lab` has no event `unheard_of.v1`; give its events a variant of that name, register an upcast, or have `Entity::passes_over` say that it is none of its own
    recorded event 2, `added.v1`: the upcast from `added.v1` to `added.v2` failed: no number; let it take every payload that was recorded as `added.v1`
    recorded event 2, `added.v1`: the payload is not valid JSON: expected ident at line 1 column 2; quote plain text as a JSON string
    "#);
}

#[test]
fn a_table_names_every_case_that_fails() {
    fn case(name: &'static str, when: Command, then: Then<Lab>) -> Case<Lab> {
        Case { name, given: vec![added(2)], when, then }
    }
    cases(
        Lab::new(Fault::None),
        [
            case("adds", Command::Add(1), Then::events([added(1), Event::Noted])),
            case("does nothing", Command::Nothing, Then::nothing()),
            case("refuses", Command::Refuse, Then::error(|error| *error == Refused::Not(2))),
            case("refuses with this", Command::Refuse, Then::error_eq(Refused::Not(2))),
            case("adds up", Command::Add(1), Then::state(|state: &State| state.total == 3)),
        ],
    );
    let told = failing(|| {
        let all = [
            case("passes", Command::Nothing, Then::nothing()),
            case("adds another", Command::Add(1), Then::events([added(2), Event::Noted])),
            case("panics", Command::Panic, Then::nothing()),
            case("other error", Command::Refuse, Then::error_eq(Refused::Never)),
            case("other state", Command::Note, Then::state(|state: &State| state.total == 3)),
        ];
        cases(Lab::new(Fault::None), all);
    });
    insta::assert_snapshot!(told, @r#"
    4 of 5 cases failed
    `adds another`
        the command led to other events (- expected, + decided)
          - added.v2 {"by":2}
          + added.v2 {"by":1}
            noted.v1 null
    `panics`
        it panicked: at total 2
    `other error`
        the command was refused with another error (- expected, + found)
          - Never
          + Not(2)
    `other state`
        the state is another one: {"total":2,"names":{},"weight":0.0}
    "#);
    assert_eq!(failing(|| cases(Lab::new(Fault::None), [])), "there is no case");
}

#[test]
fn an_entity_without_a_codec_is_refused() {
    struct Circle;
    impl Entity for Circle {
        type State = u64;
        type Command = ();
        type Event = Event;
        type Error = Refused;
        const NAME: &'static str = "circle";
        const STATE_VERSION: u32 = 1;
        fn decide(&self, _: &u64, (): &()) -> Result<Vec<Event>, Refused> {
            Ok(Vec::new())
        }
        fn apply(&self, _: &mut u64, _: &Event) {}
        fn upcasts(&self) -> Upcasts {
            Upcasts::none().upcast("a.v1", "a.v2", Ok).upcast("a.v2", "a.v1", Ok)
        }
    }
    let told = failing(|| drop(Kit::of(Circle)));
    assert!(told.contains("lead round in a circle"), "{told}");
}
