//! The hash chain: pure functions over bytes, as FORMAT.md's section "Hashes" has them.
//!
//! Called by the encoder, the ledger and everything that verifies. Does no I/O and keeps no state.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use crate::event::{EventHash, LedgerId, PayloadHash};

const EVENT_CONTEXT: &str = "counterfoil 2026-11-24 event v1";
/// The context, hashed once rather than with every event.
static EVENT_KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(EVENT_CONTEXT));

const GENESIS_CONTEXT: &str = "counterfoil 2026-11-24 genesis v1";

/// What stands in a line right behind the bytes that its event hash covers. It can't occur earlier: header
/// strings escape their quotes.
pub(crate) const HASH_MARK: &[u8] = b",\"event_hash\":\"";

/// BLAKE3 of the payload's exact bytes.
pub fn payload_hash(payload: &[u8]) -> PayloadHash {
    PayloadHash::from_bytes(*blake3::hash(payload).as_bytes())
}

/// The event hash of a line's material: its bytes from the first `{` up to `,"event_hash":"`.
pub fn event_hash(material: &[u8]) -> EventHash {
    EventHash::from_bytes(*blake3::Hasher::new_from_context_key(&EVENT_KEY).update(material).finalize().as_bytes())
}

/// What the first event of a ledger links to.
pub fn genesis(ledger_id: LedgerId) -> EventHash {
    EventHash::from_bytes(blake3::derive_key(GENESIS_CONTEXT, ledger_id.to_string().as_bytes()))
}

/// The part of a line that its event hash covers; nothing where the line has no event hash.
pub fn material(line: &[u8]) -> Option<&[u8]> {
    let end = memchr::memmem::find(line, HASH_MARK)?;
    line.get(..end)
}

/// The bytes that a signature of an event covers.
pub fn signing_input(ledger_id: LedgerId, event_hash: EventHash) -> Vec<u8> {
    format!("counterfoil event signature v1\n{ledger_id}\n{event_hash}\n").into_bytes()
}
