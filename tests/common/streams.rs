//! Stores with several streams, from a seed: batches, events of no stream, payloads out of line, erased ones, compressed segments, and
//! a mirror that is behind.

use std::fs;
use std::path::Path;

use counterfoil::*;

use super::{Random, checked, disk, note, options, writer};

/// Streams whose names are hard to keep, and one that no event is of.
pub const STREAMS: [&str; 5] = ["s-1", "s-10", "s-\u{1}\"2\" ü", "S-1", "none"];

/// A draft of one of the streams but the last, or of none.
pub fn draft(random: &mut Random, n: u64) -> Draft {
    let text = "x".repeat(random.below(60) as usize * random.below(12) as usize);
    let kinds = [EventType::SYSTEM_NOTE, EventType::TOOL_CALL, EventType::TOOL_RESULT];
    let payload = format!("{n} {text}");
    let draft = Draft::new(kinds[random.below(3) as usize].clone(), Source::Runtime).payload(&payload).unwrap();
    match random.below(6) {
        5 => draft,
        n => draft.session(STREAMS[[0, 0, 1, 2, 3][n as usize]]),
    }
}

/// A closed store of some events, its mirror at their end.
pub fn filled(dir: &Path, random: &mut Random) -> Options {
    let mut options = options();
    options.segment_bytes_max = 2_000 + random.below(20_000);
    disk::without_sync(&mut options);
    let (mut store, _) = Store::open(dir, &options).unwrap();
    let events = 20 + random.below(120);
    let mut n = 0;
    while n < events {
        let size = if random.chance(4) { 1 + random.below(6) } else { 1 };
        let drafts = (n..n + size).map(|n| draft(random, n)).collect();
        store.append_batch(drafts, &Conditions::none()).unwrap();
        n += size;
    }
    store.close().unwrap();
    if random.chance(2) {
        out_of_line(dir, random);
        // Made anew, from the lines as they are by now.
        fs::remove_file(mirror_path(dir)).unwrap();
        Store::open(dir, &options).unwrap().0.close().unwrap();
    }
    if random.chance(2) {
        compress(dir, &options, &Sealed::AllBut(random.below(3) as usize), &mut |_| ()).unwrap();
    }
    if random.chance(2) {
        let seqs = (0..1 + random.below(5)).map(|_| Seq::new(1 + random.below(events))).map(|seq| seq..=seq).collect();
        erase(dir, &options, &Erasure::new(Erase::Seqs(seqs), "a test")).unwrap();
    }
    options
}

/// Puts some payloads into blobs/, as the format has it: what the hashes cover stays the same.
fn out_of_line(dir: &Path, random: &mut Random) {
    for path in super::segment_paths(dir) {
        let text = fs::read_to_string(&path).unwrap();
        let mut new = String::new();
        for line in text.lines() {
            let event = line::decode(line.as_bytes()).unwrap();
            let Some(payload) = event.payload().filter(|_| random.chance(4)) else {
                new += &format!("{line}\n");
                continue;
            };
            let name = event.payload_hash.to_string();
            let blob = dir.join("blobs").join(&name[..2]).join(&name);
            fs::create_dir_all(blob.parent().unwrap()).unwrap();
            fs::write(blob, payload).unwrap();
            let inline = format!(",\"payload\":{payload}}}");
            new += &format!("{},\"blob\":{{\"bytes\":{}}}}}\n", line.strip_suffix(&inline).unwrap(), payload.len());
        }
        fs::write(&path, new).unwrap();
    }
}

/// Appends so many events that the mirror does not get.
pub fn unmirrored(dir: &Path, options: &Options, random: &mut Random, events: u64) {
    // The writer alone knows positions of the active segment's streams only: whatever is behind is brought up first.
    Store::open(dir, options).unwrap().0.close().unwrap();
    let (mut writer, mut mirror) = writer(dir, options);
    for n in 0..events {
        let draft = checked(draft(random, 1_000 + n));
        while let Stage::GroupFull = writer.stage(std::slice::from_ref(&draft), &Conditions::none(), false, &mut mirror).unwrap() {
            writer.flush().unwrap();
        }
        if random.chance(3) {
            writer.flush().unwrap();
        }
    }
    writer.flush().unwrap();
    writer.trim().unwrap();
}

/// All events of the ledger with the bytes of their lines, as a naive reader has them.
pub fn all(dir: &Path) -> Vec<(EventRecord, usize)> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = Vec::new();
    while let Some((line, event)) = lines.next_event().unwrap() {
        all.push((event.to_record(), line.raw.bytes.len()));
    }
    all
}

/// The same, of a stream, and not beyond this seq.
pub fn of_stream<'a>(all: &'a [(EventRecord, usize)], session_id: &str, through: Seq) -> Vec<&'a (EventRecord, usize)> {
    all.iter().filter(|(event, _)| event.session_id.as_deref() == Some(session_id) && event.seq <= through).collect()
}

pub fn text(event: &EventRecord) -> String {
    serde_json::to_string(event).unwrap()
}
