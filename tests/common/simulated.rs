//! A disk that keeps what a program sees (live) apart from what a power cut leaves (durable), behind the storage trait.
//!
//! It is stricter than any file system that we know: fsync makes a file's bytes durable but not its name, a directory's
//! fsync makes its names durable but not the names of the directories above; what is not yet durable comes out of a cut
//! in any subset, sector by sector, name by name. The idea is SQLite's "crash test VFS" (sqlite.org/testing.html) and
//! ALICE's persistence model (Pillai et al., OSDI 2014).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use counterfoil::{Storage, StorageFile, StorageLock};

use super::Random;

/// What a disk is written in. A cut leaves each sector old, new, or something between.
pub const SECTOR: usize = 512;

/// Who decides what a cut leaves: a seed, or a script that goes through all possibilities in turn.
#[derive(Clone, Debug)]
pub enum Choices {
    Seeded(Random),
    Every { picks: Vec<(u64, u64)>, at: usize },
}

impl Choices {
    pub fn every() -> Choices {
        Choices::Every { picks: Vec::new(), at: 0 }
    }

    fn pick(&mut self, of: u64) -> u64 {
        match self {
            Choices::Seeded(random) => random.below(of),
            Choices::Every { picks, at } => {
                if *at == picks.len() {
                    picks.push((0, of));
                }
                *at += 1;
                picks[*at - 1].0
            }
        }
    }

    /// Goes on to the next possibility; false where all have been seen.
    pub fn advance(&mut self) -> bool {
        let Choices::Every { picks, at } = self else { return false };
        *at = 0;
        while let Some((pick, of)) = picks.pop() {
            if pick + 1 < of {
                picks.push((pick + 1, of));
                return true;
            }
        }
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(at, new) => {
                if bytes.len() < at + new.len() {
                    bytes.resize(at + new.len(), 0);
                }
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
            Change::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What has changed since the last fsync, in order.
    pending: Vec<Change>,
    /// Sectors of an fsync that failed: what is written to them is seen, and never durable, until the cache is dropped.
    stuck: BTreeSet<usize>,
}

impl Inode {
    /// The fsync succeeds: all that has changed is durable, but for what is stuck.
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            let before = self.durable.clone();
            change.apply(&mut self.durable);
            for sector in &self.stuck {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.durable.len());
                for at in range {
                    self.durable[at] = before.get(at).copied().unwrap_or(0);
                }
            }
        }
    }

    /// The fsync fails, as Linux has it: some of it has reached the disk, the pages count as clean from now on and go on to
    /// show what was written, and on ext4 even writing them again does not help (tests/disk_fails.rs). The length stays dirty.
    fn fail_to_sync(&mut self, image: Vec<u8>) {
        for change in &self.pending {
            if let Change::Write(at, bytes) = change {
                self.stuck.extend(at / SECTOR..=(at + bytes.len()).saturating_sub(1) / SECTOR);
            }
        }
        self.durable = image;
        self.pending = vec![Change::SetLen(self.live.len())];
    }

    /// What is not waiting to be written is read from the disk from now on.
    fn forget_cached(&mut self) {
        if self.pending.is_empty() {
            self.live = self.durable.clone();
            self.stuck.clear();
        }
    }
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The operation after so many more fails once, with this error. A write is short, an fsync loses what it was asked to keep.
    pub fail: Option<(u64, io::ErrorKind)>,
    /// After so many more operations the power is gone: nothing works until [`SimDisk::cut`].
    pub power: Option<u64>,
    /// No space is left: nothing can be created, reserved, or grow.
    pub full: bool,
    /// fsync says yes and does nothing.
    pub lies: bool,
    /// Sectors that were never written may come out of a cut as garbage.
    pub garbage: bool,
}

#[derive(Clone, Debug)]
struct World {
    root: PathBuf,
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Names that have changed since their directory's last fsync, in order.
    pending: Vec<(PathBuf, Option<Entry>)>,
    locked: BTreeSet<PathBuf>,
    choices: Choices,
    faults: Faults,
    operations: u64,
    syncs: u64,
}

/// The disk. Clones are the same disk; [`SimDisk::fork`] makes another.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<World>>);

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "simulated")
}

impl World {
    /// Counts an operation, and fails it where it is its turn.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.faults.power {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.faults.fail {
            Some((0, kind)) => {
                self.faults.fail = None;
                Err(error(kind))
            }
            Some((left, kind)) => {
                self.faults.fail = Some((left - 1, kind));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn powered(&self) -> io::Result<()> {
        if self.is_off() { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    fn set(&mut self, path: &Path, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.live.insert(path.to_owned(), entry),
            None => self.live.remove(path),
        };
        self.pending.push((path.to_owned(), entry));
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Dir) => Err(error(io::ErrorKind::IsADirectory)),
            None => Err(error(io::ErrorKind::NotFound)),
        }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path == self.root || !path.starts_with(&self.root) || self.live.get(path) == Some(&Entry::Dir)
    }

