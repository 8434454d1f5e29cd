//! Goal: a stream that an entity can't fold ends in an error that names the event and what to do, the same each time; what can be
//! folded gives the state of a plain loop, over payloads in the line and erased.
//!
//! Method: streams in real stores with an event of every bad kind; `fold` and `Folded::absorb` over them, the texts as snapshots.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::PathBuf;

use common::*;
use counterfoil::entity::{Codec, Entity, EntityReadError, Folded, PoisonEvent, PoisonProblem, Upcasts, fold};
use counterfoil::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Event {
    #[serde(rename = "added.v1")]
    Added(u64),
    #[serde(rename = "said.v1")]
    Said { text: String },
    #[serde(rename = "fatal.v1")]
    Fatal { literal: bool },
}

#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct State {
    total: u64,
    bytes: usize,
    erased: u64,
}

/// Sums, and answers for erased texts if it is told to.
struct Sum {
    answers_erased: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no")]
struct No;

impl Entity for Sum {
    type State = State;
    type Command = ();
    type Event = Event;
    type Error = No;
    const NAME: &'static str = "sum";
    const STATE_VERSION: u32 = 1;
    fn decide(&self, _: &State, (): &()) -> Result<Vec<Event>, No> {
        Err(No)
    }
    fn apply(&self, state: &mut State, event: &Event) {
        match event {
            Event::Added(by) => state.total += by,
            Event::Said { text } => state.bytes += text.len(),
            Event::Fatal { literal: true } => panic!("a literal"),
            Event::Fatal { literal: false } => panic!("a total of {}", state.total),
        }
    }
    fn upcasts(&self) -> Upcasts {
        Upcasts::none().upcast("added.v0_old.v1", "added.v1", |value| value.as_u64().map(Into::into).ok_or("no number".to_owned())).upcast(
            "panics.v1",
            "added.v1",
            |value| panic!("an upcast of {value}"),
        )
    }
    fn passes_over(&self, event_type: &str) -> bool {
        assert_ne!(event_type, "asked.v1", "who asks?");
        event_type == "system_note.v1"
    }
    fn apply_erased(&self, state: &mut State, event: &EventRecord) -> bool {
        assert_ne!(event.event_type, "panics.v1", "erased as well");
        state.erased += 1;
        self.answers_erased
    }
}

const PLAIN: Sum = Sum { answers_erased: false };
const ANSWERING: Sum = Sum { answers_erased: true };

struct World {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    options: Options,
}

/// A closed store with these events, each in the stream that stands before it.
fn world(events: &[(&str, &str, &str)]) -> World {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    let mut store = Store::open(&dir, &options).unwrap().0;
    for (stream, name, json) in events {
        let event_type = EventType::new(*name).unwrap();
        store.append(Draft::new(event_type, Source::Runtime).session(*stream).payload_json(*json).unwrap()).unwrap();
    }
    store.close().unwrap();
    World { _temp: temp, dir, options }
}

impl World {
    fn reader(&self) -> StreamReader {
        StreamReader::open(&self.dir, &self.options).unwrap()
    }

    fn fold(&self, entity: &Sum, stream: &str) -> Result<Folded<Sum>, EntityReadError> {
        fold(entity, &mut self.reader(), stream, Seq::MAX)
    }

    fn poison(&self, stream: &str) -> PoisonEvent {
        let (Err(EntityReadError::Poison(first)), Err(EntityReadError::Poison(again))) =
            (self.fold(&PLAIN, stream), self.fold(&PLAIN, stream))
        else {
            panic!("`{stream}` can be folded")
        };
        assert_eq!(first.to_string(), again.clone().to_string());
        first
    }
}

#[test]
fn a_fold_is_a_plain_loop() {
    let mut events =
        vec![("s", "added.v1", "3"), ("other", "added.v1", "100"), ("s", "system_note.v1", "[]"), ("s", "added.v0_old.v1", "4")];
    events.extend(std::iter::repeat_n(("s", "added.v1", "1"), 600));
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(5000));
    events.push(("s", "said.v1", &long));
    let world = world(&events);
    let folded = world.fold(&PLAIN, "s").unwrap();
    assert_eq!((folded.state, folded.position), (State { total: 607, bytes: 5000, erased: 0 }, 604));
    let head = LedgerReader::open(&world.dir, &world.options).unwrap().head().unwrap();
    assert_eq!((folded.seq, folded.event_hash), (head.seq, head.event_hash));

