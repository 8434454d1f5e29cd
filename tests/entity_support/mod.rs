//! An account, as an entity: what the tests of entities send commands to.
#![allow(dead_code, unused_imports)] // each test uses some of it

#[path = "../common/mod.rs"]
pub mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use counterfoil::actors::entity::{Entities, EntityError, EntityOptions, Outcome};
use counterfoil::actors::{Ledger, LedgerOptions};
use counterfoil::entity::{Entity, Snapshots, Upcasts};
use counterfoil::*;
use serde::{Deserialize, Serialize};

/// What an account is: its balance, and how often what happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    pub cents: i64,
    pub moved: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    Deposit {
        cents: i64,
        memo: String,
    },
    Withdraw {
        cents: i64,
    },
    /// Two events at once.
    Exchange {
        cents: i64,
    },
    /// Nothing to be done.
    Nothing,
    /// An event that can't be applied.
    Poison,
    /// `decide` panics.
    Panic,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
pub enum Moved {
    #[serde(rename = "deposited.v2")]
    Deposited { cents: i64, memo: String },
    #[serde(rename = "withdrawn.v1")]
    Withdrawn { cents: i64 },
    #[serde(rename = "poisoned.v1")]
    Poisoned,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("the account has {cents} cents only")]
    Short { cents: i64 },
}

pub struct Account;

impl Entity for Account {
    type State = Balance;
    type Command = Do;
    type Event = Moved;
    type Error = Refused;
    const NAME: &'static str = "account";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, state: &Balance, command: &Do) -> Result<Vec<Moved>, Refused> {
        match command {
            Do::Deposit { cents, memo } => Ok(vec![Moved::Deposited { cents: *cents, memo: memo.clone() }]),
            Do::Withdraw { cents } | Do::Exchange { cents } if *cents > state.cents => Err(Refused::Short { cents: state.cents }),
            Do::Withdraw { cents } => Ok(vec![Moved::Withdrawn { cents: *cents }]),
            Do::Exchange { cents } => {
                Ok(vec![Moved::Withdrawn { cents: *cents }, Moved::Deposited { cents: *cents, memo: "exchange".to_owned() }])
            }
            Do::Nothing => Ok(Vec::new()),
            Do::Poison => Ok(vec![Moved::Poisoned]),
            Do::Panic => panic!("this command panics"),
        }
    }

    fn apply(&self, state: &mut Balance, event: &Moved) {
        match event {
            Moved::Deposited { cents, memo } => {
                state.cents += cents;
                *state.moved.entry(memo.clone()).or_default() += 1;
            }
            Moved::Withdrawn { cents } => {
                state.cents -= cents;
                *state.moved.entry("withdrawn".to_owned()).or_default() += 1;
            }
            Moved::Poisoned => panic!("nobody knows what this event does"),
        }
    }

    fn upcasts(&self) -> Upcasts {
        Upcasts::none().upcast("deposited.v1", "deposited.v2", |cents| Ok(serde_json::json!({"cents": cents, "memo": "from v1"})))
    }

    fn passes_over(&self, event_type: &str) -> bool {
        event_type == "system_note.v1"
    }
}

pub fn deposit(cents: i64) -> Do {
    Do::Deposit { cents, memo: "cash".to_owned() }
}

/// Options with a deterministic clock and ids, and no fsync.
pub fn ledger_options() -> LedgerOptions {
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    let mut options = LedgerOptions::from(options);
    // A row comes late where the machine does other things.
    options.mirrored_deadline = Duration::from_secs(60);
    options
}

pub async fn open(dir: &Path) -> Ledger {
    Ledger::open_with(dir, ledger_options()).await.unwrap()
}

/// Options with a snapshot every so many events; 0: with none.
pub fn snapshots_every(events: u64) -> EntityOptions {
    let mut options = EntityOptions::default();
    options.snapshot_every = events;
    options
}

/// The snapshots of a store that is open.
pub fn snapshots(ledger: &Ledger) -> Snapshots {
    Snapshots::open(ledger.dir(), ledger.manifest().ledger_id, Options::default().mirror_busy_timeout).unwrap()
}

/// Waits until it is so; a minute at most.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The balance by a fold of the ledger's own lines, by code that has nothing to do with entities.
pub fn balance_by_hand(dir: &Path, session_id: &str) -> i64 {
    let mut cents = 0;
    let reader = LedgerReader::open(dir, &Options::default()).unwrap();
    let mut lines = reader.lines_from(Seq::FIRST).unwrap();
    while let Some((_, event)) = lines.next_event().unwrap() {
        if event.session_id() != Some(session_id) {
            continue;
        }
        let payload: serde_json::Value = serde_json::from_str(event.payload().unwrap()).unwrap();
        cents += match event.event_type {
            "deposited.v1" => payload.as_i64().unwrap(),
            "deposited.v2" => payload["cents"].as_i64().unwrap(),
            "withdrawn.v1" => -payload["cents"].as_i64().unwrap(),
            _ => 0,
        };
    }
    cents
}
