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

use common::streams::{draft, unmirrored};
use common::{Random, campaign, disk, note, options, portable};
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
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

#[test]
fn it_is_what_grouping_all_rows_gives() {
    let mut steps = [0u64; 8];
    for seed in 0..campaign("COUNTERFOIL_SESSION_HISTORIES", 14) {
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

/// A closed store of some sessions.
fn small(dir: &Path) -> Options {
    let mut options = options();
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(dir, &options).unwrap();
    for n in 0..30u64 {
        store.append(note(&"x".repeat(n as usize)).session(format!("s-{}", n * n % 7))).unwrap();
    }
    store.close().unwrap();
    options
}

#[test]
fn a_list_that_is_of_no_use_is_made_anew() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let options = small(&dir);
    let other = temp.path().join("other");
    let of_other = self::small(&other);
    SessionIndex::open(&other, &of_other).unwrap().page(&SessionsQuery::new()).unwrap();
    let whole = {
        SessionIndex::open(&dir, &options).unwrap().page(&SessionsQuery::new()).unwrap();
        fs::read(index_path(&dir)).unwrap()
    };
    type Damage<'d> = Box<dyn Fn(&Path) + 'd>;
    let damages: [(&str, Damage<'_>); 8] = [
        ("empty", Box::new(|path| fs::write(path, "").unwrap())),
        ("no database", Box::new(|path| fs::write(path, "a text that is longer than a header ".repeat(20)).unwrap())),
        ("cut", Box::new(|path| fs::write(path, &whole[..whole.len() / 2]).unwrap())),
        ("overwritten", Box::new(|path| fs::write(path, [&whole[..100], &vec![0x5a; whole.len() - 100]].concat()).unwrap())),
        ("of another version", Box::new(|path| execute(path, "PRAGMA user_version = 99"))),
        ("of something else", Box::new(|path| execute(path, "PRAGMA application_id = 7"))),
        ("without a table", Box::new(|path| execute(path, "DROP TABLE session_types"))),
        ("of another store", Box::new(|path| assert!(fs::copy(index_path(&other), path).unwrap() > 0))),
    ];
    for (what, damage) in damages {
        remove(&index_path(&dir));
        fs::write(index_path(&dir), &whole).unwrap();
        damage(&index_path(&dir));
        check(&mut SessionIndex::open(&dir, &options).unwrap_or_else(|error| panic!("{what}: {error}")), &dir, 3, what);
    }
    // While it is open: removed, or replaced by another.
    let mut index = SessionIndex::open(&dir, &options).unwrap();
    check(&mut index, &dir, 3, "whole");
    remove(&index_path(&dir));
    check(&mut index, &dir, 3, "removed");
    assert!(index_path(&dir).exists());
    fs::copy(index_path(&other), dir.join("new")).unwrap();
    fs::rename(dir.join("new"), index_path(&dir)).unwrap();
    check(&mut index, &dir, 3, "replaced");
    // Rows were put right in place, below what had been counted.
    common::by_hand(&dir).execute_batch("UPDATE events SET session_id = 's-9' WHERE session_id = 's-1'").unwrap();
    remove(&index_path(&dir));
    check(&mut index, &dir, 3, "damaged rows");
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    check(&mut index, &dir, 3, "repaired");
    common::by_hand(&dir).execute_batch("DELETE FROM events WHERE seq = 7").unwrap();
    remove(&index_path(&dir));
    check(&mut index, &dir, 3, "a row is missing");
    replay_store(&dir, &options, &mut |_, _| ()).unwrap();
    check(&mut index, &dir, 3, "replayed");
    // One that ends before its end may have put rows right all the same, and forgets first.
    assert!(index_path(&dir).exists());
    common::by_hand(&dir).execute_batch("UPDATE events SET payload = '\"other\"' WHERE seq = 7").unwrap();
    replay_store(&dir, &options, &mut |_, _| ()).unwrap_err();
    assert!(!index_path(&dir).exists());
    repair_from_ledger(&dir, &options, &mut |_| ()).unwrap();
    check(&mut index, &dir, 3, "repaired again");
}

#[test]
fn it_is_of_this_mirror_and_of_this_history() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let options = small(&dir);
    let mut index = SessionIndex::open(&dir, &options).unwrap();
    // A row was wrong when it was counted, and the mirror is made anew: the rows have other files, and the same hashes.
    common::by_hand(&dir).execute_batch("UPDATE events SET session_id = 's-9' WHERE seq = 5").unwrap();
    check(&mut index, &dir, 3, "a wrong row");
    remove(&mirror_path(&dir));
    Store::open(&dir, &options).unwrap().0.close().unwrap();
    check(&mut index, &dir, 3, "made anew");
    // Another future in the same files: what was counted is of one that is gone.
    let append = |session: &str| {
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        store.append(note(session).session(session)).unwrap();
        store.close().unwrap();
    };
    let kept = common::files(&dir);
    append("one future");
    check(&mut index, &dir, 3, "one future");
    drop(index);
    for (name, bytes) in kept.iter().filter(|(name, _)| !name.to_string_lossy().starts_with("sessions.")) {
        fs::write(dir.join(name), bytes).unwrap();
    }
    append("another");
    check(&mut SessionIndex::open(&dir, &options).unwrap(), &dir, 3, "another");
}

fn execute(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn several_who_list_at_once_do_not_disturb_each_other() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let mut options = options();
    disk::without_sync(&mut options);
    // More than one transaction counts.
    let (mut store, _) = Store::open(&dir, &options).unwrap();
    for from in (0..12_000u64).step_by(4_000) {
        store
            .append_batch((from..from + 4_000).map(|n| note("x").session(format!("s-{}", n % 501))).collect(), &Conditions::none())
            .unwrap();
    }
    let expected = {
        let page = SessionIndex::open(&dir, &options).unwrap().page(&SessionsQuery::new()).unwrap();
        remove(&index_path(&dir));
        page
    };
    std::thread::scope(|scope| {
        let listing: Vec<_> =
            (0..4).map(|_| scope.spawn(|| SessionIndex::open(&dir, &options).unwrap().page(&SessionsQuery::new()).unwrap())).collect();
        for page in listing {
            assert_eq!(page.join().unwrap(), expected);
        }
    });
    // Appended, listed and removed at once.
    std::thread::scope(|scope| {
        let listing: Vec<_> = (0..3)
            .map(|n| {
                let (dir, options) = (&dir, &options);
                scope.spawn(move || {
                    let mut index = SessionIndex::open(dir, options).unwrap();
                    let mut seen = 0;
                    for round in 0..15 {
                        let page = index.page(&SessionsQuery::new().limit(1000)).unwrap_or_else(|error| panic!("{error}"));
                        let counted: u64 = page.sessions.iter().map(|session| session.events).sum();
                        assert_eq!(counted, page.as_of.get(), "each event once");
                        assert!(page.as_of.get() >= seen, "never back");
                        seen = page.as_of.get();
                        if n == 0 && round % 5 == 0 {
                            remove(&index_path(dir));
                        }
                    }
                })
            })
            .collect();
        for n in 0..100u64 {
            store.append(note("y").session(format!("s-{}", n % 7))).unwrap();
        }
        listing.into_iter().for_each(|listing| listing.join().unwrap());
    });
    check(&mut SessionIndex::open(&dir, &options).unwrap(), &dir, 1000, "in the end");
    store.close().unwrap();
}

#[test]
fn where_it_can_not_be_kept_it_is_made_each_time() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let options = small(&dir);
    // What stands for a store that can't be written: root may write all others.
    fs::create_dir(index_path(&dir)).unwrap();
    for _ in 0..2 {
        let mut index = SessionIndex::open(&dir, &options).unwrap();
        check(&mut index, &dir, 2, "in a temporary database");
        let (mut store, _) = Store::open(&dir, &options).unwrap();
        store.append(note("more").session("s-1")).unwrap();
        store.close().unwrap();
        check(&mut index, &dir, 2, "in a temporary database, later");
    }
    assert_eq!(fs::read_dir(index_path(&dir)).unwrap().count(), 0);
}

