//! What is done with a store that is there: open, verify, parity, replay, repair; and import into a fresh one.
//!
//! Where a case writes, it writes to a copy, which is made and synced before the clock starts. Files are in the page
//! cache: what is measured is the work, not a cold disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use bench_load::{Meter, Outcome, Payloads, Result, Spec};
use counterfoil::actors::Ledger;
use counterfoil::attest::{Attestor, MemoryKey};
use counterfoil::checkpoint::Checkpointer;
use counterfoil::keys::{KeyChange, KeyReason};
use counterfoil::{
    Conditions, LedgerReader, MirrorReader, Options, Seq, SignatureRules, Store, Writer, claim, parity_full, repair_from_ledger,
    repair_from_mirror, replay_store, verify, verify_signed,
};

use crate::actors::runtime;
use crate::core::draft;
use crate::transcripts;

/// How often a store is opened; the median counts.
const OPENS: usize = 15;

/// Measures one piece of work over all events of a store.
fn measured(work: impl FnOnce() -> Result<u64>) -> Result<Outcome> {
    let (meter, start) = (Meter::start(), Instant::now());
    let events = work()?;
    Ok(meter.stop(Outcome { events, seconds: start.elapsed().as_secs_f64(), ..Outcome::default() }))
}

fn store_of(spec: &Spec) -> Result<&Path> {
    spec.store.as_deref().ok_or_else(|| "the case needs a store".into())
}

/// The whole chain and every payload hash.
pub fn verified(spec: &Spec) -> Result<Outcome> {
    let reader = LedgerReader::open(store_of(spec)?, &Options::default())?;
    measured(|| {
        let report = verify(&reader, &mut |_| ())?;
        if report.is_clean() { Ok(report.events) } else { Err(format!("{report:?}").into()) }
    })
}

/// The same, and who signed, of a store that it makes for that: each event is signed.
pub fn verified_signed(spec: &Spec) -> Result<Outcome> {
    let (dir, mut options, key) = (spec.dir.join("signed"), Options::default(), Arc::new(MemoryKey::from_seed(&[7; 32])));
    options.attestor = Some(key.clone().into());
    let (mut store, _) = Store::open(&dir, &options)?;
    store.change_key(&KeyChange::Added { key: key.public_key(), reason: KeyReason::default() }, key.clone())?;
    let payloads = Payloads::new(spec.payload);
    while store.head().seq.get() < spec.events_max {
        let from = store.head().seq.get();
        let drafts = (from..spec.events_max.min(from + 1000)).map(|n| draft(&payloads, n, n % 64)).collect::<Result<Vec<_>>>()?;
        store.append_batch(drafts, &Conditions::none())?;
    }
    store.close()?;
    let reader = LedgerReader::open(&dir, &Options::default())?;
    let rules = SignatureRules { root: key.public_key(), required_from: Some(Seq::FIRST) };
    measured(|| {
        let report = verify_signed(&reader, rules, &mut |_| ())?;
        if report.is_clean() { Ok(report.events) } else { Err(format!("{report:?}").into()) }
    })
}

