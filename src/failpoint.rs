//! The places in the code where a test can make a failure or a crash happen: every name, and what lies on its two sides.
//!
//! Used by whoever does the step, through `Options::at`, and by the tests, through `Options::failpoint`. Where no
//! failpoint is set, and nothing outside tests sets one, a place costs one look at an `Option`.

macro_rules! failpoints {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

failpoints! {
    /// A new store's directory and LOCK are there, ledger.json is not.
    STORE_CREATE = "store.create";
    /// ledger.json is there and durable; there is no mirror yet.
    STORE_CREATED = "store.created";
    /// A group is sealed and has its room; none of its bytes are written.
    LEDGER_WRITE = "ledger.write";
    /// Its bytes are written, and not fsynced.
    LEDGER_SYNC = "ledger.sync";
    /// They are fsynced; nobody has been told.
    LEDGER_SYNCED = "ledger.synced";
    /// Space for a group is about to be reserved.
    LEDGER_RESERVE = "ledger.reserve";
    /// The active segment is full, and still has its fill.
    LEDGER_ROTATE_TRIM = "ledger.rotate.trim";
    /// It is trimmed; the next segment is not there.
    LEDGER_ROTATE = "ledger.rotate";
    /// The next segment is there, and its directory not fsynced.
    LEDGER_ROTATE_SYNC = "ledger.rotate.sync";
    /// It is durable and empty.
    LEDGER_ROTATED = "ledger.rotated";
    /// The ledger closes, and the active segment still has its fill.
    LEDGER_TRIM = "ledger.trim";
    /// Recovery has found a torn tail, and has kept no copy of it yet.
    RECOVERY_SAVE = "recovery.save";
    /// The copy is durable; the tail still stands.
    RECOVERY_SAVED = "recovery.saved";
    /// What is kept is written again, and the tail not cut.
    RECOVERY_CUT = "recovery.cut";
    /// It is cut, and not fsynced.
    RECOVERY_SYNC = "recovery.sync";
    /// The segment is as it will be; the mirror has not been told.
    RECOVERY_DONE = "recovery.done";
    /// A transaction of the mirror is about to begin.
    MIRROR_BEGIN = "mirror.begin";
    /// Rows and watermark are in it, and not committed.
    MIRROR_COMMIT = "mirror.commit";
    /// They are committed; nobody knows.
    MIRROR_COMMITTED = "mirror.committed";
    /// The WAL is about to be emptied.
    MIRROR_CHECKPOINT = "mirror.checkpoint";
    /// Lines of a replay's step are read and checked; their transaction has not begun.
    REPLAY_STEP = "replay.step";
    /// A segment is about to be put together from what both legs have.
    REPAIR_SEGMENT = "repair.segment";
    /// It lies under tmp/, and is not fsynced.
    REPAIR_SYNC = "repair.sync";
    /// It is durable there; the file that it replaces is not kept yet.
    REPAIR_KEEP = "repair.keep";
    /// That is kept too; the new one does not have its name.
    REPAIR_RENAME = "repair.rename";
    /// It has its name, and the directory is not fsynced.
    REPAIR_RENAMED = "repair.renamed";
    /// A file that is no segment is kept, and about to be removed.
    REPAIR_STRAY = "repair.stray";
    /// A copy of the mirror is made; its rows are about to be derived anew.
    REPAIR_DERIVE = "repair.derive";
    /// A sealed segment's other form lies under tmp/, and is not fsynced.
    COMPRESS_SYNC = "compress.sync";
    /// It is durable there, and was compared; it does not have its name.
    COMPRESS_RENAME = "compress.rename";
    /// It has its name, and the directory is not fsynced.
    COMPRESS_RENAMED = "compress.renamed";
    /// Both forms are there, and durable.
    COMPRESS_REMOVE = "compress.remove";
    /// The old one is removed, and the directory not fsynced.
    COMPRESS_REMOVED = "compress.removed";
    /// A checkpoint is signed, and nothing of it stored.
    CHECKPOINT_WRITE = "checkpoint.write";
    /// It is written in the store, and not fsynced.
    CHECKPOINT_SYNC = "checkpoint.sync";
    /// It is durable there; no anchor has it.
    CHECKPOINT_SYNCED = "checkpoint.synced";
    /// The anchors have been given it; nobody else knows.
    CHECKPOINT_ANCHORED = "checkpoint.anchored";
    /// The segments that hold what is to be erased are sealed; that it is to be erased is not recorded.
    ERASE_RECORD = "erase.record";
    /// It is recorded, durably; nothing of it is done.
    ERASE_RECORDED = "erase.recorded";
    /// A file without the erased payloads lies under tmp/, and is not fsynced.
    ERASE_SYNC = "erase.sync";
    /// It is durable there, and was compared; it does not have its name.
    ERASE_RENAME = "erase.rename";
    /// It has its name, and the directory is not fsynced.
    ERASE_RENAMED = "erase.renamed";
    /// A file that holds an erased payload and nothing else of use is about to be removed: a blob, torn bytes, a broken mirror set aside.
    ERASE_REMOVE = "erase.remove";
    /// It is removed, and the directory not fsynced.
    ERASE_REMOVED = "erase.removed";
    /// A mirror that was set aside has the payloads.
    ERASE_ASIDE = "erase.aside";
    /// Its rows are erased; its pages are not written anew.
    ERASE_ASIDE_ROWS = "erase.aside.rows";
    /// The ledger's side is done; the rows still have the payloads.
    ERASE_ROWS = "erase.rows";
    /// Rows are erased, and not committed.
    ERASE_ROWS_COMMIT = "erase.rows.commit";
    /// They are committed; snapshots of entities that were folded from the payloads are there.
    ERASE_SNAPSHOTS = "erase.snapshots";
    /// Those are gone; pages of the mirror that are out of use may hold the payloads.
    ERASE_VACUUM = "erase.vacuum";
    /// The mirror's pages are written anew; its WAL may hold the payloads.
    ERASE_WAL = "erase.wal";
    /// The WAL is empty; that all is done is not noted.
    ERASE_DONE = "erase.done";
    /// LedgerActor has an append in hand, not staged.
    ACTOR_LEDGER_APPEND = "actor.ledger.append";
    /// A group is durable; its callers have not been told.
    ACTOR_LEDGER_SYNCED = "actor.ledger.synced";
    /// They have been told; the group has not been sent to SqliteActor.
    ACTOR_LEDGER_SEND = "actor.ledger.send";
    /// SqliteActor has a group in hand; no transaction has begun.
    ACTOR_SQLITE_COMMIT = "actor.sqlite.commit";
    /// Its rows are committed; those who wait for them have not been told.
    ACTOR_SQLITE_COMMITTED = "actor.sqlite.committed";
    /// They have been told; LedgerActor has not.
    ACTOR_SQLITE_ANSWERED = "actor.sqlite.answered";
    /// It is to carry out an erasure, and waits for whoever gives segments other files.
    ACTOR_SQLITE_ERASE = "actor.sqlite.erase";
    /// ParityActor is about to make a step of its replay.
    ACTOR_PARITY_STEP = "actor.parity.step";
}
