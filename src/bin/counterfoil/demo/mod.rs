//! `demo`: what a newcomer runs first. Agents work at once, SqliteActor is killed in the middle, the supervisor and
//! ParityActor see to it; then the store is opened again, checked, a copy of it is damaged and repaired, and the past of another one
//! rewritten.

mod damage;
mod rewrite;
mod script;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use counterfoil::actors::{CloseReport, Durability, Ledger, MirrorHealth};
use counterfoil::{
    Clock, Conditions, Draft, EventId, Ids, Options, RandomIds, Receipt, Seq, Store, SystemClock, TraceId, parity_full, verify,
};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::append::runtime;
use crate::args::DemoArgs;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::out::Out;
use crate::text;
use damage::Damage;
use rewrite::Rewritten;
use script::{Step, TASKS};

/// What happened, in numbers.
#[derive(Serialize)]
struct Report {
    store: PathBuf,
    held: bool,
    sessions: usize,
    receipts: u64,
    fsyncs: u64,
    work_ms: u64,
    kill: Kill,
    duplicate_recognised: bool,
    head: Seq,
    mirrored_through: Seq,
    reopened: Reopened,
    damage: Damage,
    rewritten: Rewritten,
}

/// What was seen while SqliteActor was down.
#[derive(Clone, Copy, Default, Serialize)]
struct Kill {
    /// The ledger's head and the mirror's watermark at that moment.
    durable: Seq,
    mirrored: Seq,
    /// Where both were when the mirror came back.
    back_at_durable: Seq,
    back_at_mirrored: Seq,
    down_ms: u64,
    restarts: u64,
}

#[derive(Serialize)]
struct Reopened {
    torn_bytes: u64,
    replayed: u64,
    lines_right: u64,
    lines_wrong: u64,
    lines: u64,
    rows: u64,
    equal: bool,
}

pub fn run(args: &DemoArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let store = match &args.dir {
        Some(dir) => free(dir)?,
        None => temporary("counterfoil-demo")?,
    };
    if !out.is_json() {
        out.line(format_args!("counterfoil demo: a store in {}", store.display()))?;
        out.flush()?;
    }
    let report = runtime()?.block_on(play(store, &context.options))?;
    let exit = Exit::consistent(report.held);
    if out.is_json() {
        out.json(&report)?;
    } else {
        print(&report, out)?;
    }
    Ok(exit)
}

/// A folder that holds nothing yet.
fn free(dir: &Path) -> Result<PathBuf, Failure> {
    let occupied = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::io("opening", dir, &error)),
    };
    match occupied {
        true if dir.join("ledger.json").exists() => {
            Err(Failure::other(format!("{} holds a store already, and the demo writes into none; name a new folder", dir.display())))
        }
        true => Err(Failure::other(format!("{} is not empty; name a new folder for the demo", dir.display()))),
        false => Ok(dir.to_owned()),
    }
}

/// A new folder among the temporary ones.
fn temporary(name: &str) -> Result<PathBuf, Failure> {
    let parent = std::env::temp_dir();
    let mut number = 0;
    loop {
        let dir = parent.join(format!("{name}-{}-{number}", std::process::id()));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(Failure::io("creating", &dir, &error)),
        }
    }
}

async fn play(dir: PathBuf, options: &Options) -> Result<Report, Failure> {
    let begun = Instant::now();
    let ledger = Ledger::open_with(&dir, options.clone()).await?;
    let ids = RandomIds::default();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for task in &TASKS {
        let (one, two) = task.steps()?;
        let trace = TraceId::from_u128(ids.next(SystemClock.now()));
        first.push((one, Thread { trace, last: None }));
        second.push(two);
    }
    let (threads, mut receipts) = work(&ledger, first).await?;
    let before = ledger.status();
    if let Some(sqlite) = ledger.children().await?.sqlite {
        sqlite.kill();
    }
    let watch = watch(&ledger, before.durable.seq);
    let (_, more) = work(&ledger, second.into_iter().zip(threads).collect()).await?;
    receipts.extend(more);
    let seen = watch.await.unwrap_or_default();
    let duplicate_recognised = append_twice(&ledger, &ids, &mut receipts).await?;
    let last = receipts.iter().map(|receipt| receipt.seq).max().unwrap_or_default();
    ledger.mirrored(last).await?;
    let status = ledger.status();
    let kill = Kill { durable: before.durable.seq, mirrored: before.mirrored_through, restarts: status.restarts, ..seen };
    let (fsyncs, work_ms) = (status.groups, millis(begun.elapsed()));
    let CloseReport { head, mirrored_through, .. } = ledger.close().await?;
    let reopened = reopen(&dir, options)?;
    let damage = damage::show(&dir, options)?;
    let rewritten = rewrite::show(&dir, options)?;
    let mut seqs: Vec<u64> = receipts.iter().map(|receipt| receipt.seq.get()).collect();
    seqs.sort_unstable();
    let all_there_once = seqs.iter().copied().eq(1..=reopened.lines);
    let held = all_there_once
        && duplicate_recognised
        && kill.restarts > 0
        && head.seq == mirrored_through
        && reopened.equal
        && reopened.lines == reopened.rows
        && reopened.lines_wrong == 0
        && damage.caught
        && damage.repaired
        && rewritten.store_fits
        && rewritten.caught;
    Ok(Report {
        store: dir,
        held,
        sessions: TASKS.len(),
        receipts: receipts.len() as u64,
        fsyncs,
        work_ms,
        kill,
        duplicate_recognised,
        head: head.seq,
        mirrored_through,
        reopened,
        damage,
        rewritten,
    })
}

