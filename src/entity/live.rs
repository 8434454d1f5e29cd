//! An entity that lives: its state, the commands that it has seen lately, and when its snapshot is due. No I/O; EntityActor does that.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::command::PREFIX as COMMAND_PREFIX;
use super::recent::Recent;
use super::{Codec, Entity, Folded, PoisonEvent, STATE_BYTES_MAX, Snapshot, command_id};
use crate::event::{EventRecord, Seq};
use crate::ledger::Receipt;

/// An entity that lives.
pub(crate) struct Live<E: Entity> {
    /// Its state, and up to where it was folded.
    pub folded: Folded<E>,
    /// Commands by the ids of their first events.
    pub recent: Recent,
    /// The position of its last snapshot; 0 where it has none.
    kept_at: u64,
    /// The snapshots' file that was open when its fold began: the only one that its state may go to.
    file: Option<u64>,
    /// How often in a row no snapshot could be taken of it.
    refused: u32,
    /// Bytes that it had, or more, when it was last written or read.
    bytes: usize,
    /// All that the stream has up to this seq of the ledger is folded.
    pub synced: Seq,
}

/// How often the events until the next try are doubled where no snapshot could be taken. 16: it is tried so rarely then that it costs
/// nothing.
const REFUSED_MAX: u32 = 16;

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSnapshot {
    /// The state has more bytes.
    #[error("the state has more than {bytes_max} bytes; keep less in it")]
    TooLarge { bytes_max: usize },
    /// It can't be written at all.
    #[error("{0}")]
    Problem(String),
}

/// A state as it is written; no more of it than may be kept.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            self.is_over = true;
            return Err(io::Error::other("it is too large"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<E: Entity> Live<E> {
    /// Before the first event; `file` is the snapshots' file that is open.
    pub(crate) fn beginning(file: Option<u64>) -> Live<E> {
        Live { folded: Folded::default(), recent: Recent::default(), kept_at: 0, file, refused: 0, bytes: 0, synced: Seq::ZERO }
    }

    /// What a snapshot has; `file` is the snapshots' file that is open.
    ///
    /// # Errors
    /// Why it does not fit the state: the snapshot is of no use then.
    pub(crate) fn of_snapshot(snapshot: &Snapshot, file: Option<u64>) -> Result<Live<E>, String> {
        let type_name = std::any::type_name::<E>();
        if snapshot.type_name != type_name {
            return Err(format!("it is of `{}`, and this is `{type_name}`", snapshot.type_name));
        }
        let read = catch_unwind(AssertUnwindSafe(|| serde_json::from_str(&snapshot.state)));
        let state: E::State = read.map_err(|_| "reading it has panicked".to_owned())?.map_err(|error| error.to_string())?;
        let folded = Folded { state, position: snapshot.session_seq, seq: snapshot.seq, event_hash: snapshot.event_hash };
        let (recent, synced) = (Recent::behind(folded.seq), folded.seq);
        Ok(Live { recent, kept_at: folded.position, file, refused: 0, bytes: snapshot.state.len(), synced, folded })
    }

    /// The file that a snapshot is to go to now, where so many events were folded since the last one. Events that are passed over count: with a
    /// snapshot they are not read again. It is not due again before as many have come.
    pub(crate) fn snapshot_is_due(&mut self, every: u64) -> Option<u64> {
        // Trying in vain costs what the state is large.
        let every = every.saturating_mul(1 << self.refused);
        let file = self.file.filter(|_| every > 0 && self.folded.position - self.kept_at >= every)?;
        self.kept_at = self.folded.position;
        Some(file)
    }

    /// A snapshot of it as it is, where it has no more bytes than these.
    ///
    /// # Errors
    /// [`NoSnapshot::TooLarge`], and nothing is written where that is known before; why serde can't write it.
    pub(crate) fn snapshot(&mut self, session_id: &str, bytes_max: usize) -> Result<Snapshot, NoSnapshot> {
        if self.bytes > bytes_max && bytes_max < STATE_BYTES_MAX {
            return Err(NoSnapshot::TooLarge { bytes_max });
        }
        let written = self.write(bytes_max);
        match &written {
            Ok(state) => (self.refused, self.bytes) = (0, state.len()),
            Err(NoSnapshot::TooLarge { .. }) if bytes_max < STATE_BYTES_MAX => self.bytes = bytes_max + 1,
            Err(_) => self.refused = (self.refused + 1).min(REFUSED_MAX),
        }
        Ok(Snapshot {
            entity: E::NAME.to_owned(),
            type_name: std::any::type_name::<E>().to_owned(),
            state_version: E::STATE_VERSION,
            session_id: session_id.to_owned(),
            session_seq: self.folded.position,
            seq: self.folded.seq,
            event_hash: self.folded.event_hash,
            state: written?,
        })
    }

    fn write(&self, bytes_max: usize) -> Result<String, NoSnapshot> {
        let mut bounded = Bounded { bytes: Vec::new(), bytes_max, is_over: false };
        let written = catch_unwind(AssertUnwindSafe(|| serde_json::to_writer(&mut bounded, &self.folded.state)));
        if bounded.is_over {
            return Err(NoSnapshot::TooLarge { bytes_max });
        }
        let problem = |problem: &dyn std::fmt::Display| NoSnapshot::Problem(problem.to_string());
        written.map_err(|_| problem(&"writing it has panicked"))?.map_err(|error| problem(&error))?;
        String::from_utf8(bounded.bytes).map_err(|error| problem(&error))
    }

    /// Folds a recorded event.
    ///
    /// # Errors
    /// [`PoisonEvent`]; then this must not be used any more.
    pub(crate) fn absorb(&mut self, entity: &E, codec: &Codec<E>, event: &EventRecord, payload: Option<&str>) -> Result<(), PoisonEvent> {
        self.folded.absorb(entity, codec, event, payload)?;
        let keys = event.domain_tags.iter().filter_map(|tag| tag.strip_prefix(COMMAND_PREFIX));
        if keys.into_iter().any(|key| event.session_id.as_deref().is_some_and(|stream| command_id(stream, key) == event.id)) {
            self.recent.note(event.id, self.folded.position, event.seq);
        }
        Ok(())
    }

    /// Folds an event that was appended just now.
    ///
    /// # Errors
    /// As [`Live::absorb`].
    pub(crate) fn appended(
        &mut self,
        entity: &E,
        session_id: &str,
        (event_type, event): (&str, &E::Event),
        receipt: &Receipt,
        is_first_of_key: bool,
    ) -> Result<(), PoisonEvent> {
        self.folded.appended(entity, session_id, event_type, event, receipt)?;
        self.synced = receipt.seq;
        if is_first_of_key {
            self.recent.note(receipt.id, self.folded.position, receipt.seq);
        }
        Ok(())
    }
}
