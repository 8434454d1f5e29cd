//! Goal: what is loaded from the snapshots of entities is a state that was kept there, or nothing: whatever happens to the file. It
//! never stands in the way either: what is of no use is begun anew.
//!
//! Method: a file with one state, kept twice; each bit of its rows flipped, and a sample of all others, in the file and in its WAL; cut
//! at each page and in between; each column changed behind the hash's back; other versions, shapes and ledgers; two connections and
//! many threads at once; the file taken away under an open connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Random;
use counterfoil::entity::{STATE_BYTES_MAX, Snapshot, SnapshotError, Snapshots};
use counterfoil::rusqlite::Connection;
use counterfoil::{EventHash, LedgerId, Seq};

const LEDGER: LedgerId = LedgerId::from_u128(7);
const FILE: &str = "entities.sqlite3";

fn open(dir: &Path) -> Snapshots {
    Snapshots::open(dir, LEDGER, Duration::from_secs(5)).unwrap()
}

/// The state of a stream at this position.
fn snapshot(session_id: &str, session_seq: u64) -> Snapshot {
    Snapshot {
        entity: "account".to_owned(),
        type_name: "tests::Account".to_owned(),
        state_version: 1,
        session_id: session_id.to_owned(),
        session_seq,
        seq: Seq::new(session_seq * 3),
        event_hash: EventHash::from_bytes([session_seq as u8; 32]),
        state: format!("{{\"balance\":{session_seq},\"owner\":\"J\u{f6}rg\"}}"),
    }
}

fn load(snapshots: &mut Snapshots, session_id: &str) -> Option<Snapshot> {
    snapshots.load("account", 1, session_id).unwrap()
}

/// In memory where there is such a place: thousands of files are begun.
fn temp() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let dir = temp.path().to_owned();
    (temp, dir)
}

/// A file with the state at 2 and its WAL, in which the one at 3 has taken its place.
fn written(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let mut snapshots = open(dir);
    snapshots.save(&snapshot("s-1", 2)).unwrap();
    drop(snapshots);
    let mut snapshots = open(dir);
    snapshots.save(&snapshot("s-1", 3)).unwrap();
    // As a process that is killed leaves them: closing would copy the WAL.
    let files = (fs::read(dir.join(FILE)).unwrap(), fs::read(dir.join(format!("{FILE}-wal"))).unwrap());
    drop(snapshots);
    files
}

fn put(dir: &Path, file: &[u8], wal: &[u8]) {
    Snapshots::remove(dir).unwrap();
    fs::write(dir.join(FILE), file).unwrap();
    fs::write(dir.join(format!("{FILE}-wal")), wal).unwrap();
}

/// What must hold of a damaged file: a state that was kept, or none; and it can be used. Answers whether there was one.
fn is_right_or_none(dir: &Path, what: &str) -> bool {
    let mut snapshots = open(dir);
    let loaded = load(&mut snapshots, "s-1");
    let was_there = loaded.is_some();
    for loaded in loaded.into_iter().chain(snapshots.load("account", 1, "s-2").into_iter().flatten()) {
        assert!([2, 3].map(|at| snapshot("s-1", at)).contains(&loaded), "{what}: {loaded:?}");
    }
    // What stands in the way of this was not loaded a moment ago, and is opened again.
    let kept = snapshot("s-1", 4);
    for _ in 0..3 {
        if !snapshots.is_in_place() {
            snapshots = open(dir);
        }
        if snapshots.save(&kept).is_ok() && snapshots.load("account", 1, "s-1").is_ok_and(|loaded| loaded.as_ref() == Some(&kept)) {
            return was_there;
        }
    }
    panic!("{what}: can't be used");
}

