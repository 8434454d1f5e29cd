//! Commands of the shell: with a deadline, with bounded output, and none that outlives the process unnoticed.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use counterfoil::EventId;

use crate::conversation::Outcome;

/// How long the output of a command that has ended is waited for: something that it left in the background may hold it open.
const OUTPUT_WAIT: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(1);
/// Bytes of output that are kept. 16 KiB: a model reads no more.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// A command holds a lock on this file for as long as it runs, whoever has started it and whether or not they live.
const RUNNING: &str = ".running";

/// Runs a command, for so long at most: then it is killed, with all that it has started. An error says that nobody knows whether it was
/// carried out.
pub fn run(dir: &Path, command: &str, args: &[String], key: Option<EventId>, runs_for: Duration) -> io::Result<Outcome> {
    let lock = running(dir)?;
    lock.lock_shared()?;
    let (output, writer) = io::pipe()?;
    let mut sh = Command::new("sh");
    sh.args(["-c", command, "sh"]).args(args).current_dir(dir).env_remove("COUNTERFOIL_CALL_ID");
    // A group of its own, so that it can be killed with all that it has started.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut sh, 0);
    // Its input is the locked file, which has nothing in it.
    sh.stdin(lock).stdout(writer.try_clone()?).stderr(writer);
    if let Some(key) = key {
        sh.env("COUNTERFOIL_CALL_ID", key.to_string());
    }
    let mut child = sh.spawn()?;
    drop(sh); // and with it this process's end of the pipe and of the lock
    let output = Output::of(output);
    let deadline = Instant::now() + runs_for;
    let ended = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() < deadline => thread::sleep(POLL),
            None => break None,
        }
    };
    if ended.is_none() {
        end_group(child.id())?;
        child.wait()?;
    }
    let output = output.take();
    Ok(match ended {
        Some(status) if status.success() => Outcome::Done { output },
        Some(status) => Outcome::Failed { reason: format!("{status}\n{output}") },
        None => Outcome::Failed { reason: format!("killed after {} ms; what it had done by then is done\n{output}", runs_for.as_millis()) },
    })
}

/// Waits, for so long at most, until no command runs that an earlier process has started: a process that is killed leaves them running.
pub fn wait_for_earlier(dir: &Path, wait: Duration) -> io::Result<()> {
    let lock = running(dir)?;
    let deadline = Instant::now() + wait;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let problem = format!("a command of an earlier process still runs in {}; end it, then start again", dir.display());
                return Err(io::Error::other(problem));
            }
        }
    }
}

fn running(dir: &Path) -> io::Result<File> {
    File::options().create(true).read(true).append(true).open(dir.join(RUNNING))
}

fn end_group(leader: u32) -> io::Result<()> {
    Command::new("sh").args(["-c", "kill -s KILL -- \"-$1\"", "sh", &leader.to_string()]).stderr(Stdio::null()).status().map(|_| ())
}

/// What a command prints: the first bytes are kept, all of it is read.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn of(mut from: io::PipeReader) -> Output {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel::<()>();
        let into = kept.clone();
        thread::spawn(move || {
            let _end = end;
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_BYTES_MAX - kept.len();
                kept.extend(buffer.iter().take(read.min(room)));
            }
        });
        Output { kept, ended }
    }

    fn take(self) -> String {
        let _ = self.ended.recv_timeout(OUTPUT_WAIT);
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).trim_end().to_owned()
    }
}
