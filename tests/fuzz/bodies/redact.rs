//! Redaction: JSON stays JSON of the same form, the second time changes nothing, and no text makes it panic.

use std::sync::LazyLock;

use counterfoil::{Redactor, Secrets};
use serde_json::value::RawValue;

static SECRETS: LazyLock<Secrets> = LazyLock::new(Secrets::new);

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if serde_json::from_str::<&RawValue>(&text).is_ok() {
        check(&text);
    }
    let mut json = text.into_owned();
    for _ in 0..3 {
        json = serde_json::to_string(&json).expect("a string is JSON");
        check(&json);
    }
}

fn check(json: &str) {
    let Some(redacted) = SECRETS.redact(json) else { return };
    serde_json::from_str::<&RawValue>(&redacted.json).expect("it is JSON still");
    assert_eq!(strings(&redacted.json), strings(json), "it has the same form");
    assert_eq!(SECRETS.redact(&redacted.json), None, "it is at peace with its own work");
    assert!(SECRETS.redact(json) == Some(redacted), "the second time is like the first");
}

/// How many strings JSON has.
fn strings(json: &str) -> usize {
    let (mut quotes, mut escaped) = (0, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quotes += 1,
            _ => {}
        }
    }
    quotes / 2
}
