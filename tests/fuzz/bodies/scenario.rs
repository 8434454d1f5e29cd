//! A store that the bytes of an input describe: the history, cut, spliced, edited, resealed and damaged; or the bytes
//! themselves as segments.

use std::borrow::Cow;
use std::collections::BTreeMap;

use counterfoil::*;

use super::Input;
use super::history::history;
use super::line::reseal;

pub struct Scenario {
    /// Bytes of the segments, by their first seq.
    pub segments: BTreeMap<u64, Vec<u8>>,
    /// What the mirror says; its seq and hash are those of the history, unless it is another ledger's.
    pub watermark: Option<Watermark>,
}

/// A line, and the first seq of its segment.
type Piece = (u64, Vec<u8>);

pub fn scenario(data: &[u8]) -> Scenario {
    let mut input = Input(data);
    let mode = input.byte();
    let watermark = watermark(&mut input);
    let mut segments = if mode % 4 == 3 { raw(&mut input) } else { spliced(&mut input) };
    if mode % 4 != 3 {
        for _ in 0..input.below(5) {
            damage(&mut segments, &mut input);
        }
    }
    Scenario { segments, watermark }
}

fn watermark(input: &mut Input<'_>) -> Option<Watermark> {
    let lines = &history().lines;
    let (seq, kind) = (input.below(lines.len() + 2), input.byte());
    let Some(place) = seq.checked_sub(2).and_then(|at| lines.get(at)) else {
        let genesis = Watermark { seq: Seq::ZERO, event_hash: history().manifest.genesis(), segment: Seq::FIRST, offset: 0 };
        return (seq == 1).then_some(genesis);
    };
    let mut mark = Watermark { seq: Seq::new(seq as u64 - 1), event_hash: place.hash, segment: place.segment, offset: place.offset };
    match kind {
        // The hint may be wrong; the hash is another one where there are two histories.
        250.. => mark.offset = input.short() as u64,
        240.. => mark.segment = Seq::new(u64::from(input.byte())),
        235.. => mark.event_hash = EventHash::from_bytes([input.byte(); 32]),
        _ => {}
    }
    Some(mark)
}

fn raw(input: &mut Input<'_>) -> BTreeMap<u64, Vec<u8>> {
    let mut segments = BTreeMap::new();
    for _ in 0..input.below(3) {
        let first = u64::from(input.byte());
        let count = input.short();
        segments.insert(first, input.bytes(count).to_vec());
    }
    segments.insert(1, std::mem::take(&mut input.0).to_vec());
    segments
}

fn spliced(input: &mut Input<'_>) -> BTreeMap<u64, Vec<u8>> {
    let history = history();
    let count = history.lines.len() - input.below(history.lines.len());
    let mut pieces: Vec<Piece> = history.lines.iter().take(count).map(|place| (place.segment.get(), place.line.clone())).collect();
    for _ in 0..input.below(5) {
        splice(&mut pieces, input);
    }
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (first, line) in pieces {
        let bytes = segments.entry(first).or_default();
        bytes.extend_from_slice(&line);
        bytes.push(b'\n');
    }
    segments
}

fn splice(pieces: &mut Vec<Piece>, input: &mut Input<'_>) {
    if pieces.is_empty() {
        return;
    }
    let (kind, at) = (input.byte(), input.below(pieces.len()));
    // From the end, where a tail is damaged: small numbers are the commonest.
    let at = pieces.len() - 1 - at;
    match kind % 8 {
        0 => drop(pieces.remove(at)),
        1 => pieces.insert(at, pieces[at].clone()),
        2 => {
            let other = input.below(pieces.len());
            let (a, b) = (pieces[at].1.clone(), pieces[other].1.clone());
            (pieces[at].1, pieces[other].1) = (b, a);
        }
        3 => {
            let fork = &history().fork;
            let line = fork[input.below(fork.len())].clone();
            pieces.insert(at + 1, (pieces[at].0, line));
        }
        4 => {
            let count = input.below(80);
            let bytes = input.bytes(count).to_vec();
            pieces.insert(at + 1, (pieces[at].0, bytes));
        }
        5 => pieces[at].0 = u64::from(input.byte()),
        _ => {
            edit(&mut pieces[at].1, input);
            if kind & 8 == 0 {
                relink(&mut pieces[at..]);
            }
        }
    }
}

