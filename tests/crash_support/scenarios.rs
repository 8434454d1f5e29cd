//! Pieces of work that a process does to a store while it is made to end or to fail, and the stores that it does them to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::{AnchorFailure, AnchorFault, Anchored, Checkpoint, Checkpointer, FileAnchor, verify_anchored};
use counterfoil::*;

use super::common::{self, secrets, small_segments};
use super::{Said, Submissions, check, check_rows, recorded, say, submissions};

/// What a process does, and to which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Creates a store, appends, closes it in the middle, goes on, closes.
    Fresh,
    /// The same on a store that a crash has left with a torn batch, behind groups that are not mirrored.
    Torn,
    /// The same where the mirror's file is no database.
    BrokenMirror,
    /// Opens a store whose mirror lacks more than one step of a replay holds.
    Replay,
    /// Writes back a lost and a damaged segment, and removes a copy that is none.
    RepairFromMirror,
    /// Derives edited, moved and lost rows anew.
    RepairFromLedger,
    /// Compresses the sealed segments but the newest, gives one its plain form back, appends what is there already, closes.
    Compress,
    /// As `Torn`, and signs checkpoints in between, handed to an anchor.
    Checkpoints,
    /// Erases what is in plain and compressed segments, in torn bytes, in a mirror that was set aside and in free pages; closes.
    Erase,
    /// As `Torn`, with the actors.
    #[cfg(feature = "actors")]
    Actors,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario::Fresh,
    Scenario::Torn,
    Scenario::BrokenMirror,
    Scenario::Replay,
    Scenario::RepairFromMirror,
    Scenario::RepairFromLedger,
    Scenario::Compress,
    Scenario::Checkpoints,
    Scenario::Erase,
    #[cfg(feature = "actors")]
    Scenario::Actors,
];

/// What a scenario begins with.
pub struct Prepared {
    /// What was acknowledged before.
    pub said: Vec<Said>,
    /// Bytes that are of no use any more, and still must not be lost.
    pub kept: Vec<Vec<u8>>,
}

impl Scenario {
    pub fn named(name: &str) -> Scenario {
        *SCENARIOS.iter().find(|scenario| format!("{scenario:?}") == name).unwrap()
    }

    /// Whether the process has one thread that works.
    pub fn is_one_thread(self) -> bool {
        #[cfg(feature = "actors")]
        return self != Scenario::Actors;
        #[cfg(not(feature = "actors"))]
        true
    }

    /// Makes the store that it begins with.
    pub fn prepare(self, dir: &Path) -> Prepared {
        let mut prepared = Prepared { said: Vec::new(), kept: Vec::new() };
        match self {
            Scenario::Fresh => {}
            Scenario::Replay => {
                prepared.said = append(dir, &[]);
                prepared.said.extend(unmirrored(dir, &self.submissions()));
            }
            Scenario::BrokenMirror => {
                prepared.said = append(dir, &submissions()[..5]);
                // What the mirror had is gone with its file, so no receipt's row is.
                prepared.said.iter_mut().for_each(|said| said.mirrored = false);
                let garbage = b"no database ".repeat(500);
                fs::write(mirror_path(dir), &garbage).unwrap();
                prepared.kept.push(garbage);
            }
            Scenario::RepairFromMirror => {
                prepared.said = append(dir, &submissions());
                let paths = common::segment_paths(dir);
                let stray = fs::read(&paths[1]).unwrap();
                fs::write(dir.join("segments/00000000000000000002.jsonl"), &stray).unwrap();
                fs::remove_file(&paths[2]).unwrap();
                let mut damaged = fs::read(&paths[0]).unwrap();
                damaged[100] ^= 1;
                fs::write(&paths[0], &damaged).unwrap();
                prepared.kept.extend([stray, damaged]);
            }
            Scenario::Erase => secrets::filled(dir, &small_segments()),
            Scenario::Compress => prepared.said = append(dir, &submissions()),
            Scenario::RepairFromLedger => {
                prepared.said = append(dir, &submissions());
                prepared.said.iter_mut().for_each(|said| said.mirrored = false);
                let conn = common::by_hand(dir);
                conn.execute_batch(
                    "UPDATE events SET payload = '\"edited\"' WHERE seq = 2; DELETE FROM events WHERE seq = 4;
                     UPDATE events SET seq = 999 WHERE seq = 6",
                )
                .unwrap();
            }
            _ => {
                let all = submissions();
                prepared.said = append(dir, &all[..5]);
                prepared.said.extend(unmirrored(dir, &all[5..8]));
                prepared.kept.push(torn(dir, &all[8..10]));
            }
        }
        prepared
    }

