//! What several tests need: stores with an injected clock and ids, and copies of directories.
#![allow(dead_code)] // each test uses some of it

use std::fs;
use std::path::Path;
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
