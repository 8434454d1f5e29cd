//! SWE-agent's trajectories: one JSON object with a `trajectory` array of steps. Called by the reader and by
//! detection.
//!
//! A step holds what the model asked for *and* what came back. It becomes one event, `tool_call.v1` from
//! child_agent(model): the model's asking is what began it, and two events would need bytes that are not in the
//! file. The model is `replay_config.agent.model.name`, which stays the same for a whole run, else `unknown`.
//! Steps carry no time. The file is read whole (it is one JSON value), up to [`FILE_BYTES_MAX`].

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ImportError;
use super::facts::{Facts, UNKNOWN};
use super::object::Object;
use crate::event::{EventType, Source};

/// Bytes of the largest trajectory. 512 MiB: twenty times the largest ones that are published.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// A trajectory's steps, and the model that made them.
#[derive(Debug)]
pub(crate) struct Trajectory {
    pub steps: Vec<Box<RawValue>>,
    pub model: String,
}

#[derive(Deserialize)]
struct Whole {
    trajectory: Vec<Box<RawValue>>,
    #[serde(default)]
    replay_config: Option<Box<RawValue>>,
}

/// Reads a trajectory whole.
pub(crate) fn load(path: &Path, file: File, bytes: u64) -> Result<Trajectory, ImportError> {
    let too_large = |bytes| ImportError::TooLarge { path: path.to_owned(), bytes, max: FILE_BYTES_MAX };
    let wrong = |line: usize, reason: String| ImportError::NotATrajectory { path: path.to_owned(), line: line as u64, reason };
    if bytes > FILE_BYTES_MAX {
        return Err(too_large(bytes));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(ImportError::io("reading", path))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(text.len() as u64));
    }
    // serde would take an array for an object, its elements for the fields.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong(1, "it is no JSON object".to_owned()));
    }
    let whole: Whole = serde_json::from_slice(&text).map_err(|error| wrong(error.line(), error.to_string()))?;
    let model = whole.replay_config.as_ref().and_then(|config| model(config.get())).unwrap_or_else(|| UNKNOWN.to_owned());
    Ok(Trajectory { steps: whole.trajectory, model })
}

/// The configuration is an object, or a string that holds one.
fn model(config: &str) -> Option<String> {
    let inner = if config.starts_with('"') { serde_json::from_str::<String>(config).ok()? } else { config.to_owned() };
    Object::parse(&inner)?.object("agent")?.object("model")?.text("name")
}

/// What a step is recorded as.
pub(crate) fn read(model: &str) -> Facts {
    Facts::new(EventType::TOOL_CALL, Source::child_agent(model))
}

/// Whether a file is a trajectory. Streams, and stops at the first byte that speaks against it.
pub(crate) fn is_trajectory(path: &Path) -> Result<bool, ImportError> {
    let (file, _) = super::scan::open(path)?;
    let mut input = BufReader::new(file);
    if !is_object(&mut input).map_err(ImportError::io("reading", path))? {
        return Ok(false);
    }
    match serde_json::from_reader::<_, Probe>(input) {
        Ok(_) => Ok(true),
        Err(error) if error.is_io() => Err(ImportError::io("reading", path)(error.into())),
        Err(_) => Ok(false),
    }
}

/// Whether a brace comes first, white space passed over: serde would take an array for an object too.
fn is_object(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = input.fill_buf()?;
        let spaces = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match bytes.get(spaces) {
            Some(first) => return Ok(*first == b'{'),
            None if bytes.is_empty() => return Ok(false),
            None => input.consume(spaces),
        }
    }
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "trajectory")]
    _trajectory: Array,
}

struct Array;

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Array, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Array;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Array, A::Error> {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Array)
            }
        }
        from.deserialize_seq(Elements)
    }
}
