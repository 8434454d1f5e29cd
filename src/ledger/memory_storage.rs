//! A disk that is memory, for tests of programs that embed a store: no fsync, and a power cut when it is asked for.
//!
//! Used by whoever puts it into [`Options::storage`](crate::Options::storage). No store of the crate's own uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{FileIdentity, Storage, StorageFile, StorageLock, create_dir_private};

/// A disk that keeps the ledger's files in memory: for tests. Clones are the same disk.
///
/// It forgets in a power cut ([`MemoryStorage::lose_unsynced`]) what was not made durable, as a disk may, so that a test can see that
/// what was acknowledged is there afterwards. It is no proof of durability; what this crate's own tests use for that is stricter
/// (`tests/common/simulated.rs`).
///
/// **The mirror is not on it.** That is a file of SQLite's own, and lies on the real disk in the directory that the store is opened
/// in; so do [snapshots of entities](crate::entity::Snapshots). Give each test a directory of its own, such as one of the crate
/// `tempfile`; directories are made on the real disk too. A power cut does not touch the mirror, which is the same as one
/// whose rows had all reached the disk. `counterfoil` and other processes see no ledger there.
///
/// ```
/// use counterfoil::{Draft, EventType, MemoryStorage, Options, Source, Store};
/// let dir = tempfile::tempdir()?; // for the mirror
/// let disk = MemoryStorage::new();
/// let mut options = Options::default();
/// options.storage = std::sync::Arc::new(disk.clone());
///
/// let (mut store, _) = Store::open(dir.path(), &options)?;
/// store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).payload("hello")?)?;
/// let after = disk.lose_unsynced(); // the power goes: this store has no disk any more
/// assert!(store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime)).is_err());
/// drop(store);
///
/// options.storage = std::sync::Arc::new(after.clone());
/// let (store, _) = Store::open(dir.path(), &options)?;
/// assert_eq!(store.head().seq.get(), 1); // what was acknowledged is there
/// let segment = dir.path().join("segments/00000000000000000001.jsonl");
/// assert!(after.read(&segment).is_some_and(|bytes| bytes.ends_with(b"\n")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStorage(Arc<Disk>);

#[derive(Debug)]
struct Disk {
    /// Tells it from others in a [`FileIdentity`].
    number: u64,
    /// The power was cut: nothing works any more.
    is_off: AtomicBool,
    /// Of changes, and of files.
    counter: AtomicU64,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<PathBuf, Arc<File>>,
    durable: BTreeMap<PathBuf, Arc<File>>,
    locked: BTreeSet<PathBuf>,
    /// The next fsync of a file fails with this error.
    failing_sync: Option<io::ErrorKind>,
}

#[derive(Debug)]
struct File {
    number: u64,
    bytes: Mutex<Bytes>,
}

#[derive(Clone, Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    /// How long it is in a power cut.
    durable_len: usize,
    /// What was there of the durable bytes before each change since the last fsync, in order.
    replaced: Vec<(usize, Vec<u8>)>,
    /// The last change.
    changed: u64,
}

impl Bytes {
    /// Keeps what is durable of these bytes, which are about to change.
    fn keep(&mut self, from: usize, to: usize) {
        if let Some(old) = self.live.get(from..to.min(self.durable_len).min(self.live.len())).filter(|old| !old.is_empty()) {
            self.replaced.push((from, old.to_vec()));
        }
    }

