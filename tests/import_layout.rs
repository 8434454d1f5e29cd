//! Goal: payloads and the layout note make the file again, byte for byte.
//! Method: each odd form of line and line end by itself, then random sequences of them (proptest).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod import_support;

use counterfoil::import::Settings;
use import_support::*;
use proptest::prelude::*;

fn exact(file: &[u8]) -> Vec<counterfoil::Draft> {
    let drafts = drafts_of("s.jsonl", file, &skipping()).unwrap();
    let (bytes, is_exact) = rebuilt(&drafts);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(file));
    assert!(bytes == file && is_exact && note(&drafts).complete);
    assert_eq!(note(&drafts).bytes, file.len() as u64);
    drafts
}

#[test]
fn odd_forms_come_back() {
    let files: [&[u8]; 16] = [
        b"{\"a\":1}\n{\"a\":2}\n",
        b"{\"a\":1}\r\n{\"a\":2}\r\n",
        b"{\"a\":1}\n{\"a\":2}",
        b"{\"a\":1}\r\n{\"a\":2}\r",
        b"{\"a\":1}\n\n\n  \t\n{\"a\":2}\n\n",
        b"\n\r\n \r\n{\"a\":1}\r\n\n",
        b"{\"a\":1}\n{\"a\":2}\r\n{\"a\":3}\n{\"a\":4}\r\r\n",
        b"  {\"a\":1}\n\t{\"a\":2} \t \n \r {\"a\":3}\r\n",
        b"{\"a\":\r1}\n{\"a\" : 1}\n{\r}\r\n",
        "{\"a\":\"\u{2028}\u{2029}\u{85}\"}\n".as_bytes(),
        b"{\"a\":\"\\ud800\",\"\\udfff\":1}\n",
        b"{\"a\":1.0,\"a\":1E400}\n",
        b"\n",
        b" ",
        b"{}",
        b"\r",
    ];
    for file in files {
        exact(file);
    }
}

#[test]
fn payloads_are_the_lines_bytes() {
    let drafts = exact("{ \"a\":\"\u{2028}\\ud800\" , \"a\":1.0 }\n".as_bytes());
    assert_eq!(drafts[0].payload_bytes(), "{ \"a\":\"\u{2028}\\ud800\" , \"a\":1.0 }");
}

#[test]
fn equal_lines_make_one_run() {
    let drafts = exact("{\"a\":1}\n".repeat(1000).as_bytes());
    assert_eq!(note(&drafts).layout.len(), 1);
    assert_eq!((note(&drafts).lines, note(&drafts).layout[0].n), (1000, 1000));
    let json = drafts.last().unwrap().payload_bytes().to_owned();
    assert!(json.ends_with(r#""complete":true,"layout":[{"n":1000,"end":"\n"}]}}"#), "{json}");
}

#[test]
fn an_empty_file_has_nothing_to_record() {
    assert!(drafts_of("s.jsonl", b"", &Settings::default()).unwrap().is_empty());
}

#[test]
fn an_unchanged_layout_is_the_same_note() {
    let file = b"{\"a\":1}\r\n\n{\"a\":2}";
    let (one, two) = (exact(file), exact(file));
    assert_eq!(key(one.last().unwrap()), key(two.last().unwrap()));
    let other = exact(b"{\"a\":1}\n\n{\"a\":2}");
    assert_ne!(one.last().unwrap().given_id(), other.last().unwrap().given_id());
}

#[test]
fn a_layout_past_its_bound_is_cut_and_says_so() {
    let settings = Settings { line_bytes_max: 16 << 10, ..Settings::default() };
    let file = "{\"a\":1}\n{\"a\":2}\r\n".repeat(2000);
    let drafts = drafts_of("s.jsonl", file.as_bytes(), &settings).unwrap();
    assert!(!note(&drafts).complete && drafts.last().unwrap().payload_bytes().len() < 16 << 10);
    let (bytes, is_exact) = rebuilt(&drafts);
    assert!(!is_exact);
    assert_eq!(String::from_utf8(bytes).unwrap().replace('\r', ""), file.replace('\r', ""), "no record is missing");
}

#[test]
fn no_run_follows_one_that_was_left_out() {
    // The second line's white space is past the bound, the third line's end is not: alone it would tell of the wrong line.
    let settings = Settings { line_bytes_max: 16 << 10, ..Settings::default() };
    let file = format!("{{\"a\":1}}\n{}{{\"a\":2}}\n{{\"a\":3}}\r\n", " ".repeat(8 << 10));
    let drafts = drafts_of("s.jsonl", file.as_bytes(), &settings).unwrap();
    assert_eq!((note(&drafts).layout.len(), note(&drafts).complete), (1, false));
}

#[test]
fn an_older_layout_never_fuses_lines() {
    let old = exact(b"{\"a\":1}");
    let new = exact(b"{\"a\":1}\n{\"a\":2}\n");
    let mut out = Vec::new();
    let payloads = lines(&new);
    counterfoil::import::rebuild(&note(&old), payloads.iter().map(|draft| draft.payload_bytes()), &mut out).unwrap();
    assert_eq!(out, b"{\"a\":1}\n{\"a\":2}\n");
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let record = prop_oneof![
        4 => "\\{\"[a-c]\":[0-9]\\}".prop_map(String::into_bytes),
        1 => Just(b"{\"a\" :\r[ 1 ,2]}".to_vec()),
        1 => Just("{\"s\":\"\u{2028}\\ud800\"}".as_bytes().to_vec()),
        1 => Just(Vec::new()),
        1 => proptest::collection::vec(prop_oneof![Just(0u8), Just(b'{'), Just(b'"'), Just(0xff), Just(b' '), Just(b'1')], 0..6),
    ];
    let space = "[ \t\r]{0,2}".prop_map(String::into_bytes);
    (space.clone(), record, space).prop_map(|(lead, record, trail)| [lead, record, trail].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_files_come_back(lines in proptest::collection::vec((piece(), any::<bool>()), 1..24), ended in any::<bool>()) {
        let mut file: Vec<u8> = lines.iter().flat_map(|(line, crlf)| [line.as_slice(), if *crlf { b"\r\n" } else { b"\n" }].concat()).collect();
        if !ended {
            file.pop();
        }
        let drafts = drafts_of("s.jsonl", &file, &skipping()).unwrap();
        if file.is_empty() {
            prop_assert!(drafts.is_empty());
        } else {
            let (bytes, is_exact) = rebuilt(&drafts);
            prop_assert_eq!(&bytes, &file);
            prop_assert!(is_exact);
            let ids: std::collections::HashSet<_> = drafts.iter().map(|draft| draft.given_id()).collect();
            prop_assert_eq!(ids.len(), drafts.len());
        }
    }
}
