//! Commands of the shell: with a deadline, with bounded output, and none that outlives the process unnoticed.
//!
//! A command is a process group of its own, and all of it holds a lock on a file. So a command ends with all that it has started, before
//! anything is recorded of it; and one whose process was killed goes on, and is waited for by the next process. What leaves the group
//! (`setsid`) can't be ended, and still is waited for; what closes that file as well is beyond this, as a service of the machine is.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use counterfoil::EventId;

use crate::conversation::Outcome;

/// How long the output of a command that has ended is waited for, and the end of what was killed: that takes a moment.
const END_WAIT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(1);
/// Bytes of output that are kept. 16 KiB: a model reads no more.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Takes the locked file from its input, which a part in the background would not have, and writes its group's id into it.
const LOCKED: &str = r#"exec 9<&0 </dev/null; echo $$ >&9; exec sh -c "$@""#;

/// Runs a command in `work`, for so long at most: then it is killed. Nothing that it has started is left when this returns. An error says
/// that nobody knows whether it was carried out.
pub fn run(work: &Path, running: &Path, command: &str, args: &[String], key: Option<EventId>, runs_for: Duration) -> io::Result<Outcome> {
    let mut started = Started::start(work, running, command, args, key)?;
    let ended = started.wait(Instant::now() + runs_for);
    let is_over = started.end();
    let (ended, is_over) = (ended?, is_over?);
    let output = started.output.take();
    Ok(match ended {
        _ if !is_over => Outcome::Failed { reason: format!("something that it has started goes on, and can't be ended\n{output}") },
        Some(status) if status.success() => Outcome::Done { output },
        Some(status) => Outcome::Failed { reason: format!("{status}\n{output}") },
        None => Outcome::Failed { reason: format!("killed after {} ms; what it had done by then is done\n{output}", runs_for.as_millis()) },
    })
}

/// Waits, for so long at most, until no command runs that an earlier process has started: a process that is killed leaves them running.
pub fn wait_for_earlier(running: &Path, wait: Duration) -> io::Result<()> {
    let deadline = Instant::now() + wait;
    for file in fs::read_dir(running)? {
        let file = file?.path();
        if !is_free_by(&file, deadline)? {
            let group: Option<u32> = fs::read_to_string(&file)?.trim().parse().ok();
            let end = group.map_or("end it".to_owned(), |group| format!("end it by `kill -9 -- -{group}`"));
            return Err(io::Error::other(format!("a command of an earlier process still runs; {end}, then start again")));
        }
        fs::remove_file(file)?;
    }
    Ok(())
}

/// Whether nobody holds the lock on this file any more, by then at the latest.
fn is_free_by(file: &Path, deadline: Instant) -> io::Result<bool> {
    let file = File::open(file)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => return Ok(false),
        }
    }
}

/// A command that was started.
pub struct Started {
    child: Child,
    /// The file that all of it has locked.
    lock: PathBuf,
    output: Output,
}

impl Started {
    pub fn start(work: &Path, running: &Path, command: &str, args: &[String], key: Option<EventId>) -> io::Result<Started> {
        let (file, lock) = tempfile::Builder::new().prefix("command-").tempfile_in(running)?.keep()?;
        file.lock()?;
        let (output, writer) = io::pipe()?;
        let mut sh = Command::new("sh");
        sh.args(["-c", LOCKED, "sh", command, "sh"]).args(args).current_dir(work).env_remove("COUNTERFOIL_CALL_ID");
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut sh, 0);
        sh.stdin(file).stdout(writer.try_clone()?).stderr(writer);
        if let Some(key) = key {
            sh.env("COUNTERFOIL_CALL_ID", key.to_string());
        }
        let child = sh.spawn()?;
        drop(sh); // and with it this process's end of the pipe and of the lock
        Ok(Started { child, lock, output: Output::of(output) })
    }

    /// Waits for it, until then at the latest; for itself alone, not for what it has put into the background.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            match self.child.try_wait()? {
                None if Instant::now() < deadline => thread::sleep(POLL),
                ended => return Ok(ended),
            }
        }
    }

    /// Ends what is left of it. Answers whether nothing is.
    fn end(&mut self) -> io::Result<bool> {
        let is_over = matches!(self.child.try_wait(), Ok(Some(_))) && is_free_by(&self.lock, Instant::now())?;
        if !is_over {
            end_group(self.child.id())?;
            self.child.wait()?;
        }
        let is_over = is_over || is_free_by(&self.lock, Instant::now() + END_WAIT)?;
        if is_over {
            fs::remove_file(&self.lock)?;
        }
        Ok(is_over)
    }
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
        let _ = self.ended.recv_timeout(END_WAIT);
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).trim_end().to_owned()
    }
}
