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
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::EntityError;
use super::claims::Turn;
use super::desk::{Keep, Opening};
use super::held::{Harmless, Held, isolated};
use super::kind::{Alive, Kind};
use super::stream::{Answer, Attempt, Stream};
use crate::actors::shared::Erasures;
use crate::entity::{Entity, Live, NoSnapshot, PoisonEvent, STATE_BYTES_MAX, Snapshot};

/// Bytes of the largest state that is written to its snapshot where the actor runs. 64 KiB: that takes less than 100 µs, and is not worth
/// the way to the desk and back; 10 MB would keep all that runs there waiting for some 20 ms.
const WRITTEN_HERE_BYTES_MAX: usize = 64 << 10;

/// A command on its way.
pub(crate) struct Ask<E: Entity> {
    pub command: Harmless<Arc<E::Command>>,
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
    stream: Stream<E>,
    held: Held<E>,
    over: Option<Over>,
    /// Erasures as they were when its fold began.
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
        let (stream, held) = (Stream { kind, session_id }, Held::nothing(turn));
        Ok(Seat { stream, held, over: None, erasures: Erasures::default(), _alive: alive })
    }

    async fn handle(&self, me: ActorRef<EntityMsg<E>>, message: EntityMsg<E>, seat: &mut Seat<E>) -> Result<(), ActorProcessingErr> {
        let work = async {
            match message {
                EntityMsg::Command(ask) => seat.command(&me, ask).await,
                EntityMsg::Look(look, _permit) => seat.look(&me, look).await,
                EntityMsg::Stop => me.stop(None),
            }
            seat.keep_snapshot().await;
        };
        // What was sent behind it must not be lost with it. Its own answer is, as where the actor is killed.
        if isolated(work).await.is_err() {
            tracing::error!(
                entity = E::NAME,
                "an entity has panicked over a message, and is folded anew; does a value panic when it is dropped?"
            );
            seat.held.let_go();
        }
        Ok(())
    }
}

impl<E: Entity> Seat<E> {
    async fn command(&mut self, me: &ActorRef<EntityMsg<E>>, ask: Ask<E>) {
        let Some(command) = ask.command.get() else { return };
        let answer = self.answer(command, ask.key.as_deref()).await;
        self.note_over(me, answer.as_ref().err());
        // A caller that has gone away is no error.
        let _ = ask.reply.send(answer);
    }

    async fn look(&mut self, me: &ActorRef<EntityMsg<E>>, look: Look<E>) {
        let error = match self.caught_up().await {
            Ok(live) => return look(Ok((&live.folded.state, live.folded.position))),
            Err(error) => error,
        };
        self.note_over(me, Some(&error));
        look(Err(error));
    }

    /// Where it can do nothing any more, it is let go of; commands that were sent before are answered likewise.
    fn note_over(&mut self, me: &ActorRef<EntityMsg<E>>, error: Option<&EntityError<E::Error>>) {
        let (over, poison) = match error {
            _ if self.over.is_some() => return,
            Some(EntityError::Poisoned(poison)) => (Over::Poison(poison.clone()), Some(poison)),
            Some(EntityError::Taken { by, .. }) => (Over::Taken(by), None),
            _ => return,
        };
        self.held.let_go();
        self.over = Some(over);
        self.stream.kind.let_go(me, &self.stream.session_id, poison);
    }

    /// The state, folded from the stream unless that is done. Others may have appended to the stream since.
    async fn live(&mut self) -> Result<(&Stream<E>, &mut Live<E>), EntityError<E::Error>> {
        let Stream { kind, session_id } = &self.stream;
        match &self.over {
            Some(Over::Poison(poison)) => return Err(poison.clone().into()),
            Some(Over::Taken(by)) => return Err(EntityError::Taken { session_id: session_id.clone(), by }),
            None => {}
        }
        // What a store that is closed had, another one may have added to.
        if let Some(refusal) = kind.ledger.shared().refusal() {
            return Err(EntityError::Append(refusal));
        }
        let erasures = kind.ledger.shared().erasures();
        // A state that was folded before something of its stream was erased may hold it. Of which streams that was nobody keeps a list, and
        // erasures that an open or a repair finishes, or that a file from elsewhere has undone, would have to be in it: so it is any.
        if self.erasures != erasures {
            self.held.let_go();
        }
        if let Some(live) = self.held.live.take() {
            return Ok((&self.stream, self.held.live.insert(live)));
        }
        let taken = self.held.turn().take().await;
        taken.map_err(|other| EntityError::Taken { session_id: session_id.clone(), by: other.name })?;
        self.erasures = erasures;
        let opened = self.opening().await?;
        let live = self.held.live.insert(opened);
        self.stream.catch_up(live).await?;
        Ok((&self.stream, live))
    }

