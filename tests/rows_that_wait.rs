//! Goal: rows that nobody waits for may wait for `mirror_delay`; rows that are awaited don't, and none is left behind.
//! Method: a delay of an hour, so that what is committed was not left to the clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use common::{id, note, options, parity, until};
use counterfoil::actors::{Durability, Ledger, LedgerOptions};
use counterfoil::{AppendError, Expect, MirrorAck, Seq, failpoint};

const HOUR: Duration = Duration::from_secs(3600);

async fn open(dir: &Path, mirror_delay: Duration) -> Ledger {
    let mut options = LedgerOptions::from(options());
    (options.mirror_delay, options.mirrored_deadline) = (mirror_delay, HOUR);
    Ledger::open_with(dir, options).await.unwrap()
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it waits for the clock")
}

#[tokio::test]
async fn nobody_waits_for_the_clock() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path(), HOUR).await;
    let first = ledger.append(note("unawaited").id(id(1))).await.unwrap();
    in_time(ledger.mirrored(first.seq)).await.unwrap();

    ledger.append(note("unawaited").id(id(2))).await.unwrap();
    let awaited = in_time(ledger.append_with(note("awaited").id(id(3)), Expect::Any, Durability::Mirrored)).await.unwrap();
    assert_eq!((awaited.mirror, ledger.status().mirrored_through), (MirrorAck::Mirrored, Seq::new(3)));

    ledger.append(note("again").id(id(4))).await.unwrap();
    let again = in_time(ledger.append_with(note("again").id(id(4)), Expect::Any, Durability::Mirrored)).await.unwrap();
    assert_eq!((again.duplicate, again.mirror), (true, MirrorAck::Mirrored));

    // All that was on its way has been awaited: nothing takes this one along.
    let left = ledger.append(note("left").id(id(5))).await.unwrap();
    assert!(ledger.status().mirrored_through < left.seq, "its row may wait");
    let closed = in_time(ledger.close()).await.unwrap();
    assert_eq!(closed.mirrored_through, Seq::new(5));
    assert!(parity(temp.path()).is_consistent());
}

#[tokio::test]
async fn enough_of_them_don_t_wait() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = open(temp.path(), HOUR).await;
    for _ in 0..8 {
        ledger.append_batch((0..512).map(|_| note("x")).collect()).await.unwrap();
    }
    until("a transaction", || ledger.status().mirrored_through == Seq::new(8 * 512)).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_comes_though_ledger_actor_has_ended() {
    let temp = tempfile::tempdir().unwrap();
    let mut options = LedgerOptions::from(options());
    options.mirror_delay = Duration::from_millis(50);
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    options.store.failpoint = Some(Arc::new(move |point| match point {
        failpoint::LEDGER_SYNC if failing.load(SeqCst) => Err(std::io::Error::other("EIO")),
        _ => Ok(()),
    }));
    let ledger = Ledger::open_with(temp.path(), options).await.unwrap();
    for n in 1..=3 {
        ledger.append(note("acknowledged").id(id(n))).await.unwrap();
    }
    fails.store(true, SeqCst);
    let lost = ledger.append(note("lost").id(id(4))).await.unwrap_err();
    assert!(matches!(lost, AppendError::OutcomeUnknown { .. }), "{lost}");
    until("the rows of what was acknowledged", || ledger.status().mirrored_through == Seq::new(3)).await;
}