/// Changes a field of a line and seals it again.
fn edit(line: &mut Vec<u8>, input: &mut Input<'_>) {
    let old = line.clone();
    let Ok(mut event) = line::decode(&old) else { return };
    let (field, value) = (input.byte(), u64::from(input.byte()));
    let (payload, session);
    match field % 12 {
        0 => event.seq = Seq::new(value.max(1)),
        1 => event.group_seq = Seq::new(value.clamp(1, event.seq.get())),
        2 => event.batch = None,
        3 => {
            let n = 2 + input.below(6) as u32;
            event.batch = Some((1 + value as u32 % n, n));
        }
        4 => event.session = event.session.map(|(id, _)| (id, value.max(1))),
        5 => {
            session = format!("s-{value}");
            event.session = Some((Cow::Borrowed(session.as_str()), 1 + input.below(3) as u64));
        }
        6 => {
            payload = value.to_string();
            event.body = Body::Inline(&payload);
            if input.byte().is_multiple_of(2) {
                event.payload_hash = chain::payload_hash(payload.as_bytes());
            }
        }
        7 => event.body = Body::Erased,
        8 => event.body = Body::Blob { bytes: value },
        9 => event.prev_event_hash = EventHash::from_bytes([value as u8; 32]),
        10 => event.id = EventId::from_u128(u128::from(value)),
        _ => {
            event.attachments_json =
                Some("[{\"hash\":\"0000000000000000000000000000000000000000000000000000000000000000\",\"bytes\":1,\"media_type\":\"\"}]")
        }
    }
    line.clear();
    line::encode(&event, line);
    if let Some(resealed) = reseal(line) {
        *line = resealed;
    }
}

/// Links and seals lines again, after the first of them has changed.
fn relink(pieces: &mut [Piece]) {
    let mut last: Option<EventHash> = None;
    for (_, line) in pieces {
        let old = line.clone();
        let Ok(mut event) = line::decode(&old) else { return };
        if let Some(last) = last {
            event.prev_event_hash = last;
        }
        line.clear();
        line::encode(&event, line);
        if let Some(resealed) = reseal(line) {
            *line = resealed;
        }
        last = line::decode(line).ok().map(|event| event.event_hash);
    }
}

/// Damages the bytes of a segment (of the last one, mostly), or the list of them.
fn damage(segments: &mut BTreeMap<u64, Vec<u8>>, input: &mut Input<'_>) {
    let (kind, which) = (input.byte(), input.byte());
    if kind >= 0xf0 {
        return files(segments, kind, which, input);
    }
    let at = if which < 0xd0 { segments.len().saturating_sub(1) } else { usize::from(which) % segments.len().max(1) };
    let Some(bytes) = segments.values_mut().nth(at) else { return };
    // Offsets count from the end.
    let at = bytes.len() - input.short().min(bytes.len());
    let to = (at + input.below(300)).min(bytes.len());
    match kind % 10 {
        0 => bytes.truncate(at),
        1 => bytes[at..to].fill(0),
        2 => drop(bytes.drain(at..to)),
        3 => bytes[at..to].fill(b'\n'),
        4 if at < bytes.len() => bytes[at] ^= 1 << (to % 8),
        5 => {
            let copied = bytes[at..to].to_vec();
            let target = bytes.len() - input.short().min(bytes.len());
            bytes.splice(target..target, copied);
        }
        6 => bytes.extend(std::iter::repeat_n(0, to - at)),
        7 => bytes.extend(std::iter::repeat_n(b'\n', to - at)),
        8 => {
            let count = input.below(64);
            bytes.extend_from_slice(input.bytes(count));
        }
        _ => {
            let count = input.below(16);
            let written = input.bytes(count);
            let to = (at + written.len()).min(bytes.len());
            bytes.splice(at..to, written.iter().copied());
        }
    }
}

fn files(segments: &mut BTreeMap<u64, Vec<u8>>, kind: u8, which: u8, input: &mut Input<'_>) {
    let Some(first) = segments.keys().nth(usize::from(which) % segments.len().max(1)).copied() else { return };
    match kind % 4 {
        0 => drop(segments.remove(&first)),
        1 => {
            let bytes = segments.remove(&first).unwrap_or_default();
            segments.insert(u64::from(input.byte()), bytes);
        }
        2 => drop(segments.entry(u64::from(input.byte())).or_default()),
        _ => drop(segments.insert(first, Vec::new())),
    }
}
