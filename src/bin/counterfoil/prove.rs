//! `prove` and `check-proof`: proofs for others, and theirs. `prove` only reads; `check-proof` needs no store.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use counterfoil::attest::{KeyId, PublicKey};
use counterfoil::checkpoint::{Proof, Statement, TreeHash, prove_event, prove_from, read_checkpoint};
use counterfoil::{EventHash, Seq, line};
use serde::Serialize;

use crate::args::{CheckProofArgs, ProveArgs};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{keys, text};

/// Bytes of the longest file that is read as a proof or a line; both have bounds of their own.
const FILE_BYTES_MAX: u64 = 17 << 20;

#[derive(Serialize)]
struct About {
    /// `includes` an event, or `extends` an earlier checkpoint.
    claim: &'static str,
    seq: Option<Seq>,
    event_hash: Option<EventHash>,
    from: Option<u64>,
    origin: String,
    size: u64,
    root: TreeHash,
}

impl About {
    fn of(proof: &Proof) -> About {
        let checkpoint = proof.checkpoint();
        let (claim, seq, event_hash, from) = match proof.claim() {
            Statement::Includes { seq, event_hash } => ("includes", Some(seq), Some(event_hash), None),
            Statement::Extends { from } => ("extends", None, None, Some(from)),
        };
        About { claim, seq, event_hash, from, origin: checkpoint.origin().to_owned(), size: checkpoint.size(), root: checkpoint.root() }
    }

    fn sentence(&self) -> String {
        let all = format!("the {} of {}", text::count(self.size, "event"), self.origin);
        let all = text::plain(&all);
        match (self.seq, self.event_hash, self.from) {
            (Some(seq), Some(hash), _) => format!("seq {seq}, event_hash {hash}, is among {all}"),
            _ => format!("{all} begin with the first {}", text::number(self.from.unwrap_or(0))),
        }
    }
}

#[derive(Serialize)]
struct Proved {
    #[serde(flatten)]
    about: About,
    proof: String,
}

pub fn prove(args: &ProveArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let ledger = context.ledger()?;
    let proof = match (args.seq, args.from) {
        (Some(seq), _) => prove_event(&ledger, Seq::new(seq), args.size)?,
        (None, from) => prove_from(&ledger, from.unwrap_or(0), args.size)?,
    };
    if let Some(path) = &args.output {
        let written = File::create(path).and_then(|mut file| file.write_all(proof.to_string().as_bytes()));
        written.map_err(|error| Failure::io("writing", path, &error))?;
    }
    match (out.is_json(), &args.output) {
        (true, _) => out.json(&Proved { about: About::of(&proof), proof: proof.to_string() })?,
        (false, Some(path)) => out.line(format_args!("prove: {}; written to {}", About::of(&proof).sentence(), path.display()))?,
        (false, None) => out.text(&proof)?,
    }
    Ok(Exit::Fine)
}

#[derive(Serialize)]
struct Checked {
    right: bool,
    #[serde(flatten)]
    about: About,
    signed_by: Option<KeyId>,
    reason: Option<String>,
}

pub fn check(args: &CheckProofArgs, out: &mut Out) -> Result<Exit, Failure> {
    let keys = args.keys.iter().map(|key| keys::public_key(key)).collect::<Result<Vec<_>, _>>()?;
    let path = &args.proof;
    let proof = Proof::parse(&read(path)?).map_err(|error| Failure::other(format!("{} is no proof: {error}", path.display())))?;
    if let (Statement::Extends { from }, None) = (proof.claim(), &args.checkpoint) {
        return Err(Failure::usage(format!(
            "the proof leads from {} on, so it needs a checkpoint of as many that you have from elsewhere: give it with --checkpoint",
            text::count(from, "event")
        )));
    }
    let known = |path: &Path| {
        read_checkpoint(path, &proof, &keys).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => Failure::other(format!("{}: {error}; name a file that has checkpoints", path.display())),
            _ => Failure::io("reading", path, &error),
        })
    };
    let known = args.checkpoint.as_deref().map(known).transpose()?;
    let event = args.event.as_deref().map(event_hash).transpose()?;
    let checked = proof.check(known.as_ref(), &keys);
    let checked = checked.and_then(|key| event.map_or(Ok(()), |event| proof.check_event(event)).map(|()| key));
    let (about, right) = (About::of(&proof), checked.is_ok());
    if out.is_json() {
        let (signed_by, reason) = (checked.as_ref().ok().map(PublicKey::key_id), checked.err().map(|fault| fault.to_string()));
        out.json(&Checked { right, about, signed_by, reason })?;
    } else {
        match checked {
            Ok(key) => out.line(format_args!("proof: right: {}\n  signed by {}", about.sentence(), key.key_id()))?,
            Err(fault) => {
                let fault = text::plain(&fault.to_string());
                out.line(format_args!("proof: WRONG: {fault}\n  it says: {}", about.sentence()))?;
            }
        }
    }
    Ok(Exit::consistent(right))
}

/// The hash of the event whose line is in this file.
fn event_hash(path: &Path) -> Result<EventHash, Failure> {
    let bytes = read(path)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let event = line::decode(line).map_err(|error| Failure::other(format!("{} is no line of a ledger: {error}", path.display())))?;
    if event.payload_is_right() == Some(false) {
        return Err(Failure::other(format!("{} is no line of a ledger: its payload is not the one that was hashed", path.display())));
    }
    Ok(event.event_hash)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| Failure::io("reading", path, &error))?;
    Ok(bytes)
}
