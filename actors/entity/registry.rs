//! RegistryActor: supervises the entities of one kind. It restarts nothing: an entity is spawned again when it is next sent something.
//!
//! It also lets go of those that are idle, at an interval. Commands don't pass through it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::kind::Kind;
use crate::entity::Entity;

/// How often idle entities are looked for, at least: a quarter of the time that one may be idle, within these bounds.
const SWEEP_MIN: Duration = Duration::from_millis(5);
const SWEEP_MAX: Duration = Duration::from_secs(15);

pub(crate) enum RegistryMsg<E: Entity> {
    /// What it supervises: sent once, first.
    Begin(Arc<Kind<E>>),
    /// Look for idle ones.
    Sweep,
}

pub(crate) struct RegistryActor<E>(PhantomData<fn() -> E>);

impl<E> Default for RegistryActor<E> {
    fn default() -> RegistryActor<E> {
        RegistryActor(PhantomData)
    }
}

impl<E: Entity> Actor for RegistryActor<E> {
    type Msg = RegistryMsg<E>;
    type State = Option<Arc<Kind<E>>>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RegistryMsg<E>>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(None)
    }

    async fn handle(
        &self,
        me: ActorRef<RegistryMsg<E>>,
        message: RegistryMsg<E>,
        kind: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RegistryMsg::Begin(begun) => {
                let after = begun.options.passivate_after;
                if after > Duration::ZERO {
                    me.send_interval((after / 4).clamp(SWEEP_MIN, SWEEP_MAX), || RegistryMsg::Sweep);
                }
                *kind = Some(begun);
            }
            RegistryMsg::Sweep => {
                if let Some(kind) = kind {
                    kind.passivate_idle();
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<RegistryMsg<E>>,
        event: SupervisionEvent,
        kind: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match &event {
            SupervisionEvent::ActorTerminated(cell, ..) => Some(cell),
            SupervisionEvent::ActorFailed(cell, error) => {
                tracing::error!(entity = E::NAME, %error, "an entity's actor has failed; its next command folds it anew");
                Some(cell)
            }
            _ => None,
        };
        if let (Some(cell), Some(kind)) = (ended, kind) {
            kind.ended(cell.get_id());
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<RegistryMsg<E>>, kind: &mut Self::State) -> Result<(), ActorProcessingErr> {
        if let Some(kind) = kind {
            kind.close();
        }
        Ok(())
    }
}
