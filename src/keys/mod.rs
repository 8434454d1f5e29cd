//! Which keys may sign: their life, as the ledger itself records it.
//!
//! A key comes in by `counterfoil.key_added.v1`, hands over to another by `counterfoil.key_rotated.v1` (which the old one
//! signs), and ends by `counterfoil.key_retired.v1` or `counterfoil.key_revoked.v1`. A verifier is given the first key, the
//! *root*, by other means, and follows the chain from it: [`KeyRing`]. Called by the writer, which refuses changes that do not
//! follow, and by verify. Does no I/O, and never signs.

mod change;
mod known;
mod ring;

pub(crate) use change::KEY_EVENTS;
pub use change::{KeyChange, KeyEvent, KeyReason, KeyReasonError};
#[doc(hidden)]
pub use known::KnownKeys;
pub(crate) use known::Signed;
pub use ring::{KeyFault, KeyInfo, KeyRing, KeyState};
