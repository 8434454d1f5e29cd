//! Goal: help says what each command does, and documents the exit codes. Method: snapshots of every help text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod cli_support;

use cli_support::*;

#[test]
fn help_texts() {
    let store = std::path::Path::new("unused");
    snapshot!("cli_help", run(store, &["--help"]).fine());
    for command in [
        "demo",
        "init",
        "append",
        "import",
        "export",
        "tail",
        "show",
        "sessions",
        "stream",
        "query",
        "stats",
        "verify",
        "parity",
        "replay",
        "repair",
        "compress",
        "doctor",
        "completions",
    ] {
        let help = run(store, &[command, "--help"]).fine();
        assert!(help.lines().all(|line| line.chars().count() <= 120), "{command}");
        snapshot!(format!("cli_help_{command}"), help);
    }
}

#[test]
fn completions_for_each_shell() {
    let store = std::path::Path::new("unused");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(store, &["completions", shell]).fine().contains("counterfoil"), "{shell}");
    }
}
