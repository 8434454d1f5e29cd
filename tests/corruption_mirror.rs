//! Goal: as in `corruption.rs`, for what is not the ledger: the mirror's file, ledger.json, and copies of either leg or
//! of both from another moment. Open never takes a wrong mirror for a right one, and never an older ledger where the
//! mirror knows of a newer one.
//!
//! Method: the same store and the same judge. The mirror's bits are flipped, its pages zeroed, filled, swapped and
//! repeated, its file cut; ledger.json is cut at each byte, each of its bits is flipped, and it is replaced by another
//! ledger's; each older ledger is put beside each older mirror. Counted in `snapshots/corruption_mirror.snap`.
//! COUNTERFOIL_CORRUPTION=all flips a bit of each byte of the mirror, and has a snapshot of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;

use common::damage::{Bench, Files, History, MANIFEST, MIRROR, Table, all, is_segment};
use common::*;

const PAGE: usize = MIRROR_PAGE_BYTES;

/// What is done to the page with this number.
type Edit = dyn Fn(usize, &mut Vec<&[u8]>);

/// Judges each form of one file of the whole store.
fn each_form(bench: &mut Bench<'_>, table: &mut Table, file: &str, key: [&str; 3], forms: impl Iterator<Item = Vec<u8>>) {
    let mut damaged = bench.whole.clone();
    let Some(whole) = bench.whole.get(Path::new(file)).cloned() else { return };
    for (n, form) in forms.enumerate().filter(|(_, form)| *form != whole) {
        damaged.insert(file.into(), form);
        let outcome = bench.judge(&format!("{key:?}, number {n}"), &damaged);
        table.add(key, outcome);
    }
}

fn flipped(bytes: &[u8], at: usize, bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << bit;
    bytes
}

fn mirror_damage(history: &History, mirror: &str, at: u64) -> Table {
    let (mut bench, mut table) = (Bench::new(history, Some(at)), Table::default());
    let whole = bench.whole[Path::new(MIRROR)].clone();
    assert_eq!(whole.len() % PAGE, 0);
    let pages: Vec<&[u8]> = whole.chunks(PAGE).collect();
    let (bench, table) = (&mut bench, &mut table);
    let step = if all() { 1 } else { 367 };
    let flips = (100..whole.len()).step_by(step).map(|at| flipped(&whole, at, at * 5 % 8));
    each_form(bench, table, MIRROR, ["one bit of the mirror flipped", mirror, "pages"], flips);
    // Where the rows are, not the unused space.
    let full = (100..whole.len()).filter(|at| whole[*at] != 0 && whole[at - 1] != 0).step_by(if all() { 1 } else { 41 });
    each_form(
        bench,
        table,
        MIRROR,
        ["one bit of the mirror flipped", mirror, "rows and indexes"],
        full.map(|at| flipped(&whole, at, at * 3 % 8)),
    );
    let header = (0..100).filter(|at| !(60..64).contains(at)).map(|at| flipped(&whole, at, at % 8));
    each_form(bench, table, MIRROR, ["one bit of the mirror flipped", mirror, "header"], header);
    let version = (0..32).map(|n| flipped(&whole, 60 + n / 8, n % 8));
    each_form(bench, table, MIRROR, ["one bit of the mirror flipped", mirror, "its schema version"], version);
    let cuts = (0..=whole.len()).filter(|at| at % PAGE == 0 || at % (if all() { 512 } else { 7 * 512 }) == 0 || *at == 1);
    each_form(bench, table, MIRROR, ["the mirror cut", mirror, "anywhere"], cuts.map(|at| whole[..at].to_vec()));
    let edits: [(&str, &Edit); 5] = [
        ("zeroed", &|n, pages| pages[n] = &[0; PAGE]),
        ("filled", &|n, pages| pages[n] = &[0x5a; PAGE]),
        ("dropped", &|n, pages| {
            pages.remove(n);
        }),
        ("repeated", &|n, pages| pages.insert(n, pages[n])),
        ("swapped with the next", &|n, pages| {
            if n + 1 < pages.len() {
                pages.swap(n, n + 1);
            }
        }),
    ];
    for (how, edit) in edits {
        for (n, place) in (0..pages.len()).map(|n| (n, if n == 0 { "first page" } else { "other pages" })) {
            let mut pages = pages.clone();
            edit(n, &mut pages);
            each_form(bench, table, MIRROR, [&format!("a page of the mirror {how}"), mirror, place], [pages.concat()].into_iter());
        }
    }
    std::mem::take(table)
}

