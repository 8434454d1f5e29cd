//! Goal: with the actors, checkpoints are signed every so many events and every so often, on request and on close, of what is
//! durable; they are handed to the anchors again where that has failed; a ledger that contradicts what was signed is refused, which
//! the status says while appends go on; and an actor that dies comes back.
//!
//! Method: real actors and files; states are awaited, never slept for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod checkpoint_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use checkpoint_support::common::{self, note, until};
use checkpoint_support::{key, leaves, public, root};
use counterfoil::actors::{CheckpointOptions, CheckpointStatus, Ledger, LedgerOptions, Phase};
use counterfoil::attest::{AttestError, Attestor, PublicKey, Signature};
use counterfoil::checkpoint::*;
use counterfoil::*;

const NEVER: Duration = Duration::from_secs(1 << 30);

fn options(every_events: u64, every: Duration) -> LedgerOptions {
    let mut options = LedgerOptions::from(common::options());
    let mut checkpoint = CheckpointOptions::new(key());
    (checkpoint.every_events, checkpoint.every, checkpoint.at_close) = (every_events, every, false);
    options.checkpoint = Some(checkpoint);
    options
}

fn anchored(mut options: LedgerOptions, anchor: impl Anchor + 'static) -> LedgerOptions {
    options.checkpoint = options.checkpoint.map(|checkpoint| checkpoint.anchor(anchor));
    options
}

async fn append(ledger: &Ledger, count: u64) {
    for n in 0..count {
        ledger.append(note(&format!("event {n}"))).await.unwrap();
    }
}

fn status(ledger: &Ledger) -> CheckpointStatus {
    ledger.status().checkpoint.unwrap_or_default()
}

/// What the store has signed, each of it right.
fn signed(dir: &Path) -> Vec<u64> {
    let text = fs::read_to_string(dir.join("checkpoints/signed.txt")).unwrap_or_default();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let leaves = leaves(dir);
    let size = |note: &[&str]| {
        let checkpoint = Checkpoint::parse(note.concat().as_bytes()).unwrap();
        assert_eq!(checkpoint.verify(&[public()]), Ok(public()));
        assert_eq!(checkpoint.root(), root(&leaves[..checkpoint.size() as usize]));
        checkpoint.size()
    };
    lines.chunks(5).map(size).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_so_many_events() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor) = (temp.path().join("store"), temp.path().join("anchor"));
    let ledger = Ledger::open_with(&dir, anchored(options(10, NEVER), FileAnchor::new(&anchor))).await.unwrap();
    append(&ledger, 9).await;
    until("a first look", || ledger.status().checkpoint.is_some()).await;
    assert_eq!(status(&ledger).size, 0);
    // In one group: a look in between would sign fewer.
    ledger.append_batch((9..13).map(|n| note(&format!("event {n}"))).collect()).await.unwrap();
    until("a checkpoint", || status(&ledger).size == 13).await;
    // What is signed is said before an anchor is asked.
    until("the anchor has it", || status(&ledger).anchors[0].size == 13).await;
    let now = status(&ledger);
    assert!(now.signed_at.is_some() && now.failed.is_none() && now.refused.is_none(), "{now:?}");
    assert_eq!(now.root, Some(root(&leaves(&dir))));
    append(&ledger, 9).await;
    ledger.close().await.unwrap();
    assert_eq!(signed(&dir), [13]);
    assert_eq!(fs::read(&anchor).unwrap(), fs::read(dir.join("checkpoints/signed.txt")).unwrap());
}

#[tokio::test]
async fn every_so_often_and_not_without_events() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_with(temp.path(), options(u64::MAX, Duration::from_millis(1))).await.unwrap();
    for size in 1..=3 {
        append(&ledger, 1).await;
        until("a checkpoint", || status(&ledger).size == size).await;
    }
    until("some looks", || status(&ledger).size == 3).await;
    ledger.close().await.unwrap();
    assert_eq!(signed(temp.path()), [1, 2, 3]);
}

