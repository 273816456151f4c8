//! Text of tokens as they come: what is shown is never taken back.
//!
//! A token may end within a character, and one of a byte (`<0xE2>`) is text only with its
//! neighbours: such tokens wait for the next, and so do spaces that may be [taken away](spaces). All pieces together are what
//! [`decode`](TextEncoder::decode) gives for all tokens.

use super::{spaces, TextEncoder};
use crate::Result;

/// The text of tokens that come one by one.
#[derive(Debug)]
pub struct TextStream<'a> {
    encoder: &'a TextEncoder,
    /// The tokens of the last piece, which decide how the next begins, and those behind it.
    window: Vec<i64>,
    /// How many of them are of the last piece.
    shown: usize,
    /// Text that may lose its last spaces to what follows.
    held: String,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(encoder: &'a TextEncoder) -> Self {
        TextStream { encoder, window: Vec::new(), shown: 0, held: String::new() }
    }

    /// The text that is certain with this token, and was not before.
    ///
    /// # Errors
    /// The id is none of the tokenizer's.
    pub fn push(&mut self, id: i64) -> Result<String> {
        self.window.push(id);
        let text = self.encoder.uncleaned(&self.window)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) || self.ends_with_a_byte() {
            return Ok(String::new());
        }
        let piece = self.piece(&text)?;
        if !self.encoder.cleans {
            return Ok(piece);
        }
        self.held.push_str(&piece);
        if spaces::may_lose_its_end(&self.held) {
            return Ok(String::new());
        }
        Ok(spaces::cleaned(&std::mem::take(&mut self.held)))
    }

    /// Whether a token of a byte is the last that has a text: tokens without one, such as special
    /// ones, do not part it from the bytes that may follow.
    fn ends_with_a_byte(&self) -> bool {
        let has_text =
            |id: i64| self.encoder.uncleaned(&[id]).map_or(true, |text| !text.is_empty());
        let mut from_the_end = self.window.iter().rev().copied();
        from_the_end
            .find(|&id| self.encoder.is_byte(id) || has_text(id))
            .is_some_and(|id| self.encoder.is_byte(id))
    }

    /// What was held back, at the end.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> Result<String> {
        let text = self.encoder.uncleaned(&self.window)?;
        let text = std::mem::take(&mut self.held) + &self.piece(&text)?;
        Ok(if self.encoder.cleans { spaces::cleaned(&text) } else { text })
    }

    fn piece(&mut self, text: &str) -> Result<String> {
        let before = self.encoder.uncleaned(&self.window[..self.shown])?;
        let piece = text.strip_prefix(&before).unwrap_or_default().to_string();
        // A piece without text says nothing of how the next begins.
        if !piece.is_empty() {
            self.window.drain(..self.shown);
            self.shown = self.window.len();
        }
        Ok(piece)
    }
}
