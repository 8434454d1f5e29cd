//! Goal: the threat model says the truth about what is found by which evidence, and with an anchored checkpoint every deed is, but
//! for an erasure by whoever may not erase: that is recorded as what it is.
//! Method: one signed store with an anchor, and a copy of it for each deed, done as someone with the directory would: to one leg, to
//! both, or to the whole history with hashes that fit. Each copy is then held against the chain (verify, full parity, an open),
//! against signatures from the root on, and against the anchor. What caught it is kept as a snapshot, which the page shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::{Anchor, Anchored, Checkpointer, FileAnchor, verify_anchored};
use counterfoil::keys::{KeyChange, KeyReason};
use counterfoil::*;

/// The ledger's key, the key of its checkpoints, and one that somebody else has.
fn key(seed: u8) -> Arc<MemoryKey> {
    Arc::new(MemoryKey::from_seed(&[seed; 32]))
}
const ROOT: u8 = 1;
const CHECKPOINTS: u8 = 2;
const OTHER: u8 = 3;

const EVENTS: u64 = 12;
/// How many there were when the older copy was made.
const OLDER: u64 = 8;

struct Scene {
    _temp: tempfile::TempDir,
    /// As it is, and as it was.
    now: PathBuf,
    older: PathBuf,
    /// Another ledger that the same key signs.
    elsewhere: PathBuf,
    anchor: PathBuf,
    options: Options,
}

fn filled(dir: &Path, options: &Options, word: &str, until: u64) -> Head {
    let mut store = Store::open(dir, options).unwrap().0;
    if store.head().seq == Seq::ZERO {
        store.change_key(&KeyChange::Added { key: key(ROOT).public_key(), reason: KeyReason::default() }, key(ROOT)).unwrap();
    }
    for n in store.head().seq.get() + 1..=until {
        store.append(common::note(&format!("{word} {n}")).session("s")).unwrap();
    }
    let head = store.head();
    store.close().unwrap();
    head
}

fn scene() -> Scene {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let mut options = common::options();
    common::disk::without_sync(&mut options);
    options.segment_bytes_max = 3000;
    options.attestor = Some(key(ROOT).into());
    filled(&at("now"), &options, "event", OLDER);
    common::copy_dir(&at("now"), &at("older"));
    let head = filled(&at("now"), &options, "event", EVENTS);
    filled(&at("elsewhere"), &options, "another", EVENTS);
    let reader = LedgerReader::open(&at("now"), &options).unwrap();
    let anchors: Vec<Arc<dyn Anchor>> = vec![Arc::new(FileAnchor::new(at("anchor")))];
    let mut checkpointer = Checkpointer::new(&at("now"), reader.manifest(), &options, key(CHECKPOINTS), anchors);
    checkpointer.sign(head).unwrap();
    drop(checkpointer);
    // Whoever has the directory has what the store keeps of its checkpoints too.
    fs::remove_dir_all(at("now").join("checkpoints")).unwrap();
    Scene { now: at("now"), older: at("older"), elsewhere: at("elsewhere"), anchor: at("anchor"), options, _temp: temp }
}

/// An event that can be changed, and the key that is to sign it.
struct Draught {
    line: String,
    payload: Option<String>,
    signed_by: Option<u8>,
    /// A signature that is kept, whether it fits or not.
    signature: Option<String>,
}

fn draughts(dir: &Path) -> Vec<Draught> {
    let text = String::from_utf8(common::ledger_bytes(dir)).unwrap();
    let draught = |line: &str| {
        let event = line::decode(line.as_bytes()).unwrap();
        Draught { payload: None, signed_by: event.signed_by.map(|_| ROOT), signature: None, line: line.to_owned() }
    };
    text.lines().map(draught).collect()
}

/// Writes a history with seqs, links and hashes that fit, and makes the mirror anew from it: nothing within the store tells.
fn rewrite(dir: &Path, draughts: &[Draught], options: &Options) {
    let ledger_id = LedgerReader::open(dir, options).unwrap().manifest().ledger_id;
    let (mut text, mut prev) = (Vec::new(), chain::genesis(ledger_id));
    for (index, draught) in draughts.iter().enumerate() {
        let mut event = line::decode(draught.line.as_bytes()).unwrap();
        let signed_by = draught.signed_by.map(|by| key(by).key_id().to_string());
        event.seq = Seq::new(index as u64 + 1);
        event.group_seq = event.seq;
        if let Some((_, position)) = &mut event.session {
            *position = index as u64;
        }
        (event.prev_event_hash, event.signed_by, event.signature) = (prev, signed_by.as_deref(), None);
        if let Some(payload) = &draught.payload {
            event.payload_hash = chain::payload_hash(payload.as_bytes());
            event.body = Body::Inline(payload);
        }
        common::rehash(&mut event);
        prev = event.event_hash;
        let signature = draught.signed_by.map(|by| {
            let own = || key(by).sign(&chain::signing_input(ledger_id, prev)).unwrap().to_string();
            draught.signature.clone().unwrap_or_else(own)
        });
        event.signature = signature.as_deref();
        line::encode(&event, &mut text);
        text.push(b'\n');
    }
    for path in common::segment_paths(dir) {
        fs::remove_file(path).unwrap();
    }
    fs::write(dir.join("segments").join(format!("{:020}.jsonl", 1)), text).unwrap();
    remove_mirror(dir);
    let mut options = options.clone();
    options.attestor = None;
    Store::open(dir, &options).unwrap().0.close().unwrap();
}

