//! Writing text, a token at a time.
//!
//! * [`TextGenerator`], [`DecodingState`]: what a model must do for it
//! * [`GenerationConfig`]: how to choose tokens; [`ModelSettings`]: what the model's files say of it
//! * [`write()`]: writes on after the texts of a batch; [`write_each`] tells each token as it comes
//! * [`ContinuousWriter`]: any number of texts of one beam, so many at once, each at its own length
//! * `beam`: the search with several beams, and of models that are not written with so
//! * `choice`: the next token of such texts
//! * `rules`: what a text may not do, such as repeating itself; `past`: what they look at
//! * `sample`: tokens that are drawn, by their probability

mod beam;
mod choice;
mod continuous;
mod file;
mod past;
mod rules;
mod sample;
mod settings;
mod write;
mod written;

pub use continuous::{ContinuousWriter, Pace, Written};
pub use file::ModelSettings;
pub use settings::{EarlyStopping, GenerationConfig, GenerationSettings, FOR_SAMPLING};
pub use write::{write, write_each};
pub(crate) use written::write_config;

use crate::batch::Batch;
use crate::{Error, Result};
use tch::Tensor;

/// The file beside a model's weights that says how its authors have it write.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// A model that generates text, token by token.
pub trait TextGenerator {
    /// The token ids with a meaning of their own.
    fn tokens(&self) -> &SpecialTokens;

    /// Reads what the texts begin with (`batch.input_ids` of a decoder, padded on the left, or
    /// `batch.decoder_input_ids` beside the source of an encoder-decoder), and gives the next
    /// token's logits, `[batch, vocabulary]` in fp32. At most `room` tokens will follow.
    ///
    /// # Errors
    /// The batch lacks what the model reads, the texts would be longer than the model's positions,
    /// or the model's head gives labels and no text.
    fn start<'a>(
        &'a self,
        batch: &Batch,
        room: i64,
    ) -> Result<(Tensor, Box<dyn DecodingState + 'a>)>;

    /// Places for so many texts to be written side by side, each of a prompt of at most `length` tokens
    /// and `room` new ones; none of a model that writes its texts in step alone.
    ///
    /// # Errors
    /// The texts would be longer than the model's positions, or the model's head gives labels and no text.
    fn slots<'a>(
        &'a self,
        _slots: i64,
        _length: i64,
        _room: i64,
    ) -> Result<Option<Box<dyn DecodingSlots + 'a>>> {
        Ok(None)
    }
}

/// Places for texts that are written side by side, each at its own length: what a model keeps of the
/// tokens that it has read of each. What stands in one slot changes nothing of what is written in
/// another.
pub trait DecodingSlots {
    /// Reads the beginnings of texts, `ids`, `[texts, length]`, with padding behind them, of which
    /// `lengths`, `[texts]`, are tokens, into `slots`, `[texts]`, whatever stood there before; gives the
    /// next token's logits, `[texts, vocabulary]` in fp32.
    fn fill(&mut self, slots: &Tensor, ids: &Tensor, lengths: &Tensor) -> Tensor;

    /// Reads one token of each of the first slots, `[slots]`, at its place in its text,
    /// `positions`, `[slots]`, and gives the next one's logits, `[slots, vocabulary]` in fp32. No text
    /// is longer than `seen` with it, but those whose logits do not matter. It only launches operations
    /// on the device, on tensors that stay where they are.
    fn step(&mut self, tokens: &Tensor, positions: &Tensor, seen: i64) -> Tensor;

    /// Moves `slots`, `[any number]`, whose texts have `used` tokens at most, to the first ones, in
    /// that order.
    fn keep(&mut self, slots: &Tensor, used: i64);

    /// Whether steps can be recorded on a GPU: nothing in them waits for another process.
    fn can_be_recorded(&self) -> bool {
        true
    }
}

/// The state of decoding a batch of texts: what the model keeps of the tokens that it has read.
pub trait DecodingState {
    /// Reads one token a text, `[batch]`, and gives the next token's logits, `[batch, vocabulary]`.
    ///
    /// # Errors
    /// The model has no position left for the token.
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor>;

    /// Goes on with the texts that `rows`, `[any number]`, names by their row, in that order: beam
    /// search drops some and repeats others.
    fn select(&mut self, rows: &Tensor);
}

/// The token ids with a meaning of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// What a text ends with; any of them does.
    pub eos: Vec<i64>,
    /// What fills a batch up.
    pub pad: Option<i64>,
    /// What the decoder of an encoder-decoder begins with; none for a mere decoder.
    pub decoder_start: Option<i64>,
    /// The first token, whatever the model would write.
    pub forced_bos: Option<i64>,
    /// The last possible token, whatever the model would write.
    pub forced_eos: Option<i64>,
}

impl SpecialTokens {
    /// Refuses an end token that is not among so many.
    fn check(&self, vocabulary: i64) -> Result<()> {
        match self.eos.iter().find(|id| !(0..vocabulary).contains(id)) {
            None => Ok(()),
            Some(id) => Err(Error::Generation(format!(
                "the end token {id} is not among the model's {vocabulary} tokens"
            ))),
        }
    }

    /// The same, with further tokens that end a text.
    pub fn with_ends(&self, further: &[i64]) -> Self {
        let mut tokens = self.clone();
        for id in further {
            if !tokens.eos.contains(id) {
                tokens.eos.push(*id);
            }
        }
        tokens
    }
}
