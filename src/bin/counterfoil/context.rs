//! What every command gets: the store, the options, and how to speak of it in commands to run next.

use std::path::PathBuf;
use std::sync::Arc;

use counterfoil::{LedgerReader, MirrorReader, Options, Secrets, writer_of};

use crate::args::Cli;
use crate::failure::Failure;
use crate::text;

#[derive(Clone)]
pub struct Context {
    pub store: PathBuf,
    pub json: bool,
    pub options: Options,
    /// Whether commands to run next must name the store.
    named: bool,
}

impl Context {
    pub fn new(cli: &Cli) -> Context {
        Context { store: cli.store.clone(), json: cli.json, options: Options::default(), named: Cli::names_store() }
    }

    /// The same, but that secrets are replaced in all that is appended.
    pub fn redacting(&self) -> Context {
        let mut context = self.clone();
        context.options.redactor = Some(Arc::new(Secrets::new()));
        context
    }

    /// Opens the ledger to read. Takes no lock, writes nothing.
    pub fn ledger(&self) -> Result<LedgerReader, Failure> {
        Ok(LedgerReader::open(&self.store, &self.options)?)
    }

    /// Opens the mirror to read. Takes no lock, writes nothing.
    pub fn mirror(&self, ledger: &LedgerReader) -> Result<MirrorReader, Failure> {
        Ok(MirrorReader::open(&self.store, ledger.manifest().ledger_id, self.options.mirror_busy_timeout)?)
    }

    /// Who writes to the store just now.
    pub fn writer(&self) -> Option<String> {
        writer_of(&self.store, &self.options)
    }

    /// A command of this program on this store, to be copied into a shell.
    pub fn command(&self, command: &str) -> String {
        if self.named { format!("counterfoil --store {} {command}", text::quoted(&self.store)) } else { format!("counterfoil {command}") }
    }

    /// The library's text, with the store named in the commands that it advises.
    pub fn local(&self, message: &str) -> String {
        if !self.named {
            return message.to_owned();
        }
        let (plain, named) = ("`counterfoil ", format!("`counterfoil --store {} ", text::quoted(&self.store)));
        let mut local = String::new();
        for (at, part) in message.split(plain).enumerate() {
            if at > 0 {
                local.push_str(if part.starts_with("--store ") { plain } else { &named });
            }
            local.push_str(part);
        }
        local
    }
}
