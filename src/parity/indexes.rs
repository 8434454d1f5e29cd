//! SQLite's check of its indexes, beside the comparison: an id that its index has lost would be recorded twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::ledger::stream::Plan;
use crate::mirror::{MirrorReader, index_check};

/// Whether SQLite's check of the indexes takes long enough to be done beside the comparison.
pub(super) fn is_large(conn: &rusqlite::Connection) -> rusqlite::Result<bool> {
    const LARGE_BYTES: i64 = 16 << 20;
    let pragma = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok(pragma("page_count")?.saturating_mul(pragma("page_size")?) > LARGE_BYTES)
}

/// SQLite's check of its indexes, on a thread and a connection of its own: it takes as long as reading the rows does. It may see
/// a later moment than the comparison; at each one the indexes fit.
pub(super) struct IndexCheck {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<rusqlite::Result<Option<String>>>>,
}

impl IndexCheck {
    /// Nothing where there is no thread or connection to be had.
    pub(super) fn begin(mirror: &MirrorReader, plan: &Plan) -> Option<IndexCheck> {
        let mut beside = mirror.another().ok()?;
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, cancelled) = (over.clone(), plan.cancelled.clone());
        beside.stop_when(move || is_over.load(Ordering::Relaxed) || cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)));
        let check = move || index_check(beside.connection());
        let thread = thread::Builder::new().name("counterfoil-index".to_owned()).spawn(check).ok()?;
        Some(IndexCheck { over, thread: Some(thread) })
    }

    /// What it found, if anything.
    pub(super) fn end(mut self) -> rusqlite::Result<Option<String>> {
        let thread = self.thread.take().map(JoinHandle::join);
        thread.and_then(Result::ok).unwrap_or(Err(rusqlite::Error::InvalidQuery))
    }
}

impl Drop for IndexCheck {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