    // In part, and on from there.
    let (mut reader, codec) = (world.reader(), Codec::new(&PLAIN).unwrap());
    let mut folded: Folded<Sum> = fold(&PLAIN, &mut reader, "s", Seq::new(4)).unwrap();
    assert_eq!((folded.state.total, folded.position, folded.seq), (7, 3, Seq::new(4)));
    folded.catch_up(&PLAIN, &codec, &mut reader, "s", Seq::MAX).unwrap();
    assert_eq!((folded.state.total, folded.position, folded.event_hash), (607, 604, head.event_hash));

    let none = world.fold(&PLAIN, "nobody").unwrap();
    assert_eq!((none.state, none.position, none.seq), (State::default(), 0, Seq::ZERO));
}

#[test]
fn each_bad_event_is_named() {
    let world = world(&[
        ("good first", "added.v1", "1"),
        ("good first", "added.v1", "\"one\""),
        ("good first", "added.v1", "1"),
        ("unknown", "unheard_of.v3", "{}"),
        ("fatal", "added.v1", "5"),
        ("fatal", "fatal.v1", "{\"literal\":false}"),
        ("fatal literal", "fatal.v1", "{\"literal\":true}"),
        ("upcast", "added.v0_old.v1", "[]"),
        ("panics", "panics.v1", "7"),
        ("asked", "asked.v1", "7"),
    ]);
    let told: Vec<String> = ["good first", "unknown", "fatal", "fatal literal", "upcast", "panics", "asked"]
        .map(|stream| world.poison(stream))
        .iter()
        .map(ToString::to_string)
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    event 2 of stream `good first` (seq 2, evt_01M860XD320000000000000003, `added.v1`) can't be folded: the payload is none of `added.v1`: invalid type: string "one", expected u64 at line 1 column 5; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast
    event 1 of stream `unknown` (seq 4, evt_01M860XD340000000000000005, `unheard_of.v3`) can't be folded: `sum` has no event `unheard_of.v3`; give its events a variant of that name, register an upcast, or have `Entity::passes_over` say that it is none of its own
    event 2 of stream `fatal` (seq 6, evt_01M860XD360000000000000007, `fatal.v1`) can't be folded: `apply` panicked: a total of 5; mend it so that it takes every event that has happened
    event 1 of stream `fatal literal` (seq 7, evt_01M860XD370000000000000008, `fatal.v1`) can't be folded: `apply` panicked: a literal; mend it so that it takes every event that has happened
    event 1 of stream `upcast` (seq 8, evt_01M860XD380000000000000009, `added.v0_old.v1`) can't be folded: the upcast from `added.v0_old.v1` to `added.v1` failed: no number; let it take every payload that was recorded as `added.v0_old.v1`
    event 1 of stream `panics` (seq 9, evt_01M860XD39000000000000000A, `panics.v1`) can't be folded: `decode` panicked: an upcast of 7; mend it so that it takes every event that has happened
    event 1 of stream `asked` (seq 10, evt_01M860XD3A000000000000000B, `asked.v1`) can't be folded: `passes_over` panicked: assertion `left != right` failed: who asks?
      left: "asked.v1"
     right: "asked.v1"; mend it so that it takes every event that has happened
    "#);
    let poison = world.poison("fatal");
    assert_eq!(
        (poison.session_id.as_str(), poison.session_seq, poison.seq, poison.event_type.as_str()),
        ("fatal", 2, Seq::new(6), "fatal.v1")
    );
    assert!(matches!(&poison.problem, PoisonProblem::Panicked { part: "apply", message } if message == "a total of 5"));
    let source = std::error::Error::source(&poison).unwrap();
    assert_eq!(source.to_string(), poison.problem.to_string());
}

