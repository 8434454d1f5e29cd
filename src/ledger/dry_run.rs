//! A disk that can only be read: what is written to it is dropped, and said to have gone well. Recovery that runs
//! over it finds what a real one would find, and changes nothing. Called by the store's forecast.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::storage::{Storage, StorageFile, StorageLock};

/// Reads pass through; writes are dropped.
#[derive(Debug)]
pub(crate) struct DryRun(pub Arc<dyn Storage>);

#[derive(Debug)]
struct DryFile(Option<Box<dyn StorageFile>>);

#[derive(Debug)]
struct DryLock;

impl Storage for DryRun {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(!path.is_dir())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        match self.0.list(dir) {
            // It may have been "created" just before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        self.0.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DryFile(Some(self.0.open_read(path)?))))
    }

    fn create_new(&self, _: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(DryFile(None)))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        Ok(Some(Box::new(DryLock)))
    }
}

impl StorageLock for DryLock {
    fn write_text(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

impl StorageFile for DryFile {
    fn len(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), |file| file.len())
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |file| file.read_at(buffer, offset))
    }

    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }
}
