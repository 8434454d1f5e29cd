//! Goal: the README's commands about evidence work as they are written, one after the other, in an empty folder.
//! Method: the block is cut out of the page and run by `sh`, with the command on its path; nothing of it is repeated here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]
#![cfg(all(feature = "cli", unix))]

mod common;

use std::process::Command;

#[test]
fn the_block_runs_as_written() {
    let page = std::fs::read_to_string("README.md").unwrap();
    let section = page.split("## Evidence that others can check").nth(1).unwrap();
    let block = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let bin = temp.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_counterfoil"), bin.join("counterfoil")).unwrap();
    let work = temp.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = Command::new("sh").args(["-e", "-c", block]).current_dir(&work).env("PATH", path).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout).into_owned(), String::from_utf8_lossy(&run.stderr).into_owned());
    assert!(run.status.success(), "{block}\n{out}{err}");
    assert!(block.lines().filter(|line| line.starts_with("counterfoil ")).count() >= 10, "{block}");
    let store = work.join("signed");
    assert!(common::verified(&store).is_clean() && common::parity(&store).is_consistent());
    assert!(out.contains("proof: right") && out.contains("the ledger fits every checkpoint"), "{out}");
}