    /// The state, with all that the stream has.
    async fn caught_up(&mut self) -> Result<&Live<E>, EntityError<E::Error>> {
        let (stream, live) = self.live().await?;
        stream.catch_up(live).await?;
        Ok(live)
    }

    /// What its snapshot has, or nothing yet.
    async fn opening(&self) -> Result<Live<E>, EntityError<E::Error>> {
        let Stream { kind, session_id } = &self.stream;
        let nothing = |file| self.stream.caught("State::default", 0, || Ok(Live::beginning(file)));
        if kind.options.snapshot_every == 0 {
            return nothing(None);
        }
        let (session_id, mut held) = (session_id.clone(), self.held.empty());
        let found = kind.desk.run(move |desk| {
            let Opening { snapshot, file } = desk.opening(E::NAME, E::STATE_VERSION, &session_id);
            // Here, since a large one takes its time.
            if let Some(Err(problem)) = snapshot.as_ref().map(|snapshot| held.open(snapshot, file)) {
                let position = snapshot.map(|snapshot| snapshot.session_seq);
                tracing::warn!(entity = E::NAME, position, problem, "a snapshot does not fit the state; it is dropped");
                desk.drop_snapshot(&session_id);
            }
            Ok((held, file))
        });
        let (opened, file) = found.await.map_or((None, None), |(mut held, file)| (held.live.take(), file));
        opened.map_or_else(|| nothing(file), Ok)
    }

    async fn answer(&mut self, command: &E::Command, key: Option<&str>) -> Answer<E> {
        let (session_id, redecisions_max) = (self.stream.session_id.clone(), self.stream.kind.options.redecisions_max);
        let mut is_known = false;
        for _ in 0..=redecisions_max {
            let (stream, live) = self.live().await?;
            let attempt = stream.attempt(live, command, key).await;
            let is_overtaken = match &attempt {
                Ok(Attempt::Overtaken | Attempt::Known) => stream.overtaken(live).await.map(|()| true)?,
                // What was recorded rests on the position that it expected. This does on nothing yet.
                Ok(Attempt::Answer(outcome)) if outcome.receipts.is_empty() => stream.catch_up(live).await?,
                Err(EntityError::Rejected(_)) => stream.catch_up(live).await?,
                _ => false,
            };
            // What the state is now is not known.
            if matches!(&attempt, Err(EntityError::Panicked { .. } | EntityError::Poisoned(_)))
                || attempt.as_ref().is_err_and(EntityError::is_outcome_unknown)
            {
                self.held.let_go();
            }
            match attempt {
                Ok(Attempt::Answer(outcome)) if !is_overtaken => return Ok(outcome),
                Err(error) if !is_overtaken => return Err(error),
                attempt => is_known = matches!(attempt, Ok(Attempt::Known)),
            }
        }
        // What it has caused may be recorded, and has only not been read back.
        if is_known {
            return Err(EntityError::OutcomeUnknown { session_id });
        }
        Err(EntityError::Contended { session_id, attempts: redecisions_max + 1 })
    }

    /// Has a snapshot taken, where it is time for one. The next message waits until the state is written, so that it is decided on no other.
    async fn keep_snapshot(&mut self) {
        let every = self.stream.kind.options.snapshot_every;
        let Some(file) = self.held.live.as_mut().filter(|_| self.erasures.is_settled).and_then(|live| live.snapshot_is_due(every)) else {
            return;
        };
        let here = self.held.written(&self.stream.session_id, WRITTEN_HERE_BYTES_MAX);
        let written = if let Err(NoSnapshot::TooLarge { .. }) = here { self.written_elsewhere().await } else { here };
        match written {
            Ok(snapshot) => self.stream.kind.desk.keep(Keep { snapshot, erasures: self.erasures, file }),
            Err(problem) => tracing::warn!(entity = E::NAME, %problem, "no snapshot could be taken"),
        }
    }

    /// The state as it is written by the desk, which has it meanwhile: so nothing else that runs here waits.
    async fn written_elsewhere(&mut self) -> Result<Snapshot, NoSnapshot> {
        let (session_id, mut held) = (self.stream.session_id.clone(), self.held.take());
        let written = self.stream.kind.desk.run(move |_| {
            let written = held.written(&session_id, STATE_BYTES_MAX);
            Ok((held, written))
        });
        match written.await {
            Ok((held, written)) => {
                self.held = held;
                written
            }
            Err(error) => Err(NoSnapshot::Problem(error.to_string())),
        }
    }
}