    /// What is submitted, in this order.
    pub fn submissions(self) -> Submissions {
        match self {
            Scenario::Replay => {
                let batch = |first: u64| (first..first + 2100).map(|n| common::note("x").id(common::id(n))).collect();
                vec![batch(10_000), batch(20_000)]
            }
            _ => submissions(),
        }
    }

    /// What the process does. After an error it does what a careful program would: it tries again, with a fresh open
    /// where the store says so, a few times. Answers with the last error where that did not help.
    pub fn work(self, dir: &Path, options: &Options) -> Result<(), String> {
        let mut patience = Patience(5);
        match self {
            Scenario::RepairFromMirror => patience.until_done(|| repair_from_mirror(dir, options, &mut |_| ()))?,
            Scenario::RepairFromLedger => patience.until_done(|| repair_from_ledger(dir, options, &mut |_| ()))?,
            Scenario::Checkpoints => return with_checkpoints(dir, options, &self.submissions(), &mut patience),
            Scenario::Compress => {
                patience.until_done(|| compress(dir, options, &Sealed::AllBut(1), &mut |_| ()))?;
                patience.until_done(|| decompress(dir, options, &Sealed::Holding(vec![Seq::FIRST]), &mut |_| ()))?;
            }
            Scenario::Erase => {
                return patience.until_done(|| {
                    let (mut store, opened) = Store::open(dir, options).map_err(|error| error.to_string())?;
                    let erased = store.erase(&secrets::erasure()).map_err(|error| error.to_string())?;
                    match [opened.erased, erased.done].into_iter().find_map(|done| done.unfinished) {
                        Some(unfinished) => Err(unfinished),
                        None => store.close().map_err(|error| error.to_string()),
                    }
                });
            }
            #[cfg(feature = "actors")]
            Scenario::Actors => return with_actors(dir, options, &self.submissions(), &mut patience),
            _ => {}
        }
        with_store(dir, options, &self.submissions(), &mut patience)
    }

    /// Checks the store that a process has left, which nobody has opened since.
    pub fn check(self, dir: &Path, prepared: &Prepared, said: &[Said], what: &str) {
        let options = small_segments();
        if self == Scenario::Erase {
            return secrets::check_all_or_nothing(dir, &options, what);
        }
        let all: Vec<Said> = prepared.said.iter().chain(said).cloned().collect();
        // Where it was set aside meanwhile, rows come back by replay.
        let asides = common::files(dir).keys().filter(|path| path.to_str().unwrap().contains(".sqlite3.aside-")).count();
        let set_aside = asides > usize::from(self == Scenario::BrokenMirror);
        if !set_aside && !matches!(self, Scenario::RepairFromLedger | Scenario::RepairFromMirror) {
            check_rows(dir, &all, what);
        }
        if self == Scenario::Checkpoints {
            check_checkpoints(dir, what);
        }
        match self {
            Scenario::RepairFromMirror => drop(repair_from_mirror(dir, &options, &mut |_| ()).unwrap_or_else(|e| panic!("{what}: {e}"))),
            Scenario::RepairFromLedger => drop(repair_from_ledger(dir, &options, &mut |_| ()).unwrap_or_else(|e| panic!("{what}: {e}"))),
            _ => {}
        }
        check(dir, &options, &self.submissions(), &all, what);
        let files = common::files(dir);
        let others = files.keys().filter(|path| path.to_str().unwrap().contains(".other-")).count();
        assert_eq!(others, 0, "{what}: two forms of a segment, and not the same lines");
        for kept in &prepared.kept {
            let holds = |bytes: &Vec<u8>| bytes.windows(kept.len()).any(|window| window == kept);
            assert!(files.values().any(holds), "{what}: {} bytes that were cut or replaced are lost", kept.len());
        }
    }
}

fn said(receipts: &[Receipt]) -> Vec<Said> {
    let said = |receipt: &Receipt| Said {
        id: receipt.id,
        seq: receipt.seq.get(),
        hash: receipt.event_hash.to_string(),
        mirrored: receipt.mirror == MirrorAck::Mirrored,
    };
    receipts.iter().map(said).collect()
}

fn append(dir: &Path, submissions: &[Vec<Draft>]) -> Vec<Said> {
    let (mut store, _) = Store::open(dir, &small_segments()).unwrap();
    let append = |batch: &Vec<Draft>| said(&store.append_batch(batch.clone(), &Conditions::none()).unwrap());
    let all = submissions.iter().flat_map(append).collect();
    store.close().unwrap();
    all
}

