//! A store, synchronous: lock, ledger and mirror in one hand, without actors.
//!
//! Called by programs that want no async runtime, and by tests. The actors use the same parts, each on a thread
//! of its own. Each append here is a group of its own; the actors are what makes groups form.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::attest::Signer;
use crate::erase::{EraseReport, Erased, Erasure, finish, plan};
use crate::event::{CheckedDraft, Draft, EventHash, Seq};
use crate::failpoint;
use crate::keys::{KeyChange, KeyEvent};
use crate::ledger::{
    AppendError, Claim, Conditions, DryRun, Expect, Group, Head, LedgerError, LedgerReader, LineFault, Lookup, LookupError, Manifest,
    MirrorAck, NoMirror, NotSigned, Receipt, RecoveryReport, Reformed, Refusal, Sealed, Stage, Staged, StoreLock, Stored, Watermark,
    Writer, claim, compress, recovery, segment,
};
use crate::migration::{Boundary, SchemaMigration};
use crate::mirror::{Mirror, MirrorError, MirrorFault, MirrorReader};
use crate::options::Options;
use crate::parity::{ParityReport, Replay, ReplayError, ReplayReport};
use crate::policy::ParityState;

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the store was created.
    pub created: bool,
    /// What recovery found in the ledger.
    pub recovery: RecoveryReport,
    /// Where a mirror of no use is now, if there was one and `erased` does not say that it is removed.
    pub mirror_set_aside: Option<PathBuf>,
    /// What was carried out of erasures that an earlier process had recorded, or that an older copy of a file has brought back.
    #[serde(skip_serializing_if = "Erased::is_nothing")]
    pub erased: Erased,
    /// What was replayed into the mirror.
    pub replay: ReplayReport,
}

/// The first part of every open: the lock, the manifest, and what there is for a mirror.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub lock: StoreLock,
    pub manifest: Manifest,
    pub created: bool,
    pub mirror: FoundMirror,
}

/// What there is for a mirror. It is made anew, and a broken one set aside, only once recovery has accepted the ledger:
/// an open that is refused changes nothing.
#[derive(Debug)]
pub(crate) enum FoundMirror {
    /// It is well, as far as a check at open goes.
    Well(Box<Mirror>),
    /// There is none.
    Missing,
    /// It is of no use.
    Broken(MirrorError),
    /// It can't be opened just now.
    Blocked(MirrorError),
}

impl FoundMirror {
    fn of(dir: &Path, manifest: &Manifest, options: &Options) -> Result<FoundMirror, MirrorError> {
        match Mirror::open_existing(dir, manifest, options) {
            Ok(mirror) => Ok(FoundMirror::Well(Box::new(mirror))),
            Err(MirrorError::Missing { .. }) => Ok(FoundMirror::Missing),
            Err(error) => match error.fault() {
                MirrorFault::Broken => Ok(FoundMirror::Broken(error)),
                MirrorFault::Passing => Ok(FoundMirror::Blocked(error)),
                MirrorFault::Disagrees => Err(error),
            },
        }
    }
}

/// Whether there is a mirror, be it a broken one.
fn mirror_is_there(dir: &Path) -> Result<bool, LedgerError> {
    let path = crate::mirror::mirror_path(dir);
    crate::mirror::is_there(&path).map_err(LedgerError::io("looking for", &path))
}

/// Takes the lock, reads or writes the manifest, clears tmp/, and looks at the mirror.
pub(crate) fn prepare(dir: &Path, options: &Options) -> Result<Prepared, Error> {
    let Claim { lock, manifest, created } = claim(dir, mirror_is_there(dir)?, options)?;
    let mirror = FoundMirror::of(dir, &manifest, options)?;
    Ok(Prepared { lock, manifest, created, mirror })
}

