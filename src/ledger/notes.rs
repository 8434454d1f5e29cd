//! Files that have one signed note after another: the store's own checkpoints, and those of an anchor.
//!
//! Called by recovery, which asks for the last one, and by [`crate::checkpoint`]. They only grow: what a crash has left of a
//! note, which nobody was given, is the one thing that is ever cut off.

use std::io;
use std::path::{Path, PathBuf};

use super::recovery::LastSigned;
use super::storage::{self, Storage, StorageFile};
use crate::event::{LedgerId, Seq};
use crate::note::{self, Checkpoint, NOTE_BYTES_MAX, NoteError, Piece};

/// Bytes that are read at the end to find the last note: of two of the longest, one is whole.
const END_BYTES: u64 = 2 * NOTE_BYTES_MAX as u64;
/// Bytes that are read at a time where all of it is read.
const STEP_BYTES: usize = 1 << 20;

/// How every origin begins.
const ORIGINS: &[u8] = b"counterfoil/";

/// The store's own.
pub(crate) fn signed_path(dir: &Path) -> PathBuf {
    dir.join("checkpoints").join("signed.txt")
}

/// What stands at the end of such a file.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// The last checkpoint of this ledger.
    pub last: Option<Checkpoint>,
    /// The origin of a checkpoint of another ledger.
    pub foreign: Option<String>,
    /// Where that begins.
    pub last_at: u64,
    /// Where the last note ends.
    pub notes_end: u64,
    /// What follows it.
    pub rest: Vec<u8>,
    /// The last note has the outer form of one, and is no checkpoint: it was changed.
    is_damaged: bool,
}

impl End {
    /// Whether a note can be written behind the last one: what follows that, which is cut off then, is nothing or what a crash leaves
    /// of one.
    fn is_torn(&self, origin: &str) -> bool {
        !self.is_damaged && note::is_torn(&self.rest, Some(origin))
    }

    /// What keeps a note from being written behind the last one, if anything does.
    ///
    /// # Errors
    /// `InvalidData`.
    pub(crate) fn check(&self, origin: &str) -> io::Result<()> {
        let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        match &self.foreign {
            Some(foreign) => wrong(format!("it has checkpoints of {}, and each ledger needs a file of its own", foreign.escape_debug())),
            None if !self.is_torn(origin) => {
                wrong("it ends in something that is no checkpoint, which is nobody's to write over".to_owned())
            }
            None => Ok(()),
        }
    }
}

/// Reads the end of such a file; nothing where there is none.
pub(crate) fn end_of(storage: &dyn Storage, path: &Path, origin: &str) -> io::Result<Option<End>> {
    match storage.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => end_in(file?.as_mut(), origin).map(Some),
    }
}

/// Reads the end of such a file.
pub(crate) fn end_in(file: &mut dyn StorageFile, origin: &str) -> io::Result<End> {
    let len = file.len()?;
    let from = len.saturating_sub(END_BYTES);
    let bytes = storage::read_range(file, from, len)?;
    let mut at = if from == 0 { 0 } else { next_start(&bytes, 0) };
    let mut end = End::default();
    let mut notes_end = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"\n") {
            // Blank lines mean nothing.
            notes_end += usize::from(notes_end == at);
            at += 1;
            continue;
        }
        match note::first_piece(rest, true) {
            Piece::Note(len) => {
                let checkpoint = Checkpoint::parse(rest.get(..len).unwrap_or_default());
                end.is_damaged = checkpoint.is_err();
                match checkpoint {
                    Ok(checkpoint) if checkpoint.origin() == origin => {
                        (end.last, end.last_at) = (Some(checkpoint), from + at as u64);
                    }
                    Ok(checkpoint) => end.foreign = Some(checkpoint.origin().to_owned()),
                    Err(_) => {}
                }
                at += len;
                notes_end = at;
            }
            Piece::Other(len) => at = next_start(&bytes, at + len),
            Piece::Unfinished => break,
        }
    }
    end.notes_end = from + notes_end as u64;
    end.rest = bytes.get(notes_end..).unwrap_or_default().to_vec();
    Ok(end)
}

/// Where a note may begin that begins at `at` or behind it: at a line that begins as an origin does.
fn next_start(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    match memchr::memmem::find_iter(rest, ORIGINS).find(|at| *at > 0 && rest.get(at - 1) == Some(&b'\n')) {
        _ if rest.starts_with(ORIGINS) => at,
        Some(found) => at + found,
        None => bytes.len(),
    }
}