#[test]
fn kept_and_given_back() {
    let (_temp, dir) = temp();
    let mut snapshots = open(&dir);
    assert_eq!(load(&mut snapshots, "s-1"), None);
    let mut other = snapshot("s-1", 5);
    other.entity = "another".to_owned();
    other.state = String::new();
    for kept in [&snapshot("s-1", 3), &snapshot("s-\u{1}\"2\"", u64::from(u32::MAX)), &other] {
        snapshots.save(kept).unwrap();
    }
    drop(snapshots);
    let mut snapshots = open(&dir);
    assert_eq!(load(&mut snapshots, "s-1"), Some(snapshot("s-1", 3)));
    assert_eq!(load(&mut snapshots, "s-\u{1}\"2\""), Some(snapshot("s-\u{1}\"2\"", u64::from(u32::MAX))));
    assert_eq!(snapshots.load("another", 1, "s-1").unwrap(), Some(other));
    snapshots.drop_stream("s-1").unwrap();
    assert_eq!((load(&mut snapshots, "s-1"), snapshots.load("another", 1, "s-1").unwrap()), (None, None));
    assert!(load(&mut snapshots, "s-\u{1}\"2\"").is_some());
}

#[test]
fn an_older_one_does_not_replace_a_newer() {
    let (_temp, dir) = temp();
    let mut snapshots = open(&dir);
    for at in [3, 2, 1, 3] {
        snapshots.save(&snapshot("s-1", at)).unwrap();
        assert_eq!(load(&mut snapshots, "s-1"), Some(snapshot("s-1", 3)));
    }
    // Of another version it does.
    let other = Snapshot { state_version: 2, ..snapshot("s-1", 1) };
    snapshots.save(&other).unwrap();
    assert_eq!(snapshots.load("account", 2, "s-1").unwrap(), Some(other));
}

#[test]
fn of_another_version_it_is_dropped() {
    let (_temp, dir) = temp();
    let mut snapshots = open(&dir);
    snapshots.save(&snapshot("s-1", 3)).unwrap();
    assert_eq!(snapshots.load("account", 2, "s-1").unwrap(), None);
    // For good: the code that asked for another version may have changed what it does.
    assert_eq!(load(&mut snapshots, "s-1"), None);
}

#[test]
fn too_large_a_state_is_refused() {
    let (_temp, dir) = temp();
    let mut snapshots = open(&dir);
    let mut large = snapshot("s-1", 3);
    large.state = "x".repeat(STATE_BYTES_MAX);
    snapshots.save(&large).unwrap();
    assert_eq!(load(&mut snapshots, "s-1").unwrap().state.len(), STATE_BYTES_MAX);
    large.session_seq = 4;
    large.state.push('x');
    let refused = snapshots.save(&large).unwrap_err();
    assert!(matches!(&refused, SnapshotError::TooLarge { bytes, session_seq: 4, .. } if *bytes == STATE_BYTES_MAX + 1), "{refused}");
    assert_eq!(load(&mut snapshots, "s-1").unwrap().session_seq, 3);
}

#[test]
fn each_bit_of_a_row_and_a_sample_of_the_rest() {
    let (_temp, dir) = temp();
    let (file, wal) = written(&dir);
    // From its header to its state's end; the state stands last.
    let is_row = |bytes: &[u8]| {
        let state = snapshot("s-1", 2).state.replace('2', "");
        let (begins, ends) = state.split_at(11);
        let at = memchr::memmem::rfind(bytes, begins.as_bytes()).expect("the row is there");
        let row = at - 110..at + begins.len() + 1 + ends.len();
        assert!(bytes[row.clone()].ends_with(ends.as_bytes()) && memchr::memmem::find(&bytes[row.clone()], b"account").is_some());
        row
    };
    let mut random = Random::new(0x5a9);
    let samples = common::campaign("COUNTERFOIL_SNAPSHOT_FLIPS", 200);
    let (mut flips, mut given) = (0u32, 0u32);
    for in_wal in [false, true] {
        let bytes = if in_wal { &wal } else { &file };
        let row = is_row(bytes);
        // Of the WAL a sample does: SQLite has a checksum over each frame.
        let each = row.filter(|at| !in_wal || at % 8 == 0).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        let sample: Vec<_> = (0..samples).map(|_| (random.below(bytes.len() as u64) as usize, random.below(8))).collect();
        for (at, bit) in each.chain(sample) {
            let mut flipped = bytes.clone();
            let Some(byte) = flipped.get_mut(at) else { continue };
            *byte ^= 1 << bit;
            let (file, wal) = if in_wal { (&file, &flipped) } else { (&flipped, &Vec::new()) };
            put(&dir, file, wal);
            given += u32::from(is_right_or_none(&dir, &format!("byte {at} bit {bit}, WAL {in_wal}")));
            flips += 1;
        }
    }
    eprintln!("{flips} bits flipped: {given} times a right state was given, {} times none, never a wrong one", flips - given);
    assert!(given > 0 && given < flips);
}

