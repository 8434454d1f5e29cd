//! Goal: an import with a redactor never lets a secret reach the disk, not even as a hash that confirms a guess; lines without
//! secrets come back byte for byte, and the export says which others do not; importing again, either way, adds no line.
//!
//! Method: transcripts with made-up secrets in lines, bad lines and first lines, through ledgers and the command; every file of
//! the store is searched; ids of a line are compared over two secrets in its place.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;
mod import_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cli_support::run;
use counterfoil::import::{Settings, TAG_REDACTED, TranscriptReader, export_originals};
use counterfoil::{Replaced, Secrets};
use import_support::*;
use serde_json::Value;

fn token(fill: &str) -> String {
    ["gh", "p_", &fill.repeat(36)[..36]].concat()
}

fn redacting() -> Settings {
    Settings { redactor: Some(Arc::new(Secrets::new())), skip_bad: true, ..Settings::default() }
}

fn keeping() -> Settings {
    Settings { keep_secrets: true, ..redacting() }
}

/// A transcript: a plain line, one with a secret, blanks, odd white space, a bad line with a secret, a plain bad one.
fn transcript(secret: &str) -> Vec<u8> {
    let url = format!("postgres://app:{secret}@db/x");
    format!(
        "{{\"n\":1,\"timestamp\":\"2026-03-04T07:00:00Z\"}}\r\n {{\"out\": \"{secret} and\\t{url}\"}} \n\n{{\"n\":2}}\n{{\"cut\":\"{secret}\n{{nope}}\n{{\"n\":\r3,\"k\":\"{secret}\"}}\n{{\"n\":4}}"
    )
    .into_bytes()
}

fn redacted(transcript: &[u8], secret: &str) -> Vec<u8> {
    let text = String::from_utf8(transcript.to_vec()).unwrap();
    // In the URL it stands as a password, but the token says more of it.
    text.replace(secret, "[redacted:github-token]").into_bytes()
}

