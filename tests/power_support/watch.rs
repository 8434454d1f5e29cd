//! What the writing process says, when the power goes, and what a campaign has met.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::common::Random;

/// What a campaign has met.
#[derive(Debug, Default)]
pub struct Count {
    pub cuts: u64,
    pub phases: BTreeMap<&'static str, u64>,
    pub flags: BTreeMap<u64, u64>,
    pub disks: BTreeMap<String, u64>,
    pub acknowledged: u64,
    /// Of these: while the cut was under way, by an fsync that lied.
    pub acknowledged_in_the_cut: u64,
    pub lost_in_the_cut: u64,
    pub recovered: u64,
    pub torn: u64,
    pub torn_bytes: u64,
    pub rewritten: u64,
    pub behind: u64,
    pub behind_events: u64,
    pub set_aside: u64,
    pub unsynced_lost: u64,
    pub unsynced: u64,
    pub ended_alone: u64,
    pub waits_for_a_dead_mirror: u64,
    pub ended_by_signal: BTreeMap<i32, u64>,
    pub checks: u64,
    pub again: u64,
}

/// When the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    Acks(u64),
    Time(Duration),
    After(&'static str, Duration),
}

/// Up to so many microseconds, small ones as often as large ones.
pub fn moment(random: &mut Random, micros_max: u64) -> Duration {
    let bits = u64::from(micros_max.ilog2()) + 1;
    let magnitude = 1u64 << random.below(bits);
    Duration::from_micros(magnitude + random.below(magnitude))
}

/// A process that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The lines that a process writes, as they come.
pub fn lines_of(child: &mut Child) -> Receiver<String> {
    let mut pipe = BufReader::new(child.stdout.take().unwrap());
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // Half a line says nothing.
        while pipe.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if line != "\n" && to.send(line.trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    from
}

/// Takes lines until the moment has come, or the process has ended; answers whether it has.
pub fn wait(lines: &Receiver<String>, moment: Moment, actors: bool) -> Result<(Vec<String>, bool), String> {
    let mut taken: Vec<String> = Vec::new();
    let is_ack = |line: &str| if actors { line.starts_with("ack") } else { line.contains("event_hash") };
    let mut acks = 0;
    let mut deadline = match moment {
        Moment::Time(time) => Some(Instant::now() + time),
        _ => None,
    };
    loop {
        let rest = deadline.map_or(SILENCE_MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        match lines.recv_timeout(rest) {
            Ok(line) => {
                acks += u64::from(is_ack(&line));
                let marker = matches!(moment, Moment::After(marker, _) if marker == line);
                taken.push(line);
                match moment {
                    Moment::After(_, time) if marker => deadline = Some(Instant::now() + time),
                    Moment::Acks(count) if acks >= count => return Ok((taken, false)),
                    _ => {}
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok((taken, true)),
            Err(RecvTimeoutError::Timeout) if deadline.is_some() => return Ok((taken, false)),
            Err(RecvTimeoutError::Timeout) => return Err(format!("the process hangs, the power being on, after {:?}", taken.last())),
        }
    }
}
