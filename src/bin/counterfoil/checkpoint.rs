//! `checkpoint`: signs one now, and hands it to anchors. Takes the lock, but not while it hands on; a program that runs the actors signs by itself.

use std::sync::Arc;

use counterfoil::Store;
use counterfoil::attest::{Attestor, KeyId, read_key_file};
use counterfoil::checkpoint::{Anchor, Anchoring, Checkpointer, CommandAnchor, FileAnchor, Signed, TreeHash, verifier_key};
use serde::Serialize;

use crate::args::CheckpointArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::text;

#[derive(Serialize)]
struct Report<'r> {
    is_new: bool,
    is_first: bool,
    size: u64,
    root: TreeHash,
    signed_by: KeyId,
    /// The key, for other programs that verify notes.
    verifier_key: String,
    anchors: &'r [Anchoring],
    checkpoint: String,
}

pub fn run(args: &CheckpointArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let key = Arc::new(read_key_file(&args.key)?);
    let files = args.anchors.iter().map(|path| Arc::new(FileAnchor::new(path)) as Arc<dyn Anchor>);
    let commands = args.commands.iter().map(|command| Arc::new(CommandAnchor::new("sh", ["-c", command])) as Arc<dyn Anchor>);
    let anchors = files.chain(commands).collect();
    let mut options = context.options.clone();
    options.create = false;
    let (store, _) = Store::open(&context.store, &options)?;
    let mut checkpointer = Checkpointer::new(&context.store, store.manifest(), &options, key.clone(), anchors);
    let signed = checkpointer.sign_and_store(store.head());
    // Others may append while anchors take their time.
    store.close()?;
    let mut signed = signed?;
    signed.anchors = checkpointer.hand_on()?;
    tell(&signed, key.as_ref(), context, out)?;
    let all_have_it = signed.anchors.iter().all(|anchor| anchor.error.is_none());
    Ok(if all_have_it { Exit::Fine } else { Exit::PartFailed })
}

fn tell(signed: &Signed, key: &dyn Attestor, context: &Context, out: &mut Out) -> Result<(), Failure> {
    let Signed { checkpoint, is_new, is_first, anchors, .. } = signed;
    let report = Report {
        is_new: *is_new,
        is_first: *is_first,
        size: checkpoint.size(),
        root: checkpoint.root(),
        signed_by: key.key_id(),
        verifier_key: verifier_key(checkpoint.origin(), key.public_key()),
        anchors,
        checkpoint: checkpoint.to_string(),
    };
    if out.is_json() {
        return out.json(&report);
    }
    let was = if *is_new { "signed" } else { "no new event: the last one has" };
    out.line(format_args!("checkpoint: {was} {}, root {}", text::count(report.size, "event"), report.root))?;
    out.line(format_args!("  signed by     {}", report.signed_by))?;
    out.line(format_args!("  verifier key  {}", report.verifier_key))?;
    out.line(format_args!("  stored in     {}", context.store.join("checkpoints/signed.txt").display()))?;
    if *is_first {
        out.line("  no earlier    the store had no checkpoint before, so the ledger was held against nothing")?;
    }
    for Anchoring { anchor, error, .. } in anchors {
        let anchor = text::plain(anchor);
        match error {
            None => out.line(format_args!("  anchored in   {anchor}"))?,
            Some(error) => out.line(format_args!("  NOT ANCHORED  {anchor}: {}", text::plain(error)))?,
        }
    }
    if anchors.is_empty() {
        out.line("  anchored      nowhere: who can rewrite the store can rewrite this too; name a place with --anchor")?;
    }
    Ok(())
}
