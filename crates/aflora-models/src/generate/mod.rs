//! Writing text, a token at a time.
//!
//! * [`TextGenerator`], [`DecodingState`]: what a model must do for it
//! * [`GenerationConfig`]: how to choose tokens; [`ModelSettings`]: what the model's files say of it
//! * [`write()`]: the search, which is greedy with one beam; [`write_each`] tells each token as it comes
//! * `rules`: what a text may not do, such as repeating itself
//! * `sample`: tokens that are drawn, by their probability

mod beam;
mod file;
mod rules;
mod sample;
mod settings;
mod written;

pub use beam::{write, write_each};
pub use file::ModelSettings;
pub use settings::{EarlyStopping, GenerationConfig, GenerationSettings, FOR_SAMPLING};
pub(crate) use written::write_config;

use crate::batch::Batch;
use crate::Result;
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
