//! What a history is made of, and doing it beside other such things.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::{EntityError, Outcome};
use counterfoil::*;

use super::bank::{Bank, Command, Event, Short, State, What};

pub const MIRROR: [&str; 3] = ["mirror.sqlite3", "mirror.sqlite3-wal", "mirror.sqlite3-shm"];
pub const SNAPSHOTS: [&str; 3] = ["entities.sqlite3", "entities.sqlite3-wal", "entities.sqlite3-shm"];

#[derive(Clone)]
pub enum Op {
    Send {
        stream: String,
        key: Option<String>,
        command: Command,
        /// The future is dropped once it was polled so often.
        polls: Option<u64>,
    },
    /// Another writer.
    Outside(Vec<Draft>),
    Read(String),
    Passivate(String),
    KillEntity(String),
    KillLedger,
    KillSqlite,
    RemoveMirror,
    RemoveSnapshots,
    /// The event of this seq.
    Erase(u64),
    CloseBank,
    CloseLedger,
}

/// What came of it.
pub enum Done {
    Sent {
        by: u64,
        decided: Arc<AtomicU64>,
        /// Nothing where the future was dropped.
        answer: Option<Result<Outcome<Event>, EntityError<Short>>>,
    },
    Read {
        stream: String,
        state: Result<State, EntityError<Short>>,
    },
    Appended(Result<Vec<Receipt>, AppendError>),
    Erased(Result<EraseReport, Error>),
    Nothing,
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Send { polls: Some(_), .. } => "sends dropped half-way",
            Op::Send { key: Some(_), .. } => "keyed sends",
            Op::Send { .. } => "unkeyed sends",
            Op::Outside(_) => "outside appends",
            Op::Read(_) => "reads beside others",
            Op::Passivate(_) => "passivations",
            Op::KillEntity(_) => "entities killed",
            Op::KillLedger => "LedgerActors killed",
            Op::KillSqlite => "SqliteActors killed",
            Op::RemoveMirror => "mirrors removed while open",
            Op::RemoveSnapshots => "snapshots removed while open",
            Op::Erase(_) => "erasures",
            Op::CloseBank => "registries closed beside commands",
            Op::CloseLedger => "stores closed beside commands",
        }
    }

    pub fn text(&self) -> String {
        match self {
            Op::Send { stream, key, command, polls } => {
                let dropped = polls.map_or(String::new(), |polls| format!(" dropped after {polls} polls"));
                format!("#{} to {stream} key {key:?} {:?}{dropped}", command.by, command.what)
            }
            Op::Outside(drafts) => {
                let drafts = drafts.iter().map(|draft| format!("{} in {:?}", draft.event_type(), draft.session_id()));
                format!("outside {}", drafts.collect::<Vec<_>>().join(", "))
            }
            Op::Read(stream) | Op::Passivate(stream) | Op::KillEntity(stream) => format!("{} {stream}", self.name()),
            Op::Erase(seq) => format!("erase {seq}"),
            _ => self.name().to_owned(),
        }
    }

    /// Does it, after others were let go first so often.
    pub async fn run(self, yields: u64, bank: Bank, ledger: Ledger) -> Done {
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        match self {
            Op::Send { stream, key, command, polls } => {
                let (by, decided) = (command.by, command.decided.clone());
                let sending = Box::pin(async move { send(&bank, &stream, key.as_deref(), command).await });
                let answer = Half { future: Some(sending), left: polls.unwrap_or(u64::MAX) }.await;
                return Done::Sent { by, decided, answer };
            }
            Op::Outside(drafts) => return Done::Appended(ledger.append_batch(drafts).await),
            Op::Read(stream) => {
                let state = loop {
                    match bank.read(&stream).await {
                        Err(EntityError::Taken { .. }) => tokio::task::yield_now().await,
                        state => break state,
                    }
                };
                return Done::Read { stream, state };
            }
            Op::Passivate(stream) => bank.passivate(&stream),
            Op::KillEntity(stream) => bank.kill(&stream),
            Op::KillLedger => drop(ledger.children().await.map(|children| children.ledger.inspect(|actor| actor.kill()))),
            Op::KillSqlite => drop(ledger.children().await.map(|children| children.sqlite.inspect(|actor| actor.kill()))),
            Op::RemoveMirror => remove(ledger.dir(), &MIRROR),
            Op::RemoveSnapshots => remove(ledger.dir(), &SNAPSHOTS),
            Op::Erase(seq) => {
                let which = Erase::Seqs(vec![Seq::new(seq)..=Seq::new(seq)]);
                return Done::Erased(ledger.erase(Erasure::new(which, "a history")).await);
            }
            Op::CloseBank => bank.close().await,
            Op::CloseLedger => drop(ledger.close().await),
        }
        Done::Nothing
    }
}

/// Sends; where entities of the registry before are about to let go of the stream, again.
pub async fn send(bank: &Bank, stream: &str, key: Option<&str>, command: Command) -> Result<Outcome<Event>, EntityError<Short>> {
    loop {
        match bank.send(stream, key, command.clone()).await {
            Err(EntityError::Taken { .. }) => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

pub fn remove(dir: &Path, names: &[&str]) {
    for name in names {
        let _ = std::fs::remove_file(dir.join(name));
    }
}

/// A future that is polled so often, and then dropped.
struct Half<T> {
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    left: u64,
}

impl<T> Future for Half<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let Some(future) = &mut self.future else { return Poll::Ready(None) };
        if let Poll::Ready(done) = future.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        self.left -= 1;
        if self.left == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// Files of the store that are derived, as they are.
pub fn derived(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = MIRROR.iter().chain(&SNAPSHOTS).filter(|name| !name.ends_with("-shm")).map(|name| dir.join(name));
    paths.filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}
