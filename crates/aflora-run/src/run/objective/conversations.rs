//! Conversations as tokens: the text that a chat template writes, and which of it is learned.
//!
//! The template is the task's, else the model's own, else `plain`. What the assistant writes is found
//! by [`ChatTemplate::turns`], with the token that ends a turn; that one also ends what the model
//! writes, whatever its files say of end tokens.

use crate::task::conversation::Conversation;
use crate::task::{LossOn, TaskSpec};
use crate::usage;
use aflora_models::chat::{message, shipped, ChatFormat, ASSISTANT, SHIPPED};
use aflora_models::tokenizer::PlacedTokens;
use aflora_models::{Chat, ChatTemplate, TextEncoder};
use anyhow::{Context, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How a model talks.
#[derive(Debug)]
pub(super) struct Conversations {
    /// How conversations are written.
    pub template: Arc<ChatTemplate>,
    /// What others need to know of it.
    pub format: ChatFormat,
    loss_on: LossOn,
    /// The texts of tokens that may end a turn.
    ends: Vec<String>,
    /// What is to be told of the template.
    pub remark: Option<String>,
}

/// A conversation's tokens, and which of them are learned.
pub(super) struct LearnedTokens {
    pub ids: Vec<i64>,
    pub learned: Vec<bool>,
}

impl Conversations {
    /// How a model of the folder talks in `task`; `encoder` is its tokenizer, `eos` its end token.
    ///
    /// # Errors
    /// The template is none, does not tell what the assistant writes, or ends its turns with no token.
    pub fn new(task: &TaskSpec, folder: &Path, encoder: &TextEncoder, eos: i64) -> Result<Self> {
        let end = encoder.tokens(&[eos]).concat();
        let mut ends = encoder.added_tokens();
        if !ends.contains(&end) {
            ends.push(end.clone());
        }
        let before = encoder.tokens(&encoder.before()?).concat();
        let own = match task.chat_template {
            None => ChatTemplate::from_folder(folder)?,
            Some(_) => None,
        };
        let remark = (task.chat_template.is_none() && own.is_none()).then(|| {
            format!(
                "the model has no chat template: conversations are written as `{}` has it \
                 (task.chat_template)",
                SHIPPED[0]
            )
        });
        let (template, source) = match own {
            Some(own) => (own, None),
            None => {
                let named = task.chat_template.as_deref().unwrap_or(SHIPPED[0]);
                let source = shipped(named, &before, &end).unwrap_or_else(|| named.to_string());
                let tokens = aflora_models::tokenizer::special_tokens(folder)?;
                let path = Path::new("task.chat_template");
                (ChatTemplate::new(&source, tokens, path)?, Some(source))
            }
        };
        let (template, format) =
            (Arc::new(template), ChatFormat { template: source, ends: Vec::new() });
        let mut found = Conversations { template, format, loss_on: task.loss_on, ends, remark };
        let end = found.end_of_turn(encoder)?;
        found.format.ends = vec![end];
        Ok(found)
    }

    /// The token that ends the assistant's turn in a short conversation.
    fn end_of_turn(&self, encoder: &TextEncoder) -> Result<i64> {
        let messages = [message("user", "Hello"), message(ASSISTANT, "Hello")];
        let asked = Chat { messages: &messages, ..Chat::default() };
        let rendered = self.template.turns(&asked, &self.ends)?;
        let placed = one(encoder.encode_with_places(&[&rendered.text])?)?;
        let learned = placed.of(&rendered.assistant);
        let own: Vec<i64> =
            placed.ids.iter().zip(learned).filter(|(_, own)| *own).map(|(id, _)| *id).collect();
        let is_end = |id: &&i64| self.ends.contains(&encoder.tokens(&[**id]).concat());
        let Some(end) = own.iter().rev().find(is_end) else {
            let last = encoder.tokens(&own[own.len().saturating_sub(4)..]).join(" ");
            usage!(
                "the chat template ends the assistant's turns with no token of the tokenizer's own \
                 (the last are {last}): the model would not learn to stop; name another with \
                 task.chat_template, such as `{}`",
                SHIPPED[0]
            );
        };
        Ok(*end)
    }

    /// The tokens that end a turn.
    pub fn ends(&self) -> &[i64] {
        &self.format.ends
    }

    /// All that decides the tokens, beside the tokenizer.
    pub fn fingerprint(&self) -> String {
        format!("{} {:?} {:?}", self.template.fingerprint(), self.loss_on, self.ends)
    }

    /// Tokens to learn from.
    ///
    /// # Errors
    /// The template refuses a conversation, or does not tell what the assistant writes in it.
    pub fn encode(
        &self,
        encoder: &TextEncoder,
        conversations: &[Conversation],
    ) -> Result<Vec<LearnedTokens>> {
        let (mut texts, mut parts) = (Vec::new(), Vec::new());
        for conversation in conversations {
            let (text, learned) =
                self.written(conversation).with_context(|| conversation.place())?;
            texts.push(text);
            parts.push(learned);
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let placed = encoder.encode_with_places(&texts)?;
        let learned = |(placed, parts): (PlacedTokens, Option<Vec<Range<usize>>>)| LearnedTokens {
            learned: match parts {
                Some(parts) => placed.of(&parts),
                None => vec![true; placed.ids.len()],
            },
            ids: placed.ids,
        };
        Ok(placed.into_iter().zip(parts).map(learned).collect())
    }

    /// The text of a conversation and the parts that are learned; none where all of it is.
    fn written(&self, conversation: &Conversation) -> Result<(String, Option<Vec<Range<usize>>>)> {
        let messages = &conversation.messages[..];
        let asked = Chat { messages, tools: conversation.tools.as_deref(), ..Chat::default() };
        if self.loss_on == LossOn::All {
            return Ok((self.template.render(&asked)?.text, None));
        }
        let rendered = self.template.turns(&asked, &self.ends)?;
        let mut parts = rendered.assistant;
        if self.loss_on == LossOn::Last {
            let turns = messages.iter().filter(|message| message["role"] == ASSISTANT).count();
            if parts.len() != turns {
                usage!(
                    "the chat template marks {} parts as the assistant's in a conversation with {turns} \
                     turns of it, which does not tell its last (task.loss_on: last)",
                    parts.len()
                );
            }
            parts.drain(..parts.len().saturating_sub(1));
        }
        Ok((rendered.text, Some(parts)))
    }
}

/// The only one of a list.
fn one<T>(list: Vec<T>) -> Result<T> {
    list.into_iter().next().context("one text has one encoding")
}