fn remove_mirror(dir: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("mirror.sqlite3{suffix}")));
    }
}

/// The lines of the ledger, to be changed as text, in the files where they are.
fn edit_lines(dir: &Path, edit: impl FnOnce(&mut Vec<String>)) {
    let paths = common::segment_paths(dir);
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let firsts: Vec<usize> = texts.iter().scan(0, |at, text| Some(std::mem::replace(at, *at + text.lines().count()))).collect();
    let mut lines: Vec<String> = texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    edit(&mut lines);
    for (index, path) in paths.iter().enumerate() {
        let to = firsts.get(index + 1).copied().unwrap_or(lines.len()).min(lines.len());
        let text: String = lines[firsts[index].min(to)..to].iter().map(|line| format!("{line}\n")).collect();
        fs::write(path, text).unwrap();
    }
}

type Deed = (&'static str, fn(&Scene, &Path));

fn put_back(from: &Path, to: &Path, ledger: bool, mirror: bool) {
    if ledger {
        fs::remove_dir_all(to.join("segments")).unwrap();
        common::copy_dir(&from.join("segments"), &to.join("segments"));
    }
    if mirror {
        remove_mirror(to);
        fs::copy(from.join("mirror.sqlite3"), to.join("mirror.sqlite3")).unwrap();
    }
}

/// The history with this payload in the middle of it, signed by these.
fn with_other_payload(scene: &Scene, dir: &Path, signed_by: impl Fn(Option<u8>) -> Option<u8>) {
    let mut all = draughts(&scene.now);
    all[4].payload = Some("\"what did not happen\"".to_owned());
    all.iter_mut().for_each(|draught| draught.signed_by = signed_by(draught.signed_by));
    rewrite(dir, &all, &scene.options);
}

/// Erases an event as `counterfoil erase` would, with the words of somebody else.
fn forged_erasure(scene: &Scene, dir: &Path, signed_by: Option<u8>) {
    let mut options = scene.options.clone();
    options.attestor = signed_by.map(|by| key(by).into());
    let which = Erase::Seqs(vec![Seq::new(5)..=Seq::new(5)]);
    let report = erase(dir, &options, &Erasure::new(which, "a person's address").by("privacy desk")).unwrap();
    assert_eq!((report.events, report.done.unfinished), (1, None));
}

const DEEDS: &[Deed] = &[
    ("edit a payload in the ledger", |_, dir| edit_lines(dir, |lines| lines[4] = lines[4].replace("event 5", "event X"))),
    ("blank a payload in the ledger", |_, dir| {
        edit_lines(dir, |lines| {
            let at = lines[4].find(",\"payload\":").unwrap();
            lines[4].replace_range(at.., ",\"erased\":true}");
        })
    }),
    ("delete a line", |_, dir| {
        edit_lines(dir, |lines| {
            lines.remove(4);
        })
    }),
    ("insert a line", |_, dir| edit_lines(dir, |lines| lines.insert(5, lines[4].clone()))),
    ("reorder two lines", |_, dir| edit_lines(dir, |lines| lines.swap(4, 5))),
    ("truncate the ledger", |_, dir| edit_lines(dir, |lines| lines.truncate(OLDER as usize))),
    ("edit a row of the mirror", |_, dir| {
        let mirror = common::by_hand(dir);
        mirror.execute("UPDATE events SET payload = '\"what did not happen\"' WHERE seq = 5", []).unwrap();
    }),
    ("roll back the ledger", |scene, dir| put_back(&scene.older, dir, true, false)),
    ("roll back the mirror", |scene, dir| put_back(&scene.older, dir, false, true)),
    ("roll back both legs", |scene, dir| put_back(&scene.older, dir, true, true)),
    ("fork: an older copy goes on, unsigned", |scene, dir| {
        put_back(&scene.older, dir, true, true);
        let mut options = scene.options.clone();
        options.attestor = None;
        filled(dir, &options, "another course", EVENTS);
    }),
    ("fork: an older copy goes on, signed with the stolen key", |scene, dir| {
        put_back(&scene.older, dir, true, true);
        filled(dir, &scene.options, "another course", EVENTS);
    }),
    ("rewrite everything, the old signatures kept", |scene, dir| {
        let mut all = draughts(&scene.now);
        all[4].payload = Some("\"what did not happen\"".to_owned());
        for draught in &mut all {
            draught.signature = line::decode(draught.line.as_bytes()).unwrap().signature.map(str::to_owned);
        }
        rewrite(dir, &all, &scene.options);
    }),
    ("rewrite everything, signed with the stolen key", |scene, dir| with_other_payload(scene, dir, |by| by)),
    ("strip the signatures, and edit", |scene, dir| with_other_payload(scene, dir, |_| None)),
    ("swap keys: another key signs all of it", |scene, dir| {
        let mut all = draughts(&scene.now);
        all[0].payload = Some(all[0].line.split_once("\"payload\":").unwrap().1.trim_end_matches('}').to_owned() + "}");
        let (old, new) = (key(ROOT).public_key(), key(OTHER).public_key());
        let payload = all[0].payload.take().unwrap();
        let payload = payload.replace(&old.to_string(), &new.to_string()).replace(&old.key_id().to_string(), &new.key_id().to_string());
        all[0].payload = Some(payload);
        all[4].payload = Some("\"what did not happen\"".to_owned());
        all.iter_mut().for_each(|draught| draught.signed_by = Some(OTHER));
        rewrite(dir, &all, &scene.options);
    }),
    ("replay an event and its signature from another ledger", |scene, dir| {
        let (mut all, mut foreign) = (draughts(&scene.now), draughts(&scene.elsewhere));
        let mut event = foreign.remove(4);
        event.signature = line::decode(event.line.as_bytes()).unwrap().signature.map(str::to_owned);
        all[4] = event;
        rewrite(dir, &all, &scene.options);
    }),
    ("put another ledger of the same key in its place", |scene, dir| {
        fs::remove_dir_all(dir).unwrap();
        common::copy_dir(&scene.elsewhere, dir);
    }),
    ("forge an erasure, unsigned", |scene, dir| forged_erasure(scene, dir, None)),
    ("forge an erasure, signed with the stolen key", |scene, dir| forged_erasure(scene, dir, Some(ROOT))),
];

/// The commands that tell of it, by what they lean on: the chain, signatures, the anchor.
fn caught(scene: &Scene, dir: &Path) -> [Vec<&'static str>; 3] {
    let (options, root) = (Options::default(), key(ROOT).public_key());
    let reader = LedgerReader::open(dir, &options).unwrap();
    let chain = [
        ("verify", !verify(&reader, &mut |_| ()).unwrap().is_clean()),
        ("parity --full", !parity_full(&reader, &options, None, &mut |_| ()).unwrap().is_consistent()),
        ("open", forecast(dir, &options).is_err()),
    ];
    let rules = SignatureRules { root, required_from: Some(Seq::FIRST) };
    let signed = verify_signed(&reader, rules, &mut |_| ()).unwrap().is_clean();
    let mut anchored = Anchored::new(&reader, &[key(CHECKPOINTS).public_key()]);
    anchored.read(&scene.anchor).unwrap();
    let (verified, anchors) = verify_anchored(&reader, anchored, None, &mut |_| ()).unwrap();
    let named = |all: &[(&'static str, bool)]| all.iter().filter(|(_, caught)| *caught).map(|(name, _)| *name).collect::<Vec<_>>();
    [named(&chain), named(&[("verify --root", !signed)]), named(&[("verify --anchor", !anchors.is_clean() || !verified.is_clean())])]
}

#[test]
fn what_catches_what() {
    let scene = scene();
    let untouched = caught(&scene, &scene.now);
    assert_eq!(untouched, [vec![], vec![], vec![]] as [Vec<&str>; 3], "what nobody touched is fine");
    let mut table =
        "| deed | by chain and mirror | by signatures from the root | by an anchored checkpoint |\n|---|---|---|---|\n".to_owned();
    let mut missed_by_all_but_the_anchor = 0;
    for (name, deed) in DEEDS {
        let copy = scene.now.with_file_name("copy");
        common::copy_dir(&scene.now, &copy);
        deed(&scene, &copy);
        let [chain, signatures, anchor] = caught(&scene, &copy);
        let cell = |by: &[&str]| if by.is_empty() { "not caught".to_owned() } else { format!("caught: {}", by.join(", ")) };
        writeln!(table, "| {name} | {} | {} | {} |", cell(&chain), cell(&signatures), cell(&anchor)).unwrap();
        let in_the_mirror_alone = name.contains("mirror") && !chain.is_empty();
        // An erasure is an event like others, behind the checkpoint; verify shows it, and whether it is signed.
        let says_what_it_is = name.contains("erasure") && common::verified(&copy).erasures_count == 1;
        assert!(!anchor.is_empty() || in_the_mirror_alone || says_what_it_is, "{name} is not caught by an anchor:\n{table}");
        missed_by_all_but_the_anchor += usize::from(chain.is_empty() && signatures.is_empty());
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(missed_by_all_but_the_anchor > 0, "so it is worth having one");
    common::snapshots(|| insta::assert_snapshot!("threats", table));
    let page = fs::read_to_string("src/threats.md").unwrap();
    assert!(page.contains(&table), "src/threats.md shows another table; put this one there:\n{table}");
}
