//! [`Entities`], what callers hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use ractor::{Actor, ActorCell, ActorRef};
use serde::Serialize;
use tokio::sync::{Mutex, oneshot, watch};

use super::actor::{Ask, EntityMsg};
use super::claims::Owner;
use super::desk::{DeskEnd, DeskRef};
use super::held::Harmless;
use super::kind::{Kind, Posted, Table};
use super::registry::{RegistryActor, RegistryMsg};
use super::{EntityError, EntityOptions};
use crate::actors::{Durability, Ledger};
use crate::entity::{Codec, Entity, PoisonEvent, check_key, panic_message};
use crate::{Error, LedgerError, MirrorAck, Receipt};

/// How often a command with a key, or a look, is sent again where its answer was lost with an actor that was killed. 8: whoever kills more
/// in a row means it.
const RETRIES_MAX: usize = 8;

/// What a command has caused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcome<Event> {
    /// The events, in order, as they read back. Of a command that was answered before, those that were not erased since.
    pub events: Vec<Event>,
    /// Their receipts.
    pub receipts: Vec<Receipt>,
    /// The stream's position behind them; where there are none, the position at which the command was decided.
    pub position: u64,
    /// Whether it was recorded before, by a command with this key that was sent earlier or by a try of this one whose answer was lost:
    /// this is that answer. Which of the two it was nobody can tell: another one may have been recorded between the tries. So of the
    /// answers with events at most one of each key is no duplicate, and it may be that none is; an effect belongs to the events, not to this.
    pub duplicate: bool,
}

/// The entities of one kind, on one store: at most one live entity a stream, spawned when something is sent to it. Cheap to clone;
/// when the last clone is dropped, they end. Until then they hold the store open.
pub struct Entities<E: Entity> {
    handle: Arc<Handle<E>>,
}

impl<E: Entity> Clone for Entities<E> {
    fn clone(&self) -> Entities<E> {
        Entities { handle: self.handle.clone() }
    }
}

struct Handle<E: Entity> {
    kind: Arc<Kind<E>>,
    registry: ActorRef<RegistryMsg<E>>,
    desk: Mutex<Option<DeskEnd>>,
}

impl Ledger {
    /// Entities of this kind on this store.
    ///
    /// # Errors
    /// [`EntityError::Codec`] where its upcasts go in circles; [`EntityError::Read`] where there is no thread for them.
    pub async fn entities<E: Entity>(&self, entity: E, options: EntityOptions) -> Result<Entities<E>, EntityError<E::Error>> {
        Entities::start(self, entity, options, None).await
    }

    /// The same, with their supervisor linked under an actor of the caller's own.
    ///
    /// # Errors
    /// As [`Ledger::entities`].
    pub async fn entities_linked<E: Entity>(
        &self,
        entity: E,
        options: EntityOptions,
        supervisor: ActorCell,
    ) -> Result<Entities<E>, EntityError<E::Error>> {
        Entities::start(self, entity, options, Some(supervisor)).await
    }
}

impl<E: Entity> Entities<E> {
    async fn start(
        ledger: &Ledger,
        entity: E,
        options: EntityOptions,
        parent: Option<ActorCell>,
    ) -> Result<Entities<E>, EntityError<E::Error>> {
        static REGISTRIES: AtomicU64 = AtomicU64::new(0);
        let codec = Codec::new(&entity)?;
        let no_thread =
            |source| Error::Ledger(LedgerError::Io { action: "starting a thread for entities of", path: ledger.dir().to_owned(), source });
        let (desk, end) = DeskRef::start(ledger.clone()).map_err(|error| EntityError::Read(no_thread(error)))?;
        let spawned = match parent {
            Some(parent) => RegistryActor::spawn_linked(None, RegistryActor::default(), (), parent).await,
            None => RegistryActor::spawn(None, RegistryActor::default(), ()).await,
        };
        let (registry, _) = spawned.map_err(|_| EntityError::Closed)?;
        let kind = Arc::new(Kind {
            entity,
            codec,
            claims: ledger.shared().claims.clone(),
            ledger: ledger.clone(),
            desk,
            options,
            owner: Owner { registry: REGISTRIES.fetch_add(1, Ordering::Relaxed), name: E::NAME },
            alive: Arc::new(watch::Sender::new(0)),
            runtime: tokio::runtime::Handle::current(),
            table: std::sync::Mutex::new(Table::new(registry.get_cell())),
        });
        let _ = registry.cast(RegistryMsg::Begin(kind.clone()));
        Ok(Entities { handle: Arc::new(Handle { kind, registry, desk: Mutex::new(Some(end)) }) })
    }

