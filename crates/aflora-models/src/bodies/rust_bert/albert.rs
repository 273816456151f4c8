//! ALBERT: one block, run many times. An adapter on a layer of it is shared as its weight is.

use super::bert::{adapt, check_sizes};
use super::{absolute_positions, labels, ConfigFile, RustBert, Wrapper};
use crate::backbone::Backbone;
use crate::batch::Batch;
use crate::heads::Head;
use crate::options::Options;
use crate::Result;
use ::rust_bert::albert::{AlbertConfig, AlbertForSequenceClassification};
use aflora_core::nn;
use aflora_core::Block;
use tch::Tensor;

/// ALBERT from its `config.json`.
pub(crate) fn build(file: ConfigFile, head: Head, options: &Options) -> Result<Box<dyn Backbone>> {
    let labels = labels("albert", head, options)?;
    let mut keys = file;
    absolute_positions(&keys)?;
    check_sizes(&keys)?;
    keys.size("embedding_size")?;
    for key in ["num_hidden_groups", "inner_group_num"] {
        let groups = keys.integer(key, 1)?;
        if groups != 1 {
            // rust-bert mistakes one for the other; every released model has one of each.
            return Err(keys.problem(format!("`{key}` is {groups}; only 1 is built")));
        }
        keys.set(key, 1.into());
    }
    adapt(&mut keys, labels);
    for (key, value) in [("bos_token_id", 2), ("eos_token_id", 3), ("pad_token_id", 0)] {
        keys.default(key, value.into());
    }
    keys.default("initializer_range", 0.02.into());
    let config: AlbertConfig = keys.parse()?;
    let wrapper = Wrapper {
        forward,
        block,
        head_modules: &["classifier"],
        class_rows: "classifier",
        prefix: "albert.",
        max_positions: config.max_position_embeddings,
        vocab_size: config.vocab_size,
        layer_norm_eps: keys.number("layer_norm_eps", 1e-12)?,
    };
    let build = |root: &nn::Path<'_>| AlbertForSequenceClassification::new(root, &config);
    Ok(Box::new(RustBert::new(&keys, head, options, wrapper, build)?))
}

fn forward(model: &AlbertForSequenceClassification, batch: &Batch, train: bool) -> Result<Tensor> {
    let Batch { input_ids, attention_mask, token_type_ids, .. } = batch;
    let (ids, mask, types) = (Some(input_ids), Some(attention_mask), token_type_ids.as_ref());
    Ok(model.forward_t(ids, mask, types, None, None, train).logits)
}

fn block(name: &str) -> Option<Block> {
    if !name.contains(".albert_layers.") {
        None
    } else if name.ends_with(".attention.dense") {
        // rust-bert multiplies with this layer's weight itself, past the layer: an adapter on
        // it would do nothing.
        None
    } else if name.contains(".attention.") {
        Some(Block::Attention)
    } else {
        Some(Block::Ffn)
    }
}
