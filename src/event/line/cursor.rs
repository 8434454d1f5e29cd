//! A cursor over a line: the values that a header can have.

use std::borrow::Cow;

use super::super::ids::parse_hex32;
use super::super::{EventId, Timestamp, payload};
use super::{LineError, LineProblem};

pub(super) struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

pub(super) type Parsed<T> = Result<T, LineError>;

impl<'a> Cursor<'a> {
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn error<T>(&self, problem: LineProblem) -> Parsed<T> {
        Err(LineError { offset: self.at, problem })
    }

    pub(super) fn skip(&mut self, literal: &str) -> bool {
        let found = self.rest().as_bytes().starts_with(literal.as_bytes());
        if found {
            self.at += literal.len();
        }
        found
    }

    pub(super) fn expect(&mut self, literal: &'static str) -> Parsed<()> {
        if self.skip(literal) { Ok(()) } else { self.error(LineProblem::Expected(literal)) }
    }

    /// The next `count` bytes, which must not cut a character.
    pub(super) fn take(&mut self, count: usize, key: &'static str) -> Parsed<&'a str> {
        match self.rest().get(..count) {
            Some(text) => {
                self.at += count;
                Ok(text)
            }
            None => self.error(LineProblem::Value(key)),
        }
    }

    pub(super) fn number(&mut self, key: &'static str, min: u64, max: u64) -> Parsed<u64> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        let canonical = !text.is_empty() && (text == "0" || !text.starts_with('0'));
        match text.parse::<u64>() {
            Ok(number) if canonical && (min..=max).contains(&number) => {
                self.at += digits;
                Ok(number)
            }
            _ => self.error(LineProblem::Value(key)),
        }
    }

    pub(super) fn parse<T>(&mut self, bytes: usize, key: &'static str, parse: impl FnOnce(&'a str) -> Option<T>) -> Parsed<T> {
        let from = self.at;
        let text = self.take(bytes, key)?;
        parse(text).ok_or(LineError { offset: from, problem: LineProblem::Value(key) })
    }

    pub(super) fn hash(&mut self, key: &'static str) -> Parsed<[u8; 32]> {
        self.parse(64, key, |text| parse_hex32(text.as_bytes()))
    }

    pub(super) fn event_id(&mut self, key: &'static str) -> Parsed<EventId> {
        self.parse(EventId::TEXT_BYTES, key, |text| text.parse().ok())
    }

    pub(super) fn timestamp(&mut self, key: &'static str) -> Parsed<Timestamp> {
        self.parse(Timestamp::TEXT_BYTES, key, |text| Timestamp::parse_exact(text.as_bytes()))
    }

    /// A header string with canonical escapes, decoded.
    pub(super) fn string(&mut self, key: &'static str) -> Parsed<Cow<'a, str>> {
        if !self.skip("\"") {
            return self.error(LineProblem::Value(key));
        }
        let mut decoded: Option<String> = None;
        loop {
            let plain = self.rest().bytes().take_while(|b| *b >= 0x20 && *b != b'"' && *b != b'\\').count();
            let text = self.take(plain, key)?;
            if let Some(decoded) = &mut decoded {
                decoded.push_str(text);
            }
            if self.skip("\"") {
                return Ok(decoded.map_or(Cow::Borrowed(text), Cow::Owned));
            }
            let escaped = self.escape(key)?;
            decoded.get_or_insert_with(|| text.to_owned()).push(escaped);
        }
    }

    pub(super) fn escape(&mut self, key: &'static str) -> Parsed<char> {
        let from = self.at;
        let found = match self.rest().as_bytes() {
            [b'\\', b'u', b'0', b'0', high, low, ..] => {
                let digit = |d: &u8| (d.is_ascii_digit() || (b'a'..=b'f').contains(d)).then(|| (*d as char).to_digit(16)).flatten();
                digit(high).zip(digit(low)).and_then(|(high, low)| {
                    let code = (high << 4 | low) as u8;
                    (code < 0x20 && ![0x08, b'\t', b'\n', 0x0c, b'\r'].contains(&code)).then_some((code as char, 6))
                })
            }
            [b'\\', short, ..] => match short {
                b'"' | b'\\' => Some((*short as char, 2)),
                b'b' => Some(('\u{8}', 2)),
                b't' => Some(('\t', 2)),
                b'n' => Some(('\n', 2)),
                b'f' => Some(('\u{c}', 2)),
                b'r' => Some(('\r', 2)),
                _ => None,
            },
            _ => None,
        };
        match found {
            Some((c, bytes)) => {
                self.at = from + bytes;
                Ok(c)
            }
            None => self.error(LineProblem::Value(key)),
        }
    }

    /// What stands behind `opening`, where that stands here.
    pub(super) fn optional<T>(&mut self, opening: &str, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        if self.skip(opening) { parse(self).map(Some) } else { Ok(None) }
    }

    /// What `parse` consumes, as raw text.
    pub(super) fn raw(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<()>) -> Parsed<&'a str> {
        let from = self.at;
        parse(self)?;
        Ok(self.text.get(from..self.at).unwrap_or_default())
    }

