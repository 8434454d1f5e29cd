//! What LedgerActor has to do with signatures and policy: who signs, what the policy is told of the mirror, and what becomes of a
//! group of which not all can be signed. Called by the actor alone; writes nothing by itself.

use super::LedgerState;
use crate::actors::shared::MirrorHealth;
use crate::actors::supervisor::Exit;
use crate::actors::waiting::Waiting;
use crate::policy::ParityState;
use crate::{AppendError, NotSigned, ParityReport, Receipt};

/// Appends that are sealed again at once where one before them could not be signed. 32: each has to be signed again, and where one of
/// them fails, no more than that many are asked for once more.
const RESTAGED_MAX: usize = 32;

impl LedgerState {
    /// How the mirror stands to the ledger, for the store's policy: by what the actors know, not by what a caller says.
    pub(super) fn parity_state(&self) -> ParityState {
        let live = self.context.shared.live.borrow();
        let is_mismatched = live.last_content_parity.as_ref().is_some_and(ParityReport::is_mismatched);
        match (&live.mirror, self.writer.unmirrored() as u64) {
            (MirrorHealth::Failed { .. }, _) => ParityState::Mismatched,
            _ if is_mismatched => ParityState::Mismatched,
            (MirrorHealth::Rebuilding { .. }, _) => ParityState::Rebuilding,
            (_, 0) => ParityState::Consistent,
            (_, events) => ParityState::Lagging { events },
        }
    }

    pub(super) fn see_to_signer(&mut self) {
        let (signer, changes) = self.context.shared.signer();
        self.writer.sign_with(signer);
        self.signer_changes = changes;
    }

    /// Has the open group signed. Appends of events that could not be signed are told so, those behind them are staged again.
    pub(super) fn sign(&mut self) -> Result<(), Exit> {
        while let Err(NotSigned { from, failed }) = self.writer.sign() {
            let is_cut = |receipt: &Receipt| receipt.seq >= from;
            let (cut, kept) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.receipts.iter().any(is_cut));
            self.waiting = kept;
            let cut: Vec<Waiting> = cut;
            for (index, waiting) in cut.into_iter().enumerate() {
                if index > 0 && index.is_multiple_of(RESTAGED_MAX) {
                    self.flush()?;
                }
                let error = failed.iter().find(|(seq, _)| waiting.receipts.iter().any(|receipt| receipt.seq == *seq));
                if let Some((_, error)) = error {
                    tracing::warn!(actor = "ledger", %error, "an event is left out");
                    waiting.reply.send(Err(AppendError::Attest(error.clone())));
                } else if let Some(append) = waiting.into_append() {
                    if self.closing {
                        append.reply.send(Err(AppendError::Closed));
                        continue;
                    }
                    let deferred = self.stage(append)?;
                    self.deferred.extend(deferred);
                }
            }
        }
        Ok(())
    }
}
