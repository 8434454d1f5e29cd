//! Given, when, then: tests of `decide` and `apply`, without actors and without a disk. Called by users' tests; no part of the
//! crate calls it.
//!
//! ```
//! # use counterfoil::entity::{Entity, Upcasts};
//! # use serde::{Deserialize, Serialize};
//! # struct Counter;
//! # #[derive(Serialize, Deserialize)]
//! # #[serde(tag = "event_type", content = "payload")]
//! # enum Counted { #[serde(rename = "counted.v1")] Counted { by: u32 } }
//! # #[derive(Debug, PartialEq, thiserror::Error)]
//! # #[error("that is too much")]
//! # struct TooMuch;
//! # impl Entity for Counter {
//! #     type State = u32; type Command = u32; type Event = Counted; type Error = TooMuch;
//! #     const NAME: &'static str = "counter"; const STATE_VERSION: u32 = 1;
//! #     fn decide(&self, state: &u32, by: &u32) -> Result<Vec<Counted>, TooMuch> {
//! #         if state + by > 10 { return Err(TooMuch) }
//! #         Ok(if *by == 0 { vec![] } else { vec![Counted::Counted { by: *by }] })
//! #     }
//! #     fn apply(&self, state: &mut u32, event: &Counted) { let Counted::Counted { by } = event; *state += by }
//! # }
//! use counterfoil::entity::kit::{Case, Kit, Then, cases};
//!
//! Kit::of(Counter)
//!     .given([Counted::Counted { by: 3 }])
//!     .when(4)
//!     .then([Counted::Counted { by: 4 }])
//!     .then_state(|count| *count == 7)
//!     .when(0)
//!     .then_nothing()
//!     .when(4)
//!     .then_error_eq(TooMuch);
//!
//! let nine = || vec![Counted::Counted { by: 9 }];
//! cases(
//!     Counter,
//!     [
//!         Case { name: "up to ten", given: nine(), when: 1, then: Then::events([Counted::Counted { by: 1 }]) },
//!         Case { name: "no further", given: nine(), when: 2, then: Then::error(|error: &TooMuch| *error == TooMuch) },
//!     ],
//! );
//! ```
//!
//! # What it checks besides
//! The actors rely on some things that no signature says. Every step checks them, so a test of this kind fails where one does not
//! hold:
//!
//! - an event has a type and a payload that can be recorded, and reads back as what it was;
//! - `decide` is pure: the same state and command give the same answer, and the same bytes (a `HashMap` or `HashSet` in an event
//!   gives others: take a `BTreeMap`, a `BTreeSet`);
//! - `apply` is pure, and so are upcasts;
//! - a state loses nothing in a snapshot: beside the state itself goes one that is written to JSON and read again after *each*
//!   event, and `decide` and `apply` must make the same of both. What `#[serde(skip)]` leaves out comes to light as soon as
//!   anything depends on it.
//!
//! Events and states are compared by their JSON, so neither needs `PartialEq` or `Debug`. The order of keys does not count, nor in a
//! state that of a list's items: a `HashSet` has none.

#![allow(clippy::panic)] // it is for tests: what it finds must fail them

mod cases;
mod text;
mod trial;

use std::sync::Arc;

pub use cases::{Case, Then, cases};

use self::trial::{Answer, Trial};
use super::Entity;

/// An entity in a test, at some position of its stream.
pub struct Kit<E: Entity>(Trial<E>);

/// What an entity made of a command. It is over when a `then` takes it.
#[must_use = "nothing is compared before one of the `then`s"]
pub struct When<E: Entity> {
    kit: Kit<E>,
    answer: Answer<E>,
}

/// Panics where the test is written.
macro_rules! must {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(found) => panic!("{found}"),
        }
    };
}

impl<E: Entity> Kit<E> {
    /// This entity, before its first event.
    ///
    /// # Panics
    /// Where [`Codec::new`](super::Codec::new) refuses it, or its default state does not survive a snapshot.
    #[track_caller]
    pub fn of(entity: E) -> Kit<E> {
        Kit(must!(Trial::new(Arc::new(entity))))
    }

    /// These events have happened.
    ///
    /// # Panics
    /// Where one does not survive being recorded, or the state after it a snapshot.
    #[track_caller]
    pub fn given(mut self, events: impl IntoIterator<Item = E::Event>) -> Kit<E> {
        for event in events {
            must!(self.0.fold(&event));
        }
        self
    }

    /// These events were recorded: types and payloads, perhaps of older versions, so that upcasts can be tried. What the entity passes
    /// over is passed over.
    ///
    /// # Panics
    /// Where one can't be read, and as [`Kit::given`].
    #[track_caller]
    pub fn given_json(mut self, records: &[(&str, &str)]) -> Kit<E> {
        for (event_type, payload) in records {
            must!(self.0.fold_recorded(event_type, payload));
        }
        self
    }

    /// The entity gets this command.
    ///
    /// # Panics
    /// Where `decide` does not give the same answer each time.
    #[track_caller]
    pub fn when(self, command: E::Command) -> When<E> {
        let answer = must!(self.0.decide(&command));
        When { kit: self, answer }
    }

    /// Looks at the state.
    ///
    /// # Panics
    /// Where `holds` says false; the panic shows the state as JSON.
    #[track_caller]
    pub fn then_state(self, holds: impl FnOnce(&E::State) -> bool) -> Kit<E> {
        if !holds(self.0.state()) {
            panic!("`then_state` does not hold for the state {}", must!(self.0.state_json()));
        }
        self
    }

    /// The state.
    pub fn state(&self) -> &E::State {
        self.0.state()
    }
}

impl<E: Entity> When<E> {
    /// It leads to exactly these events. They have happened from here on.
    ///
    /// # Panics
    /// Where it leads to others or is refused; the panic shows what is missing and what is too many. As [`Kit::given`] besides.
    #[track_caller]
    pub fn then(mut self, events: impl IntoIterator<Item = E::Event>) -> Kit<E> {
        let expected: Vec<E::Event> = events.into_iter().collect();
        must!(self.kit.0.then_events(&self.answer, &expected));
        self.kit
    }

    /// It leads to no event, and is not refused.
    ///
    /// # Panics
    /// Where it leads to one, or is refused.
    #[track_caller]
    pub fn then_nothing(self) -> Kit<E> {
        self.then([])
    }

    /// It is refused, with an error for which `is_it` says true.
    ///
    /// # Panics
    /// Where it is not refused, or `is_it` says false.
    #[track_caller]
    pub fn then_error(self, is_it: impl FnOnce(&E::Error) -> bool) -> Kit<E> {
        must!(self.kit.0.then_error(&self.answer, is_it));
        self.kit
    }

    /// It is refused with this error.
    ///
    /// # Panics
    /// Where it is not refused, or with another.
    #[track_caller]
    pub fn then_error_eq(self, error: E::Error) -> Kit<E>
    where
        E::Error: PartialEq,
    {
        must!(self.kit.0.then_error_eq(&self.answer, &error));
        self.kit
    }

    /// It leads to some events, whichever, and to a state for which `holds` says true.
    ///
    /// # Panics
    /// Where it is refused, or `holds` says false. As [`Kit::given`] besides.
    #[track_caller]
    pub fn then_state(mut self, holds: impl FnOnce(&E::State) -> bool) -> Kit<E> {
        must!(self.kit.0.then_any(&self.answer));
        self.kit.then_state(holds)
    }
}
