//! MPNet (Song et al. 2020): RoBERTa's positions and head, no token types, and a bias of the scores
//! of attention by distance, which all blocks share.

use super::embeddings::{Counted, EmbeddingsConfig, TokenTypes};
use super::sizes::Sizes;
use super::{numbered, BertConfig};
use crate::backbone::Backbone;
use crate::bodies::encoder::{HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::post_norm::{BlockNames, FeedForwardNames};
use crate::nn::relative::Buckets;
use crate::options::Options;
use crate::Result;

pub(super) const BUCKETS: Buckets = Buckets { count: 32, farthest: 128.0, both_sides: true };

const BLOCK: BlockNames = BlockNames {
    attention: ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
    attention_norm: "attention.LayerNorm",
    feed_forward: FeedForwardNames {
        up: "intermediate.dense",
        down: "output.dense",
        norm: "output.LayerNorm",
    },
};

/// The padding token's id, whatever the config says, as in transformers.
const PAD: i64 = 1;

/// MPNet from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let sizes = Sizes::read(&file, Activation::Gelu, 0.1)?;
    let buckets = file.integer("relative_attention_num_buckets", BUCKETS.count)?;
    if buckets != BUCKETS.count {
        return Err(file.problem(format!(
            "`relative_attention_num_buckets` is {buckets}; only {} are built",
            BUCKETS.count
        )));
    }
    let positions = file.size("max_position_embeddings")?;
    if positions <= PAD + 1 {
        return Err(file.problem(format!(
            "`max_position_embeddings` is {positions}, which leaves no position for a token"
        )));
    }
    let config = BertConfig {
        name: "mpnet",
        prefix: "mpnet.",
        max_positions: positions - PAD - 1,
        embeddings: EmbeddingsConfig {
            vocab_size: file.size("vocab_size")?,
            size: sizes.hidden,
            positions,
            counted: Counted::Tokens { pad: PAD },
            types: TokenTypes::No,
            eps: sizes.eps,
            dropout: sizes.dropout,
            projection: None,
        },
        block: sizes.block(),
        block_names: &BLOCK,
        blocks: numbered("encoder.layer", sizes.layers),
        bias: Some("encoder.relative_attention_bias"),
        head: TextHead {
            shape: HeadShape::default(),
            dense: "classifier.dense",
            activation: Activation::Tanh,
            out: "classifier.out_proj",
            dropout: [sizes.dropout; 2],
            token_dropout: sizes.dropout,
            modules: &["classifier"],
            new_modules: &["classifier"],
            may_lack: &[],
        },
    };
    super::build(config, head, options)
}
