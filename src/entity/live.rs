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
    pub kept_at: u64,
    /// The snapshots' file that was open when its fold began: the only one that its state may go to.
    pub file: Option<u64>,
    /// How often in a row no snapshot could be taken of it.
    pub refused: u32,
    /// All that the stream has up to this seq of the ledger is folded.
    pub synced: Seq,
}

/// A state as it is written; no more of it than may be kept.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > STATE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {STATE_BYTES_MAX} bytes; keep less in the state")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<E: Entity> Default for Live<E> {
    fn default() -> Live<E> {
        Live { folded: Folded::default(), recent: Recent::default(), kept_at: 0, file: None, refused: 0, synced: Seq::ZERO }
    }
}

impl<E: Entity> Live<E> {
    /// What a snapshot has.
    ///
    /// # Errors
    /// Why it does not fit the state: the snapshot is of no use then.
    pub(crate) fn of_snapshot(snapshot: &Snapshot) -> Result<Live<E>, String> {
        let type_name = std::any::type_name::<E>();
        if snapshot.type_name != type_name {
            return Err(format!("it is of `{}`, and this is `{type_name}`", snapshot.type_name));
        }
        let read = catch_unwind(AssertUnwindSafe(|| serde_json::from_str(&snapshot.state)));
        let state: E::State = read.map_err(|_| "reading it has panicked".to_owned())?.map_err(|error| error.to_string())?;
        let folded = Folded { state, position: snapshot.session_seq, seq: snapshot.seq, event_hash: snapshot.event_hash };
        let (recent, synced) = (Recent::behind(folded.seq), folded.seq);
        Ok(Live { recent, kept_at: folded.position, file: None, refused: 0, synced, folded })
    }

    /// A snapshot of it as it is.
    ///
    /// # Errors
    /// Why serde can't write the state, or that it is larger than what is kept.
    pub(crate) fn snapshot(&self, session_id: &str) -> Result<Snapshot, String> {
        let mut bounded = Bounded(Vec::new());
        let written = catch_unwind(AssertUnwindSafe(|| serde_json::to_writer(&mut bounded, &self.folded.state)));
        written.map_err(|_| "writing it has panicked".to_owned())?.map_err(|error| error.to_string())?;
        let state = String::from_utf8(bounded.0).map_err(|error| error.to_string())?;
        Ok(Snapshot {
            entity: E::NAME.to_owned(),
            type_name: std::any::type_name::<E>().to_owned(),
            state_version: E::STATE_VERSION,
            session_id: session_id.to_owned(),
            session_seq: self.folded.position,
            seq: self.folded.seq,
            event_hash: self.folded.event_hash,
            state,
        })
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
