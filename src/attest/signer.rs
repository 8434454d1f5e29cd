//! What signs.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};

use super::{KeyId, PublicKey, Signature};

/// Why something could not be signed. The event was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// The signer said no.
    #[error("{key_id} could not sign: {reason}; the event is not recorded: see to the signer, and append it again")]
    Failed {
        /// Its key.
        key_id: KeyId,
        /// What it said.
        reason: String,
    },
    /// The signer has not answered in time. It may do so later; that signature is not used.
    #[error("{key_id} has not signed within {deadline_ms} ms; the event is not recorded: see to the signer, and append it again")]
    Deadline {
        /// Its key.
        key_id: KeyId,
        /// How long it had.
        deadline_ms: u64,
    },
    /// The signer was not asked: it has not yet come back from a call whose deadline is past.
    #[error(
        "{key_id} was not asked to sign, since it has not come back from an earlier call; the event is not recorded: see to the signer, and append it again"
    )]
    Stuck {
        /// Its key.
        key_id: KeyId,
    },
    /// What it has given is no signature of these bytes by its key.
    #[error("{key_id} has given a signature that does not verify; the event is not recorded: the signer has another key than it says")]
    Wrong {
        /// Its key.
        key_id: KeyId,
    },
}

/// Signs with one Ed25519 key, which may be in memory, in a file, in a TPM, or in a service elsewhere.
///
/// Called on threads of the ledger's own, so that one that waits for something holds up no other; on the writer's own thread only
/// where [`Attestor::is_local`] says that it may be.
pub trait Attestor: Send + Sync {
    /// The key that its signatures verify with. Always the same.
    fn public_key(&self) -> PublicKey;

    /// Its id.
    fn key_id(&self) -> KeyId {
        self.public_key().key_id()
    }

    /// Signs these bytes.
    ///
    /// # Errors
    /// [`AttestError::Failed`] with what it has to say.
    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError>;

    /// Whether signing is no more than computation: some 20 µs that never wait for anything. Then it may be done wherever a
    /// processor is free, no deadline is kept, and what comes out is not checked once more.
    fn is_local(&self) -> bool {
        false
    }
}

impl fmt::Debug for dyn Attestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attestor {}", self.key_id())
    }
}

/// A signer that is ready for use. What it says of itself is asked once, by whoever makes this, so that none of the ledger's threads
/// has to wait for that, or panics with it.
#[derive(Clone)]
pub struct Signer(Arc<Known>);

struct Known {
    attestor: Arc<dyn Attestor>,
    key: PublicKey,
    key_id: KeyId,
    is_local: bool,
}

impl Signer {
    /// The key that its signatures verify with.
    pub fn public_key(&self) -> PublicKey {
        self.0.key
    }

    /// Its id.
    pub fn key_id(&self) -> KeyId {
        self.0.key_id
    }

    pub(crate) fn is_local(&self) -> bool {
        self.0.is_local
    }

    pub(crate) fn attestor(&self) -> &Arc<dyn Attestor> {
        &self.0.attestor
    }

    /// Whether it is the very same one, not just one with the same key.
    pub(crate) fn is(&self, other: &Signer) -> bool {
        Arc::ptr_eq(&self.0.attestor, &other.0.attestor)
    }
}

impl From<Arc<dyn Attestor>> for Signer {
    fn from(attestor: Arc<dyn Attestor>) -> Signer {
        let key = attestor.public_key();
        Signer(Arc::new(Known { key, key_id: key.key_id(), is_local: attestor.is_local(), attestor }))
    }
}

impl<A: Attestor + 'static> From<Arc<A>> for Signer {
    fn from(attestor: Arc<A>) -> Signer {
        let attestor: Arc<dyn Attestor> = attestor;
        attestor.into()
    }
}

impl PartialEq for Signer {
    /// Whether the key is the same.
    fn eq(&self, other: &Signer) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Signer {}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signer {}", self.0.key_id)
    }
}

/// A key in this process's memory. It is wiped when it is dropped, and never shown.
pub struct MemoryKey {
    key: SigningKey,
    /// Worked out once: a ledger asks for it with every event.
    key_id: KeyId,
}

impl MemoryKey {
    /// The key with this secret seed of 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> MemoryKey {
        let key = SigningKey::from_bytes(seed);
        let key_id = PublicKey::from_bytes(key.verifying_key().to_bytes()).key_id();
        MemoryKey { key, key_id }
    }

    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// What the system said.
    pub fn generate() -> std::io::Result<MemoryKey> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        Ok(MemoryKey::from_seed(&seed))
    }

    pub(super) fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }
}

impl Attestor for MemoryKey {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    fn key_id(&self) -> KeyId {
        self.key_id
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError> {
        Ok(Signature::from_bytes(self.key.sign(message).to_bytes()))
    }

    fn is_local(&self) -> bool {
        true
    }
}

impl fmt::Debug for MemoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryKey({})", self.key_id)
    }
}
