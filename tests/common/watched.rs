//! A disk that watches how segments are written, and that can be made to hold its fsyncs: the file system behind the
//! storage trait.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use counterfoil::{FsStorage, Options, Storage, StorageFile, StorageLock};

/// What has been seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Fsyncs of segments: on LedgerActor's own thread, and on its flusher's.
    pub own: u64,
    pub flusher: u64,
    /// What was wrong with the order of writes and fsyncs.
    pub wrong: Vec<String>,
    /// Each open to write is a writer's; what an earlier one writes after that is wrong.
    writer: u64,
    /// It has appended a group: from then on nothing that stands is written again.
    appended: bool,
    /// How far the segment is written, and how far of that is fsynced.
    written: u64,
    synced: u64,
    busy: bool,
    /// Fsyncs wait while it is held; of the flusher's thread, those alone.
    held: bool,
    held_by_flusher: bool,
    waiting: bool,
    /// The fsync of the flusher, counted from the next one, that fails or panics.
    fail: Option<(u64, bool)>,
}

#[derive(Debug, Default)]
pub struct Watched {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Watched {
    /// Puts such a disk under these options.
    pub fn under(options: &mut Options) -> Arc<Watched> {
        let watched = Arc::new(Watched::default());
        options.storage = Arc::new(Disk(watched.clone()));
        watched
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Holds all fsyncs of segments from now on, or lets them go.
    pub fn hold(&self, held: bool) {
        self.seen.lock().unwrap().held = held;
        self.changed.notify_all();
    }

    /// Holds those of the flusher from now on, or lets them go.
    pub fn hold_flusher(&self, held: bool) {
        self.seen.lock().unwrap().held_by_flusher = held;
        self.changed.notify_all();
    }

    /// Whether an fsync is being held.
    pub fn is_waiting(&self) -> bool {
        self.seen.lock().unwrap().waiting
    }

    /// Lets a later fsync of the flusher fail, or panic.
    pub fn fail(&self, after: u64, panics: bool) {
        self.seen.lock().unwrap().fail = Some((after, panics));
    }

    fn begin(&self, writer: u64, what: &str) {
        let mut seen = self.seen.lock().unwrap();
        if seen.writer != writer {
            let later = seen.writer;
            seen.wrong.push(format!("writer {writer} {what} though writer {later} has the segment"));
        }
        if std::mem::replace(&mut seen.busy, true) {
            seen.wrong.push(format!("writer {writer} {what} while another call was under way"));
        }
    }

    fn end(&self) {
        self.seen.lock().unwrap().busy = false;
    }

    fn sync(&self) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        let by_flusher = std::thread::current().name() == Some("counterfoil-flusher");
        *(if by_flusher { &mut seen.flusher } else { &mut seen.own }) += 1;
        let is_held = |seen: &Seen| seen.held || by_flusher && seen.held_by_flusher;
        seen.waiting = is_held(&seen);
        while is_held(&seen) {
            seen = self.changed.wait(seen).unwrap();
        }
        seen.waiting = false;
        match &mut seen.fail {
            Some((0, panics)) if by_flusher => {
                let panics = *panics;
                seen.fail = None;
                seen.busy = false;
                drop(seen);
                assert!(!panics, "the flusher panics, as told");
                Err(io::Error::other("the fsync fails, as told"))
            }
            Some((after, _)) if by_flusher => {
                *after -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Disk(Arc<Watched>);

impl Disk {
    fn opened(&self, file: Box<dyn StorageFile>, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            return Ok(file);
        }
        let len = file.len()?;
        let mut seen = self.0.seen.lock().unwrap();
        seen.writer += 1;
        (seen.written, seen.synced, seen.appended) = (len, len, false);
        Ok(Box::new(SegmentFile { file, writer: seen.writer, watched: self.0.clone() }))
    }
}

impl Storage for Disk {
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
        self.opened(FsStorage.open_write(path)?, path)
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.opened(FsStorage.create_new(path)?, path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsStorage.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        FsStorage.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        FsStorage.sync_dir(dir)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        FsStorage.try_lock(path)
    }
}

#[derive(Debug)]
struct SegmentFile {
    file: Box<dyn StorageFile>,
    writer: u64,
    watched: Arc<Watched>,
}

impl StorageFile for SegmentFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.watched.begin(self.writer, "writes");
        let done = self.file.write_at(bytes, offset);
        let mut seen = self.watched.seen.lock().unwrap();
        // Recovery writes again what is there; a group comes behind what is there, and all of that is fsynced; blank lines
        // come behind the group.
        let (written, synced) = (seen.written, seen.synced);
        if bytes.first() == Some(&b'{') && offset >= written {
            if offset != written || written != synced {
                seen.wrong.push(format!("a group at {offset} behind {written} bytes, {synced} of them fsynced"));
            }
            (seen.written, seen.appended) = (offset + bytes.len() as u64, true);
        } else if seen.appended && offset < written {
            seen.wrong.push(format!("a write at {offset}, though {written} bytes stand"));
        }
        drop(seen);
        self.watched.end();
        done
    }
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.reserve(offset, bytes)
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut seen = self.watched.seen.lock().unwrap();
        seen.written = seen.written.min(bytes);
        seen.synced = seen.synced.min(bytes);
        drop(seen);
        self.file.set_len(bytes)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.watched.begin(self.writer, "fsyncs");
        self.watched.sync()?;
        let done = self.file.sync_data();
        let mut seen = self.watched.seen.lock().unwrap();
        seen.synced = seen.written;
        drop(seen);
        self.watched.end();
        done
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        self.file.forget_cached()
    }
}
