//! Signed notes, and the checkpoints that they hold: C2SP's signed-note and tlog-checkpoint, as pure functions over text.
//!
//! Called by recovery, which takes a checkpoint as evidence of what was durable, and by [`crate::checkpoint`]. Does no I/O, and
//! never decides which key is to be trusted. The format is small, and the crate that has it, `signed_note`, brings a second
//! Ed25519 and a second SHA-256 and checks signatures less strictly than events' are: tests hold this module against it.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use crate::attest::{PublicKey, Signature};
use crate::event::{LedgerId, as_text};

/// Bytes of the longest note that is read: a checkpoint with the cosignatures of a hundred witnesses has a third of that.
pub const NOTE_BYTES_MAX: usize = 64 << 10;
/// Signatures of a note at most, as C2SP proposes.
const SIGNATURES_MAX: usize = 100;
/// The longest name of a key. The origin of a ledger has 42 bytes.
const NAME_BYTES_MAX: usize = 1024;
/// C2SP's number of the kind of a signature: Ed25519.
const ED25519: u8 = 1;
const SIGNATURE_MARK: &str = "\u{2014} ";

/// A SHA-256 hash of the tree, as text base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> TreeHash {
        TreeHash(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64_STANDARD.encode(self.0))
    }
}

impl FromStr for TreeHash {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<TreeHash, NoteError> {
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(TreeHash).ok_or(NoteError::Malformed("a hash is not the base64 of 32 bytes"))
    }
}

as_text!(TreeHash);

/// Why a text is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// It has not the form.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is too long.
    #[error("it is longer than {NOTE_BYTES_MAX} bytes")]
    TooLong,
}

/// What is wrong with the signatures of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureFault {
    /// None of them is by a key that was given.
    #[error("no signature is by a key that was given")]
    UnknownKey,
    /// One says that it is by such a key, and is not.
    #[error("the signature is wrong")]
    Wrong,
}

/// A line of a note that says who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// Which key of that name.
    pub key_hash: u32,
    /// The signature.
    pub bytes: Vec<u8>,
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_hash.to_be_bytes(), self.bytes.as_slice()].concat();
        writeln!(f, "{SIGNATURE_MARK}{} {}", self.name, BASE64_STANDARD.encode(bytes))
    }
}

/// A text and who signed it. Its signatures are not verified by reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// A note with one signature.
    pub fn signed(text: String, name: &str, key: PublicKey, signature: &Signature) -> Note {
        let bytes = signature.as_bytes().to_vec();
        Note { text, signatures: vec![NoteSignature { name: name.to_owned(), key_hash: key_hash(name, key), bytes }] }
    }

    /// Reads a note, all of these bytes.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        use NoteError::Malformed;
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let all = std::str::from_utf8(bytes).map_err(|_| Malformed("it is not UTF-8"))?;
        if all.chars().any(|c| c.is_control() && c != '\n') {
            return Err(Malformed("it has control characters"));
        }
        let at = all.rfind("\n\n").ok_or(Malformed("no empty line stands between a text and its signatures"))?;
        let (text, lines) = (all.get(..=at).unwrap_or_default(), all.get(at + 2..).unwrap_or_default());
        let lines = lines.strip_suffix('\n').ok_or(Malformed("its last line has no end"))?;
        let signatures = lines.split('\n').map(signature_line).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(Malformed("a line that should be a signature is none"))?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(Malformed("it has more than 100 signatures"));
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// What was signed: all up to the empty line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who says to have signed it.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Whether one of these keys has signed it under this name: which one. Signatures by other keys mean nothing.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, name: &str, keys: &[PublicKey]) -> Result<PublicKey, SignatureFault> {
        let mut verified = None;
        for signature in self.signatures.iter().filter(|signature| signature.name == name) {
            let mut known = keys.iter().filter(|key| key_hash(name, **key) == signature.key_hash).peekable();
            if known.peek().is_none() {
                continue;
            }
            let bytes: [u8; 64] = signature.bytes.as_slice().try_into().map_err(|_| SignatureFault::Wrong)?;
            let by = known.find(|key| key.verify(self.text.as_bytes(), &Signature::from_bytes(bytes)));
            verified = Some(*by.ok_or(SignatureFault::Wrong)?);
        }
        verified.ok_or(SignatureFault::UnknownKey)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| write!(f, "{signature}"))
    }
}

