//! The entity that is measured: what an agent's tools did. Its events have the payloads that plain appends have.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bench_load::{Payloads, Result};
use counterfoil::entity::Entity;
use serde::{Deserialize, Serialize};

/// What a tool printed: as [`Payloads`] writes it, field by field, so that it is as long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Printed {
    tool: String,
    call_id: String,
    command: String,
    exit_code: i32,
    stdout: String,
}

/// What has happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
pub enum Happened {
    #[serde(rename = "tool_result.v1")]
    Printed(Printed),
}

/// What is known of the tools: a state that doesn't grow with its stream, so that a snapshot is about as long whatever came before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    pub calls: u64,
    pub failed: u64,
    pub bytes: u64,
    pub last: String,
    pub commands: BTreeMap<String, u64>,
}

/// See [`Known`]. A command is what is to be recorded; there is nothing to refuse.
pub struct Tools;

impl Entity for Tools {
    type State = Known;
    type Command = Printed;
    type Event = Happened;
    type Error = Infallible;
    const NAME: &'static str = "tools";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, _: &Known, command: &Printed) -> Result<Vec<Happened>, Infallible> {
        Ok(vec![Happened::Printed(command.clone())])
    }

    fn apply(&self, known: &mut Known, event: &Happened) {
        let Happened::Printed(printed) = event;
        known.calls += 1;
        known.failed += u64::from(printed.exit_code != 0);
        known.bytes += printed.stdout.len() as u64;
        known.last.clone_from(&printed.call_id);
        match known.commands.get_mut(&printed.command) {
            Some(calls) => *calls += 1,
            None => drop(known.commands.insert(printed.command.clone(), 1)),
        }
    }
}

/// The command that records payload `n`.
pub fn command(payloads: &Payloads, n: u64) -> Result<Printed> {
    Ok(serde_json::from_str(&payloads.get(n))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use counterfoil::entity::Codec;

    #[test]
    fn its_events_are_as_long_as_what_is_appended_plainly() {
        let payloads = Payloads::new(395);
        let codec = Codec::new(&Tools).unwrap();
        for n in [0, 7, 4_000_000] {
            let draft = codec.draft(&Tools, "s", None, true, &Happened::Printed(command(&payloads, n).unwrap())).unwrap();
            assert_eq!((draft.event_type().as_str(), draft.payload_bytes()), ("tool_result.v1", payloads.get(n).as_str()));
        }
    }
}
