//! The encoder: transformer blocks, the table of relative positions they share, and, in the
//! larger v2 models, a convolution beside the first block.

use super::attention::{SelfAttention, Shared};
use super::config::DebertaConfig;
use super::position::{DistanceRows, Positions};
use crate::nn::activation::Activation;
use crate::nn::chain::chain;
use crate::nn::linear::dropout;
use crate::nn::mlp::fed;
use crate::nn::norm::AddNorm;
use crate::nn::scope::Scope;
use aflora_core::nn::{self, Module};
use aflora_core::{Block, Checkpoints};
use std::rc::Rc;
use tch::{Kind, Tensor};

/// What is added to the score of a padding key: its weight is 0 in single precision and in
/// bf16, and a row of nothing but padding stays finite.
const MASKED: f64 = -1e30;

#[derive(Debug)]
struct Layer {
    attention: SelfAttention,
    attention_output: Output,
    intermediate: nn::Linear,
    activation: Activation,
    output: Output,
}

/// A linear layer whose output is added to what went into the sub-block, then normalised.
#[derive(Debug)]
struct Output {
    dense: nn::Linear,
    add_norm: AddNorm,
}

impl Output {
    fn new(scope: Scope, block: Block, from: i64, config: &DebertaConfig) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        Output {
            dense: scope.adaptable(block, "dense", (from, hidden), true),
            add_norm: scope.add_norm("LayerNorm", hidden, eps, config.hidden_dropout_prob),
        }
    }

    fn forward(&self, x: &Tensor, residual: &Tensor, train: bool) -> Tensor {
        self.add_norm.forward(self.dense.forward(x), residual, train)
    }
}

impl Layer {
    fn new(scope: Scope, config: &DebertaConfig) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (attention, intermediate) = (&scope / "attention", &scope / "intermediate");
        let output = &attention / "output";
        Layer {
            attention: SelfAttention::new(&attention / "self", config),
            attention_output: Output::new(output, Block::Attention, hidden, config),
            intermediate: intermediate.adaptable(Block::Ffn, "dense", (hidden, wide), true),
            activation: config.hidden_act,
            output: Output::new(&scope / "output", Block::Ffn, wide, config),
        }
    }

    fn forward(&self, x: &Tensor, shared: &Shared) -> Tensor {
        let attended = self.attention.forward(x, shared);
        let attended = self.attention_output.forward(&attended, x, shared.train);
        let Output { dense, add_norm } = &self.output;
        let fed = fed(&self.intermediate, self.activation, dense, 0.0, &attended);
        add_norm.forward(fed, &attended, shared.train)
    }
}

/// The convolution over the embeddings, added to the first block's output.
#[derive(Debug)]
struct Convolution {
    conv: nn::Conv1D,
    norm: nn::LayerNorm,
    activation: Activation,
    dropout: f64,
}

impl Convolution {
    fn new(scope: Scope, config: &DebertaConfig) -> Self {
        let conv_config = nn::ConvConfig {
            padding: (config.conv_kernel_size - 1) / 2,
            groups: config.conv_groups,
            ..Default::default()
        };
        let (hidden, width) = (config.hidden_size, config.conv_kernel_size);
        Convolution {
            conv: nn::conv1d((&scope / "conv").path(), hidden, hidden, width, conv_config),
            norm: scope.layer_norm("LayerNorm", hidden, config.layer_norm_eps),
            activation: config.conv_act,
            dropout: config.hidden_dropout_prob,
        }
    }

    /// `tokens`: 1 for a token and 0 for padding, `[batch, length, 1]`; all others
    /// `[batch, length, hidden]`.
    fn forward(&self, embedded: &Tensor, first: &Tensor, tokens: &Tensor, train: bool) -> Tensor {
        let out = self.conv.forward(&embedded.transpose(1, 2)).transpose(1, 2) * tokens;
        let out = self.activation.apply(&dropout(out, self.dropout, train));
        self.norm.forward(&(first + out)) * tokens
    }
}

