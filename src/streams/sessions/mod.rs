//! The list of sessions: how many events each has, since when, of which types, and how large they are.
//!
//! Kept in a SQLite file of its own, `sessions.sqlite3` in the store, which is derived from the mirror, brought up to it by whoever
//! lists, and made anew where it is missing, damaged or of another mirror. It may be removed at any time. What it says is what the
//! mirror's rows say; whether those are right is for parity.
//!
//! - `query` what to list, and a page of it · `file` the database · `catch_up` rows of the mirror, counted · `list` a page, by the
//!   index · `error`

mod catch_up;
mod error;
mod file;
mod list;
mod query;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::SessionsError;
pub use query::{SessionSummary, SessionsCursor, SessionsCursorError, SessionsOrder, SessionsPage, SessionsQuery};

use crate::Error;
use crate::event::LedgerId;
use crate::ledger::LedgerReader;
use crate::mirror::{MirrorError, MirrorReader};
use crate::options::Options;
use catch_up::Caught;
use file::IndexFile;

/// Lists the sessions of a store. Needs no lock, and sees what the mirror has. A page costs what is on it, and what the mirror has got
/// since somebody listed last; the first one reads all of the mirror. Keep it, so that the files stay open.
///
/// Where the store can't be written, the list is made in a temporary database, each time that one of these is opened.
///
/// ```
/// use counterfoil::{Draft, EventType, Options, SessionIndex, SessionsQuery, Source, Store};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// let options = Options::default();
/// let (mut store, _) = Store::open(&path, &options)?;
/// for session in ["s-1", "s-2", "s-1"] {
///     store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).session(session).payload("hello")?)?;
/// }
/// let mut index = SessionIndex::open(&path, &options)?;
/// let page = index.page(&SessionsQuery::new().limit(1))?;
/// assert_eq!((page.sessions[0].session_id.as_str(), page.sessions[0].events), ("s-1", 2));
/// let rest = index.page(&SessionsQuery::after(page.next.ok_or("there are two")?))?;
/// assert_eq!((rest.sessions[0].session_id.as_str(), rest.next), ("s-2", None));
/// # store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SessionIndex {
    dir: PathBuf,
    ledger_id: LedgerId,
    busy_timeout: Duration,
    pub(super) mirror: Option<MirrorReader>,
    pub(super) file: IndexFile,
}

/// How often a page is begun again, since the mirror or the list was replaced meanwhile: each time once, and once more.
const TRIES: u32 = 3;

impl SessionIndex {
    /// Opens the list of the store in this directory; reads nothing of it yet.
    ///
    /// # Errors
    /// [`Error::Ledger`], as [`LedgerReader::open`]; [`Error::Sessions`].
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<SessionIndex, Error> {
        let dir = dir.as_ref();
        let ledger_id = LedgerReader::open(dir, options)?.manifest().ledger_id;
        let busy_timeout = options.mirror_busy_timeout;
        Ok(SessionIndex { dir: dir.to_owned(), ledger_id, busy_timeout, mirror: None, file: IndexFile::open(dir)? })
    }

    /// Brings the list up to the mirror, and answers a page of it.
    ///
    /// # Errors
    /// [`Error::Mirror`] where the mirror is missing or can't be read; [`Error::Sessions`].
    pub fn page(&mut self, query: &SessionsQuery) -> Result<SessionsPage, Error> {
        let mut is_removed = false;
        for _ in 1..TRIES {
            match self.try_page(query) {
                Ok(Some(page)) => return Ok(page),
                Err(Error::Mirror(error)) if matches!(error, MirrorError::Gone { .. }) || error.may_be_unread() => self.mirror = None,
                Err(Error::Sessions(error)) if self.file.is_in_place() && !error.may_be_removed() => {
                    if !error.is_damage() {
                        return Err(error.into());
                    }
                    IndexFile::remove(self.file.path(), &error)?;
                    self.file = IndexFile::open(&self.dir)?;
                }
                Ok(None) | Err(Error::Sessions(_)) => {
                    is_removed = true;
                    self.file = IndexFile::open(&self.dir)?;
                }
                Err(error) => return Err(error),
            }
        }
        if is_removed {
            // Again and again, it seems: one of our own is left alone.
            self.file = IndexFile::temporary()?;
        }
        let path = self.file.path().to_owned();
        self.try_page(query)?.ok_or_else(|| SessionsError::Gone { path }.into())
    }

    /// A page; nothing where the list's file was replaced.
    fn try_page(&mut self, query: &SessionsQuery) -> Result<Option<SessionsPage>, Error> {
        // One that is taken for a file that nobody writes to sees nothing of what is committed later.
        let mirror = match self.mirror.take().filter(|mirror| !mirror.is_frozen()) {
            Some(mirror) => mirror,
            None => MirrorReader::open(&self.dir, self.ledger_id, self.busy_timeout)?,
        };
        let mirror = self.mirror.insert(mirror);
        loop {
            match catch_up::step(&mut self.file, mirror, self.ledger_id)? {
                Caught::More => {}
                Caught::Up => return Ok(Some(list::page(&mut self.file, query)?)),
                Caught::Replaced => return Ok(None),
            }
        }
    }
}
