//! The layers that adapters are put on.

use crate::weight::FrozenWeight;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::Tensor;

/// The part of a transformer block that a layer belongs to.
///
/// AFLoRA trains the projection matrices of feed-forward layers and leaves those of attention
/// layers random and frozen by default, so it must know which is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Block {
    /// Query, key, value and the attention's output projection.
    Attention,
    /// The feed-forward layers.
    Ffn,
}

impl Block {
    /// The part of a block that a layer of this name is of: attention, where the name says
    /// `attn` or `attention` (as in `h.0.attn.c_proj`, `block.1.layer.0.SelfAttention.q`), else
    /// feed-forward.
    pub fn of_name(name: &str) -> Self {
        let name = name.to_lowercase();
        match ["attn", "attention"].iter().any(|word| name.contains(word)) {
            true => Block::Attention,
            false => Block::Ffn,
        }
    }
}

/// A linear layer that an adapter is put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The layer's path, such as `bert.encoder.layer.0.attention.self.query`.
    pub name: String,
    /// The number of its transformer block, 0 in the example, where it is in one.
    pub layer: Option<i64>,
    /// Its path within the block, `attention.self.query` in the example; else the whole path.
    pub module: String,
    /// Columns of `W0`.
    pub in_features: i64,
    /// Rows of `W0`.
    pub out_features: i64,
    /// Where in a transformer block the layer sits.
    pub block: Block,
}

impl Site {
    /// The layer `name`, whose weight is `[out_features, in_features]`.
    ///
    /// A path says by its first number which block it leads into: this is the one place where
    /// that is read out of it.
    pub fn new(name: impl Into<String>, in_features: i64, out_features: i64, block: Block) -> Self {
        let name = name.into();
        let mut parts = name.split('.');
        let layer = parts.find_map(|part| part.parse().ok());
        let within = parts.collect::<Vec<_>>().join(".");
        let module = if within.is_empty() { name.clone() } else { within };
        Site { name, layer, module, in_features, out_features, block }
    }
}

/// A frozen linear layer that gets an adapter, as a method sees it.
#[derive(Debug)]
pub struct Layer {
    /// The layer's name, shape and place.
    pub site: Arc<Site>,
    /// `W0`, `[out_features, in_features]`, of any kind: a handle, not a copy. None where only
    /// the model's shapes are known: what a method computes from it is then of the right shape
    /// and any value.
    pub weight: Option<FrozenWeight>,
    /// The bias, `[out_features]`, where the layer has one and its values are known.
    pub bias: Option<Tensor>,
}

impl Layer {
    /// A layer of which only the shape is known.
    pub fn shape_only(site: impl Into<Arc<Site>>) -> Self {
        Layer { site: site.into(), weight: None, bias: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_attention_from_the_rest() {
        for name in ["layers.0.self_attn.q_proj", "h.3.attn.c_proj", "layer.0.EncDecAttention.k"] {
            assert_eq!(Block::of_name(name), Block::Attention, "{name}");
        }
        for name in ["layers.0.fc1", "h.3.mlp.c_fc", "layer.1.DenseReluDense.wi", "classifier"] {
            assert_eq!(Block::of_name(name), Block::Ffn, "{name}");
        }
    }

    #[test]
    fn a_layer_knows_its_block_and_its_name_there() {
        for (name, layer, module) in [
            ("bert.encoder.layer.11.attention.self.query", Some(11), "attention.self.query"),
            ("transformer.h.0.mlp.c_fc", Some(0), "mlp.c_fc"),
            // Of groups within groups the outer one counts.
            ("albert_layer_groups.0.albert_layers.3.ffn", Some(0), "albert_layers.3.ffn"),
            ("pooler.dense", None, "pooler.dense"),
            ("up", None, "up"),
        ] {
            let site = Site::new(name, 4, 2, Block::Ffn);
            assert_eq!((site.layer, site.module.as_str()), (layer, module), "{name}");
        }
    }
}
