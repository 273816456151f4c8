//! Layers as the models of ours make them: with zeros, which cost nothing to make, and are loaded
//! over or initialised by name before they are used.

use tch::Tensor;
use tch_facade::nn;

pub(crate) fn linear(path: nn::Path, from: i64, to: i64) -> nn::Linear {
    nn::linear(path, from, to, zeros())
}

/// A linear layer without a bias.
pub(crate) fn bare_linear(path: nn::Path, from: i64, to: i64) -> nn::Linear {
    nn::linear(path, from, to, with_bias(zeros(), false))
}

pub(crate) fn with_bias(config: nn::LinearConfig, bias: bool) -> nn::LinearConfig {
    nn::LinearConfig { bias, ..config }
}

pub(crate) fn zeros() -> nn::LinearConfig {
    let zero = nn::Init::Const(0.0);
    nn::LinearConfig { ws_init: zero, bs_init: Some(zero), bias: true }
}

pub(crate) fn embedding(path: nn::Path, rows: i64, size: i64) -> nn::Embedding {
    let config = nn::EmbeddingConfig { ws_init: nn::Init::Const(0.0), ..Default::default() };
    nn::embedding(path, rows, size, config)
}

pub(crate) fn dropout(x: Tensor, p: f64, train: bool) -> Tensor {
    if train && p > 0.0 {
        x.dropout(p, true)
    } else {
        x
    }
}
