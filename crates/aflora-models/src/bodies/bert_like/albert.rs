//! ALBERT (Lan et al. 2020): narrow embeddings, and few blocks, run many times. An adapter on a
//! layer is shared as its weight is.

use super::embeddings::EmbeddingsConfig;
use super::sizes::Sizes;
use super::BertConfig;
use crate::backbone::Backbone;
use crate::bodies::encoder::{HeadShape, TextHead};
use crate::config_file::ConfigFile;
use crate::heads::Head;
use crate::nn::activation::Activation;
use crate::nn::post_norm::{BlockConfig, BlockDropout, BlockNames, FeedForwardNames};
use crate::options::Options;
use crate::Result;

const BLOCK: BlockNames = BlockNames {
    attention: ["attention.query", "attention.key", "attention.value", "attention.dense"],
    attention_norm: "attention.LayerNorm",
    feed_forward: FeedForwardNames { up: "ffn", down: "ffn_output", norm: "full_layer_layer_norm" },
};

/// More blocks than any model runs, one after the other.
const MOST_BLOCKS: i64 = 1 << 12;

/// ALBERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let sizes = Sizes::read(&file, Activation::GeluTanh, 0.0)?;
    let embeddings = EmbeddingsConfig {
        size: file.size("embedding_size")?,
        projection: Some("encoder.embedding_hidden_mapping_in"),
        ..EmbeddingsConfig::read(&file, &sizes)?
    };
    let block = sizes.block();
    let config = BertConfig {
        name: "albert",
        prefix: "albert.",
        max_positions: embeddings.positions,
        embeddings,
        block: BlockConfig { dropout: BlockDropout { fed: 0.0, ..block.dropout }, ..block },
        block_names: &BLOCK,
        blocks: blocks(&file, sizes.layers)?,
        bias: None,
        head: TextHead {
            shape: HeadShape::default(),
            dense: "albert.pooler",
            activation: Activation::Tanh,
            out: "classifier",
            dropout: [0.0, file.dropout("classifier_dropout_prob", 0.1)?],
            token_dropout: file.dropout("classifier_dropout_prob", 0.1)?,
            modules: &["classifier"],
            new_modules: &["classifier"],
            may_lack: &["albert.pooler"],
        },
    };
    super::build(config, head, options)
}

/// The blocks that run: each layer is one of the groups, each group some blocks.
fn blocks(file: &ConfigFile, layers: i64) -> Result<Vec<String>> {
    let count = |key: &str| match file.integer(key, 1)? {
        count @ 1.. => Ok(count),
        _ => Err(file.problem(format!("`{key}` must be a positive whole number"))),
    };
    let (groups, inner) = (count("num_hidden_groups")?, count("inner_group_num")?);
    // More groups than layers would never all run.
    if groups > layers {
        return Err(file.problem(format!(
            "num_hidden_groups is {groups}, more than num_hidden_layers, {layers}"
        )));
    }
    if layers.saturating_mul(inner) > MOST_BLOCKS {
        return Err(file.problem(format!(
            "num_hidden_layers {layers} times inner_group_num {inner} is more than any model has"
        )));
    }
    let name = |group, block| format!("encoder.albert_layer_groups.{group}.albert_layers.{block}");
    let group = |i: i64| (i as f64 / (layers as f64 / groups as f64)) as i64;
    let layer = |i: i64| (0..inner).map(move |block| name(group(i), block));
    Ok((0..layers).flat_map(layer).collect())
}