    fn lose_unsynced(&mut self) {
        let replaced = std::mem::take(&mut self.replaced);
        self.live.resize(self.durable_len, 0);
        for (at, old) in replaced.into_iter().rev() {
            if let Some(place) = self.live.get_mut(at..at + old.len()) {
                place.copy_from_slice(&old);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn in_memory(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

impl Default for MemoryStorage {
    fn default() -> MemoryStorage {
        MemoryStorage::new()
    }
}

impl MemoryStorage {
    /// An empty disk, which nobody else has.
    pub fn new() -> MemoryStorage {
        static DISKS: AtomicU64 = AtomicU64::new(1);
        MemoryStorage(Arc::new(Disk {
            number: DISKS.fetch_add(1, Ordering::Relaxed),
            is_off: AtomicBool::new(false),
            counter: AtomicU64::new(1),
            names: Mutex::default(),
        }))
    }

    /// A power cut. Answers the disk as it is afterwards: files have the bytes that their last fsync made durable, directories the names
    /// that theirs did, and nothing is locked. This one, and all that has files of it open, gets errors from then on, so that a
    /// store that lives acknowledges nothing more: close it, or drop it, before another is opened in its directory.
    #[must_use = "this disk is dead; the one that it answers is what is left of it"]
    pub fn lose_unsynced(&self) -> MemoryStorage {
        let names = locked(&self.0.names);
        self.0.is_off.store(true, Ordering::SeqCst);
        let after = |file: &Arc<File>| {
            let mut bytes = locked(&file.bytes).clone();
            bytes.lose_unsynced();
            // What was lost is a change.
            bytes.changed = self.0.next();
            Arc::new(File { number: file.number, bytes: Mutex::new(bytes) })
        };
        let durable: BTreeMap<_, _> = names.durable.iter().map(|(path, file)| (path.clone(), after(file))).collect();
        let counter = AtomicU64::new(self.0.counter.load(Ordering::Relaxed));
        let names = Names { live: durable.clone(), durable, ..Names::default() };
        MemoryStorage(Arc::new(Disk { number: self.0.number, is_off: AtomicBool::new(false), counter, names: Mutex::new(names) }))
    }

    /// Lets the next fsync of a file fail, once, with an error of this kind: the store that asked for it is poisoned.
    pub fn fail_next_sync(&self, kind: io::ErrorKind) {
        locked(&self.0.names).failing_sync = Some(kind);
    }

    /// The bytes of a file, as programs see them; nothing where there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let file = locked(&self.0.names).live.get(&*absolute(path).ok()?)?.clone();
        let bytes = locked(&file.bytes).live.clone();
        Some(bytes)
    }

    /// Every file that there is, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        locked(&self.0.names).live.keys().cloned().collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let file = self.0.names()?.live.get(&*absolute(path)?).ok_or_else(not_found)?.clone();
        Ok(self.opened(file))
    }

    fn opened(&self, file: Arc<File>) -> Box<dyn StorageFile> {
        Box::new(MemoryFile { disk: self.0.clone(), file })
    }

    fn file(&self) -> Arc<File> {
        Arc::new(File { number: self.0.next(), bytes: Mutex::default() })
    }
}

impl Disk {
    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn check_powered(&self) -> io::Result<()> {
        if self.is_off.load(Ordering::SeqCst) { Err(io::Error::other("the power was cut")) } else { Ok(()) }
    }

    /// The names, as long as there is power.
    fn names(&self) -> io::Result<MutexGuard<'_, Names>> {
        let names = locked(&self.names);
        self.check_powered()?;
        Ok(names)
    }
}

/// One name a file, however its directory is written.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

impl Storage for MemoryStorage {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.0.check_powered()?;
        let is_missing = !path.is_dir();
        if is_missing {
            create_dir_private(path)?;
        }
        Ok(is_missing)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !dir.is_dir() {
            return Err(not_found());
        }
        let dir = absolute(dir)?;
        let names = self.0.names()?;
        let inside = names.live.keys().filter(|path| path.parent() == Some(&dir)).filter_map(|path| path.file_name());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.open(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        if !path.parent().is_some_and(Path::is_dir) {
            return Err(not_found());
        }
        let path = absolute(path)?;
        let mut names = self.0.names()?;
        if names.live.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.file();
        names.live.insert(path, file.clone());
        Ok(self.opened(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (absolute(from)?, absolute(to)?);
        let mut names = self.0.names()?;
        let file = names.live.remove(&from).ok_or_else(not_found)?;
        names.live.insert(to, file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.names()?.live.remove(&*absolute(path)?).map(drop).ok_or_else(not_found)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if !dir.is_dir() {
            return Err(not_found());
        }
        let dir = absolute(dir)?;
        let names = &mut *self.0.names()?;
        let is_inside = |path: &PathBuf| path.parent() == Some(&*dir);
        names.durable.retain(|path, _| !is_inside(path));
        let now = names.live.iter().filter(|(path, _)| is_inside(path));
        names.durable.extend(now.map(|(path, file)| (path.clone(), file.clone())));
        Ok(())
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        let file = self.0.names()?.live.get(&*absolute(path)?).ok_or_else(not_found)?.clone();
        let bytes = locked(&file.bytes);
        let changed = bytes.changed.cast_signed();
        Ok(Some(FileIdentity {
            device: self.0.number,
            inode: file.number,
            bytes: bytes.live.len() as u64,
            modified_ns: changed,
            changed_ns: changed,
        }))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        let path = absolute(path)?;
        let mut names = self.0.names()?;
        if !names.locked.insert(path.clone()) {
            return Ok(None);
        }
        names.live.entry(path.clone()).or_insert_with(|| self.file());
        Ok(Some(Box::new(MemoryLock { disk: self.0.clone(), path })))
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: Arc<Disk>,
    path: PathBuf,
}

impl StorageLock for MemoryLock {
    fn write_text(&mut self, text: &str) -> io::Result<()> {
        let file = self.disk.names()?.live.get(&self.path).ok_or_else(not_found)?.clone();
        let mut file = MemoryFile { disk: self.disk.clone(), file };
        file.set_len(0)?;
        file.write_at(text.as_bytes(), 0)
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        locked(&self.disk.names).locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Disk>,
    file: Arc<File>,
}

impl MemoryFile {
    /// Its bytes. Asked for behind the lock: a power cut takes each file's once the disk is off.
    fn bytes(&self) -> io::Result<MutexGuard<'_, Bytes>> {
        let bytes = locked(&self.file.bytes);
        self.disk.check_powered()?;
        Ok(bytes)
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes()?.live.len() as u64)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes()?;
        let there = bytes.live.get(in_memory(offset)?..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn write_at(&mut self, written: &[u8], offset: u64) -> io::Result<()> {
        let from = in_memory(offset)?;
        let to = from.checked_add(written.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = self.bytes()?;
        bytes.keep(from, to);
        if bytes.live.len() < to {
            bytes.live.resize(to, 0);
        }
        if let Some(place) = bytes.live.get_mut(from..to) {
            place.copy_from_slice(written);
        }
        bytes.changed = self.disk.next();
        Ok(())
    }

    fn reserve(&mut self, _: u64, _: u64) -> io::Result<()> {
        self.bytes().map(drop)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = in_memory(len)?;
        let mut bytes = self.bytes()?;
        bytes.keep(len, usize::MAX);
        bytes.live.resize(len, 0);
        bytes.changed = self.disk.next();
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if let Some(kind) = self.disk.names()?.failing_sync.take() {
            return Err(kind.into());
        }
        let mut bytes = self.bytes()?;
        bytes.durable_len = bytes.live.len();
        bytes.replaced.clear();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test
mod tests {
    use super::*;

    #[test]
    fn what_is_synced_stays_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let disk = MemoryStorage::new();
        let mut file = disk.create_new(&one).unwrap();
        file.write_at(b"0123456789", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(dir.path()).unwrap();
        // Overwritten, cut, written again and grown: none of it synced.
        file.write_at(b"ab", 3).unwrap();
        file.set_len(4).unwrap();
        file.write_at(b"wxyz", 2).unwrap();
        file.write_at(b"hole", 20).unwrap();
        file.set_len(1).unwrap();
        file.write_at(b"longer than it was before", 1).unwrap();
        disk.create_new(&two).unwrap().sync_data().unwrap();
        disk.remove(&one).unwrap();
        assert_eq!((disk.read(&one), disk.files()), (None, vec![two.clone()]));

        let before = disk;
        let disk = before.lose_unsynced();
        assert_eq!((disk.read(&one).as_deref(), disk.read(&two)), (Some(&b"0123456789"[..]), None));
        assert!(file.write_at(b"x", 0).is_err() && file.len().is_err() && file.sync_data().is_err());
        assert!(before.open_read(&one).is_err() && before.create_new(&one).is_err() && before.sync_dir(dir.path()).is_err());
        disk.rename(&one, &two).unwrap();
        disk.sync_dir(dir.path()).unwrap();
        assert_eq!(disk.lose_unsynced().files(), vec![two]);
    }

    #[test]
    fn a_lock_is_held_once_and_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = (dir.path().join("LOCK"), MemoryStorage::new());
        let mut lock = disk.try_lock(&path).unwrap().unwrap();
        lock.write_text("1234").unwrap();
        lock.write_text("56").unwrap();
        assert!(disk.clone().try_lock(&path).unwrap().is_none() && MemoryStorage::new().try_lock(&path).unwrap().is_some());
        assert_eq!(disk.read(&path).as_deref(), Some(&b"56"[..]));
        let disk = disk.lose_unsynced();
        let now = disk.try_lock(&path).unwrap().unwrap();
        // The one of before the cut is none any more.
        drop(lock);
        assert!(disk.try_lock(&path).unwrap().is_none());
        drop(now);
        assert!(disk.try_lock(&path).unwrap().is_some());
    }
}
