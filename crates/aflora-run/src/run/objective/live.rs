//! One text, told as it is written.

use super::texts::{Learned, TextPairs};
use super::writing::number;
use crate::task::conversation::Conversation;
use aflora_models::generate;
use aflora_models::AdaptedModel;
use anyhow::Result;
use std::ops::ControlFlow;

/// What is read to write on.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// A row's input, which the task's prompt goes around; of a task of conversations, what the user
    /// says.
    Input(&'a str),
    /// A text as it stands, behind what the tokenizer puts before every text.
    Raw(&'a str),
    /// A text with its special tokens in it, as a chat template writes it.
    Rendered(&'a str),
}

impl TextPairs {
    /// The tokens to write on after, and whether they were cut.
    ///
    /// # Errors
    /// The text cannot be encoded.
    pub fn prompt(&self, prompt: Prompt<'_>) -> Result<(Vec<i64>, bool)> {
        Ok(self.fitted(match prompt {
            Prompt::Input(text) if self.learned == Learned::Conversations => {
                self.begin(&[&Conversation::begun_by(text).to_text()])?.remove(0)
            }
            Prompt::Input(text) => self.begin(&[text])?.remove(0),
            Prompt::Raw(text) => self.begin_raw(text)?,
            Prompt::Rendered(text) => (self.encoder().encode_plain(&[text])?.concat(), false),
        }))
    }

    /// What `model` writes after `prompt`. `each` gets it piece by piece, one for every token, and
    /// many of them empty; it may end the text. Several beams come as one piece.
    ///
    /// # Errors
    /// The model fails.
    pub fn write_live(
        &self,
        model: &AdaptedModel,
        prompt: &[i64],
        each: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String> {
        let batch = self.collator().beginning(&[prompt]);
        let mut stream = self.encoder().stream();
        let mut trimmed = Trimmed::default();
        let mut failed = None;
        let mut tell = |_, id| match stream.push(id) {
            Ok(piece) => each(&trimmed.push(&piece)),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        let numbers = [number(prompt)];
        let ids =
            generate::write_each(model.writer()?, &batch, &self.generation, &numbers, &mut tell)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let text = self.encoder().decode(&ids.concat())?.trim().to_string();
        let rest = match self.generation.num_beams {
            1 => trimmed.push(&stream.finish()?),
            _ => text.clone(),
        };
        // Nothing comes behind it that could be ended.
        let _ = each(&rest);
        Ok(text)
    }
}

/// Text that comes in pieces, without the white space around it.
#[derive(Default)]
struct Trimmed {
    /// White space that waits for a text behind it; none before the first.
    space: Option<String>,
}

impl Trimmed {
    fn push(&mut self, piece: &str) -> String {
        let text = piece.trim_end();
        let behind = &piece[text.len()..];
        if text.is_empty() {
            if let Some(space) = &mut self.space {
                space.push_str(behind);
            }
            return String::new();
        }
        match self.space.replace(behind.to_string()) {
            None => text.trim_start().to_string(),
            Some(before) => before + text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_together_are_the_trimmed_text() {
        for pieces in
            [&[" ", "\n a", " b ", "", " ", "c\n", "\n "][..], &["a"], &["  "], &[], &[" x ", " "]]
        {
            let mut trimmed = Trimmed::default();
            let told: String = pieces.iter().map(|piece| trimmed.push(piece)).collect();
            assert_eq!(told, pieces.concat().trim(), "{pieces:?}");
        }
    }
}
