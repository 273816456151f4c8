//! Writing text, a token at a time.
//!
//! * [`Writer`], [`Writing`]: what a model must do for it
//! * [`GenerationConfig`]: how to choose tokens
//! * [`write()`]: the search, which is greedy with one beam
//! * `rules`: what a text may not do, such as repeating itself

mod beam;
mod rules;
mod settings;

pub use beam::write;
pub use settings::{EarlyStopping, GenerationConfig};

use crate::backbone::Batch;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;
use tch::Tensor;

/// The file beside a model's weights that says how its authors have it write.
pub const GENERATION_CONFIG: &str = "generation_config.json";

/// A model that writes text.
pub trait Writer {
    /// The token ids with a meaning of their own.
    fn tokens(&self) -> &SpecialTokens;

    /// Reads what the texts begin with (`batch.input_ids` of a decoder, padded on the left, or
    /// `batch.decoder_input_ids` beside the source of an encoder-decoder), and gives the next
    /// token's logits, `[batch, vocabulary]` in fp32. At most `room` tokens will follow.
    fn start<'a>(&'a self, batch: &Batch, room: i64) -> Result<(Tensor, Box<dyn Writing + 'a>)>;
}

/// Texts being written: what the model remembers of them.
pub trait Writing {
    /// Reads one token a text, `[batch]`, and gives the next token's logits.
    fn step(&mut self, tokens: &Tensor) -> Result<Tensor>;

    /// Goes on with these texts, `[any number]`, in this order.
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
    /// From a model's `config.json`.
    ///
    /// # Errors
    /// An id is no whole number.
    pub(crate) fn read(config: &Path, keys: &serde_json::Map<String, Value>) -> Result<Self> {
        let ids = |name: &str| -> Result<Vec<i64>> {
            let problem = || Error::Config {
                path: config.to_path_buf(),
                problem: format!("`{name}` must be a token id, or a list of them"),
            };
            match keys.get(name) {
                None | Some(Value::Null) => Ok(Vec::new()),
                Some(Value::Array(list)) => {
                    list.iter().map(|id| id.as_i64().ok_or_else(problem)).collect()
                }
                Some(id) => Ok(vec![id.as_i64().ok_or_else(problem)?]),
            }
        };
        let id = |name: &str| Ok::<_, Error>(ids(name)?.first().copied());
        Ok(SpecialTokens {
            eos: ids("eos_token_id")?,
            pad: id("pad_token_id")?,
            decoder_start: id("decoder_start_token_id")?,
            forced_bos: id("forced_bos_token_id")?,
            forced_eos: id("forced_eos_token_id")?,
        })
    }
}
