//! EntityActor: the one live entity of a stream.
//!
//! ```text
//! command ──► known by its key? ──► the first answer again
//!                │ no
//!                ▼
//!             decide ──► append, if the stream is where the state is ──► acknowledged ──► apply ──► answer
//!                ▲                        │ it is not
//!                └── read what came, apply ┘  (a bounded number of times)
//! ```
//!
//! It folds its stream when the first message comes, and not before: an actor that is spawned costs nothing. One command is under way
//! at a time. What is applied is what reading the stream back would give, so the state is always a fold of what is recorded.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::claims::Turn;
use super::desk::{Keep, Opening, Page};
use super::kind::{Alive, Kind};
use super::{EntityError, Outcome};
use crate::actors::Durability;
use crate::actors::shared::Erasures;
use crate::entity::{Entity, Live, PoisonEvent, command_id, command_tag, panic_message};
use crate::{AppendError, CheckedDraft, Conditions, EventId, EventType, Receipt, Seq, StreamQuery};

/// How long an event that is not durable yet is waited for, before the command is decided again without it: it may have been left out
/// after all. 250 ms: an fsync takes a hundredth of that, and one that is slow is waited for again.
const OVERTAKEN_WAIT: Duration = Duration::from_millis(250);

/// What came of a decision.
enum Attempt<Event> {
    /// This, unless the stream has moved on where nothing was recorded.
    Answer(Outcome<Event>),
    /// The stream has moved on.
    Overtaken,
    /// The ledger has what the command's key has caused, and it was not found in the stream yet.
    Known,
}

/// Drafts of a command's events, and the events as they will read back.
type Prepared<E> = (Vec<CheckedDraft>, Vec<<E as Entity>::Event>);

/// How often the events until the next try are doubled where no snapshot could be taken. 16: it is tried so rarely then that it costs
/// nothing.
const REFUSED_MAX: u32 = 16;

type Answer<E> = Result<Outcome<<E as Entity>::Event>, EntityError<<E as Entity>::Error>>;

/// A command on its way.
pub(crate) struct Ask<E: Entity> {
    pub command: Arc<E::Command>,
    pub key: Option<Arc<str>>,
    pub reply: oneshot::Sender<Answer<E>>,
    pub _permit: OwnedSemaphorePermit,
}

/// Something that looks at the state, or at why there is none.
pub(crate) type Look<E> = Box<dyn FnOnce(Result<(&<E as Entity>::State, u64), EntityError<<E as Entity>::Error>>) + Send>;

pub(crate) enum EntityMsg<E: Entity> {
    /// Decide this.
    Command(Ask<E>),
    /// Show the state.
    Look(Look<E>, OwnedSemaphorePermit),
    /// The last message: the registry sends nothing after it.
    Stop,
}

pub(crate) struct EntityActor<E>(PhantomData<fn() -> E>);

impl<E> Default for EntityActor<E> {
    fn default() -> EntityActor<E> {
        EntityActor(PhantomData)
    }
}

/// What the actor has.
pub(crate) struct Seat<E: Entity> {
    kind: Arc<Kind<E>>,
    session_id: Arc<str>,
    /// Dropped before the turn, and so before another one lives.
    live: Option<Live<E>>,
    turn: Turn,
    over: Option<Over>,
    /// Erasures as they were when it was folded.
    erasures: Erasures,
    _alive: Alive,
}

/// Why it can do nothing any more, and is let go of.
#[derive(Clone)]
enum Over {
    /// Its stream can't be folded.
    Poison(PoisonEvent),
    /// Its stream is another registry's.
    Taken(&'static str),
}

pub(crate) struct EntityArgs<E: Entity> {
    pub kind: Arc<Kind<E>>,
    pub session_id: Arc<str>,
    pub turn: Turn,
    pub alive: Alive,
}

impl<E: Entity> Actor for EntityActor<E> {
    type Msg = EntityMsg<E>;
    type State = Seat<E>;
    type Arguments = EntityArgs<E>;

