//! The built-in redactor: well-known shapes of secrets. Called by whoever has put it into the options, through the trait.
//!
//! One pass over the payload looks for the fixed texts that the rules want; a payload without any costs that and no more.
//! Expressions are compiled when they are first wanted, and run in time linear in the payload's length.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use regex::bytes::{Regex, RegexBuilder};

use super::rules::{Ask, RULES, Rule, Shape};
use super::strings::{Span, merge, replace};
use super::views::Views;
use super::{Redacted, Redactor, Replaced, pem};

/// Rounds until nothing more is found. 4: a mark can end a word, and so begin the next one, but hardly twice in a row.
const ROUNDS_MAX: usize = 4;

/// Escapes of what needs none: fixed texts may be hidden in them.
const NEEDLESS: [&str; 7] = ["\\/", "\\u002", "\\u003", "\\u004", "\\u005", "\\u006", "\\u007"];

/// The one scheme of an authorization header that has digits as a token has.
const SCHEME: &[u8] = b"AWS4-HMAC-SHA256";

/// Before a token stands the end of a word, or that of a terminal's colour, or a character as URLs (`%3D`), mail (`=3D`) and
/// source code (`\x3d`) write it.
const BEFORE: &str = r"(?:\b|\x1b\[[0-9;]{0,16}[mK]|%(?:25)*[0-9A-Fa-f]{2}|=[0-9A-F]{2}|\\x[0-9A-Fa-f]{2})";

/// Bytes of the longest base64 that is looked into for a name and a password. 1 KiB: longer ones have a digit anyway.
const CREDENTIALS_BYTES_MAX: usize = 1 << 10;

/// Replaces private keys, the tokens of well-known services, JWTs, authorization headers, and the passwords in connection
/// strings and URLs, by `[redacted:<rule>]`.
///
/// In strings of the payload only, keys among them, at any depth of JSON in JSON; all other bytes stay. The result is JSON of
/// the same form. What it knows and what it can't: see [`Redactor`].
///
/// ```
/// use counterfoil::{Redactor, Secrets};
/// let secrets = Secrets::new();
/// let key = ["AKIA", "QYLPMN5HFIQR7BBB"].concat();
/// let redacted = secrets.redact(&format!(r#"{{"out":"id {key}\n","n":1.0}}"#)).ok_or("nothing found")?;
/// assert_eq!(redacted.json, r#"{"out":"id [redacted:aws-access-token]\n","n":1.0}"#);
/// assert_eq!((redacted.replaced[0].rule.as_ref(), redacted.replaced[0].count), ("aws-access-token", 1));
/// assert_eq!(secrets.redact(&redacted.json), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Secrets {
    /// The fixed texts; then those of needless escapes.
    texts: Option<AhoCorasick>,
    /// The rule that wants each of them.
    rule_of: Vec<usize>,
    expressions: Vec<OnceLock<Option<Regex>>>,
}

impl Secrets {
    /// With all rules.
    pub fn new() -> Secrets {
        let wanted = RULES.iter().enumerate().flat_map(|(number, rule)| rule.keywords.iter().map(move |text| (*text, number)));
        let (texts, rule_of): (Vec<_>, Vec<_>) = wanted.unzip();
        let texts = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(texts.into_iter().chain(NEEDLESS));
        Secrets { texts: texts.ok(), rule_of, expressions: RULES.iter().map(|_| OnceLock::new()).collect() }
    }

    /// The ids of the rules, in their order.
    pub fn rule_ids() -> impl Iterator<Item = &'static str> {
        RULES.iter().map(|rule| rule.id)
    }

    /// The rules whose fixed texts are there, and whether needless escapes are.
    fn wanted(&self, text: &str) -> (Vec<bool>, bool) {
        let (mut wanted, mut is_hidden) = (Vec::new(), false);
        let Some(texts) = &self.texts else { return (vec![true; RULES.len()], true) };
        for found in texts.find_overlapping_iter(text) {
            match self.rule_of.get(found.pattern().as_usize()) {
                Some(rule) => {
                    if wanted.is_empty() {
                        wanted.resize(RULES.len(), false);
                    }
                    if let Some(wanted) = wanted.get_mut(*rule) {
                        *wanted = true;
                    }
                }
                None => is_hidden = true,
            }
        }
        (wanted, is_hidden)
    }

    fn spans(&self, json: &str) -> Vec<Span> {
        let (mut wanted, is_hidden) = self.wanted(json);
        if wanted.is_empty() && !is_hidden {
            return Vec::new();
        }
        let views = Views::of(json);
        let mut spans = Vec::new();
        for view in 0..views.len() {
            let text = views.text(view);
            if is_hidden {
                (wanted, _) = self.wanted(text);
            }
            for (rule, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
                for found in self.find(rule, text) {
                    let (from, to) = views.original(view, whole_characters(text, found));
                    spans.push(Span { from, to, rule });
                }
            }
        }
        merge(spans)
    }

    /// What a rule finds in a text.
    fn find(&self, number: usize, text: &str) -> Vec<(usize, usize)> {
        let (Some(rule), Some(expression)) = (RULES.get(number), self.expressions.get(number)) else { return Vec::new() };
        if matches!(rule.shape, Shape::Pem) {
            return pem::find(text.as_bytes());
        }
        let Some(expression) = expression.get_or_init(|| compile(rule)) else { return Vec::new() };
        let groups = expression.captures_iter(text.as_bytes()).filter_map(|groups| groups.iter().skip(1).flatten().next());
        groups.filter(|secret| passes(rule.ask, secret.as_bytes())).map(|secret| (secret.start(), secret.end())).collect()
    }
}