fn holders(dir: &Path, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, wanted));
        } else if memchr::memmem::find(&fs::read(&path).unwrap(), wanted.as_bytes()).is_some() {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_comes_back_is_the_file_without_its_secrets() {
    let secret = token("aB3");
    let file = transcript(&secret);
    let all = drafts_of("log.jsonl", &file, &redacting()).unwrap();
    let mut ledger = TestLedger::new();
    ledger.append_all(&all);
    let out = tempfile::tempdir().unwrap();
    let exported = &export_originals(&ledger.reader(), out.path()).unwrap()[0];
    assert!(fs::read(&exported.path).unwrap() == redacted(&file, &secret));
    assert_eq!((exported.exact, exported.exact_but_for_redactions), (false, true));
    assert_eq!((exported.redacted, exported.redacted_lines.as_slice()), (3, [2, 5, 7].as_slice()));
    assert_eq!(note(&all).redacted, 3);
    let tagged: Vec<bool> = lines(&all).iter().map(|draft| has_tag(draft, TAG_REDACTED)).collect();
    assert_eq!(tagged, [false, true, false, true, false]);
    assert_eq!(holders(ledger.dir.path(), &secret[4..]), Vec::<String>::new());
    // Without secrets all is as it is without a redactor, ids and note too.
    let plain = redacted(&file, &secret);
    let with = drafts_of("log.jsonl", &plain, &redacting()).unwrap();
    assert_eq!(keys(&with), keys(&drafts_of("log.jsonl", &plain, &skipping()).unwrap()));
    for name in ["claude.jsonl", "codex.jsonl", "openhands.jsonl", "other.jsonl", "run.traj"] {
        assert_eq!(keys(&drafts(&fixture(name), &redacting()).unwrap()), keys(&drafts(&fixture(name), &skipping()).unwrap()), "{name}");
    }
}

#[test]
fn nothing_that_is_recorded_depends_on_the_secret() {
    let (one, other) = (token("aB3"), token("x9Q"));
    // A secret in the first line too, which is what a JSONL file is known by; and in a trajectory's first step.
    let first_line = |secret: &str| [format!("{{\"key\":\"{secret}\"}}\n").into_bytes(), transcript(secret)].concat();
    let payloads = |file: Vec<u8>| {
        let all = drafts_of("log.jsonl", &file, &redacting()).unwrap();
        (keys(&all), all.iter().map(|draft| draft.payload_bytes().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(payloads(first_line(&one)), payloads(first_line(&other)));
    let trajectory =
        |secret: &str| format!("{{\"trajectory\":[{{\"action\":\"{secret}\"}},\n{{\"action\":\n\"x\"}}],\"info\":{{}}}}").into_bytes();
    let steps = |secret: &str| keys(&drafts_of("run.traj", &trajectory(secret), &redacting()).unwrap());
    assert_eq!((steps(&one).len(), steps(&one)), (2, steps(&other)));
    // Lines that only the secret told apart stay two events.
    let twice = format!("{{\"k\":\"{one}\"}}\n{{\"k\":\"{other}\"}}\n");
    let both = drafts_of("log.jsonl", twice.as_bytes(), &redacting()).unwrap();
    assert_eq!((both.len(), both[0].payload_bytes()), (3, both[1].payload_bytes()));
    assert_ne!(both[0].given_id(), both[1].given_id());
    let mut ledger = TestLedger::new();
    assert_eq!((ledger.append_all(&both), ledger.append_all(&both)), (3, 0));
}

#[test]
fn a_bad_line_that_is_no_text_is_lost_rather_than_kept_with_its_secret() {
    let secret = token("aB3");
    let file = [format!("{{\"n\":1}}\n{{\"k\":\"{secret}\"").as_bytes(), b"\xff}\n{\"n\":2}\n"].concat();
    let all = drafts_of("log.jsonl", &file, &redacting()).unwrap();
    assert!(!note(&all).complete && all.iter().all(|draft| !draft.payload_bytes().contains(&secret[4..])));
    let encoded = |drafts: &[counterfoil::Draft]| drafts.last().unwrap().payload_bytes().contains("base64");
    assert!(!encoded(&all) && encoded(&drafts_of("log.jsonl", &file, &keeping()).unwrap()));
}

#[test]
fn the_reader_says_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.jsonl");
    fs::write(&path, transcript(&token("aB3"))).unwrap();
    for settings in [redacting(), keeping()] {
        let mut reader = TranscriptReader::open(&path, &settings).unwrap();
        let mut found = Vec::new();
        while reader.next().unwrap().is_some() {
            found.push(reader.replaced().to_vec());
        }
        let github = |count| vec![Replaced::new("github-token", count)];
        assert_eq!(found, [vec![], github(2), vec![], github(1), vec![], github(1), vec![], vec![]]);
    }
}

#[test]
fn kept_secrets_come_back_exactly_and_have_the_same_ids() {
    let file = transcript(&token("aB3"));
    let (kept, gone) = (drafts_of("log.jsonl", &file, &keeping()).unwrap(), drafts_of("log.jsonl", &file, &redacting()).unwrap());
    let ids = |drafts: &[counterfoil::Draft]| lines(drafts).iter().map(|draft| draft.given_id()).collect::<Vec<_>>();
    assert_eq!(ids(&kept), ids(&gone));
    assert!(rebuilt(&kept).1 && rebuilt(&kept).0 == file);
    assert_eq!(note(&kept).redacted, 0);
}

/// `import`, then the other way round, then both again; what the store and the export have afterwards.
#[test]
fn import_either_way_and_then_the_other() {
    let temp = tempfile::tempdir().unwrap();
    let secret = token("aB3");
    let path = temp.path().canonicalize().unwrap().join("log.jsonl");
    fs::write(&path, transcript(&secret)).unwrap();
    let file = path.to_str().unwrap();
    let import = |store: &Path, args: &[&str]| run(store, &[&["import", file, "--skip-bad"], args].concat());
    let count = |store: &Path| -> u64 {
        let rows = run(store, &["query", "--json", "SELECT count(*) AS n FROM events WHERE domain_tags NOT LIKE '%import-layout%'"]).fine();
        serde_json::from_str::<Value>(&rows).unwrap()[0]["n"].as_u64().unwrap()
    };
    let export = |store: &Path, to: &str| {
        let out = temp.path().join(to);
        let shown = run(store, &["export", "--original", out.to_str().unwrap()]).fine();
        (
            shown
                .replace(&temp.path().canonicalize().unwrap().display().to_string(), "<temp>")
                .replace(&temp.path().display().to_string(), "<temp>"),
            fs::read(out.join("log.jsonl")).unwrap(),
        )
    };
    let shown = |run: &cli_support::Run, store: &Path| run.shown(store).replace(file, "<file>");

    // Redacted first: the import says so, adds nothing twice, and an import that keeps secrets brings none in.
    let store = temp.path().join("gone");
    let first = import(&store, &[]);
    snapshot!("cli_import_redacted", shown(&first, &store));
    assert_eq!(holders(&store, &secret[4..]), Vec::<String>::new());
    let before = count(&store);
    let again = import(&store, &["--json"]).fine();
    let total: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!((&total["total"]["appended"], &total["total"]["notes"], &total["total"]["redacted"]), (&0.into(), &0.into(), &0.into()));
    let (exported, bytes) = export(&store, "gone-1");
    snapshot!("cli_export_redacted", exported);
    assert!(bytes == redacted(&transcript(&secret), &secret));
    let kept = import(&store, &["--keep-secrets"]);
    snapshot!("cli_import_redacted_then_kept", shown(&kept, &store));
    // Only a note on the layout comes in. (It has the bad line as it is, as was asked for; lines that are on record stay.)
    assert_eq!(count(&store), before);
    assert!(export(&store, "gone-2").1 == bytes, "the lines are as they were");

    // Kept first: an import that redacts leaves them.
    let store = temp.path().join("kept");
    import(&store, &["--keep-secrets"]).fine();
    assert!(
        export(&store, "kept-1")
            == (
                "<temp>/kept-1/log.jsonl  8 lines, BYTES, exact\n".replace("BYTES", &format!("{} bytes", transcript(&secret).len())),
                transcript(&secret)
            )
    );
    let gone = import(&store, &[]);
    snapshot!("cli_import_kept_then_redacted", shown(&gone, &store));
    let (exported, bytes) = export(&store, "kept-2");
    assert!(exported.ends_with(", exact\n") && bytes == transcript(&secret), "{exported}");
    assert!(common_parity(&store));
}

fn common_parity(store: &Path) -> bool {
    cli_support::common::parity(store).is_consistent()
}

#[test]
fn the_report_counts_by_rule() {
    let temp = tempfile::tempdir().unwrap();
    let (store, path) = (temp.path().join("store"), temp.path().join("log.jsonl"));
    fs::write(&path, transcript(&token("aB3"))).unwrap();
    let report = run(&store, &["import", path.to_str().unwrap(), "--skip-bad", "--json"]).fine();
    let rows: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["redacted"], &rows[0]["replaced"]), (&3.into(), &serde_json::json!({"github-token": 4})));
    assert_eq!(rows[1]["total"]["replaced"], rows[0]["replaced"]);
    let files = run(&store, &["export", "--json", "--original", temp.path().join("out").to_str().unwrap()]).fine();
    let files: Value = serde_json::from_str(&files).unwrap();
    assert_eq!((&files[0]["redacted_lines"], &files[0]["exact"]), (&serde_json::json!([2, 5, 7]), &false.into()));
}

#[test]
fn append_redacts_when_asked_to() {
    let temp = tempfile::tempdir().unwrap();
    let (store, payload) = (temp.path().join("store"), format!("{{\"k\":\"{}\"}}", token("aB3")));
    run(&store, &["append", "--redact", &payload]).fine();
    run(&store, &["append", "--redact", "--atomic", &payload, "1"]).fine();
    assert_eq!(holders(&store, &token("aB3")), Vec::<String>::new());
    run(&store, &["append", &payload]).fine();
    assert_eq!(holders(&store, &token("aB3")).len(), 2);
}

/// Formats that name their transcript: neither the tag, nor the note, nor a header has a secret that stands in the name.
#[test]
fn names_of_transcripts_have_no_secret() {
    let (one, other) = (token("aB3"), token("x9Q"));
    type File = fn(&str) -> String;
    let files: [(&str, File); 5] = [
        ("claude-code", |name| {
            format!(
                "{{\"type\":\"user\",\"sessionId\":\"{name}\",\"uuid\":\"u\",\"message\":{{\"content\":\"hi\"}}}}\n{{\"type\":\"summary\",\"leafUuid\":\"u\"}}\n"
            )
        }),
        ("codex", |name| {
            format!("{{\"type\":\"session_meta\",\"payload\":{{\"id\":\"{name}\"}}}}\n{{\"type\":\"event_msg\",\"payload\":{{}}}}\n")
        }),
        ("openhands", |name| {
            format!(
                "{{\"kind\":\"MessageEvent\",\"id\":\"{name}\",\"source\":\"user\"}}\n{{\"kind\":\"OtherEvent\",\"id\":\"2\",\"source\":\"agent\"}}\n"
            )
        }),
        ("jsonl", |name| format!("{{\"name\":\"{name}\"}}\n{{\"n\":1}}\n")),
        ("swe-agent", |name| {
            format!(
                "{{\"trajectory\":[{{\"action\":\"ls\"}}],\"info\":{{}},\"replay_config\":{{\"agent\":{{\"model\":{{\"name\":\"{name}\"}}}}}}}}"
            )
        }),
    ];
    for (format, file) in files {
        // In the name of the file too.
        let read = |secret: &str| {
            let settings = Settings { format: Some(format.parse().unwrap()), ..redacting() };
            drafts_of(&format!("log {secret}.jsonl"), file(secret).as_bytes(), &settings).unwrap()
        };
        let all = read(&one);
        assert!(!all.is_empty() && !format!("{all:?}").contains(&one[4..]), "{format}: {all:?}");
        assert!(format!("{all:?}").contains("[redacted:github-token]"), "{format}");
        assert_eq!(keys(&all), keys(&read(&other)), "{format}");
    }
}

/// Lines that are bad in every way, with a short secret and with a long one.
#[test]
fn what_is_told_of_bad_lines_does_not_depend_on_the_secrets_length() {
    let url = |password: &str| format!("postgres://app:{password}@db");
    let files: [fn(&str) -> Vec<u8>; 6] = [
        |url| format!("{{\"n\":1}}\n{{\"k\":\"{url}").into_bytes(),
        |url| format!("{{\"n\":1}}\n{{\"k\":\"{url}\"}} {{}}\n").into_bytes(),
        |url| format!("{{\"n\":1}}\n{{\"k\":\"{url}\" nope}}\n").into_bytes(),
        |url| format!("{{\"n\":1}}\n{{\"k\":\"{url}\0\0\"}}\n").into_bytes(),
        |url| [format!("{{\"n\":1}}\n{{\"k\":\"{url} ").as_bytes(), b"\xff\"}\n"].concat(),
        |url| format!("{{\"n\":1}}\n{{\"k\":\"{url}\",\"l\":\"{}\"}}\n", "long ".repeat(40)).into_bytes(),
    ];
    let settings = Settings { line_bytes_max: 120, ..redacting() };
    for file in files {
        let told = |password: &str| {
            let all = drafts_of("log.jsonl", &file(&url(password)), &settings).unwrap();
            let payloads: Vec<_> = all.iter().map(|draft| draft.payload_bytes().to_owned()).collect();
            assert!(payloads[1].contains("import_skipped"), "{payloads:?}");
            // Of a line that is too long only so many bytes are read and hashed, and the secret's are among them.
            let is_cut = payloads[1].contains("at most 120 are read");
            let told = if is_cut { payloads[1].split("blake3").next().unwrap() } else { &payloads[1] };
            (told.to_owned(), all[1].given_id().filter(|_| !is_cut))
        };
        assert_eq!(told("S3cr!t"), told("a-l0nger-S3cr!t"));
    }
}
