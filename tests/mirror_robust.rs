//! Goal: whatever other processes and the disk do to the mirror's files while the store is in use, appends go on up to
//! `unmirrored_events_max` and then wait, nothing is acknowledged twice or lost, status says what is wrong, and all
//! heals in the same process once the cause is gone. The WAL has a bound, whatever readers do, but for one that never ends.
//!
//! Method: a second process (python3, whose sqlite3 module is another build of SQLite) reads, locks and vacuums the
//! mirror; its files are removed, made immutable (chattr), and put on a tmpfs that is full. The last two need root.
//! COUNTERFOIL_LOCK_SECONDS says how long the lock is held, COUNTERFOIL_WAL_EVENTS how much is written beside readers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{campaign, finish, skipped, until};
use counterfoil::actors::{Durability, Ledger, LedgerOptions, MirrorHealth};
use counterfoil::*;

/// Events that may wait for the mirror in these tests.
const BOUND: u64 = 20;

fn options() -> LedgerOptions {
    let mut options = LedgerOptions::default();
    options.store.mirror_busy_timeout = Duration::from_millis(50);
    options.store.unmirrored_events_max = BOUND as usize;
    options.mirrored_deadline = Duration::from_millis(100);
    options.close_deadline = Duration::from_secs(20);
    options
}

/// A process of its own that runs SQL on the mirror.
struct Other {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

const OTHER: &str = "
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for sql in sys.stdin:
    try: print(conn.execute(sql).fetchall(), flush=True)
    except sqlite3.Error as error: print('error:', error, flush=True)
";

impl Other {
    fn start(dir: &Path) -> Option<Other> {
        let mut command = Command::new("python3");
        command.args(["-c", OTHER]).arg(mirror_path(dir)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Other { child, to, from })
    }