/// The expression of a rule.
fn compile(rule: &Rule) -> Option<Regex> {
    let expression = match rule.shape {
        Shape::Token(expression) => format!("{BEFORE}({expression})"),
        Shape::Within(expression) => expression.to_owned(),
        Shape::Pem => return None,
    };
    RegexBuilder::new(&expression).unicode(false).build().ok()
}

fn passes(ask: Ask, secret: &[u8]) -> bool {
    match ask {
        Ask::Nothing => true,
        Ask::NoExample => !secret.ends_with(b"EXAMPLE") && !secret.ends_with(b"EXAMPLEKEY"),
        Ask::Mixed => {
            let has = |kind: fn(&u8) -> bool| secret.iter().any(kind);
            let is_mixed =
                has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) && !is_placeholder(secret) && !secret.starts_with(SCHEME);
            is_mixed || is_credentials(secret)
        }
        Ask::Literal => !is_placeholder(secret),
    }
}

/// Whether this is base64 of `name:password`.
fn is_credentials(secret: &[u8]) -> bool {
    let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = || GeneralPurpose::new(&STANDARD, padding).decode(secret).ok();
    let decoded = if secret.len() <= CREDENTIALS_BYTES_MAX { decoded().and_then(|text| String::from_utf8(text).ok()) } else { None };
    decoded.is_some_and(|text| text.contains(':') && !text.contains(char::is_control))
}

/// Whether a text stands for a secret that is not there.
fn is_placeholder(text: &[u8]) -> bool {
    let is_one = |byte: u8| text.iter().all(|b| *b == byte);
    let begins = match text.first() {
        Some(b'{' | b'<' | b'`') => true,
        // A `%` that is followed by hex digits is an escape of a URL.
        Some(b'%') => !text.get(1..3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        Some(b'(') => text.ends_with(b")"),
        Some(b'$') => is_reference(text),
        _ => false,
    };
    begins || is_one(b'x') || is_one(b'X') || !text.iter().any(u8::is_ascii_alphanumeric)
}

/// Whether all of a text is `$NAME`, `${…}` or `$(…)`, several of them, or cut in one, with punctuation between and behind them.
fn is_reference(mut text: &[u8]) -> bool {
    loop {
        text = without(text, b".,:;-_)]}");
        let Some(rest) = text.strip_prefix(b"$") else { return text.is_empty() };
        let close = match rest.first() {
            Some(b'{') => b'}',
            Some(b'(') => b')',
            _ => {
                let name = without(rest, b"$");
                let len = name.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':')).count();
                let is_name = |first: &u8| !first.is_ascii_digit() || name.iter().take(len).all(u8::is_ascii_digit);
                match name.first().filter(|_| len > 0) {
                    Some(first) if is_name(first) => text = name.get(len..).unwrap_or_default(),
                    _ => return false,
                }
                continue;
            }
        };
        let Some(end) = memchr::memchr(close, rest) else { return true };
        text = rest.get(end + 1..).unwrap_or_default();
    }
}

/// A text without these bytes at its beginning.
fn without<'a>(text: &'a [u8], bytes: &[u8]) -> &'a [u8] {
    let len = text.iter().take_while(|byte| bytes.contains(byte)).count();
    text.get(len..).unwrap_or_default()
}

/// Expressions look at bytes; a range that they give must not cut a character.
fn whole_characters(text: &str, (mut from, mut to): (usize, usize)) -> (usize, usize) {
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    while !text.is_char_boundary(to) {
        to += 1;
    }
    (from, to)
}

impl Redactor for Secrets {
    fn redact(&self, payload: &str) -> Option<Redacted> {
        let (mut json, mut counts) = (None::<String>, BTreeMap::new());
        for _ in 0..ROUNDS_MAX {
            let now = json.as_deref().unwrap_or(payload);
            let spans = self.spans(now);
            let id = |rule: usize| RULES.get(rule).map_or("secret", |rule| rule.id);
            match replace(now, &spans, id, &mut counts) {
                Some(next) => json = Some(next),
                None => break,
            }
        }
        let replaced = counts.into_iter().filter_map(|(rule, count)| Some(Replaced::new(RULES.get(rule)?.id, count))).collect();
        json.map(|json| Redacted::new(json, replaced))
    }
}

impl Default for Secrets {
    fn default() -> Secrets {
        Secrets::new()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("rules", &RULES.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_well_formed() {
        let mut ids = std::collections::HashSet::new();
        for rule in RULES {
            assert!(ids.insert(rule.id), "{} is there twice", rule.id);
            assert!(crate::redact::is_mark(&crate::redact::mark(rule.id)), "{}", rule.id);
            assert!(!rule.keywords.is_empty() && rule.keywords.iter().all(|text| *text == text.to_ascii_lowercase()), "{}", rule.id);
            if !matches!(rule.shape, Shape::Pem) {
                let groups = compile(rule).map(|expression| expression.captures_len()).unwrap_or_default();
                assert!(groups >= 2, "{} compiles and has a group", rule.id);
            }
            assert_eq!(Secrets::new().redact(&format!("\"{}\"", crate::redact::mark(rule.id))), None);
        }
        assert!(Secrets::new().texts.is_some());
    }
}
