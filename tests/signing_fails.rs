//! Goal: a signature that fails, is wrong, or does not come in time leaves its append out, and nothing else: what was sealed
//! behind it in the same group is sealed anew, its conditions hold for what is really there, and every caller is told the truth.
//! Method: signers that fail by the event's number, stay away until they are let go, give another key's signature, or panic,
//! amid appends that are well; afterwards the ledger is read and verified.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(feature = "actors")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use counterfoil::actors::Ledger;
use counterfoil::attest::{AttestError, Attestor, MemoryKey, PublicKey, Signature};
use counterfoil::*;

/// What a signer does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fails,
    Panics,
    GivesAnothers,
}

struct Bad {
    way: Way,
    is_local: bool,
    key: MemoryKey,
}

fn bad(way: Way, is_local: bool) -> Arc<dyn Attestor> {
    Arc::new(Bad { way, is_local, key: MemoryKey::from_seed(&[9; 32]) })
}

impl Attestor for Bad {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError> {
        match self.way {
            Way::Fails => Err(AttestError::Failed { key_id: self.key_id(), reason: "the token is locked".to_owned() }),
            Way::Panics => panic!("a signer's own mistake"),
            Way::GivesAnothers => MemoryKey::from_seed(&[8; 32]).sign(message),
        }
    }
    fn is_local(&self) -> bool {
        self.is_local
    }
}

/// Signs once it is let go.
struct Away {
    key: MemoryKey,
    is_back: Mutex<bool>,
    back: Condvar,
    asked: AtomicUsize,
}

impl Away {
    fn new() -> Arc<Away> {
        Arc::new(Away { key: MemoryKey::from_seed(&[7; 32]), is_back: Mutex::new(false), back: Condvar::new(), asked: AtomicUsize::new(0) })
    }

    fn comes_back(&self) {
        *self.is_back.lock().unwrap() = true;
        self.back.notify_all();
    }
}

impl Attestor for Away {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
    fn sign(&self, message: &[u8]) -> Result<Signature, AttestError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let is_back = self.is_back.lock().unwrap();
        drop(self.back.wait_while(is_back, |is_back| !*is_back).unwrap());
        self.key.sign(message)
    }
}

fn note(n: u64) -> Draft {
    common::note(&format!("note {n}")).session("s").id(common::id(n))
}

/// The numbers of the notes that are recorded, in order; everything else about them is checked.
fn recorded(dir: &std::path::Path) -> Vec<u64> {
    let report = common::verified(dir);
    assert!(report.is_clean(), "{report}");
    assert!(common::parity(dir).is_consistent());
    let lines = String::from_utf8(common::ledger_bytes(dir)).unwrap();
    let number = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["payload"].as_str().unwrap().strip_prefix("note ").unwrap().parse().unwrap()
    };
    lines.lines().map(number).collect()
}

#[test]
fn each_way_to_fail_leaves_the_append_out() {
    for (way, is_local) in [(Way::Fails, true), (Way::Fails, false), (Way::Panics, true), (Way::Panics, false), (Way::GivesAnothers, false)]
    {
        let (temp, _, options) = common::store();
        let dir = temp.path().join("new");
        let mut store = Store::open(&dir, &options).unwrap().0;
        store.append(note(1)).unwrap();
        let error = store.append(note(2).sign_with(bad(way, is_local))).unwrap_err();
        let Error::Append(AppendError::Attest(told)) = &error else { panic!("{error}") };
        match way {
            Way::GivesAnothers => assert!(matches!(told, AttestError::Wrong { .. }), "{told}"),
            _ => assert!(matches!(told, AttestError::Failed { .. }), "{told}"),
        }
        // A batch goes as a whole.
        let batch = vec![note(3), note(4).sign_with(bad(way, is_local)), note(5)];
        store.append_batch(batch, &Conditions::none()).unwrap_err();
        // And its events can be recorded later, in the stream's next places.
        let receipts = store.append_batch(vec![note(3), note(4), note(5)], &Conditions::none()).unwrap();
        assert_eq!(
            receipts.iter().map(|receipt| (receipt.session_seq, receipt.duplicate)).collect::<Vec<_>>(),
            [(Some(2), false), (Some(3), false), (Some(4), false)]
        );
        store.close().unwrap();
        assert_eq!(recorded(&dir), [1, 3, 4, 5]);
    }
}

