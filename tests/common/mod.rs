//! What several tests need: stores with an injected clock and ids, and copies of directories.
#![allow(dead_code, unused_imports)] // each test uses some of it

pub mod compressed;
pub mod damage;
pub mod disk;
pub mod history;
pub mod opened;
pub mod secrets;
pub mod simulated;
pub mod streams;
pub mod watched;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use counterfoil::*;

/// A clock that goes on by a millisecond a call, from 2026-11-24T05:37:00Z.
pub struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-11-24T05:37:00.000000Z".parse().unwrap();
        Timestamp::from_micros(start.as_micros() + 1000 * self.0.fetch_add(1, Ordering::Relaxed) as i64)
    }
}

/// Ids that count.
pub struct TestIds(AtomicU64);

impl Ids for TestIds {
    fn next(&self, at: Timestamp) -> u128 {
        u128::from(at.id_millis()) << 80 | u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Bytes of a page of a new mirror.
pub const MIRROR_PAGE_BYTES: usize = 8192;

/// Options whose every run gives the same bytes.
pub fn options() -> Options {
    let mut options = Options::default();
    options.clock = Arc::new(TestClock(AtomicU64::new(0)));
    options.ids = Arc::new(TestIds(AtomicU64::new(1)));
    options
}

pub fn note(text: &str) -> Draft {
    Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).payload(text).unwrap()
}

pub fn id(number: u64) -> EventId {
    EventId::from_u128(0x0123_4567 << 80 | u128::from(number))
}

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Gives an event the hash that fits what it says.
pub fn rehash(event: &mut Event<'_>) {
    let mut line = Vec::new();
    line::encode(event, &mut line);
    event.event_hash = chain::event_hash(chain::material(&line).unwrap());
}

/// All bytes of the ledger, segment after segment.
pub fn ledger_bytes(dir: &Path) -> Vec<u8> {
    let mut names: Vec<_> = fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

pub fn parity(dir: &Path) -> ParityReport {
    let options = Options::default();
    parity_full(&LedgerReader::open(dir, &options).unwrap(), &options, None, &mut |_| ()).unwrap()
}

pub fn verified(dir: &Path) -> VerifyReport {
    verify(&LedgerReader::open(dir, &Options::default()).unwrap(), &mut |_| ()).unwrap()
}

/// Options as above, with small segments, so that a few events make several.
pub fn small_segments() -> Options {
    let mut options = options();
    options.segment_bytes_max = 1900;
    options
}

/// Drafts of every kind that the writer knows: sessions, tags, traces, sources, payloads that are hard to keep.
pub fn drafts() -> Vec<Draft> {
    let kinds = EventType::WELL_KNOWN;
    let sources = [Source::User, Source::child_agent("model \"x\""), Source::tool("bash"), Source::Runtime, Source::ExternalOutcome];
    let payloads =
        ["{\"seq\":1}", "\"a\u{2028}b \\ud800 \\n\"", "null", "[1.0,1e400,{\"k\":1,\"k\":2}]", "\"plain\"", "{ \"spaced\" : true }"];
    (0..12)
        .map(|n| {
            let draft = Draft::new(kinds[n % kinds.len()].clone(), sources[n % sources.len()].clone())
                .id(id(100 + n as u64))
                .payload_json(payloads[n % payloads.len()])
                .unwrap();
            match n % 4 {
                0 => draft.session("s-1").tag("blue"),
                1 => draft.session("s-\u{1}\"2\"").trace(TraceId::from_u128(7)),
                2 => draft.session("s-1").caused_by(id(100)).tag("a\tb").tag("ü"),
                _ => draft,
            }
        })
        .collect()
}

/// A closed store of 12 events in several segments and sessions, with a batch of three at seq 6 to 8.
pub fn filled(dir: &Path, options: &Options) {
    let (mut store, _) = Store::open(dir, options).unwrap();
    let mut drafts = drafts();
    let last = drafts.split_off(8);
    let batch = drafts.split_off(5);
    for draft in drafts {
        store.append(draft).unwrap();
    }
    store.append_batch(batch, &Conditions::none()).unwrap();
    for draft in last {
        store.append(draft).unwrap();
    }
    store.close().unwrap();
}

/// The writer alone, at a mirror that does not move: what it writes stays unmirrored.
pub fn writer(dir: &Path, options: &Options) -> (Writer, Mirror) {
    let manifest = Manifest::load(&FsStorage, dir).unwrap().unwrap();
    let mut mirror = Mirror::open(dir, &manifest, options).unwrap();
    let mark = Some(mirror.watermark());
    let (writer, _) = Writer::open(dir, &manifest, mark, &mut mirror, options).unwrap();
    (writer, mirror)
}

pub fn checked(draft: Draft) -> CheckedDraft {
    draft.check(&Options::default().limits()).unwrap()
}

/// Writes each list of drafts as one group (of events, not a batch) that is not mirrored.
pub fn unmirrored_groups(dir: &Path, options: &Options, groups: Vec<Vec<Draft>>) {
    let (mut writer, mut mirror) = writer(dir, options);
    for group in groups {
        for draft in group {
            let staged = writer.stage(&[checked(draft)], &Conditions::none(), false, &mut mirror).unwrap();
            assert!(matches!(staged, Stage::Staged(Staged { durable: false, .. })));
        }
        writer.flush().unwrap().unwrap();
    }
    writer.trim().unwrap();
}

/// Every file below a directory, with its bytes, by its path there.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else {
                match fs::read(&path) {
                    Ok(bytes) => drop(into.insert(path.strip_prefix(root).unwrap().to_owned(), bytes)),
                    // Gone since it was listed: a live store renames and removes.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
    }
    let mut into = BTreeMap::new();
    if dir.is_dir() {
        walk(dir, dir, &mut into);
    }
    into
}

/// The segment files, by name.
pub fn segments(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(&dir.join("segments"))
}

/// The paths of the segments, in order.
pub fn segment_paths(dir: &Path) -> Vec<PathBuf> {
    segments(dir).into_keys().map(|name| dir.join("segments").join(name)).collect()
}

/// The mirror, to do to its rows what nobody does by accident: they are kept from being deleted and changed.
pub fn by_hand(dir: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(mirror_path(dir)).unwrap();
    unguard(&conn);
    conn
}

/// The same with this connection.
pub fn unguard(conn: &rusqlite::Connection) {
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
}

/// What must not change when an append is refused: the ledger's bytes and the mirror's rows.
pub fn state(store: &Store, dir: &Path) -> (BTreeMap<PathBuf, Vec<u8>>, Head, Watermark, usize) {
    let mut files = files(dir);
    files.retain(|path, _| path.starts_with("segments") || path.starts_with("torn") || path.starts_with("ledger.json"));
    let rows = store.mirror_reader().unwrap().count().unwrap().0 as usize;
    (files, store.head(), store.watermark(), rows)
}

/// Opens the store, checks that both legs are equal and right, and closes it.
pub fn open_is_clean(dir: &Path, options: &Options) -> OpenReport {
    let (store, report) = Store::open(dir, options).unwrap_or_else(|error| panic!("{error}"));
    store.close().unwrap();
    let reader = LedgerReader::open(dir, options).unwrap();
    let verified = verify(&reader, &mut |_| ()).unwrap();
    assert!(verified.is_clean(), "{verified}");
    let parity = parity_full(&reader, options, None, &mut |_| ()).unwrap();
    assert!(parity.is_consistent(), "{parity}");
    assert_eq!(parity.jsonl_event_count, parity.sqlite_event_count);
    report
}

/// The refusal that an open ends in.
pub fn refusal(dir: &Path, options: &Options) -> (Refusal, String) {
    match Store::open(dir, options) {
        Err(Error::Ledger(LedgerError::Refused(refusal))) => {
            let text = refusal.to_string();
            (*refusal, text)
        }
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

/// A text with the store's own path taken out of it.
pub fn portable(text: impl ToString, dir: &Path) -> String {
    text.to_string().replace(&dir.display().to_string(), "<store>")
}

/// Runs assertions whose snapshots are files: they lie in the top-level `snapshots/`.
pub fn snapshots(run: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(run);
}

/// A store of several small segments, filled and closed.
pub fn store() -> (tempfile::TempDir, std::path::PathBuf, Options) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = small_segments();
    filled(&dir, &options);
    (temp, dir, options)
}

/// The same on a disk whose fsync does nothing: for tests that open it thousands of times.
pub fn unsynced_store() -> (tempfile::TempDir, std::path::PathBuf, Options) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mut options = small_segments();
    disk::without_sync(&mut options);
    filled(&dir, &options);
    (temp, dir, options)
}

/// Polls until it holds, with a deadline.
#[cfg(feature = "actors")]
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Closes the store once its mirror has as many events as its ledger, and finds both equal and right.
#[cfg(feature = "actors")]
pub async fn finish(ledger: actors::Ledger, dir: &Path, events: u64) {
    ledger.mirrored(Seq::new(events)).await.unwrap();
    let closed = ledger.close().await.unwrap();
    assert_eq!((closed.head.seq.get(), closed.mirrored_through.get()), (events, events));
    let parity = parity(dir);
    assert!(parity.is_consistent(), "{parity}");
    assert!(verified(dir).is_clean());
}

/// Says aloud that something could not be tested here, and why: past the test harness, which would keep it to itself.
/// `.ci/run` counts these lines.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write;
    // In one piece: other tests write meanwhile.
    let _ = std::io::stderr().write_all(format!("\nSKIPPED {what}: {why}\n").as_bytes());
}

/// A bound of a campaign: what this environment variable says, else the ordinary number.
pub fn campaign(variable: &str, ordinary: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(ordinary)
}

/// Numbers from a seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers; seeds that are near each other give numbers that are not.
    pub fn new(seed: u64) -> Random {
        Random((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound.max(1)
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}
