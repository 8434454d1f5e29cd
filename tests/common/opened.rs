//! A disk whose files are put into something else as they are opened: the file system behind the storage trait.

use std::fmt;
use std::io;
use std::path::Path;

use counterfoil::{FileIdentity, FsStorage, Storage, StorageFile, StorageLock};

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