fn signature_line(line: &str) -> Option<NoteSignature> {
    let (name, base64) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('+') && !name.contains(char::is_whitespace);
    let bytes = BASE64_STANDARD.decode(base64).ok().filter(|bytes| is_name && bytes.len() > 4)?;
    let (hash, bytes) = bytes.split_first_chunk()?;
    Some(NoteSignature { name: name.to_owned(), key_hash: u32::from_be_bytes(*hash), bytes: bytes.to_vec() })
}

/// Which key of this name it is: the first four bytes of the SHA-256 of name, LF, kind and key.
pub fn key_hash(name: &str, key: PublicKey) -> u32 {
    let hash: [u8; 32] = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize().into();
    hash.first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

/// The key as text for other programs that verify notes, witnesses for one: `name+hash+base64`.
pub fn verifier_key(name: &str, key: PublicKey) -> String {
    let bytes = [&[ED25519], key.as_bytes().as_slice()].concat();
    format!("{name}+{:08x}+{}", key_hash(name, key), BASE64_STANDARD.encode(bytes))
}

/// What a ledger is called in its checkpoints, and its keys in their signatures.
pub fn origin(ledger_id: LedgerId) -> String {
    format!("counterfoil/{ledger_id}")
}

/// How many events a ledger had, and the root of the tree over them, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: TreeHash,
    note: Note,
}

impl Checkpoint {
    /// The text that is signed.
    pub(crate) fn text_of(origin: &str, size: u64, root: TreeHash) -> String {
        format!("{origin}\n{size}\n{root}\n")
    }

    /// Reads a checkpoint, all of these bytes. Lines that other programs have added behind the root are kept.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn parse(bytes: &[u8]) -> Result<Checkpoint, NoteError> {
        Checkpoint::from_note(Note::parse(bytes)?)
    }

    pub(crate) fn from_note(note: Note) -> Result<Checkpoint, NoteError> {
        use NoteError::Malformed;
        let mut lines = note.text.split_terminator('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Malformed("it has less than three lines"));
        };
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(Malformed("a line of it is empty"));
        }
        let size = parse_number(size).ok_or(Malformed("its second line is no size"))?;
        let (origin, root) = (origin.to_owned(), root.parse()?);
        Ok(Checkpoint { origin, size, root, note })
    }

    /// What the ledger is called.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many events it had: the seq of the last one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree over them.
    pub fn root(&self) -> TreeHash {
        self.root
    }

    /// The note, which is the checkpoint's bytes.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Whether one of these keys has signed it, as the key of its ledger: which one.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, keys: &[PublicKey]) -> Result<PublicKey, SignatureFault> {
        self.note.verify(&self.origin, keys)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// A number below 2⁶³ in its one decimal form.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let number = text.parse::<u64>().ok().filter(|number| *number < 1 << 63)?;
    (number.to_string() == text).then_some(number)
}

/// What stands at the beginning of some bytes of a file that has one note after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A note of so many bytes, by its outer form.
    Note(usize),
    /// Less than a note: it may be one whose end is not there.
    Unfinished,
    /// So many bytes that are no note, up to where one may begin.
    Other(usize),
}

/// How every origin begins, up to its ULID.
const ORIGIN_START: &str = "counterfoil/ldg_";
/// Characters of a ULID, of a hash and of a signature (with the number of its key) as text.
const ULID_CHARS: usize = 26;
const HASH_CHARS: usize = 44;
const SIGNATURE_CHARS: usize = 92;

