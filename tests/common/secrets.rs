//! A store that has secrets in every place where a payload may be, and a look into every file for what is left of them.

use std::fs;
use std::path::{Path, PathBuf};

use counterfoil::*;

use super::*;

/// What no text of the store but the secrets has: each secret has some of these words, with numbers behind them.
pub const WORDS: [&str; 3] = ["xylophonist-", "Qu\u{e4}kerin-", "quiet\\\"key-"];

/// The forms in which a word may stand: as it is, as JSON, and as JSON that escapes all that can be escaped.
fn forms() -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for word in WORDS {
        let json = serde_json::to_string(word).unwrap();
        let ascii: String = word.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        forms.extend([word.to_owned(), json.trim_matches('"').to_owned(), ascii.clone(), ascii.to_uppercase().replace("\\U", "\\u")]);
        // As UTF-16, which a database could be in.
        forms.push(word.encode_utf16().flat_map(|unit| unit.to_le_bytes()).map(char::from).collect());
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// Files below the store that have a secret in them, compressed ones decompressed too.
pub fn secrets_in(dir: &Path) -> Vec<PathBuf> {
    let forms = forms();
    let holds = |bytes: &[u8]| forms.iter().any(|form| memchr::memmem::find(bytes, form).is_some());
    let mut found = Vec::new();
    for (path, bytes) in files(dir) {
        let plain = zstd::stream::decode_all(&bytes[..]).unwrap_or_default();
        if holds(&bytes) || holds(&plain) {
            found.push(path);
        }
    }
    found
}

/// The seqs of the secrets: one in a batch, one large, one that is escaped, one short, one with the same payload as another.
pub const SECRET: [u64; 7] = [3, 4, 7, 12, 13, 18, 21];
/// The session of some of them, and of nothing else.
pub const SESSION: &str = "s-secret";
/// Events before anything is erased.
pub const EVENTS: u64 = 24;

fn payload(seq: u64) -> String {
    let [plain, umlaut, quoted] = WORDS;
    match seq {
        // Several pages of the mirror, and no two parts of it the same.
        4 | 18 => {
            let all: Vec<String> = (0..900).map(|n| format!("{plain}{seq}-{n} {umlaut}{n}")).collect();
            serde_json::to_string(&all).unwrap()
        }
        7 => format!("{{\"escaped\":\"{}\"}}", plain.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>()),
        12 => serde_json::to_string(&format!("{quoted}12")).unwrap(),
        13 | 21 => format!("\"{plain}twice\""),
        3 => format!("{{\"text\":\"{umlaut}{seq}\",\"more\":\"{}\"}}", "and so on ".repeat(30)),
        _ => format!("{{\"text\":\"nothing to hide {seq}\",\"more\":\"{}\"}}", "and so on ".repeat((seq % 5) as usize * 12)),
    }
}

pub fn draft(seq: u64) -> Draft {
    let draft = Draft::new(EventType::USER_MESSAGE, Source::User).id(id(500 + seq)).payload_json(payload(seq)).unwrap();
    match seq {
        3 | 4 | 18 => draft.session(SESSION).tag("secret"),
        _ if seq.is_multiple_of(2) => draft.session("s-1"),
        _ => draft,
    }
}

/// Such a store, in a folder of its own.
pub fn store() -> (tempfile::TempDir, PathBuf, Options) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    let options = super::small_segments();
    filled(&dir, &options);
    (temp, dir, options)
}

