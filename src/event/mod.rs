//! What an event is: drafts, sealed events, and the line that holds one.
//!
//! Called by every layer above. Does no I/O, knows no clock and no tokio: times and ids are handed in.
//!
//! The path of an event: a [`Draft`] is what a caller wants recorded; [`Draft::check`] turns it into a
//! [`CheckedDraft`], whose payload is normalised and hashed; the ledger *seals* it into an [`Event`]
//! (assigns its seq, link and hash); [`line::encode`] and [`line::decode`] go between an event and its
//! line, byte for byte.

mod draft;
pub(crate) mod erasure;
mod ids;
pub mod line;
mod payload;
mod sealed;
mod source;
mod timestamp;
mod types;

pub(crate) use draft::{Brought, Place};
pub use draft::{CheckedDraft, ContentDigest, Draft, DraftError, Limits};
pub use ids::{EventHash, EventId, IdError, LedgerId, PayloadHash, Seq, TraceId};
pub(crate) use ids::{as_text, parse_hex32, push_hex};
pub use line::{LineError, LineProblem};
pub use payload::{Payload, PayloadError};
pub use sealed::{Body, Event, EventRecord};
pub use source::Source;
pub use timestamp::{Timestamp, TimestampError};
pub use types::{EventType, EventTypeError};
