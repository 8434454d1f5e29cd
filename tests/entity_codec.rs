//! Goal: an event of an entity, whatever is in it, is recorded under its own type and reads back as exactly what it was; what can't be
//! recorded, or not be read, is refused with what to do about it.
//!
//! Method: proptest over a rich enum (nested maps, floats to the last bit, integers of 128 bits, raw JSON, all of Unicode, variants of
//! every shape) through a real store: the line's payload must have the draft's bytes, and reading it gives an event that encodes to
//! them again and is equal. Then the errors, as snapshots. COUNTERFOIL_ENTITY_CODEC_ROUNDS says how many events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use common::*;
use counterfoil::entity::{Codec, CodecError, Entity, Upcasts, command_id, command_tag};
use counterfoil::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<String>,
    float: f64,
    single: f32,
    huge: u128,
    least: i128,
    deep: BTreeMap<String, Vec<Nested>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    Unit,
    Float(f64),
    Text(String),
    Map(BTreeMap<String, Nested>),
    Pair(u64, Option<bool>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Rich {
    #[serde(rename = "unit.v1")]
    Unit,
    #[serde(rename = "nothing.v1")]
    Nothing(Option<u8>),
    #[serde(rename = "empty.v1")]
    Empty {},
    #[serde(rename = "text.v1")]
    Text(String),
    #[serde(rename = "pair.v1")]
    Pair(f64, i128),
    #[serde(rename = "inner.v1")]
    Inner(Box<Inner>),
    // Keys and a tag that are named as the parts of an event are.
    #[serde(rename = "fields.v1")]
    Fields { event_type: String, payload: BTreeMap<String, u128>, list: Vec<()> },
    #[serde(rename = "raw.v1")]
    Raw { raw: Box<RawValue> },
}

/// Equality of all that has it, bit by bit for floats.
fn text(event: &Rich) -> String {
    let bits = |float: f64| format!("{:x}", float.to_bits());
    match event {
        Rich::Pair(float, _) => format!("{event:?} {}", bits(*float)),
        Rich::Inner(inner) => format!("{event:?} {} {:x}", bits(inner.float), inner.single.to_bits()),
        _ => format!("{event:?}"),
    }
}

struct Store2;

macro_rules! bare_entity {
    ($entity:ty, $event:ty, $name:literal $(, $more:item)* $(,)?) => {
        impl Entity for $entity {
            type State = ();
            type Command = ();
            type Event = $event;
            type Error = Infallible;
            const NAME: &'static str = $name;
            const STATE_VERSION: u32 = 1;
            fn decide(&self, (): &(), (): &()) -> Result<Vec<$event>, Infallible> {
                Ok(Vec::new())
            }
            fn apply(&self, (): &mut (), _: &$event) {}
            $($more)*
        }
    };
}

bare_entity!(Store2, Rich, "rich");

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), any::<f64>(), Just(-0.0), Just(5e-324), Just(f64::MAX), Just(0.1 + 0.2)]
        .prop_filter("JSON has no such number", |float| float.is_finite())
}

fn any_text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec!['"', '\\', '\u{0}', '\n', '\r', '\u{1f}', '\u{7f}', '\u{2028}', '\u{feff}', '{', '\u{10ffff}']);
    prop::collection::vec(prop_oneof![odd, any::<char>()], 0..20).prop_map(|chars| chars.into_iter().collect())
}

fn nested() -> impl Strategy<Value = Nested> {
    let leaf = prop_oneof![
        Just(Nested::Unit),
        any_float().prop_map(Nested::Float),
        any_text().prop_map(Nested::Text),
        (any::<u64>(), any::<Option<bool>>()).prop_map(|(number, maybe)| Nested::Pair(number, maybe)),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| prop::collection::btree_map(any_text(), inner, 0..4).prop_map(Nested::Map))
}

fn inner() -> impl Strategy<Value = Inner> {
    let single = any::<f32>().prop_filter("JSON has no such number", |float| float.is_finite());
    let deep = prop::collection::btree_map(any_text(), prop::collection::vec(nested(), 0..3), 0..3);
    (prop::option::of(any_text()), any_float(), single, any::<u128>(), any::<i128>(), deep)
        .prop_map(|(maybe, float, single, huge, least, deep)| Inner { maybe, float, single, huge, least, deep })
}

