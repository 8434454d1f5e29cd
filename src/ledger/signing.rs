//! Signatures of the open group: who is to sign what, and where in the group's bytes it belongs.
//!
//! The line is sealed first, with room for a signature, which the event hash does not cover; the signers work on it while more
//! is staged. A signature that can't be had leaves its event out, and what was staged behind it must be sealed again.

use super::signers::{Asked, Signers};
use crate::attest::{AttestError, Signature, Signer};
use crate::event::{CheckedDraft, EventHash, LedgerId, Seq};
use crate::options::Options;

/// An event of the open group that is being signed.
pub(super) struct Unsigned {
    /// The first seq of the append that it belongs to, and where that begins in the group.
    pub first: Seq,
    pub start: usize,
    pub seq: Seq,
    /// Where in the group its signature belongs.
    pub at: usize,
    pub asked: Asked,
}

/// Events that could not be signed.
#[derive(Debug)]
pub struct NotSigned {
    /// Everything from this event on is to be staged again, but for the appends of those below.
    pub from: Seq,
    /// The events that could not be signed, as they were numbered, in order; never empty.
    pub failed: Vec<(Seq, AttestError)>,
}

pub(super) struct Signing {
    pub default: Option<Signer>,
    signers: Signers,
}

impl Signing {
    pub(super) fn new(ledger_id: LedgerId, options: &Options) -> Signing {
        Signing { default: options.attestor.clone(), signers: Signers::new(ledger_id, options.sign_deadline) }
    }

    /// What is to sign this draft.
    pub(super) fn of<'a>(&'a self, draft: &'a CheckedDraft) -> Option<&'a Signer> {
        draft.draft().signer().or(self.default.as_ref())
    }

    /// Whether it makes sense to ask this signer.
    pub(super) fn check(&self, signer: &Signer) -> Result<(), AttestError> {
        self.signers.check(signer)
    }

    /// Has an event signed.
    pub(super) fn ask(&self, signer: &Signer, event_hash: EventHash) -> Asked {
        self.signers.ask(signer, event_hash)
    }

    /// Puts the signatures where they belong; answers those that could not be had.
    pub(super) fn fill_in(&self, unsigned: &[Unsigned], bytes: &mut [u8]) -> Vec<(Seq, AttestError)> {
        let mut failed = Vec::new();
        for event in unsigned {
            match self.signers.fetch(&event.asked) {
                Ok(signature) => {
                    if let Some(place) = bytes.get_mut(event.at..event.at + Signature::TEXT_BYTES) {
                        place.copy_from_slice(signature.to_string().as_bytes());
                    }
                }
                Err(error) => failed.push((event.seq, error)),
            }
        }
        failed
    }
}