/// Adds a note, durably. What a crash has left of the last one is cut off first; `between` is called when the bytes are
/// written, and not fsynced.
///
/// # Errors
/// `InvalidData` where the file has something else at its end, or is another ledger's.
pub(crate) fn append(
    storage: &dyn Storage,
    path: &Path,
    checkpoint: &Checkpoint,
    between: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let text = checkpoint.to_string();
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(end) = end_of(storage, path, checkpoint.origin())? else {
        let mut file = storage.create_new(path)?;
        file.write_at(text.as_bytes(), 0)?;
        between()?;
        file.sync_data()?;
        return storage.sync_dir(dir);
    };
    end.check(checkpoint.origin())?;
    let mut file = storage.open_write(path)?;
    if !end.rest.is_empty() {
        file.set_len(end.notes_end)?;
    }
    file.write_at(text.as_bytes(), end.notes_end)?;
    between()?;
    file.sync_data()
}

/// Makes the last note durable, and the file's name: the process that wrote them may have been killed before it had, and after a
/// failed fsync the page cache can show a note that the disk does not have.
pub(crate) fn settle(storage: &dyn Storage, path: &Path, end: &End) -> io::Result<()> {
    let Some(last) = &end.last else { return Ok(()) };
    let mut file = storage.open_write(path)?;
    file.write_at(last.to_string().as_bytes(), end.last_at)?;
    file.sync_data()?;
    storage.sync_dir(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// What stands somewhere in such a file.
#[derive(Debug)]
pub(crate) enum Found {
    /// A checkpoint.
    Checkpoint(Checkpoint),
    /// Bytes that are none.
    Other(NoteError),
    /// At the end, bytes that may be the beginning of one.
    Unfinished,
}

/// Hands over all that stands in such a file, with the offset where it begins, in bounded memory.
pub(crate) fn each(storage: &dyn Storage, path: &Path, mut take: impl FnMut(u64, Found) -> io::Result<()>) -> io::Result<()> {
    let mut file = storage.open_read(path)?;
    let len = file.len()?;
    let (mut bytes, mut at, mut read_to) = (Vec::new(), 0usize, 0u64);
    loop {
        let is_all = read_to >= len;
        let offset = read_to - (bytes.len() - at) as u64;
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() && is_all {
            return Ok(());
        }
        match note::first_piece(rest, is_all) {
            _ if rest.starts_with(b"\n") => at += 1,
            // At least one of the longest is looked at as a whole.
            _ if !is_all && rest.len() <= 2 * NOTE_BYTES_MAX => {
                bytes.drain(..at);
                at = 0;
                let more = storage::read_range(file.as_mut(), read_to, len.min(read_to + STEP_BYTES as u64))?;
                // It has become shorter: what was read is all there is.
                read_to = if more.is_empty() { len } else { read_to + more.len() as u64 };
                bytes.extend(more);
            }
            Piece::Note(len) => {
                let found = Checkpoint::parse(rest.get(..len).unwrap_or_default());
                take(offset, found.map_or_else(Found::Other, Found::Checkpoint))?;
                at += len;
            }
            Piece::Other(len) => {
                take(offset, Found::Other(NoteError::Malformed("these bytes are no checkpoint")))?;
                at = next_start(&bytes, at + len);
            }
            Piece::Unfinished if note::is_torn(rest, None) => return take(offset, Found::Unfinished),
            Piece::Unfinished => return take(offset, Found::Other(NoteError::Malformed("these bytes are no checkpoint"))),
        }
    }
}

/// The last checkpoint that the store has of itself.
pub(crate) fn last_signed(storage: &dyn Storage, dir: &Path, ledger_id: LedgerId) -> io::Result<Option<Checkpoint>> {
    Ok(end_of(storage, &signed_path(dir), &note::origin(ledger_id))?.and_then(|end| end.last))
}

/// The same as evidence of how many events were durable. Its signature is not looked at: there may be no key at hand, and a wrong one
/// can only make open refuse, which whoever can write here can do anyway, and which names the file.
pub(crate) fn as_evidence(storage: &dyn Storage, dir: &Path, ledger_id: LedgerId) -> io::Result<Option<LastSigned>> {
    let path = signed_path(dir);
    let Some(End { last: Some(last), last_at, .. }) = end_of(storage, &path, &note::origin(ledger_id))? else { return Ok(None) };
    let key_hash = last.note().signatures().first().map_or(0, |signature| signature.key_hash);
    Ok(Some(LastSigned { size: Seq::new(last.size()), path, offset: last_at, key_hash }))
}
