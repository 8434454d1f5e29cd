//! What can become of a command.

use std::sync::Arc;

use crate::entity::{CodecError, KeyError, PoisonEvent};
use crate::{AppendError, Error};

/// Why a command was not answered with an [`Outcome`](super::Outcome), or an entity could not be asked. Unless it says otherwise,
/// nothing was recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError<E> {
    /// The entity refused the command.
    #[error(transparent)]
    Rejected(E),
    /// The command's key can't be one.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An event can't be written so that it can be read back.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The entity's code has panicked over the command. Its state is folded anew before its next one.
    #[error("`{part}` of the entity of `{session_id}` has panicked at position {position}: {message}; mend it, and send the command again")]
    Panicked {
        /// The stream.
        session_id: Arc<str>,
        /// Its last position that was folded.
        position: u64,
        /// What panicked: `decide` (with what writes its events and reads them back), `decode`, `State::default`, or a look at the state.
        part: &'static str,
        /// What the panic said.
        message: String,
    },
    /// An event of the stream can't be folded. The entity is stopped, and each command is answered so until
    /// [`Entities::forget_poison`](super::Entities::forget_poison) or the next start of the process. Where that event is one that this
    /// command has caused, it is recorded.
    #[error(transparent)]
    Poisoned(#[from] PoisonEvent),
    /// Others append to the stream faster than the command could be decided.
    #[error(
        "stream `{session_id}` was appended to by others each of the {attempts} times that the command was decided; let this entity alone append to it, or send the command again"
    )]
    Contended {
        /// The stream.
        session_id: Arc<str>,
        /// How often it was decided.
        attempts: usize,
    },
    /// Entities of another registry in this process have the stream.
    #[error("stream `{session_id}` has a live entity of `{by}` in this process; send commands for it there, or let that one go first")]
    Taken {
        /// The stream.
        session_id: Arc<str>,
        /// What the others are called.
        by: &'static str,
    },
    /// As many entities live as may, and none is idle.
    #[error("{max} entities live, which is the most that may, and none is idle; raise `entities_max`, or send the command again later")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The append was refused, or its outcome is unknown ([`AppendError::OutcomeUnknown`]).
    #[error(transparent)]
    Append(AppendError),
    /// The stream can't be read just now.
    #[error(transparent)]
    Read(Error),
    /// The answer was lost with the entity's actor: the command may or may not have been recorded.
    #[error(
        "the entity of `{session_id}` has ended before it answered; send the command again with the key that it had (one without a key may have been recorded: read the stream first)"
    )]
    OutcomeUnknown {
        /// The stream.
        session_id: Arc<str>,
    },
    /// The entity's actor has ended before it could show the state, and so have those after it. Nothing was done.
    #[error("the entity of `{session_id}` has ended each time before it could be looked at; nothing was done, so look again")]
    Unanswered {
        /// The stream.
        session_id: Arc<str>,
    },
    /// The entities were closed.
    #[error("the entities of this handle are closed; make a new handle with `Ledger::entities`")]
    Closed,
}

impl<E> EntityError<E> {
    /// Whether the entity itself refused the command.
    pub fn is_rejected(&self) -> bool {
        matches!(self, EntityError::Rejected(_))
    }

    /// Whether the command may have been recorded although this is an error: with a key it can be sent again, and is recorded once.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, EntityError::OutcomeUnknown { .. } | EntityError::Append(AppendError::OutcomeUnknown { .. }))
    }

    /// Whether the same command, sent again later, can succeed without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            EntityError::Contended { .. }
            | EntityError::Taken { .. }
            | EntityError::TooMany { .. }
            | EntityError::Unanswered { .. }
            | EntityError::OutcomeUnknown { .. } => true,
            EntityError::Append(AppendError::Busy | AppendError::Rebuilding { .. }) => true,
            EntityError::Append(AppendError::MirrorTooFarBehind { .. } | AppendError::OutcomeUnknown { .. }) => true,
            EntityError::Read(error) => error.is_retryable(),
            _ => false,
        }
    }
}