/// Groups that are durable in the ledger and not in the mirror.
fn unmirrored(dir: &Path, submissions: &[Vec<Draft>]) -> Vec<Said> {
    let (mut writer, mut mirror) = common::writer(dir, &small_segments());
    let mut all = Vec::new();
    for batch in submissions {
        all.extend(said(&stage(&mut writer, &mut mirror, batch)));
        writer.flush().unwrap();
    }
    writer.trim().unwrap();
    all
}

fn stage(writer: &mut Writer, mirror: &mut Mirror, batch: &[Draft]) -> Vec<Receipt> {
    let checked: Vec<CheckedDraft> = batch.iter().cloned().map(common::checked).collect();
    match writer.stage(&checked, &Conditions::none(), false, mirror).unwrap() {
        Stage::Staged(Staged { receipts, .. }) => receipts,
        Stage::GroupFull => panic!("the group is full"),
    }
}

/// One more group, whose end was never written. Answers what recovery will cut.
fn torn(dir: &Path, submissions: &[Vec<Draft>]) -> Vec<u8> {
    let (mut writer, mut mirror) = common::writer(dir, &small_segments());
    for batch in submissions {
        stage(&mut writer, &mut mirror, batch);
    }
    let group = writer.flush().unwrap().unwrap();
    let path = dir.join(format!("segments/{:020}.jsonl", group.segment.get()));
    let end = group.offset as usize + group.bytes.len() - 30;
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..end]).unwrap();
    let batch = submissions.last().unwrap().len();
    let ends: Vec<usize> = memchr_all(&bytes[..end]);
    bytes[ends[ends.len() - batch + 1 - 1] + 1..end].to_vec()
}

/// Where the line ends are.
fn memchr_all(bytes: &[u8]) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect()
}

/// How many errors a process takes before it gives up.
pub struct Patience(u32);

impl Patience {
    fn failed(&mut self, error: &impl ToString) -> Result<(), String> {
        let error = error.to_string();
        eprintln!("error: {error}");
        self.0 = self.0.checked_sub(1).ok_or(error)?;
        Ok(())
    }

    fn until_done<T, E: ToString>(&mut self, mut work: impl FnMut() -> Result<T, E>) -> Result<(), String> {
        while let Err(error) = work() {
            self.failed(&error)?;
        }
        Ok(())
    }
}

fn with_store(dir: &Path, options: &Options, submissions: &Submissions, patience: &mut Patience) -> Result<(), String> {
    let mut opened: Option<Store> = None;
    let mut next = 0;
    while next < submissions.len() {
        let mut store = match opened.take() {
            Some(store) => store,
            None => match Store::open(dir, options) {
                Ok((store, _)) => store,
                Err(error) => {
                    patience.failed(&error)?;
                    continue;
                }
            },
        };
        match store.append_batch(submissions[next].clone(), &Conditions::none()) {
            Ok(receipts) => {
                say(&receipts);
                next += 1;
                if next != submissions.len() / 2 {
                    opened = Some(store);
                } else if let Err(error) = store.close() {
                    patience.failed(&error)?;
                }
            }
            Err(error) if error.is_poisoned() => {
                let again = store.append(common::note("after"));
                assert!(again.is_err_and(|error| error.is_poisoned()), "it acknowledges, though it is poisoned");
                patience.failed(&error)?;
            }
            Err(error) => {
                // SQLite can lose track of its own locks where giving one back fails; a fresh connection knows better.
                if !matches!(error, Error::Append(AppendError::Lookup(_))) {
                    opened = Some(store);
                }
                patience.failed(&error)?;
            }
        }
    }
    match opened.map(Store::close) {
        Some(Err(error)) => patience.failed(&error),
        _ => Ok(()),
    }
}

/// Where checkpoints of a store are handed to.
fn anchor(dir: &Path) -> PathBuf {
    dir.with_file_name(format!("{}.anchor", dir.file_name().unwrap().display()))
}

fn signer(store: &Store, dir: &Path, options: &Options) -> Checkpointer {
    let key = Arc::new(MemoryKey::from_seed(&[7; 32]));
    Checkpointer::new(dir, store.manifest(), options, key, vec![Arc::new(FileAnchor::new(anchor(dir)))])
}

