//! A copy of the demo's store, with one byte flipped: verify must name the very line, and repair must bring it back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use counterfoil::{LedgerReader, Options, repair_from_mirror, verify};
use serde::Serialize;

use super::temporary;
use crate::failure::Failure;

#[derive(Serialize)]
pub struct Damage {
    pub line: u64,
    pub byte: u64,
    /// What verify said of it.
    pub verdict: String,
    pub caught: bool,
    pub repaired: bool,
}

/// The copy is removed again when this is dropped.
pub struct Copy(pub PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn show(store: &Path, options: &Options) -> Result<Damage, Failure> {
    let copy = Copy(temporary("counterfoil-demo-copy")?);
    copy_folder(store, &copy.0).map_err(|error| Failure::io("copying the store to", &copy.0, &error))?;
    let reader = LedgerReader::open(&copy.0, options)?;
    let Some(segment) = reader.segments()?.into_iter().next() else {
        return Err(Failure::other("the demo's store has no segment; please report it"));
    };
    let doing = |error: io::Error| Failure::io("reading", &segment.path, &error);
    let original = fs::read(&segment.path).map_err(doing)?;
    let (line, byte) = place(&original);
    let mut damaged = original.clone();
    if let Some(flipped) = damaged.get_mut(byte) {
        *flipped ^= 1;
    }
    fs::write(&segment.path, damaged).map_err(doing)?;
    let report = verify(&reader, &mut |_| ())?;
    let first = report.failures.first();
    let caught = report.failures_count == 1 && first.is_some_and(|failure| failure.line == line);
    let verdict =
        first.map_or("NOT CAUGHT".to_owned(), |failure| format!("line {}, seq {}: {}", failure.line, failure.seq, failure.reason));
    repair_from_mirror(&copy.0, options, &mut |_| ())?;
    let repaired = fs::read(&segment.path).map_err(doing)? == original;
    Ok(Damage { line, byte: byte as u64, verdict, caught, repaired })
}

/// A byte of a payload's text, near the middle; and its line.
fn place(ledger: &[u8]) -> (u64, usize) {
    let mut begin = 0;
    let lines: Vec<&[u8]> = ledger.split_inclusive(|byte| *byte == b'\n').collect();
    for (at, line) in lines.iter().enumerate() {
        if at >= lines.len() / 2 {
            // Before the last `"}`: a letter of the payload's last text, if it ends in one.
            let text = line.iter().rposition(|byte| byte.is_ascii_alphabetic()).unwrap_or(0);
            return (at as u64 + 1, begin + text);
        }
        begin += line.len();
    }
    (1, 0)
}

pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
