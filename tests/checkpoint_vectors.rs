//! Goal: notes, checkpoints, the tree and proofs are those of C2SP and RFC 6962, not ones of our own that look like them.
//!
//! Method: published vectors (RFC 6962's reference tree; C2SP's and Go's signed notes), and other implementations in both
//! directions: signed_note and tlog_tiles (Cloudflare's) verify what we sign and prove, and we what they do; what one of them
//! refuses of a note, ours refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod checkpoint_support;

use checkpoint_support::common::*;
use checkpoint_support::*;
use counterfoil::attest::PublicKey;
use counterfoil::checkpoint::*;
use counterfoil::note::{Note, key_hash};
use counterfoil::*;
use signed_note::{StandardSigner, StandardVerifier, VerifierList};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The tree of the reference implementation of RFC 6962, and its roots.
const REFERENCE: [(&str, &str); 8] = [
    ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
];

#[test]
fn the_reference_tree() {
    let mut edge = Edge::default();
    assert_eq!(edge.root().as_bytes()[..], hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    for (leaf, root) in REFERENCE {
        edge.push_data(&hex(leaf));
        assert_eq!(edge.root().as_bytes()[..], hex(root), "size {}", edge.size());
    }
}

/// From the documentation of Go's sumdb/note, which C2SP's signed-note describes.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
";
/// From C2SP's tlog-checkpoint.
const C2SP_CHECKPOINT: &str = "example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
";

fn key_of(verifier: &str) -> PublicKey {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let bytes = BASE64_STANDARD.decode(verifier.splitn(3, '+').nth(2).unwrap()).unwrap();
    PublicKey::from_bytes(bytes[1..].try_into().unwrap())
}

#[test]
fn published_notes() {
    let (note, key) = (Note::parse(GO_NOTE.as_bytes()).unwrap(), key_of(GO_KEY));
    assert_eq!(verifier_key("PeterNeumann", key), GO_KEY);
    assert_eq!(key_hash("PeterNeumann", key), 0xc74f_20a3);
    assert_eq!(note.verify("PeterNeumann", &[key]), Ok(key));
    assert_eq!(note.to_string(), GO_NOTE);
    assert_eq!(note.verify("PeterNeumann", &[public()]), Err(SignatureFault::UnknownKey));
    let other = GO_NOTE.replace("you don't", "you do");
    assert_eq!(Note::parse(other.as_bytes()).unwrap().verify("PeterNeumann", &[key]), Err(SignatureFault::Wrong));

    let checkpoint = Checkpoint::parse(C2SP_CHECKPOINT.as_bytes()).unwrap();
    assert_eq!(
        (checkpoint.origin(), checkpoint.size(), checkpoint.to_string().as_str()),
        ("example.com/behind-the-sofa", 20852163, C2SP_CHECKPOINT)
    );
}

#[test]
fn they_verify_ours() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let store = store_of(temp.path(), &options, 700);
    let ours = sign(&store, temp.path(), &options);
    let theirs = signed_note::Note::from_bytes(ours.to_string().as_bytes()).unwrap();
    let verifier = StandardVerifier::new(&verifier_key(ours.origin(), public())).unwrap();
    let (verified, others) = theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!((verified.len(), others.len(), verified[0].name()), (1, 0, ours.origin()));
    let head = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!((head.origin(), head.size(), &head.hash().0), (ours.origin(), 700, ours.root().as_bytes()));
    // And so the tree: all of a checkpoint's statement is told again from the events alone.
    assert_eq!(Tlog::of(&leaves(temp.path())).root(700), ours.root());
}

/// The key that the documentation of Go's note signs with.
const GO_SIGNER: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";

#[test]
fn we_verify_theirs() {
    let tree = Tlog::of(&(0..100).map(|n| EventHash::from_bytes([n; 32])).collect::<Vec<_>>());
    let checkpoint = |size: u64| {
        let text = tlog_tiles::Checkpoint::new("PeterNeumann", size, tlog_tiles::tree_hash(size, &tree).unwrap(), "").unwrap().to_bytes();
        let mut note = signed_note::Note::new(&text, &[]).unwrap();
        note.add_sigs(&[&StandardSigner::new(GO_SIGNER).unwrap()]).unwrap();
        String::from_utf8(note.to_bytes()).unwrap()
    };
    let lines = |hashes: Vec<tlog_tiles::Hash>| hashes.iter().map(|hash| format!("{hash}\n")).collect::<String>();
    let keys = [key_of(GO_KEY)];
    for (from, to) in [(1, 1), (1, 2), (3, 7), (64, 100), (65, 100), (99, 100), (37, 64)] {
        let leaf = TreeHash::from_bytes([from as u8 - 1; 32]);
        let hashes = lines(tlog_tiles::prove_record(to, from - 1, &tree).unwrap());
        let proof = format!("c2sp.org/tlog-proof@v1\nextra {leaf}\nindex {}\n{hashes}\n{}", from - 1, checkpoint(to));
        let ours = Proof::parse(proof.as_bytes()).unwrap();
        assert_eq!((ours.check(None, &keys), ours.to_string()), (Ok(keys[0]), proof), "{from} of {to}");
        if from < to {
            let proof = format!("old {from}\n{}\n{}", lines(tlog_tiles::prove_tree(to, from, &tree).unwrap()), checkpoint(to));
            let ours = Proof::parse(proof.as_bytes()).unwrap();
            let old = Checkpoint::parse(checkpoint(from).as_bytes()).unwrap();
            assert_eq!((ours.check(Some(&old), &keys), ours.to_string()), (Ok(keys[0]), proof), "{from} to {to}");
        }
    }
}

