//! What the disk itself gives, with no ledger around it: the yardsticks.
//!
//! - F1: a line and an fdatasync, on a growing file · F2: the same into space that was filled ahead of time (LF), so that
//!   no length and no extent changes · F2 fallocated: into space that was only reserved · F3: K lines an fdatasync
//!
//! A line is the bare payload and LF: what a ledger writes is longer, so 100 % of F3 can't be reached.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bench_load::{Outcome, Payloads, Result, Spec, threads};

/// Space that is filled or reserved ahead of the writes.
const AHEAD_BYTES: u64 = 1 << 20;

fn create(spec: &Spec) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).create_new(true).open(spec.dir.join("lines"))?)
}

/// F1: each of K callers writes its line and syncs, on one file.
pub fn f1(spec: &Spec) -> Result<Outcome> {
    let (file, payloads, end) = (create(spec)?, Payloads::new(spec.payload), AtomicU64::new(0));
    threads(spec, spec.in_flight, 1, |_| {
        let mut line = String::new();
        let (file, payloads, end) = (&file, &payloads, &end);
        move |n| {
            line_of(payloads, n, &mut line);
            file.write_all_at(line.as_bytes(), end.fetch_add(line.len() as u64, Ordering::Relaxed))?;
            Ok(file.sync_data()?)
        }
    })
}

/// F2: one caller, into space that was prepared.
pub fn f2(spec: &Spec, fill: bool) -> Result<Outcome> {
    let (file, payloads) = (create(spec)?, Payloads::new(spec.payload));
    threads(spec, 1, 1, |_| {
        let (file, payloads, mut line) = (&file, &payloads, String::new());
        let (mut at, mut prepared) = (0, 0);
        move |n| {
            line_of(payloads, n, &mut line);
            if at + line.len() as u64 > prepared {
                if fill {
                    file.write_all_at(&vec![b'\n'; AHEAD_BYTES as usize], prepared)?;
                } else {
                    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), prepared, AHEAD_BYTES)?;
                }
                prepared += AHEAD_BYTES;
                file.sync_data()?;
            }
            file.write_all_at(line.as_bytes(), at)?;
            at += line.len() as u64;
            Ok(file.sync_data()?)
        }
    })
}

/// F3: one caller writes K lines at once, then syncs.
pub fn f3(spec: &Spec) -> Result<Outcome> {
    let (file, payloads) = (create(spec)?, Payloads::new(spec.payload));
    threads(spec, 1, spec.in_flight as u64, |_| {
        let (file, payloads) = (&file, &payloads);
        let (mut lines, mut at) = (String::new(), 0);
        move |n| {
            lines.clear();
            for n in n..n + spec.in_flight as u64 {
                payloads.push(n, &mut lines);
                lines.push('\n');
            }
            file.write_all_at(lines.as_bytes(), at)?;
            at += lines.len() as u64;
            Ok(file.sync_data()?)
        }
    })
}

fn line_of(payloads: &Payloads, n: u64, line: &mut String) {
    line.clear();
    payloads.push(n, line);
    line.push('\n');
}
