//! Public keys, their ids, and signatures.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::VerifyingKey;

use crate::event::{IdError, as_text, parse_hex32, push_hex};

/// An Ed25519 public key: 32 bytes, as text 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The id that events have in `signed_by`.
    pub fn key_id(&self) -> KeyId {
        let hash = blake3::hash(&self.0);
        let mut id = [0; 16];
        id.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        KeyId(id)
    }

    /// Whether this is a signature of these bytes by this key, by the strict rules (no key of small order, one form a signature).
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.prepared().is_some_and(|key| key.verify(message, signature))
    }

    /// Whether anything could be signed with it: it is a point of the curve, and not one of the few of small order.
    pub fn is_usable(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }

    /// The same key, prepared to verify many signatures. Nothing where the bytes are no point of the curve.
    pub fn prepared(&self) -> Option<PreparedKey> {
        VerifyingKey::from_bytes(&self.0).ok().map(PreparedKey)
    }
}

/// A public key whose point has been worked out, which is a third of what verifying costs.
#[derive(Clone, Debug)]
pub struct PreparedKey(VerifyingKey);

impl PreparedKey {
    /// As [`PublicKey::verify`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(64);
        push_hex(&self.0, &mut text);
        f.pad(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for PublicKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<PublicKey, IdError> {
        parse_hex32(text.as_bytes()).map(PublicKey).ok_or_else(|| IdError::new(text, "a public key (64 lower-case hex digits)"))
    }
}

as_text!(PublicKey);

/// Which key signed: `key_` and 32 hex digits, the first 16 bytes of the BLAKE3 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = b"key_".to_vec();
        push_hex(&self.0, &mut text);
        f.pad(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for KeyId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<KeyId, IdError> {
        let error = || IdError::new(text, "a key id (`key_` and 32 lower-case hex digits)");
        let digits = text.strip_prefix("key_").filter(|digits| digits.len() == 32).ok_or_else(error)?;
        // Read as the first half of a hash.
        let bytes = parse_hex32(format!("{digits}{:032}", 0).as_bytes()).ok_or_else(error)?;
        let mut id = [0; 16];
        id.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Ok(KeyId(id))
    }
}

as_text!(KeyId);

/// An Ed25519 signature: 64 bytes, as text 86 digits of base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Bytes of its text form.
    pub const TEXT_BYTES: usize = 86;

    /// From its 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Signature {
        Signature(bytes)
    }

    /// Its 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Signature {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Signature, IdError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Signature).ok_or_else(|| IdError::new(text, "a signature (86 digits of base64url)"))
    }
}

as_text!(Signature);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back() {
        let key = PublicKey::from_bytes([0xab; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        let id = key.key_id();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 36);
        let signature = Signature::from_bytes([7; 64]);
        assert_eq!(signature.to_string().len(), Signature::TEXT_BYTES);
        assert_eq!(signature.to_string().parse(), Ok(signature));
        for wrong in ["", "key_", "key_00", "KEY_00000000000000000000000000000000", "key_0000000000000000000000000000000G"] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
        assert!("zz".repeat(32).parse::<PublicKey>().is_err());
        assert!("A".repeat(85).parse::<Signature>().is_err());
    }
}