/// A checkpoint of a store that had none: the tree over all of its events. And what one costs that has 10,000 more to cover, and
/// one that has nothing.
pub fn checkpoint(spec: &Spec) -> Result<Outcome> {
    let (dir, options, key) = (copy(spec, |_| true)?, Options::default(), Arc::new(MemoryKey::from_seed(&[7; 32])));
    let mut store = Store::open(&dir, &options)?.0;
    let manifest = store.manifest().clone();
    let sign = |head| -> Result<f64> {
        // Each anew, as the command does it: what it knows is what is in the files.
        let start = Instant::now();
        Checkpointer::new(&dir, &manifest, &options, key.clone(), Vec::new()).sign(head)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let head = store.head();
    let mut outcome = measured(|| sign(head).map(|_| head.seq.get()))?;
    outcome.more.insert("nothing_new_ms".to_owned(), sign(head)? * 1e3);
    let payloads = Payloads::new(spec.payload);
    for round in 0..10 {
        let drafts = (0..1000).map(|n| draft(&payloads, round * 1000 + n, n % 64)).collect::<Result<Vec<_>>>()?;
        store.append_batch(drafts, &Conditions::none())?;
    }
    outcome.more.insert("ten_thousand_new_ms".to_owned(), sign(store.head())? * 1e3);
    Ok(outcome)
}

/// Every line with every row.
pub fn parity(spec: &Spec) -> Result<Outcome> {
    let options = Options::default();
    let reader = LedgerReader::open(store_of(spec)?, &options)?;
    measured(|| {
        let report = parity_full(&reader, &options, None, &mut |_| ())?;
        if report.is_consistent() { Ok(report.jsonl_event_count) } else { Err(format!("{report:?}").into()) }
    })
}

/// The ledger into a fresh mirror, and full parity after it.
pub fn replay(spec: &Spec) -> Result<Outcome> {
    let dir = copy(spec, |name| !name.starts_with("mirror"))?;
    measured(|| {
        let done = replay_store(&dir, &Options::default(), &mut |_, _| ())?;
        if done.parity.is_consistent() { Ok(done.replay.replayed) } else { Err(format!("{done:?}").into()) }
    })
}

/// The mirror derived anew from the ledger, by `repair`.
pub fn from_ledger(spec: &Spec) -> Result<Outcome> {
    let dir = copy(spec, |_| true)?;
    measured(|| {
        repair_from_ledger(&dir, &Options::default(), &mut |_| ())?;
        Ok(LedgerReader::open(&dir, &Options::default())?.head()?.seq.get())
    })
}

/// The ledger's files written anew from the mirror.
pub fn from_mirror(spec: &Spec) -> Result<Outcome> {
    let dir = copy(spec, |name| name != "segments")?;
    measured(|| {
        repair_from_mirror(&dir, &Options::default(), &mut |_| ())?;
        Ok(LedgerReader::open(&dir, &Options::default())?.head()?.seq.get())
    })
}

/// Opens a clean store again and again: the ledger's part, `Store`, and the actors.
pub fn open(spec: &Spec) -> Result<Outcome> {
    let (dir, options, runtime) = (store_of(spec)?, Options::default(), runtime()?);
    let (mut ledger, mut store, mut actors) = (Vec::new(), Vec::new(), Vec::new());
    let mut outcome = measured(|| {
        for _ in 0..OPENS {
            let start = Instant::now();
            let claimed = claim(dir, true, &options)?;
            let claiming = start.elapsed();
            // Waiting for the mirror's connection is not the ledger's part.
            let mut mirror = MirrorReader::open(dir, claimed.manifest.ledger_id, options.mirror_busy_timeout)?;
            let watermark = Some(mirror.watermark(claimed.manifest.ledger_id)?);
            let start = Instant::now();
            let (writer, _) = Writer::open(dir, &claimed.manifest, watermark, &mut mirror, &options)?;
            ledger.push((claiming + start.elapsed()).as_secs_f64());
            drop((writer, mirror, claimed));
            let start = Instant::now();
            let (opened, _) = Store::open(dir, &options)?;
            store.push(start.elapsed().as_secs_f64());
            opened.close()?;
            let start = Instant::now();
            let opened = runtime.block_on(Ledger::open_with(dir, options.clone()))?;
            actors.push(start.elapsed().as_secs_f64());
            runtime.block_on(opened.close())?;
        }
        Ok(OPENS as u64)
    })?;
    for (name, times) in [("ledger_ms", &mut ledger), ("store_ms", &mut store), ("actors_ms", &mut actors)] {
        times.sort_by(f64::total_cmp);
        outcome.more.insert(name.to_owned(), times[times.len() / 2] * 1e3);
    }
    Ok(outcome)
}

/// Where the command is that `import` runs.
pub fn command() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/counterfoil");
    std::env::var_os("COUNTERFOIL_BENCH_COMMAND").map_or(built, PathBuf::from)
}

/// Imports transcripts of Codex and Claude Code into a fresh store by the command, from its start to its end. Each is there as
/// often as it takes, each time as another session.
pub fn import(spec: &Spec) -> Result<Outcome> {
    let command = command();
    if !command.exists() {
        return Ok(Outcome::skipped(format!("{} is not there: run `cargo build --release`", command.display())));
    }
    let copies = spec.dir.join("transcripts");
    fs::create_dir(&copies)?;
    let lines = transcripts::write(&copies, spec.events_max)?;
    let start = Instant::now();
    let mut import = Command::new(command);
    import.arg("--store").arg(spec.dir.join("store")).args(["--json", "import"]).arg(&copies).stdout(Stdio::piped());
    let done = import.output()?;
    let seconds = start.elapsed().as_secs_f64();
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into());
    }
    let events = LedgerReader::open(&spec.dir.join("store"), &Options::default())?.head()?.seq.get();
    if events < lines {
        return Err(format!("{lines} lines became {events} events").into());
    }
    Ok(Outcome { events, seconds, ..Outcome::default() })
}

/// Copies what is wanted of a store into the case's directory, and syncs it.
fn copy(spec: &Spec, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let to = spec.dir.join("copy");
    copy_dir(store_of(spec)?, &to, &wanted)?;
    Ok(to)
}

fn copy_dir(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if !wanted(&name.to_string_lossy()) {
            continue;
        }
        if path.is_dir() {
            copy_dir(&path, &to.join(name), &|_| true)?;
        } else {
            fs::copy(&path, to.join(&name))?;
            fs::File::open(to.join(&name))?.sync_all()?;
        }
    }
    Ok(())
}