/// Appends that are staged into one group: LedgerActor is held at its first message until all of them are posted.
async fn grouped(ledger: &Ledger, drafts: Vec<(Draft, Conditions)>) -> Vec<Result<Vec<Receipt>, AppendError>> {
    let mut answers = Vec::new();
    for (draft, conditions) in drafts {
        let checked = ledger.check(draft).unwrap();
        answers.push(ledger.submit(vec![checked], conditions, actors::Durability::Ledger).await.unwrap());
    }
    let mut told = Vec::new();
    for answer in answers {
        told.push(answer.await);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_it_is_sealed_anew() {
    let (temp, _, options) = common::unsynced_store();
    let dir = temp.path().join("new");
    let mut options = actors::LedgerOptions::from(options);
    // Long enough for all of them to join one group; it is written when the first half-second is over, whatever the machine does.
    options.linger = Duration::from_millis(500);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let good: Arc<dyn Attestor> = Arc::new(MemoryKey::from_seed(&[1; 32]));
    let at = |position| Conditions::none().session("s", position);
    let any = Conditions::none;
    let told = grouped(
        &ledger,
        vec![
            (note(1), any()),
            (note(2).sign_with(good.clone()), at(1)),
            (note(3).sign_with(bad(Way::Fails, true)), any()),
            // It was accepted behind note 3, which is not there: the stream is at 2.
            (note(4), at(3)),
            // This one expects what there is.
            (note(5).sign_with(good.clone()), any()),
            // The same event once more shares the fate of the first.
            (note(3).sign_with(bad(Way::Fails, true)), any()),
            (note(5), any()),
            (note(6).sign_with(bad(Way::GivesAnothers, false)), any()),
            (note(7).sign_with(good.clone()), any()),
        ],
    )
    .await;
    let seqs: Vec<_> = told.iter().map(|answer| answer.as_ref().ok().map(|receipts| receipts[0].seq.get())).collect();
    assert_eq!(seqs, [Some(1), Some(2), None, None, Some(3), None, Some(3), None, Some(4)]);
    assert!(matches!(told[2], Err(AppendError::Attest(AttestError::Failed { .. }))), "{:?}", told[2]);
    assert!(matches!(told[3], Err(AppendError::WrongSessionSeq { expected: 3, actual: 2, .. })), "{:?}", told[3]);
    assert!(matches!(told[5], Err(AppendError::Attest(_))), "{:?}", told[5]);
    assert!(matches!(told[7], Err(AppendError::Attest(AttestError::Wrong { .. }))), "{:?}", told[7]);
    assert!(told[6].as_ref().unwrap()[0].duplicate);
    let receipt = ledger.append(note(8)).await.unwrap();
    assert_eq!((receipt.seq.get(), receipt.session_seq), (5, Some(5)));
    ledger.close().await.unwrap();
    assert_eq!(recorded(&dir), [1, 2, 5, 7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_that_stays_away_holds_up_its_group_once() {
    let (temp, _, mut options) = common::unsynced_store();
    let dir = temp.path().join("new");
    options.sign_deadline = Duration::from_millis(100);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let away = Away::new();
    let first = ledger.append(note(1).sign_with(away.clone())).await;
    assert!(matches!(first, Err(AppendError::Attest(AttestError::Deadline { .. }))), "{first:?}");
    // It is not asked again before it has come back; others go on meanwhile.
    let second = ledger.append(note(2).sign_with(away.clone())).await;
    assert!(matches!(second, Err(AppendError::Attest(AttestError::Stuck { .. }))), "{second:?}");
    assert_eq!(away.asked.load(Ordering::SeqCst), 1);
    ledger.append(note(3)).await.unwrap();
    away.comes_back();
    // Once it has, it signs.
    let mut tries = 0;
    while let Err(error) = ledger.append(note(4).sign_with(away.clone())).await {
        assert!(matches!(error, AppendError::Attest(AttestError::Stuck { .. })), "{error}");
        tries += 1;
        assert!(tries < 1_000_000);
        tokio::task::yield_now().await;
    }
    ledger.close().await.unwrap();
    assert_eq!(recorded(&dir), [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_closes_though_a_signer_stays_away() {
    let (temp, _, mut options) = common::unsynced_store();
    let dir = temp.path().join("new");
    options.sign_deadline = Duration::from_millis(50);
    let ledger = Ledger::open_with(&dir, options).await.unwrap();
    let away = Away::new();
    ledger.append(note(1).sign_with(away.clone())).await.unwrap_err();
    ledger.append(note(2)).await.unwrap();
    ledger.close().await.unwrap();
    assert_eq!(recorded(&dir), [2]);
    away.comes_back();
}
