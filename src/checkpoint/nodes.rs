//! Where hashes of the tree come from: the ledger's events, and a file that spares reading most of them again.
//!
//! Called by signing and proving. The file, checkpoints/tree.hashes, has the hash of each complete subtree of 256 events or more,
//! in the order in which they become complete: 250 kB for a million events. It is derived, and never trusted: what is made of it
//! is held against a root that was signed, and made anew from the ledger where it does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::tree::{Edge, Node, leaf_hash, nodes_of};
use crate::event::Seq;
use crate::ledger::place::Standing;
use crate::ledger::storage::{Storage, read_range};
use crate::ledger::stream::{Plan, Stream};
use crate::ledger::{Head, LedgerError, LedgerReader, LineFault};
use crate::note::TreeHash;

/// Subtrees of so many levels are in the file: of 2^8 = 256 events, of which a segment has thousands.
const LEVEL_MIN: u32 = 8;
/// Events of the smallest subtree in the file.
pub(crate) const BLOCK: u64 = 1 << LEVEL_MIN;
/// Hashes that are gathered before they are written: 64 KiB, those of half a million events.
const GATHERED_MAX: usize = 64 << 10;
const HASH_BYTES: u64 = 32;

/// The file's path.
pub(crate) fn tree_path(dir: &Path) -> PathBuf {
    dir.join("checkpoints").join("tree.hashes")
}

/// Where the hash of this subtree stands in the file; nothing for a smaller one.
fn offset(node: Node) -> Option<u64> {
    let level = node.level.checked_sub(LEVEL_MIN)?;
    // Before its last block is complete, so many are.
    let blocks = ((node.index + 1) << level) - 1;
    Some((hashes_of(blocks) + u64::from(level)) * HASH_BYTES)
}

/// How many hashes there are of so many blocks.
fn hashes_of(blocks: u64) -> u64 {
    2 * blocks - u64::from(blocks.count_ones())
}

/// Reads the hashes of these subtrees from the file; nothing where it lacks one of them.
fn read(storage: &dyn Storage, path: &Path, nodes: &[Node]) -> io::Result<Option<Vec<TreeHash>>> {
    let mut file = match storage.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut hashes = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(at) = offset(*node) else { return Ok(None) };
        let bytes = read_range(file.as_mut(), at, at + HASH_BYTES)?;
        let Ok(bytes) = bytes.try_into() else { return Ok(None) };
        hashes.push(TreeHash::from_bytes(bytes));
    }
    Ok(Some(hashes))
}

/// Hashes on their way to the file.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    at: u64,
    bytes: Vec<u8>,
    unsynced: bool,
}

impl Gathered {
    pub(crate) fn take(&mut self, node: Node, hash: TreeHash) {
        if let Some(at) = offset(node) {
            if self.bytes.is_empty() {
                self.at = at;
            }
            self.bytes.extend_from_slice(hash.as_bytes());
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= GATHERED_MAX
    }

    /// Writes them; with `sync`, and what was written before, durably.
    pub(crate) fn write(&mut self, storage: &dyn Storage, dir: &Path, sync: bool) -> Result<(), LedgerError> {
        let path = tree_path(dir);
        let mut write = || {
            if self.bytes.is_empty() && !(sync && self.unsynced) {
                return Ok(());
            }
            let mut file = match storage.open_write(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create_new(&path)?,
                file => file?,
            };
            file.write_at(&self.bytes, self.at)?;
            self.unsynced |= !self.bytes.is_empty();
            self.bytes.clear();
            if sync {
                file.sync_data()?;
                self.unsynced = false;
            }
            Ok(())
        };
        write().map_err(LedgerError::io("writing", &path))
    }
}

/// The events of a ledger in order, each linked to the one before it.
#[derive(Debug)]
pub(crate) struct Leaves {
    stream: Stream,
    dir: PathBuf,
    /// The last event that was read, or what the first one must link to; nothing where that is not known.
    head: Option<Head>,
    next: Seq,
}

impl Leaves {
    /// Events from this seq on.
    pub(crate) fn from(reader: &LedgerReader, from: Seq, plan: &Plan) -> Result<Leaves, LedgerError> {
        let from = from.max(Seq::FIRST);
        let genesis = Head { seq: Seq::ZERO, event_hash: reader.manifest().genesis() };
        let stream = Stream::new(reader.lines_from(from)?, from.previous(), plan.clone());
        Ok(Leaves { stream, dir: reader.dir().to_owned(), head: (from == Seq::FIRST).then_some(genesis), next: from })
    }

    /// The last event that was read.
    pub(crate) fn head(&self) -> Option<Head> {
        self.head
    }

    /// Lets it read as far as this event.
    pub(crate) fn extend(&mut self, through: Seq) {
        self.stream.extend(through);
    }

