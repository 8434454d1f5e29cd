//! Goal: damage to a compressed segment is never taken for data, never a panic, and costs no memory: whatever stands in the
//! file, verify is clean on the same events or names file, seq and offset; open accepts only what is right; and the mirror
//! brings every line back, with the damaged file kept in torn/.
//!
//! Method: a small segment with each bit (by default each 31st) flipped and cut at each byte (each 7th), and one of several
//! frames with frames and table flipped, cut, zeroed, swapped and repeated at random places.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod common;

use std::path::Path;

use common::compressed::Case;
use common::*;
use counterfoil::*;

fn all() -> bool {
    campaign("COUNTERFOIL_COMPRESSED_ALL", 0) > 0
}

#[test]
fn every_bit_and_every_cut_of_a_small_one() {
    for nth in [0, 1] {
        let case = Case::new(filled, nth);
        let (mut harmless, mut found) = (0, 0);
        let mut count = |is_whole: bool| if is_whole { harmless += 1 } else { found += 1 };
        for bit in (0..case.bytes.len() * 8).step_by(if all() { 1 } else { 31 }) {
            let mut damaged = case.bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            count(case.judge(&format!("segment {nth}, bit {bit}"), &damaged));
        }
        for cut in (0..case.bytes.len()).step_by(if all() { 1 } else { 7 }) {
            count(case.judge(&format!("segment {nth}, cut at {cut}"), &case.bytes[..cut]));
        }
        for more in [&b"x"[..], &case.bytes, &[0; 100], b"\n\n"] {
            count(case.judge(&format!("segment {nth}, {} bytes more", more.len()), &[&case.bytes, more].concat()));
        }
        assert!(case.judge("as it was", &case.bytes));
        eprintln!("segment {nth}: {found} damages found, {harmless} changed no line (they hit the table of frames)");
        assert!(found > harmless);
    }
}

/// A store whose first segment has some 700 KB, and so several frames.
fn large(dir: &Path, options: &Options) {
    let mut options = options.clone();
    options.segment_bytes_max = 700_000;
    let (mut store, _) = Store::open(dir, &options).unwrap();
    let mut random = Random::new(7);
    let mut next = || {
        let text: String = (0..900).map(|_| char::from(b' ' + 1 + random.below(90) as u8)).filter(|c| !"\"\\".contains(*c)).collect();
        note(&text)
    };
    for _ in 0..36 {
        store.append_batch((0..20).map(|_| next()).collect(), &Conditions::none()).unwrap();
    }
    store.close().unwrap();
    assert_eq!(segments(dir).len(), 2);
}

#[test]
fn damage_in_one_of_many_frames() {
    let case = Case::new(large, 0);
    let len = case.bytes.len() as u64;
    for round in 0..campaign("COUNTERFOIL_COMPRESSED_ROUNDS", 12) {
        let mut random = Random::new(round);
        let mut damaged = case.bytes.clone();
        // Half of them near the end, where the last frame and the table are.
        let span = if random.chance(2) { len } else { 300 };
        let at = (len - 1 - random.below(span)) as usize;
        let bytes = (1 + random.below(2000) as usize).min(damaged.len() - at);
        let what = match random.below(5) {
            0 => {
                damaged[at] ^= 1 << random.below(8);
                "a bit flipped"
            }
            1 => {
                damaged[at..at + bytes].fill(0);
                "zeroed"
            }
            2 => {
                damaged.truncate(at);
                "cut"
            }
            3 => {
                let piece = damaged[at..at + bytes].to_vec();
                damaged.splice(at..at, piece);
                "repeated"
            }
            _ => {
                damaged.drain(at..at + bytes);
                "dropped"
            }
        };
        case.judge(&format!("COUNTERFOIL_COMPRESSED_ROUNDS round {round}: {what} at {at} of {len}, {bytes} bytes"), &damaged);
    }
}