#[test]
fn erased_payloads_are_the_entitys_to_answer() {
    let world =
        world(&[("s", "added.v1", "1"), ("s", "said.v1", "{\"text\":\"secret\"}"), ("s", "added.v1", "2"), ("p", "panics.v1", "3")]);
    let erased = [2, 4].map(|seq| Seq::new(seq)..=Seq::new(seq));
    erase(&world.dir, &world.options, &Erasure::new(Erase::Seqs(erased.into()), "ticket 7")).unwrap();
    let folded = world.fold(&ANSWERING, "s").unwrap();
    assert_eq!((folded.state, folded.position), (State { total: 3, bytes: 0, erased: 1 }, 3));
    let (refused, panicked) = (world.poison("s"), world.poison("p"));
    assert!(matches!(refused.problem, PoisonProblem::Erased));
    insta::assert_snapshot!(format!("{refused}\n{panicked}"), @r#"
    event 2 of stream `s` (seq 2, evt_01M860XD320000000000000003, `said.v1`) can't be folded: its payload was erased; have `Entity::apply_erased` apply what is known without it
    event 1 of stream `p` (seq 4, evt_01M860XD340000000000000005, `panics.v1`) can't be folded: `apply_erased` panicked: assertion `left != right` failed: erased as well
      left: "panics.v1"
     right: "panics.v1"; mend it so that it takes every event that has happened
    "#);
}

#[test]
fn gaps_are_no_state() {
    let world = world(&[("s", "added.v1", "1"), ("s", "added.v1", "2"), ("s", "added.v1", "3")]);
    let events: Vec<EventRecord> = world.reader().events(StreamQuery::new("s"), Seq::MAX).map(Result::unwrap).collect();
    let codec = Codec::new(&PLAIN).unwrap();
    let absorb = |folded: &mut Folded<Sum>, at: usize| {
        let payload = events[at].payload.as_deref().unwrap().get();
        folded.absorb(&PLAIN, &codec, &events[at], Some(payload))
    };
    let mut folded = Folded::default();
    absorb(&mut folded, 0).unwrap();
    let twice = absorb(&mut folded, 0).unwrap_err();
    let gap = absorb(&mut folded, 2).unwrap_err();
    assert_eq!((folded.state.total, folded.position), (1, 1), "neither was applied");
    absorb(&mut folded, 1).unwrap();
    absorb(&mut folded, 2).unwrap();
    assert_eq!((folded.state.total, folded.position), (6, 3));
    insta::assert_snapshot!(format!("{twice}\n{gap}"), @r#"
    event 1 of stream `s` (seq 1, evt_01M860XD310000000000000002, `added.v1`) can't be folded: event 2 of its stream should come here; run `counterfoil verify` and `counterfoil parity --full` on the store
    event 3 of stream `s` (seq 3, evt_01M860XD330000000000000004, `added.v1`) can't be folded: event 2 of its stream should come here; run `counterfoil verify` and `counterfoil parity --full` on the store
    "#);
}

#[test]
fn what_was_appended_is_applied_as_it_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = options();
    let mut store = Store::open(&dir, &options).unwrap().0;
    let codec = Codec::new(&PLAIN).unwrap();
    let mut folded: Folded<Sum> = Folded::default();
    for (at, event) in [Event::Added(4), Event::Added(5), Event::Fatal { literal: false }].iter().enumerate() {
        let draft = codec.draft(&PLAIN, "s", None, false, event).unwrap();
        let (name, read) = (draft.event_type().to_string(), codec.read_back(&PLAIN, &draft).unwrap());
        let receipt = store.append(draft).unwrap();
        let applied = folded.appended(&PLAIN, "s", &name, &read, &receipt);
        if at < 2 {
            applied.unwrap();
            assert_eq!((folded.position, folded.seq, folded.event_hash), (at as u64 + 1, receipt.seq, receipt.event_hash));
            let gap = folded.appended(&PLAIN, "s", &name, &read, &receipt).unwrap_err();
            assert!(matches!(gap.problem, PoisonProblem::Gap { expected } if expected == at as u64 + 2));
        } else {
            let poison = applied.unwrap_err();
            assert_eq!((poison.session_seq, poison.seq, poison.id), (3, receipt.seq, receipt.id));
            store.close().unwrap();
            let mut reader = StreamReader::open(&dir, &options).unwrap();
            let Err(EntityReadError::Poison(read)) = fold(&PLAIN, &mut reader, "s", Seq::MAX) else { panic!() };
            assert_eq!(read.to_string(), poison.to_string(), "a fold says the same");
            return;
        }
    }
}
