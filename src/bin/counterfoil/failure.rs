//! Errors and exit codes. Each error is told once, with what to do next.

use std::io::{self, Write};
use std::process::ExitCode;

use counterfoil::attest::KeyFileError;
use counterfoil::checkpoint::CheckpointError;
use counterfoil::import::ImportError;
use counterfoil::{AppendError, DraftError, EraseError, Error, LedgerError, MirrorError, QueryError, RepairError, io_advice};

use crate::context::Context;
use crate::text;

/// A wrong command line, or bad input.
pub const USAGE: u8 = 2;
const INCONSISTENT: u8 = 1;
const LOCKED: u8 = 3;
const OTHER: u8 = 4;

/// How a command ended that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    /// Something was found to be wrong, and printed.
    Inconsistent,
    /// Part of the work failed, and that was printed.
    PartFailed,
}

impl Exit {
    pub fn consistent(is_consistent: bool) -> Exit {
        if is_consistent { Exit::Fine } else { Exit::Inconsistent }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Inconsistent => INCONSISTENT,
            Exit::PartFailed => OTHER,
        })
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// Nobody reads standard output any more.
    ReaderGone,
    /// Something to tell.
    Told { code: u8, message: String },
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::Told { code: USAGE, message: message.into() }
    }

    pub fn other(message: impl Into<String>) -> Failure {
        Failure::Told { code: OTHER, message: message.into() }
    }

    /// Something about the outside of a store.
    pub fn io(action: &str, path: &std::path::Path, error: &io::Error) -> Failure {
        Failure::other(format!("{action} {}: {error}; {}", path.display(), io_advice(error)))
    }

    /// Tells it on standard error and gives the exit code.
    pub fn report(self, context: &Context) -> ExitCode {
        match self {
            Failure::ReaderGone => ExitCode::SUCCESS,
            Failure::Told { code, message } if context.json => report_json(code, &context.local(&message)),
            Failure::Told { code, message } => {
                let _ = writeln!(io::stderr(), "counterfoil: {}", text::plain(&context.local(&message)));
                ExitCode::from(code)
            }
        }
    }
}

pub fn report_json(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{}", serde_json::json!({ "error": message, "exit_code": code }));
    ExitCode::from(code)
}

fn code_of(error: &Error) -> u8 {
    match error {
        _ if error.is_locked() => LOCKED,
        Error::Draft(_) | Error::Append(AppendError::Draft(_) | AppendError::EmptyBatch | AppendError::BatchTooLarge { .. }) => USAGE,
        Error::Query(QueryError::Refused(_)) => USAGE,
        Error::Erase(EraseError::Reason { .. } | EraseError::By { .. }) => USAGE,
        _ => OTHER,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Told { code: code_of(&error), message: error.to_string() }
    }
}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Error::from(error).into()
            }
        })*
    };
}

from!(LedgerError, MirrorError, QueryError, AppendError, DraftError, RepairError);

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Failure {
        match error {
            CheckpointError::Ledger(error) => error.into(),
            error if error.is_inconsistent() => Failure::Told { code: INCONSISTENT, message: error.to_string() },
            error => Failure::other(error.to_string()),
        }
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Failure {
        Failure::other(error.to_string())
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Failure {
        match error {
            ImportError::Ledger(error) => error.into(),
            error => Failure::other(error.to_string()),
        }
    }
}
