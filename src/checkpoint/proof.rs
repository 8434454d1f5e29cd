//! Proofs as text: that an event is among those that a checkpoint covers (C2SP tlog-proof), and that one checkpoint's events begin
//! with those of an earlier one (the body that a C2SP witness is sent).
//!
//! Called by the command and by who embeds the crate. [`Proof::check`] needs no store.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::nodes::hashes;
use super::tree::{Part, consistency_parts, extends, includes, inclusion_parts, nodes_of, part_hash};
use super::{CheckpointError, ProofError, ProofFault};
use crate::attest::PublicKey;
use crate::event::{EventHash, Seq};
use crate::ledger::stream::Plan;
use crate::ledger::{LedgerError, LedgerReader, notes};
use crate::note::{self, Checkpoint, NOTE_BYTES_MAX, TreeHash, parse_number};

/// The first line of a proof that an event is there.
const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of a proof at most: a tree has less than 2⁶³ leaves.
const HASHES_MAX: usize = 64;
/// Bytes of the longest proof that is read: a checkpoint, and some lines of 45 bytes.
const PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 4096;

/// A proof, and the checkpoint that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    claim: Statement,
    hashes: Vec<TreeHash>,
    checkpoint: Checkpoint,
}

/// What a proof is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The event with this seq and hash is among those that the checkpoint covers.
    Includes {
        /// The event.
        seq: Seq,
        /// Its hash.
        event_hash: EventHash,
    },
    /// The events that the checkpoint covers begin with those of the checkpoint of this size.
    Extends {
        /// How many those are.
        from: u64,
    },
}

impl Proof {
    /// What it is about.
    pub fn claim(&self) -> Statement {
        self.claim
    }

    /// The checkpoint that it leads to.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The size of the checkpoint that it is to be held against: the one that it leads on from, or the one that it leads to.
    pub fn needs(&self) -> u64 {
        if let Statement::Extends { from } = self.claim { from } else { self.checkpoint.size() }
    }