    /// Has the stream's entity decide a command, and waits until what it causes is acknowledged and applied. Waits in turn, where as many
    /// commands wait for it as may.
    ///
    /// Dropping the future leaves the command either recorded or not, never half; send commands that must not be done twice
    /// with [`Entities::send_keyed`].
    ///
    /// # Errors
    /// [`EntityError`].
    pub async fn send(&self, session_id: impl AsRef<str>, command: E::Command) -> Result<Outcome<E::Event>, EntityError<E::Error>> {
        self.ask(session_id.as_ref(), None, command).await
    }

    /// The same, once for each key of a stream: sent again, in this life of the process or a later one, the command causes nothing more,
    /// and gets the first answer; where `decide` is asked again, what it says is dropped. (One that was refused, or has caused nothing,
    /// has left nothing behind, and is decided again.) The key is kept in the events, as the tag `command:<key>` and in the first one's
    /// id. What the command says is not compared.
    ///
    /// # Errors
    /// [`EntityError`].
    pub async fn send_keyed(
        &self,
        session_id: impl AsRef<str>,
        key: impl AsRef<str>,
        command: E::Command,
    ) -> Result<Outcome<E::Event>, EntityError<E::Error>> {
        check_key(key.as_ref())?;
        self.ask(session_id.as_ref(), Some(key.as_ref().into()), command).await
    }

