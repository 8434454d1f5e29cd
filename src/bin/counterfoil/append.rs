//! `append`: events from arguments or standard input, pipelined in order; a receipt a line.

use std::future::Future;
use std::io::{BufRead, IsTerminal, Read};
use std::pin::Pin;
use std::sync::Arc;

use counterfoil::actors::{AppendReply, CloseReport, Durability, Ledger};
use counterfoil::policy::Policy;
use counterfoil::{Conditions, Draft, MirrorAck, Options, Payload, Receipt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::args::{AppendArgs, DurabilityArg, PolicyArg};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::keys;
use crate::out::{self, Out};

/// Appends that may be on their way: a few groups' worth, so that groups form while their receipts are printed.
pub const IN_FLIGHT_MAX: usize = 1024;

/// What will be the answer to an append.
pub type Answer = Pin<Box<dyn Future<Output = AppendReply> + Send>>;

/// Bytes of standard input that may be read ahead. 64 MiB: four of the longest lines.
const READ_AHEAD_BYTES_MAX: usize = 64 << 20;

/// A payload with its share of what may be read ahead, or why there is none; then no other follows.
type Input = Result<(Payload, Option<OwnedSemaphorePermit>), Failure>;

pub fn run(args: AppendArgs, context: &Context, out: &mut Out) -> Result<Exit, Failure> {
    let redacting = args.redact.then(|| context.redacting());
    let context = redacting.as_ref().unwrap_or(context);
    let from_stdin = args.payloads.is_empty() || args.payloads == ["-"];
    let conditions = conditions(&args, from_stdin)?;
    // Arguments are all looked at before the first one is recorded.
    let payloads = if from_stdin { Vec::new() } else { args.payloads.iter().map(|json| payload(json)).collect::<Result<_, _>>()? };
    // So is what all drafts have in common, before a store is created for them.
    draft(&args, Payload::null()).check(&context.options.limits())?;
    let mut options = keys::signing(&context.options, args.sign.as_deref())?;
    match args.policy {
        Some(PolicyArg::Local) => options.policy = Policy::local(),
        Some(PolicyArg::Trusted) => options.policy = Policy::trusted(),
        None => {}
    }
    runtime()?.block_on(async {
        let ledger = open(context, options, out).await?;
        let appended = if args.atomic {
            let payloads = if from_stdin { read_all(context, out).await } else { Ok(payloads) };
            atomic(payloads, &args, conditions, &ledger, out).await
        } else {
            let inputs = if from_stdin { read_stdin(context, out) } else { given(payloads) };
            pipelined(inputs, &args, conditions, &ledger, out).await
        };
        let closed = ledger.close().await;
        appended?;
        if let Some(reason) = mirror_behind(&closed?) {
            out::note(out, context.local(&format!("all of it is durable, but the mirror is behind: {reason}; {CATCH_UP}")));
        }
        Ok(Exit::Fine)
    })
}

/// A runtime for the actors.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::other(format!("starting threads: {error}; end some other programs and try again")))
}

/// Opens the store to append, creating it where there is none.
pub async fn open(context: &Context, options: Options, out: &Out) -> Result<Ledger, Failure> {
    let created = !context.store.join("ledger.json").exists();
    let ledger = Ledger::open_with(&context.store, options).await?;
    if created {
        out::note(out, format_args!("created the store {}", context.store.display()));
    }
    let status = ledger.status();
    if let Some(torn) = status.recovery.and_then(|recovery| recovery.torn) {
        let (bytes, segment, saved) = (torn.bytes, torn.segment.display(), torn.saved.display());
        out::note(out, format_args!("a crash had left a torn tail: {bytes} bytes at byte {} of {segment} are now in {saved}", torn.offset));
    }
    if let Some(aside) = status.mirror_set_aside {
        out::note(out, format_args!("the mirror was of no use and is rebuilt; the old one is {}", aside.display()));
    }
    Ok(ledger)
}

/// What helps where the mirror is behind.
pub const CATCH_UP: &str = "the next append catches up, or run `counterfoil replay`";

