//! Which parts of a conversation the assistant writes.
//!
//! A template that marks them (`{% generation %}`) is taken at its word. Of any other the parts are
//! found by writing the conversation up to each of the assistant's turns, with what begins its
//! answer, and up to its end: both must be the beginning of the whole. A template may write a turn
//! otherwise where it is the last (Phi-3's ends all of it with one more token, Qwen3's keeps the
//! thoughts of the last alone); its end is found by what it has in common with the whole then. Where
//! neither tells, the conversation is refused: what was learned from it would be anybody's words.

use super::{Chat, ChatTemplate, Rendered};
use crate::{Error, Result};
use serde_json::Value;
use std::ops::Range;

/// The role of the model's own turns.
pub const ASSISTANT: &str = "assistant";

impl ChatTemplate {
    /// The conversation with the bytes that the assistant writes, in their order: its turns, each with
    /// the token that ends it, or as the template marks them. `ends` are the texts of tokens that may
    /// end a turn; white space behind one is not the assistant's, nor what ends the whole conversation.
    ///
    /// # Errors
    /// Those of [`render`](Self::render); or the template does not tell where a turn begins or ends.
    pub fn turns(&self, chat: &Chat, ends: &[String]) -> Result<Rendered> {
        let chat = Chat { add_generation_prompt: false, ..*chat };
        let whole = self.render(&chat)?;
        let is_own = |message: &Value| message["role"] == ASSISTANT;
        let own = || (0..chat.messages.len()).filter(|&turn| is_own(&chat.messages[turn]));
        if self.tells_what_the_assistant_writes() {
            let marked: usize = whole.assistant.iter().map(Range::len).sum();
            if marked == 0 && own().next().is_some() {
                let words =
                    "it marks with {% generation %} what the assistant writes, but nothing in \
                             this conversation";
                return Err(self.problem(words.into()));
            }
            return Ok(whole);
        }
        let mut assistant = Vec::new();
        for turn in own() {
            let message = &chat.messages[turn];
            let place = || format!("message {}", turn + 1);
            if turn == 0 {
                let words =
                    "the conversation begins with the assistant, and the template does not \
                             mark what it writes ({% generation %})";
                return Err(self.problem(words.into()));
            }
            let before =
                Chat { messages: &chat.messages[..turn], add_generation_prompt: true, ..chat };
            let before = self.render(&before)?.text;
            let until = self.render(&Chat { messages: &chat.messages[..=turn], ..chat })?.text;
            let content = message["content"].as_str().unwrap_or_default().trim();
            let found = span(&whole.text, &before, &until, content, ends);
            assistant.push(found.map_err(|what| {
                self.problem(format!(
                    "it does not tell where what the assistant writes {what} ({}); one that marks it \
                     with {{% generation %}} does",
                    place()
                ))
            })?);
        }
        Ok(Rendered { assistant, ..whole })
    }

    fn problem(&self, problem: String) -> Error {
        Error::ChatTemplate { path: self.path.clone(), problem }
    }
}

/// Where in `whole` a turn lies before which it is `before`, and until whose end it is `until`; or
/// what of it cannot be told.
fn span(
    whole: &str,
    before: &str,
    until: &str,
    content: &str,
    ends: &[String],
) -> std::result::Result<Range<usize>, &'static str> {
    let begin = before.len();
    let rest = whole.strip_prefix(before).ok_or("begins")?;
    let last = until.strip_prefix(before).unwrap_or_default();
    let length = match rest.starts_with(last) && !last.is_empty() {
        true => last.len(),
        false => shared(rest, last, content, ends)
            .or_else(|| after_content(rest, last, content))
            .ok_or("ends")?,
    };
    Ok(begin..begin + ended(&rest[..length], content, ends))
}

/// The length of a turn that begins alike in the whole and at a conversation's end, up to the last
/// token behind its content that may end it.
fn shared(rest: &str, last: &str, content: &str, ends: &[String]) -> Option<usize> {
    let same = rest.chars().zip(last.chars()).take_while(|(a, b)| a == b);
    let same: usize = same.map(|(c, _)| c.len_utf8()).sum();
    let from = rest[..same].find(content)? + content.len();
    let last_end = |end: &String| Some(from + rest[from..same].rfind(end.as_str())? + end.len());
    ends.iter().filter_map(last_end).max()
}

/// The length of a turn that is its content and then what follows it at a conversation's end.
fn after_content(rest: &str, last: &str, content: &str) -> Option<usize> {
    let at = last.rfind(content).filter(|_| !content.is_empty())?;
    let behind = &last[at + content.len()..];
    let space = rest.len() - rest.trim_start().len();
    let ended = rest[space..].strip_prefix(content)?.strip_prefix(behind)?;
    Some(rest.len() - ended.len()).filter(|_| !behind.trim().is_empty())
}

/// The length of a turn without what a template puts behind its end: white space behind a token that
/// may end it, and there the end of the whole conversation.
fn ended(turn: &str, content: &str, ends: &[String]) -> usize {
    let behind = match content {
        "" => 0,
        _ => turn.rfind(content).map_or(0, |at| at + content.len()),
    };
    let first = turn.len() - turn[behind..].trim_start().len();
    let mut end = first;
    let is_next = |end: usize| {
        let next = ends.iter().filter(|token| turn[end..].starts_with(token.as_str()));
        next.map(String::len).max().filter(|&length| length > 0)
    };
    while let Some(length) = is_next(end) {
        end += length;
    }
    let rest = ends.iter().fold(turn[end..].to_string(), |rest, token| rest.replace(token, ""));
    if end > first && rest.trim().is_empty() {
        return end;
    }
    let trimmed = turn.trim_end();
    match ends.iter().any(|token| trimmed.ends_with(token.as_str())) {
        true => trimmed.len(),
        false => turn.len(),
    }
}
