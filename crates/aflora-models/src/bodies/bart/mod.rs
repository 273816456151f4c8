//! BART (Lewis et al. 2020).
//!
//! Ours, and not rust-bert's, which agrees with the released models in single precision, but
//! counts out its causal mask in the precision of the weights, copies keys and values for a cache
//! in training too, and does not fuse attention: a step of BART-large took longer than PEFT's and
//! twice its memory (`bench/README.md`).

mod config;
mod layers;
mod network;

use crate::backbone::{Backbone, Tied};
use crate::bodies::encoder_decoder::{self, EncoderDecoderSpec};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;
use config::BartConfig;
use network::BartBody;

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "d_model"),
    ("num_attention_heads", "encoder_attention_heads"),
    ("num_hidden_layers", "encoder_layers"),
];

/// The word embeddings' further names, of which the last is the language head's.
const WORDS: &[&str] =
    &["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"];
const TIED: [&[Tied]; 2] =
    [&[("model.shared.weight", WORDS)], &[("model.shared.weight", WORDS.split_at(2).0)]];

/// BART from its `config.json`. Weights are zero until loaded or initialised.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    let config = BartConfig::read(&file)?;
    let spec = EncoderDecoderSpec {
        hidden: config.hidden,
        max_positions: config.max_positions,
        vocab_size: config.vocab_size,
        names: TIED.map(|tied| ("model.", tied)),
        always_tied: &[],
        logits_bias: true,
        states_scale: None,
        classifier_dropout: config.classifier_dropout,
    };
    encoder_decoder::build(&file, head, options, spec, |root| BartBody::new(root, &config))
}
