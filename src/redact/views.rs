//! Text without its escapes, and the way back to where each part of it stands in the original. Called by `secrets`. Pure.
//!
//! A secret in a payload stands in a JSON string, often in JSON that is itself the text of a string, and so on: a private key
//! has `\n` or `\\\\n` where its lines end. Each level of escapes that is undone is a view; rules look at every one of them.

/// Levels of escapes that are undone. 8: transcripts that quote transcripts that quote tool results have five; with each level
/// the backslashes double, so that nobody writes the ninth.
const LEVELS_MAX: usize = 8;

/// A text with one more level of escapes undone than the one before it.
#[derive(Debug)]
struct Level {
    text: String,
    /// Places after an escape: here, and in the level before. Between two of them both run alike.
    places: Vec<(usize, usize)>,
}

/// A text and what it says at each level.
#[derive(Debug)]
pub(crate) struct Views<'a> {
    original: &'a str,
    levels: Vec<Level>,
}

impl<'a> Views<'a> {
    pub fn of(original: &'a str) -> Views<'a> {
        let mut levels = Vec::new();
        let mut next = undo(original);
        while let Some(level) = next {
            next = if levels.len() + 1 < LEVELS_MAX { undo(&level.text) } else { None };
            levels.push(level);
        }
        Views { original, levels }
    }

    /// How many there are, at least one.
    pub fn len(&self) -> usize {
        self.levels.len().max(1)
    }

    /// The text of a view. Where there are escapes, the original itself is none: what they say is.
    pub fn text(&self, view: usize) -> &str {
        self.levels.get(view).map_or(self.original, |level| &level.text)
    }

    /// Where this range of a view stands in the original. It never cuts an escape of any level.
    pub fn original(&self, view: usize, (from, to): (usize, usize)) -> (usize, usize) {
        let levels = self.levels.get(..=view).unwrap_or(&self.levels);
        levels.iter().rev().fold((from, to), |(from, to), level| (level.before(from), level.before(to)))
    }
}

impl Level {
    fn before(&self, at: usize) -> usize {
        let after = self.places.partition_point(|(here, _)| *here <= at);
        let (here, there) = after.checked_sub(1).and_then(|last| self.places.get(last)).copied().unwrap_or_default();
        there + (at - here)
    }
}

/// One level of escapes less; nothing where there are none. A backslash that begins no escape stays.
fn undo(text: &str) -> Option<Level> {
    let bytes = text.as_bytes();
    let mut level: Option<Level> = None;
    let mut copied = 0;
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let at = from + found;
        let Some((c, len)) = escape(bytes.get(at + 1..).unwrap_or_default()) else {
            from = at + 1;
            continue;
        };
        let level = level.get_or_insert_with(|| Level { text: String::with_capacity(text.len()), places: Vec::new() });
        level.text.push_str(text.get(copied..at).unwrap_or_default());
        level.text.push(c);
        copied = at + 1 + len;
        from = copied;
        level.places.push((level.text.len(), copied));
    }
    let mut level = level?;
    level.text.push_str(text.get(copied..).unwrap_or_default());
    Some(level)
}

/// What follows a backslash: the character it makes, and its bytes.
fn escape(rest: &[u8]) -> Option<(char, usize)> {
    let c = match rest.first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => {
            let hex = rest.get(1..5).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))?;
            let code = u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
            // Halves of surrogate pairs are in no secret that a rule knows.
            return Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 5));
        }
        _ => return None,
    };
    Some((c, 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn found(original: &str, wanted: &str) -> Vec<String> {
        let views = Views::of(original);
        let mut found = Vec::new();
        for view in 0..views.len() {
            if let Some(at) = views.text(view).find(wanted) {
                let (from, to) = views.original(view, (at, at + wanted.len()));
                found.push(original[from..to].to_owned());
            }
        }
        found.dedup();
        found
    }

    #[test]
    fn every_level_leads_back() {
        assert_eq!(found(r#"{"k":"abc"}"#, "abc"), ["abc"]);
        assert_eq!(found(r#""x\na\u002fbé\"y""#, "a/b"), [r"a\u002fb"]);
        assert_eq!(found(r#""{\"k\":\"a\\nb\\\\\"}""#, "a\nb"), [r"a\\nb"]);
        assert_eq!(found(r#""\\\\\\\\n""#, "\n"), [r"\\\\\\\\n"]);
        assert_eq!(found(r#""\ud83d\ude00k\d""#, "k\\d"), ["k\\d"]);
        assert_eq!(found(r#""C:\\temp""#, "C:\\t"), [r"C:\\t"]);
    }

    #[test]
    fn levels_are_bounded() {
        let deep = "\\".repeat(1 << 12) + "n";
        assert_eq!(Views::of(&deep).len(), LEVELS_MAX);
        assert_eq!(Views::of("plain").len(), 1);
    }
}
