//! The flusher: a thread of LedgerActor's own that flies one group at a time, so that the next is sealed meanwhile.
//!
//! Owned by the actor's State and joined when that is dropped, so no write outlives the actor. A landed flight comes back
//! through a channel, and the actor is told by a message; an actor that is stopping, which gets no messages any more, can
//! wait on the channel alone.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};

use ractor::ActorRef;

use super::ledger::LedgerMsg;
use crate::Flight;

pub(crate) struct Flusher {
    flights: Option<Sender<Flight>>,
    landed: Receiver<Flight>,
    thread: Option<JoinHandle<()>>,
}

/// The way back to the actor.
struct Back {
    landed: Option<Sender<Flight>>,
    actor: ActorRef<LedgerMsg>,
}

impl Back {
    fn give(&self, flight: Flight) {
        if let Some(landed) = &self.landed {
            let _ = landed.send(flight);
        }
        let _ = self.actor.cast(LedgerMsg::Landed);
    }
}

impl Drop for Back {
    /// Where the thread panics, the actor must find the channel closed when it looks.
    fn drop(&mut self) {
        self.landed = None;
        let _ = self.actor.cast(LedgerMsg::Landed);
    }
}

impl Flusher {
    pub(crate) fn start(me: ActorRef<LedgerMsg>) -> std::io::Result<Flusher> {
        let (flights, to_fly) = channel::<Flight>();
        let (back, landed) = channel();
        let back = Back { landed: Some(back), actor: me };
        let thread = Builder::new().name("counterfoil-flusher".to_owned()).spawn(move || {
            for mut flight in to_fly {
                flight.fly();
                back.give(flight);
            }
        })?;
        Ok(Flusher { flights: Some(flights), landed, thread: Some(thread) })
    }

    /// Hands a flight over; gives it back where the thread has ended.
    pub(crate) fn fly(&self, flight: Flight) -> Result<(), Flight> {
        match &self.flights {
            Some(flights) => flights.send(flight).map_err(|unsent| unsent.0),
            None => Err(flight),
        }
    }

    /// The flight that has landed; nothing while it is under way.
    ///
    /// # Panics
    /// Where the thread has: what became of the write is as unknown as if the actor itself had.
    pub(crate) fn landed(&mut self) -> Option<Flight> {
        match self.landed.try_recv() {
            Ok(flight) => Some(flight),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.panicked(),
        }
    }

    /// Waits for the flight under way.
    ///
    /// # Panics
    /// As [`Flusher::landed`].
    pub(crate) fn wait(&mut self) -> Option<Flight> {
        match self.landed.recv() {
            Ok(flight) => Some(flight),
            Err(_) => self.panicked(),
        }
    }

    fn panicked(&mut self) -> Option<Flight> {
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        None
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.flights = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
