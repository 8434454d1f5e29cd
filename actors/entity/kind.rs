//! What the entities of a registry share, and which of them live: the registry's table.
//!
//! The table is behind one lock, and a message is sent while it is held: so nothing is sent to an entity behind its `Stop`, and no
//! command is lost with one that is just being let go of.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ractor::{ActorCell, ActorId, ActorRef, ActorRuntime, ActorStatus, MessagingErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::actor::{EntityActor, EntityArgs, EntityMsg};
use super::claims::{Claims, Owner};
use super::desk::DeskRef;
use super::{EntityError, EntityOptions};
use crate::actors::Ledger;
use crate::entity::{Codec, Entity, PoisonEvent};

/// What the entities of a registry share.
pub(crate) struct Kind<E: Entity> {
    pub entity: E,
    pub codec: Codec<E>,
    pub ledger: Ledger,
    pub desk: DeskRef,
    pub options: EntityOptions,
    pub claims: Arc<Claims>,
    pub owner: Owner,
    /// Actors that have not ended yet, those among them that the table has no more.
    pub alive: Arc<watch::Sender<usize>>,
    /// Entities run here, whoever calls.
    pub runtime: tokio::runtime::Handle,
    pub table: Mutex<Table<E>>,
}

pub(crate) struct Table<E: Entity> {
    slots: HashMap<Arc<str>, Slot<E>>,
    /// The stream of each actor in `slots`.
    streams: HashMap<ActorId, Arc<str>>,
    /// The streams of `slots` in the order in which something was last sent to them.
    used: BTreeMap<u64, Arc<str>>,
    /// Messages that were sent: what that order is told by.
    sent: u64,
    poisoned: HashMap<Arc<str>, PoisonEvent>,
    /// The streams of `poisoned`, the one that was found first in front.
    order: VecDeque<Arc<str>>,
    supervisor: Option<ActorCell>,
}

struct Slot<E: Entity> {
    actor: ActorRef<EntityMsg<E>>,
    waiting: Arc<Semaphore>,
    /// When something was last sent to it, and its place in `Table::used`; `u64::MAX` where it has none yet.
    used: (Instant, u64),
}

/// One of the actors that have not ended.
pub(crate) struct Alive(Arc<watch::Sender<usize>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|alive| *alive = alive.saturating_sub(1));
    }
}

/// What became of a message that was to be sent.
pub(crate) enum Posted {
    Sent,
    /// As many wait as may: this hands out the next permit.
    Full(Arc<Semaphore>),
}

impl<E: Entity> Table<E> {
    pub(crate) fn new(supervisor: ActorCell) -> Table<E> {
        let (slots, streams, poisoned) = (HashMap::new(), HashMap::new(), HashMap::new());
        Table { slots, streams, used: BTreeMap::new(), sent: 0, poisoned, order: VecDeque::new(), supervisor: Some(supervisor) }
    }

    fn insert(&mut self, session_id: &Arc<str>, actor: ActorRef<EntityMsg<E>>, options: &EntityOptions) {
        self.remove(session_id);
        self.streams.insert(actor.get_id(), session_id.clone());
        let slot = Slot { actor, waiting: Arc::new(Semaphore::new(permits(options))), used: (Instant::now(), u64::MAX) };
        self.slots.insert(session_id.clone(), slot);
        self.touch(session_id);
    }

    fn remove(&mut self, session_id: &str) -> Option<Slot<E>> {
        let slot = self.slots.remove(session_id)?;
        self.streams.remove(&slot.actor.get_id());
        self.used.remove(&slot.used.1);
        Some(slot)
    }

    /// Takes note that something is sent to it.
    fn touch(&mut self, session_id: &Arc<str>) -> Option<&Slot<E>> {
        let slot = self.slots.get_mut(session_id)?;
        self.used.remove(&slot.used.1);
        self.sent += 1;
        slot.used = (Instant::now(), self.sent);
        self.used.insert(self.sent, session_id.clone());
        Some(slot)
    }

    /// The one that was idle for longest. Those that are not have been sent something just now, and are few at the end where this looks.
    fn longest_idle(&self, options: &EntityOptions) -> Option<Arc<str>> {
        self.used.values().find(|session_id| self.slots.get(*session_id).is_some_and(|slot| slot.is_idle(options))).cloned()
    }

    /// Forgets that a stream can't be folded; answers whether it was remembered.
    fn forget(&mut self, session_id: &str) -> bool {
        self.order.retain(|poisoned| &**poisoned != session_id);
        self.poisoned.remove(session_id).is_some()
    }
}

impl<E: Entity> Slot<E> {
    fn is_idle(&self, options: &EntityOptions) -> bool {
        self.waiting.available_permits() == permits(options)
    }
}

fn permits(options: &EntityOptions) -> usize {
    options.waiting_max.clamp(1, Semaphore::MAX_PERMITS)
}

