//! A copy of the demo's store whose past is rewritten, with hashes that fit, in both legs: within the store nothing tells. A
//! checkpoint that was handed to a place outside of it does.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::{Anchored, Checkpointer, FileAnchor, verify_anchored};
use counterfoil::{Body, LedgerReader, Options, chain, line, mirror_path, parity_full, replay_store};
use serde::Serialize;

use super::damage::{Copy, copy_folder};
use super::temporary;
use crate::failure::Failure;

#[derive(Serialize)]
pub struct Rewritten {
    pub line: u64,
    /// Whether verify and parity, asked of the store alone, found nothing.
    pub store_fits: bool,
    /// What the anchored checkpoint said of it.
    pub verdict: String,
    pub caught: bool,
}

pub fn show(store: &Path, options: &Options) -> Result<Rewritten, Failure> {
    let copy = Copy(temporary("counterfoil-demo-rewritten")?);
    let dir = copy.0.join("store");
    copy_folder(store, &dir).map_err(|error| Failure::io("copying the store to", &dir, &error))?;
    let anchor = copy.0.join("anchor");
    let reader = LedgerReader::open(&dir, options)?;
    let making = |error: io::Error| Failure::io("making a key for", &dir, &error);
    let key = Arc::new(MemoryKey::generate().map_err(making)?);
    let public_key = key.public_key();
    let mut checkpointer = Checkpointer::new(&dir, reader.manifest(), options, key, vec![Arc::new(FileAnchor::new(&anchor))]);
    checkpointer.sign(reader.head()?)?;
    drop(checkpointer);
    let Some(segment) = reader.segments()?.into_iter().next() else {
        return Err(Failure::other("the demo's store has no segment; please report it"));
    };
    let line = rewrite(&dir, &segment.path, &reader).map_err(|error| Failure::io("rewriting", &dir, &error))?;
    replay_store(&dir, options, &mut |_, _| ())?;
    let parity = parity_full(&reader, options, None, &mut |_| ())?;
    let mut anchored = Anchored::new(&reader, &[public_key]);
    anchored.read(&anchor)?;
    let (verified, anchors) = verify_anchored(&reader, anchored, None, &mut |_| ())?;
    let verdict = anchors.failures.first().map_or("NOT CAUGHT".to_owned(), |failure| failure.reason.to_string());
    let store_fits = verified.is_clean() && parity.is_consistent();
    Ok(Rewritten { line, store_fits, verdict, caught: !anchors.is_clean() })
}

/// Writes another payload into a line in the middle, and everything behind it anew; takes away what would tell. Answers which line.
fn rewrite(dir: &Path, path: &Path, reader: &LedgerReader) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let middle = text.lines().count() as u64 / 2 + 1;
    let (mut rewritten, mut prev) = (Vec::new(), chain::genesis(reader.manifest().ledger_id));
    for old in text.lines() {
        let mut event = line::decode(old.as_bytes()).map_err(io::Error::other)?;
        let other = "\"all tests passed\"";
        if event.seq.get() == middle {
            (event.payload_hash, event.body) = (chain::payload_hash(other.as_bytes()), Body::Inline(other));
        }
        event.prev_event_hash = prev;
        let mut sealed = Vec::new();
        line::encode(&event, &mut sealed);
        event.event_hash = chain::event_hash(chain::material(&sealed).unwrap_or_default());
        prev = event.event_hash;
        line::encode(&event, &mut rewritten);
        rewritten.push(b'\n');
    }
    fs::write(path, rewritten)?;
    fs::remove_dir_all(dir.join("checkpoints"))?;
    fs::remove_file(mirror_path(dir))?;
    Ok(middle)
}
