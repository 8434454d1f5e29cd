//! What must be, by code that knows nothing of entities: the ledger's lines, folded by hand, and what each command was answered.

use std::collections::BTreeMap;

use counterfoil::actors::entity::Outcome;
use counterfoil::entity::{command_id, command_tag};
use counterfoil::{LedgerReader, Seq};
use serde_json::Value;

use super::bank::{Event, PASSED_OVER, Short, State, What, mix};

/// An event of a stream, as its line has it.
#[derive(Clone, Debug)]
pub struct Line {
    pub seq: u64,
    event_type: String,
    /// Nothing once it is erased.
    payload: Option<Value>,
    /// What a receipt says of it.
    facts: BTreeMap<String, Value>,
    /// The command that has caused it.
    by: Option<u64>,
    /// Its place in its batch, counted from 0, and how many events that has.
    batch: (u64, u64),
}

#[derive(Default)]
pub struct Stream {
    pub lines: Vec<Line>,
    /// The state at each position.
    folds: Vec<State>,
    /// The same as it was before an erasure: what was under way meanwhile may rest on either.
    before_erasure: Option<Vec<State>>,
    /// Positions of first events: by key, and by command.
    keys: BTreeMap<String, usize>,
    commands: BTreeMap<u64, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// It may have been recorded.
    Open,
    Recorded,
    Nothing,
}

#[derive(Debug)]
pub struct Sent {
    pub stream: String,
    pub key: Option<String>,
    pub what: What,
    pub fate: Fate,
}

/// What a command was answered.
pub enum Answer {
    Outcome(Outcome<Event>),
    Refused(Short),
    /// The caller has gone, or the outcome is unknown.
    Open,
    /// An error that says that nothing was recorded.
    Failed,
}

#[derive(Default)]
pub struct Model {
    pub streams: BTreeMap<String, Stream>,
    pub sent: BTreeMap<u64, Sent>,
    /// The hash of each event of the ledger.
    hashes: Vec<String>,
}

impl What {
    fn events(&self) -> u64 {
        match self {
            What::Split { .. } => 3,
            What::Nothing => 0,
            _ => 1,
        }
    }

    fn is_refused(&self, has: i64) -> bool {
        match self {
            What::PayOut { cents } | What::Split { cents, .. } => *cents > has,
            What::PayOutAll => has < 1,
            _ => false,
        }
    }
}

/// The state behind this line. Version 1's; the other one scales by two.
fn fold(state: &State, line: &Line) -> State {
    if PASSED_OVER.contains(&line.event_type.as_str()) {
        return state.clone();
    }
    let mut next = State { events: state.events + 1, ..state.clone() };
    let Some(payload) = &line.payload else {
        next.digest = mix(state.digest, &format!("erased {}", line.event_type));
        next.scaled -= 1;
        return next;
    };
    let cents = || payload["cents"].as_i64().unwrap();
    let (sum, text) = match line.event_type.as_str() {
        "paid_in.v1" => (payload.as_i64().unwrap() * 100, format!("in {} v1", payload.as_i64().unwrap() * 100)),
        "paid_in.v2" => (cents(), format!("in {} v2", cents())),
        "paid_in.v3" => (cents(), format!("in {} {}", cents(), payload["memo"].as_str().unwrap())),
        "paid_out.v1" => (-cents(), format!("out {}", cents())),
        other => panic!("what is {other}?"),
    };
    (next.cents, next.scaled) = (state.cents + sum, state.scaled + sum);
    next.digest = mix(state.digest, &text);
    next
}

pub fn of_version(state: &State, version: u32) -> State {
    State { scaled: state.scaled * i64::from(version), ..state.clone() }
}

impl Stream {
    pub fn position(&self) -> usize {
        self.lines.len()
    }

    /// States that one may have seen from this position on.
    pub fn states(&self, from: usize) -> impl Iterator<Item = &State> {
        let old = self.before_erasure.iter().flat_map(move |folds| folds.iter().skip(from));
        self.folds.iter().skip(from).chain(old)
    }

    pub fn state(&self) -> &State {
        self.folds.last().unwrap()
    }

    /// Folds all of it again, since payloads have gone.
    fn fold_again(&mut self) {
        let old = std::mem::replace(&mut self.folds, vec![State::default()]);
        self.before_erasure.get_or_insert(old);
        for line in &self.lines {
            self.folds.push(fold(self.folds.last().unwrap(), line));
        }
    }

    fn push(&mut self, line: Line) {
        self.folds.push(fold(self.folds.last().unwrap(), &line));
        if let Some(folds) = &mut self.before_erasure {
            folds.push(fold(folds.last().unwrap(), &line));
        }
        self.lines.push(line);
    }
}

