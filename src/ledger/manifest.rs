//! ledger.json: what the store is, written once.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::claim::sync_names_above;
use super::{LedgerError, Refusal, Storage, segment, storage};
use crate::chain;
use crate::event::{EventHash, LedgerId, Timestamp};
use crate::failpoint;
use crate::options::Options;

/// The format version that this code reads and writes.
pub const FORMAT_VERSION: u64 = 1;

/// ledger.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    format_version: u64,
    /// The ledger's identity.
    pub ledger_id: LedgerId,
    /// When it was created.
    pub created_at: Timestamp,
    hash: String,
}

/// Bytes of the longest manifest that is read; the real one has about 150.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

#[derive(Deserialize)]
struct Version {
    format: String,
    format_version: u64,
}

impl Manifest {
    /// A manifest for a new ledger.
    pub fn new(ledger_id: LedgerId, created_at: Timestamp) -> Manifest {
        Manifest { format: "counterfoil".to_owned(), format_version: FORMAT_VERSION, ledger_id, created_at, hash: "blake3".to_owned() }
    }

    /// What the ledger's first event links to.
    pub fn genesis(&self) -> EventHash {
        chain::genesis(self.ledger_id)
    }

    /// The file of the store in this directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("ledger.json")
    }

    /// Reads the manifest of the store in this directory; nothing where there is none.
    ///
    /// # Errors
    /// [`LedgerError::Manifest`] where it is damaged, [`LedgerError::FutureFormat`] where it is newer than this code.
    pub fn load(storage: &dyn Storage, dir: &Path) -> Result<Option<Manifest>, LedgerError> {
        let path = Manifest::path(dir);
        let wrong = |reason: String| LedgerError::Manifest { path: path.clone(), reason };
        let mut file = match storage.open_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::io("opening", &path)(error)),
        };
        let bytes = storage::read_range(file.as_mut(), 0, MANIFEST_BYTES_MAX).map_err(LedgerError::io("reading", &path))?;
        let version: Version = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if version.format != "counterfoil" {
            return Err(wrong("its format is not `counterfoil`".to_owned()));
        }
        if version.format_version == 0 {
            return Err(wrong("there is no format_version 0".to_owned()));
        }
        if version.format_version != FORMAT_VERSION {
            return Err(LedgerError::FutureFormat { path, found: version.format_version, known: FORMAT_VERSION });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if manifest.hash != "blake3" {
            return Err(wrong("its hash is not `blake3`".to_owned()));
        }
        Ok(Some(manifest))
    }

    /// Reads the manifest of the store in this directory, or writes one where there is no store yet; answers whether it
    /// was written. The caller holds the store's lock, and says whether a mirror is there: that too makes it a store.
    ///
    /// # Errors
    /// As [`Manifest::load`]; [`Refusal::NoManifest`] where there are events, but no manifest to read them by.
    pub fn load_or_create(dir: &Path, mirror_is_there: bool, options: &Options) -> Result<(Manifest, bool), LedgerError> {
        let storage = options.storage.as_ref();
        if let Some(manifest) = Manifest::load(storage, dir)? {
            return Ok((manifest, false));
        }
        if mirror_is_there || !segment::list(storage, dir)?.is_empty() {
            return Err(Box::new(Refusal::NoManifest { path: Manifest::path(dir) }).into());
        }
        let now = options.clock.now();
        let manifest = Manifest::new(LedgerId::from_u128(options.ids.next(now)), now);
        let at = |point| options.at(point).map_err(LedgerError::io("creating", dir));
        sync_names_above(dir, options)?;
        at(failpoint::STORE_CREATE)?;
        manifest.create(storage, dir)?;
        at(failpoint::STORE_CREATED)?;
        Ok((manifest, true))
    }

    /// Writes it, once, durably.
    pub(crate) fn create(&self, storage: &dyn Storage, dir: &Path) -> Result<(), LedgerError> {
        let path = Manifest::path(dir);
        let mut bytes =
            serde_json::to_vec(self).map_err(|error| LedgerError::Manifest { path: path.clone(), reason: error.to_string() })?;
        bytes.push(b'\n');
        storage::write_file(storage, &dir.join("tmp"), &path, |file| file.write_at(&bytes, 0)).map_err(LedgerError::io("writing", &path))
    }
}
