//! Mirrors that were set aside, or copied there by a repair: which there are, and erasure in them. Called by `crate::erase`. They
//! may be the only copy of rows that the ledger lacks, and of rows that somebody changed: nothing but payloads goes.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::{MirrorError, check_links, guard, mirror_path, schema, with_suffix};
use crate::event::erasure::is_never_erased;
use crate::event::{EventId, PayloadHash, Seq};
use crate::failpoint;
use crate::ledger::erase::Names;
use crate::options::Options;

/// What SQLite keeps beside one, and the file.
const SUFFIXES: [&str; 4] = ["-wal", "-shm", "-journal", ""];

/// A mirror that was set aside.
pub(crate) struct Aside {
    /// Its file, which may be missing where something was interrupted.
    pub path: PathBuf,
    /// What there is of it.
    pub files: Vec<PathBuf>,
}

/// Mirrors that were set aside.
pub(crate) fn asides(dir: &Path) -> Result<Vec<Aside>, MirrorError> {
    let path = mirror_path(dir);
    let failed = |source| MirrorError::Io { action: "listing", path: dir.to_owned(), source };
    let begins = with_suffix(Path::new(path.file_name().unwrap_or_default()), ".aside-");
    let mut main: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&*begins.to_string_lossy()) {
            let stem = SUFFIXES.iter().filter(|suffix| !suffix.is_empty()).find_map(|suffix| name.strip_suffix(suffix));
            main.push(dir.join(stem.unwrap_or(&name)));
        }
    }
    main.sort();
    main.dedup();
    let files = |main: &Path| SUFFIXES.map(|suffix| with_suffix(main, suffix)).into_iter().filter(|path| path.is_file()).collect();
    Ok(main.into_iter().map(|path| Aside { files: files(&path), path }).collect())
}

impl Aside {
    /// Takes the payloads of these events out of its rows, and writes each of its pages anew; answers out of how many.
    ///
    /// # Errors
    /// [`MirrorError`]: one that passes; else it can't be read as a whole, and nobody can tell what is in it.
    pub(crate) fn erase(&self, names: &Names, options: &Options) -> Result<u64, MirrorError> {
        check_links(&self.path)?;
        options.at(failpoint::ERASE_ASIDE).map_err(|source| MirrorError::Io { action: "erasing in", path: self.path.clone(), source })?;
        let sqlite = |source| MirrorError::Sqlite { action: "erasing in", path: self.path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&self.path, flags).map_err(sqlite)?;
        conn.busy_timeout(options.mirror_busy_timeout).map_err(sqlite)?;
        conn.pragma_update(None, "trusted_schema", false).map_err(sqlite)?;
        schema::check_known(&conn, &self.path)?;
        match conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)).map_err(sqlite)? {
            answer if answer == "ok" => {}
            reason => return Err(MirrorError::Corrupt { path: self.path.clone(), reason }),
        }
        let rows = erase_rows(&mut conn, names).map_err(sqlite)?;
        options.at(failpoint::ERASE_ASIDE_ROWS).map_err(|source| MirrorError::Io {
            action: "erasing in",
            path: self.path.clone(),
            source,
        })?;
        conn.execute_batch("VACUUM").map_err(sqlite)?;
        let held: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(sqlite)?;
        conn.close().map_err(|(_, source)| sqlite(source))?;
        if held == 0 {
            Ok(rows)
        } else {
            Err(MirrorError::Io { action: "emptying the WAL of", path: self.path.clone(), source: held_error() })
        }
    }
}

fn held_error() -> std::io::Error {
    std::io::Error::other("a reader holds it; end it, and open the store again or erase again")
}

/// Whether they are the events that are named, the rows say themselves: by the id, else by seq and hash. The indexes are not
/// believed.
fn erase_rows(conn: &mut Connection, names: &Names) -> rusqlite::Result<u64> {
    // A rollback journal would be a file more that may be left.
    let _: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    conn.pragma_update(None, "secure_delete", true)?;
    guard::lift(conn, true)?;
    let ids: std::collections::HashSet<EventId> = names.values().flatten().filter_map(|name| name.id).collect();
    let mut named = Vec::new();
    {
        let mut all = conn.prepare("SELECT seq, id, payload_hash, event_type FROM events NOT INDEXED WHERE erased IS NULL")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let seq = row.get::<_, i64>(0)?;
            let is_named = row.get_ref(1)?.as_str().ok().and_then(|id| id.parse().ok()).is_some_and(|id| ids.contains(&id));
            let hash = row.get_ref(2)?.as_blob().ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok()).map(PayloadHash::from_bytes);
            let is_there =
                names.get(&Seq::new(seq.cast_unsigned())).is_some_and(|all| all.iter().any(|name| Some(name.payload_hash) == hash));
            if (is_named || is_there) && !row.get_ref(3)?.as_str().is_ok_and(is_never_erased) {
                named.push(seq);
            }
        }
    }
    let transaction = conn.transaction()?;
    for seq in &named {
        transaction.execute("UPDATE events SET payload = NULL, blob = NULL, erased = 1 WHERE seq = ?1", params![seq])?;
    }
    transaction.commit()?;
    Ok(named.len() as u64)
}
