//! BART's blocks: attention, feed-forward, and what is added to the stream after each, then
//! normalised.

use super::config::{BartConfig, Side};
use crate::nn::activation::Activation;
use crate::nn::attention::{split_heads, Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::norm::AddNorm;
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use aflora_core::Block;
use tch::Tensor;

/// Every LayerNorm's epsilon.
pub(super) const EPS: f64 = 1e-5;

/// Keys and values of what the encoder gave, for one block.
pub(super) type CrossKeyValues = [Tensor; 2];

#[derive(Debug)]
struct MultiHead {
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    heads: i64,
    attention: Attention,
}

impl MultiHead {
    fn new(scope: Scope, heads: i64, config: &BartConfig) -> Self {
        let shape = (config.hidden, config.hidden);
        let projection = |name: &str| scope.adaptable(Block::Attention, name, shape, true);
        MultiHead {
            q_proj: projection("q_proj"),
            k_proj: projection("k_proj"),
            v_proj: projection("v_proj"),
            out_proj: projection("out_proj"),
            heads,
            attention: Attention { dropout: config.attention_dropout, ..Default::default() },
        }
    }

    fn keys_and_values(&self, x: &Tensor) -> CrossKeyValues {
        [&self.k_proj, &self.v_proj].map(|p| split_heads(&p.forward(x), self.heads))
    }

    fn forward(
        &self,
        x: &Tensor,
        [key, value]: CrossKeyValues,
        context: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let query = split_heads(&self.q_proj.forward(x), self.heads);
        self.out_proj.forward(&self.attention.attend(&query, key, value, context, keys))
    }
}

/// The norm after a sub-block.
fn add_norm(scope: &Scope, name: &str, config: &BartConfig) -> AddNorm {
    scope.add_norm(name, config.hidden, EPS, config.dropout)
}

#[derive(Debug)]
struct FeedForward {
    fc1: nn::Linear,
    fc2: nn::Linear,
    activation: Activation,
    dropout: f64,
    after: AddNorm,
}

impl FeedForward {
    fn new(scope: &Scope, wide: i64, config: &BartConfig) -> Self {
        FeedForward {
            fc1: scope.adaptable(Block::Ffn, "fc1", (config.hidden, wide), true),
            fc2: scope.adaptable(Block::Ffn, "fc2", (wide, config.hidden), true),
            activation: config.activation,
            dropout: config.activation_dropout,
            after: add_norm(scope, "final_layer_norm", config),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let wide = self.activation.apply(&self.fc1.forward(x));
        self.after.forward(self.fc2.forward(&dropout(wide, self.dropout, train)), x, train)
    }
}

#[derive(Debug)]
pub(super) struct EncoderLayer {
    own: MultiHead,
    after_own: AddNorm,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    pub(super) fn new(scope: Scope, side: Side, config: &BartConfig) -> Self {
        EncoderLayer {
            own: MultiHead::new(&scope / "self_attn", side.heads, config),
            after_own: add_norm(&scope, "self_attn_layer_norm", config),
            feed_forward: FeedForward::new(&scope, side.wide, config),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, context: &ForwardContext) -> Tensor {
        let attended = self.own.forward(x, self.own.keys_and_values(x), context, None);
        let x = self.after_own.forward(attended, x, context.train);
        self.feed_forward.forward(&x, context.train)
    }
}

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
        DecoderLayer {
            own: MultiHead::new(&scope / "self_attn", side.heads, config),
            after_own: add_norm(&scope, "self_attn_layer_norm", config),
            cross: MultiHead::new(&scope / "encoder_attn", side.heads, config),
            after_cross: add_norm(&scope, "encoder_attn_layer_norm", config),
            feed_forward: FeedForward::new(&scope, side.wide, config),
        }
    }

    /// What this block sees of the encoder's output.
    pub(super) fn source(&self, encoded: &Tensor) -> CrossKeyValues {
        self.cross.keys_and_values(encoded)
    }

    /// `own` says which target tokens are seen, `of_source` which source tokens.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        source: CrossKeyValues,
        own: &ForwardContext,
        of_source: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let attended = self.own.forward(x, self.own.keys_and_values(x), own, keys);
        let x = self.after_own.forward(attended, x, own.train);
        let attended = self.cross.forward(&x, source, of_source, None);
        let x = self.after_cross.forward(attended, &x, own.train);
        self.feed_forward.forward(&x, own.train)
    }
}
