//! Standard output: the one place where the command writes to it. A reader that has gone away (`… | head`) is no
//! failure: it ends the command quietly.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Standard output, locked and buffered.
pub struct Out {
    to: BufWriter<StdoutLock<'static>>,
    json: bool,
}

impl Out {
    pub fn new(json: bool) -> Out {
        Out { to: BufWriter::with_capacity(64 << 10, io::stdout().lock()), json }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn is_terminal(&self) -> bool {
        self.to.get_ref().is_terminal()
    }

    /// One line of text.
    pub fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.to, "{text}").map_err(failed)
    }

    /// Text that brings its line ends along.
    pub fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        write!(self.to, "{text}").map_err(failed)
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(failed)
    }

    /// One JSON document on a line of its own.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::other(format!("printing JSON: {error}; leave out --json")))?;
        self.line(text)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(failed)
    }
}

fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ReaderGone
    } else {
        Failure::other(format!("writing to standard output: {error}; write to a place that takes it"))
    }
}

/// Tells a person something that is no result: on standard error, and only where no JSON was asked for.
pub fn note(out: &Out, text: impl Display) {
    if !out.json {
        // Where standard error is closed nobody listens.
        let _ = writeln!(io::stderr(), "counterfoil: {text}");
    }
}
