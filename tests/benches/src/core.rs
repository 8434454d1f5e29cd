//! The synchronous core: `Writer`, the ledger alone, and `Store`, both legs. One caller; K events are K in a group.

use std::sync::atomic::Ordering;

use bench_load::{Outcome, Payloads, Result, Spec, session, threads};
use counterfoil::{
    CheckedDraft, Conditions, Draft, EventId, EventType, Expect, LedgerReader, Lookup, LookupError, Source, Stage, Store, Stored, Writer,
    claim,
};

use crate::settings::{Settings, settings};

/// The draft of event `n`, of a caller's session.
pub fn draft(payloads: &Payloads, n: u64, caller: u64) -> Result<Draft> {
    Ok(Draft::new(EventType::TOOL_RESULT, Source::tool("bash")).session(session(caller)).payload_json(payloads.get(n))?)
}

/// There is no mirror, and nothing to be found in it.
struct Nothing;

impl Lookup for Nothing {
    fn by_id(&mut self, _: EventId) -> Result<Option<Stored>, LookupError> {
        Ok(None)
    }
    fn session_seq(&mut self, _: &str) -> Result<Option<u64>, LookupError> {
        Ok(None)
    }
    fn key_events(&mut self, _: counterfoil::Seq) -> Result<Vec<counterfoil::keys::KeyEvent>, counterfoil::LookupError> {
        Ok(Vec::new())
    }
    fn id_max(&mut self) -> Result<Option<EventId>, LookupError> {
        Ok(None)
    }
}

/// `Writer`: seal, write, sync. Each call writes K events as one group.
pub fn ledger(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let Settings { ledger, syncs } = settings(has);
    let (options, payloads, each) = (ledger.store, Payloads::new(spec.payload), spec.in_flight as u64);
    let claimed = claim(&spec.dir, false, &options)?;
    let limits = options.limits();
    let (options, payloads, manifest, dir, limits) = (&options, &payloads, &claimed.manifest, &spec.dir, &limits);
    // The lookup isn't Send, so the caller's thread opens the writer, before the time begins.
    let mut outcome = threads(spec, 1, each, |_| {
        let mut writer = Writer::open(dir, manifest, None, &mut Nothing, options).map(|(writer, _)| writer);
        let none = Conditions::none();
        move |n| {
            let writer = writer.as_mut().map_err(|error| error.to_string())?;
            for n in n..n + each {
                let draft: CheckedDraft = draft(payloads, n, n)?.check(limits)?;
                let Stage::Staged(_) = writer.stage(&[draft], &none, true, &mut Nothing)? else {
                    return Err("a group has no room for so many".into());
                };
            }
            writer.sign().map_err(|unsigned| format!("{unsigned:?}"))?;
            writer.flush()?;
            let head = writer.head().seq;
            writer.mirrored_through(head);
            Ok(())
        }
    })?;
    outcome.ledger_syncs = Some(syncs.load(Ordering::Relaxed));
    check_head(spec, options, &outcome)?;
    Ok(outcome)
}

/// `Store`: the ledger, then the mirror, both before it returns. Each call appends a batch of K.
pub fn store(spec: &Spec, has: impl Fn(&str) -> bool) -> Result<Outcome> {
    let Settings { ledger, syncs } = settings(has);
    let (options, payloads, each) = (ledger.store, Payloads::new(spec.payload), spec.in_flight as u64);
    let (options, payloads) = (&options, &payloads);
    let mut outcome = threads(spec, 1, each, |_| {
        let mut store = Store::open(&spec.dir, options).map(|(store, _)| store);
        move |n| {
            let store = store.as_mut().map_err(|error| error.to_string())?;
            if each == 1 {
                store.append_expecting(draft(payloads, n, n)?, &Expect::Any)?;
            } else {
                let drafts = (n..n + each).map(|n| draft(payloads, n, n)).collect::<Result<Vec<_>>>()?;
                store.append_batch(drafts, &Conditions::none())?;
            }
            Ok(())
        }
    })?;
    outcome.ledger_syncs = Some(syncs.load(Ordering::Relaxed));
    check_head(spec, options, &outcome)?;
    Ok(outcome)
}

/// What was acknowledged is there: a benchmark that loses events measures nothing.
pub fn check_head(spec: &Spec, options: &counterfoil::Options, outcome: &Outcome) -> Result<()> {
    let head = LedgerReader::open(&spec.dir, options)?.head()?.seq.get();
    if head < outcome.events {
        return Err(format!("{} events were acknowledged, but the ledger ends at seq {head}", outcome.events).into());
    }
    Ok(())
}
