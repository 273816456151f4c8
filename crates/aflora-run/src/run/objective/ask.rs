//! A conversation that waits for its next turn.

use super::conversations::Conversations;
use super::live::Prompt;
use super::texts::TextPairs;
use crate::task::conversation::Conversation;
use aflora_models::chat::ChatFormat;
use aflora_models::{Chat, ChatTemplate};
use anyhow::{Context, Result};
use serde_json::Value;
use std::sync::Arc;

/// A conversation that waits for its next turn, as far as the model reads it.
#[derive(Debug)]
pub struct Asked {
    /// Its tokens.
    pub ids: Vec<i64>,
    /// Its messages.
    pub messages: Vec<Value>,
    /// What was left out of it: each a user's turn with all that follows to the next.
    pub left_out: usize,
    /// Whether even its last turn alone is longer than the model reads, and cut.
    pub cut: bool,
}

impl TextPairs {
    /// The tokens to write the next turn of a conversation after, without its first turns where it
    /// would be longer than the model reads; what the system says stays.
    ///
    /// # Errors
    /// The template refuses the conversation, or it cannot be encoded.
    pub fn ask(
        &self,
        template: &ChatTemplate,
        messages: &[Value],
        tools: Option<&[Value]>,
    ) -> Result<Asked> {
        let system = usize::from(messages.first().is_some_and(|first| first["role"] == "system"));
        let (mut from, mut left_out) = (system, 0);
        loop {
            let messages = [&messages[..system], &messages[from..]].concat();
            let chat =
                Chat { messages: &messages, tools, add_generation_prompt: true, ..Chat::default() };
            let rendered = template.render(&chat)?;
            let (ids, cut) = self.prompt(Prompt::Rendered(&rendered.text))?;
            let turns = messages.iter().enumerate().skip(system + 1);
            let next =
                turns.filter(|(_, message)| message["role"] == "user").map(|(i, _)| i).next();
            match next.filter(|_| cut) {
                Some(next) => (from, left_out) = (from + next - system, left_out + 1),
                None => return Ok(Asked { ids, messages, left_out, cut }),
            }
        }
    }

    /// The tokens to write the last turn of an example's conversation after, or its next turn; and
    /// whether it was cut.
    pub(super) fn asked_of(&self, input: &str, judged: bool) -> Result<(Vec<i64>, bool)> {
        let conversation = Conversation::from_text(input)?;
        let template = &self.talks()?.template;
        let tools = conversation.tools.as_deref();
        let asked = self.ask(template, conversation.asked(judged), tools);
        let asked = asked.with_context(|| conversation.place())?;
        Ok((asked.ids, asked.cut || asked.left_out > 0))
    }

    /// The template by which conversations are written, of a task of them.
    pub fn chat_template(&self) -> Option<&Arc<ChatTemplate>> {
        self.conversations.as_ref().map(|talks| &talks.template)
    }

    /// What others need to know of how conversations are written.
    pub fn chat_format(&self) -> ChatFormat {
        self.conversations.as_ref().map(|talks| talks.format.clone()).unwrap_or_default()
    }

    pub(super) fn talks(&self) -> Result<&Conversations> {
        self.conversations.as_deref().context("the task is none of conversations")
    }

    /// What is to be told of how conversations are written.
    pub(super) fn remark(&self) -> Option<String> {
        self.conversations.as_ref()?.remark.clone()
    }
}
