//! LedgerActor and the mirror: what has become of it, how far it goes, and the reader that ids and positions are looked up with.
//!
//! Called by the actor alone. A reader is believed as far as the very file goes that it has open: what is told of the mirror may be
//! of another file, which is gone.

use std::time::Duration;

use super::{LedgerMsg, LedgerState, Me, MirrorLink};
use crate::actors::parity::Doubt;
use crate::actors::supervisor::{Exit, Inner};
use crate::{MirrorError, MirrorReader, Seq};

/// How often a mirror that can't be opened to read is tried again while appends wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl LedgerState {
    pub(super) fn mirrored(&mut self, me: &Me, through: Seq, credit: usize, caught_up: bool) -> Result<(), Exit> {
        if !self.to_mirror.is_linked() {
            // A new SqliteActor can be quicker than the word of it: until then the reader here may be of a file that
            // is gone, which knows nothing of what would be forgotten.
            return Ok(());
        }
        self.covered &= self.is_covered(through);
        self.look(through);
        self.writer.mirrored_through(through);
        if self.to_mirror.given_back(credit, caught_up) && through < self.writer.head().seq {
            self.to_mirror.tell_behind();
        }
        self.stage_deferred(me)
    }

    pub(super) fn mirror(&mut self, me: &Me, link: MirrorLink) -> Result<(), Exit> {
        match link {
            MirrorLink::Gone => self.to_mirror.unlink(),
            MirrorLink::Replaying { through } => {
                self.to_mirror.unlink();
                self.covered &= through >= self.writer.floor();
            }
            MirrorLink::Failed { reason } => {
                self.to_mirror.unlink();
                self.failed = Some(reason);
            }
            MirrorLink::Ready { sqlite, through } => {
                self.lookup = None;
                let is_missing = self.open_lookup();
                self.writer.mirrored_through(through);
                // Its actor may have committed more than it has told yet.
                self.covered = self.is_covered(self.writer.floor());
                if is_missing {
                    // The supervisor is told; another one comes.
                    return self.stage_deferred(me);
                }
                self.to_mirror.link(sqlite);
                // Where it is not of use yet, the answer to this is when to try again.
                if through < self.writer.head().seq || !self.covered {
                    self.to_mirror.tell_behind();
                }
            }
        }
        self.stage_deferred(me)
    }

    /// Sees to a reader, where the mirror covers what the writer has forgotten.
    pub(super) fn look(&mut self, through: Seq) {
        if self.to_mirror.is_linked() && !self.covered && through >= self.writer.floor() {
            // It may be open, and of a file that is gone.
            self.lookup = None;
            self.open_lookup();
            self.covered = self.is_covered(through);
        }
    }

    /// Whether the file that is open here has all rows up to this one. What its actor has told may be of another file, which is gone.
    fn is_covered(&self, through: Seq) -> bool {
        self.lookup.as_ref().is_some_and(|reader| reader.has_through(through))
    }

    /// Opens a reader where there is none; answers whether the file is missing, of which the supervisor is told then.
    fn open_lookup(&mut self) -> bool {
        if self.lookup.is_none() {
            let (dir, timeout) = (&self.context.dir, self.context.shared.options.store.mirror_busy_timeout);
            match MirrorReader::open(dir, self.context.manifest.ledger_id, timeout) {
                Ok(reader) if !reader.is_frozen() => self.lookup = Some(reader),
                Ok(_) => tracing::warn!(actor = "ledger", "the mirror can be read only as if nobody wrote to it"),
                Err(error @ MirrorError::Missing { .. }) => {
                    // SqliteActor may have nothing to write, and so never see that what it has open is no longer there.
                    self.to_mirror.unlink();
                    let doubt = Inner::MirrorUnreadable { doubt: Doubt::Unchecked, reason: error.to_string() };
                    let _ = self.context.supervisor.cast(doubt.into());
                    return true;
                }
                Err(error) => tracing::warn!(actor = "ledger", %error, "the mirror can't be read just now"),
            }
        }
        false
    }

    /// Where appends wait for the mirror its rows are not to wait. Where it could not be opened to read, SqliteActor may have
    /// nothing more to say, so nobody else would remind this actor to try again.
    pub(super) fn see_to_look(&mut self, me: &Me) {
        if !self.deferred.is_empty() {
            self.context.shared.outbox.hurry();
        }
        if self.lookup.is_none() && self.to_mirror.is_linked() && !self.deferred.is_empty() && !self.look_cast {
            self.look_cast = true;
            me.send_after(LOOK_AGAIN, || LedgerMsg::LookAgain);
        }
    }
}
