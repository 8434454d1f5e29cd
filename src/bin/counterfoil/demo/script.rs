//! The demo's script: what a coding agent does to mend a failing test, as drafts. Invented, the same on each run.

use counterfoil::{Draft, DraftError, EventType, Source};
use serde_json::{Value, json};

/// A task, and the bug behind it.
pub struct Task {
    pub session: &'static str,
    ask: &'static str,
    file: &'static str,
    test: &'static str,
    was: &'static str,
    becomes: &'static str,
}

/// Sessions that run at once.
pub const TASKS: [Task; 8] = [
    task(
        "fix-leap-year",
        "The test leap_years fails since Monday. Please fix it.",
        "src/date.rs",
        "leap_years",
        "y % 4 == 0",
        "y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)",
    ),
    task(
        "fix-empty-csv",
        "Parsing an empty CSV panics.",
        "src/csv.rs",
        "empty_input_has_no_rows",
        "rows[0].len()",
        "rows.first().map_or(0, Vec::len)",
    ),
    task("fix-off-by-one", "The last page is never shown.", "src/pages.rs", "last_page_is_shown", "total / size", "total.div_ceil(size)"),
    task(
        "fix-utf8-cut",
        "Titles with umlauts crash the export.",
        "src/title.rs",
        "cuts_at_characters",
        "&title[..40]",
        "title.chars().take(40).collect::<String>()",
    ),
    task("fix-retry-loop", "The client retries for ever.", "src/client.rs", "gives_up_after_five", "loop {", "for attempt in 0..5 {"),
    task(
        "fix-time-zone",
        "Reports are an hour off in winter.",
        "src/report.rs",
        "winter_is_utc_plus_one",
        "offset(2)",
        "zone.offset_from_utc(&at)",
    ),
    task("fix-sort-order", "Version 1.10 sorts before 1.9.", "src/version.rs", "ten_is_after_nine", "a.cmp(b)", "parse(a).cmp(&parse(b))"),
    task(
        "fix-lost-update",
        "Two saves at once lose one of them.",
        "src/store.rs",
        "both_saves_are_kept",
        "store.put(v)",
        "store.compare_and_put(old, v)",
    ),
];

const fn task(
    session: &'static str,
    ask: &'static str,
    file: &'static str,
    test: &'static str,
    was: &'static str,
    becomes: &'static str,
) -> Task {
    Task { session, ask, file, test, was, becomes }
}

/// What is appended at once: one event, or several as an atomic batch.
pub type Step = Vec<Draft>;

/// Attempts that each task takes.
const ATTEMPTS: usize = 4;

impl Task {
    /// What happens, in order, in two halves. In the middle something will happen to the mirror.
    pub fn steps(&self) -> Result<(Vec<Step>, Vec<Step>), DraftError> {
        let mut steps = vec![
            vec![self.event(EventType::USER_MESSAGE, Source::User, json!({ "text": self.ask }))?],
            vec![self.agent(EventType::AGENT_RESPONSE, json!({ "text": format!("I'll run {} first to see it fail.", self.test) }))?],
        ];
        for attempt in 1..=ATTEMPTS {
            steps.extend(self.attempt(attempt)?);
        }
        steps.push(vec![self.agent(EventType::AGENT_RESPONSE, json!({ "text": format!("{} passes, and so do the others.", self.test) }))?]);
        steps.push(vec![self.event(EventType::OUTCOME, Source::ExternalOutcome, json!({ "merged": true, "task": self.session }))?]);
        let rest = steps.split_off(steps.len() / 2);
        Ok((steps, rest))
    }

    fn attempt(&self, attempt: usize) -> Result<Vec<Step>, DraftError> {
        let solved = attempt == ATTEMPTS;
        let becomes = if solved { self.becomes.to_owned() } else { format!("{} /* attempt {attempt} */", self.was) };
        let (passed, failed) = if solved { (42, 0) } else { (41, 1) };
        let output = if solved { "test result: ok".to_owned() } else { format!("thread '{}' panicked at {}", self.test, self.file) };
        Ok(vec![
            vec![self.agent(EventType::TOOL_CALL, json!({ "tool": "read_file", "path": self.file, "attempt": attempt }))?],
            vec![self.tool("read_file", json!({ "path": self.file, "text": format!("    let it = {};\n", self.was) }))?],
            vec![
                self.agent(
                    EventType::DECISION,
                    json!({ "because": format!("`{}` is where it goes wrong", self.was), "attempt": attempt }),
                )?,
            ],
            // A change without its test result, or the other way round, would be half a story.
            vec![
                self.agent(EventType::CODE_DIFF, json!({ "path": self.file, "minus": self.was, "plus": becomes }))?,
                self.event(
                    EventType::TEST_RESULT,
                    Source::tool("cargo"),
                    json!({ "test": self.test, "passed": passed, "failed": failed, "output": output }),
                )?,
            ],
            vec![self.agent(EventType::TOOL_CALL, json!({ "tool": "bash", "command": format!("cargo test {}", self.test) }))?],
            vec![self.tool("bash", json!({ "exit": if solved { 0 } else { 101 }, "stdout": output }))?],
        ])
    }

    fn event(&self, event_type: EventType, source: Source<'static>, payload: Value) -> Result<Draft, DraftError> {
        Draft::new(event_type, source).session(self.session).tag("demo").payload(&payload)
    }

    fn agent(&self, event_type: EventType, payload: Value) -> Result<Draft, DraftError> {
        self.event(event_type, Source::child_agent("demo-model"), payload)
    }

    fn tool(&self, name: &str, payload: Value) -> Result<Draft, DraftError> {
        self.event(EventType::TOOL_RESULT, Source::tool(name), payload)
    }
}
