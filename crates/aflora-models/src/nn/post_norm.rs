//! The block of the first transformer: what attention gives, then what the feed-forward layers
//! give, is added to what went in, and the sum is normalised (Vaswani et al. 2017, §3.1).

use super::activation::Activation;
use super::attention::{Attention, ForwardContext};
use super::mlp::fed;
use super::multi_head::{MultiHead, MultiHeadSizes};
use super::norm::AddNorm;
use super::scope::Scope;
use aflora_core::nn::Linear;
use aflora_core::Block;
use tch::Tensor;

/// The names of a block's layers, below the block's own.
#[derive(Debug)]
pub(crate) struct BlockNames {
    /// The projections of queries, keys and values, and of what comes out.
    pub attention: [&'static str; 4],
    pub attention_norm: &'static str,
    pub feed_forward: FeedForwardNames,
}

/// The names of the feed-forward layers and of their norm.
#[derive(Debug)]
pub(crate) struct FeedForwardNames {
    pub up: &'static str,
    pub down: &'static str,
    pub norm: &'static str,
}

/// What all blocks of a body have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockConfig {
    pub hidden: i64,
    pub heads: i64,
    /// The width of the feed-forward layers.
    pub wide: i64,
    pub activation: Activation,
    /// What LayerNorms add to the variance.
    pub eps: f64,
    pub dropout: BlockDropout,
}

/// The dropouts of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockDropout {
    /// Of the weights of attention.
    pub weights: f64,
    /// Of what attention gives.
    pub attended: f64,
    /// Between the feed-forward layers.
    pub between: f64,
    /// Of what the feed-forward layers give.
    pub fed: f64,
}

/// LayerNorm(x + drop(down(drop(act(up x))))).
#[derive(Debug)]
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
    dropout: f64,
    after: AddNorm,
}

impl FeedForward {
    pub fn new(scope: &Scope, names: &FeedForwardNames, config: &BlockConfig) -> Self {
        let BlockConfig { hidden, wide, activation, eps, .. } = *config;
        FeedForward {
            up: scope.adaptable(Block::Ffn, names.up, (hidden, wide), true),
            down: scope.adaptable(Block::Ffn, names.down, (wide, hidden), true),
            activation,
            dropout: config.dropout.between,
            after: scope.add_norm(names.norm, hidden, eps, config.dropout.fed),
        }
    }

    /// `[batch, length, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let p = if train { self.dropout } else { 0.0 };
        self.after.forward(fed(&self.up, self.activation, &self.down, p, x), x, train)
    }
}

/// A block whose tokens attend to one another.
#[derive(Debug)]
pub(crate) struct PostNormBlock {
    attention: MultiHead,
    after_attention: AddNorm,
    feed_forward: FeedForward,
}

impl PostNormBlock {
    pub fn new(scope: &Scope, names: &BlockNames, config: &BlockConfig) -> Self {
        let BlockConfig { hidden, heads, eps, dropout, .. } = *config;
        let attention = Attention { dropout: dropout.weights, ..Default::default() };
        let sizes = MultiHeadSizes::shared(hidden, heads);
        PostNormBlock {
            attention: MultiHead::new(scope, names.attention, sizes, attention),
            after_attention: scope.add_norm(names.attention_norm, hidden, eps, dropout.attended),
            feed_forward: FeedForward::new(scope, &names.feed_forward, config),
        }
    }

    /// `[batch, length, hidden]` to the same.
    pub fn forward(&self, x: &Tensor, context: &ForwardContext) -> Tensor {
        let attended = self.attention.forward(x, context, None);
        let x = self.after_attention.forward(attended, x, context.train);
        self.feed_forward.forward(&x, context.train)
    }
}