/// The table of relative positions.
#[derive(Debug)]
struct RelativePositions {
    rows: nn::Embedding,
    norm: Option<nn::LayerNorm>,
}

impl RelativePositions {
    fn new(scope: &Scope, config: &DebertaConfig) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        RelativePositions {
            rows: scope.embedding("rel_embeddings", 2 * config.span(), hidden),
            norm: config.norms_positions().then(|| scope.layer_norm("LayerNorm", hidden, eps)),
        }
    }

    /// `[2 span, hidden]`.
    fn forward(&self) -> Tensor {
        match &self.norm {
            Some(norm) => norm.forward(&self.rows.ws),
            None => self.rows.ws.shallow_clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Blocks {
    stack: Rc<Stack>,
    positions: Positions,
}

/// The blocks and what they share.
#[derive(Debug)]
struct Stack {
    layers: Vec<Layer>,
    table: Option<RelativePositions>,
    convolution: Option<Convolution>,
}

/// What all blocks read of a batch.
#[derive(Debug)]
struct Input {
    /// 1 for a token and 0 for padding, `[batch, length]`.
    tokens: Tensor,
    /// Of the table by distance, where there is one.
    rows: Option<DistanceRows>,
    train: bool,
}

impl Blocks {
    pub fn new(scope: Scope, config: &DebertaConfig) -> Self {
        let layer = |i: i64| Layer::new(&scope / "layer" / i, config);
        let stack = Stack {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            table: config.relative_attention.then(|| RelativePositions::new(&scope, config)),
            convolution: (config.conv_kernel_size > 0)
                .then(|| Convolution::new(&scope / "conv", config)),
        };
        let positions = Positions::new(config, scope.path().device());
        Blocks { stack: Rc::new(stack), positions }
    }

    /// `embedded` `[batch, length, hidden]`, `tokens` as in the mask of the batch, 1 for a token
    /// and 0 for padding, `[batch, length]` in the kind of `embedded`. Gives `[batch, length,
    /// hidden]` with what a backward pass goes through.
    pub fn forward(
        &self,
        embedded: Tensor,
        tokens: Tensor,
        train: bool,
        checkpointing: bool,
    ) -> (Tensor, Checkpoints) {
        debug_assert_ne!(embedded.kind(), Kind::Half, "{MASKED} is infinite in half precision");
        let length = embedded.size()[1];
        let rows = self.stack.table.as_ref().map(|_| self.positions.rows(length));
        let input = Rc::new(Input { tokens, rows, train });
        // A block that runs twice makes what it shares itself: the graph behind that is its own.
        let shared = (!checkpointing).then(|| Rc::new(self.stack.shared(&input)));
        let blocks = (0..self.stack.layers.len()).map(|i| {
            let (stack, input, shared) = (self.stack.clone(), input.clone(), shared.clone());
            move |x: &Tensor| match &shared {
                Some(shared) => stack.block(i, x, &input, shared),
                None => stack.block(i, x, &input, &stack.shared(&input)),
            }
        });
        chain(embedded, blocks, checkpointing)
    }
}

impl Stack {
    fn shared(&self, input: &Input) -> Shared {
        let table = self.table.as_ref().map(RelativePositions::forward);
        let rows = input.rows.as_ref().map(DistanceRows::shallow_clone);
        Shared {
            mask: ((&input.tokens - 1.0) * -MASKED).unsqueeze(1).unsqueeze(1),
            positions: table.zip(rows),
            train: input.train,
        }
    }

    /// The block `i`; the first has the convolution beside it.
    fn block(&self, i: usize, x: &Tensor, input: &Input, shared: &Shared) -> Tensor {
        let out = self.layers[i].forward(x, shared);
        match &self.convolution {
            Some(convolution) if i == 0 => {
                convolution.forward(x, &out, &input.tokens.unsqueeze(2), input.train)
            }
            _ => out,
        }
    }
}