    /// `[item,item,…]` with 1 to `max` items.
    pub(super) fn array(&mut self, key: &'static str, max: usize, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect("[")?;
        for _ in 0..max {
            item(self)?;
            if self.skip("]") {
                return Ok(());
            }
            self.expect(",")?;
        }
        self.error(LineProblem::Value(key))
    }

    pub(super) fn bounded_string(&mut self, key: &'static str, bytes_max: usize) -> Parsed<Cow<'a, str>> {
        let from = self.at;
        let text = self.string(key)?;
        if (1..=bytes_max).contains(&text.len()) { Ok(text) } else { Err(LineError { offset: from, problem: LineProblem::Value(key) }) }
    }

    pub(super) fn source(&mut self) -> Parsed<()> {
        const KEY: &str = "source";
        self.expect("{\"type\":\"")?;
        for (literal, named) in [
            ("user\"", None),
            ("runtime\"", None),
            ("external_outcome\"", None),
            ("manual_correction\"", None),
            ("child_agent\"", Some(",\"model\":")),
            ("tool\"", Some(",\"name\":")),
        ] {
            if self.skip(literal) {
                if let Some(name) = named {
                    self.expect(name)?;
                    self.string(KEY)?;
                }
                return self.expect("}");
            }
        }
        self.error(LineProblem::Value(KEY))
    }

    pub(super) fn attachment(&mut self) -> Parsed<()> {
        self.expect("{\"hash\":\"")?;
        self.hash("attachments")?;
        self.expect("\",\"bytes\":")?;
        self.number("attachments", 0, u64::MAX)?;
        self.expect(",\"media_type\":")?;
        self.string("attachments")?;
        self.expect("}")
    }

    pub(super) fn policy(&mut self) -> Parsed<()> {
        const KEY: &str = "policy";
        self.expect("{\"outcome\":\"")?;
        if !self.skip("warn\"") && !self.skip("break_glass\"") {
            return self.error(LineProblem::Value(KEY));
        }
        self.expect(",\"rules\":")?;
        if !self.skip("[]") {
            self.array(KEY, 1024, |cursor| {
                cursor.expect("{\"id\":")?;
                cursor.string(KEY)?;
                cursor.expect(",\"outcome\":\"")?;
                if !["allow\"", "warn\"", "break_glass\"", "quarantine\"", "reject\""].iter().any(|word| cursor.skip(word)) {
                    return cursor.error(LineProblem::Value(KEY));
                }
                cursor.expect(",\"reason\":")?;
                cursor.string(KEY)?;
                cursor.expect("}")
            })?;
        }
        if self.skip(",\"authorisation\":") {
            self.object_without_space(KEY)?;
        }
        self.expect("}")
    }

    /// Any JSON object that is written without white space between tokens and can't be taken for the hash mark.
    pub(super) fn object_without_space(&mut self, key: &'static str) -> Parsed<()> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<&serde_json::value::RawValue>();
        match values.next() {
            Some(Ok(value))
                if value.get().starts_with('{')
                    && !value.get().contains(",\"event_hash\":\"")
                    && payload::minify(value.get()) == value.get() =>
            {
                self.at += value.get().len();
                Ok(())
            }
            _ => self.error(LineProblem::Value(key)),
        }
    }
}
