//! Goal: snapshots spare reading, and change nothing: they are taken every so many events, used when an entity is folded again, and
//! dropped where the state's version, the state's shape or the stream is another; without the file all is as before.
//!
//! Method: how many events an entity has applied since it was spawned is counted by the entity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod entity_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use counterfoil::actors::Ledger;
use counterfoil::actors::entity::Entities;
use counterfoil::entity::{Entity, Snapshot};
use counterfoil::*;
use entity_support::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A sum, in a state of any shape and version.
struct Sum<S, const VERSION: u32> {
    applied: Arc<AtomicU64>,
    shape: std::marker::PhantomData<fn() -> S>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event_type", content = "payload")]
enum Added {
    #[serde(rename = "added.v1")]
    Added(u64),
}

trait Shape: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    fn add(&mut self, n: u64);
    fn sum(&self) -> u64;
}

impl Shape for u64 {
    fn add(&mut self, n: u64) {
        *self += n;
    }
    fn sum(&self) -> u64 {
        *self
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Named {
    sum: u64,
}

impl Shape for Named {
    fn add(&mut self, n: u64) {
        self.sum += n;
    }
    fn sum(&self) -> u64 {
        self.sum
    }
}

impl<S: Shape, const VERSION: u32> Entity for Sum<S, VERSION> {
    type State = S;
    type Command = u64;
    type Event = Added;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "sum";
    const STATE_VERSION: u32 = VERSION;

    fn decide(&self, _: &S, n: &u64) -> Result<Vec<Added>, Self::Error> {
        Ok(vec![Added::Added(*n)])
    }

    fn apply(&self, state: &mut S, event: &Added) {
        let Added::Added(n) = event;
        state.add(*n);
        self.applied.fetch_add(1, Ordering::Relaxed);
    }
}

struct Opened<S: Shape, const VERSION: u32> {
    sums: Entities<Sum<S, VERSION>>,
    applied: Arc<AtomicU64>,
}

impl<S: Shape, const VERSION: u32> Opened<S, VERSION> {
    async fn new(ledger: &Ledger, snapshot_every: u64) -> Self {
        let applied = Arc::<AtomicU64>::default();
        let sum = Sum { applied: applied.clone(), shape: std::marker::PhantomData };
        Opened { sums: ledger.entities(sum, snapshots_every(snapshot_every)).await.unwrap(), applied }
    }

    async fn add(&self, times: u64) {
        for _ in 0..times {
            self.sums.send("s", 1).await.unwrap();
        }
    }

    /// The sum of an entity that is folded anew, and how many events that took.
    async fn folded_anew(&self) -> (u64, u64) {
        self.sums.passivate("s");
        self.applied.store(0, Ordering::Relaxed);
        let sum = self.sums.read("s", Shape::sum).await.unwrap();
        (sum, self.applied.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn what_a_snapshot_has_is_not_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let opened = Opened::<u64, 1>::new(&ledger, 10).await;
    opened.add(9).await;
    assert_eq!(opened.folded_anew().await, (9, 9));
    opened.add(1).await;
    assert_eq!(opened.folded_anew().await, (10, 0));
    opened.add(17).await;
    assert_eq!(opened.folded_anew().await, (27, 7));
    opened.sums.close().await;
    // Without snapshots, and in another version of the state.
    let plain = Opened::<u64, 1>::new(&ledger, 0).await;
    assert_eq!(plain.folded_anew().await, (27, 27));
    plain.sums.close().await;
    let newer = Opened::<u64, 2>::new(&ledger, 10).await;
    assert_eq!(newer.folded_anew().await, (27, 27));
    // All of it was read, so that is not done twice.
    assert_eq!(newer.folded_anew().await, (27, 0));
    newer.add(3).await;
    assert_eq!(newer.folded_anew().await, (30, 3));
    newer.sums.close().await;
    // The old version finds a newer one's, drops it and begins anew.
    let older = Opened::<u64, 1>::new(&ledger, 10).await;
    assert_eq!(older.folded_anew().await, (30, 30));
    older.sums.close().await;
    // A shape that is another although the version is the same.
    let shaped = Opened::<u64, 3>::new(&ledger, 10).await;
    assert_eq!(shaped.folded_anew().await, (30, 30));
    shaped.add(1).await;
    assert_eq!(shaped.folded_anew().await, (31, 1));
    shaped.sums.close().await;
    let misshaped = Opened::<Named, 3>::new(&ledger, 10).await;
    assert_eq!(misshaped.folded_anew().await, (31, 31));
}

/// Another entity of the same name, version and shape.
struct Product;

impl Entity for Product {
    type State = u64;
    type Command = u64;
    type Event = Added;
    type Error = std::convert::Infallible;
    const NAME: &'static str = "sum";
    const STATE_VERSION: u32 = 1;

    fn decide(&self, _: &u64, n: &u64) -> Result<Vec<Added>, Self::Error> {
        Ok(vec![Added::Added(*n)])
    }

    fn apply(&self, state: &mut u64, event: &Added) {
        let Added::Added(n) = event;
        *state = (*state).max(1) * (n + 1);
    }
}

#[tokio::test]
async fn another_type_of_the_same_name_does_not_take_it() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let opened = Opened::<u64, 1>::new(&ledger, 1).await;
    opened.add(3).await;
    assert_eq!(opened.folded_anew().await, (3, 0));
    opened.sums.close().await;
    let products = ledger.entities(Product, snapshots_every(1)).await.unwrap();
    assert_eq!(products.read("s", |state| *state).await.unwrap(), 8);
    products.close().await;
    let opened = Opened::<u64, 1>::new(&ledger, 1).await;
    assert_eq!(opened.folded_anew().await, (3, 3));
}

/// A state that grows past what is kept, and says how often it was written.
#[derive(Default)]
struct Growing(u64);

static WRITTEN: AtomicU64 = AtomicU64::new(0);

impl Serialize for Growing {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        let text = if self.0 < 3 { String::new() } else { "x".repeat(counterfoil::entity::STATE_BYTES_MAX) };
        (self.0, text).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Growing {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Growing, D::Error> {
        <(u64, String)>::deserialize(from).map(|(n, _)| Growing(n))
    }
}

impl Shape for Growing {
    fn add(&mut self, n: u64) {
        self.0 += n;
    }
    fn sum(&self) -> u64 {
        self.0
    }
}

#[tokio::test]
async fn one_that_is_too_large_is_tried_ever_more_rarely() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let opened = Opened::<Growing, 1>::new(&ledger, 1).await;
    // At 1 and 2; at 3 (here, and then by the desk), 5, 9, 17 and 33, where it does not fit.
    opened.add(40).await;
    assert_eq!(WRITTEN.load(Ordering::Relaxed), 8);
    assert_eq!(opened.folded_anew().await, (40, 38));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_file_is_locked_nobody_waits() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = ledger_options();
    // Whoever waits for the lock waits for ever.
    options.store.mirror_busy_timeout = std::time::Duration::from_secs(3600);
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    let opened = Opened::<u64, 1>::new(&ledger, 1).await;
    opened.add(1).await;
    assert_eq!(opened.folded_anew().await, (1, 0));
    let locked = counterfoil::rusqlite::Connection::open(temp.path().join("entities.sqlite3")).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();
    let meanwhile = async {
        opened.add(20).await;
        assert_eq!(opened.sums.read("other", Shape::sum).await.unwrap(), 0);
        assert_eq!(opened.folded_anew().await, (21, 20));
        opened.add(1).await;
        // One that opens the file meanwhile.
        let second = Opened::<u64, 1>::new(&ledger, 1).await;
        assert_eq!(second.sums.read("another", Shape::sum).await.unwrap(), 0);
        second.sums.close().await;
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), meanwhile).await.expect("somebody waits for the lock");
    drop(locked);
    // What waited is kept: the last of them.
    let mut snapshots = snapshots(&ledger);
    until("it is kept", || snapshots.load("sum", 1, "s").unwrap().is_some_and(|kept| kept.session_seq == 22)).await;
    opened.sums.close().await;
}

#[tokio::test]
async fn one_that_is_of_another_history_is_dropped() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let opened = Opened::<u64, 1>::new(&ledger, 10).await;
    opened.add(10).await;
    opened.sums.close().await;
    let mut snapshots = snapshots(&ledger);
    let kept = snapshots.load("sum", 1, "s").unwrap().unwrap();
    assert_eq!((kept.session_seq, kept.state.as_str()), (10, "10"));
    // Of an event that is another, and of one that the stream does not have: as in a store that was brought back from a backup.
    let other = EventHash::from_bytes([7; 32]);
    for wrong in
        [Snapshot { event_hash: other, state: "999".into(), ..kept.clone() }, Snapshot { session_seq: 11, state: "999".into(), ..kept }]
    {
        snapshots.drop_stream("s").unwrap();
        snapshots.save(&wrong).unwrap();
        let opened = Opened::<u64, 1>::new(&ledger, 10).await;
        assert_eq!(opened.folded_anew().await, (10, 10));
        opened.sums.close().await;
        assert!(snapshots.load("sum", 1, "s").unwrap().is_none_or(|kept| kept.state == "10"));
    }
}

#[tokio::test]
async fn a_file_that_goes_or_is_rubbish_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path()).await;
    let opened = Opened::<u64, 1>::new(&ledger, 10).await;
    opened.add(10).await;
    assert_eq!(opened.folded_anew().await, (10, 0));
    let path = temp.path().join("entities.sqlite3");
    // While it is open.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(opened.folded_anew().await, (10, 10));
    opened.add(10).await;
    assert_eq!(opened.folded_anew().await, (20, 0));
    opened.sums.close().await;
    for name in ["entities.sqlite3-wal", "entities.sqlite3-shm"] {
        let _ = std::fs::remove_file(temp.path().join(name));
    }
    std::fs::write(&path, b"no database at all, but long enough to be looked at as one").unwrap();
    let opened = Opened::<u64, 1>::new(&ledger, 10).await;
    assert_eq!(opened.folded_anew().await, (20, 20));
    opened.add(10).await;
    assert_eq!(opened.folded_anew().await, (30, 0));
}