impl Model {
    pub fn new(streams: &[String]) -> Model {
        let stream = || Stream { folds: vec![State::default()], ..Stream::default() };
        Model { streams: streams.iter().map(|name| (name.clone(), stream())).collect(), ..Model::default() }
    }

    pub fn seq(&self) -> u64 {
        self.hashes.len() as u64
    }

    /// What was erased is erased for whoever looks from now on.
    pub fn settle(&mut self) {
        for stream in self.streams.values_mut() {
            stream.before_erasure = None;
        }
    }

    /// Reads what has come, up to what is durable.
    pub fn read_on(&mut self, reader: &LedgerReader, durable: Seq) {
        self.read_from(reader, self.seq() + 1, durable.get());
    }

    /// Reads all of it: what was there still is, but for payloads that were erased.
    pub fn read_again(&mut self, reader: &LedgerReader, durable: Seq) {
        assert!(durable.get() >= self.seq(), "the ledger was at {} and is at {durable}", self.seq());
        self.read_from(reader, 1, durable.get());
    }

    fn read_from(&mut self, reader: &LedgerReader, from: u64, through: u64) {
        if from > through {
            return;
        }
        let mut gone = BTreeMap::<String, Vec<u64>>::new();
        let known = self.seq();
        let mut lines = reader.lines_from(Seq::new(from)).unwrap();
        let mut last = from - 1;
        let mut new = Vec::new();
        while last < through
            && let Some((line, _)) = lines.next_event().unwrap()
        {
            let line: Value = serde_json::from_slice(line.raw.bytes).unwrap();
            last += 1;
            assert_eq!(line["seq"].as_u64(), Some(last));
            if last > known {
                new.push(line);
                continue;
            }
            assert_eq!(line["event_hash"].as_str(), Some(self.hashes[last as usize - 1].as_str()), "event {last} is another one");
            if line.get("payload").is_none()
                && let Some(session) = line["session_id"].as_str()
            {
                gone.entry(session.to_owned()).or_default().push(last);
            }
        }
        assert_eq!(last, through, "lines are missing");
        for (session, seqs) in gone {
            let stream = self.streams.get_mut(&session).unwrap();
            let mut is_erased = false;
            for line in stream.lines.iter_mut().filter(|line| seqs.contains(&line.seq)) {
                is_erased |= line.payload.take().is_some();
            }
            if is_erased {
                stream.fold_again();
            }
        }
        for line in new {
            self.push(&line);
        }
    }

    fn push(&mut self, line: &Value) {
        self.hashes.push(line["event_hash"].as_str().unwrap().to_owned());
        let Some(session) = line["session_id"].as_str() else { return };
        let stream = self.streams.get_mut(session).unwrap();
        let position = stream.position() + 1;
        assert_eq!(line["session_seq"].as_u64(), Some(position as u64));
        let payload = line.get("payload").cloned();
        let by = payload.as_ref().and_then(|payload| payload["by"].as_u64()).filter(|by| *by > 0);
        let batch = line.get("batch").map_or((0, 1), |batch| (batch[0].as_u64().unwrap() - 1, batch[1].as_u64().unwrap()));
        let facts = ["seq", "id", "event_hash", "session_seq", "recorded_at"].map(|name| (name.to_owned(), line[name].clone()));
        let event_type = line["event_type"].as_str().unwrap().to_owned();
        let seq = line["seq"].as_u64().unwrap();
        stream.push(Line { seq, event_type, payload, facts: facts.into(), by, batch });
        if let Some(by) = by {
            self.caused(session, position, by, line);
        }
    }

