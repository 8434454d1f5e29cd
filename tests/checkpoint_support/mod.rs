//! What tests of checkpoints need: stores of so many events, a key, the tree as RFC 6962 defines it, and other implementations.
#![allow(dead_code, unused_imports)] // each test uses some of it

#[path = "../common/mod.rs"]
pub mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use counterfoil::attest::{Attestor, MemoryKey, PublicKey};
use counterfoil::checkpoint::*;
use counterfoil::*;
use sha2::{Digest, Sha256};

pub fn key() -> Arc<MemoryKey> {
    Arc::new(MemoryKey::from_seed(&[7; 32]))
}

pub fn public() -> PublicKey {
    key().public_key()
}

/// Options for stores that are written often: their fsync does nothing.
pub fn quick() -> Options {
    let mut options = options();
    disk::without_sync(&mut options);
    options
}

/// Appends so many events, as one batch where it is more than one.
pub fn grow(store: &mut Store, count: u64) {
    let from = store.head().seq.get();
    let drafts: Vec<Draft> = (0..count).map(|n| note(&format!("event {}", from + n + 1))).collect();
    if !drafts.is_empty() {
        store.append_batch(drafts, &Conditions::none()).unwrap();
    }
}

/// A new store of so many events.
pub fn store_of(dir: &Path, options: &Options, count: u64) -> Store {
    let (mut store, _) = Store::open(dir, options).unwrap();
    for from in (0..count).step_by(1000) {
        grow(&mut store, (count - from).min(1000));
    }
    store
}

pub fn signer(store: &Store, dir: &Path, options: &Options, anchors: Vec<Arc<dyn Anchor>>) -> Checkpointer {
    Checkpointer::new(dir, store.manifest(), options, key(), anchors)
}

/// Signs one with a signer of its own, which knows no more than the disk does.
pub fn sign(store: &Store, dir: &Path, options: &Options) -> Checkpoint {
    signer(store, dir, options, Vec::new()).sign(store.head()).unwrap().checkpoint
}

/// The event hashes of a store, which are its leaves.
pub fn leaves(dir: &Path) -> Vec<EventHash> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut leaves = Vec::new();
    while let Some((_, event)) = lines.next_event().unwrap() {
        leaves.push(event.event_hash);
    }
    leaves
}

/// MTH of RFC 6962, section 2.1, word for word.
pub fn mth(data: &[EventHash]) -> [u8; 32] {
    match data.len() {
        0 => Sha256::digest([]).into(),
        1 => Sha256::new().chain_update([0]).chain_update(data[0].as_bytes()).finalize().into(),
        n => {
            let k = n.next_power_of_two() / 2;
            Sha256::new().chain_update([1]).chain_update(mth(&data[..k])).chain_update(mth(&data[k..])).finalize().into()
        }
    }
}

pub fn root(data: &[EventHash]) -> TreeHash {
    TreeHash::from_bytes(mth(data))
}

/// All of a tree's stored hashes in tlog_tiles' order: its way to read a tree.
#[derive(Default)]
pub struct Tlog(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Tlog {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

impl Tlog {
    pub fn of(leaves: &[EventHash]) -> Tlog {
        let mut tree = Tlog::default();
        for (n, leaf) in leaves.iter().enumerate() {
            let more = tlog_tiles::stored_hashes(n as u64, leaf.as_bytes(), &tree).unwrap();
            tree.0.extend(more);
        }
        tree
    }

    pub fn root(&self, size: u64) -> TreeHash {
        TreeHash::from_bytes(tlog_tiles::tree_hash(size, self).unwrap().0)
    }
}

/// Lines of a proof's text between its head and its checkpoint, as tlog_tiles has hashes.
pub fn proof_hashes(proof: &Proof) -> Vec<tlog_tiles::Hash> {
    let text = proof.to_string();
    let (head, _) = text.split_once("\n\n").unwrap();
    let lines = head.lines().filter(|line| !line.contains(' ') && !line.starts_with("c2sp"));
    lines.map(|line| tlog_tiles::Hash::parse_hash(line).unwrap()).collect()
}