/// Fills a store: the secrets are in plain and compressed segments, in the active one, in torn bytes, in a mirror that was set
/// aside, in rows that were written anew, and in the mirror's WAL, which stays. And in an entity's snapshot, and the WAL of that.
pub fn filled(dir: &Path, options: &Options) {
    let (mut store, _) = Store::open(dir, options).unwrap();
    for seq in 1..=EVENTS {
        if seq == 7 {
            store.append_batch(vec![draft(7), draft(8)], &Conditions::none()).unwrap();
        } else if seq != 8 {
            store.append(draft(seq)).unwrap();
        }
    }
    store.close().unwrap();
    let holders = [Seq::new(4), Seq::new(13)];
    compress(dir, options, &Sealed::Holding(holders.to_vec()), &mut |_| ()).unwrap();
    torn(dir);
    fs::copy(mirror_path(dir), dir.join("mirror.sqlite3.aside-1")).unwrap();
    fs::write(dir.join("mirror.sqlite3.aside-2"), "a mirror of nothing").unwrap();
    // Rows that come and go leave pages behind.
    let conn = super::by_hand(dir);
    conn.execute_batch(
        "CREATE TEMP TABLE kept AS SELECT * FROM events; DELETE FROM events WHERE seq % 3 = 0; DELETE FROM events WHERE seq = 4;
         INSERT OR IGNORE INTO events SELECT * FROM kept ORDER BY seq DESC",
    )
    .unwrap();
    snapshot(dir, &format!("\"{}\"", "nothing to hide ".repeat(300)), 2);
    snapshot(dir, &payload(4), 3);
}

/// Keeps the state of an entity that has folded the secrets' stream; the WAL is left there as a process that is killed leaves it.
pub fn snapshot(dir: &Path, state: &str, session_seq: u64) {
    let ledger_id = LedgerReader::open(dir, &Options::default()).unwrap().manifest().ledger_id;
    let mut snapshots = entity::Snapshots::open(dir, ledger_id, std::time::Duration::from_secs(5)).unwrap();
    let (entity, session_id, state) = ("a test".to_owned(), SESSION.to_owned(), state.to_owned());
    let (seq, event_hash) = (Seq::new(4), EventHash::from_bytes([4; 32]));
    snapshots
        .save(&entity::Snapshot {
            entity,
            type_name: "tests::Test".to_owned(),
            state_version: 1,
            session_id,
            session_seq,
            seq,
            event_hash,
            state,
        })
        .unwrap();
    let wal = dir.join("entities.sqlite3-wal");
    let bytes = fs::read(&wal).unwrap();
    drop(snapshots);
    fs::write(wal, bytes).unwrap();
}

/// Bytes in torn/ as recovery and repair leave them there.
fn torn(dir: &Path) {
    let reader = LedgerReader::open(dir, &Options::default()).unwrap();
    let line = |seq: u64| reader.line(Seq::new(seq)).unwrap().unwrap();
    let torn = dir.join("torn");
    fs::create_dir_all(&torn).unwrap();
    // A whole line, and one that was cut in its payload.
    let large = line(18);
    let mut cut = [line(2), vec![b'\n'], large[..large.len() - 9000].to_vec()].concat();
    fs::write(torn.join("00000000000000000002-0-0.torn"), &cut).unwrap();
    // Only the end of a line is left, behind zeros.
    fs::write(torn.join("00000000000000000003-99-0.torn"), [vec![0; 700], line(4)[5000..].to_vec()].concat()).unwrap();
    // A short payload whose header is lost.
    let short = line(12);
    let at = memchr::memmem::find(&short, b",\"payload\"").unwrap();
    fs::write(torn.join("00000000000000000003-99-1.torn"), &short[at..]).unwrap();
    // A whole segment that a repair replaced, with a damaged byte in the secret's header, and its compressed form.
    let mut damaged: Vec<u8> = (1..=6).flat_map(|seq| [line(seq), vec![b'\n']].concat()).collect();
    let at = memchr::memmem::find(&damaged, b"\"seq\":3,").unwrap() + 200;
    damaged[at] ^= 1;
    fs::write(torn.join("00000000000000000001.damaged-1"), &damaged).unwrap();
    let packed = zstd::bulk::compress(&damaged, 3).unwrap();
    fs::write(torn.join("00000000000000000001.damaged-2.zst"), &packed).unwrap();
    // One that can't be read as a whole, of the segment that has one of them; and one of a segment that has none.
    let holder = reader.segments().unwrap().into_iter().rev().find(|segment| segment.first <= Seq::new(3)).unwrap().first;
    fs::write(torn.join(format!("{:020}.damaged-3.zst", holder.get())), &packed[..packed.len() / 2]).unwrap();
    fs::write(torn.join("00000000000000000999.damaged-1.zst"), &packed[..packed.len() / 2]).unwrap();
    // What has nothing to do with them.
    cut.clear();
    cut.extend_from_slice(&line(2)[..300]);
    fs::write(torn.join("00000000000000000002-0-1.torn"), &cut).unwrap();
}

