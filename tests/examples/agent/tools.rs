//! The tools, and what each of them promises about being run twice. They work in one folder.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use counterfoil::EventId;
use serde::{Deserialize, Serialize};

use crate::conversation::Outcome;
use crate::shell;

/// Bytes of a file that the model is shown. 64 KiB: more is no use to it.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long a command of the shell may take.
const SHELL_RUNS_FOR: Duration = Duration::from_secs(10);
/// How long a command that an earlier process has started is waited for.
const EARLIER_WAIT: Duration = Duration::from_secs(30);

/// A tool, with what it is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    ReadFile {
        path: String,
    },
    Pay {
        to: String,
        cents: u64,
    },
    /// `sh -c` in the folder. What comes from elsewhere, such as the name of a file, belongs into `args` ("$1" in the command), where
    /// no shell takes it for anything but a text. `keyed`: the command does nothing a second time that it is run with the same
    /// COUNTERFOIL_CALL_ID.
    Shell {
        command: String,
        args: Vec<String>,
        keyed: bool,
    },
}

/// What can be done about a call that may have been begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing: run it again.
    Repeatable,
    /// Run with the same key again, it does nothing and gives its first result.
    Keyed,
    /// Run again, it would be done twice; not run again, perhaps never.
    Unknowable,
}

impl Tool {
    pub fn kind(&self) -> Kind {
        match self {
            Tool::ReadFile { .. } => Kind::Repeatable,
            Tool::Pay { .. } | Tool::Shell { keyed: true, .. } => Kind::Keyed,
            Tool::Shell { keyed: false, .. } => Kind::Unknowable,
        }
    }
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tool::ReadFile { path } => write!(f, "read_file {path}"),
            Tool::Pay { to, cents } => write!(f, "pay {} to {to}", amount(*cents)),
            Tool::Shell { command, .. } => write!(f, "shell {command}"),
        }
    }
}

/// The folder that the tools work in.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Takes the folder over, once no command that an earlier process started there is running any more.
    pub fn new(dir: &Path) -> io::Result<Tools> {
        fs::create_dir_all(dir.join("bank"))?;
        shell::wait_for_earlier(dir, EARLIER_WAIT)?;
        Ok(Tools { dir: dir.to_owned() })
    }

    /// Runs a tool. An error says that nobody knows what came of it: nothing may be recorded then, and the call stays open.
    pub fn run(&self, tool: &Tool, key: EventId) -> io::Result<Outcome> {
        match tool {
            Tool::ReadFile { path } => Ok(match self.read_file(path) {
                Ok(output) => Outcome::Done { output },
                Err(error) => Outcome::Failed { reason: format!("{path}: {error}") },
            }),
            Tool::Pay { to, cents } => Ok(Outcome::Done { output: self.pay(to, *cents, key)? }),
            Tool::Shell { command, args, keyed } => shell::run(&self.dir, command, args, keyed.then_some(key), SHELL_RUNS_FOR),
        }
    }

    fn read_file(&self, path: &str) -> io::Result<String> {
        let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let file = self.dir.join(path).canonicalize()?;
        if !is_inside || !file.starts_with(self.dir.canonicalize()?) || !file.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a file in the work folder"));
        }
        let mut bytes = Vec::new();
        File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Pays, once a key. The folder `bank` stands for a bank: an order counts from the moment that it is there under its key.
    fn pay(&self, to: &str, cents: u64, key: EventId) -> io::Result<String> {
        let bank = self.dir.join("bank");
        let (order, draft) = (bank.join(key.to_string()), bank.join(format!("{key}.draft")));
        if !order.exists() {
            let mut file = File::create(&draft)?;
            writeln!(file, "{} to {to}", amount(cents))?;
            file.sync_all()?;
            // The one step that is both the effect and its receipt.
            match fs::hard_link(&draft, &order) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        if let Err(error) = fs::remove_file(&draft)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        File::open(&bank)?.sync_all()?;
        // Not what was asked for now, but what was done under this key.
        Ok(format!("order {key}: {}", fs::read_to_string(order)?.trim_end()))
    }
}

fn amount(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
