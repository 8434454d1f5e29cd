//! Keys in files: PKCS#8 as PEM, which `openssl genpkey -algorithm ed25519` writes too, readable by their owner alone.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, KeypairBytes, PublicKeyBytes};

use super::{Attestor, MemoryKey, PublicKey};

/// A key file has some 120 bytes; what is longer than this is something else.
const BYTES_MAX: u64 = 16 << 10;

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It can't be read or written.
    #[error("{action} the key file {path}: {source}; see that the path is right and may be used")]
    Io {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "the key file {path} has mode {mode:03o}, so others than its owner may use it; run `chmod 600` on it, and think of changing the key"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is something by that name.
    #[error("{path} is there already, and no key is written over; choose another name, or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It holds no key.
    #[error(
        "{path} holds no Ed25519 {kind} key as PEM: {reason}; `counterfoil keys generate` writes one, and so does `openssl genpkey -algorithm ed25519`"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// `private` or `public`.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl KeyFileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
        let path = path.to_owned();
        move |source| KeyFileError::Io { action, path, source }
    }
}

/// Reads a private key from a file that only its owner may read.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_key_file(path: &Path) -> Result<MemoryKey, KeyFileError> {
    check_regular(path, "private")?;
    let mut file = std::fs::File::open(path).map_err(KeyFileError::io("opening", path))?;
    check_mode(&file, path)?;
    let text = read(&mut file, path)?;
    let content = |reason: String| KeyFileError::Content { path: path.to_owned(), kind: "private", reason };
    let pair = KeypairBytes::from_pkcs8_pem(&text).map_err(|error| content(error.to_string()))?;
    let key = MemoryKey::from_seed(&pair.secret_key);
    if pair.public_key.as_ref().is_some_and(|public| public.0 != *key.public_key().as_bytes()) {
        return Err(content("its public key is not that of its private key".to_owned()));
    }
    Ok(key)
}

/// Reads a public key: from a file that holds one as PEM, or from that of a private key.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_public_key(path: &Path) -> Result<PublicKey, KeyFileError> {
    check_regular(path, "public")?;
    let text = read(&mut std::fs::File::open(path).map_err(KeyFileError::io("opening", path))?, path)?;
    if text.contains("PRIVATE KEY") {
        return read_key_file(path).map(|key| key.public_key());
    }
    match PublicKeyBytes::from_public_key_pem(&text) {
        Ok(key) => Ok(PublicKey::from_bytes(key.0)),
        Err(error) => Err(KeyFileError::Content { path: path.to_owned(), kind: "public", reason: error.to_string() }),
    }
}

/// Makes a new key and writes it to a file that only its owner may read (mode 600), and its public half to `PATH.pub`. Both are
/// fsynced. Nothing is written over.
///
/// # Errors
/// [`KeyFileError`].
pub fn generate_key_file(path: &Path) -> Result<MemoryKey, KeyFileError> {
    let key = MemoryKey::generate().map_err(KeyFileError::io("making a key for", path))?;
    let content = |error: String| KeyFileError::Content { path: path.to_owned(), kind: "private", reason: error };
    // Without the public half: what has it is version 2 of PKCS#8, which many programs don't read.
    let pair = KeypairBytes { secret_key: key.seed(), public_key: None };
    let private = pair.to_pkcs8_pem(LineEnding::LF).map_err(|error| content(error.to_string()))?;
    let public = PublicKeyBytes(*key.public_key().as_bytes());
    let public = public.to_public_key_pem(LineEnding::LF).map_err(|error| content(error.to_string()))?;
    let public_path = public_path(path);
    for path in [path, &public_path] {
        if path.symlink_metadata().is_ok() {
            return Err(KeyFileError::Exists { path: path.to_owned() });
        }
    }
    write(path, private.as_bytes(), 0o600)?;
    write(&public_path, public.as_bytes(), 0o644)?;
    Ok(key)
}

/// Where [`generate_key_file`] writes the public half.
pub(crate) fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Anything but a file would be waited for.
fn check_regular(path: &Path, kind: &'static str) -> Result<(), KeyFileError> {
    let is_file = std::fs::metadata(path).map_err(KeyFileError::io("opening", path))?.is_file();
    let reason = || "it is no file".to_owned();
    if is_file { Ok(()) } else { Err(KeyFileError::Content { path: path.to_owned(), kind, reason: reason() }) }
}

#[cfg(unix)]
fn check_mode(file: &std::fs::File, path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_err(KeyFileError::io("looking at", path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyFileError::Mode { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &std::fs::File, _: &Path) -> Result<(), KeyFileError> {
    Ok(())
}

fn read(file: &mut std::fs::File, path: &Path) -> Result<String, KeyFileError> {
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(KeyFileError::io("reading", path))?;
    Ok(text)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyFileError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path).map_err(KeyFileError::io("creating", path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::File::open(dir)?.sync_all());
    written.map_err(KeyFileError::io("writing", path))
}
