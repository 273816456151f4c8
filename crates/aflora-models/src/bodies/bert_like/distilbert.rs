//! DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types, and other names.

use super::embeddings::{Counted, EmbeddingsConfig, TokenTypes};
use super::{numbered, BertConfig};
use crate::backbone::Backbone;
use crate::bodies::encoder::{HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::post_norm::{BlockConfig, BlockDropout, BlockNames, FeedForwardNames};
use crate::options::Options;
use crate::Result;

/// Keys that transformers reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_hidden_layers", "n_layers"),
];

const BLOCK: BlockNames = BlockNames {
    attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
    attention_norm: "sa_layer_norm",
    feed_forward: FeedForwardNames { up: "ffn.lin1", down: "ffn.lin2", norm: "output_layer_norm" },
};

/// Every LayerNorm's epsilon.
const EPS: f64 = 1e-12;

/// DistilBERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let file = file.rename(ALIASES);
    let (hidden, heads) = file.divided("dim", "n_heads")?;
    let dropout = file.dropout("dropout", 0.1)?;
    let positions = file.size("max_position_embeddings")?;
    let config = BertConfig {
        name: "distilbert",
        prefix: "distilbert.",
        embeddings: EmbeddingsConfig {
            vocab_size: file.size("vocab_size")?,
            size: hidden,
            // Sinusoids are in the checkpoint as learned positions are: they need not be made.
            positions,
            counted: Counted::All,
            types: TokenTypes::No,
            eps: EPS,
            dropout,
            projection: None,
        },
        block: BlockConfig {
            hidden,
            heads,
            wide: file.size("hidden_dim")?,
            activation: file.parse_or("activation", Activation::Gelu)?,
            eps: EPS,
            dropout: BlockDropout {
                weights: file.dropout("attention_dropout", 0.1)?,
                attended: 0.0,
                between: 0.0,
                fed: dropout,
            },
        },
        block_names: &BLOCK,
        blocks: numbered("transformer.layer", file.size("n_layers")?),
        max_positions: positions,
        bias: None,
        head: TextHead {
            shape: HeadShape::default(),
            dense: "pre_classifier",
            activation: Activation::Relu,
            out: "classifier",
            dropout: [0.0, file.dropout("seq_classif_dropout", 0.2)?],
            token_dropout: dropout,
            modules: &["pre_classifier", "classifier"],
            new_modules: &["pre_classifier", "classifier"],
            may_lack: &[],
        },
    };
    super::build(config, head, options)
}
