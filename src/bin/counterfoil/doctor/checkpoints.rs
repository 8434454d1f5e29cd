//! What doctor says of checkpoints: how far the last one goes, and what stands in its way. Nothing where there are none.

use counterfoil::checkpoint::stored_checkpoint;
use counterfoil::{LedgerReader, MirrorReader, Seq};

use super::{Doctor, State};
use crate::text;

impl Doctor<'_> {
    pub(super) fn checkpoints(&mut self, ledger: &LedgerReader) {
        let dir = self.context.store.join("checkpoints");
        let links = [dir.clone(), dir.join("signed.txt"), dir.join("tree.hashes")];
        if let Some(link) = links.iter().find(|path| path.is_symlink()) {
            let text =
                format!("{} is a symbolic link, which nothing is written through; put what it points to in its place", link.display());
            return self.wrong("signed", &text, None);
        }
        let last = match stored_checkpoint(ledger, None) {
            Ok(Some(last)) => last,
            Ok(None) if dir.exists() => return self.note("signed", "checkpoints/ has no checkpoint of this ledger"),
            Ok(None) => return,
            Err(error) => return self.wrong("signed", &error.to_string(), None),
        };
        let covered = text::count(last.size(), "event");
        let key = last.note().signatures().first().map_or(0, |signature| signature.key_hash);
        let said = format!("the last checkpoint covers {covered}, signed with the key {key:08x}");
        let Ok(head) = ledger.head() else { return self.note("signed", said) };
        match head.seq.get().checked_sub(last.size()) {
            Some(0) => self.ok("signed", said),
            Some(behind) => self.ok("signed", format!("{said}; {} since", text::count(behind, "event"))),
            // Recovery says what to do.
            None if self.findings.iter().any(|finding| finding.check == "recovery" && finding.state == State::Wrong) => {
                self.note("signed", format!("{said}, more than there are"));
            }
            None => self.wrong("signed", &format!("{said}, but the ledger has {}", text::count(head.seq.get(), "event")), None),
        }
    }

    /// Whether the mirror knows events behind this one.
    pub(super) fn mirror_has_more(&self, ledger: Option<&LedgerReader>, valid: Seq) -> bool {
        let Some(ledger_id) = ledger.map(|ledger| ledger.manifest().ledger_id) else { return true };
        let mirror = MirrorReader::open(&self.context.store, ledger_id, self.context.options.mirror_busy_timeout);
        mirror.and_then(|mirror| mirror.watermark(ledger_id)).is_ok_and(|mark| mark.seq > valid)
    }
}
