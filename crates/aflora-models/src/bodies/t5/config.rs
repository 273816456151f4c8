//! The config.json of T5.

use crate::config_file::ConfigFile;
use crate::nn::activation::Activation;
use crate::nn::relative::Buckets;
use crate::Result;

/// A T5.
#[derive(Debug, Clone)]
pub(super) struct T5Config {
    pub vocab_size: i64,
    pub hidden: i64,
    pub wide: i64,
    pub heads: i64,
    /// The size of a head.
    pub head: i64,
    pub encoder_layers: i64,
    pub decoder_layers: i64,
    /// Of the encoder; the decoder's are for one side.
    pub buckets: Buckets,
    pub eps: f64,
    pub activation: Activation,
    /// Whether a second product gates the feed-forward layer.
    pub gated: bool,
    pub dropout: f64,
    pub classifier_dropout: f64,
    /// Whether states are divided by √hidden before the language head.
    pub scaled_states: bool,
}

impl T5Config {
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let layers = file.size("num_layers")?;
        let count = file.integer("relative_attention_num_buckets", 32)?;
        let farthest = file.integer("relative_attention_max_distance", 128)?;
        // Half of one side's have a distance each, up to where those that share one begin.
        if count < 4 || count % 4 != 0 || farthest <= count / 2 {
            return Err(file.problem(format!(
                "`relative_attention_num_buckets` is {count} and `relative_attention_max_distance` \
                 {farthest}: the first must be a multiple of 4, the second more than its half"
            )));
        }
        let kind: String = file.parse_or("feed_forward_proj", "relu".to_string())?;
        let (gated, name) = match kind.strip_prefix("gated-") {
            // As transformers has it, which goes back to the authors' code.
            Some("gelu") => (true, "gelu_new"),
            Some(name) => (true, name),
            None => (false, kind.as_str()),
        };
        let activation = serde_json::from_value(name.into())
            .map_err(|e| file.problem(format!("`feed_forward_proj` is \"{kind}\": {e}")))?;
        // The first T5 had one table for words and head, and scaled for that; the head of later
        // ones is their own. Transformers 5 writes the latter down by itself.
        let tied = file.flag("tie_word_embeddings", true)?;
        Ok(T5Config {
            vocab_size: file.size("vocab_size")?,
            hidden: file.size("d_model")?,
            wide: file.size("d_ff")?,
            heads: file.size("num_heads")?,
            head: file.size("d_kv")?,
            encoder_layers: layers,
            decoder_layers: file.integer("num_decoder_layers", layers)?,
            buckets: Buckets { count, farthest: farthest as f64, both_sides: true },
            eps: file.number("layer_norm_epsilon", 1e-6)?,
            activation,
            gated,
            dropout: file.dropout("dropout_rate", 0.1)?,
            classifier_dropout: file.dropout("classifier_dropout", 0.0)?,
            scaled_states: file.flag("scale_decoder_outputs", tied)?,
        })
    }
}