/// Recovers the ledger by what there is for a mirror; then makes the mirror anew where it has to be. Answers where a
/// broken one is now.
fn recover(
    dir: &Path,
    manifest: &Manifest,
    found: FoundMirror,
    options: &Options,
) -> Result<(Writer, RecoveryReport, Mirror, Option<PathBuf>), Error> {
    let broken = match found {
        FoundMirror::Well(mut mirror) => {
            let watermark = Some(mirror.watermark());
            let (mut writer, recovery) = Writer::open(dir, manifest, watermark, mirror.as_mut(), options)?;
            mirror.keep_sealed_ends(&writer.take_sealed_ends());
            return Ok((writer, recovery, *mirror, None));
        }
        FoundMirror::Blocked(error) => return Err(error.into()),
        FoundMirror::Missing => None,
        FoundMirror::Broken(error) => Some(error),
    };
    let (mut writer, recovery) = Writer::open(dir, manifest, None, &mut NoMirror { total: 0 }, options)?;
    let aside = broken.map(|error| crate::mirror::set_aside_since(dir, &error)).transpose()?;
    let mut mirror = Mirror::open(dir, manifest, options)?;
    mirror.keep_sealed_ends(&writer.take_sealed_ends());
    Ok((writer, recovery, mirror, aside))
}

/// What recovery would find in the ledger if the store were opened now. Changes nothing, and needs no lock; beside
/// a live writer its answer may be about bytes that are being written.
///
/// # Errors
/// What [`Store::open`] would say of the ledger: [`LedgerError::Refused`] above all.
pub fn forecast(dir: impl AsRef<Path>, options: &Options) -> Result<RecoveryReport, LedgerError> {
    let dir = dir.as_ref();
    let mut dry = options.clone();
    dry.storage = std::sync::Arc::new(DryRun(options.storage.clone()));
    let manifest = match Manifest::load(options.storage.as_ref(), dir)? {
        Some(manifest) => manifest,
        None if segment::list(options.storage.as_ref(), dir)?.is_empty() && !mirror_is_there(dir)? => {
            return Err(LedgerError::NoStore { path: dir.to_owned() });
        }
        None => return Err(Box::new(Refusal::NoManifest { path: Manifest::path(dir) }).into()),
    };
    recovery::check_genesis(options.storage.as_ref(), dir, &manifest, options.line_bytes_max)?;
    // A mirror of no use would be set aside and rebuilt, so it proves nothing.
    let mirror = MirrorReader::open(dir, manifest.ledger_id, options.mirror_busy_timeout);
    let mirror = mirror.and_then(|mirror| Ok((mirror.proven_watermark(manifest.ledger_id)?, mirror))).ok();
    let report = match mirror {
        Some((watermark, mut mirror)) => Writer::open(dir, &manifest, Some(watermark), &mut mirror, &dry)?.1,
        None => Writer::open(dir, &manifest, None, &mut NoMirror { total: 0 }, &dry)?.1,
    };
    Ok(report)
}

/// What a replay of a whole store did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FullReplay {
    /// What recovery found in the ledger.
    pub recovery: RecoveryReport,
    /// Where a mirror of no use is now, if there was one and `erased` does not say that it is removed.
    pub mirror_set_aside: Option<PathBuf>,
    /// What was carried out of erasures that an earlier process had recorded, or that an older copy of a file has brought back.
    #[serde(skip_serializing_if = "Erased::is_nothing")]
    pub erased: Erased,
    /// What was replayed.
    pub replay: ReplayReport,
    /// Both legs afterwards, byte for byte.
    pub parity: ParityReport,
}

/// Replays. Where the mirror turns out to be damaged only then (a large one is not checked as a whole at open, and there is damage that
/// SQLite's quick check passes over), it is set aside, made anew and replayed into from the start; answers where the old one is then.
/// SQLite tells a read that failed as damage, so that has to be found a second time, and all of the mirror is checked in between.
fn replayed_or_anew(
    reader: &LedgerReader,
    mut mirror: Mirror,
    (head, options): (Seq, &Options),
    erased: &mut Erased,
    run: &mut dyn FnMut(&mut Mirror) -> Result<ReplayReport, ReplayError>,
) -> Result<(Mirror, ReplayReport, Option<PathBuf>), Error> {
    let mut done = run(&mut mirror);
    if matches!(&done, Err(ReplayError::Mirror(error)) if error.may_be_unread()) {
        drop(mirror);
        mirror = Mirror::open(reader.dir(), reader.manifest(), options)?;
        done = mirror.check_indexes().map_err(ReplayError::Mirror).and_then(|()| run(&mut mirror));
    }
    match done {
        Err(ReplayError::Mirror(error)) if error.fault() == MirrorFault::Broken => {
            drop(mirror);
            let aside = crate::mirror::set_aside_since(reader.dir(), &error)?;
            let mut mirror = Mirror::open(reader.dir(), reader.manifest(), options)?;
            let replay = run(&mut mirror)?;
            erased.add(finish(reader, &mut mirror, head, options));
            Ok((mirror, replay, Some(aside)))
        }
        done => Ok((mirror, done?, None)),
    }
}

