//! BART's blocks: attention, feed-forward, and what is added to the stream after each, then
//! normalised.

use super::config::{BartConfig, Side};
use crate::bodies::encoder_decoder::CrossBlock;
use crate::nn::attention::{Attention, ForwardContext, KeyValues};
use crate::nn::multi_head::{HeadKeyValues, MultiHead, MultiHeadSizes};
use crate::nn::norm::AddNorm;
use crate::nn::post_norm::{
    BlockConfig, BlockDropout, BlockNames, FeedForward, FeedForwardNames, PostNormBlock,
};
use crate::nn::scope::Scope;
use tch::Tensor;

/// Every LayerNorm's epsilon.
pub(super) const EPS: f64 = 1e-5;

const FEED_FORWARD: FeedForwardNames =
    FeedForwardNames { up: "fc1", down: "fc2", norm: "final_layer_norm" };

/// The names of an encoder's block.
const ENCODER: BlockNames = BlockNames {
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    attention_norm: "self_attn_layer_norm",
    feed_forward: FEED_FORWARD,
};

fn block_config(side: Side, config: &BartConfig) -> BlockConfig {
    let dropout = BlockDropout {
        weights: config.attention_dropout,
        attended: config.dropout,
        between: config.activation_dropout,
        fed: config.dropout,
    };
    let (hidden, activation) = (config.hidden, config.activation);
    BlockConfig { hidden, heads: side.heads, wide: side.wide, activation, eps: EPS, dropout }
}

/// A block of the encoder.
pub(super) fn encoder_layer(scope: &Scope, side: Side, config: &BartConfig) -> PostNormBlock {
    PostNormBlock::new(scope, &ENCODER, &block_config(side, config))
}

/// A block of the decoder, which also attends to what the encoder gave.
#[derive(Debug)]
pub(super) struct DecoderLayer {
    own: MultiHead,
    after_own: AddNorm,
    cross: MultiHead,
    after_cross: AddNorm,
    feed_forward: FeedForward,
}

impl DecoderLayer {
    pub(super) fn new(scope: Scope, side: Side, config: &BartConfig) -> Self {
        let multi_head = |name: &str| {
            let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
            let attention = Attention { dropout: config.attention_dropout, ..Default::default() };
            let sizes = MultiHeadSizes::shared(config.hidden, side.heads);
            MultiHead::new(&(&scope / name), names, sizes, attention)
        };
        let add_norm = |name: &str| scope.add_norm(name, config.hidden, EPS, config.dropout);
        DecoderLayer {
            own: multi_head("self_attn"),
            after_own: add_norm("self_attn_layer_norm"),
            cross: multi_head("encoder_attn"),
            after_cross: add_norm("encoder_attn_layer_norm"),
            feed_forward: FeedForward::new(&scope, &FEED_FORWARD, &block_config(side, config)),
        }
    }
}

impl CrossBlock for DecoderLayer {
    fn source(&self, encoded: &Tensor) -> HeadKeyValues {
        self.cross.keys_and_values(encoded)
    }

    fn forward(
        &self,
        x: &Tensor,
        source: HeadKeyValues,
        own: &ForwardContext,
        of_source: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let attended = self.own.forward(x, own, keys);
        let x = self.after_own.forward(attended, x, own.train);
        let attended = self.cross.across(&x, source, of_source);
        let x = self.after_cross.forward(attended, &x, own.train);
        self.feed_forward.forward(&x, own.train)
    }
}
