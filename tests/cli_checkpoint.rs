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