/// Why the mirror lacks events at the end, if it does.
pub fn mirror_behind(closed: &CloseReport) -> Option<String> {
    let is_behind = closed.mirror_error.is_some() || closed.mirrored_through < closed.head.seq;
    is_behind.then(|| closed.mirror_error.clone().unwrap_or_else(|| "it could not be written".to_owned()))
}

fn conditions(args: &AppendArgs, from_stdin: bool) -> Result<Conditions, Failure> {
    let several = from_stdin || args.payloads.len() > 1;
    if args.id.is_some() && several {
        return Err(Failure::usage("--id is for one event; give one payload as an argument"));
    }
    let expected = if args.expect_new_session { Some(0) } else { args.expect_session_seq };
    match (expected, &args.session) {
        (Some(_), _) if several && !args.atomic => Err(Failure::usage(
            "a condition holds for one append: give one payload as an argument, or make all of them one batch with --atomic",
        )),
        (Some(seq), Some(session)) => Ok(Conditions::none().session(session, seq)),
        _ => Ok(Conditions::none()),
    }
}

fn draft(args: &AppendArgs, payload: Payload) -> Draft {
    let mut draft = Draft::new(args.event_type.clone(), args.source.clone()).with_payload(payload);
    if let Some(id) = args.id {
        draft = draft.id(id);
    }
    if let Some(at) = args.observed_at {
        draft = draft.observed_at(at);
    }
    if let Some(session) = &args.session {
        draft = draft.session(session);
    }
    if let Some(trace) = args.trace {
        draft = draft.trace(trace);
    }
    if let Some(cause) = args.caused_by {
        draft = draft.caused_by(cause);
    }
    args.tags.iter().fold(draft, |draft, tag| draft.tag(tag))
}

fn durability(args: &AppendArgs) -> Durability {
    match args.durability {
        DurabilityArg::Ledger => Durability::Ledger,
        DurabilityArg::Mirrored => Durability::Mirrored,
    }
}

fn payload(json: &str) -> Result<Payload, Failure> {
    Payload::from_json(json).map_err(|error| Failure::usage(format!("{error}, as in counterfoil append '\"text\"'")))
}

fn given(payloads: Vec<Payload>) -> mpsc::Receiver<Input> {
    let (to, inputs) = mpsc::channel(payloads.len().max(1));
    for payload in payloads {
        // There is room for all of them.
        let _ = to.try_send(Ok((payload, None)));
    }
    inputs
}

/// Reads standard input on a thread of its own, since reading can't be interrupted. Ends at the first bad line.
fn read_stdin(context: &Context, out: &Out) -> mpsc::Receiver<Input> {
    if std::io::stdin().is_terminal() {
        out::note(out, "reading payloads from standard input, one JSON value a line; end with Ctrl-D");
    }
    let line_bytes_max = context.options.line_bytes_max;
    let (to, inputs) = mpsc::channel(IN_FLIGHT_MAX);
    let (room, runtime) = (Arc::new(Semaphore::new(READ_AHEAD_BYTES_MAX)), tokio::runtime::Handle::current());
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut number = 0u64;
        loop {
            let mut line = Vec::new();
            number += 1;
            // One byte more than may be tells a line that is too long.
            let read = stdin.by_ref().take(line_bytes_max as u64 + 1).read_until(b'\n', &mut line);
            let input = match read {
                Ok(0) => return,
                Ok(_) if line.trim_ascii().is_empty() => continue,
                Ok(_) => parse(line, number, line_bytes_max),
                Err(error) => Err(Failure::other(format!("reading standard input: {error}; see where it comes from"))),
            };
            let input = input.map(|payload| {
                let bytes = payload.as_str().len().clamp(1, READ_AHEAD_BYTES_MAX) as u32;
                // Nobody closes it.
                (payload, runtime.block_on(room.clone().acquire_many_owned(bytes)).ok())
            });
            let ends = input.is_err();
            if to.blocking_send(input).is_err() || ends {
                return;
            }
        }
    });
    inputs
}

