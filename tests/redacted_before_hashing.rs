//! Goal: a store with a redactor records the redacted payload as if it had been given so: hash, duplicates, conflicts and
//! batches go by it, and no file of the store ever holds the secret.
//!
//! Method: drafts with made-up secrets through the store and through the actors, compared with drafts that never had them; every
//! file is searched for the secret, and so is a store without a redactor, where it must be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use counterfoil::actors::Ledger;
use counterfoil::*;

fn secret() -> String {
    ["gh", "p_", "aK3bZ9cQ7dX1eW5fV8gU2hT6iS4jR0kPmNnL"].concat()
}

fn redacting() -> Options {
    let mut options = options();
    options.redactor = Some(Arc::new(Secrets::new()));
    options
}

fn draft(id: u128, text: &str) -> Draft {
    let id = EventId::from_u128(id);
    Draft::new(EventType::TOOL_RESULT, Source::tool("bash")).id(id).session("s-1").payload(&serde_json::json!({ "out": text })).unwrap()
}

/// Files below this folder that hold these bytes.
fn holders(dir: &Path, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, wanted));
        } else if memchr::memmem::find(&std::fs::read(&path).unwrap(), wanted.as_bytes()).is_some() {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_is_recorded_is_as_if_it_had_never_been_there() {
    let temp = tempfile::tempdir().unwrap();
    let (with, without) = (temp.path().join("with"), temp.path().join("without"));
    let texts = [format!("token {}", secret()), "nothing".to_owned(), format!("{0} {0}", secret())];
    let (mut store, _) = Store::open(&with, &redacting()).unwrap();
    let (mut other, _) = Store::open(&without, &options()).unwrap();
    for (n, text) in texts.iter().enumerate() {
        let (id, clean) = (n as u128 + 1, text.replace(&secret(), "[redacted:github-token]"));
        let receipt = store.append(draft(id, text)).unwrap();
        let expected = other.append(draft(id, &clean)).unwrap();
        assert_eq!(receipt.event_hash, expected.event_hash, "with a fixed clock and id, all of the line is the same");
        // The same again, with the secret or without it, is a duplicate; something else is a conflict.
        assert!(store.append(draft(id, text)).unwrap().duplicate);
        assert!(store.append(draft(id, &clean)).unwrap().duplicate);
        assert!(matches!(store.append(draft(id, "else")), Err(Error::Append(AppendError::Conflict { .. }))));
        // Another secret in its place can't be told from the first.
        assert!(store.append(draft(id, &text.replace("aK3b", "xY7z"))).unwrap().duplicate);
    }
    let batch = vec![draft(10, &secret()), draft(11, "plain"), draft(12, &secret())];
    let receipts = store.append_batch(batch.clone(), &Conditions::none()).unwrap();
    assert_eq!(receipts.len(), 3);
    assert!(store.append_batch(batch, &Conditions::none()).unwrap().iter().all(|receipt| receipt.duplicate));
    store.close().unwrap();
    other.close().unwrap();
    assert_eq!(holders(&with, &secret()[4..]), Vec::<String>::new());
    assert_eq!(holders(&with, "[redacted:github-token]").len(), 2, "line and row");
    assert!(open_is_clean(&with, &redacting()).recovery.torn.is_none());
    assert!(verify(&LedgerReader::open(&with, &redacting()).unwrap(), &mut |_| ()).unwrap().is_clean());
    // The search finds what is there.
    let (mut store, _) = Store::open(&without, &options()).unwrap();
    store.append(draft(20, &secret())).unwrap();
    store.close().unwrap();
    assert_eq!(holders(&without, &secret()[4..]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actors_redact_in_every_way_to_append() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let ledger = Ledger::open_with(&dir, redacting()).await.unwrap();
    ledger.append(draft(1, &secret())).await.unwrap();
    ledger.try_append(draft(2, &secret())).await.unwrap();
    ledger.append_batch(vec![draft(3, &secret()), draft(4, &secret())]).await.unwrap();
    let checked = ledger.check(draft(5, &secret())).unwrap();
    assert_eq!(checked.replaced(), [Replaced::new("github-token", 1)]);
    ledger.submit(vec![checked], Conditions::none(), actors::Durability::Mirrored).await.unwrap().await.unwrap();
    assert!(ledger.append(draft(1, &secret())).await.unwrap().duplicate);
    ledger.close().await.unwrap();
    assert_eq!(holders(&dir, &secret()[4..]), Vec::<String>::new());
    open_is_clean(&dir, &redacting());
}

#[test]
fn a_redactor_that_breaks_json_records_nothing() {
    struct Broken;
    impl Redactor for Broken {
        fn redact(&self, payload: &str) -> Option<Redacted> {
            payload.contains("secret").then(|| Redacted::new("{nope", Vec::new()))
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.redactor = Some(Arc::new(Broken));
    let (mut store, _) = Store::open(temp.path().join("store"), &options).unwrap();
    let refused = store.append(draft(1, "secret")).unwrap_err();
    assert!(refused.to_string().starts_with("the redactor made no JSON of the payload: "), "{refused}");
    assert_eq!(store.head().seq, Seq::ZERO);
    store.append(draft(1, "fine")).unwrap();
    store.close().unwrap();
}

#[test]
fn a_redactor_of_ones_own_is_asked_for_each_payload() {
    struct Names;
    impl Redactor for Names {
        fn redact(&self, payload: &str) -> Option<Redacted> {
            let count = payload.matches("Ada").count() as u64;
            (count > 0).then(|| Redacted::new(payload.replace("Ada", &mark("name")), vec![Replaced::new("name", count)]))
        }
    }
    let mut options = options();
    options.redactor = Some(Arc::new(Names));
    let checked = draft(1, "Ada and Ada").check(&options.limits()).unwrap();
    assert_eq!(checked.draft().payload_bytes(), r#"{"out":"[redacted:name] and [redacted:name]"}"#);
    assert_eq!(checked.replaced(), [Replaced::new("name", 2)]);
    // The bound holds for what is recorded.
    let mut short = options.clone();
    short.line_bytes_max = 2000;
    assert!(draft(1, &"Ada ".repeat(300)).check(&short.limits()).is_err());
}
