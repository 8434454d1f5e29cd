//! Keys of commands: what makes the same command, sent twice, take effect once. Pure.
//!
//! A key is kept in the events that its command causes and nowhere else, so it is as durable as they are: the first of them has
//! [`command_id`] for its id, each of them carries [`command_tag`].

use crate::event::EventId;

/// Bytes of the longest key: with what stands before it, it makes a tag of the 128 bytes that the format allows.
pub const KEY_BYTES_MAX: usize = 120;

/// What the tag of a command begins with.
pub(super) const PREFIX: &str = "command:";
const CONTEXT: &str = "counterfoil 2026-11-29 command id v1";

/// The key has no byte, or too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of the command has {bytes} bytes, but must have 1 to {KEY_BYTES_MAX}; use a shorter one, or its hash")]
pub struct KeyError {
    /// Bytes it has.
    pub bytes: usize,
}

/// Whether a command can have this key.
///
/// # Errors
/// [`KeyError`] where it is empty or longer than [`KEY_BYTES_MAX`].
pub fn check_key(key: &str) -> Result<(), KeyError> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(()) } else { Err(KeyError { bytes: key.len() }) }
}

/// The id of the first event that a command with this key causes in this stream: the first 128 bits of BLAKE3 in derive-key mode
/// (context `counterfoil 2026-11-29 command id v1`) over the length of the stream's name in bytes (u64, little endian), the name,
/// and the key.
pub fn command_id(session_id: &str, key: &str) -> EventId {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    // Length first, so that no two pairs of texts run together.
    hasher.update(&(session_id.len() as u64).to_le_bytes()).update(session_id.as_bytes()).update(key.as_bytes());
    let mut bits = [0; 16];
    hasher.finalize_xof().fill(&mut bits);
    EventId::from_u128(u128::from_be_bytes(bits))
}

/// The tag that each event caused by a command with this key carries: `command:<key>`. Whether the key is one, [`check_key`] says.
pub fn command_tag(key: &str) -> String {
    format!("{PREFIX}{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::line::TAG_BYTES_MAX;

    #[test]
    fn ids_are_of_the_stream_and_the_key() {
        assert_eq!(command_id("s", "k"), command_id("s", "k"));
        assert_ne!(command_id("s", "k"), command_id("s", "k2"));
        assert_ne!(command_id("ab", "c"), command_id("a", "bc"));
        assert_ne!(command_id("", "abc"), command_id("abc", ""));
        // Recorded ids depend on it: it must never change.
        assert_eq!(command_id("account-1", "transfer-7").to_string(), "evt_7553AW8X89BVXP4WF5JYZ0A38W");
    }

    #[test]
    fn keys_fit_their_tag() {
        assert_eq!(command_tag("k-1"), "command:k-1");
        assert_eq!(command_tag(&"k".repeat(KEY_BYTES_MAX)).len(), TAG_BYTES_MAX);
        assert_eq!(check_key(""), Err(KeyError { bytes: 0 }));
        assert_eq!(check_key(&"é".repeat(61)), Err(KeyError { bytes: 122 }));
        assert_eq!((check_key("k"), check_key(&"é".repeat(60))), (Ok(()), Ok(())));
    }
}
