//! Anchors: places outside the store that checkpoints are handed to, so that who can rewrite the store can't rewrite those too.
//!
//! Called by `super::handing`, which tries again what has failed. An anchor may be slow, hang, fail and panic: no append ever waits
//! for it, and a close no longer than its deadline.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::AnchorError;
use crate::ledger::storage::{fs_file, private};
use crate::ledger::{FsStorage, Storage, io_advice, notes};
use crate::note::Checkpoint;

/// How long an anchor is waited for, unless it says otherwise: a share or a service that is well answers within a second, and a close
/// waits for as long.
pub const ANCHOR_DEADLINE: Duration = Duration::from_secs(30);

/// A place outside the store. It is called on a thread of its own, one call at a time; a call that hangs is given up at its deadline
/// and never joined, and until it comes back the anchor is not called again.
pub trait Anchor: Send + Sync {
    /// What it is called in reports.
    fn name(&self) -> String;

    /// The newest checkpoint of this origin that it has; nothing where it has none, or can't say.
    ///
    /// # Errors
    /// [`AnchorError`] where it should be able to say, and is not.
    fn last(&self, origin: &str) -> Result<Option<Checkpoint>, AnchorError> {
        let _ = origin;
        Ok(None)
    }

    /// Takes a checkpoint; returns once it has it for good. It may be given the same one twice, after a crash.
    ///
    /// # Errors
    /// [`AnchorError`]. It is given this or a later one again.
    fn publish(&self, checkpoint: &Checkpoint) -> Result<(), AnchorError>;

    /// How long a call may take before it is given up.
    fn answers_within(&self) -> Duration {
        ANCHOR_DEADLINE
    }

    /// The file that it keeps checkpoints in, where it has one: a file inside the store is refused.
    fn file(&self) -> Option<&Path> {
        None
    }
}

impl fmt::Debug for dyn Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "anchor {}", self.name())
    }
}

/// A file that checkpoints are appended to, locked and fsynced: on another disk, or a share. It may be one that can only be appended
/// to (`chattr +a`); what a crash has left of a note there has to be cut off by who may.
#[derive(Clone, Debug)]
pub struct FileAnchor(PathBuf);

impl FileAnchor {
    /// That file. It is made where it is missing; its directory is not.
    pub fn new(path: impl Into<PathBuf>) -> FileAnchor {
        FileAnchor(path.into())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whoever else appends to it waits meanwhile.
    fn append(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let mut file = private(OpenOptions::new().read(true).append(true).create(true)).open(&self.0)?;
        let mut read = fs_file(file.try_clone()?)?;
        match file.lock() {
            // Some network file systems have no locks.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        let end = notes::end_in(read.as_mut(), checkpoint.origin())?;
        end.check(checkpoint.origin())?;
        if !end.rest.is_empty() {
            file.set_len(end.notes_end)?;
        }
        file.write_all(checkpoint.to_string().as_bytes())?;
        file.sync_data()?;
        // A child process that was forked meanwhile would keep it.
        let _ = file.unlock();
        self.sync_name()
    }

    fn sync_name(&self) -> io::Result<()> {
        FsStorage.sync_dir(self.0.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    }

    /// The last one that it has, durably: a process that was killed may have written it and not more.
    fn durable_last(&self, origin: &str) -> io::Result<Option<Checkpoint>> {
        let mut file = match FsStorage.open_read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let end = notes::end_in(file.as_mut(), origin)?;
        end.check(origin)?;
        if end.last.is_some() {
            file.sync_data()?;
            self.sync_name()?;
        }
        Ok(end.last)
    }

    fn failed(&self, error: &io::Error) -> AnchorError {
        let advice = if error.kind() == io::ErrorKind::InvalidData { String::new() } else { format!("; {}", io_advice(error)) };
        AnchorError { anchor: self.name(), reason: format!("{error}{advice}") }
    }
}

impl Anchor for FileAnchor {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn last(&self, origin: &str) -> Result<Option<Checkpoint>, AnchorError> {
        self.durable_last(origin).map_err(|error| self.failed(&error))
    }

    fn publish(&self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        self.append(checkpoint).map_err(|error| self.failed(&error))
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.0)
    }
}

/// How often it is looked whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a command may take to be killed once its deadline is past.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// What is kept of what a command says on standard error: the last lines say what went wrong.
const SAID_BYTES_MAX: usize = 1024;
/// How long what it has said is waited for once it has ended: a child of its own may hold the pipe open.
const SAID_WAIT: Duration = Duration::from_secs(2);

/// A command that is given each checkpoint on its standard input: `git commit`, an upload, a witness's client. It has taken it
/// when it exits with 0 within its deadline; past that it is killed (its own children are not).
#[derive(Clone, Debug)]
pub struct CommandAnchor {
    program: OsString,
    args: Vec<OsString>,
    deadline: Duration,
}

impl CommandAnchor {
    /// That program with these arguments, and 30 seconds for each checkpoint.
    pub fn new(program: impl Into<OsString>, args: impl IntoIterator<Item = impl Into<OsString>>) -> CommandAnchor {
        CommandAnchor { program: program.into(), args: args.into_iter().map(Into::into).collect(), deadline: Duration::from_secs(30) }
    }

    /// Gives it so long instead.
    pub fn deadline(self, deadline: Duration) -> CommandAnchor {
        CommandAnchor { deadline, ..self }
    }

    fn run(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("it could not be started: {error}; see that the command is there"))?;
        let said = child.stderr.take().map(last_said);
        if let Some(mut stdin) = child.stdin.take() {
            // A checkpoint fits a pipe. A command that reads none of it says by its exit code whether that was right.
            let _ = stdin.write_all(checkpoint.to_string().as_bytes());
        }
        let status = self.wait(&mut child)?;
        if status.success() {
            return Ok(());
        }
        let said = said.and_then(|said| said.recv_timeout(SAID_WAIT).ok()).unwrap_or_default();
        Err(format!("it ended with {status}; it says: {}", if said.is_empty() { "nothing" } else { &said }))
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, String> {
        let until = Instant::now() + self.deadline;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < until => thread::sleep(LOOK_EVERY),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("it has not ended within {} ms, and was killed; see what it waits for", self.deadline.as_millis()));
                }
                Err(error) => return Err(format!("it could not be waited for: {error}")),
            }
        }
    }
}

impl Anchor for CommandAnchor {
    fn name(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| word.to_string_lossy());
        words.collect::<Vec<_>>().join(" ")
    }

    fn publish(&self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        self.run(checkpoint).map_err(|reason| AnchorError { anchor: self.name(), reason })
    }

    /// It keeps its deadline by itself, and takes a moment to be killed.
    fn answers_within(&self) -> Duration {
        self.deadline.saturating_add(KILLED_WITHIN)
    }
}

/// The end of what is said there, once all is said.
fn last_said(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (done, said) = sync_channel(1);
    // Where there is no thread, nothing is heard.
    let _ = thread::Builder::new().name("counterfoil-anchor".to_owned()).spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read) = from.read(&mut buffer)
            && read > 0
        {
            kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let over = kept.len().saturating_sub(SAID_BYTES_MAX);
            kept.drain(..over);
        }
        let _ = done.send(String::from_utf8_lossy(&kept).trim().replace('\n', "; "));
    });
    said
}
