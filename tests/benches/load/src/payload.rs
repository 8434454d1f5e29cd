//! Payloads that look like an agent's: a tool's call and what it printed, of an exact length, each another.

use std::fmt::Write as _;

const HEAD: &str = r#"{"tool":"bash","call_id":"call_"#;
const MIDDLE: &str = r#"","command":"cargo test --package core -- parser","exit_code":0,"stdout":"running 3 tests\ntest parser ... ok\n"#;
const TAIL: &str = r#""}"#;
const TEXT_BYTES: usize = 1 << 16;

/// Sessions that events are spread over.
pub const SESSIONS: u64 = 64;

/// The session of a caller.
pub fn session(caller: u64) -> String {
    format!("019c8a4c-ed82-79a1-aa28-7738fc5a{:04x}", caller % SESSIONS)
}

/// Makes payloads of one length.
#[derive(Clone, Debug)]
pub struct Payloads {
    bytes: usize,
    text: String,
}

impl Payloads {
    /// Of `bytes` bytes each, though never so few that nothing would be in them.
    pub fn new(bytes: usize) -> Payloads {
        let words = ["error", "warning", "src", "main", "let", "value", "expected", "found", "note", "help", "unused", "module"];
        let mut text = String::with_capacity(2 * TEXT_BYTES);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while text.len() < TEXT_BYTES + bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let _ = write!(text, "{} {:x} ", words[state as usize % words.len()], state >> 52);
        }
        Payloads { bytes, text }
    }

    /// Writes the payload of event `n` behind what is in `out`.
    pub fn push(&self, n: u64, out: &mut String) {
        let start = out.len();
        let _ = write!(out, "{HEAD}{n:010}{MIDDLE}");
        let rest = self.bytes.saturating_sub(out.len() - start + TAIL.len());
        let from = n.wrapping_mul(0x9e37_79b9) as usize % TEXT_BYTES;
        out.push_str(&self.text[from..from + rest]);
        out.push_str(TAIL);
    }

    /// The payload of event `n`.
    pub fn get(&self, n: u64) -> String {
        let mut out = String::with_capacity(self.bytes);
        self.push(n, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn payloads_are_json_of_the_length_asked_for() {
        for bytes in [200, 395, 1140] {
            let payloads = super::Payloads::new(bytes);
            for n in [0, 1, 77, 4_000_000_000] {
                let payload = payloads.get(n);
                assert_eq!(payload.len(), bytes);
                let json: serde_json::Value = serde_json::from_str(&payload).unwrap();
                assert_eq!(json["call_id"], format!("call_{n:010}"));
            }
        }
    }
}
