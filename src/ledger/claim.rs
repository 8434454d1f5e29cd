//! The first part of every open: the directory, the lock, and the manifest.

use std::io;
use std::path::Path;

use super::{LedgerError, Manifest, StoreLock, compress, recovery, segment};
use crate::options::Options;

/// A store that this process alone may write to, for as long as it holds the lock.
#[derive(Debug)]
#[non_exhaustive]
pub struct Claim {
    /// The lock.
    pub lock: StoreLock,
    /// What the store is.
    pub manifest: Manifest,
    /// Whether it was created.
    pub created: bool,
}

/// Creates the store's directory where it is missing, takes the lock, clears tmp/, sees to second forms of segments, and reads or writes the manifest.
/// The caller says whether a mirror is there: that too makes the directory a store.
///
/// # Errors
/// [`LedgerError::Locked`], [`LedgerError::NoStore`], what [`Manifest::load_or_create`] says, or [`LedgerError::Io`].
pub fn claim(dir: &Path, mirror_is_there: bool, options: &Options) -> Result<Claim, LedgerError> {
    let storage = options.storage.as_ref();
    if dir.exists() && !dir.is_dir() {
        return Err(LedgerError::NotADirectory { path: dir.to_owned() });
    }
    if !options.create && Manifest::load(storage, dir)?.is_none() && segment::list(storage, dir)?.is_empty() {
        return Err(LedgerError::NoStore { path: dir.to_owned() });
    }
    storage.create_dir(dir).map_err(LedgerError::io("creating", dir))?;
    let lock = StoreLock::acquire(storage, dir, options.lock_wait)?;
    clear_tmp(dir, options)?;
    compress::settle_doubles(dir, options)?;
    let (manifest, created) = Manifest::load_or_create(dir, mirror_is_there, options)?;
    recovery::check_genesis(storage, dir, &manifest, options.line_bytes_max)?;
    Ok(Claim { lock, manifest, created })
}

/// Makes the names of the directory and of those above it durable, before anything in it is: whoever created them, this
/// process or one that was killed, may not have done so. A directory that this user may not open was not created by it, and
/// neither was one that can't be fsynced at all, as those of squashfs, autofs and read-only file systems.
pub(super) fn sync_names_above(dir: &Path, options: &Options) -> Result<(), LedgerError> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    for above in std::path::absolute(dir).map_err(LedgerError::io("finding", dir))?.ancestors().skip(1) {
        match options.storage.sync_dir(above) {
            Err(error) if !matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported) => {
                return Err(LedgerError::io("syncing", above)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn clear_tmp(dir: &Path, options: &Options) -> Result<(), LedgerError> {
    let tmp = dir.join("tmp");
    let names = match options.storage.list(&tmp) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(LedgerError::io("listing", &tmp))?,
    };
    for name in names {
        let path = tmp.join(name);
        options.storage.remove(&path).map_err(LedgerError::io("removing", &path))?;
    }
    Ok(())
}
