//! Texts of the kit: JSON in one order, and what two lists of lines differ in.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// A line of an event (its type, its payload) with the payload's keys in order at every depth. Numbers stay as they are written.
pub(super) fn canonical(line: &str) -> String {
    // No type has one of these.
    let start = line.find(['{', '[']).unwrap_or(line.len());
    let (before, json) = line.split_at_checked(start).unwrap_or((line, ""));
    format!("{before}{}", ordered(json, false))
}

/// A state's JSON with its keys in order, and the items of its lists as well: a `HashSet` is written in another order by each
/// instance, which is no difference.
pub(super) fn canonical_state(json: &str) -> String {
    ordered(json, true)
}

fn ordered(json: &str, lists_too: bool) -> String {
    if let Ok(map) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
        let quoted = |key: &String| serde_json::to_string(key).unwrap_or_default();
        let fields = map.iter().map(|(key, value)| format!("{}:{}", quoted(key), ordered(value.get(), lists_too)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    } else if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) {
        let mut items: Vec<String> = items.iter().map(|value| ordered(value.get(), lists_too)).collect();
        if lists_too {
            items.sort_unstable();
        }
        format!("[{}]", items.join(","))
    } else {
        json.to_owned()
    }
}

/// Both texts in one, line by line: what they begin and end with alike as it is, in between `-` before lines of the first and `+`
/// before lines of the second.
pub(super) fn differing(first: &str, second: &str) -> String {
    let (first, second): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let alike = first.iter().zip(&second).take_while(|(one, other)| one == other).count();
    let shorter = first.len().min(second.len());
    let alike_at_end = first.iter().rev().zip(second.iter().rev()).take(shorter - alike).take_while(|(one, other)| one == other).count();
    let middle = |lines: &[&str], sign: char| -> Vec<String> {
        let lines = lines.get(alike..lines.len() - alike_at_end).unwrap_or_default();
        lines.iter().map(|line| format!("  {sign} {line}")).collect()
    };
    let plain = |lines: &[&str]| -> Vec<String> { lines.iter().map(|line| format!("    {line}")).collect() };
    let begin = plain(first.get(..alike).unwrap_or_default());
    let end = plain(first.get(first.len() - alike_at_end..).unwrap_or_default());
    [begin, middle(&first, '-'), middle(&second, '+'), end].concat().join("\n")
}

pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_and_numbers_stay() {
        let json = r#"a.v1 {"b":[{"y":1.0,"x":340282366920938463463374607431768211455}],"a":"{\"z\":1}"}"#;
        assert_eq!(canonical(json), r#"a.v1 {"a":"{\"z\":1}","b":[{"x":340282366920938463463374607431768211455,"y":1.0}]}"#);
        for same in ["a.v1 null", "a.v1 \"x\"", "[]", "{}", "7", "a.v1 [3,2]"] {
            assert_eq!(canonical(same), same);
        }
        assert_eq!(canonical_state(r#"{"b":[3,[2,1]],"a":1.0}"#), r#"{"a":1.0,"b":[3,[1,2]]}"#);
    }

    #[test]
    fn differences_are_shown_in_place() {
        assert_eq!(differing("a\nb\nc\nd", "a\nx\nd"), "    a\n  - b\n  - c\n  + x\n    d");
        assert_eq!(differing("", "a"), "  + a");
        assert_eq!(differing("a\na", "a"), "    a\n  - a");
    }
}
