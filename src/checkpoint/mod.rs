//! Checkpoints: signed statements of how many events a ledger had, and the root of the RFC 6962 tree over them, in the form of
//! C2SP's tlog-checkpoint. Handed to anchors outside the store, they show when it was cut or rewritten, by whomever.
//!
//! Called by the store's command, by CheckpointActor, and by those who check what they were given. Knows no tokio.
//!
//! - `tree` the tree, and what proofs are made of (`ct-merkle` says which hashes, and checks them) · `nodes` where its hashes come from
//! - `sign` grows it, and signs what fits all that was signed before · `anchor` where checkpoints are handed to
//! - `handing` hands them on, to all anchors at once · `calls` what may hang, on threads that are never joined
//! - `proof` proofs as text, made and checked · `anchored` a ledger against checkpoints from elsewhere · `error`
//! - [`crate::note`] the text of checkpoints · `ledger::notes` the files that they are in

mod anchor;
mod anchored;
mod calls;
mod error;
mod handing;
mod nodes;
mod proof;
mod sign;
mod tree;

pub use crate::note::{Checkpoint, NoteError, SignatureFault, TreeHash, origin, verifier_key};
pub use anchor::{ANCHOR_DEADLINE, Anchor, CommandAnchor, FileAnchor};
pub(crate) use anchored::Roots;
pub use anchored::{AnchorFailure, AnchorFault, AnchorReport, Anchored, verify_anchored};
pub use error::{AnchorError, CheckpointError, ProofError, ProofFault};
pub(crate) use nodes::tree_path;
pub use proof::{Proof, Statement, prove_event, prove_from, read_checkpoint, stored_checkpoint};
pub use sign::{Anchoring, Checkpointer, Signed};
#[doc(hidden)]
pub use tree::{Edge, extends, includes, leaf_hash, node_hash};
