//! What a decoder learns of an example: rows of tokens, and after each token the one that is wanted.
//!
//! One way for each of pairs, documents and conversations.

use super::conversations::LearnedTokens;
use super::prompt::{PromptTokens, Prompts};
use super::texts::{input_of, target_of, TextPairs, NONE};
use crate::task::conversation::Conversation;
use crate::task::Example;
use anyhow::Result;

/// Takes a row: what is read, the token wanted after each of it, what is read to write on, and
/// whether something was cut off.
pub(super) type Push<'a> = dyn FnMut(&[i64], &[i64], &[i64], bool) -> std::io::Result<()> + 'a;

impl TextPairs {
    /// A prompt and its target in one row; the target alone is learned, or the prompt too.
    pub(super) fn pairs(
        &self,
        prompts: &Prompts,
        examples: &[Example],
        push: &mut Push<'_>,
    ) -> Result<()> {
        let pairs: Vec<(&str, &str)> =
            examples.iter().map(|e| (input_of(e), target_of(e))).collect();
        for PromptTokens { ids, prompt } in prompts.with_targets(&pairs)? {
            let alone = self.fitting(ids[..prompt].to_vec());
            let first = if self.task.train_on_inputs { 1 } else { prompt };
            self.row(ids, |i| i >= first, &alone, push)?;
        }
        Ok(())
    }

    /// A text in pieces, behind what stands before a text and with its end; all of it is learned.
    pub(super) fn documents(
        &self,
        prompts: &Prompts,
        examples: &[Example],
        push: &mut Push<'_>,
    ) -> Result<()> {
        let texts: Vec<(&str, &str)> = examples.iter().map(|e| ("", input_of(e))).collect();
        for PromptTokens { ids, .. } in prompts.with_targets(&texts)? {
            for start in (0..ids.len()).step_by(self.max_length) {
                let end = ids.len().min(start + self.max_length);
                let labels = wanted(&ids, start..end, |_| true);
                push(&ids[start..end], &labels, &[], false)?;
            }
        }
        Ok(())
    }

    /// A conversation in one row; what the assistant says is learned, or what the task tells.
    pub(super) fn conversations(
        &self,
        prompts: &Prompts,
        examples: &[Example],
        push: &mut Push<'_>,
    ) -> Result<()> {
        let read = |example| Conversation::from_text(input_of(example));
        let conversations: Vec<Conversation> =
            examples.iter().map(read).collect::<serde_json::Result<_>>()?;
        let tokens = self.talks()?.encode(&prompts.encoder, &conversations)?;
        for (LearnedTokens { ids, learned }, example) in tokens.into_iter().zip(examples) {
            let (alone, _) = match self.writes() {
                true => self.asked_of(input_of(example), true)?,
                false => Default::default(),
            };
            self.row(ids, |i| learned[i], &alone, push)?;
        }
        Ok(())
    }

    /// A row that is cut at the maximum length, of which the tokens of `learned` places are learned.
    fn row(
        &self,
        mut ids: Vec<i64>,
        learned: impl Fn(usize) -> bool,
        alone: &[i64],
        push: &mut Push<'_>,
    ) -> Result<()> {
        let truncated = ids.len() > self.max_length;
        ids.truncate(self.max_length);
        let labels = wanted(&ids, 0..ids.len(), learned);
        Ok(push(&ids, &labels, alone, truncated)?)
    }
}

/// The token wanted after each of these places: the next one where that is learned.
fn wanted(
    ids: &[i64],
    places: std::ops::Range<usize>,
    learned: impl Fn(usize) -> bool,
) -> Vec<i64> {
    let next = |i: usize| ids.get(i + 1).filter(|_| learned(i + 1)).copied().unwrap_or(NONE);
    places.map(next).collect()
}
