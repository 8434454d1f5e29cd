//! How things are shown to people.

use std::path::Path;

/// A number with commas.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `2 events`.
pub fn count(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// Bytes in the unit that reads best.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// Whether a character could steer a terminal, or turn the order of others around.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Text from an event, without characters that could steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of a report, whose lines stay lines.
pub fn plain_lines(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.strip_suffix('\n').map_or_else(|| plain(line), |line| plain(line) + "\n")).collect()
}

/// Plain text of so many characters at most.
pub fn shortened(text: &str, chars: usize) -> String {
    let mut cut = text.char_indices().skip(chars);
    match cut.next() {
        None => plain(text),
        Some(_) => {
            let end = text.char_indices().nth(chars.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", plain(text.get(..end).unwrap_or_default()))
        }
    }
}

/// A path, or another word, as a shell takes it. Characters that could steer a terminal are written by their bytes, as bash, zsh and
/// ksh take them.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_safe = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().any(steers) {
        let part = |c: char| match c {
            '\'' | '\\' => format!("\\{c}"),
            // Three digits: whatever comes next is no part of it.
            c if steers(c) => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect(),
            c => c.to_string(),
        };
        return format!("$'{}'", text.chars().map(part).collect::<String>());
    }
    if !text.is_empty() && text.chars().all(is_safe) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Width of the terminal, or of what stands in for one.
pub fn width() -> usize {
    comfy_table::Table::new().width().map_or(120, usize::from).max(40)
}
