//! The RFC 6962 tree over the events of a ledger: the leaves are the 32 raw bytes of each event_hash, hashed with SHA-256.
//!
//! Called by all of [`crate::checkpoint`]. Pure: where hashes come from and go to is for others. Its memory is the right edge,
//! a hash for each bit of the size.

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, indices_for_consistency_proof, indices_for_inclusion_proof};
use sha2::{Digest, Sha256};

use crate::event::EventHash;
use crate::note::TreeHash;

/// The hash of a leaf with this data.
pub fn leaf_hash(data: &[u8]) -> TreeHash {
    TreeHash::from_bytes(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// The hash of the node over these two.
pub fn node_hash(left: TreeHash, right: TreeHash) -> TreeHash {
    TreeHash::from_bytes(Sha256::new().chain_update([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes()).finalize().into())
}

/// A complete subtree: its 2^level leaves begin with leaf index · 2^level. Leaf n is the event with seq n + 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub level: u32,
    pub index: u64,
}

impl Node {
    /// Its first leaf.
    pub(crate) fn start(self) -> u64 {
        self.index << self.level
    }

    /// The leaf behind its last one.
    pub(crate) fn end(self) -> u64 {
        (self.index + 1) << self.level
    }
}

/// The complete subtrees that these leaves are made of, the largest first, where `start` is the beginning of a subtree of a tree
/// that has at least `end` leaves.
pub(crate) fn nodes_of(start: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = start;
    while let Some(level) = end.checked_sub(at).and_then(u64::checked_ilog2) {
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The hash over neighbours, the largest first.
fn fold(hashes: impl DoubleEndedIterator<Item = TreeHash>) -> Option<TreeHash> {
    hashes.rev().reduce(|right, left| node_hash(left, right))
}

/// The right edge of a tree that grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// Of the complete subtrees that it is made of, the largest first.
    peaks: Vec<TreeHash>,
}

impl Edge {
    /// The edge of a tree of this size, of the hashes of [`nodes_of`] it.
    pub(crate) fn of(size: u64, peaks: Vec<TreeHash>) -> Edge {
        Edge { size, peaks }
    }

    /// Leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its root; that of the empty tree is the hash of nothing.
    pub fn root(&self) -> TreeHash {
        fold(self.peaks.iter().copied()).unwrap_or_else(|| TreeHash::from_bytes(Sha256::digest([]).into()))
    }

    /// Adds an event.
    pub fn push(&mut self, event: EventHash) {
        self.push_data(event.as_bytes());
    }

    /// Adds a leaf with this data: for the test vectors, whose leaves are no events.
    pub fn push_data(&mut self, data: &[u8]) {
        self.push_leaf(leaf_hash(data), &mut |_, _| ());
    }

    /// Adds a leaf, by its hash. `complete` is told each subtree that it makes complete, the smallest first.
    pub(crate) fn push_leaf(&mut self, leaf: TreeHash, complete: &mut dyn FnMut(Node, TreeHash)) {
        let mut node = Node { level: 0, index: self.size };
        let mut hash = leaf;
        complete(node, hash);
        while node.index % 2 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node_hash(left, hash);
            node = Node { level: node.level + 1, index: node.index / 2 };
            complete(node, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }
}

/// A hash of a proof: over these subtrees, the largest first.
pub(crate) type Part = Vec<Node>;

/// What ct-merkle's number of a node stands for in a tree of this size. It numbers them in order, leaves at even numbers, and a
/// node at the right edge has as many leaves as there are.
fn part(number: u64, size: u64) -> Part {
    let level = number.trailing_ones();
    let start = number.checked_shr(level + 1).unwrap_or(0) << level.min(63);
    nodes_of(start, size.min(start.saturating_add(1 << level.min(63))))
}

/// What the proof is made of that a leaf is in a tree of this size.
pub(crate) fn inclusion_parts(index: u64, size: u64) -> Vec<Part> {
    if index >= size || size > SIZE_MAX {
        return Vec::new();
    }
    indices_for_inclusion_proof(size, index).into_iter().map(|number| part(number, size)).collect()
}

/// What the proof is made of that a tree of size `new` begins with one of size `old`.
pub(crate) fn consistency_parts(old: u64, new: u64) -> Vec<Part> {
    if old == 0 || old > new || new > SIZE_MAX {
        return Vec::new();
    }
    indices_for_consistency_proof(old, new - old).into_iter().map(|number| part(number, new)).collect()
}

/// Sizes are below 2⁶³, as seqs are.
const SIZE_MAX: u64 = (1 << 63) - 1;

/// The hash of a part, of what its subtrees have.
pub(crate) fn part_hash(part: &Part, hash: &dyn Fn(Node) -> Option<TreeHash>) -> Option<TreeHash> {
    fold(part.iter().map(|node| hash(*node)).collect::<Option<Vec<_>>>()?.into_iter())
}

fn root_hash(size: u64, root: TreeHash) -> RootHash<Sha256> {
    RootHash::new((*root.as_bytes()).into(), size)
}

fn joined(proof: &[TreeHash]) -> Vec<u8> {
    proof.iter().flat_map(TreeHash::as_bytes).copied().collect()
}

/// Whether a proof shows that the tree of this size and root has this event as its leaf `index`.
pub fn includes(size: u64, root: TreeHash, index: u64, event: EventHash, proof: &[TreeHash]) -> bool {
    let Ok(proof) = InclusionProof::try_from_bytes(joined(proof)) else { return false };
    size <= SIZE_MAX && root_hash(size, root).verify_inclusion(event.as_bytes(), index, &proof).is_ok()
}

/// Whether a proof shows that the tree `new`, of this size and root, begins with the tree `old`.
pub fn extends(old: (u64, TreeHash), new: (u64, TreeHash), proof: &[TreeHash]) -> bool {
    if old.0 == new.0 {
        return old.1 == new.1 && proof.is_empty();
    }
    let Ok(proof) = ConsistencyProof::try_from_bytes(joined(proof)) else { return false };
    new.0 <= SIZE_MAX && root_hash(new.0, new.1).verify_consistency(&root_hash(old.0, old.1), &proof).is_ok()
}
