//! Goal: no size that stands in a compressed segment is believed: files that claim to hold far more than they do, and some
//! that do hold it, are found damaged in bounded memory, and the mirror brings the lines back.
//!
//! Method: frames and tables of frames made by hand, as the segment of a small store; the most memory that the process has had.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod common;

use std::fs;
use std::io::Write;

use common::compressed::Case;
use common::*;

/// Most memory that this process has had, in KiB.
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

fn table(frames: &[(u32, u32)], count: u32) -> Vec<u8> {
    let mut bytes = 0x184d_2a5e_u32.to_le_bytes().to_vec();
    bytes.extend((frames.len() as u32 * 8 + 9).to_le_bytes());
    frames.iter().for_each(|(stored, plain)| bytes.extend([stored.to_le_bytes(), plain.to_le_bytes()].concat()));
    bytes.extend(count.to_le_bytes());
    bytes.push(0);
    bytes.extend(0x8f92_eab1_u32.to_le_bytes());
    bytes
}

/// A frame that holds so many MiB of one byte.
fn bomb(mib: usize, byte: u8) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    let piece = vec![byte; 1 << 20];
    (0..mib).for_each(|_| encoder.write_all(&piece).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn sizes_in_the_file_are_not_believed() {
    let case = Case::new(filled, 0);
    let before = peak_kib();
    let terabytes = (1_u64 << 42).to_le_bytes();
    let whole = &case.bytes;
    let frame = &whole[..whole.len() - 8 - 8 - 9];
    let hundred = bomb(100, 0);
    let (stored, thirty) = (hundred.len() as u32, bomb(30, 0));
    let nothing: Vec<(u32, u32)> = (0..1000).map(|n| if n == 0 { (frame.len() as u32, 700) } else { (0, u32::MAX) }).collect();
    let claims: Vec<(&str, Vec<u8>)> = vec![
        ("a frame of terabytes in one piece", [&b"\x28\xb5\x2f\xfd\xe0"[..], &terabytes, b"\x01\x00\x00"].concat()),
        ("a frame with a window of terabytes", b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00".to_vec()),
        ("four billion frames", [frame, &table(&[(frame.len() as u32, 1)], u32::MAX)].concat()),
        ("a frame of four GiB, by the table", [frame, &table(&[(frame.len() as u32, u32::MAX)], 1)].concat()),
        ("frames of nothing that hold terabytes, by the table", [frame, &table(&nothing, nothing.len() as u32)].concat()),
        ("an empty frame, by the table", [frame, &table(&[(frame.len() as u32, 0)], 1)].concat()),
        ("a skipped frame of four GiB", [&whole[..], &[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]].concat()),
        ("30 MiB of zeros", thirty.clone()),
        ("30 MiB of blank lines", bomb(30, b'\n')),
        ("30 MiB where the table says some bytes", [&thirty[..], &table(&[(thirty.len() as u32, 700)], 1)].concat()),
        ("100 MiB where the table says more", [&hundred[..], &table(&[(stored, 100 << 21)], 1)].concat()),
    ];
    for (what, claim) in &claims {
        let is_whole = case.judge(what, claim);
        // Where only the table lies, the frame still has the lines.
        assert_eq!(is_whole, what.contains("by the table") || what.contains("billion"), "{what}");
    }
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        assert!(after - before < 72 << 10, "{} MiB more", (after - before) >> 10);
    }
}