#[test]
fn cut_or_torn() {
    let (_temp, dir) = temp();
    let (file, wal) = written(&dir);
    let mut random = Random::new(11);
    for cut in (0..file.len()).step_by(512).chain((0..40).map(|_| random.below(4096) as usize)) {
        put(&dir, &file[..cut], &[]);
        is_right_or_none(&dir, &format!("cut at {cut}"));
        put(&dir, &file[..cut], &wal);
        is_right_or_none(&dir, &format!("cut at {cut}, with its WAL"));
        // A power cut may write one page and not the other.
        let mut torn = file.clone();
        torn[cut..(cut + 512).min(file.len())].fill(0);
        put(&dir, &torn, &[]);
        is_right_or_none(&dir, &format!("zeros at {cut}"));
    }
    for cut in (0..wal.len()).step_by(512) {
        put(&dir, &file, &wal[..cut]);
        assert!(is_right_or_none(&dir, &format!("WAL cut at {cut}")));
    }
}

#[test]
fn no_column_can_be_changed() {
    let (_temp, dir) = temp();
    for change in [
        "session_seq = 4",
        "session_seq = -3",
        "session_seq = 'three'",
        "seq = 10",
        "event_hash = zeroblob(32)",
        "event_hash = zeroblob(31)",
        "state_hash = zeroblob(32)",
        "state = '{\"balance\":4}'",
        "state = CAST(state AS BLOB)",
        "state = state || ' '",
        "entity = 'other'",
        "type_name = 'tests::Other'",
        "session_id = 's-2'",
        "state_version = 2",
        "state_version = 4294967297",
    ] {
        Snapshots::remove(&dir).unwrap();
        let mut snapshots = open(&dir);
        snapshots.save(&snapshot("s-1", 3)).unwrap();
        let conn = Connection::open(dir.join(FILE)).unwrap();
        conn.execute(&format!("UPDATE snapshots SET {change}"), []).unwrap();
        for (entity, version, session) in [("account", 1, "s-1"), ("other", 1, "s-1"), ("account", 1, "s-2"), ("account", 2, "s-1")] {
            assert_eq!(snapshots.load(entity, version, session).unwrap(), None, "{change}");
        }
        // What was asked for by its own name is gone.
        assert_eq!(conn.query_row("SELECT count(*) FROM snapshots", [], |row| row.get::<_, i64>(0)).unwrap(), 0, "{change}");
    }
}

#[test]
fn another_ledgers_or_another_shape() {
    let (_temp, dir) = temp();
    let path = dir.join(FILE);
    let changes: &[(&str, &dyn Fn())] = &[
        ("another ledger's", &|| {
            Snapshots::remove(&dir).unwrap();
            let mut other = Snapshots::open(&dir, LedgerId::from_u128(8), Duration::ZERO).unwrap();
            other.save(&snapshot("s-1", 3)).unwrap();
        }),
        ("a later version", &|| Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap()),
        ("another application's", &|| Connection::open(&path).unwrap().execute_batch("PRAGMA application_id = 1").unwrap()),
        ("a trigger", &|| {
            let trigger = "CREATE TRIGGER t AFTER INSERT ON snapshots BEGIN DELETE FROM snapshots; END";
            Connection::open(&path).unwrap().execute_batch(trigger).unwrap();
        }),
        ("a table more", &|| Connection::open(&path).unwrap().execute_batch("CREATE TABLE more (a)").unwrap()),
        ("a column more", &|| Connection::open(&path).unwrap().execute_batch("ALTER TABLE snapshots ADD COLUMN a").unwrap()),
        ("no ledger", &|| Connection::open(&path).unwrap().execute_batch("DELETE FROM meta").unwrap()),
        ("no database", &|| fs::write(&path, "no database".repeat(100)).unwrap()),
        ("empty", &|| fs::write(&path, "").unwrap()),
    ];
    for (what, change) in changes {
        Snapshots::remove(&dir).unwrap();
        let mut snapshots = open(&dir);
        snapshots.save(&snapshot("s-1", 3)).unwrap();
        drop(snapshots);
        change();
        let mut snapshots = open(&dir);
        assert_eq!(load(&mut snapshots, "s-1"), None, "{what}");
        snapshots.save(&snapshot("s-1", 4)).unwrap();
        drop(snapshots);
        assert_eq!(load(&mut open(&dir), "s-1"), Some(snapshot("s-1", 4)), "{what}");
    }
}

