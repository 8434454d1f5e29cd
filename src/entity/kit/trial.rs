//! One entity on trial: what a step of the kit does and checks. It answers what is wrong, and leaves panicking to the kit.

use std::sync::Arc;

use super::text::{canonical, canonical_state, differing, indented};
use crate::entity::{Codec, Entity};
use crate::event::Payload;
use crate::options::Options;

/// What `decide` made of a command.
pub(super) type Answer<E> = Result<Vec<<E as Entity>::Event>, <E as Entity>::Error>;

/// What makes `decide` answer differently of two states that should be one.
const HINT: &str = "does serde leave out a field, or do events come in the order of a HashMap?";

/// The stream that the drafts of a trial are for.
const STREAM: &str = "kit";

/// Three states of one stream, which must be the same at any time.
pub(super) struct Trial<E: Entity> {
    entity: Arc<E>,
    codec: Codec<E>,
    /// From the events as `decide` and the test gave them.
    live: E::State,
    /// From the events as they are read when they were recorded.
    replayed: E::State,
    /// From the same, and written to a snapshot and read from it after each of them.
    restored: E::State,
    /// Events so far.
    position: u64,
}

impl<E: Entity> Trial<E> {
    pub(super) fn new(entity: Arc<E>) -> Result<Trial<E>, String> {
        let codec = Codec::new(entity.as_ref()).map_err(|error| error.to_string())?;
        let (live, replayed) = (E::State::default(), E::State::default());
        let restored = restored::<E>(&replayed)?;
        Ok(Trial { entity, codec, live, replayed, restored, position: 0 })
    }

    pub(super) fn state(&self) -> &E::State {
        &self.live
    }

    pub(super) fn state_json(&self) -> Result<String, String> {
        json::<E>(&self.live)
    }

    /// Applies an event, and checks that nothing is lost on the way to the record and back, nor in a snapshot.
    pub(super) fn fold(&mut self, event: &E::Event) -> Result<(), String> {
        self.position += 1;
        let place = |found: String| format!("event {}: {found}", self.position);
        let (line, read) = self.recorded(event).map_err(place)?;
        let at = format!("event {}, `{line}`", self.position);
        self.entity.apply(&mut self.live, event);
        self.entity.apply(&mut self.replayed, &read);
        self.entity.apply(&mut self.restored, &read);
        json::<E>(&self.live).map_err(|found| format!("{at}: {found}"))?;
        same_state::<E>(&self.live, &self.replayed).map_err(|difference| {
            format!(
                "{at}: it does something else to the state once it was recorded and read again; a field that serde leaves out, or an \
                 `apply` that is not pure\n{difference}"
            )
        })?;
        same_state::<E>(&self.replayed, &self.restored).map_err(|difference| {
            format!(
                "{at}: it does something else to a state that was in a snapshot; a field that serde leaves out, or an `apply` that is \
                 not pure\n{difference}"
            )
        })?;
        self.restored = restored::<E>(&self.restored).map_err(|found| format!("{at}: {found}"))?;
        Ok(())
    }

    /// The line of an event, and the event as it is read from there.
    fn recorded(&self, event: &E::Event) -> Result<(String, E::Event), String> {
        let draft = self.codec.draft(&self.entity, STREAM, None, false, event).map_err(|error| error.to_string())?;
        let line = line(draft.event_type().as_str(), draft.payload_bytes());
        draft.clone().check(&Options::default().limits()).map_err(|error| format!("`{line}` can't be recorded: {error}"))?;
        let read = self.codec.read_back(&self.entity, &draft).map_err(|error| format!("`{line}`: {error}"))?;
        let again = self.line(&read)?;
        if canonical(&line) != canonical(&again) {
            return Err(format!(
                "it does not read back as what it was; its Serialize and Deserialize don't fit (or is it the order of a HashSet?)\n  - {line}\n  + {again}"
            ));
        }
        Ok((line, read))
    }

    /// Applies an event that was recorded earlier, perhaps in an older version.
    pub(super) fn fold_recorded(&mut self, event_type: &str, json: &str) -> Result<(), String> {
        let at = |found: String| format!("recorded event {}, `{event_type}`: {found}", self.position + 1);
        let payload = Payload::from_json(json).map_err(|error| at(error.to_string()))?;
        if self.entity.passes_over(event_type) {
            self.position += 1;
            return Ok(());
        }
        let read = || self.codec.decode(event_type, payload.as_str()).map_err(|error| at(error.to_string()));
        let (event, again) = (read()?, read()?);
        let (first, second) = (self.line(&event).map_err(at)?, self.line(&again).map_err(at)?);
        if canonical(&first) != canonical(&second) {
            return Err(at(format!("its upcast is not pure: it read as two events\n  - {first}\n  + {second}")));
        }
        self.fold(&event)
    }

