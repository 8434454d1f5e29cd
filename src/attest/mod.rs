//! Signatures: who says that an event is theirs.
//!
//! Called by the ledger, which has events signed before they are written, by verify, and by checkpoints. Knows keys and bytes;
//! never decides which key is to be trusted: that is for [`crate::keys`].

mod file;
mod key;
mod signer;

pub use file::{KeyFileError, generate_key_file, read_key_file, read_public_key};
pub use key::{KeyId, PreparedKey, PublicKey, Signature};
pub use signer::{AttestError, Attestor, MemoryKey, Signer};
