//! Options of a store under test, by the settings that a case's name has behind `+`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use counterfoil::actors::LedgerOptions;
use counterfoil::attest::MemoryKey;
use counterfoil::{FsStorage, Options, Storage, StorageFile, StorageLock};

/// Options of the store and of the actors, and what counts the store's syncs.
pub struct Settings {
    pub ledger: LedgerOptions,
    pub syncs: Arc<AtomicU64>,
}

/// Events whose ids a ledger without its mirror may have to remember: more than any case appends.
const UNMIRRORED_MAX: usize = 1 << 24;
/// No deadline may hide a slow mirror.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a case asks for.
pub fn settings(has: impl Fn(&str) -> bool) -> Settings {
    let syncs = Arc::new(AtomicU64::new(0));
    let mut store = Options::default();
    store.storage = Arc::new(Counting(syncs.clone()));
    store.preallocate = has("preallocate");
    if has("signed") {
        store.attestor = Some(Arc::new(MemoryKey::from_seed(&[7; 32])).into());
    }
    let mut ledger = LedgerOptions::from(store);
    ledger.mirrored_deadline = PATIENCE;
    if has("ledger-only") {
        // HOOK: an option that keeps the mirror off would be set here; until there is one, `actors::Held` keeps it locked.
        ledger.store.unmirrored_events_max = UNMIRRORED_MAX;
        ledger.mirror_queue_bytes_max = 0;
    }
    Settings { ledger, syncs }
}

/// The file system, counting what makes bytes durable in it.
#[derive(Debug)]
struct Counting(Arc<AtomicU64>);

#[derive(Debug)]
struct CountingFile(Box<dyn StorageFile>, Arc<AtomicU64>);

impl Counting {
    fn file(&self, file: io::Result<Box<dyn StorageFile>>) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(CountingFile(file?, self.0.clone())))
    }
}

impl Storage for Counting {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        FsStorage.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsStorage.list(dir)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        FsStorage.open_read(path)
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.file(FsStorage.open_write(path))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.file(FsStorage.create_new(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsStorage.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        FsStorage.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        FsStorage.sync_dir(dir)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        FsStorage.try_lock(path)
    }
}

impl StorageFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(offset, bytes)
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        self.0.forget_cached()
    }
}
