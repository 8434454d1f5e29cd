//! Goal: whatever JSON comes, redaction gives JSON of the same form, leaves every byte outside its marks, is at peace with its
//! own work, and never panics.
//!
//! Method: proptest over JSON whose strings are put together from pieces of secrets, fixed texts of rules, marks, escapes of
//! several levels and any characters. The seed is fixed; COUNTERFOIL_REDACT_ROUNDS says how many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use common::campaign;
use counterfoil::{Redactor, Secrets, mark};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::value::RawValue;

fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]))
}

/// Pieces that rules look at, whole secrets among them, and what stands between.
fn piece() -> impl Strategy<Value = String> {
    let fixed = [
        "AKIA",
        "QYLPMN5HFIQR7BBB",
        "ghp_",
        "aK3bZ9cQ7dX1eW5fV8gU2hT6iS4jR0kPmNnL",
        "eyJ",
        ".eyJ",
        "abcdefghijklmnop0123",
        "://",
        "user:",
        "@host",
        "/",
        "Authorization: ",
        "Bearer ",
        "password=",
        ";Server=a;",
        "host=b ",
        "host=b password='",
        "Server=a;Password=\"",
        "PGPASSWORD=",
        "%20",
        "=3D",
        "$(",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END RSA PRIVATE KEY-----",
        "MIIEowIBAAKCAQEAw0aK3bZ9cQ7dX1eW5fV8gU2hT6iS4jR0kPmNnLoMpHqGrFs",
        "\n",
        "\\n",
        "\"",
        "'",
        "\\",
        " ",
        ":",
        "=",
        ".",
        "-",
        "_",
        "[redacted:jwt]",
        "[redacted:",
        "]",
        "\u{1b}[31m",
        "x",
        "9",
        "sk-",
        "é",
        "→",
        "😀",
        "\u{0}",
        "\u{7f}",
        "$",
        "{",
    ];
    prop_oneof![8 => prop::sample::select(fixed.map(str::to_owned).to_vec()), 1 => any::<char>().prop_map(String::from), 1 => "[A-Za-z0-9+/]{1,70}"]
}

/// A string as JSON, perhaps JSON of JSON, perhaps with needless escapes.
fn string() -> impl Strategy<Value = String> {
    (prop::collection::vec(piece(), 0..14), 0..4u8, any::<bool>(), any::<bool>()).prop_map(|(pieces, levels, slashes, letters)| {
        let mut text = pieces.concat();
        for _ in 0..levels {
            text = serde_json::to_string(&text).unwrap();
        }
        let json = serde_json::to_string(&text).unwrap();
        let json = if slashes { json.replace('/', "\\/") } else { json };
        if letters { json.replace("A", "\\u0041").replace("é", "\\u00e9").replace("😀", "\\ud83d\\ude00") } else { json }
    })
}

fn json() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof![1 => Just("null".to_owned()), 1 => Just("-1.0e400".to_owned()), 1 => Just("\"\\ud800\"".to_owned()), 5 => string()];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((string(), inner), 0..4).prop_map(|items| {
                let items: Vec<String> = items.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", items.join(","))
            }),
        ]
    })
}

/// JSON without what its strings hold.
fn form(json: &str) -> String {
    let (mut form, mut in_string, mut escaped) = (String::new(), false, false);
    for c in json.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => {
                in_string = !in_string;
                form.push(c);
            }
            _ if in_string => {}
            _ => form.push(c),
        }
    }
    form
}

/// What stands between the marks.
fn between_marks(mut json: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some((at, id)) = Secrets::rule_ids().filter_map(|id| Some((json.find(&mark(id))?, id))).min() {
        parts.push(&json[..at]);
        json = &json[at + mark(id).len()..];
    }
    parts.push(json);
    parts
}

#[test]
fn only_marks_come_in() {
    let secrets = Secrets::new();
    let hits = std::cell::Cell::new(0u32);
    let cases = campaign("COUNTERFOIL_REDACT_ROUNDS", 1500) as u32;
    runner(cases)
        .run(&json(), |json| {
            serde_json::from_str::<&RawValue>(&json).unwrap();
            let Some(redacted) = secrets.redact(&json) else { return Ok(()) };
            hits.set(hits.get() + 1);
            prop_assert!(serde_json::from_str::<&RawValue>(&redacted.json).is_ok(), "{}", redacted.json);
            prop_assert_eq!(form(&redacted.json), form(&json));
            prop_assert_eq!(secrets.redact(&redacted.json), None, "{}", redacted.json);
            let marks: u64 = redacted.replaced.iter().map(|replaced| replaced.count).sum();
            prop_assert!(marks > 0 && redacted.json.len() <= json.len() + marks as usize * 64);
            // All that is not a mark was there, in this order.
            let parts = between_marks(&redacted.json);
            let (first, last) = (parts[0], parts[parts.len() - 1]);
            prop_assert!(json.starts_with(first) && json.ends_with(last), "{} of {}", redacted.json, json);
            let mut rest = &json[first.len()..];
            for part in &parts[1..] {
                let at = rest.find(part);
                prop_assert!(at.is_some(), "{} of {}", redacted.json, json);
                rest = &rest[at.unwrap() + part.len()..];
            }
            prop_assert!(secrets.redact(&json) == Some(redacted), "the second time is like the first");
            Ok(())
        })
        .unwrap();
    assert!(hits.get() > cases / 10, "{} of {cases} had a secret in them", hits.get());
}

/// A secret on its own, in any company, at any depth, is gone.
#[test]
fn a_secret_among_words_never_stays() {
    let secrets = Secrets::new();
    let token = ["gh", "p_", "aK3bZ9cQ7dX1eW5fV8gU2hT6iS4jR0kPmNnL"].concat();
    let word = prop_oneof![
        Just("\n".to_owned()),
        Just("\\n".to_owned()),
        Just("\"".to_owned()),
        Just("C:\\new".to_owned()),
        Just(" http://a/b ".to_owned()),
        any::<char>().prop_map(String::from)
    ];
    runner(600)
        .run(&(prop::collection::vec(word.clone(), 0..6), prop::collection::vec(word, 0..6), 1..5usize), |(before, after, levels)| {
            let mut json = format!("{} {token} {}", before.concat(), after.concat());
            for _ in 0..levels {
                json = serde_json::to_string(&json).unwrap();
            }
            let redacted = secrets.redact(&json);
            prop_assert!(redacted.is_some_and(|redacted| !redacted.json.contains(&token[8..])), "{}", json);
            Ok(())
        })
        .unwrap();
}
