//! Goal: the list of sessions is always what grouping all of the mirror's rows gives, in pages that follow each other without a gap,
//! whatever happened in between: appends, batches, erasures that are carried out late, the list or the mirror removed, damaged or
//! replaced; and two who list at once do not disturb each other.
//!
//! Method: histories from seeds, after each step of which the pages, in each order, are held against `GROUP BY`; then damage by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::streams::{STREAMS, draft, unmirrored};
use common::{Random, campaign, disk, note, options};
use counterfoil::*;

/// What is listed of a session.
type Listed = (String, u64, u64, u64, u64, String, String, String, Vec<(String, u64)>);

/// All sessions by `GROUP BY`, and the seq as of which they are counted.
fn grouped(dir: &Path) -> (Vec<Listed>, u64) {
    let conn = rusqlite::Connection::open_with_flags(mirror_path(dir), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let through: i64 = conn.query_row("SELECT seq FROM mirrored_through", [], |row| row.get(0)).unwrap();
    let mut types: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    let mut all = conn
        .prepare(
            "SELECT session_id, event_type, count(*) AS n FROM events WHERE session_id IS NOT NULL AND seq <= ?1
             GROUP BY session_id, event_type ORDER BY n DESC, event_type",
        )
        .unwrap();
    let mut rows = all.query([through]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        types.entry(row.get(0).unwrap()).or_default().push((row.get(1).unwrap(), row.get::<_, i64>(2).unwrap() as u64));
    }
    let mut all = conn
        .prepare(
            "SELECT session_id, n, bytes, first, last, from_time, to_time, (SELECT recorded_at FROM events WHERE seq = last) FROM (
               SELECT session_id, count(*) AS n, sum(coalesce(octet_length(payload), json_extract(blob, '$.bytes'), 0)) AS bytes,
                 min(seq) AS first, max(seq) AS last, min(observed_at) AS from_time, max(observed_at) AS to_time
               FROM events WHERE session_id IS NOT NULL AND seq <= ?1 GROUP BY session_id)",
        )
        .unwrap();
    let listed = all.query_map([through], |row| {
        let number = |at| row.get::<_, i64>(at).map(|n| n as u64);
        let id: String = row.get(0)?;
        let types = types[&id].clone();
        Ok((id, number(1)?, number(2)?, number(3)?, number(4)?, row.get(5)?, row.get(6)?, row.get(7)?, types))
    });
    (listed.unwrap().map(Result::unwrap).collect(), through as u64)
}

fn listed(session: &SessionSummary) -> Listed {
    let SessionSummary {
        session_id, events, bytes, first_seq, last_seq, first_observed_at, last_observed_at, last_recorded_at, types, ..
    } = session;
    let [first, last, recorded] = [first_observed_at, last_observed_at, last_recorded_at].map(ToString::to_string);
    (session_id.clone(), *events, *bytes, first_seq.get(), last_seq.get(), first, last, recorded, types.clone())
}

/// All sessions, page after page.
fn pages(index: &mut SessionIndex, order: SessionsOrder, limit: usize) -> (Vec<Listed>, u64) {
    let (mut all, mut query) = (Vec::new(), SessionsQuery::new().order(order));
    loop {
        let page = index.page(&query.clone().limit(limit)).unwrap_or_else(|error| panic!("{error}"));
        assert!(page.sessions.len() <= limit && (page.next.is_none() || page.sessions.len() == limit));
        all.extend(page.sessions.iter().map(listed));
        match page.next {
            None => return (all, page.as_of.get()),
            // As text, as it goes to a command or a page in a browser.
            Some(next) => query = SessionsQuery::after(next.to_string().parse().unwrap()),
        }
    }
}

