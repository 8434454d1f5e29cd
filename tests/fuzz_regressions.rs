//! Goal: what the fuzz targets check holds for every kept input: the seeds that fuzzing begins from, and whatever it
//! found, which stays here for ever.
//!
//! Method: the targets' own bodies (tests/fuzz/bodies) are run over the files in tests/fuzz/seeds and
//! tests/fuzz/regressions, on stable and without libFuzzer. A panic is a finding; its file is named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

#[path = "fuzz/bodies/mod.rs"]
mod bodies;
mod common;

use std::fs;
use std::path::Path;

use bodies::history::history;
use common::*;

fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs = Vec::new();
    for kind in ["seeds", "regressions"] {
        let dir = Path::new("tests/fuzz").join(kind).join(target);
        inputs.extend(files(&dir).into_iter().map(|(name, bytes)| (dir.join(name).display().to_string(), bytes)));
    }
    inputs
}

fn holds(target: &str, run: fn(&[u8])) {
    holds_over(inputs(target), target, run);
}

fn holds_over(inputs: Vec<(String, Vec<u8>)>, target: &str, run: fn(&[u8])) {
    assert!(inputs.len() >= 5, "{target} has seeds");
    for (name, bytes) in inputs {
        if let Err(panic) = std::panic::catch_unwind(|| run(&bytes)) {
            eprintln!("the input is {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn lines() {
    holds("line", bodies::line::run);
}

#[test]
fn recovery() {
    holds_over(inputs("recovery").into_iter().chain(inputs("store")).collect(), "recovery", bodies::recovery::run);
}

/// The same scenarios, with SQLite: what was found by either target is tried by both.
#[test]
fn stores() {
    holds_over(inputs("recovery").into_iter().chain(inputs("store")).collect(), "store", bodies::recovery::run_store);
}

#[test]
fn import() {
    holds("import", bodies::import::run);
}

#[test]
fn redaction() {
    holds("redact", bodies::redact::run);
}

#[test]
fn manifests() {
    holds("manifest", bodies::manifest::run);
}

/// The seeds that are made from the project's own lines and transcripts. `COUNTERFOIL_FUZZ_SEEDS=write` writes them anew.
#[test]
fn seeds_are_what_the_project_writes() {
    let write = std::env::var("COUNTERFOIL_FUZZ_SEEDS").is_ok_and(|what| what == "write");
    for (target, name, bytes) in seeds() {
        let path = Path::new("tests/fuzz/seeds").join(target).join(&name);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{} is not what the project writes now", path.display());
    }
}

fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let history = history();
    let mut seeds = Vec::new();
    for (at, place) in history.lines.iter().enumerate() {
        seeds.push(("line", format!("history-{:02}", at + 1), place.line.clone()));
    }
    for name in ["00000000000000000001", "00000000000000000007", "00000000000000000010"] {
        let text = fs::read(format!("tests/vectors/store-v1/segments/{name}.jsonl")).unwrap();
        for (at, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            seeds.push(("line", format!("vector-{}-{at}", name.trim_start_matches('0')), line.to_vec()));
        }
    }
    // The bytes of a history as they are: mode, watermark, no other segment.
    let whole: Vec<u8> = history.lines.iter().take(5).flat_map(|place| [&place.line[..], b"\n"].concat()).collect();
    seeds.push(("recovery", "raw-whole".to_owned(), [&[3, 1, 0, 0], &whole[..]].concat()));
    seeds.push(("recovery", "raw-torn".to_owned(), [&[3, 3, 0, 0], &whole[..whole.len() - 100]].concat()));
    for (name, script) in SCRIPTS {
        seeds.push(("recovery", (*name).to_owned(), script.to_vec()));
    }
    for (name, which) in [("claude.jsonl", 7), ("codex.jsonl", 7), ("openhands.jsonl", 7), ("other.jsonl", 4), ("run.traj", 3)] {
        let text = fs::read(Path::new("tests/fixtures/transcripts").join(name)).unwrap();
        seeds.push(("import", name.replace('.', "-"), [&[which, u8::from(which == 3), 0], &text[..]].concat()));
        seeds.push(("import", format!("{}-strict", name.replace('.', "-")), [&[7, 5, 1], &text[..text.len() / 2]].concat()));
    }
    for (name, text) in ["{\"a\":1}\r\n\n \t{\"b\" :2} \n{\"b\" :2} ", "{\n\u{feff}{}\n{}{}\n\0\0\n[[[[\n7", "", "\n\n"].iter().enumerate()
    {
        seeds.push(("import", format!("lines-{name}"), [&[7, 0, 0], text.as_bytes()].concat()));
    }
    // No whole secret among them: what finds secrets in repositories would find it here.
    for (at, text) in [
        "Authorization: Bearer 0123abcd://user:pass@host/ \\n password=1;Server=a;pwd=b",
        "-----BEGIN RSA PRIVATE KEY-----\\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
        r#"{"eyJ":"eyJ.eyJ","k":["AKIA\u0041","[redacted:jwt]x","\\\\n","\ud800\/"]}"#,
        "\u{1b}[31mghp_ sk-ant- xoxb-1-a glpat- host=a user=b password=c machine a.b login c password d",
        "[\"a\",{\"x-api-key\":\"key-\",\"[redacted:\":\"sig=\"}]",
    ]
    .iter()
    .enumerate()
    {
        seeds.push(("redact", format!("text-{at}"), text.as_bytes().to_vec()));
    }
    let manifest = serde_json::to_string(&history.manifest).unwrap();
    for (at, text) in [
        format!("{manifest}\n"),
        manifest.replace("\"format_version\":1", "\"format_version\":2"),
        manifest.replace("\"hash\"", "\"more\":[[{}]],\"hash\""),
        manifest.replace("ldg_", "LDG_"),
        manifest.replace("blake3", "sha256"),
        manifest[..60].to_owned(),
        format!("[{manifest}]"),
    ]
    .into_iter()
    .enumerate()
    {
        seeds.push(("manifest", format!("manifest-{at}"), text.into_bytes()));
    }
    seeds
}

/// As tests/fuzz/bodies/scenario.rs reads them: mode; watermark's seq + 1, kind; lines left out; splices; damages.
const SCRIPTS: &[(&str, &[u8])] = &[
    ("whole", &[0, 1, 0, 0, 0, 0]),
    ("whole-without-mirror", &[0, 0, 0, 0, 0, 0]),
    ("whole-mirrored", &[0, 16, 0, 0, 0, 0]),
    ("shorter-than-the-mirror", &[0, 16, 0, 4, 0, 0]),
    ("cut", &[0, 1, 0, 3, 0, 1, 0, 0, 1, 44]),
    ("zeros", &[0, 8, 0, 3, 0, 1, 1, 0, 1, 44, 200]),
    ("fill", &[0, 8, 0, 3, 0, 2, 6, 0, 0, 250, 100, 7, 0, 0, 250, 100]),
    ("a-line-dropped", &[0, 1, 0, 0, 1, 0, 1, 0]),
    ("a-line-twice", &[0, 1, 0, 0, 1, 1, 1, 0]),
    ("lines-swapped", &[0, 1, 0, 0, 1, 2, 1, 14, 0]),
    ("a-fork", &[0, 1, 0, 7, 1, 3, 0, 0, 0]),
    ("another-batch", &[0, 1, 0, 0, 1, 6, 0, 3, 4, 3, 0]),
    ("another-group", &[0, 1, 0, 0, 1, 6, 1, 1, 2, 0]),
    ("another-position", &[0, 1, 0, 0, 1, 6, 1, 4, 9, 0]),
    ("erased", &[0, 1, 0, 0, 1, 6, 1, 7, 0, 0]),
    ("out-of-line", &[0, 1, 0, 0, 1, 6, 1, 8, 5, 0]),
    ("a-segment-missing", &[0, 1, 0, 0, 0, 1, 0xf0, 1]),
    ("an-empty-segment", &[0, 1, 0, 0, 0, 1, 0xf2, 0, 20]),
    ("another-history", &[0, 9, 236, 7, 0, 0, 0]),
    ("a-wrong-hint", &[0, 9, 250, 1, 0, 0, 0, 0]),
];
