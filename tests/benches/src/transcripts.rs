//! Transcripts of Claude Code and Codex for `import`: those in a directory that is named, else made up, in the shape of real ones.
//!
//! Lines that are made up are as long as those of the real ones that the importer was written by: some 1,140 bytes in Claude
//! Code's, a few of them many times that, and some 395 in Codex's; 7 of 9 lines are Claude Code's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bench_load::{Payloads, Result};

/// Names the directory that holds `claude-code` and `codex`.
pub const VARIABLE: &str = "COUNTERFOIL_BENCH_TRANSCRIPTS";

/// Of each transcript that is made up.
const CLAUDE_LINES: u64 = 1400;
const CODEX_LINES: u64 = 400;

struct Transcript {
    stem: String,
    session: String,
    text: String,
}

/// Writes transcripts until there are so many lines, each copy under a session id of its own. Answers how many.
pub fn write(to: &Path, lines_min: u64) -> Result<u64> {
    let originals = match std::env::var_os(VARIABLE) {
        Some(dir) => read(Path::new(&dir))?,
        None => vec![claude_code(), codex()],
    };
    let mut lines = 0;
    for copy in 0.. {
        for Transcript { stem, session, text } in &originals {
            if lines >= lines_min {
                return Ok(lines);
            }
            let other = format!("{copy:04}{}", session.get(4..).unwrap_or_default());
            fs::write(to.join(format!("{stem}-{copy}.jsonl")), text.replace(session, &other))?;
            lines += text.lines().count() as u64;
        }
    }
    Ok(lines)
}

fn read(from: &Path) -> Result<Vec<Transcript>> {
    let mut originals = Vec::new();
    for dir in ["claude-code", "codex"] {
        for entry in fs::read_dir(from.join(dir)).map_err(|error| format!("{}: {error}", from.join(dir).display()))? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            let session = ["\"sessionId\":\"", "\"session_meta\",\"payload\":{\"id\":\""].iter().find_map(|key| {
                let (_, rest) = text.split_once(key)?;
                rest.split('"').next().map(str::to_owned)
            });
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            originals.push(Transcript { stem, session: session.ok_or("a transcript without a session")?, text });
        }
    }
    originals.sort_by(|one, other| one.stem.cmp(&other.stem));
    if originals.is_empty() { Err("no transcripts are there".into()) } else { Ok(originals) }
}

/// The n-th second of a day.
fn time(n: u64) -> String {
    format!("2026-02-12T{:02}:{:02}:{:02}.{:03}Z", n / 3600 % 24, n / 60 % 60, n % 60, n * 37 % 1000)
}

/// Text as it stands in JSON: of `bytes` bytes, each another.
fn words(n: u64, bytes: usize) -> String {
    let payload = Payloads::new(bytes + 200).get(n);
    payload.get(150..150 + bytes).unwrap_or_default().to_owned()
}

fn claude_code() -> Transcript {
    let session = "ae4a77f8-aedd-4bc1-888f-c94edc91af04";
    let uuid = |n: u64| format!("948b4049-6323-44df-9a10-{n:012x}");
    let mut text = String::new();
    for n in 0..CLAUDE_LINES {
        let parent = if n == 0 { "null".to_owned() } else { format!("\"{}\"", uuid(n - 1)) };
        let call = format!("toolu_01{:016x}", n - n % 3);
        // Most are short, and one in thirty is a file that was read.
        let said = words(n, if n % 30 == 2 { 12_000 } else { [240, 170, 700][n as usize % 3] });
        let (kind, message) = match n % 3 {
            0 => ("user", format!(r#"{{"role":"user","content":"{said}"}}"#)),
            1 => (
                "assistant",
                format!(
                    r#"{{"model":"claude-opus-4-6","id":"msg_01{n:020x}","type":"message","role":"assistant","content":[{{"type":"text","text":"{said}"}},{{"type":"tool_use","id":"{call}","name":"Bash","input":{{"command":"cargo test --package core"}}}}],"stop_reason":null,"usage":{{"input_tokens":3,"cache_read_input_tokens":{n},"output_tokens":26,"service_tier":"standard"}}}}"#
                ),
            ),
            _ => (
                "user",
                format!(
                    r#"{{"role":"user","content":[{{"tool_use_id":"{call}","type":"tool_result","content":"{said}","is_error":false}}]}}"#
                ),
            ),
        };
        let _ = writeln!(
            text,
            r#"{{"parentUuid":{parent},"isSidechain":false,"userType":"external","cwd":"/home/user/projects/core","sessionId":"{session}","version":"2.1.39","gitBranch":"main","type":"{kind}","message":{message},"uuid":"{}","timestamp":"{}"}}"#,
            uuid(n),
            time(n)
        );
    }
    Transcript { stem: "claude-code".to_owned(), session: session.to_owned(), text }
}

fn codex() -> Transcript {
    let session = "019c8a4c-ed82-79a1-aa28-7738fc5ab61a";
    let mut text = format!(
        "{{\"timestamp\":\"{}\",\"type\":\"session_meta\",\"payload\":{{\"id\":\"{session}\",\"cwd\":\"/home/user/core\",\"cli_version\":\"0.104.0\"}}}}\n",
        time(0)
    );
    for n in 1..CODEX_LINES {
        let said = words(n, [130, 180, 420][n as usize % 3]);
        let item = match n % 3 {
            0 => format!(r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"{said}"}}]}}"#),
            1 => format!(
                r#"{{"type":"function_call","name":"exec_command","arguments":"{{\"cmd\":\"{}\"}}","call_id":"call_{n:024}"}}"#,
                words(n, 130)
            ),
            _ => format!(r#"{{"type":"function_call_output","call_id":"call_{:024}","output":"{said}"}}"#, n - 1),
        };
        let _ = writeln!(text, r#"{{"timestamp":"{}","type":"response_item","payload":{item}}}"#, time(n));
    }
    Transcript { stem: "codex".to_owned(), session: session.to_owned(), text }
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_up_lines_are_json_as_long_as_real_ones() {
        for (made, mean) in [(super::claude_code(), 1140), (super::codex(), 395)] {
            for line in made.text.lines() {
                let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(json["timestamp"].is_string());
            }
            let per_line = made.text.len() / made.text.lines().count();
            assert!(per_line.abs_diff(mean) < mean / 8, "{}: {per_line} bytes a line", made.stem);
        }
    }
}
