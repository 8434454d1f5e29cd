//! Goal: the worked agent of the examples does what its README says: it is killed in the middle of a payment and of a shell command,
//! and pays and enters once; each of its parts keeps to its word.
//!
//! Method: the demonstration itself, with this test binary again as the agent's process, its output as a snapshot; the entity by
//! given, when and then; the tools in a folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, clippy::print_stdout)]
#![cfg(all(unix, feature = "actors"))]

#[path = "examples/agent/agent.rs"]
mod agent;
#[path = "examples/agent/conversation.rs"]
mod conversation;
mod crash_support;
#[path = "examples/agent/demo.rs"]
mod demo;
#[path = "examples/agent/model.rs"]
mod model;
#[path = "examples/agent/run.rs"]
mod run;
#[path = "examples/agent/shell.rs"]
mod shell;
#[path = "examples/agent/show.rs"]
mod show;
#[path = "examples/agent/tools.rs"]
mod tools;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use conversation::*;
use counterfoil::entity::command_id;
use counterfoil::entity::kit::Kit;
use crash_support::{again, begin_to_say, command, common, role};
use tools::{Tool, Tools};

/// For what comes much sooner.
const MINUTE: Duration = Duration::from_secs(60);

/// The agent's process: its role is the folder.
#[test]
fn process() {
    let Some(dir) = role() else { return };
    begin_to_say();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run::run(Path::new(&dir), run::step)).unwrap();
}

#[test]
fn the_demonstration_pays_and_enters_once() {
    if role().is_some() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    demo::demonstrate(temp.path(), &|| command(&again("process", temp.path().to_str().unwrap())), &mut out).unwrap();
    common::snapshots(|| insta::assert_snapshot!("agent_demo", String::from_utf8(out).unwrap()));
    // What has come to its end stays as it is.
    let files = || ["work", "bank", "running"].map(|folder| common::files(&temp.path().join(folder)));
    let before = files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run::run(temp.path(), |_, step| panic!("{step:?}"))).unwrap();
    assert_eq!(files(), before);
    assert!(before[2].is_empty());
    let parity = common::parity(&temp.path().join("store"));
    assert_eq!((parity.is_consistent(), parity.jsonl_event_count), (true, 14), "{parity}");
}

fn shell(command: &str, args: &[&str]) -> Tool {
    Tool::Shell { command: command.to_owned(), args: args.iter().map(|&arg| arg.to_owned()).collect(), keyed: false }
}

fn asked() -> Said {
    Said::Asked { text: "?".to_owned() }
}

#[test]
fn calls_are_open_until_their_results_are_recorded() {
    let calls = vec![shell("a", &[]), shell("b", &[])];
    let answer = |calls: &[Tool]| Command::Answer(Answer { text: "!".to_owned(), calls: calls.to_vec() });
    let called = |n: usize| Said::Called(Call { id: format!("1.{n}"), tool: calls[n - 1].clone() });
    let record = |call: &str| Command::Record { call: call.to_owned(), outcome: Outcome::Interrupted };
    let resulted = |call: &str| Said::Resulted { call: call.to_owned(), outcome: Outcome::Interrupted };
    Kit::of(Conversations)
        .given([asked()])
        .when(answer(&calls))
        .then([Said::Answered { text: "!".to_owned() }, called(1), called(2)])
        .then_state(|state| state.open.len() == 2 && !state.is_over() && state.turn() == 2)
        .when(answer(&[]))
        .then_error_eq(Refused::StillOpen { id: "1.1".to_owned() })
        .when(record("1.2"))
        .then([resulted("1.2")])
        .when(record("1.2"))
        .then_error_eq(Refused::NotOpen { id: "1.2".to_owned() })
        .when(record("1.1"))
        .then([resulted("1.1")])
        .then_state(|state| state.open.is_empty() && !state.is_over())
        .when(answer(&[]))
        .then([Said::Answered { text: "!".to_owned() }])
        .then_state(Conversation::is_over);
}

