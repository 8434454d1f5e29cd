//! Goal: whatever happens to the ledger's files, open answers with exactly one of: clean, mirror brought up (or
//! rebuilt), torn tail repaired, or a typed refusal that changes nothing and names what helps. No wrong data are
//! accepted unseen: what open does not look at, `verify` and `parity --full` find.
//!
//! Method: a store of eight events in three segments, with its mirror level, behind (in the active segment), far behind
//! (in a sealed one) and absent, is damaged in every way: each bit flipped, cut at each byte, lines and 512-byte
//! sectors repeated, swapped, dropped and zeroed, segments dropped and swapped. What came of each is counted in one
//! table, `snapshots/corruption.snap`, with who found it and what brought back what was lost. The advised repair is
//! run each time. COUNTERFOIL_CORRUPTION=all flips all eight bits of each byte instead of one, and has a snapshot of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};

use common::damage::{Bench, Files, History, Table, all, is_segment};
use common::*;

/// The states of the mirror: its name, and the seq that it is at.
const MIRRORS: [(&str, Option<u64>); 4] = [("level", Some(8)), ("behind", Some(5)), ("far behind", Some(2)), ("absent", None)];

/// Where an offset of a segment is, as far as open cares.
fn place(bench: &Bench<'_>, path: &Path, offset: usize) -> &'static str {
    let last = bench.whole.keys().rfind(|path| is_segment(path)).unwrap();
    if path != last {
        return "sealed";
    }
    let line = bench.whole[path][..offset.min(bench.whole[path].len() - 1)].iter().filter(|b| **b == b'\n').count() as u64;
    if 5 + line <= bench.mirrored { "active, mirrored" } else { "active, not mirrored" }
}

/// Damages each segment by `edit`, which is given its bytes and answers each damaged form with where the damage begins.
fn each_segment(
    bench: &mut Bench<'_>,
    table: &mut Table,
    mirror: &str,
    what: &str,
    edit: impl Fn(&[u8]) -> Vec<(usize, Box<dyn Fn() -> Vec<u8> + '_>)>,
) {
    let paths: Vec<PathBuf> = bench.whole.keys().filter(|path| is_segment(path)).cloned().collect();
    for path in paths {
        let whole = bench.whole[&path].clone();
        let mut damaged = bench.whole.clone();
        for (at, form) in edit(&whole) {
            let form = form();
            if form == whole {
                continue;
            }
            damaged.insert(path.clone(), form);
            let outcome = bench.judge(&format!("{what}, mirror {mirror}, {} at byte {at}", path.display()), &damaged);
            table.add([what, mirror, place(bench, &path, at)], outcome);
        }
    }
}

/// Damaged forms of a segment, each with where the damage begins.
type Forms<'a> = Vec<(usize, Box<dyn Fn() -> Vec<u8> + 'a>)>;

fn flips(whole: &[u8]) -> Forms<'_> {
    (0..whole.len() * 8)
        .step_by(if all() { 1 } else { 61 })
        .map(|n| {
            let (at, bit) = (n / 8, n % 8);
            let form = move || {
                let mut bytes = whole.to_vec();
                bytes[at] ^= 1 << bit;
                bytes
            };
            (at, Box::new(form) as _)
        })
        .collect()
}

fn cuts(whole: &[u8]) -> Forms<'_> {
    let near_a_line = |at: usize| whole[at.saturating_sub(2)..(at + 3).min(whole.len())].contains(&b'\n');
    let cuts = (0..whole.len()).filter(|at| all() || at % 17 == 0 || near_a_line(*at));
    cuts.map(|at| (at, Box::new(move || whole[..at].to_vec()) as _)).collect()
}

/// The pieces of a segment: its lines, or its sectors.
fn pieces(whole: &[u8], lines: bool) -> Vec<&[u8]> {
    if lines { whole.split_inclusive(|b| *b == b'\n').collect() } else { whole.chunks(512).collect() }
}