/// What an agent's events have in common: their trace, and the event that caused the next one.
#[derive(Clone, Copy)]
struct Thread {
    trace: TraceId,
    last: Option<EventId>,
}

/// All tasks at once, each appending its steps in turn.
async fn work(ledger: &Ledger, tasks: Vec<(Vec<Step>, Thread)>) -> Result<(Vec<Thread>, Vec<Receipt>), Failure> {
    let running: Vec<JoinHandle<Result<_, counterfoil::AppendError>>> = tasks
        .into_iter()
        .map(|(steps, mut thread)| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for step in steps {
                    let drafts: Vec<Draft> = step.into_iter().map(|draft| thread.sew(draft)).collect();
                    let done = ledger.append_batch(drafts).await?;
                    thread.last = done.last().map(|receipt| receipt.id).or(thread.last);
                    receipts.extend(done);
                }
                Ok((thread, receipts))
            })
        })
        .collect();
    let (mut threads, mut receipts) = (Vec::new(), Vec::new());
    for task in running {
        let (thread, done) =
            task.await.map_err(|error| Failure::other(format!("a task of the demo ended: {error}; please report it")))??;
        threads.push(thread);
        receipts.extend(done);
    }
    Ok((threads, receipts))
}

impl Thread {
    fn sew(&self, draft: Draft) -> Draft {
        let draft = draft.trace(self.trace);
        match self.last {
            Some(cause) => draft.caused_by(cause),
            None => draft,
        }
    }
}

