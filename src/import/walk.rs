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
/// # Errors
/// [`ImportError::Io`] where the path is not there, or a folder can't be listed.
pub fn transcripts_in(path: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let metadata = std::fs::metadata(path).map_err(ImportError::io("opening", path))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut entered) = (Vec::new(), HashSet::new());
    // A stack instead of recursion, so that no depth of folders is too much.
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            let real = path.canonicalize().map_err(ImportError::io("opening", &path))?;
            if entered.insert(real) {
                let mut entries = entries(&path)?;
                entries.sort_unstable_by(|a, b| b.cmp(a));
                waiting.append(&mut entries);
            }
        } else if metadata.is_file() && is_transcript(&path)? {
            found.push(path);
        }
    }
    Ok(found)
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
