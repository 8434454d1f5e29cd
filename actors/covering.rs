//! How LedgerActor's writer looks up ids and streams that it has forgotten: in the mirror, where that has them.

use crate::keys::KeyEvent;
use crate::{EventId, Lookup, LookupError, MirrorReader, Seq, Stored};

/// Looks up in the mirror, where it covers what the writer has forgotten.
pub(crate) struct Covering<'a> {
    pub reader: Option<&'a mut MirrorReader>,
    pub done: u64,
    pub total: u64,
}

impl Covering<'_> {
    fn reader(&mut self) -> Result<&mut MirrorReader, LookupError> {
        let (done, total) = (self.done, self.total);
        self.reader.as_deref_mut().ok_or(LookupError::Rebuilding { done, total })
    }
}

impl Lookup for Covering<'_> {
    fn by_id(&mut self, id: EventId) -> Result<Option<Stored>, LookupError> {
        self.reader()?.by_id(id)
    }
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
        self.reader()?.session_seq(session_id)
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        self.reader()?.id_max()
    }
    fn key_events(&mut self, through: Seq) -> Result<Vec<KeyEvent>, LookupError> {
        self.reader()?.key_events(through)
    }
}