#[tokio::test]
async fn on_request_and_on_close() {
    let temp = tempfile::tempdir().unwrap();
    let mut with = options(u64::MAX, NEVER);
    let ledger = Ledger::open_with(temp.path(), with.clone()).await.unwrap();
    let empty = ledger.checkpoint().await.unwrap_err();
    assert!(matches!(empty, Error::Checkpoint(CheckpointError::Empty)), "{empty}");
    append(&ledger, 2).await;
    assert_eq!(ledger.checkpoint().await.unwrap().checkpoint.size(), 2);
    assert!(!ledger.checkpoint().await.unwrap().is_new);
    append(&ledger, 1).await;
    ledger.close().await.unwrap();
    assert_eq!(signed(temp.path()), [2]);

    with.checkpoint.as_mut().unwrap().at_close = true;
    let ledger = Ledger::open_with(temp.path(), with.clone()).await.unwrap();
    append(&ledger, 1).await;
    ledger.clone().close().await.unwrap();
    assert!(matches!(ledger.checkpoint().await, Err(Error::Append(AppendError::Closed))));
    // What had waited when it was opened may have been signed before the fourth came.
    let last = signed(temp.path());
    assert!(last == [2, 4] || last == [2, 3, 4], "{last:?}");
    let ledger = Ledger::open_with(temp.path(), with.clone()).await.unwrap();
    ledger.close().await.unwrap();
    assert_eq!(signed(temp.path()), last, "nothing new");

    with.checkpoint = None;
    let ledger = Ledger::open_with(temp.path(), with).await.unwrap();
    assert!(ledger.status().checkpoint.is_none());
    assert!(matches!(ledger.checkpoint().await, Err(Error::Checkpoint(CheckpointError::NoSigner))));
    ledger.close().await.unwrap();
}

/// Fails until it is told to work, and counts.
struct Flaky {
    works: AtomicBool,
    /// It has panicked often enough.
    is_calm: AtomicBool,
    asked: AtomicU64,
    /// The size of the last checkpoint that was taken.
    taken: AtomicU64,
}

impl Flaky {
    fn new() -> Arc<Flaky> {
        Arc::new(Flaky {
            works: AtomicBool::new(false),
            is_calm: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })
    }
}

struct FlakyAnchor(Arc<Flaky>);

impl Anchor for FlakyAnchor {
    fn name(&self) -> String {
        "flaky".to_owned()
    }
    fn publish(&self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        self.0.asked.fetch_add(1, SeqCst);
        if self.0.works.load(SeqCst) {
            self.0.taken.store(checkpoint.size(), SeqCst);
            Ok(())
        } else {
            Err(AnchorError { anchor: self.name(), reason: "not today".to_owned() })
        }
    }
}

struct FlakySigner(Arc<Flaky>);

impl Attestor for FlakySigner {
    fn public_key(&self) -> PublicKey {
        public()
    }
    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError> {
        if !self.0.is_calm.load(SeqCst) {
            panic!("a signer that panics");
        }
        match self.0.works.load(SeqCst) {
            true => key().sign(message),
            false => Err(AttestError::Failed { key_id: self.key_id(), reason: "no token".to_owned() }),
        }
    }
}

#[tokio::test]
async fn an_anchor_that_fails_is_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let flaky = Flaky::new();
    let ledger = Ledger::open_with(temp.path(), anchored(options(1, NEVER), FlakyAnchor(flaky.clone()))).await.unwrap();
    append(&ledger, 1).await;
    until("a failure", || status(&ledger).anchors.first().is_some_and(|anchor| anchor.error.as_deref() == Some("not today"))).await;
    // It holds up no signing.
    append(&ledger, 1).await;
    until("the next checkpoint", || status(&ledger).size == 2).await;
    let asked = flaky.asked.load(SeqCst);
    until("another try without a new event", || flaky.asked.load(SeqCst) > asked).await;
    flaky.works.store(true, SeqCst);
    until("it has taken it", || status(&ledger).anchors[0].error.is_none()).await;
    assert_eq!(status(&ledger).anchors[0].size, 2);
    ledger.close().await.unwrap();
    assert_eq!(signed(temp.path()), [1, 2]);
}

#[tokio::test]
async fn a_signer_that_panics_or_fails_is_asked_again() {
    let temp = tempfile::tempdir().unwrap();
    let flaky = Flaky::new();
    let mut with = options(1, NEVER);
    with.checkpoint.as_mut().unwrap().attestor = Arc::new(FlakySigner(flaky.clone())).into();
    let ledger = Ledger::open_with(temp.path(), with).await.unwrap();
    append(&ledger, 1).await;
    until("a panic", || status(&ledger).failed.is_some_and(|failed| failed.contains("it has panicked"))).await;
    flaky.is_calm.store(true, SeqCst);
    until("a failure", || status(&ledger).failed.is_some_and(|failed| !failed.contains("it has panicked"))).await;
    insta::assert_snapshot!(status(&ledger).failed.unwrap(), @"key_0871f3aabc26e4582c508af5c03884e6 has not signed the checkpoint: no token; see to the signer, and sign again");
    append(&ledger, 1).await;
    flaky.works.store(true, SeqCst);
    until("a checkpoint", || status(&ledger).size == 2).await;
    assert_eq!(status(&ledger).failed, None);
    assert!(matches!(ledger.status().phase, Phase::Running));
    ledger.close().await.unwrap();
    assert_eq!(signed(temp.path()), [2]);
}

