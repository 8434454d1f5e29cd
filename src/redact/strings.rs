//! Puts marks into JSON: whatever a rule found, only what lies inside strings is replaced, so that the result is JSON of the
//! same form. Called by `secrets`. Pure.

use std::collections::BTreeMap;

use super::{MARK, MARK_BYTES_MAX, is_mark, mark};

/// A part of the original that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub from: usize,
    pub to: usize,
    /// Number of the rule; of two that found the same, the lower one counts.
    pub rule: usize,
}

/// Sorts spans and makes one of those that overlap; it has the rule of the longest one.
pub(crate) fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.from, std::cmp::Reverse(span.to), span.rule));
    let mut merged: Vec<(Span, usize)> = Vec::new();
    for span in spans {
        let len = span.to - span.from;
        match merged.last_mut() {
            Some((last, longest)) if span.from < last.to => {
                last.to = last.to.max(span.to);
                if len > *longest {
                    (last.rule, *longest) = (span.rule, len);
                }
            }
            _ => merged.push((span, len)),
        }
    }
    merged.into_iter().map(|(span, _)| span).collect()
}

/// The JSON with marks where the spans lie inside its strings, and how many of each rule; nothing where no byte changes.
/// The spans are sorted, don't overlap, and cut no escape.
pub(crate) fn replace<'r>(
    json: &str,
    spans: &[Span],
    rule_id: impl Fn(usize) -> &'r str,
    counts: &mut BTreeMap<usize, u64>,
) -> Option<String> {
    let (mut out, mut copied) = (String::new(), 0);
    let mut spans = spans.iter().copied().peekable();
    let mut strings = Strings { json: json.as_bytes(), at: 0 };
    let mut string = strings.next();
    while let (Some(span), Some((begin, end))) = (spans.peek().copied(), string) {
        let (from, to) = (span.from.max(begin), span.to.min(end));
        let (from, to) = (mark_across(json, from).map_or(from, |(begins, _)| begins), mark_across(json, to).map_or(to, |(_, ends)| ends));
        if copied <= from
            && from < to
            && let Some(part) = json.get(from..to)
            && !is_mark(part)
        {
            out.push_str(json.get(copied..from).unwrap_or_default());
            out.push_str(&mark(rule_id(span.rule)));
            copied = to;
            *counts.entry(span.rule).or_default() += 1;
        }
        if span.to <= end {
            spans.next();
        } else {
            string = strings.next();
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(json.get(copied..).unwrap_or_default());
    Some(out)
}

/// The mark that stands on both sides of this place: marks are never cut.
fn mark_across(json: &str, at: usize) -> Option<(usize, usize)> {
    let before = at.saturating_sub(MARK_BYTES_MAX);
    let begins = before + memchr::memmem::rfind(json.as_bytes().get(before..at + MARK.len().min(json.len() - at))?, MARK.as_bytes())?;
    let ends = begins + memchr::memchr(b']', json.as_bytes().get(begins..)?)? + 1;
    (begins < at && at < ends && is_mark(json.get(begins..ends)?)).then_some((begins, ends))
}

/// The insides of the strings of JSON, in order.
struct Strings<'a> {
    json: &'a [u8],
    at: usize,
}

impl Iterator for Strings<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let begin = self.at + memchr::memchr(b'"', self.json.get(self.at..)?)? + 1;
        let mut at = begin;
        loop {
            let found = at + memchr::memchr2(b'"', b'\\', self.json.get(at..)?)?;
            if self.json.get(found) == Some(&b'"') {
                self.at = found + 1;
                return Some((begin, found));
            }
            at = found + 2;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn only_strings_change() {
        let json = r#"{"abc":["de\"f","gh",12]}"#;
        let span = |from, to| Span { from, to, rule: 0 };
        let mut counts = BTreeMap::new();
        let all = replace(json, &[span(0, json.len())], |_| "r", &mut counts).unwrap();
        assert_eq!(all, r#"{"[redacted:r]":["[redacted:r]","[redacted:r]",12]}"#);
        assert_eq!(counts, BTreeMap::from([(0, 3)]));
        assert_eq!(replace(&all, &[span(0, all.len())], |_| "r", &mut counts), None, "marks stay");
        let cut = r#""ab[redacted:x]cd""#;
        for (from, to) in [(1, 4), (2, 12), (2, 14)] {
            let wanted = format!("\"{}[redacted:r]cd\"", &cut[1..from]);
            assert_eq!(replace(cut, &[span(from, to)], |_| "r", &mut counts).unwrap(), wanted, "marks are not cut");
        }
        assert_eq!(replace(cut, &[span(4, 16)], |_| "r", &mut counts).unwrap(), "\"ab[redacted:r]d\"");
        assert_eq!(replace(cut, &[span(4, 12)], |_| "r", &mut counts), None);
        assert_eq!(replace(json, &[span(0, 2), span(6, 8), span(20, 23)], |_| "r", &mut counts), None, "nothing of a string");
    }

    #[test]
    fn the_longest_of_overlapping_spans_names_the_rule() {
        let span = |from, to, rule| Span { from, to, rule };
        assert_eq!(merge(vec![span(5, 9, 1), span(2, 6, 0), span(9, 10, 3)]), [span(2, 9, 0), span(9, 10, 3)]);
        assert_eq!(merge(vec![span(1, 4, 2), span(1, 4, 1), span(1, 8, 7)]), [span(1, 8, 7)]);
    }
}