    /// Asks `decide`, of each state and more than once.
    pub(super) fn decide(&self, command: &E::Command) -> Result<Answer<E>, String> {
        let ask = |state| {
            let answer = self.entity.decide(state, command);
            let text = self.answer_text(&answer)?;
            Ok::<_, String>((answer, text))
        };
        let (answer, text) = ask(&self.live)?;
        let compare = |state, what: &str| match ask(state)?.1 {
            other if other == text => Ok(()),
            other => Err(format!("`decide` {what}\n{}", differing(&text, &other))),
        };
        compare(&self.live, "is not pure: asked twice of one state, it answered differently")?;
        compare(&self.replayed, &format!("answers differently once the events before were recorded and read again; {HINT}"))?;
        compare(&self.restored, &format!("answers differently of a state that was in a snapshot; {HINT}"))?;
        Ok(answer)
    }

    /// Whether the command led to exactly these events; then they have happened.
    pub(super) fn then_events(&mut self, answer: &Answer<E>, expected: &[E::Event]) -> Result<(), String> {
        let expected = self.lines(expected)?;
        let decided = match answer {
            Ok(events) => self.lines(events)?,
            Err(error) => return Err(format!("the command was refused: {error}\nexpected was\n{}", listed(&expected))),
        };
        let same = |one: &String, other: &String| canonical(one) == canonical(other);
        if expected.len() != decided.len() || !expected.iter().zip(&decided).all(|(one, other)| same(one, other)) {
            let difference = differing(&expected.join("\n"), &decided.join("\n"));
            return Err(format!("the command led to other events (- expected, + decided)\n{difference}"));
        }
        self.then_any(answer)
    }

    /// Whether the command was not refused; then its events have happened.
    pub(super) fn then_any(&mut self, answer: &Answer<E>) -> Result<(), String> {
        let events = answer.as_ref().map_err(|error| format!("the command was refused: {error}"))?;
        events.iter().try_for_each(|event| self.fold(event))
    }

    /// Whether the command was refused with an error of this kind.
    pub(super) fn then_error(&self, answer: &Answer<E>, is_it: impl FnOnce(&E::Error) -> bool) -> Result<(), String> {
        let error = self.refused(answer, "an error was expected")?;
        if is_it(error) { Ok(()) } else { Err(format!("the command was refused with another error: {error}")) }
    }

    /// Whether the command was refused with this error.
    pub(super) fn then_error_eq(&self, answer: &Answer<E>, expected: &E::Error) -> Result<(), String>
    where
        E::Error: PartialEq,
    {
        let error = self.refused(answer, &format!("expected was the error: {expected}"))?;
        if error == expected {
            return Ok(());
        }
        Err(format!("the command was refused with another error (- expected, + found)\n  - {expected:?}\n  + {error:?}"))
    }

    fn refused<'a>(&self, answer: &'a Answer<E>, expected: &str) -> Result<&'a E::Error, String> {
        match answer {
            Err(error) => Ok(error),
            Ok(events) => Err(format!("the command was not refused, and led to\n{}\n{expected}", listed(&self.lines(events)?))),
        }
    }

    /// An event as the record has it: type and payload.
    fn line(&self, event: &E::Event) -> Result<String, String> {
        let (event_type, payload) = self.codec.encode(event).map_err(|error| error.to_string())?;
        Ok(line(event_type.as_str(), payload.as_str()))
    }

    fn lines(&self, events: &[E::Event]) -> Result<Vec<String>, String> {
        events.iter().map(|event| self.line(event)).collect()
    }

    fn answer_text(&self, answer: &Answer<E>) -> Result<String, String> {
        match answer {
            Ok(events) => Ok(self.lines(events)?.join("\n")),
            Err(error) => Ok(format!("error: {error}")),
        }
    }
}

fn line(event_type: &str, payload: &str) -> String {
    format!("{event_type} {payload}")
}

fn listed(lines: &[String]) -> String {
    if lines.is_empty() { indented("no event") } else { indented(&lines.join("\n")) }
}

fn json<E: Entity>(state: &E::State) -> Result<String, String> {
    serde_json::to_string(state).map_err(|error| format!("the state can't be written to a snapshot: {error}"))
}

/// The state after it was in a snapshot.
fn restored<E: Entity>(state: &E::State) -> Result<E::State, String> {
    let before = json::<E>(state)?;
    let restored: E::State =
        serde_json::from_str(&before).map_err(|error| format!("the state can't be read from its snapshot: {error}\n  {before}"))?;
    let after = json::<E>(&restored)?;
    if canonical_state(&before) == canonical_state(&after) {
        return Ok(restored);
    }
    Err(format!("the state is another one after it was in a snapshot (- before, + after)\n{}", differing(&before, &after)))
}

fn same_state<E: Entity>(one: &E::State, other: &E::State) -> Result<(), String> {
    let (one, other) = (json::<E>(one)?, json::<E>(other)?);
    if canonical_state(&one) == canonical_state(&other) { Ok(()) } else { Err(differing(&one, &other)) }
}
