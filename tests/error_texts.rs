//! Goal: every error that a person can meet says in one line what is wrong, where, and what to do next.
//!
//! Method: each variant is made, its text put into `snapshots/error_texts.snap`, to be read by a person; and the form is
//! checked: lower case or a name at the start, no dot at the end, never `{:?}`, one line, a next step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::io;
use std::path::PathBuf;

use counterfoil::*;

fn io_error(kind: io::ErrorKind) -> io::Error {
    match kind {
        io::ErrorKind::PermissionDenied => io::Error::from_raw_os_error(13),
        io::ErrorKind::StorageFull => io::Error::from_raw_os_error(28),
        io::ErrorKind::NotFound => io::Error::from_raw_os_error(2),
        io::ErrorKind::ReadOnlyFilesystem => io::Error::from_raw_os_error(30),
        _ => io::Error::from_raw_os_error(5),
    }
}

fn sqlite(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

fn segment() -> PathBuf {
    "/store/segments/00000000000000000012.jsonl".into()
}

fn mirror() -> PathBuf {
    "/store/mirror.sqlite3".into()
}

fn hash(n: u8) -> EventHash {
    EventHash::from_bytes([n; 32])
}

fn seq(n: u64) -> Seq {
    Seq::new(n)
}

fn refusals() -> Vec<Refusal> {
    let fault = LineFault::Link { expected: hash(1), found: hash(2) };
    vec![
        Refusal::LaterGroup { path: segment(), offset: 700, seq: seq(13), later: seq(14) },
        Refusal::Splice { path: segment(), offset: 700, fault },
        Refusal::LostDurable { path: segment(), offset: 700, valid: seq(12), durable: seq(17), evidence: "the mirror has it" },
        Refusal::BehindCheckpoint {
            path: segment(),
            offset: 700,
            valid: seq(12),
            durable: seq(17),
            signed: "/store/checkpoints/signed.txt".into(),
            signed_at: 231,
            key_hash: 0x3c82_1600,
        },
        Refusal::SegmentsDoNotMeet { path: segment(), reason: "it begins with seq 12, but seq 9 belongs there".into() },
        Refusal::OtherStream { path: segment(), offset: 557, seq: seq(14), fault: LineFault::SessionSeq { expected: 3, found: 2 } },
        Refusal::TwoHistories { path: segment(), seq: seq(14), ledger: hash(1), mirror: hash(2) },
        Refusal::OtherManifest { path: "/store/ledger.json".into(), segment: segment() },
        Refusal::NoManifest { path: "/store/ledger.json".into() },
    ]
}

fn ledger_errors() -> Vec<LedgerError> {
    use io::ErrorKind::{NotFound, Other, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let mut list: Vec<LedgerError> = [PermissionDenied, StorageFull, NotFound, ReadOnlyFilesystem, Other]
        .into_iter()
        .map(|kind| LedgerError::Io { action: "opening", path: segment(), source: io_error(kind) })
        .collect();
    list.extend([
        LedgerError::NoStore { path: "/store".into() },
        LedgerError::NotADirectory { path: "/store".into() },
        LedgerError::Locked { path: "/store".into(), holder: "process 1234".into() },
        LedgerError::Manifest { path: "/store/ledger.json".into(), reason: "its hash is not `blake3`".into() },
        LedgerError::FutureFormat { path: "/store/ledger.json".into(), found: 2, known: 1 },
        LedgerError::Active { path: segment() },
        LedgerError::NoSegment { seq: seq(99), head: seq(13) },
        LedgerError::ReadsBackWrong { path: "/store/tmp/00000000000000000012.jsonl.zst".into() },
        LedgerError::Damaged { path: segment(), offset: 700, reason: LineFault::Payload },
        LedgerError::DiskFull { path: segment() },
        LedgerError::Poisoned { cause: io_error(Other).to_string() },
        LedgerError::InFlight { seq: Seq::new(7) },
    ]);
    list.extend(refusals().into_iter().map(|refusal| LedgerError::Refused(Box::new(refusal))));
    list
}

fn draft_errors() -> Vec<DraftError> {
    let draft = || Draft::new(EventType::SYSTEM_NOTE, Source::Runtime);
    vec![
        draft().payload_json("{nope}").unwrap_err(),
        draft().payload(&std::collections::HashMap::from([((1, 2), 3)])).unwrap_err(),
        EventType::new("ToolCall").unwrap_err().into(),
        EventType::new("counterfoil.erasure.v1").unwrap_err().into(),
        DraftError::Redactor(Payload::from_json("{nope}").unwrap_err()),
        DraftError::SessionId { bytes: 10240 },
        DraftError::Tag { index: 3, bytes: 129 },
        DraftError::Tags { count: 65 },
        DraftError::LineTooLong { bytes: 104_858_518, max: 16_777_216 },
    ]
}

fn append_errors() -> Vec<AppendError> {
    vec![
        AppendError::Conflict { id: common::id(1), seq: seq(7) },
        AppendError::BatchConflict { id: common::id(1) },
        AppendError::EmptyBatch,
        AppendError::BatchTooLarge { events: 5000, bytes: 9_000_000, events_max: 4096, bytes_max: 33_554_432 },
        AppendError::WrongSessionSeq { session_id: "s-1".into(), expected: 3, actual: 4 },
        AppendError::WrongHead { expected: hash(1), actual: hash(2) },
        AppendError::NoSession,
        AppendError::Rebuilding { done: 100, total: 5000 },
        AppendError::MirrorTooFarBehind { waiting: 262_144 },
        AppendError::Lookup(LookupError::Failed("disk I/O error".into())),
        AppendError::Lookup(LookupError::Broken("database disk image is malformed".into())),
        AppendError::Busy,
        AppendError::TooLargeForFlight { bytes: 9_000_000, max: 8_388_608 },
        AppendError::OutcomeUnknown { drafts: Vec::new() },
        AppendError::Closed,
        AppendError::Stopped { reason: "SqliteActor failed 5 times within a minute".into() },
    ]
}

fn mirror_errors() -> Vec<MirrorError> {
    use rusqlite::ffi;
    let codes = [
        ffi::SQLITE_BUSY,
        ffi::SQLITE_FULL,
        ffi::SQLITE_READONLY,
        ffi::SQLITE_CANTOPEN,
        ffi::SQLITE_CORRUPT,
        ffi::SQLITE_NOTADB,
        ffi::SQLITE_IOERR,
    ];
    let mut list: Vec<MirrorError> =
        codes.into_iter().map(|code| MirrorError::Sqlite { action: "opening", path: mirror(), source: sqlite(code) }).collect();
    let line = line::decode(b"{\"seq\":0").unwrap_err();
    list.extend([
        MirrorError::Io { action: "renaming", path: mirror(), source: io_error(io::ErrorKind::PermissionDenied) },
        MirrorError::Missing { path: mirror() },
        MirrorError::Gone { path: mirror() },
        MirrorError::Future { path: mirror(), found: 99, known: 1 },
        MirrorError::NotAMirror { path: mirror() },
        MirrorError::OtherLedger { path: mirror(), found: "ldg_2".into(), expected: "ldg_1".into() },
        MirrorError::Corrupt { path: mirror(), reason: "it has no watermark".into() },
        MirrorError::Conflict {
            path: mirror(),
            seq: seq(9),
            id: common::id(1),
            ledger: hash(1),
            row: format!("{} and differs in payload", hash(1)),
        },
        MirrorError::DuplicateId { id: common::id(1), first: seq(4), second: seq(13) },
        MirrorError::Gap { path: mirror(), watermark: seq(3), first: seq(9) },
        MirrorError::Line { first: seq(9), source: line },
        MirrorError::OldSqlite { found: "3.51.2" },
    ]);
    list
}

fn snapshot_errors() -> Vec<entity::SnapshotError> {
    use entity::SnapshotError;
    let path: PathBuf = "/store/entities.sqlite3".into();
    vec![
        SnapshotError::Sqlite { action: "reading", path: path.clone(), source: sqlite(rusqlite::ffi::SQLITE_BUSY) },
        SnapshotError::Io { action: "creating", path: path.clone(), source: io_error(io::ErrorKind::PermissionDenied) },
        SnapshotError::SymbolicLink { path: path.clone() },
        SnapshotError::Gone { path, session_id: "s-1".into() },
        SnapshotError::TooLarge {
            entity: "account".into(),
            session_id: "s-1".into(),
            session_seq: 7,
            bytes: 16_777_217,
            bytes_max: 16_777_216,
        },
        SnapshotError::OldSqlite { found: "3.51.2" },
    ]
}

fn stream_errors() -> Vec<StreamError> {
    let row = |session: Option<(&str, u64)>, reason| StreamError::Row {
        path: mirror(),
        seq: 9,
        session_id: session.map(|(id, _)| id.to_owned()),
        session_seq: session.map(|(_, at)| at),
        reason,
    };
    let position = |path, found| StreamError::Position { path, session_id: "s-1".into(), expected: 7, found };
    let both = |is_same| StreamError::Both {
        ledger: Box::new(LedgerError::Damaged { path: segment(), offset: 5, reason: LineFault::Payload }.into()),
        mirror: Box::new(row(Some(("s-1", 7)), RowFault::Payload)),
        is_same,
    };
    vec![
        row(Some(("s-1", 7)), RowFault::Payload),
        row(Some(("s-1", 7)), RowFault::Line(line::decode(b"{\"seq\":0").unwrap_err())),
        row(None, RowFault::Column("observed_at")),
        row(None, RowFault::Index),
        position(mirror(), Some((8, seq(9)))),
        position(mirror(), None),
        position(segment(), Some((5, seq(13)))),
        StreamError::NotInLedger { path: mirror(), seq: seq(13) },
        both(true),
        both(false),
        StreamError::Short { path: "/store".into(), end: seq(12), through: seq(13) },
        StreamError::Payload {
            path: "/store/blobs/ab/abab".into(),
            seq: seq(9),
            id: common::id(1),
            reason: LineFault::Blob { hash: "ab".repeat(32), what: "missing" },
        },
    ]
}

fn sessions_errors() -> Vec<SessionsError> {
    use rusqlite::ffi;
    let path = || PathBuf::from("/store/sessions.sqlite3");
    let mut list: Vec<SessionsError> = [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_CORRUPT]
        .into_iter()
        .map(|code| SessionsError::Sqlite { action: "writing", path: path(), source: sqlite(code) })
        .collect();
    list.extend([
        SessionsError::Io { action: "removing", path: path(), source: io_error(io::ErrorKind::PermissionDenied) },
        SessionsError::SymbolicLink { path: path() },
        SessionsError::Gone { path: path() },
        SessionsError::Time { path: mirror(), seq: seq(9) },
    ]);
    list
}

#[test]
fn each_says_what_to_do() {
    let mut errors: Vec<(&str, Box<dyn std::error::Error>)> = Vec::new();
    errors.extend(ledger_errors().into_iter().map(|error| ("ledger", error.into())));
    errors.extend(draft_errors().into_iter().map(|error| ("draft", error.into())));
    errors.extend(append_errors().into_iter().map(|error| ("append", error.into())));
    errors.extend(mirror_errors().into_iter().map(|error| ("mirror", error.into())));
    errors.extend(snapshot_errors().into_iter().map(|error| ("snapshots", error.into())));
    errors.extend(stream_errors().into_iter().map(|error| ("stream", error.into())));
    errors.extend(sessions_errors().into_iter().map(|error| ("sessions", error.into())));
    errors.push(("query", QueryError::Refused(sqlite(rusqlite::ffi::SQLITE_AUTH)).into()));
    errors.push(("repair", RepairError::LedgerDamaged { failures: 3 }.into()));
    errors.push(("repair", RepairError::Unrecoverable { seq: seq(13), reason: "the mirror has no row".into() }.into()));
    let next = [
        "run `counterfoil",
        "call `Writer::land`",
        "`counterfoil ",
        "use ",
        "give ",
        "close ",
        "restore ",
        "free ",
        "check ",
        "make ",
        "name ",
        "move ",
        "quote ",
        "write ",
        "choose ",
        "shorten ",
        "put ",
        "split ",
        "append ",
        "read ",
        "try ",
        "raise ",
        "open it again",
        "replay ",
        "build ",
        "only reading",
        "open them again",
        "remove it",
        "keep less",
        "rebuilt",
        "rebuilds it",
        "remove ",
        "list again",
        "take ",
    ];
    let mut texts = String::new();
    for (group, error) in errors {
        let text = error.to_string();
        let first = text.chars().next().unwrap();
        assert!(!first.is_uppercase() || text.starts_with("SQLite"), "{text}");
        assert!(!text.ends_with(['.', ' ', ':', ';']) && !text.contains('\n') && !text.contains("  "), "{text}");
        assert!(!text.contains("Some(") && !text.contains("Error {") && !text.contains("\\\""), "{text}");
        let (_, last) = text.rsplit_once("; ").or_else(|| text.rsplit_once(": ")).unwrap_or(("", &text));
        let step =
            next.iter().any(|step| last.contains(step) || text.contains(&format!("; {step}")) || text.contains(&format!(": {step}")));
        assert!(step, "no next step: {text}");
        texts += &format!("{group}: {text}\n");
    }
    common::snapshots(|| insta::assert_snapshot!("error_texts", texts));
}

#[test]
fn reasons_are_short_and_say_where() {
    // They stand inside the errors above and in reports.
    let faults = [
        LineFault::Compressed,
        LineFault::Unterminated,
        LineFault::Seq { expected: seq(3), found: seq(4) },
        LineFault::Link { expected: hash(1), found: hash(2) },
        LineFault::SessionSeq { expected: 3, found: 5 },
        LineFault::Payload,
        LineFault::Blob { hash: "ab".repeat(32), what: "missing" },
        LineFault::NotErased,
        LineFault::Group { found: seq(3) },
        LineFault::Batch,
    ];
    let mut texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let line = std::fs::read("tests/vectors/store-v1/segments/00000000000000000001.jsonl").unwrap();
    let line = line.split(|b| *b == b'\n').next().unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = line.to_vec();
        bytes[at] = byte;
        line::decode(&bytes).unwrap_err().to_string()
    };
    let end = line.len() - 1;
    texts.extend([changed(2, b'x'), changed(7, b'0'), changed(50, 0xff), changed(end, b' '), changed(end - 1, b'{')]);
    let hash_at = line.windows(15).position(|w| w == b",\"event_hash\":\"").unwrap() + 15;
    texts.push(changed(hash_at, if line[hash_at] == b'0' { b'1' } else { b'0' }));
    texts.extend(["evt_x".parse::<EventId>().unwrap_err().to_string(), "nope".parse::<EventHash>().unwrap_err().to_string()]);
    texts.push("yesterday".parse::<Timestamp>().unwrap_err().to_string());
    texts.push(LookupError::Rebuilding { done: 1, total: 9 }.to_string());
    common::snapshots(|| insta::assert_snapshot!("error_reasons", texts.join("\n")));
}

#[test]
fn one_error_has_predicates() {
    for error in ledger_errors() {
        let (poisoned, locked) = (matches!(error, LedgerError::Poisoned { .. }), matches!(error, LedgerError::Locked { .. }));
        let (refused, full) = (matches!(error, LedgerError::Refused(_)), matches!(error, LedgerError::DiskFull { .. }));
        let error = Error::from(AppendError::from(error));
        assert_eq!(
            (error.is_poisoned(), error.is_locked(), error.is_refused(), error.is_retryable()),
            (poisoned, locked, refused, full),
            "{error}"
        );
    }
    assert!(Error::from(AppendError::Conflict { id: common::id(1), seq: seq(1) }).is_conflict());
    assert!(Error::from(AppendError::Busy).is_retryable() && !Error::from(AppendError::EmptyBatch).is_retryable());
}