fn event() -> impl Strategy<Value = Rich> {
    let raw = prop::sample::select(vec![
        "1.0",
        "1e400",
        "{ \"k\" : 1,\"k\":2}",
        "\"\\ud800\"",
        "123456789012345678901234567890123456789012",
        "-0",
    ]);
    prop_oneof![
        Just(Rich::Unit),
        any::<Option<u8>>().prop_map(Rich::Nothing),
        Just(Rich::Empty {}),
        any_text().prop_map(Rich::Text),
        (any_float(), any::<i128>()).prop_map(|(float, number)| Rich::Pair(float, number)),
        inner().prop_map(|inner| Rich::Inner(Box::new(inner))),
        (any_text(), prop::collection::btree_map(any_text(), any::<u128>(), 0..4), 0..3_usize)
            .prop_map(|(event_type, payload, units)| Rich::Fields { event_type, payload, list: vec![(); units] }),
        raw.prop_map(|raw| Rich::Raw { raw: RawValue::from_string(raw.to_owned()).unwrap() }),
    ]
}

#[test]
fn every_event_reads_back_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    disk::without_sync(&mut options);
    let store = RefCell::new(Store::open(temp.path().join("store"), &options).unwrap().0);
    let codec = Codec::new(&Store2).unwrap();
    let config = Config { cases: campaign("COUNTERFOIL_ENTITY_CODEC_ROUNDS", 512) as u32, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]))
        .run(&event(), |event| {
            let (event_type, payload) = codec.encode(&event).unwrap();
            let draft = codec.draft(&Store2, "s-1", Some("k"), false, &event).unwrap();
            prop_assert_eq!((draft.event_type(), draft.payload_bytes()), (&event_type, payload.as_str()));
            let mut store = store.borrow_mut();
            let receipt = store.append(draft.clone()).unwrap();
            let line = store.reader().unwrap().line(receipt.seq).unwrap().expect("the line is there");
            let recorded = line::decode(&line).unwrap();
            prop_assert_eq!(recorded.payload(), Some(payload.as_str()), "the line has the payload's bytes");
            let read = codec.decode(recorded.event_type, recorded.payload().unwrap()).unwrap();
            prop_assert_eq!(text(&read), text(&event));
            prop_assert_eq!(&codec.encode(&read).unwrap(), &(event_type, payload));
            prop_assert_eq!(text(&codec.read_back(&Store2, &draft).unwrap()), text(&event));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn variants_of_every_shape() {
    let codec = Codec::new(&Store2).unwrap();
    let fields = Rich::Fields { event_type: "x".to_owned(), payload: BTreeMap::from([("a".to_owned(), u128::MAX)]), list: vec![()] };
    for (event, name, json) in [
        (Rich::Unit, "unit.v1", "null"),
        (Rich::Nothing(None), "nothing.v1", "null"),
        (Rich::Nothing(Some(7)), "nothing.v1", "7"),
        (Rich::Empty {}, "empty.v1", "{}"),
        (Rich::Text("é\n".to_owned()), "text.v1", "\"é\\n\""),
        (Rich::Pair(-0.0, i128::MIN), "pair.v1", "[-0.0,-170141183460469231731687303715884105728]"),
        (fields, "fields.v1", r#"{"event_type":"x","payload":{"a":340282366920938463463374607431768211455},"list":[null]}"#),
    ] {
        let (event_type, payload) = codec.encode(&event).unwrap();
        assert_eq!((event_type.as_str(), payload.as_str()), (name, json));
        assert_eq!(text(&codec.decode(name, json).unwrap()), text(&event));
    }
    // As others may have written it: white space, keys that the variant does not know.
    assert_eq!(text(&codec.decode("empty.v1", "{ \"later\" : 1 }").unwrap()), "Empty");
    assert_eq!(text(&codec.decode("text.v1", " \"a\" ").unwrap()), "Text(\"a\")");
    assert!(codec.decode("text.v1", "\"a\" 1").is_err(), "two values are no payload");
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Odd {
    #[serde(rename = "amount.v2")]
    Amount {
        cents: u64,
    },
    #[serde(rename = "amount.v1")]
    Outdated,
    Unnamed,
    #[serde(rename = "counterfoil.erasure.v1")]
    Reserved,
    #[serde(rename = "map.v1")]
    Map(BTreeMap<(u8, u8), u8>),
    #[serde(rename = "float.v1")]
    Float(f64),
}

struct Odds;
bare_entity!(
    Odds,
    Odd,
    "odds",
    fn upcasts(&self) -> Upcasts {
        let cents = |payload: serde_json::Value| {
            let euros = payload["euros"].as_u64().ok_or("`euros` is no number")?;
            Ok(serde_json::json!({"cents": 100 * euros}))
        };
        Upcasts::none().upcast("amount.v1", "amount.v2", cents).upcast("gone.v1", "gone.v2", Ok)
    },
    fn passes_over(&self, event_type: &str) -> bool {
        event_type == "map.v1"
    }
);

#[derive(Serialize, Deserialize)]
enum External {
    #[serde(rename = "external.v1")]
    Variant(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", content = "payload")]
enum OtherTag {
    #[serde(rename = "other.v1")]
    Variant(u8),
}

struct Externals;
bare_entity!(Externals, External, "externals");
struct OtherTags;
bare_entity!(OtherTags, OtherTag, "other_tags");
struct Nameless;
bare_entity!(Nameless, Rich, "");

fn said<T>(result: Result<T, CodecError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_is_refused_says_what_to_do() {
    let odds = Codec::new(&Odds).unwrap();
    assert!(matches!(odds.decode("amount.v1", "{\"euros\":3}").unwrap(), Odd::Amount { cents: 300 }));
    let number = "123456789012345678901234567890";
    let refused = [
        said(Codec::new(&Nameless)),
        said(Codec::new(&Externals).unwrap().encode(&External::Variant(1))),
        said(Codec::new(&Externals).unwrap().decode("external.v1", "1")),
        said(Codec::new(&OtherTags).unwrap().encode(&OtherTag::Variant(1))),
        said(odds.encode(&Odd::Unnamed)),
        said(odds.encode(&Odd::Reserved)),
        said(odds.encode(&Odd::Map(BTreeMap::from([((1, 2), 3)])))),
        said(odds.encode(&Odd::Outdated)),
        said(odds.decode("unheard_of.v1", "{}")),
        said(odds.decode("gone.v1", "{}")),
        said(odds.decode("amount.v2", "{\"cents\":\"3\"}")),
        said(odds.decode("amount.v1", "{}")),
        said(odds.decode("amount.v1", &format!("{{\"euros\":{number}}}"))),
    ];
    insta::assert_snapshot!(refused.join("\n"), @r#"
    `` is no name of an entity: `Entity::NAME` must have 1 to 128 bytes and no control characters
    events must be a type and a payload, and these are not: unknown field `external.v1`, expected `event_type` or `payload` at line 1 column 14; derive Serialize and Deserialize on their enum, with `#[serde(tag = "event_type", content = "payload")]`
    events must be a type and a payload, and these are not: invalid type: map, expected enum External; derive Serialize and Deserialize on their enum, with `#[serde(tag = "event_type", content = "payload")]`
    events must be a type and a payload, and these are not: unknown field `type`, expected `event_type` or `payload` at line 1 column 7; derive Serialize and Deserialize on their enum, with `#[serde(tag = "event_type", content = "payload")]`
    the event's variant has no name that can be recorded: `Unnamed` is no event type: write lower-case words and a version joined by dots, as in `tool_call.v1`, at most 128 bytes; rename it as in `#[serde(rename = "deposited.v1")]`
    the event's variant has no name that can be recorded: `counterfoil.erasure.v1` is reserved: types that begin with `counterfoil.` are written by the ledger itself; choose another first word; rename it as in `#[serde(rename = "deposited.v1")]`
    the event could not be turned into JSON: key must be a string; maps need strings for keys
    `amount.v1` is upcast to `amount.v2` when it is read, so it must not be written any more; decide on `amount.v2` instead
    `odds` has no event `unheard_of.v1`; give its events a variant of that name, register an upcast, or have `Entity::passes_over` say that it is none of its own
    `odds` has no event `gone.v2`; give its events a variant of that name, register an upcast, or have `Entity::passes_over` say that it is none of its own
    the payload is none of `amount.v2`: invalid type: string "3", expected u64 at line 1 column 12; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast
    the upcast from `amount.v1` to `amount.v2` failed: `euros` is no number; let it take every payload that was recorded as `amount.v1`
    the upcast from `amount.v1` would change the number 123456789012345678901234567890, which 64 bits don't hold; give `amount.v1` a variant instead
    "#);
}

#[test]
fn what_could_not_be_read_again_is_not_recorded() {
    let odds = Codec::new(&Odds).unwrap();
    // JSON has no NaN: serde_json writes null, which is no f64.
    let draft = odds.draft(&Odds, "s-1", None, true, &Odd::Float(f64::NAN)).unwrap();
    let unreadable = said(odds.read_back(&Odds, &draft));
    let draft = odds.draft(&Odds, "s-1", None, true, &Odd::Map(BTreeMap::new())).unwrap();
    let passed_over = said(odds.read_back(&Odds, &draft));
    // A redactor makes a text of the number.
    let draft =
        odds.draft(&Odds, "s-1", None, true, &Odd::Amount { cents: 5 }).unwrap().payload_json("{\"cents\":\"[redacted]\"}").unwrap();
    let redacted = said(odds.read_back(&Odds, &draft));
    insta::assert_snapshot!([unreadable, passed_over, redacted].join("\n"), @r#"
    the event was not recorded, since it could not be read again (JSON has no NaN and no infinity, for one): the payload is none of `float.v1`: invalid type: null, expected f64 at line 1 column 4; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast
    `map.v1` is passed over when it is read, so it can't be recorded; take it out of `Entity::passes_over`
    the event was not recorded, since it could not be read again (JSON has no NaN and no infinity, for one): the payload is none of `amount.v2`: invalid type: string "[redacted]", expected u64 at line 1 column 21; let the variant take it (`#[serde(default)]` for fields that came later), or give what has changed a new version and an upcast
    "#);
}

/// An entity whose `draft` tries to change what it may not.
struct Meddling;
bare_entity!(
    Meddling,
    Rich,
    "meddling",
    fn draft(&self, _: &Rich, draft: Draft) -> Draft {
        Draft::new(EventType::SYSTEM_NOTE, Source::User)
            .session("another")
            .id(id(1))
            .tag("own")
            .payload_json(draft.payload_bytes())
            .unwrap()
    }
);

#[test]
fn drafts_have_what_their_command_needs() {
    let codec = Codec::new(&Store2).unwrap();
    let first = codec.draft(&Store2, "s-1", Some("k-1"), true, &Rich::Unit).unwrap();
    assert_eq!(first.given_id(), Some(command_id("s-1", "k-1")));
    assert_eq!((first.session_id(), first.tags()), (Some("s-1"), &[command_tag("k-1")][..]));
    let second = codec.draft(&Store2, "s-1", Some("k-1"), false, &Rich::Unit).unwrap();
    assert_eq!((second.given_id(), second.tags()), (None, &[command_tag("k-1")][..]));
    let plain = codec.draft(&Store2, "s-1", None, true, &Rich::Unit).unwrap();
    assert_eq!((plain.given_id(), plain.tags(), plain.source()), (None, &[][..], &Source::Runtime));

    let codec = Codec::new(&Meddling).unwrap();
    let draft = codec.draft(&Meddling, "s-1", Some("k-1"), true, &Rich::Unit).unwrap();
    assert_eq!((draft.given_id(), draft.session_id()), (Some(command_id("s-1", "k-1")), Some("s-1")));
    assert_eq!(draft.tags(), ["own".to_owned(), command_tag("k-1")]);
    assert_eq!(draft.source(), &Source::User, "the rest is the entity's to say");
    assert_eq!(draft.event_type().as_str(), "unit.v1", "but not what the event is");
}
