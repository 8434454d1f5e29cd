//! A disk whose files are put into something else as they are opened: the file system behind the storage trait.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use counterfoil::{FileIdentity, FsStorage, Options, Storage, StorageFile, StorageLock};

/// What `wrap` makes of each file that is opened or created.
pub struct Opened<W>(pub W);

impl<W> fmt::Debug for Opened<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

impl<W: Fn(&Path, Box<dyn StorageFile>) -> Box<dyn StorageFile> + Send + Sync> Storage for Opened<W> {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        FsStorage.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsStorage.list(dir)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok((self.0)(path, FsStorage.open_read(path)?))
    }
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok((self.0)(path, FsStorage.open_write(path)?))
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok((self.0)(path, FsStorage.create_new(path)?))
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
    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        FsStorage.identity(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        FsStorage.try_lock(path)
    }
}

/// A file that is read through this, which is handed the file, what is to be filled, and from which offset. All else is the file's own.
pub struct Through<R>(pub Box<dyn StorageFile>, pub R);

impl<R> fmt::Debug for Through<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Through")
    }
}

impl<R: FnMut(&mut dyn StorageFile, &mut [u8], u64) -> io::Result<usize> + Send> StorageFile for Through<R> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.1)(self.0.as_mut(), buffer, offset)
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
        self.0.sync_data()
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        self.0.forget_cached()
    }
}

/// A file, and how many bytes were read of it and of others like it; it is not fsynced.
#[derive(Debug)]
struct Counting(Box<dyn StorageFile>, Arc<AtomicU64>);

impl StorageFile for Counting {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, offset)?;
        self.1.fetch_add(read as u64, SeqCst);
        Ok(read)
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
        Ok(())
    }
}

/// Options whose reads of segments are counted, in bytes.
pub fn counting(options: &Options) -> (Options, Arc<AtomicU64>) {
    let bytes = Arc::new(AtomicU64::new(0));
    let (mut counted, count) = (options.clone(), bytes.clone());
    let wrap = move |path: &Path, file: Box<dyn StorageFile>| -> Box<dyn StorageFile> {
        let is_segment = path.parent().is_some_and(|dir| dir.ends_with("segments"));
        if is_segment { Box::new(Counting(file, count.clone())) } else { file }
    };
    counted.storage = Arc::new(Opened(wrap));
    (counted, bytes)
}
