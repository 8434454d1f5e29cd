//! Very many short runs of bytes, looked for all at once in files that may be large. For whoever removes the last copies of
//! an erased payload; it only reads.

use std::collections::HashMap;
use std::io;

use super::storage::{StorageFile, read_range};

/// Bytes of a key: what a run ends in.
const KEY_BYTES: usize = 8;
/// Bits of the filter that most places of a file do not pass: 128 KiB, which the processor keeps at hand.
const FILTER_BITS: u32 = 20;
/// Bytes that are read at a time.
const STEP_BYTES: u64 = 1 << 20;

/// Runs of bytes, eight at least in each.
#[derive(Clone, Debug)]
pub(crate) struct Needles {
    /// By what they end in: beginnings are often the same.
    by_end: HashMap<[u8; KEY_BYTES], Vec<Box<[u8]>>>,
    filter: Vec<u64>,
    longest: usize,
}

fn filter_bit(key: &[u8; KEY_BYTES]) -> (usize, u64) {
    let [.., a, b, c, d] = *key;
    let bit = u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> (32 - FILTER_BITS);
    ((bit / 64) as usize, 1 << (bit % 64))
}

impl Needles {
    pub(crate) fn new() -> Needles {
        Needles { by_end: HashMap::new(), filter: vec![0; 1 << (FILTER_BITS - 6)], longest: 0 }
    }

    /// Adds one; what is shorter than a key is left out.
    pub(crate) fn add(&mut self, needle: &[u8]) {
        let Some(key) = needle.last_chunk::<KEY_BYTES>() else { return };
        let (word, bit) = filter_bit(key);
        if let Some(word) = self.filter.get_mut(word) {
            *word |= bit;
        }
        self.longest = self.longest.max(needle.len());
        self.by_end.entry(*key).or_default().push(needle.into());
    }

    /// Whether one of them is in these bytes.
    pub(crate) fn are_in(&self, bytes: &[u8]) -> bool {
        if self.by_end.is_empty() {
            return false;
        }
        bytes.windows(KEY_BYTES).enumerate().any(|(at, end)| {
            let Ok(key) = <[u8; KEY_BYTES]>::try_from(end) else { return false };
            let (word, bit) = filter_bit(&key);
            self.filter.get(word).is_some_and(|word| word & bit != 0)
                && self.by_end.get(&key).is_some_and(|all| {
                    let upto = bytes.get(..at + KEY_BYTES).unwrap_or_default();
                    all.iter().any(|needle| upto.ends_with(needle))
                })
        })
    }

    /// Whether one of them is in these bytes of a file.
    pub(crate) fn are_in_file(&self, file: &mut dyn StorageFile, from: u64, to: u64) -> io::Result<bool> {
        let (mut at, overlap) = (from, self.longest as u64);
        while at < to {
            let bytes = read_range(file, at, to.min(at + STEP_BYTES + overlap))?;
            if self.are_in(&bytes) {
                return Ok(true);
            }
            if bytes.len() as u64 <= overlap {
                break;
            }
            at += STEP_BYTES;
        }
        Ok(false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ledger::storage::{FsStorage, Storage};

    #[test]
    fn they_are_found_wherever_they_stand() {
        let mut needles = Needles::new();
        needles.add(b"short");
        assert!(!needles.are_in(b"short"));
        needles.add(b"evt_0000000000000000000000000A");
        needles.add(b"evt_1111111111110000000000000A");
        needles.add(b"12345678");
        for (bytes, is_there) in [
            (&b"evt_0000000000000000000000000A"[..], true),
            (b"xxevt_1111111111110000000000000A", true),
            (b"evt_2222222222220000000000000A", false),
        ] {
            assert_eq!(needles.are_in(bytes), is_there, "{}", String::from_utf8_lossy(bytes));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for before in [0, 1, STEP_BYTES as usize - 3, STEP_BYTES as usize, 2 * STEP_BYTES as usize + 17] {
            let mut bytes = vec![b'x'; before];
            bytes.extend_from_slice(b"12345678 and more");
            std::fs::write(&path, &bytes).unwrap();
            let mut file = FsStorage.open_read(&path).unwrap();
            assert!(needles.are_in_file(file.as_mut(), 0, bytes.len() as u64).unwrap(), "{before}");
            assert!(!needles.are_in_file(file.as_mut(), before as u64 + 1, bytes.len() as u64).unwrap(), "{before}");
        }
    }
}
