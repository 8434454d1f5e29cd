//! Private keys in PEM armour: from the first line to the last, or as far as there is key where the last line is missing.
//! Called by `secrets` for each view. Pure.
//!
//! A key comes as agents show it: with line numbers before its lines, as a diff, as strings of source code that are put
//! together, cut by `head`. So the little that stands between two lines of a key is taken along; but a mention without a key
//! (source code that looks for the first line) stays, and so does all that stands between two strings of JSON, the names of
//! fields above all: a key that is spread over several strings is replaced in each of them, and nothing else is.

use std::sync::OnceLock;

use regex::bytes::Regex;

/// Bytes of a key that is looked for behind its first line. 64 KiB: RSA of 16,384 bits takes 13 KB, a PGP key with
/// many subkeys some more.
const KEY_BYTES_MAX: usize = 64 << 10;
/// Bytes between the first line and the key: armour headers (`DEK-Info: …`), line numbers.
const HEADERS_BYTES_MAX: usize = 256;
/// Bytes between two lines of a key: a line number, an arrow, quotes.
const BETWEEN_BYTES_MAX: usize = 48;
/// Base64 digits of a line that begins in another string than the line before it. 100: armour has 64 or 76, while signatures
/// and pictures in a string of their own have more.
const LINE_BYTES_MAX: usize = 100;
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

/// Where there are private keys: each in one part, or, where it lies in several strings of JSON, in a part for each.
pub(crate) fn find(text: &[u8]) -> Vec<(usize, usize)> {
    let (Some(first), Some(last)) = (first_line(), last_line()) else { return Vec::new() };
    let begins: Vec<_> = first.find_iter(text).map(|found| found.range()).collect();
    let mut parts = Vec::new();
    for (number, begin) in begins.iter().enumerate() {
        let next = begins.get(number + 1).map_or(text.len(), |next| next.start);
        let limit = next.min(begin.end.saturating_add(KEY_BYTES_MAX));
        let rest = text.get(begin.end..limit).unwrap_or_default();
        let end = last.find(rest).map(|end| (begin.end + end.start(), begin.end + end.end()));
        parts.extend(Key::new(text, (begin.start, begin.end), end, limit).parts());
    }
    parts
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The next run of base64 digits, from and to.
fn run(text: &[u8], from: usize, limit: usize) -> Option<(usize, usize)> {
    let begin = from + text.get(from..limit)?.iter().position(|byte| is_digit(*byte))?;
    let len = text.get(begin..limit)?.iter().position(|byte| !is_digit(*byte)).unwrap_or(limit - begin);
    // The letter of an escape is none of them.
    let escape = begin.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'\\');
    Some((begin + usize::from(escape), begin + len))
}

/// Has digits of several kinds, as words, names in source code and paths have not.
fn is_mixed(run: &[u8]) -> bool {
    let has = |kind: fn(&u8) -> bool| run.iter().any(kind);
    has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(|byte| byte.is_ascii_digit() || *byte == b'+')
}

/// A key, as far as its lines were found.
#[derive(Debug)]
struct Key<'a> {
    text: &'a [u8],
    /// Where its last line stands.
    end: Option<(usize, usize)>,
    /// Where to stop looking for lines.
    limit: usize,
    parts: Vec<(usize, usize)>,
    /// Short lines in strings of their own, which are of the key only where its last line is near.
    unsure: Vec<(usize, usize)>,
    /// Whether a line was found.
    has_lines: bool,
    /// Where the line before ends.
    at: usize,
    /// Whether a string has ended since.
    is_cut: bool,
}

