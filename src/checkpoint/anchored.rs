//! Checks a ledger against checkpoints that were kept elsewhere: it must reach each of them, and have its root there.
//!
//! Called by the command, together with verify, in the same pass over the ledger. Only reads.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::tree::Edge;
use crate::attest::PublicKey;
use crate::event::Seq;
use crate::ledger::{FsStorage, Head, LedgerError, LedgerReader, notes};
use crate::note::{self, NoteError, SignatureFault, TreeHash};
use crate::verify::{SignatureRules, VerifyReport, verify_watched};

/// Checkpoints that are checked at once: 4 million, which take 200 MB. One a minute makes half a million a year.
const CHECKPOINTS_MAX: usize = 1 << 22;
/// Failures that a report lists at most; the count goes on.
const LISTED_MAX: usize = 1000;

/// What is wrong with a checkpoint that was kept elsewhere, or with the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnchorFault {
    /// There are bytes that are no checkpoint.
    #[error("no checkpoint: {0}")]
    Form(#[from] NoteError),
    /// There is none at all, so that it proves nothing.
    #[error("the file has no checkpoint")]
    Nothing,
    /// It is another ledger's.
    #[error("a checkpoint of {found}, not of this ledger")]
    Origin {
        /// Whose.
        found: String,
    },
    /// It is not signed by a key that was given.
    #[error(transparent)]
    Signature(#[from] SignatureFault),
    /// The ledger has lost events since.
    #[error("LOST: the ledger has only {found} events")]
    Shorter {
        /// How many it has.
        found: u64,
    },
    /// The ledger had other events then.
    #[error("REWRITTEN: the ledger's events up to there have root {found}, and {signed} was signed")]
    Diverged {
        /// The root that was signed.
        signed: TreeHash,
        /// The root that it has.
        found: TreeHash,
    },
    /// A line before it is wrong, so that there is no telling.
    #[error("the ledger is right only up to seq {right}, so its root there can't be told")]
    Damaged {
        /// The last seq before the damage.
        right: Seq,
    },
}

impl AnchorFault {
    /// Whether the checkpoint is right, and the ledger is not.
    fn is_the_ledgers(&self) -> bool {
        matches!(self, AnchorFault::Shorter { .. } | AnchorFault::Diverged { .. } | AnchorFault::Damaged { .. })
    }
}

/// A checkpoint that the ledger does not fit, or that is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AnchorFailure {
    /// The file that it is in.
    pub path: PathBuf,
    /// Where it begins there.
    pub offset: u64,
    /// How many events it covers.
    pub size: Option<u64>,
    /// What is wrong.
    #[serde(serialize_with = "as_text")]
    pub reason: AnchorFault,
}

fn as_text<S: Serializer>(reason: &AnchorFault, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(reason)
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AnchorReport {
    /// Checkpoints that the ledger was held against.
    pub checkpoints: u64,
    /// The last event that one of them covers, of those that the ledger fits.
    pub covered: u64,
    /// Whether their signatures were verified.
    pub signatures_verified: bool,
    /// Bytes at the end of a file that are the beginning of a checkpoint, which a crash has cut off.
    pub unfinished: u64,
    /// How many checkpoints the ledger does not fit, or are none.
    pub failures_count: u64,
    /// The first thousand of them.
    pub failures: Vec<AnchorFailure>,
}

impl AnchorReport {
    /// Whether the ledger fits all of them.
    pub fn is_clean(&self) -> bool {
        self.failures_count == 0
    }

    fn fail(&mut self, failure: AnchorFailure) {
        self.failures_count += 1;
        if self.failures.len() < LISTED_MAX {
            self.failures.push(failure);
        }
    }
}

impl fmt::Display for AnchorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let is_ledgers = |failure: &AnchorFailure| failure.reason.is_the_ledgers();
        let says = match self.is_clean() {
            true => "the ledger fits every checkpoint",
            false if self.failures.iter().any(is_ledgers) => "THE LEDGER IS NOT WHAT WAS SIGNED",
            false => "NOT ALL OF THAT IS A SIGNED CHECKPOINT OF THIS LEDGER",
        };
        writeln!(f, "anchors: {says}")?;
        let signed = if self.signatures_verified { "signatures verified" } else { "signatures not verified: no key was given" };
        writeln!(f, "  checkpoints {} ({signed})", self.checkpoints)?;
        writeln!(f, "  covered     {} event{}", self.covered, plural(self.covered))?;
        if self.unfinished > 0 {
            writeln!(f, "  unfinished  {} bytes of a checkpoint that was not written to its end", self.unfinished)?;
        }
        if self.failures_count > 0 {
            writeln!(f, "  failures    {}", self.failures_count)?;
        }
        for AnchorFailure { path, offset, size, reason } in &self.failures {
            let size = size.map_or(String::new(), |size| format!(", {size} event{}", plural(size)));
            // A name may have line breaks, which would be lines of the report.
            let path = path.display().to_string().replace(char::is_control, "\u{fffd}");
            writeln!(f, "    {path} (byte {offset}){size}: {reason}")?;
        }
        if self.failures_count > self.failures.len() as u64 {
            writeln!(f, "    and {} more", self.failures_count - self.failures.len() as u64)?;
        }
        Ok(())
    }
}

/// Checkpoints from elsewhere.
#[derive(Debug)]
pub struct Anchored {
    origin: String,
    keys: Vec<PublicKey>,
    paths: Vec<PathBuf>,
    all: Vec<Kept>,
    report: AnchorReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    size: u64,
    root: TreeHash,
    path: u32,
    offset: u64,
}

