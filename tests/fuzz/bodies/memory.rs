//! A disk that is memory: thousands of stores a second.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use counterfoil::{Storage, StorageFile, StorageLock};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
pub struct Memory(Mutex<Tree>);

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<PathBuf, Bytes>,
    dirs: BTreeSet<PathBuf>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Puts a file there, and the directories that hold it.
    pub fn put(&self, path: &Path, bytes: impl Into<Vec<u8>>) {
        let mut tree = locked(&self.0);
        tree.dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
        tree.files.insert(path.to_owned(), Arc::new(Mutex::new(bytes.into())));
    }

    /// Every file, by its path.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        locked(&self.0).files.iter().map(|(path, bytes)| (path.clone(), locked(bytes).clone())).collect()
    }

    fn file(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        match locked(&self.0).files.get(path) {
            Some(bytes) => Ok(Box::new(MemoryFile(bytes.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Storage for Memory {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut tree = locked(&self.0);
        let missing = !tree.dirs.contains(path);
        tree.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(missing)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let tree = locked(&self.0);
        if !tree.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entries = tree.files.keys().chain(&tree.dirs).filter(|path| path.parent() == Some(dir));
        Ok(entries.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.file(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.file(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut tree = locked(&self.0);
        if !path.parent().is_some_and(|parent| tree.dirs.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if tree.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Bytes::default();
        tree.files.insert(path.to_owned(), bytes.clone());
        Ok(Box::new(MemoryFile(bytes)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tree = locked(&self.0);
        let bytes = tree.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tree.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        locked(&self.0).files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if locked(&self.0).dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.put(path, Vec::new());
        Ok(Some(Box::new(MemoryLock)))
    }
}

#[derive(Debug)]
struct MemoryLock;

impl StorageLock for MemoryLock {
    fn write_text(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile(Bytes);

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = locked(&self.0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn write_at(&mut self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = locked(&self.0);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        assert!(from <= bytes.len(), "a write at {from} leaves a hole behind byte {}", bytes.len());
        let end = from + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(written);
        Ok(())
    }

    fn reserve(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        locked(&self.0).resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }
}