#[test]
fn calls_of_the_first_version_are_calls_of_the_shell() {
    Kit::of(Conversations)
        .given_json(&[("tool_call.v1", r#"{"id":"1.1","command":"ls"}"#)])
        .then_state(|state| state.open == [Call { id: "1.1".to_owned(), tool: shell("ls", &[]) }]);
}

#[test]
fn tools_keep_to_their_folder_and_their_bounds() {
    if role().is_some() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("work");
    let tools = Tools::new(temp.path()).unwrap();
    let key = |n: u64| command_id("s", &n.to_string());
    let done = |output: &str| Outcome::Done { output: output.to_owned() };
    let failed = |tool: Tool| match tools.run(&tool, key(0)).unwrap() {
        Outcome::Failed { reason } => reason,
        other => panic!("{tool}: {other:?}"),
    };

    fs::write(temp.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(temp.path().join("secret"), dir.join("link")).unwrap();
    let absolute = temp.path().join("secret").display().to_string();
    for path in ["../secret", "link", "../bank", "missing", "", &absolute] {
        assert!(failed(Tool::ReadFile { path: path.to_owned() }).starts_with(&format!("{path}: ")), "{path}");
    }

    // Paid once a key, whatever is asked for the second time.
    let pay = |to: &str| Tool::Pay { to: to.to_owned(), cents: 123 };
    let first = tools.run(&pay("A"), key(1)).unwrap();
    assert_eq!(first, done(&format!("order {}: 1.23 to A", key(1))));
    assert_eq!(tools.run(&pay("B"), key(1)).unwrap(), first);
    assert_ne!(tools.run(&pay("A"), key(2)).unwrap(), first);
    assert_eq!(fs::read_dir(temp.path().join("bank")).unwrap().count(), 2);

    // A name is a name.
    let name = "a b; echo gone $(touch gone) \"'`";
    assert_eq!(tools.run(&shell("echo here > \"$1\"; cat \"$1\"", &[name]), key(3)).unwrap(), done("here"));
    assert!(dir.join(name).exists() && !dir.join("gone").exists());
    let keyed = Tool::Shell { command: "echo $COUNTERFOIL_CALL_ID".to_owned(), args: Vec::new(), keyed: true };
    assert_eq!(tools.run(&keyed, key(4)).unwrap(), done(&key(4).to_string()));
    assert_eq!(tools.run(&shell("echo ${COUNTERFOIL_CALL_ID-none}; cat", &[]), key(4)).unwrap(), done("none"));
    assert_eq!(failed(shell("echo out; echo err >&2; exit 3", &[])), "exit status: 3\nout\nerr");
    let Outcome::Done { output } = tools.run(&shell("yes | head -c 1000000", &[]), key(5)).unwrap() else { panic!() };
    assert_eq!(output.len(), (16 << 10) - 1, "the last line's end is trimmed");
}

#[test]
fn commands_end_in_time_and_are_waited_for_by_the_next_process() {
    if role().is_some() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, running) = (temp.path().join("work"), temp.path().join("running"));
    for folder in [&dir, &running] {
        fs::create_dir(folder).unwrap();
    }
    let run = |command: &str, time: Duration| shell::run(&dir, &running, command, &[], None, time).unwrap();
    let ended = run("echo begun; sleep 1000 & sleep 1000", Duration::from_secs(2));
    assert_eq!(ended, Outcome::Failed { reason: "killed after 2000 ms; what it had done by then is done\nbegun".to_owned() });
    // What it leaves in the background has ended when it is said to be done.
    let waits = "(until [ -e ../go ]; do sleep 0.01; done; echo > late)";
    assert_eq!(run(&format!("echo done; {waits} &"), MINUTE), Outcome::Done { output: "done".to_owned() });
    shell::wait_for_earlier(&running, Duration::ZERO).unwrap();
    assert_eq!(fs::read_dir(&running).unwrap().count(), 0);

    // Where its process was killed nothing ends it, and the next one waits: for the command, and for what it has put into the background.
    for command in [waits.to_owned(), format!("{waits} &")] {
        let mut started = shell::Started::start(&dir, &running, &command, &[], None).unwrap();
        if command.ends_with('&') {
            assert!(started.wait(Instant::now() + MINUTE).unwrap().unwrap().success());
        }
        let file = fs::read_dir(&running).unwrap().next().unwrap().unwrap().path();
        let deadline = Instant::now() + MINUTE;
        while fs::read_to_string(&file).unwrap().is_empty() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let group = fs::read_to_string(&file).unwrap();
        let still = shell::wait_for_earlier(&running, Duration::ZERO).unwrap_err().to_string();
        let end = format!("end it by `kill -9 -- -{}`, then start again", group.trim());
        assert_eq!(still, format!("a command of an earlier process still runs; {end}"));
        assert!(!dir.join("late").exists(), "{command}");
        fs::write(temp.path().join("go"), "").unwrap();
        shell::wait_for_earlier(&running, MINUTE).unwrap();
        assert!(dir.join("late").exists(), "{command}");
        started.wait(Instant::now() + MINUTE).unwrap();
        fs::remove_file(dir.join("late")).unwrap();
        fs::remove_file(temp.path().join("go")).unwrap();
    }
}

/// Asks for a command that waits for the file `go`, and is told when it has begun; then it is content.
struct Waits;

impl model::Model for Waits {
    fn answer<'a>(&'a self, conversation: &'a Conversation) -> model::Answering<'a> {
        let wait = shell("echo >> begun; until [ -e go ]; do sleep 0.01; done; echo >> ended", &[]);
        let calls = if conversation.turn() == 1 { vec![wait] } else { Vec::new() };
        Box::pin(std::future::ready(Answer { text: "!".to_owned(), calls }))
    }
}

#[test]
fn a_conversation_that_is_dropped_and_had_again_waits_for_its_tool() {
    if role().is_some() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = counterfoil::actors::Ledger::open(temp.path().join("store")).await.unwrap();
        let conversations = ledger.entities(Conversations, Default::default()).await.unwrap();
        let tools = Tools::new(temp.path()).unwrap();
        let work = tools.dir().to_owned();
        let outcomes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (told, there) = (outcomes.clone(), work.clone());
        let watch = move |_: &str, step: agent::Step| {
            if let agent::Step::Recorded(_, outcome) = step {
                told.lock().unwrap().push((outcome, there.join("ended").exists()));
            }
        };
        let agent = agent::Agent {
            conversations,
            model: std::sync::Arc::new(Waits),
            tools,
            watch: std::sync::Arc::new(watch),
            turns: agent::Turns::default(),
        };
        let agent = std::sync::Arc::new(agent);
        let converse = || {
            let agent = agent.clone();
            tokio::spawn(async move { agent.converse("s", "?").await.unwrap() })
        };
        let first = converse();
        let deadline = Instant::now() + MINUTE;
        while !work.join("begun").exists() {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = converse();
        // It would record that the call was interrupted, and wait for nothing.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*outcomes.lock().unwrap(), []);
        fs::write(work.join("go"), "").unwrap();
        second.await.unwrap();
        assert_eq!(*outcomes.lock().unwrap(), [(Outcome::Interrupted, true)]);
        assert_eq!(fs::read_to_string(work.join("begun")).unwrap(), "\n");
        let Ok(agent) = std::sync::Arc::try_unwrap(agent) else { panic!("somebody has it") };
        agent.conversations.close().await;
        ledger.close().await.unwrap();
    });
}