/// Opens the store in this directory, replays its whole ledger into the mirror, which is made anew where it is missing
/// or broken, compares both legs and closes the store again. `progress` is called with the last seq that is done and
/// the seq at which it ends.
///
/// # Errors
/// As [`Store::open`]; [`Error::Replay`] where a row conflicts: then nothing of its transaction was written.
pub fn replay_store(dir: impl AsRef<Path>, options: &Options, progress: &mut dyn FnMut(Seq, Seq)) -> Result<FullReplay, Error> {
    let dir = dir.as_ref();
    let mut options = options.clone();
    options.create = false;
    let Prepared { lock: _lock, manifest, mirror, .. } = prepare(dir, &options)?;
    let (mut writer, recovery, mut mirror, mirror_set_aside) = recover(dir, &manifest, mirror, &options)?;
    let (reader, head) = (LedgerReader::of(dir, manifest.clone(), &options), writer.head().seq);
    let mut erased = finish(&reader, &mut mirror, head, &options);
    let mut run = |mirror: &mut Mirror| Replay::from_start(&reader, head)?.run(mirror, &mut |report| progress(report.through, head));
    // Before and after: rows may come below the watermark, and may have done so though it ends in between.
    crate::derived::forget_sessions(dir);
    let (mirror, replay, aside) = replayed_or_anew(&reader, mirror, (head, &options), &mut erased, &mut run)?;
    if replay.replayed > 0 {
        crate::derived::forget_sessions(dir);
    }
    writer.trim()?;
    mirror.checkpoint()?;
    let parity = crate::parity::full(&reader, &options, None, &mut |_| ())?;
    let mirror_set_aside = aside.or(mirror_set_aside).filter(|aside| !erased.has_removed(aside));
    Ok(FullReplay { recovery, mirror_set_aside, erased, replay, parity })
}

/// Erases payloads of the store in this directory, for good, and closes it again; see [`Store::erase`]. Takes the lock.
///
/// # Errors
/// As [`Store::open`] and [`Store::erase`].
pub fn erase(dir: impl AsRef<Path>, options: &Options, erasure: &Erasure) -> Result<EraseReport, Error> {
    let mut options = options.clone();
    options.create = false;
    let (mut store, opened) = Store::open(dir, &options)?;
    let mut report = store.erase(erasure)?;
    let mut done = opened.erased;
    done.add(std::mem::take(&mut report.done));
    report.done = done;
    store.close()?;
    Ok(report)
}

/// A store, open to append. One per store at a time.
pub struct Store {
    dir: PathBuf,
    options: Options,
    manifest: Manifest,
    writer: Writer,
    mirror: Mirror,
    /// Dropped last: the lock outlives all that writes.
    _lock: StoreLock,
}