/// Watches until the mirror is back, with all that was in the ledger at the kill and more; answers where both were then.
fn watch(ledger: &Ledger, at_kill: Seq) -> JoinHandle<Kill> {
    /// How long at most: a mirror that stays away is told by the other numbers.
    const WATCH_MAX: Duration = Duration::from_secs(10);
    let (ledger, begun) = (ledger.clone(), Instant::now());
    tokio::spawn(async move {
        loop {
            let status = ledger.status();
            let is_back = status.restarts > 0 && status.mirror == MirrorHealth::Live && status.mirrored_through > at_kill;
            if is_back || begun.elapsed() > WATCH_MAX {
                return Kill {
                    back_at_durable: status.durable.seq,
                    back_at_mirrored: status.mirrored_through,
                    down_ms: millis(begun.elapsed()),
                    ..Kill::default()
                };
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    })
}

/// A retry that records nothing: the same draft, with the same id, twice.
async fn append_twice(ledger: &Ledger, ids: &RandomIds, receipts: &mut Vec<Receipt>) -> Result<bool, Failure> {
    let id = EventId::from_u128(ids.next(SystemClock.now()));
    let note = Draft::new(counterfoil::EventType::SYSTEM_NOTE, counterfoil::Source::Runtime)
        .id(id)
        .tag("demo")
        .payload("sent twice, recorded once")?;
    let checked = ledger.check(note)?;
    let durability = Durability::Mirrored;
    let first = ledger.submit(vec![checked.clone()], Conditions::none(), durability).await?.await?;
    let second = ledger.submit(vec![checked], Conditions::none(), durability).await?.await?;
    let same = first.iter().zip(&second).all(|(first, second)| second.duplicate && first.seq == second.seq);
    receipts.extend(first);
    Ok(same)
}

fn reopen(dir: &Path, options: &Options) -> Result<Reopened, Failure> {
    let (store, opened) = Store::open(dir, options)?;
    let reader = store.reader()?;
    let verified = verify(&reader, &mut |_| ())?;
    let parity = parity_full(&reader, options, None, &mut |_| ())?;
    store.close()?;
    Ok(Reopened {
        torn_bytes: opened.recovery.torn.map_or(0, |torn| torn.bytes),
        replayed: opened.replay.replayed,
        lines_right: verified.events,
        lines_wrong: verified.failures_count,
        lines: parity.jsonl_event_count,
        rows: parity.sqlite_event_count,
        equal: parity.is_consistent(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn print(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let Report { kill, reopened, damage, rewritten, .. } = report;
    let (events, fsyncs) = (text::number(report.receipts), text::number(report.fsyncs));
    out.line("")?;
    out.line(format_args!("1. {} coding agents work at once, each mending a failing test.", report.sessions))?;
    out.line(format_args!("   {events} events recorded in {} ms. A receipt means: fsynced. {fsyncs} fsyncs did for all.", report.work_ms))?;
    out.line("2. In the middle, the actor that writes the SQLite mirror was killed.")?;
    out.line(format_args!("   at the kill        ledger at seq {:>3}, mirror at seq {:>3}", kill.durable, kill.mirrored))?;
    let (durable, mirrored) = (kill.back_at_durable, kill.back_at_mirrored);
    let meanwhile = text::count(durable.get().saturating_sub(kill.durable.get()), "event");
    let back = format!("back after {} ms", kill.down_ms);
    out.line(format_args!("   {back:<18} ledger at seq {durable:>3}, mirror at seq {mirrored:>3} ({meanwhile} appended meanwhile)"))?;
    let restarts = text::count(kill.restarts, "restart");
    out.line(format_args!("   at the end         ledger at seq {:>3}, mirror at seq {:>3}", report.head, report.mirrored_through))?;
    out.line(format_args!("   {restarts} by the supervisor; ParityActor replayed what was missing; no append failed."))?;
    let once = if report.duplicate_recognised { "recorded once" } else { "RECORDED TWICE" };
    out.line(format_args!("3. An append sent twice with the same id, as after a lost answer: {once}."))?;
    out.line("4. Closed, opened again, and checked.")?;
    let (torn, replayed) = (text::bytes(reopened.torn_bytes), text::count(reopened.replayed, "event"));
    out.line(format_args!("   recovery           {torn} torn, {replayed} to replay"))?;
    let (right, wrong) = (text::number(reopened.lines_right), text::number(reopened.lines_wrong));
    out.line(format_args!("   verify             {right} lines right, {wrong} wrong (whole hash chain, all payloads)"))?;
    let (lines, rows) = (text::number(reopened.lines), text::number(reopened.rows));
    let equal = if reopened.equal { "equal byte for byte" } else { "NOT EQUAL" };
    out.line(format_args!("   parity --full      {lines} lines = {rows} rows, {equal}"))?;
    out.line(format_args!("5. In a copy, one byte of line {} was flipped.", damage.line))?;
    out.line(format_args!("   verify             {}", damage.verdict))?;
    let repaired = if damage.repaired { "the line is back from SQLite, the file identical to the original" } else { "NOT REPAIRED" };
    out.line(format_args!("   repair             {repaired}"))?;
    out.line(format_args!("6. In another copy, the past was rewritten from line {} on: every hash fits, in both sides.", rewritten.line))?;
    let fits = if rewritten.store_fits { "nothing to see, as there can't be" } else { "SOMETHING DOES NOT FIT" };
    out.line(format_args!("   verify, parity     {fits}"))?;
    out.line(format_args!("   verify --anchor    {}", rewritten.verdict))?;
    out.line("")?;
    out.line(if report.held { "Everything held. Now look around:" } else { "NOT EVERYTHING HELD (see above). Look around:" })?;
    let (program, store) = (program(), text::quoted(&report.store));
    for command in [
        "tail -n 20".to_owned(),
        "sessions".to_owned(),
        "query \"SELECT session_id, payload->>'failed' AS failed, count(*) AS runs FROM events WHERE event_type = 'test_result.v1' GROUP BY 1, 2\"".to_owned(),
        "show 5".to_owned(),
        "doctor".to_owned(),
    ] {
        out.line(format_args!("   {program} --store {store} {command}"))?;
    }
    let segments = text::quoted(&report.store.join("segments"));
    out.line(format_args!("   grep -h panicked {segments}/*.jsonl | head -3"))
}

/// How to call this program again.
fn program() -> String {
    let Ok(this) = std::env::current_exe() else { return "counterfoil".to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join("counterfoil")).find(|candidate| candidate.is_file());
    match on_path.and_then(|found| found.canonicalize().ok()) {
        Some(found) if found == this => "counterfoil".to_owned(),
        _ => text::quoted(&this),
    }
}