#[tokio::test]
async fn a_rewritten_ledger_is_refused_and_appends_go_on() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor) = (temp.path().join("store"), temp.path().join("anchor"));
    let with = anchored(options(1, NEVER), FileAnchor::new(&anchor));
    let ledger = Ledger::open_with(&dir, with.clone()).await.unwrap();
    append(&ledger, 3).await;
    until("the anchor has it", || status(&ledger).anchors.first().is_some_and(|anchor| anchor.size == 3)).await;
    ledger.close().await.unwrap();
    let manifest = fs::read(dir.join("ledger.json")).unwrap();
    let given = fs::read(&anchor).unwrap();
    // The whole store anew, its own checkpoints gone: the anchor alone knows better.
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ledger.json"), manifest).unwrap();
    for count in [2, 2] {
        let ledger = Ledger::open_with(&dir, with.clone()).await.unwrap();
        append(&ledger, count).await;
        until("a refusal", || status(&ledger).refused.is_some()).await;
        let refused = ledger.checkpoint().await.unwrap_err();
        assert!(matches!(&refused, Error::Checkpoint(error) if error.is_inconsistent()), "{refused}");
        append(&ledger, 1).await;
        let closed = ledger.close().await.unwrap();
        assert_eq!(closed.ledger_error, None);
    }
    assert_eq!((fs::read(&anchor).unwrap(), signed(&dir)), (given, Vec::new()));
}

#[tokio::test]
async fn what_an_anchor_has_missed_by_a_crash_it_gets_at_the_next_start() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor) = (temp.path().join("store"), temp.path().join("anchor"));
    let with = anchored(options(1, NEVER), FileAnchor::new(&anchor));
    let ledger = Ledger::open_with(&dir, with.clone()).await.unwrap();
    append(&ledger, 1).await;
    let has = |size| status(&ledger).anchors.first().is_some_and(|anchor| anchor.size == size);
    until("the anchor has the first", || has(1)).await;
    let first = fs::read(&anchor).unwrap();
    append(&ledger, 1).await;
    until("the anchor has the second", || has(2)).await;
    ledger.close().await.unwrap();
    let both = fs::read(&anchor).unwrap();
    fs::write(&anchor, first).unwrap();
    let ledger = Ledger::open_with(&dir, with).await.unwrap();
    until("the anchor has it", || fs::read(&anchor).unwrap() == both).await;
    ledger.close().await.unwrap();
}

/// An anchor that can't say what it has is given the newest one at the next start, without a new event; at a close too.
#[tokio::test]
async fn an_anchor_that_can_not_say_gets_the_newest_at_the_next_start() {
    for at_close in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, lost) = (temp.path().join("store"), temp.path().join("lost"));
        let flaky = Flaky::new();
        let mut with = anchored(anchored(options(1, NEVER), FlakyAnchor(flaky.clone())), FileAnchor::new(&lost));
        let ledger = Ledger::open_with(&dir, with.clone()).await.unwrap();
        append(&ledger, 3).await;
        until("a checkpoint", || status(&ledger).size == 3).await;
        until("a failure", || status(&ledger).anchors.first().is_some_and(|anchor| anchor.error.is_some())).await;
        ledger.close().await.unwrap();
        fs::remove_file(&lost).unwrap();
        with.checkpoint.as_mut().unwrap().at_close = at_close;
        let ledger = Ledger::open_with(&dir, with).await.unwrap();
        if at_close {
            until("a failure", || status(&ledger).anchors.first().is_some_and(|anchor| anchor.error.is_some())).await;
            flaky.works.store(true, SeqCst);
        } else {
            flaky.works.store(true, SeqCst);
            until("it has taken it", || status(&ledger).anchors.iter().any(|anchor| anchor.anchor == "flaky" && anchor.size == 3)).await;
        }
        let asked = flaky.asked.load(SeqCst);
        ledger.close().await.unwrap();
        assert!(!at_close || flaky.taken.load(SeqCst) == 3, "{asked}");
        assert!(fs::read_to_string(&lost).unwrap().contains("\n3\n"));
    }
}

#[tokio::test]
async fn what_no_checkpoint_covers_at_the_start_has_waited_long_enough() {
    let temp = tempfile::tempdir().unwrap();
    for size in [2, 4] {
        let ledger = Ledger::open_with(temp.path(), options(u64::MAX, NEVER)).await.unwrap();
        until("a first look", || ledger.status().checkpoint.is_some()).await;
        append(&ledger, 2).await;
        ledger.close().await.unwrap();
        assert!(!signed(temp.path()).contains(&size), "signed before its time");
        let ledger = Ledger::open_with(temp.path(), options(u64::MAX, NEVER)).await.unwrap();
        until("a checkpoint", || status(&ledger).size == size).await;
        ledger.close().await.unwrap();
    }
    assert_eq!(signed(temp.path()), [2, 4]);
}

/// Never comes back.
struct Hung(Arc<AtomicU64>);

impl Hung {
    fn hang(&self) -> ! {
        self.0.fetch_add(1, SeqCst);
        loop {
            std::thread::park();
        }
    }
}

