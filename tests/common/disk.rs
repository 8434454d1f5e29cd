//! A disk that fails when it is told to: the file system behind the storage trait, with switches.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use counterfoil::{FsStorage, Options, Storage, StorageFile, StorageLock};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Write,
    Sync,
    SyncDir,
    Reserve,
    Create,
    SetLen,
    OpenRead,
}

#[derive(Debug, Default)]
pub struct Switches {
    /// What fails, with which error, after how many more successes, and how many bytes a failing write still writes.
    fail: Mutex<Option<(Op, io::ErrorKind, usize, usize)>>,
    once: AtomicBool,
    skip_sync: AtomicBool,
    pub reserves: AtomicUsize,
    pub syncs: AtomicUsize,
    pub dir_syncs: AtomicUsize,
    /// The name of a file that can't be opened to be read.
    pub unreadable: Mutex<String>,
    /// Bytes that were read.
    pub read: AtomicUsize,
}

impl Switches {
    pub fn fail(&self, op: Op, kind: io::ErrorKind) {
        *self.fail.lock().unwrap() = Some((op, kind, 0, 0));
    }

    /// Fails once, after so many successes.
    pub fn fail_once(&self, op: Op, kind: io::ErrorKind, after: usize) {
        self.once.store(true, SeqCst);
        *self.fail.lock().unwrap() = Some((op, kind, after, 0));
    }

    /// Whether what was to fail once has not yet.
    pub fn is_armed(&self) -> bool {
        self.fail.lock().unwrap().is_some()
    }

    /// The next write writes only so many bytes, then fails.
    pub fn tear(&self, bytes: usize) {
        *self.fail.lock().unwrap() = Some((Op::Write, io::ErrorKind::Other, 0, bytes));
    }

    pub fn heal(&self) {
        *self.fail.lock().unwrap() = None;
    }

    fn check(&self, op: Op) -> Result<(), (io::Error, usize)> {
        let mut fail = self.fail.lock().unwrap();
        match &mut *fail {
            Some((failing, kind, after, written)) if *failing == op => match after.checked_sub(1) {
                Some(left) => {
                    *after = left;
                    Ok(())
                }
                None => {
                    let error = (io::Error::new(*kind, format!("{op:?} fails, as told")), *written);
                    if self.once.swap(false, SeqCst) {
                        *fail = None;
                    }
                    Err(error)
                }
            },
            _ => Ok(()),
        }
    }

    fn at(&self, op: Op) -> io::Result<()> {
        self.check(op).map_err(|(error, _)| error)
    }
}

/// The file system, with switches.
#[derive(Debug, Default)]
pub struct Disk(pub Arc<Switches>);

/// Puts such a disk under these options.
pub fn faulty(options: &mut Options) -> Arc<Switches> {
    let switches = Arc::new(Switches::default());
    options.storage = Arc::new(Disk(switches.clone()));
    switches
}

/// Puts a disk under these options whose fsync does nothing: for tests that open a store thousands of times, and
/// whose crash is an edited file.
pub fn without_sync(options: &mut Options) {
    faulty(options).skip_sync.store(true, SeqCst);
}

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        FsStorage.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsStorage.list(dir)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.0.at(Op::OpenRead)?;
        if path.file_name().is_some_and(|name| name == self.0.unreadable.lock().unwrap().as_str()) {
            return Err(io::Error::other("it can't be read, as told"));
        }
        Ok(Box::new(DiskFile(FsStorage.open_read(path)?, self.0.clone())))
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DiskFile(FsStorage.open_write(path)?, self.0.clone())))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.0.at(Op::Create)?;
        Ok(Box::new(DiskFile(FsStorage.create_new(path)?, self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsStorage.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        FsStorage.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.dir_syncs.fetch_add(1, SeqCst);
        self.0.at(Op::SyncDir)?;
        if self.0.skip_sync.load(SeqCst) { Ok(()) } else { FsStorage.sync_dir(dir) }
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        FsStorage.try_lock(path)
    }
}

#[derive(Debug)]
struct DiskFile(Box<dyn StorageFile>, Arc<Switches>);

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, offset)?;
        self.1.read.fetch_add(read, SeqCst);
        Ok(read)
    }
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Err((error, written)) = self.1.check(Op::Write) {
            self.0.write_at(&bytes[..written.min(bytes.len())], offset)?;
            return Err(error);
        }
        self.0.write_at(bytes, offset)
    }
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.1.reserves.fetch_add(1, SeqCst);
        self.1.at(Op::Reserve)?;
        self.0.reserve(offset, bytes)
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.1.at(Op::SetLen)?;
        self.0.set_len(bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, SeqCst);
        self.1.at(Op::Sync)?;
        if self.1.skip_sync.load(SeqCst) { Ok(()) } else { self.0.sync_data() }
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        if self.1.skip_sync.load(SeqCst) { Ok(()) } else { self.0.forget_cached() }
    }
}
