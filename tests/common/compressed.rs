//! A store with a compressed segment, every way to damage that, and what must hold whatever the damage.

use std::fs;
use std::path::{Path, PathBuf};

use counterfoil::*;

use super::*;

pub struct Case {
    _temp: tempfile::TempDir,
    pub dir: PathBuf,
    options: Options,
    lines: Vec<Vec<u8>>,
    /// The compressed segment, and its right bytes.
    path: PathBuf,
    pub bytes: Vec<u8>,
    copy: PathBuf,
}

pub fn lines(dir: &Path) -> (Vec<Vec<u8>>, Option<LedgerError>) {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = Vec::new();
    loop {
        match lines.next_event() {
            Ok(Some((line, _))) => all.push(line.raw.bytes.to_vec()),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

impl Case {
    pub fn new(fill: impl FnOnce(&Path, &Options), nth: usize) -> Case {
        let temp = super::damage::in_memory();
        let dir = temp.path().join("store");
        let mut options = small_segments();
        disk::without_sync(&mut options);
        fill(&dir, &options);
        let (plain, _) = lines(&dir);
        let path = compress(&dir, &options, &Sealed::AllBut(0), &mut |_| ()).unwrap()[nth].path.clone();
        let bytes = fs::read(&path).unwrap();
        let copy = temp.path().join("copy");
        Case { _temp: temp, dir, options, lines: plain, path, bytes, copy }
    }

    /// What became of it: whether the events were still all there.
    pub fn judge(&self, what: &str, damaged: &[u8]) -> bool {
        fs::write(&self.path, damaged).unwrap();
        let (found, error) = lines(&self.dir);
        // As with plain segments, it is verify that tells that lines are missing, or there twice.
        assert!(found.iter().all(|line| self.lines.contains(line)), "{what}: wrong lines were given");
        let verified = verified(&self.dir);
        if verified.is_clean() && verified.events == self.lines.len() as u64 {
            assert!(error.is_none() && found == self.lines, "{what}: verify is clean, and a reader is not: {error:?}");
            open_is_clean(&self.dir, &self.options);
            return true;
        }
        let failure = verified.failures.first().unwrap_or_else(|| panic!("{what}: {verified}"));
        assert!(failure.path == self.path || failure.path > self.path, "{what}: {failure:?}");
        assert!(failure.seq > Seq::ZERO && failure.offset <= 1 << 30, "{what}: {failure:?}");
        // Open looks at the ends of sealed segments only; what it accepts parity still finds.
        if let Ok((store, _)) = Store::open(&self.dir, &self.options) {
            store.close().unwrap();
        }
        assert!(!parity(&self.dir).is_consistent(), "{what}: parity finds what verify finds");
        let _ = fs::remove_dir_all(&self.copy);
        copy_dir(&self.dir, &self.copy);
        let repaired = repair_from_mirror(&self.copy, &self.options, &mut |_| ()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!repaired.segments_written.is_empty(), "{what}: {repaired:?}");
        assert_eq!(lines(&self.copy).0, self.lines, "{what}");
        assert!(files(&self.copy.join("torn")).values().any(|kept| kept == damaged), "{what}: the damaged file is kept");
        open_is_clean(&self.copy, &self.options);
        false
    }
}