/// Each piece repeated in place and at the end, dropped, zeroed (with and without its LF), and swapped with each other.
fn shuffles<'a>(whole: &'a [u8], lines: bool, how: &'static str) -> Forms<'a> {
    let parts = pieces(whole, lines);
    let start = |n: usize| parts[..n].iter().map(|part| part.len()).sum::<usize>();
    let mut forms: Forms<'a> = Vec::new();
    for n in 0..parts.len() {
        let mut push = |form: Vec<&[u8]>| {
            let bytes = form.concat();
            forms.push((start(n), Box::new(move || bytes.clone())));
        };
        let zeros = vec![0; parts[n].len()];
        let mut edited = parts.clone();
        match how {
            "repeated" => {
                edited.insert(n, parts[n]);
                push(edited.clone());
                edited = parts.clone();
                edited.push(parts[n]);
                push(edited);
            }
            "dropped" => {
                edited.remove(n);
                push(edited);
            }
            "zeroed" => {
                edited[n] = &zeros;
                push(edited.clone());
                if lines {
                    edited[n] = &zeros[1..];
                    edited.insert(n + 1, b"\n");
                    push(edited);
                }
            }
            "swapped" => {
                for m in n + 1..parts.len() {
                    let mut edited = parts.clone();
                    edited.swap(n, m);
                    push(edited);
                }
            }
            other => panic!("{other}"),
        }
    }
    forms
}

fn whole_segments(bench: &mut Bench<'_>, table: &mut Table, mirror: &str) {
    let paths: Vec<PathBuf> = bench.whole.keys().filter(|path| is_segment(path)).cloned().collect();
    let place = |n: usize| if n + 1 == paths.len() { "active" } else { "sealed" };
    let mut judge = |bench: &mut Bench<'_>, what: &str, at: &str, edit: &dyn Fn(&mut Files)| {
        let mut damaged = bench.whole.clone();
        edit(&mut damaged);
        let outcome = bench.judge(&format!("{what}, mirror {mirror}, {at}"), &damaged);
        table.add([what, mirror, at], outcome);
    };
    for (n, path) in paths.iter().enumerate() {
        judge(bench, "a segment dropped", place(n), &|files| drop(files.remove(path)));
        judge(bench, "a segment and all behind it dropped", place(n), &|files| paths[n..].iter().for_each(|path| drop(files.remove(path))));
        judge(bench, "a segment emptied", place(n), &|files| drop(files.insert(path.clone(), Vec::new())));
        judge(bench, "a segment under another name", place(n), &|files| {
            let bytes = files.remove(path).unwrap();
            files.insert("segments/00000000000000000099.jsonl".into(), bytes);
        });
        for (m, other) in paths.iter().enumerate().skip(n + 1) {
            judge(bench, "two segments swapped", place(m), &|files| {
                let (a, b) = (files[path].clone(), files[other].clone());
                files.insert(path.clone(), b);
                files.insert(other.clone(), a);
            });
            judge(bench, "a segment overwritten by another", place(m), &|files| {
                let bytes = files[path].clone();
                files.insert(other.clone(), bytes);
            });
            judge(bench, "a segment appended to another", place(m), &|files| {
                let bytes = files[path].clone();
                files.get_mut(other).unwrap().extend(bytes);
            });
        }
        judge(bench, "blank lines and fill in a segment", place(n), &|files| {
            let bytes = files.get_mut(path).unwrap();
            bytes.extend([b'\n'; 7]);
            bytes.splice(0..0, [b'\n'; 3]);
        });
    }
}

fn damage_all(history: &History, mirror: &str, at: Option<u64>) -> Table {
    let (bench, mut table) = (&mut Bench::new(history, at), Table::default());
    let table = &mut table;
    each_segment(bench, table, mirror, "one bit flipped", flips);
    each_segment(bench, table, mirror, "cut at a byte", cuts);
    for (lines, piece) in [(true, "a line"), (false, "a sector")] {
        for how in ["repeated", "dropped", "zeroed", "swapped"] {
            each_segment(bench, table, mirror, &format!("{piece} {how}"), |whole| shuffles(whole, lines, how));
        }
    }
    whole_segments(bench, table, mirror);
    std::mem::take(table)
}

#[test]
fn every_damage_to_the_ledger() {
    let history = History::new();
    let tables: Vec<Table> = std::thread::scope(|scope| {
        let running: Vec<_> = MIRRORS
            .map(|(mirror, at)| {
                scope.spawn({
                    let history = &history;
                    move || damage_all(history, mirror, at)
                })
            })
            .into();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let table = tables.into_iter().fold(Table::default(), Table::join);
    eprintln!("{} damaged stores were opened", table.cases());
    let name = if all() { "corruption_all_bits" } else { "corruption" };
    snapshots(|| insta::assert_snapshot!(name, table.text()));
}
