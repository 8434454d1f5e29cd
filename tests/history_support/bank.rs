//! The account of the histories: an entity whose state tells events that were left out, doubled or swapped, whose events tell the
//! state that they were decided on, and whose two versions make something else of the same events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::{Entities, EntityError, EntityOptions, Outcome};
use counterfoil::entity::{Entity, Upcasts};
use counterfoil::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How often what was done, in all histories of the process.
pub static SNAPSHOTS_TAKEN: AtomicU64 = AtomicU64::new(0);
pub static SNAPSHOTS_USED: AtomicU64 = AtomicU64::new(0);
pub static UPCASTS: AtomicU64 = AtomicU64::new(0);

/// Types that stand in the streams and are none of an account's.
pub const PASSED_OVER: [&str; 2] = ["system_note.v1", "tool_call.v1"];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub cents: i64,
    /// Of all events and their order.
    pub digest: u64,
    /// What each version counts differently.
    pub scaled: i64,
    #[serde(serialize_with = "taken", deserialize_with = "used")]
    pub events: u64,
}

fn taken<S: Serializer>(events: &u64, to: S) -> Result<S::Ok, S::Error> {
    SNAPSHOTS_TAKEN.fetch_add(1, Relaxed);
    events.serialize(to)
}

fn used<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    SNAPSHOTS_USED.fetch_add(1, Relaxed);
    u64::deserialize(from)
}

/// The digest with one more text behind it. 53 bits, so that every reader of JSON keeps it.
pub fn mix(digest: u64, text: &str) -> u64 {
    let mixed = text.bytes().fold(digest ^ 0x1234_5678_9abc, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (mixed ^ (mixed >> 29)) & ((1 << 53) - 1)
}

/// A command, by its number in the history.
#[derive(Clone, Debug)]
pub struct Command {
    pub by: u64,
    pub what: What,
    pub decided: Arc<AtomicU64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    PayIn {
        cents: i64,
        memo: String,
    },
    PayOut {
        cents: i64,
    },
    /// All that there is.
    PayOutAll,
    /// Three events.
    Split {
        cents: i64,
        memo: String,
    },
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
pub enum Event {
    #[serde(rename = "paid_in.v3")]
    PaidIn { by: u64, cents: i64, memo: String, seen: Option<u64> },
    #[serde(rename = "paid_out.v1")]
    PaidOut { by: u64, cents: i64, seen: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the account has {cents} cents only (at {seen})")]
pub struct Short {
    pub cents: i64,
    pub seen: u64,
}

pub struct Account<const VERSION: u32>;

impl<const VERSION: u32> Entity for Account<VERSION> {
    type State = State;
    type Command = Command;
    type Event = Event;
    type Error = Short;
    const NAME: &'static str = "account";
    const STATE_VERSION: u32 = VERSION;

    fn decide(&self, state: &State, command: &Command) -> Result<Vec<Event>, Short> {
        command.decided.fetch_add(1, Relaxed);
        let (by, seen) = (command.by, Some(state.digest));
        let short = |cents: i64| if cents > state.cents { Err(Short { cents: state.cents, seen: state.digest }) } else { Ok(()) };
        let paid_in = |cents, memo: &str| Event::PaidIn { by, cents, memo: memo.to_owned(), seen };
        match &command.what {
            What::PayIn { cents, memo } => Ok(vec![paid_in(*cents, memo)]),
            What::PayOut { cents } => short(*cents).map(|()| vec![Event::PaidOut { by, cents: *cents, seen }]),
            What::PayOutAll => short(1).map(|()| vec![Event::PaidOut { by, cents: state.cents, seen }]),
            What::Split { cents, memo } => {
                short(*cents)?;
                Ok(vec![Event::PaidOut { by, cents: *cents, seen }, paid_in(1, memo), paid_in(cents - 1, "the rest")])
            }
            What::Nothing => Ok(Vec::new()),
        }
    }

    fn apply(&self, state: &mut State, event: &Event) {
        let (cents, text) = match event {
            Event::PaidIn { cents, memo, .. } => (*cents, format!("in {cents} {memo}")),
            Event::PaidOut { cents, .. } => (-cents, format!("out {cents}")),
        };
        state.cents += cents;
        state.scaled += cents * i64::from(VERSION);
        state.digest = mix(state.digest, &text);
        state.events += 1;
    }

    fn upcasts(&self) -> Upcasts {
        let first = |euros: serde_json::Value| {
            UPCASTS.fetch_add(1, Relaxed);
            Ok(serde_json::json!({"cents": 100 * euros.as_i64().ok_or("no number")?, "memo": "v1"}))
        };
        let second = |mut payload: serde_json::Value| {
            UPCASTS.fetch_add(1, Relaxed);
            let object = payload.as_object_mut().ok_or("no object")?;
            object.entry("memo").or_insert("v2".into());
            object.insert("by".into(), 0.into());
            Ok(payload)
        };
        Upcasts::none().upcast("paid_in.v2", "paid_in.v3", second).upcast("paid_in.v1", "paid_in.v2", first)
    }

    fn draft(&self, _: &Event, draft: Draft) -> Draft {
        draft.tag("bank")
    }

    fn passes_over(&self, event_type: &str) -> bool {
        PASSED_OVER.contains(&event_type)
    }

    fn apply_erased(&self, state: &mut State, event: &EventRecord) -> bool {
        state.digest = mix(state.digest, &format!("erased {}", event.event_type));
        state.scaled -= i64::from(VERSION);
        state.events += 1;
        true
    }
}

/// The accounts of a store, in one of the two versions.
#[derive(Clone)]
pub enum Bank {
    One(Entities<Account<1>>),
    Two(Entities<Account<2>>),
}

macro_rules! each {
    ($bank:expr, $accounts:ident => $run:expr) => {
        match $bank {
            Bank::One($accounts) => $run,
            Bank::Two($accounts) => $run,
        }
    };
}

impl Bank {
    pub async fn open(ledger: &Ledger, version: u32, options: EntityOptions) -> Result<Bank, EntityError<Short>> {
        match version {
            1 => ledger.entities(Account, options).await.map(Bank::One),
            _ => ledger.entities(Account, options).await.map(Bank::Two),
        }
    }

    pub async fn send(&self, stream: &str, key: Option<&str>, command: Command) -> Result<Outcome<Event>, EntityError<Short>> {
        match key {
            Some(key) => each!(self, accounts => accounts.send_keyed(stream, key, command).await),
            None => each!(self, accounts => accounts.send(stream, command).await),
        }
    }

    pub async fn read(&self, stream: &str) -> Result<State, EntityError<Short>> {
        each!(self, accounts => accounts.read(stream, State::clone).await)
    }

    pub async fn position(&self, stream: &str) -> Result<u64, EntityError<Short>> {
        each!(self, accounts => accounts.position(stream).await)
    }

    pub fn passivate(&self, stream: &str) {
        each!(self, accounts => drop(accounts.passivate(stream)));
    }

    pub fn kill(&self, stream: &str) {
        each!(self, accounts => drop(accounts.actor(stream).inspect(|actor| actor.kill())));
    }

    pub async fn close(self) {
        each!(self, accounts => accounts.close().await);
    }
}
