//! Goal: keys can be made, let in, handed over and ended by the command alone, what it prints says what to do next, and
//! `append --sign` and `verify --root` go with them. Method: a life of three keys on a store, as a person would type it; key files
//! are those of fixed seeds, but for one that the command makes and one that openssl makes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "cli")]

mod cli_support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::{common, run};

/// The file of the key whose seed is all this number.
fn key_file(dir: &Path, seed: u8) -> PathBuf {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend([seed; 32]);
    let path = dir.join(format!("{seed}.pem"));
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(der));
    std::fs::write(&path, pem).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Without ids and hashes that differ from run to run.
fn portable(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "<dir>");
    let words = text.split(' ').map(|word| {
        let is_hash = word.trim_end().len() == 64 && word.trim_end().bytes().all(|b| b.is_ascii_hexdigit());
        if word.starts_with("evt_") {
            format!("<evt>{}", &word[30..])
        } else if is_hash {
            word.replace(word.trim_end(), "<hash>")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_life_of_keys() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, store) = (temp.path(), temp.path().join("store"));
    let keys: Vec<String> = [1, 2, 3].iter().map(|seed| key_file(dir, *seed).display().to_string()).collect();
    let (one, two, three) = (keys[0].as_str(), keys[1].as_str(), keys[2].as_str());
    run(&store, &["init"]).fine();
    let mut shown = String::new();
    let mut step = |args: &[&str]| {
        let done = run(&store, args);
        shown.push_str(&portable(&format!("$ counterfoil {}\n{}\n", args.join(" "), done.shown(&store)), dir));
    };
    step(&["keys", "list"]);
    step(&["keys", "add", two, "--key", one]);
    step(&["keys", "add", "--key", one, "--reason", "the root"]);
    step(&["append", "--sign", one, "\"signed\""]);
    step(&["append", "\"not signed\""]);
    step(&["keys", "add", two, "--key", one, "--reason", "the laptop"]);
    step(&["keys", "rotate", "--to", three, "--key", one, "--reason", "a year is over"]);
    step(&["keys", "add", one, "--key", one]);
    step(&["keys", "revoke", two, "--key", three, "--reason", "the laptop is lost"]);
    step(&["append", "--sign", two, "\"from the lost laptop\""]);
    step(&["keys", "list"]);
    step(&["verify"]);
    step(&["verify", "--root", one]);
    step(&["verify", "--root", one, "--require-signatures-from", "4"]);
    step(&["verify", "--root", one, "--require-signatures"]);
    step(&["keys", "retire", three, "--key", three]);
    step(&["verify", "--root", three]);
    step(&["verify", "--root", "nonsense"]);
    step(&["verify", "--require-signatures"]);
    step(&["--json", "keys", "list"]);
    common::snapshots(|| insta::assert_snapshot!("cli_keys", shown));
}

#[test]
fn generated_keys_are_kept_from_others_and_never_written_over() {
    let temp = tempfile::tempdir().unwrap();
    let (store, file) = (temp.path().join("store"), temp.path().join("a key.pem"));
    let path = file.to_str().unwrap();
    let told = run(&store, &["keys", "generate", path]).fine();
    assert!(!store.exists(), "making a key touches no store");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let private = std::fs::read_to_string(&file).unwrap();
    assert!(private.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{private}");
    assert!(told.contains("counterfoil --store"), "{told}");
    let again = run(&store, &["keys", "generate", path]);
    assert!(again.code == 4 && again.err.contains("is there already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), private);
    run(&store, &["init"]).fine();
    run(&store, &["keys", "add", "--key", path]).fine();
    run(&store, &["append", "--sign", path, "1"]).fine();
    let public = format!("{path}.pub");
    run(&store, &["verify", "--root", &public, "--require-signatures"]).fine();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = run(&store, &["append", "--sign", path, "2"]);
    assert!(refused.code == 4 && refused.err.contains("mode 640") && refused.err.contains("chmod 600"), "{refused:?}");
    for (content, why) in [("", "PEM"), ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "PEM"), (&private[..60], "PEM")]
    {
        let bad = temp.path().join("bad.pem");
        std::fs::write(&bad, content).unwrap();
        std::fs::set_permissions(&bad, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = run(&store, &["append", "--sign", bad.to_str().unwrap(), "2"]);
        assert!(refused.code == 4 && refused.err.contains(why) && refused.err.contains("keys generate"), "{refused:?}");
    }
}

#[test]
fn keys_of_openssl_sign() {
    let temp = tempfile::tempdir().unwrap();
    let (store, file) = (temp.path().join("store"), temp.path().join("openssl.pem"));
    let path = file.to_str().unwrap();
    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", path]).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        return common::skipped("keys of openssl", &format!("{made:?}"));
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    run(&store, &["init"]).fine();
    run(&store, &["keys", "add", "--key", path]).fine();
    let public = temp.path().join("openssl.pub");
    Command::new("openssl").args(["pkey", "-in", path, "-pubout", "-out"]).arg(&public).status().unwrap();
    run(&store, &["verify", "--root", public.to_str().unwrap(), "--require-signatures"]).fine();
    // And openssl reads what the command writes.
    let own = temp.path().join("own.pem");
    run(&store, &["keys", "generate", own.to_str().unwrap()]).fine();
    let read = Command::new("openssl").args(["pkey", "-noout", "-in"]).arg(&own).output().unwrap();
    assert!(read.status.success(), "{read:?}");
}