    /// An event that a command has caused: it is one of its own, in its place, once, and was decided on the state before.
    fn caused(&mut self, session: &str, position: usize, by: u64, line: &Value) {
        let sent = self.sent.get(&by).unwrap();
        let stream = self.streams.get_mut(session).unwrap();
        let (at, events) = stream.lines[position - 1].batch;
        assert_eq!((sent.stream.as_str(), sent.what.events()), (session, events), "command {by} at {position}");
        let first = position - at as usize;
        let tags: Vec<&str> = line["domain_tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        let key_tag = sent.key.as_deref().map(command_tag);
        let expected: Vec<&str> = key_tag.as_deref().into_iter().chain(["bank"]).collect();
        assert_eq!(tags, expected, "command {by} at {position}");
        if at == 0 {
            assert_eq!(stream.commands.insert(by, first), None, "command {by} is recorded twice, at {position} too");
            if let Some(key) = &sent.key {
                assert_eq!(stream.keys.insert(key.clone(), first), None, "key {key} is recorded twice, at {position} too");
                assert_eq!(line["id"].as_str(), Some(command_id(session, key).to_string().as_str()));
            }
        }
        assert_eq!(stream.commands.get(&by), Some(&first), "command {by} at {position} is in pieces");
        let seen = line["payload"]["seen"].as_u64().unwrap();
        let mut before = [Some(&stream.folds), stream.before_erasure.as_ref()].into_iter().flatten().map(|folds| &folds[first - 1]);
        assert!(before.any(|state| state.digest == seen), "command {by} at {position} was not decided on the state at {}", first - 1);
    }

    /// Whether what a command was answered is right; it was sent when its stream was at `from`.
    pub fn answered(&mut self, by: u64, answer: &Answer, from: usize) {
        let sent = self.sent.get_mut(&by).unwrap();
        let stream = &self.streams[&sent.stream];
        let known = sent.key.as_ref().and_then(|key| stream.keys.get(key).copied());
        let was_known = known.is_some_and(|first| first <= from);
        match answer {
            Answer::Outcome(outcome) if outcome.receipts.is_empty() => {
                assert!(!was_known && outcome.events.is_empty() && !outcome.duplicate && sent.what.events() == 0, "{outcome:?}");
                assert!((from..=stream.position()).contains(&(outcome.position as usize)), "from {from}: {outcome:?}");
                sent.fate = Fate::Nothing;
            }
            Answer::Outcome(outcome) => {
                let first = outcome.receipts[0].session_seq.unwrap() as usize;
                let recorded = stream.lines[first - 1].by.unwrap();
                if outcome.duplicate {
                    assert_eq!(Some(first), known, "a duplicate of what? {outcome:?}");
                } else {
                    assert!(recorded == by && !was_known, "command {recorded} is at {first}: {outcome:?}");
                }
                stream.is_first_answer(first, outcome);
                self.sent.get_mut(&recorded).unwrap().fate = Fate::Recorded;
                if recorded != by {
                    self.sent.get_mut(&by).unwrap().fate = Fate::Nothing;
                }
            }
            Answer::Refused(short) => {
                assert!(!was_known, "refused, though it is recorded at {known:?}");
                let states = stream.states(from).filter(|state| state.digest == short.seen && state.cents == short.cents);
                assert!(states.count() > 0, "command {by} was refused for a state that was not: {short:?}, from {from}");
                assert!(sent.what.is_refused(short.cents));
                sent.fate = Fate::Nothing;
            }
            Answer::Open => {}
            Answer::Failed => sent.fate = Fate::Nothing,
        }
    }

    /// Each command that was acknowledged is there once, what was refused is not.
    pub fn conclude(&self) {
        for (by, sent) in &self.sent {
            let at = self.streams[&sent.stream].commands.get(by);
            match sent.fate {
                Fate::Recorded => assert!(at.is_some(), "command {by} was acknowledged, and is not there: {sent:?}"),
                Fate::Nothing => assert_eq!(at, None, "command {by} is there, though its answer says that it is not: {sent:?}"),
                Fate::Open => {}
            }
        }
    }

    /// Commands with a key of which it is open whether they are recorded.
    pub fn open(&self) -> Vec<(String, String, What)> {
        let open = self.sent.values().filter(|sent| sent.fate == Fate::Open);
        let open = open.filter_map(|sent| Some(((sent.stream.clone(), sent.key.clone()?), sent.what.clone())));
        open.collect::<BTreeMap<_, _>>().into_iter().map(|((stream, key), what)| (stream, key, what)).collect()
    }

    /// A key that was open was sent again and answered, with nothing under way: what is not there by now never comes.
    pub fn settled(&mut self, session: &str, key: &str) {
        let stream = &self.streams[session];
        for (by, sent) in &mut self.sent {
            if sent.fate == Fate::Open && sent.stream == session && sent.key.as_deref() == Some(key) {
                sent.fate = if stream.commands.contains_key(by) { Fate::Recorded } else { Fate::Nothing };
            }
        }
    }
}

impl Stream {
    /// What is answered is what stands in the lines from this position on: a whole command.
    fn is_first_answer(&self, first: usize, outcome: &Outcome<Event>) {
        let (at, events) = self.lines[first - 1].batch;
        assert_eq!((at, events as usize), (0, outcome.receipts.len()), "{outcome:?}");
        let lines = &self.lines[first - 1..first - 1 + events as usize];
        assert_eq!(outcome.position as usize, first - 1 + lines.len());
        for (receipt, line) in outcome.receipts.iter().zip(lines) {
            let receipt = serde_json::to_value(receipt).unwrap();
            assert_eq!(receipt["duplicate"].as_bool(), Some(outcome.duplicate));
            for (name, value) in &line.facts {
                assert_eq!(&receipt[name], value, "{name} of {outcome:?}");
            }
        }
        let answered: Vec<Value> = outcome.events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
        let recorded =
            lines.iter().filter_map(|line| Some(serde_json::json!({"event_type": line.event_type, "payload": line.payload.as_ref()?})));
        if self.before_erasure.is_none() || answered.len() < lines.len() {
            assert_eq!(answered, recorded.collect::<Vec<_>>());
        }
    }
}
