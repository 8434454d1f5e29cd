//! A file of the ledger, written anew with some of its bytes replaced: for erasure alone. The new one is written under tmp/,
//! fsynced, read back and compared with the old one, and only then gets its name; a crash leaves one or the other.

use std::io;
use std::path::{Path, PathBuf};

use super::compress::{empty_file, is_same};
use super::storage::{StorageFile, each_piece, read_range};
use super::zst::{self, Zst};
use super::{LedgerError, Segment};
use crate::failpoint;
use crate::options::Options;

/// Bytes that are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub from: u64,
    pub to: u64,
    pub with: &'static [u8],
}

/// Hands over what the file is with the edits, which are in order, piece by piece: where each piece belongs, and its bytes.
fn edited(source: &mut dyn StorageFile, edits: &[Edit], piece: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<u64> {
    let len = source.len()?;
    let (mut at, mut out) = (0, 0);
    let end = Edit { from: len, to: len, with: b"" };
    for edit in edits.iter().chain([&end]) {
        let read = each_piece(source, at, edit.from, |_, _, bytes| {
            piece(out, bytes)?;
            out += bytes.len() as u64;
            Ok(())
        })?;
        if read < edit.from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece(out, edit.with)?;
        out += edit.with.len() as u64;
        at = edit.to;
    }
    Ok(out)
}

fn is_edited(source: &mut dyn StorageFile, edits: &[Edit], copy: &mut dyn StorageFile) -> io::Result<bool> {
    let mut same = true;
    let len = edited(source, edits, &mut |at, bytes| {
        same = same && read_range(copy, at, at + bytes.len() as u64)? == bytes;
        Ok(())
    })?;
    Ok(same && copy.len()? == len)
}

/// Replaces a segment's file, or a file that looks like one, by one with these edits, in the form that it has.
///
/// # Errors
/// [`LedgerError::Io`], [`LedgerError::ReadsBackWrong`]: the file is as it was, unless the directory could not be fsynced.
pub(super) fn replace(dir: &Path, options: &Options, file: &Segment, edits: &[Edit]) -> Result<(), LedgerError> {
    let storage = options.storage.as_ref();
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = file.path.parent().unwrap_or(dir);
    // Beside a segment of the same name.
    let tmp = |form: &str| -> PathBuf { dir.join("tmp").join(format!("erased-{name}{form}")) };
    let plain = Segment { first: file.first, path: tmp(".plain") };
    let packed = Segment { first: file.first, path: tmp(".zst") };
    let new = if file.is_compressed() { &packed } else { &plain };
    let write = || {
        let mut source = file.open(storage)?;
        let mut to = empty_file(storage, &plain.path)?;
        edited(source.as_mut(), edits, &mut |at, bytes| to.write_at(bytes, at))?;
        if file.is_compressed() {
            let mut stored = empty_file(storage, &packed.path)?;
            zst::encode(to.as_mut(), stored.as_mut(), &|| false).map_err(|(_, error)| error)?;
            to = stored;
        }
        options.at(failpoint::ERASE_SYNC)?;
        to.sync_data()?;
        to.forget_cached()
    };
    let check = || -> io::Result<bool> {
        let (mut source, mut to) = (file.open(storage)?, storage.open_read(&plain.path)?);
        let same = is_edited(source.as_mut(), edits, to.as_mut())?;
        Ok(same && (!file.is_compressed() || is_same(to.as_mut(), &mut Zst::open(storage.open_read(&packed.path)?)?, &|| false)?))
    };
    let checked = write().map_err(LedgerError::io("writing", &new.path)).and_then(|()| match check() {
        Ok(true) => Ok(()),
        Ok(false) => Err(LedgerError::ReadsBackWrong { path: new.path.clone() }),
        Err(error) => Err(LedgerError::io("reading", &new.path)(error)),
    });
    let forget = || [&plain.path, &packed.path].into_iter().for_each(|path| drop(storage.remove(path)));
    if let Err(error) = checked {
        // Rubbish that the next open would remove.
        forget();
        return Err(error);
    }
    let swap = || {
        options.at(failpoint::ERASE_RENAME)?;
        storage.rename(&new.path, &file.path)?;
        options.at(failpoint::ERASE_RENAMED)?;
        storage.sync_dir(folder)
    };
    let swapped = swap().map_err(LedgerError::io("replacing", &file.path));
    forget();
    swapped
}