    /// Reads a proof of either kind.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn parse(bytes: &[u8]) -> Result<Proof, ProofError> {
        use ProofError::Malformed;
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(Malformed("it is longer than any proof"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("it is not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(Malformed("it has no empty line before its checkpoint"))?;
        let mut lines = head.split('\n');
        let claim = match lines.next() {
            Some(INCLUSION) => {
                let extra = lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or(Malformed("it does not name its event"))?;
                let hash = extra.parse::<TreeHash>().map_err(|_| Malformed("what it names is no event_hash"))?;
                let index = lines.next().and_then(|line| parse_number(line.strip_prefix("index ")?));
                let seq = Seq::new(index.ok_or(Malformed("it has no index"))?).next();
                Statement::Includes { seq, event_hash: EventHash::from_bytes(*hash.as_bytes()) }
            }
            Some(first) => {
                // As `prove` has it: every ledger begins with no event at all.
                let from = first.strip_prefix("old ").and_then(parse_number).filter(|from| *from > 0);
                Statement::Extends { from: from.ok_or(Malformed("its first line is that of no proof"))? }
            }
            None => return Err(Malformed("it is empty")),
        };
        let hashes = lines.take(HASHES_MAX + 1).map(str::parse).collect::<Result<Vec<TreeHash>, _>>();
        let hashes = hashes.map_err(|_| Malformed("a line of it is no hash"))?;
        if hashes.len() > HASHES_MAX {
            return Err(Malformed("it has more hashes than any proof"));
        }
        Ok(Proof { claim, hashes, checkpoint: Checkpoint::parse(checkpoint.as_bytes())? })
    }

    /// Whether it proves what it says, by one of these keys: which one.
    ///
    /// `known` is a checkpoint that the reader has from elsewhere, signed by one of the keys too. A proof that an event is there may
    /// do without; where it is given, it must be the one that the proof leads to. A proof that leads on from an earlier checkpoint
    /// needs that one.
    ///
    /// # Errors
    /// [`ProofFault`].
    pub fn check(&self, known: Option<&Checkpoint>, keys: &[PublicKey]) -> Result<PublicKey, ProofFault> {
        let signed =
            |checkpoint: &Checkpoint| checkpoint.verify(keys).map_err(|fault| ProofFault::Signature { size: checkpoint.size(), fault });
        let key = signed(&self.checkpoint)?;
        if let Some(known) = known {
            signed(known)?;
            if known.origin() != self.checkpoint.origin() {
                let (expected, found) = (known.origin().to_owned(), self.checkpoint.origin().to_owned());
                return Err(ProofFault::Origin { expected, found });
            }
            if known.size() != self.needs() {
                return Err(ProofFault::Size { expected: self.needs(), found: known.size() });
            }
            if known.size() == self.checkpoint.size() && known.root() != self.checkpoint.root() {
                return Err(ProofFault::TwoRoots { size: known.size() });
            }
        }
        let to = (self.checkpoint.size(), self.checkpoint.root());
        let leads_there = match (self.claim, known) {
            (Statement::Includes { seq, event_hash }, _) => includes(to.0, to.1, seq.previous().get(), event_hash, &self.hashes),
            (Statement::Extends { from }, None) => return Err(ProofFault::NeedsOld { old: from }),
            (Statement::Extends { .. }, Some(known)) => extends((known.size(), known.root()), to, &self.hashes),
        };
        if leads_there { Ok(key) } else { Err(ProofFault::Hashes) }
    }

    /// Whether it is about this event.
    ///
    /// # Errors
    /// [`ProofFault::OtherEvent`].
    pub fn check_event(&self, event: EventHash) -> Result<(), ProofFault> {
        match self.claim {
            Statement::Includes { event_hash, .. } if event_hash != event => {
                Err(ProofFault::OtherEvent { expected: event, found: event_hash })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.claim {
            Statement::Includes { seq, event_hash } => {
                writeln!(f, "{INCLUSION}\nextra {}\nindex {}", BASE64_STANDARD.encode(event_hash.as_bytes()), seq.previous())?;
            }
            Statement::Extends { from } => writeln!(f, "old {from}")?,
        }
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// The store's own checkpoint of this size, or its newest; nothing where it has none. Its signature is not verified.
///
/// # Errors
/// [`CheckpointError::Ledger`] where the file can't be read.
pub fn stored_checkpoint(reader: &LedgerReader, size: Option<u64>) -> Result<Option<Checkpoint>, CheckpointError> {
    let (storage, path, id) = (reader.storage(), notes::signed_path(reader.dir()), reader.manifest().ledger_id);
    let reading = || LedgerError::io("reading", &path);
    let Some(size) = size else { return Ok(notes::last_signed(storage, reader.dir(), id).map_err(reading())?) };
    let (mut found, origin) = (None, note::origin(id));
    let all = notes::each(storage, &path, |_, piece| {
        if let notes::Found::Checkpoint(checkpoint) = piece
            && checkpoint.size() == size
            && checkpoint.origin() == origin
        {
            found = Some(checkpoint);
        }
        Ok(())
    });
    match all {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        all => Ok(all.map(|()| found).map_err(reading())?),
    }
}

/// Proves that an event is among those that the store's checkpoint of this size covers, or its newest. Reads at most two segments,
/// where the file of the tree's hashes is there and right; else all events up to that size.
///
/// # Errors
/// [`CheckpointError`].
pub fn prove_event(reader: &LedgerReader, seq: Seq, size: Option<u64>) -> Result<Proof, CheckpointError> {
    let checkpoint = checkpoint_for(reader, size, || CheckpointError::NotCovered { seq: seq.get() })?;
    if seq == Seq::ZERO || seq.get() > checkpoint.size() {
        return Err(CheckpointError::NotCovered { seq: seq.get() });
    }
    let index = seq.previous().get();
    let line = reader.lines_from(seq)?.next_event()?.map(|(_, event)| (event.seq, event.event_hash));
    let Some((_, event_hash)) = line.filter(|(found, _)| *found == seq) else {
        return Err(CheckpointError::NotSigned { size: checkpoint.size() });
    };
    let parts = inclusion_parts(index, checkpoint.size());
    let leads_there = |hashes: &[TreeHash]| includes(checkpoint.size(), checkpoint.root(), index, event_hash, hashes);
    let hashes = proof_hashes(reader, &parts, &leads_there)?.ok_or(CheckpointError::NotSigned { size: checkpoint.size() })?;
    Ok(Proof { claim: Statement::Includes { seq, event_hash }, hashes, checkpoint })
}

/// Proves that the events that the store's checkpoint of this size covers, or its newest, begin with the first `from`.
///
/// # Errors
/// [`CheckpointError`].
pub fn prove_from(reader: &LedgerReader, from: u64, size: Option<u64>) -> Result<Proof, CheckpointError> {
    let checkpoint = checkpoint_for(reader, size, || CheckpointError::NotCovered { seq: from })?;
    let to = (checkpoint.size(), checkpoint.root());
    if from == 0 || from > to.0 {
        return Err(CheckpointError::NoSuchStep { from, size: to.0 });
    }
    let parts = if from == to.0 { Vec::new() } else { consistency_parts(from, to.0) };
    // The root that it leads on from is the ledger's own: whether others have the same is for them to check.
    let old = nodes_of(0, from);
    let mut wanted = parts.clone();
    wanted.push(old);
    let leads_there = |hashes: &[TreeHash]| match hashes.split_last() {
        Some((old, hashes)) => extends((from, *old), to, hashes),
        None => false,
    };
    let mut hashes = proof_hashes(reader, &wanted, &leads_there)?.ok_or(CheckpointError::NotSigned { size: to.0 })?;
    hashes.pop();
    Ok(Proof { claim: Statement::Extends { from }, hashes, checkpoint })
}

fn checkpoint_for(reader: &LedgerReader, size: Option<u64>, none: impl FnOnce() -> CheckpointError) -> Result<Checkpoint, CheckpointError> {
    let path = || notes::signed_path(reader.dir());
    stored_checkpoint(reader, size)?.ok_or_else(|| size.map_or_else(none, |size| CheckpointError::NoSuchSize { size, path: path() }))
}

/// The hashes of these parts: by the file, and where those lead nowhere, from all events.
fn proof_hashes(
    reader: &LedgerReader,
    parts: &[Part],
    leads_there: &dyn Fn(&[TreeHash]) -> bool,
) -> Result<Option<Vec<TreeHash>>, LedgerError> {
    let wanted: BTreeSet<_> = parts.iter().flatten().copied().collect();
    for use_file in [true, false] {
        let found = hashes(reader, &wanted, use_file, &Plan::default())?;
        let hashes = parts.iter().map(|part| part_hash(part, &|node| found.get(&node).copied())).collect::<Option<Vec<_>>>();
        if let Some(hashes) = hashes.filter(|hashes| leads_there(hashes)) {
            return Ok(Some(hashes));
        }
        if use_file {
            tracing::warn!(store = %reader.dir().display(), "the file of the tree's hashes does not lead to the root that was signed");
        }
    }
    Ok(None)
}

/// Reads from a file the checkpoint that a proof is to be held against: of its ledger, of the size that it needs, signed by one of
/// these keys. Where there is none such, one that is the most like it, so that [`Proof::check`] can say what is wrong; where two
/// contradict each other, the one that contradicts the proof.
///
/// # Errors
/// What the disk says; `InvalidData` where it has no checkpoint.
pub fn read_checkpoint(path: &Path, proof: &Proof, keys: &[PublicKey]) -> std::io::Result<Checkpoint> {
    let (to, needs) = (proof.checkpoint(), proof.needs());
    let likeness = |found: &Checkpoint| {
        let is_sized = found.size() == needs;
        let is_fit = is_sized && found.origin() == to.origin();
        let is_signed = is_fit && found.verify(keys).is_ok();
        let contradicts = is_signed && found.size() == to.size() && found.root() != to.root();
        [is_sized, is_fit, is_signed, contradicts].into_iter().filter(|is| *is).count()
    };
    let mut best: Option<(usize, Checkpoint)> = None;
    notes::each(&crate::ledger::FsStorage, path, |_, found| {
        if let notes::Found::Checkpoint(checkpoint) = found {
            let likeness = likeness(&checkpoint);
            // Of those that have nothing to do with it, the last one.
            if best.as_ref().is_none_or(|(best, _)| likeness > *best || (likeness == 0 && *best == 0)) {
                best = Some((likeness, checkpoint));
            }
        }
        Ok(())
    })?;
    best.map(|(_, checkpoint)| checkpoint).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "it has no checkpoint"))
}