/// All secrets, by their seqs.
pub fn all() -> Erase {
    Erase::Seqs(SECRET.iter().map(|seq| Seq::new(*seq)..=Seq::new(*seq)).collect())
}

/// Lines of the ledger, by seq.
pub fn lines(dir: &Path) -> BTreeMap<u64, Vec<u8>> {
    let mut lines = LedgerReader::open(dir, &Options::default()).unwrap().lines_from(Seq::FIRST).unwrap();
    let mut all = BTreeMap::new();
    while let Some((line, event)) = lines.next_event().unwrap() {
        all.insert(event.seq.get(), line.raw.bytes.to_vec());
    }
    all
}

/// What must hold once all secrets are erased: both legs right and equal, nothing of the secrets in any file, and all other lines as
/// they were before, and those of the secrets but for their payload.
pub fn check_erased(dir: &Path, before: &BTreeMap<u64, Vec<u8>>, what: &str) {
    let verified = verified(dir);
    assert!(verified.is_clean() && verified.erased == SECRET.len() as u64 && verified.not_yet_erased == 0, "{what}: {verified}");
    let parity = parity(dir);
    assert!(parity.is_consistent(), "{what}: {parity}");
    let left = secrets_in(dir);
    assert!(left.is_empty(), "{what}: secrets are left in {left:?}");
    let now = lines(dir);
    for (seq, line) in before {
        let event = line::decode(line).unwrap();
        let is = &now[seq];
        if SECRET.contains(seq) {
            let mut erased = event.clone();
            erased.body = Body::Erased;
            let mut bytes = Vec::new();
            line::encode(&erased, &mut bytes);
            assert_eq!(String::from_utf8_lossy(is), String::from_utf8_lossy(&bytes), "{what}: seq {seq}");
        } else {
            assert!(is == line, "{what}: seq {seq} has changed");
        }
    }
}

/// The erasure of all secrets.
pub fn erasure() -> Erasure {
    Erasure::new(all(), "a test").by("its author")
}

/// What must hold of a store that [`filled`] has made and that a process has left while it carried out [`erasure`]: the next open
/// finds that it has not begun, and everything is as it was, or completes it. Then it is erased, and done.
pub fn check_all_or_nothing(dir: &Path, options: &Options, what: &str) {
    let (store, opened) = Store::open(dir, options).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(opened.erased.unfinished, None, "{what}");
    assert_eq!(opened.erased.missing_count, 0, "{what}");
    store.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    let now = lines(dir);
    let has_begun = now.len() as u64 > EVENTS;
    let before: BTreeMap<u64, Vec<u8>> = now.into_iter().filter(|(seq, _)| *seq <= EVENTS).collect();
    if has_begun {
        check_erased(dir, &before, what);
    } else {
        let (verified, parity) = (verified(dir), parity(dir));
        assert!(verified.is_clean() && verified.erased == 0 && parity.is_consistent(), "{what}: {verified}{parity}");
        for seq in 1..=EVENTS {
            let event = line::decode(&before[&seq]).unwrap();
            assert_eq!(event.payload(), Some(draft(seq).payload_bytes()), "{what}: seq {seq}");
        }
    }
    let again = erase(dir, options, &erasure()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((again.recorded.is_empty(), again.done.unfinished), (has_begun, None), "{what}");
    check_erased(dir, &before, what);
    assert!(files(&dir.join("tmp")).is_empty(), "{what}: tmp/ is cleared");
}
