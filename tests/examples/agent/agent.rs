//! The loop: the model answers, its calls are recorded, then carried out, then their results are recorded.
//!
//! Each of these steps is a command whose key is its place in the conversation, so a process that starts anywhere in the middle
//! repeats none of them. What is between two steps is an open call, and [`Agent::resolve`] is all that there is to say about it.

use std::sync::Arc;

use counterfoil::actors::entity::Entities;
use serde::{Deserialize, Serialize};

use crate::conversation::{Call, Command, Conversation, Conversations, Outcome, answer_key, effect_key, result_key};
use crate::model::Model;
use crate::tools::{Kind, Tools};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What the agent says of its work, for whoever watches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// A call was open when this process started.
    Found(Call),
    /// A call was recorded, and is open.
    Called(Call),
    /// Its tool is run now.
    Begun(Call),
    /// Its tool has ended, and nothing is recorded of that yet.
    Happened(Call),
    /// What came of it is recorded.
    Recorded(Call, Outcome),
}

pub type Watch = Arc<dyn Fn(&str, Step) + Send + Sync>;

pub struct Agent {
    pub conversations: Entities<Conversations>,
    pub model: Arc<dyn Model>,
    pub tools: Tools,
    /// Told of each step, with the stream.
    pub watch: Watch,
}

impl Agent {
    /// Has a conversation in this stream, from wherever it has come to, up to the model's last word.
    pub async fn converse(&self, stream: &str, question: &str) -> Result<(), Error> {
        for call in self.open(stream).await? {
            (self.watch)(stream, Step::Found(call.clone()));
            self.resolve(stream, call).await?;
        }
        let ask = Command::Ask { text: question.to_owned() };
        self.conversations.send_keyed(stream, "question", ask).await?;
        while !self.conversations.read(stream, Conversation::is_over).await? {
            let model = self.model.clone();
            let (turn, answer) = self.conversations.read(stream, move |so_far| (so_far.turn(), model.answer(so_far))).await?;
            self.conversations.send_keyed(stream, answer_key(turn), Command::Answer(answer)).await?;
            for call in self.open(stream).await? {
                (self.watch)(stream, Step::Called(call.clone()));
                self.carry_out(stream, call).await?;
            }
        }
        Ok(())
    }

    /// What to do about a call that an earlier process has left open.
    async fn resolve(&self, stream: &str, call: Call) -> Result<(), Error> {
        match call.tool.kind() {
            Kind::Repeatable | Kind::Keyed => self.carry_out(stream, call).await,
            Kind::Unknowable => self.record(stream, call, Outcome::Interrupted).await,
        }
    }

    async fn carry_out(&self, stream: &str, call: Call) -> Result<(), Error> {
        let (tools, tool, key) = (self.tools.clone(), call.tool.clone(), effect_key(stream, &call.id));
        (self.watch)(stream, Step::Begun(call.clone()));
        let outcome = tokio::task::spawn_blocking(move || tools.run(&tool, key)).await??;
        (self.watch)(stream, Step::Happened(call.clone()));
        self.record(stream, call, outcome).await
    }

    async fn record(&self, stream: &str, call: Call, outcome: Outcome) -> Result<(), Error> {
        let command = Command::Record { call: call.id.clone(), outcome: outcome.clone() };
        self.conversations.send_keyed(stream, result_key(&call.id), command).await?;
        (self.watch)(stream, Step::Recorded(call, outcome));
        Ok(())
    }

    async fn open(&self, stream: &str) -> Result<Vec<Call>, Error> {
        Ok(self.conversations.read(stream, |conversation| conversation.open.clone()).await?)
    }
}