#[test]
fn what_they_refuse_we_refuse() {
    let verifier = || VerifierList::new(vec![Box::new(StandardVerifier::new(GO_KEY).unwrap())]);
    let (mut random, right) = (Random::new(17), GO_NOTE.as_bytes());
    let (mut refused, mut accepted) = (0, 0);
    let words: [&[u8]; 8] = [b"\n", b"\n\n", b" ", b"+", "\u{2014} ".as_bytes(), b"=", b"\x07", b"\xff"];
    for _ in 0..campaign("COUNTERFOIL_NOTES", 3000) {
        let mut note = right.to_vec();
        for _ in 0..1 + random.below(2) {
            let at = random.below(note.len() as u64) as usize;
            match random.below(4) {
                0 => note[at] ^= 1 << random.below(8),
                1 => drop(note.splice(at..at, words[random.below(8) as usize].iter().copied())),
                2 => drop(note.drain(at..(at + 1 + random.below(9) as usize).min(note.len()))),
                // A further signature, of the same key or of another one.
                _ => note.extend([&right[99..], "\u{2014} other AAAAAAE=\n".as_bytes()][random.below(2) as usize]),
            }
        }
        let theirs = signed_note::Note::from_bytes(&note).is_ok_and(|note| note.verify(&verifier()).is_ok());
        let ours = Note::parse(&note).is_ok_and(|note| note.verify("PeterNeumann", &[key_of(GO_KEY)]).is_ok());
        assert!(!ours || theirs, "only ours takes it: {:?}", String::from_utf8_lossy(&note));
        (refused, accepted) = (refused + u64::from(!ours), accepted + u64::from(ours));
    }
    assert!(refused > accepted && accepted > 100, "{refused} refused, {accepted} accepted");
}

#[test]
fn texts_that_are_no_checkpoint() {
    let temp = tempfile::tempdir().unwrap();
    let options = quick();
    let store = store_of(temp.path(), &options, 3);
    let right = sign(&store, temp.path(), &options).to_string();
    let (text, signature) = right.split_once("\n\n").unwrap();
    let [origin, size, root] = text.split('\n').collect::<Vec<_>>()[..] else { panic!() };
    let mut said = String::new();
    let cases = [
        format!("{origin}\n0{size}\n{root}\n\n{signature}"),
        format!("{origin}\n9223372036854775808\n{root}\n\n{signature}"),
        format!("{origin}\n-3\n{root}\n\n{signature}"),
        format!("{origin}\n{size}\n{}\n\n{signature}", &root[..40]),
        format!("{origin}\n{size}\n\n{signature}"),
        format!("\n{size}\n{root}\n\n{signature}"),
        format!("{origin}\n{size}\n{root}\n"),
        format!("{origin}\n{size}\n{root}\n\n"),
        format!("{origin}\n{size}\n{root}\n\n{}", signature.trim_end()),
        format!("{origin}\r\n{size}\n{root}\n\n{signature}"),
        format!("{origin}\n{size}\n{root}\n{}\n{signature}", "x\n".repeat(40_000)),
    ];
    for case in &cases {
        said += &format!("{}\n", Checkpoint::parse(case.as_bytes()).unwrap_err());
    }
    insta::assert_snapshot!(said, @"
    its second line is no size
    its second line is no size
    its second line is no size
    a hash is not the base64 of 32 bytes
    it has less than three lines
    a line of it is empty
    no empty line stands between a text and its signatures
    its last line has no end
    its last line has no end
    it has control characters
    it is longer than 65536 bytes
    ");
    // Lines behind the root are others' business, but signed.
    let more = format!("{origin}\n{size}\n{root}\nmore\n\n{signature}");
    let checkpoint = Checkpoint::parse(more.as_bytes()).unwrap();
    assert_eq!((checkpoint.to_string(), checkpoint.verify(&[public()])), (more, Err(SignatureFault::Wrong)));
}
