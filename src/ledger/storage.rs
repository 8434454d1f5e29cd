//! The seam between the ledger and the disk: all of the ledger's file I/O goes through [`Storage`], so that a
//! test can be the disk. The mirror's file is SQLite's own affair and does not pass here.

use std::fmt;
use std::fs::{self, File, OpenOptions};
#[cfg(not(unix))]
use std::io::Read;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use crate::event::Timestamp;

/// A directory tree that files can be made durable in.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Creates a directory and its parents where they are missing; answers whether it was missing.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// Names of the entries of a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file to read.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Opens a file that exists, to read and write.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Creates a file that does not exist yet, to read and write.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// What tells whether a file is the one that it was. Nothing where this disk can't say.
    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        let _ = path;
        Ok(None)
    }
    /// Takes the exclusive lock of a file, which is created where it is missing. Nothing where another holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>>;
}

/// Which file it is, how long, and when it was changed last. A change in place that leaves all of it as it was does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as `stat` has them
pub struct FileIdentity {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    pub modified_ns: i64,
    pub changed_ns: i64,
}

/// A file that was changed so lately may be changed again without its times showing it.
const SETTLED_AFTER_US: i64 = 2_000_000;

impl FileIdentity {
    /// Whether a change that comes now would show in its times.
    pub(crate) fn is_settled(&self, now: Timestamp) -> bool {
        now.as_micros().saturating_sub(self.modified_ns.max(self.changed_ns) / 1000) >= SETTLED_AFTER_US
    }
}

/// A lock that is held until it is dropped.
pub trait StorageLock: fmt::Debug + Send + Sync {
    /// Replaces the text in the locked file.
    fn write_text(&mut self, text: &str) -> io::Result<()>;
}

/// An open file.
#[allow(clippy::len_without_is_empty)] // a length in bytes, which fails; nobody asks whether a file is empty
pub trait StorageFile: fmt::Debug + Send {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes at an offset; 0 at the end.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at an offset, growing the file where needed.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves space without changing the length, so that a full disk shows itself before a byte is written.
    /// A disk that can't do that says `Unsupported`.
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Cuts or grows it to a length, and releases what was reserved behind that.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes its bytes (and its length) durable.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Drops what the system remembers of its bytes, so that the disk is asked for them again. A disk that remembers
    /// nothing has nothing to do.
    fn forget_cached(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file system. What it creates is for its owner alone, and it never writes through a symbolic link.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsStorage;

/// For a file that is written: the owner's alone where it is created, and no symbolic link.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

/// For a file that is read: what is no regular file is not waited for, as a pipe without a writer would be.
fn unblocked(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options
}

/// An open file behind the trait. A pipe, a socket or a device is refused: it has no end to read to, and keeps nothing.
pub(crate) fn fs_file(file: File) -> io::Result<Box<dyn StorageFile>> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        return Ok(Box::new(FsFile(file)));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file, but a pipe, a socket or a device"))
}

/// Creates a directory and its parents where they are missing, for its owner alone.
pub(crate) fn create_dir_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

impl Storage for FsStorage {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        create_dir_private(path).map(|()| true)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        fs_file(unblocked(OpenOptions::new().read(true)).open(path)?)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        fs_file(private(OpenOptions::new().read(true).write(true)).open(path)?)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(FsFile(private(OpenOptions::new().read(true).write(true).create_new(true)).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Windows can't open a directory as a file, and makes entries durable with the file itself.
        if cfg!(windows) { Ok(()) } else { File::open(dir)?.sync_all() }
    }

    #[cfg(unix)]
    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path)?;
        let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Ok(Some(FileIdentity {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn StorageLock>>> {
        let file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(FsLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct FsLock(File);

impl StorageLock for FsLock {
    fn write_text(&mut self, text: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(text.as_bytes())
    }
}

impl Drop for FsLock {
    /// Closing alone is not enough: a child process that has been forked and not yet become another program holds the
    /// file too, and would keep the lock.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[derive(Debug)]
struct FsFile(File);

impl StorageFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match std::os::unix::fs::FileExt::read_at(&self.0, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    #[cfg(not(unix))]
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.read(buffer)
    }

    #[cfg(unix)]
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(not(unix))]
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.write_all(bytes)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        loop {
            match fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, bytes) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&mut self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&mut self) -> io::Result<()> {
        use rustix::fs::{Advice, fadvise};
        Ok(fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

/// Reads the bytes from one offset to another, or to the end where that comes first.
pub(crate) fn read_range(file: &mut dyn StorageFile, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Bytes that are read at a time where a file is read whole: its length says nothing of the memory there is.
const STEP_BYTES: u64 = 1 << 20;

/// Hands over the bytes from one offset to another (or to the end where that comes first), piece by piece.
pub(crate) fn each_piece(
    file: &mut dyn StorageFile,
    from: u64,
    to: u64,
    mut piece: impl FnMut(&mut dyn StorageFile, u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut at = from;
    while at < to {
        let bytes = read_range(file, at, to.min(at + STEP_BYTES))?;
        if bytes.is_empty() {
            break;
        }
        piece(file, at, &bytes)?;
        at += bytes.len() as u64;
    }
    Ok(at)
}

/// Writes a file under a temporary name, makes it durable, gives it its name, and makes that durable too.
pub(crate) fn write_file(
    storage: &dyn Storage,
    tmp_dir: &Path,
    path: &Path,
    write: impl FnOnce(&mut dyn StorageFile) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    storage.create_dir(tmp_dir)?;
    let tmp = tmp_dir.join(name);
    match storage.remove(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = storage.create_new(&tmp)?;
    write(file.as_mut())?;
    file.sync_data()?;
    storage.rename(&tmp, path)?;
    storage.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
