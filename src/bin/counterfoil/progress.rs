//! Progress bars, on standard error and only where that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

fn bar(total: u64, template: &str) -> ProgressBar {
    // Hidden by itself where standard error is no terminal; drawn ten times a second.
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Counts bytes.
pub fn bytes(action: &'static str, total: u64) -> ProgressBar {
    bar(total, "{prefix} {bar:32} {bytes}/{total_bytes} {msg}").with_prefix(action)
}

/// Counts events.
pub fn events(action: &'static str, total: u64) -> ProgressBar {
    bar(total, "{prefix} {bar:32} {human_pos}/{human_len} events, {per_sec}").with_prefix(action)
}

/// Counts segments.
pub fn segments(action: &'static str, total: u64) -> ProgressBar {
    bar(total, "{prefix} {bar:32} {human_pos}/{human_len} segments").with_prefix(action)
}
