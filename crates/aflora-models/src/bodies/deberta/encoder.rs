//! The encoder: transformer blocks, the table of relative positions they share, and, in the
//! larger v2 models, a convolution beside the first block.

use super::attention::{SelfAttention, Shared};
use super::config::DebertaConfig;
use super::position::Positions;
use super::{layer_norm, MASKED};
use crate::nn::activation::Activation;
use crate::nn::linear::{dropout, linear, AddNorm};
use tch::{Kind, Tensor};
use tch_facade::nn::{self, Module};

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
    fn new(path: nn::Path, from: i64, config: &DebertaConfig) -> Self {
        let (hidden, eps) = (config.hidden_size, config.layer_norm_eps);
        Output {
            dense: linear(&path / "dense", from, hidden),
            add_norm: AddNorm::new(&path / "LayerNorm", hidden, eps, config.hidden_dropout_prob),
        }
    }

    fn forward(&self, x: &Tensor, residual: &Tensor, train: bool) -> Tensor {
        self.add_norm.forward(self.dense.forward(x), residual, train)
    }
}

impl Layer {
    fn new(path: nn::Path, config: &DebertaConfig) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let attention = &path / "attention";
        Layer {
            attention: SelfAttention::new(&attention / "self", config),
            attention_output: Output::new(&attention / "output", hidden, config),
            intermediate: linear(&path / "intermediate" / "dense", hidden, wide),
            activation: config.hidden_act,
            output: Output::new(&path / "output", wide, config),
        }
    }

    fn forward(&self, x: &Tensor, shared: &Shared) -> Tensor {
        let attended = self.attention.forward(x, shared);
        let attended = self.attention_output.forward(&attended, x, shared.train);
        let wide = self.activation.apply(&self.intermediate.forward(&attended));
        self.output.forward(&wide, &attended, shared.train)
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
    fn new(path: nn::Path, config: &DebertaConfig) -> Self {
        let conv_config = nn::ConvConfig {
            padding: (config.conv_kernel_size - 1) / 2,
            groups: config.conv_groups,
            ..Default::default()
        };
        let (hidden, width) = (config.hidden_size, config.conv_kernel_size);
        Convolution {
            conv: nn::conv1d(&path / "conv", hidden, hidden, width, conv_config),
            norm: layer_norm(&path / "LayerNorm", config),
            activation: config.conv_act,
            dropout: config.hidden_dropout_prob,
        }
    }

    /// `tokens`: 1 for a token and 0 for padding, `[batch, length, 1]`.
    fn forward(&self, embedded: &Tensor, first: &Tensor, tokens: &Tensor, train: bool) -> Tensor {
        let out = self.conv.forward(&embedded.transpose(1, 2)).transpose(1, 2) * tokens;
        let out = self.activation.apply(&dropout(out, self.dropout, train));
        self.norm.forward(&(first + out)) * tokens
    }
}

#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<Layer>,
    rel_embeddings: Option<nn::Embedding>,
    rel_norm: Option<nn::LayerNorm>,
    convolution: Option<Convolution>,
    positions: Positions,
}

impl Encoder {
    pub fn new(path: nn::Path, config: &DebertaConfig) -> Self {
        let layer = |i: i64| Layer::new(&path / "layer" / i, config);
        let table = || {
            let rows = 2 * config.span();
            super::embedding(&path / "rel_embeddings", rows, config.hidden_size)
        };
        Encoder {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            rel_embeddings: config.relative_attention.then(table),
            rel_norm: config.norms_positions().then(|| layer_norm(&path / "LayerNorm", config)),
            convolution: (config.conv_kernel_size > 0)
                .then(|| Convolution::new(&path / "conv", config)),
            positions: Positions::new(config, path.device()),
        }
    }

    /// `embedded` `[batch, length, hidden]`, `tokens` as in the mask of the batch, 1 for a token
    /// and 0 for padding, `[batch, length]` in the kind of `embedded`.
    pub fn forward(&self, embedded: Tensor, tokens: &Tensor, train: bool) -> Tensor {
        let table = self.rel_embeddings.as_ref().map(|table| match &self.rel_norm {
            Some(norm) => norm.forward(&table.ws),
            None => table.ws.shallow_clone(),
        });
        let length = embedded.size()[1];
        let shared = Shared {
            mask: ((tokens - 1.0) * -MASKED).unsqueeze(1).unsqueeze(1),
            positions: table.as_ref().map(|table| (table, self.positions.rows(length))),
            train,
        };
        let mut x = embedded.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &shared);
            if let (0, Some(convolution)) = (i, &self.convolution) {
                x = convolution.forward(&embedded, &x, &tokens.unsqueeze(2), train);
            }
        }
        debug_assert_ne!(x.kind(), Kind::Half, "{MASKED} is infinite in half precision");
        x
    }
}