/// Whether these bytes are what a crash leaves of a checkpoint that was being written as [`Note::signed`] has it: its beginning, not
/// all of it, with zeros behind it where the file had grown already. Of this ledger, or of any where none is named.
pub(crate) fn is_torn(bytes: &[u8], origin: Option<&str>) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let Ok(text) = std::str::from_utf8(bytes.get(..written).unwrap_or_default()) else {
        // A character that was cut in two is the mark's: the one that is not ASCII.
        return written > 0 && bytes.get(..written).is_some_and(|bytes| ends_in_the_mark(bytes, origin));
    };
    is_beginning(text, origin)
}

fn ends_in_the_mark(bytes: &[u8], origin: Option<&str>) -> bool {
    let mark = SIGNATURE_MARK.as_bytes();
    (1..3).any(|cut| {
        let before = bytes.strip_suffix(mark.get(..cut).unwrap_or_default()).and_then(|before| std::str::from_utf8(before).ok());
        before.is_some_and(|before| before.ends_with("\n\n") && is_beginning(before, origin))
    })
}

/// Whether this is the beginning of a checkpoint with one signature, and not all of it.
fn is_beginning(text: &str, origin: Option<&str>) -> bool {
    let mut lines = text.split('\n');
    let is_base64 = |text: &str, chars: usize| {
        let digits = text.trim_end_matches('=');
        let is_digit = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        text.len() <= chars
            && digits.len() + 1 >= text.len()
            && digits.chars().all(is_digit)
            && (digits.len() == text.len() || text.len() == chars)
    };
    let Some(first) = lines.next() else { return true };
    let is_origin = |text: &str| match origin {
        Some(origin) => origin.starts_with(text),
        None => match text.strip_prefix(ORIGIN_START) {
            Some(ulid) => ulid.len() <= ULID_CHARS && ulid.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase()),
            None => ORIGIN_START.starts_with(text),
        },
    };
    let origin_chars = ORIGIN_START.len() + ULID_CHARS;
    let Some(size) = lines.next() else { return is_origin(first) };
    if !is_origin(first) || first.len() != origin_chars {
        return false;
    }
    let Some(root) = lines.next() else { return size.is_empty() || parse_number(size).is_some() };
    if parse_number(size).is_none() {
        return false;
    }
    let Some(empty) = lines.next() else { return is_base64(root, HASH_CHARS) };
    if root.parse::<TreeHash>().is_err() || !empty.is_empty() {
        return false;
    }
    // Behind the empty line stands one line more, whose end is not there.
    let start = format!("{SIGNATURE_MARK}{first} ");
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(signature), None) => match signature.strip_prefix(&start) {
            Some(base64) => is_base64(base64, SIGNATURE_CHARS),
            None => start.starts_with(signature),
        },
        _ => false,
    }
}

/// Finds out what stands at the beginning of these bytes, which begin with a line; `is_all` says that nothing follows them.
pub(crate) fn first_piece(bytes: &[u8], is_all: bool) -> Piece {
    let mut at = 0;
    let (mut in_text, mut signatures) = (true, 0);
    while let Some(end) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let line = bytes.get(at..at + end).unwrap_or_default();
        match (in_text, line.starts_with(SIGNATURE_MARK.as_bytes())) {
            (true, _) if line.is_empty() => in_text = false,
            (true, false) => {}
            (false, true) => signatures += 1,
            (false, false) if signatures > 0 => return Piece::Note(at),
            _ => return Piece::Other(at + end + 1),
        }
        at += end + 1;
        if at > NOTE_BYTES_MAX {
            return Piece::Other(at);
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    match (in_text, signatures) {
        // A further signature may be on its way, where more is to be read.
        (false, 1..) if rest.is_empty() && is_all => Piece::Note(at),
        (false, 1..) if is_all && !SIGNATURE_MARK.as_bytes().starts_with(rest) && !rest.starts_with(SIGNATURE_MARK.as_bytes()) => {
            Piece::Note(at)
        }
        _ if bytes.len() > NOTE_BYTES_MAX => Piece::Other(bytes.len()),
        _ => Piece::Unfinished,
    }
}