impl Anchored {
    /// Checkpoints of this reader's ledger, to be signed by one of these keys; without keys their signatures are not looked at.
    pub fn new(reader: &LedgerReader, keys: &[PublicKey]) -> Anchored {
        let report = AnchorReport { signatures_verified: !keys.is_empty(), ..AnchorReport::default() };
        let origin = note::origin(reader.manifest().ledger_id);
        Anchored { origin, keys: keys.to_vec(), paths: Vec::new(), all: Vec::new(), report }
    }

    /// Adds those of a file, which has one or more.
    ///
    /// # Errors
    /// [`LedgerError::Io`]. What is in the file and can't be checked is a failure in the report.
    pub fn read(&mut self, path: &Path) -> Result<(), LedgerError> {
        let (before, number) = (self.report.checkpoints, self.paths.len() as u32);
        self.paths.push(path.to_owned());
        let mut end = 0;
        let all = notes::each(&FsStorage, path, |offset, found| {
            let fail = |size, reason| AnchorFailure { path: path.to_owned(), offset, size, reason };
            match found {
                notes::Found::Other(error) => self.report.fail(fail(None, error.into())),
                notes::Found::Unfinished => end = offset,
                notes::Found::Checkpoint(checkpoint) => {
                    self.report.checkpoints += 1;
                    let size = Some(checkpoint.size());
                    if checkpoint.origin() != self.origin {
                        self.report.fail(fail(size, AnchorFault::Origin { found: checkpoint.origin().to_owned() }));
                    } else if let Some(Err(fault)) = (!self.keys.is_empty()).then(|| checkpoint.verify(&self.keys)) {
                        self.report.fail(fail(size, fault.into()));
                    } else if self.all.len() >= CHECKPOINTS_MAX {
                        return Err(io::Error::other(format!("more than {CHECKPOINTS_MAX} checkpoints at once; give the newer ones")));
                    } else {
                        self.all.push(Kept { size: checkpoint.size(), root: checkpoint.root(), path: number, offset });
                    }
                }
            }
            Ok(())
        });
        all.map_err(LedgerError::io("reading", path))?;
        if end > 0 {
            let len = std::fs::metadata(path).map_err(LedgerError::io("reading", path))?.len();
            self.report.unfinished += len.saturating_sub(end);
        }
        if self.report.checkpoints == before {
            self.report.fail(AnchorFailure { path: path.to_owned(), offset: 0, size: None, reason: AnchorFault::Nothing });
        }
        Ok(())
    }

    fn failure(&self, kept: &Kept, reason: AnchorFault) -> AnchorFailure {
        let path = self.paths.get(kept.path as usize).cloned().unwrap_or_default();
        AnchorFailure { path, offset: kept.offset, size: Some(kept.size), reason }
    }
}

/// The tree over a ledger's lines as verify finds them right, held against checkpoints on the way.
pub(crate) struct Roots {
    edge: Edge,
    anchored: Anchored,
    /// How many of the checkpoints it has come by, which are in the order of their sizes.
    passed: usize,
}

impl Roots {
    fn new(mut anchored: Anchored) -> Roots {
        anchored.all.sort_unstable();
        let mut roots = Roots { edge: Edge::default(), anchored, passed: 0 };
        roots.pass();
        roots
    }

    /// Takes note of a line that is right at its place.
    pub(crate) fn event(&mut self, event: Head) {
        // Behind damage there is no tree.
        if event.seq.get() == self.edge.size() + 1 {
            self.edge.push(event.event_hash);
            self.pass();
        }
    }

    fn pass(&mut self) {
        while let Some(kept) = self.anchored.all.get(self.passed).copied().filter(|kept| kept.size <= self.edge.size()) {
            self.passed += 1;
            let found = self.edge.root();
            if found == kept.root {
                self.anchored.report.covered = kept.size;
            } else {
                let failure = self.anchored.failure(&kept, AnchorFault::Diverged { signed: kept.root, found });
                self.anchored.report.fail(failure);
            }
        }
    }

    fn finish(mut self, verified: &VerifyReport) -> AnchorReport {
        let size = self.edge.size();
        let is_whole =
            verified.is_clean() || verified.head.seq.get() == size && verified.failures.iter().all(|failure| failure.seq.get() <= size);
        for kept in self.anchored.all.iter().skip(self.passed).copied().collect::<Vec<_>>() {
            let reason = match is_whole {
                true => AnchorFault::Shorter { found: size },
                false => AnchorFault::Damaged { right: Seq::new(size) },
            };
            let failure = self.anchored.failure(&kept, reason);
            self.anchored.report.fail(failure);
        }
        self.anchored.report
    }
}

/// Verifies the ledger, as [`crate::verify()`] (or with rules about signatures as [`crate::verify_signed`]), and holds it against these checkpoints in the same pass.
///
/// # Errors
/// [`LedgerError`] where the ledger can't be read. What is wrong is in the reports.
pub fn verify_anchored(
    reader: &LedgerReader,
    anchored: Anchored,
    rules: Option<SignatureRules>,
    progress: &mut dyn FnMut(u64),
) -> Result<(VerifyReport, AnchorReport), LedgerError> {
    let mut roots = Roots::new(anchored);
    let report = verify_watched(reader, &mut roots, rules, progress)?;
    let anchors = roots.finish(&report);
    Ok((report, anchors))
}