fn check(index: &mut SessionIndex, dir: &Path, limit: usize, what: &str) {
    let (mut expected, through) = grouped(dir);
    for order in [SessionsOrder::Last, SessionsOrder::First, SessionsOrder::Id] {
        match order {
            SessionsOrder::Last => expected.sort_by_key(|session| std::cmp::Reverse(session.4)),
            SessionsOrder::First => expected.sort_by_key(|session| std::cmp::Reverse(session.3)),
            _ => expected.sort_by(|a, b| a.0.cmp(&b.0)),
        }
        assert_eq!(pages(index, order, limit), (expected.clone(), through), "{what}, {order:?}");
    }
}

fn index_path(dir: &Path) -> PathBuf {
    dir.join("sessions.sqlite3")
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

#[test]
fn it_is_what_grouping_all_rows_gives() {
    let mut steps = [0u64; 8];
    for seed in 0..campaign("COUNTERFOIL_SESSION_HISTORIES", 24) {
        let mut random = Random::new(seed);
        let temp = common::damage::in_memory();
        let dir = temp.path().join("store");
        let mut options = options();
        options.segment_bytes_max = 4_000;
        disk::without_sync(&mut options);
        let late = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_late = late.clone();
        options.failpoint = Some(std::sync::Arc::new(move |point| match point {
            "erase.rows" if is_late.load(std::sync::atomic::Ordering::SeqCst) => Err(std::io::Error::other("not now")),
            _ => Ok(()),
        }));
        Store::open(&dir, &options).unwrap().0.close().unwrap();
        let mut index = SessionIndex::open(&dir, &options).unwrap();
        let mut events = 0;
        for _ in 0..20 {
            let step = random.below(8);
            steps[step as usize] += 1;
            match step {
                0 | 1 => {
                    let (mut store, _) = Store::open(&dir, &options).unwrap();
                    for _ in 0..1 + random.below(8) {
                        let size = 1 + random.below(5) * random.below(2);
                        let drafts = (0..size).map(|n| late_or_early(draft(&mut random, events + n), n)).collect();
                        store.append_batch(drafts, &Conditions::none()).unwrap();
                        events += size;
                    }
                    store.close().unwrap();
                }
                2 => {
                    let more = random.below(10);
                    unmirrored(&dir, &options, &mut random, more);
                    events += more;
                }
                3 | 4 if events > 0 => {
                    // The mirror's rows are erased at once, or by a later open.
                    late.store(random.chance(2), std::sync::atomic::Ordering::SeqCst);
                    let head = LedgerReader::open(&dir, &options).unwrap().head().unwrap().seq.get();
                    let seqs = (0..1 + random.below(4)).map(|_| Seq::new(1 + random.below(head))).map(|seq| seq..=seq).collect();
                    // Ranges of which nothing is left to erase, or only the ledger's own events, are refused.
                    let _ = erase(&dir, &options, &Erasure::new(Erase::Seqs(seqs), "a test"));
                    if random.chance(2) {
                        check(&mut index, &dir, 2, &format!("seed {seed}, just erased"));
                    }
                    late.store(false, std::sync::atomic::Ordering::SeqCst);
                    if random.chance(2) {
                        Store::open(&dir, &options).unwrap().0.close().unwrap();
                    }
                }
                5 => remove(&index_path(&dir)),
                6 => {
                    remove(&mirror_path(&dir));
                    Store::open(&dir, &options).unwrap().0.close().unwrap();
                }
                _ => index = SessionIndex::open(&dir, &options).unwrap(),
            }
            check(&mut index, &dir, 1 + random.below(6) as usize, &format!("seed {seed} after step {step}"));
        }
    }
    assert!(steps.iter().all(|steps| *steps > 0), "{steps:?}");
}

/// Observed long before or after it is recorded, at times.
fn late_or_early(draft: Draft, n: u64) -> Draft {
    match n {
        1 => draft.observed_at("2020-01-01T00:00:00.000000Z".parse::<Timestamp>().unwrap()),
        2 => draft.observed_at("2030-01-01T00:00:00.500000Z".parse::<Timestamp>().unwrap()),
        _ => draft,
    }
}