struct HungAnchor {
    hung: Hung,
    already_when_asked: bool,
}

impl Anchor for HungAnchor {
    fn name(&self) -> String {
        "hung".to_owned()
    }
    fn last(&self, _: &str) -> Result<Option<Checkpoint>, AnchorError> {
        if self.already_when_asked { self.hung.hang() } else { Ok(None) }
    }
    fn publish(&self, _: &Checkpoint) -> Result<(), AnchorError> {
        self.hung.hang()
    }
    fn answers_within(&self) -> Duration {
        Duration::from_millis(50)
    }
}

struct HungSigner(Hung);

impl Attestor for HungSigner {
    fn public_key(&self) -> PublicKey {
        public()
    }
    fn sign(&self, _: &[u8]) -> Result<Signature, AttestError> {
        self.0.hang()
    }
}

#[tokio::test]
async fn an_anchor_that_hangs_holds_up_neither_signing_nor_the_others_nor_a_close() {
    for (already_when_asked, at_close) in [(false, false), (false, true), (true, false), (true, true)] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, anchor, asked) = (temp.path().join("store"), temp.path().join("anchor"), Arc::new(AtomicU64::new(0)));
        let hung = HungAnchor { hung: Hung(asked.clone()), already_when_asked };
        let mut with = anchored(anchored(options(1, NEVER), hung), FileAnchor::new(&anchor));
        with.checkpoint.as_mut().unwrap().at_close = at_close;
        let ledger = Ledger::open_with(&dir, with).await.unwrap();
        append(&ledger, 1).await;
        until("a checkpoint", || status(&ledger).size == 1).await;
        append(&ledger, 1).await;
        until("another", || status(&ledger).size == 2).await;
        until("stuck", || {
            status(&ledger).anchors.iter().any(|anchor| anchor.error.as_ref().is_some_and(|error| error.starts_with("stuck: ")))
        })
        .await;
        // A close waits for no anchor.
        until("the other one has it", || status(&ledger).anchors.iter().any(|anchor| anchor.size == 2)).await;
        ledger.close().await.unwrap();
        assert_eq!(asked.load(SeqCst), 1, "it was asked again before it had come back");
        assert_eq!(fs::read(&anchor).unwrap(), fs::read(dir.join("checkpoints/signed.txt")).unwrap());
        Store::open(&dir, &common::options()).unwrap().0.close().unwrap();
    }
}

#[tokio::test]
async fn a_signer_that_hangs_holds_up_no_close() {
    for at_close in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let mut with = options(1, NEVER);
        with.store.sign_deadline = Duration::from_millis(50);
        let checkpoint = with.checkpoint.as_mut().unwrap();
        (checkpoint.attestor, checkpoint.at_close) = (Arc::new(HungSigner(Hung(asked.clone()))).into(), at_close);
        let ledger = Ledger::open_with(temp.path(), with).await.unwrap();
        append(&ledger, 1).await;
        let within = |failed: &str| failed.contains("no answer within 50 ms") || failed.contains("stuck: ");
        until("a failure", || status(&ledger).failed.is_some_and(|failed| within(&failed))).await;
        until("stuck", || status(&ledger).failed.is_some_and(|failed| failed.contains("stuck: "))).await;
        ledger.close().await.unwrap();
        assert_eq!((asked.load(SeqCst), signed(temp.path())), (1, Vec::new()));
        Store::open(temp.path(), &common::options()).unwrap().0.close().unwrap();
    }
}

struct PanickingAnchor(Arc<AtomicU64>);

impl Anchor for PanickingAnchor {
    fn name(&self) -> String {
        "panicking".to_owned()
    }
    fn publish(&self, _: &Checkpoint) -> Result<(), AnchorError> {
        self.0.fetch_add(1, SeqCst);
        panic!("an anchor that panics");
    }
}

#[tokio::test]
async fn an_anchor_that_panics_costs_the_others_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, anchor, asked) = (temp.path().join("store"), temp.path().join("anchor"), Arc::new(AtomicU64::new(0)));
    let with = anchored(anchored(options(1, NEVER), PanickingAnchor(asked.clone())), FileAnchor::new(&anchor));
    let ledger = Ledger::open_with(&dir, with).await.unwrap();
    for size in 1..=3 {
        append(&ledger, 1).await;
        until("a checkpoint", || status(&ledger).anchors.get(1).is_some_and(|anchor| anchor.size == size)).await;
        assert!(status(&ledger).anchors[0].error.as_ref().unwrap().contains("panicked"), "{:?}", status(&ledger));
    }
    until("another try without a new event", || asked.load(SeqCst) > 3).await;
    assert_eq!(status(&ledger).failed, None);
    ledger.close().await.unwrap();
    assert_eq!(signed(&dir), [1, 2, 3]);
}