    async fn pre_start(&self, _: ActorRef<EntityMsg<E>>, args: EntityArgs<E>) -> Result<Seat<E>, ActorProcessingErr> {
        let EntityArgs { kind, session_id, turn, alive } = args;
        Ok(Seat { kind, session_id, turn, live: None, over: None, erasures: Erasures::default(), _alive: alive })
    }

    async fn handle(&self, me: ActorRef<EntityMsg<E>>, message: EntityMsg<E>, seat: &mut Seat<E>) -> Result<(), ActorProcessingErr> {
        match message {
            EntityMsg::Command(ask) => seat.command(&me, ask).await,
            EntityMsg::Look(look, _permit) => seat.look(&me, look).await,
            EntityMsg::Stop => me.stop(None),
        }
        Ok(())
    }
}

impl<E: Entity> Seat<E> {
    async fn command(&mut self, me: &ActorRef<EntityMsg<E>>, ask: Ask<E>) {
        let answer = self.answer(&ask.command, ask.key.as_deref()).await;
        self.note_over(me, answer.as_ref().err());
        // A caller that has gone away is no error.
        let _ = ask.reply.send(answer);
    }

    async fn look(&mut self, me: &ActorRef<EntityMsg<E>>, look: Look<E>) {
        let live = match self.take_live().await {
            Ok(mut live) => self.catch_up(&mut live).await.map(|_| live),
            Err(error) => Err(error),
        };
        self.note_over(me, live.as_ref().err());
        match live {
            Ok(live) => {
                let live = self.live.insert(live);
                look(Ok((&live.folded.state, live.folded.position)));
            }
            Err(error) => look(Err(error)),
        }
    }

    /// Where it can do nothing any more, it is let go of; commands that were sent before are answered likewise.
    fn note_over(&mut self, me: &ActorRef<EntityMsg<E>>, error: Option<&EntityError<E::Error>>) {
        let (over, poison) = match error {
            _ if self.over.is_some() => return,
            Some(EntityError::Poisoned(poison)) => (Over::Poison(poison.clone()), Some(poison)),
            Some(EntityError::Taken { by, .. }) => (Over::Taken(by), None),
            _ => return,
        };
        (self.live, self.over) = (None, Some(over));
        self.kind.let_go(me, &self.session_id, poison);
        if let Some(PoisonEvent { seq, event_type, .. }) = poison {
            // What is wrong with it may quote its payload, so that is for the caller alone.
            tracing::error!(entity = E::NAME, seq = seq.get(), event_type, "an entity can't fold an event, and is stopped");
        }
    }

    /// The state, folded from the stream unless that is done. It has to be put back: where it is lost, it is folded anew.
    async fn take_live(&mut self) -> Result<Live<E>, EntityError<E::Error>> {
        match &self.over {
            Some(Over::Poison(poison)) => return Err(poison.clone().into()),
            Some(Over::Taken(by)) => return Err(EntityError::Taken { session_id: self.session_id.clone(), by }),
            None => {}
        }
        // What a store that is closed had, another one may have added to.
        if let Some(refusal) = self.kind.ledger.shared().refusal() {
            return Err(EntityError::Append(refusal));
        }
        let erasures = self.kind.ledger.shared().erasures();
        // A state that was folded before something of its stream was erased may hold it.
        if let Some(live) = self.live.take().filter(|_| self.erasures == erasures) {
            return Ok(live);
        }
        let taken = self.turn.take().await;
        taken.map_err(|other| EntityError::Taken { session_id: self.session_id.clone(), by: other.name })?;
        let mut live = self.opening().await?;
        self.catch_up(&mut live).await?;
        self.erasures = erasures;
        // That it is only looked at must not mean that all of it is read each time.
        self.keep_snapshot(&mut live);
        Ok(live)
    }

