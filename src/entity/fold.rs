//! Folding a stream of a store: pages from a `StreamReader`, absorbed one event after the other. Called by synchronous programs, by
//! the actors on a thread that may block, and by tests that compare with it. Writes nothing.

use super::{Codec, CodecError, Entity, Folded, PoisonEvent};
use crate::error::Error;
use crate::event::Seq;
use crate::streams::{StreamQuery, StreamReader};

/// Why a stream was not folded to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntityReadError {
    /// The entity has no codec.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stream can't be read.
    #[error(transparent)]
    Read(#[from] Error),
    /// The entity can't fold one of its events.
    #[error(transparent)]
    Poison(#[from] PoisonEvent),
}

/// Folds a whole stream, as far as `through`: the durable head for those who know it, [`Seq::MAX`] else.
///
/// # Errors
/// [`EntityReadError`], naming the event where it is one.
pub fn fold<E: Entity>(entity: &E, reader: &mut StreamReader, session_id: &str, through: Seq) -> Result<Folded<E>, EntityReadError> {
    let mut folded = Folded::default();
    folded.catch_up(entity, &Codec::new(entity)?, reader, session_id, through)?;
    Ok(folded)
}

impl<E: Entity> Folded<E> {
    /// Folds what the stream has after its position, as far as `through`; a page is in memory at a time.
    ///
    /// # Errors
    /// As [`fold`]. After a [`PoisonEvent`] it must not be used any more; after a read error it can be caught up later.
    pub fn catch_up(
        &mut self,
        entity: &E,
        codec: &Codec<E>,
        reader: &mut StreamReader,
        session_id: &str,
        through: Seq,
    ) -> Result<(), EntityReadError> {
        let mut next = Some(self.position + 1);
        while let Some(from) = next {
            let page = reader.page(&StreamQuery::new(session_id).from(from), through)?;
            for event in &page.events {
                match &event.payload {
                    Some(payload) => self.absorb(entity, codec, event, Some(payload.get()))?,
                    None => {
                        let payload = reader.payload(event)?;
                        self.absorb(entity, codec, event, payload.as_deref().map(|json| json.get()))?;
                    }
                }
            }
            next = page.next;
        }
        Ok(())
    }
}