impl Store {
    /// Opens the store in this directory, creating it where there is none, and recovers whatever a crash has left:
    /// the ledger's tail first, then the mirror from the ledger.
    ///
    /// # Errors
    /// [`Error`]: among others [`LedgerError::Locked`], and [`LedgerError::Refused`] where recovery would have to guess.
    ///
    /// ```
    /// use counterfoil::{Draft, EventType, Options, Source, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// let (mut store, _) = Store::open(&path, &Options::default())?;
    /// let receipt = store.append(Draft::new(EventType::SYSTEM_NOTE, Source::Runtime).payload("hello")?)?;
    /// assert_eq!(receipt.seq.get(), 1);
    /// store.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<(Store, OpenReport), Error> {
        let dir = dir.as_ref();
        let Prepared { lock, manifest, created, mirror } = prepare(dir, options)?;
        let (mut writer, recovery, mut mirror, mirror_set_aside) = recover(dir, &manifest, mirror, options)?;
        let (reader, head) = (LedgerReader::of(dir, manifest.clone(), options), writer.head().seq);
        // First: what is replayed is to have no payload that is to be erased.
        let mut erased = finish(&reader, &mut mirror, head, options);
        let mut run = |mirror: &mut Mirror| Replay::from_watermark(&reader, mirror, head)?.run(mirror, &mut |_| ());
        let (mirror, replay, aside) = replayed_or_anew(&reader, mirror, (head, options), &mut erased, &mut run)?;
        writer.mirrored_through(mirror.watermark().seq);
        let mirror_set_aside = aside.or(mirror_set_aside).filter(|aside| !erased.has_removed(aside));
        let report = OpenReport { created, recovery, mirror_set_aside, erased, replay };
        Ok((Store { dir: dir.to_owned(), options: options.clone(), manifest, writer, mirror, _lock: lock }, report))
    }

    /// Appends one event: durable in the ledger, then committed in the mirror.
    ///
    /// # Errors
    /// [`AppendError`]. Where the mirror can't be written, the receipt says [`MirrorAck::MirrorBehind`].
    pub fn append(&mut self, draft: Draft) -> Result<Receipt, Error> {
        self.append_expecting(draft, &Expect::Any)
    }

    /// Appends one event where the ledger is as the caller expects.
    ///
    /// # Errors
    /// As [`Store::append`]; a mismatch names what was expected and what is.
    pub fn append_expecting(&mut self, draft: Draft, expect: &Expect) -> Result<Receipt, Error> {
        let conditions = Conditions::for_draft(&draft, expect).ok_or(AppendError::NoSession)?;
        let mut receipts = self.append_batch(vec![draft], &conditions)?;
        receipts.pop().ok_or(Error::Append(AppendError::EmptyBatch))
    }

    /// Appends a batch: all of it or none, across any crash.
    ///
    /// # Errors
    /// As [`Store::append`]; [`AppendError::BatchTooLarge`] where it does not fit a group.
    pub fn append_batch(&mut self, drafts: Vec<Draft>, conditions: &Conditions) -> Result<Vec<Receipt>, Error> {
        let limits = self.options.limits();
        let drafts = drafts.into_iter().map(|draft| draft.check(&limits)).collect::<Result<Vec<_>, _>>()?;
        self.append_checked(&drafts, conditions)
    }

    fn append_checked(&mut self, drafts: &[CheckedDraft], conditions: &Conditions) -> Result<Vec<Receipt>, Error> {
        let (mut receipts, group) = self.append_to_ledger(drafts, conditions)?;
        let mirrored = match group {
            Some(group) if self.mirror.watermark().seq.next() == group.first => {
                self.mirror.check_in_place().and_then(|()| self.mirror.apply(&group)).map(drop).map_err(Error::from)
            }
            _ if self.mirror.watermark().seq < self.writer.head().seq => self.catch_up().map(drop),
            _ => Ok(()),
        };
        if let Err(error) = mirrored {
            tracing::warn!(%error, "the mirror is behind");
        }
        let through = self.mirror.watermark().seq;
        self.writer.mirrored_through(through);
        for receipt in &mut receipts {
            receipt.mirror = if receipt.seq <= through { MirrorAck::Mirrored } else { MirrorAck::MirrorBehind };
        }
        Ok(receipts)
    }

    /// What signs from now on what brings no signer of its own, as behind a rotation; with None nothing does.
    pub fn sign_with(&mut self, signer: Option<Signer>) {
        self.writer.sign_with(signer);
    }

    /// Records a change to the ledger's keys, signed with this one.
    ///
    /// # Errors
    /// As [`Store::append`]; [`AppendError::Key`] where the change does not follow from the keys that the ledger has.
    pub fn change_key(&mut self, change: &KeyChange, signer: impl Into<Signer>) -> Result<Receipt, Error> {
        self.append(change.draft()?.sign_with(signer))
    }

    /// The ledger's half of an append: durable when this returns. What the mirror is to commit comes along, unless it is
    /// in the ledger already.
    fn append_to_ledger(&mut self, drafts: &[CheckedDraft], conditions: &Conditions) -> Result<(Vec<Receipt>, Option<Group>), Error> {
        let behind = self.writer.unmirrored() as u64;
        self.writer.parity_is(if behind == 0 { ParityState::Consistent } else { ParityState::Lagging { events: behind } });
        let mut lookup = Covering { floor: self.writer.floor(), total: self.writer.head().seq, mirror: &mut self.mirror };
        let Stage::Staged(Staged { receipts, durable }) = self.writer.stage(drafts, conditions, false, &mut lookup)? else {
            return Ok((Vec::new(), None)); // the group is empty before each append, so it is never too full
        };
        if let Err(NotSigned { mut failed, .. }) = self.writer.sign() {
            let error = failed.drain(..).next().map(|(_, error)| AppendError::Attest(error));
            return Err(error.unwrap_or(AppendError::EmptyBatch).into());
        }
        #[cfg(counterfoil_canary)]
        if crate::canary::on(crate::canary::Canary::MirrorFirst)
            && let Some(group) = self.writer.unwritten_group()
        {
            let _ = self.mirror.apply(&group);
        }
        let group = if durable { None } else { self.writer.flush()? };
        Ok((receipts, group))
    }

    /// Appends `counterfoil.schema_migration.v1` where the ledger's head is the expected one: durable in the ledger, then
    /// committed in the mirror. The same migration on the same head is recorded once, however often it is appended.
    ///
    /// # Errors
    /// [`AppendError::WrongHead`] where the head is another one, with both; nothing is written then. Else as [`Store::append`].
    pub fn append_schema_migration(&mut self, expected_head: EventHash, migration: &SchemaMigration) -> Result<Receipt, Error> {
        let draft = migration.draft(expected_head, &self.options.limits())?;
        let mut receipts = self.append_checked(&[draft], &Conditions::none().head(expected_head))?;
        receipts.pop().ok_or(Error::Append(AppendError::EmptyBatch))
    }

    /// The same, but its row is left for the caller to insert inside a larger transaction: see [`Boundary`]. Everything
    /// before it is mirrored first.
    ///
    /// ```
    /// use counterfoil::{Insertion, Options, SchemaMigration, Store, rusqlite};
    /// # let dir = tempfile::tempdir()?;
    /// let (mut store, _) = Store::open(dir.path(), &Options::default())?;
    /// let head = store.head().event_hash;
    /// let boundary = store.begin_schema_migration(head, &SchemaMigration::new("acme.orders", 0, 1))?;
    /// let mut conn = rusqlite::Connection::open(store.mirror_mut().path())?;
    /// let transaction = conn.transaction()?;
    /// transaction.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY)")?;
    /// assert_eq!(boundary.insert(&transaction)?, Insertion::Inserted);
    /// transaction.commit()?;
    /// store.catch_up()?;
    /// assert_eq!(store.watermark().seq, boundary.receipt().seq);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::append_schema_migration`], and as [`Store::catch_up`]; nothing is written then.
    pub fn begin_schema_migration(&mut self, expected_head: EventHash, migration: &SchemaMigration) -> Result<Boundary, Error> {
        let draft = migration.draft(expected_head, &self.options.limits())?;
        if self.mirror.watermark().seq < self.writer.head().seq {
            self.catch_up()?;
        }
        let (mut receipts, _) = self.append_to_ledger(&[draft], &Conditions::none().head(expected_head))?;
        let mut receipt = receipts.pop().ok_or(AppendError::EmptyBatch)?;
        if receipt.seq <= self.mirror.watermark().seq {
            receipt.mirror = MirrorAck::Mirrored;
        }
        let reader = LedgerReader::of(&self.dir, self.manifest.clone(), &self.options);
        let line = reader.line(receipt.seq)?.ok_or_else(|| LedgerError::Damaged {
            path: self.dir.join("segments"),
            offset: 0,
            reason: LineFault::Seq { expected: receipt.seq, found: Seq::ZERO },
        })?;
        Ok(Boundary::new(receipt, self.manifest.ledger_id, line))
    }

    /// Replays into the mirror what it lacks.
    ///
    /// # Errors
    /// [`Error::Replay`]; [`Error::Mirror`] where its files are no longer those that were opened: the next open rebuilds it.
    pub fn catch_up(&mut self) -> Result<ReplayReport, Error> {
        self.mirror.check_in_place()?;
        let reader = LedgerReader::of(&self.dir, self.manifest.clone(), &self.options);
        let report = Replay::from_watermark(&reader, &self.mirror, self.writer.head().seq)?.run(&mut self.mirror, &mut |_| ())?;
        self.writer.mirrored_through(self.mirror.watermark().seq);
        Ok(report)
    }

    /// Compresses sealed segments; answers with those that it was done to. Readers take both forms.
    ///
    /// # Errors
    /// [`Error::Ledger`], as [`crate::compress()`] without the lock.
    pub fn compress(&mut self, which: &Sealed) -> Result<Vec<Reformed>, Error> {
        let mut done = Vec::new();
        compress::reform(&self.dir, &self.options, which, compress::Form::Compressed, &|| false, &mut |one| done.push(one))?;
        Ok(done)
    }

    /// Erases payloads in ledger, blobs, torn/, mirror and snapshots of entities, for good: records it, then carries it out. The events stay, with their
    /// hashes. Where it can't be carried out as a whole just now (`unfinished` in the report says why), the next open does the
    /// rest. Each page of the mirror is written anew, which takes as long as the mirror is large.
    ///
    /// # Errors
    /// [`Error::Erase`] where it is refused; else as [`Store::append`] for the event that records it.
    ///
    /// ```
    /// use counterfoil::{Draft, Erase, Erasure, EventType, Options, Source, Store};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// let (mut store, _) = Store::open(&path, &Options::default())?;
    /// let secret = store.append(Draft::new(EventType::USER_MESSAGE, Source::User).payload("my password is hunter2")?)?;
    /// let report = store.erase(&Erasure::new(Erase::Ids(vec![secret.id]), "a password").by("the owner"))?;
    /// assert_eq!((report.events, report.done.unfinished), (1, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn erase(&mut self, erasure: &Erasure) -> Result<EraseReport, Error> {
        let reader = LedgerReader::of(&self.dir, self.manifest.clone(), &self.options);
        let head = self.writer.head().seq;
        if self.mirror.watermark().seq < head {
            self.catch_up()?;
        }
        let (mut report, drafts, last) = plan(&reader, &mut self.mirror, head, erasure, &self.options).map_err(Error::Erase)?;
        if erasure.dry_run {
            return Ok(report);
        }
        if let Some(last) = last {
            self.writer.seal_through(last)?;
            self.options.at(failpoint::ERASE_RECORD).map_err(LedgerError::io("erasing in", &self.dir))?;
            report.recorded = self.append_batch(drafts, &Conditions::none())?.iter().map(|receipt| receipt.seq).collect();
            self.options.at(failpoint::ERASE_RECORDED).map_err(LedgerError::io("erasing in", &self.dir))?;
        }
        report.done = finish(&reader, &mut self.mirror, self.writer.head().seq, &self.options);
        Ok(report)
    }

    /// The durable head.
    pub fn head(&self) -> Head {
        self.writer.head()
    }

    /// How far the mirror is.
    pub fn watermark(&self) -> Watermark {
        self.mirror.watermark()
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A reader of the ledger.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub fn reader(&self) -> Result<LedgerReader, Error> {
        Ok(LedgerReader::open(&self.dir, &self.options)?)
    }

    /// A reader of the mirror.
    ///
    /// # Errors
    /// [`Error::Mirror`].
    pub fn mirror_reader(&self) -> Result<MirrorReader, Error> {
        Ok(MirrorReader::open(&self.dir, self.manifest.ledger_id, self.options.mirror_busy_timeout)?)
    }

    /// The mirror itself, for a cutover inside a transaction of the caller's own: see [`Mirror::transaction`].
    pub fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// Closes the store: releases reserved space, empties the WAL, lets go of the lock. Dropping it is safe too.
    ///
    /// # Errors
    /// [`Error`], where that fails; nothing that was acknowledged is at risk.
    pub fn close(mut self) -> Result<(), Error> {
        self.writer.trim()?;
        self.mirror.checkpoint()?;
        Ok(())
    }
}

/// Looks up in the mirror, as long as it covers what the writer has forgotten.
pub(crate) struct Covering<'m, L: Lookup> {
    pub floor: Seq,
    pub total: Seq,
    pub mirror: &'m mut L,
}

impl Covering<'_, Mirror> {
    fn check(&self) -> Result<(), LookupError> {
        let done = self.mirror.watermark().seq;
        if done < self.floor {
            return NoMirror { total: self.total.get() }.id_max().map(|_| ());
        }
        Ok(())
    }
}

impl Lookup for Covering<'_, Mirror> {
    fn by_id(&mut self, id: crate::event::EventId) -> Result<Option<Stored>, LookupError> {
        self.check()?;
        self.mirror.by_id(id)
    }
    fn session_seq(&mut self, session_id: &str) -> Result<Option<u64>, LookupError> {
        self.check()?;
        self.mirror.session_seq(session_id)
    }
    fn key_events(&mut self, through: Seq) -> Result<Vec<KeyEvent>, LookupError> {
        self.check()?;
        self.mirror.key_events(through)
    }
    fn id_max(&mut self) -> Result<Option<crate::event::EventId>, LookupError> {
        self.check()?;
        self.mirror.id_max()
    }
}
