//! Private keys in PEM armour: from the first line to the last, or as far as there is key where the last line is missing.
//! Called by `secrets` for each view. Pure.
//!
//! A key comes as agents show it: with line numbers before its lines, as a diff, as strings of source code that are put
//! together, cut by `head`. So whatever stands between the lines of a key is taken along; but a mention without a key (source
//! code that looks for the first line) stays.

use std::sync::OnceLock;

use regex::bytes::Regex;

/// Bytes of a key that is looked for behind its first line. 64 KiB: RSA of 16,384 bits takes 13 KB, a PGP key with
/// many subkeys some more.
const KEY_BYTES_MAX: usize = 64 << 10;
/// Bytes between the first line and the key: armour headers (`DEK-Info: …`), line numbers.
const HEADERS_BYTES_MAX: usize = 256;
/// Bytes between two lines of a key: a line number, an arrow, quotes.
const BETWEEN_BYTES_MAX: usize = 48;
/// Base64 digits that make it a key. 32: half a line, all of an Ed25519 key's own bytes.
const RUN_BYTES_MIN: usize = 32;
/// Base64 digits of a further line; the last one is shorter than the others.
const NEXT_BYTES_MIN: usize = 8;

fn first_line() -> Option<&'static Regex> {
    static FIRST: OnceLock<Option<Regex>> = OnceLock::new();
    let first = || regex::bytes::RegexBuilder::new(r"-----BEGIN[ A-Z0-9]{0,40}PRIVATE KEY(?: BLOCK)?-----").unicode(false).build().ok();
    FIRST.get_or_init(first).as_ref()
}

fn last_line() -> Option<&'static Regex> {
    static LAST: OnceLock<Option<Regex>> = OnceLock::new();
    let last = || regex::bytes::RegexBuilder::new(r"-----END[ A-Z0-9]{0,40}PRIVATE KEY(?: BLOCK)?-----").unicode(false).build().ok();
    LAST.get_or_init(last).as_ref()
}

/// Where there are private keys.
pub(crate) fn find(text: &[u8]) -> Vec<(usize, usize)> {
    let (Some(first), Some(last)) = (first_line(), last_line()) else { return Vec::new() };
    let begins: Vec<_> = first.find_iter(text).map(|found| found.range()).collect();
    let mut keys = Vec::new();
    for (number, begin) in begins.iter().enumerate() {
        let next = begins.get(number + 1).map_or(text.len(), |next| next.start);
        let end = next.min(begin.end.saturating_add(KEY_BYTES_MAX));
        let body = text.get(begin.end..end).unwrap_or_default();
        let to = match last.find(body) {
            Some(found) => has_key(body.get(..found.start()).unwrap_or_default()).then_some(found.end()),
            None => open_end(body),
        };
        keys.extend(to.map(|to| (begin.start, begin.end + to)));
    }
    keys
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Runs of base64 digits, from and to.
fn runs(body: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let begin = from + body.get(from..)?.iter().position(|byte| is_digit(*byte))?;
        let len = body.get(begin..)?.iter().position(|byte| !is_digit(*byte)).unwrap_or(body.len() - begin);
        from = begin + len;
        Some((begin, from))
    })
}

/// Long, and with digits of several kinds, as words and names in source code are not.
fn is_key(run: &[u8]) -> bool {
    let has = |kind: fn(&u8) -> bool| run.iter().any(kind);
    run.len() >= RUN_BYTES_MIN && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(|byte| !byte.is_ascii_alphabetic())
}

fn has_key(body: &[u8]) -> bool {
    runs(body).any(|(from, to)| is_key(body.get(from..to).unwrap_or_default()))
}

/// How far the key goes where it has no last line.
fn open_end(body: &[u8]) -> Option<usize> {
    let mut end = None;
    for (from, to) in runs(body) {
        let run = body.get(from..to).unwrap_or_default();
        match end {
            None if from > HEADERS_BYTES_MAX => return None,
            None if is_key(run) => end = Some(to),
            None => {}
            Some(last) if from - last > BETWEEN_BYTES_MAX => break,
            Some(_) if run.len() >= NEXT_BYTES_MIN => end = Some(to),
            Some(_) => {}
        }
    }
    // The padding goes with it.
    end.map(|end| end + body.get(end..).unwrap_or_default().iter().take_while(|byte| **byte == b'=').count())
}
