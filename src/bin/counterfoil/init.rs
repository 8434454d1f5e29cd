//! `init`: creates a store.

use counterfoil::{LedgerId, LedgerReader, Store, Timestamp};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;

#[derive(Serialize)]
struct Report {
    store: String,
    ledger_id: LedgerId,
    created_at: Timestamp,
    created: bool,
}

pub fn run(context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let there = context.store.join("ledger.json").exists();
    let (manifest, created) = if there {
        (LedgerReader::open(&context.store, &context.options)?.manifest().clone(), false)
    } else {
        let (store, opened) = Store::open(&context.store, &context.options)?;
        let manifest = store.manifest().clone();
        store.close()?;
        (manifest, opened.created)
    };
    let store = context.store.display();
    if out.is_json() {
        let report = Report { store: store.to_string(), ledger_id: manifest.ledger_id, created_at: manifest.created_at, created };
        out.json(&report)?;
    } else if created {
        out.line(format_args!("created {store}: ledger {}", manifest.ledger_id))?;
    } else {
        out.line(format_args!("{store} is a store already: ledger {}, created {}", manifest.ledger_id, manifest.created_at))?;
    }
    Ok(Exit::Fine)
}