/// Appends some and signs, in turn; each signer goes on from what the one before has left.
fn with_checkpoints(dir: &Path, options: &Options, submissions: &Submissions, patience: &mut Patience) -> Result<(), String> {
    for part in submissions.chunks(3) {
        with_store(dir, options, &part.to_vec(), patience)?;
        patience.until_done(|| -> Result<(), Error> {
            let (store, _) = Store::open(dir, options)?;
            let mut signer = signer(&store, dir, options);
            let signed = signer.sign(store.head())?;
            assert!(!signer.sign(store.head())?.is_new && signed.checkpoint.size() == store.head().seq.get());
            store.close()
        })?;
    }
    Ok(())
}

/// The ledger fits all that was signed, and what an anchor was given the store has too.
fn check_checkpoints(dir: &Path, what: &str) {
    let (signed, anchor) = (dir.join("checkpoints/signed.txt"), anchor(dir));
    let Ok(reader) = LedgerReader::open(dir, &small_segments()) else { return };
    let mut anchored = Anchored::new(&reader, &[MemoryKey::from_seed(&[7; 32]).public_key()]);
    for path in [&signed, &anchor].into_iter().filter(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0)) {
        anchored.read(path).unwrap();
    }
    let (_, report) = verify_anchored(&reader, anchored, None, &mut |_| ()).unwrap();
    let is_right = |failure: &AnchorFailure| matches!(failure.reason, AnchorFault::Nothing);
    assert!(report.failures.iter().all(is_right), "{what}: {report}");
    let notes = |path| fs::read_to_string(path).unwrap_or_default();
    let (signed, given) = (notes(&signed), notes(&anchor));
    // Of what it was given, all but what a crash has cut off.
    let lines: Vec<&str> = given.split_inclusive('\n').collect();
    for note in lines.chunks(5).map(<[&str]>::concat).filter(|note| Checkpoint::parse(note.as_bytes()).is_ok()) {
        assert!(signed.contains(&note), "{what}: an anchor has more than the store");
    }
}

#[cfg(feature = "actors")]
fn with_actors(dir: &Path, options: &Options, submissions: &Submissions, patience: &mut Patience) -> Result<(), String> {
    use counterfoil::actors::{Durability, Ledger, LedgerOptions, MirrorHealth};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut with = LedgerOptions::from(options.clone());
    // A mirror that stays out of reach is waited for; no longer than a test has time for.
    (with.mirrored_deadline, with.close_deadline) = (Duration::from_millis(300), Duration::from_millis(300));
    runtime.block_on(async {
        let mut opened: Option<Ledger> = None;
        let mut next = 0;
        while next < submissions.len() {
            let ledger = match opened.take() {
                Some(ledger) => ledger,
                None => match Ledger::open_with(dir, with.clone()).await {
                    Ok(ledger) => ledger,
                    Err(error) => {
                        patience.failed(&error)?;
                        continue;
                    }
                },
            };
            let durability = if next % 3 == 2 { Durability::Ledger } else { Durability::Mirrored };
            let append = ledger.append_batch_with(submissions[next].clone(), Conditions::none(), durability);
            let answer = {
                let mut append = std::pin::pin!(append);
                let answer = tokio::time::timeout(Duration::from_secs(5), &mut append).await;
                match (answer, ledger.status().mirror) {
                    (Err(_), MirrorHealth::Blocked { .. }) => None,
                    (Err(_), _) => tokio::time::timeout(Duration::from_secs(40), append).await.ok(),
                    (Ok(answer), _) => Some(answer),
                }
            };
            let Some(answer) = answer else {
                // It waits for a mirror that it has to read first, and can't.
                let status = ledger.status();
                let _ = ledger.close().await;
                return Err(format!("an append waits for the mirror: {status:?}"));
            };
            match answer {
                Ok(receipts) => {
                    say(&receipts);
                    next += 1;
                    if next != submissions.len() / 2 {
                        opened = Some(ledger);
                    } else if let Err(error) = ledger.close().await {
                        patience.failed(&error)?;
                    }
                }
                // Closing is what lets go of the lock; that it says why it was not in order is no news.
                Err(error) => {
                    patience.failed(&error)?;
                    let _ = ledger.close().await;
                }
            }
        }
        match opened {
            Some(ledger) => {
                // An erasure of nothing records nothing, and looks whether one is left to do.
                drop(ledger.erase(Erasure::new(Erase::Seqs(Vec::new()), "nothing")).await);
                match ledger.close().await {
                    Err(error) => patience.failed(&error),
                    Ok(_) => Ok(()),
                }
            }
            None => Ok(()),
        }
    })
}

/// Whether a store has anything in it yet.
pub fn is_begun(dir: &Path, what: &str) -> bool {
    dir.join("ledger.json").exists() && !recorded(dir, what).is_empty()
}