fn parse(line: Vec<u8>, number: u64, line_bytes_max: usize) -> Result<Payload, Failure> {
    let bad = |what: String| Failure::usage(format!("line {number} of standard input: {what}; the lines before it are recorded"));
    if line.len() > line_bytes_max {
        return Err(bad(format!("it has more than {line_bytes_max} bytes; split the payload, or store it elsewhere and record its hash")));
    }
    let text = String::from_utf8(line).map_err(|error| bad(format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
    Payload::from_json(text).map_err(|error| bad(error.to_string()))
}

async fn read_all(context: &Context, out: &Out) -> Result<Vec<Payload>, Failure> {
    let mut inputs = read_stdin(context, out);
    let (mut payloads, mut bytes) = (Vec::new(), 0);
    // What is too large for one batch is refused as such; there is no need to have read all of it.
    while payloads.len() <= context.options.group_events_max
        && bytes <= context.options.group_bytes_max
        && let Some(input) = inputs.recv().await
    {
        let (payload, _) = input.map_err(|failure| match failure {
            Failure::Told { code, message } => {
                Failure::Told { code, message: message.replace("the lines before it are recorded", "nothing was recorded") }
            }
            gone => gone,
        })?;
        bytes += payload.as_str().len();
        payloads.push(payload);
    }
    Ok(payloads)
}

async fn atomic(
    payloads: Result<Vec<Payload>, Failure>,
    args: &AppendArgs,
    conditions: Conditions,
    ledger: &Ledger,
    out: &mut Out,
) -> Result<(), Failure> {
    let drafts = payloads?.into_iter().map(|payload| draft(args, payload)).collect();
    for receipt in ledger.append_batch_with(drafts, conditions, durability(args)).await? {
        print(&receipt, out)?;
    }
    Ok(())
}

/// Sends each payload as it comes, and prints the receipts in order.
async fn pipelined(
    mut inputs: mpsc::Receiver<Input>,
    args: &AppendArgs,
    conditions: Conditions,
    ledger: &Ledger,
    out: &mut Out,
) -> Result<(), Failure> {
    let (to, mut answers) = mpsc::channel::<Answer>(IN_FLIGHT_MAX);
    let send = async move {
        // `to` is moved in, so that the receiving side ends with this one.
        while let Some(input) = inputs.recv().await {
            let (payload, _read_ahead) = input?;
            let checked = ledger.check(draft(args, payload))?;
            let answer = ledger.submit(vec![checked], conditions.clone(), durability(args)).await?;
            if to.send(Box::pin(answer)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let receive = async {
        loop {
            let answer = match answers.try_recv() {
                Ok(answer) => answer,
                Err(_) => {
                    // Nothing is on its way: show what there is before waiting.
                    out.flush()?;
                    match answers.recv().await {
                        Some(answer) => answer,
                        None => return Ok(()),
                    }
                }
            };
            for receipt in answer.await? {
                print(&receipt, out)?;
            }
        }
    };
    let (mut send, mut receive) = (std::pin::pin!(send), std::pin::pin!(receive));
    let mut sent: Option<Result<(), Failure>> = None;
    loop {
        tokio::select! {
            done = &mut send, if sent.is_none() => sent = Some(done),
            // Where a receipt can't be had or printed, nothing more is sent.
            done = &mut receive => {
                let received: Result<(), Failure> = done;
                return received.and(sent.unwrap_or(Ok(())));
            }
        }
    }
}

pub fn print(receipt: &Receipt, out: &mut Out) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(receipt);
    }
    let duplicate = if receipt.duplicate { "  (recorded before)" } else { "" };
    let mirror = match receipt.mirror {
        MirrorAck::NotAwaited => "",
        MirrorAck::Mirrored => "  mirrored",
        MirrorAck::MirrorBehind => "  (durable; the mirror is behind)",
    };
    out.line(format_args!("seq {}  {}  {}{mirror}{duplicate}", receipt.seq, receipt.id, receipt.event_hash))
}