    /// What its snapshot has, or nothing yet.
    async fn opening(&self) -> Result<Live<E>, EntityError<E::Error>> {
        let nothing = |file| self.caught("State::default", 0, || Ok(Live { file, ..Live::default() }));
        if self.kind.options.snapshot_every == 0 {
            return nothing(None);
        }
        let session_id = self.session_id.clone();
        let found = self.kind.desk.run(move |desk| Ok(desk.opening(E::NAME, E::STATE_VERSION, &session_id))).await;
        let Opening { snapshot, file } = found.unwrap_or_default();
        let Some(snapshot) = snapshot else { return nothing(file) };
        Live::of_snapshot(&snapshot).map(|live| Live { file, ..live }).or_else(|problem| {
            tracing::warn!(entity = E::NAME, position = snapshot.session_seq, problem, "a snapshot does not fit the state; it is dropped");
            let session_id = self.session_id.clone();
            self.kind.desk.cast(move |desk| desk.drop_snapshot(&session_id));
            nothing(file)
        })
    }

    /// Reads and applies what the stream has behind the state; answers whether that was anything.
    async fn catch_up(&self, live: &mut Live<E>) -> Result<bool, EntityError<E::Error>> {
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
    async fn overtaken(&self, live: &mut Live<E>) -> Result<(), EntityError<E::Error>> {
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

    async fn answer(&mut self, command: &E::Command, key: Option<&str>) -> Answer<E> {
        let mut is_known = false;
        for _ in 0..=self.kind.options.redecisions_max {
            // Where this is dropped half-way, the state is gone, and folded anew.
            let mut live = self.take_live().await?;
            let attempt = self.attempt(&mut live, command, key).await;
            let is_overtaken = match &attempt {
                Ok(Attempt::Overtaken | Attempt::Known) => self.overtaken(&mut live).await.map(|()| true)?,
                // What was recorded rests on the position that it expected. This does on nothing yet.
                Ok(Attempt::Answer(outcome)) if outcome.receipts.is_empty() => self.catch_up(&mut live).await?,
                Err(EntityError::Rejected(_)) => self.catch_up(&mut live).await?,
                _ => false,
            };
            let is_lost = matches!(&attempt, Err(EntityError::Panicked { .. } | EntityError::Poisoned(_)))
                || attempt.as_ref().is_err_and(EntityError::is_outcome_unknown);
            if !is_lost {
                self.keep_snapshot(&mut live);
                self.live = Some(live);
            }
            match attempt {
                Ok(Attempt::Answer(outcome)) if !is_overtaken => return Ok(outcome),
                Err(error) if !is_overtaken => return Err(error),
                attempt => is_known = matches!(attempt, Ok(Attempt::Known)),
            }
        }
        // What it has caused may be recorded, and has only not been read back.
        if is_known {
            return Err(EntityError::OutcomeUnknown { session_id: self.session_id.clone() });
        }
        let attempts = self.kind.options.redecisions_max + 1;
        Err(EntityError::Contended { session_id: self.session_id.clone(), attempts })
    }

    /// One decision.
    async fn attempt(
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
    fn caught<T>(
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

    /// Has a snapshot taken, where it is time for one. Events that are passed over count: with a snapshot they are not read again.
    fn keep_snapshot(&self, live: &mut Live<E>) {
        let every = self.kind.options.snapshot_every.saturating_mul(1 << live.refused);
        let (erasures, file) = (self.erasures, live.file.filter(|_| self.erasures.is_settled));
        let Some(file) = file.filter(|_| every > 0 && live.folded.position - live.kept_at >= every) else { return };
        live.kept_at = live.folded.position;
        match live.snapshot(&self.session_id) {
            Ok(snapshot) => {
                live.refused = 0;
                self.kind.desk.keep(Keep { snapshot, erasures, file });
            }
            Err(problem) => {
                // Trying costs what the state is large.
                live.refused = (live.refused + 1).min(REFUSED_MAX);
                tracing::warn!(entity = E::NAME, position = live.folded.position, problem, "no snapshot could be taken");
            }
        }
    }
}