    fn change(&mut self, inode: usize, change: Change) {
        change.apply(&mut self.inodes[inode].live);
        self.inodes[inode].pending.push(change);
    }

    /// What a cut leaves of a file's bytes.
    fn bytes_after_cut(&mut self, inode: usize) -> Vec<u8> {
        let Inode { durable, pending, .. } = self.inodes[inode].clone();
        if pending.is_empty() {
            return durable;
        }
        let mut versions = vec![durable.clone()];
        for change in &pending {
            let mut next = versions.last().unwrap().clone();
            change.apply(&mut next);
            versions.push(next);
        }
        let mut lens: Vec<usize> = versions.iter().map(Vec::len).collect();
        lens.sort_unstable();
        lens.dedup();
        let seeded = matches!(self.choices, Choices::Seeded(_));
        if seeded && lens.len() > 1 {
            // A write may have come through in part.
            lens.push(lens[0] + self.choices.pick((lens[lens.len() - 1] - lens[0]) as u64) as usize);
        }
        let len = lens[self.choices.pick(lens.len() as u64) as usize];
        let mut image = vec![0; len];
        for from in (0..len).step_by(SECTOR) {
            let to = (from + SECTOR).min(len);
            let mut sectors: Vec<Vec<u8>> = Vec::new();
            for version in &versions {
                let mut sector = version.get(from..to.min(version.len())).unwrap_or_default().to_vec();
                sector.resize(to - from, 0);
                if !sectors.contains(&sector) {
                    sectors.push(sector);
                }
            }
            let mut sector = sectors[self.choices.pick(sectors.len() as u64) as usize].clone();
            if seeded && sectors.len() > 1 && self.choices.pick(4) == 0 {
                // Torn within the sector.
                let other = &sectors[self.choices.pick(sectors.len() as u64) as usize];
                let at = self.choices.pick(sector.len() as u64) as usize;
                sector[at..].copy_from_slice(&other[at..]);
            }
            if seeded && self.faults.garbage && from >= durable.len() && self.choices.pick(6) == 0 {
                sector.fill_with(|| self.choices.pick(256) as u8);
            }
            image[from..to].copy_from_slice(&sector);
        }
        image
    }

    fn cut(&mut self) {
        let mut changes: BTreeMap<PathBuf, Vec<Option<Entry>>> = BTreeMap::new();
        for (path, entry) in std::mem::take(&mut self.pending) {
            changes.entry(path).or_default().push(entry);
        }
        for (path, entries) in changes {
            // A name's changes come in order; how far each name has come is open.
            let applied = self.choices.pick(entries.len() as u64 + 1);
            match applied.checked_sub(1).map(|last| entries[last as usize]) {
                Some(Some(entry)) => drop(self.durable.insert(path, entry)),
                Some(None) => drop(self.durable.remove(&path)),
                None => {}
            }
        }
        let mut kept: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        for (path, entry) in &self.durable {
            // What lies in a directory whose own name is lost can't be reached.
            let parent = path.parent().unwrap_or(Path::new("/"));
            if parent == self.root || kept.get(parent) == Some(&Entry::Dir) {
                kept.insert(path.clone(), *entry);
            }
        }
        for inode in 0..self.inodes.len() {
            let reachable = kept.values().any(|entry| *entry == Entry::File(inode));
            let image = if reachable { self.bytes_after_cut(inode) } else { Vec::new() };
            self.inodes[inode] = Inode { live: image.clone(), durable: image, ..Inode::default() };
        }
        (self.live, self.durable) = (kept.clone(), kept);
        self.locked.clear();
        self.faults = Faults { garbage: self.faults.garbage, lies: self.faults.lies, ..Faults::default() };
    }

    fn is_off(&self) -> bool {
        self.faults.power == Some(0)
    }
}

impl SimDisk {
    pub fn new(root: &Path, choices: Choices) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(World {
            root: root.to_owned(),
            inodes: Vec::new(),
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            locked: BTreeSet::new(),
            choices,
            faults: Faults::default(),
            operations: 0,
            syncs: 0,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Another disk in the same state, with a future of its own.
    pub fn fork(&self, choices: Choices) -> SimDisk {
        let mut world = self.world().clone();
        world.choices = choices;
        world.locked.clear();
        SimDisk(Arc::new(Mutex::new(world)))
    }

    /// The choices that have been made.
    pub fn choices(&self) -> Choices {
        self.world().choices.clone()
    }

    /// Says what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world().faults);
    }

    /// Whether the power is gone.
    pub fn is_off(&self) -> bool {
        self.world().is_off()
    }

    /// How many operations there have been, and how many fsyncs of files.
    pub fn counts(&self) -> (u64, u64) {
        let world = self.world();
        (world.operations, world.syncs)
    }

    /// Cuts the power, and turns it on again: what was not durable is there, or not, or in part.
    pub fn cut(&self) {
        self.world().cut();
    }

    /// The process ends, the machine goes on: what it wrote is still seen, durable or not.
    pub fn kill(&self) {
        let mut world = self.world();
        world.locked.clear();
        world.faults = Faults { garbage: world.faults.garbage, lies: world.faults.lies, ..Faults::default() };
    }

    /// Whether a program sees bytes that the disk does not have and will not get: those of an fsync that failed.
    pub fn shows_what_is_lost(&self) -> bool {
        self.world().inodes.iter().any(|inode| !inode.stuck.is_empty())
    }

    /// The bytes of a file, as a program sees them.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        world.file(path).ok().map(|inode| world.inodes[inode].live.clone())
    }
}