#[test]
fn two_connections() {
    let (_temp, dir) = temp();
    let (mut one, mut other) = (open(&dir), open(&dir));
    one.save(&snapshot("s-1", 3)).unwrap();
    assert_eq!(load(&mut other, "s-1"), Some(snapshot("s-1", 3)));
    other.save(&snapshot("s-1", 2)).unwrap();
    assert_eq!(load(&mut one, "s-1"), Some(snapshot("s-1", 3)));
    drop(one);
    other.save(&snapshot("s-1", 5)).unwrap();
    assert!(other.is_in_place());
    assert_eq!(load(&mut open(&dir), "s-1"), Some(snapshot("s-1", 5)));

    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                let (mut snapshots, mut random) = (open(dir), Random::new(thread));
                for _ in 0..100 {
                    snapshots.save(&snapshot("s-2", 1 + random.below(200))).unwrap();
                    let loaded = load(&mut snapshots, "s-2").unwrap();
                    assert_eq!(loaded, snapshot("s-2", loaded.session_seq));
                }
                snapshots.save(&snapshot("s-2", 250)).unwrap();
            });
        }
    });
    assert_eq!(load(&mut other, "s-2"), Some(snapshot("s-2", 250)));
}

#[test]
fn many_begin_it_at_once() {
    let (_temp, dir) = temp();
    for round in 0..common::campaign("COUNTERFOIL_SNAPSHOT_OPENS", 40) {
        Snapshots::remove(&dir).unwrap();
        let barrier = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (dir, barrier) = (&dir, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut snapshots = open(dir);
                    let kept = snapshot(&format!("s-{thread}"), round + 1);
                    snapshots.save(&kept).unwrap();
                    assert_eq!(load(&mut snapshots, &kept.session_id), Some(kept));
                });
            }
        });
        let mut snapshots = open(&dir);
        for thread in 0..6 {
            assert_eq!(load(&mut snapshots, &format!("s-{thread}")).map(|kept| kept.session_seq), Some(round + 1));
        }
    }
}

#[test]
fn one_that_is_gone_keeps_nothing_and_harms_no_other() {
    let (_temp, dir) = temp();
    let mut gone = open(&dir);
    gone.save(&snapshot("s-1", 3)).unwrap();
    assert!(gone.is_in_place());
    Snapshots::remove(&dir).unwrap();
    assert!(!gone.is_in_place());
    let mut now = open(&dir);
    assert!(!gone.is_in_place());
    now.save(&snapshot("s-2", 4)).unwrap();
    let errors =
        [gone.save(&snapshot("s-1", 5)).unwrap_err(), gone.load("account", 1, "s-1").unwrap_err(), gone.drop_stream("s-1").unwrap_err()];
    assert!(errors.iter().all(|error| matches!(error, SnapshotError::Gone { .. })), "{errors:?}");
    // Closing it must not take the other's WAL for its own.
    drop(gone);
    assert!(now.is_in_place());
    assert_eq!(load(&mut open(&dir), "s-2"), Some(snapshot("s-2", 4)));
    assert_eq!(load(&mut now, "s-1"), None);

    // A WAL that is taken away alone is noticed too.
    fs::remove_file(dir.join(format!("{FILE}-wal"))).unwrap();
    assert!(!now.is_in_place());
    Snapshots::remove(&dir).unwrap();
    Snapshots::remove(&dir).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn the_owners_alone_and_never_through_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let (temp, dir) = temp();
    let mut snapshots = open(&dir);
    snapshots.save(&snapshot("s-1", 3)).unwrap();
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    drop(snapshots);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        Snapshots::remove(&dir).unwrap();
        let outside = temp.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        symlink(&outside, dir.join(format!("{FILE}{suffix}"))).unwrap();
        let refused = Snapshots::open(&dir, LEDGER, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, SnapshotError::SymbolicLink { .. }), "{refused}");
        Snapshots::remove(&dir).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
        fs::remove_file(outside).unwrap();
    }
}
