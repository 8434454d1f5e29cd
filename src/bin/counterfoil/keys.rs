//! `keys`: makes keys, and records in the ledger which may sign.

use std::path::Path;
use std::sync::Arc;

use counterfoil::attest::{Attestor, KeyId, MemoryKey, PublicKey, generate_key_file, read_key_file, read_public_key};
use counterfoil::keys::{KeyChange, KeyInfo, KeyReason, KeyState};
use counterfoil::{Options, Store};
use serde::Serialize;

use crate::args::{KeysCommand, SignedChange};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::{append, text};

pub fn run(command: KeysCommand, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    match command {
        KeysCommand::Generate { file } => generate(&file, context, out)?,
        KeysCommand::List => list(context, out)?,
        KeysCommand::Add { new, by } => {
            let new = new.as_deref().map(public_key).transpose()?;
            record(by, context, out, |key, reason| KeyChange::Added { key: new.unwrap_or_else(|| key.public_key()), reason })?;
        }
        KeysCommand::Rotate { to, by } => {
            let to = public_key(&to)?;
            record(by, context, out, |key, reason| KeyChange::Rotated { from: key.key_id(), to, reason })?;
        }
        KeysCommand::Retire { which, last, by } => {
            let key = key_id(&which)?;
            check_others(key, last, context)?;
            record(by, context, out, |_, reason| KeyChange::Retired { key, reason })?;
        }
        KeysCommand::Revoke { which, last, by } => {
            let key = key_id(&which)?;
            check_others(key, last, context)?;
            record(by, context, out, |_, reason| KeyChange::Revoked { key, reason })?;
        }
    }
    Ok(Exit::Fine)
}

/// A public key as it is given: a file that holds it, or 64 hex digits.
pub fn public_key(text: &str) -> Result<PublicKey, Failure> {
    match text.parse() {
        Ok(key) => Ok(key),
        Err(_) if Path::new(text).exists() => Ok(read_public_key(Path::new(text))?),
        Err(error) => Err(Failure::usage(format!("{error}, nor a file that is there; `counterfoil keys generate FILE` writes FILE.pub"))),
    }
}

/// The same options, with the key in this file, if any, to sign by.
pub fn signing(options: &Options, file: Option<&Path>) -> Result<Options, Failure> {
    let mut options = options.clone();
    if let Some(file) = file {
        options.attestor = Some(Arc::new(read_key_file(file)?).into());
    }
    Ok(options)
}

fn key_id(text: &str) -> Result<KeyId, Failure> {
    match text.parse() {
        Ok(key_id) => Ok(key_id),
        Err(_) => public_key(text).map(|key| key.key_id()),
    }
}

/// Whether another key may sign besides this one, which is to end; else nobody could ever let one in again.
fn check_others(key: KeyId, last: bool, context: &Context) -> Result<(), Failure> {
    let ring = context.mirror(&context.ledger()?)?.keys()?;
    let has_others = ring.keys().any(|info| info.state == KeyState::Current && info.key_id != key);
    if last || has_others || ring.key(key).is_none_or(|info| info.state != KeyState::Current) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{key} is the last key that may sign: without it no key can ever be let in again; `counterfoil keys rotate` hands over to another, and --last ends it all the same"
    )))
}

#[derive(Serialize)]
struct Generated {
    key_id: KeyId,
    public_key: PublicKey,
    file: String,
}

fn generate(file: &Path, context: &Context, out: &mut Out) -> Result<(), Failure> {
    let key = generate_key_file(file)?;
    let (key_id, public_key, file) = (key.key_id(), key.public_key(), file.display().to_string());
    if out.is_json() {
        return out.json(&Generated { key_id, public_key, file });
    }
    out.line(format_args!("{key_id}"))?;
    out.line(format_args!("  private  {file}  (keep it to yourself: mode 600)"))?;
    out.line(format_args!("  public   {file}.pub  {public_key}"))?;
    let quoted = text::quoted(Path::new(&file));
    out.line(format_args!(
        "next: `{}` lets it sign; a ledger's first key is its root",
        context.command(&format!("keys add --key {quoted}"))
    ))
}

fn list(context: &Context, out: &mut Out) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    let ring = context.mirror(&ledger)?.keys()?;
    let keys: Vec<KeyInfo> = ring.keys().cloned().collect();
    if out.is_json() {
        return out.json(&keys);
    }
    if keys.is_empty() {
        return out.line("no keys; `counterfoil keys generate FILE` makes one, `counterfoil keys add --key FILE` lets it sign");
    }
    let mut sorted = keys;
    sorted.sort_by_key(|key| key.since);
    for key in &sorted {
        let seq = |name: &str, seq: Option<counterfoil::Seq>| seq.map_or(String::new(), |seq| format!("  {name} seq {seq}"));
        let reason = if key.reason.is_empty() { String::new() } else { format!("  {}", text::plain(&key.reason)) };
        let (since, until) = (seq("since", key.since), seq("until", key.until));
        out.line(format_args!("{}  {:<8}{since}{until}{reason}", key.key_id, key.state))?;
        out.line(format_args!("  {}", key.public_key))?;
    }
    out.line("as the ledger says; `counterfoil verify --root KEY` checks that it follows from a key that you trust")
}

/// Records a change, signed by the key that is given.
fn record(
    by: SignedChange,
    context: &Context,
    out: &mut Out,
    change: impl FnOnce(&MemoryKey, KeyReason) -> KeyChange,
) -> Result<(), Failure> {
    let key = read_key_file(&by.key)?;
    let reason = KeyReason::try_from(by.reason).map_err(|error| Failure::usage(error.to_string()))?;
    let change = change(&key, reason);
    let mut options = context.options.clone();
    options.create = false;
    let (mut store, _) = Store::open(&context.store, &options)?;
    let receipt = store.change_key(&change, Arc::new(key))?;
    store.close()?;
    if !out.is_json() {
        out.line(format_args!("{change}"))?;
    }
    append::print(&receipt, out)
}