#[test]
fn without_a_mirror_it_says_so() {
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let options = small(&dir);
    let mut index = SessionIndex::open(&dir, &options).unwrap();
    index.page(&SessionsQuery::new()).unwrap();
    remove(&mirror_path(&dir));
    let error = index.page(&SessionsQuery::new()).unwrap_err();
    insta::assert_snapshot!(portable(error, &dir), @"the mirror <store>/mirror.sqlite3 is missing; the next open rebuilds it, and so does `counterfoil replay`");
    let error = SessionIndex::open(temp.path().join("none"), &options).unwrap_err();
    assert!(matches!(error, Error::Ledger(LedgerError::NoStore { .. })), "{error}");
}

#[cfg(unix)]
#[test]
fn it_is_its_owners_alone_and_not_written_through_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let temp = common::damage::in_memory();
    let dir = temp.path().join("store");
    let options = small(&dir);
    let mut index = SessionIndex::open(&dir, &options).unwrap();
    index.page(&SessionsQuery::new()).unwrap();
    assert_eq!(fs::metadata(index_path(&dir)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.join("sessions.sqlite3-wal").exists());
    drop(index);
    let elsewhere = temp.path().join("elsewhere");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        remove(&index_path(&dir));
        let link = PathBuf::from(format!("{}{suffix}", index_path(&dir).display()));
        symlink(&elsewhere, &link).unwrap();
        let error = SessionIndex::open(&dir, &options).unwrap_err();
        assert!(matches!(&error, Error::Sessions(SessionsError::SymbolicLink { path }) if *path == link), "{error}");
        assert!(!elsewhere.exists());
        fs::remove_file(link).unwrap();
    }
    // The store itself is opened all the same.
    symlink(&elsewhere, index_path(&dir)).unwrap();
    common::open_is_clean(&dir, &options);
}
