//! A stream as the actor of its entity works with it: what is behind the state is read and applied, commands are decided and appended, and
//! first answers are read back. What a live entity is handed in; who has it, and for how long, is `actor`'s.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::desk::Page;
use super::kind::Kind;
use super::{EntityError, Outcome};
use crate::actors::Durability;
use crate::entity::{Entity, Live, command_id, command_tag, panic_message};
use crate::{AppendError, CheckedDraft, Conditions, EventId, EventType, Receipt, Seq, StreamQuery};

/// How long an event that is not durable yet is waited for, before the command is decided again without it: it may have been left out
/// after all. 250 ms: an fsync takes a hundredth of that, and one that is slow is waited for again.
const OVERTAKEN_WAIT: Duration = Duration::from_millis(250);

/// What came of a decision.
pub(super) enum Attempt<Event> {
    /// This, unless the stream has moved on where nothing was recorded.
    Answer(Outcome<Event>),
    /// The stream has moved on.
    Overtaken,
    /// The ledger has what the command's key has caused, and it was not found in the stream yet.
    Known,
}

/// Drafts of a command's events, and the events as they will read back.
type Prepared<E> = (Vec<CheckedDraft>, Vec<<E as Entity>::Event>);

pub(super) type Answer<E> = Result<Outcome<<E as Entity>::Event>, EntityError<<E as Entity>::Error>>;

/// A stream, and the kind of its entity.
pub(super) struct Stream<E: Entity> {
    pub kind: Arc<Kind<E>>,
    pub session_id: Arc<str>,
}

impl<E: Entity> Stream<E> {
    /// Reads and applies what the stream has behind the state; answers whether that was anything.
    pub(super) async fn catch_up(&self, live: &mut Live<E>) -> Result<bool, EntityError<E::Error>> {
        let Kind { entity, codec, ledger, options, .. } = &*self.kind;
        let (before, durable) = (live.folded.position, ledger.shared().durable.borrow().seq);
        if live.synced >= durable {
            return Ok(false);
        }
        // The ledger knows where the stream is. To read that it is nowhere else, all lines that the mirror has not got would be looked
        // through, of whatever stream they are.
        if ledger.stream_position(self.session_id.clone()).await == Some(before) {
            live.synced = live.synced.max(durable);
            return Ok(false);
        }
        loop {
            let page = self.page(live.folded.position + 1, options.page_events_max).await?;
            for (event, payload) in &page.events {
                live.absorb(entity, codec, event, payload.as_ref().map(|payload| payload.get()))?;
            }
            live.recent.forget(*ledger.shared().mirrored.borrow());
            if page.next.is_none() {
                live.synced = live.synced.max(durable);
                return Ok(live.folded.position > before);
            }
        }
    }

    /// The same, where the ledger says that the stream has moved on: what it was may not be durable yet.
    pub(super) async fn overtaken(&self, live: &mut Live<E>) -> Result<(), EntityError<E::Error>> {
        let mut durable = self.kind.ledger.shared().durable.subscribe();
        let deadline = tokio::time::Instant::now() + OVERTAKEN_WAIT;
        loop {
            durable.mark_unchanged();
            if self.catch_up(live).await? || !matches!(tokio::time::timeout_at(deadline, durable.changed()).await, Ok(Ok(()))) {
                return Ok(());
            }
        }
    }

    async fn page(&self, from: u64, events_max: usize) -> Result<Page, EntityError<E::Error>> {
        let query = StreamQuery::new(&*self.session_id).from(from).events_max(events_max);
        self.kind.desk.run(move |desk| desk.page(&query)).await.map_err(EntityError::Read)
    }

