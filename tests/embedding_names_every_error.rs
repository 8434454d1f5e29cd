//! Goal: whoever embeds a store finds each error in the embedding guide, with what to do; and nothing there is of an error that is no
//! more. Each test that the guide names is there.
//!
//! Method: the variants of the enums are read from the source, and compared with the tables of the guide, and with its `match`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::path::Path;

const GUIDE: &str = include_str!("../src/embedding.md");
const ENUMS: [(&str, &str); 4] = [
    ("AppendError", include_str!("../src/ledger/error.rs")),
    ("LedgerError", include_str!("../src/ledger/error.rs")),
    ("Error", include_str!("../src/error.rs")),
    ("EntityError<E>", include_str!("../actors/entity/error.rs")),
];

/// Names of the variants of an enum.
fn variants<'s>(name: &str, source: &'s str) -> BTreeSet<&'s str> {
    let (_, behind) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = behind.split_once("\n}\n").unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap()).collect()
}

/// What stands in backticks in this text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The first column of the table below the heading that names the enum.
fn rows(name: &str) -> BTreeSet<&'static str> {
    let (_, behind) = GUIDE.split_once(&format!("### [`{}`]", name.trim_end_matches("<E>"))).unwrap();
    let table = behind.lines().skip_while(|line| !line.starts_with('|')).skip(2).take_while(|line| line.starts_with('|'));
    table.flat_map(|row| quoted(row.split('|').nth(1).unwrap())).collect()
}

#[test]
fn and_says_what_to_do() {
    for (name, source) in ENUMS {
        let (variants, rows) = (variants(name, source), rows(name));
        assert!(variants.len() > 8, "{name}: {variants:?}");
        assert_eq!(rows, variants, "{name}: the guide on the left, the code on the right");
    }
    let row = |name: &str| GUIDE.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).map(|row| row.matches('|').count());
    assert_eq!(row("OutcomeUnknown"), Some(4), "what it means, and what to do");
}

#[test]
fn and_the_match_goes_through_them() {
    for variant in variants("AppendError", ENUMS[0].1) {
        assert!(GUIDE.contains(&format!("E::{variant}")), "E::{variant} is in no arm");
    }
}

#[test]
fn the_tests_that_it_names_are_there() {
    let named: BTreeSet<&str> = GUIDE
        .split('(')
        .skip(1)
        .filter_map(|behind| Some(behind.split_once(')')?.0))
        .filter(|inside| inside.starts_with('`'))
        .flat_map(quoted)
        .filter(|word| word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !word.starts_with("is_"))
        .filter(|word| !["lock_wait", "close_deadline", "passivate_after"].contains(word))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for test in named {
        assert!(Path::new("tests").join(format!("{test}.rs")).exists(), "there is no test `{test}`");
    }
}