    /// Looks at the state of the stream's entity, behind all commands that were sent before, but for those that are sent
    /// again since their actor was killed: await a command that the look must see. A stream without events has the default state. Where its actor is killed before it comes to that, the next one is asked, a bounded number of times.
    ///
    /// # Errors
    /// [`EntityError`], [`EntityError::Unanswered`] for those that were killed; none of them leaves it open whether something was done.
    pub async fn read<T: Send + 'static>(
        &self,
        session_id: impl AsRef<str>,
        look: impl FnOnce(&E::State) -> T + Send + 'static,
    ) -> Result<T, EntityError<E::Error>> {
        self.look(session_id.as_ref(), |state, _| look(state)).await
    }

    /// The position of the last event that the stream's entity has applied; 0 where there is none.
    ///
    /// # Errors
    /// [`EntityError`].
    pub async fn position(&self, session_id: impl AsRef<str>) -> Result<u64, EntityError<E::Error>> {
        self.look(session_id.as_ref(), |_, position| position).await
    }

    async fn look<T: Send + 'static>(
        &self,
        session_id: &str,
        look: impl FnOnce(&E::State, u64) -> T + Send + 'static,
    ) -> Result<T, EntityError<E::Error>> {
        let session_id = Arc::<str>::from(session_id);
        // Whoever has the state takes it. An actor that is killed before leaves it to the next one.
        let look = Arc::new(std::sync::Mutex::new(Some(look)));
        for _ in 0..=RETRIES_MAX {
            let (reply, answer) = oneshot::channel();
            let (stream, look) = (session_id.clone(), look.clone());
            let look = Box::new(move |state: Result<(&E::State, u64), EntityError<E::Error>>| {
                let seen = state.and_then(|(state, position)| {
                    let look = look.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let look = look.ok_or_else(|| EntityError::Unanswered { session_id: stream.clone() })?;
                    catch_unwind(AssertUnwindSafe(|| look(state, position))).map_err(|panic| {
                        let message = panic_message(panic.as_ref());
                        EntityError::Panicked { session_id: stream, position, part: "a look at the state", message }
                    })
                });
                let _ = reply.send(seen);
            });
            self.post(&session_id, move |permit| EntityMsg::Look(look, permit)).await?;
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
        Err(EntityError::Unanswered { session_id })
    }

    async fn ask(&self, session_id: &str, key: Option<Arc<str>>, command: E::Command) -> Result<Outcome<E::Event>, EntityError<E::Error>> {
        let (session_id, command) = (Arc::<str>::from(session_id), Arc::new(command));
        let mut lost = 0;
        loop {
            let (reply, answer) = oneshot::channel();
            let (command, key_again) = (Harmless::new(command.clone(), E::NAME), key.clone());
            let sent = self.post(&session_id, move |permit| EntityMsg::Command(Ask { command, key: key_again, reply, _permit: permit }));
            let answer = match sent.await {
                Ok(()) => answer.await,
                Err(error) => Ok(Err(error)),
            };
            match answer {
                Ok(Ok(outcome)) => return Ok(self.as_durable(outcome).await),
                Ok(Err(error)) => return Err(if lost > 0 { of_a_repetition(error, &session_id) } else { error }),
                // By its key it is recorded once.
                Err(_) if key.is_some() && lost < RETRIES_MAX => lost += 1,
                Err(_) => return Err(EntityError::OutcomeUnknown { session_id }),
            }
        }
    }

    /// Waits for the rows where the options say so; here, so that the entity goes on with its next command meanwhile.
    async fn as_durable(&self, mut outcome: Outcome<E::Event>) -> Outcome<E::Event> {
        let Kind { ledger, options, .. } = &*self.handle.kind;
        let Some(last) = outcome.receipts.iter().map(|receipt| receipt.seq).max().filter(|_| options.durability == Durability::Mirrored)
        else {
            return outcome;
        };
        let mirrored = tokio::time::timeout(ledger.shared().options.mirrored_deadline, ledger.mirrored(last)).await;
        let mirror = if matches!(mirrored, Ok(Ok(()))) { MirrorAck::Mirrored } else { MirrorAck::MirrorBehind };
        outcome.receipts.iter_mut().for_each(|receipt| receipt.mirror = mirror);
        outcome
    }

    async fn post(
        &self,
        session_id: &Arc<str>,
        message: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> EntityMsg<E>,
    ) -> Result<(), EntityError<E::Error>> {
        let (mut message, mut permit) = (Some(message), None);
        loop {
            let full = self.handle.kind.post(session_id, &mut permit, &mut message)?;
            match full {
                Posted::Sent => return Ok(()),
                // Permits are handed out in the order in which they were asked for.
                Posted::Full(waiting) => permit = waiting.acquire_owned().await.ok(),
            }
        }
    }

    /// Lets go of the stream's entity, once it has done what it was sent; its next command folds it anew. Answers whether there was one.
    pub fn passivate(&self, session_id: impl AsRef<str>) -> bool {
        self.handle.kind.passivate(session_id.as_ref())
    }

    /// The streams that have a live entity, in no order.
    pub fn live(&self) -> Vec<Arc<str>> {
        self.handle.kind.live()
    }

    /// Streams that can't be folded, each with the event that is in the way.
    pub fn poisoned(&self) -> Vec<PoisonEvent> {
        self.handle.kind.poison()
    }

    /// Has a stream that could not be folded tried again at its next command. Answers whether it was one.
    pub fn forget_poison(&self, session_id: impl AsRef<str>) -> bool {
        self.handle.kind.forget_poison(session_id.as_ref())
    }

    /// The actor of the stream's entity, while it lives: to watch, or to kill in a test.
    pub fn actor(&self, session_id: impl AsRef<str>) -> Option<ActorCell> {
        self.handle.kind.actor(session_id.as_ref())
    }

    /// The store.
    pub fn ledger(&self) -> &Ledger {
        &self.handle.kind.ledger
    }

    /// What decides and applies.
    pub fn entity(&self) -> &E {
        &self.handle.kind.entity
    }

    /// Ends the entities: what they were sent is done first, but for what still waits for the store after `close_deadline` (a mirror that
    /// is too far behind, say): that is recorded or not, never half. Snapshots that are due are kept, which dropping the last handle does not
    /// wait for. Other clones of this handle get [`EntityError::Closed`]. The store
    /// stays open; close it after this.
    pub async fn close(self) {
        let Handle { kind, registry, desk } = &*self.handle;
        kind.close();
        let mut alive = kind.alive.subscribe();
        let all_ended =
            tokio::time::timeout(kind.ledger.shared().options.close_deadline, alive.wait_for(|alive| *alive == 0)).await.is_ok();
        // Its end is that of those that are left.
        registry.stop(None);
        if !all_ended {
            let _ = alive.wait_for(|alive| *alive == 0).await;
        }
        let mut desk = desk.lock().await;
        kind.desk.close();
        if let Some(end) = desk.as_mut() {
            let _ = end.await;
        }
        *desk = None;
    }
}

/// What the error of a command says that was sent again since its answer was lost: of the first try nothing, unless the command was
/// decided again, on all that was recorded, and refused.
fn of_a_repetition<R>(error: EntityError<R>, session_id: &Arc<str>) -> EntityError<R> {
    match error {
        EntityError::Rejected(_) | EntityError::Poisoned(_) => error,
        _ => EntityError::OutcomeUnknown { session_id: session_id.clone() },
    }
}

impl<E: Entity> Drop for Handle<E> {
    fn drop(&mut self) {
        self.kind.close();
        self.registry.stop(None);
        self.kind.desk.close();
    }
}

impl<E: Entity> std::fmt::Debug for Entities<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entities").field("kind", &E::NAME).field("live", &self.handle.kind.live().len()).finish_non_exhaustive()
    }
}
