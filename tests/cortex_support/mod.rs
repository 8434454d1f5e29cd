//! Shared by the tests of adopted Cortex ledgers: ledgers that `crtx-ledger` itself has written.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use cortex_core::attestor::InMemoryAttestor;
use cortex_core::{Event, EventSource, EventType, SCHEMA_VERSION};
use cortex_ledger::{JsonlLog, SignedRow, append_policy_decision_test_allow, append_signed_policy_decision_test_allow, seal};
use counterfoil::import::{ImportError, Settings, TranscriptReader};
use counterfoil::{Draft, Receipt, Store};

/// 2026-05-04T13:00:00.123456789Z.
pub fn begin() -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(1_777_899_600_123_456_789)
}

/// An event of every kind that there is, by its number.
pub fn event(number: u64) -> Event {
    let sources = [
        EventSource::User,
        EventSource::ChildAgent { model: "model \"x\"".to_owned() },
        EventSource::Tool { name: "bash".to_owned() },
        EventSource::Runtime,
        EventSource::ExternalOutcome,
        EventSource::ManualCorrection,
    ];
    let types = [
        EventType::UserMessage,
        EventType::AgentResponse,
        EventType::ToolCall,
        EventType::ToolResult,
        EventType::CodeDiff,
        EventType::TestResult,
        EventType::Decision,
        EventType::Correction,
        EventType::Outcome,
        EventType::SystemNote,
    ];
    let payloads = [
        serde_json::json!({"text": "hello", "z": 1, "a": {"y": [1, -2, 0.5], "b": null}, "é": "\u{2028}\u{7f}\n\u{1}\"\\/"}),
        serde_json::json!([1.0, -0.0, 1e20, 1e-7, 1.5e300, u64::MAX, i64::MIN, 123_456_789_012_345_680_u64]),
        serde_json::json!("just a text"),
        serde_json::json!(null),
        serde_json::json!({"deep": [[[[[[{"k": true}]]]]]], "": false}),
    ];
    let at = begin() + TimeDelta::milliseconds(number as i64);
    Event {
        id: cortex_core::EventId::from_ulid(format!("{:026}", 1_000 + number).parse().unwrap()),
        schema_version: SCHEMA_VERSION,
        observed_at: at,
        recorded_at: at + TimeDelta::milliseconds(1),
        source: sources[number as usize % sources.len()].clone(),
        event_type: types[number as usize % types.len()],
        trace_id: (number % 2 == 1).then(|| "trc_01ARZ3NDEKTSV4RRFFQ69G5FAW".parse().unwrap()),
        session_id: (number % 3 != 2).then(|| format!("session \"{}\"", number % 3)),
        domain_tags: ["agents", "demo"].iter().take(number as usize % 3).map(|tag| (*tag).to_owned()).collect(),
        payload: payloads[number as usize % payloads.len()].clone(),
        payload_hash: String::new(),
        prev_event_hash: None,
        event_hash: String::new(),
    }
}

/// The attestor that signs in these tests.
pub fn attestor() -> InMemoryAttestor {
    InMemoryAttestor::from_seed(&[7; 32])
}

/// Has `crtx-ledger` append these events, every `signed`-th of them with a signature (none for 0).
pub fn append(path: &Path, events: impl IntoIterator<Item = Event>, signed: u64) {
    let mut log = JsonlLog::open(path).unwrap();
    for (at, event) in (1..).zip(events) {
        if signed > 0 && at % signed == 0 {
            log.append_signed(event, &attestor(), &append_signed_policy_decision_test_allow()).unwrap();
        } else {
            log.append(event, &append_policy_decision_test_allow()).unwrap();
        }
    }
}

/// The lines that `crtx-ledger` writes for these events, sealed one on the other, without a file and its fsyncs.
pub fn rows(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let mut rows = Vec::new();
    write_rows(events, |row| rows.push(row));
    rows
}

/// The same, one after the other.
pub fn write_rows(events: impl IntoIterator<Item = Event>, mut write: impl FnMut(String)) {
    let mut head = None;
    for mut event in events {
        event.prev_event_hash = head.take();
        seal(&mut event);
        head = Some(event.event_hash.clone());
        write(serde_json::to_string(&SignedRow::unsigned(event)).unwrap());
    }
}

pub fn text_of(rows: &[impl AsRef<str>]) -> String {
    rows.iter().map(|row| format!("{}\n", row.as_ref())).collect()
}

/// A ledger of this many events, in a folder.
pub fn ledger(dir: &Path, events: u64) -> PathBuf {
    let path = dir.join("events.jsonl");
    append(&path, (0..events).map(event), 0);
    path
}

/// What adopting did, as `counterfoil import` does it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    pub rows: u64,
    pub notes: u64,
    pub duplicates: u64,
}

pub fn adopt(store: &mut Store, path: &Path) -> Result<Adopted, ImportError> {
    adopt_with(store, path, &Settings::default())
}

/// The same, with other settings.
pub fn adopt_with(store: &mut Store, path: &Path, settings: &Settings) -> Result<Adopted, ImportError> {
    let mut reader = TranscriptReader::open(path, settings)?;
    reader.check_adopted(&store.reader().unwrap())?;
    let mut adopted = Adopted::default();
    while let Some(draft) = reader.next()? {
        let is_note = draft.event_type().as_str() == "system_note.v1";
        let receipt: Receipt = store.append(draft).unwrap_or_else(|error| panic!("{error}"));
        match (receipt.duplicate, is_note) {
            (true, _) => adopted.duplicates += 1,
            (false, true) => adopted.notes += 1,
            (false, false) => adopted.rows += 1,
        }
    }
    Ok(adopted)
}

/// All drafts of these bytes as a ledger.
pub fn drafts_of(bytes: &[u8]) -> Result<Vec<Draft>, ImportError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let settings = Settings { format: Some(counterfoil::import::Format::Cortex), ..Settings::default() };
    let mut reader = TranscriptReader::open(&path, &settings)?;
    let mut drafts = Vec::new();
    while let Some(draft) = reader.next()? {
        drafts.push(draft);
    }
    Ok(drafts)
}