impl<'a> Key<'a> {
    fn new(text: &'a [u8], first: (usize, usize), end: Option<(usize, usize)>, limit: usize) -> Key<'a> {
        let limit = end.map_or(limit, |(from, _)| from);
        Key { text, end, limit, parts: vec![first], unsure: Vec::new(), has_lines: false, at: first.1, is_cut: false }
    }

    fn parts(mut self) -> Vec<(usize, usize)> {
        let mut from = self.at;
        while let Some((begin, end)) = run(self.text, from, self.limit) {
            self.go_on(from, begin);
            from = end;
            if !self.line(begin, end) {
                break;
            }
        }
        if !self.has_lines {
            return Vec::new();
        }
        if let Some((begin, end)) = self.end.filter(|(begin, _)| begin.saturating_sub(self.at) <= BETWEEN_BYTES_MAX) {
            self.go_on(from, begin);
            let joins = self.joins();
            self.parts.append(&mut self.unsure);
            self.take((begin, end), joins);
        }
        self.parts
    }

    /// Takes this run where it is a line of the key. Answers whether there may be more.
    fn line(&mut self, from: usize, to: usize) -> bool {
        let (run, gap) = (self.text.get(from..to).unwrap_or_default(), from.saturating_sub(self.at));
        let is_near = gap <= if self.has_lines { BETWEEN_BYTES_MAX } else { HEADERS_BYTES_MAX };
        if !is_near && self.end.is_none() {
            return false;
        }
        let is_key = run.len() >= RUN_BYTES_MIN && is_mixed(run);
        let (line, may_be_one) = ((from, self.padded(to)), run.len() <= LINE_BYTES_MAX && is_mixed(run));
        if is_near && self.joins() {
            if is_key || self.has_lines && run.len() >= NEXT_BYTES_MIN {
                self.take(line, true);
            }
        } else if !self.has_lines {
            if is_key
                && may_be_one
                && self.is_cut
                && !self.is_name(to)
                && let Some(begun) = self.begun()
            {
                self.take((self.at, self.at + begun), true);
                self.take(line, false);
            }
        } else if may_be_one && !(self.is_cut && self.is_name(to)) {
            if is_key {
                self.unsure.clear();
                self.take(line, false);
            } else if is_near && run.len() >= NEXT_BYTES_MIN {
                self.unsure.push(line);
                (self.at, self.is_cut) = (line.1, false);
            }
        }
        true
    }

    /// Whether what comes next stands in the same string as the line before.
    fn joins(&self) -> bool {
        !self.is_cut && self.parts.last().is_some_and(|(_, to)| *to == self.at)
    }

    fn take(&mut self, line: (usize, usize), joins: bool) {
        match self.parts.last_mut() {
            Some(last) if joins => last.1 = line.1,
            _ => self.parts.push(line),
        }
        (self.has_lines, self.at, self.is_cut) = (true, line.1, false);
    }

    fn go_on(&mut self, from: usize, to: usize) {
        self.is_cut |= self.text.get(from.max(self.at)..to).is_some_and(|passed| passed.contains(&b'"'));
    }

    /// The padding goes with a line.
    fn padded(&self, to: usize) -> usize {
        to + self.text.get(to..self.limit).unwrap_or_default().iter().take_while(|byte| **byte == b'=').count()
    }

    /// Whether the string that goes on here is the name of a field.
    fn is_name(&self, at: usize) -> bool {
        let rest = self.text.get(at..).unwrap_or_default().iter().take(HEADERS_BYTES_MAX);
        let after = rest.skip_while(|byte| **byte != b'"').skip(1).take(BETWEEN_BYTES_MAX);
        after.copied().find(|byte| !byte.is_ascii_whitespace()) == Some(b':')
    }

    /// Bytes of a key that was cut behind its first line, or soon after it; nothing where that line is only mentioned.
    fn begun(&self) -> Option<usize> {
        let rest = self.text.get(self.at..self.text.len().min(self.at + HEADERS_BYTES_MAX))?;
        let string = rest.get(..memchr::memchr(b'"', rest)?)?;
        let is_line_end = |byte: &&u8| byte.is_ascii_whitespace() || matches!(byte, b'\\' | b'n' | b'r');
        let begin = string.iter().take_while(is_line_end).count();
        let len = string.get(begin..)?.iter().take_while(|byte| is_digit(**byte)).count();
        let is_all = string.get(begin + len..)?.iter().all(|byte| *byte == b'\\');
        let is_next_line = string.iter().take(begin).any(|byte| matches!(byte, b'\n' | b'\r' | b'\\'));
        match len {
            0 if is_all => Some(0),
            len if is_all && len < RUN_BYTES_MIN && is_next_line => Some(begin + len),
            _ => None,
        }
    }
}
