//! The boundary of a schema: an event that the ledger itself writes when the schema of what lives beside it changes, and only
//! on the head that was expected. Called by the store and by the handle; its row may be inserted by the caller. Writes nothing
//! itself but that row.
//!
//! # A cutover
//! With [`Store::begin_schema_migration`](crate::Store::begin_schema_migration) the event is durable in the ledger, and its row
//! is left to the caller, who inserts it inside a larger transaction of their own ([`Boundary::insert`]): the new schema and the
//! row that tells of it come together or not at all. What becomes of that transaction is all the same to the ledger:
//!
//! | the caller's transaction | then |
//! |---|---|
//! | commits | the next append, `catch_up` or open finds the row there, and the watermark goes over it |
//! | rolls back, or the process ends before it commits | the row is replayed by the same; the event stays: it was recorded |
//! | is run again, whenever | the same head and migration are the same event: the first receipt again; the row is there already |
//!
//! SQLite commits a transaction over several files in WAL mode file by file. A caller whose tables lie in a file of their own
//! may be stopped in between, and runs it again.

use std::fmt;

use rusqlite::Connection;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{CheckedDraft, Draft, DraftError, Event, EventHash, EventId, EventType, LedgerId, Limits, PayloadHash, Source, line};
use crate::ledger::Receipt;
use crate::mirror::{Insertion, MirrorError, insert_event, of_ledger};

const ID_CONTEXT: &str = "counterfoil 2026-11-28 schema migration id v1";

/// A change of a schema that the caller keeps beside the ledger (tables of a projection, say, or a form of payloads).
///
/// ```
/// use counterfoil::{Options, SchemaMigration, Store};
/// # let dir = tempfile::tempdir()?;
/// let (mut store, _) = Store::open(dir.path(), &Options::default())?;
/// let migration = SchemaMigration::new("acme.orders", 1, 2).script("ALTER TABLE orders ADD COLUMN note TEXT");
/// let head = store.head().event_hash;
/// let receipt = store.append_schema_migration(head, &migration)?;
/// assert!(!receipt.duplicate);
/// // Tried again, since the answer was lost, say: it is the same event.
/// assert_eq!(store.append_schema_migration(head, &migration)?.seq, receipt.seq);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SchemaMigration {
    schema: String,
    from: u64,
    to: u64,
    script: Option<PayloadHash>,
    details: Option<Box<RawValue>>,
}

/// The payload, in the order of its keys.
#[derive(Serialize)]
struct Written<'m> {
    schema: &'m str,
    from: u64,
    to: u64,
    expected_head: EventHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    script: Option<PayloadHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'m RawValue>,
}

impl SchemaMigration {
    /// Name of the event type. Only the ledger itself writes it.
    pub const EVENT_TYPE: &str = "counterfoil.schema_migration.v1";

    /// The schema of this name goes from one version to another.
    pub fn new(schema: impl Into<String>, from: u64, to: u64) -> SchemaMigration {
        SchemaMigration { schema: schema.into(), from, to, script: None, details: None }
    }

    /// What carries it out, its SQL or its program: the BLAKE3 of these bytes is recorded.
    pub fn script(mut self, bytes: impl AsRef<[u8]>) -> SchemaMigration {
        self.script = Some(crate::chain::payload_hash(bytes.as_ref()));
        self
    }

    /// Anything else to be recorded with it.
    ///
    /// # Errors
    /// [`DraftError::Payload`] where it can't be serialised.
    pub fn details(mut self, details: &(impl Serialize + ?Sized)) -> Result<SchemaMigration, DraftError> {
        let payload = crate::event::Payload::from_serialize(details)?;
        self.details = RawValue::from_string(payload.as_str().to_owned()).ok();
        Ok(self)
    }

    /// The event that it becomes on this head. Its id follows from both, so that the same migration on the same head is the
    /// same event.
    pub(crate) fn draft(&self, expected_head: EventHash, limits: &Limits) -> Result<CheckedDraft, DraftError> {
        let SchemaMigration { schema, from, to, script, details } = self;
        let written = Written { schema, from: *from, to: *to, expected_head, script: *script, details: details.as_deref() };
        let draft = Draft::new(EventType::SCHEMA_MIGRATION, Source::Runtime).payload(&written)?;
        let mut bits = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(draft.payload_bytes().as_bytes()).finalize_xof().fill(&mut bits);
        // Without a time in front, or ids of callers that come later would all have to be looked up.
        draft.id(EventId::from_u128(u128::from_le_bytes(bits) >> 48)).check(limits)
    }
}

/// A schema migration that is durable in the ledger, and whose row the caller may insert.
#[derive(Clone)]
pub struct Boundary {
    receipt: Receipt,
    ledger_id: LedgerId,
    line: Vec<u8>,
}

impl Boundary {
    pub(crate) fn new(receipt: Receipt, ledger_id: LedgerId, line: Vec<u8>) -> Boundary {
        Boundary { receipt, ledger_id, line }
    }

    /// Its receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Its line in the ledger, without LF.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Inserts its row, inside whatever transaction the connection is in: it goes where that transaction goes. The
    /// connection's main database is the mirror, or the mirror is attached to one that has no tables of its names. The
    /// watermark stays where it is until the store catches up. To be called while the store is open: that holds its lock,
    /// and so no actors run.
    ///
    /// # Errors
    /// [`MirrorError::OtherLedger`] where it is the mirror of another ledger; [`MirrorError::Conflict`] and
    /// [`MirrorError::DuplicateId`] where another row is in its place: roll back. [`MirrorError::Sqlite`], where there is
    /// no mirror among others.
    pub fn insert(&self, conn: &Connection) -> Result<Insertion, MirrorError> {
        of_ledger(conn, self.ledger_id)?;
        insert_event(conn, &self.event()?)
    }

    fn event(&self) -> Result<Event<'_>, MirrorError> {
        line::decode(&self.line).map_err(|source| MirrorError::Line { first: self.receipt.seq, source })
    }
}

impl fmt::Debug for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boundary").field("receipt", &self.receipt).finish_non_exhaustive()
    }
}