impl Storage for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut world = self.world();
        if world.is_dir(path) {
            return world.powered().map(|()| false);
        }
        world.operate()?;
        if world.faults.full {
            return Err(error(io::ErrorKind::StorageFull));
        }
        let missing: Vec<PathBuf> = path.ancestors().filter(|dir| !world.is_dir(dir)).map(Path::to_owned).collect();
        for dir in missing.iter().rev() {
            world.set(dir, Some(Entry::Dir));
        }
        Ok(true)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut world = self.world();
        if !world.is_dir(dir) {
            return Err(error(io::ErrorKind::NotFound));
        }
        world.operate()?;
        let names = world.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut world = self.world();
        let inode = world.file(path)?;
        world.operate()?;
        Ok(Box::new(SimFile(self.clone(), inode)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.open_read(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut world = self.world();
        world.operate()?;
        if world.live.contains_key(path) {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        if !path.parent().is_some_and(|dir| world.is_dir(dir)) {
            return Err(error(io::ErrorKind::NotFound));
        }
        if world.faults.full {
            return Err(error(io::ErrorKind::StorageFull));
        }
        world.inodes.push(Inode::default());
        let inode = world.inodes.len() - 1;
        world.set(path, Some(Entry::File(inode)));
        Ok(Box::new(SimFile(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let inode = world.file(from)?;
        world.operate()?;
        world.set(to, Some(Entry::File(inode)));
        world.set(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.file(path)?;
        world.operate()?;
        world.set(path, None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.is_dir(dir) {
            return Err(error(io::ErrorKind::NotFound));
        }
        // Names go through a journal: a failed fsync of a directory leaves them to the next one.
        world.operate()?;
        if world.faults.lies {
            return Ok(());
        }
        let (done, pending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut world.pending).into_iter().partition(|(path, _)| path.parent() == Some(dir));
        world.pending = pending;
        for (path, entry) in done {
            match entry {
                Some(entry) => drop(world.durable.insert(path, entry)),
                None => drop(world.durable.remove(&path)),
            }
        }
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        let mut world = self.world();
        world.operate()?;
        Ok(world.locked.insert(path.to_owned()).then(|| Box::new(SimLock(self.clone(), path.to_owned())) as Box<dyn StorageLock>))
    }
}

#[derive(Debug)]
struct SimLock(SimDisk, PathBuf);

impl StorageLock for SimLock {
    fn write_text(&mut self, _text: &str) -> io::Result<()> {
        self.0.world().operate()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world().locked.remove(&self.1);
    }
}

#[derive(Debug)]
struct SimFile(SimDisk, usize);

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let world = self.0.world();
        world.powered()?;
        Ok(world.inodes[self.1].live.len() as u64)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.0.world();
        world.operate()?;
        let bytes = world.inodes[self.1].live.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.0.world();
        let grows = offset as usize + bytes.len() > world.inodes[self.1].live.len();
        let failed = world.operate().err().or_else(|| (world.faults.full && grows).then(|| error(io::ErrorKind::StorageFull)));
        match failed {
            None => world.change(self.1, Change::Write(offset as usize, bytes.to_vec())),
            // Short: some of it may have been written.
            Some(failed) if world.is_off() => return Err(failed),
            Some(failed) => {
                let written = world.choices.pick(bytes.len() as u64 + 1) as usize;
                if written > 0 {
                    world.change(self.1, Change::Write(offset as usize, bytes[..written].to_vec()));
                }
                return Err(failed);
            }
        }
        Ok(())
    }

    fn reserve(&mut self, _offset: u64, _bytes: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.operate()?;
        if world.faults.full { Err(error(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.operate()?;
        if world.inodes[self.1].live.len() as u64 != bytes {
            world.change(self.1, Change::SetLen(bytes as usize));
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut world = self.0.world();
        world.syncs += 1;
        if let Err(failed) = world.operate() {
            if !world.is_off() {
                let image = world.bytes_after_cut(self.1);
                world.inodes[self.1].fail_to_sync(image);
            }
            return Err(failed);
        }
        if !world.faults.lies {
            world.inodes[self.1].sync();
        }
        Ok(())
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        let mut world = self.0.world();
        world.operate()?;
        world.inodes[self.1].forget_cached();
        Ok(())
    }
}
