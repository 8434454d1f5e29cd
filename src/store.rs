//! A store, synchronous: lock, ledger and mirror in one hand, without actors.
//!
//! Called by programs that want no async runtime, and by tests. The actors use the same parts, each on a thread
//! of its own. Each append here is a group of its own; the actors are what makes groups form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::Error;
use crate::attest::Attestor;
use crate::event::{Draft, Seq};
use crate::keys::{KeyChange, KeyEvent};
use crate::ledger::{
    AppendError, Claim, Conditions, DryRun, Expect, Head, LedgerError, LedgerReader, Lookup, LookupError, Manifest, MirrorAck, NoMirror,
    NotSigned, Receipt, RecoveryReport, Reformed, Refusal, Sealed, Stage, Staged, StoreLock, Stored, Watermark, Writer, claim, compress,
    recovery, segment,
};
use crate::mirror::{Mirror, MirrorError, MirrorFault, MirrorReader, set_aside};
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
    /// Where a mirror of no use is now, if there was one.
    pub mirror_set_aside: Option<PathBuf>,
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
    /// Where a mirror of no use is now, if there was one.
    pub mirror_set_aside: Option<PathBuf>,
    /// What was replayed.
    pub replay: ReplayReport,
    /// Both legs afterwards, byte for byte.
    pub parity: ParityReport,
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
    let (mut writer, recovery, mut mirror, mut mirror_set_aside) = recover(dir, &manifest, mirror, &options)?;
    let (reader, head) = (LedgerReader::of(dir, manifest.clone(), &options), writer.head().seq);
    let mut run = |mirror: &mut Mirror| Replay::from_start(&reader, head)?.run(mirror, &mut |report| progress(report.through, head));
    let replay = match run(&mut mirror) {
        // Damage that shows only when the rows are read: a large database is not checked as a whole at open.
        Err(ReplayError::Mirror(error)) if error.fault() == MirrorFault::Broken => {
            drop(mirror);
            mirror_set_aside = Some(set_aside(dir)?);
            mirror = Mirror::open(dir, &manifest, &options)?;
            run(&mut mirror)?
        }
        done => done?,
    };
    writer.trim()?;
    mirror.checkpoint()?;
    let parity = crate::parity::full(&reader, &options, None, &mut |_| ())?;
    Ok(FullReplay { recovery, mirror_set_aside, replay, parity })
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
        let reader = LedgerReader::of(dir, manifest.clone(), options);
        let replay = Replay::from_watermark(&reader, &mirror, writer.head().seq)?.run(&mut mirror, &mut |_| ())?;
        writer.mirrored_through(mirror.watermark().seq);
        let report = OpenReport { created, recovery, mirror_set_aside, replay };
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
        let behind = self.writer.unmirrored() as u64;
        self.writer.parity_is(if behind == 0 { ParityState::Consistent } else { ParityState::Lagging { events: behind } });
        let mut lookup = Covering { floor: self.writer.floor(), total: self.writer.head().seq, mirror: &mut self.mirror };
        let Stage::Staged(Staged { mut receipts, durable }) = self.writer.stage(&drafts, conditions, false, &mut lookup)? else {
            return Ok(Vec::new()); // the group is empty before each append, so it is never too full
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

    /// Records a change to the ledger's keys, signed with this one.
    ///
    /// # Errors
    /// As [`Store::append`]; [`AppendError::Key`] where the change does not follow from the keys that the ledger has.
    pub fn change_key(&mut self, change: &KeyChange, attestor: Arc<dyn Attestor>) -> Result<Receipt, Error> {
        self.append(change.draft()?.sign_with(attestor))
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