impl<E: Entity> Kind<E> {
    fn table(&self) -> MutexGuard<'_, Table<E>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to the entity of this stream, which is spawned where there is none.
    pub(crate) fn post<M: FnOnce(OwnedSemaphorePermit) -> EntityMsg<E>>(
        self: &Arc<Self>,
        session_id: &Arc<str>,
        permit: &mut Option<OwnedSemaphorePermit>,
        message: &mut Option<M>,
    ) -> Result<Posted, EntityError<E::Error>> {
        let mut table = self.table();
        if let Some(poison) = table.poisoned.get(session_id) {
            return Err(poison.clone().into());
        }
        if !table.slots.contains_key(session_id) {
            self.spawn(&mut table, session_id)?;
        }
        let Some(slot) = table.touch(session_id) else { return Err(EntityError::Closed) };
        let permit = match permit.take().map_or_else(|| slot.waiting.clone().try_acquire_owned(), Ok) {
            Ok(permit) => permit,
            Err(_) => return Ok(Posted::Full(slot.waiting.clone())),
        };
        let Some(message) = message.take() else { return Ok(Posted::Sent) };
        if let Err(MessagingErr::SendErr(message)) = slot.actor.cast(message(permit)) {
            // It was killed, and its end has not been told yet.
            self.spawn(&mut table, session_id)?;
            if let Some(slot) = table.slots.get(session_id) {
                // Where that one is refused as well, the store is ending: the reply that is dropped says so.
                let _ = slot.actor.cast(message);
            }
        }
        Ok(Posted::Sent)
    }

    fn spawn(self: &Arc<Self>, table: &mut Table<E>, session_id: &Arc<str>) -> Result<(), EntityError<E::Error>> {
        let there = |supervisor: &ActorCell| supervisor.get_status() < ActorStatus::Stopping;
        let Some(supervisor) = table.supervisor.clone().filter(there) else { return Err(EntityError::Closed) };
        let max = self.options.entities_max.max(1);
        if table.slots.len() >= max && !table.slots.contains_key(session_id) {
            let Some(longest) = table.longest_idle(&self.options) else { return Err(EntityError::TooMany { max }) };
            stop(table.remove(&longest));
        }
        self.alive.send_modify(|alive| *alive += 1);
        let turn = self.claims.turn(session_id, self.owner);
        let args = EntityArgs { kind: self.clone(), session_id: session_id.clone(), turn, alive: Alive(self.alive.clone()) };
        // Entities outlive the caller, and so must not live on a runtime of the caller's.
        let _here = self.runtime.enter();
        let (actor, _starting) =
            ActorRuntime::spawn_linked_instant(None, EntityActor::default(), args, supervisor).map_err(|_| EntityError::Closed)?;
        table.insert(session_id, actor, &self.options);
        Ok(())
    }

    /// Lets go of a stream's entity, once it has done what it was sent. Answers whether there was one.
    pub(crate) fn passivate(&self, session_id: &str) -> bool {
        stop(self.table().remove(session_id))
    }

    /// Lets go of those that were idle for as long as the options say.
    pub(crate) fn passivate_idle(&self) {
        let after = self.options.passivate_after;
        let mut table = self.table();
        let streams = table.used.values().map_while(|session_id| {
            let slot = table.slots.get(session_id)?;
            (slot.used.0.elapsed() >= after).then_some((session_id, slot))
        });
        let idle: Vec<_> = streams.filter(|(_, slot)| slot.is_idle(&self.options)).map(|(session_id, _)| session_id.clone()).collect();
        for session_id in idle {
            stop(table.remove(&session_id));
        }
    }

    /// Lets go of this entity, which can do nothing any more; takes note of the event where that is why.
    pub(crate) fn let_go(&self, actor: &ActorRef<EntityMsg<E>>, session_id: &Arc<str>, poison: Option<&PoisonEvent>) {
        let mut table = self.table();
        let is_it = |slot: &Slot<E>| slot.actor.get_id() == actor.get_id();
        if table.slots.get(session_id).is_some_and(is_it) {
            stop(table.remove(session_id));
        }
        let Some(poison) = poison else { return };
        // What is wrong with it may quote its payload, so that is for the caller alone.
        tracing::error!(
            entity = E::NAME,
            seq = poison.seq.get(),
            event_type = poison.event_type,
            "an entity can't fold an event, and is stopped"
        );
        table.forget(session_id);
        while table.order.len() >= self.options.poisoned_max.max(1)
            && let Some(first) = table.order.pop_front()
        {
            table.poisoned.remove(&first);
        }
        table.poisoned.insert(session_id.clone(), poison.clone());
        table.order.push_back(session_id.clone());
    }

    /// Streams that can't be folded, as far as is remembered.
    pub(crate) fn poison(&self) -> Vec<PoisonEvent> {
        let table = self.table();
        table.order.iter().filter_map(|session_id| table.poisoned.get(session_id).cloned()).collect()
    }

    /// Has the stream folded again when it is asked for. Answers whether it was remembered.
    pub(crate) fn forget_poison(&self, session_id: &str) -> bool {
        self.table().forget(session_id)
    }

    /// The streams that have a live entity, in no order.
    pub(crate) fn live(&self) -> Vec<Arc<str>> {
        self.table().slots.keys().cloned().collect()
    }

    /// The actor of a stream's entity.
    pub(crate) fn actor(&self, session_id: &str) -> Option<ActorCell> {
        self.table().slots.get(session_id).map(|slot| slot.actor.get_cell())
    }

    /// Takes note that an actor has ended.
    pub(crate) fn ended(&self, id: ActorId) {
        let mut table = self.table();
        if let Some(session_id) = table.streams.get(&id).cloned() {
            table.remove(&session_id);
        }
    }

    /// Lets go of all of them, and takes no more.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.supervisor = None;
        for (_, slot) in table.slots.drain() {
            stop(Some(slot));
        }
        table.streams.clear();
        table.used.clear();
    }
}

fn stop<E: Entity>(slot: Option<Slot<E>>) -> bool {
    // One that is dead already has nothing to stop.
    slot.is_some_and(|slot| slot.actor.cast(EntityMsg::Stop).is_ok())
}
