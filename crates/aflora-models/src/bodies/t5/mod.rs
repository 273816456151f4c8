//! T5 and FLAN-T5 (Raffel et al. 2020; Chung et al. 2022): encoder and decoder without absolute
//! positions, whose first blocks hold what is added to scores by distance.

mod config;
mod layers;
mod network;

use crate::backbone::{Backbone, Tied};
use crate::bodies::encoder::{self, TaggerSpec};
use crate::bodies::encoder_decoder::{self, EncoderDecoderSpec};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;
use config::T5Config;
use network::{T5Body, T5Encoder};

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("head_dim", "d_kv"),
    ("hidden_size", "d_model"),
    ("num_attention_heads", "num_heads"),
    ("num_hidden_layers", "num_layers"),
];

/// Of a model that writes, and of one for labels: the prefix, and the word embeddings with their
/// further names, of which the language head's is one.
const NAMES: [(&str, &[Tied]); 2] = [
    (
        "",
        &[(
            "shared.weight",
            &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"],
        )],
    ),
    (
        "transformer.",
        &[(
            "transformer.shared.weight",
            &["transformer.encoder.embed_tokens.weight", "transformer.decoder.embed_tokens.weight"],
        )],
    ),
];

/// As [`NAMES`], of the encoder alone.
const ENCODER_NAMES: &[Tied] =
    &[("transformer.shared.weight", &["transformer.encoder.embed_tokens.weight"])];

/// The tables of the two sides, which read the shared one in every T5.
const SIDES: &[&str] = &[
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "transformer.encoder.embed_tokens.weight",
    "transformer.decoder.embed_tokens.weight",
];

/// T5 from its `config.json`; to label tokens its encoder alone. Weights are zero until loaded or initialised.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    let config = T5Config::read(&file)?;
    if let Head::Tokens(labels) = head {
        let spec = TaggerSpec {
            prefix: "transformer.",
            tied: ENCODER_NAMES,
            always_tied: SIDES,
            hidden: config.hidden,
            max_positions: i64::MAX,
            dropout: config.classifier_dropout,
        };
        return Ok(encoder::build_tagger(labels, options, spec, |root| {
            T5Encoder::new(root, "transformer", &config)
        }));
    }
    let spec = EncoderDecoderSpec {
        hidden: config.hidden,
        // Relative positions have no end.
        max_positions: i64::MAX,
        vocab_size: config.vocab_size,
        names: NAMES,
        always_tied: SIDES,
        logits_bias: false,
        states_scale: config.scaled_states.then(|| (config.hidden as f64).powf(-0.5)),
        classifier_dropout: config.classifier_dropout,
    };
    let model = match head {
        Head::Language => "",
        _ => "transformer",
    };
    encoder_decoder::build(&file, head, options, spec, |root| T5Body::new(root, model, &config))
}