    fn run(&mut self, sql: &str) -> String {
        writeln!(self.to, "{sql}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty() && !answer.starts_with("error"), "{sql}: {answer}");
        answer.trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn append(ledger: &Ledger, n: u64) -> Receipt {
    ledger.append(common::note(&format!("event {n}")).session("s").id(common::id(n))).await.unwrap()
}

/// Appends while the mirror can't be written: so many events go on, the others wait; status says why. Then `heal`.
async fn goes_on_and_waits(ledger: Ledger, dir: &Path, words: &str, heal: impl AsyncFnOnce(&Ledger)) {
    let first = ledger.status().durable.seq.get();
    for n in first..first + BOUND {
        assert_eq!(append(&ledger, n).await.seq.get(), n + 1);
    }
    let refused = ledger.try_append(common::note("too many")).await.unwrap_err();
    assert!(matches!(refused, AppendError::MirrorTooFarBehind { .. }), "{refused}");
    let waiting: Vec<_> = (first + BOUND..first + BOUND + 5)
        .map(|n| {
            tokio::spawn({
                let ledger = ledger.clone();
                async move { append(&ledger, n).await }
            })
        })
        .collect();
    until("five in flight", || ledger.status().in_flight == 5).await;
    until("word of it", || matches!(&ledger.status().mirror, MirrorHealth::Blocked { reason } if reason.contains(words))).await;
    heal(&ledger).await;
    let mut seqs = BTreeSet::new();
    for task in waiting {
        let receipt = tokio::time::timeout(Duration::from_secs(60), task).await.expect("it heals without help").unwrap();
        assert!(seqs.insert(receipt.seq) && !receipt.duplicate, "acknowledged twice: {receipt:?}");
    }
    for n in [first, first + BOUND] {
        let again = append(&ledger, n).await;
        assert!(again.duplicate, "{again:?}");
    }
    until("Live", || ledger.status().mirror == MirrorHealth::Live).await;
    finish(ledger, dir, first + BOUND + 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_transaction() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    append(&ledger, 0).await;
    ledger.mirrored(Seq::FIRST).await.unwrap();
    let Some(mut other) = Other::start(temp.path()) else { return skipped("a_long_read_transaction", "there is no python3") };
    other.run("BEGIN");
    assert_eq!(other.run("SELECT count(*) FROM events"), "[(1,)]");
    for n in 1..200 {
        append(&ledger, n).await;
    }
    // A reader holds up nothing: the rows come, and it goes on seeing what it saw.
    ledger.mirrored(Seq::new(200)).await.unwrap();
    assert_eq!(other.run("SELECT count(*) FROM events"), "[(1,)]");
    other.run("COMMIT");
    assert_eq!(other.run("SELECT count(*) FROM events"), "[(200,)]");
    finish(ledger, temp.path(), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_that_is_held() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let Some(mut other) = Other::start(temp.path()) else { return skipped("a_write_lock_that_is_held", "there is no python3") };
    other.run("BEGIN IMMEDIATE");
    let seconds = campaign("COUNTERFOIL_LOCK_SECONDS", 1);
    goes_on_and_waits(ledger, temp.path(), "locked", async |ledger: &Ledger| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            assert_eq!((ledger.status().durable.seq.get(), ledger.status().in_flight), (BOUND, 5), "they wait");
            assert!(matches!(ledger.status().mirror, MirrorHealth::Blocked { .. }));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        other.run("ROLLBACK");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuumed_while_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    let Some(mut other) = Other::start(temp.path()) else { return skipped("vacuumed_while_in_use", "there is no python3") };
    let done = Arc::new(AtomicBool::new(false));
    let vacuum = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut times = 0;
            while !done.load(SeqCst) || times < 3 {
                other.run("VACUUM");
                times += 1;
            }
            times
        }
    });
    for n in 0..300 {
        append(&ledger, n).await;
    }
    done.store(true, SeqCst);
    let times = tokio::task::spawn_blocking(|| vacuum.join().unwrap()).await.unwrap();
    eprintln!("vacuumed {times} times");
    finish(ledger, temp.path(), 300).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_sqlite_keeps_beside_it_is_removed() {
    for gone in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
        for n in 0..30 {
            append(&ledger, n).await;
        }
        ledger.mirrored(Seq::new(30)).await.unwrap();
        for suffix in gone {
            std::fs::remove_file(format!("{}{suffix}", mirror_path(temp.path()).display())).unwrap();
        }
        for n in 30..60 {
            assert_eq!(append(&ledger, n).await.session_seq, Some(n + 1));
        }
        let again = append(&ledger, 3).await;
        assert!(again.duplicate && again.seq.get() == 4);
        until("a mirror that readers see", || ledger.status().mirrored_through.get() == 60 && ledger.status().mirror == MirrorHealth::Live)
            .await;
        assert_eq!(ledger.read(|mirror| Ok(mirror.count()?.0)).await.unwrap(), 60, "{gone:?}: a new connection sees all");
        assert!(ledger.status().restarts >= 1 && ledger.status().mirror_set_aside.is_some(), "{gone:?}: it is rebuilt");
        finish(ledger, temp.path(), 60).await;
    }
}

/// Makes the mirror and its WAL immutable, which holds for root too. False where that can't be done here. (Not its shared
/// memory: a process that has mapped an immutable file dies of SIGBUS at its next write there, whoever it is.)
fn immutable(dir: &Path, on: bool) -> bool {
    ["", "-wal"].iter().all(|suffix| {
        let path = format!("{}{suffix}", mirror_path(dir).display());
        if !Path::new(&path).exists() {
            return true;
        }
        let flag = if on { "+i" } else { "-i" };
        Command::new("chattr").args([flag, &path]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_while_it_is_open() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    append(&ledger, 0).await;
    ledger.mirrored(Seq::FIRST).await.unwrap();
    if !immutable(temp.path(), true) {
        immutable(temp.path(), false);
        return skipped("read_only_while_it_is_open", "chattr +i needs root and ext4");
    }
    goes_on_and_waits(ledger, temp.path(), "write access", async |_: &Ledger| assert!(immutable(temp.path(), false))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_from_the_start() {
    let temp = tempfile::tempdir().unwrap();
    Ledger::open_with(temp.path(), options()).await.unwrap().close().await.unwrap();
    if !immutable(temp.path(), true) {
        immutable(temp.path(), false);
        return skipped("read_only_from_the_start", "chattr +i needs root and ext4");
    }
    let ledger = Ledger::open_with(temp.path(), options()).await.unwrap();
    goes_on_and_waits(ledger, temp.path(), "write access", async |_: &Ledger| assert!(immutable(temp.path(), false))).await;
}

/// A file system of its own in memory, of so many KiB.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }

    fn new(path: PathBuf, kib: u32) -> Option<Tmpfs> {
        std::fs::create_dir_all(&path).unwrap();
        Tmpfs::mount(&path, &format!("size={kib}k")).then_some(Tmpfs(path))
    }

    fn grow(&self, kib: u32) {
        assert!(Tmpfs::mount(&self.0, &format!("remount,size={kib}k")));
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn its_disk_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let mounted = Tmpfs::new(dir.clone(), 700).and_then(|disk| Tmpfs::new(dir.join("segments"), 64 << 10).map(|segments| (disk, segments)));
    let Some((disk, _segments)) = mounted else { return skipped("its_disk_is_full", "mount needs root") };
    let ledger = Ledger::open_with(&dir, options()).await.unwrap();
    let mut events = 0;
    while !matches!(ledger.status().mirror, MirrorHealth::Blocked { .. }) {
        append(&ledger, events).await;
        events += 1;
        // Each is mirrored before the next, so that the disk fills to its last byte and the bound is still far.
        let full = || matches!(ledger.status().mirror, MirrorHealth::Blocked { .. });
        until("a row, or a full disk", || ledger.status().mirrored_through.get() == events || full()).await;
        assert!(events < 10_000, "it does not fill");
    }
    let behind = events - ledger.status().mirrored_through.get();
    assert!(behind <= 1, "{behind}");
    eprintln!("full after {events} events: {:?}", ledger.status().mirror);
    for _ in behind..BOUND {
        append(&ledger, events).await;
        events += 1;
    }
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { append(&ledger, 100_000).await }
    });
    until("one in flight", || ledger.status().in_flight == 1).await;
    assert!(matches!(&ledger.status().mirror, MirrorHealth::Blocked { reason } if reason.contains("full") || reason.contains("disk")));
    disk.grow(64 << 10);
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it heals").unwrap().seq.get(), events + 1);
    finish(ledger, &dir, events + 1).await;
}

/// The length of the WAL.
fn wal_bytes(dir: &Path) -> u64 {
    std::fs::metadata(format!("{}-wal", mirror_path(dir).display())).map_or(0, |meta| meta.len())
}

/// Writes events beside readers that overlap, so that there is always one; answers how long the WAL was at most.
async fn beside_overlapping_readers(query: &'static str, bound: u64, events: u64) -> u64 {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.store.mirror_wal_bytes_max = bound;
    // A reader may not be scheduled for a while, on a machine that does other things too.
    options.store.mirror_busy_timeout = Duration::from_secs(10);
    options.store.unmirrored_events_max = 1 << 16;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let (done, max, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers = std::thread::spawn({
        let (dir, done, max, reads) = (temp.path().to_owned(), done.clone(), max.clone(), reads.clone());
        move || {
            let open = || rusqlite::Connection::open(mirror_path(&dir)).unwrap();
            let begin = |conn: &rusqlite::Connection| {
                conn.execute_batch("BEGIN").unwrap();
                conn.query_row(query, [], |_| Ok(())).unwrap();
            };
            let (a, b) = (open(), open());
            begin(&a);
            while !done.load(SeqCst) {
                for (next, last) in [(&b, &a), (&a, &b)] {
                    begin(next);
                    last.execute_batch("COMMIT").unwrap();
                    reads.fetch_add(1, SeqCst);
                    max.fetch_max(wal_bytes(&dir), SeqCst);
                }
            }
        }
    });
    let mut appended = 0;
    while appended < events {
        let batch = (0..50).map(|n| common::note(&"x".repeat(200)).session("s").id(common::id(appended + n))).collect();
        ledger.append_batch(batch).await.unwrap();
        appended += 50;
        // One transaction each: of groups that are committed together fewer pages are written, and how many are is chance.
        ledger.mirrored(Seq::new(appended)).await.unwrap();
    }
    done.store(true, SeqCst);
    tokio::task::spawn_blocking(|| readers.join().unwrap()).await.unwrap();
    let (max, reads) = (max.load(SeqCst), reads.load(SeqCst));
    eprintln!(
        "{appended} events beside {reads} reads ({query}): the WAL had at most {} KiB, with a bound of {} KiB",
        max >> 10,
        bound >> 10
    );
    if bound < u64::MAX {
        until("a short WAL", || wal_bytes(temp.path()) <= bound && ledger.status().mirror_wal_held.is_none()).await;
    }
    finish(ledger, temp.path(), appended).await;
    max
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_is_bounded_beside_overlapping_readers() {
    let (events, bound) = (campaign("COUNTERFOIL_WAL_EVENTS", 4000), 2 << 20);
    let quick = "SELECT max(seq) FROM events";
    let max = beside_overlapping_readers(quick, bound, events).await;
    // A transaction may come on top of it.
    assert!(max < 4 * bound, "{max}");
    // Without the bound it grows: these readers are such that they can tell.
    let unbounded = beside_overlapping_readers(quick, u64::MAX, events).await;
    assert!(unbounded > 5 * bound, "{unbounded} without a bound, {max} with it");
    // Queries that read all of it take longer the more there is, and the writer waits for them: how long the WAL gets then
    // depends on the machine, but once they have ended it is short again.
    beside_overlapping_readers("SELECT sum(length(payload)) FROM events", bound, events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_ends_is_told_of() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = options();
    options.store.mirror_wal_bytes_max = 1 << 20;
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    append(&ledger, 0).await;
    ledger.mirrored(Seq::FIRST).await.unwrap();
    let Some(mut other) = Other::start(temp.path()) else { return skipped("a_reader_that_never_ends", "there is no python3") };
    other.run("BEGIN");
    other.run("SELECT count(*) FROM events");
    let mut events = 1;
    while ledger.status().mirror_wal_held.is_none() {
        let receipt = ledger.append_with(common::note(&"x".repeat(50_000)).session("s"), Expect::Any, Durability::Mirrored).await.unwrap();
        events = receipt.seq.get();
        assert!(events < 1000, "the WAL has {} bytes", wal_bytes(temp.path()));
    }
    let held = ledger.status().mirror_wal_held.unwrap();
    assert!(held.bytes > 1 << 20 && held.to_string().contains("a reader holds it"), "{held}");
    eprintln!("{held}");
    // Nothing is appended any more, and still it heals.
    other.run("COMMIT");
    until("an empty WAL", || ledger.status().mirror_wal_held.is_none()).await;
    assert!(wal_bytes(temp.path()) <= 1 << 20);
    finish(ledger, temp.path(), events).await;
}
