//! T5's blocks: each part reads its norm of what is there, and is added to it.

use super::config::T5Config;
use crate::bodies::encoder_decoder::CrossBlock;
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, ForwardContext, KeyValues};
use crate::nn::linear::dropout;
use crate::nn::mlp::fed;
use crate::nn::multi_head::{HeadKeyValues, MultiHead, MultiHeadSizes};
use crate::nn::norm::{Norm, NormKind};
use crate::nn::scope::Scope;
use aflora_core::nn::{together, Linear, Module};
use aflora_core::Block::Ffn;
use tch::Tensor;

/// A part of a block, with its norm.
#[derive(Debug)]
struct Part<P> {
    norm: Norm,
    part: P,
    dropout: f64,
}

impl<P> Part<P> {
    fn new(scope: &Scope, config: &T5Config, part: P) -> Self {
        let norm = scope.norm(NormKind::Rms, "layer_norm", config.hidden, config.eps);
        Part { norm, part, dropout: config.dropout }
    }

    /// What the part makes of its norm of `x`, added to `x`.
    fn add(&self, x: &Tensor, train: bool, run: impl FnOnce(&P, &Tensor) -> Tensor) -> Tensor {
        let (x, normed) = self.norm.of_sum(x, None);
        x + dropout(run(&self.part, &normed), self.dropout, train)
    }
}

fn attention(scope: &Scope, name: &str, config: &T5Config) -> MultiHead {
    let T5Config { hidden, heads, head, .. } = *config;
    let sizes = MultiHeadSizes { hidden, heads, head, bias: false };
    // T5 does not divide scores by √size.
    let attention = Attention { dropout: config.dropout, scale: Some(1.0), ..Default::default() };
    MultiHead::new(&(scope / name), ["q", "k", "v", "o"], sizes, attention)
}

/// wo(drop(act(wi x))), or wo(drop(act(wi_0 x) ⊙ wi_1 x)).
#[derive(Debug)]
struct FeedForward {
    up: Linear,
    gated: Option<Linear>,
    down: Linear,
    activation: Activation,
    dropout: f64,
}

impl FeedForward {
    fn new(scope: Scope, config: &T5Config) -> Self {
        let T5Config { hidden, wide, activation, .. } = *config;
        let linear = |name, shape| scope.adaptable(Ffn, name, shape, false);
        let up = linear(if config.gated { "wi_0" } else { "wi" }, (hidden, wide));
        FeedForward {
            up,
            gated: config.gated.then(|| linear("wi_1", (hidden, wide))),
            down: linear("wo", (wide, hidden)),
            activation,
            dropout: config.dropout,
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let p = if train { self.dropout } else { 0.0 };
        let Some(gated) = &self.gated else {
            return fed(&self.up, self.activation, &self.down, p, x);
        };
        let [up, gated] = together([&self.up, gated], x);
        self.down.forward(&dropout(self.activation.gate(&up, &gated), p, true))
    }
}

fn feed_forward(scope: &Scope, config: &T5Config) -> Part<FeedForward> {
    Part::new(scope, config, FeedForward::new(scope / "DenseReluDense", config))
}

fn own_attention(scope: &Scope, config: &T5Config) -> Part<MultiHead> {
    Part::new(scope, config, attention(scope, "SelfAttention", config))
}

/// A block of the encoder.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    own: Part<MultiHead>,
    feed_forward: Part<FeedForward>,
}

impl EncoderLayer {
    pub fn new(scope: Scope, config: &T5Config) -> Self {
        let layer = &scope / "layer";
        EncoderLayer {
            own: own_attention(&(&layer / 0), config),
            feed_forward: feed_forward(&(&layer / 1), config),
        }
    }

    pub fn forward(&self, x: &Tensor, context: &ForwardContext) -> Tensor {
        let train = context.train;
        let x = self.own.add(x, train, |own, x| own.forward(x, context, None));
        self.feed_forward.add(&x, train, |feed_forward, x| feed_forward.forward(x, train))
    }
}

/// A block of the decoder.
#[derive(Debug)]
pub(super) struct DecoderLayer {
    own: Part<MultiHead>,
    cross: Part<MultiHead>,
    feed_forward: Part<FeedForward>,
}

impl DecoderLayer {
    pub fn new(scope: Scope, config: &T5Config) -> Self {
        let layer = &scope / "layer";
        let across = &layer / 1;
        DecoderLayer {
            own: own_attention(&(&layer / 0), config),
            cross: Part::new(&across, config, attention(&across, "EncDecAttention", config)),
            feed_forward: feed_forward(&(&layer / 2), config),
        }
    }
}

impl CrossBlock for DecoderLayer {
    fn source(&self, encoded: &Tensor) -> HeadKeyValues {
        self.cross.part.keys_and_values(encoded)
    }

    fn forward(
        &self,
        x: &Tensor,
        source: HeadKeyValues,
        own: &ForwardContext,
        of_source: &ForwardContext,
        keys: Option<&mut KeyValues>,
    ) -> Tensor {
        let train = own.train;
        let x = self.own.add(x, train, |attention, x| attention.forward(x, own, keys));
        let x = self.cross.add(&x, train, |cross, x| cross.across(x, source, of_source));
        self.feed_forward.add(&x, train, |feed_forward, x| feed_forward.forward(x, train))
    }
}
