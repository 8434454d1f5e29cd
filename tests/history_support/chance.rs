//! What a seed chooses: commands, keys, other writers' events, options.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use counterfoil::actors::entity::EntityOptions;
use counterfoil::actors::{Durability, LedgerOptions};
use counterfoil::*;

use super::bank::{Command, What};
use super::common::{self, Random};
use super::model::{Fate, Model, Sent};
use super::ops::Op;

/// Making one takes as long as some histories do.
static SECRETS: LazyLock<Arc<Secrets>> = LazyLock::new(|| Arc::new(Secrets::new()));

pub struct Chance {
    pub random: Random,
    pub streams: Vec<String>,
    commands: u64,
    keys: Vec<(String, String, What)>,
}

/// A text that redactors know.
fn secret(number: u64) -> String {
    format!("Authorization: Bearer {}{number:020}", "abcdefghij")
}

impl Chance {
    pub fn new(seed: u64) -> Chance {
        let mut random = Random::new(seed);
        let streams = (0..1 + random.below(3)).map(|n| format!("account-{n}")).collect();
        Chance { random, streams, commands: 0, keys: Vec::new() }
    }

    pub fn stream(&mut self) -> String {
        // The first one gets most.
        let at = self.random.below(self.streams.len() as u64).min(self.random.below(self.streams.len() as u64));
        self.streams[at as usize].clone()
    }

    fn memo(&mut self) -> String {
        let number = self.random.below(1000);
        match self.random.below(8) {
            0 => secret(number),
            1 => "x".repeat(number as usize),
            _ => format!("memo {number} \"ü\""),
        }
    }

    fn what(&mut self) -> What {
        let cents = 2 + self.random.below(300) as i64;
        match self.random.below(12) {
            0..5 => What::PayIn { cents, memo: self.memo() },
            5..8 => What::PayOut { cents },
            8 => What::PayOutAll,
            9 | 10 => What::Split { cents, memo: self.memo() },
            _ => What::Nothing,
        }
    }

    /// A command of its own.
    pub fn send(&mut self, model: &mut Model) -> Op {
        let (stream, what) = (self.stream(), self.what());
        let key = (!self.random.chance(3)).then(|| format!("key-{}", self.keys.len()));
        if let Some(key) = &key {
            self.keys.push((stream.clone(), key.clone(), what.clone()));
        }
        let polls = self.random.chance(9).then(|| self.random.below(3));
        self.command(model, stream, key, what, polls)
    }

    /// A key of earlier once more.
    pub fn send_again(&mut self, model: &mut Model) -> Op {
        let keys = self.keys.len() as u64;
        if keys == 0 {
            return self.send(model);
        }
        // One of the last, or any.
        let back = if self.random.chance(2) { self.random.below(keys.min(3)) } else { self.random.below(keys) };
        let (stream, key, what) = self.keys[(keys - 1 - back) as usize].clone();
        let polls = self.random.chance(15).then(|| self.random.below(3));
        self.command(model, stream, Some(key), what, polls)
    }

    pub fn command(&mut self, model: &mut Model, stream: String, key: Option<String>, what: What, polls: Option<u64>) -> Op {
        self.commands += 1;
        let by = self.commands;
        let sent = Sent { stream: stream.clone(), key: key.clone(), what: what.clone(), fate: Fate::Open };
        model.sent.insert(by, sent);
        Op::Send { stream, key, command: Command { by, what, decided: Arc::default() }, polls }
    }

    fn draft(&mut self, stream: String) -> Draft {
        let number = self.random.below(200);
        let draft = |name: &str, payload: serde_json::Value| {
            Draft::new(EventType::new(name).unwrap(), Source::User).payload(&payload).unwrap().tag("outside")
        };
        let draft = match self.random.below(6) {
            0 => draft("paid_in.v1", number.into()),
            1 | 2 => draft("paid_in.v2", serde_json::json!({ "cents": number })),
            3 => draft("paid_in.v3", serde_json::json!({"by": 0, "cents": number, "memo": secret(number), "seen": null})),
            4 => draft("tool_call.v1", serde_json::json!({ "no event of": "an account" })),
            _ => common::note("no event of an account"),
        };
        if self.random.chance(10) && !draft.event_type().as_str().starts_with("paid") { draft } else { draft.session(stream) }
    }

    /// What another writer appends: an event, or a batch, of any streams.
    pub fn outside(&mut self) -> Op {
        let events = if self.random.chance(4) { 2 + self.random.below(4) } else { 1 };
        let drafts = (0..events)
            .map(|_| {
                let stream = self.stream();
                self.draft(stream)
            })
            .collect();
        Op::Outside(drafts)
    }

    /// How often others are let go first.
    pub fn yields(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 0,
            1 => self.random.below(4),
            2 => self.random.below(30),
            _ => self.random.below(200),
        }
    }

    pub fn ledger_options(&mut self) -> LedgerOptions {
        let mut store = common::options();
        store.segment_bytes_max = [1500, 6000, 64 << 20][self.random.below(3) as usize];
        store.mirror_busy_timeout = Duration::from_millis(5);
        if self.random.chance(3) {
            store.redactor = Some(SECRETS.clone());
        }
        let mut options = LedgerOptions::from(store);
        // Actors are killed more often than a supervisor puts up with.
        options.restarts_max = 12;
        options.restart_backoff_max = Duration::from_millis(1);
        // A mirror that is locked for a while is not waited for.
        options.close_deadline = Duration::from_millis(5);
        options.mirrored_deadline = Duration::from_millis(5);
        options.mirror_delay = Duration::from_millis(self.random.below(2) * 25);
        options
    }

    pub fn entity_options(&mut self) -> EntityOptions {
        let mut options = EntityOptions::default();
        options.snapshot_every = self.random.below(21);
        options.page_events_max = 1 + self.random.below(12) as usize;
        options.redecisions_max = [0, 1, 8, 8][self.random.below(4) as usize];
        options.waiting_max = 1 + self.random.below(4) as usize;
        if self.random.chance(6) {
            options.durability = Durability::Mirrored;
        }
        if self.random.chance(6) {
            options.passivate_after = Duration::from_millis(1);
        }
        if self.random.chance(6) {
            options.entities_max = 1;
        }
        options
    }
}
