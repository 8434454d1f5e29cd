//! The append message, and what else reaches the supervisor.

use std::sync::Arc;

use ractor::RpcReplyPort;

use super::permits::Permit;
use super::supervisor::Inner;
use crate::{AppendError, CheckedDraft, Conditions, Receipt, Seq};

/// What an append waits for before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The event is durable in the ledger.
    #[default]
    Ledger,
    /// And its row is committed in the mirror; or, past a deadline, the receipt says `MirrorBehind`.
    Mirrored,
}

/// The answer to an append: one receipt an event, in order.
pub type AppendReply = Result<Vec<Receipt>, AppendError>;

/// An append that is ready to be sent: checked drafts, with the permit to have them on their way.
///
/// [`Ledger::reserve`](super::Ledger::reserve) makes one; there is no other way.
#[derive(Debug)]
pub struct Append {
    pub(crate) drafts: Arc<Vec<CheckedDraft>>,
    pub(crate) conditions: Conditions,
    pub(crate) durability: Durability,
    /// The ids were just made, so they need no looking up.
    pub(crate) fresh: bool,
    /// Where the ledger has to wait for the mirror: wait with it, rather than say so.
    pub(crate) patient: bool,
    /// First of all the active segment is sealed, where it holds this event or one before it: what is sealed may be erased.
    pub(crate) seal_through: Option<Seq>,
    pub(crate) permit: Permit,
    pub(crate) reply: Reply,
}

impl Append {
    pub(crate) fn new(drafts: Arc<Vec<CheckedDraft>>, permit: Permit) -> Append {
        Append {
            drafts,
            conditions: Conditions::none(),
            durability: Durability::Ledger,
            fresh: false,
            patient: true,
            seal_through: None,
            permit,
            reply: Reply::none(),
        }
    }

    /// What to wait for.
    pub fn durability(mut self, durability: Durability) -> Append {
        self.durability = durability;
        self
    }

    /// What to expect of the ledger.
    pub fn conditions(mut self, conditions: Conditions) -> Append {
        self.conditions = conditions;
        self
    }

    /// The message to send to [`Ledger::address`](super::Ledger::address). An answer always comes: where the message is
    /// lost with a dying actor, it is [`AppendError::OutcomeUnknown`].
    pub fn into_message(mut self, reply: RpcReplyPort<AppendReply>) -> Message {
        self.reply = Reply::to(reply, None);
        Message(Inner::Append(self))
    }
}

/// A message to the supervisor, the stable address of a store.
#[derive(Debug)]
pub struct Message(pub(crate) Inner);

impl From<Inner> for Message {
    fn from(inner: Inner) -> Message {
        Message(inner)
    }
}

/// A reply port that answers even when it is dropped.
#[derive(Debug)]
pub(crate) struct Reply {
    port: Option<RpcReplyPort<AppendReply>>,
    /// Where its caller is, if that is known.
    runtime: Option<tokio::runtime::Id>,
}

impl Reply {
    fn none() -> Reply {
        Reply { port: None, runtime: None }
    }

    pub(crate) fn to(port: RpcReplyPort<AppendReply>, runtime: Option<tokio::runtime::Id>) -> Reply {
        Reply { port: Some(port), runtime }
    }

    /// The runtime that its caller waits on, if that is known.
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Id> {
        self.runtime
    }

    pub(crate) fn send(mut self, answer: AppendReply) {
        if let Some(port) = self.port.take() {
            // A caller that has gone away is no error.
            let _ = port.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(port) = self.port.take() {
            let _ = port.send(Err(AppendError::OutcomeUnknown { drafts: Vec::new() }));
        }
    }
}