fn manifest_damage(history: &History, mirror: &str, at: Option<u64>) -> Table {
    let (mut bench, mut table) = (Bench::new(history, at), Table::default());
    let whole = bench.whole[Path::new(MANIFEST)].clone();
    let (bench, table) = (&mut bench, &mut table);
    let text = String::from_utf8(whole.clone()).unwrap();
    let created = text.find("created_at\":\"").unwrap() + 13;
    let created = created..created + 27;
    let step = if mirror == "level" || all() { 1 } else { 7 };
    let bits = |inside: bool| (0..whole.len() * 8).step_by(step).filter(move |n| created.contains(&(n / 8)) == inside);
    let (outside, inside) = (bits.clone()(false), bits(true));
    each_form(
        bench,
        table,
        MANIFEST,
        ["one bit of ledger.json flipped", mirror, "created_at"],
        inside.map(|n| flipped(&whole, n / 8, n % 8)),
    );
    each_form(
        bench,
        table,
        MANIFEST,
        ["one bit of ledger.json flipped", mirror, "the rest"],
        outside.map(|n| flipped(&whole, n / 8, n % 8)),
    );
    let cuts = (0..whole.len()).map(|at| whole[..at].to_vec());
    each_form(bench, table, MANIFEST, ["ledger.json cut at a byte", mirror, "anywhere"], cuts);
    let other = History::new();
    let other = other.at[&8][Path::new(MANIFEST)].clone();
    let foreign = String::from_utf8(other).unwrap().replace("ldg_01", "ldg_00").into_bytes();
    each_form(bench, table, MANIFEST, ["ledger.json of another ledger", mirror, "-"], [foreign].into_iter());
    let mut damaged = bench.whole.clone();
    damaged.remove(Path::new(MANIFEST));
    let outcome = bench.judge("no ledger.json", &damaged);
    table.add(["ledger.json removed", mirror, "-"], outcome);
    std::mem::take(table)
}

/// Each older ledger beside each mirror, and each ledger beside no mirror.
fn older_copies(history: &History) -> Table {
    let (mut bench, mut table) = (Bench::new(history, Some(8)), Table::default());
    for ledger in history.at.keys() {
        for mirror in history.at.keys().map(Some).chain([None]) {
            let mut files: Files =
                history.at[ledger].iter().filter(|(path, _)| is_segment(path)).map(|(p, b)| (p.clone(), b.clone())).collect();
            files.insert(MANIFEST.into(), history.at[ledger][Path::new(MANIFEST)].clone());
            if let Some(mirror) = mirror {
                files.insert(MIRROR.into(), history.at[mirror][Path::new(MIRROR)].clone());
            }
            bench.mirrored = mirror.copied().unwrap_or(0);
            let outcome = bench.judge(&format!("the ledger at {ledger}, the mirror at {mirror:?}"), &files);
            let older = |at: u64| if at == 8 { "as it is" } else { "older" };
            let key = match mirror {
                None => ["the ledger alone", "absent", older(*ledger)],
                Some(mirror) if mirror > ledger => ["an older ledger", older(*mirror), "older than the mirror"],
                Some(mirror) if mirror == ledger => ["copies of one moment", older(*mirror), older(*ledger)],
                Some(mirror) => ["an older mirror", older(*mirror), older(*ledger)],
            };
            table.add(key, outcome);
        }
    }
    table
}

#[test]
fn every_damage_to_the_rest() {
    let history = &History::new();
    let table = std::thread::scope(|scope| {
        let level = scope.spawn(|| mirror_damage(history, "level", 8));
        let behind = scope.spawn(|| mirror_damage(history, "behind", 5));
        let manifests = [("level", Some(8)), ("behind", Some(5)), ("absent", None)];
        let manifests = manifests.into_iter().map(|(mirror, at)| manifest_damage(history, mirror, at)).fold(Table::default(), Table::join);
        let older = older_copies(history);
        [behind.join().unwrap(), manifests, older].into_iter().fold(level.join().unwrap(), Table::join)
    });
    eprintln!("{} damaged stores were opened", table.cases());
    let name = if all() { "corruption_mirror_all" } else { "corruption_mirror" };
    snapshots(|| insta::assert_snapshot!(name, table.text()));
}
