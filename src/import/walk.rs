//! Transcripts in a folder. Called by `counterfoil import`. Lists, and opens only `.json` files, to see whether they
//! are trajectories.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::ImportError;
use super::swe_agent;

/// The transcripts that a path means: a file itself, whatever its name; of a folder, with all folders in it and in
/// sorted order, the files that end in `.jsonl`, `.traj`, or `.json` if they are trajectories. Symbolic links are
/// followed, but no folder is entered twice. Links that lead nowhere are passed over.
///
/// What can't be looked at (a folder that can't be listed, say) is an error in its place, and the others are found.
///
/// # Errors
/// In the list: [`ImportError::Io`] where a path is not there, or can't be looked at.
pub fn transcripts_in(path: &Path) -> Vec<Result<PathBuf, ImportError>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return vec![Ok(path.to_owned())],
        Err(error) => return vec![Err(ImportError::io("opening", path)(error))],
    }
    let (mut found, mut entered) = (Vec::new(), HashSet::new());
    // A stack instead of recursion, so that no depth of folders is too much.
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            match enter(&path, &mut entered) {
                Ok(mut entries) => waiting.append(&mut entries),
                Err(error) => found.push(Err(error)),
            }
        } else if metadata.is_file() {
            match is_transcript(&path) {
                Ok(true) => found.push(Ok(path)),
                Ok(false) => {}
                Err(error) => found.push(Err(error)),
            }
        }
    }
    found
}

/// What a folder holds, the last first; nothing where it was entered before.
fn enter(path: &Path, entered: &mut HashSet<PathBuf>) -> Result<Vec<PathBuf>, ImportError> {
    let real = path.canonicalize().map_err(ImportError::io("opening", path))?;
    if !entered.insert(real) {
        return Ok(Vec::new());
    }
    let mut entries = entries(path)?;
    entries.sort_unstable_by(|a, b| b.cmp(a));
    Ok(entries)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let failed = || ImportError::io("listing", dir);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        entries.push(entry.map_err(failed())?.path());
    }
    Ok(entries)
}

fn is_transcript(path: &Path) -> Result<bool, ImportError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "traj") => Ok(true),
        Some("json") => swe_agent::is_trajectory(path),
        _ => Ok(false),
    }
}
