//! Tables of cases: given, when, then, by name.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::text::indented;
use super::trial::{Answer, Trial};
use crate::entity::Entity;
use crate::entity::folded::message;

/// One case of a table.
pub struct Case<E: Entity> {
    /// What it is called where it fails.
    pub name: &'static str,
    /// What has happened before.
    pub given: Vec<E::Event>,
    /// The command.
    pub when: E::Command,
    /// What it leads to.
    pub then: Then<E>,
}

/// What a command leads to. Closures need the type of what they look at: `Then::state(|state: &State| state.total == 7)`.
pub struct Then<E: Entity>(Check<E>);

type Check<E> = Box<dyn FnOnce(&mut Trial<E>, &Answer<E>) -> Result<(), String>>;

impl<E: Entity> Then<E> {
    /// Exactly these events.
    pub fn events(events: impl IntoIterator<Item = E::Event>) -> Then<E> {
        let expected: Vec<E::Event> = events.into_iter().collect();
        Then(Box::new(move |trial, answer| trial.then_events(answer, &expected)))
    }

    /// No event, and no refusal.
    pub fn nothing() -> Then<E> {
        Then::events([])
    }

    /// A refusal, with an error for which `is_it` says true.
    pub fn error(is_it: impl FnOnce(&E::Error) -> bool + 'static) -> Then<E> {
        Then(Box::new(move |trial, answer| trial.then_error(answer, is_it)))
    }

    /// A refusal with this error.
    pub fn error_eq(error: E::Error) -> Then<E>
    where
        E::Error: PartialEq,
    {
        Then(Box::new(move |trial, answer| trial.then_error_eq(answer, &error)))
    }

    /// Some events, whichever, and a state for which `holds` says true.
    pub fn state(holds: impl FnOnce(&E::State) -> bool + 'static) -> Then<E> {
        Then(Box::new(move |trial, answer| {
            trial.then_any(answer)?;
            if holds(trial.state()) { Ok(()) } else { Err(format!("the state is another one: {}", trial.state_json()?)) }
        }))
    }
}

/// Runs every case, each from an entity's first event on, and checks what [`Kit`](super::Kit) checks.
///
/// # Panics
/// Where cases fail: with the name of each, and what was wrong. Also where there is no case.
#[track_caller]
pub fn cases<E: Entity, const COUNT: usize>(entity: E, cases: [Case<E>; COUNT]) {
    let entity = Arc::new(entity);
    let mut failed = Vec::new();
    for case in cases {
        let (name, entity) = (case.name, Arc::clone(&entity));
        // A panic of one case must not hide the others.
        let result = catch_unwind(AssertUnwindSafe(|| run(entity, case)));
        let result = result.unwrap_or_else(|panic| Err(format!("it panicked: {}", message(panic.as_ref()))));
        failed.extend(result.err().map(|found| format!("`{name}`\n{}", indented(&found))));
    }
    if COUNT == 0 {
        panic!("there is no case");
    }
    if !failed.is_empty() {
        panic!("{} of {COUNT} cases failed\n{}", failed.len(), failed.join("\n"));
    }
}

fn run<E: Entity>(entity: Arc<E>, case: Case<E>) -> Result<(), String> {
    let mut trial = Trial::new(entity)?;
    case.given.iter().try_for_each(|event| trial.fold(event))?;
    let answer = trial.decide(&case.when)?;
    case.then.0(&mut trial, &answer)
}