    /// The next event; nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Head>, LedgerError> {
        if !self.stream.advance()? {
            return Ok(None);
        }
        let Some(found) = self.stream.current() else { return Ok(None) };
        let damaged = |reason| LedgerError::Damaged { path: found.path(&self.dir), offset: found.raw.offset, reason };
        let event = found.decoded.as_ref().map_err(|error| damaged(found.fault(error.clone())))?;
        if let Some(fault) = self.fault(event).or_else(|| (!found.raw.terminated).then_some(LineFault::Unterminated)) {
            return Err(damaged(fault));
        }
        let head = Head { seq: event.seq, event_hash: event.event_hash };
        (self.head, self.next) = (Some(head), head.seq.next());
        Ok(Some(head))
    }

    fn fault(&self, event: &Standing) -> Option<LineFault> {
        if event.seq != self.next {
            return Some(LineFault::Seq { expected: self.next, found: event.seq });
        }
        match self.head {
            Some(head) if head.event_hash != event.prev_event_hash => {
                Some(LineFault::Link { expected: head.event_hash, found: event.prev_event_hash })
            }
            _ => (!event.payload_is_right).then_some(LineFault::Payload),
        }
    }
}

/// A tree as far as a size, the events behind it, and hashes that its last events have made complete.
pub(crate) struct Grown {
    pub edge: Edge,
    pub leaves: Leaves,
    pub gathered: Gathered,
}

/// The tree of so many events, one at least, by the file and the last events; nothing where the file does not have it. Whether it
/// is right is for the caller to see, by the root that was signed.
///
/// The last event is always among those that are read, and all before it are bound to it by the chain: the file's hashes alone would
/// lead to the root that was signed whatever the ledger has.
pub(crate) fn by_file(reader: &LedgerReader, size: u64, plan: &Plan) -> Result<Option<Grown>, LedgerError> {
    let Some(before) = size.checked_sub(1) else { return Ok(None) };
    let whole = before - before % BLOCK;
    let path = tree_path(reader.dir());
    let peaks = read(reader.storage(), &path, &nodes_of(0, whole)).map_err(LedgerError::io("reading", &path))?;
    let Some(peaks) = peaks else { return Ok(None) };
    let (mut edge, mut gathered) = (Edge::of(whole, peaks), Gathered::default());
    let mut leaves = Leaves::from(reader, Seq::new(whole + 1), plan)?;
    leaves.extend(Seq::new(size));
    while edge.size() < size {
        let Some(event) = leaves.next()? else { return Ok(None) };
        edge.push_leaf(leaf_hash(event.event_hash.as_bytes()), &mut |node, hash| gathered.take(node, hash));
    }
    Ok(Some(Grown { edge, leaves, gathered }))
}

/// Hashes of these subtrees, none of which goes beyond the ledger: by the file, and where that has not all of them, or is not to
/// be used, from all events. What the ledger lacks is left out.
pub(crate) fn hashes(
    reader: &LedgerReader,
    wanted: &BTreeSet<Node>,
    use_file: bool,
    plan: &Plan,
) -> Result<BTreeMap<Node, TreeHash>, LedgerError> {
    let mut found = BTreeMap::new();
    let (large, small): (Vec<Node>, Vec<Node>) = wanted.iter().partition(|node| node.level >= LEVEL_MIN);
    let path = tree_path(reader.dir());
    let read = if use_file { read(reader.storage(), &path, &large).map_err(LedgerError::io("reading", &path))? } else { None };
    let Some(read) = read else {
        gather(reader, 0, wanted, plan, &mut found)?;
        return Ok(found);
    };
    found.extend(large.into_iter().zip(read));
    let mut by_block: BTreeMap<u64, BTreeSet<Node>> = BTreeMap::new();
    for node in small {
        by_block.entry(node.start() / BLOCK).or_default().insert(node);
    }
    for (block, nodes) in by_block {
        gather(reader, block, &nodes, plan, &mut found)?;
    }
    Ok(found)
}

/// Hashes of these subtrees, from the events of a block on.
fn gather(
    reader: &LedgerReader,
    block: u64,
    wanted: &BTreeSet<Node>,
    plan: &Plan,
    found: &mut BTreeMap<Node, TreeHash>,
) -> Result<(), LedgerError> {
    let (first, end) = (block * BLOCK, wanted.iter().map(|node| node.end()).max().unwrap_or(0));
    let mut leaves = Leaves::from(reader, Seq::new(first + 1), plan)?;
    leaves.extend(Seq::new(end));
    let mut edge = Edge::default();
    while first + edge.size() < end {
        let Some(event) = leaves.next()? else { break };
        edge.push_leaf(leaf_hash(event.event_hash.as_bytes()), &mut |node, hash| {
            // From the first block on, all are where they are; else they are of one block.
            let node = Node { index: node.index + (first >> node.level), ..node };
            if wanted.contains(&node) {
                found.insert(node, hash);
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_no_holes() {
        let (mut edge, mut places) = (Edge::default(), Vec::new());
        for n in 0u64..BLOCK * 70 {
            edge.push_leaf(leaf_hash(&n.to_be_bytes()), &mut |node, _| places.extend(offset(node)));
        }
        assert_eq!(places, (0..hashes_of(70)).map(|n| n * HASH_BYTES).collect::<Vec<_>>());
    }
}