    /// One decision.
    pub(super) async fn attempt(
        &self,
        live: &mut Live<E>,
        command: &E::Command,
        key: Option<&str>,
    ) -> Result<Attempt<E::Event>, EntityError<E::Error>> {
        let Kind { entity, ledger, .. } = &*self.kind;
        let position = live.folded.position;
        let id = key.map(|key| command_id(&self.session_id, key));
        if let (Some(key), Some(first)) = (key, id.and_then(|id| live.recent.find(id))) {
            return self.first_answer(first, key).await.map(Attempt::Answer);
        }
        // One with a key that is not remembered may have been answered long ago. The ledger looks its id up anyway when it is appended,
        // so nobody else does before that; `decide` is pure, and what it says of a command that was answered is dropped.
        let decided = self.caught("decide", position, || {
            let events = entity.decide(&live.folded.state, command).map_err(EntityError::Rejected)?;
            self.prepare(&events, key)
        });
        let (drafts, events) = match decided {
            Ok((drafts, events)) if !events.is_empty() => (drafts, events),
            // Nothing goes to the ledger, so it does not say.
            nothing => {
                if let Attempt::Answer(outcome) = self.answered_before(live, key).await? {
                    return Ok(Attempt::Answer(outcome));
                }
                let (_, events) = nothing?;
                return Ok(Attempt::Answer(Outcome { events, receipts: Vec::new(), position, duplicate: false }));
            }
        };
        let types: Vec<EventType> = drafts.iter().map(|draft| draft.draft().event_type().clone()).collect();
        let conditions = Conditions::none().session(&*self.session_id, position);
        let appended = match ledger.submit(drafts, conditions, Durability::Ledger).await {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        match appended {
            // Answered before, or recorded by an earlier life of this entity whose answer was lost: what it was is read back.
            Ok(receipts) if receipts.iter().any(|receipt| receipt.duplicate) => self.answered_before(live, key).await,
            Ok(receipts) => {
                for ((receipt, event), event_type) in receipts.iter().zip(&events).zip(&types) {
                    let event = (event_type.as_str(), event);
                    live.appended(entity, &self.session_id, event, receipt, id == Some(receipt.id))?;
                }
                live.recent.forget(*ledger.shared().mirrored.borrow());
                Ok(Attempt::Answer(Outcome { events, receipts, position: live.folded.position, duplicate: false }))
            }
            Err(AppendError::WrongSessionSeq { .. }) => Ok(Attempt::Overtaken),
            // The same, and it was another decision than this one.
            Err(AppendError::Conflict { id: known, .. } | AppendError::BatchConflict { id: known }) if id == Some(known) => {
                self.answered_before(live, key).await
            }
            Err(error) => Err(EntityError::Append(error)),
        }
    }

    /// Drafts of these events, and the events as they will read back: those are applied.
    fn prepare(&self, events: &[E::Event], key: Option<&str>) -> Result<Prepared<E>, EntityError<E::Error>> {
        let Kind { entity, codec, ledger, .. } = &*self.kind;
        let (mut drafts, mut read_back) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        for (at, event) in events.iter().enumerate() {
            let draft = codec.draft(entity, &self.session_id, key, at == 0, event)?;
            let draft = ledger.check(draft).map_err(EntityError::Append)?;
            read_back.push(codec.read_back(entity, draft.draft())?);
            drafts.push(draft);
        }
        Ok((drafts, read_back))
    }

    /// Runs code of the entity's.
    pub(super) fn caught<T>(
        &self,
        part: &'static str,
        position: u64,
        run: impl FnOnce() -> Result<T, EntityError<E::Error>>,
    ) -> Result<T, EntityError<E::Error>> {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let (session_id, message) = (self.session_id.clone(), panic_message(panic.as_ref()));
            Err(EntityError::Panicked { session_id, position, part, message })
        })
    }

    /// The first answer to a command with this key, where the ledger has one; [`Attempt::Known`] where that is not found.
    async fn answered_before(&self, live: &Live<E>, key: Option<&str>) -> Result<Attempt<E::Event>, EntityError<E::Error>> {
        let Some(key) = key else { return Ok(Attempt::Known) };
        match self.find(live, command_id(&self.session_id, key)).await? {
            Some(first) => self.first_answer(first, key).await.map(Attempt::Answer),
            None => Ok(Attempt::Known),
        }
    }

    /// The position of the first event that a command with this id has caused.
    async fn find(&self, live: &Live<E>, id: EventId) -> Result<Option<u64>, EntityError<E::Error>> {
        let forgotten = live.recent.forgotten();
        match live.recent.find(id) {
            Some(position) => return Ok(Some(position)),
            None if forgotten == Seq::ZERO => return Ok(None),
            None => {}
        }
        let session_id = self.session_id.clone();
        self.kind.desk.run(move |desk| desk.find(&session_id, id, forgotten)).await.map_err(EntityError::Read)
    }

    /// The answer to a command with this key whose first event stands at this position: the events of its batch that have the key.
    async fn first_answer(&self, first: u64, key: &str) -> Answer<E> {
        let Kind { entity, codec, .. } = &*self.kind;
        let (mut outcome, tag) = (Outcome { events: Vec::new(), receipts: Vec::new(), position: first, duplicate: true }, command_tag(key));
        // How large its batch is, the first event says.
        let (mut last, mut events_max) = (Seq::ZERO, 1);
        loop {
            let page = self.page(outcome.position + u64::from(last > Seq::ZERO), events_max).await?;
            for (event, payload) in &page.events {
                if last == Seq::ZERO {
                    let behind = event.batch.map_or(0, |(at, events)| u64::from(events.saturating_sub(at)));
                    last = Seq::new(event.seq.get() + behind);
                    events_max = usize::try_from(behind).unwrap_or(usize::MAX).clamp(1, self.kind.options.page_events_max.max(1));
                }
                if event.seq > last || !(event.domain_tags.contains(&tag) || outcome.receipts.is_empty()) {
                    return Ok(outcome);
                }
                if let Some(payload) = payload {
                    // One that is passed over by now is none of the entity's events any more.
                    let read = || {
                        Ok((!entity.passes_over(&event.event_type)).then(|| codec.decode(&event.event_type, payload.get())).transpose()?)
                    };
                    outcome.events.extend(self.caught("decode", outcome.position, read)?);
                }
                outcome.receipts.push(Receipt::again(event));
                outcome.position = event.session_seq.unwrap_or(outcome.position);
            }
            if page.next.is_none() || outcome.receipts.last().is_none_or(|receipt| receipt.seq >= last) {
                return Ok(outcome);
            }
        }
    }
}
