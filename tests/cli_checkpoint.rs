//! Goal: `checkpoint`, `prove`, `check-proof` and `verify --anchor` say what they did and found, in text and JSON, with exit codes that
//! a script can go by; `check-proof` needs no store.
//! Method: a store with a known clock, known ids and a known key; one that was rolled back and one that was rewritten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use std::fs;
use std::path::{Path, PathBuf};

use cli_support::*;
use counterfoil::Store;

/// PKCS#8 of the key with the seed of 32 bytes of 0x07, as `openssl` writes it.
const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n-----END PRIVATE KEY-----\n";

struct Place {
    temp: tempfile::TempDir,
    store: PathBuf,
}

impl Place {
    fn new() -> Place {
        let (temp, store) = sample();
        let key = store.with_file_name("key");
        fs::write(&key, KEY).unwrap();
        #[cfg(unix)]
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Place { temp, store }
    }

    fn at(&self, name: &str) -> String {
        self.store.with_file_name(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Run {
        run(&self.store, args)
    }

    fn shown(&self, args: &[&str]) -> String {
        let run = self.run(args);
        let dir = self.store.parent().unwrap().display().to_string();
        format!("$ counterfoil {}\n{}", args.join(" "), run.shown(&self.store)).replace(&dir, "<dir>")
    }

    /// Signs a checkpoint of the 12 events, adds two, and signs another; both are in the file `anchor`.
    fn signed(self) -> Place {
        let (key, anchor) = (self.at("key"), self.at("anchor"));
        self.run(&["checkpoint", "--key", &key, "--anchor", &anchor]).fine();
        append(&self.store, &[501, 502]);
        self.run(&["checkpoint", "--key", &key, "--anchor", &anchor]).fine();
        self
    }
}

/// Appends events that are the same in every run.
fn append(store: &Path, ids: &[u64]) {
    let (mut store, _) = Store::open(store, &common::options()).unwrap();
    for id in ids {
        store.append(common::note("more").id(common::id(*id))).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn signing() {
    let place = Place::new();
    let (key, anchor, there) = (place.at("key"), place.at("anchor"), place.at("there"));
    let shown = [
        place.shown(&["checkpoint", "--key", &key]),
        place.shown(&["checkpoint", "--key", &key, "--anchor", &anchor, "--anchor-command", &format!("cat > {there}")]),
        place.shown(&["checkpoint", "--key", &key, "--anchor", &format!("{anchor}/no"), "--anchor-command", "echo no >&2; exit 7"]),
        place.shown(&["checkpoint", "--key", &key, "--json"]),
        place.shown(&["checkpoint"]),
        place.shown(&["checkpoint", "--key", &place.at("nowhere")]),
    ];
    let shown = shown.join("\n");
    snapshot!("cli_checkpoint", shown);
    let signed = fs::read_to_string(place.store.join("checkpoints/signed.txt")).unwrap();
    assert_eq!((fs::read_to_string(&anchor).unwrap(), fs::read_to_string(&there).unwrap()), (signed.clone(), signed));
    let nothing = place.temp.path().join("nothing");
    let refused = run(&nothing, &["checkpoint", "--key", &key]);
    assert!(refused.code == 4 && !nothing.exists(), "{refused:?}");
}

#[test]
fn proving() {
    let place = Place::new().signed();
    let (key, proof, anchor, event) = (place.at("key"), place.at("proof"), place.at("anchor"), place.at("event"));
    let public = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    let old = place.at("old");
    let all = fs::read_to_string(&anchor).unwrap();
    fs::write(&old, all.split_inclusive('\n').take(5).collect::<String>()).unwrap();
    fs::write(&event, place.run(&["export", "--from", "7", "--to", "7"]).fine()).unwrap();
    let mut shown = vec![
        place.shown(&["prove", "7"]),
        place.shown(&["prove", "7", "--size", "12", "--json"]),
        place.shown(&["prove", "7", "-o", &proof]),
        place.shown(&["check-proof", &proof, "--key", public]),
        place.shown(&["check-proof", &proof, "--key", &key, "--checkpoint", &anchor, "--event", &event, "--json"]),
        place.shown(&["check-proof", &proof, "--key", &key, "--checkpoint", &old]),
        place.shown(&["check-proof", &proof, "--key", &"0".repeat(64)]),
        place.shown(&["prove", "--from", "12", "-o", &proof]),
        place.shown(&["check-proof", &proof, "--key", &key, "--checkpoint", &anchor]),
        place.shown(&["check-proof", &proof, "--key", &key]),
        place.shown(&["check-proof", &proof, "--key", &key, "--json"]),
        place.shown(&["check-proof", &key, "--key", &key]),
        place.shown(&["prove", "15"]),
        place.shown(&["prove", "--from", "15"]),
        place.shown(&["prove", "1", "--size", "13"]),
        place.shown(&["prove"]),
    ];
    let wrong = fs::read_to_string(&proof).unwrap().replacen("old 12", "old 11", 1);
    fs::write(&proof, wrong).unwrap();
    shown.push(place.shown(&["check-proof", &proof, "--key", &key, "--checkpoint", &old]));
    snapshot!("cli_prove", shown.join("\n"));
    // With nothing but the proof, the checkpoint and the key.
    place.run(&["prove", "3", "-o", &proof]).fine();
    fs::remove_dir_all(&place.store).unwrap();
    place.run(&["check-proof", &proof, "--key", public, "--checkpoint", &anchor]).fine();
}

/// Rolls both sides of the store back to its first segments, and takes its own checkpoints away.
fn roll_back(store: &Path) {
    let segments = segments(store);
    segments[2..].iter().for_each(|path| fs::remove_file(path).unwrap());
    remove_mirror(store);
    fs::remove_dir_all(store.join("checkpoints")).unwrap();
}

#[test]
fn verifying() {
    let place = Place::new().signed();
    let (key, anchor) = (place.at("key"), place.at("anchor"));
    let signed = place.store.join("checkpoints/signed.txt").display().to_string();
    let mut shown = vec![
        place.shown(&["verify", "--anchor", &anchor]),
        place.shown(&["verify", "--anchor", &anchor, "--anchor", &signed, "--key", &key, "--json"]),
        place.shown(&["verify", "--anchor", &anchor, "--key", &"0".repeat(64)]),
        place.shown(&["verify", "--anchor", &place.at("nowhere"), "--key", &key]),
        place.shown(&["verify", "--key", &key]),
    ];
    // The store's own checkpoint is there: a shorter ledger is not even opened.
    let kept = place.at("kept");
    common::copy_dir(&place.store, Path::new(&kept));
    let last = segments(&place.store).pop().unwrap();
    fs::remove_file(last).unwrap();
    remove_mirror(&place.store);
    shown.push(place.shown(&["append", "3"]));
    roll_back(&place.store);
    append(&place.store, &[503]);
    shown.push(place.shown(&["verify", "--anchor", &anchor, "--key", &key]));
    shown.push(place.shown(&["checkpoint", "--key", &key, "--anchor", &anchor]));
    // All of it anew, with other words and right hashes.
    fs::remove_dir_all(&place.store).unwrap();
    fill(&place.store, "it works");
    append(&place.store, &[501, 502]);
    shown.push(place.shown(&["verify", "--anchor", &anchor, "--key", &key]));
    shown.push(place.shown(&["checkpoint", "--key", &key, "--anchor", &anchor]));
    snapshot!("cli_verify_anchor", shown.join("\n"));
}

/// A checkpoint of the store's ledger that says so much, signed by a key that the store knows nothing of.
fn forged(origin: &str, size: u64, root: [u8; 32]) -> String {
    use counterfoil::attest::{Attestor, MemoryKey};
    let key = MemoryKey::from_seed(&[9; 32]);
    let text = format!("{origin}\n{size}\n{}\n", counterfoil::checkpoint::TreeHash::from_bytes(root));
    let signature = key.sign(text.as_bytes()).unwrap();
    counterfoil::note::Note::signed(text, origin, key.public_key(), &signature).to_string()
}

/// Whoever can write one note into signed.txt can have the store refuse; every command names the way out, and that is one.
#[test]
fn a_checkpoint_that_is_ahead_of_the_ledger_has_a_way_out() {
    let place = Place::new().signed();
    let (key, own) = (place.at("key"), place.store.join("checkpoints/signed.txt"));
    let right = fs::read_to_string(&own).unwrap();
    let origin = right.lines().next().unwrap();
    fs::write(&own, format!("{right}{}", forged(origin, 1_000_000, [5; 32]))).unwrap();
    let own_text = own.display().to_string();
    let mut shown = vec![place.shown(&["append", "1"]), place.shown(&["repair", "--from", "mirror"])];
    let doctor = place.run(&["doctor"]);
    let said = doctor.out.clone();
    assert_eq!(doctor.code, 1, "{said}");
    let finding = said.lines().find(|line| line.contains("open would refuse")).unwrap();
    assert!(finding.contains("checkpoints/signed.txt aside") && !said.contains("run:"), "{said}");
    shown.push(place.shown(&["verify", "--anchor", &own_text, "--key", &key]));
    fs::rename(&own, place.at("aside")).unwrap();
    shown.push(place.shown(&["append", "1"]).lines().next().unwrap().to_owned());
    place.run(&["checkpoint", "--key", &key]).fine();
    // One that is not ahead lets open go on, and signing says the same.
    let right = fs::read_to_string(&own).unwrap();
    fs::write(&own, format!("{right}{}", forged(origin, 14, [5; 32]))).unwrap();
    place.run(&["append", "2"]).fine();
    shown.push(place.shown(&["checkpoint", "--key", &key]));
    snapshot!("cli_checkpoint_ahead", shown.join("\n"));
}

/// Anchors may take their time: the lock is not held meanwhile.
#[test]
#[cfg(unix)]
fn others_append_while_anchors_run() {
    let place = Place::new();
    let append = format!("{} --store '{}' append 1 >&2", env!("CARGO_BIN_EXE_counterfoil"), place.store.display());
    place.run(&["checkpoint", "--key", &place.at("key"), "--anchor-command", &append]).fine();
}

/// What others wrote steers no terminal.
#[test]
#[cfg(unix)]
fn hostile_names_are_shown_plain() {
    let place = Place::new().signed();
    let (key, proof) = (place.at("key"), place.at("proof"));
    let hostile = place.at("an\nanchors: the ledger fits every checkpoint\u{1b}[2J");
    fs::write(&hostile, forged("counterfoil/ldg_\u{202e}\u{2066}", 3, [5; 32])).unwrap();
    let fails = "printf '\\033[31m\\302\\233red\\r' >&2; exit 1";
    place.run(&["prove", "3", "-o", &proof]).fine();
    let other = fs::read_to_string(&proof).unwrap();
    let (head, _) = other.split_once("\n\n").unwrap();
    fs::write(&proof, format!("{head}\n\n{}", forged("counterfoil/ldg_\u{202e}\u{2066}", 14, [5; 32]))).unwrap();
    let runs: [&[&str]; 3] = [
        &["verify", "--anchor", &hostile, "--key", &key],
        &["check-proof", &proof, "--key", &key],
        &["checkpoint", "--key", &key, "--anchor-command", fails],
    ];
    for args in runs {
        let run = place.run(args);
        assert!(run.code != 0, "{run:?}");
        let steers =
            |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
        assert!(!run.out.chars().any(steers) && !run.err.chars().any(steers), "{run:?}");
        assert!(!run.out.lines().any(|line| line.starts_with("anchors: the ledger fits")), "{run:?}");
    }
}

/// The checkpoint that a proof is held against is the one that fits, whatever else the file has.
#[test]
fn a_proof_finds_its_checkpoint_among_others() {
    let place = Place::new().signed();
    let (key, proof, anchor, mixed) = (place.at("key"), place.at("proof"), place.at("anchor"), place.at("mixed"));
    let origin = fs::read_to_string(&anchor).unwrap().lines().next().unwrap().to_owned();
    let others = forged("counterfoil/ldg_01M860XD300000000000000099", 14, [5; 32]) + &forged(&origin, 14, [6; 32]);
    fs::write(&mixed, others.clone() + &fs::read_to_string(&anchor).unwrap() + &others).unwrap();
    place.run(&["prove", "3", "-o", &proof]).fine();
    place.run(&["check-proof", &proof, "--key", &key, "--checkpoint", &mixed]).fine();
    // Without the right one it is told what is wrong with the one that is the most like it.
    fs::write(&mixed, &others).unwrap();
    let run = place.run(&["check-proof", &proof, "--key", &key, "--checkpoint", &mixed]);
    assert!(run.code == 1 && run.out.contains("no signature is by a key that was given"), "{run:?}");
    for (args, code, said) in [
        (vec!["check-proof", &proof, "--key", &key, "--checkpoint", &key], 4, "it has no checkpoint"),
        (vec!["prove", "0"], 2, "0 is not in 1"),
        (vec!["prove", "18446744073709551615"], 2, "is not in 1"),
    ] {
        let run = place.run(&args);
        assert!(run.code == code && run.err.contains(said), "{args:?} {run:?}");
    }
}

#[test]
#[cfg(unix)]
fn doctor_tells_of_checkpoints() {
    let place = Place::new().signed();
    append(&place.store, &[503]);
    let said = place.run(&["doctor"]).fine();
    assert!(said.contains("the last checkpoint covers 14 events, signed with the key 003c8216; 1 event since"), "{said}");
    let (dir, elsewhere) = (place.store.join("checkpoints"), place.at("elsewhere"));
    fs::rename(&dir, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
    let run = place.run(&["doctor"]);
    assert!(run.code == 1 && run.out.contains("checkpoints is a symbolic link"), "{run:?}");
}
